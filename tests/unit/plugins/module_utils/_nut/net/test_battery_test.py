# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import battery_test
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.commands import OrderRefused, Permission
from ansible_collections.homelab.nut.tests.unit.support.commanded_upsd import GONE, Clock, FakeUpsd, operator


@pytest.fixture
def server() -> FakeUpsd:
    return FakeUpsd()


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
def test_when_no_test_begins(server: FakeUpsd, clock: Clock, variables: dict[str, str], words: str) -> None:
    server.variables.update(variables)
    mine = operator(server, clock)
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


def test_a_deep_test_needs_leave(server: FakeUpsd, clock: Clock) -> None:
    with pytest.raises(OrderRefused, match="may_drain_battery: true"):
        operator(server, clock).test_battery("deep", Permission(cut_power=True))


@pytest.mark.parametrize(
    "variables", [{"battery.charge": "90"}, {"battery.charge": "50"}, {"ups.status": "OL RB"}, {"battery.charge": "?"}]
)
def test_when_a_test_may_begin(server: FakeUpsd, clock: Clock, variables: dict[str, str]) -> None:
    server.variables.update(variables)
    assert operator(server, clock).plan_battery_test("quick", Permission(charge=50)) == "test.battery.start.quick"


Step = tuple[float, dict[str, str]]
RESULT = "ups.test.result"


def watched(
    server: FakeUpsd, clock: Clock, steps: list[Step], kind: str = "quick", **more: Any
) -> battery_test.BatteryVerdict:
    """Test the battery of a UPS that does so: what changes so many seconds after the command."""

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
    return operator(server, clock).test_battery(kind, Permission(drain_battery=True), **more)


OUT: Step = (2, {"ups.status": "OB DISCHRG"})
BACK: Step = (14, {"ups.status": "OL CHRG"})


def test_passed_result_passes(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    steps = [OUT, (3.0, {RESULT: "In progress"}), BACK, (15.0, {RESULT: "Done and passed"})]
    verdict = watched(server, clock, steps)
    assert (verdict.verdict, verdict.explanation, verdict.result) == (
        "passed",
        "the UPS reports 'Done and passed'",
        "Done and passed",
    )
    assert 14 <= verdict.seconds <= 18


def test_failed_result_fails(server: FakeUpsd, clock: Clock) -> None:
    verdict = watched(server, clock, [OUT, BACK, (15.0, {RESULT: "Done and error"})])
    assert (verdict.verdict, verdict.explanation) == ("failed", "the UPS reports 'Done and error'")


def test_old_result_is_ignored(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and error"
    verdict = watched(server, clock, [OUT, BACK, (40.0, {RESULT: "Done and passed"})])
    assert verdict.verdict == "passed"
    server.variables[RESULT] = "Done and passed"
    verdict = watched(server, clock, [OUT, BACK, (40.0, {RESULT: "Done and warning"})])
    assert verdict.verdict == "failed"


def test_unchanged_result_is_believed_after_settling(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    verdict = watched(server, clock, [OUT, BACK])
    assert (verdict.verdict, verdict.explanation) == ("passed", "the UPS reports 'Done and passed'")
    assert 14 + battery_test.SETTLE - 2 <= verdict.seconds <= 14 + battery_test.SETTLE + 4


def test_a_new_date_makes_a_result_new(server: FakeUpsd, clock: Clock) -> None:
    server.variables.update({RESULT: "Passed", "ups.test.date": "2026/01/01"})
    verdict = watched(server, clock, [OUT, BACK, (15.0, {"ups.test.date": "2026/11/22"})])
    assert verdict.verdict == "passed"
    assert verdict.seconds < 20


@pytest.mark.parametrize("flags", ["OB", "OL CAL", "OL TEST", "OL DISCHRG"])
def test_ups_without_result_is_judged_by_status(server: FakeUpsd, clock: Clock, flags: str) -> None:
    verdict = watched(server, clock, [(2.0, {"ups.status": flags}), BACK])
    assert verdict.verdict == "passed"
    assert "reports no result" in verdict.explanation


def test_flag_set_before_test_is_ignored(server: FakeUpsd, clock: Clock) -> None:
    server.variables["ups.status"] = "OL DISCHRG"
    verdict = watched(server, clock, [])
    assert (verdict.verdict, verdict.explanation) == ("unknown", "the UPS showed no sign of a test")


def test_test_visible_only_in_result_is_recognized(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    verdict = watched(server, clock, [(3.0, {RESULT: "In progress"}), (70.0, {RESULT: "Done and error"})])
    assert (verdict.verdict, verdict.explanation) == ("failed", "the UPS reports 'Done and error'")
    verdict = watched(server, clock, [(1.0, {RESULT: "Test scheduled"})], wait=100)
    assert (verdict.verdict, verdict.explanation) == (
        "unknown",
        "the test has not ended (ups.status: OL CHRG, Test scheduled)",
    )


def test_no_sign_of_a_test(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    verdict = watched(server, clock, [])
    assert (verdict.verdict, verdict.explanation) == (
        "unknown",
        "the UPS showed no sign of a test; its last result is 'Done and passed'",
    )
    assert verdict.seconds == pytest.approx(battery_test.SECONDS["quick"], abs=1)


def test_the_battery_has_to_be_replaced(server: FakeUpsd, clock: Clock) -> None:
    verdict = watched(server, clock, [OUT, (14.0, {"ups.status": "OL RB", RESULT: "Done and passed"})])
    assert (verdict.verdict, "(RB)" in verdict.explanation) == ("failed", True)


def test_replace_flag_set_before_test_is_ignored(server: FakeUpsd, clock: Clock) -> None:
    server.variables["ups.status"] = "OL RB"
    verdict = watched(server, clock, [(2.0, {"ups.status": "OB RB"}), (9.0, {"ups.status": "OL RB", RESULT: "Passed"})])
    assert verdict.verdict == "passed"


@pytest.mark.parametrize("result", ["Done and passed", ""])
def test_low_battery_in_quick_test_fails(server: FakeUpsd, clock: Clock, result: str) -> None:
    steps = [
        OUT,
        (5.0, {"ups.status": "OB LB"}),
        (14.0, {"ups.status": "OL CHRG", **({RESULT: result} if result else {})}),
    ]
    verdict = watched(server, clock, steps)
    assert (verdict.verdict, "(LB)" in verdict.explanation) == ("failed", True)


def test_a_deep_test_ends_with_a_low_battery(server: FakeUpsd, clock: Clock) -> None:
    low: list[Step] = [OUT, (3000.0, {"ups.status": "OB LB"}), (3100.0, {"ups.status": "OL CHRG", RESULT: "OK"})]
    verdict = watched(server, clock, low, "deep")
    assert (verdict.verdict, verdict.explanation) == ("passed", "the UPS reports 'OK'")
    assert server.orders == [("instcmd", "a", "test.battery.start.deep")]


def test_unfinished_test_is_unknown(server: FakeUpsd, clock: Clock) -> None:
    verdict = watched(server, clock, [OUT], wait=60)
    assert (verdict.verdict, verdict.explanation) == ("unknown", "the test has not ended (ups.status: OB DISCHRG)")
    assert clock.now == pytest.approx(160)


def test_aborted_test_is_not_passed(server: FakeUpsd, clock: Clock) -> None:
    verdict = watched(server, clock, [OUT, (5.0, {"ups.status": "OL CHRG", RESULT: "Aborted"})])
    assert (verdict.verdict, verdict.explanation) == ("unknown", "the UPS reports 'Aborted'")


def test_intermediate_result_is_not_final(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    steps = [(1.0, {RESULT: "No test initiated"}), OUT, BACK, (30.0, {RESULT: "Done and error"})]
    assert watched(server, clock, steps).verdict == "failed"


def test_failed_queries_are_reported_at_the_end(server: FakeUpsd, clock: Clock) -> None:
    steps = [OUT, (5.0, {"error": "now"}), (12.0, {}), BACK, (15.0, {RESULT: "Passed"})]
    assert watched(server, clock, steps).verdict == "passed"
    server.variables[RESULT] = ""
    verdict = watched(server, clock, [OUT, (5.0, {"error": "now"})], wait=30)
    assert (verdict.verdict, "at the end upsd at pve:3493" in verdict.explanation) == ("unknown", True)


def test_gap_in_readings_does_not_settle_result(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    steps = [OUT, BACK, (17.0, {"error": "now"}), (60.0, {}), (65.0, {RESULT: "Done and error"})]
    assert watched(server, clock, steps).verdict == "failed"


def test_missing_status_does_not_end_test(server: FakeUpsd, clock: Clock) -> None:
    silent = {"ups.status": "", RESULT: "Done and passed"}
    steps = [OUT, (5.0, silent), (50.0, {"ups.status": "OL", RESULT: "Done and error"})]
    assert watched(server, clock, steps).verdict == "failed"


def test_test_without_any_sign_is_unknown(server: FakeUpsd, clock: Clock) -> None:
    server.tracking = ["FAILED"]
    verdict = watched(server, clock, [OUT, BACK])
    assert (verdict.verdict, verdict.explanation.startswith("the test did not start: the driver answered FAILED")) == (
        "unknown",
        True,
    )
    assert verdict.seconds == 0


def test_the_time_is_up_before_the_result_is_sure(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    assert watched(server, clock, [OUT, BACK], wait=20).verdict == "passed"
