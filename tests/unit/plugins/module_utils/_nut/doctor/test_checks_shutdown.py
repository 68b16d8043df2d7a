# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import JournalEntry
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.kits import SHUTDOWN
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.exam import Expected, ExpectedTimes
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    UNKNOWN,
    WARNING,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import HostObservation, Process
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.node import NodeTimes
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.startup import GuestStart
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.open_starts import OpenStarts
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import (
    CLIENT,
    CLIENT_EXPECTED,
    EXPECTED,
    FILES,
    GATE_COMMAND,
    GATE_FILES,
    GATE_POLICY,
    NOW,
    POLICY,
    SEEN,
    find_problems,
    last_report,
    make_unit,
    with_own_file,
    with_text,
    with_unit,
    with_ups,
)


def test_checks_of_gate_are_skipped_without_gate() -> None:
    command = "/sbin/shutdown -h +0"
    direct = replace(EXPECTED, files={**FILES, "upsmon.conf": FILES["upsmon.conf"].replace(GATE_COMMAND, command)})
    seen = with_text("upsmon.conf", lambda text: text.replace(GATE_COMMAND, command))
    seen = replace(seen, last_gate=last_report("battery"), addresses={"nas": "can't resolve nas"})
    assert {finding.check for finding in find_problems(seen, direct)} == {"login"}
    found = {finding.check: finding.seen for finding in examine_host(seen, direct)}
    assert "last-shutdown" not in found
    assert found["policy"] == "valid; SHUTDOWNCMD does not wait for other machines"
    # the stages read the policy even without a gate
    broken = replace(seen, own_files={**seen.own_files, GATE_POLICY: replace(seen.own_files[GATE_POLICY], text="{")})
    assert {finding.check for finding in find_problems(broken, direct)} == {"login", "policy"}


def test_refused_sandbox_is_a_note_with_reason() -> None:
    wanted = replace(
        EXPECTED,
        kits={**EXPECTED.kits, "nut-shutdown": {**GATE_FILES, "nut-server-hardening.conf": "[Service]\n"}},
    )
    (missing,) = find_problems(SEEN, wanted)
    assert (missing.verdict, "homelab-nut-hardening.conf is missing" in missing.seen) == (FAILURE, True)
    refused = replace(SEEN, refused_sandboxes={"nut-server-hardening.conf": "226/NAMESPACE\x1b"})
    assert find_problems(refused, wanted) == []
    (note,) = [finding for finding in examine_host(refused, wanted) if finding.check == "gate"]
    assert note.verdict == NOTE
    assert note.seen.startswith("226/NAMESPACE")
    assert "\x1b" not in note.seen
    assert "nut_server_hardening=false" in note.todo


def test_missing_files_of_a_program_are_one_problem() -> None:
    gone = {SHUTDOWN.program, GATE_POLICY}
    seen = replace(SEEN, own_files={path: file for path, file in SEEN.own_files.items() if path not in gone})
    (problem,) = [finding for finding in find_problems(seen) if finding.check == "gate"]
    assert problem.seen == f"/{SHUTDOWN.program} and /{GATE_POLICY} are missing"


@pytest.mark.parametrize("users", [["root"], ["root", "root"]])
def test_upsmon_that_stays_root_on_purpose_is_ok(users: list[str]) -> None:
    seen = with_text("upsmon.conf", lambda text: f"{text}RUN_AS_USER root\n")
    processes = tuple(Process("upsmon", make_unit().pid + number, user) for number, user in enumerate(users))
    wanted = replace(EXPECTED, files={name: file.text for name, file in seen.files.items()})
    assert find_problems(replace(seen, processes=processes), wanted) == []


def test_secondary_without_the_drop_in_is_told_to_deploy_and_restart() -> None:
    processes = (Process("upsmon", 2, "root"), Process("upsmon", make_unit().pid, "nut"))
    (found,) = find_problems(replace(CLIENT, processes=processes), CLIENT_EXPECTED)
    assert (found.check, found.verdict) == ("upsmon", WARNING)
    assert found.todo == "make ups tags=ups limit=media; while on mains: systemctl restart nut-monitor.service"


def test_flag_during_shutdown_is_ok() -> None:
    seen = replace(
        with_unit("nut-shutdown.service", make_unit("activating", "static")), flags={"/run/nut-killpower": NOW}
    )
    assert [finding.verdict for finding in examine_host(seen, EXPECTED) if finding.check == "killpower"] == [OK]


def test_interrupted_wait_is_ok() -> None:
    found = examine_host(replace(SEEN, gate_state=gate.new_state("boot", "systemd", NOW)), EXPECTED)
    assert [finding.verdict for finding in found if finding.check == "last-shutdown"] == [OK, OK]


@pytest.mark.parametrize("rule", [gate.DOWN, gate.ASSUMED])
def test_last_shutdown_with_all_machines_down_is_ok(rule: str) -> None:
    found = examine_host(replace(SEEN, last_gate=last_report(rule)), EXPECTED)
    assert [finding.verdict for finding in found if finding.check == "last-shutdown"] == [OK]


def test_unreadable_report_is_a_note() -> None:
    found = examine_host(replace(SEEN, last_gate="its report can't be understood"), EXPECTED)
    assert [finding.verdict for finding in found if finding.check == "last-shutdown"] == [NOTE]


@pytest.mark.parametrize(
    ("holds", "feasible", "verdict"),
    [(True, True, OK), (False, True, NOTE), (False, False, FAILURE), (False, None, FAILURE), (None, None, UNKNOWN)],
)
def test_plan_verdict_depends_on_feasibility(holds: bool | None, feasible: bool | None, verdict: str) -> None:
    constraints = [
        {"holds": False, "remedy": "write into host_vars/pve.yml: nut_server_runtime_low: 400"},
        {"holds": True, "remedy": "no"},
    ]
    planned = {"holds": holds, "feasible": feasible, "plan": {"verdict": "as it is", "constraints": constraints}}
    found = [finding for finding in examine_host(SEEN, replace(EXPECTED, plan=planned)) if finding.check == "plan"]
    assert [(finding.verdict, finding.seen) for finding in found] == [(verdict, "as it is")]
    if holds is False:
        assert "write into host_vars/pve.yml: nut_server_runtime_low: 400" in found[0].todo
        assert "no" not in found[0].todo.split("; ")


@pytest.mark.parametrize(
    ("deployed", "planned", "message"),
    [
        (360, 360, ""),
        (None, None, ""),
        (None, 360, "nut-stages never begins the shutdown by itself, but the plan wants 360 s (why)"),
        (360, 420, "nut-stages begins the shutdown with 360 s left, but the plan wants 420 s (why)"),
        (360, None, "nut-stages begins the shutdown with 360 s left, but it should leave that to the UPS (why)"),
    ],
)
def test_other_runtime_low_than_planned_is_a_warning(
    deployed: float | None, planned: float | None, message: str
) -> None:
    policy = POLICY if deployed is None else {**POLICY, "runtime_low": deployed}
    seen = with_own_file(GATE_POLICY, lambda file: replace(file, text=json.dumps(policy)))
    plan = {"verdict": "v", "constraints": [], "runtime_low": planned, "runtime_low_reason": "why"}
    expected = replace(EXPECTED, plan={"holds": True, "feasible": True, "plan": plan})
    found = [(finding.check, finding.verdict, finding.seen) for finding in find_problems(seen, expected)]
    assert found == ([("plan", WARNING, message)] if message else [])


def test_undecided_plan_is_a_note_if_ups_has_no_data() -> None:
    planned = {"holds": None, "plan": {"verdict": "too little is known", "constraints": []}}
    seen = with_ups(fresh=False, error="DATA-STALE", variables={})
    assert [
        finding.verdict for finding in examine_host(seen, replace(EXPECTED, plan=planned)) if finding.check == "plan"
    ] == [NOTE]


def test_failed_plan_is_unknown() -> None:
    found = find_problems(SEEN, replace(EXPECTED, plan={"holds": None, "plan": None, "msg": "machines: no"}))
    assert [(finding.check, finding.verdict) for finding in found] == [("plan", UNKNOWN)]
    assert "machines: no" in found[0].seen


# A secondary that is a Proxmox VE node

NODE_TIMES = NodeTimes(("101 web", "102 db"), 60, 222, ("HA manages 1 guest (101)",))


@pytest.mark.parametrize(
    ("shutdown_time", "shutdown_limit", "verdict"), [(30, 60, WARNING), (60, 90, WARNING), (60, 222, OK)]
)
def test_node_must_get_the_time_of_its_guests(shutdown_time: float, shutdown_limit: float, verdict: str) -> None:
    expected = replace(CLIENT_EXPECTED, times=ExpectedTimes("pve", shutdown_time, shutdown_limit))
    found = [
        finding
        for finding in examine_host(replace(CLIENT, node_times=NODE_TIMES), expected)
        if finding.check == "guests"
    ]
    assert [finding.verdict for finding in found] == [OK, verdict]
    assert verdict == OK or found[-1].todo.endswith("nut_client_shutdown_limit: 222")


def test_ordinary_secondary_has_no_guests() -> None:
    expected = replace(CLIENT_EXPECTED, times=ExpectedTimes("pve", 30, 60))
    assert not [finding for finding in examine_host(CLIENT, expected) if finding.check == "guests"]


# Calibration

CALIBRATED = (JournalEntry(NOW - 60, "nut-monitor.service", "UPS ups@localhost:3493: calibration in progress"),)


@pytest.mark.parametrize(
    ("seen", "verdicts"),
    [
        (replace(SEEN, journal=CALIBRATED), [FAILURE]),
        (replace(SEEN, journal=CALIBRATED, release=(2, 8, 2)), []),
        (replace(SEEN, journal=()), []),
        (replace(with_ups(status=("OL", "CAL")), journal=CALIBRATED), []),
        # upsmon was restarted since
        (replace(SEEN, journal=(replace(CALIBRATED[0], at=NOW - 5000),)), []),
    ],
)
def test_upsmon_that_believes_in_a_calibration_is_reported(seen: HostObservation, verdicts: list[str]) -> None:
    found = [finding for finding in examine_host(seen, EXPECTED) if "calibrating" in finding.seen + finding.todo]
    found = [finding for finding in found if finding.check == "upsmon"]
    assert [finding.verdict for finding in found] == verdicts
    assert all(finding.todo == "while on mains: systemctl restart nut-monitor.service" for finding in found)


# Guests that should run


def test_given_up_guest_is_a_failure_with_the_command_that_starts_it() -> None:
    starts = OpenStarts(
        ("VM 102: storage nas is not online",),
        {"qm start 101": "VM 101 (mail): no disk", "pct start 9": "container 9: x"},
    )
    found = find_problems(replace(SEEN, open_starts=starts))
    assert [(finding.check, finding.verdict, finding.seen, finding.todo) for finding in found] == [
        ("late-guests", FAILURE, "not running, and given up: VM 101 (mail): no disk", "qm start 101"),
        ("late-guests", FAILURE, "not running, and given up: container 9: x", "pct start 9"),
        (
            "late-guests",
            WARNING,
            "not running yet: VM 102: storage nas is not online",
            "pvesm status; nut-stages goes on trying",
        ),
    ]


@pytest.mark.parametrize(
    ("start", "verdict"),
    [
        (GuestStart("activating", "waiting for quorum", "start pve2", is_endless=True), FAILURE),
        (GuestStart("failed", "has failed", "look at it"), WARNING),
        (GuestStart("activating", "is still starting"), OK),
        (GuestStart("active"), None),
        (None, None),
    ],
)
@pytest.mark.parametrize(
    ("seen", "expected"), [(SEEN, EXPECTED), (CLIENT, CLIENT_EXPECTED)], ids=["primary", "secondary"]
)
def test_start_of_guests_that_does_not_end_is_a_failure(
    seen: HostObservation, expected: Expected, start: GuestStart | None, verdict: str | None
) -> None:
    found = examine_host(replace(seen, guest_start=start), expected)
    told = [(finding.verdict, finding.seen, finding.todo) for finding in found if finding.check == "guest-start"]
    assert told == ([(verdict, start.message, start.remedy)] if start and verdict else [])


def test_guests_that_can_not_be_observed_are_unknown() -> None:
    seen = replace(SEEN, troubles={"late guests": "OSError: a", "guest start": "GuestsError: b"})
    found = [(finding.check, finding.verdict) for finding in find_problems(seen)]
    assert found == [("late-guests", UNKNOWN), ("guest-start", UNKNOWN)]
