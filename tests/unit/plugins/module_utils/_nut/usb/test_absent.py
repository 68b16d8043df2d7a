# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import absent

if TYPE_CHECKING:
    from collections.abc import Sequence

FOUND_NONE = """\
Network UPS Tools - Generic HID driver 0.47 (2.8.0)
USB communication driver (libusb 1.0) 0.43
No matching HID UPS found
Driver failed to start (exit status=1)
Network UPS Tools - UPS driver controller 2.8.0
"""
FAILED = "nut-driver@ups.service: Control process exited, code=exited, status=1/FAILURE\n"
BEGIN = "Starting nut-driver@ups.service - Network UPS Tools - device driver for NUT device 'ups'...\n"
JOURNALS = {
    "no UPS": (BEGIN + FOUND_NONE + FAILED, True),
    "no UPS, next attempt begun": (BEGIN + FOUND_NONE + FAILED + BEGIN, True),
    "cut off at the top": (FOUND_NONE + FAILED, True),
    "another driver's message": (BEGIN + "No supported devices found. Please check your device availability\n", True),
    "missing serial port": (BEGIN + "Unable to open /dev/ttyUSB0: No such file or directory\n", True),
    "UPS in use": (BEGIN + "Can't claim USB device [051d:0002]@0/0: Resource busy\n" + FOUND_NONE, False),
    "an unknown key": (BEGIN + "Fatal error: 'x' is not a valid variable name for this driver.\n", False),
    "absent, then in use": (BEGIN + FOUND_NONE + BEGIN + "Can't claim USB device\n", False),
    "in use, then absent": (BEGIN + "Can't claim USB device\n" + BEGIN + FOUND_NONE, True),
    "nothing": ("", False),
}


@pytest.mark.parametrize(("journal", "finds_none"), JOURNALS.values(), ids=JOURNALS.keys())
def test_log_lines_tell_whether_driver_found_no_ups(journal: str, finds_none: bool) -> None:
    def runner(command: Sequence[str]) -> tuple[int, str]:
        assert "--unit=nut-driver@ups.service" in command
        return 0, journal

    assert absent.finds_no_ups(Section("ups", ()), runner) == finds_none


SCANNED = 'USB:driver="usbhid-ups",port="auto",vendorid="051D",productid="0002",product="{}",serial="AS1",bus="001"\n'
SMART = SCANNED.format("Smart-UPS (1500)")
CPS = (("driver", "usbhid-ups"), ("vendorid", "0764"), ("productid", "0501"))
TWIN = (
    'USB:driver="usbhid-ups",port="auto",vendorid="0764",productid="0501",product="CP1500EPFCLCD",vendor="CPS",bus="001",device="031",'
    'busport="001",###NOTMATCHED-YET###bcdDevice="0001"\n'
)
MEGATEC = 'USB:driver="nutdrv_qx",port="auto",vendorid="0665",productid="5161",bus="001"\n'
MEANT: dict[str, tuple[str, tuple[tuple[str, str], ...], bool]] = {
    "an empty bus": ("", (), True),
    "any UPS": (SMART, (), False),
    "matching UPS": (SMART, (("driver", "usbhid-ups"), ("vendorid", "051d"), ("serial", "AS.*")), False),
    "a UPS of another driver": (MEGATEC, (("driver", "usbhid-ups"), ("port", "auto")), True),
    "a UPS of an older driver": (MEGATEC, (("driver", "blazer_usb"), ("port", "auto")), False),
    "a UPS of another driver that the keys name": (MEGATEC, (("driver", "usbhid-ups"), ("vendorid", "0665")), False),
    "another make": (SMART, (("vendorid", "0764"),), True),
    "another serial": (SMART, (("vendorid", "051d"), ("serial", "AS2")), True),
    "a twin at another port": (TWIN, (*CPS, ("busport", "004")), True),
    "a twin on another bus": (TWIN, (*CPS, ("bus", "002")), True),
    "the UPS at its port": (TWIN, (*CPS, ("bus", "001"), ("busport", "001")), False),
    "a twin beside the UPS": (TWIN + TWIN.replace('busport="001"', 'busport="004"'), (*CPS, ("busport", "004")), False),
    "nut-scanner 2.8.0 prints no port": (SMART, (("vendorid", "051d"), ("busport", "004")), False),
    "text that nut-scanner can't read": (TWIN, (*CPS, ("serial", "G123E45678")), False),
    "text with a quote and a serial": (
        SCANNED.format('x",serial="AS2'),
        (("vendorid", "051d"), ("serial", "AS1")),
        False,
    ),
    "partial id": (SMART, (("vendorid", "051"),), True),
    "no regular expression": (SMART, (("vendorid", "051d("),), True),
    "POSIX has classes": (SMART, (("vendorid", "[[:xdigit:]]{4}"),), False),
    "POSIX has no flags": (SMART, (("vendorid", "(?i)051d"),), True),
    "POSIX has no \\d": (SMART, (("vendorid", r"\d51d"),), True),
    "nonsense from nut-scanner": ("USB:\nxx", (), True),
    "a quote in a text": (SCANNED.format('x",vendorid="0764",productid="0501'), (("vendorid", "0764"),), True),
    "a quote in a text can't hide a UPS": (SCANNED.format('x",vendorid="0764'), (("vendorid", "051d"),), False),
    "a backslash in a text": (SCANNED.format("x\\"), (("vendorid", "051d"),), False),
    "a newline in a text can't hide a UPS": (SCANNED.format("x\nUSB:"), (("vendorid", "051d"),), False),
}


@pytest.mark.parametrize(("scanned", "keys", "finds_none"), MEANT.values(), ids=MEANT.keys())
def test_nut_scanner_decides_if_driver_may_open_nothing(
    scanned: str, keys: tuple[tuple[str, str], ...], finds_none: bool
) -> None:
    """A driver also logs this on a bus without its UPS. nut-scanner runs as root and sees every UPS."""
    journal = BEGIN + "libusb1: Could not open any HID devices: insufficient permissions on everything\n" + FOUND_NONE

    def runner(command: Sequence[str]) -> tuple[int, str]:
        return (0, scanned) if command[0] == "nut-scanner" else (0, journal)

    assert absent.finds_no_ups(Section("ups", keys), runner) == finds_none


def test_failed_nut_scanner_counts_as_no_ups() -> None:
    journal = BEGIN + "libusb1: Could not open any HID devices: insufficient permissions on everything\n" + FOUND_NONE

    def runner(command: Sequence[str]) -> tuple[int, str]:
        return (127, "") if command[0] == "nut-scanner" else (0, journal)

    assert absent.finds_no_ups(Section("ups", ()), runner)
