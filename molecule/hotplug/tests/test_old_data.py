# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drivers that serve old data as fresh: with pollonly, a driver does not notice that its UPS was reset (NUT issue #1986)."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hotplug.primary import CONF, SECONDS, HotplugPrimary, driver_unit
from support import read_status

UNIT = driver_unit("ups")
# upsmon of 2.8.1 shuts down at once if it loses contact with a UPS on battery, so no driver may be restarted then
HASTY = "pve9"
# percent: what the driver reads when it starts, and what the UPS measures after its reset
OLD_LOAD, NEW_LOAD = 21, 55


def poll_only(primary: HotplugPrimary) -> None:
    """Give the UPS's section the flag pollonly, as a person would, and restart its driver, which reads a load of OLD_LOAD."""
    primary.control_ups("set", f"load={OLD_LOAD}", "--port", "1")
    primary.run_shell(f"sed -i '/^\\[ups\\]/a \\    pollonly' {CONF}")
    primary.run_shell(f"systemctl start nut-driver-enumerator; systemctl restart {UNIT}")
    primary.wait_until_served(driver_flag_pollonly="enabled")
    primary.run_service()


def run_until(primary: HotplugPrimary, condition: Callable[[], bool], awaited: str, seconds: float = SECONDS) -> None:
    """Let nut-hotplug run as its timer does, until a condition is true. Fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (
            f"{primary.name}: timed out waiting for {awaited}\n{primary.describe_state()}"
        )
        primary.start_service()
        time.sleep(3)  # less often than systemd's limit of starts


def read_variable(primary: HotplugPrimary, name: str) -> str:
    """Return a variable of the UPS from upsd; "" if upsd does not serve it."""
    return str(primary.host.run("upsc ups@localhost %s 2>/dev/null", name).stdout).strip()


def has_new_load(primary: HotplugPrimary) -> bool:
    """Return whether upsd serves the load that the UPS has since reset_ups(). Some releases of NUT write 55, others 55.0."""
    text = read_variable(primary, "ups.load")
    return bool(text) and float(text) == NEW_LOAD


def is_on_battery(primary: HotplugPrimary) -> bool:
    """Return whether upsd says so."""
    return "OB" in read_status(primary.host)


def cut_mains(primary: HotplugPrimary) -> None:
    """Cut the mains, and wait until upsd reports it."""
    primary.control_ups("mains", "off")
    run_until(primary, lambda: is_on_battery(primary), "the UPS to be on battery")


def reset_ups(primary: HotplugPrimary) -> None:
    """Let the UPS leave the bus and come back at once with another number; its load changes meanwhile."""
    primary.control_ups("replug", "--port", "1")
    primary.control_ups("set", f"load={NEW_LOAD}", "--port", "1")


def assert_reports_old_data(primary: HotplugPrimary, *words: str) -> None:
    """Fail unless nut-hotplug calls the data old in its status and its log, with these words."""
    run_until(primary, lambda: "old data" in primary.read_log(), "nut-hotplug to report the old data")
    status = primary.run_shell("nut-hotplug status")
    for text in ("FAULT", "old data", *words):
        assert text in status, status
    # once, not in each run
    logged = primary.read_log().count("FAULT")
    primary.run_service()
    assert primary.read_log().count("FAULT") == logged


def follow_remedy(primary: HotplugPrimary) -> None:
    """Restart the driver as nut-hotplug tells a person to: with upsmon stopped on every machine."""
    primary.restart_driver_without_upsmon()
    assert has_new_load(primary)
    run_until(primary, lambda: primary.list_clients() == {*primary.secondaries}, "the secondaries to log in")


def assert_only_driver_changed(primary: HotplugPrimary, before: dict[str, str]) -> None:
    """Fail unless the driver of the UPS was restarted, and nothing else of NUT."""
    after = primary.list_processes()
    assert after[UNIT] != before[UNIT]
    assert {**after, UNIT: ""} == {**before, UNIT: ""}


def test_reset_on_mains_restarts_the_driver(run_on_both):

    def run_case(primary: HotplugPrimary) -> None:
        poll_only(primary)
        before = primary.list_processes()
        reset_ups(primary)
        run_until(primary, lambda: has_new_load(primary), "upsd to serve what the UPS measures")
        assert primary.is_served()
        assert_only_driver_changed(primary, before)
        assert primary.count_restarts() == 1

    run_on_both(run_case)


def test_power_cut_right_after_a_reset_is_noticed(run_on_both):
    """upsd says OL, and the UPS is on battery: nothing else would ever notice it."""

    def run_case(primary: HotplugPrimary) -> None:
        poll_only(primary)
        before = primary.list_processes()
        reset_ups(primary)
        primary.control_ups("mains", "off")
        assert not is_on_battery(primary)
        run_until(primary, lambda: is_on_battery(primary), "upsd to report the power cut")
        assert_only_driver_changed(primary, before)
        primary.control_ups("mains", "on")
        run_until(primary, primary.is_served, "upsd to report the mains")

    run_on_both(run_case)


def test_reset_on_battery_restarts_the_driver_or_is_reported(run_on_both):
    """2.8.0 waits for DEADTIME. 2.8.1 would shut down, so the driver stays, and nut-hotplug says so loudly."""

    def run_case(primary: HotplugPrimary) -> None:
        poll_only(primary)
        before = primary.list_processes()
        cut_mains(primary)
        reset_ups(primary)
        if primary.name == HASTY:
            assert_reports_old_data(primary, "OB")
            primary.assert_untouched(before)
            primary.control_ups("mains", "on")
            follow_remedy(primary)
        else:
            run_until(primary, lambda: has_new_load(primary), "upsd to serve what the UPS measures")
            assert is_on_battery(primary)
            assert_only_driver_changed(primary, before)
            primary.control_ups("mains", "on")
        run_until(primary, primary.is_served, "upsd to report the mains")

    run_on_both(run_case)


def test_reset_as_the_mains_return_does_not_leave_the_ups_on_battery(run_on_both):
    """upsd would say OB for ever, and everything that waits for the mains would wait for ever."""

    def run_case(primary: HotplugPrimary) -> None:
        poll_only(primary)
        before = primary.list_processes()
        cut_mains(primary)
        reset_ups(primary)
        primary.control_ups("mains", "on")
        if primary.name == HASTY:
            # the remedy: upsmon first, because a restart of the driver alone would shut the house down
            assert_reports_old_data(primary, "OB", "upsmon", f"systemctl restart {UNIT.removesuffix('.service')}")
            primary.assert_untouched(before)
            follow_remedy(primary)
        else:
            run_until(primary, primary.is_served, "upsd to report the mains")
            assert has_new_load(primary)
            assert_only_driver_changed(primary, before)
        assert primary.is_served()

    run_on_both(run_case)


@pytest.mark.long
def test_unplugged_ups_is_not_served_for_ever(run_on_both):
    """Its driver has data, which it read before. The UPS gets its name back."""

    def run_case(primary: HotplugPrimary) -> None:
        poll_only(primary)
        primary.control_ups("unplug", "--port", "1")
        assert primary.is_served()
        run_until(primary, lambda: not read_status(primary.host), "upsd to have no data", 2 * SECONDS)
        assert [absent["name"] for absent in primary.read_hotplug_status()["absent"]] == ["ups"]
        primary.control_ups("replug", "--port", "1")
        run_until(primary, primary.is_served, "upsd to serve the UPS again")

    run_on_both(run_case)
