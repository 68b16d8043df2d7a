# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan as text: the verdict, the timeline and the whole table."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..base.table import format_grid
from . import model
from .constraints import is_setting, spell_fault
from .model import Constraint, Plan, PlannedGuest
from .remedies import spell_number
from .supplies import when_charged

TRIGGER_NOTE = (
    "the trigger: the moment at which the battery is low, or at which a stage starts FSD, the shutdown of all machines"
)
RUNS_NOTE = "Usual: each machine takes its shutdown_time. Worst case: each takes its shutdown_limit, and one secondary never logs out."
SLACK_NOTE = (
    "The plan holds if all of these hold in the worst case. Slack: seconds to spare before a condition fails. A setting in NUT's files, "
    "such as DEADTIME, needs none, and is never named as the tightest."
)

# key of Plan.needed -> (setting, what it is)
NEEDED_SETTINGS = {
    "hostsync": ("HOSTSYNC, at least", "the primary waits this long for secondaries to log out"),
    "finaldelay": ("FINALDELAY, at least", "pause before the gate begins to wait"),
    "deadtime": ("DEADTIME, at least", "a UPS counts as dead after this silence"),
    "pollfreq": ("POLLFREQ, at most", "upsmon polls upsd this often on mains"),
    "pollfreqalert": ("POLLFREQALERT, at most", "upsmon polls upsd this often on battery"),
    "maxage": ("MAXAGE, at least", "a reading counts as stale after this time"),
    "guests_time": ("nut_server_guests_time, at least", "for Proxmox VE to stop the guests that no stage stops"),
    "runtime_low": ("nut_server_runtime_low, at least", "battery time left when the battery counts as low"),
    "gate_timeout": ("nut_server_gate.timeout, at least", "the gate ends after this time in any case"),
    "reserve": ("nut_server_gate.reserve", "battery time that ends the gate once the usual times have passed"),
    "reserve_minimum": ("nut_server_gate.reserve_minimum", "battery time that ends the gate at any time"),
    "poweroff_wait": ("POWEROFF_WAIT, at least", "the primary reboots if the power was not cut by then"),
    "limits": ("nut_client_shutdown_limit, at least", "the gate gives up on a secondary after this time"),
    "guest_timeouts": ("timeout of each guest", "a guest is down after this time, by force if necessary"),
    "offdelay": ("offdelay, at least", "from the order until the UPS cuts the power"),
    "ondelay": ("ondelay, at least", "from the order until the UPS restores the power"),
}

_ENDS = {
    model.GOES_DOWN: "is down",
    model.WAITS_HOSTSYNC: "all secondaries have logged out, or HOSTSYNC is over",
    model.WAITS_FINALDELAY: "FINALDELAY is over; the gate waits until the secondaries are down",
    model.STOPS_GUESTS: "its guests are stopped",
    model.OWN_SHUTDOWN: "has shut down, and orders the UPS to cut the power",
    model.KILLPOWER: "is off",
}
_WIDTH = 88  # of the longest column
_FULL_WIDTH = _WIDTH + 30
# The verdict names this many failing constraints.
_MAX_NAMED = 6


def spell_verdict(plan: Plan) -> str:
    """Return in one line whether the plan holds, and what fails or is tightest."""
    failing = list_causes(plan)
    unknown = [constraint for constraint in plan.constraints if constraint.holds is None]
    if failing:
        faults = list(dict.fromkeys(map(spell_fault, failing)))
        lasts = ". The battery does last if every machine takes its usual time" if plan.feasible else ""
        return f"The plan does not hold: {_join_some(faults)}{lasts}"
    if unknown:
        titles = list(dict.fromkeys(map(spell_title, unknown)))
        return f"The plan can't be judged: too little is known about {_join_some(titles)}"
    for constraint in plan.constraints:
        if constraint.slack is not None and not is_setting(constraint):
            return f"The plan holds. The tightest condition is {spell_title(constraint)}, with {spell_number(constraint.slack)} s to spare"
    return "The plan holds"


def list_causes(plan: Plan) -> list[Constraint]:
    """Return the failing constraints; of several with the same remedy only the first, which is the gravest."""
    failing = [constraint for constraint in plan.constraints if constraint.holds is False]
    remedies = [constraint.remedy for constraint in failing]
    return [
        constraint
        for number, constraint in enumerate(failing)
        if not constraint.remedy or constraint.remedy not in remedies[:number]
    ]


def spell_problems(plan: Plan) -> list[str]:
    """Return what is wrong with a plan and what to do about it, as lines for somebody who must act; () if it does not fail."""
    causes = list_causes(plan)
    if not causes:
        return []
    remedies = [constraint.remedy for constraint in causes if constraint.remedy]
    return [
        f"{spell_verdict(plan)}.",
        *(f"To do: {remedy}" for remedy in remedies[:_MAX_NAMED]),
        f"All conditions and their sums: make plan limit={plan.primary.name}",
    ]


def spell_begin(plan: Plan) -> str:
    """Return in one line when the shutdown begins, and why then."""
    if plan.runtime_low is None:
        return f"The shutdown begins when the UPS reports a low battery ({plan.runtime_low_reason})."
    left = spell_number(plan.runtime_low)
    if plan.first_mark:
        return f"The shutdown begins when {plan.first_mark}. nut-stages wants {left} s ({plan.runtime_low_reason}), but sees that later."
    return f"The shutdown begins with {left} s of battery left ({plan.runtime_low_reason}), or earlier if the UPS reports a low battery."


def spell_recharge(plan: Plan) -> str:
    """Return in one line which charge is enough for another shutdown; "" if too little is known."""
    need = plan.runtime_low if plan.runtime_low is not None else plan.needed.get("runtime_low")
    charges = {
        supply.name: math.ceil(100 * need / full)
        for supply in plan.supplies
        if isinstance(need, (int, float)) and (full := when_charged(supply).runtime)
    }
    if not charges:
        return ""
    listed = ", ".join(f"{name} {charge} %" for name, charge in charges.items() if charge <= 100)
    what = f"a charge of {listed}" if listed else "more than the battery has when it is full"
    return f"Another shutdown right after an outage takes {what} (nut_server_return.charge)."


def _join_some(items: Sequence[str]) -> str:
    """Join the first items, and count the rest."""
    rest = len(items) - _MAX_NAMED
    return ", ".join(items if rest <= 1 else [*items[:_MAX_NAMED], f"and {rest} more"])


def spell_title(constraint: Constraint) -> str:
    """Return the name of a constraint, with its subject."""
    return f"{constraint.name} ({constraint.about})" if constraint.about else constraint.name


def list_moments(plan: Plan) -> list[tuple[float, float, str, str]]:
    """Return (usual time, worst-case time, machine or "", what happens), by usual time."""
    latest = {(event.machine, event.what): event for event in plan.worst}
    moments = []
    for event in plan.events:
        last = latest[event.machine, event.what]
        if event.what == model.POWEROFF:
            moments.append((event.at, last.at, plan.primary.name, "begins to power off"))
        elif event.what in {model.TRIGGER, model.FSD, model.CUT, model.EMPTY}:
            moments.append((event.at, last.at, event.machine, event.what))
        elif event.what == model.WAITS_TO_BEGIN and event.machine != plan.primary.name:
            moments.append((event.until, last.until, event.machine, "begins to go down"))
        elif event.what in _ENDS:
            moments.append((event.until, last.until, event.machine, _ENDS[event.what]))
    return sorted(moments, key=lambda moment: moment[0])


def list_needed(plan: Plan) -> list[tuple[str, str, str]]:
    """Return the settings that a plan needs: each with the value and what it is. A host without guests needs no time for them."""
    return [
        (setting, spell_needs(plan.needed[key]), meaning)
        for key, (setting, meaning) in NEEDED_SETTINGS.items()
        if plan.needed.get(key, {}) != {} and not (key == "guests_time" and not plan.needed[key])
    ]


def draw_table(plan: Plan) -> str:
    """Return a plan as text of fixed width: verdict, timeline, conditions, guests, and the settings that it needs."""
    moments = [(f"{at:+.1f}", f"{last:+.1f}", machine, what) for at, last, machine, what in list_moments(plan)]
    sections = [
        [
            line
            for text in (spell_verdict(plan), spell_begin(plan), spell_recharge(plan))
            for line in textwrap.wrap(text, _FULL_WIDTH)
        ],
        [
            *textwrap.wrap(f"Timeline, in seconds from {TRIGGER_NOTE}.", _FULL_WIDTH),
            *textwrap.wrap(RUNS_NOTE, _FULL_WIDTH),
            *format_grid((("usual", "worst case", "", ""), *moments), "rrll"),
        ],
        [
            *textwrap.wrap(SLACK_NOTE, _FULL_WIDTH),
            *format_grid((("", "slack", "condition", "why"), *_constraint_rows(plan)), "lrll"),
        ],
    ]
    if plan.guests:
        sections.append(format_grid((("guest", "stopped by", "s", "why"), *_guest_rows(plan)), "llrl"))
    sections.append(format_grid((("setting that the plan needs", "s", ""), *list_needed(plan))))
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _constraint_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    marks: dict[bool | None, str] = {True: "ok", False: "NO", None: "?"}
    for constraint in plan.constraints:
        slack = "" if constraint.slack is None else f"{constraint.slack:+.1f}".removesuffix(".0")
        remedy = f"-> {constraint.remedy}" if constraint.remedy else ""
        lines = [*textwrap.wrap(constraint.reason, _WIDTH), *textwrap.wrap(remedy, _WIDTH)]
        yield from _indent_rows((marks[constraint.holds], slack, spell_title(constraint)), lines)


def _guest_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    for guest in plan.guests:
        lines = textwrap.wrap(spell_reason(guest), _WIDTH - 20) or [""]
        yield from _indent_rows((guest.machine, spell_stopper(plan, guest), spell_number(guest.seconds)), lines)


def _indent_rows(start: tuple[str, ...], lines: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield one row for each line, with START before the first line only."""
    for line in lines:
        yield (*start, line)
        start = ("",) * len(start)


def spell_stopper(plan: Plan, guest: PlannedGuest) -> str:
    """Return what stops a guest."""
    if guest.stage:
        return f"stage {guest.stage}"
    return "HA" if guest.ha else plan.primary.name


def spell_reason(guest: PlannedGuest) -> str:
    """Return why a guest is stopped at its time; "" if there is no special reason."""
    if guest.why or not guest.needs:
        return guest.why
    return f"it uses the storage of {', '.join(guest.needs)}"


def spell_needs(value: Any) -> str:
    """Return a needed value as text: a number, or name and number for each machine or UPS."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {spell_number(number)}" for name, number in value.items())
    return spell_number(value)
