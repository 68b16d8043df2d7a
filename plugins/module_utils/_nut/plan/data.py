# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan as JSON data, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..base import records
from ..base.text import printable
from .model import CUT, GUEST, KILLPOWER, KINDS, POWEROFF, PRIMARY, Plan, PlanError
from .text import spell_begin, spell_problems, spell_verdict

# A plan that a host has sent is drawn; this caps the rows of the drawing.
MAX_ROWS = 1000


_WORDS = {"verdict", "begin", "problems"}


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as data, with its verdict and its begin in words."""
    data: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    return {**data, "verdict": spell_verdict(plan), "begin": spell_begin(plan), "problems": spell_problems(plan)}


def plan_from_dict(data: Mapping[str, Any]) -> Plan:
    """Return the plan from which plan_to_dict() made DATA. DATA may come from a hostile host. Raises PlanError."""
    try:
        if not isinstance(data, Mapping):
            raise records.RecordError("it is not a dictionary")
        # The words are not trusted: they are written again.
        plan = records.build_record(Plan, {name: value for name, value in data.items() if name not in _WORDS}, "plan")
        _check_whole(plan)
    except records.RecordError as error:
        raise PlanError(f"not a saved plan: {error}") from None
    return plan


def _check_whole(plan: Plan) -> None:
    """Raise RecordError if a plan lacks a part that every plan has."""
    if len(plan.machines) + len(plan.supplies) > MAX_ROWS:
        raise records.RecordError(f"it has more than {MAX_ROWS} machines and UPSes")
    if [machine.role for machine in plan.machines].count(PRIMARY) != 1:
        raise records.RecordError("it does not have exactly one primary")
    wrong = [machine.name for machine in plan.machines if machine.kind not in KINDS.get(machine.role, ())]
    wrong += [guest.machine for guest in plan.guests if guest.kind not in KINDS[GUEST]]
    if wrong:
        raise records.RecordError(f"a machine has an unknown role or kind: {printable(wrong[0], 60)}")
    usual, worst = ({(event.what, event.machine) for event in events} for events in (plan.events, plan.worst))
    for events in (usual, worst):
        if not {(POWEROFF, ""), (KILLPOWER, plan.primary.name)} <= events or CUT not in {
            what for what, _machine in events
        }:
            raise records.RecordError("it lacks the moment at which the primary or the UPS goes off")
    if usual - worst:
        raise records.RecordError("an event of the usual run is missing in the worst case")
    if not plan.constraints:
        raise records.RecordError("it has no conditions")
