# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan in words: the verdict, what happens when, and all of it as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..base.table import format_grid
from . import model
from .constraints import is_setting
from .model import Constraint, Plan, PlannedGuest
from .remedies import spell_number

_ENDS = {
    model.GOES: "is down",
    model.SYNCS: "the others have begun, or HOSTSYNC is over",
    model.FLOOR: "FINALDELAY is over: the gate waits until they are down",
    model.GUESTS: "its guests are stopped",
    model.ITSELF: "is down itself, and tells the UPS to cut",
    model.KILLS: "is off",
}
_WIDTH = 88
# of many that fail, so many are named in the verdict
_NAMED = 6


def spell_verdict(plan: Plan) -> str:
    """Return in a line whether the plan holds, and what is tight."""
    failing = [constraint for constraint in plan.constraints if constraint.holds is False]
    unknown = [constraint for constraint in plan.constraints if constraint.holds is None]
    if failing:
        lacks = [
            spell_title(constraint)
            + (f" lacks {spell_number(-constraint.slack)} s" if constraint.slack is not None else "")
            for constraint in failing
        ]
        lasts = ". If all goes as expected, the battery lasts" if plan.feasible else ""
        return f"The plan does not hold: {_join_some(lacks)}{lasts}"
    if unknown:
        return f"The plan can't be judged: too little is known about {_join_some(list(dict.fromkeys(map(spell_title, unknown))))}"
    for constraint in plan.constraints:
        if constraint.slack is not None and not is_setting(constraint):
            return f"The plan holds. Tightest is {spell_title(constraint)}, with {spell_number(constraint.slack)} s to spare"
    return "The plan holds"


def _join_some(words: Sequence[str]) -> str:
    """List words, but not too many: the rest stands below."""
    more = len(words) - _NAMED
    return ", ".join(words if more <= 1 else [*words[:_NAMED], f"and {more} more"])


def spell_title(constraint: Constraint) -> str:
    """Name a constraint, with what it is about."""
    return f"{constraint.name} ({constraint.about})" if constraint.about else constraint.name


def list_moments(plan: Plan) -> list[tuple[float, float, str, str]]:
    """List what happens, by its expected time: that, the time at the limits, who ("" for all), what in words."""
    latest = {(event.machine, event.what): event for event in plan.worst}
    found = []
    for event in plan.events:
        last = latest[event.machine, event.what]
        if event.what in {model.TRIGGER, model.FSD, model.POWEROFF, model.CUT, model.EMPTY}:
            found.append((event.at, last.at, event.machine, event.what))
        elif event.what == model.WAITS and event.machine != plan.primary.name:
            found.append((event.until, last.until, event.machine, "begins to go down"))
        elif event.what in _ENDS:
            found.append((event.until, last.until, event.machine, _ENDS[event.what]))
    return sorted(found, key=lambda row: row[0])


def draw_table(plan: Plan) -> str:
    """Return a plan as text of fixed width: the verdict, the two runs, what must be so, and what is needed."""
    times = [(f"{at:+.1f}", f"{last:+.1f}", who, what) for at, last, who, what in list_moments(plan)]
    lines = [*textwrap.wrap(spell_verdict(plan), _WIDTH + 30), ""]
    lines += [*format_grid((("expected", "at most", "", "s from the trigger on"), *times), "rrll"), ""]
    lines += [*format_grid((("", "slack", "", "what must be so"), *_constraint_rows(plan)), "lrll"), ""]
    if plan.guests:
        lines += [*format_grid((("guest", "stopped by", "s", "why"), *_guest_rows(plan)), "llrl"), ""]
    needs = [(name, spell_needs(value)) for name, value in plan.needed.items() if value != {}]
    return "\n".join([*lines, *format_grid((("needed", ""), *needs))]) + "\n"


def _constraint_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    marks: dict[bool | None, str] = {True: "ok", False: "NO", None: "?"}
    for constraint in plan.constraints:
        slack = "" if constraint.slack is None else f"{constraint.slack:+.1f}".removesuffix(".0")
        remedy = f"-> {constraint.remedy}" if constraint.remedy else ""
        lines = [*textwrap.wrap(constraint.words, _WIDTH), *textwrap.wrap(remedy, _WIDTH)]
        yield from _indent_rows((marks[constraint.holds], slack, spell_title(constraint)), lines)


def _guest_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    for guest in plan.guests:
        lines = textwrap.wrap(spell_reason(guest), _WIDTH - 20) or [""]
        yield from _indent_rows((guest.machine, spell_stopper(plan, guest), spell_number(guest.seconds)), lines)


def _indent_rows(start: tuple[str, ...], lines: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield rows with START before the first line only."""
    for line in lines:
        yield (*start, line)
        start = ("",) * len(start)


def spell_stopper(plan: Plan, guest: PlannedGuest) -> str:
    """Return who stops a guest."""
    if guest.stage:
        return f"stage {guest.stage}"
    return "HA" if guest.ha else plan.primary.name


def spell_reason(guest: PlannedGuest) -> str:
    """Return why a guest is stopped when it is."""
    if guest.why or not guest.needs:
        return guest.why
    return f"it uses the storage of {', '.join(guest.needs)}"


def spell_needs(value: Any) -> str:
    """Write what is needed: a number, or one by name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {spell_number(number)}" for name, number in value.items())
    return spell_number(value)
