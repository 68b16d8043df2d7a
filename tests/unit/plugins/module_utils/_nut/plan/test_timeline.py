# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    CUT,
    DOWN,
    EMPTY,
    FSD,
    GOES_DOWN,
    KILLPOWER,
    OWN_SHUTDOWN,
    POWEROFF,
    STOPS_GUESTS,
    TRIGGER,
    WAITS_GATE,
    WAITS_HOSTSYNC,
    WAITS_TO_BEGIN,
    ProxmoxGuests,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.timeline import GATE_ROUND
from ansible_collections.homelab.nut.tests.unit.support.plans import (
    NAS,
    OPEN,
    PVE,
    SITE,
    UNSTAGED,
    PlanSite,
    find_span,
)


def test_time_to_stop_guests() -> None:
    def took(site: PlanSite, worst: bool, **found: Any) -> float:
        begin, end = find_span(site.make_plan(ProxmoxGuests(**found)), "pve", STOPS_GUESTS, worst)
        return end - begin

    assert took(OPEN, True) == 180
    assert took(OPEN, True, problem="no") == 180
    assert took(OPEN, True, stop_limit=400) == 400
    assert took(OPEN, False, stop_limit=400, stop_time=150) == 150
    # a listed guest may take longer than those that were read from Proxmox
    assert took(OPEN, True, stop_limit=10) == 90
    assert took(OPEN, False, stop_limit=10, stop_time=5) == 40
    assert took(UNSTAGED, True, stop_limit=400) == 120
    assert took(UNSTAGED, False, stop_limit=400, stop_time=150) == 120
    empty = replace(OPEN, machines=(PVE, NAS))
    assert (took(empty, True, stop_limit=0, stop_time=0), took(empty, False, stop_limit=0, stop_time=0)) == (0, 0)
    plan = OPEN.make_plan(ProxmoxGuests(stop_limit=400, stop_time=150))
    assert plan.needed["guests_time"] == 400
    assert plan.needed["reserve"] == 400 + 30 + 10 + 30 + 30
    assert plan.needed["reserve_minimum"] == 40
    assert UNSTAGED.change_timing(own_shutdown=5).make_plan().needed["reserve_minimum"] == 30
    assert UNSTAGED.change_timing(own_shutdown=50.5).make_plan().needed["reserve_minimum"] == 61


def test_usual_run() -> None:
    plan = SITE.make_plan()
    assert (plan.time_of(TRIGGER), plan.time_of(FSD)) == (0, 2.5)
    assert find_span(plan, "truenas", WAITS_TO_BEGIN) == (0, 10)
    assert find_span(plan, "truenas", GOES_DOWN) == (10, 70)
    assert find_span(plan, "pve", WAITS_HOSTSYNC) == (2.5, 10)
    assert find_span(plan, "pve", WAITS_GATE) == (15, 70 + 3 + GATE_ROUND / 2)
    assert plan.time_of(POWEROFF) == 74
    assert find_span(plan, "router", GOES_DOWN) == (74, 99)
    assert find_span(plan, "pve", STOPS_GUESTS) == (74, 99)
    assert find_span(plan, "pve", OWN_SHUTDOWN) == (99, 129)
    assert find_span(plan, "pve", KILLPOWER) == (129, 139)
    assert plan.time_of(CUT, "ups") == 139 + 30
    assert find_span(plan, "media", GOES_DOWN) == (-40, 0)
    assert find_span(plan, "media", DOWN) == (0, 169)
    assert plan.time_of(EMPTY, "ups") == 600 - 15
    assert plan.time_of(FSD, "nobody") is None
    assert not any(event.worst for event in plan.events)
    assert [event.at for event in plan.events] == sorted(event.at for event in plan.events)


def test_worst_case() -> None:
    plan = SITE.make_plan()
    assert plan.time_of(FSD, worst=True) == 5
    assert find_span(plan, "truenas", GOES_DOWN, True) == (15, 105)
    assert find_span(plan, "pve", WAITS_HOSTSYNC, True) == (5, 35)
    assert find_span(plan, "pve", WAITS_GATE, True) == (40, 40 + 90 + GATE_ROUND)
    assert find_span(plan, "pve", STOPS_GUESTS, True) == (132, 252)
    assert find_span(plan, "router", GOES_DOWN, True) == (132, 222)
    assert plan.time_of(KILLPOWER, "pve", worst=True) == 252 + 30 + 10
    assert plan.time_of(CUT, "ups", worst=True) == 292 + 30
    assert find_span(plan, "media", GOES_DOWN, True) == (-90, 0)
    assert plan.time_of(EMPTY, "ups", worst=True) == 570
    assert all(event.worst for event in plan.worst)


def test_finaldelay_passes_even_if_secondary_is_fast() -> None:
    plan = SITE.change_machine("truenas", shutdown_time=0, shutdown_limit=5).change_timing(settle=1).make_plan()
    assert find_span(plan, "pve", WAITS_GATE) == (15, 16)


def test_shutdown_limit_caps_shutdown_time_and_gate() -> None:
    plan = SITE.change_machine("truenas", shutdown_limit=30).make_plan()
    assert find_span(plan, "truenas", GOES_DOWN) == (10, 40)
    late = SITE.change_machine("truenas", begin_time=100).change_timing(hostsync=20).make_plan()
    assert find_span(late, "pve", WAITS_HOSTSYNC) == (2.5, 22.5)
    assert find_span(late, "pve", WAITS_GATE) == (27.5, 27.5 + 90 + GATE_ROUND)


def test_stage_without_fsd_begins_before_low_battery() -> None:
    plan = SITE.change_stage(fsd=False).make_plan()
    assert find_span(plan, "media", GOES_DOWN, True) == (-(1000 - 600 - 35), -(1000 - 600 - 35) + 90)
    assert find_span(plan, "media", GOES_DOWN) == (-(1000 - 600 - 17.5), -(1000 - 600 - 17.5) + 40)
    unknown = SITE.change_stage(fsd=False).change_ups(runtime_low=None, charge_low=None).make_plan()
    assert find_span(unknown, "media", GOES_DOWN) == (-40, 0)
    longer = SITE.change_stage(seconds=150).make_plan()
    assert find_span(longer, "media", GOES_DOWN, True) == (-150, -60)


def test_guests_time_counts_without_named_guests() -> None:
    plan = replace(UNSTAGED, machines=(PVE, NAS)).make_plan()
    assert find_span(plan, "pve", STOPS_GUESTS) == (74, 194)


def test_upses_elsewhere_delay_the_shutdown_by_hostsync() -> None:
    """Each of two primaries that are redundant on each other's UPS waits for the other's FSD."""
    alone, both = OPEN.make_plan(), OPEN.change_timing(elsewhere=("left@attic",)).make_plan()
    for worst in (False, True):
        times = [plan.time_of(FSD, "", worst=worst) or plan.time_of(FSD, "pve", worst=worst) for plan in (alone, both)]
        assert None not in times
        assert times[1] - times[0] == 30
    text = str([constraint.reason for constraint in both.constraints])
    assert "30 (until upsmon gives up on the primary of left@attic)" in text
    assert both.needed["runtime_low"] == alone.needed["runtime_low"]


def test_nut_stages_does_not_wait_for_upses_elsewhere() -> None:
    watched = OPEN.change_timing(runtime_low=9000)
    assert watched.change_timing(elsewhere=("left@attic",)).make_plan().worst == watched.make_plan().worst
