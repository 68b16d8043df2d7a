# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AT lines of upssched.conf that never do anything, and timers that nothing stops, or not completely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from ..base.spelling import list_words
from .files import NutFiles

Problem = tuple[str, str]
"""What is wrong, and what to do."""

Check = Callable[[NutFiles], "Iterator[Problem]"]

ALL = "*"
_START, _SHARED, _CANCEL = "START-TIMER", "START-TIMER-SHARED", "CANCEL-TIMER"
# the event that ends what one of these begins
_ENDS = {
    "ONBATT": "ONLINE",
    "LOWBATT": "ONLINE",
    "COMMBAD": "COMMOK",
    "NOCOMM": "COMMOK",
    "BYPASS": "NOTBYPASS",
    "OFF": "NOTOFF",
    "CAL": "NOTCAL",
    "OVER": "NOTOVER",
    "ECO": "NOTECO",
    "ALARM": "NOTALARM",
}


@dataclass(frozen=True)
class _Rule:
    """An AT line."""

    event: str
    ups: str  # as in a MONITOR line, or ALL
    command: str
    name: str

    @property
    def starts(self) -> bool:
        """Whether it starts a timer."""
        return self.command in (_START, _SHARED)

    @property
    def cancels(self) -> bool:
        """Whether it cancels a timer."""
        return self.command.startswith(_CANCEL)


def _read_rules(files: NutFiles) -> list[_Rule]:
    lines = [line for line in files.statements("upssched.conf") if line.words[0] == "AT" and len(line.values) > 3]
    return [_Rule(line.values[0].upper(), line.values[1], line.values[2], line.values[3]) for line in lines]


def _check_events(files: NutFiles) -> Iterator[Problem]:
    rules = _read_rules(files)
    if not rules or "upsmon.conf" not in files:
        return
    command = files.directive("upsmon.conf", "NOTIFYCMD") or ""
    if "upssched" not in command:
        runs = f"NOTIFYCMD is {command}" if command else "there is no NOTIFYCMD"
        yield (
            f"upssched.conf: no AT line is ever used, because {runs}",
            f"Set NOTIFYCMD to /sbin/upssched in upsmon.conf{', unless that program calls upssched' if command else ''}",
        )
        return
    executed = {event for event, flags in files.notify_flags.items() if "EXEC" in flags}
    silent = list(dict.fromkeys(rule.event for rule in rules if rule.event not in executed))
    if silent:
        yield (
            f"upssched.conf: AT {list_words(silent)} is never used, because its NOTIFYFLAG in upsmon.conf has no EXEC",
            "Add EXEC to it",
        )


def _check_systems(files: NutFiles) -> Iterator[Problem]:
    """Find AT lines for a UPS that upsmon does not call by that name: upssched compares it letter by letter."""
    systems = [monitor.system for monitor in files.monitors]
    unknown = dict.fromkeys(rule.ups for rule in _read_rules(files) if rule.ups not in (ALL, *systems))
    if systems and unknown:
        yield (
            f"upssched.conf: AT lines for {list_words(unknown)} are never used: upssched compares the name, letter by letter, with the "
            f"MONITOR lines, which have {list_words(systems)}",
            "Write it as there, or use * for all UPSes",
        )


def _check_timers(files: NutFiles) -> Iterator[Problem]:
    """Compare the names of timers: what starts must be cancelled, and what is cancelled must have started."""
    rules = _read_rules(files)
    started = list(dict.fromkeys(rule.name for rule in rules if rule.starts))
    for name in dict.fromkeys(rule.name for rule in rules if rule.cancels):
        if name not in started:
            others = f"; the timers are {list_words(sorted(started))}" if started else ""
            words = f"upssched.conf: CANCEL-TIMER {name} names a timer that no START-TIMER starts{others}"
            yield words, "Correct the name"
    named = [rule.ups for rule in rules if rule.ups != ALL]
    systems = [monitor.system for monitor in files.monitors] or named or [ALL]
    problems = {
        problem: None
        for ups in dict.fromkeys(systems)
        for problem in _check_timers_of([rule for rule in rules if rule.ups in (ALL, ups)], ups)
    }
    yield from problems


def _check_timers_of(rules: list[_Rule], ups: str) -> Iterator[Problem]:
    """Compare the START-TIMER and CANCEL-TIMER lines that apply to one UPS."""
    for name in dict.fromkeys(rule.name for rule in rules if rule.starts):
        starts = [rule for rule in rules if rule.starts and rule.name == name]
        cancels = Counter(rule.event for rule in rules if rule.cancels and rule.name == name)
        for end in dict.fromkeys(_ENDS[rule.event] for rule in starts if rule.event in _ENDS):
            begins = [rule for rule in starts if _ENDS.get(rule.event) == end]
            events = list(dict.fromkeys(rule.event for rule in begins))
            where = ALL if all(rule.ups == ALL for rule in begins) else ups
            remedy = f"Add AT {end} {where} CANCEL-TIMER {name}"
            if not cancels[end]:
                yield (
                    f"upssched.conf: timer {name} starts at {list_words(events)}, and no CANCEL-TIMER {name} at {end} stops it, so it runs "
                    f"out even if {list_words(events, 'or')} lasted a second",
                    remedy,
                )
                continue
            # upssched starts a second timer of the same name, and cancels the first that it finds
            running = [rule for rule in begins if rule.command == _START]
            if len(running) > cancels[end] + sum(cancels[event] for event in events):
                yield (
                    f"upssched.conf: timer {name} starts {len(running)} times in one outage ({list_words(events)}), and CANCEL-TIMER at "
                    f"{end} stops only {'one' if cancels[end] == 1 else cancels[end]} of them, so another runs out after it",
                    f"Give each a name of its own, or put AT {running[-1].event} {where} CANCEL-TIMER {name} before the second START-TIMER",
                )


RULE_CHECKS: tuple[Check, ...] = (_check_events, _check_systems, _check_timers)
