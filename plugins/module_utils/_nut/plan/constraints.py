# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The conditions that must hold for a plan to hold. Each rule is one function: its name, its arithmetic, its words and its remedy.

A rule yields a constraint if there is anything to check. A new rule is complete once its function is written: the plan checks it, and the
table and the page show it. One file, because the rules are a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable

from ..conf.upsd import IDLE_SECONDS
from . import remedies
from .cluster import judge_cluster
from .model import GUEST, PRIMARY, SECONDARY, Constraint, PlanMachine, StagePlan, Supply
from .needed import (
    POLLS,
    REBOOT_MARGIN,
    SHORT_OUTAGE,
    poll_intervals,
    sum_terms,
    usual_terms,
    usual_waits,
    worst_terms,
    worst_waits,
)
from .remedies import set_directive, set_variable, spell_number, spell_sum
from .supplies import (
    NO_UPS,
    LowMark,
    find_low_mark,
    highest_mark,
    is_cyberpower,
    low_marks,
    notice_time,
    real_delays,
    restores_at_once,
    takes_delays,
    when_charged,
)
from .timeline import PlanInputs, compute_milestones, stage_room, stage_trigger_points

Needed = Mapping[str, Any]
RuleCheck = Callable[..., Iterator[Constraint]]


@dataclass(frozen=True)
class ConstraintRule:
    """A kind of constraint."""

    check: RuleCheck  # takes PlanInputs, the needed settings, and one subject if there are subjects
    subjects: str  # "supplies" or "stages": it is checked for each of them; "": once for the whole plan
    is_vital: bool  # if it fails, the plan is not feasible: it can't work even in the usual run
    is_setting: bool  # it does not depend on how long anything takes, so little slack is no reason to worry
    fault: str  # what is wrong if it fails, in words; {about} and {seconds} are filled in; "": only its name is known


RULES: dict[str, ConstraintRule] = {}


def constraint_rule(
    name: str, subjects: str = "", fault: str = "", *, vital: bool = False, setting: bool = False
) -> Callable[[RuleCheck], RuleCheck]:
    """Register the decorated function as the rule of this name."""

    def register_rule(check: RuleCheck) -> RuleCheck:
        RULES[name] = ConstraintRule(check, subjects, vital, setting, fault)
        return check

    return register_rule


def check_constraints(inputs: PlanInputs, needed: Needed) -> list[Constraint]:
    """Return all constraints: failing ones first, then the undecided, then by slack."""
    constraints: list[Constraint] = []
    for name, rule in RULES.items():
        for subject in getattr(inputs, rule.subjects) if rule.subjects else (None,):
            about, arguments = ("", ()) if subject is None else (subject.name, (subject,))
            constraints += [
                replace(constraint, name=name, about=about or constraint.about)
                for constraint in rule.check(inputs, needed, *arguments)
            ]
    return sorted([*constraints, *inputs.proxmox.remarks], key=_sort_key)


def spell_fault(constraint: Constraint) -> str:
    """Return what is wrong if a constraint fails, in a few words."""
    fault = RULES[constraint.name].fault if constraint.name in RULES else ""
    if not fault:
        return f"{constraint.name} ({constraint.about}) fails" if constraint.about else f"{constraint.name} fails"
    return fault.format(about=constraint.about, seconds=spell_number(-(constraint.slack or 0)))


def is_vital(constraint: Constraint) -> bool:
    """Return whether the plan is infeasible if this fails."""
    return constraint.name in RULES and RULES[constraint.name].is_vital


def is_setting(constraint: Constraint) -> bool:
    """Return whether this does not depend on how long anything takes."""
    return constraint.name in RULES and RULES[constraint.name].is_setting


def _sort_key(constraint: Constraint) -> tuple[int, bool, float]:
    rank = {False: 0, None: 1, True: 2}[constraint.holds]
    return rank, constraint.holds is False and not is_vital(constraint), constraint.slack or 0


def _compare(have: float, need: float, reason: str, remedy: str, about: str = "") -> Constraint:
    holds = have >= need
    return Constraint("", about, holds, have - need, have, need, reason, "" if holds else remedy)


def _leave_open(need: float | None, reason: str, remedy: str, about: str = "") -> Constraint:
    return Constraint("", about, None, None, None, need, reason, remedy)


# The settings in NUT's files


@constraint_rule("HOSTSYNC", fault="HOSTSYNC is {seconds} s too short")
def _check_hostsync(inputs: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    if inputs.secondaries:
        slowest = max(inputs.secondaries, key=lambda secondary: secondary.begin_time)
        have, need = inputs.timing.hostsync, slowest.begin_time
        reason = f"{slowest.name} begins to go down up to {spell_number(need)} s after FSD; HOSTSYNC gives {spell_number(have)} s"
        yield _compare(have, need, reason, set_directive(inputs, "HOSTSYNC", needed["hostsync"]))


def _check_poll(inputs: PlanInputs, needed: Needed, name: str) -> Iterator[Constraint]:
    value = poll_intervals(inputs.timing)[name]
    reason = f"upsd drops a client that is silent for {IDLE_SECONDS} s; upsmon is silent for {spell_number(value)} s"
    yield _compare(IDLE_SECONDS - 1, value, reason, set_directive(inputs, name.upper(), needed[name]))


for _name in ("pollfreq", "pollfreqalert"):
    constraint_rule(_name.upper(), fault=f"{_name.upper()} is {{seconds}} s too long", setting=True)(
        partial(_check_poll, name=_name)
    )


@constraint_rule("DEADTIME", fault="DEADTIME is {seconds} s too short", setting=True)
def _check_deadtime(inputs: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    have, interval = inputs.timing.deadtime, inputs.timing.poll_interval
    need = POLLS * interval
    reason = f"{POLLS} polls, {spell_number(interval)} s apart, take {spell_number(need)} s; DEADTIME is {spell_number(have)} s"
    yield _compare(have, need, reason, set_directive(inputs, "DEADTIME", needed["deadtime"]))


@constraint_rule("MAXAGE", fault="MAXAGE is {seconds} s too short", setting=True)
def _check_maxage(inputs: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    have, interval = inputs.timing.maxage, max(supply.pollinterval for supply in inputs.supplies)
    need = POLLS * interval
    reason = (
        f"{POLLS} readings of the UPS, {spell_number(interval)} s apart, take {spell_number(need)} s; "
        f"MAXAGE is {spell_number(have)} s"
    )
    yield _compare(have, need, reason, set_directive(inputs, "MAXAGE", needed["maxage"], "upsd.conf"))


@constraint_rule("POWEROFF_WAIT", fault="POWEROFF_WAIT is {seconds} s too short", setting=True)
def _check_poweroff_wait(inputs: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    timing = inputs.timing
    if timing.poweroff_wait is not None:
        off = max(real_delays(supply, timing.release)[0] or 0 for supply in inputs.supplies)
        terms = [(timing.killpower, "killpower"), (off, "offdelay"), (REBOOT_MARGIN, "margin")]
        reason = f"{spell_sum(terms)}; the primary reboots after POWEROFF_WAIT, {spell_number(timing.poweroff_wait)} s"
        remedy = set_directive(inputs, "POWEROFF_WAIT", needed["poweroff_wait"], "nut.conf", unit="s")
        yield _compare(timing.poweroff_wait, sum_terms(terms), reason, remedy)


# The order of the shutdown


@constraint_rule("shutdown limit", fault="the shutdown_limit of {about} is {seconds} s too short", vital=True)
def _check_limits(inputs: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    for secondary in inputs.secondaries:
        name, have = secondary.name, secondary.shutdown_limit
        terms = [(secondary.shutdown_time, "shutdown_time"), (inputs.timing.settle, "settle")]
        reason = f"{spell_sum(terms)}; {inputs.primary.name} waits up to {spell_number(have)} s for {name}"
        remedy = remedies.write_into(name, f"nut_client_shutdown_limit: {spell_number(needed['limits'][name])}")
        yield _compare(have, sum_terms(terms), reason, remedy, name)


@constraint_rule("guests_time", fault="nut_server_guests_time is {seconds} s too short")
def _check_guests_time(inputs: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    """Check that a guests_time that was set is enough for the guests that no stage stops. A computed one always is."""
    proxmox, is_set = inputs.proxmox, inputs.timing.guests_time is not None
    remedy = set_variable(inputs, "guests_time", needed["guests_time"])
    if proxmox.problem:
        reason = (
            f"{proxmox.problem}; the plan allows {spell_number(inputs.guests_time)} s for all guests, and can't tell whose "
            "storage they use"
        )
        yield _leave_open(None, reason, "fix that" if is_set else "fix that, or set nut_server_guests_time")
        return
    if not is_set and proxmox.stop_limit is not None:
        return
    slowest = max(inputs.unstaged_guests, key=lambda guest: guest.shutdown_limit, default=None)
    need = proxmox.stop_limit or 0
    if slowest is not None and slowest.shutdown_limit >= need:
        reason, need = f"{slowest.name} may take {spell_number(slowest.shutdown_limit)} s", slowest.shutdown_limit
    elif need:
        reason = f"with their startup options the guests may take {spell_number(need)} s"
        remedy += f", {remedies.SHORTER_STARTUP}"
    else:
        return
    reason += f"; guests_time allows {spell_number(inputs.guests_time)} s for all guests that Proxmox stops"
    yield _compare(inputs.guests_time, need, reason, remedy)


@constraint_rule("storage", fault="{about} loses its storage while it shuts down")
def _check_storage(inputs: PlanInputs, needed: Needed) -> Iterator[Constraint]:
    """Check that a machine is down before the machine whose storage it uses begins to go down.

    The primary goes down last in any case. Whether a stage has enough time is checked with the stages.
    """
    machines, staged = inputs.machines_by_name, inputs.stage_positions
    for user in inputs.machines:
        for owner in (machines[name] for name in user.needs if machines[name].role != PRIMARY):
            if user.role == GUEST and owner.role == GUEST and user.name not in staged and owner.name not in staged:
                reason = (
                    f"{user.name} uses the storage of {owner.name}, and Proxmox stops both, in an order that only its settings "
                    "determine"
                )
                remedy = (
                    f"give {user.name} a higher startup order than {owner.name} in Proxmox, and remove {owner.name} "
                    f"from the needs of {user.name}"
                )
                yield _leave_open(None, reason, remedy, user.name)
            elif problem := _find_wrong_order(inputs, needed, user, owner):
                fault, remedy = problem
                limit = user.shutdown_limit
                reason = (
                    f"{user.name} uses the storage of {owner.name}, but {fault}; it takes up to {spell_number(limit)} s"
                )
                yield _compare(0, max(limit, 1), reason, remedy, user.name)


def _find_wrong_order(
    inputs: PlanInputs, needed: Needed, user: PlanMachine, owner: PlanMachine
) -> tuple[str, str] | None:
    """Return why USER is not down before OWNER, whose storage it uses, and the remedy; None if it is."""
    staged = inputs.stage_positions
    if user.role == SECONDARY:
        remedy = f"make {user.name} a guest that a stage stops, or remove {owner.name} from its needs if it can do without it"
        return "nothing stops it first", remedy
    if user.name not in staged:
        return "it is stopped only afterwards", remedies.add_to_stage(inputs, user, owner, needed)
    if owner.role == GUEST and staged.get(owner.name, len(inputs.stages)) <= staged[user.name]:
        fault = f"stage {inputs.stages[staged[owner.name]].name} stops {owner.name} too early"
        return fault, f"move {owner.name} to a later stage than {user.name}"
    return None


# Whether the battery lasts


@dataclass(frozen=True)
class _ShutdownBegin:
    """What begins the shutdown in the usual run."""

    left: float | None  # seconds of battery left then; None: not known
    noticed: float  # seconds until it is noticed
    reason: str


def _usual_begin(inputs: PlanInputs, supply: Supply) -> _ShutdownBegin:
    """Return what begins the shutdown if the battery was charged: low battery, or a stage that starts FSD earlier."""
    full = when_charged(supply)
    mark = find_low_mark(full, inputs.timing.release)
    if mark is None:
        reason = f"it is not known when {supply.name} reports low battery"
        begin = _ShutdownBegin(None, notice_time(supply, inputs.timing.release) / 2, reason)
    else:
        begin = _ShutdownBegin(mark.left, mark.notice / 2, _spell_mark(supply, mark))
    for stage in inputs.stages:
        duration = inputs.stage_time_to_stop(stage, worst=False)
        points = stage_trigger_points(inputs, stage, full)
        left = max((at_trigger - delay / 2 - duration for at_trigger, delay in points), default=None)
        if stage.fsd and left is not None and left > (begin.left or 0) - begin.noticed:
            begin = _ShutdownBegin(left, 0, f"stage {stage.name} starts FSD with {spell_number(left)} s left")
    return begin


@constraint_rule(
    "usual times",
    "supplies",
    fault="{about} is empty {seconds} s before all machines are off, even if each takes its usual time",
    vital=True,
)
def _check_usual_times(inputs: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    """Check that the last machine is off before the battery is empty if no machine takes longer than usual."""
    name, full, begin = supply.name, when_charged(supply).runtime, _usual_begin(inputs, supply)
    terms = usual_terms(inputs, begin.noticed)
    need = sum_terms(terms)
    lasts = (
        f"it is not known how long {name} lasts"
        if full is None
        else f"{name} lasts {spell_number(full)} s when charged"
    )
    reason = f"{spell_sum(terms)} until all machines are off; {begin.reason}; {lasts}"
    known = [value for value in (begin.left, full) if value is not None]
    earlier = remedies.earlier_mark(inputs, supply, needed)
    if len(known) == 2 or (known and known[0] < need):
        remedy = remedies.larger_battery(needed) if full is not None and full < need else earlier
        yield _compare(min(known), need, reason, remedy)
    else:
        yield _leave_open(need, reason, earlier if begin.left is None else remedies.measure_runtime(name))


@constraint_rule("low battery", "supplies", fault="low battery of {about} comes {seconds} s too late")
def _check_low_battery(inputs: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    mark, terms = find_low_mark(supply, inputs.timing.release), worst_terms(inputs, supply)
    reason = f"{spell_sum(terms)} must be left when the battery is low;"
    remedy = remedies.earlier_mark(inputs, supply, needed)
    if mark is None:
        yield _leave_open(sum_terms(terms), f"{reason} it is not known when {supply.name} reports that", remedy)
    else:
        yield _compare(mark.left, sum_terms(terms), f"{reason} {_spell_mark(supply, mark)}", remedy)


def _spell_mark(supply: Supply, mark: LowMark) -> str:
    if mark.decider == "nut-stages":
        return f"nut-stages begins the shutdown with {spell_number(mark.left)} s left"
    return f"{supply.name} reports low battery with {spell_number(mark.left)} s left ({mark.decider} decides)"


@constraint_rule(
    "short outage",
    "supplies",
    fault="an outage of less than a minute shuts everything down ({about}: {seconds} s too early)",
)
def _check_short_outage(inputs: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    """Check that the battery does not count as low as soon as the mains fail."""
    name, full = supply.name, when_charged(supply)
    mark = highest_mark(full)
    if mark is None or full.runtime is None:
        return
    have = full.runtime - mark
    by_the_ups = low_marks(full)
    either = f" ({name} goes by its charge or the time left)" if by_the_ups[0] != mark == by_the_ups[1] else ""
    reason = (
        f"the shutdown begins with up to {spell_number(mark)} s left{either}, and {name} lasts {spell_number(full.runtime)} s when "
        f"charged: an outage of {spell_number(max(have, 0))} s shuts everything down, and one of less than {SHORT_OUTAGE} s must not"
    )
    yield _compare(have, SHORT_OUTAGE, reason, remedies.later_mark(inputs, supply, needed))


@constraint_rule("battery", "supplies", fault="the battery of {about} lasts {seconds} s too short")
def _check_battery(inputs: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    name, have = supply.name, supply.runtime
    need = sum_terms(worst_terms(inputs, supply))
    reason = f"{spell_number(need)} s are needed (the sum of low battery);"
    if have is None:
        reason = f"{reason} it is not known how long the battery of {name} lasts"
        yield _leave_open(need, reason, remedies.measure_runtime(name))
        return
    charge = f", at {spell_number(supply.charge)} % charge" if supply.charge is not None and supply.charge < 100 else ""
    remedy = f"{'plan again when it is charged; if that fails, ' if charge else ''}{remedies.larger_battery(needed)}"
    yield _compare(have, need, f"{reason} the battery of {name} lasts {spell_number(have)} s{charge}", remedy)


# Whether the gate waits as long as it should. It ends when a UPS has no more than `reserve` left and the usual times have passed, or
# no more than `reserve_minimum` at any time.


@constraint_rule(
    "reserve", "supplies", fault="in the worst case {about} has {seconds} s too little left for the gate to wait"
)
def _check_reserve(inputs: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    reserve, mark = inputs.timing.reserve, find_low_mark(supply, inputs.timing.release)
    if not inputs.secondaries or reserve is None or mark is None:
        return
    have = mark.left if supply.runtime is None else min(mark.left, supply.runtime)
    waits = worst_waits(inputs, supply)
    need = sum_terms(waits) + reserve
    reason = (
        f"{spell_sum([*waits, (reserve, 'reserve')])} must be left when the battery is low, or in the worst case the gate ends "
        f"before the machines are down; {_spell_mark(supply, mark)}"
    )
    remedy = remedies.earlier_mark(inputs, supply, needed)
    if reserve > needed["reserve"]:
        is_enough = have >= need - reserve + needed["reserve"]
        remedy = set_variable(inputs, "gate.reserve", needed["reserve"]) + ("" if is_enough else f", and {remedy}")
    yield _compare(have, need, reason, remedy)


@constraint_rule(
    "minimum reserve", "supplies", fault="{about} has {seconds} s too little left for the gate to wait", vital=True
)
def _check_minimum_reserve(inputs: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    timing, begin, full = inputs.timing, _usual_begin(inputs, supply), when_charged(supply).runtime
    reserves = [value for value in (timing.reserve, timing.reserve_minimum) if value is not None]
    if not inputs.secondaries or not reserves or begin.left is None:
        return
    lowest, key = min(reserves), "reserve" if timing.reserve_minimum is None else "reserve_minimum"
    have = begin.left if full is None else min(begin.left, full)
    terms = [*usual_waits(compute_milestones(inputs, worst=False), begin.noticed), (lowest, key)]
    reason = (
        f"{spell_sum(terms)} must be left when the shutdown begins, or the gate usually ends before the machines are down; "
        f"{begin.reason}"
    )
    remedy = remedies.earlier_mark(inputs, supply, needed)
    if lowest > needed["reserve_minimum"]:
        remedy = f"{set_variable(inputs, f'gate.{key}', needed['reserve_minimum'])}, or {remedy}"
    yield _compare(have, sum_terms(terms), reason, remedy)


# When the UPS cuts the power, and when it restores it


@constraint_rule(
    "offdelay", "supplies", fault="{about} cuts the power {seconds} s before the primary is off", setting=True
)
def _check_offdelay(inputs: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    name, killpower = supply.name, inputs.timing.killpower
    off, on = real_delays(supply, inputs.timing.release)
    both = remedies.set_delays(inputs, supply, offdelay=needed["offdelay"][name], ondelay=needed["ondelay"][name])
    if off is None or on is None:
        if supply.driver == NO_UPS:
            return
        if not takes_delays(supply):
            reason = (
                f"{supply.driver} can't be told when {name} shall cut the power and restore it, and {name} does not report it. Test it: "
                "make drill-live"
            )
            yield Constraint("", "", True, None, None, None, reason)
            return
        reason = f"it is not known when {name} cuts the power and restores it: the defaults of driver {supply.driver} are not known"
        yield _leave_open(killpower, reason, remedies.read_driver_manual(supply))
        return
    reason = (
        f"the primary may need {spell_number(killpower)} s from the order to cut the power until it is off; "
        f"{name} cuts the power after {spell_number(off)} s"
    )
    is_kept = needed["ondelay"][name] == on
    remedy = remedies.set_delays(inputs, supply, offdelay=needed["offdelay"][name]) if is_kept else both
    yield _compare(off, killpower, reason + _explain_rounding(supply, off), remedy)


@constraint_rule("ondelay", "supplies", fault="{about} restores the power {seconds} s too early", setting=True)
def _check_ondelay(inputs: PlanInputs, needed: Needed, supply: Supply) -> Iterator[Constraint]:
    off, on = real_delays(supply, inputs.timing.release)
    if restores_at_once(supply):
        reason = (
            f"ondelay {supply.ondelay:g} tells {supply.name} to restore the power as soon as the mains are there. Test it: make "
            "drill-live"
        )
        yield Constraint("", "", True, None, None, None, reason)
    elif off is not None and on is not None:
        reason = (
            f"{supply.name} cuts the power {spell_number(off)} s after the order and restores it after {spell_number(on)} s, "
            "which must be later"
        )
        remedy = remedies.set_delays(inputs, supply, ondelay=needed["ondelay"][supply.name])
        yield _compare(on, off + 1, reason + _explain_rounding(supply, off), remedy)


def _explain_rounding(supply: Supply, off: float) -> str:
    if not is_cyberpower(supply):
        return ""
    return f" (CyberPower counts whole minutes{', so it cuts at once' if not off else ''})"


# UPSes that power other machines only: nothing on the primary depends on them, so upsmon sets no FSD when one of them alone is low


@constraint_rule("secondary's UPS", "others", fault="{about} has {seconds} s too little when its own UPS alone is low")
def _check_other_supply(inputs: PlanInputs, _needed: Needed, supply: Supply) -> Iterator[Constraint]:
    """Check that a secondary is down before its own UPS is empty. It waits for FSD for HOSTSYNC seconds, then goes down by itself."""
    timing, left = inputs.timing, low_marks(supply)[0]
    for secondary in inputs.secondaries:
        if secondary.ups != supply.name:
            continue
        terms = [
            (notice_time(supply, timing.release), "until upsd reports low battery"),
            (timing.hostsync, "HOSTSYNC"),
            (secondary.begin_time, "until it begins"),
            (secondary.shutdown_limit, "its limit"),
        ]
        reason = f"{spell_sum(terms)} until {secondary.name} is down if {supply.name} alone is low"
        reason += f", and {supply.name} is not told to cut its power: {secondary.name} stays off if the mains return before it is empty"
        remedy = remedies.let_nut_decide(supply, sum_terms(terms))
        if left is None:
            yield _leave_open(
                sum_terms(terms), f"{reason}; it is not known when {supply.name} reports that", remedy, secondary.name
            )
        else:
            reason += f"; it reports low battery with {spell_number(left)} s left"
            yield _compare(left, sum_terms(terms), reason, remedy, secondary.name)


# The stages, and high availability


@constraint_rule("stage", "stages", fault="stage {about} begins {seconds} s too late")
def _check_stage(inputs: PlanInputs, needed: Needed, stage: StagePlan) -> Iterator[Constraint]:
    """Check that the guests of a stage are down before the battery is low."""
    rooms = [(stage_room(inputs, stage, supply), supply) for supply in inputs.supplies]
    known = [(room, supply) for room, supply in rooms if room is not None]
    trigger, remedy = remedies.spell_trigger(stage), remedies.set_stage_runtime(inputs, stage, needed)
    if len(known) < len(rooms):
        reason = f"stage {stage.name} starts at {trigger}; it is not known how long before low battery that is"
        yield _leave_open(None, reason, f"{remedy}, and resolve what is unknown about the UPS")
        return
    room, supply = min(known, key=lambda pair: pair[0].available_time)
    terms = [
        (room.left_at_low, f"low battery of {supply.name}"),
        (room.delay, "until the stage begins"),
        (inputs.stage_time_to_stop(stage, worst=True), "its guests"),
    ]
    reason = f"{spell_sum(terms)}; the stage starts at {trigger}, with {spell_number(room.left_at_trigger)} s left"
    if stage.guests:
        reason += f", and stops {', '.join(stage.guests)} before FSD"
    yield _compare(room.left_at_trigger, sum_terms(terms), reason, remedy)


@constraint_rule("early stage", "stages", fault="stage {about} begins {seconds} s too early in a short outage")
def _check_early_stage(inputs: PlanInputs, _needed: Needed, stage: StagePlan) -> Iterator[Constraint]:
    """Check that a stage with fsd does not begin as soon as the mains fail. on_battery says itself how long it waits."""
    charged = [when_charged(supply) for supply in inputs.supplies]
    value_stage = replace(stage, on_battery=None)
    rooms = [
        (supply.runtime - max(left for left, _delay in points), supply)
        for supply in charged
        if supply.runtime is not None and (points := stage_trigger_points(inputs, value_stage, supply))
    ]
    if not stage.fsd or not rooms:
        return
    have, supply = min(rooms, key=lambda room: room[0])
    reason = (
        f"stage {stage.name} starts at {remedies.spell_trigger(value_stage)}, and then FSD: with {supply.name} charged, an outage of "
        f"{spell_number(max(have, 0))} s shuts everything down, and one of less than {SHORT_OUTAGE} s must not"
    )
    keys = [key for key in ("charge", "runtime") if getattr(stage, key) is not None]
    yield _compare(
        have, SHORT_OUTAGE, reason, f"lower {' and '.join(keys)} of stage {stage.name}, or use on_battery instead"
    )


@constraint_rule("start")
def _check_start(inputs: PlanInputs, _needed: Needed) -> Iterator[Constraint]:
    """Tell which guests start after a boot only when their storage is online."""
    if inputs.proxmox.late:
        reason = (
            f"{', '.join(inputs.proxmox.late)}: on the storage of another machine. If that boots later than this host, nut-stages starts "
            "them when the storage is online"
        )
        yield Constraint("", "", True, None, None, None, reason, "")


@constraint_rule("cluster", vital=True)
def _check_cluster(inputs: PlanInputs, _needed: Needed) -> Iterator[Constraint]:
    """Check that HA does not reset the primary while it waits for other nodes of its cluster."""
    if verdict := judge_cluster(inputs):
        holds, reason, remedy = verdict
        yield Constraint("", "", holds, None, None, None, reason, remedy)


@constraint_rule("HA", vital=True)
def _check_ha(inputs: PlanInputs, _needed: Needed) -> Iterator[Constraint]:
    """Check that HA does not move its guests to another node."""
    proxmox = inputs.proxmox
    if proxmox.ha:
        remedy = remedies.FREEZE if proxmox.migrates else ""
        yield Constraint("", "", not proxmox.migrates, None, None, None, "; ".join(proxmox.ha), remedy)
