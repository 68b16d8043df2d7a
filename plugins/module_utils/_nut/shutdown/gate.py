# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate's decision whether to go on waiting, and its state. Pure functions of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..base import records
from ..conf.feeds import NEVER
from ..net import readings as net_readings
from .policy import AwaitedMachine, ShutdownPolicy

VERSION = 1

RESUME_SECONDS = 120.0
"""A state whose last round is longer ago belongs to another shutdown. systemd restarts a gate within seconds."""

# The rule that ended the gate
DOWN = "down"  # every machine is down
ASSUMED = "assumed"  # every machine is down or assumed down
LIMIT = "limit"  # every machine is down or given up
BATTERY = "battery"  # what is left of the battery is kept for this host
TIMEOUT = "timeout"  # the gate's own time limit has passed


# Times are seconds of CLOCK_BOOTTIME, which never goes back.


@dataclass(frozen=True)
class GateReading:
    """What upsd reported for a UPS."""

    on_battery: bool | None  # None: the status says neither
    runtime: float | None  # seconds left on battery; None: not reported
    at: float  # when upsd was asked
    fsd: bool = False  # the status contains FSD: the shutdown has begun


@dataclass(frozen=True)
class MachineState:
    """What the gate knows about a machine."""

    silent: float | None = None  # since when it has not answered, or is stopped; None: it answers
    # since when the gate can't tell whether it is up. A silence ends this only after the settle time
    assumed: float | None = None
    down: float | None = None  # since when it counts as down
    given_up: bool = False  # the gate no longer waits for it

    @property
    def is_settled(self) -> bool:
        """Return whether the gate need not wait for this machine."""
        return self.down is not None or self.given_up

    @property
    def is_assumed_down(self) -> bool:
        """Return whether it counts as down only because its shutdown_time has passed, and the gate can't tell."""
        return self.down is not None and self.assumed is not None


NEVER_SEEN = MachineState()


@dataclass(frozen=True)
class GateDecision:
    """Whether the gate ends."""

    go: bool  # True: the gate ends, and this host may power off
    rule: str  # the rule that ends it; "" while it waits
    reason: str  # in words
    waiting: tuple[str, ...]  # names of the machines that are neither down nor given up


@dataclass(frozen=True)
class GateState:
    """The gate's state, which survives a restart of the program."""

    boot: str  # of base.clock.name_system_start()
    by: str  # gate_loop.SYSTEMD, or "hand"
    began: float
    now: float  # the last round
    machines: Mapping[str, MachineState] = field(default_factory=dict)  # by name
    power: Mapping[str, GateReading] = field(default_factory=dict)  # by str(UpsAddress)
    ended: tuple[str, str] | None = None  # the rule and the reason, once the gate has ended
    flag: bool = False  # upsmon has ordered the UPS to cut the power: it has written POWERDOWNFLAG


def advance_gate(
    policy: ShutdownPolicy,
    state: GateState,
    now: float,
    seen: Mapping[str, bool | None],
    readings: Mapping[str, GateReading],
    *,
    asked: float | None = None,
) -> tuple[GateState, GateDecision, tuple[str, ...]]:
    """Return the new state, the decision, and lines for the log, from what was seen in a round.

    seen: name of a machine -> whether it answers or runs; None, or no entry: unknown. readings: str(UpsAddress) -> the last
    reading of that UPS. asked: when the machines were asked, by default ``now``; a machine that did not answer has been silent
    since then.
    """
    now = max(now, state.now)
    asked = min(max(asked if asked is not None else now, state.now), now)
    elapsed = now - state.began
    lines: list[str] = []
    machines = {}
    for machine in policy.machines:
        before = state.machines.get(machine.name, NEVER_SEEN)
        machines[machine.name] = after = _update_machine(
            machine, before, seen.get(machine.name), settle=policy.settle, now=now, asked=asked, elapsed=elapsed
        )
        lines += _describe_machine(machine, before, after, elapsed, now)
    power = _merge_readings(policy, state.power, readings, now)
    lines += _describe_power(policy, state.power, power)
    new = replace(state, now=now, machines=machines, power=power)
    decision = decide_gate(policy, new)
    return new, decision, tuple(lines)


def decide_gate(policy: ShutdownPolicy, state: GateState) -> GateDecision:
    """Return whether the gate ends, from its state."""
    elapsed = state.now - state.began
    waiting = tuple(
        machine.name for machine in policy.machines if not state.machines.get(machine.name, NEVER_SEEN).is_settled
    )
    still = f"still waiting for {', '.join(waiting)}"
    if not waiting:
        return GateDecision(True, *_explain_end(policy, state), ())
    left = time_left(policy, state)
    own = policy.own_seconds([machine for machine in policy.machines if machine.name in waiting], elapsed)
    if left is not None and left[1] <= own:
        reason = f"{left[0]} has {max(left[1], 0):.0f} s left, and this host needs {own:g} s for itself; {still}"
        return GateDecision(True, BATTERY, reason, waiting)
    if elapsed >= policy.timeout:
        return GateDecision(True, TIMEOUT, f"the gate's limit of {policy.timeout:g} s has passed; {still}", waiting)
    return GateDecision(False, "", still, waiting)


def _explain_end(policy: ShutdownPolicy, state: GateState) -> tuple[str, str]:
    given_up = [machine.name for machine in policy.machines if state.machines[machine.name].down is None]
    assumed = [machine.name for machine in policy.machines if state.machines[machine.name].is_assumed_down]
    if given_up:
        return LIMIT, f"{', '.join(given_up)} did not go down within the limit; nothing else to wait for"
    if assumed:
        return (
            ASSUMED,
            f"cannot tell whether {', '.join(assumed)} is down, but the usual time has passed; nothing else to wait for",
        )
    return DOWN, "all are down" if policy.machines else "no machines to wait for"


def time_left(policy: ShutdownPolicy, state: GateState) -> tuple[str, float] | None:
    """Return the UPS whose end ends this host, and its seconds left by now. None: on mains, or not known.

    The time since the last reading is subtracted from its runtime.
    """
    left = {}
    for ups in policy.upses:
        reading = state.power.get(str(ups))
        if reading is None:
            continue
        if reading.on_battery is False:
            left[ups.name] = NEVER
        elif reading.runtime is not None:
            left[ups.name] = reading.runtime - (state.now - reading.at)
    name = policy.feeds.find_deciding(left)
    return None if name is None else (name, left[name])


def _update_machine(
    machine: AwaitedMachine,
    before: MachineState,
    answers: bool | None,
    *,
    settle: float,
    now: float,
    asked: float,
    elapsed: float,
) -> MachineState:
    given_up = before.given_up
    if answers is True:
        silent = assumed = down = None
    elif answers is False:
        silent, down = (asked if before.silent is None else before.silent), before.down
        # what Proxmox VE says of a guest is certain; a machine that is only silent must stay so for the settle time
        is_down = machine.guest is not None or now - silent >= settle
        assumed = before.assumed if down is not None and not is_down else None
        if down is None and is_down:
            down = now
    elif before.down is not None:
        # A machine that was down stays down while its state is unknown. If it was only assumed down, its silence starts over
        silent = before.silent if before.assumed is None else None
        assumed, down = before.assumed, before.down
    else:
        silent, assumed, down = None, (now if before.assumed is None else before.assumed), None
        if elapsed >= machine.shutdown_time and now - assumed >= settle:
            down = now
    if down is None and elapsed >= machine.shutdown_limit:
        given_up = True
    return MachineState(silent, assumed, down, given_up)


def _describe_machine(
    machine: AwaitedMachine, before: MachineState, after: MachineState, elapsed: float, now: float
) -> list[str]:
    lines = []
    if after.down is not None and before.down is None:
        late = ", after the gate gave up on it" if before.given_up else ""
        if after.silent is None:
            how = f"cannot tell, but its shutdown_time of {machine.shutdown_time:g} s has passed"
            lines.append(f"{machine.name} is assumed down{late} ({how})")
        elif machine.guest:
            how = f"{machine.guest.kind} status {machine.guest.id} says stopped; expected {machine.shutdown_time:g} s"
            lines.append(f"{machine.name} is down{late} ({how})")
        else:
            how = f"silent for {now - after.silent:.1f} s; expected {machine.shutdown_time:g} s"
            lines.append(f"{machine.name} is down{late} ({how})")
    elif after.down is None and before.down is not None:
        lines.append(f"{machine.name} answers again")
    elif after.silent is not None and before.silent is None and after.down is None:
        lines.append(f"{machine.name} is silent")
    elif after.silent is None and before.silent is not None and after.assumed is None:
        lines.append(f"{machine.name} answers again")
    if after.assumed is not None and before.assumed is None and after.down is None:
        lines.append(f"cannot tell whether {machine.name} is up; waiting at least {machine.shutdown_time:g} s")
    if after.given_up and not before.given_up:
        lines.append(
            f"giving up on {machine.name} after {elapsed:.1f} s: its shutdown_limit is {machine.shutdown_limit:g} s"
        )
    return lines


def _merge_readings(
    policy: ShutdownPolicy, before: Mapping[str, GateReading], readings: Mapping[str, GateReading], now: float
) -> dict[str, GateReading]:
    power = {}
    for name in map(str, policy.upses):
        old, new = before.get(name), readings.get(name)
        if new is not None and new.at > now:
            new = replace(new, at=now)
        if new is None or (old is not None and new.at < old.at):
            new = old
        elif old is not None and new.on_battery is not False:
            # keep what this reading lacks from the one before
            status = old.on_battery if new.on_battery is None else new.on_battery
            if new.runtime is None and old.runtime is not None:
                new = replace(new, on_battery=status, runtime=old.runtime - (new.at - old.at))
            else:
                new = replace(new, on_battery=status)
        if new is not None:
            power[name] = new
    return power


POWER_TEXT = {True: "on battery", False: "on mains", None: "neither on battery nor on mains, according to upsd"}


def _describe_power(
    policy: ShutdownPolicy, before: Mapping[str, GateReading], after: Mapping[str, GateReading]
) -> list[str]:
    lines = []
    for ups in policy.upses:
        old, new = before.get(str(ups)), after.get(str(ups))
        if new is None or (old is not None and old.on_battery == new.on_battery):
            continue
        left = f", {new.runtime:.0f} s left" if new.runtime is not None and new.on_battery is not False else ""
        end = "; the shutdown goes on: FSD can't be taken back" if new.on_battery is False else ""
        lines.append(f"{ups.name} is {POWER_TEXT[new.on_battery]}{left}{end}")
    return lines


def make_reading(status: str, runtime: str | None, at: float) -> GateReading:
    """Return the reading from upsd's ``ups.status`` and ``battery.runtime`` (None: not served)."""
    parsed = net_readings.read_variables({"ups.status": status, "battery.runtime": runtime or ""})
    return GateReading(parsed.on_battery, parsed.runtime, at, "FSD" in parsed.flags)


# The state file


def new_state(boot: str, by: str, now: float) -> GateState:
    """Return the state of a gate that starts now."""
    return GateState(boot, by, now, now)


def resume_state(text: str | None, boot: str, by: str, now: float) -> GateState:
    """Return the state from its file if it belongs to this boot and this shutdown; otherwise a new state.

    text: contents of the state file; None if there is none. by: a gate run by hand is not part of a shutdown, so only a state
    with the same `by` is resumed.
    """
    try:
        state = records.load_record(GateState, text, VERSION) if text is not None else None
    except records.RecordError:
        state = None
    if state is None or not boot or state.boot != boot or not state.began <= state.now <= now:
        return new_state(boot, by, now)
    return state if state.by == by and now - state.now <= RESUME_SECONDS else new_state(boot, by, now)


def dump_state(state: GateState) -> str:
    """Return the state as JSON."""
    return records.dump_record(state, VERSION)
