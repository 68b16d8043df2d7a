# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Translate log lines of NUT's daemons and of our own programs into plain English.

The log lines are those of NUT 2.8.0 to 2.8.5 (clients/upsmon.c, server/*.c, drivers/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..base import systemd
from ..base.systemd import JournalEntry
from ..base.text import printable


@dataclass(frozen=True)
class _Pattern:
    """A log line and its meaning."""

    line: str  # a regular expression
    meaning: str  # {0} stands for the first group of the expression
    bad: bool = False  # whether it is a problem


_UPS = r"(?:UPS )?\[?([A-Za-z0-9_.-]+)(?:@[^\s\]]*)?\]?"
_PATTERNS = (
    _Pattern(rf"{_UPS} on battery$", "power failure: {0} is on battery"),
    _Pattern(rf"{_UPS} on line power$", "power is back: {0} is on mains"),
    _Pattern(rf"{_UPS} battery is low$", "battery of {0} is low"),
    _Pattern(rf"{_UPS}: forced shutdown in progress$", "shutdown of all machines on {0} began (FSD)"),
    _Pattern(r"Auto logout and shutdown proceeding", "this host is shutting down"),
    _Pattern(r"Executing automatic power-fail shutdown", "upsmon is starting the shutdown"),
    _Pattern(rf"Communications with {_UPS} lost$", "lost contact with {0}", bad=True),
    _Pattern(rf"Communications with {_UPS} established$", "contact with {0} restored"),
    _Pattern(rf"{_UPS} is unavailable$", "no contact with {0} for a long time", bad=True),
    _Pattern(rf"{_UPS} battery needs to be replaced$", "battery of {0} needs to be replaced", bad=True),
    _Pattern(rf"{_UPS}: calibration in progress$", "{0} is calibrating"),
    _Pattern(rf"{_UPS}: calibration finished$", "{0} finished calibrating"),
    _Pattern(r"upsmon parent process died - shutdown impossible", "upsmon's parent died, so it could not shut down", bad=True),
    _Pattern(rf"Login on {_UPS} failed - got \[(.*)\]", "upsd rejected upsmon's login to {0} ({1})", bad=True),
    _Pattern(rf"Poll {_UPS} failed - (.*)", "upsmon could not query {0}: {1}", bad=True),
    _Pattern(rf"{_UPS}: connect failed: (.*)", "upsmon could not reach the upsd of {0}: {1}", bad=True),
    _Pattern(rf"Data for {_UPS} is stale - check driver", "driver of {0} gets no data from it", bad=True),
    _Pattern(rf"{_UPS} data is no longer stale", "driver of {0} gets data again"),
    _Pattern(rf"Can't connect to {_UPS} \(.*\): (.*)", "upsd can't reach the driver of {0}: {1}", bad=True),
    _Pattern(rf"Connected to {_UPS}: ", "upsd connected to the driver of {0}"),
    _Pattern(r"User (\S+?)@(\S+) logged into UPS \[(\S+)\]", "{0} ({1}) logged in to {2}"),
    _Pattern(r"User (\S+?)@(\S+) logged out from UPS \[(\S+)\]", "{0} ({1}) logged out from {2}"),
    _Pattern(r"Client (\S+?)@(\S+) set FSD on UPS \[(\S+)\]", "{0} ({1}) started the shutdown of {2}"),
    _Pattern(r"not listening on (.*)", "upsd could not listen on {0}", bad=True),
    _Pattern(r"Can't bind TCP socket: (.*)", "upsd could not listen: {0}", bad=True),
    _Pattern(r"insufficient permissions on everything", "driver has no permission to use its USB device", bad=True),
    _Pattern(r"No matching (?:USB/)?HID UPS found|No matching USB device found|No supported devices found", "driver found no UPS", True),
    _Pattern(r"[Cc]an't claim USB device (.*)", "driver can't claim the USB device {0}", bad=True),
    _Pattern(r"Fatal error: (.*)", "driver rejects its section of ups.conf: {0}", bad=True),
    _Pattern(r"upsmon.conf line (\d+): invalid directive (.*)", "upsmon ignores line {0} of upsmon.conf", bad=True),
    _Pattern(r"Parse error: (\S+): line (\d+): (.*)", "{0}, line {1}: parse error: {2}", bad=True),
    _Pattern(r"Failed with result '(.*)'", "the unit failed ({0})", bad=True),
    _Pattern(r"^Started nut-monitor|^Started .*(?:power device monitor|upsmon)", "upsmon was started"),
    _Pattern(r"^Stopped .*(?:power device monitor|upsmon)", "upsmon was stopped"),
    _Pattern(r"^Started .*(?:power devices information server|upsd)", "upsd was started"),
    _Pattern(r"^Stopped .*(?:power devices information server|upsd)", "upsd was stopped"),
)  # fmt: skip
# Our own programs log in plain English already.
_OURS = (systemd.GATE, systemd.STAGES, systemd.WATCH, systemd.HOTPLUG)
_SYSTEMDS = re.compile(
    r"(?:Starting|Started|Stopping|Stopped|Reloading|Reloaded|Finished|Deactivated) "
    r"|.*: (?:Deactivated|Succeeded|Consumed|Main process|Failed with|Scheduled|Control process|Killing|Unit process|Found left-over)"
)


def is_from_systemd(line: str) -> bool:
    """Return whether a line in a unit's journal is systemd's own, about the unit."""
    return _SYSTEMDS.match(line) is not None


def explain_line(unit: str, line: str) -> tuple[str, bool] | None:
    """Return the meaning of a log line, and whether it is a problem. None if it is of no interest."""
    for pattern in _PATTERNS:
        match = re.search(pattern.line, line)
        if match:
            meaning = pattern.meaning.format(*(printable(group or "", 80) for group in match.groups()))
            if pattern.meaning.startswith(("the unit", "driver ")) and "driver of {0}" not in pattern.meaning:
                meaning += f" ({unit.removesuffix('.service')})"
            return meaning, pattern.bad
    if unit in _OURS and not is_from_systemd(line):
        return f"{unit.removesuffix('.service')}: {printable(line, 150)}", False
    return None


def list_events(journal: Iterable[JournalEntry], most: int) -> list[tuple[float, str]]:
    """Return the last MOST events of a journal as (seconds since 1970, meaning), newest last. Repeated events are merged."""
    events: list[tuple[float, str]] = []
    times = 1
    for entry in sorted(journal, key=lambda entry: entry.at):
        explained = explain_line(entry.unit, entry.words)
        if explained is None:
            continue
        last = re.sub(r" \([0-9]+ times\)$", "", events[-1][1]) if events else ""
        if explained[0] == last:
            times += 1
            events[-1] = entry.at, f"{last} ({times} times)"
        else:
            times = 1
            events.append((entry.at, explained[0]))
    return events[-most:]


def list_troubles(journal: Iterable[JournalEntry]) -> list[tuple[str, int, float]]:
    """Return the problems in a journal as (meaning, how often, last time), most recent first."""
    counted: dict[str, tuple[int, float]] = {}
    for entry in journal:
        explained = explain_line(entry.unit, entry.words)
        if explained and explained[1]:
            times, last = counted.get(explained[0], (0, 0.0))
            counted[explained[0]] = times + 1, max(last, entry.at)
    return sorted(
        ((meaning, times, last) for meaning, (times, last) in counted.items()), key=lambda trouble: -trouble[2]
    )
