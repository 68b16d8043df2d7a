# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A healthy primary and secondary as the doctor observes them, and functions that break them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits as deploy_kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import checks
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.exam import Expected, ExpectedClient
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    NOTE,
    OK,
    Finding,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import (
    CutFlag,
    File,
    HostObservation,
    Process,
    Socket,
    UpsdAnswer,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access, snapshot
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import report
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus

NOW = 1_790_000_000.0
NUT = 118

GATE_COMMAND = "/bin/systemctl start --no-block nut-shutdown.service || /sbin/shutdown -h +0"
FILES = {
    "nut.conf": "# ours\nMODE=netserver\n",
    "ups.conf": 'maxretry = 3\n[ups]\n  driver = usbhid-ups\n  port = auto\n  vendorid = "051d"\n',
    "upsd.conf": "LISTEN 0.0.0.0 3493\nMAXAGE 15\n",
    "upsd.users": "[monitor]\n  password = one\n  upsmon primary\n[nas]\n  password = two\n  upsmon secondary\n",
    "upsmon.conf": "MONITOR ups@localhost:3493 1 monitor one primary\nMINSUPPLIES 1\nFINALDELAY 5\n"
    f'SHUTDOWNCMD "{GATE_COMMAND}"\nPOWERDOWNFLAG /run/nut-killpower\nOFFDURATION 30\n',
    "upssched.conf": "# none\n",
}
POLICY = {
    "version": 1,
    "upses": [{"name": "ups"}],
    "machines": [{"name": "nas", "addresses": ["192.0.2.20"], "shutdown_time": 60, "shutdown_limit": 90}],
    "settle": 3,
    "reserve": 30,
    "timeout": 120,
}
GATE_FILES = {
    "shutdown.json": json.dumps(POLICY),
    "nut-shutdown.service": "[Service]\n",
    "nut-stages.service": "",
    "nut-watch.service": "[Unit]\n",
    "nut-monitor.conf": "[Unit]\n",
    "logrotate": "x\n",
    "tmpfiles": "",
}
HOTPLUG_FILES = {
    "hotplug.json": "{}\n",
    "nut-hotplug.service": "[Service]\n",
    "nut-hotplug.timer": "[Timer]\n",
    "63-nut-hotplug.rules": "\n",
    "logrotate": "y\n",
}
ACCESS_FILES = {name: "z\n" for name in deploy_kits.ACCESS.places if name != deploy_kits.ACCESS_TABLE}
TABLE = access.render_table([3493], {access.make_source("nas", "nas.lan"): ["192.0.2.20"]})
TABLE_PATH = deploy_kits.ACCESS.places[deploy_kits.ACCESS_TABLE].path
LOADED = access.LoadedTable(frozenset({3493}), access.collapse_networks(["192.0.2.20"]), 7, True, 0, ())
GATE_PROGRAM, HOTPLUG_PROGRAM = deploy_kits.SHUTDOWN.program, deploy_kits.HOTPLUG.program
VARIABLES = {
    "ups.status": "OL CHRG",
    "battery.charge": "100",
    "battery.runtime": "1800",
    "ups.load": "20",
    "battery.date": "2025/06/01",
    "ups.test.result": "Done and passed",
    "driver.name": "usbhid-ups",
}


def make_file(
    text: str = "", mode: int = 0o640, gid: int = NUT, changed: float = NOW - 5000, digest: str = "d"
) -> File:
    return File(mode, 0, gid, changed, digest, text)


def make_unit(active: str = "active", enabled: str = "enabled", load: str = "loaded", sub: str = "running") -> Unit:
    return Unit(active, enabled, 42, sub, load, "success", NOW - 1000)


def make_ups(**changes: Any) -> snapshot.UpsState:
    given = {
        "name": "ups",
        "description": "",
        "status": ("OL", "CHRG"),
        "fresh": True,
        "error": None,
        "variables": VARIABLES,
        "clients": ("127.0.0.1", "192.0.2.20"),
        "num_logins": 2,
    }
    return snapshot.UpsState(**{**given, **changes})


def upsd_answer(*states: snapshot.UpsState, own_address: str = "127.0.0.1") -> UpsdAnswer:
    stale = tuple((state.name, state.error or "") for state in states if not state.fresh)
    return UpsdAnswer(snapshot.UpsdReport("2.8.1", "1.3", states, (), stale, ""), own_address)


DEVICE = bus.UsbDevice(
    "1-1", "051d", "0002", "APC", "Back-UPS", "123", 1, 4, "pci-0000:00:14.0-usb-0:1", True, accessible=True
)


def kit_files(kit: deploy_kits.Kit, texts: dict[str, str]) -> dict[str, File]:
    found = {kit.places[name].path: make_file(text) for name, text in texts.items() if text}
    return {**found, kit.program: make_file(mode=0o755, digest=f"digest of {kit.name}")}


CUT = CutFlag("/run/nut-killpower", "set", 1 << 20, 1000)
SEEN = HostObservation(
    now=NOW,
    group=NUT,
    release=(2, 8, 1),
    installed=("upsmon", "upsd"),
    files={name: make_file(text) for name, text in FILES.items()},
    own_files={
        **kit_files(deploy_kits.SHUTDOWN, GATE_FILES),
        **kit_files(deploy_kits.HOTPLUG, HOTPLUG_FILES),
        **kit_files(deploy_kits.ACCESS, {**ACCESS_FILES, deploy_kits.ACCESS_TABLE: TABLE}),
    },
    units={
        "nut-monitor.service": make_unit(),
        "nut-server.service": make_unit(),
        "nut.target": make_unit(),
        "nut-driver@ups.service": make_unit(),
        "nut-driver-enumerator.path": make_unit("inactive", "disabled"),
        "nut-shutdown.service": make_unit("inactive", "static"),
        "nut-stages.service": ABSENT,
        "nut-watch.service": make_unit(),
        "nut-hotplug.service": make_unit("inactive", "static"),
        "nut-hotplug.timer": make_unit(),
        "nut-access.service": make_unit(sub="exited"),
        "nut-access-refresh.timer": make_unit(enabled="static"),
    },
    processes=(Process("upsd", 1, "nut"), Process("upsmon", 2, "root"), Process("upsmon", 3, "nut")),
    sockets=(Socket("0.0.0.0", 22, ""), Socket("0.0.0.0", 3493, "upsd")),
    devices=(DEVICE,),
    served=upsd_answer(make_ups()),
    watched={"ups@localhost:3493": upsd_answer(make_ups())},
    addresses={"nas": ("192.0.2.20",)},
    cut=CUT,
    firewall=(),
    access=LOADED,
    synchronized=True,
)
EXPECTED = Expected(
    name="pve",
    primary=True,
    files=FILES,
    kits={"nut-shutdown": GATE_FILES, "nut-hotplug": HOTPLUG_FILES, "nut-access": ACCESS_FILES},
    digests={GATE_PROGRAM: "digest of nut-shutdown", HOTPLUG_PROGRAM: "digest of nut-hotplug"},
    clients=(ExpectedClient("nas", "192.0.2.20", "ups"),),
    plan={"holds": True, "feasible": True, "plan": {"verdict": "The plan holds", "constraints": []}},
)

CLIENT_FILES = {
    "nut.conf": "MODE=netclient\n",
    "upsmon.conf": "MONITOR ups@pve:3493 1 media three secondary\nMINSUPPLIES 1\nFINALDELAY 5\nOFFDURATION 30\n"
    'SHUTDOWNCMD "/sbin/shutdown -h +0"\n',
    "upssched.conf": "\n",
}
CLIENT = HostObservation(
    now=NOW,
    group=NUT,
    release=(2, 8, 1),
    installed=("upsmon",),
    files={name: make_file(text) for name, text in CLIENT_FILES.items()},
    units={"nut-monitor.service": make_unit(), "nut.target": make_unit()},
    processes=(Process("upsmon", 2, "root"), Process("upsmon", 3, "nut")),
    watched={"ups@pve:3493": upsd_answer(make_ups(clients=("192.0.2.30", "127.0.0.1")), own_address="192.0.2.30")},
    local_names=frozenset({"pve"}),
    synchronized=True,
)
CLIENT_EXPECTED = Expected(name="media", primary=False, files=CLIENT_FILES)


def find_problems(seen: HostObservation = SEEN, expected: Expected = EXPECTED) -> list[Finding]:
    return [finding for finding in checks.examine_host(seen, expected) if finding.verdict not in (OK, NOTE)]


def with_text(name: str, change: Callable[[str], str], seen: HostObservation = SEEN) -> HostObservation:
    before = seen.files[name]
    return replace(seen, files={**seen.files, name: replace(before, text=change(before.text))})


def with_unit(name: str, unit: Unit | None, seen: HostObservation = SEEN) -> HostObservation:
    rest = {key: value for key, value in seen.units.items() if key != name}
    return replace(seen, units={**rest, **({name: unit} if unit else {})})


def with_ups(**changes: Any) -> HostObservation:
    state = make_ups(**changes)
    return replace(SEEN, served=upsd_answer(state), watched={"ups@localhost:3493": upsd_answer(state)})


def with_variables(**changes: str) -> HostObservation:
    return with_ups(variables={**VARIABLES, **{name.replace("_", "."): value for name, value in changes.items()}})


def without_file(name: str) -> HostObservation:
    return replace(SEEN, files={key: value for key, value in SEEN.files.items() if key != name})


def with_own_file(path: str, change: Callable[[File], File | None]) -> HostObservation:
    changed = change(SEEN.own_files[path])
    rest = {key: value for key, value in SEEN.own_files.items() if key != path}
    return replace(SEEN, own_files={**rest, **({path: changed} if changed else {})})


def without_kit(kit: deploy_kits.Kit) -> HostObservation:
    ours = {kit.program, *(place.path for place in kit.places.values())}
    return replace(SEEN, own_files={key: value for key, value in SEEN.own_files.items() if key not in ours})


GATE_POLICY = deploy_kits.SHUTDOWN.places["shutdown.json"].path
GATE_UNIT = deploy_kits.SHUTDOWN.places["nut-shutdown.service"].path


def last_report(rule: str | None, reason: str | None = "r", down: float | None = 12.0) -> report.GateReport:
    """Return the gate's report of a shutdown of one machine. down: seconds until it was down, None if never."""
    machine = report.MachineReport("nas", 60.0, 120.0, down, assumed=False, given_up=down is None)
    return report.GateReport("gate", NOW - 90, 30.0, rule, reason, (machine,), (), ())
