# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""With how much battery left nut-stages begins the shutdown, and UPSes that do not power the primary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import AUTO, Plan, PlanError
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.observe import _read_runtime_low
from ansible_collections.homelab.nut.tests.unit.support.plans import SITE, UNSTAGED, UPS, find_constraint

# an ordinary UPS, which reports low battery two minutes before it is empty
LATE = UNSTAGED.change_ups(runtime_low=120, charge_low=10, ignorelb=False)


def auto(**changes: Any) -> Plan:
    return LATE.change_timing(runtime_low=AUTO).change_ups(**changes).make_plan()


def test_ordinary_ups_reports_low_battery_too_late() -> None:
    assert LATE.make_plan().holds is False
    assert LATE.make_plan().runtime_low is None


def test_plan_holds_with_the_time_that_it_chooses() -> None:
    """41 s until nut-stages acts, where NUT itself with ignorelb takes 30 s: 382 + 11 s, in steps of 30 s."""
    plan = auto()
    assert plan.needed["runtime_low"] == 393
    assert (plan.runtime_low, plan.runtime_low_reason) == (
        420,
        "the worst case of this plan needs 393 s, rounded up to a multiple of 30",
    )
    assert plan.holds is True
    assert find_constraint(plan, "low battery", "ups").slack == 420 - 393
    assert "nut-stages begins the shutdown with 420 s left" in find_constraint(plan, "low battery", "ups").reason


def test_time_left_does_not_depend_on_small_changes_of_the_runtime() -> None:
    assert {auto(runtime=runtime).runtime_low for runtime in (2900, 2911, 3000, 3107)} == {420}


def test_weak_battery_gives_as_much_as_it_has_beyond_a_short_outage() -> None:
    plan = auto(runtime=400)
    assert plan.runtime_low == 330
    assert "as early as possible: the battery lasts 400 s when charged" in plan.runtime_low_reason
    assert plan.feasible is True
    assert find_constraint(plan, "short outage", "ups").holds is True
    # what to do first about the worst case is in the battery's hands
    assert find_constraint(plan, "low battery", "ups").remedy.startswith(
        "provide 453 s of battery (393 for the worst case, and 60 so that a short outage shuts nothing down)"
    )


@pytest.mark.parametrize(
    ("runtime", "deployed", "chosen"),
    [(400, 330, 330), (440, 330, 330), (470, 270, 390), (380, 330, 300), (3000, 330, 420), (3000, 450, 420)],
)
def test_deployed_time_of_a_weak_battery_stays_while_it_fits(runtime: int, deployed: int, chosen: int) -> None:
    assert (
        LATE.change_timing(runtime_low=AUTO, deployed_runtime_low=deployed)
        .change_ups(runtime=runtime)
        .make_plan()
        .runtime_low
        == chosen
    )


def test_deployed_time_stays_while_upsd_reports_no_runtime() -> None:
    plan = LATE.change_timing(runtime_low=AUTO, deployed_runtime_low=360).change_ups(runtime=None).make_plan()
    assert (plan.runtime_low, plan.runtime_low_reason) == (360, "as deployed: upsd does not report battery.runtime now")


def test_partly_charged_battery_counts_as_it_is_when_charged() -> None:
    assert auto(runtime=1500, charge=50).runtime_low == 420


def test_battery_that_is_nearly_dead_is_reported() -> None:
    plan = auto(runtime=40, charge_low=None, runtime_low=10)
    assert plan.runtime_low == 1
    assert plan.feasible is False


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reports_runtime": False, "runtime": None}, "no UPS reports battery.runtime: the UPS alone decides"),
        ({"runtime": None}, "not known until upsd reports battery.runtime"),
    ],
)
def test_without_a_runtime_the_ups_alone_decides(changes: dict[str, Any], reason: str) -> None:
    plan = auto(**changes)
    assert plan.runtime_low is None
    assert plan.runtime_low_reason.startswith(reason)


def test_given_time_counts_as_it_is() -> None:
    plan = LATE.change_timing(runtime_low=500).make_plan()
    assert (plan.runtime_low, plan.runtime_low_reason) == (500, "nut_server_runtime_low is 500")
    assert plan.holds is True


def test_ups_that_reports_low_battery_earlier_still_decides() -> None:
    plan = auto(runtime_low=900)
    assert plan.runtime_low == 420
    assert "reports low battery with 300 s left" not in find_constraint(plan, "low battery", "ups").reason
    assert find_constraint(auto(runtime_low=900, charge_low=None), "low battery", "ups").have == 900


def test_stage_is_over_before_nut_stages_begins_the_shutdown() -> None:
    site = SITE.change_timing(runtime_low=AUTO).change_ups(runtime_low=120, charge_low=None, ignorelb=False)
    assert find_constraint(site.make_plan(), "stage", "nas-guests").need == 420 + 35 + 90


@pytest.mark.parametrize("value", ["soon", "-3", "0", 0, "Auto"])
def test_time_left_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(PlanError, match="is neither a number of seconds nor auto"):
        _read_runtime_low(value)


@pytest.mark.parametrize(("value", "read"), [("480", 480), (480, 480), ("auto", "auto"), ("", None), (None, None)])
def test_time_left_is_a_number_or_auto(value: object, read: object) -> None:
    assert _read_runtime_low(value) == read


# UPSes that do not power the primary

ROUTER = replace(UPS, name="router", powervalue=0, runtime=60, runtime_low=30, charge_low=None, ignorelb=False)


def test_ups_of_the_router_fails_no_plan() -> None:
    alone, beside = UNSTAGED.make_plan(), replace(UNSTAGED, supplies=(UPS, ROUTER)).make_plan()
    assert beside.holds is True
    assert beside.constraints == alone.constraints
    assert beside.needed == alone.needed
    assert beside.others == (ROUTER,)


def test_secondary_on_another_ups_must_be_down_before_that_is_empty() -> None:
    site = replace(UNSTAGED, supplies=(UPS, replace(ROUTER, runtime=3000))).change_machine("truenas", ups="router")
    late = find_constraint(site.make_plan(), "secondary's UPS", "router")
    assert late.holds is False
    assert late.need == 2 + 30 + 10 + 90
    assert "truenas stays off if the mains return before it is empty" in late.reason
    assert late.remedy.startswith("set ignorelb: true and override: {battery.runtime.low: 132} for router")
    early = replace(site, supplies=(UPS, replace(ROUTER, runtime=3000, runtime_low=132)))
    assert find_constraint(early.make_plan(), "secondary's UPS", "router").holds is True
    assert find_constraint(early.make_plan(), "secondary's UPS", "router").slack == 0


def test_plan_needs_a_ups_that_powers_the_primary() -> None:
    with pytest.raises(PlanError, match="no UPS powers pve"):
        replace(UNSTAGED, supplies=(ROUTER,)).make_plan()


def test_proposed_runtime_low_holds() -> None:
    """nut-stages, which it makes watch the battery, notices later than upsd."""
    late = find_constraint(LATE.make_plan(), "low battery", "ups")
    assert late.remedy.endswith(": nut_server_runtime_low: 393")
    assert find_constraint(LATE.change_timing(runtime_low=392).make_plan(), "low battery", "ups").slack == -1
    assert find_constraint(LATE.change_timing(runtime_low=393).make_plan(), "low battery", "ups").slack == 0


def test_each_number_of_a_weak_battery_is_the_same_everywhere() -> None:
    plan = auto(runtime=200)
    low, battery, usual = (find_constraint(plan, name, "ups") for name in ("low battery", "battery", "usual times"))
    assert low.remedy == battery.remedy == usual.remedy
    assert "the worst case of this plan needs 393 s" in plan.runtime_low_reason
    assert "= 393 s must be left" in low.reason
    assert battery.reason.startswith("393 s are needed (the sum of low battery)")
    assert plan.needed["runtime_low"] == 393


def test_two_marks_of_a_ups_are_explained() -> None:
    """It reports 120 s and 10 %, which are 300 s; nobody knows by which it goes."""
    both = find_constraint(LATE.make_plan(), "short outage", "ups").reason
    assert both.startswith("the shutdown begins with up to 300 s left (ups goes by its charge or the time left), and")
    assert (
        "(ups goes by"
        not in find_constraint(LATE.change_ups(charge_low=None).make_plan(), "short outage", "ups").reason
    )
    assert "(ups goes by" not in find_constraint(auto(), "short outage", "ups").reason
