# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drivers that serve old data as fresh: with pollonly, after the UPS was reset or unplugged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_hotplug
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import APC, CPS, HotplugMachine

RELEASES = [(2, 8, 0), (2, 8, 1), (2, 8, 3)]
HASTY = (2, 8, 1)
RESTART = "restart nut-driver@ups.service"
UNIT = "nut-driver@ups.service"
GONE = "nut_libusb_get_report: No such device (it may have been disconnected)"
ERROR = "nut_libusb_get_report: Input/output error"
VALUES = {"battery.charge": "97", "battery.runtime": "1500", "battery.voltage": "26.1", "ups.load": "20"}


def reset_ups(machine: HotplugMachine) -> None:
    """Let the UPS leave the bus and come back with another device number. upsd goes on with what it has."""
    machine.bus.unplug_device("1-1")
    machine.bus.plug_in("1-1", APC)
    machine.bus.show_driver("1-1", "usbhid")


def status_text(machine: HotplugMachine, release: tuple[int, int, int] = HASTY) -> str:
    return nut_hotplug.status_text(machine.make_host(release=release).observe_host())


@pytest.fixture(params=["open files", "sysfs"])
def polled(served: HotplugMachine, request: pytest.FixtureRequest) -> HotplugMachine:
    """A host that serves an APC as [ups], on mains, by a driver that does not notice when the UPS leaves."""
    served.shows_files = request.param == "open files"
    served.ups_says["ups"] = "OL"
    served.open_device("ups")
    served.run_hotplug()
    assert served.is_quiet
    return served


def test_living_driver_is_left_alone(polled: HotplugMachine) -> None:
    outcome = polled.run_hotplug()
    assert (polled.did, polled.said, outcome.observation.faults) == ([], [], ())
    assert "FAULT" not in status_text(polled)


# The UPS is reset


@pytest.mark.parametrize("release", RELEASES)
def test_outage_after_reset_is_noticed(polled: HotplugMachine, release: tuple[int, int, int]) -> None:
    reset_ups(polled)
    polled.ups_says["ups"] = "OB DISCHRG"
    assert not polled.is_quiet
    begin = polled.now
    polled.run_hotplug(release=release)
    assert polled.did == [RESTART]
    assert polled.now - begin >= 10
    assert polled.status["ups"] == "OB DISCHRG"


@pytest.mark.parametrize("release", [(2, 8, 0), (2, 8, 3)])
def test_reset_on_battery_restarts_driver_if_upsmon_waits(
    polled: HotplugMachine, release: tuple[int, int, int]
) -> None:
    polled.status["ups"] = polled.ups_says["ups"] = "OB DISCHRG"
    polled.run_hotplug(release=release)
    reset_ups(polled)
    outcome = polled.run_hotplug(release=release)
    assert polled.did == [RESTART]
    assert outcome.observation.faults == ()


def test_reset_on_battery_is_a_fault_if_upsmon_does_not_wait(polled: HotplugMachine) -> None:
    polled.status["ups"] = polled.ups_says["ups"] = "OB DISCHRG"
    polled.run_hotplug(release=HASTY)
    reset_ups(polled)
    outcome = polled.run_hotplug(release=HASTY)
    assert polled.did == []
    (fault,) = outcome.observation.faults
    assert "upsd serves old data as fresh (OB DISCHRG)" in fault
    assert "/dev/bus/usb/001/003" in fault
    assert f"FAULT: {fault}" in polled.said
    assert any("not restarted: upsmon would shut down at once" in line for line in outcome.observation.deferred)
    polled.run_hotplug(release=HASTY)
    assert polled.said == []


@pytest.mark.parametrize("release", [(2, 8, 0), (2, 8, 3)])
def test_return_of_mains_after_reset_is_noticed(polled: HotplugMachine, release: tuple[int, int, int]) -> None:
    polled.status["ups"] = "OB DISCHRG"
    polled.run_hotplug(release=release)
    reset_ups(polled)
    polled.run_hotplug(release=release)
    assert polled.did == [RESTART]
    assert polled.status["ups"] == "OL"


@pytest.mark.parametrize("release", [HASTY, (2, 8, 2)])
def test_remedy_for_stuck_battery_status_stops_upsmon_first(
    polled: HotplugMachine, release: tuple[int, int, int]
) -> None:
    polled.status["ups"] = "OB DISCHRG"
    polled.run_hotplug(release=release)
    reset_ups(polled)
    polled.run_hotplug(release=release)
    assert polled.did == []
    text = status_text(polled, release)
    steps = [
        "FAULT",
        "If it is on mains",
        "stop upsmon on each machine",
        "systemctl restart nut-driver@ups",
        "start upsmon",
    ]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert "not alive" in text


def test_outage_of_one_ups_does_not_hide_that_of_another(polled: HotplugMachine) -> None:
    polled.bus.plug_in("1-2", CPS, serial="CPS123456789")
    polled.run_hotplug()
    polled.status["ups2"] = "OB DISCHRG"
    reset_ups(polled)
    polled.ups_says["ups"] = "OB DISCHRG"
    polled.run_hotplug(release=HASTY)
    assert RESTART in polled.did


@pytest.mark.parametrize("status", ["FSD OB LB", "OL FSD"])
@pytest.mark.parametrize("release", RELEASES)
def test_shutdown_in_progress_is_not_disturbed(
    polled: HotplugMachine, release: tuple[int, int, int], status: str
) -> None:
    polled.status["ups"] = status
    polled.run_hotplug(release=release)
    reset_ups(polled)
    polled.run_hotplug(release=release)
    assert polled.did == []


def test_shutdown_because_of_another_ups_is_not_disturbed(polled: HotplugMachine) -> None:
    polled.bus.plug_in("1-2", CPS, serial="CPS123456789")
    polled.run_hotplug()
    polled.status["ups2"] = "FSD OB LB"
    reset_ups(polled)
    polled.run_hotplug()
    assert polled.did == []


def test_driver_that_reopens_its_ups_is_left_alone(polled: HotplugMachine) -> None:
    reset_ups(polled)
    polled.events = [lambda: None] * 4 + [lambda: polled.open_device("ups")]
    outcome = polled.run_hotplug()
    assert polled.did == []
    assert outcome.observation.faults == ()
    assert polled.is_quiet


def test_restart_in_vain_is_repeated_less_and_less_often(polled: HotplugMachine) -> None:
    reset_ups(polled)
    del polled.ups_says["ups"]  # the driver goes on with the old node
    count = 0
    for _each in range(30):
        polled.run_hotplug()
        count += len(polled.did)
        polled.now += 10
    assert 3 <= count <= 6


def test_work_that_waits_for_mains_names_the_old_data(polled: HotplugMachine) -> None:
    polled.bus.plug_in("1-2", CPS, serial="CPS123456789")
    polled.run_hotplug()
    polled.status["ups"] = "OB DISCHRG"
    polled.run_hotplug()
    reset_ups(polled)
    polled.status["ups2"] = "ERR DATA-STALE"
    polled.run_hotplug()
    polled.now += 100
    outcome = polled.run_hotplug()
    assert polled.did == []
    assert any(
        "Restart postponed: waiting until the mains are back, because of ups (OB DISCHRG), which is old data" in line
        for line in outcome.observation.deferred
    )


def test_end_of_fault_is_logged(polled: HotplugMachine) -> None:
    polled.status["ups"] = "OB DISCHRG"
    polled.run_hotplug()
    reset_ups(polled)
    polled.run_hotplug()
    polled.open_device("ups")  # a person has restarted the driver as the remedy says
    polled.run_hotplug()
    assert [line.partition(": [ups]")[0] for line in polled.said][:1] == ["this fault is over"]


# The UPS is unplugged


@pytest.mark.parametrize("release", RELEASES)
def test_unplugged_ups_with_fresh_data_is_a_fault(polled: HotplugMachine, release: tuple[int, int, int]) -> None:
    polled.bus.unplug_device("1-1")
    assert not polled.is_quiet
    polled.run_hotplug(release=release)
    assert polled.did == []
    assert "unplugged, but upsd serves old data as fresh (OL)" in status_text(polled, release)
    polled.now += 31
    assert not polled.is_quiet
    (fault,) = polled.make_host(release=release).observe_host().faults
    assert "upsd serves old data as fresh (OL)" in fault
    assert "its UPS is not on the USB bus" in fault
    polled.run_hotplug(release=release)
    assert polled.did == [RESTART]
    assert polled.status["ups"] == "ERR DRIVER-NOT-CONNECTED"
    polled.run_hotplug(release=release)
    assert polled.did == []
    assert "FAULT" not in status_text(polled, release)


@pytest.mark.parametrize(("release", "did"), [((2, 8, 0), [RESTART]), (HASTY, []), ((2, 8, 3), [RESTART])])
def test_ups_unplugged_on_battery_depends_on_release(
    polled: HotplugMachine, release: tuple[int, int, int], did: list[str]
) -> None:
    polled.status["ups"] = "OB DISCHRG"
    polled.run_hotplug(release=release)
    polled.bus.unplug_device("1-1")
    polled.run_hotplug(release=release)
    polled.now += 31
    outcome = polled.run_hotplug(release=release)
    assert polled.did == did
    assert bool(outcome.observation.faults) != bool(did)


def test_absence_is_only_a_fault_if_driver_may_have_another_device(served: HotplugMachine) -> None:
    """Its keys may fit a device whose strings NUT reads and the kernel does not."""
    served.bus.plug_in("1-2", "8087:0026", hid=False)
    served.bus.unplug_device("1-1")
    served.run_hotplug()
    served.now += 100
    outcome = served.run_hotplug()
    assert served.did == []
    assert len(outcome.observation.faults) == 1
    assert any("not proof enough" in line for line in outcome.observation.deferred)
    served.bus.show_driver("1-2", "btusb")
    served.now += 3601
    served.run_hotplug()
    assert RESTART in served.did


def test_bus_from_lsusb_shows_no_loss(polled: HotplugMachine) -> None:
    polled.bus.sysfs.rename(polled.root / "hidden")
    polled.lsusb = "Bus 001 Device 009: ID 051d:0002 American Power Conversion\n"
    polled.run_hotplug()
    polled.now += 100
    assert polled.run_hotplug().observation.faults == ()
    assert polled.did == []


# The journal


def test_logged_loss_proves_it_if_the_kernel_shows_nothing(served: HotplugMachine) -> None:
    served.journal = [(ago, UNIT, GONE) for ago in (2, 4, 6, 8)]
    served.now += 100
    served.coarse = 1.0
    served.run_hotplug()
    assert served.did[:1] == [RESTART]


@pytest.mark.parametrize("line", [ERROR, "Communications with UPS lost: Error executing command"])
def test_repeated_error_makes_driver_suspect(polled: HotplugMachine, line: str) -> None:
    polled.journal = [(ago, UNIT, line) for ago in (2, 12, 22)]
    outcome = polled.make_host().observe_host()
    assert ["is suspect (OL)" in fault and line in fault for fault in outcome.faults] == [True]
    assert f"FAULT: {outcome.faults[0]}" in status_text(polled)
    assert outcome.plan.after == ()


@pytest.mark.parametrize(
    "journal",
    [
        [(2, UNIT, ERROR), (12, UNIT, ERROR)],
        [(70, UNIT, ERROR), (75, UNIT, ERROR), (80, UNIT, ERROR)],
        [(1, UNIT, "Startup successful"), (2, UNIT, ERROR), (4, UNIT, ERROR), (6, UNIT, ERROR)],
        [
            (2, "nut-driver@rack.service", ERROR),
            (4, "nut-driver@rack.service", ERROR),
            (6, "nut-driver@rack.service", ERROR),
        ],
        [(2, UNIT, "nut_libusb_get_string: Pipe error")] * 5,
    ],
    ids=["too few", "ended", "restarted since", "another driver", "harmless"],
)
def test_other_lines_do_not_make_driver_suspect(polled: HotplugMachine, journal: list[tuple[float, str, str]]) -> None:
    polled.journal = journal
    assert polled.make_host().observe_host().faults == ()


# The values


def test_values_that_stand_still_on_battery_make_driver_suspect(polled: HotplugMachine) -> None:
    polled.status["ups"] = polled.ups_says["ups"] = "OB DISCHRG"
    polled.values = dict(VALUES)
    outcome = polled.run_hotplug()
    assert outcome.observation.faults == ()
    polled.now += 179
    outcome = polled.run_hotplug()
    assert ["on battery for 3 min, and charge, runtime" in fault for fault in outcome.observation.faults] == [True]
    assert polled.did == []
    polled.values["battery.runtime"] = "1490"
    outcome = polled.run_hotplug()
    assert outcome.observation.faults == ()


@pytest.mark.parametrize("name", VALUES)
def test_any_value_that_moves_shows_life(polled: HotplugMachine, name: str) -> None:
    polled.status["ups"] = "OB DISCHRG"
    polled.values = dict(VALUES)
    polled.run_hotplug()
    for _each in range(3):
        polled.now += 100
        polled.values[name] += "1"
        assert polled.run_hotplug().observation.faults == ()


def test_values_on_mains_may_stand_still(polled: HotplugMachine) -> None:
    polled.values = dict(VALUES)
    polled.run_hotplug()
    polled.now += 3000
    assert polled.run_hotplug().observation.faults == ()
    assert polled.is_quiet


def test_ups_that_measures_nothing_is_not_suspect(polled: HotplugMachine) -> None:
    polled.status["ups"] = "OB DISCHRG"
    polled.values = {"battery.charge": "100"}
    polled.run_hotplug()
    polled.now += 3000
    assert polled.run_hotplug().observation.faults == ()


def test_values_on_battery_are_looked_at_again(polled: HotplugMachine) -> None:
    polled.status["ups"] = "OB DISCHRG"
    polled.values = dict(VALUES)
    polled.run_hotplug()
    assert polled.is_quiet
    polled.now += 181
    assert not polled.is_quiet


# The note for quiet runs


def test_lost_driver_is_never_quiet_before_it_is_dealt_with(polled: HotplugMachine) -> None:
    reset_ups(polled)
    host = polled.make_host()
    host.apply_plan(host.observe_host())
    assert not polled.is_quiet
    assert polled.memory.lost_since == {"ups": polled.now}
    assert replace(polled.memory, boot="other").for_boot("boot").lost_since == {}
