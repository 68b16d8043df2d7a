# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPSes are plugged in, unplugged and swapped: what upsd serves, and (by process ids) which drivers were restarted."""

from __future__ import annotations

import time

from hotplug.primary import CONF, HotplugPrimary, driver_unit
from support import wait_until

UNIT = driver_unit("ups")


def without_ups_driver(processes: dict[str, str]) -> dict[str, str]:
    """Return the processes except the driver of `ups`."""
    return {unit: pid for unit, pid in processes.items() if unit != UNIT}


def test_run_without_changes_does_nothing(run_on_both):
    """The log stays empty, and ups.conf is not written."""

    def run_case(primary: HotplugPrimary) -> None:
        before, file = primary.list_processes(), primary.run_shell(f"stat -c %i:%Y {CONF}")
        for _run in range(3):
            primary.run_service()
        assert primary.read_log() == ""
        assert primary.run_shell(f"stat -c %i:%Y {CONF}") == file
        primary.assert_untouched(before)

    run_on_both(run_case)


def test_second_ups_gets_its_own_name_and_keeps_it(run_on_both):
    """Also while it is unplugged, and at another port."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.control_ups("plug", "eaton", "--port", "2")
        primary.start_service()
        primary.wait_until_served("ups2", device_mfr="EATON")
        primary.assert_untouched(before)
        with_both = primary.list_processes()
        assert set(with_both) == {*before, driver_unit("ups2")}

        primary.control_ups("unplug", "--port", "2")
        primary.start_service()
        wait_until(lambda: not primary.is_served("ups2"), 20, "upsd to have no data")
        primary.run_service()
        assert set(primary.read_sections()) == {"ups", "ups2"}
        assert [absent["name"] for absent in primary.read_hotplug_status()["absent"]] == ["ups2"]
        primary.assert_untouched(before)

        primary.control_ups("replug", "--port", "2", "--to", "5")
        primary.start_service()
        primary.wait_until_served("ups2", device_mfr="EATON")
        assert set(primary.read_sections()) == {"ups", "ups2"}
        primary.assert_untouched(before)

    run_on_both(run_case)


def test_replugged_ups_is_found_by_its_running_driver(run_on_both):
    """It has another device number, at the same port or another, with a serial number (pve8) or without."""

    def run_case(primary: HotplugPrimary) -> None:
        before, number = primary.list_processes(), primary.read_bus()["upses"][0]["device_number"]
        primary.control_ups("replug", "--port", "1")
        assert primary.read_bus()["upses"][0]["device_number"] != number
        primary.run_service()
        primary.wait_until_served()
        primary.assert_untouched(before)
        primary.control_ups("replug", "--port", "1", "--to", "6")
        primary.run_service()
        primary.wait_until_served()
        primary.assert_untouched(before)
        assert primary.count_restarts() == 0
        assert primary.read_file(CONF) == primary.files[CONF]

    run_on_both(run_case)


def test_absent_ups_restarts_nothing(run_on_both):
    """However often nut-hotplug runs while the UPS is unplugged."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.control_ups("unplug", "--port", "1")
        for _look in range(3):
            primary.run_service()
            primary.pass_time(120)
        wait_until(lambda: not primary.is_served(), 20, "upsd to have no data")
        assert primary.read_file(CONF) == primary.files[CONF]
        primary.assert_untouched(before)
        primary.control_ups("replug", "--port", "1")
        primary.start_service()
        primary.wait_until_served()
        primary.assert_untouched(before)

    run_on_both(run_case)


def test_driver_that_rejects_its_replugged_ups_is_restarted_once(run_on_both):
    """This UPS reports another product name each time, so a running driver never accepts it again."""

    def run_case(primary: HotplugPrimary) -> None:
        # a model without a serial number: it would change too, and the driver looks for the serial number
        primary.swap_ups("cps", "--fickle")
        primary.run_service()
        primary.wait_until_served()
        before, told = primary.list_processes(), primary.count_restarts()
        primary.control_ups("replug", "--port", "1")
        primary.start_service()
        wait_until(lambda: primary.count_restarts() > told, 25, "the driver to be restarted")
        # until the old driver is stopped, upsd may still serve its data
        wait_until(
            lambda: primary.list_processes().get(UNIT, before[UNIT]) != before[UNIT], 30, "another driver to run"
        )
        primary.wait_until_served()
        after = primary.list_processes()
        assert without_ups_driver(after) == without_ups_driver(before)
        assert primary.count_restarts() == told + 1

    run_on_both(run_case)


def test_swap_within_a_driver_restarts_only_that_driver(run_on_both):
    """The name stays."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.swap_ups(primary.other_model)
        primary.start_service()
        primary.wait_until_served(device_mfr={"apc": "American Power Conversion", "cps": "CPS"}[primary.other_model])
        after = primary.list_processes()
        assert after[UNIT] != before[UNIT]
        assert without_ups_driver(after) == without_ups_driver(before)
        assert primary.count_restarts() == 1
        assert set(primary.read_sections()) == {"ups"}

    run_on_both(run_case)


def test_swap_to_another_driver_keeps_the_name(run_on_both):
    """The driver of another UPS is left alone."""

    def run_case(primary: HotplugPrimary) -> None:
        primary.control_ups("plug", "eaton", "--port", "2")
        primary.start_service()
        primary.wait_until_served("ups2")
        before = primary.list_processes()
        primary.swap_ups("megatec")
        primary.start_service()
        primary.wait_until_served(driver_name="nutdrv_qx")
        assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)
        primary.pass_time(600)
        primary.swap_ups(primary.model)
        primary.start_service()
        primary.wait_until_served(driver_name="usbhid-ups")
        assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)
        primary.wait_until_served("ups2", device_mfr="EATON")

    run_on_both(run_case)


def test_identical_upses_with_serial_numbers_keep_their_names_at_any_port(run_on_both):

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.control_ups("plug", "apc", "--port", "2", "--serial", "3B1519X07411")
        primary.control_ups("plug", "apc", "--port", "3", "--serial", "3B1622X18853")
        primary.start_service()
        names = {}
        for name in ("ups2", "ups3"):
            primary.wait_until_served(name)
            names[name] = primary.run_shell(f"upsc {name}@localhost device.serial 2>/dev/null").strip()
        assert {*names.values()} == {"3B1519X07411", "3B1622X18853"}
        primary.assert_untouched(before)
        with_all = primary.list_processes()
        primary.control_ups("unplug", "--port", "2")
        primary.control_ups("unplug", "--port", "3")
        primary.control_ups("replug", "--port", "2", "--to", "7")
        primary.control_ups("replug", "--port", "3", "--to", "2")
        primary.start_service()
        for name, serial in names.items():
            primary.wait_until_served(name, device_serial=serial)
        assert set(primary.read_sections()) == {"ups", "ups2", "ups3"}
        primary.assert_untouched(with_all)

    run_on_both(run_case)


def test_identical_upses_without_serial_numbers(run_on_both):
    """NUT 2.8.1 distinguishes them by port. 2.8.0 can't, and nut-hotplug reports that. The first one is served in any case."""

    def run_case(primary: HotplugPrimary) -> None:
        primary.control_ups("plug", "eaton", "--port", "2")
        primary.start_service()
        primary.wait_until_served("ups2")
        before = primary.list_processes()
        primary.control_ups("plug", "eaton", "--port", "3")
        primary.control_ups("set", "charge=42", "--port", "3")
        if primary.name == "pve9":
            primary.start_service()
            primary.wait_until_served("ups3", battery_charge="42")
        else:
            # the driver of the second UPS fails, and so does the service
            primary.start_service()
            wait_until(lambda: "can't be distinguished from" in primary.read_log(), 20, "nut-hotplug to report that")
            assert "upgrade to NUT 2.8.1" in primary.read_log()
        primary.wait_until_served("ups2", battery_charge="100")
        primary.assert_untouched(before)

    run_on_both(run_case)


def test_loose_plug_restarts_the_driver_twice_at_most(run_on_both):
    """Five replugs in ten seconds. The driver works at the end."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        for _time in range(5):
            primary.control_ups("replug", "--port", "1")
            primary.start_service()
            time.sleep(2)  # between two replugs
        primary.run_service()
        primary.wait_until_served()
        assert primary.count_restarts() <= 2
        assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)
        assert primary.read_file(CONF) == primary.files[CONF]

    run_on_both(run_case)
