# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How things stand: who would be waited for, what the UPSes say, and how the last shutdown went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..base import hostnames, records
from ..base.clock import format_time
from ..base.systemd import Run
from ..base.table import format_grid
from . import observe, report, watch
from .gate import POWER_TEXT, GateReading, GateState
from .gate import VERSION as GATE_VERSION
from .policy import AwaitedMachine, ShutdownPolicy, UpsAddress


@dataclass(frozen=True)
class ShutdownStatus:
    """How all stands that a policy names."""

    path: Path  # of the policy
    policy: ShutdownPolicy
    seen: Mapping[str, bool | None]  # is a machine up? None: nobody can tell
    power: Mapping[str, GateReading | str]  # what upsd says of each UPS, or why it says nothing
    gate: GateState | None  # of the last gate of this boot
    last: report.GateReport | str | None  # of the last gate; None if there was none; or why it can't be used
    events: tuple[watch.WatchEvent, ...]  # what nut-watch did for upsd

    def to_data(self) -> dict[str, Any]:
        """Return it as data."""
        return {
            "policy": str(self.path),
            "settle": self.policy.settle,
            "reserve": self.policy.reserve,
            "least": self.policy.least,
            "longest": self.policy.longest,
            "hosts": [
                {
                    "name": host.name,
                    "up": self.seen.get(host.name),
                    "how": _describe_check(host),
                    "shutdown_time": host.shutdown_time,
                    "shutdown_limit": host.shutdown_limit,
                }
                for host in self.policy.machines
            ],
            "upses": [self._ups_data(ups) for ups in self.policy.upses],
            "gate": asdict(self.gate) if self.gate else None,
            "last": asdict(self.last) if isinstance(self.last, report.GateReport) else None,
            "upsd": [asdict(event) for event in self.events],
        }

    def _ups_data(self, ups: UpsAddress) -> dict[str, Any]:
        said = self.power[str(ups)]
        if isinstance(said, str):
            return {"name": str(ups), "on_battery": None, "runtime": None, "error": said}
        return {"name": str(ups), "on_battery": said.on_battery, "runtime": said.runtime, "error": None}

    def to_text(self) -> str:
        """Return it as text."""
        lines = [f"would wait at most {self.policy.longest:g} s for:"]
        words = {True: "up", False: "down", None: "can't tell"}
        rows = []
        for host in self.policy.machines:
            times = f"shutdown_time {host.shutdown_time:g} s, shutdown_limit {host.shutdown_limit:g} s"
            rows.append((host.name, words[self.seen.get(host.name)], f"{times}, by {_describe_check(host)}"))
        lines += format_grid(rows, indent="  ")
        lines += [] if self.policy.machines else ["  no machines"]
        lines.append(f"or until a UPS has only {self._describe_reserve()}:")
        power = {str(ups): self.power[str(ups)] for ups in self.policy.upses}
        lines += format_grid(
            [(name, said if isinstance(said, str) else _describe_power(said)) for name, said in power.items()],
            indent="  ",
        )
        lines += [] if self.policy.upses else ["  no UPSes"]
        lines += ["", *self._format_last_gate()]
        if self.events:
            lines += ["nut-watch, last events:", *(f"  {event}" for event in self.events[-5:])]
        return "\n".join(lines)

    def _describe_reserve(self) -> str:
        reserve, least = self.policy.reserve, self.policy.least
        if least is None or least >= reserve:
            return f"{reserve:g} s left"
        return f"{least:g} s left, or {reserve:g} s if a machine takes longer than its shutdown_time"

    def _format_last_gate(self) -> list[str]:
        if not isinstance(self.last, report.GateReport):
            return [f"last: {self.last or 'nothing'}"]
        how = f"it ended ({self.last.rule}): {self.last.reason}" if self.last.rule else "it has not ended"
        steps = [f"  +{at:.1f} s  {words}" for at, words in self.last.steps]
        return [f"last: {self.last.mode}, began {format_time(self.last.began)}; {how}", *steps]


def observe_status(
    policy: ShutdownPolicy,
    run: Run,
    names: hostnames.Resolve,
    *,
    policy_path: Path,
    state_path: Path,
    report_path: Path,
    watch_path: Path,
) -> ShutdownStatus:
    """Look once at all that a policy names. run: runs qm and pct."""
    seen, power = observe.observe_once(policy, run, names)
    return ShutdownStatus(
        policy_path,
        policy,
        seen,
        power,
        records.recall_record(GateState, state_path, GATE_VERSION),
        report.read_report(report_path),
        watch.recall_memory(watch_path, "").events,
    )


def _describe_check(host: AwaitedMachine) -> str:
    return f"{host.guest.kind} status {host.guest.id}" if host.guest else ", ".join(host.addresses)


def _describe_power(said: GateReading) -> str:
    left = f", {said.runtime:.0f} s left" if said.runtime is not None else ", does not say how long it lasts"
    return POWER_TEXT[said.on_battery] + left
