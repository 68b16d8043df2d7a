# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a gate saw, and how it ended: the file that people and other programs look at afterwards."""

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
    """What became of a machine."""

    name: str
    shutdown_time: float
    shutdown_limit: float
    down: float | None  # seconds from the gate's beginning to its first silence; None: it was not down
    assumed: bool  # nobody could tell whether it was down, and its time was over
    given_up: bool


@dataclass(frozen=True)
class PowerReport:
    """What upsd said last of a UPS."""

    name: str
    on_battery: bool | None = None
    runtime: float | None = None  # seconds
    at: float | None = None  # seconds since the gate's beginning; None: it said nothing


@dataclass(frozen=True)
class GateReport:
    """What a gate saw, up to now."""

    mode: str  # gate or drill
    began: float  # seconds since 1970
    elapsed: float  # seconds
    rule: str | None  # which rule ended it; None: it has not ended
    reason: str | None
    hosts: tuple[MachineReport, ...]
    power: tuple[PowerReport, ...]
    steps: tuple[tuple[float, str], ...]  # seconds since the beginning, and what happened


def read_report(path: Path) -> GateReport | str | None:
    """Return the report of the last gate; None if there was none; or why it can't be used, in words."""
    try:
        return records.read_record(GateReport, path, VERSION)
    except FileNotFoundError:
        return None
    except (OSError, records.RecordError):
        return "its report can't be understood"


def make_report(
    policy: ShutdownPolicy, state: GateState, mode: str, began: float, steps: Sequence[tuple[float, str]]
) -> GateReport:
    """Return the report of a gate that stands there. began: seconds since 1970."""
    rule, reason = state.ended or (None, None)
    power = []
    for name in map(str, policy.upses):
        said = state.power.get(name)
        if said:
            power.append(PowerReport(name, said.on_battery, said.runtime, round(said.at - state.began, 3)))
        else:
            power.append(PowerReport(name))
    return GateReport(
        mode,
        round(began, 3),
        round(max(state.now - state.began, 0.0), 3),
        rule,
        reason,
        tuple(_report_machine(host, state.hosts.get(host.name, NEVER_SEEN), state.began) for host in policy.machines),
        tuple(power),
        tuple((round(at, 3), words) for at, words in steps),
    )


def _report_machine(host: AwaitedMachine, seen: MachineState, began: float) -> MachineReport:
    since = seen.silent if seen.silent is not None else seen.assumed
    down = round(max(since - began, 0.0), 3) if seen.down is not None and since is not None else None
    return MachineReport(host.name, host.shutdown_time, host.shutdown_limit, down, seen.is_assumed_down, seen.given_up)
