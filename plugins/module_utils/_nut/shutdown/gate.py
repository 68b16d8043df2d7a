# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the gate decides, from data alone, and what it remembers of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..base import records
from ..net import readings as net_readings
from .policy import AwaitedMachine, ShutdownPolicy

VERSION = 1

RESUME_SECONDS = 120.0
"""Seconds without a look after which a state file is that of another shutdown."""

# Which rule ended it
DOWN, ASSUMED, LIMIT, BATTERY, LONGEST = "down", "assumed", "limit", "battery", "longest"


# The pure core. Times are seconds of one clock that never goes back (CLOCK_BOOTTIME).


@dataclass(frozen=True)
class GateReading:
    """What upsd said about a UPS, and when. on_battery: None if its status tells neither. runtime: seconds left, or None.

    fsd: whether it says that the shutdown has begun.
    """

    on_battery: bool | None
    runtime: float | None
    at: float
    fsd: bool = False


@dataclass(frozen=True)
class MachineState:
    """What is known of a machine."""

    silent: float | None = None  # since when it has been silent, or stopped; None while it answers
    assumed: float | None = None  # since when nobody can tell, or has known better for less than the settle time
    down: float | None = None  # since when it counts as down
    given_up: bool = False  # it is not waited for any more

    @property
    def is_settled(self) -> bool:
        """Return whether it need not be waited for."""
        return self.down is not None or self.given_up

    @property
    def is_assumed_down(self) -> bool:
        """Return whether it counts as down only because nobody could tell, and its time was over."""
        return self.down is not None and self.assumed is not None


NEVER_SEEN = MachineState()


@dataclass(frozen=True)
class GateDecision:
    """Whether the gate opens, by which rule, why in words, and who is waited for still."""

    go: bool
    rule: str
    reason: str
    waiting: tuple[str, ...]


@dataclass(frozen=True)
class GateState:
    """Where the gate stands: it survives the program. began, now: when it began, and when it looked last.

    flag: whether upsmon has ordered that the UPS cuts the power (POWERDOWNFLAG).
    """

    boot: str
    by: str
    began: float
    now: float
    hosts: Mapping[str, MachineState] = field(default_factory=dict)
    power: Mapping[str, GateReading] = field(default_factory=dict)
    # the rule and the reason, once it has ended
    ended: tuple[str, str] | None = None
    flag: bool = False


def advance_gate(
    policy: ShutdownPolicy,
    state: GateState,
    now: float,
    seen: Mapping[str, bool | None],
    readings: Mapping[str, GateReading],
    *,
    asked: float | None = None,
) -> tuple[GateState, GateDecision, tuple[str, ...]]:
    """Take in what was seen, and decide.

    now: seconds. seen: name of a machine -> does it answer (or run)? None, or no entry: nobody can tell. readings: UPS
    (as str(Ups) names it) -> the last thing upsd said of it. asked: when the machines were asked, at most ``now``; one
    that did not answer has been silent since then. Returns the new state, the decision, and what is worth telling.
    """
    now = max(now, state.now)
    asked = min(max(asked if asked is not None else now, state.now), now)
    elapsed = now - state.began
    words: list[str] = []
    hosts = {}
    for host in policy.machines:
        before = state.hosts.get(host.name, NEVER_SEEN)
        hosts[host.name] = after = _update_machine(
            host, before, seen.get(host.name), settle=policy.settle, now=now, asked=asked, elapsed=elapsed
        )
        words += _describe_machine(host, before, after, elapsed, now)
    power = _merge_readings(policy, state.power, readings, now)
    words += _describe_power(policy, state.power, power)
    new = replace(state, now=now, hosts=hosts, power=power)
    decision = decide_gate(policy, new)
    return new, decision, tuple(words)


def decide_gate(policy: ShutdownPolicy, state: GateState) -> GateDecision:
    """Return whether the gate opens, as things stand."""
    elapsed = state.now - state.began
    waiting = tuple(host.name for host in policy.machines if not state.hosts.get(host.name, NEVER_SEEN).is_settled)
    still = f"still waiting for {', '.join(waiting)}"
    if not waiting:
        return GateDecision(True, *_all_settled(policy, state), ())
    left = time_left(policy, state)
    keeps = policy.own_seconds([host for host in policy.machines if host.name in waiting], elapsed)
    if left is not None and left[1] <= keeps:
        reason = f"{left[0]} has {max(left[1], 0):.0f} s left, and this host needs {keeps:g} s for itself; {still}"
        return GateDecision(True, BATTERY, reason, waiting)
    if elapsed >= policy.longest:
        return GateDecision(True, LONGEST, f"the gate's limit of {policy.longest:g} s is over; {still}", waiting)
    return GateDecision(False, "", still, waiting)


def _all_settled(policy: ShutdownPolicy, state: GateState) -> tuple[str, str]:
    given_up = [host.name for host in policy.machines if state.hosts[host.name].down is None]
    assumed = [host.name for host in policy.machines if state.hosts[host.name].is_assumed_down]
    if given_up:
        return LIMIT, f"{', '.join(given_up)} did not go down within the limit; nothing else to wait for"
    if assumed:
        return (
            ASSUMED,
            f"cannot tell whether {', '.join(assumed)} is down, but the usual time is over; nothing else to wait for",
        )
    return DOWN, "all are down" if policy.machines else "no machines to wait for"


def time_left(policy: ShutdownPolicy, state: GateState) -> tuple[str, float] | None:
    """Return the UPS that is emptiest, and its seconds left by now. None: on mains, or not known.

    What upsd said last counts, less what has passed since.
    """
    found = [
        (reading.runtime - (state.now - reading.at), ups.name)
        for ups in policy.upses
        if (reading := state.power.get(str(ups))) and reading.on_battery is not False and reading.runtime is not None
    ]
    left, name = min(found, default=(None, ""))
    return None if left is None else (name, left)


def _update_machine(
    host: AwaitedMachine,
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
        # of a guest its host knows, and need not wait for another look
        is_down = host.guest is not None or now - silent >= settle
        assumed = before.assumed if down is not None and not is_down else None
        if down is None and is_down:
            down = now
    elif before.down is not None:
        # It was down, and that nobody can tell now is no news of it. If it was only taken as down, its silence begins anew.
        silent = before.silent if before.assumed is None else None
        assumed, down = before.assumed, before.down
    else:
        silent, assumed, down = None, (now if before.assumed is None else before.assumed), None
        if elapsed >= host.shutdown_time and now - assumed >= settle:
            down = now
    if down is None and elapsed >= host.shutdown_limit:
        given_up = True
    return MachineState(silent, assumed, down, given_up)


def _describe_machine(
    host: AwaitedMachine, before: MachineState, after: MachineState, elapsed: float, now: float
) -> list[str]:
    words = []
    if after.down is not None and before.down is None:
        late = ", after the gate gave up on it" if before.given_up else ""
        if after.silent is None:
            how = f"cannot tell, but its shutdown_time of {host.shutdown_time:g} s is over"
            words.append(f"{host.name} is assumed down{late} ({how})")
        elif host.guest:
            how = f"{host.guest.kind} status {host.guest.id} says stopped; expected {host.shutdown_time:g} s"
            words.append(f"{host.name} is down{late} ({how})")
        else:
            how = f"silent for {now - after.silent:.1f} s; expected {host.shutdown_time:g} s"
            words.append(f"{host.name} is down{late} ({how})")
    elif after.down is None and before.down is not None:
        words.append(f"{host.name} answers again")
    elif after.silent is not None and before.silent is None and after.down is None:
        words.append(f"{host.name} is silent")
    elif after.silent is None and before.silent is not None and after.assumed is None:
        words.append(f"{host.name} answers again")
    if after.assumed is not None and before.assumed is None and after.down is None:
        words.append(f"cannot tell whether {host.name} is up; waiting at least {host.shutdown_time:g} s")
    if after.given_up and not before.given_up:
        words.append(f"giving up on {host.name} after {elapsed:.1f} s: its shutdown_limit is {host.shutdown_limit:g} s")
    return words


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
            # what it does not say now, it said before
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
    words = []
    for ups in policy.upses:
        old, new = before.get(str(ups)), after.get(str(ups))
        if new is None or (old is not None and old.on_battery == new.on_battery):
            continue
        left = f", {new.runtime:.0f} s left" if new.runtime is not None and new.on_battery is not False else ""
        end = "; the shutdown goes on: FSD can't be taken back" if new.on_battery is False else ""
        words.append(f"{ups.name} is {POWER_TEXT[new.on_battery]}{left}{end}")
    return words


def make_reading(status: str, runtime: str | None, at: float) -> GateReading:
    """Make a reading of ``ups.status`` and ``battery.runtime`` (seconds), as upsd says them."""
    said = net_readings.read_variables({"ups.status": status, "battery.runtime": runtime or ""})
    return GateReading(said.on_battery, said.runtime, at, "FSD" in said.flags)


# What is kept


def new_state(boot: str, by: str, now: float) -> GateState:
    """Return the state of a gate that begins now."""
    return GateState(boot, by, now, now)


def resume_state(text: str | None, boot: str, by: str, now: float) -> GateState:
    """Return the state to go on from: what the file says, if it is of this boot and of this shutdown; else a new one.

    text: of the state file, None if there is none. by: who runs it; what was waited for by hand is no shutdown. A gate that is
    started again comes back within seconds, so one that has not looked for RESUME seconds was another one.
    """
    try:
        state = records.load_record(GateState, text, VERSION) if text is not None else None
    except records.RecordError:
        state = None
    if state is None or not boot or state.boot != boot or not state.began <= state.now <= now:
        return new_state(boot, by, now)
    return state if state.by == by and now - state.now <= RESUME_SECONDS else new_state(boot, by, now)


def dump_state(state: GateState) -> str:
    """Write the state as JSON."""
    return records.dump_record(state, VERSION)
