# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One file, because all tests share the fake host and the fake upsd."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import clock, paths, records
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import JournalEntry
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits, sandbox
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import observe
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import (
    HostObservation,
    HostObserver,
    Socket,
    UpsdAnswer,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access, client
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import boot_starts, gate, stages
from ansible_collections.homelab.nut.tests.unit.support import sysfs_tree

NOW = 1_790_000_000.0
UP = 5000.0

ANSWERS = {
    "VER": "Network UPS Tools upsd 2.8.1 - http://www.networkupstools.org/\n",
    "NETVER": "1.3\n",
    "LIST UPS": 'BEGIN LIST UPS\nUPS ups "Rack"\nEND LIST UPS\n',
    "LIST VAR ups": 'BEGIN LIST VAR ups\nVAR ups ups.status "OL"\nEND LIST VAR ups\n',
    "LIST CLIENT ups": "BEGIN LIST CLIENT ups\nCLIENT ups 127.0.0.1\nEND LIST CLIENT ups\n",
    "GET NUMLOGINS ups": "NUMLOGINS ups 1\n",
    "STARTTLS": "ERR FEATURE-NOT-CONFIGURED\n",
}


class Upsd:
    """A upsd that answers from ANSWERS, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self.serve, daemon=True).start()

    def stop(self) -> None:
        # close() alone would leave the thread that waits in accept()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def serve(self) -> None:
        while True:
            try:
                connection, _unused = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("r") as lines:
            for line in lines:
                self.asked.append(line.rstrip("\n"))
                connection.sendall(ANSWERS.get(self.asked[-1], "ERR UNKNOWN-COMMAND\n").encode())


@pytest.fixture
def server() -> Iterator[Upsd]:
    upsd = Upsd()
    yield upsd
    upsd.stop()


class Runner:
    """Plays systemctl and journalctl."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.units: dict[str, str] = {}
        self.journal: list[Any] = []
        self.code = 0

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.commands.append(list(command))
        if command[0] == "systemctl":
            names = command[command.index("--") + 1 :]
            told = [
                self.units.get(name, f"Id={name}\nLoadState=loaded\nActiveState=active\nMainPID=7") for name in names
            ]
            return self.code, "\n\n".join(told) + "\n"
        if command[0] == "journalctl":
            return self.code, "".join(
                f"{entry if isinstance(entry, str) else json.dumps(entry)}\n" for entry in self.journal
            )
        return 0, "Network UPS Tools upsmon 2.8.1\n"


FILES = {
    "nut.conf": "MODE=netserver\n",
    "ups.conf": "[ups]\n  driver = usbhid-ups\n  port = auto\n",
    "upsd.conf": "LISTEN 127.0.0.1 {port}\n",
    "upsd.users": "[monitor]\n  password = secret\n",
    "upsmon.conf": "MONITOR ups@127.0.0.1:{port} 1 monitor secret primary\nPOWERDOWNFLAG /run/nut-killpower\n",
    "upssched.conf": "\n",
}


@pytest.fixture
def root(tmp_path: Path, server: Upsd) -> Path:
    (tmp_path / "etc/nut").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    for name, text in FILES.items():
        (tmp_path / "etc/nut" / name).write_text(text.replace("{port}", str(server.port)))
    return tmp_path


def host(root: Path, runner: Runner | None = None, *, primary: bool = True, **changes: Any) -> HostObserver:
    given: dict[str, Any] = {
        "primary": primary,
        "runner": runner or Runner(),
        "root": root,
        "finder": lambda name: Path("/lib/nut", name),
        "clock": lambda: NOW,
        "monotonic": lambda: UP,
        "ask_clock": lambda: True,
        "resolve": lambda name, seconds: ("192.0.2.20",),
    }
    return HostObserver(**{**given, **changes})


def test_primary_is_observed(root: Path, server: Upsd) -> None:
    seen = host(root, clients={"nas": "nas.lan"}, kits=[kits.SHUTDOWN]).observe_host()
    assert seen.installed == ("upsmon", "upsd")
    assert seen.release == (2, 8, 1)
    assert set(seen.files) == set(FILES)
    assert isinstance(seen.served, UpsdAnswer)
    assert seen.served.report.upses[0].status == ("OL",)
    assert list(seen.watched) == [f"ups@127.0.0.1:{server.port}"]
    assert isinstance(seen.watched[f"ups@127.0.0.1:{server.port}"], UpsdAnswer)
    assert seen.addresses == {"nas": ("192.0.2.20",)}
    assert (seen.gate_state, seen.last_gate, seen.tls, seen.firewall, seen.synchronized) == (
        None,
        None,
        None,
        None,
        True,
    )


def test_observer_does_not_log_in(root: Path, server: Upsd) -> None:
    """It would count as one more machine. No password goes out, either."""
    host(root, clients={"nas": "nas.lan"}, ca="none", server="localhost").observe_host()
    verbs = {line.split()[0] for line in server.asked}
    assert verbs <= {"VER", "NETVER", "LIST", "GET", "STARTTLS"}
    assert not any("secret" in line for line in server.asked)


def test_observer_writes_no_file_and_changes_no_unit(root: Path) -> None:
    def state() -> dict[str, tuple[int, float]]:
        return {str(path): (path.stat().st_mode, path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))}

    before, runner = state(), Runner()
    host(root, runner, kits=[kits.SHUTDOWN, kits.HOTPLUG]).observe_host()
    assert state() == before
    assert {(command[0], command[1]) for command in runner.commands if command[0] == "systemctl"} == {
        ("systemctl", "show")
    }
    assert {command[0].rpartition("/")[2] for command in runner.commands} <= {
        "systemctl",
        "journalctl",
        "upsmon",
        "upsd",
        "nft",
    }
    assert [tuple(command) for command in runner.commands if command[0] == "nft"] == [access.LIST]


def test_file_is_observed_with_mode_owner_and_digest(root: Path) -> None:
    path = root / "etc/nut/upsd.users"
    path.chmod(0o640)
    os.utime(path, (1000, 2000))
    seen = host(root).observe_host().files["upsd.users"]
    about = path.stat()
    assert (seen.mode, seen.uid, seen.gid, seen.changed) == (0o640, about.st_uid, about.st_gid, 2000)
    assert (seen.text, seen.digest) == (path.read_text(), hashlib.sha256(path.read_bytes()).hexdigest())


def test_secondary_is_observed_without_upsd(root: Path, server: Upsd) -> None:
    seen = host(root, primary=False).observe_host()
    assert set(seen.files) == {"nut.conf", "upsmon.conf", "upssched.conf"}
    assert seen.served is None
    assert seen.devices == ()
    assert list(seen.units) == ["nut-monitor.service", "nut.target"]
    assert seen.installed == ("upsmon",)


@pytest.mark.parametrize("data", [b"\xffPK", bytes(observe.TEXT_BYTES) + b"end"])
def test_program_is_observed_by_full_digest(root: Path, data: bytes) -> None:
    program = root / kits.SHUTDOWN.program
    program.parent.mkdir(parents=True)
    program.write_bytes(data)
    policy = root / "etc/nut/shutdown.json"
    policy.write_text("{}")
    own = host(root, kits=[kits.SHUTDOWN]).observe_host().own_files
    assert own[kits.SHUTDOWN.program].digest == hashlib.sha256(data).hexdigest()
    assert own[kits.SHUTDOWN.program].text == ""
    assert own["etc/nut/shutdown.json"].text == "{}"
    assert len(own) == 2


def test_units_are_observed(root: Path) -> None:
    runner = Runner()
    runner.units["nut-driver@ups.service"] = (
        "Id=nut-driver@ups.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=enabled\nMainPID=0\n"
        "Result=exit-code\nStateChangeTimestampMonotonic=4000000000"
    )
    runner.units["nut-hotplug.timer"] = "Id=nut-hotplug.timer\nLoadState=not-found\nActiveState=inactive\nMainPID=0"
    units = host(root, runner, kits=[kits.HOTPLUG]).observe_host().units
    unit = units["nut-driver@ups.service"]
    assert (unit.active, unit.enabled, unit.result, unit.since, unit.runs) == (
        "failed",
        "enabled",
        "exit-code",
        NOW - 1000,
        False,
    )
    assert units["nut-hotplug.timer"].load == "not-found"
    assert units["nut-server.service"].runs
    assert units["nut-server.service"].since == 0


def test_journal_is_read_without_duplicates(root: Path) -> None:
    runner = Runner()
    line = {
        "__REALTIME_TIMESTAMP": "1790000000500000",
        "_SYSTEMD_UNIT": "nut-monitor.service",
        "MESSAGE": "UPS on battery",
    }
    runner.journal = [
        line,
        {**line, "__REALTIME_TIMESTAMP": "1790000000600000"},
        {**line, "__REALTIME_TIMESTAMP": "1790000003000000"},
        {**line, "MESSAGE": "Started it.", "_SYSTEMD_UNIT": "init.scope", "UNIT": "nut-server.service"},
        {**line, "MESSAGE": [72, 105, 255]},
        {**line, "MESSAGE": None},
        {"MESSAGE": "without a time"},
        "no JSON",
    ]
    journal = host(root, runner, since=3600.0).observe_host().journal
    assert journal == (
        JournalEntry(1790000000.5, "nut-monitor.service", "UPS on battery"),
        JournalEntry(1790000003.0, "nut-monitor.service", "UPS on battery"),
        JournalEntry(1790000000.5, "nut-server.service", "Started it."),
        JournalEntry(1790000000.5, "nut-monitor.service", "Hi\ufffd"),
    )
    command = next(command for command in runner.commands if command[0] == "journalctl")
    assert f"--since=@{NOW - 3600:.0f}" in command
    assert "UNIT=nut-driver@ups.service" in command
    assert command[-1] != "+"


def test_failed_part_is_noted_and_others_are_observed(root: Path) -> None:
    runner = Runner()
    runner.code = 1
    seen = host(root, runner, ask_clock=lambda: 1 / 0).observe_host()
    assert set(seen.troubles) == {"units", "journal", "usb", "clock"}
    assert seen.troubles["clock"] == "ZeroDivisionError: division by zero"
    assert isinstance(seen.served, UpsdAnswer)
    assert seen.synchronized is None


def test_unreachable_upsd_is_observed_as_error(root: Path, server: Upsd) -> None:
    server.stop()
    seen = host(root).observe_host()
    assert "cannot be reached" in str(seen.served)
    assert all("cannot be reached" in str(answer) for answer in seen.watched.values())


def test_unknown_ups_is_observed_as_error(root: Path) -> None:
    path = root / "etc/nut/upsmon.conf"
    path.write_text(path.read_text().replace("MONITOR ups@", "MONITOR other@"))
    assert ["UNKNOWN-UPS" in str(answer) for answer in host(root).observe_host().watched.values()] == [True]


def test_unresolvable_name_is_observed_as_error(root: Path) -> None:
    def resolve(name: str, seconds: float) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    # an address with the brackets of a MONITOR line needs no name server
    seen = host(root, clients={"nas": "nas.lan", "other": "[fd00::5]"}, resolve=resolve).observe_host()
    assert seen.addresses == {
        "nas": "can't resolve nas.lan (Name or service not known)",
        "other": ("fd00::5",),
    }


def test_names_known_without_a_name_server_are_observed(root: Path) -> None:
    (root / "etc/hosts").write_text(
        "127.0.0.1 localhost\n192.0.2.10\tPVE.lan pve # the primary nas\n\n# 192.0.2.20 nas\nfd00::5\n"
    )
    assert host(root).observe_host().local_names == {"localhost", "pve.lan", "pve"}


def test_machine_is_observed_with_all_its_addresses(root: Path) -> None:
    def resolve(name: str, seconds: float) -> Sequence[str]:
        return ["192.0.2.20", "fd00::20"]

    seen = host(root, clients={"nas": "nas.lan,fd00::21"}, resolve=resolve).observe_host()
    assert seen.addresses == {"nas": ("192.0.2.20", "fd00::20", "fd00::21")}


def test_cached_address_is_used(root: Path) -> None:
    """The name of a machine that is off may be gone with it."""

    def resolve(name: str, seconds: float) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    (root / paths.ADDRESSES).parent.mkdir(parents=True)
    (root / paths.ADDRESSES).write_text('{"version": 1, "addresses": {"nas.lan": ["::ffff:192.0.2.20", "192.0.2.20"]}}')
    seen = host(root, clients={"nas": "nas.lan"}, resolve=resolve).observe_host()
    assert seen.addresses == {"nas": ("192.0.2.20",)}


def test_missing_tls_is_observed_as_trouble(root: Path) -> None:
    tls = host(root, ca="-----BEGIN", server="localhost").observe_host().tls
    assert tls
    assert "FEATURE-NOT-CONFIGURED" in tls.trouble


def test_tls_version_and_expiry_are_observed(root: Path) -> None:
    class Encrypted(client.UpsdClient):
        tls_version = "TLSv1.3"

        def starttls(self, ca_pem: str, server_name: str) -> None:
            assert (ca_pem, server_name) == ("CA", "pve")

        @property
        def peer_not_after(self) -> Any:
            from datetime import datetime, timezone

            return datetime.fromtimestamp(NOW + 60, timezone.utc)

    tls = (
        host(root, ca="CA", server="pve", open_client=lambda name, port: Encrypted(name, port, timeout=5))
        .observe_host()
        .tls
    )
    assert tls == observe.TlsResult("TLSv1.3", NOW + 60)


def test_existing_flags_are_observed(root: Path) -> None:
    for path in ("run/nut-killpower", "run/nut/killpower", "etc/killpower"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
        os.utime(root / path, (1, 1234))
    assert host(root).observe_host().flags == {
        "/run/nut-killpower": 1234,
        "/etc/killpower": 1234,
        "/run/nut/killpower": 1234,
    }
    for path in ("etc/killpower", "run/nut/killpower"):
        (root / path).unlink()
    assert list(host(root).observe_host().flags) == ["/run/nut-killpower"]


def test_spare_and_space_of_flag_are_observed(root: Path) -> None:
    seen = host(root).observe_host().cut
    assert seen is not None
    assert (seen.path, seen.spare) == ("/run/nut-killpower", "missing")
    assert seen.space > 0
    (root / "run/nut-killpower.spare").write_text("upsmon-shutdown-file")
    found = host(root).observe_host()
    assert found.cut is not None
    assert found.cut.spare == "set"
    assert found.untrusted == {}
    (root / "run").chmod(0o777)
    (root / "etc/nut").chmod(0o757)
    # all that is in there, too
    assert set(host(root).observe_host().untrusted) == {"/etc/nut", "/run", "/run/nut-shutdown"}


def test_writable_program_of_stage_is_observed_as_untrusted(root: Path) -> None:
    script = root / "srv/tell"
    script.parent.mkdir()
    script.touch()
    script.chmod(0o757)
    policy = root / "etc/nut/shutdown.json"
    stage = {"name": "first", "on_battery": 60, "notify": ["/srv/tell"]}
    stages = [stage, {"name": "second", "on_battery": 9, "fsd": True}]
    whole = {"version": 1, "upses": [], "machines": [], "reserve": 0, "timeout": 100, "stages": stages}
    policy.write_text(json.dumps(whole))
    assert "users other than root can write" in host(root).observe_host().untrusted["/srv/tell"]
    script.chmod(0o755)
    assert host(root).observe_host().untrusted == {}
    script.chmod(0o757)
    for wrong in (json.dumps({**whole, "stages": 1}), json.dumps({**whole, "timeout": 0}), "{"):
        policy.write_text(wrong)
        assert host(root).observe_host().untrusted == {}


def test_refused_sandboxes_are_observed(root: Path) -> None:
    assert host(root).observe_host().refused_sandboxes == {}
    record = root / sandbox.REFUSED
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text('{"nut-server-hardening.conf": "why"}')
    assert host(root).observe_host().refused_sandboxes == {"nut-server-hardening.conf": "why"}


def test_state_and_report_of_gate_are_observed(root: Path) -> None:
    assert (host(root).observe_host().gate_state, host(root).observe_host().last_gate) == (None, None)
    state = gate.new_state("boot", "systemd", 10.0)
    for path, text in ((paths.GATE_STATE, gate.dump_state(state)), (paths.GATE_REPORT, "[1]")):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    seen = host(root).observe_host()
    assert seen.gate_state == state
    assert seen.last_gate == "the report can't be read"
    (root / paths.GATE_STATE).write_text("{")
    assert host(root).observe_host().gate_state is None


def test_usb_bus_is_scanned_where_policy_says(root: Path) -> None:
    tree = sysfs_tree.SysfsTree(root / "elsewhere")
    tree.plug_in()
    policy = {"version": 1, "sysfs": "/elsewhere/sys", "dev": "/elsewhere/dev"}
    (root / "etc/nut/hotplug.json").write_text(json.dumps(policy))
    assert "051d:0002" in [device.ids for device in host(root).observe_host().devices]


# /proc

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: {any}:0DA5 00000000:0000 0A 00000000:00000000 00:00000000 00000000   100        0 4242 1 0000000000000000 100 0 0 10 0
   1: {local}:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0000000000000000 100 0 0 10 0
   2: {local}:0DA5 0100007F:9999 01 00000000:00000000 00:00000000 00000000   100        0 4243 1 0000000000000000 100 0 0 10 0
   3: short
"""
TABLE_6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt
   0: {local}:0DA5 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   100        0 4244 1 0 100 0 0 10 0
"""


def network(root: Path) -> None:
    little = sys.byteorder == "little"
    (root / "proc/net").mkdir(parents=True)
    local = "0100007F" if little else "7F000001"
    (root / "proc/net/tcp").write_text(TABLE.format(any="00000000", local=local))
    (root / "proc/net/tcp6").write_text(TABLE_6.format(local="0" * 24 + ("01000000" if little else "00000001")))
    for number, name, inode in (
        ("12", "upsd", 4242),
        ("13", "upsmon", 99),
        ("14", "sshd", 77),
        ("15\t7", "upsmon", 98),
    ):
        folder = root / "proc" / number.split()[0]
        (folder / "fd").mkdir(parents=True)
        (folder / "status").write_text(f"Name:\t{name}\nNSpid:\t{number}\n")
        (folder / "comm").write_text(f"{name}\n")
        (folder / "fd/3").symlink_to(f"socket:[{inode}]")
        (folder / "fd/4").symlink_to("/dev/null")


def test_udev_rules_and_container_are_observed(root: Path) -> None:
    assert host(root).observe_host().container == ""
    (root / "run/systemd").mkdir(parents=True, exist_ok=True)
    (root / "run/systemd/container").write_text("lxc\n")
    rules = root / "usr/lib/udev/rules.d"
    rules.mkdir(parents=True)
    (rules / "62-nut-usbups.rules").write_text(
        '#  various models  - usbhid-ups\nATTR{idVendor}=="051d", ATTR{idProduct}=="0002", MODE="664", GROUP="nut"\n'
    )
    seen = host(root).observe_host()
    assert (seen.container, dict(seen.usb_ids)) == ("lxc", {"051d:0002": "usbhid-ups"})


def test_listening_sockets_are_observed(root: Path) -> None:
    network(root)
    seen = host(root).observe_host()
    assert seen.sockets == (
        Socket("0.0.0.0", 3493, "upsd"),
        Socket("127.0.0.1", 22, ""),
        Socket("::1", 3493, ""),
    )
    # not the upsmon of a container, whose processes the host sees, too
    assert [(process.name, process.pid) for process in seen.processes] == [("upsd", 12), ("upsmon", 13)]


def test_sockets_are_observed_without_ipv6(root: Path) -> None:
    network(root)
    (root / "proc/net/tcp6").unlink()
    assert len(host(root).observe_host().sockets) == 2


# Proxmox VE's firewall


def pve(root: Path, cluster: str) -> None:
    (root / "etc/pve/local").mkdir(parents=True)
    (root / "etc/pve/firewall").mkdir()
    (root / "etc/pve/firewall/cluster.fw").write_text(cluster)


def test_closed_firewall_is_observed_with_hints(root: Path) -> None:
    pve(root, "[OPTIONS]\nenable: 1\n")
    told = host(root, clients={"nas": "nas.lan"}).observe_host().firewall
    assert told
    assert "nas.lan (192.0.2.20)" in told[0]
    assert any("IN ACCEPT -source 192.0.2.20" in line for line in told)


def test_disabled_firewall_is_observed_without_hints(root: Path) -> None:
    pve(root, "")
    assert host(root, clients={"nas": "nas.lan"}).observe_host().firewall == ()
    assert host(root, clients={"nas": "nas.lan"}, check_firewall=False).observe_host().firewall is None


# The clock


class Libc:
    def __init__(self, state: int) -> None:
        self.state = state

    def adjtimex(self, buffer: Any) -> int:
        assert not any(buffer.raw), "nothing is to be changed"
        return self.state


@pytest.mark.parametrize(("state", "kept"), [(0, True), (1, True), (5, False), (-1, None)])
def test_clock_synchronization_is_read_from_kernel(state: int, kept: bool | None) -> None:
    assert observe.is_synchronized(Libc(state)) is kept


def test_kernel_answers_clock_query() -> None:
    assert observe.is_synchronized() in (True, False, None)


def test_empty_host_is_observed(tmp_path: Path) -> None:
    seen = host(tmp_path, finder=lambda name: None).observe_host()
    assert isinstance(seen, HostObservation)
    assert (seen.installed, seen.files, seen.served, seen.watched) == ((), {}, None, {})


def test_use_of_the_bus_is_observed(root: Path) -> None:
    tree = sysfs_tree.SysfsTree(root)
    tree.plug_in("1-1")
    tree.show_driver("1-1", "usbhid")
    (root / "proc/7/fd").mkdir(parents=True)
    (root / "proc/7/fd/3").symlink_to(root / "dev/bus/usb/001/003")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    state = {"version": 2, "boot": boot, "still": {"ups": {"values": "x", "since": 100.0, "until": 300.0}}}
    (root / paths.HOTPLUG_STATE).parent.mkdir(parents=True)
    (root / paths.HOTPLUG_STATE).write_text(json.dumps(state))
    seen = host(root).observe_host()
    assert [node.path for node in seen.opened["ups"]] == ["/dev/bus/usb/001/003"]
    assert seen.claims == {"1-1": False}
    assert seen.still == {"ups": 200.0}
    assert seen.troubles == {}


def test_guests_that_should_run_are_observed(root: Path) -> None:
    folder = root / paths.SHUTDOWN_FOLDER
    folder.mkdir(parents=True)
    boot = clock.name_system_start(root)
    report = boot_starts.BootReport(boot, ("VM 102 (nas): storage nas is not online",))
    (folder / "boot-starts.json").write_text(records.dump_record(report, boot_starts.VERSION))
    state = stages.StagesState(boot, given_up={"qm/101": "VM 101: no disk"})
    (folder / "stages.json").write_text(records.dump_record(state, stages.VERSION))
    runner = Runner()
    seen = host(root, runner).observe_host()
    assert seen.open_starts.waiting == report.waiting
    assert dict(seen.open_starts.given_up) == {"qm start 101": "VM 101: no disk"}
    assert (seen.guest_start, set(seen.troubles)) == (None, {"usb"})
    pve(root, "")
    runner.units["pve-guests.service"] = "LoadState=loaded\nActiveState=activating\nMainPID=9"
    start = host(root, runner, check_firewall=False).observe_host().guest_start
    assert start is not None
    assert start.message == "pve-guests.service is still starting its guests, one after the other"
