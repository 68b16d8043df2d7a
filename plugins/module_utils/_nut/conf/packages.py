# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of Debian's packages has a driver. Most are in nut-server; those that need a library of their own are not."""

from __future__ import annotations

from ..base.process import Find
from . import ups_conf

# Contents of Debian's packages of 2.8.0 (12) and 2.8.1 (13), package -> drivers. apc_modbus is only in Debian 13's nut-modbus.
DRIVERS = {
    "nut-snmp": ("snmp-ups",),
    "nut-xml": ("netxml-ups",),
    "nut-modbus": (
        "adelsystem_cbi",
        "apc_modbus",
        "generic_modbus",
        "huawei-ups2000",
        "phoenixcontact_modbus",
        "socomec_jbus",
    ),
    "nut-ipmi": ("nut-ipmipsu",),
    "nut-i2c": ("asem", "pijuice"),
    "nut-powerman-pdu": ("powerman-pdu",),
}
_MODBUS = "nut-modbus"


def find_package(driver: str) -> str:
    """Return the package that has a driver besides nut-server; "" if nut-server has it, or nothing is known of it."""
    known = next((package for package, drivers in DRIVERS.items() if driver in drivers), "")
    # drivers of newer releases
    return known or (_MODBUS if driver.endswith("_modbus") else "")


def list_packages(text: str) -> list[str]:
    """Return the packages that the drivers in an ups.conf need besides nut-server."""
    drivers = [dict(section.keys).get("driver") or "" for section in ups_conf.parse_ups_conf(text).sections.values()]
    return sorted({package for driver in drivers if (package := find_package(driver))})


def list_missing_packages(text: str, finder: Find) -> list[str]:
    """Return the packages that the drivers in an ups.conf need, and of which this host has no driver at all.

    finder: looks for a driver as process.find_program() does.
    """
    return [
        package for package in list_packages(text) if not any(finder(driver) for driver in DRIVERS.get(package, ()))
    ]
