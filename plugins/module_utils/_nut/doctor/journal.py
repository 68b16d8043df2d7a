# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Translate log lines of NUT's daemons and of our own programs into plain English.

The log lines are those of NUT 2.8.0 to 2.8.5 (clients/upsmon.c, server/*.c, drivers/).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from ..base import systemd
from ..base.systemd import JournalEntry
from ..base.text import printable
from ..deploy.past import NEVER, Deployment


@dataclass(frozen=True)
class _Pattern:
    """A log line and its meaning."""

    line: str  # a regular expression
    meaning: str  # {0} stands for the first group of the expression
    bad: bool = False  # whether it is a problem


_UPS = r"(?:UPS )?\[?([A-Za-z0-9_.-]+)(?:@(?:\[[^\s\]]*\]|[^\s\]\[:]*)(?::[0-9]+)?)?\]?"
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
    _Pattern(r"insufficient permissions on everything", "driver could open no UPS: it is unplugged, or NUT may not use it", bad=True),
    _Pattern(r"No matching (?:USB/)?HID UPS found|No matching USB device found|No supported devices found", "driver found no UPS", True),
    _Pattern(r"[Cc]an't claim USB device (.*)", "driver can't claim the USB device {0}", bad=True),
    _Pattern(r"usb_\w+: (No such device|Input/[Oo]utput error|Entity not found)", "driver can't read its USB device: {0}", bad=True),
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


def list_events(
    journal: Iterable[JournalEntry],
    most: int,
    *,
    deployment: Deployment = NEVER,
    hidden: tuple[float, float] = (0.0, 0.0),
) -> list[tuple[float, str]]:
    """Return the last MOST events of a journal as (seconds since 1970, meaning), newest last.

    Repeated events are merged, logins in a row are folded, and what happened during the last deployment is a single event.
    hidden: a time whose events are shown elsewhere.
    """
    events: list[tuple[float, str, int]] = []
    logins: dict[str, bool] = {}  # machine -> whether it logged in, of the last events if all of them are logins
    begin = 0  # problems that recur in turn are merged back to here: to the last event that is none
    for entry in sorted(journal, key=lambda entry: entry.at):
        explained = explain_line(entry.unit, entry.words)
        if explained is None or hidden[0] <= entry.at < hidden[1]:
            continue
        meaning, bad = explained
        if deployment.covers(entry.at):
            meaning, bad = "NUT was deployed", False
        login = _LOGIN.fullmatch(meaning)
        if login:
            if logins:
                events.pop()
            logins[login[1]] = login[2] == "in"
            meaning = _fold_logins(logins)
        else:
            logins = {}
        if not bad:
            begin = max(len(events) - 1, 0)
        times = 1
        for index in range(begin, len(events)):
            if events[index][1] == meaning:
                times += events.pop(index)[2]
                break
        events.append((entry.at, meaning, times))
        if not bad:
            begin = len(events)
    return [
        (at, meaning if times == 1 or meaning == "NUT was deployed" else f"{meaning} ({times} times)")
        for at, meaning, times in events[-most:]
    ]


_LOGIN = re.compile(r"(\S+ \(.*\)) logged (in|out) (?:to|from) .*")


def _fold_logins(logins: Mapping[str, bool]) -> str:
    """Return in words who logged in and out in the end."""
    came = ", ".join(machine for machine, is_in in logins.items() if is_in)
    left = ", ".join(machine for machine, is_in in logins.items() if not is_in)
    return "; ".join([*([f"logged in: {came}"] if came else []), *([f"logged out: {left}"] if left else [])])


# Problems

BRIEF = 60.0
"""Seconds: a contact that is back this soon was only interrupted, for example by a restart of the primary's upsd."""

OFTEN = 3
"""So many brief interruptions are a problem."""

BOOT = 600.0
"""Seconds after the start of upsmon within which the primary may still be booting."""

# what is a problem until it is over -> the meaning of the line that says so
_RECOVERIES = (
    (re.compile(r"(?:lost contact with|upsmon could not query|upsmon could not reach the upsd of) ([^ :]+).*"), "contact with {} restored"),
    (re.compile(r"driver of (\S+) gets no data from it"), "driver of {} gets data again"),
    (re.compile(r"upsd can't reach the driver of ([^ :]+): .*"), "upsd connected to the driver of {}"),
)  # fmt: skip
_ENDS = ("this host is shutting down", "upsmon is starting the shutdown", "shutdown of all machines on ")


def list_troubles(journal: Iterable[JournalEntry], deployment: Deployment = NEVER) -> list[tuple[str, int, float]]:
    """Return the problems in a journal as (meaning, how often, last time), most recent first.

    No problems are: what happened until the last deployment was over, because that restarted everything; what belongs to a shutdown; and
    an interruption that was brief, unless it recurs often.
    """
    found: list[tuple[float, str]] = []
    pending: dict[str, list[tuple[float, str]]] = {}  # meaning of the recovery -> problems that it will end
    brief: dict[str, list[list[tuple[float, str]]]] = {}
    started, is_ending = -math.inf, False
    for entry in sorted(journal, key=lambda entry: entry.at):
        meaning, bad = explain_line(entry.unit, entry.words) or ("", False)
        if meaning.startswith(_ENDS):
            is_ending = True
        elif meaning == "upsmon was started":
            started, is_ending = entry.at, False
        if not bad:
            problems = pending.pop(meaning, [])
            was_booting = problems and problems[0][0] >= started and entry.at - started < BOOT
            if problems and (entry.at - problems[0][0] <= BRIEF or was_booting):
                brief.setdefault(meaning, []).append(problems)
            else:
                found += problems
        elif not is_ending and not deployment.is_after(entry.at):
            recovery = next((match for match in map(partial(_name_recovery, meaning), _RECOVERIES) if match), "")
            (pending.setdefault(recovery, []) if recovery else found).append((entry.at, meaning))
    for problems in pending.values():
        found += problems
    for interruptions in brief.values():
        if len(interruptions) >= OFTEN:
            found += [problem for problems in interruptions for problem in problems]
    counted: dict[str, tuple[int, float]] = {}
    for at, meaning in found:
        times, last = counted.get(meaning, (0, 0.0))
        counted[meaning] = times + 1, max(last, at)
    return sorted(
        ((meaning, times, last) for meaning, (times, last) in counted.items()), key=lambda trouble: -trouble[2]
    )


def _name_recovery(meaning: str, pair: tuple[re.Pattern[str], str]) -> str:
    """Return the meaning of the line that ends a problem; "" if PAIR is about other problems."""
    match = pair[0].fullmatch(meaning)
    return pair[1].format(match[1]) if match else ""
