# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""upsd: does it answer, can only the right machines reach it, and are all secondaries logged in?"""

from __future__ import annotations

from collections.abc import Sequence

from ..base import hostnames
from ..base.systemd import MONITOR, SERVER, JournalEntry
from ..base.text import printable
from ..conf import upsd
from ..conf.feeds import OWN_UPSD
from ..deploy import kits as deploy_kits
from ..net import access
from .exam import DAY, DEPLOY, PRIMARY, TROUBLES, Exam, Findings, Registry, name_unit, restart_on_mains
from .findings import FAILURE, WARNING
from .observe import UpsdAnswer

check = Registry()


@check("upsd", "port")
def check_upsd(exam: Exam) -> Findings:
    """Check that this host's upsd answers, and each upsd that this host's upsmon watches."""
    if isinstance(exam.seen.served, str):
        yield exam.fail(
            "upsd",
            printable(exam.seen.served),
            f"systemctl status nut-server; ss -tlnp | grep {exam.files.ports[0]}; journalctl -u nut-server -n 50",
            about=[SERVER, "nut.conf"],
        )
    elif exam.served:
        yield exam.ok(
            "upsd",
            f"upsd {exam.served.report.version} answers and serves {', '.join(ups.name for ups in exam.served.report.upses) or 'no UPS'}",
        )
    if exam.expected.primary and isinstance(exam.seen.served, str):
        return
    for system, answer in exam.seen.watched.items():
        if isinstance(answer, str):
            (monitor, *_twins) = [monitor for monitor in exam.files.monitors if monitor.system == system]
            todo = f"on {monitor.host}: ss -tlnp | grep {monitor.port}; nft list ruleset"
            message = f"{system} can't be reached from here: {printable(answer)}"
            yield exam.fail("port", message, todo, about=[SERVER, "nut.conf"])
            continue
        stale = [f"{name}: {why}" for name, why in answer.report.stale]
        if stale and not exam.expected.primary:
            message = f"{system} is reachable, but has no fresh data: {'; '.join(stale)}"
            yield exam.warn(
                "port", message, f"on the primary: upsc {system}", about=[ups for ups, _why in answer.report.stale]
            )
        else:
            yield exam.ok("port", f"{system} is reachable from here")


@check("primary-name")
def check_primary_name(exam: Exam) -> Findings:
    """Check that upsmon finds its primary without a name server.

    As long as no name server answers, NUT's upscli_tryconnect() asks again at once, for ever (2.8.0 to 2.8.5: tests/oracle/test_names.py).
    upsmon then does not notice that its primary is gone, so this host would run until the battery is empty.
    """
    hosts = dict.fromkeys(monitor.host for monitor in exam.files.monitors)
    names = [name for name in hosts if name not in OWN_UPSD and not hostnames.is_address(name.strip("[]"))]
    unknown = [name for name in names if name.rstrip(".").lower() not in exam.seen.local_names]
    yield from exam.report_unseen("primary-name", "local names")
    if unknown and "local names" not in exam.seen.troubles:
        found = printable(", ".join(unknown))
        message = (
            f"upsmon needs a name server to find {found}. If none answers in an outage and the connection to the primary is lost, "
            f"upsmon hangs, and this host does not shut down"
        )
        todo = f"set nut_server_address of the primary to its address, or add {found} to /etc/hosts here"
        yield exam.warn("primary-name", message, todo)
    elif names:
        yield exam.ok("primary-name", f"{printable(', '.join(names))} is in /etc/hosts, so upsmon needs no name server")


WATCH_DAYS = 7
_PEER_TODO = "on that machine: ss -tnp dport = :{port}; only secondaries need access to upsd (nut_server_allow)"
_HANG_TODO = "journalctl -u nut-watch -u nut-server; nut-shutdown status"


@check("upsd-watch", where=PRIMARY)
def check_upsd_watch(exam: Exam) -> Findings:
    """Report whether a machine recently blocked upsd, or upsd hung and was restarted."""
    recent = [event for event in exam.seen.upsd_events if exam.seen.now - event.last < WATCH_DAYS * DAY]
    for event in recent[-TROUBLES:]:
        todo = _PEER_TODO.format(port=exam.files.ports[0]) if event.address else _HANG_TODO
        yield exam.warn("upsd-watch", str(event), todo)
    if not recent:
        yield exam.ok("upsd-watch", f"upsd was not blocked and did not hang in the last {WATCH_DAYS} days")


@check("listening", where=PRIMARY)
def check_listening(exam: Exam) -> Findings:
    """Check that upsd listens on the right addresses, and on no others."""
    if "sockets" in exam.seen.troubles:
        yield from exam.report_unseen("listening", "sockets")
        return
    conf = exam.wanted.get("upsd.conf", exam.nut_file_text("upsd.conf"))
    wanted = upsd.read_listen_lines(conf) or [("localhost", upsd.PORT)]
    unit = exam.seen.units.get(SERVER)
    if unit and not unit.runs:
        return  # check_units() reports it
    upsds = [(socket.address, socket.port) for socket in exam.seen.sockets if socket.process == "upsd"]
    # In a container the processes behind the sockets may be unknown.
    sockets = upsds or [(socket.address, socket.port) for socket in exam.seen.sockets]
    missing = [listen for listen in wanted if not any(upsd.is_listen(listen, place) for place in sockets)]
    extra = [place for place in upsds if not any(upsd.is_listen(listen, place) for listen in wanted)]
    if missing:
        where = ", ".join(hostnames.join_host(*place) for place in upsds) or "nowhere"
        message = f"upsd should listen on {', '.join(hostnames.join_host(*place) for place in missing)}, but listens on {where}"
        # upsd reads LISTEN only when it starts
        todo = f"ss -tlnp | grep upsd; {DEPLOY.format(host=exam.limit)}; {restart_on_mains(SERVER)}"
        yield exam.fail("listening", message, todo)
    elif extra:
        message = f"upsd also listens on {', '.join(hostnames.join_host(*place) for place in extra)}, which is not in the inventory"
        yield exam.warn("listening", message, f"{DEPLOY.format(host=exam.limit)}; {restart_on_mains(SERVER)}")
    else:
        yield exam.ok(
            "listening", f"upsd listens on {', '.join(hostnames.join_host(*place) for place in upsds or wanted)}"
        )


@check("firewall", where=PRIMARY)
def check_firewall(exam: Exam) -> Findings:
    """Check that Proxmox VE's firewall lets the secondaries reach upsd."""
    yield from exam.report_unseen("firewall", "firewall")
    if exam.seen.firewall:
        message, *rest = exam.seen.firewall
        yield exam.fail(
            "firewall", message, " ".join(rest) or "set nut_server_firewall: rules, and the role adds the rules"
        )
    elif exam.seen.firewall is not None:
        yield exam.ok("firewall", "Proxmox VE's firewall lets the secondaries in, or is off")


@check("access", where=PRIMARY)
def check_access(exam: Exam) -> Findings:
    """Check that exactly the right machines can connect to upsd."""
    if not upsd.is_reachable(exam.nut_file_text("upsd.conf")):
        return
    if "access" in exam.seen.troubles:
        yield from exam.report_unseen("access", "access")
        return
    if deploy_kits.ACCESS.name not in exam.expected.kits:
        if exam.seen.access is None:
            message = "any machine on the network can connect to upsd, and can block it without a login"
            yield exam.note(
                "access",
                message,
                "remove `any` from nut_server_allow, so that only secondaries and listed networks can connect",
            )
        return
    table = exam.seen.own_files.get(deploy_kits.ACCESS.places[deploy_kits.ACCESS_TABLE].path)
    if table is None:
        return  # check_kits() reports it
    problems = list(_table_problems(exam, table.text))
    yield from problems
    refusals = access.explain_refusals(exam.seen.access)
    if refusals:
        message, _unused, todo = refusals.partition(". ")
        yield exam.note("access", message, todo)
    elif not problems:
        names = [source.name for source in access.parse_sources(table.text)]
        yield exam.ok("access", f"only these can connect to upsd: {', '.join(['this host', *names])}")


def _table_problems(exam: Exam, text: str) -> Findings:
    difference = access.find_difference(exam.seen.access, text)
    if difference:
        message = f"access to upsd is not limited as in /etc/nut/access.nft: {difference}"
        todo = f"journalctl -u {deploy_kits.ACCESS_UNIT} -n 20; systemctl restart {deploy_kits.ACCESS_UNIT}"
        yield exam.fail("access", message, todo)
    ports = {port for _unused, port in exam.files.listening}
    # The file may cover one port more: the one that upsd had before the last run.
    open_ports = sorted(ports - access.parse_ports(text))
    if open_ports:
        message = f"upsd listens on port {', '.join(map(str, open_ports))}, which /etc/nut/access.nft does not cover"
        yield exam.fail("access", message, DEPLOY)
    networks = access.collapse_networks(network for source in access.parse_sources(text).values() for network in source)
    for client in exam.expected.clients:
        addresses = exam.seen.addresses.get(client.name, "its address was not resolved")
        if isinstance(addresses, str):
            continue  # check_logins() reports it
        refused = [address for address in addresses if not access.is_allowed(address, networks)]
        if refused:
            message = f"{client.name} has the address {', '.join(refused)}, which /etc/nut/access.nft does not allow"
            yield exam.make_finding(
                "access", FAILURE if len(refused) == len(addresses) else WARNING, message, DEPLOY, client.name
            )


@check("login", "strangers")
def check_logins(exam: Exam) -> Findings:
    """Check that every secondary is logged in to upsd. A finding about a secondary carries the secondary's name as host."""
    if exam.expected.primary:
        if exam.served is None:
            for client in exam.expected.clients:
                message = f"upsd on {exam.host} does not answer, so {client.name} is not logged in"
                yield exam.fail(
                    "login", message, f"make doctor limit={exam.host}", client.name, about=[SERVER, "nut.conf"]
                )
            return
        yield from _expected_logins(exam, exam.served)
    refused = _last_refusal(exam.seen.journal)
    for system, answer in exam.seen.watched.items():
        if isinstance(answer, str) or (exam.expected.primary and not answer.report.upses):
            continue
        clients = {hostnames.normal_address(address) for state in answer.report.upses for address in state.clients}
        if hostnames.normal_address(answer.own_address) in clients:
            yield exam.ok("login", f"upsmon is logged in to {system}")
        else:
            why = f"; upsd rejects its password ({refused})" if refused else ""
            todo = f"journalctl -u {MONITOR} -n 50; {DEPLOY.format(host=exam.limit)}"
            message = f"this host's upsmon ({answer.own_address}) is not logged in to {system}{why}"
            yield exam.fail("login", message, todo, about=_login_subjects(exam.host))


def _expected_logins(exam: Exam, served: UpsdAnswer) -> Findings:
    known = {hostnames.LOOPBACK, hostnames.normal_address(served.own_address)}
    for client in exam.expected.clients:
        state = exam.upses.get(client.ups.lower())
        addresses = exam.seen.addresses.get(client.name, "its address was not resolved")
        if state is None:
            yield exam.fail(
                "login",
                f"upsd on {exam.host} does not serve {client.ups}, which {client.name} watches",
                DEPLOY,
                client.name,
                about=[unserved(client.ups)],
            )
            continue
        if isinstance(addresses, str):
            message = f"on {exam.host}: {addresses}"
            todo = f"set nut_client_address of {client.name} to the address it connects from"
            yield exam.unknown("login", message, todo, client.name, about=[client.name])
            continue
        known.update(addresses)
        clients = {hostnames.normal_address(address) for address in state.clients}
        if clients & set(addresses):
            yield exam.ok("login", f"logged in to {client.ups} on {exam.host}", client.name)
        else:
            logged_in = ", ".join(sorted(clients)) or "none"
            refusals = access.explain_refusals(exam.seen.access)
            message = f"not logged in to {client.ups}@{exam.host} (logged in: {logged_in}), so it would not shut down in a power cut"
            message += f". Addresses {refusals}" if refusals else ""
            todo = f"check that it is on and that its UPS service is running; on {client.name}: upsc {client.system}; "
            todo += (
                f"on {exam.host}: journalctl -u nut-server -n 50; {DEPLOY.format(host=f'{exam.host},{client.name}')}"
            )
            if not client.managed:
                todo = (
                    f"check that it is on, and what is entered there (docs/clients.md): the UPS is {client.system}; on {exam.host}: "
                    "journalctl -u nut-server -n 50"
                )
            yield exam.fail("login", message, todo, client.name, about=_login_subjects(client.name))
    others = sorted(
        {hostnames.normal_address(address) for state in exam.upses.values() for address in state.clients} - known
    )
    if others:
        message = (
            f"logged in, but not in the inventory: {', '.join(others)}. The primary waits for them, up to HOSTSYNC"
        )
        yield exam.note("strangers", message, "add it to the inventory, or stop its upsmon")
    else:
        yield exam.ok("strangers", "all logged-in machines are in the inventory")


def unserved(ups: str) -> str:
    """Return the subject of findings that upsd does not serve a UPS."""
    return f"{ups.lower()} in upsd"


def _login_subjects(machine: str) -> list[str]:
    """Return what the login of a machine depends on, as the subjects of findings about that."""
    return [name_unit(MONITOR, machine), SERVER, "upsmon.conf", "nut.conf", machine]


def _last_refusal(journal: Sequence[JournalEntry]) -> str:
    """Return the last log line in which upsd rejected a password, "" if there is none."""
    refusals = [entry.words for entry in journal if "ACCESS-DENIED" in entry.words]
    return printable(refusals[-1], 80) if refusals else ""
