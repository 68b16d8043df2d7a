# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan as data that JSON can hold, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..base import records
from ..base.text import printable
from .model import CUT, GUEST, KILLS, KINDS, POWEROFF, PRIMARY, Plan, PlanError
from .text import spell_verdict

# a plan that was sent, and is drawn, may have so many machines and UPSes
MOST_ROWS = 1000


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as data, with its verdict."""
    data: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    return {**data, "verdict": spell_verdict(plan)}


def plan_from_dict(data: Mapping[str, Any]) -> Plan:
    """Return the plan that plan_to_dict() made DATA from. DATA may come from a host that answers anything. Raises PlanError."""
    try:
        if not isinstance(data, Mapping):
            raise records.RecordError("it is no dictionary")
        # the verdict is worked out anew
        plan = records.build_record(Plan, {name: value for name, value in data.items() if name != "verdict"}, "plan")
        _check_whole(plan)
    except records.RecordError as error:
        raise PlanError(f"this is no plan that was kept: {error}") from None
    return plan


def _check_whole(plan: Plan) -> None:
    """Raise RecordError if a plan lacks what each plan has."""
    if len(plan.machines) + len(plan.supplies) > MOST_ROWS:
        raise records.RecordError(f"it has more than {MOST_ROWS} machines and UPSes")
    if [machine.role for machine in plan.machines].count(PRIMARY) != 1:
        raise records.RecordError("it does not have one primary")
    wrong = [machine.name for machine in plan.machines if machine.kind not in KINDS.get(machine.role, ())]
    wrong += [guest.machine for guest in plan.guests if guest.kind not in KINDS[GUEST]]
    if wrong:
        raise records.RecordError(f"a machine has a role or a kind that there is not: {printable(wrong[0], 60)}")
    expected, worst = ({(event.what, event.machine) for event in events} for events in (plan.events, plan.worst))
    for told in (expected, worst):
        if not {(POWEROFF, ""), (KILLS, plan.primary.name)} <= told or CUT not in {what for what, _machine in told}:
            raise records.RecordError("it does not say when the primary and the UPS go off")
    if expected - worst:
        raise records.RecordError("something happens as expected, and not at the limits")
    if not plan.constraints:
        raise records.RecordError("it does not say what must be so")
