# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a plan: who goes down when, how long that takes, and whether the battery lasts. Nothing is touched here.

A plan *holds* if all is well even in the worst run. It is *feasible* if the expected run ends before a charged battery does: a plan
that is not can't work on any day. A guest that is not stopped before the NAS whose disks it uses is reported, but does not make the plan
infeasible: the guest hangs, yet the battery lasts.
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
from .needed import compute_needed
from .supplies import parse_release
from .timeline import PlanInputs, compute_events


def make_plan(
    machines: Iterable[PlanMachine],
    supplies: Iterable[Supply],
    timing: Timing,
    stages: Iterable[StagePlan] = (),
    proxmox: ProxmoxGuests | None = None,
) -> Plan:
    """Work out both runs, what the settings must be for it, and whether they are. Raises PlanError.

    proxmox: None if nobody asked; the machines then say which guests there are.
    """
    given = PlanInputs(tuple(machines), tuple(supplies), timing, tuple(stages), proxmox or ProxmoxGuests())
    _check_inputs(given)
    needed = compute_needed(given)
    judged = constraints.check_constraints(given, needed)
    return Plan(
        compute_events(given, worst=False),
        compute_events(given, worst=True),
        needed,
        tuple(judged),
        holds=_all_hold(judged),
        machines=given.machines,
        supplies=given.supplies,
        stages=given.stages,
        feasible=_all_hold(filter(constraints.is_vital, judged)),
        guests=tuple(_list_guests(given)),
        ha=given.proxmox.ha,
    )


def _all_hold(judged: Iterable[Constraint]) -> bool | None:
    verdicts = {constraint.holds for constraint in judged}
    return False if False in verdicts else None if None in verdicts else True


def _list_guests(given: PlanInputs) -> Iterator[PlannedGuest]:
    """List the guests: by stage, then those that the primary stops, each as Proxmox says it, or else as given."""
    found, staged = {guest.machine: guest for guest in given.proxmox.guests}, given.staged
    machines = [machine for machine in given.machines if machine.role == GUEST]
    for guest in sorted(
        machines, key=lambda guest: (staged.get(guest.name, len(given.stages)), guest.guest_id or 0, guest.name)
    ):
        stage = given.stages[staged[guest.name]].name if guest.name in staged else ""
        row = found.get(guest.name) or PlannedGuest(
            guest.name, guest.guest_id, guest.kind, "", stage, guest.shutdown_limit
        )
        yield replace(row, stage=stage, needs=guest.needs)


# What can't be a plan


def _check_inputs(given: PlanInputs) -> None:
    """Raise PlanError if no plan can be made of this."""
    for what, named in (("machine", given.machines), ("UPS", given.supplies), ("stage", given.stages)):
        called = [each.name for each in named]
        for name in called:
            if not name or called.count(name) > 1:
                raise PlanError(f"{what} {name!r}: each {what} has a name of its own")
    primaries = [machine.name for machine in given.machines if machine.role == PRIMARY]
    if len(primaries) != 1:
        raise PlanError(
            f"a plan is for one primary, and there are {len(primaries)} ({', '.join(primaries) or 'none'}):"
            f" give one machine the role {PRIMARY}"
        )
    if not given.supplies:
        raise PlanError("there is no UPS: name at least one in supplies")
    names = {machine.name for machine in given.machines}
    for machine in given.machines:
        _check_machine(machine, names)
    for stage in given.stages:
        _check_stage(stage, given)
    for supply in given.supplies:
        _check_numbers(f"UPS {supply.name}", supply)
    _check_numbers("timing", given.timing)
    parse_release(given.timing.release)


def _check_machine(machine: PlanMachine, names: set[str]) -> None:
    name, role = machine.name, machine.role
    if role not in KINDS:
        raise PlanError(f"{name}: role {role!r} is none of {', '.join(KINDS)}")
    if machine.kind not in KINDS[role]:
        raise PlanError(f"{name}: kind {machine.kind!r} is none of a {role}'s: {', '.join(KINDS[role])}")
    for other in machine.needs:
        if other not in names or other == name:
            raise PlanError(f"{name}: needs names {other}, which is no other machine of this plan")
    _check_numbers(name, machine)


def _check_stage(stage: StagePlan, given: PlanInputs) -> None:
    guests = {machine.name for machine in given.machines if machine.role == GUEST}
    for name in stage.guests:
        if name not in guests:
            raise PlanError(
                f"stage {stage.name}: {name} is no guest: only guests of the primary are stopped by a stage"
            )
    if stage.on_battery is stage.charge is stage.runtime is None:
        raise PlanError(f"stage {stage.name}: nothing starts it: set on_battery, charge or runtime")
    _check_numbers(f"stage {stage.name}", stage)


def _check_numbers(about: str, checked: Any) -> None:
    for name, value in asdict(checked).items():
        if isinstance(value, (int, float)) and not 0 <= value < math.inf:
            raise PlanError(f"{about}: {name} is {value}; it can't be less than 0, and must be a number")
