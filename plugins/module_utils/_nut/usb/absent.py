# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell whether a driver is not running because its UPS is not plugged in, which is not a configuration error."""

from __future__ import annotations

import re

from ..base import systemd
from ..conf.ups_conf import Section
from . import bus, fingerprint
from .sections import get_value

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


# a line of `nut-scanner -P`; a device's text with a quote or a newline in it makes a line of another form, or an option twice
_WHOLE_LINE = re.compile(r'USB:[^,="]+="[^"]*"(?:,[^,="]+="[^"]*")*')
_OPTION = re.compile(r'([^,="]+)="([^"]*)"')


def finds_no_ups(section: Section, runner: systemd.Run) -> bool:
    """Return whether a driver that is not running found no UPS, according to its latest log lines."""
    attempts = _TRY.split(systemd.last_log_lines(systemd.driver_unit(section.name), runner, lines=60))
    # latest first: the last attempt may only just have begun, and the first may be cut off
    for lines in reversed(attempts):
        if _IN_THE_WAY.search(lines):
            return False
        if _NOTHING_THERE.search(lines):
            # nut-scanner runs as root, so a UPS that it finds is one that the driver may not open
            return _NOT_ALLOWED not in lines or not _is_there(section, runner)
    return False


def _is_there(section: Section, runner: systemd.Run) -> bool:
    """Return whether nut-scanner finds a UPS that all keys of a section match: a twin of an absent UPS is another UPS."""
    try:
        lines = bus.list_scanned_lines(runner)
    except bus.ScannerError:
        return False
    return any(_may_match(section, line) for line in lines)


def _may_match(section: Section, line: str) -> bool:
    """Return whether the keys of a section match a UPS as nut-scanner prints it.

    It leaves out what it can't read, and its older releases leave out the port: that rules nothing out. It prints the texts of a
    device unescaped, so of a line that they may have broken only the ids count, which come first.
    """
    scanned = bus.read_scanned_ids(line)
    if scanned is None:
        return False
    driver, *ids = scanned
    own_driver = get_value(section, "driver")
    if not fingerprint.identifying_pairs(section.keys) and not bus.takes_ids(own_driver, ":".join(ids), driver):
        return False
    options = _OPTION.findall(line.removeprefix("USB:"))
    known = {key: text.strip(fingerprint.BLANKS) for key, text in options}
    if not _WHOLE_LINE.fullmatch(line) or len(known) < len(options):
        known = {"vendorid": ids[0], "productid": ids[1]}
    return fingerprint.matches_known(section, known)
