# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-hotplug on a host where each command of systemctl, and the start of a driver, takes many seconds."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.change import UnitAction
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import (
    APC,
    CPS,
    HotplugMachine,
)

UNIT = "nut-driver@ups.service"


@pytest.fixture(params=[0.0, 6.0, 15.0], ids=lambda seconds: f"systemctl takes {seconds:.0f} s")
def busy(served: HotplugMachine, request: pytest.FixtureRequest) -> HotplugMachine:
    """A host that serves an APC as [ups], and has become busy."""
    served.now += 1000
    served.run_hotplug()
    served.systemctl_seconds, served.find_seconds = request.param, 5.0
    return served


def run_for_minutes(machine: HotplugMachine, minutes: int = 4) -> list[str]:
    """Run nut-hotplug as its timer does, and return what it did to drivers."""
    did = []
    for _run in range(minutes * 4):
        machine.update_upsd()
        if not machine.is_quiet:
            machine.run_hotplug()
            did += [step for step in machine.did if "nut-driver@" in step]
        machine.now += 15
    return did


def swap(machine: HotplugMachine) -> None:
    machine.bus.unplug_device("1-1")
    machine.status["ups"] = "ERR DATA-STALE"
    machine.run_hotplug()
    machine.bus.plug_in("1-1", CPS, serial="CPS123456789")
    machine.status.clear()
    machine.begun[UNIT] = machine.now + 1e6  # the running driver never finds the new one


@pytest.mark.parametrize("start", [0.0, 12.0, 25.0], ids=lambda seconds: f"driver starts in {seconds:.0f} s")
def test_swapped_ups_starts_its_driver_once(busy: HotplugMachine, start: float) -> None:
    busy.start_seconds = start
    swap(busy)
    assert run_for_minutes(busy) == [f"stop {UNIT}", f"start {UNIT}"]
    assert busy.has_data(UNIT)


@pytest.mark.parametrize("start", [0.0, 12.0, 25.0], ids=lambda seconds: f"driver starts in {seconds:.0f} s")
def test_new_twin_does_not_restart_the_working_driver(machine: HotplugMachine, start: float) -> None:
    """Without serial numbers, the port tells both apart; a working driver is not restarted for that key alone."""
    machine.bus.plug_in("1-1", CPS, serial=None)
    machine.run_hotplug()
    machine.now += 1000
    machine.systemctl_seconds, machine.start_seconds, machine.find_seconds = 8.0, start, 5.0
    machine.bus.plug_in("1-2", CPS, serial=None)
    assert run_for_minutes(machine) == []
    assert machine.has_data("nut-driver@ups2.service")
    assert list(machine.conf.sections) == ["ups", "ups2"]


@pytest.mark.parametrize("start", [0.0, 25.0], ids=lambda seconds: f"driver starts in {seconds:.0f} s")
def test_failed_driver_is_started_once(busy: HotplugMachine, start: float) -> None:
    busy.start_seconds = start
    busy.units[UNIT] = ("failed", "enabled")
    assert run_for_minutes(busy) == [f"start {UNIT}"]


def test_attempt_counts_from_the_start_of_the_driver(busy: HotplugMachine) -> None:
    busy.units[UNIT] = ("failed", "enabled")
    busy.find_seconds = 0.0
    busy.run_hotplug()
    assert busy.memory.tries["ups"].last_try == busy.begun[UNIT]


def test_upsd_is_not_restarted_again_too_early(busy: HotplugMachine) -> None:
    busy.units["nut-server.service"] = ("failed", "enabled")
    busy.fails.add("restart nut-server.service")
    begin = busy.now
    busy.run_hotplug()
    assert busy.memory.tries[""].last_try >= begin + busy.systemctl_seconds


def test_restart_owed_by_a_killed_run_is_done_once(busy: HotplugMachine) -> None:
    """The driver gets as much time as after any other start, although it has had no data for long."""
    busy.status["ups"] = "ERR DATA-STALE"
    busy.run_hotplug()
    busy.now += 50
    busy.status.clear()
    busy.find_seconds = 14.0
    busy.begun[UNIT] = busy.now
    busy.make_local(lambda _name: None).pending.write_actions([UnitAction("restart", UNIT, "its section changed")])
    assert run_for_minutes(busy) == [f"restart {UNIT}"]
    assert busy.has_data(UNIT)


def test_driver_that_systemd_restarts_for_ever_is_restarted(busy: HotplugMachine) -> None:
    """Its own starts give it no more time than a minute."""
    busy.bus.unplug_device("1-1")
    busy.status["ups"] = "ERR DATA-STALE"
    busy.run_hotplug()
    busy.bus.plug_in("1-1", APC)
    begin = busy.now
    busy.pauses = lambda: busy.begun.update({UNIT: busy.now})
    while not any(step == f"restart {UNIT}" for step in busy.did):
        assert busy.now < begin + 150
        busy.run_hotplug()
        busy.now += 5
