# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was planned of a shutdown and what was seen of it, side by side: of a drill, and of a real one."""

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
"""When a machine began to go down, and was down, s; None if it never was so, or nobody can tell."""


def plan_shutdown(policy: ShutdownPolicy, timing: Mapping[str, int], primary: str) -> model.Plan:
    """Return the plan of a shutdown, as it counts from the low battery on until the primary powers off."""
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


def planned_times(plan: model.Plan, policy: ShutdownPolicy, primary: str) -> dict[str, Times]:
    """Return when each machine should begin to go down, and be down, and the primary should power off; s from the low battery on."""
    names = [machine.name for machine in policy.machines]
    return {
        **{name: (plan.time_of(model.WAITS_TO_BEGIN, name), plan.time_of(model.GOES_DOWN, name)) for name in names},
        primary: (plan.time_of(model.POWEROFF), None),
    }


def _shift_times(machines: Mapping[str, Times], by: float = 0.0) -> dict[str, list[float | None]]:
    return {name: [None if at is None else round(at + by, 2) for at in times] for name, times in machines.items()}


def _format_verdict(wrong: Sequence[str], order: str) -> str:
    return f"The order did not hold: {'; '.join(wrong)}" if wrong else f"The order held: {order}"


def _format_times(
    since: str,
    machines: Mapping[str, Times],
    data: Mapping[str, Any],
    own: Sequence[str],
    took: Mapping[str, float | None] | None = None,
) -> list[str]:
    """Show what was planned and what was seen, side by side. own: what the primary does at its times. took: how long each took."""

    def word(value: float | None, sign: str = "+") -> str:
        return "-" if value is None else f"{value:{sign}.1f}"

    rows = [(since, "", "planned", "seen", *([] if took is None else ["took"]))]
    for name, seen in machines.items():
        does = own if name == data["primary"] else ("begins to go down", "is down")
        plans = data["planned"].get(name, (None, None))
        for first, words, plan, at in zip((True, False), does, plans, seen):
            row = (name if first else "", words, word(plan), word(at))
            rows.append(row if took is None else (*row, "" if first else word(took.get(name), "")))
    return format_grid(rows, f"ll{'r' * len(rows[0][2:])}")


# A drill


@dataclass(frozen=True)
class DrillResult:
    """What a drill saw."""

    machines: Mapping[str, Times]  # s from the trigger
    trigger: float  # when the battery was low, s since 1970
    poweroff: float  # when the primary would have powered off, s from the trigger
    rule: str  # why then, as the gate says
    reason: str  # the same in words

    def list_problems(self) -> list[str]:
        """Return what was out of order; nothing, if the order held."""
        wrong = []
        for name, (began, down) in self.machines.items():
            if began is None:
                wrong.append(f"{name} had not begun to go down when this host would have powered off")
            elif down is None or down > self.poweroff:
                wrong.append(f"{name} was not down when this host would have powered off")
        if self.rule not in (gate.DOWN, gate.ASSUMED):
            wrong.append(f"the wait ended because {self.reason}")
        return wrong

    def format_verdict(self) -> str:
        """Return in a line whether the order held."""
        last = max(((times[1] or 0.0, name) for name, times in self.machines.items()), default=None)
        if last is None:
            return _format_verdict(self.list_problems(), "there is nobody to wait for")
        words = f"{last[1]} was the last to be down, {self.poweroff - last[0]:.1f} s before this host"
        return _format_verdict(self.list_problems(), words)

    def to_data(self, job: Job) -> dict[str, Any]:
        """Return it as JSON has it."""
        plan = plan_shutdown(job.policy, job.timing, job.primary)
        return {
            "machines": _shift_times(self.machines),
            "trigger": round(self.trigger, 3),
            "poweroff": round(self.poweroff, 2),
            "decision": {"rule": self.rule, "reason": self.reason},
            "primary": job.primary,
            "planned": _shift_times(planned_times(plan, job.policy, job.primary)),
            "held": not self.list_problems(),
            "verdict": self.format_verdict(),
        }


def drill_table(data: Mapping[str, Any]) -> str:
    """Show what Seen.data() says, and the verdict."""
    machines = {**data["machines"], data["primary"]: (data["poweroff"],)}
    lines = _format_times("s from the trigger on", machines, data, ["would power off"])
    return "\n".join([*lines, "", data["verdict"]])


# A real shutdown


def record_report(
    notes: Notes, policy: ShutdownPolicy, conf: str, after: Aftermath, own: float | None = None
) -> dict[str, Any]:
    """Put together what was planned and what was seen, in seconds from FSD on.

    own: nut_server_shutdown_time of this host, s. "seen" is for the picture: the plan counts from the low battery on, and FSD comes
    a poll later.
    """
    plan = plan_shutdown(policy, read_timing(conf), notes.primary)
    poll = plan.time_of(model.FSD) or 0.0
    zero = notes.fsd if notes.fsd is not None else notes.began
    poweroff = notes.ended if notes.ended is not None else after.poweroff
    moments: dict[str, Times] = {name: (noted.left, noted.silent) for name, noted in notes.machines.items()}
    machines = _shift_times({**moments, notes.primary: (poweroff, after.end)}, -zero)
    took = {name: _time_taken(times) for name, times in machines.items()}
    if after.guests is not None and took[notes.primary] is not None:
        took[notes.primary] = round(max((took[notes.primary] or 0.0) - after.guests, 0.0), 2)
    wrong = _record_problems(notes, machines, after)
    order = "all were down before this host began to power off" if notes.machines else "there was nobody to wait for"
    data = {
        "again": after.again,
        "primary": notes.primary,
        "fsd": notes.fsd,
        "machines": machines,
        "planned": _shift_times(planned_times(plan, policy, notes.primary), -poll),
        "seen": _shift_times(machines, poll),
        "took": took,
        "guests": after.guests,
        "reason": after.reason,
        "held": not wrong,
        "verdict": _format_verdict(wrong, order),
        "offers": [asdict(offer) for offer in find_offers(policy, took, notes.primary, own)],
        "steps": [[round(at - zero, 2), words] for at, words in notes.steps],
    }
    return {**data, "table": record_table(data)}


def _time_taken(times: Sequence[float | None]) -> float | None:
    began, down = times
    return None if began is None or down is None or down < began else round(down - began, 2)


def _record_problems(notes: Notes, machines: Mapping[str, Sequence[float | None]], after: Aftermath) -> list[str]:
    if notes.fsd is None:
        return ["no FSD was seen"]
    poweroff = machines[notes.primary][0]
    wrong = []
    for name in notes.machines:
        began, down = machines[name]
        if down is None or (poweroff is not None and down > poweroff):
            wrong.append(f"{name} was not down when {notes.primary} powered off")
        elif began is None:
            wrong.append(f"{name} fell silent without having logged out")
    if poweroff is None:
        # while it is under way that is no wonder
        wrong += [f"nobody saw when {notes.primary} powered off"] if after.again else [f"{notes.primary} still waits"]
    return wrong


def record_table(data: Mapping[str, Any]) -> str:
    """Show what record_report() says, what each machine took, and the verdict."""
    lines = _format_times("s from FSD on", data["machines"], data, ["powers off", "is off"], data["took"])
    if data["guests"] is not None:
        words = f"Its guests took {data['guests']:.1f} s of that, which {data['primary']}'s own time does not count."
        lines += ["", words]
    return "\n".join([*lines, "", data["verdict"]])
