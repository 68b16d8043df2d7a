# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""upsd: answering, reachable by those who need it and by nobody else, and with everyone logged in."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import hostnames
from ..base.systemd import MONITOR, SERVER, JournalEntry
from ..base.text import printable
from ..conf import upsd
from ..deploy import kits as deploy_kits
from ..net import access
from .exam import DAY, DEPLOY, PRIMARY, TROUBLES, Exam, Findings, Registry
from .findings import FAILURE, WARNING
from .observe import UpsdAnswer

check = Registry()


@check("upsd", "port")
def check_upsd(exam: Exam) -> Findings:
    """Does upsd answer, here and to whoever watches it from here, and does it know the UPS?"""
    if isinstance(exam.seen.served, str):
        yield exam.fail(
            "upsd",
            printable(exam.seen.served),
            "systemctl status nut-server; ss -tlnp | grep 3493; journalctl -u nut-server -n 50",
        )
    elif exam.served:
        yield exam.ok(
            "upsd",
            f"upsd {exam.served.report.version} answers, and serves {', '.join(ups.name for ups in exam.served.report.upses) or 'no UPS'}",
        )
    if exam.expected.primary and isinstance(exam.seen.served, str):
        return
    for system, said in exam.seen.watched.items():
        if isinstance(said, str):
            place = system.partition("@")[2]
            todo = f"on {place}: ss -tlnp | grep 3493, and its firewall (pve-firewall status; iptables -S; nft list ruleset)"
            yield exam.fail("port", f"{system} can't be asked from here: {printable(said)}", todo)
            continue
        stale = [f"{name}: {why}" for name, why in said.report.stale]
        if stale and not exam.expected.primary:
            words = f"{system} can be reached, and has no fresh data: {'; '.join(stale)}"
            yield exam.warn("port", words, "see the primary")
        else:
            yield exam.ok("port", f"{system} can be reached from here")


HELPED_DAYS = 7
_PEER_TODO = (
    "find the program there that does it (ss -tnp dport = :3493); a machine that is not a secondary needs no access "
    "to upsd (nut_server_allow)"
)
_HANG_TODO = "journalctl -u nut-watch -u nut-server; `nut-shutdown status` has the last events"


@check("upsd-watch", on=PRIMARY)
def check_what_upsd_needed(exam: Exam) -> Findings:
    """Did upsd need help lately: did somebody block it, or was it restarted because it hung?"""
    recent = [event for event in exam.seen.upsd_events if exam.seen.now - event.last < HELPED_DAYS * DAY]
    for event in recent[-TROUBLES:]:
        yield exam.warn("upsd-watch", str(event), _PEER_TODO if event.address else _HANG_TODO)
    if not recent:
        yield exam.ok("upsd-watch", f"nobody blocked upsd in the last {HELPED_DAYS} days, and it did not hang")


@check("listening", on=PRIMARY)
def check_listening(exam: Exam) -> Findings:
    """Does upsd listen where it should, and nowhere else?"""
    if "sockets" in exam.seen.troubles:
        yield from exam.report_unseen("listening", "sockets")
        return
    conf = exam.wanted.get("upsd.conf", exam.nut_file_text("upsd.conf"))
    wanted = upsd.read_listen_lines(conf) or [("localhost", upsd.PORT)]
    unit = exam.seen.units.get(SERVER)
    if unit and not unit.runs:
        return  # check_units() says so
    upsds = [(socket.address, socket.port) for socket in exam.seen.sockets if socket.process == "upsd"]
    # a container may not exam into other users' processes
    there = upsds or [(socket.address, socket.port) for socket in exam.seen.sockets]
    missing = [listen for listen in wanted if not any(upsd.is_listen(listen, place) for place in there)]
    extra = [place for place in upsds if not any(upsd.is_listen(listen, place) for listen in wanted)]
    if missing:
        where = ", ".join(hostnames.join_host(*place) for place in upsds) or "nowhere"
        words = f"upsd should listen on {', '.join(hostnames.join_host(*place) for place in missing)}, and listens on {where}"
        todo = f"ss -tlnp | grep upsd; {DEPLOY.format(host=exam.host)}; systemctl restart nut-server (LISTEN counts at its start only)"
        yield exam.fail("listening", words, todo)
    elif extra:
        words = f"upsd listens on {', '.join(hostnames.join_host(*place) for place in extra)}, which the inventory does not say"
        yield exam.warn(
            "listening", words, f"{DEPLOY.format(host=exam.host)}; systemctl restart nut-server, while on mains"
        )
    else:
        yield exam.ok(
            "listening", f"upsd listens on {', '.join(hostnames.join_host(*place) for place in upsds or wanted)}"
        )


@check("firewall", on=PRIMARY)
def check_firewall(exam: Exam) -> Findings:
    """Does Proxmox VE's firewall let the secondaries in?"""
    yield from exam.report_unseen("firewall", "firewall")
    if exam.seen.firewall:
        words, *rest = exam.seen.firewall
        yield exam.fail("firewall", words, " ".join(rest) or "nut_server_firewall: rules lets the role do it")
    elif exam.seen.firewall is not None:
        yield exam.ok("firewall", "Proxmox VE's firewall lets the secondaries in, or is off")


@check("access", on=PRIMARY)
def check_access(exam: Exam) -> Findings:
    """Does the host refuse those who need not connect to upsd, and let in those who must?"""
    if not upsd.is_reachable(exam.nut_file_text("upsd.conf")):
        return
    if "access" in exam.seen.troubles:
        yield from exam.report_unseen("access", "access")
        return
    if deploy_kits.ACCESS.name not in exam.expected.kits:
        if exam.seen.access is None:
            words = "any machine on the network may connect to upsd, and blocking upsd takes no login"
            yield exam.note(
                "access", words, "nut_server_allow without `any`: then only the secondaries and what it lists"
            )
        return
    table = exam.seen.own_files.get(deploy_kits.ACCESS.places[deploy_kits.ACCESS_TABLE].path)
    if table is None:
        return  # check_kits() says so
    problems = list(_table_problems(exam, table.text))
    yield from problems
    refusals = access.explain_refusals(exam.seen.access)
    if refusals:
        words, _unused, todo = refusals.partition(". ")
        yield exam.note("access", words, todo)
    elif not problems:
        names = [source.name for source in access.parse_sources(table.text)]
        yield exam.ok("access", f"may connect to upsd: this host, {', '.join(names) or 'nobody else'}")


def _table_problems(exam: Exam, text: str) -> Findings:
    difference = access.find_difference(exam.seen.access, text)
    if difference:
        words = f"who may connect to upsd is not limited as /etc/nut/access.nft has it: {difference}"
        todo = f"journalctl -u {deploy_kits.ACCESS_UNIT} -n 20; systemctl restart {deploy_kits.ACCESS_UNIT}"
        yield exam.fail("access", words, todo)
    ports = {port for _unused, port in exam.files.listening}
    # one more is that which upsd had before the last run
    open_ports = sorted(ports - access.parse_ports(text))
    if open_ports:
        words = f"upsd listens on port {', '.join(map(str, open_ports))}, which /etc/nut/access.nft does not cover"
        yield exam.fail("access", words, DEPLOY)
    networks = access.collapse_networks(network for those in access.parse_sources(text).values() for network in those)
    for client in exam.expected.clients:
        those = exam.seen.addresses.get(client.name, "its address was not looked up")
        if isinstance(those, str):
            continue  # check_logins() says so
        refused = [address for address in those if not access.is_allowed(address, networks)]
        if refused:
            words = f"{client.name} has the address {', '.join(refused)}, which /etc/nut/access.nft does not allow"
            yield exam.make_finding(
                "access", FAILURE if len(refused) == len(those) else WARNING, words, DEPLOY, client.name
            )


@check("login", "strangers")
def check_logins(exam: Exam) -> Findings:
    """Is everyone logged in who should be? Findings about a secondary have its name."""
    if exam.expected.primary:
        if exam.served is None:
            for client in exam.expected.clients:
                words = f"upsd on {exam.host} does not answer, so {client.name} can't be logged in"
                yield exam.fail("login", words, f"see {exam.host}", client.name)
            return
        yield from _expected_logins(exam, exam.served)
    refused = _last_refusal(exam.seen.journal)
    for system, said in exam.seen.watched.items():
        if isinstance(said, str) or (exam.expected.primary and not said.report.upses):
            continue
        clients = {hostnames.normal_address(address) for state in said.report.upses for address in state.clients}
        if hostnames.normal_address(said.own_address) in clients:
            yield exam.ok("login", f"upsmon is logged in to {system}")
        else:
            why = f"; upsd refuses its password ({refused})" if refused else ""
            todo = f"journalctl -u {MONITOR} -n 50; {DEPLOY.format(host=exam.host)}"
            yield exam.fail(
                "login", f"upsmon of this host ({said.own_address}) is not logged in to {system}{why}", todo
            )


def _expected_logins(exam: Exam, served: UpsdAnswer) -> Findings:
    known = {hostnames.LOOPBACK, hostnames.normal_address(served.own_address)}
    for client in exam.expected.clients:
        state = exam.upses.get(client.ups.lower())
        those = exam.seen.addresses.get(client.name, "its address was not looked up")
        if state is None:
            yield exam.fail(
                "login",
                f"upsd on {exam.host} does not serve {client.ups}, which {client.name} watches",
                DEPLOY,
                client.name,
            )
            continue
        if isinstance(those, str):
            words = f"seen from {exam.host}: {those}"
            yield exam.unknown("login", words, "set nut_client_address to the address from which it comes", client.name)
            continue
        known.update(those)
        clients = {hostnames.normal_address(each) for each in state.clients}
        if clients & set(those):
            yield exam.ok("login", f"logged in to {client.ups} on {exam.host}", "", client.name)
        else:
            there = ", ".join(sorted(clients)) or "nobody"
            refusals = access.explain_refusals(exam.seen.access)
            words = (
                f"not logged in to {client.ups} on {exam.host}, where {there} is. It would not be told of a power cut"
            )
            words += f". Addresses {refusals}" if refusals else ""
            todo = (
                f"is it on, and its UPS service? Can it reach {exam.host} (upsc {client.ups}@{exam.host} there)? Is its password right "
                f"(journalctl -u nut-server)? {DEPLOY.format(host=client.name)}"
            )
            yield exam.fail("login", words, todo, client.name)
    others = sorted({hostnames.normal_address(each) for state in exam.upses.values() for each in state.clients} - known)
    if others:
        words = f"logged in, and not in the inventory: {', '.join(others)}. HOSTSYNC is waited for each"
        yield exam.note("strangers", words, "put it into the inventory, or stop its upsmon")
    else:
        yield exam.ok("strangers", "nobody is logged in who is not in the inventory")


def _last_refusal(journal: Sequence[JournalEntry]) -> str:
    found = [entry.words for entry in journal if "ACCESS-DENIED" in entry.words]
    return printable(found[-1], 80) if found else ""
