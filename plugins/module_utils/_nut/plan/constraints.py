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
from .model import GUEST, PRIMARY, SECONDARY, Constraint, Machine, StagePlan, Supply
from .needed import (
    LOOKS,
    REBOOT_MARGIN,
    polls_of,
    terms_as_expected,
    terms_at_limits,
    total,
    waits_as_expected,
    waits_at_limits,
)
from .remedies import set_directive, set_variable, spell, spell_sum
from .supplies import is_cyberpower, low_marks, notice_time, real_delays, when_charged
from .timeline import Inputs, stage_room, stage_starts, work_out_clock

Needed = Mapping[str, Any]
Judge = Callable[..., Iterator[Constraint]]


@dataclass(frozen=True)
class Rule:
    """A kind of constraint."""

    judge: Judge  # takes Inputs, what is needed, and one of what it is judged of
    of: str  # what it is judged of: each of the "supplies" or "stages", or "" for all at once
    is_vital: bool  # without it the plan is not feasible: it can't work even if all goes as expected
    is_setting: bool  # it does not depend on how long anything takes, so that little to spare means little


RULES: dict[str, Rule] = {}


def rule(name: str, of: str = "", *, vital: bool = False, setting: bool = False) -> Callable[[Judge], Judge]:
    """Make a function the rule of this name."""

    def keep(judge: Judge) -> Judge:
        RULES[name] = Rule(judge, of, vital, setting)
        return judge

    return keep


def judge_all(given: Inputs, needed: Needed) -> list[Constraint]:
    """Return all that must be so: what fails first, then what can't be told, then the tightest."""
    found: list[Constraint] = []
    for name, each in RULES.items():
        for subject in getattr(given, each.of) if each.of else (None,):
            about, more = ("", ()) if subject is None else (subject.name, (subject,))
            found += [
                replace(constraint, name=name, about=about or constraint.about)
                for constraint in each.judge(given, needed, *more)
            ]
    return sorted([*found, *given.proxmox.remarks], key=_urgency)


def is_vital(constraint: Constraint) -> bool:
    """Return whether the plan is not feasible without this."""
    return constraint.name in RULES and RULES[constraint.name].is_vital


def is_setting(constraint: Constraint) -> bool:
    """Return whether this does not depend on how long anything takes."""
    return constraint.name in RULES and RULES[constraint.name].is_setting


def _urgency(constraint: Constraint) -> tuple[int, bool, float]:
    rank = {False: 0, None: 1, True: 2}[constraint.holds]
    return rank, constraint.holds is False and not is_vital(constraint), constraint.slack or 0


def _compare(have: float, need: float, words: str, remedy: str, about: str = "") -> Constraint:
    holds = have >= need
    return Constraint("", about, holds, have - need, have, need, words, "" if holds else remedy)


def _unknown(need: float | None, words: str, remedy: str, about: str = "") -> Constraint:
    return Constraint("", about, None, None, None, need, words, remedy)


# What NUT's own files must say


@rule("HOSTSYNC")
def _hostsync(given: Inputs, needed: Needed) -> Iterator[Constraint]:
    if given.secondaries:
        slowest = max(given.secondaries, key=lambda secondary: secondary.begin_time)
        have, need = given.timing.hostsync, slowest.begin_time
        words = f"{slowest.name} begins to go down up to {spell(need)} s after FSD; HOSTSYNC gives {spell(have)} s"
        yield _compare(have, need, words, set_directive("HOSTSYNC", needed["hostsync"]))


def _poll(given: Inputs, needed: Needed, name: str) -> Iterator[Constraint]:
    value = polls_of(given.timing)[name]
    words = f"upsd drops a client that is silent for {IDLE_SECONDS} s; upsmon is for {spell(value)} s"
    yield _compare(IDLE_SECONDS - 1, value, words, f"{set_directive(name.upper(), needed[name])} or less")


for _name in ("pollfreq", "pollfreqalert"):
    rule(_name.upper(), setting=True)(partial(_poll, name=_name))


@rule("DEADTIME", setting=True)
def _deadtime(given: Inputs, needed: Needed) -> Iterator[Constraint]:
    have, poll = given.timing.deadtime, given.timing.poll
    need = LOOKS * poll
    words = f"{LOOKS} looks, {spell(poll)} s apart, are {spell(need)} s; DEADTIME gives {spell(have)} s"
    yield _compare(have, need, words, set_directive("DEADTIME", needed["deadtime"]))


@rule("MAXAGE", setting=True)
def _maxage(given: Inputs, needed: Needed) -> Iterator[Constraint]:
    have, interval = given.timing.maxage, max(supply.pollinterval for supply in given.supplies)
    need = LOOKS * interval
    words = f"{LOOKS} looks at the UPS, {spell(interval)} s apart, are {spell(need)} s; MAXAGE gives {spell(have)} s"
    yield _compare(have, need, words, set_directive("MAXAGE", needed["maxage"], "upsd.conf"))


@rule("POWEROFF_WAIT", setting=True)
def _poweroff_wait(given: Inputs, needed: Needed) -> Iterator[Constraint]:
    timing = given.timing
    if timing.poweroff_wait is not None:
        off = max(real_delays(supply, timing.release)[0] or 0 for supply in given.supplies)
        terms = [(timing.killpower, "killpower"), (off, "offdelay"), (REBOOT_MARGIN, "margin")]
        words = f"{spell_sum(terms)}; after POWEROFF_WAIT, {spell(timing.poweroff_wait)} s, the host is rebooted"
        remedy = set_directive("POWEROFF_WAIT", needed["poweroff_wait"], "nut.conf", unit="s")
        yield _compare(timing.poweroff_wait, total(terms), words, remedy)


# Who must be down before whom


@rule("order", vital=True)
def _order(given: Inputs, needed: Needed) -> Iterator[Constraint]:
    for secondary in given.secondaries:
        name, have = secondary.name, secondary.shutdown_limit
        terms = [(secondary.shutdown_time, "its shutdown"), (given.timing.settle, "silence")]
        words = f"{spell_sum(terms)}; the gate waits {spell(have)} s for {name} before {given.primary.name} goes"
        remedy = f"set nut_client_shutdown_limit of {name} to {spell(needed['limits'][name])}"
        yield _compare(have, total(terms), words, remedy, name)


@rule("guests")
def _guests(given: Inputs, needed: Needed) -> Iterator[Constraint]:
    """Whether guests_time is enough for the guests that no stage stops. What was worked out from them is."""
    proxmox, is_given = given.proxmox, given.timing.guests_time is not None
    remedy = set_variable("guests_time", needed["guests_time"])
    if proxmox.problem:
        words = f"{proxmox.problem}; so {spell(given.guests_time)} s are counted for all guests, whatever they use"
        yield _unknown(None, words, "mend that" if is_given else "mend that, or set nut_server_guests_time")
        return
    if not is_given and proxmox.seconds is not None:
        return
    slowest, need = max(given.unstaged, key=lambda guest: guest.shutdown_limit, default=None), proxmox.seconds or 0
    if slowest is not None and slowest.shutdown_limit >= need:
        words, need = f"{slowest.name} may take {spell(slowest.shutdown_limit)} s", slowest.shutdown_limit
    elif need:
        words = f"by their startup options the guests may take {spell(need)} s"
        remedy += f", {remedies.SHORTER_STARTUP}"
    else:
        return
    words += f"; guests_time gives {spell(given.guests_time)} s to all that Proxmox stops"
    yield _compare(given.guests_time, need, words, remedy)


@rule("needs")
def _needs(given: Inputs, needed: Needed) -> Iterator[Constraint]:
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
                yield _unknown(None, words, remedy, user.name)
            elif found := _wrong_order(given, needed, user, owner):
                words = f"{user.name} uses the storage of {owner.name}, and {found[0]}: it takes up to {spell(user.shutdown_limit)} s"
                yield _compare(0, max(user.shutdown_limit, 1), words, found[1], user.name)


def _wrong_order(given: Inputs, needed: Needed, user: Machine, owner: Machine) -> tuple[str, str] | None:
    """Return why a machine is not down before the one whose storage it uses, and the remedy; None if it is."""
    staged = given.staged
    if user.role == SECONDARY:
        remedy = (
            f"make {user.name} a guest that a stage stops, or take {owner.name} from its needs if it can do without"
        )
        return "nothing makes it go first", remedy
    if user.name not in staged:
        return "is stopped only after that", remedies.put_into_stage(given, user, owner, needed)
    if owner.role == GUEST and staged.get(owner.name, len(given.stages)) <= staged[user.name]:
        words = f"stage {given.stages[staged[owner.name]].name} stops that too early"
        return words, f"put {owner.name} into a later stage than {user.name}"
    return None


# Whether the battery lasts


@dataclass(frozen=True)
class _Begin:
    """What begins the shutdown, as expected."""

    # what is left then; None if that is not known
    left: float | None
    # seconds until it is noticed
    noticed: float
    words: str


def _begin(given: Inputs, supply: Supply) -> _Begin:
    """Return what begins the shutdown of a charged battery: it is low, or a stage asks for FSD before that."""
    full, mark = when_charged(supply), low_marks(when_charged(supply))[0]
    words = f"when {supply.name} says that its battery is low is not known"
    if mark is not None:
        words = f"{supply.name} says with {spell(mark)} s left that it is low"
    found = _Begin(mark, notice_time(supply, given.timing.release) / 2, words)
    for stage in given.stages:
        taken = given.stage_takes(stage, worst=False)
        left = max((early - late / 2 - taken for early, late in stage_starts(given, stage, full)), default=None)
        if stage.fsd and left is not None and left > (found.left or 0) - found.noticed:
            found = _Begin(left, 0, f"stage {stage.name} asks for FSD with {spell(left)} s left")
    return found


@rule("as expected", "supplies", vital=True)
def _as_expected(given: Inputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    """Whether the last machine is off before the battery is empty, if nothing takes longer than it usually does."""
    name, full, begin = supply.name, when_charged(supply).runtime, _begin(given, supply)
    terms = terms_as_expected(given, begin.noticed)
    need = total(terms)
    lasts = f"how long {name} lasts is not known" if full is None else f"charged, {name} lasts {spell(full)} s"
    words = f"{spell_sum(terms)} pass as expected until all are off; {begin.words}; {lasts}"
    known = [value for value in (begin.left, full) if value is not None]
    earlier = remedies.earlier_mark(given, supply, needed)
    if len(known) == 2 or (known and known[0] < need):
        remedy = remedies.larger_battery(need) if full is not None and full < need else earlier
        yield _compare(min(known), need, words, remedy)
    else:
        yield _unknown(need, words, earlier if begin.left is None else remedies.measure_runtime(name))


@rule("low battery", "supplies")
def _low_battery(given: Inputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    name, have = supply.name, low_marks(supply)[0]
    terms = terms_at_limits(given, supply)
    words, remedy = (
        f"{spell_sum(terms)} must be left when the battery is low;",
        remedies.earlier_mark(given, supply, needed),
    )
    if have is None:
        yield _unknown(total(terms), f"{words} when {name} says so is not known", remedy)
    else:
        by = "NUT decides that" if supply.ignorelb else "it decides that itself"
        words = f"{words} {name} says so with {spell(have)} s left ({by})"
        yield _compare(have, total(terms), words, remedy)


@rule("battery", "supplies")
def _battery(given: Inputs, _needed: Needed, supply: Supply) -> Iterator[Constraint]:
    name, have = supply.name, supply.runtime
    need = total(terms_at_limits(given, supply))
    words = f"{spell(need)} s are needed;"
    if have is None:
        words = f"{words} how long the battery of {name} lasts is not known"
        yield _unknown(need, words, remedies.measure_runtime(name))
        return
    partly = f", at {spell(supply.charge)} % charge" if supply.charge is not None and supply.charge < 100 else ""
    remedy = f"{'when it is charged, plan again; else ' if partly else ''}{remedies.larger_battery(need)}"
    yield _compare(have, need, f"{words} the battery of {name} lasts {spell(have)} s{partly}", remedy)


# Whether the gate waits as long as it should: it ends when a UPS has no more than `reserve` left and the usual times are over, or at
# any time no more than `least`


@rule("reserve", "supplies")
def _reserve(given: Inputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    reserve, have = given.timing.reserve, low_marks(supply)[0]
    if not given.secondaries or reserve is None or have is None:
        return
    have = have if supply.runtime is None else min(have, supply.runtime)
    waits = waits_at_limits(given, supply)
    need = total(waits) + reserve
    words = (
        f"{spell_sum([*waits, (reserve, 'reserve')])} must be left when the battery is low, or at the limits the gate ends before the "
        f"machines are down; {supply.name} says so with {spell(have)} s left"
    )
    remedy = remedies.earlier_mark(given, supply, needed)
    if reserve > needed["reserve"]:
        is_enough = have >= need - reserve + needed["reserve"]
        remedy = set_variable("gate.reserve", needed["reserve"]) + ("" if is_enough else f", and {remedy}")
    yield _compare(have, need, words, remedy)


@rule("least", "supplies", vital=True)
def _least(given: Inputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    timing, begin, full = given.timing, _begin(given, supply), when_charged(supply).runtime
    kept = [value for value in (timing.reserve, timing.least) if value is not None]
    if not given.secondaries or not kept or begin.left is None:
        return
    least, name = min(kept), "least" if timing.least is not None else "reserve"
    have = begin.left if full is None else min(begin.left, full)
    terms = [*waits_as_expected(work_out_clock(given, worst=False), begin.noticed), (least, name)]
    words = f"{spell_sum(terms)}, or the gate ends before the machines are down as expected; {begin.words}"
    remedy = remedies.earlier_mark(given, supply, needed)
    if least > needed["least"]:
        key = "reserve" if name == "reserve" else "reserve_minimum"
        remedy = f"{set_variable(f'gate.{key}', needed['least'])}, or {remedy}"
    yield _compare(have, total(terms), words, remedy)


# When the UPS cuts the power, and when it gives it again


@rule("offdelay", "supplies", setting=True)
def _offdelay(given: Inputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    name, killpower = supply.name, given.timing.killpower
    off, on = real_delays(supply, given.timing.release)
    both = remedies.set_delays(supply, offdelay=needed["offdelay"][name], ondelay=needed["ondelay"][name])
    if off is None or on is None:
        words = (
            f"when {name} cuts the power and gives it again is not known: driver {supply.driver} has no known default"
        )
        yield _unknown(killpower, words, both)
        return
    words = f"the host may need {spell(killpower)} s from the order to cut; {name} cuts after {spell(off)} s"
    is_kept = needed["ondelay"][name] == on
    remedy = remedies.set_delays(supply, offdelay=needed["offdelay"][name]) if is_kept else both
    yield _compare(off, killpower, words + _rounding(supply, off), remedy)


@rule("ondelay", "supplies", setting=True)
def _ondelay(given: Inputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    off, on = real_delays(supply, given.timing.release)
    if off is not None and on is not None:
        words = f"{supply.name} cuts {spell(off)} s after the order, and gives power again after {spell(on)} s, which must be later"
        remedy = remedies.set_delays(supply, ondelay=needed["ondelay"][supply.name])
        yield _compare(on, off + 1, words + _rounding(supply, off), remedy)


def _rounding(supply: Supply, off: float) -> str:
    if not is_cyberpower(supply):
        return ""
    return f" (CyberPower counts whole minutes{', and so cuts at once' if not off else ''})"


# The stages, and high availability


@rule("stage", "stages")
def _stage(given: Inputs, needed: Needed, stage: StagePlan) -> Iterator[Constraint]:
    """Whether the guests of a stage are down before the battery is low."""
    rooms = [(stage_room(given, stage, supply), supply) for supply in given.supplies]
    known = [(room, supply) for room, supply in rooms if room is not None]
    trigger, remedy = remedies.spell_trigger(stage), remedies.set_stage_runtime(given, stage, needed)
    if len(known) < len(rooms):
        words = f"stage {stage.name} starts at {trigger}; how long before low battery that is, is not known"
        yield _unknown(None, words, f"{remedy}, and find out what is not known below")
        return
    room, supply = min(known, key=lambda pair: pair[0].seconds)
    terms = [
        (room.low, f"low battery of {supply.name}"),
        (room.late, "until it is noticed"),
        (given.stage_takes(stage, worst=True), "its guests"),
    ]
    words = f"{spell_sum(terms)}; the stage ({trigger}) starts with {spell(room.early)} s left"
    if stage.guests:
        words += f", and stops {', '.join(stage.guests)} before FSD"
    yield _compare(room.early, total(terms), words, remedy)


@rule("HA", vital=True)
def _ha(given: Inputs, _needed: Needed) -> Iterator[Constraint]:
    """Whether HA leaves its guests where they are."""
    proxmox = given.proxmox
    if proxmox.ha:
        remedy = remedies.FREEZE if proxmox.migrates else ""
        yield Constraint("", "", not proxmox.migrates, None, None, None, "; ".join(proxmox.ha), remedy)
