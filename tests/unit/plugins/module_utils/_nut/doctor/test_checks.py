# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One file, because several tests use the same table of faults."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import JournalEntry
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits as deploy_kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import checks, checks_others, exam
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.exam import DAY
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    UNKNOWN,
    VERDICTS,
    WARNING,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import (
    HostObservation,
    Process,
    Socket,
    TlsResult,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import watch
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import (
    CLIENT,
    CLIENT_EXPECTED,
    CUT,
    DEVICE,
    EXPECTED,
    FILES,
    GATE_COMMAND,
    GATE_POLICY,
    GATE_PROGRAM,
    GATE_UNIT,
    HOTPLUG_PROGRAM,
    NOW,
    POLICY,
    SEEN,
    VARIABLES,
    find_problems,
    last_report,
    make_file,
    make_unit,
    make_ups,
    upsd_answer,
    with_own_file,
    with_text,
    with_unit,
    with_ups,
    with_variables,
    without_file,
    without_kit,
)

DOCUMENTED = Path(__file__).parents[6] / "docs" / "doctor.md"


def test_healthy_primary_has_no_problems() -> None:
    assert find_problems() == []


def test_healthy_secondary_has_no_problems() -> None:
    assert find_problems(CLIENT, CLIENT_EXPECTED) == []


def test_each_check_reports_ok_on_healthy_primary() -> None:
    """A check without a finding looks like a forgotten check."""
    names = {
        finding.check
        for finding in examine_host(replace(SEEN, tls=TlsResult("TLSv1.3", NOW + 1e9)), replace(EXPECTED, tls=True))
        if finding.verdict == OK
    }
    assert names == {
        "installed", "mode", "files", "secrets", "users", "units", "restarted", "usb", "permissions", "driver", "status", "load", "battery",
        "self-test", "upsd", "upsd-watch", "port", "listening", "firewall", "access", "login", "strangers", "upsmon", "shutdowncmd",
        "gate", "hotplug", "policy", "killpower", "cut", "trust", "last-shutdown", "plan", "tls", "clock", "journal", "release",
    }  # fmt: skip


def test_secondary_has_its_own_checks() -> None:
    names = {finding.check for finding in examine_host(CLIENT, CLIENT_EXPECTED)}
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


def test_login_finding_names_the_secondary() -> None:
    assert [finding.host for finding in examine_host(SEEN, EXPECTED) if finding.check == "login"] == ["nas", "pve"]


# What makes each check fail: the observation, the check, the verdict, and a part of the message

BROKEN: dict[str, tuple[HostObservation, str, str, str]] = {
    "no upsd": (replace(SEEN, installed=("upsmon",)), "installed", FAILURE, "not installed: upsd"),
    "no release": (replace(SEEN, release=None), "installed", UNKNOWN, "release can't be determined"),
    "a file is missing": (without_file("upsd.conf"), "files", FAILURE, "/etc/nut/upsd.conf is missing"),
    "a file that NUT can't read": (
        replace(SEEN, files={**SEEN.files, "upsmon.conf": make_file(FILES["upsmon.conf"], mode=0o600)}),
        "files", FAILURE, "upsmon.conf: NUT can't read it",
    ),
    "a file that all may read": (
        replace(SEEN, files={**SEEN.files, "upsmon.conf": make_file(FILES["upsmon.conf"], mode=0o644)}),
        "files", WARNING, "mode is 0644",
    ),
    "a file of another group": (
        replace(SEEN, files={**SEEN.files, "upsmon.conf": make_file(FILES["upsmon.conf"], gid=0)}),
        "files", FAILURE, "NUT can't read it",
    ),
    "a directive changed by hand": (
        with_text("upsmon.conf", lambda text: text.replace("FINALDELAY 5", "FINALDELAY 7")),
        "files", WARNING, "upsmon.conf differs from the inventory: FINALDELAY",
    ),
    "a directive added by hand": (
        with_text("upsmon.conf", lambda text: text + "DEADTIME 99\n"),
        "files", WARNING, "upsmon.conf differs from the inventory: DEADTIME",
    ),
    "MONITOR changed by hand": (
        with_text("upsmon.conf", lambda text: text.replace("one primary", "other primary")),
        "files", FAILURE, "MONITOR",
    ),
    "a section is gone": (with_text("ups.conf", lambda text: text.replace("[ups]", "[other]")), "files", WARNING, "[ups] is missing"),
    "a key of a section": (with_text("ups.conf", lambda text: text.replace("051d", "0463")), "files", WARNING, "[ups] vendorid"),
    "a setting before the sections": (with_text("ups.conf", lambda text: text.replace("= 3", "= 4")), "files", WARNING, "maxretry"),
    "files unreadable for us": (replace(SEEN, troubles={"files": "OSError: no"}), "files", UNKNOWN, "OSError: no"),
    "MODE=none": (with_text("nut.conf", lambda text: text.replace("netserver", "none")), "mode", FAILURE, "may cut the UPS's power"),
    "no MODE": (with_text("nut.conf", lambda _text: ""), "mode", FAILURE, "MODE is missing"),
    "MODE of a client": (with_text("nut.conf", lambda text: text.replace("netserver", "netclient")), "mode", FAILURE, "must be netserver"),
    "another password": (
        with_text("upsd.users", lambda text: text.replace("two", "three")),
        "users", FAILURE, "nas has a password that differs",
    ),
    "a user is missing": (with_text("upsd.users", lambda text: text.partition("[nas]")[0]), "users", FAILURE, "nas is missing"),
    "a user's type": (with_text("upsd.users", lambda text: text.replace("upsmon secondary", "")), "users", FAILURE, "upsmon role none"),
    "extra user": (with_text("upsd.users", lambda text: text + "[x]\n  password = y\n"), "users", WARNING, "not in the inventory: x"),
    "a masked unit": (with_unit("nut-monitor.service", make_unit("inactive", "masked", "masked")), "units", FAILURE, "is masked"),
    "a unit that failed": (
        with_unit("nut-server.service", make_unit("failed")),
        "units", FAILURE, "nut-server.service is not running: failed",
    ),
    "a driver that is stopped": (
        with_unit("nut-driver@ups.service", make_unit("inactive")),
        "units", FAILURE, "ups.service is not running",
    ),
    "a driver that ends again": (
        with_unit("nut-driver@ups.service", make_unit("activating", sub="auto-restart")), "units", FAILURE, "keeps exiting",
    ),
    "a missing unit": (with_unit("nut-monitor.service", None), "units", FAILURE, "unit nut-monitor.service does not exist"),
    "a unit that systemd does not know": (
        with_unit("nut-monitor.service", make_unit("inactive", "", "not-found")), "units", FAILURE, "does not exist",
    ),
    "a unit that is not enabled": (
        with_unit("nut-monitor.service", make_unit(enabled="disabled")),
        "units", WARNING, "not enabled at boot",
    ),
    "the enumerator's path": (with_unit("nut-driver-enumerator.path", make_unit()), "units", WARNING, "restarts drivers whenever"),
    "systemd does not answer": (replace(SEEN, troubles={"units": "OSError: dead"}), "units", UNKNOWN, "dead"),
    "upsmon has not read its file": (
        replace(SEEN, files={**SEEN.files, "upsmon.conf": make_file(FILES["upsmon.conf"].replace("DELAY 5", "DELAY 6"), changed=NOW - 10)}),
        "restarted", WARNING, "upsmon.conf changed",
    ),
    "upsd has not read its file": (
        replace(SEEN, files={**SEEN.files, "upsd.conf": make_file("LISTEN 0.0.0.0\n", changed=NOW - 10)}),
        "restarted", WARNING, "upsd.conf changed",
    ),
    "unplugged": (replace(SEEN, devices=()), "usb", FAILURE, "ups is not on the USB bus (no device there)"),
    "another UPS": (replace(SEEN, devices=(replace(DEVICE, vendor_id="0463"),)), "usb", FAILURE, "devices there: 0463:0002"),
    "no bus": (replace(SEEN, troubles={"usb": "UsbError: none"}), "usb", UNKNOWN, "UsbError"),
    "no right to the device": (
        replace(SEEN, devices=(replace(DEVICE, accessible=False),)), "permissions", FAILURE, "/dev/bus/usb/001/004",
    ),
    "stale": (with_ups(fresh=False, error="DATA-STALE", variables={}), "driver", FAILURE, "gets no data from it"),
    "no driver": (with_ups(fresh=False, error="DRIVER-NOT-CONNECTED", variables={}), "driver", FAILURE, "is not running"),
    "no status yet": (with_ups(fresh=False, variables={}), "driver", FAILURE, "no status yet"),
    "not served": (replace(SEEN, served=upsd_answer(make_ups(name="other"))), "driver", FAILURE, "does not serve ups"),
    "on battery": (with_ups(status=("OB", "DISCHRG")), "status", WARNING, "on battery (OB), 100 %, 1800 s left"),
    "low": (with_ups(status=("OB", "LB")), "status", FAILURE, "low (LB)"),
    "FSD": (with_ups(status=("FSD", "OB")), "status", FAILURE, "(FSD)"),
    "overloaded": (with_ups(status=("OL", "OVER")), "status", FAILURE, "(OVER)"),
    "off": (with_ups(status=("OFF",)), "status", FAILURE, "(OFF)"),
    "replace the battery": (with_ups(status=("OL", "RB")), "status", WARNING, "(RB)"),
    "bypass": (with_ups(status=("OL", "BYPASS")), "status", WARNING, "(BYPASS)"),
    "alarm": (
        with_ups(status=("ALARM", "OL"), variables={**VARIABLES, "ups.alarm": "Fan failure!"}), "status", WARNING, "alarm: Fan failure!",
    ),
    "loaded": (with_variables(ups_load="81"), "load", WARNING, "81 %"),
    "an old battery": (with_variables(battery_date="2020/06/01"), "battery", WARNING, "6.3 years old"),
    "a failed test": (with_variables(ups_test_result="Done and error"), "self-test", WARNING, "Done and error"),
    "upsd is silent": (replace(SEEN, served="upsd at localhost:3493 cannot be reached: no"), "upsd", FAILURE, "cannot be reached"),
    "upsd not on all addresses": (
        replace(SEEN, sockets=(Socket("127.0.0.1", 3493, "upsd"),)), "listening", FAILURE,
        "should listen on 0.0.0.0:3493, but listens on 127.0.0.1:3493",
    ),
    "upsd on another port": (replace(SEEN, sockets=(Socket("0.0.0.0", 3494, "upsd"),)), "listening", FAILURE, "0.0.0.0:3494"),
    "upsd on an additional address": (
        replace(SEEN, sockets=(*SEEN.sockets, Socket("::1", 3493, "upsd"))), "listening", WARNING, "also listens on [::1]:3493",
    ),
    "a client blocked upsd": (
        replace(SEEN, upsd_events=(
            watch.WatchEvent(watch.BLOCKED, "192.0.2.9", "192.0.2.9 blocked\x1b upsd", NOW - 9 * DAY, NOW - DAY, 7),)),
        "upsd-watch", WARNING, "192.0.2.9 blocked\\x1b upsd (7 times, until",
    ),
    "upsd hung": (
        replace(SEEN, upsd_events=(
            watch.WatchEvent(watch.RESTARTED, "", "upsd did not answer for 7 s. Restarted it", NOW - DAY, NOW - DAY),)),
        "upsd-watch", WARNING, "Restarted it",
    ),
    "nut-watch does not run": (
        with_unit("nut-watch.service", make_unit("inactive")),
        "gate", FAILURE, "nut-watch.service is not running",
    ),
    "sockets unreadable": (replace(SEEN, troubles={"sockets": "OSError: no"}), "listening", UNKNOWN, "OSError"),
    "closed firewall": (replace(SEEN, firewall=("no rule lets in nas", "add this")), "firewall", FAILURE, "no rule lets in nas"),
    "firewall unreadable": (replace(SEEN, troubles={"firewall": "FirewallError: no"}), "firewall", UNKNOWN, "FirewallError"),
    "own upsmon not logged in": (
        replace(SEEN, watched={"ups@localhost:3493": upsd_answer(make_ups(clients=("192.0.2.20",)))}),
        "login", FAILURE, "this host's upsmon",
    ),
    "a MONITOR with an unreachable host": (
        replace(SEEN, watched={"ups@localhost:3493": "upsd at localhost:3493 answered UNKNOWN-UPS"}), "port", FAILURE, "UNKNOWN-UPS",
    ),
    "a secondary on the primary": (
        with_text("upsmon.conf", lambda text: text.replace("one primary", "one secondary")),
        "upsmon", FAILURE, "this host would shut down first",
    ),
    "no MONITOR": (with_text("upsmon.conf", lambda text: text.replace("MONITOR", "#")), "upsmon", FAILURE, "no MONITOR line"),
    "power value 0": (
        with_text("upsmon.conf", lambda text: text.replace("3493 1 monitor", "3493 0 monitor")), "upsmon", FAILURE, "no MONITOR line",
    ),
    "upsmon runs only as root": (replace(SEEN, processes=(Process("upsmon", 2, "root"),)), "upsmon", WARNING, "runs as root"),
    "upsmon's root process is dead": (
        replace(SEEN, processes=(Process("upsmon", 3, "nut"),)), "upsmon", FAILURE, "this host would not shut down",
    ),
    "systemd watches the wrong process of upsmon": (
        replace(SEEN, processes=(Process("upsmon", 2, "root"), Process("upsmon", make_unit().pid, "nut"))),
        "upsmon", WARNING, "would not be started again",
    ),
    "SHUTDOWNCMD changed by hand": (
        with_text("upsmon.conf", lambda text: text.replace(GATE_COMMAND, "/bin/true")), "shutdowncmd", FAILURE, "'/bin/true', should be",
    ),
    "no SHUTDOWNCMD": (with_text("upsmon.conf", lambda text: text.replace("SHUTDOWNCMD", "#")), "shutdowncmd", FAILURE, "no SHUTDOWNCMD"),
    "the gate's program is gone": (
        with_own_file(GATE_PROGRAM, lambda _file: None),
        "gate", FAILURE, "/usr/local/sbin/nut-shutdown is missing",
    ),
    "gate program not executable": (with_own_file(GATE_PROGRAM, lambda file: replace(file, mode=0o644)), "gate", FAILURE, "can't be run"),
    "old gate program": (with_own_file(GATE_PROGRAM, lambda file: replace(file, digest="old")), "gate", WARNING, "differs from the one"),
    "gate unit file missing": (with_own_file(GATE_UNIT, lambda _file: None), "gate", FAILURE, "nut-shutdown.service is missing"),
    "gate unit file differs": (
        with_own_file(GATE_UNIT, lambda file: replace(file, text="x")),
        "gate", WARNING, "differs from the inventory",
    ),
    "gate unit masked": (with_unit("nut-shutdown.service", make_unit("inactive", "masked", "masked")), "gate", FAILURE, "masked"),
    "gate unit not loaded": (with_unit("nut-shutdown.service", make_unit("inactive", "", "not-found")), "gate", FAILURE, "does not know"),
    "gate unit invalid": (with_unit("nut-shutdown.service", make_unit("inactive", "", "bad-setting")), "gate", FAILURE, "can't load"),
    "gate unit failed": (
        with_unit("nut-shutdown.service", make_unit("failed", "static")),
        "gate", WARNING, "the last run of nut-shutdown.service failed",
    ),
    "no nut-hotplug": (with_own_file(HOTPLUG_PROGRAM, lambda _file: None), "hotplug", FAILURE, "nut-hotplug is missing"),
    "nut-hotplug not installed": (without_kit(deploy_kits.HOTPLUG), "hotplug", WARNING, "nut-hotplug is not installed"),
    "gate not installed": (without_kit(deploy_kits.SHUTDOWN), "gate", FAILURE, "nut-shutdown is not installed"),
    "the timer of nut-hotplug does not run": (
        with_unit("nut-hotplug.timer", make_unit("inactive")),
        "hotplug", FAILURE, "nut-hotplug.timer is not running",
    ),
    "the policy is broken": (
        with_own_file(GATE_POLICY, lambda file: replace(file, text='{"version": 1')),
        "policy", FAILURE, "can't be used",
    ),
    "a stage is broken": (
        with_own_file(GATE_POLICY, lambda file: replace(file, text=json.dumps({**POLICY, "stages": [{"name": ""}]}))),
        "policy", FAILURE, "can't be used",
    ),
    "the policy differs": (
        with_own_file(GATE_POLICY, lambda file: replace(file, text=json.dumps({**POLICY, "timeout": 10}))), "gate", WARNING, "json differs",
    ),
    "a name without an address": (
        replace(SEEN, addresses={"nas": "can't resolve nas"}), "policy", WARNING, "no address for nas",
    ),
    "the flag": (replace(SEEN, flags={"/run/nut-killpower": NOW - 60}), "killpower", FAILURE, "the next reboot cuts"),
    "an unknown flag": (replace(SEEN, flags={"/etc/killpower": NOW - 60}), "killpower", WARNING, "left over from an earlier"),
    "a missing spare of the flag": (replace(SEEN, cut=replace(CUT, spare="missing")), "cut", WARNING, "killpower.spare is missing"),
    "a broken spare": (replace(SEEN, cut=replace(CUT, spare="spoiled")), "cut", WARNING, "the UPS might not cut the power"),
    "no space for the flag": (replace(SEEN, cut=replace(CUT, space=4096)), "cut", WARNING, "has room for only 4 KiB and 1000 files"),
    "too many files": (replace(SEEN, cut=replace(CUT, files=3)), "cut", WARNING, "1024 KiB and 3 files"),
    "a folder that nut can write": (
        replace(SEEN, untrusted={"/etc/nut": "/etc/nut belongs to the user nut"}), "trust", FAILURE, "root trusts and runs",
    ),
    "the last shutdown ended by the battery": (
        replace(SEEN, last_gate=last_report("battery", "ups had 20 s left")),
        "last-shutdown", WARNING, "ups had 20 s left",
    ),
    "the last shutdown missed a machine": (
        replace(SEEN, last_gate=last_report("down", down=None)),
        "last-shutdown", WARNING, "did not end well",
    ),
    "the last shutdown never ended": (
        replace(SEEN, last_gate=last_report(None, None)),
        "last-shutdown", WARNING, "it was interrupted",
    ),
    "unreadable clock": (replace(SEEN, troubles={"clock": "OSError: x"}), "clock", UNKNOWN, "OSError"),
    "no journal": (replace(SEEN, troubles={"journal": "OSError: x"}), "journal", UNKNOWN, "OSError"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_fault_on_primary_is_reported(name: str) -> None:
    seen, check, verdict, words = BROKEN[name]
    found = [finding for finding in find_problems(seen) if finding.check == check]
    assert [(finding.verdict, words in finding.seen) for finding in found if words in finding.seen] == [
        (verdict, True)
    ], found
    assert all(finding.todo for finding in found if finding.verdict in (WARNING, FAILURE)), "a finding without advice"


@pytest.mark.parametrize("name", BROKEN)
def test_fault_affects_only_few_checks(name: str) -> None:
    """Findings about other things would hide the real one."""
    seen, check, _verdict, _words = BROKEN[name]
    others = {finding.check for finding in find_problems(seen)} - {check}
    assert others <= TOGETHER.get(name, set()), others


# problems that always come together: name above -> further checks that fail
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
    "gate unit not loaded": set(),
}


# Secondaries

CLIENT_BROKEN: dict[str, tuple[HostObservation, str, str, str]] = {
    "no upsmon": (replace(CLIENT, installed=()), "installed", FAILURE, "not installed: upsmon"),
    "stopped": (with_unit("nut-monitor.service", make_unit("inactive"), CLIENT), "units", FAILURE, "is not running: inactive"),
    "a primary that only a name server knows": (
        replace(CLIENT, local_names=frozenset({"localhost", "media"})), "primary-name", WARNING,
        "upsmon needs a name server to find pve.",
    ),
    "the port is shut": (
        replace(CLIENT, watched={"ups@pve:3493": "upsd at pve:3493 cannot be reached: no complete answer in time"}),
        "port", FAILURE, "no complete answer in time",
    ),
    "upsd has no data": (
        replace(
            CLIENT,
            watched={
                "ups@pve:3493": upsd_answer(make_ups(fresh=False, error="DATA-STALE", clients=("192.0.2.30",)), own_address="192.0.2.30"),
            },
        ),
        "port", WARNING, "no fresh data",
    ),
    "not logged in": (
        replace(CLIENT, watched={"ups@pve:3493": upsd_answer(make_ups(clients=("127.0.0.1",)), own_address="192.0.2.30")}),
        "login", FAILURE,
        "this host's upsmon (192.0.2.30) is not logged in",
    ),
    "a wrong password": (
        replace(
            CLIENT,
            watched={"ups@pve:3493": upsd_answer(make_ups(clients=()), own_address="192.0.2.30")},
            journal=(JournalEntry(NOW, "nut-monitor.service", "Login on UPS [ups@pve:3493] failed - got [ERR ACCESS-DENIED]"),),
        ),
        "login", FAILURE, "rejects its password",
    ),
    "a primary on the secondary": (
        with_text("upsmon.conf", lambda text: text.replace("three secondary", "three primary"), CLIENT), "upsmon", FAILURE,
        "would not wait for this host",
    ),
    "SHUTDOWNCMD": (with_text("upsmon.conf", lambda text: text.replace("-h +0", "-r +0"), CLIENT), "shutdowncmd", FAILURE, "-r +0"),
    "upsmon's root process is dead": (
        replace(CLIENT, processes=(Process("upsmon", 3, "nut"),)), "upsmon", FAILURE, "this host would not shut down",
    ),
    "MODE": (with_text("nut.conf", lambda text: text.replace("netclient", "none"), CLIENT), "mode", FAILURE, "must be netclient"),
    "FINALDELAY": (
        with_text("upsmon.conf", lambda text: text.replace("FINALDELAY 5", "FINALDELAY 60"), CLIENT), "files", WARNING, "FINALDELAY",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLIENT_BROKEN)
def test_fault_on_secondary_is_reported(name: str) -> None:
    seen, check, verdict, words = CLIENT_BROKEN[name]
    found = [finding for finding in find_problems(seen, CLIENT_EXPECTED) if finding.check == check]
    assert [(finding.host, finding.verdict) for finding in found if words in finding.seen] == [("media", verdict)], (
        found
    )
    assert all(finding.todo for finding in found)


def test_crashed_check_becomes_finding_and_does_not_stop_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_exam: exam.Exam) -> exam.Findings:
        raise ZeroDivisionError("oh")

    broken = exam.HostCheck(("upsd-watch", "port"), exam.BOTH, run)
    monkeypatch.setattr(checks, "CHECKS", (*checks.CHECKS[:3], broken, *checks.CHECKS[3:]))
    assert [(finding.check, finding.verdict) for finding in find_problems()] == [("upsd-watch", UNKNOWN)]
    assert len(examine_host(SEEN, EXPECTED)) > 30


def test_documentation_lists_all_checks() -> None:
    rows = [line.split("|") for line in DOCUMENTED.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    documented = {name: row[2].strip() for row in rows for name in re.findall("`([^`]+)`", row[1])}
    registered = {name: check for check in checks.CHECKS for name in check.names}
    assert documented.keys() == {*registered, *checks_others.NAMES}
    only = {name for name, check in registered.items() if check.where == exam.PRIMARY}
    assert {name: documented[name] for name in only} == dict.fromkeys(only, exam.PRIMARY)


@pytest.mark.parametrize(("seen", "expected"), [(SEEN, EXPECTED), (CLIENT, CLIENT_EXPECTED)])
def test_findings_have_the_names_registered_for_their_check(seen: HostObservation, expected: exam.Expected) -> None:
    for check in checks.CHECKS:
        assert {finding.check for finding in check.examine(exam.Exam(seen, expected))} <= set(check.names)


def test_note_says_what_to_do() -> None:
    """What needs no action is ok, so that it is only listed if somebody asks for everything."""
    found = [finding for seen, *_rest in BROKEN.values() for finding in examine_host(seen, EXPECTED)]
    assert all(finding.todo for finding in found if finding.verdict == NOTE)


def test_healthy_hosts_have_no_notes() -> None:
    for seen, expected in ((SEEN, EXPECTED), (CLIENT, CLIENT_EXPECTED)):
        assert [finding for finding in examine_host(seen, expected) if finding.verdict != OK] == []


def test_empty_host_reports_only_that_nut_is_not_installed() -> None:
    assert [finding.check for finding in examine_host(HostObservation(now=NOW), EXPECTED)] == ["installed"]


def test_findings_contain_no_passwords() -> None:
    seen = with_text(
        "upsd.users",
        lambda text: text.replace("two", "hunter2"),
        with_text("upsmon.conf", lambda text: text.replace(" one ", " hunter3 ")),
    )
    said = json.dumps([(finding.seen, finding.todo) for finding in examine_host(seen, EXPECTED)])
    assert "hunter" not in said
    assert '"two"' not in said


def test_findings_have_only_known_verdicts() -> None:
    assert {finding.verdict for seen, *_rest in BROKEN.values() for finding in examine_host(seen, EXPECTED)} <= set(
        VERDICTS
    )
