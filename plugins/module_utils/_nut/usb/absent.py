# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a driver that does not run finds no UPS: one that is not plugged in is no fault of the configuration."""

from __future__ import annotations

import re

from ..base import systemd
from ..conf.ups_conf import Section
from . import bus, fingerprint

# What drivers say when their UPS is not on the bus, in 2.8.0 to 2.8.5, and what they say besides when it is
# there and they may not have it.
_NOTHING_THERE = re.compile(
    r"No matching (?:USB/HID|HID) UPS found|No matching USB device found|No supported devices found"
    r"|Unable to find (?:Richcomm|ATCL|POWERWARE)|Unable to open /dev/\S+: No such file"
)
_IN_THE_WAY = re.compile(r"[Cc]an't claim|Access denied|Permission denied")
# said of a bus without any UPS, or with none but others, too
_NOT_ALLOWED = "insufficient permissions on everything"
# how systemd begins its record of one more try
_TRY = re.compile(r"^Starting .*$", re.MULTILINE)


def finds_no_ups(section: Section, runner: systemd.Run) -> bool:
    """Return whether the driver of a UPS, which does not run, finds no UPS to drive, by what it said last."""
    tries = _TRY.split(systemd.last_log_lines(systemd.driver_unit(section.name), runner, lines=60))
    # the last try may just have begun; what stands before the first is the end of one that is cut off
    for said in reversed(tries):
        if _IN_THE_WAY.search(said):
            return False
        if _NOTHING_THERE.search(said):
            # root may open everything: what it finds now, the driver could not have
            return _NOT_ALLOWED not in said or not _is_model_there(section, runner)
    return False


def _is_model_there(section: Section, runner: systemd.Run) -> bool:
    """Return whether nut-scanner finds a UPS of the model that a section means.

    Serial numbers do not count: nut-scanner prints a device's texts as they are, and a device can put anything there.
    """
    try:
        found = bus.ask_scanner(runner)
    except bus.ScannerError:
        return False
    return any(fingerprint.matches_model(section, *ids.split(":")) for ids in found)
