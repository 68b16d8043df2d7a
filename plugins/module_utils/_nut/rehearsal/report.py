# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports of drills and of real shutdowns: the planned times beside the measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

from ..base.table import format_grid
from ..plan import model, planner
from ..shutdown import gate
from ..shutdown.policy import ShutdownPolicy
from .aftermath import Aftermath
from .job import Job, read_timing
from .notes import Notes
from .offers import find_offers

Times = Sequence[Optional[float]]
"""When a machine began to go down and when it was down, s; None if it did not happen or was not seen."""


def plan_shutdown(policy: ShutdownPolicy, timing: Mapping[str, int], primary: str) -> model.Plan:
    """Return the plan of a shutdown from the low battery until the primary powers off."""
    seconds: dict[str, Any] = {name.lower(): float(value) for name, value in timing.items()}
    machines = [
        model.PlanMachine(
            machine.name,
            model.SECONDARY,
            "linux",
            shutdown_time=machine.shutdown_time,
            shutdown_limit=machine.shutdown_limit,
        )
        for machine in policy.machines
    ]
    machines.insert(0, model.PlanMachine(primary, model.PRIMARY, "linux"))
    return planner.make_plan(machines, [model.Supply("ups")], model.Timing(**seconds, settle=policy.settle))


def list_planned_times(plan: model.Plan, policy: ShutdownPolicy, primary: str) -> dict[str, Times]:
    """Return the planned Times of each machine, and of the primary's poweroff; s since the low battery."""
    names = [machine.name for machine in policy.machines]
    return {
        **{name: (plan.time_of(model.WAITS_TO_BEGIN, name), plan.time_of(model.GOES_DOWN, name)) for name in names},
        primary: (plan.time_of(model.POWEROFF), None),
    }


def _shift_times(machines: Mapping[str, Times], offset: float = 0.0) -> dict[str, list[float | None]]:
    return {
        name: [None if moment is None else round(moment + offset, 2) for moment in times]
        for name, times in machines.items()
    }


def _format_verdict(problems: Sequence[str], summary: str) -> str:
    return f"The order did not hold: {'; '.join(problems)}" if problems else f"The order held: {summary}"


def _format_times(
    since: str,
    machines: Mapping[str, Times],
    data: Mapping[str, Any],
    own: Sequence[str],
    took: Mapping[str, float | None] | None = None,
) -> list[str]:
    """Return the rows of a table of planned and measured times.

    since: heading of the first column. own: the primary's events. took: how long each machine took, s.
    """

    def format_seconds(value: float | None, sign: str = "+") -> str:
        return "-" if value is None else f"{value:{sign}.1f}"

    rows = [(since, "", "planned", "measured", *([] if took is None else ["duration"]))]
    for name, measured in machines.items():
        events = own if name == data["primary"] else ("begins to go down", "is down")
        planned = data["planned"].get(name, (None, None))
        for first, event, plan, moment in zip((True, False), events, planned, measured):
            row = (name if first else "", event, format_seconds(plan), format_seconds(moment))
            rows.append(row if took is None else (*row, "" if first else format_seconds(took.get(name), "")))
    return format_grid(rows, f"ll{'r' * len(rows[0][2:])}")


# A drill


@dataclass(frozen=True)
class DrillResult:
    """The measurements of a drill."""

    machines: Mapping[str, Times]  # s since the trigger
    trigger: float  # when the battery was low, s since 1970
    poweroff: float  # when the primary would have powered off, s since the trigger
    rule: str  # the gate's rule that ended the wait
    reason: str  # that rule in words

    def list_problems(self) -> list[str]:
        """Return what was out of order; nothing if the order held."""
        problems = []
        for name, (began, down) in self.machines.items():
            if began is None:
                problems.append(f"{name} had not begun to go down when this host would have powered off")
            elif down is None or down > self.poweroff:
                problems.append(f"{name} was not down when this host would have powered off")
        if self.rule not in (gate.DOWN, gate.ASSUMED):
            problems.append(f"the wait ended because {self.reason}")
        return problems

    def format_verdict(self) -> str:
        """Return one line that says whether the order held."""
        last = max(((times[1] or 0.0, name) for name, times in self.machines.items()), default=None)
        if last is None:
            return _format_verdict(self.list_problems(), "no machines to wait for")
        summary = f"the last machine down was {last[1]}, {self.poweroff - last[0]:.1f} s before this host"
        return _format_verdict(self.list_problems(), summary)

    def to_data(self, job: Job) -> dict[str, Any]:
        """Return the result as JSON data."""
        plan = plan_shutdown(job.policy, job.timing, job.primary)
        return {
            "machines": _shift_times(self.machines),
            "trigger": round(self.trigger, 3),
            "poweroff": round(self.poweroff, 2),
            "decision": {"rule": self.rule, "reason": self.reason},
            "primary": job.primary,
            "planned": _shift_times(list_planned_times(plan, job.policy, job.primary)),
            "held": not self.list_problems(),
            "verdict": self.format_verdict(),
        }


def format_drill_table(data: Mapping[str, Any]) -> str:
    """Return DrillResult.to_data() as a table, with the verdict."""
    machines = {**data["machines"], data["primary"]: (data["poweroff"],)}
    lines = _format_times("s since low battery", machines, data, ["would power off"])
    return "\n".join([*lines, "", data["verdict"]])


# A real shutdown


def build_record_report(
    notes: Notes, policy: ShutdownPolicy, conf: str, after: Aftermath, own: float | None = None
) -> dict[str, Any]:
    """Return planned and measured times as JSON data, in seconds since FSD.

    own: nut_server_shutdown_time of this host, s. "seen" is for the picture, whose plan counts from the low battery, one poll
    before FSD.
    """
    plan = plan_shutdown(policy, read_timing(conf), notes.primary)
    poll = plan.time_of(model.FSD) or 0.0
    zero = notes.fsd if notes.fsd is not None else notes.began
    poweroff = notes.ended if notes.ended is not None else after.poweroff
    moments: dict[str, Times] = {name: (noted.logged_out, noted.silent_since) for name, noted in notes.machines.items()}
    machines = _shift_times({**moments, notes.primary: (poweroff, after.end)}, -zero)
    took = {name: _time_taken(times) for name, times in machines.items()}
    if after.guests is not None and took[notes.primary] is not None:
        took[notes.primary] = round(max((took[notes.primary] or 0.0) - after.guests, 0.0), 2)
    problems = _record_problems(notes, machines, after)
    summary = "all machines were down before this host powered off" if notes.machines else "no machines to wait for"
    data = {
        "restarted": after.restarted,
        "primary": notes.primary,
        "fsd": notes.fsd,
        "machines": machines,
        "planned": _shift_times(list_planned_times(plan, policy, notes.primary), -poll),
        "seen": _shift_times(machines, poll),
        "took": took,
        "guests": after.guests,
        "reason": after.reason,
        "held": not problems,
        "verdict": _format_verdict(problems, summary),
        "offers": [asdict(offer) for offer in find_offers(policy, took, notes.primary, own)],
        "steps": [[round(moment - zero, 2), event] for moment, event in notes.steps],
    }
    return {**data, "table": format_record_table(data)}


def _time_taken(times: Sequence[float | None]) -> float | None:
    began, down = times
    return None if began is None or down is None or down < began else round(down - began, 2)


def _record_problems(notes: Notes, machines: Mapping[str, Sequence[float | None]], after: Aftermath) -> list[str]:
    if notes.fsd is None:
        return ["no FSD was seen"]
    poweroff = machines[notes.primary][0]
    problems = []
    for name in notes.machines:
        began, down = machines[name]
        if down is None or (poweroff is not None and down > poweroff):
            problems.append(f"{name} was not down when {notes.primary} powered off")
        elif began is None:
            problems.append(f"{name} stopped answering without logging out")
    if poweroff is None:
        unknown = f"it is unknown when {notes.primary} powered off"
        problems.append(unknown if after.restarted else f"{notes.primary} is still waiting")
    return problems


def format_record_table(data: Mapping[str, Any]) -> str:
    """Return build_record_report() as a table, with each machine's duration and the verdict."""
    lines = _format_times("s since FSD", data["machines"], data, ["powers off", "is off"], data["took"])
    if data["guests"] is not None:
        lines += [
            "",
            f"The guests of {data['primary']} took another {data['guests']:.1f} s, which its duration does not include.",
        ]
    return "\n".join([*lines, "", data["verdict"]])
