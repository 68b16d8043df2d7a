# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    UNKNOWN,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import (
    EXPECTED,
    FILES,
    GATE_COMMAND,
    GATE_FILES,
    GATE_POLICY,
    NOW,
    SEEN,
    find_problems,
    last_report,
    make_unit,
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


def test_flag_during_shutdown_is_a_note() -> None:
    seen = replace(
        with_unit("nut-shutdown.service", make_unit("activating", "static")), flags={"/run/nut-killpower": NOW}
    )
    assert [finding.verdict for finding in examine_host(seen, EXPECTED) if finding.check == "killpower"] == [NOTE]


def test_interrupted_wait_is_a_note() -> None:
    found = examine_host(replace(SEEN, gate_state=gate.new_state("boot", "systemd", NOW)), EXPECTED)
    assert [finding.verdict for finding in found if finding.check == "last-shutdown"] == [NOTE, OK]


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
    constraints = [{"holds": False, "remedy": "set nut_server_runtime_low to 400"}, {"holds": True, "remedy": "no"}]
    planned = {"holds": holds, "feasible": feasible, "plan": {"verdict": "as it is", "constraints": constraints}}
    found = [finding for finding in examine_host(SEEN, replace(EXPECTED, plan=planned)) if finding.check == "plan"]
    assert [(finding.verdict, finding.seen) for finding in found] == [(verdict, "as it is")]
    if holds is False:
        assert "set nut_server_runtime_low to 400" in found[0].todo
        assert "no" not in found[0].todo.split("; ")


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
