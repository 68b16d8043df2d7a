# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import battery_test
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.commands import OrderRefused, Permission
from ansible_collections.homelab.nut.tests.unit.support.commanded_upsd import (
    GONE,
    CommandedClock,
    CommandedUpsd,
    make_operator,
)


@pytest.fixture
def server() -> CommandedUpsd:
    return CommandedUpsd()


@pytest.fixture
def clock() -> CommandedClock:
    return CommandedClock()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ups.status": "OB"}, "not plainly on mains (ups.status: OB)"),
        ({"ups.status": "OL LB"}, "OL LB"),
        ({"ups.status": "OL CAL"}, "OL CAL"),
        ({"ups.status": "FSD OL"}, "FSD OL"),
        ({"ups.status": "OL BYPASS"}, "BYPASS"),
        ({"ups.status": ""}, "ups.status: none"),
        ({"ups.status": "OL TEST"}, "a test is already running"),
        ({"ups.test.result": "In progress"}, "a test is already running (In progress)"),
        ({"battery.charge": "89"}, "its charge is 89 %, below the required 90 % (minimum_charge)"),
        ({"battery.charge": "89.9"}, "89.9"),
    ],
)
def test_battery_test_is_refused(
    server: CommandedUpsd, clock: CommandedClock, variables: dict[str, str], words: str
) -> None:
    server.variables.update(variables)
    mine = make_operator(server, clock)
    for ask in (
        lambda: mine.test_battery("quick", Permission()),
        lambda: mine.plan_battery_test("quick", Permission()),
        lambda: mine.plan_battery_test("deep", Permission(drain_battery=True)),
        lambda: mine.give_command("test.battery.start.quick", None, Permission()),
    ):
        with pytest.raises(OrderRefused) as caught:
            ask()
        assert words in str(caught.value)
    assert server.orders == []


def test_deep_test_needs_permission(server: CommandedUpsd, clock: CommandedClock) -> None:
    with pytest.raises(OrderRefused, match="may_drain_battery: true"):
        make_operator(server, clock).test_battery("deep", Permission(cut_power=True))


@pytest.mark.parametrize(
    "variables", [{"battery.charge": "90"}, {"battery.charge": "50"}, {"ups.status": "OL RB"}, {"battery.charge": "?"}]
)
def test_battery_test_is_permitted(server: CommandedUpsd, clock: CommandedClock, variables: dict[str, str]) -> None:
    server.variables.update(variables)
    assert make_operator(server, clock).plan_battery_test("quick", Permission(charge=50)) == "test.battery.start.quick"


Step = tuple[float, dict[str, str]]
RESULT = "ups.test.result"


def run_test(
    server: CommandedUpsd, clock: CommandedClock, steps: list[Step], kind: str = "quick", **more: Any
) -> battery_test.BatteryVerdict:
    """Test the battery of a UPS that changes its variables in steps, each some seconds after the command."""

    def begin(words: tuple[str, ...]) -> None:
        if words[0] == "instcmd":
            for seconds, changes in steps:
                clock.later.append((clock.now + seconds, lambda changes=changes: change(changes)))  # type: ignore[misc]

    def change(changes: dict[str, str]) -> None:
        server.variables.update(changes)
        if "error" in changes:
            server.errors["list_vars"] = GONE
        else:
            server.errors.pop("list_vars", None)

    server.on = begin
    return make_operator(server, clock).test_battery(kind, Permission(drain_battery=True), **more)


OUT: Step = (2, {"ups.status": "OB DISCHRG"})
BACK: Step = (14, {"ups.status": "OL CHRG"})


def test_passed_test_is_recognized(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables[RESULT] = "Done and passed"
    steps = [OUT, (3.0, {RESULT: "In progress"}), BACK, (15.0, {RESULT: "Done and passed"})]
    verdict = run_test(server, clock, steps)
    assert (verdict.verdict, verdict.explanation, verdict.result) == (
        "passed",
        "the UPS reports 'Done and passed'",
        "Done and passed",
    )
    assert 14 <= verdict.seconds <= 18


def test_failed_test_is_recognized(server: CommandedUpsd, clock: CommandedClock) -> None:
    verdict = run_test(server, clock, [OUT, BACK, (15.0, {RESULT: "Done and error"})])
    assert (verdict.verdict, verdict.explanation) == ("failed", "the UPS reports 'Done and error'")


def test_old_result_is_ignored(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables[RESULT] = "Done and error"
    verdict = run_test(server, clock, [OUT, BACK, (40.0, {RESULT: "Done and passed"})])
    assert verdict.verdict == "passed"
    server.variables[RESULT] = "Done and passed"
    verdict = run_test(server, clock, [OUT, BACK, (40.0, {RESULT: "Done and warning"})])
    assert verdict.verdict == "failed"


def test_unchanged_result_counts_after_a_while(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables[RESULT] = "Done and passed"
    verdict = run_test(server, clock, [OUT, BACK])
    assert (verdict.verdict, verdict.explanation) == ("passed", "the UPS reports 'Done and passed'")
    assert 14 + battery_test.SETTLE - 2 <= verdict.seconds <= 14 + battery_test.SETTLE + 4


def test_new_date_makes_an_equal_result_new(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables.update({RESULT: "Passed", "ups.test.date": "2026/01/01"})
    verdict = run_test(server, clock, [OUT, BACK, (15.0, {"ups.test.date": "2026/11/22"})])
    assert verdict.verdict == "passed"
    assert verdict.seconds < 20


@pytest.mark.parametrize("flags", ["OB", "OL CAL", "OL TEST", "OL DISCHRG"])
def test_flags_show_the_end_of_a_test_without_result(server: CommandedUpsd, clock: CommandedClock, flags: str) -> None:
    verdict = run_test(server, clock, [(2.0, {"ups.status": flags}), BACK])
    assert verdict.verdict == "passed"
    assert "reports no result" in verdict.explanation


def test_earlier_flag_is_no_sign_of_a_test(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables["ups.status"] = "OL DISCHRG"
    verdict = run_test(server, clock, [])
    assert (verdict.verdict, verdict.explanation) == ("unknown", "the UPS showed no sign of a test")


def test_result_alone_shows_a_test(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables[RESULT] = "Done and passed"
    verdict = run_test(server, clock, [(3.0, {RESULT: "In progress"}), (70.0, {RESULT: "Done and error"})])
    assert (verdict.verdict, verdict.explanation) == ("failed", "the UPS reports 'Done and error'")
    verdict = run_test(server, clock, [(1.0, {RESULT: "Test scheduled"})], wait=100)
    assert (verdict.verdict, verdict.explanation) == (
        "unknown",
        "the test has not ended (ups.status: OL CHRG, Test scheduled)",
    )


def test_missing_signs_give_an_unknown_verdict(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables[RESULT] = "Done and passed"
    verdict = run_test(server, clock, [])
    assert (verdict.verdict, verdict.explanation) == (
        "unknown",
        "the UPS showed no sign of a test; its last result is 'Done and passed'",
    )
    assert verdict.seconds == pytest.approx(battery_test.SECONDS["quick"], abs=1)


def test_new_flag_to_replace_the_battery_fails_the_test(server: CommandedUpsd, clock: CommandedClock) -> None:
    verdict = run_test(server, clock, [OUT, (14.0, {"ups.status": "OL RB", RESULT: "Done and passed"})])
    assert (verdict.verdict, "(RB)" in verdict.explanation) == ("failed", True)


def test_earlier_flag_to_replace_the_battery_does_not_fail_the_test(
    server: CommandedUpsd, clock: CommandedClock
) -> None:
    server.variables["ups.status"] = "OL RB"
    verdict = run_test(
        server, clock, [(2.0, {"ups.status": "OB RB"}), (9.0, {"ups.status": "OL RB", RESULT: "Passed"})]
    )
    assert verdict.verdict == "passed"


@pytest.mark.parametrize("result", ["Done and passed", ""])
def test_low_battery_fails_a_quick_test(server: CommandedUpsd, clock: CommandedClock, result: str) -> None:
    steps = [
        OUT,
        (5.0, {"ups.status": "OB LB"}),
        (14.0, {"ups.status": "OL CHRG", **({RESULT: result} if result else {})}),
    ]
    verdict = run_test(server, clock, steps)
    assert (verdict.verdict, "(LB)" in verdict.explanation) == ("failed", True)


def test_low_battery_does_not_fail_a_deep_test(server: CommandedUpsd, clock: CommandedClock) -> None:
    low: list[Step] = [OUT, (3000.0, {"ups.status": "OB LB"}), (3100.0, {"ups.status": "OL CHRG", RESULT: "OK"})]
    verdict = run_test(server, clock, low, "deep")
    assert (verdict.verdict, verdict.explanation) == ("passed", "the UPS reports 'OK'")
    assert server.orders == [("instcmd", "a", "test.battery.start.deep")]


def test_endless_test_is_unknown_after_the_timeout(server: CommandedUpsd, clock: CommandedClock) -> None:
    verdict = run_test(server, clock, [OUT], wait=60)
    assert (verdict.verdict, verdict.explanation) == ("unknown", "the test has not ended (ups.status: OB DISCHRG)")
    assert clock.now == pytest.approx(160)


def test_aborted_test_is_unknown(server: CommandedUpsd, clock: CommandedClock) -> None:
    verdict = run_test(server, clock, [OUT, (5.0, {"ups.status": "OL CHRG", RESULT: "Aborted"})])
    assert (verdict.verdict, verdict.explanation) == ("unknown", "the UPS reports 'Aborted'")


def test_intermediate_result_is_not_final(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables[RESULT] = "Done and passed"
    steps = [(1.0, {RESULT: "No test initiated"}), OUT, BACK, (30.0, {RESULT: "Done and error"})]
    assert run_test(server, clock, steps).verdict == "failed"


def test_failing_queries_are_survived(server: CommandedUpsd, clock: CommandedClock) -> None:
    steps = [OUT, (5.0, {"error": "now"}), (12.0, {}), BACK, (15.0, {RESULT: "Passed"})]
    assert run_test(server, clock, steps).verdict == "passed"
    server.variables[RESULT] = ""
    verdict = run_test(server, clock, [OUT, (5.0, {"error": "now"})], wait=30)
    assert (verdict.verdict, "at the end upsd at pve:3493" in verdict.explanation) == ("unknown", True)


def test_unseen_discharge_does_not_count(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables[RESULT] = "Done and passed"
    steps = [OUT, BACK, (17.0, {"error": "now"}), (60.0, {}), (65.0, {RESULT: "Done and error"})]
    assert run_test(server, clock, steps).verdict == "failed"


def test_missing_status_does_not_end_the_test(server: CommandedUpsd, clock: CommandedClock) -> None:
    silent = {"ups.status": "", RESULT: "Done and passed"}
    steps = [OUT, (5.0, silent), (50.0, {"ups.status": "OL", RESULT: "Done and error"})]
    assert run_test(server, clock, steps).verdict == "failed"


def test_refused_command_is_no_test(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.tracking = ["FAILED"]
    verdict = run_test(server, clock, [OUT, BACK])
    assert (verdict.verdict, verdict.explanation.startswith("the test did not start: the driver answered FAILED")) == (
        "unknown",
        True,
    )
    assert verdict.seconds == 0


def test_unconfirmed_result_counts_at_the_timeout(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.variables[RESULT] = "Done and passed"
    assert run_test(server, clock, [OUT, BACK], wait=20).verdict == "passed"
