# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Entry, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits as deploy_kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import checks
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import DAY, Expected, Machine
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    UNKNOWN,
    VERDICTS,
    WARNING,
    Finding,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import (
    Cut,
    File,
    Process,
    Seen,
    Served,
    Socket,
    Tls,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access, snapshot
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate, watch
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
    "longest": 120,
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
TABLE = access.render([3493], {access.make_source("nas", "nas.lan"): ["192.0.2.20"]})
TABLE_PATH = deploy_kits.ACCESS.places[deploy_kits.ACCESS_TABLE].path
LOADED = access.Loaded(frozenset({3493}), access.collapse(["192.0.2.20"]), 7, True, 0, ())
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


def file(text: str = "", mode: int = 0o640, gid: int = NUT, changed: float = NOW - 5000, digest: str = "d") -> File:
    return File(mode, 0, gid, changed, digest, text)


def unit(active: str = "active", enabled: str = "enabled", load: str = "loaded", sub: str = "running") -> Unit:
    return Unit(active, enabled, 42, sub, load, "success", NOW - 1000)


def ups(**changes: Any) -> snapshot.UpsState:
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


def served(*states: snapshot.UpsState, here: str = "127.0.0.1") -> Served:
    stale = tuple((one.name, one.error or "") for one in states if not one.fresh)
    return Served(snapshot.Report("2.8.1", "1.3", states, (), stale, ""), here)


DEVICE = bus.UsbDevice(
    "1-1", "051d", "0002", "APC", "Back-UPS", "123", 1, 4, "pci-0000:00:14.0-usb-0:1", True, accessible=True
)


def own(kit: deploy_kits.Kit, texts: dict[str, str]) -> dict[str, File]:
    found = {kit.places[name].path: file(text) for name, text in texts.items() if text}
    return {**found, kit.program: file(mode=0o755, digest=f"digest of {kit.name}")}


CUT = Cut("/run/nut-killpower", "set", 1 << 20, 1000)
SEEN = Seen(
    now=NOW,
    group=NUT,
    release=(2, 8, 1),
    installed=("upsmon", "upsd"),
    files={name: file(text) for name, text in FILES.items()},
    own={
        **own(deploy_kits.SHUTDOWN, GATE_FILES),
        **own(deploy_kits.HOTPLUG, HOTPLUG_FILES),
        **own(deploy_kits.ACCESS, {**ACCESS_FILES, deploy_kits.ACCESS_TABLE: TABLE}),
    },
    units={
        "nut-monitor.service": unit(),
        "nut-server.service": unit(),
        "nut.target": unit(),
        "nut-driver@ups.service": unit(),
        "nut-driver-enumerator.path": unit("inactive", "disabled"),
        "nut-shutdown.service": unit("inactive", "static"),
        "nut-stages.service": ABSENT,
        "nut-watch.service": unit(),
        "nut-hotplug.service": unit("inactive", "static"),
        "nut-hotplug.timer": unit(),
        "nut-access.service": unit(sub="exited"),
        "nut-access-refresh.timer": unit(enabled="static"),
    },
    processes=(Process("upsd", 1, "nut"), Process("upsmon", 2, "root"), Process("upsmon", 3, "nut")),
    sockets=(Socket("0.0.0.0", 22, ""), Socket("0.0.0.0", 3493, "upsd")),
    devices=(DEVICE,),
    served=served(ups()),
    watched={"ups@localhost:3493": served(ups())},
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
    clients=(Machine("nas", "192.0.2.20", "ups"),),
    plan={"holds": True, "feasible": True, "plan": {"verdict": "The plan holds", "constraints": []}},
)

CLIENT_FILES = {
    "nut.conf": "MODE=netclient\n",
    "upsmon.conf": "MONITOR ups@pve:3493 1 media three secondary\nMINSUPPLIES 1\nFINALDELAY 5\nOFFDURATION 30\n"
    'SHUTDOWNCMD "/sbin/shutdown -h +0"\n',
    "upssched.conf": "\n",
}
CLIENT = Seen(
    now=NOW,
    group=NUT,
    release=(2, 8, 1),
    installed=("upsmon",),
    files={name: file(text) for name, text in CLIENT_FILES.items()},
    units={"nut-monitor.service": unit(), "nut.target": unit()},
    processes=(Process("upsmon", 2, "root"), Process("upsmon", 3, "nut")),
    watched={"ups@pve:3493": served(ups(clients=("192.0.2.30", "127.0.0.1")), here="192.0.2.30")},
    synchronized=True,
)
CLIENT_EXPECTED = Expected(name="media", primary=False, files=CLIENT_FILES)


def bad(seen: Seen = SEEN, expected: Expected = EXPECTED) -> list[Finding]:
    return [one for one in checks.examine(seen, expected) if one.verdict not in (OK, NOTE)]


def text(name: str, change: Callable[[str], str], seen: Seen = SEEN) -> Seen:
    before = seen.files[name]
    return replace(seen, files={**seen.files, name: replace(before, text=change(before.text))})


def units(name: str, one: Unit | None, seen: Seen = SEEN) -> Seen:
    rest = {key: value for key, value in seen.units.items() if key != name}
    return replace(seen, units={**rest, **({name: one} if one else {})})


def state(**changes: Any) -> Seen:
    one = ups(**changes)
    return replace(SEEN, served=served(one), watched={"ups@localhost:3493": served(one)})


def variables(**changes: str) -> Seen:
    return state(variables={**VARIABLES, **{name.replace("_", "."): value for name, value in changes.items()}})


def without(name: str) -> Seen:
    return replace(SEEN, files={key: value for key, value in SEEN.files.items() if key != name})


def own_file(path: str, change: Callable[[File], File | None]) -> Seen:
    changed = change(SEEN.own[path])
    rest = {key: value for key, value in SEEN.own.items() if key != path}
    return replace(SEEN, own={**rest, **({path: changed} if changed else {})})


def nothing_of(kit: deploy_kits.Kit) -> Seen:
    ours = {kit.program, *(place.path for place in kit.places.values())}
    return replace(SEEN, own={key: value for key, value in SEEN.own.items() if key not in ours})


GATE_POLICY = deploy_kits.SHUTDOWN.places["shutdown.json"].path
GATE_UNIT = deploy_kits.SHUTDOWN.places["nut-shutdown.service"].path


# What is well


def test_a_primary_that_is_well_has_nothing_but_ok_and_notes() -> None:
    assert bad() == []


def test_a_secondary_that_is_well_has_nothing_but_ok_and_notes() -> None:
    assert bad(CLIENT, CLIENT_EXPECTED) == []


def test_each_check_says_that_it_is_ok() -> None:
    """A check that says nothing can't be told from one that was forgotten."""
    names = {
        one.check
        for one in checks.examine(replace(SEEN, tls=Tls("TLSv1.3", NOW + 1e9)), replace(EXPECTED, tls=True))
        if one.verdict == OK
    }
    assert names == {
        "installed", "mode", "files", "users", "units", "restarted", "usb", "permissions", "driver", "status", "load", "battery",
        "self-test", "upsd", "upsd-watch", "port", "listening", "firewall", "access", "login", "strangers", "upsmon", "shutdowncmd",
        "gate", "hotplug", "policy", "killpower", "cut", "trust", "last-shutdown", "plan", "tls", "clock", "journal",
    }  # fmt: skip


def test_the_checks_of_a_secondary() -> None:
    names = {one.check for one in checks.examine(CLIENT, CLIENT_EXPECTED)}
    assert names >= {
        "installed",
        "mode",
        "files",
        "units",
        "port",
        "login",
        "upsmon",
        "shutdowncmd",
        "clock",
        "journal",
    }
    assert not names & {"usb", "driver", "listening", "killpower", "gate", "plan", "upsd", "tls", "firewall"}


def test_a_login_of_a_secondary_has_its_own_name() -> None:
    assert [one.host for one in checks.examine(SEEN, EXPECTED) if one.check == "login"] == ["nas", "pve"]


def test_a_host_without_the_gate_is_not_judged_by_it() -> None:
    command = "/sbin/shutdown -h +0"
    direct = replace(EXPECTED, files={**FILES, "upsmon.conf": FILES["upsmon.conf"].replace(GATE_COMMAND, command)})
    late = {"mode": "gate", "began": NOW - 90, "rule": "battery", "reason": "r", "hosts": []}
    seen = text("upsmon.conf", lambda one: one.replace(GATE_COMMAND, command))
    seen = replace(seen, last=late, addresses={"nas": "the name nas has no address here"})
    assert {one.check for one in bad(seen, direct)} == {"login"}
    found = {one.check: one.seen for one in checks.examine(seen, direct)}
    assert "last-shutdown" not in found
    assert found["policy"] == "it can be used; SHUTDOWNCMD waits for nobody"
    # the stages read it all the same
    broken = replace(seen, own={**seen.own, GATE_POLICY: replace(seen.own[GATE_POLICY], text="{")})
    assert {one.check for one in bad(broken, direct)} == {"login", "policy"}


def test_a_sandbox_that_the_host_refused_is_a_note_with_the_reason() -> None:
    wanted = replace(
        EXPECTED,
        kits={**EXPECTED.kits, "nut-shutdown": {**GATE_FILES, "nut-server-hardening.conf": "[Service]\n"}},
    )
    (missing,) = bad(SEEN, wanted)
    assert (missing.verdict, "homelab-nut-hardening.conf is missing" in missing.seen) == (FAILURE, True)
    refused = replace(SEEN, refused={"nut-server-hardening.conf": "226/NAMESPACE\x1b"})
    assert bad(refused, wanted) == []
    (note,) = [one for one in checks.examine(refused, wanted) if one.check == "gate"]
    assert note.verdict == NOTE
    assert note.seen.startswith("226/NAMESPACE")
    assert "\x1b" not in note.seen
    assert "nut_server_hardening=false" in note.todo


# What makes each check fail: what is changed, the check, the host, the verdict, and words of what was seen

BROKEN: dict[str, tuple[Seen, str, str, str]] = {
    "no upsd": (replace(SEEN, installed=("upsmon",)), "installed", FAILURE, "upsd not installed"),
    "no release": (replace(SEEN, release=None), "installed", UNKNOWN, "does not say its release"),
    "a file is missing": (without("upsd.conf"), "files", FAILURE, "/etc/nut/upsd.conf is missing"),
    "a file that NUT can't read": (
        replace(SEEN, files={**SEEN.files, "upsmon.conf": file(FILES["upsmon.conf"], mode=0o600)}),
        "files", FAILURE, "upsmon.conf can not be read by NUT",
    ),
    "a file that all may read": (
        replace(SEEN, files={**SEEN.files, "upsmon.conf": file(FILES["upsmon.conf"], mode=0o644)}),
        "files", WARNING, "mode 0644",
    ),
    "a file of another group": (
        replace(SEEN, files={**SEEN.files, "upsmon.conf": file(FILES["upsmon.conf"], gid=0)}),
        "files", FAILURE, "can not be read by NUT",
    ),
    "a directive changed by hand": (
        text("upsmon.conf", lambda one: one.replace("FINALDELAY 5", "FINALDELAY 7")),
        "files", WARNING, "upsmon.conf is not as the inventory has it: FINALDELAY",
    ),
    "a directive added by hand": (
        text("upsmon.conf", lambda one: one + "DEADTIME 99\n"), "files", WARNING, "upsmon.conf is not as the inventory has it: DEADTIME",
    ),
    "MONITOR changed by hand": (
        text("upsmon.conf", lambda one: one.replace("one primary", "other primary")),
        "files", FAILURE, "MONITOR",
    ),
    "a section is gone": (text("ups.conf", lambda one: one.replace("[ups]", "[other]")), "files", WARNING, "[ups] is missing"),
    "a key of a section": (text("ups.conf", lambda one: one.replace("051d", "0463")), "files", WARNING, "[ups] vendorid"),
    "a setting before the sections": (text("ups.conf", lambda one: one.replace("= 3", "= 4")), "files", WARNING, "maxretry"),
    "files unreadable for us": (replace(SEEN, troubles={"files": "OSError: no"}), "files", UNKNOWN, "OSError: no"),
    "MODE=none": (text("nut.conf", lambda one: one.replace("netserver", "none")), "mode", FAILURE, "may cut the UPS's power"),
    "no MODE": (text("nut.conf", lambda one: ""), "mode", FAILURE, "MODE is missing"),
    "MODE of a client": (text("nut.conf", lambda one: one.replace("netserver", "netclient")), "mode", FAILURE, "must be netserver"),
    "another password": (text("upsd.users", lambda one: one.replace("two", "three")), "users", FAILURE, "nas has another password"),
    "a user is missing": (text("upsd.users", lambda one: one.partition("[nas]")[0]), "users", FAILURE, "nas is missing"),
    "a user's type": (text("upsd.users", lambda one: one.replace("upsmon secondary", "")), "users", FAILURE, "upsmon nothing"),
    "a user too many": (text("upsd.users", lambda one: one + "[x]\n  password = y\n"), "users", WARNING, "has x besides"),
    "a masked unit": (units("nut-monitor.service", unit("inactive", "masked", "masked")), "units", FAILURE, "is masked"),
    "a unit that failed": (units("nut-server.service", unit("failed")), "units", FAILURE, "nut-server.service does not run: failed"),
    "a driver that is stopped": (units("nut-driver@ups.service", unit("inactive")), "units", FAILURE, "ups.service does not run"),
    "a driver that ends again": (
        units("nut-driver@ups.service", unit("activating", sub="auto-restart")), "units", FAILURE, "ends again and again",
    ),
    "a unit that is not there": (units("nut-monitor.service", None), "units", FAILURE, "there is no unit nut-monitor.service"),
    "a unit that systemd does not know": (
        units("nut-monitor.service", unit("inactive", "", "not-found")), "units", FAILURE, "there is no unit",
    ),
    "a unit that is not enabled": (units("nut-monitor.service", unit(enabled="disabled")), "units", WARNING, "not started at boot"),
    "the enumerator's path": (units("nut-driver-enumerator.path", unit()), "units", WARNING, "restarts drivers on its own"),
    "systemd does not answer": (replace(SEEN, troubles={"units": "OSError: dead"}), "units", UNKNOWN, "dead"),
    "upsmon has not read its file": (
        replace(SEEN, files={**SEEN.files, "upsmon.conf": file(FILES["upsmon.conf"].replace("DELAY 5", "DELAY 6"), changed=NOW - 10)}),
        "restarted", WARNING, "upsmon.conf changed",
    ),
    "upsd has not read its file": (
        replace(SEEN, files={**SEEN.files, "upsd.conf": file("LISTEN 0.0.0.0\n", changed=NOW - 10)}),
        "restarted", WARNING, "upsd.conf changed",
    ),
    "unplugged": (replace(SEEN, devices=()), "usb", FAILURE, "ups is not on the USB bus (no device is there)"),
    "another UPS": (replace(SEEN, devices=(replace(DEVICE, vendor_id="0463"),)), "usb", FAILURE, "there are 0463:0002"),
    "no bus": (replace(SEEN, troubles={"usb": "UsbError: none"}), "usb", UNKNOWN, "UsbError"),
    "no right to the device": (
        replace(SEEN, devices=(replace(DEVICE, accessible=False),)), "permissions", FAILURE, "/dev/bus/usb/001/004",
    ),
    "stale": (state(fresh=False, error="DATA-STALE", variables={}), "driver", FAILURE, "hears nothing from it"),
    "no driver": (state(fresh=False, error="DRIVER-NOT-CONNECTED", variables={}), "driver", FAILURE, "does not run"),
    "no status yet": (state(fresh=False, variables={}), "driver", FAILURE, "no status yet"),
    "not served": (replace(SEEN, served=served(ups(name="other"))), "driver", FAILURE, "does not serve ups"),
    "on battery": (state(status=("OB", "DISCHRG")), "status", WARNING, "on battery (OB), 100 %, 1800 s left"),
    "low": (state(status=("OB", "LB")), "status", FAILURE, "low (LB)"),
    "FSD": (state(status=("FSD", "OB")), "status", FAILURE, "(FSD)"),
    "overloaded": (state(status=("OL", "OVER")), "status", FAILURE, "(OVER)"),
    "off": (state(status=("OFF",)), "status", FAILURE, "(OFF)"),
    "replace the battery": (state(status=("OL", "RB")), "status", WARNING, "(RB)"),
    "bypass": (state(status=("OL", "BYPASS")), "status", WARNING, "(BYPASS)"),
    "alarm": (
        state(status=("ALARM", "OL"), variables={**VARIABLES, "ups.alarm": "Fan failure!"}), "status", WARNING, "alarm: Fan failure!",
    ),
    "loaded": (variables(ups_load="81"), "load", WARNING, "81 %"),
    "an old battery": (variables(battery_date="2020/06/01"), "battery", WARNING, "6.3 years old"),
    "a failed test": (variables(ups_test_result="Done and error"), "self-test", WARNING, "Done and error"),
    "upsd is silent": (replace(SEEN, served="upsd at localhost:3493 cannot be reached: no"), "upsd", FAILURE, "cannot be reached"),
    "not on all addresses": (
        replace(SEEN, sockets=(Socket("127.0.0.1", 3493, "upsd"),)), "listening", FAILURE,
        "should listen on 0.0.0.0:3493, and listens on 127.0.0.1:3493",
    ),
    "on another port": (replace(SEEN, sockets=(Socket("0.0.0.0", 3494, "upsd"),)), "listening", FAILURE, "0.0.0.0:3494"),
    "on another address besides": (
        replace(SEEN, sockets=(*SEEN.sockets, Socket("::1", 3493, "upsd"))), "listening", WARNING, "[::1]:3493, which the inventory",
    ),
    "somebody blocked upsd": (
        replace(SEEN, helped=(watch.Event(watch.BLOCKED, "192.0.2.9", "192.0.2.9 blocked\x1b upsd", NOW - 9 * DAY, NOW - DAY, 7),)),
        "upsd-watch", WARNING, "192.0.2.9 blocked\\x1b upsd (7 times, until",
    ),
    "upsd hung": (
        replace(SEEN, helped=(watch.Event(watch.RESTARTED, "", "upsd said nothing for 7 s. Restarted it", NOW - DAY, NOW - DAY),)),
        "upsd-watch", WARNING, "Restarted it",
    ),
    "the watch of upsd does not run": (units("nut-watch.service", unit("inactive")), "gate", FAILURE, "nut-watch.service does not run"),
    "sockets unreadable": (replace(SEEN, troubles={"sockets": "OSError: no"}), "listening", UNKNOWN, "OSError"),
    "shut out": (replace(SEEN, firewall=("no rule lets in nas", "add this")), "firewall", FAILURE, "no rule lets in nas"),
    "firewall unreadable": (replace(SEEN, troubles={"firewall": "FirewallError: no"}), "firewall", UNKNOWN, "FirewallError"),
    "its own upsmon is out": (
        replace(SEEN, watched={"ups@localhost:3493": served(ups(clients=("192.0.2.20",)))}), "login", FAILURE, "upsmon of this host",
    ),
    "a MONITOR that can't be asked": (
        replace(SEEN, watched={"ups@localhost:3493": "upsd at localhost:3493 answered UNKNOWN-UPS"}), "port", FAILURE, "UNKNOWN-UPS",
    ),
    "a secondary on the primary": (
        text("upsmon.conf", lambda one: one.replace("one primary", "one secondary")), "upsmon", FAILURE, "this host would go down first",
    ),
    "no MONITOR": (text("upsmon.conf", lambda one: one.replace("MONITOR", "#")), "upsmon", FAILURE, "watches no UPS"),
    "power value 0": (
        text("upsmon.conf", lambda one: one.replace("3493 1 monitor", "3493 0 monitor")), "upsmon", FAILURE, "watches no UPS",
    ),
    "upsmon runs as root alone": (replace(SEEN, processes=(Process("upsmon", 2, "root"),)), "upsmon", WARNING, "runs as root"),
    "SHUTDOWNCMD changed by hand": (
        text("upsmon.conf", lambda one: one.replace(GATE_COMMAND, "/bin/true")), "shutdowncmd", FAILURE, "'/bin/true', and",
    ),
    "no SHUTDOWNCMD": (text("upsmon.conf", lambda one: one.replace("SHUTDOWNCMD", "#")), "shutdowncmd", FAILURE, "no SHUTDOWNCMD"),
    "the gate's program is gone": (own_file(GATE_PROGRAM, lambda one: None), "gate", FAILURE, "/usr/local/sbin/nut-shutdown is missing"),
    "it can't be run": (own_file(GATE_PROGRAM, lambda one: replace(one, mode=0o644)), "gate", FAILURE, "can't be run"),
    "it is an old one": (own_file(GATE_PROGRAM, lambda one: replace(one, digest="old")), "gate", WARNING, "not the one"),
    "its unit's file is gone": (own_file(GATE_UNIT, lambda one: None), "gate", FAILURE, "nut-shutdown.service is missing"),
    "its unit's file is another": (own_file(GATE_UNIT, lambda one: replace(one, text="x")), "gate", WARNING, "not as the inventory"),
    "its unit is masked": (units("nut-shutdown.service", unit("inactive", "masked", "masked")), "gate", FAILURE, "masked"),
    "its unit is not loaded": (units("nut-shutdown.service", unit("inactive", "", "not-found")), "gate", FAILURE, "does not know"),
    "its unit is bad": (units("nut-shutdown.service", unit("inactive", "", "bad-setting")), "gate", FAILURE, "can't load"),
    "its unit failed": (units("nut-shutdown.service", unit("failed", "static")), "gate", WARNING, "failed when it ran last"),
    "the other program is gone": (own_file(HOTPLUG_PROGRAM, lambda one: None), "hotplug", FAILURE, "nut-hotplug is missing"),
    "nothing of the other program is there": (nothing_of(deploy_kits.HOTPLUG), "hotplug", WARNING, "nut-hotplug is not installed"),
    "nothing of the gate is there": (nothing_of(deploy_kits.SHUTDOWN), "gate", FAILURE, "nut-shutdown is not installed"),
    "its timer does not run": (units("nut-hotplug.timer", unit("inactive")), "hotplug", FAILURE, "nut-hotplug.timer does not run"),
    "the policy is broken": (own_file(GATE_POLICY, lambda one: replace(one, text='{"version": 1')), "policy", FAILURE, "can't be used"),
    "a stage is broken": (
        own_file(GATE_POLICY, lambda one: replace(one, text=json.dumps({**POLICY, "stages": [{"name": ""}]}))),
        "policy", FAILURE, "can't be used",
    ),
    "the policy is another": (
        own_file(GATE_POLICY, lambda one: replace(one, text=json.dumps({**POLICY, "longest": 10}))), "gate", WARNING, "json is not as",
    ),
    "a name without an address": (
        replace(SEEN, addresses={"nas": "the name nas has no address here"}), "policy", WARNING, "no address is known of nas",
    ),
    "the flag": (replace(SEEN, flags={"/run/nut-killpower": NOW - 60}), "killpower", FAILURE, "the next reboot cuts"),
    "a flag that nothing names": (replace(SEEN, flags={"/etc/killpower": NOW - 60}), "killpower", WARNING, "left by an earlier"),
    "no spare of the flag": (replace(SEEN, cut=replace(CUT, spare="missing")), "cut", WARNING, "killpower.spare is not usable (missing)"),
    "a spare that is none": (replace(SEEN, cut=replace(CUT, spare="spoiled")), "cut", WARNING, "the UPS might not cut the power"),
    "no space for the flag": (replace(SEEN, cut=replace(CUT, space=4096)), "cut", WARNING, "has room for only 4 KiB and 1000 files"),
    "too many files": (replace(SEEN, cut=replace(CUT, files=3)), "cut", WARNING, "1024 KiB and 3 files"),
    "a directory that nut can write": (
        replace(SEEN, untrusted={"/etc/nut": "/etc/nut belongs to the user nut"}), "trust", FAILURE, "root trusts and runs",
    ),
    "the last shutdown ended by the battery": (
        replace(SEEN, last={"mode": "gate", "began": NOW - 90, "rule": "battery", "reason": "ups had 20 s left", "hosts": []}),
        "last-shutdown", WARNING, "ups had 20 s left",
    ),
    "the last shutdown left one": (
        replace(SEEN, last={"mode": "gate", "began": NOW - 90, "rule": "down", "reason": "r", "hosts": [{"name": "nas", "down": None}]}),
        "last-shutdown", WARNING, "did not end well",
    ),
    "the last shutdown has no end": (
        replace(SEEN, last={"mode": "gate", "began": NOW - 90, "rule": None, "reason": None, "hosts": []}),
        "last-shutdown", WARNING, "it has no end",
    ),
    "the clock can't be asked": (replace(SEEN, troubles={"clock": "OSError: x"}), "clock", UNKNOWN, "OSError"),
    "no journal": (replace(SEEN, troubles={"journal": "OSError: x"}), "journal", UNKNOWN, "OSError"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(name: str) -> None:
    seen, check, verdict, words = BROKEN[name]
    found = [one for one in bad(seen) if one.check == check]
    assert [(one.verdict, words in one.seen) for one in found if words in one.seen] == [(verdict, True)], found
    assert all(one.todo for one in found if one.verdict in (WARNING, FAILURE)), "what to do?"


@pytest.mark.parametrize("name", BROKEN)
def test_one_thing_that_is_broken_does_not_break_everything(name: str) -> None:
    """A finding that is not about it would hide it."""
    seen, check, _verdict, _words = BROKEN[name]
    others = {one.check for one in bad(seen)} - {check}
    assert others <= TOGETHER.get(name, set()), others


# what can't be broken alone
TOGETHER = {
    "a file is missing": set(),
    "MODE=none": {"files"},
    "no MODE": {"files"},
    "MODE of a client": {"files"},
    "a section is gone": {"units", "driver", "upsmon"},
    "a key of a section": {"usb"},
    "upsmon has not read its file": {"files"},
    "upsd has not read its file": {"files"},
    "no status yet": set(),
    "not served": {"login"},
    "upsd is silent": {"login"},
    "a secondary on the primary": {"files"},
    "no MONITOR": {"files"},
    "power value 0": {"files"},
    "a name without an address": {"login"},
    "its unit is not loaded": set(),
}


# Secondaries

CLIENT_BROKEN: dict[str, tuple[Seen, str, str, str]] = {
    "no upsmon": (replace(CLIENT, installed=()), "installed", FAILURE, "upsmon not installed"),
    "stopped": (units("nut-monitor.service", unit("inactive"), CLIENT), "units", FAILURE, "does not run: inactive"),
    "the port is shut": (
        replace(CLIENT, watched={"ups@pve:3493": "upsd at pve:3493 cannot be reached: no complete answer in time"}),
        "port", FAILURE, "no complete answer in time",
    ),
    "upsd has no data": (
        replace(CLIENT, watched={"ups@pve:3493": served(ups(fresh=False, error="DATA-STALE", clients=("192.0.2.30",)), here="192.0.2.30")}),
        "port", WARNING, "no fresh data",
    ),
    "not logged in": (
        replace(CLIENT, watched={"ups@pve:3493": served(ups(clients=("127.0.0.1",)), here="192.0.2.30")}), "login", FAILURE,
        "upsmon of this host (192.0.2.30) is not logged in",
    ),
    "a wrong password": (
        replace(
            CLIENT,
            watched={"ups@pve:3493": served(ups(clients=()), here="192.0.2.30")},
            journal=(Entry(NOW, "nut-monitor.service", "Login on UPS [ups@pve:3493] failed - got [ERR ACCESS-DENIED]"),),
        ),
        "login", FAILURE, "refuses its password",
    ),
    "a primary on the secondary": (
        text("upsmon.conf", lambda one: one.replace("three secondary", "three primary"), CLIENT), "upsmon", FAILURE,
        "would not be waited for",
    ),
    "SHUTDOWNCMD": (text("upsmon.conf", lambda one: one.replace("-h +0", "-r +0"), CLIENT), "shutdowncmd", FAILURE, "-r +0"),
    "MODE": (text("nut.conf", lambda one: one.replace("netclient", "none"), CLIENT), "mode", FAILURE, "must be netclient"),
    "FINALDELAY": (
        text("upsmon.conf", lambda one: one.replace("FINALDELAY 5", "FINALDELAY 60"), CLIENT), "files", WARNING, "FINALDELAY",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLIENT_BROKEN)
def test_what_is_broken_on_a_secondary_is_named(name: str) -> None:
    seen, check, verdict, words = CLIENT_BROKEN[name]
    found = [one for one in bad(seen, CLIENT_EXPECTED) if one.check == check]
    assert [(one.host, one.verdict) for one in found if words in one.seen] == [("media", verdict)], found
    assert all(one.todo for one in found)


# Logins of the secondaries, as the primary sees them


def logins(seen: Seen, expected: Expected = EXPECTED) -> list[tuple[str, str]]:
    return [(one.host, one.verdict) for one in bad(seen, expected) if one.check == "login"]


def test_a_secondary_that_is_not_logged_in_is_a_failure_of_its_own() -> None:
    assert logins(state(clients=("127.0.0.1",))) == [("nas", FAILURE)]


def test_a_secondary_that_watches_another_ups_is_not_logged_in() -> None:
    assert logins(SEEN, replace(EXPECTED, clients=(Machine("nas", "192.0.2.20", "other"),))) == [("nas", FAILURE)]


def test_a_secondary_without_an_address_is_unknown() -> None:
    assert logins(replace(SEEN, addresses={"nas": "no address"})) == [("nas", UNKNOWN)]


def test_nobody_is_logged_in_to_an_upsd_that_does_not_answer() -> None:
    assert logins(replace(SEEN, served="no", watched={})) == [("nas", FAILURE)]


def test_any_address_of_a_secondary_counts_and_any_spelling() -> None:
    seen = replace(state(clients=("127.0.0.1", "::ffff:192.0.2.21")), addresses={"nas": ("192.0.2.20", "192.0.2.21")})
    assert logins(seen) == []
    assert not [one for one in checks.examine(seen, EXPECTED) if one.check == "strangers" and one.verdict != OK]


def test_who_is_not_in_the_inventory_is_noted() -> None:
    found = [
        one
        for one in checks.examine(state(clients=("127.0.0.1", "192.0.2.20", "192.0.2.99")), EXPECTED)
        if one.check == "strangers"
    ]
    assert [(one.verdict, "192.0.2.99" in one.seen) for one in found] == [(NOTE, True)]


# Details that must not cry wolf


def test_what_nut_hotplug_adds_to_ups_conf_is_no_difference() -> None:
    seen = text(
        "ups.conf",
        lambda one: one + '  serial = "123"\n[found]\n  driver = usbhid-ups\n  port = auto\n  vendorid = "0463"\n',
    )
    seen = replace(
        units("nut-driver@found.service", unit(), seen),
        devices=(DEVICE, replace(DEVICE, vendor_id="0463")),
        served=served(ups(), ups(name="found", clients=())),
    )
    assert bad(seen) == []


def test_an_auto_driver_is_compared_by_what_was_wanted() -> None:
    wanted = {**FILES, "ups.conf": "[ups]\n  driver = auto\n  port = auto\n"}
    seen = replace(SEEN, files={**SEEN.files, "ups.conf.wanted": file(wanted["ups.conf"])})
    assert bad(seen, replace(EXPECTED, files=wanted)) == []
    serial = text("ups.conf", lambda one: one.replace("port = auto", "port = /dev/ttyUSB0"), seen)
    assert bad(serial, replace(EXPECTED, files=wanted)) == []
    other = replace(
        SEEN, files={**SEEN.files, "ups.conf.wanted": file("[ups]\n  driver = auto\n  port = auto\n  desc = x\n")}
    )
    assert [one.check for one in bad(other, replace(EXPECTED, files=wanted))] == ["files"]


def test_a_stand_in_for_an_absent_ups_is_a_ups_that_is_not_there() -> None:
    seen = text("ups.conf", lambda one: "maxretry = 3\n[ups]\n  driver = dummy-ups\n  port = nut-hotplug-absent.dev\n")
    absent = ups(status=("ABSENT",))
    seen = replace(seen, served=served(absent), watched={"ups@localhost:3493": served(absent)}, devices=())
    assert [(one.check, one.verdict) for one in bad(seen)] == [("usb", FAILURE)]


def test_a_comment_is_no_difference_and_no_reason_to_restart() -> None:
    changed = file("# another\n" + FILES["upsmon.conf"], changed=NOW - 10)
    found = checks.examine(replace(SEEN, files={**SEEN.files, "upsmon.conf": changed}), EXPECTED)
    assert [(one.check, one.verdict) for one in found if one.check in ("files", "restarted")] == [
        ("files", OK),
        ("restarted", NOTE),
    ]


def test_what_this_release_does_not_know_was_left_out() -> None:
    wanted = {**FILES, "upsmon.conf": FILES["upsmon.conf"] + "OBLBDURATION 5\n"}
    assert bad(SEEN, replace(EXPECTED, files=wanted)) == []
    assert [one.check for one in bad(replace(SEEN, release=(2, 8, 4)), replace(EXPECTED, files=wanted))] == ["files"]


def test_a_ups_without_keys_is_there_if_it_is_served() -> None:
    plain = {**FILES, "ups.conf": "maxretry = 3\n[ups]\n  driver = usbhid-ups\n  port = auto\n"}
    seen = text("ups.conf", lambda one: plain["ups.conf"])
    unclear = replace(DEVICE, hid_power=None)
    assert bad(replace(seen, devices=(unclear,)), replace(EXPECTED, files=plain)) == []
    mouse = replace(DEVICE, hid_power=False)
    stale = ups(fresh=False, error="DATA-STALE", variables={})
    gone = replace(seen, devices=(mouse,), served=served(stale), watched={"ups@localhost:3493": served(stale)})
    assert [one.check for one in bad(gone, replace(EXPECTED, files=plain))] == ["usb", "driver"]


def test_a_driver_that_is_none_for_usb_has_nothing_on_the_bus() -> None:
    snmp = {**FILES, "ups.conf": "maxretry = 3\n[ups]\n  driver = snmp-ups\n  port = 192.0.2.9\n"}
    seen = replace(text("ups.conf", lambda one: snmp["ups.conf"]), devices=())
    assert bad(seen, replace(EXPECTED, files=snmp)) == []


def test_a_flag_while_the_shutdown_runs_is_as_it_should_be() -> None:
    seen = replace(units("nut-shutdown.service", unit("activating", "static")), flags={"/run/nut-killpower": NOW})
    assert [one.verdict for one in checks.examine(seen, EXPECTED) if one.check == "killpower"] == [NOTE]


@pytest.mark.parametrize(
    ("date", "verdict"), [("2024/01/01", OK), ("2023/01/01", NOTE), ("06/01/20", WARNING), ("not set", OK)]
)
def test_the_battery_ages(date: str, verdict: str) -> None:
    assert [
        one.verdict for one in checks.examine(variables(battery_date=date), EXPECTED) if one.check == "battery"
    ] == [verdict]


def test_a_battery_that_does_not_say_its_age_is_told_as_such() -> None:
    seen = state(variables={key: value for key, value in VARIABLES.items() if key != "battery.date"})
    assert "does not say how old" in next(one.seen for one in checks.examine(seen, EXPECTED) if one.check == "battery")


@pytest.mark.parametrize(
    ("places", "wanted", "verdict"),
    [
        ([("127.0.0.1", 3493)], "LISTEN localhost 3493\n", OK),
        ([("::1", 3493)], "LISTEN localhost\n", OK),
        ([("0.0.0.0", 3493), ("::", 3493)], "LISTEN * 3493\n", OK),
        ([("192.0.2.1", 3493)], "LISTEN pve.lan\n", OK),
        ([("192.0.2.1", 3494)], "LISTEN pve.lan\n", FAILURE),
        ([("192.0.2.1", 3493)], "LISTEN 192.0.2.1\n", OK),
        ([("192.0.2.1", 3493)], "LISTEN 192.0.2.1\nLISTEN 127.0.0.1\n", FAILURE),
        ([("127.0.0.1", 3493)], "LISTEN *\n", FAILURE),
    ],
)
def test_where_upsd_listens(places: list[tuple[str, int]], wanted: str, verdict: str) -> None:
    files = {**FILES, "upsd.conf": wanted}
    seen = replace(text("upsd.conf", lambda one: wanted), sockets=tuple(Socket(*place, "upsd") for place in places))
    assert [
        one.verdict for one in checks.examine(seen, replace(EXPECTED, files=files)) if one.check == "listening"
    ] == [verdict]


def test_sockets_whose_owner_can_not_be_told_count_as_upsd_s() -> None:
    seen = replace(SEEN, sockets=(Socket("0.0.0.0", 22, ""), Socket("0.0.0.0", 3493, "")))
    found = [one for one in checks.examine(seen, EXPECTED) if one.check == "listening"]
    assert [(one.verdict, one.seen) for one in found] == [(OK, "upsd listens on 0.0.0.0:3493")]
    assert [
        one.verdict for one in bad(replace(SEEN, sockets=(Socket("0.0.0.0", 22, ""),))) if one.check == "listening"
    ] == [FAILURE]


def test_the_clock_that_nothing_keeps_is_a_note() -> None:
    found = checks.examine(replace(SEEN, synchronized=False), EXPECTED)
    assert [one.verdict for one in found if one.check == "clock"] == [NOTE]


def test_troubles_of_the_last_day_are_notes() -> None:
    seen = replace(
        SEEN,
        journal=tuple(
            Entry(NOW - at, "nut-server.service", "Data for UPS [ups] is stale - check driver") for at in (9, 5)
        ),
    )
    found = [one for one in checks.examine(seen, EXPECTED) if one.check == "journal"]
    assert [one.verdict for one in found] == [NOTE]
    assert found[0].seen.startswith("driver of ups hears nothing from it (2 times, last 20")


def test_what_a_release_is_bad_at_is_a_note() -> None:
    found = [one for one in checks.examine(SEEN, EXPECTED) if one.check == "release"]
    assert found
    assert {one.verdict for one in found} == {NOTE}
    assert all(one.seen.startswith("NUT 2.8.1: ") for one in found)
    assert [
        one.verdict for one in checks.examine(replace(SEEN, release=(2, 9, 9)), EXPECTED) if one.check == "release"
    ] == [OK]


def test_a_wait_that_was_cut_short_is_a_note() -> None:
    found = checks.examine(replace(SEEN, gate={"ended": None}), EXPECTED)
    assert [one.verdict for one in found if one.check == "last-shutdown"] == [NOTE, OK]


@pytest.mark.parametrize("rule", [gate.DOWN, gate.ASSUMED])
def test_a_shutdown_that_ended_well(rule: str) -> None:
    last = {"mode": "gate", "began": NOW, "rule": rule, "reason": "r", "hosts": [{"name": "nas", "down": 12.0}]}
    assert [
        one.verdict for one in checks.examine(replace(SEEN, last=last), EXPECTED) if one.check == "last-shutdown"
    ] == [OK]


@pytest.mark.parametrize(
    "last",
    [
        {},
        {"began": "x"},
        {"began": 1e300, "rule": "down", "reason": "", "hosts": []},
        {"began": 1, "rule": 1, "reason": 1, "hosts": 1},
    ],
)
def test_a_report_that_is_none_is_a_note(last: dict[str, Any]) -> None:
    assert [
        one.verdict for one in checks.examine(replace(SEEN, last=last), EXPECTED) if one.check == "last-shutdown"
    ] == [NOTE]


# The plan, TLS, the clock of the controller


@pytest.mark.parametrize(
    ("holds", "feasible", "verdict"),
    [(True, True, OK), (False, True, NOTE), (False, False, FAILURE), (False, None, FAILURE), (None, None, UNKNOWN)],
)
def test_the_plan(holds: bool | None, feasible: bool | None, verdict: str) -> None:
    constraints = [{"holds": False, "remedy": "set nut_server_runtime_low to 400"}, {"holds": True, "remedy": "no"}]
    planned = {"holds": holds, "feasible": feasible, "plan": {"verdict": "as it is", "constraints": constraints}}
    found = [one for one in checks.examine(SEEN, replace(EXPECTED, plan=planned)) if one.check == "plan"]
    assert [(one.verdict, one.seen) for one in found] == [(verdict, "as it is")]
    if holds is False:
        assert "set nut_server_runtime_low to 400" in found[0].todo
        assert "no" not in found[0].todo.split("; ")


def test_a_plan_that_lacks_a_ups_without_data_is_no_trouble_of_its_own() -> None:
    planned = {"holds": None, "plan": {"verdict": "too little is known", "constraints": []}}
    seen = state(fresh=False, error="DATA-STALE", variables={})
    assert [one.verdict for one in checks.examine(seen, replace(EXPECTED, plan=planned)) if one.check == "plan"] == [
        NOTE
    ]


def test_a_plan_that_could_not_be_made() -> None:
    found = bad(SEEN, replace(EXPECTED, plan={"holds": None, "plan": None, "msg": "machines: no"}))
    assert [(one.check, one.verdict) for one in found] == [("plan", UNKNOWN)]
    assert "machines: no" in found[0].seen


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Tls("TLSv1.3", NOW + 31 * 86400), OK),
        (Tls("TLSv1.3", NOW + 29 * 86400), WARNING),
        (Tls("TLSv1.3", NOW - 1), FAILURE),
        (Tls("", 0.0, "upsd answered FEATURE-NOT-CONFIGURED"), FAILURE),
    ],
)
def test_the_certificate(seen: Tls, verdict: str) -> None:
    found = [one for one in checks.examine(replace(SEEN, tls=seen), replace(EXPECTED, tls=True)) if one.check == "tls"]
    assert [one.verdict for one in found] == [verdict]


@pytest.mark.parametrize(
    ("ahead", "unsure", "verdict"),
    [(0.2, 1, OK), (5.9, 1, OK), (-7, 1, NOTE), (62, 1, WARNING), (-70, 1, WARNING), (70, 30, NOTE)],
)
def test_the_clock_of_the_controller(ahead: float, unsure: float, verdict: str) -> None:
    found = checks.skew("pve", ahead, unsure)
    assert (found.check, found.host, found.verdict) == ("skew", "pve", verdict)
    if verdict != OK:
        assert ("behind" in found.seen) == (ahead < 0)


# Robustness


def test_a_check_that_fails_itself_says_so_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(look: object) -> list[Finding]:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(checks, "CHECKS", (*checks.CHECKS[:3], broken, *checks.CHECKS[3:]))
    assert [(one.check, one.verdict) for one in bad()] == [("broken", UNKNOWN)]
    assert len(checks.examine(SEEN, EXPECTED)) > 30


def test_an_empty_host_says_only_that_nothing_is_installed() -> None:
    assert [one.check for one in checks.examine(Seen(now=NOW), EXPECTED)] == ["installed"]


def test_no_secret_is_ever_told() -> None:
    seen = text(
        "upsd.users",
        lambda one: one.replace("two", "hunter2"),
        text("upsmon.conf", lambda one: one.replace(" one ", " hunter3 ")),
    )
    said = json.dumps([(one.seen, one.todo) for one in checks.examine(seen, EXPECTED)])
    assert "hunter" not in said
    assert '"two"' not in said


def test_all_verdicts_are_known() -> None:
    assert {one.verdict for seen, *_rest in BROKEN.values() for one in checks.examine(seen, EXPECTED)} <= set(VERDICTS)


# TrueNAS


def test_truenas_as_it_should_be() -> None:
    found = checks.truenas("nas", {"actions": [], "version": "25.10.1"})
    assert [(one.check, one.verdict) for one in found] == [("settings", OK), ("service", OK)]
    assert "25.10.1" in found[0].seen


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            {"actions": ["set monpwd, shutdown; TrueNAS restarted its UPS service"]},
            [("settings", FAILURE, "has them: monpwd, shutdown"), ("service", OK, "")],
        ),
        ({"actions": ["started the UPS service"]}, [("settings", OK, ""), ("service", FAILURE, "does not run")]),
        (
            {"actions": ["enabled the UPS service on boot"]},
            [("settings", OK, ""), ("service", WARNING, "does not start at boot")],
        ),
        ({"failed": True, "msg": "login refused: wrong API key"}, [("settings", UNKNOWN, "wrong API key")]),
        ({"unreachable": True, "msg": "no route"}, [("settings", UNKNOWN, "no route")]),
        ({"skipped": True}, [("settings", UNKNOWN, "not asked")]),
    ],
)
def test_what_is_wrong_with_truenas(result: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    found = checks.truenas("nas", result)
    assert [(one.check, one.verdict) for one in found] == [(check, verdict) for check, verdict, _words in expected]
    assert all(words in one.seen for one, (_check, _verdict, words) in zip(found, expected))


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({"missing_clients": []}, OK),
        ({"missing_clients": ["nas"]}, FAILURE),
        ({"failed": True, "msg": "no"}, UNKNOWN),
        ({"unreachable": True}, UNKNOWN),
    ],
)
def test_a_login_as_its_primary_told_it(result: dict[str, Any], verdict: str) -> None:
    found = checks.seen_from("pve", "nas", result)
    assert [(one.check, one.host, one.verdict) for one in found] == [("login", "nas", verdict)]


@pytest.mark.parametrize(
    ("result", "check", "words"),
    [
        (None, "reachable", "no answer"),
        (
            {"unreachable": True, "msg": "Failed to connect\nto the host"},
            "reachable",
            "can't be reached: Failed to connect to the host",
        ),
        ({"failed": True, "msg": "/bin/sh: 1: /usr/bin/python3: not found"}, "python", "no Python"),
        (
            {"failed": True, "msg": "the group pve is empty"},
            "reachable",
            "could not be looked at: the group pve is empty",
        ),
    ],
)
def test_a_host_that_could_not_be_looked_at(result: dict[str, Any] | None, check: str, words: str) -> None:
    found = checks.unexamined("pve", result)
    assert (found.check, found.verdict) == (check, FAILURE)
    assert words in found.seen


# Who may connect


def access_findings(seen: Seen, expected: Expected = EXPECTED) -> list[tuple[str, str, str]]:
    found = [one for one in checks.examine(seen, expected) if one.check == "access" and one.verdict != OK]
    return [(one.verdict, one.host, one.seen) for one in found]


def test_a_table_that_is_not_loaded() -> None:
    ((verdict, host, words),) = access_findings(replace(SEEN, access=None))
    assert (verdict, host) == (FAILURE, "pve")
    assert "the table inet homelab_nut is not loaded" in words


def test_a_table_that_lets_in_others() -> None:
    loaded = replace(LOADED, allowed=access.collapse(["192.0.2.0/24"]))
    ((verdict, _host, words),) = access_findings(replace(SEEN, access=loaded))
    assert verdict == FAILURE
    assert words.endswith("the loaded table allows 192.0.2.0/24")


@pytest.mark.parametrize("kept", ["192.0.2.20", ""])
def test_a_secondary_with_another_address(kept: str) -> None:
    """Wholly another: it is not told of a power cut. One more: it may come from there."""
    those = ("192.0.2.21", *([kept] if kept else []))
    ((verdict, host, words),) = access_findings(replace(SEEN, addresses={"nas": those}))
    assert (verdict, host) == (WARNING if kept else FAILURE, "nas")
    assert "nas has the address 192.0.2.21, which /etc/nut/access.nft does not allow" in words


def test_another_port() -> None:
    seen = text("upsd.conf", lambda was: was + "LISTEN 0.0.0.0 4000\n")
    ((verdict, _host, words),) = access_findings(seen)
    assert verdict == FAILURE
    assert "upsd listens on port 4000, which /etc/nut/access.nft does not cover" in words


def test_the_port_that_upsd_had_before_may_be_covered_until_the_next_run() -> None:
    table = access.render([3493, 4000], access.known_sources(TABLE))
    seen = own_file(TABLE_PATH, lambda was: replace(was, text=table))
    assert access_findings(replace(seen, access=replace(LOADED, ports=frozenset({3493, 4000})))) == []


def test_nothing_of_it_is_installed() -> None:
    ((verdict, _host, words),) = access_findings(replace(nothing_of(deploy_kits.ACCESS), access=None))
    assert verdict == FAILURE
    assert "nut-access is not installed" in words


def test_its_timer_does_not_run() -> None:
    ((verdict, _host, words),) = access_findings(units("nut-access-refresh.timer", unit("inactive", "static")))
    assert verdict == FAILURE
    assert "nut-access-refresh.timer does not run" in words


def test_upsd_that_everybody_can_reach() -> None:
    """As the inventory wants it: a note. With loopback alone nobody can."""
    kits = {name: texts for name, texts in EXPECTED.kits.items() if name != "nut-access"}
    open_to_all = replace(nothing_of(deploy_kits.ACCESS), access=None)
    ((verdict, _host, words),) = access_findings(open_to_all, replace(EXPECTED, kits=kits))
    assert verdict == NOTE
    assert "blocking upsd takes no login" in words
    at_home = text("upsd.conf", lambda _was: "LISTEN 127.0.0.1 3493\n", open_to_all)
    assert access_findings(at_home, replace(EXPECTED, kits=kits)) == []


def test_who_was_refused_is_named_where_a_secondary_is_missing() -> None:
    seen = replace(state(clients=("127.0.0.1",)), access=replace(LOADED, refused_from=("192.0.2.99",)))
    ((verdict, _host, words),) = access_findings(seen)
    assert verdict == NOTE
    assert words == "refused in the last day: 192.0.2.99"
    (login,) = [one for one in checks.examine(seen, EXPECTED) if one.check == "login" and one.host == "nas"]
    assert "Addresses refused in the last day: 192.0.2.99" in login.seen


def test_a_table_that_can_not_be_looked_at() -> None:
    ((verdict, _host, _words),) = access_findings(replace(SEEN, troubles={"access": "OSError: no"}))
    assert verdict == UNKNOWN
