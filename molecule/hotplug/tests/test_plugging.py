# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPSes are plugged in, pulled out and swapped: what NUT serves then, and by their process ids, which driver was restarted."""

from __future__ import annotations

import time

from hotplug.primary import CONF, Primary, driver
from support import wait_until

UNIT = driver("ups")


def others(processes: dict[str, str]) -> dict[str, str]:
    """Return the processes without that of the driver of ups."""
    return {unit: pid for unit, pid in processes.items() if unit != UNIT}


def test_nothing_has_happened(both):
    """A run without a reason does nothing, says nothing, and leaves the file alone."""

    def case(one: Primary) -> None:
        before, file = one.processes(), one.sh(f"stat -c %i:%Y {CONF}")
        for _run in range(3):
            one.run()
        assert one.told() == ""
        assert one.sh(f"stat -c %i:%Y {CONF}") == file
        one.untouched(before)

    both(case)


def test_a_second_ups(both):
    """It is served under a name of its own. Pulled out, it keeps that; put back elsewhere, it is the same."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.ups("plug", "eaton", "--port", "2")
        one.go()
        one.await_service("ups2", device_mfr="EATON")
        one.untouched(before)
        with_both = one.processes()
        assert set(with_both) == {*before, driver("ups2")}

        one.ups("unplug", "--port", "2")
        one.go()
        wait_until(lambda: not one.serves("ups2"), 20, "upsd has no data of what is not there")
        one.run()
        assert set(one.sections()) == {"ups", "ups2"}
        assert [absent["name"] for absent in one.status()["absent"]] == ["ups2"]
        one.untouched(before)

        one.ups("replug", "--port", "2", "--to", "5")
        one.go()
        one.await_service("ups2", device_mfr="EATON")
        assert set(one.sections()) == {"ups", "ups2"}
        one.untouched(before)

    both(case)


def test_replugged(both):
    """Another device number, at the same port or another, with a serial number (pve8) or without: the driver finds it by itself."""

    def case(one: Primary) -> None:
        before, number = one.processes(), one.bus()["upses"][0]["device_number"]
        one.ups("replug", "--port", "1")
        assert one.bus()["upses"][0]["device_number"] != number
        one.run()
        one.await_service()
        one.untouched(before)
        one.ups("replug", "--port", "1", "--to", "6")
        one.run()
        one.await_service()
        one.untouched(before)
        assert one.restarts() == 0
        assert one.text(CONF) == one.files[CONF]

    both(case)


def test_pulled_out_and_back_much_later(both):
    """Nothing is restarted for what is not there, however often one looks."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.ups("unplug", "--port", "1")
        for _look in range(3):
            one.run()
            one.later(120)
        wait_until(lambda: not one.serves(), 20, "upsd has no data of what is not there")
        assert one.text(CONF) == one.files[CONF]
        one.untouched(before)
        one.ups("replug", "--port", "1")
        one.go()
        one.await_service()
        one.untouched(before)

    both(case)


def test_a_driver_that_does_not_find_its_ups_again(both):
    """This one calls itself another name each time that it is asked: a running driver never takes it back."""

    def case(one: Primary) -> None:
        # without a serial number, which would not be true either, and by which its driver would look for it
        one.swap("cps", "--fickle")
        one.go()
        one.await_service()
        before, told = one.processes(), one.restarts()
        one.ups("replug", "--port", "1")
        one.go()
        wait_until(lambda: one.restarts() > told, 25, "it is restarted")
        one.await_service()
        after = one.processes()
        assert after[UNIT] != before[UNIT]
        assert others(after) == others(before)
        assert one.restarts() == told + 1

    both(case)


def test_swapped_for_one_with_the_same_driver(both):
    """The name stays; only that driver is restarted."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.swap(one.other)
        one.go()
        one.await_service(device_mfr={"apc": "American Power Conversion", "cps": "CPS"}[one.other])
        after = one.processes()
        assert after[UNIT] != before[UNIT]
        assert others(after) == others(before)
        assert one.restarts() == 1
        assert set(one.sections()) == {"ups"}

    both(case)


def test_swapped_for_one_with_another_driver(both):
    """The name stays also then, and the driver of another UPS is left alone."""

    def case(one: Primary) -> None:
        one.ups("plug", "eaton", "--port", "2")
        one.go()
        one.await_service("ups2")
        before = one.processes()
        one.swap("megatec")
        one.go()
        one.await_service(driver_name="nutdrv_qx")
        assert others(one.processes()) == others(before)
        one.later(600)
        one.swap(one.model)
        one.go()
        one.await_service(driver_name="usbhid-ups")
        assert others(one.processes()) == others(before)
        one.await_service("ups2", device_mfr="EATON")

    both(case)


def test_two_alike_that_have_serial_numbers(both):
    """Each is served under its own name, whatever the port."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.ups("plug", "apc", "--port", "2", "--serial", "3B1519X07411")
        one.ups("plug", "apc", "--port", "3", "--serial", "3B1622X18853")
        one.go()
        names = {}
        for name in ("ups2", "ups3"):
            one.await_service(name)
            names[name] = one.sh(f"upsc {name}@localhost device.serial 2>/dev/null").strip()
        assert {*names.values()} == {"3B1519X07411", "3B1622X18853"}
        one.untouched(before)
        with_all = one.processes()
        one.ups("unplug", "--port", "2")
        one.ups("unplug", "--port", "3")
        one.ups("replug", "--port", "2", "--to", "7")
        one.ups("replug", "--port", "3", "--to", "2")
        one.go()
        for name, serial in names.items():
            one.await_service(name, device_serial=serial)
        assert set(one.sections()) == {"ups", "ups2", "ups3"}
        one.untouched(with_all)

    both(case)


def test_two_alike_that_have_none(both):
    """NUT 2.8.1 tells them apart by their ports. 2.8.0 can't, and nut-hotplug says so. What worked goes on in any case."""

    def case(one: Primary) -> None:
        one.ups("plug", "eaton", "--port", "2")
        one.go()
        one.await_service("ups2")
        before = one.processes()
        one.ups("plug", "eaton", "--port", "3")
        one.ups("set", "charge=42", "--port", "3")
        if one.name == "pve9":
            one.go()
            one.await_service("ups3", battery_charge="42")
        else:
            # the second one's driver tries in vain, and the service with it
            one.go()
            wait_until(lambda: "can't be distinguished from" in one.told(), 20, "it says so")
            assert "use NUT 2.8.1" in one.told()
        one.await_service("ups2", battery_charge="100")
        one.untouched(before)

    both(case)


def test_flapping(both):
    """A plug that sits badly: five times in ten seconds. The driver is restarted twice at most, and works in the end."""

    def case(one: Primary) -> None:
        before = one.processes()
        for _time in range(5):
            one.ups("replug", "--port", "1")
            one.go()
            time.sleep(2)  # that is the case
        one.run()
        one.await_service()
        assert one.restarts() <= 2
        assert others(one.processes()) == others(before)
        assert one.text(CONF) == one.files[CONF]

    both(case)
