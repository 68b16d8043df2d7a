# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which machines may connect to upsd. A client can block upsd without a login, so strangers must not be able to connect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from homelab import Lab
from support import count_changes, extra_vars, read_status, show_unit, wait_for_mains, wait_until
from testinfra.host import Host

PRIMARIES = ("pve8", "pve9")
# a machine of the inventory that is no secondary of this primary is a stranger to it
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


def ask_port(host: Host, target: str, port: int = 3493) -> str:
    """Return the first answer of a port as seen from `host`, or the name of the error if the connection is refused."""
    return host.check_output("python3 -c %s %s %s", ASK, target, str(port)).strip()


def is_loaded(host: Host) -> bool:
    """Return whether the loaded table matches its file."""
    return host.run("nut-access status").rc == 0


@contextmanager
def temporary_change(host: Host, do: str, undo: str) -> Iterator[None]:
    """Run a command on a host, and the command that undoes it at the end."""
    try:
        assert host.run(do).rc == 0
        yield
    finally:
        assert host.run(undo).rc == 0


@pytest.fixture(params=PRIMARIES)
def primary(request: pytest.FixtureRequest) -> str:
    """Return the name of a primary: Debian 12 (systemd 252, NUT 2.8.0) or Debian 13 (systemd 257, NUT 2.8.1)."""
    name: str = request.param
    return name


def test_stranger_is_refused_by_upsd_but_not_by_other_services(on: On, primary: str) -> None:
    stranger = on(STRANGER[primary])
    assert ask_port(stranger, primary) == REFUSED
    assert ask_port(stranger, primary, 22).startswith("SSH-2.0-")
    assert ask_port(on(SECONDARY[primary]), primary).startswith("Network UPS Tools upsd")
    assert ask_port(on(primary), "localhost").startswith("Network UPS Tools upsd")
    # the host reaches itself by its own address too
    assert ask_port(on(primary), primary).startswith("Network UPS Tools upsd")
    address = stranger.check_output("hostname -I").split()[0]
    assert address in on(primary).check_output("nut-access status").splitlines()[-1]


def test_stranger_that_already_blocks_upsd_is_cut_off(on: On, primary: str) -> None:
    """The stranger sends requests and never reads. Loading the table resets its connection, and upsd serves again."""
    stranger, host = on(STRANGER[primary]), on(primary)
    block = (
        "import socket\n"
        "peer = socket.socket(); peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)\n"
        f"peer.connect(('{primary}', 3493))\n"
        "while True: peer.sendall(b'LIST VAR ups\\n' * 100)\n"
    )
    read_ups = "timeout 3 upsc ups@localhost ups.status"
    # Stop nut-watch, which has set a time limit on upsd's sockets. Starting nut-watch would start nut-access.
    stop = "systemctl stop nut-watch nut-access-refresh.timer; systemctl restart nut-server; systemctl stop nut-access"
    with temporary_change(host, stop, "systemctl start nut-access nut-watch"):
        wait_until(lambda: host.run(read_ups).rc == 0, 60, "upsd to serve the UPS")
        assert stranger.run("systemd-run --unit=stranger --collect python3 -c %s", block).rc == 0
        wait_until(lambda: host.run(read_ups).rc == 124, 60, "upsd to be blocked")
    wait_until(lambda: host.run(read_ups).rc == 0, 60, "upsd to serve the UPS again")
    wait_until(
        lambda: stranger.run("systemctl is-active stranger").rc != 0, 60, "the stranger's connection to be reset"
    )


@pytest.mark.parametrize("action", ["start", "reload", "restart", "stop"])
def test_table_survives_actions_on_nftables(on: On, primary: str, action: str) -> None:
    """/etc/nftables.conf begins with `flush ruleset`."""
    host = on(primary)
    # systemd refuses a unit that is started too often, and counts the starts of all four rounds
    host.check_output("systemctl reset-failed nftables; systemctl start nftables")
    try:
        # a table of the user, to prove that the ruleset was flushed
        host.check_output("nft add table inet someone_elses")
        if action == "start":
            host.check_output("systemctl stop nftables")
        host.check_output("systemctl %s nftables", action)
        assert host.run("nft list table inet someone_elses").rc != 0
        assert is_loaded(host)
        assert ask_port(on(STRANGER[primary]), primary) == REFUSED
        assert ask_port(on(SECONDARY[primary]), primary).startswith("Network UPS Tools upsd")
    finally:
        host.check_output("systemctl stop nftables")


def test_restart_leaves_other_tables_alone(on: On, primary: str) -> None:
    host = on(primary)
    with temporary_change(host, "nft add table inet someone_elses", "nft delete table inet someone_elses"):
        host.check_output("systemctl restart nut-access")
        assert host.run("nft list table inet someone_elses").rc == 0
        assert is_loaded(host)


@pytest.mark.long
def test_table_is_restored_after_flush_by_hand(on: On, primary: str) -> None:
    host = on(primary)
    host.check_output("nft flush ruleset")
    assert not is_loaded(host)
    wait_until(lambda: is_loaded(host), 100, "the table to be loaded again")


def test_new_address_of_a_secondary_is_let_in(on: On, primary: str) -> None:
    """The inventory has the secondary's name. Here the name gets the address of a stranger."""
    host, other = on(primary), on(STRANGER[primary])
    address = other.check_output("hostname -I").split()[0]
    name = SECONDARY[primary]
    before = host.check_output("cat /etc/hosts")
    try:
        host.check_output("echo %s >> /etc/hosts", f"{address} {name}")
        host.check_output("systemctl start nut-access-refresh")
        assert ask_port(other, primary).startswith("Network UPS Tools upsd")
        # The old address stays allowed: a name server must not be able to shut out a secondary during a power cut.
        assert ask_port(on(name), primary).startswith("Network UPS Tools upsd")
    finally:
        # podman has mounted the file, so it can't be replaced
        host.check_output("printf '%%s\\n' %s > /etc/hosts", before)


def test_next_play_shuts_out_old_address_and_is_idempotent(on: On, play: Play) -> None:
    done = play("--limit", ",".join(PRIMARIES))
    assert done.returncode == 0, done.stdout
    for name in PRIMARIES:
        assert ask_port(on(STRANGER[name]), name) == REFUSED
    again = play("--limit", ",".join(PRIMARIES))
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("changed=0") == len(PRIMARIES), again.stdout


@pytest.mark.long
def test_nut_server_allow_lets_in_networks_and_names(on: On, play: Play) -> None:
    """The last run, without the variable, shuts both out again."""
    address = on("media").check_output("hostname -I").split()[0]
    done = play("--limit", ",".join(PRIMARIES), *extra_vars(nut_server_allow=[f"{address}/32", "truenas9"]))
    assert done.returncode == 0, done.stdout
    for name in PRIMARIES:
        assert ask_port(on(STRANGER[name]), name).startswith("Network UPS Tools upsd")
    assert ask_port(on("truenas"), "pve9") == REFUSED
    assert play("--limit", ",".join(PRIMARIES)).returncode == 0
    for name in PRIMARIES:
        assert ask_port(on(STRANGER[name]), name) == REFUSED


@pytest.mark.long
def test_unresolvable_name_is_reported(play: Play) -> None:
    done = play("--limit", "pve9", *extra_vars(nut_server_allow=["no-such-host.invalid"]))
    assert done.returncode == 0, done.stdout
    output = " ".join((done.stdout + done.stderr).split())
    assert "no-such-host.invalid does not resolve on this host" in output
    assert "nut_client_address of that host, or nut_server_allow" in output


@pytest.mark.long
@pytest.mark.parametrize("allow", [["192.0.2.5/24"], ["nas; reboot"], ["192.0.2.300"]])
def test_invalid_nut_server_allow_stops_the_play_before_any_change(play: Play, allow: list[str]) -> None:
    done = play("--limit", "pve9", *extra_vars(nut_server_allow=allow))
    assert done.returncode != 0
    assert "nut_server_allow" in done.stdout + done.stderr
    assert count_changes(done.stdout) == 0


@pytest.mark.long
def test_check_mode_shows_the_diff_and_changes_nothing(on: On, play: Play, primary: str) -> None:
    before = on(primary).check_output("cat /etc/nut/access.nft; nft list table inet homelab_nut | grep -v expires")
    done = play("--limit", primary, "--check", "--diff", *extra_vars(nut_server_allow=["203.0.113.0/24"]))
    assert done.returncode == 0, done.stdout
    assert "203.0.113.0/24" in done.stdout
    after = on(primary).check_output("cat /etc/nut/access.nft; nft list table inet homelab_nut | grep -v expires")
    assert after.replace("\t", "") == before.replace("\t", "")


def test_play_on_battery_shuts_no_machine_out(on: On, play: Play, lab: Lab) -> None:
    """A secondary with NUT 2.8.1 that loses its connection on battery shuts down at once."""
    lab.control_ups("pve9", "mains", "off")
    try:
        wait_until(lambda: "OB" in read_status(on("pve9")), 30, "the UPS to be on battery")
        before = on("pve9").check_output("cat /etc/nut/access.nft")
        done = play("--limit", "pve9", *extra_vars(nut_server_allow=["203.0.113.0/24"]))
        assert done.returncode != 0
        assert "not plainly on mains" in done.stdout + done.stderr
        assert on("pve9").check_output("cat /etc/nut/access.nft") == before
    finally:
        lab.control_ups("pve9", "mains", "on")
    wait_for_mains(on("pve9"))


@pytest.mark.long
def test_upsd_runs_with_a_warning_if_the_table_fails_to_load(on: On, play: Play, primary: str) -> None:
    """An upsd that every machine can reach is better than none, but the warning must be impossible to miss."""
    host = on(primary)
    break_table = "cp -p /etc/nut/access.nft /root/ && echo nonsense >> /etc/nut/access.nft"
    repair_table = "cp -p /root/access.nft /etc/nut/ && systemctl restart nut-access"
    # the file is one transaction, so the loaded table stays
    with temporary_change(host, f"{break_table} && ! nft -f /etc/nut/access.nft", repair_table):
        assert ask_port(on(STRANGER[primary]), primary) == REFUSED
    with temporary_change(host, f"{break_table} && ! systemctl restart nut-access", repair_table):
        host.check_output("systemctl restart nut-server")
        wait_until(lambda: read_status(host)[:1] == ["OL"], 60, "upsd to serve the UPS")
        assert "nonsense" in host.check_output("journalctl -u nut-access -n 30 --no-pager")
    nft = host.check_output("command -v nft")
    with temporary_change(
        host,
        f"mv {nft} {nft}.away && printf '#!/bin/sh\\nexit 1\\n' > {nft} && chmod 755 {nft}",
        f"mv {nft}.away {nft}",
    ):
        done = play("--limit", primary)
        assert done.returncode == 0, done.stdout
        output = " ".join((done.stdout + done.stderr).split())
        assert "ACCESS TO UPSD IS NOT LIMITED" in output
        assert "nut_server_allow: any" in output
    assert play("--limit", primary).returncode == 0
    assert is_loaded(host)


@pytest.mark.long
def test_table_is_loaded_before_upsd_after_a_power_cut(on: On, lab: Lab, primary: str) -> None:
    lab.cut_power(primary)
    lab.start_sites(lab.started_sites())
    host = on(primary)
    wait_until(lambda: read_status(host)[:1] == ["OL"], 90, "upsd to serve the UPS")
    assert is_loaded(host)
    assert show_unit(host, "nut-access", "ActiveState") == "active"
    began, upsd = (
        int(show_unit(host, name, f"{action}TimestampMonotonic"))
        for name, action in (("nut-access", "ActiveEnter"), ("nut-server", "InactiveExit"))
    )
    assert began <= upsd
    assert ask_port(on(STRANGER[primary]), primary) == REFUSED
    assert ask_port(on(SECONDARY[primary]), primary).startswith("Network UPS Tools upsd")


@pytest.mark.long
def test_upsd_listens_on_known_address_and_loopback_only(on: On, play: Play, primary: str) -> None:
    """If the host does not have the address, upsd still serves the host itself."""
    host = on(primary)
    address = host.check_output("hostname -I").split()[0]
    done = play("--limit", primary, *extra_vars(nut_server_address=address))
    assert done.returncode == 0, done.stdout
    try:
        listening = {line.split()[3] for line in host.check_output("ss -ltnH sport = :3493").splitlines()}
        assert listening == {"127.0.0.1:3493", f"{address}:3493"}
        drop_in = host.file("/etc/systemd/system/nut-server.service.d/homelab-nut.conf").content_string
        assert "network-online.target" not in drop_in
        assert show_unit(host, "nut-server", "StartLimitIntervalUSec") == "0"
        with temporary_change(
            host,
            f"cp -p /etc/nut/upsd.conf /root/ && sed -i s/{address}/203.0.113.77/ /etc/nut/upsd.conf",
            "cp -p /root/upsd.conf /etc/nut/",
        ):
            host.check_output("systemctl restart nut-server")
            wait_until(lambda: read_status(host)[:1] == ["OL"], 60, "upsd to serve its own host")
    finally:
        assert play("--limit", primary).returncode == 0
    wait_until(lambda: read_status(host)[:1] == ["OL"], 60, "upsd to serve the UPS")
    assert ask_port(on(SECONDARY[primary]), primary).startswith("Network UPS Tools upsd")


@pytest.mark.long
def test_table_is_loaded_without_the_gate(on: On, play: Play) -> None:
    done = play("--limit", "pve9", *extra_vars(nut_server_gate={"enabled": False}))
    assert done.returncode == 0, done.stdout
    assert not on("pve9").file("/usr/local/sbin/nut-shutdown").exists
    assert is_loaded(on("pve9"))
    assert play("--limit", "pve9").returncode == 0


@pytest.mark.long
def test_nut_server_allow_any_removes_the_table(on: On, play: Play) -> None:
    done = play("--limit", "pve9", *extra_vars(nut_server_allow="any"))
    assert done.returncode == 0, done.stdout
    assert on("pve9").run("nft list table inet homelab_nut").rc != 0
    assert not any(on("pve9").file(path).exists for path in FILES)
    assert ask_port(on(STRANGER["pve9"]), "pve9").startswith("Network UPS Tools upsd")
    assert play("--limit", "pve9").returncode == 0
    assert ask_port(on(STRANGER["pve9"]), "pve9") == REFUSED


@pytest.mark.long
def test_absent_removes_every_file_and_table(on: On, play: Play, primary: str) -> None:
    done = play("--limit", primary, *extra_vars(nut_server_state="absent", nut_hotplug_state="absent"))
    assert done.returncode == 0, done.stdout
    host = on(primary)
    assert host.run("nft list table inet homelab_nut").rc != 0
    assert not any(host.file(path).exists for path in FILES)
    assert "nut-access" not in host.check_output("systemctl list-unit-files --no-legend")
    assert host.check_output("systemctl --failed --no-legend") == ""
    assert json.loads(host.check_output("nft --json list ruleset"))["nftables"][1:] == []
    # restore the host for the next test
    assert play().returncode == 0
