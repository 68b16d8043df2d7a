# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a gate: what it saw and how it ended. `nut-shutdown status` and the doctor read it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base import records
from .gate import NEVER_SEEN, GateState, MachineState
from .policy import AwaitedMachine, ShutdownPolicy

VERSION = 1


@dataclass(frozen=True)
class MachineReport:
    """How a machine went down. Times: seconds since the gate began."""

    name: str
    shutdown_time: float  # when it was expected to be down
    shutdown_limit: float
    down: float | None  # start of the silence by which it counts as down; None: it was not down
    assumed: bool  # it counts as down only because shutdown_time had passed, and the gate could not tell
    given_up: bool


@dataclass(frozen=True)
class PowerReport:
    """The last reading of a UPS."""

    name: str
    on_battery: bool | None = None
    runtime: float | None = None  # seconds
    at: float | None = None  # seconds since the gate began; None: no reading


@dataclass(frozen=True)
class GateReport:
    """What a gate saw, so far."""

    mode: str  # gate or drill
    began: float  # seconds since 1970
    elapsed: float  # seconds
    rule: str | None  # which rule ended it; None: it has not ended
    reason: str | None
    machines: tuple[MachineReport, ...]
    power: tuple[PowerReport, ...]
    steps: tuple[tuple[float, str], ...]  # seconds since the gate began, log line

    @property
    def ended_at(self) -> float:
        """Return when its last round was, in seconds since 1970."""
        return self.began + self.elapsed


def read_report(path: Path) -> GateReport | str | None:
    """Return the report of the last gate, None if there is none, or a message if it can't be read."""
    try:
        return records.read_record(GateReport, path, VERSION)
    except FileNotFoundError:
        return None
    except (OSError, records.RecordError):
        return "the report can't be read"


def make_report(
    policy: ShutdownPolicy, state: GateState, mode: str, began: float, steps: Sequence[tuple[float, str]]
) -> GateReport:
    """Return the report of a gate from its state. began: seconds since 1970. steps: log lines, by seconds since then."""
    rule, reason = state.ended or (None, None)
    power = []
    for name in map(str, policy.upses):
        reading = state.power.get(name)
        if reading:
            at = round(reading.at - state.began, 3)
            power.append(PowerReport(name, reading.on_battery, reading.runtime, at))
        else:
            power.append(PowerReport(name))
    return GateReport(
        mode,
        round(began, 3),
        round(max(state.now - state.began, 0.0), 3),
        rule,
        reason,
        tuple(
            _report_machine(machine, state.machines.get(machine.name, NEVER_SEEN), state.began)
            for machine in policy.machines
        ),
        tuple(power),
        tuple((round(at, 3), line) for at, line in steps),
    )


def _report_machine(machine: AwaitedMachine, state: MachineState, began: float) -> MachineReport:
    since = state.silent if state.silent is not None else state.assumed
    down = round(max(since - began, 0.0), 3) if state.down is not None and since is not None else None
    return MachineReport(
        machine.name,
        machine.shutdown_time,
        machine.shutdown_limit,
        down,
        assumed=state.is_assumed_down,
        given_up=state.given_up,
    )
