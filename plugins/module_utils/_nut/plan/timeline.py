# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two runs of a shutdown: when each machine begins to go down, and when it is down.

A run, from the trigger on:

    the primary's upsmon polls upsd (POLLFREQALERT) and sets FSD
    each secondary polls upsd, waits for its own FINALDELAY, begins to go down and logs out (together: its begin_time)
    the primary waits until all have logged out, at most HOSTSYNC seconds, and then for its own FINALDELAY
    the gate waits until each secondary is silent, at most until its limit
    Proxmox stops its guests, then itself; at the very end it orders the UPS to cut the power (killpower)
    the UPS cuts the power after its offdelay

In the usual run each machine takes its usual time, and each poll half of its interval. In the worst case every time is at its
limit, and one secondary never logs out, so that the whole of HOSTSYNC passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..inventory import POLL_SECONDS
from . import model
from .model import GUEST, PRIMARY, SECONDARY, PlanEvent, PlanMachine, ProxmoxGuests, StagePlan, Supply, Timing
from .supplies import STAGE_ROUND, find_low_mark, highest_mark, reading_age, real_delays

# One round of the gate: it probes all hosts, then pauses.
GATE_ROUND = 2
# The time to stop all guests if neither the user nor Proxmox gives one: Proxmox's own limit for one guest.
GUESTS_SECONDS = 180


@dataclass(frozen=True)
class PlanInputs:
    """What a plan is made from."""

    machines: tuple[PlanMachine, ...]
    supplies: tuple[Supply, ...]
    timing: Timing
    stages: tuple[StagePlan, ...]
    proxmox: ProxmoxGuests
    others: tuple[Supply, ...] = ()  # UPSes that do not power the primary

    @property
    def machines_by_name(self) -> dict[str, PlanMachine]:
        return {machine.name: machine for machine in self.machines}

    @property
    def guests_time(self) -> float:
        """Return how long the primary may take to stop its guests: as set, else as computed from Proxmox, else a default."""
        if self.timing.guests_time is not None:
            return self.timing.guests_time
        if self.proxmox.stop_limit is not None:
            return max([self.proxmox.stop_limit, *(guest.shutdown_limit for guest in self.unstaged_guests)])
        return GUESTS_SECONDS

    @property
    def primary(self) -> PlanMachine:
        return next(machine for machine in self.machines if machine.role == PRIMARY)

    @property
    def secondaries(self) -> list[PlanMachine]:
        return [machine for machine in self.machines if machine.role == SECONDARY]

    @property
    def slowest_limit(self) -> float:
        """Return how long the gate waits at most for the secondaries."""
        return max([0, *(secondary.shutdown_limit for secondary in self.secondaries)])

    @property
    def stage_positions(self) -> dict[str, int]:
        """Return guest -> position of the first stage that stops it."""
        positions: dict[str, int] = {}
        for position, stage in enumerate(self.stages):
            for name in stage.guests:
                positions.setdefault(name, position)
        return positions

    @property
    def unstaged_guests(self) -> list[PlanMachine]:
        """Return the guests that the primary stops when it goes down."""
        staged = self.stage_positions
        return [machine for machine in self.machines if machine.role == GUEST and machine.name not in staged]

    def stage_time_to_stop(self, stage: StagePlan, *, worst: bool) -> float:
        """Return how long the guests of a stage take, all at once: usually, or at most."""
        machines = self.machines_by_name
        slowest = max([0.0, *(machines[name].time_to_stop(worst=worst) for name in stage.guests)])
        return max(slowest, stage.seconds or 0) if worst else slowest


@dataclass(frozen=True)
class Milestones:
    """When the phases of a run end, in seconds from the trigger."""

    begun: Mapping[str, float]  # secondary -> it begins to go down
    down: Mapping[str, float]  # secondary -> it is down
    elsewhere: float  # upsmon has given up on the primaries of the UPSes elsewhere
    fsd: float  # the primary sets FSD
    synced: float  # all secondaries have logged out, or HOSTSYNC is over
    gate: float  # FINALDELAY is over: the gate begins to wait
    poweroff: float  # the gate ends: the primary begins to go down
    stopped: float  # the guests are stopped
    killing: float  # the primary has shut down, and orders the UPS to cut
    off: float  # the primary is off


def compute_milestones(inputs: PlanInputs, *, worst: bool) -> Milestones:
    """Return the milestones of one of the two runs."""
    timing = inputs.timing
    elsewhere = time_elsewhere(inputs)
    fsd = elsewhere + (timing.poll_interval if worst else timing.poll_interval / 2)
    begun = {
        machine.name: fsd + machine.begin_time - (0 if worst else min(POLL_SECONDS, machine.begin_time) / 2)
        for machine in inputs.secondaries
    }
    down = {machine.name: begun[machine.name] + machine.time_to_stop(worst=worst) for machine in inputs.secondaries}
    synced = fsd
    if begun:
        synced = fsd + timing.hostsync if worst else min(max(begun.values()), fsd + timing.hostsync)
    gate = synced + timing.finaldelay
    last = gate + inputs.slowest_limit + GATE_ROUND
    silent = max([0, *down.values()]) + timing.settle + GATE_ROUND / 2
    poweroff = last if worst else min(max(gate + GATE_ROUND / 2, silent), last)
    stopped = poweroff + _time_to_stop_guests(inputs, worst)
    killing = stopped + timing.own_shutdown
    return Milestones(begun, down, elsewhere, fsd, synced, gate, poweroff, stopped, killing, killing + timing.killpower)


def time_elsewhere(inputs: PlanInputs) -> float:
    """Return how long upsmon waits for the primaries of UPSes elsewhere, once all are low: they may be waiting for this one.

    is_ups_critical() of upsmon.c gives them HOSTSYNC to set FSD. nut-stages sets FSD on the own UPS without waiting for them.
    """
    marks = [find_low_mark(supply, inputs.timing.release) for supply in inputs.supplies]
    by_stages = any(mark is not None and mark.decider == "nut-stages" for mark in marks)
    return inputs.timing.hostsync if inputs.timing.elsewhere and not by_stages else 0


def _time_to_stop_guests(inputs: PlanInputs, worst: bool) -> float:
    """Return how long the primary takes to stop its guests: usually, or at most."""
    usual = [guest.time_to_stop(worst=worst) for guest in inputs.unstaged_guests]
    if inputs.proxmox.stop_time is not None:
        usual.append(inputs.proxmox.stop_time)
    return inputs.guests_time if worst or not usual else min(inputs.guests_time, max(usual))


def compute_events(inputs: PlanInputs, *, worst: bool) -> tuple[PlanEvent, ...]:
    """Return the events of a run, in order of time."""
    timing, primary, clock = inputs.timing, inputs.primary.name, compute_milestones(inputs, worst=worst)
    cuts = {supply.name: clock.off + (real_delays(supply, timing.release)[0] or 0) for supply in inputs.supplies}
    spans = dict(_shutdown_spans(inputs, clock, worst))
    ends = {**{name: end for name, (_begin, end) in spans.items()}, primary: clock.off}
    rows = [
        (0.0, 0.0, "", model.TRIGGER),
        (clock.fsd, clock.fsd, "", model.FSD),
        (clock.poweroff, clock.poweroff, "", model.POWEROFF),
        (0.0, clock.fsd, primary, model.WAITS_TO_BEGIN),
        (clock.fsd, clock.synced, primary, model.WAITS_HOSTSYNC),
        (clock.synced, clock.gate, primary, model.WAITS_FINALDELAY),
        (clock.gate, clock.poweroff, primary, model.WAITS_GATE),
        (clock.poweroff, clock.stopped, primary, model.STOPS_GUESTS),
        (clock.stopped, clock.killing, primary, model.OWN_SHUTDOWN),
        (clock.killing, clock.off, primary, model.KILLPOWER),
        *((0.0, begun, name, model.WAITS_TO_BEGIN) for name, begun in clock.begun.items()),
        *((*span, name, model.GOES_DOWN) for name, span in spans.items()),
        *((end, max(cuts.values()), name, model.DOWN) for name, end in ends.items()),
        *((cut, cut, name, model.CUT) for name, cut in cuts.items()),
        *((empty, empty, name, model.EMPTY) for name, empty in _battery_ends(inputs, worst)),
    ]
    events = (PlanEvent(at, until, machine, what, worst) for at, until, machine, what in rows)
    return tuple(sorted(events, key=lambda event: (event.at, event.until)))


def _shutdown_spans(inputs: PlanInputs, clock: Milestones, worst: bool) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield for each machine except the primary: name, (begins to go down, is down)."""
    for name, begun in clock.begun.items():
        yield name, (begun, clock.down[name])
    for guest in inputs.unstaged_guests:
        begin = min(clock.poweroff + inputs.proxmox.turns.get(guest.name, (0, 0))[worst], clock.stopped)
        yield guest.name, (begin, min(begin + guest.time_to_stop(worst=worst), clock.stopped))
    machines = inputs.machines_by_name
    for name, position in inputs.stage_positions.items():
        begin = _stage_start(inputs, inputs.stages[position], worst)
        yield name, (begin, begin + machines[name].time_to_stop(worst=worst))


def _battery_ends(inputs: PlanInputs, worst: bool) -> Iterator[tuple[str, float]]:
    """Yield UPS, moment at which its battery is empty, for each UPS of which that is known."""
    for supply in inputs.supplies:
        mark = find_low_mark(supply, inputs.timing.release)
        if mark is not None:
            left = mark.left if supply.runtime is None else min(mark.left, supply.runtime)
            yield supply.name, left - mark.notice / (1 if worst else 2)


# The stages, before the trigger


@dataclass(frozen=True)
class StageRoom:
    """The time that a stage has before the battery is low. Seconds."""

    left_at_trigger: float  # battery left when its trigger is reached
    left_at_low: float  # battery left when the battery is low
    delay: float  # until the stage notices its trigger, at most

    @property
    def available_time(self) -> float:
        return self.left_at_trigger - self.left_at_low - self.delay


def _stage_start(inputs: PlanInputs, stage: StagePlan, worst: bool) -> float:
    """Return when a stage begins. A stage that ends with FSD is itself the trigger, so it ends at 0."""
    duration = inputs.stage_time_to_stop(stage, worst=worst)
    rooms = [room for room in (stage_room(inputs, stage, supply) for supply in inputs.supplies) if room is not None]
    if stage.fsd or not rooms:
        return -duration
    room = min(rooms, key=lambda room: room.available_time)
    return -room.available_time if worst else -(room.available_time + room.delay / 2)


def stage_room(inputs: PlanInputs, stage: StagePlan, supply: Supply) -> StageRoom | None:
    """Return the time that a stage has before low battery, from its earliest trigger on; None if too little is known."""
    mark = highest_mark(supply)
    if mark is None:
        return None
    rooms = [StageRoom(left, mark, delay) for left, delay in stage_trigger_points(inputs, stage, supply)]
    return max(rooms, key=lambda room: room.available_time, default=None)


def stage_trigger_points(inputs: PlanInputs, stage: StagePlan, supply: Supply) -> list[tuple[float, float]]:
    """Return (battery left, delay until the stage notices) for each trigger of a stage that can be computed."""
    full = supply.runtime
    first_delay, later_delay = stage_delays(inputs.timing, supply)
    points: list[tuple[float, float]] = []
    if stage.runtime is not None:
        points.append((stage.runtime if full is None else min(stage.runtime, full), later_delay))
    if stage.charge is not None and full is not None:
        points.append((full * min(1.0, stage.charge / (supply.charge or 100)), later_delay))
    if stage.on_battery is not None and full is not None:
        points.append((full - stage.on_battery, first_delay))
    return points


def stage_delays(timing: Timing, supply: Supply) -> tuple[float, float]:
    """Return how long nut-stages takes to notice that the mains failed, and that a value is reached."""
    mains_failed = supply.pollinterval + timing.poll_interval + STAGE_ROUND
    return mains_failed, max(mains_failed, reading_age(supply, timing.release) + STAGE_ROUND)
