# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What NUT's daemons and our own programs say in the journal, in plain words.

The texts of NUT's daemons are those of 2.8.0 to 2.8.5 (clients/upsmon.c, server/*.c, drivers/).
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
    """How a daemon says something, and what it means."""

    said: re.Pattern[str]
    words: str  # {0} is what the first group of the pattern found
    bad: bool = False  # it is a trouble


def _p(said: str, words: str, bad: bool = False) -> _Pattern:
    return _Pattern(re.compile(said), words, bad)


_UPS = r"(?:UPS )?\[?([A-Za-z0-9_.-]+)(?:@[^\s\]]*)?\]?"
_PATTERNS = (
    _p(rf"{_UPS} on battery$", "mains failed: {0} is on battery"),
    _p(rf"{_UPS} on line power$", "mains are back: {0}"),
    _p(rf"{_UPS} battery is low$", "battery of {0} is low"),
    _p(rf"{_UPS}: forced shutdown in progress$", "shutdown of all on {0} has begun (FSD)"),
    _p(r"Auto logout and shutdown proceeding", "this host's shutdown begins"),
    _p(r"Executing automatic power-fail shutdown", "upsmon begins the shutdown"),
    _p(rf"Communications with {_UPS} lost$", "contact with {0} lost", bad=True),
    _p(rf"Communications with {_UPS} established$", "contact with {0} is there again"),
    _p(rf"{_UPS} is unavailable$", "{0} has been without contact for long", bad=True),
    _p(rf"{_UPS} battery needs to be replaced$", "battery of {0} wants to be replaced", bad=True),
    _p(rf"{_UPS}: calibration in progress$", "{0} calibrates"),
    _p(rf"{_UPS}: calibration finished$", "{0} has calibrated"),
    _p(r"upsmon parent process died - shutdown impossible", "upsmon's parent died: it could not shut down", bad=True),
    _p(rf"Login on {_UPS} failed - got \[(.*)\]", "upsd refused upsmon's login to {0} ({1})", bad=True),
    _p(rf"Poll {_UPS} failed - (.*)", "upsmon could not ask for {0}: {1}", bad=True),
    _p(rf"{_UPS}: connect failed: (.*)", "upsmon could not reach upsd of {0}: {1}", bad=True),
    _p(rf"Data for {_UPS} is stale - check driver", "driver of {0} hears nothing from it", bad=True),
    _p(rf"{_UPS} data is no longer stale", "driver of {0} hears from it again"),
    _p(rf"Can't connect to {_UPS} \(.*\): (.*)", "upsd can't reach the driver of {0}: {1}", bad=True),
    _p(rf"Connected to {_UPS}: ", "upsd has found the driver of {0}"),
    _p(r"User (\S+?)@(\S+) logged into UPS \[(\S+)\]", "{0} ({1}) logged in to {2}"),
    _p(r"User (\S+?)@(\S+) logged out from UPS \[(\S+)\]", "{0} ({1}) logged out from {2}"),
    _p(r"Client (\S+?)@(\S+) set FSD on UPS \[(\S+)\]", "{0} ({1}) began the shutdown of {2}"),
    _p(r"not listening on (.*)", "upsd could not listen on {0}", bad=True),
    _p(r"Can't bind TCP socket: (.*)", "upsd could not listen: {0}", bad=True),
    _p(r"insufficient permissions on everything", "driver may not use its USB device", bad=True),
    _p(r"No matching (?:USB/)?HID UPS found|No matching USB device found|No supported devices found", "driver found no UPS", bad=True),
    _p(r"[Cc]an't claim USB device (.*)", "driver can't have the USB device {0}", bad=True),
    _p(r"Fatal error: (.*)", "driver refuses its section of ups.conf: {0}", bad=True),
    _p(r"upsmon.conf line (\d+): invalid directive (.*)", "upsmon ignores line {0} of upsmon.conf", bad=True),
    _p(r"Parse error: (\S+): line (\d+): (.*)", "{0}, line {1} can't be read: {2}", bad=True),
    _p(r"Failed with result '(.*)'", "the unit failed ({0})", bad=True),
    _p(r"^Started nut-monitor|^Started .*(?:power device monitor|upsmon)", "upsmon was started"),
    _p(r"^Stopped .*(?:power device monitor|upsmon)", "upsmon was stopped"),
    _p(r"^Started .*(?:power devices information server|upsd)", "upsd was started"),
    _p(r"^Stopped .*(?:power devices information server|upsd)", "upsd was stopped"),
)  # fmt: skip
# what our own programs say is in plain words already
_OURS = (systemd.GATE, systemd.STAGES, systemd.WATCH, systemd.HOTPLUG)
_SYSTEMDS = re.compile(
    r"(?:Starting|Started|Stopping|Stopped|Reloading|Reloaded|Finished|Deactivated) "
    r"|.*: (?:Deactivated|Succeeded|Consumed|Main process|Failed with|Scheduled|Control process|Killing|Unit process|Found left-over)"
)


def is_from_systemd(words: str) -> bool:
    """Return whether a line of a unit's journal is systemd's, about it."""
    return _SYSTEMDS.match(words) is not None


def explain_line(unit: str, words: str) -> tuple[str, bool] | None:
    """Return in plain words what a line of the journal means, and whether it is a trouble. None if it says nothing to people."""
    for pattern in _PATTERNS:
        found = pattern.said.search(words)
        if found:
            who = f" ({unit.removesuffix('.service')})" if pattern.words.startswith(("the unit", "driver ")) else ""
            told = pattern.words.format(*(printable(group or "", 80) for group in found.groups()))
            return told + ("" if "driver of {0}" in pattern.words else who), pattern.bad
    if unit in _OURS and not is_from_systemd(words):
        return f"{unit.removesuffix('.service')}: {printable(words, 150)}", False
    return None


def list_events(journal: Iterable[JournalEntry], most: int) -> list[tuple[float, str]]:
    """Return the last events of a journal: when, and what in words; the newest last. Equal ones in a row are one."""
    found: list[tuple[float, str]] = []
    times = 1
    for entry in sorted(journal, key=lambda entry: entry.at):
        told = explain_line(entry.unit, entry.words)
        if told is None:
            continue
        plain = re.sub(r" \([0-9]+ times\)$", "", found[-1][1]) if found else ""
        if told[0] == plain:
            times += 1
            found[-1] = entry.at, f"{plain} ({times} times)"
        else:
            times = 1
            found.append((entry.at, told[0]))
    return found[-most:]


def list_troubles(journal: Iterable[JournalEntry]) -> list[tuple[str, int, float]]:
    """Return what went wrong: in words, how often, and when last; what was last comes first."""
    found: dict[str, tuple[int, float]] = {}
    for entry in journal:
        told = explain_line(entry.unit, entry.words)
        if told and told[1]:
            times, last = found.get(told[0], (0, 0.0))
            found[told[0]] = times + 1, max(last, entry.at)
    return sorted(((words, times, last) for words, (times, last) in found.items()), key=lambda trouble: -trouble[2])
