# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell whether a driver is not running because its UPS is not plugged in, which is not a configuration error."""

from __future__ import annotations

import re

from ..base import systemd
from ..conf.ups_conf import Section
from . import bus, fingerprint

# What drivers of 2.8.0 to 2.8.5 log when their UPS is not on the bus, and what when it is there but in use or not permitted.
_NOTHING_THERE = re.compile(
    r"No matching (?:USB/HID|HID) UPS found|No matching USB device found|No supported devices found"
    r"|Unable to find (?:Richcomm|ATCL|POWERWARE)|Unable to open /dev/\S+: No such file"
)
_IN_THE_WAY = re.compile(r"[Cc]an't claim|Access denied|Permission denied")
# also logged if there is no UPS on the bus, or only others
_NOT_ALLOWED = "insufficient permissions on everything"
# how systemd logs the start of an attempt
_TRY = re.compile(r"^Starting .*$", re.MULTILINE)


def finds_no_ups(section: Section, runner: systemd.Run) -> bool:
    """Return whether a driver that is not running found no UPS, according to its latest log lines."""
    attempts = _TRY.split(systemd.last_log_lines(systemd.driver_unit(section.name), runner, lines=60))
    # latest first: the last attempt may only just have begun, and the first may be cut off
    for lines in reversed(attempts):
        if _IN_THE_WAY.search(lines):
            return False
        if _NOTHING_THERE.search(lines):
            # nut-scanner runs as root, so a UPS that it finds is one that the driver may not open
            return _NOT_ALLOWED not in lines or not _is_model_there(section, runner)
    return False


def _is_model_there(section: Section, runner: systemd.Run) -> bool:
    """Return whether nut-scanner finds a UPS of a section's model.

    Serial numbers are disregarded: nut-scanner prints texts of a device unescaped, and a device can send anything.
    """
    try:
        scanned = bus.ask_scanner(runner)
    except bus.ScannerError:
        return False
    return any(fingerprint.matches_model(section, *ids.split(":")) for ids in scanned)
