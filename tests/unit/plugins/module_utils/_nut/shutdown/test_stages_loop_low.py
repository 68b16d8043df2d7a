# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stories of the built-in stage: the shutdown begins when the battery is low, even if the UPS says so late, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import Stage, StageGuest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.stages import Power, StagesState, decide_stages
from ansible_collections.homelab.nut.tests.unit.support.stages_world import OB, OL, UPS, StagesWorld, report_battery

LOW = Stage("low battery", runtime=300, fsd=True, low=True)
LB = {"ups.status": "OB LB", "battery.charge": "9", "battery.runtime": "400"}


def test_shutdown_begins_with_the_runtime_that_must_be_left(world: StagesWorld) -> None:
    world.built_in = (LOW,)
    world.set_reports((0, report_battery(90)), (100, report_battery(60, 301)), (150, report_battery(50, 290)))
    world.run_stages()
    assert world.told == [156]
    assert world.has_logged("stage low battery begins: runtime 290 s (limit 300 s)")


@pytest.mark.parametrize("runtime", [0, -1, 900000, 0.4])
def test_runtime_that_makes_no_sense_begins_no_shutdown(world: StagesWorld, runtime: float) -> None:
    world.built_in = (replace(LOW, runtime=0.5 if runtime == 0.4 else 300),)
    world.set_reports((0, report_battery(90, runtime if runtime != 0.4 else 900)), (200, OL))
    world.run_stages()
    assert world.told == []


def test_runtime_of_the_first_seconds_on_battery_begins_no_shutdown(world: StagesWorld) -> None:
    world.built_in = (LOW,)
    world.set_reports((0, report_battery(100, 20)), (29, report_battery(100, 2000)), (200, OL))
    world.run_stages()
    assert world.told == []


def test_runtime_that_dips_for_a_moment_begins_no_shutdown(world: StagesWorld) -> None:
    world.built_in = (LOW,)
    world.set_reports(
        (0, report_battery(100, 2000)), (60, report_battery(100, 20)), (64, report_battery(100, 1900)), (200, OL)
    )
    world.run_stages()
    assert world.told == []


def test_runtime_that_is_low_from_the_first_moment_begins_the_shutdown_half_a_minute_later(world: StagesWorld) -> None:
    world.built_in = (LOW,)
    world.set_reports((0, report_battery(100, 250)))
    world.run_stages()
    assert 30 <= world.told[0] <= 32


@pytest.mark.parametrize(("low", "actions"), [(True, ["fsd"]), (False, [])])
def test_low_battery_waits_for_no_guest(low: bool, actions: list[str]) -> None:
    guest = StageGuest("qm", 101, 100)
    early = Stage("early", on_battery=60, guests=(guest,))
    state = StagesState(outage_since=0.0, begun_at={"early": 60.0, LOW.name: 70.0}, stop_decided_at={guest.key: 60.0})
    seen = Power(on_battery=True, charge=20, runtime=200, upses=frozenset({"ups"}))
    decision = decide_stages([early, replace(LOW, low=low)], state, 71.0, seen, {guest.key})
    assert [action.kind for action in decision.actions] == actions


def test_upsmon_that_does_not_act_on_a_low_ups_is_told(world: StagesWorld) -> None:
    """NUT 2.8.0 and 2.8.1 take a UPS that has once calibrated for calibrating for ever."""
    world.built_in = (replace(LOW, runtime=None),)
    world.set_reports((0, OB), (100, LB))
    world.run_stages()
    assert 115 <= world.told[0] <= 117
    assert world.has_logged("stage low battery begins: LB for")


def test_low_ups_beside_one_that_is_silent_begins_the_shutdown(world: StagesWorld) -> None:
    """upsmon waits for ever for a redundant UPS of which it last heard that it is on mains."""
    world.built_in = (replace(LOW, runtime=None),)
    world.upses = [UPS, replace(UPS, name="rack")]
    world.set_reports((0, OB), (100, LB))
    world.set_reports((0, OB), (20, None), ups="rack")
    world.run_stages()
    assert 115 <= world.told[0] <= 117


@pytest.mark.parametrize("other", [OL, OB], ids=["on mains", "not low"])
def test_low_ups_beside_a_redundant_one_begins_no_shutdown(world: StagesWorld, other: dict[str, str]) -> None:
    world.built_in = (replace(LOW, runtime=None),)
    world.upses = [UPS, replace(UPS, name="rack")]
    world.stay_until = 400
    world.set_reports((0, OB), (100, LB), (300, OL))
    world.set_reports((0, OB), (20, other), (300, OL), ups="rack")
    world.run_stages()
    assert world.told == []
