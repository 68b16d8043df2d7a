# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may connect to upsd. No login is needed to block it, so a stranger must not get as far as a connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from homelab import Lab
from support import extra, status, unit, until
from testinfra.host import Host

PRIMARIES = ("pve8", "pve9")
# one of the inventory's machines that has nothing to do with this primary is a stranger to it, like any other on the network
SECONDARY = {"pve8": "media", "pve9": "truenas9"}
STRANGER = {"pve8": "truenas9", "pve9": "media"}
FILES = (
    "/etc/nut/access.nft",
    "/etc/systemd/system/nut-access.service",
    "/etc/systemd/system/nut-access-refresh.service",
    "/etc/systemd/system/nut-access-refresh.timer",
    "/etc/systemd/system/nftables.service.d/homelab-nut.conf",
    "/usr/local/sbin/nut-access",
)
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as peer:
        peer.sendall(b"VER\\n" if sys.argv[2] == "3493" else b"")
        peer.settimeout(5)
        print(peer.recv(100).decode())
except ConnectionError as error:
    print(type(error).__name__)
"""
REFUSED = "ConnectionRefusedError"
On = Callable[[str], Host]
Play = Callable[..., object]


def ask(host: Host, where: str, port: int = 3493) -> str:
    """Return what a machine hears at a port; the name of the error if it is refused."""
    return host.check_output("python3 -c %s %s %s", ASK, where, str(port)).strip()


def is_loaded(host: Host) -> bool:
    """Return whether the table is loaded as its file has it."""
    return host.run("nut-access status").rc == 0


@contextmanager
def is_made(host: Host, do: str, undo: str) -> Iterator[None]:
    """Do something on a host, and undo it in the end."""
    try:
        assert host.run(do).rc == 0
        yield
    finally:
        assert host.run(undo).rc == 0


@pytest.fixture(params=PRIMARIES)
def primary(request: pytest.FixtureRequest) -> str:
    """Return the name of a primary: Debian 12 with systemd 252 and NUT 2.8.0, Debian 13 with 257 and 2.8.1."""
    name: str = request.param
    return name


def test_a_stranger_is_refused_and_reaches_all_else(on: On, primary: str) -> None:
    stranger = on(STRANGER[primary])
    assert ask(stranger, primary) == REFUSED
    assert ask(stranger, primary, 22).startswith("SSH-2.0-")
    assert ask(on(SECONDARY[primary]), primary).startswith("Network UPS Tools upsd")
    assert ask(on(primary), "localhost").startswith("Network UPS Tools upsd")
    # by its own address, too, as of a web server on the host itself
    assert ask(on(primary), primary).startswith("Network UPS Tools upsd")
    address = stranger.check_output("hostname -I").split()[0]
    assert address in on(primary).check_output("nut-access status").splitlines()[-1]


def test_a_stranger_who_blocks_upsd_already_is_cut_off(on: On, primary: str) -> None:
    """One who asks and does not read. His machine says then that the connection is no more, and upsd serves again."""
    stranger, host = on(STRANGER[primary]), on(primary)
    block = (
        "import socket\n"
        "peer = socket.socket(); peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)\n"
        f"peer.connect(('{primary}', 3493))\n"
        "while True: peer.sendall(b'LIST VAR ups\\n' * 100)\n"
    )
    asks = "timeout 3 upsc ups@localhost ups.status"
    # without the watch, which has set a time limit on the sockets of the upsd that runs; its start wants the table
    stop = "systemctl stop nut-watch nut-access-refresh.timer; systemctl restart nut-server; systemctl stop nut-access"
    with is_made(host, stop, "systemctl start nut-access nut-watch"):
        until(lambda: host.run(asks).rc == 0, 60, "upsd serves")
        assert stranger.run("systemd-run --unit=stranger --collect python3 -c %s", block).rc == 0
        until(lambda: host.run(asks).rc == 124, 60, "upsd is blocked")
    until(lambda: host.run(asks).rc == 0, 60, "upsd serves again")
    until(lambda: stranger.run("systemctl is-active stranger").rc != 0, 60, "the stranger is cut off")


@pytest.mark.parametrize("what", ["start", "reload", "restart", "stop"])
def test_it_outlives_what_is_done_to_nftables(on: On, primary: str, what: str) -> None:
    """/etc/nftables.conf begins with `flush ruleset`."""
    host = on(primary)
    # systemd counts the starts of all four rounds, and refuses a unit that is started too often
    host.check_output("systemctl reset-failed nftables; systemctl start nftables")
    try:
        # something of the user's, to see that it was really flushed
        host.check_output("nft add table inet somebodys")
        if what == "start":
            host.check_output("systemctl stop nftables")
        host.check_output("systemctl %s nftables", what)
        assert host.run("nft list table inet somebodys").rc != 0
        assert is_loaded(host)
        assert ask(on(STRANGER[primary]), primary) == REFUSED
        assert ask(on(SECONDARY[primary]), primary).startswith("Network UPS Tools upsd")
    finally:
        host.check_output("systemctl stop nftables")


def test_other_tables_are_left_alone(on: On, primary: str) -> None:
    host = on(primary)
    with is_made(host, "nft add table inet somebodys", "nft delete table inet somebodys"):
        host.check_output("systemctl restart nut-access")
        assert host.run("nft list table inet somebodys").rc == 0
        assert is_loaded(host)


@pytest.mark.long
def test_a_ruleset_that_is_flushed_by_hand_is_mended(on: On, primary: str) -> None:
    host = on(primary)
    host.check_output("nft flush ruleset")
    assert not is_loaded(host)
    until(lambda: is_loaded(host), 100, "it is loaded again")


def test_a_secondary_with_another_address_is_let_in(on: On, primary: str) -> None:
    """Its name, not its address, is in the inventory. Here the name gets the address of who was a stranger."""
    host, other = on(primary), on(STRANGER[primary])
    address = other.check_output("hostname -I").split()[0]
    name = SECONDARY[primary]
    before = host.check_output("cat /etc/hosts")
    try:
        host.check_output("echo %s >> /etc/hosts", f"{address} {name}")
        host.check_output("systemctl start nut-access-refresh")
        assert ask(other, primary).startswith("Network UPS Tools upsd")
        # and who was let in still is: a name server must not be able to shut out a secondary that is on battery
        assert ask(on(name), primary).startswith("Network UPS Tools upsd")
    finally:
        # a file that podman has mounted can't be replaced
        host.check_output("printf '%%s\\n' %s > /etc/hosts", before)


def test_the_next_play_shuts_out_the_old_address_and_the_one_after_it_changes_nothing(on: On, play: Play) -> None:
    done = play("--limit", ",".join(PRIMARIES))
    assert done.returncode == 0, done.stdout
    for name in PRIMARIES:
        assert ask(on(STRANGER[name]), name) == REFUSED
    again = play("--limit", ",".join(PRIMARIES))
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("changed=0") == len(PRIMARIES), again.stdout


@pytest.mark.long
def test_who_is_allowed_besides(on: On, play: Play) -> None:
    """One of them in a network, one by name; and the last run shuts both out again."""
    address = on("media").check_output("hostname -I").split()[0]
    done = play("--limit", ",".join(PRIMARIES), *extra(nut_server_allow=[f"{address}/32", "truenas9"]))
    assert done.returncode == 0, done.stdout
    for name in PRIMARIES:
        assert ask(on(STRANGER[name]), name).startswith("Network UPS Tools upsd")
    assert ask(on("truenas"), "pve9") == REFUSED
    assert play("--limit", ",".join(PRIMARIES)).returncode == 0
    for name in PRIMARIES:
        assert ask(on(STRANGER[name]), name) == REFUSED


@pytest.mark.long
def test_a_name_that_nobody_knows_is_told(play: Play) -> None:
    done = play("--limit", "pve9", *extra(nut_server_allow=["no-such-host.invalid"]))
    assert done.returncode == 0, done.stdout
    said = " ".join((done.stdout + done.stderr).split())
    assert "no-such-host.invalid does not resolve on this host" in said
    assert "nut_client_address of that host, or nut_server_allow" in said


@pytest.mark.long
@pytest.mark.parametrize("allow", [["192.0.2.5/24"], ["nas; reboot"], ["192.0.2.300"]])
def test_a_mistake_is_told_before_anything_is_touched(play: Play, allow: list[str]) -> None:
    done = play("--limit", "pve9", *extra(nut_server_allow=allow))
    assert done.returncode != 0
    assert "nut_server_allow" in done.stdout + done.stderr
    assert "changed=0" in done.stdout


@pytest.mark.long
def test_check_mode_changes_nothing(on: On, play: Play, primary: str) -> None:
    before = on(primary).check_output("cat /etc/nut/access.nft; nft list table inet homelab_nut | grep -v expires")
    done = play("--limit", primary, "--check", "--diff", *extra(nut_server_allow=["203.0.113.0/24"]))
    assert done.returncode == 0, done.stdout
    assert "203.0.113.0/24" in done.stdout
    after = on(primary).check_output("cat /etc/nut/access.nft; nft list table inet homelab_nut | grep -v expires")
    assert after.replace("\t", "") == before.replace("\t", "")


def test_nobody_is_shut_out_while_on_battery(on: On, play: Play, lab: Lab) -> None:
    """A secondary of 2.8.1 that is cut off then shuts down at once."""
    lab.control_ups("pve9", "mains", "off")
    try:
        until(lambda: "OB" in status(on("pve9")), 30, "on battery")
        before = on("pve9").check_output("cat /etc/nut/access.nft")
        done = play("--limit", "pve9", *extra(nut_server_allow=["203.0.113.0/24"]))
        assert done.returncode != 0
        assert "not plainly on mains" in done.stdout + done.stderr
        assert on("pve9").check_output("cat /etc/nut/access.nft") == before
    finally:
        lab.control_ups("pve9", "mains", "on")
    until(lambda: status(on("pve9"))[:1] == ["OL"], 60, "on mains again")


@pytest.mark.long
def test_an_upsd_whose_table_can_not_be_loaded_runs_and_says_so(on: On, play: Play, primary: str) -> None:
    """Better an upsd that everybody can reach than none; and nobody must overlook it."""
    host = on(primary)
    broken = "cp -p /etc/nut/access.nft /root/ && echo nonsense >> /etc/nut/access.nft"
    mended = "cp -p /root/access.nft /etc/nut/ && systemctl restart nut-access"
    # what the kernel has stays as it is: the file is one transaction
    with is_made(host, f"{broken} && ! nft -f /etc/nut/access.nft", mended):
        assert ask(on(STRANGER[primary]), primary) == REFUSED
    with is_made(host, f"{broken} && ! systemctl restart nut-access", mended):
        host.check_output("systemctl restart nut-server")
        until(lambda: status(host)[:1] == ["OL"], 60, "upsd serves")
        assert "nonsense" in host.check_output("journalctl -u nut-access -n 30 --no-pager")
    nft = host.check_output("command -v nft")
    with is_made(
        host,
        f"mv {nft} {nft}.away && printf '#!/bin/sh\\nexit 1\\n' > {nft} && chmod 755 {nft}",
        f"mv {nft}.away {nft}",
    ):
        done = play("--limit", primary)
        assert done.returncode == 0, done.stdout
        said = " ".join((done.stdout + done.stderr).split())
        assert "ACCESS TO UPSD IS NOT LIMITED" in said
        assert "nut_server_allow: any" in said
    assert play("--limit", primary).returncode == 0
    assert is_loaded(host)


@pytest.mark.long
def test_after_a_power_cut_it_is_there_before_upsd(on: On, lab: Lab, primary: str) -> None:
    lab.cut_power(primary)
    lab.start_sites(lab.started_sites())
    host = on(primary)
    until(lambda: status(host)[:1] == ["OL"], 90, "upsd serves")
    assert is_loaded(host)
    assert unit(host, "nut-access", "ActiveState") == "active"
    began, upsd = (
        int(unit(host, name, f"{what}TimestampMonotonic"))
        for name, what in (("nut-access", "ActiveEnter"), ("nut-server", "InactiveExit"))
    )
    assert began <= upsd
    assert ask(on(STRANGER[primary]), primary) == REFUSED
    assert ask(on(SECONDARY[primary]), primary).startswith("Network UPS Tools upsd")


@pytest.mark.long
def test_where_an_address_is_known_upsd_listens_there_and_at_home(on: On, play: Play, primary: str) -> None:
    """And if the address is not there at all, this host itself is served nevertheless."""
    host = on(primary)
    address = host.check_output("hostname -I").split()[0]
    done = play("--limit", primary, *extra(nut_server_address=address))
    assert done.returncode == 0, done.stdout
    try:
        listening = {line.split()[3] for line in host.check_output("ss -ltnH sport = :3493").splitlines()}
        assert listening == {"127.0.0.1:3493", f"{address}:3493"}
        drop_in = host.file("/etc/systemd/system/nut-server.service.d/homelab-nut.conf").content_string
        assert "network-online.target" not in drop_in
        assert unit(host, "nut-server", "StartLimitIntervalUSec") == "0"
        with is_made(
            host,
            f"cp -p /etc/nut/upsd.conf /root/ && sed -i s/{address}/203.0.113.77/ /etc/nut/upsd.conf",
            "cp -p /root/upsd.conf /etc/nut/",
        ):
            host.check_output("systemctl restart nut-server")
            until(lambda: status(host)[:1] == ["OL"], 60, "upsd serves its own host")
    finally:
        assert play("--limit", primary).returncode == 0
    until(lambda: status(host)[:1] == ["OL"], 60, "upsd serves")
    assert ask(on(SECONDARY[primary]), primary).startswith("Network UPS Tools upsd")


@pytest.mark.long
def test_without_the_gate_it_is_there_too(on: On, play: Play) -> None:
    done = play("--limit", "pve9", *extra(nut_server_gate={"enabled": False}))
    assert done.returncode == 0, done.stdout
    assert not on("pve9").file("/usr/local/sbin/nut-shutdown").exists
    assert is_loaded(on("pve9"))
    assert play("--limit", "pve9").returncode == 0


@pytest.mark.long
def test_any_takes_it_away(on: On, play: Play) -> None:
    done = play("--limit", "pve9", *extra(nut_server_allow="any"))
    assert done.returncode == 0, done.stdout
    assert on("pve9").run("nft list table inet homelab_nut").rc != 0
    assert not any(on("pve9").file(path).exists for path in FILES)
    assert ask(on(STRANGER["pve9"]), "pve9").startswith("Network UPS Tools upsd")
    assert play("--limit", "pve9").returncode == 0
    assert ask(on(STRANGER["pve9"]), "pve9") == REFUSED


@pytest.mark.long
def test_absent_leaves_nothing(on: On, play: Play, primary: str) -> None:
    done = play("--limit", primary, *extra(nut_server_state="absent", nut_hotplug_state="absent"))
    assert done.returncode == 0, done.stdout
    host = on(primary)
    assert host.run("nft list table inet homelab_nut").rc != 0
    assert not any(host.file(path).exists for path in FILES)
    assert "nut-access" not in host.check_output("systemctl list-unit-files --no-legend")
    assert host.check_output("systemctl --failed --no-legend") == ""
    assert json.loads(host.check_output("nft --json list ruleset"))["nftables"][1:] == []
    # for whoever comes next
    assert play().returncode == 0
