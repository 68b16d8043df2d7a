# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    StagePlan,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.timeline import GATE_ROUND
from ansible_collections.homelab.nut.tests.unit.support.plans import (
    SITE,
    PlanSite,
    draw_site,
)
from hypothesis import given


def test_needed_settings_of_example() -> None:
    assert SITE.make_plan().needed == {
        "hostsync": 30,
        "finaldelay": 2,
        "deadtime": 15,
        "pollfreq": 5,
        "pollfreqalert": 5,
        "maxage": 15,
        "guests_time": 120,
        "runtime_low": 393,
        "gate_timeout": 92,
        "reserve": 220,
        "reserve_minimum": 40,
        "poweroff_wait": 100,
        "limits": {"truenas": 90},
        "guest_timeouts": {"media": 90, "router": 90},
        "offdelay": {"ups": 30},
        "ondelay": {"ups": 60},
    }


def test_needed_settings_grow_with_slow_machines() -> None:
    site = (
        SITE.change_machine("truenas", begin_time=40.5, shutdown_limit=10)
        .change_timing(settle=7.5, pollfreq=90)
        .change_ups(pollinterval=6)
    )
    needed = site.make_plan().needed
    assert needed["hostsync"] == 46
    assert needed["limits"] == {"truenas": 68}
    assert needed["gate_timeout"] == 68 + GATE_ROUND
    assert needed["pollfreq"] == 59
    assert needed["deadtime"] == 177
    assert needed["maxage"] == 18


@given(draw_site())
def test_plan_holds_with_needed_settings(site: PlanSite) -> None:
    """Any site holds with the needed settings, a long battery and early stages."""
    needed = site.make_plan().needed
    names = (
        "hostsync",
        "finaldelay",
        "deadtime",
        "pollfreq",
        "pollfreqalert",
        "maxage",
        "guests_time",
        "poweroff_wait",
    )
    site = site.change_timing(
        **{name: needed[name] for name in names}, reserve=needed["reserve"], reserve_minimum=needed["reserve_minimum"]
    )
    site = site.change_ups(
        runtime=90_000, ignorelb=True, runtime_low=needed["runtime_low"], charge_low=None,
        offdelay=needed["offdelay"]["ups"], ondelay=needed["ondelay"]["ups"],
    )  # fmt: skip
    for name, limit in needed["limits"].items():
        site = site.change_machine(name, shutdown_limit=limit)
    users = tuple(machine.name for machine in site.machines if machine.needs)
    if users:
        site = replace(site, stages=(StagePlan("stage", charge=60, guests=users),))
    plan = site.make_plan()
    assert [constraint for constraint in plan.constraints if constraint.holds is not True] == []
