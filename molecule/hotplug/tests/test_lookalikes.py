# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPSes that NUT sees otherwise than the kernel does, and devices that look like UPSes."""

from __future__ import annotations

from collections.abc import Callable

from hotplug.primary import CONF, TIMER, HotplugPrimary, driver_unit
from support import wait_until

UNIT = driver_unit("ups")
# an Eaton 9E, whose table of languages libusb refuses (NUT issue #3146)
EATON_9E = ("eaton", "--product-string", "Eaton 9E", "--serial", "G123E45678")
UNREADABLE = (*EATON_9E, "--unreadable-strings")
# keys of ups.conf that a driver compares with what it reads itself
READ_BY_NUT = {"serial", "product", "vendor"}

# a line of NUT 2.8.5's rules, which the rules of 2.8.0 and 2.8.1 do not have
NEWER_RULES = "/etc/udev/rules.d/63-newer-nut-usbups.rules"
CH340_RULE = """\
#  Tecnoware UPS EVO DSP PLUS and others  - nutdrv_qx
ATTR{idVendor}=="1a86", ATTR{idProduct}=="7523", MODE="664", GROUP="nut"
"""


def without_ups_driver(processes: dict[str, str]) -> dict[str, str]:
    """Return the processes except the driver of `ups`."""
    return {unit: pid for unit, pid in processes.items() if unit != UNIT}


def test_ups_with_strings_that_nut_can_not_read_is_served(run_on_both):
    """sysfs shows its serial number, so a driver that looks for that would never find the UPS."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.control_ups("plug", *UNREADABLE, "--port", "2")
        assert primary.run_shell("cat /run/usb/bus/sys/bus/usb/devices/1-2/serial").strip() == "G123E45678"
        primary.start_service()
        primary.wait_until_served("ups2", ups_vendorid="0463")
        assert READ_BY_NUT.isdisjoint(primary.read_sections()["ups2"]), primary.read_file(CONF)
        primary.assert_untouched(before)
        # it is found again, too
        with_both = primary.list_processes()
        primary.control_ups("replug", "--port", "2")
        primary.start_service()
        primary.wait_until_served("ups2", ups_vendorid="0463")
        primary.assert_untouched(without_ups_driver(before))
        assert set(primary.list_processes()) == set(with_both)

    run_on_both(run_case)


def test_ups_with_unreadable_strings_takes_over_the_name(run_on_both):

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.swap_ups(*UNREADABLE)
        primary.start_service()
        primary.wait_until_served(ups_vendorid="0463")
        assert READ_BY_NUT.isdisjoint(primary.read_sections()["ups"]), primary.read_file(CONF)
        assert set(primary.read_sections()) == {"ups"}
        assert primary.count_restarts() <= 2
        assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)

    run_on_both(run_case)


def test_pinned_serial_number_that_is_unreadable_later_is_dropped(run_on_both):
    """The driver read it once, and now finds nothing although the UPS is plugged in."""

    def run_case(primary: HotplugPrimary) -> None:
        primary.control_ups("plug", *EATON_9E, "--port", "2")
        primary.start_service()
        primary.wait_until_served("ups2", device_serial="G123E45678")
        before = primary.list_processes()
        primary.swap_ups(*UNREADABLE, port=2)
        # after tries in vain, which are some minutes apart
        for _time in range(4):
            primary.run_service()
            primary.pass_time(600)
        primary.start_service()
        primary.wait_until_served("ups2", ups_vendorid="0463")
        assert "serial" not in primary.read_sections()["ups2"]
        after = primary.list_processes()
        assert {**after, driver_unit("ups2"): ""} == {**before, driver_unit("ups2"): ""}

    run_on_both(run_case)


def test_serial_adapter_never_becomes_a_ups(run_on_both):
    """Not beside the UPS, and not when that is unplugged, although NUT 2.8.5 lists its ids."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.run_shell(f"mkdir -p /etc/udev/rules.d && cat >{NEWER_RULES} <<'EOF'\n{CH340_RULE}EOF")
        try:
            primary.control_ups("plug", "ch340", "--port", "2")
            primary.run_service()
            assert primary.read_file(CONF) == primary.files[CONF]
            primary.assert_untouched(before)
            primary.control_ups("unplug", "--port", "1")
            for _run in range(3):
                primary.run_service()
                primary.pass_time(600)
            assert primary.read_file(CONF) == primary.files[CONF]
            assert set(primary.list_processes()) <= set(before)
            primary.control_ups("replug", "--port", "1")
            primary.start_service()
            primary.wait_until_served(driver_name="usbhid-ups")
            assert primary.read_file(CONF) == primary.files[CONF]
        finally:
            primary.run_shell(f"rm {NEWER_RULES}")

    run_on_both(run_case)


def test_play_succeeds_without_a_twin_that_is_gone(
    run_on_both, play: Callable[..., object], primaries: list[HotplugPrimary]
):
    """A UPS of the same model that was found and is unplugged again is absent, not broken. Nobody has declared it."""

    def plug_twin(primary: HotplugPrimary) -> None:
        serial = ("--serial", "3B1519X07411") if primary.model == "apc" else ()
        primary.control_ups("plug", primary.model, "--port", "2", *serial)
        primary.start_service()
        primary.wait_until_served("ups2")
        primary.control_ups("unplug", "--port", "2")
        primary.run_service()
        # a driver that is started without its UPS ends, and upsd says DRIVER-NOT-CONNECTED
        primary.run_shell(f"systemctl restart {driver_unit('ups2')} || true")
        wait_until(lambda: not primary.is_served("ups2"), 20, "upsd to have no data")

    run_on_both(plug_twin)
    before = [primary.list_processes()[UNIT] for primary in primaries]
    run_on_both(lambda primary: primary.run_shell(f"systemctl start {TIMER}"))
    try:
        done = play("--diff")
        assert done.returncode == 0, done.stdout + done.stderr
        for primary, pid in zip(primaries, before, strict=True):
            assert primary.list_processes()[UNIT] == pid
            assert [absent["name"] for absent in primary.read_hotplug_status()["absent"]] == ["ups2"]
    finally:
        run_on_both(lambda primary: primary.run_shell(f"systemctl stop {TIMER}"))
