# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.filter.driver_packages import FilterModule
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.packages import list_missing_packages

driver_packages = FilterModule().filters()["driver_packages"]


@pytest.mark.parametrize(
    ("driver", "packages"),
    [
        ("snmp-ups", ["nut-snmp"]),
        ("netxml-ups", ["nut-xml"]),
        ("generic_modbus", ["nut-modbus"]),
        ("apc_modbus", ["nut-modbus"]),
        ("huawei-ups2000", ["nut-modbus"]),
        ("socomec_jbus", ["nut-modbus"]),
        ("adelsystem_cbi", ["nut-modbus"]),
        ("newer_modbus", ["nut-modbus"]),
        ("nut-ipmipsu", ["nut-ipmi"]),
        ("asem", ["nut-i2c"]),
        ("pijuice", ["nut-i2c"]),
        ("powerman-pdu", ["nut-powerman-pdu"]),
        ("usbhid-ups", []),
        ("apcupsd-ups", []),
        ("auto", []),
        ("none-such", []),
    ],
)
def test_driver_names_its_package(driver: str, packages: list[str]) -> None:
    assert driver_packages(f'[ups]\n  driver = "{driver}"\n  port = x\n') == packages


def test_each_package_is_listed_once() -> None:
    text = "".join(
        f"[{name}]\n  driver = {driver}\n" for name, driver in zip("abc", ("snmp-ups", "netxml-ups", "snmp-ups"))
    )
    assert driver_packages(text) == ["nut-snmp", "nut-xml"]
    assert driver_packages("maxretry = 3\n[ups]\n  port = auto\n") == []


@pytest.mark.parametrize(
    ("drivers", "there", "missing"),
    [
        (["snmp-ups"], [], ["nut-snmp"]),
        (["snmp-ups"], ["snmp-ups"], []),
        (["snmp-ups", "usbhid-ups"], ["usbhid-ups"], ["nut-snmp"]),
        # Debian 12's nut-modbus does not have it
        (["apc_modbus"], ["generic_modbus"], []),
        (["usbhid-ups"], [], []),
    ],
)
def test_package_is_missing_if_none_of_its_drivers_is_there(
    drivers: list[str], there: list[str], missing: list[str]
) -> None:
    text = "".join(f"[ups{number}]\n  driver = {driver}\n" for number, driver in enumerate(drivers))
    assert list_missing_packages(text, lambda name: Path("/lib/nut", name) if name in there else None) == missing
