# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must be so for a plan to hold. Each rule stands in one place: its name, its weight, the arithmetic, the words, the remedy.

A rule is a function that yields a constraint if there is anything to judge. To add one, write it: it is judged, told and drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable

from ..conf.upsd import IDLE_SECONDS
from . import remedies
from .model import GUEST, PRIMARY, SECONDARY, Constraint, PlanMachine, StagePlan, Supply
from .needed import (
    LOOKS,
    REBOOT_MARGIN,
    polls_of,
    sum_terms,
    terms_as_expected,
    terms_at_limits,
    waits_as_expected,
    waits_at_limits,
)
from .remedies import set_directive, set_variable, spell_number, spell_sum
from .supplies import is_cyberpower, low_marks, notice_time, real_delays, when_charged
from .timeline import PlanInputs, compute_milestones, stage_room, stage_trigger_points

Needed = Mapping[str, Any]
Judge = Callable[..., Iterator[Constraint]]


@dataclass(frozen=True)
class ConstraintRule:
    """A kind of constraint."""

    judge: Judge  # takes Inputs, what is needed, and one of what it is judged of
    of: str  # what it is judged of: each of the "supplies" or "stages", or "" for all at once
    is_vital: bool  # without it the plan is not feasible: it can't work even if all goes as expected
    is_setting: bool  # it does not depend on how long anything takes, so that little to spare means little


RULES: dict[str, ConstraintRule] = {}


def constraint_rule(name: str, of: str = "", *, vital: bool = False, setting: bool = False) -> Callable[[Judge], Judge]:
    """Make a function the rule of this name."""

    def keep(judge: Judge) -> Judge:
        RULES[name] = ConstraintRule(judge, of, vital, setting)
        return judge

    return keep


def check_constraints(given: PlanInputs, needed: Needed) -> list[Constraint]:
    """Return all that must be so: what fails first, then what can't be told, then the tightest."""
    found: list[Constraint] = []
    for name, each in RULES.items():
        for subject in getattr(given, each.of) if each.of else (None,):
            about, more = ("", ()) if subject is None else (subject.name, (subject,))
            found += [
                replace(constraint, name=name, about=about or constraint.about)
                for constraint in each.judge(given, needed, *more)
            ]
    return sorted([*found, *given.proxmox.remarks], key=_sort_key)


def is_vital(constraint: Constraint) -> bool:
    """Return whether the plan is not feasible without this."""
    return constraint.name in RULES and RULES[constraint.name].is_vital


def is_setting(constraint: Constraint) -> bool:
    """Return whether this does not depend on how long anything takes."""
    return constraint.name in RULES and RULES[constraint.name].is_setting


def _sort_key(constraint: Constraint) -> tuple[int, bool, float]:
    rank = {False: 0, None: 1, True: 2}[constraint.holds]
    return rank, constraint.holds is False and not is_vital(constraint), constraint.slack or 0


def _compared(have: float, need: float, words: str, remedy: str, about: str = "") -> Constraint:
    holds = have >= need
    return Constraint("", about, holds, have - need, have, need, words, "" if holds else remedy)


def _undecided(need: float | None, words: str, remedy: str, about: str = "") -> Constraint:
    return Constraint("", about, None, None, None, need, words, remedy)


# What NUT's own files must say


@constraint_rule("HOSTSYNC")
def _check_hostsync(given: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    if given.secondaries:
        slowest = max(given.secondaries, key=lambda secondary: secondary.begin_time)
        have, need = given.timing.hostsync, slowest.begin_time
        words = f"{slowest.name} begins to go down up to {spell_number(need)} s after FSD; HOSTSYNC gives {spell_number(have)} s"
        yield _compared(have, need, words, set_directive("HOSTSYNC", needed["hostsync"]))


def _check_poll(given: PlanInputs, needed: Needed, name: str) -> Iterator[Constraint]:
    value = polls_of(given.timing)[name]
    words = f"upsd drops a client that is silent for {IDLE_SECONDS} s; upsmon is for {spell_number(value)} s"
    yield _compared(IDLE_SECONDS - 1, value, words, f"{set_directive(name.upper(), needed[name])} or less")


for _name in ("pollfreq", "pollfreqalert"):
    constraint_rule(_name.upper(), setting=True)(partial(_check_poll, name=_name))


@constraint_rule("DEADTIME", setting=True)
def _check_deadtime(given: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    have, poll = given.timing.deadtime, given.timing.poll
    need = LOOKS * poll
    words = f"{LOOKS} looks, {spell_number(poll)} s apart, are {spell_number(need)} s; DEADTIME gives {spell_number(have)} s"
    yield _compared(have, need, words, set_directive("DEADTIME", needed["deadtime"]))


@constraint_rule("MAXAGE", setting=True)
def _check_maxage(given: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    have, interval = given.timing.maxage, max(supply.pollinterval for supply in given.supplies)
    need = LOOKS * interval
    words = f"{LOOKS} looks at the UPS, {spell_number(interval)} s apart, are {spell_number(need)} s; MAXAGE gives {spell_number(have)} s"
    yield _compared(have, need, words, set_directive("MAXAGE", needed["maxage"], "upsd.conf"))


@constraint_rule("POWEROFF_WAIT", setting=True)
def _check_poweroff_wait(given: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    timing = given.timing
    if timing.poweroff_wait is not None:
        off = max(real_delays(supply, timing.release)[0] or 0 for supply in given.supplies)
        terms = [(timing.killpower, "killpower"), (off, "offdelay"), (REBOOT_MARGIN, "margin")]
        words = f"{spell_sum(terms)}; after POWEROFF_WAIT, {spell_number(timing.poweroff_wait)} s, the host is rebooted"
        remedy = set_directive("POWEROFF_WAIT", needed["poweroff_wait"], "nut.conf", unit="s")
        yield _compared(timing.poweroff_wait, sum_terms(terms), words, remedy)


# Who must be down before whom


@constraint_rule("order", vital=True)
def _check_order(given: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    for secondary in given.secondaries:
        name, have = secondary.name, secondary.shutdown_limit
        terms = [(secondary.shutdown_time, "its shutdown"), (given.timing.settle, "silence")]
        words = f"{spell_sum(terms)}; the gate waits {spell_number(have)} s for {name} before {given.primary.name} goes"
        remedy = f"set nut_client_shutdown_limit of {name} to {spell_number(needed['limits'][name])}"
        yield _compared(have, sum_terms(terms), words, remedy, name)


@constraint_rule("guests")
def _check_guests(given: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    """Whether guests_time is enough for the guests that no stage stops. What was worked out from them is."""
    proxmox, is_given = given.proxmox, given.timing.guests_time is not None
    remedy = set_variable("guests_time", needed["guests_time"])
    if proxmox.problem:
        words = (
            f"{proxmox.problem}; so {spell_number(given.guests_time)} s are counted for all guests, whatever they use"
        )
        yield _undecided(None, words, "mend that" if is_given else "mend that, or set nut_server_guests_time")
        return
    if not is_given and proxmox.seconds is not None:
        return
    slowest, need = max(given.unstaged, key=lambda guest: guest.shutdown_limit, default=None), proxmox.seconds or 0
    if slowest is not None and slowest.shutdown_limit >= need:
        words, need = f"{slowest.name} may take {spell_number(slowest.shutdown_limit)} s", slowest.shutdown_limit
    elif need:
        words = f"by their startup options the guests may take {spell_number(need)} s"
        remedy += f", {remedies.SHORTER_STARTUP}"
    else:
        return
    words += f"; guests_time gives {spell_number(given.guests_time)} s to all that Proxmox stops"
    yield _compared(given.guests_time, need, words, remedy)


@constraint_rule("needs")
def _check_needs(given: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    """Whether a machine is down before the one begins whose storage it uses.

    The primary goes last in any case. Whether a stage has the time for it is said where the stages are.
    """
    named, staged = given.named, given.staged
    for user in given.machines:
        for owner in (named[name] for name in user.needs if named[name].role != PRIMARY):
            if user.role == GUEST and owner.role == GUEST and user.name not in staged and owner.name not in staged:
                words = (
                    f"{user.name} uses the storage of {owner.name}, and Proxmox stops both: in which order, only its "
                    "settings say"
                )
                remedy = (
                    f"give {user.name} a higher startup order than {owner.name} in Proxmox, and take {owner.name} "
                    "from its needs"
                )
                yield _undecided(None, words, remedy, user.name)
            elif problem := _find_wrong_order(given, needed, user, owner):
                reason, remedy = problem
                limit = user.shutdown_limit
                words = f"{user.name} uses the storage of {owner.name}, and {reason}; it takes up to {spell_number(limit)} s"
                yield _compared(0, max(limit, 1), words, remedy, user.name)


def _find_wrong_order(
    given: PlanInputs, needed: Needed, user: PlanMachine, owner: PlanMachine
) -> tuple[str, str] | None:
    """Return why a machine is not down before the one whose storage it uses, and the remedy; None if it is."""
    staged = given.staged
    if user.role == SECONDARY:
        remedy = (
            f"make {user.name} a guest that a stage stops, or take {owner.name} from its needs if it can do without"
        )
        return "nothing makes it go first", remedy
    if user.name not in staged:
        return "is stopped only after that", remedies.add_to_stage(given, user, owner, needed)
    if owner.role == GUEST and staged.get(owner.name, len(given.stages)) <= staged[user.name]:
        words = f"stage {given.stages[staged[owner.name]].name} stops that too early"
        return words, f"put {owner.name} into a later stage than {user.name}"
    return None


# Whether the battery lasts


@dataclass(frozen=True)
class _ShutdownBegin:
    """What begins the shutdown, as expected."""

    # what is left then; None if that is not known
    left: float | None
    # seconds until it is noticed
    noticed: float
    words: str


def _expected_begin(given: PlanInputs, supply: Supply) -> _ShutdownBegin:
    """Return what begins the shutdown of a charged battery: it is low, or a stage asks for FSD before that."""
    full, mark = when_charged(supply), low_marks(when_charged(supply))[0]
    words = f"when {supply.name} says that its battery is low is not known"
    if mark is not None:
        words = f"{supply.name} says with {spell_number(mark)} s left that it is low"
    found = _ShutdownBegin(mark, notice_time(supply, given.timing.release) / 2, words)
    for stage in given.stages:
        taken = given.stage_takes(stage, worst=False)
        left = max((early - late / 2 - taken for early, late in stage_trigger_points(given, stage, full)), default=None)
        if stage.fsd and left is not None and left > (found.left or 0) - found.noticed:
            found = _ShutdownBegin(left, 0, f"stage {stage.name} asks for FSD with {spell_number(left)} s left")
    return found


@constraint_rule("as expected", "supplies", vital=True)
def _check_as_expected(given: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    """Whether the last machine is off before the battery is empty, if nothing takes longer than it usually does."""
    name, full, begin = supply.name, when_charged(supply).runtime, _expected_begin(given, supply)
    terms = terms_as_expected(given, begin.noticed)
    need = sum_terms(terms)
    lasts = f"how long {name} lasts is not known" if full is None else f"charged, {name} lasts {spell_number(full)} s"
    words = f"{spell_sum(terms)} pass as expected until all are off; {begin.words}; {lasts}"
    known = [value for value in (begin.left, full) if value is not None]
    earlier = remedies.earlier_mark(given, supply, needed)
    if len(known) == 2 or (known and known[0] < need):
        remedy = remedies.larger_battery(need) if full is not None and full < need else earlier
        yield _compared(min(known), need, words, remedy)
    else:
        yield _undecided(need, words, earlier if begin.left is None else remedies.measure_runtime(name))


@constraint_rule("low battery", "supplies")
def _check_low_battery(given: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    name, have = supply.name, low_marks(supply)[0]
    terms = terms_at_limits(given, supply)
    words, remedy = (
        f"{spell_sum(terms)} must be left when the battery is low;",
        remedies.earlier_mark(given, supply, needed),
    )
    if have is None:
        yield _undecided(sum_terms(terms), f"{words} when {name} says so is not known", remedy)
    else:
        by = "NUT decides that" if supply.ignorelb else "it decides that itself"
        words = f"{words} {name} says so with {spell_number(have)} s left ({by})"
        yield _compared(have, sum_terms(terms), words, remedy)


@constraint_rule("battery", "supplies")
def _check_battery(given: PlanInputs, _needed: Needed, supply: Supply) -> Iterator[Constraint]:
    name, have = supply.name, supply.runtime
    need = sum_terms(terms_at_limits(given, supply))
    words = f"{spell_number(need)} s are needed;"
    if have is None:
        words = f"{words} how long the battery of {name} lasts is not known"
        yield _undecided(need, words, remedies.measure_runtime(name))
        return
    partly = f", at {spell_number(supply.charge)} % charge" if supply.charge is not None and supply.charge < 100 else ""
    remedy = f"{'when it is charged, plan again; else ' if partly else ''}{remedies.larger_battery(need)}"
    yield _compared(have, need, f"{words} the battery of {name} lasts {spell_number(have)} s{partly}", remedy)


# Whether the gate waits as long as it should: it ends when a UPS has no more than `reserve` left and the usual times are over, or at
# any time no more than `least`


@constraint_rule("reserve", "supplies")
def _check_reserve(given: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    reserve, have = given.timing.reserve, low_marks(supply)[0]
    if not given.secondaries or reserve is None or have is None:
        return
    have = have if supply.runtime is None else min(have, supply.runtime)
    waits = waits_at_limits(given, supply)
    need = sum_terms(waits) + reserve
    words = (
        f"{spell_sum([*waits, (reserve, 'reserve')])} must be left when the battery is low, or at the limits the gate ends before the "
        f"machines are down; {supply.name} says so with {spell_number(have)} s left"
    )
    remedy = remedies.earlier_mark(given, supply, needed)
    if reserve > needed["reserve"]:
        is_enough = have >= need - reserve + needed["reserve"]
        remedy = set_variable("gate.reserve", needed["reserve"]) + ("" if is_enough else f", and {remedy}")
    yield _compared(have, need, words, remedy)


@constraint_rule("least", "supplies", vital=True)
def _check_least(given: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    timing, begin, full = given.timing, _expected_begin(given, supply), when_charged(supply).runtime
    kept = [value for value in (timing.reserve, timing.least) if value is not None]
    if not given.secondaries or not kept or begin.left is None:
        return
    least, name = min(kept), "least" if timing.least is not None else "reserve"
    have = begin.left if full is None else min(begin.left, full)
    terms = [*waits_as_expected(compute_milestones(given, worst=False), begin.noticed), (least, name)]
    words = f"{spell_sum(terms)}, or the gate ends before the machines are down as expected; {begin.words}"
    remedy = remedies.earlier_mark(given, supply, needed)
    if least > needed["least"]:
        key = "reserve" if name == "reserve" else "reserve_minimum"
        remedy = f"{set_variable(f'gate.{key}', needed['least'])}, or {remedy}"
    yield _compared(have, sum_terms(terms), words, remedy)


# When the UPS cuts the power, and when it gives it again


@constraint_rule("offdelay", "supplies", setting=True)
def _check_offdelay(given: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    name, killpower = supply.name, given.timing.killpower
    off, on = real_delays(supply, given.timing.release)
    both = remedies.set_delays(supply, offdelay=needed["offdelay"][name], ondelay=needed["ondelay"][name])
    if off is None or on is None:
        words = (
            f"when {name} cuts the power and gives it again is not known: driver {supply.driver} has no known default"
        )
        yield _undecided(killpower, words, both)
        return
    words = (
        f"the host may need {spell_number(killpower)} s from the order to cut; {name} cuts after {spell_number(off)} s"
    )
    is_kept = needed["ondelay"][name] == on
    remedy = remedies.set_delays(supply, offdelay=needed["offdelay"][name]) if is_kept else both
    yield _compared(off, killpower, words + _explain_rounding(supply, off), remedy)


@constraint_rule("ondelay", "supplies", setting=True)
def _check_ondelay(given: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    off, on = real_delays(supply, given.timing.release)
    if off is not None and on is not None:
        words = (
            f"{supply.name} cuts the power {spell_number(off)} s after the order and restores it after {spell_number(on)} s, "
            "which must be later"
        )
        remedy = remedies.set_delays(supply, ondelay=needed["ondelay"][supply.name])
        yield _compared(on, off + 1, words + _explain_rounding(supply, off), remedy)


def _explain_rounding(supply: Supply, off: float) -> str:
    if not is_cyberpower(supply):
        return ""
    return f" (CyberPower counts whole minutes{', and so cuts at once' if not off else ''})"


# The stages, and high availability


@constraint_rule("stage", "stages")
def _check_stage(given: PlanInputs, needed: Needed, stage: StagePlan) -> Iterator[Constraint]:
    """Whether the guests of a stage are down before the battery is low."""
    rooms = [(stage_room(given, stage, supply), supply) for supply in given.supplies]
    known = [(room, supply) for room, supply in rooms if room is not None]
    trigger, remedy = remedies.spell_trigger(stage), remedies.set_stage_runtime(given, stage, needed)
    if len(known) < len(rooms):
        words = f"stage {stage.name} starts at {trigger}; how long before low battery that is, is not known"
        yield _undecided(None, words, f"{remedy}, and find out what is not known below")
        return
    room, supply = min(known, key=lambda pair: pair[0].seconds)
    terms = [
        (room.low, f"low battery of {supply.name}"),
        (room.late, "until it is noticed"),
        (given.stage_takes(stage, worst=True), "its guests"),
    ]
    words = f"{spell_sum(terms)}; the stage ({trigger}) starts with {spell_number(room.early)} s left"
    if stage.guests:
        words += f", and stops {', '.join(stage.guests)} before FSD"
    yield _compared(room.early, sum_terms(terms), words, remedy)


@constraint_rule("HA", vital=True)
def _check_ha(given: PlanInputs, _needed: Needed) -> Iterator[Constraint]:
    """Whether HA leaves its guests where they are."""
    proxmox = given.proxmox
    if proxmox.ha:
        remedy = remedies.FREEZE if proxmox.migrates else ""
        yield Constraint("", "", not proxmox.migrates, None, None, None, "; ".join(proxmox.ha), remedy)
