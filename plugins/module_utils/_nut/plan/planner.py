# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a plan: which machine goes down when, and whether the battery lasts. A pure function of its input.

A plan *holds* if every condition is met even in the worst case. It is *feasible* if the usual run ends before a charged battery is empty;
a plan that is not feasible can never work. A guest that is not stopped before the NAS whose disks it uses is reported but does
not make the plan infeasible: the guest hangs, yet the battery lasts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

from . import constraints
from .model import (
    GUEST,
    KINDS,
    PRIMARY,
    Constraint,
    Plan,
    PlanError,
    PlanMachine,
    PlannedGuest,
    ProxmoxGuests,
    StagePlan,
    Supply,
    Timing,
)
from .needed import choose_runtime_low, compute_needed
from .remedies import spell_number
from .supplies import find_low_mark, parse_release
from .timeline import PlanInputs, compute_events


def make_plan(
    machines: Iterable[PlanMachine],
    supplies: Iterable[Supply],
    timing: Timing,
    stages: Iterable[StagePlan] = (),
    proxmox: ProxmoxGuests | None = None,
) -> Plan:
    """Compute both runs and the settings that they need, and check all conditions. Raises PlanError.

    proxmox: None if Proxmox VE was not asked; MACHINES then lists the guests.
    """
    given = tuple(supplies)
    own = tuple(supply for supply in given if supply.powervalue > 0)
    others = tuple(supply for supply in given if supply.powervalue <= 0)
    inputs = PlanInputs(tuple(machines), own, timing, tuple(stages), proxmox or ProxmoxGuests(), others)
    _check_inputs(inputs)
    needed = compute_needed(inputs)
    runtime_low, reason = choose_runtime_low(inputs, needed)
    inputs = replace(inputs, supplies=tuple(replace(supply, watched=runtime_low) for supply in own))
    checked = constraints.check_constraints(inputs, needed)
    return Plan(
        compute_events(inputs, worst=False),
        compute_events(inputs, worst=True),
        needed,
        tuple(checked),
        holds=_all_hold(checked),
        machines=inputs.machines,
        supplies=inputs.supplies,
        stages=inputs.stages,
        feasible=_all_hold(filter(constraints.is_vital, checked)),
        guests=tuple(_list_guests(inputs)),
        others=others,
        runtime_low=runtime_low,
        runtime_low_reason=reason,
        first_mark="" if runtime_low is None else _name_first_mark(inputs),
        ha=inputs.proxmox.ha,
        cluster_nodes=inputs.proxmox.cluster.nodes,
    )


def _name_first_mark(inputs: PlanInputs) -> str:
    """Return which UPSes report a low battery, and with how much left, before nut-stages may see its mark; "" if it sees it first."""
    marks = {supply.name: find_low_mark(supply, inputs.timing.release) for supply in inputs.supplies}
    earlier = [
        f"{name} reports a low battery, with {spell_number(mark.left)} s left"
        for name, mark in marks.items()
        if mark is not None and mark.decider != "nut-stages"
    ]
    return " and ".join(earlier) if len(earlier) == len(marks) else ""


def _all_hold(checked: Iterable[Constraint]) -> bool | None:
    verdicts = {constraint.holds for constraint in checked}
    return False if False in verdicts else None if None in verdicts else True


def _list_guests(inputs: PlanInputs) -> Iterator[PlannedGuest]:
    """Yield the guests in the order of the stages, then those that the primary stops."""
    from_proxmox, staged = {guest.machine: guest for guest in inputs.proxmox.guests}, inputs.stage_positions
    machines = [machine for machine in inputs.machines if machine.role == GUEST]
    for guest in sorted(
        machines, key=lambda guest: (staged.get(guest.name, len(inputs.stages)), guest.guest_id or 0, guest.name)
    ):
        stage = inputs.stages[staged[guest.name]].name if guest.name in staged else ""
        row = from_proxmox.get(guest.name) or PlannedGuest(
            guest.name, guest.guest_id, guest.kind, "", stage, guest.shutdown_limit
        )
        yield replace(row, stage=stage, needs=guest.needs)


# Invalid input


def _check_inputs(inputs: PlanInputs) -> None:
    """Raise PlanError if the input is invalid."""
    for what, items in (
        ("machine", inputs.machines),
        ("UPS", (*inputs.supplies, *inputs.others)),
        ("stage", inputs.stages),
    ):
        names = [item.name for item in items]
        for name in names:
            if not name or names.count(name) > 1:
                raise PlanError(f"{what} {name!r}: each {what} needs a name that no other {what} has")
    primaries = [machine.name for machine in inputs.machines if machine.role == PRIMARY]
    if len(primaries) != 1:
        raise PlanError(
            f"a plan is for exactly one primary, but there are {len(primaries)} ({', '.join(primaries) or 'none'}):"
            f" give one machine the role {PRIMARY}"
        )
    if not inputs.supplies:
        raise PlanError(f"no UPS powers {primaries[0]}: list at least one in supplies, with a powervalue of 1 or more")
    machines = {machine.name for machine in inputs.machines}
    for machine in inputs.machines:
        _check_machine(machine, machines)
    for stage in inputs.stages:
        _check_stage(stage, inputs)
    for supply in (*inputs.supplies, *inputs.others):
        _check_numbers(f"UPS {supply.name}", supply)
    _check_numbers("timing", inputs.timing)
    parse_release(inputs.timing.release)


def _check_machine(machine: PlanMachine, machines: set[str]) -> None:
    name, role = machine.name, machine.role
    if role not in KINDS:
        raise PlanError(f"{name}: role {role!r} does not exist; use one of {', '.join(KINDS)}")
    if machine.kind not in KINDS[role]:
        raise PlanError(
            f"{name}: kind {machine.kind!r} is not possible for a {role}; use one of {', '.join(KINDS[role])}"
        )
    for other in machine.needs:
        if other not in machines or other == name:
            raise PlanError(f"{name}: needs lists {other}, which is not another machine of this plan")
    _check_numbers(name, machine)


def _check_stage(stage: StagePlan, inputs: PlanInputs) -> None:
    guests = {machine.name for machine in inputs.machines if machine.role == GUEST}
    for name in stage.guests:
        if name not in guests:
            raise PlanError(f"stage {stage.name}: {name} is not a guest; a stage can only stop guests of the primary")
    if stage.on_battery is stage.charge is stage.runtime is None:
        raise PlanError(f"stage {stage.name} has no trigger: set on_battery, charge or runtime")
    _check_numbers(f"stage {stage.name}", stage)


def _check_numbers(about: str, checked: Any) -> None:
    for name, value in asdict(checked).items():
        least = -1 if name == "ondelay" else 0  # see restores_at_once()
        if isinstance(value, (int, float)) and not least <= value < math.inf:
            raise PlanError(f"{about}: {name} is {value}; it must be a number of at least 0")
