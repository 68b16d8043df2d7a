# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The output of `nut-shutdown status`: what the gate would wait for, what the UPSes report, how the last shutdown went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..base import hostnames, paths, records
from ..base.clock import format_time, name_system_start, read_boottime
from ..base.process import run_within
from ..base.systemd import Run
from ..base.table import format_grid
from ..proxmox.guests import GuestsError, is_node
from ..proxmox.startup import observe_start
from . import observe, report, watch
from .gate import POWER_TEXT, GateReading, GateState
from .gate import VERSION as GATE_VERSION
from .open_starts import describe_guests, read_open_starts
from .policy import AwaitedMachine, ShutdownPolicy, UpsAddress
from .returns import describe_return

PROXMOX_SECONDS = 10.0
"""Time limit for reading Proxmox's files: /etc/pve is a FUSE file system, which may hang."""


@dataclass(frozen=True)
class ShutdownStatus:
    """The status of everything that a policy names."""

    path: Path  # of the policy
    policy: ShutdownPolicy
    seen: Mapping[str, bool | None]  # name -> whether the machine is up; None: unknown
    power: Mapping[str, GateReading | str]  # str(UpsAddress) -> its reading, or why upsd gave none
    gate: GateState | None  # of the last gate since boot
    last: report.GateReport | str | None  # of the last gate; None: there was none; a string: why it can't be read
    events: tuple[watch.WatchEvent, ...]  # of nut-watch
    guests: tuple[str, ...] = ()  # lines about guests that should run, and do not
    returned: tuple[str, ...] = ()  # lines about the machines after the last outage

    def to_data(self) -> dict[str, Any]:
        """Return the status for --json."""
        return {
            "policy": str(self.path),
            "settle": self.policy.settle,
            "reserve": self.policy.reserve,
            "reserve_minimum": self.policy.reserve_minimum,
            "timeout": self.policy.timeout,
            "machines": [
                {
                    "name": machine.name,
                    "up": self.seen.get(machine.name),
                    "how": _describe_check(machine),
                    "shutdown_time": machine.shutdown_time,
                    "shutdown_limit": machine.shutdown_limit,
                    "ups": machine.ups,
                }
                for machine in self.policy.machines
            ],
            "upses": [self._ups_data(ups) for ups in self.policy.upses],
            "gate": asdict(self.gate) if self.gate else None,
            "last": asdict(self.last) if isinstance(self.last, report.GateReport) else None,
            "upsd": [asdict(event) for event in self.events],
            "guests": list(self.guests),
            "return": list(self.returned),
        }

    def _ups_data(self, ups: UpsAddress) -> dict[str, Any]:
        reading = self.power[str(ups)]
        data: dict[str, Any] = {"name": str(ups), "power": ups.power}
        if isinstance(reading, str):
            return {**data, "on_battery": None, "runtime": None, "error": reading}
        return {**data, "on_battery": reading.on_battery, "runtime": reading.runtime, "error": None}

    def _describe_ups(self, ups: UpsAddress) -> str:
        """Return the reading of a UPS, and what it powers."""
        reading = self.power[str(ups)]
        secondaries = [machine.name for machine in self.policy.machines if machine.ups.lower() == ups.name.lower()]
        powered = self.policy.feeds.describe_powered(ups.name, secondaries)
        return f"{reading if isinstance(reading, str) else _describe_power(reading)}; {powered}"

    def _describe_need(self) -> list[str]:
        """Return when this host goes down, if it has several UPSes, and which of them upsmon would wait for."""
        feeds = self.policy.feeds
        if len(self.policy.upses) < 2 or not feeds.upses:
            return []
        lines = [f"this host {feeds.describe_need()}"]
        silent = [ups.name for ups in self.policy.upses if ups.power and isinstance(self.power[str(ups)], str)]
        if silent and len(silent) < len(feeds.upses) and feeds.is_enough(silent):
            lines.append(
                f"{' and '.join(silent)} gives no data, and upsmon counts it as a UPS that gives power: nut-stages begins the "
                "shutdown instead"
            )
        return lines

    def to_text(self) -> str:
        """Return the status for people, without a newline at the end."""
        lines = [f"the gate would wait at most {self.policy.timeout:g} s for:"]
        labels = {True: "up", False: "down", None: "unknown"}
        rows = []
        for machine in self.policy.machines:
            times = f"shutdown_time {machine.shutdown_time:g} s, shutdown_limit {machine.shutdown_limit:g} s"
            label = labels[self.seen.get(machine.name)]
            rows.append((machine.name, label, f"{times}, checked by {_describe_check(machine)}"))
        lines += format_grid(rows, indent="  ")
        lines += [] if self.policy.machines else ["  no machines"]
        whose = "a UPS" if len(self.policy.feeds.upses) == len(self.policy.upses) else "a UPS of this host"
        lines.append(f"or until {whose} has only {self._describe_reserve()}:")
        lines += format_grid([(str(ups), self._describe_ups(ups)) for ups in self.policy.upses], indent="  ")
        lines += [] if self.policy.upses else ["  no UPSes"]
        lines += self._describe_need()
        lines += ["guests:", *(f"  {line}" for line in self.guests)] if self.guests else []
        lines += ["", *self._format_last_gate(), *(f"after the last outage: {line}" for line in self.returned)]
        if self.events:
            lines += ["last events of nut-watch:", *(f"  {event}" for event in self.events[-5:])]
        return "\n".join(lines)

    def _describe_reserve(self) -> str:
        reserve, minimum = self.policy.reserve, self.policy.reserve_minimum
        if minimum is None or minimum >= reserve:
            return f"{reserve:g} s left"
        return f"{minimum:g} s left, or {reserve:g} s if a machine takes longer than its shutdown_time"

    def _format_last_gate(self) -> list[str]:
        if not isinstance(self.last, report.GateReport):
            return [f"last shutdown: {self.last or 'none'}"]
        end = f"ended ({self.last.rule}): {self.last.reason}" if self.last.rule else "has not ended"
        steps = [f"  +{at:.1f} s  {line}" for at, line in self.last.steps]
        return [f"last shutdown: {self.last.mode} began {format_time(self.last.began)}, {end}", *steps]


def observe_status(
    policy: ShutdownPolicy,
    run: Run,
    names: hostnames.Resolve,
    *,
    policy_path: Path,
    state_path: Path,
    report_path: Path,
    watch_path: Path,
    root: Path = Path("/"),
) -> ShutdownStatus:
    """Observe everything that a policy names, once. run: runs qm and pct. root: of the file system with /etc/pve and /proc."""
    seen, power = observe.observe_once(policy, run, names, root)
    return ShutdownStatus(
        policy_path,
        policy,
        seen,
        power,
        records.recall_record(GateState, state_path, GATE_VERSION),
        report.read_report(report_path),
        watch.recall_memory(watch_path, "").events,
        tuple(_list_guests(report_path.parent, run, root)),
        describe_return(report_path.with_name(Path(paths.RETURN_STATE).name), name_system_start(root), read_boottime()),
    )


def _list_guests(folder: Path, run: Run, root: Path) -> list[str]:
    try:
        start = run_within(PROXMOX_SECONDS, lambda: observe_start(run, root) if is_node(root) else None)
    except (GuestsError, TimeoutError) as error:
        return [f"can't tell whether Proxmox VE has started its guests: {error or 'no answer from /etc/pve'}"]
    return describe_guests(read_open_starts(folder, name_system_start(root), run, root), start)


def _describe_check(machine: AwaitedMachine) -> str:
    guest = machine.guest
    return f"{guest.kind} status {guest.id}" if guest else f"probing {', '.join(machine.addresses)}"


def _describe_power(reading: GateReading) -> str:
    left = f"{reading.runtime:.0f} s left" if reading.runtime is not None else "runtime unknown"
    return f"{POWER_TEXT[reading.on_battery]}, {left}"
