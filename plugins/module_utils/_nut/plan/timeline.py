# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two runs of a shutdown: when each machine goes, and when it is down.

From the trigger on a run goes like this:

    the primary's upsmon looks (POLLFREQALERT), and says FSD
    each secondary looks, waits for its own FINALDELAY, begins to go down, and logs out (together: its begin_time)
    the primary waits until all have logged out, HOSTSYNC seconds at most, and then for its own FINALDELAY
    the gate waits until each of them is silent, at most as long as its limit
    Proxmox stops its guests, then itself; at the very end the UPS is told to cut the power (killpower)
    the UPS does so after its offdelay

The expected run takes each machine's usual time, and half of an interval between two looks. In the worst one each time is at
its limit, and one secondary never logs out, so that all of HOSTSYNC passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..inventory import POLL_SECONDS
from . import model
from .model import GUEST, PRIMARY, SECONDARY, PlanEvent, PlanMachine, ProxmoxGuests, StagePlan, Supply, Timing
from .supplies import low_marks, notice_time, reading_age, real_delays

# Seconds of a gate's look at all hosts, with the pause before it
LOOK = 2
# between two looks of the stages' program
STAGE_LOOK = 5
# How long the guests take where nobody says: Proxmox's own limit for one of them
GUESTS_SECONDS = 180


@dataclass(frozen=True)
class PlanInputs:
    """What a plan is made from, and what of it is asked for often."""

    machines: tuple[PlanMachine, ...]
    supplies: tuple[Supply, ...]
    timing: Timing
    stages: tuple[StagePlan, ...]
    proxmox: ProxmoxGuests

    @property
    def named(self) -> dict[str, PlanMachine]:
        return {machine.name: machine for machine in self.machines}

    @property
    def guests_time(self) -> float:
        """Return how long the primary may take to stop its guests: as given, as found out, or as Proxmox has it for one."""
        if self.timing.guests_time is not None:
            return self.timing.guests_time
        if self.proxmox.seconds is not None:
            return max([self.proxmox.seconds, *(guest.shutdown_limit for guest in self.unstaged)])
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
    def staged(self) -> dict[str, int]:
        """The position of the first stage that stops a guest, by the guest's name."""
        found: dict[str, int] = {}
        for position, stage in enumerate(self.stages):
            for name in stage.guests:
                found.setdefault(name, position)
        return found

    @property
    def unstaged(self) -> list[PlanMachine]:
        """The guests that the primary stops when it goes down."""
        staged = self.staged
        return [machine for machine in self.machines if machine.role == GUEST and machine.name not in staged]

    def stage_takes(self, stage: StagePlan, *, worst: bool) -> float:
        """Return how long the guests of a stage take, all at once: at most, or as a rule."""
        named = self.named
        taken = max([0.0, *(named[name].takes(worst=worst) for name in stage.guests)])
        return max(taken, stage.seconds or 0) if worst else taken


@dataclass(frozen=True)
class Milestones:
    """The moments of the primary in a run; begun and down are the secondaries'."""

    begun: Mapping[str, float]
    down: Mapping[str, float]
    fsd: float
    synced: float
    gate: float
    poweroff: float
    stopped: float
    killing: float
    off: float


def compute_milestones(given: PlanInputs, *, worst: bool) -> Milestones:
    """Return the moments of one of the two runs."""
    timing = given.timing
    fsd = timing.poll if worst else timing.poll / 2
    begun = {
        machine.name: fsd + machine.begin_time - (0 if worst else min(POLL_SECONDS, machine.begin_time) / 2)
        for machine in given.secondaries
    }
    down = {machine.name: begun[machine.name] + machine.takes(worst=worst) for machine in given.secondaries}
    synced = fsd
    if begun:
        synced = fsd + timing.hostsync if worst else min(max(begun.values()), fsd + timing.hostsync)
    gate = synced + timing.finaldelay
    last = gate + given.slowest_limit + LOOK
    silent = max([0, *down.values()]) + timing.settle + LOOK / 2
    poweroff = last if worst else min(max(gate + LOOK / 2, silent), last)
    stopped = poweroff + _guests_duration(given, worst)
    killing = stopped + timing.own_shutdown
    return Milestones(begun, down, fsd, synced, gate, poweroff, stopped, killing, killing + timing.killpower)


def _guests_duration(given: PlanInputs, worst: bool) -> float:
    """Return how long Proxmox stops guests. As expected: as it was found out, and as the slowest that is named, if any is."""
    usual = [guest.takes(worst=worst) for guest in given.unstaged]
    if given.proxmox.usual is not None:
        usual.append(given.proxmox.usual)
    return given.guests_time if worst or not usual else min(given.guests_time, max(usual))


def compute_events(given: PlanInputs, *, worst: bool) -> tuple[PlanEvent, ...]:
    """Return the events of a run, in the order of time."""
    timing, primary, clock = given.timing, given.primary.name, compute_milestones(given, worst=worst)
    cuts = {supply.name: clock.off + (real_delays(supply, timing.release)[0] or 0) for supply in given.supplies}
    goes = dict(_guest_spans(given, clock, worst))
    ends = {**{name: end for name, (_begin, end) in goes.items()}, primary: clock.off}
    found = [
        (0.0, 0.0, "", model.TRIGGER),
        (clock.fsd, clock.fsd, "", model.FSD),
        (clock.poweroff, clock.poweroff, "", model.POWEROFF),
        (0.0, clock.fsd, primary, model.WAITS),
        (clock.fsd, clock.synced, primary, model.SYNCS),
        (clock.synced, clock.gate, primary, model.FLOOR),
        (clock.gate, clock.poweroff, primary, model.GATE),
        (clock.poweroff, clock.stopped, primary, model.GUESTS),
        (clock.stopped, clock.killing, primary, model.ITSELF),
        (clock.killing, clock.off, primary, model.KILLS),
        *((0.0, begun, name, model.WAITS) for name, begun in clock.begun.items()),
        *((*times, name, model.GOES) for name, times in goes.items()),
        *((end, max(cuts.values()), name, model.DOWN) for name, end in ends.items()),
        *((cut, cut, name, model.CUT) for name, cut in cuts.items()),
        *((empty, empty, name, model.EMPTY) for name, empty in _battery_ends(given, worst)),
    ]
    events = (PlanEvent(at, until, machine, what, worst) for at, until, machine, what in found)
    return tuple(sorted(events, key=lambda event: (event.at, event.until)))


def _guest_spans(given: PlanInputs, clock: Milestones, worst: bool) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield when each machine but the primary begins to go down, and when it is down."""
    for name, begun in clock.begun.items():
        yield name, (begun, clock.down[name])
    for guest in given.unstaged:
        begin = min(clock.poweroff + given.proxmox.turns.get(guest.name, (0, 0))[worst], clock.stopped)
        yield guest.name, (begin, min(begin + guest.takes(worst=worst), clock.stopped))
    named = given.named
    for name, position in given.staged.items():
        begin = _stage_start(given, given.stages[position], worst)
        yield name, (begin, begin + named[name].takes(worst=worst))


def _battery_ends(given: PlanInputs, worst: bool) -> Iterator[tuple[str, float]]:
    """Yield when each battery is empty of which that is known."""
    for supply in given.supplies:
        left = low_marks(supply)[0]
        if left is not None:
            left = left if supply.runtime is None else min(left, supply.runtime)
            yield supply.name, left - notice_time(supply, given.timing.release) / (1 if worst else 2)


# The stages, before the trigger


@dataclass(frozen=True)
class StageRoom:
    """The time that a stage has: what is left at its trigger and at low battery, and how late the stage may notice."""

    early: float
    low: float
    late: float

    @property
    def seconds(self) -> float:
        return self.early - self.low - self.late


def _stage_start(given: PlanInputs, stage: StagePlan, worst: bool) -> float:
    """Return when a stage begins. One that asks for FSD makes the trigger itself, when its guests are down."""
    taken = given.stage_takes(stage, worst=worst)
    rooms = [room for room in (stage_room(given, stage, supply) for supply in given.supplies) if room is not None]
    if stage.fsd or not rooms:
        return -taken
    room = min(rooms, key=lambda room: room.seconds)
    return -room.seconds if worst else -(room.seconds + room.late / 2)


def stage_room(given: PlanInputs, stage: StagePlan, supply: Supply) -> StageRoom | None:
    """Return how much time a stage has before low battery, by the trigger that comes first; None if that can't be told."""
    mark = low_marks(supply)[1]
    if mark is None:
        return None
    rooms = [StageRoom(early, mark, late) for early, late in stage_trigger_points(given, stage, supply)]
    return max(rooms, key=lambda room: room.seconds, default=None)


def stage_trigger_points(given: PlanInputs, stage: StagePlan, supply: Supply) -> list[tuple[float, float]]:
    """Return for each trigger of a stage what is left then, and how late it may be noticed; none of what can't be told."""
    full = supply.runtime
    starting, late = stage_delays(given.timing, supply)
    found: list[tuple[float, float]] = []
    if stage.runtime is not None:
        found.append((stage.runtime if full is None else min(stage.runtime, full), late))
    if stage.charge is not None and full is not None:
        found.append((full * min(1.0, stage.charge / (supply.charge or 100)), late))
    if stage.on_battery is not None and full is not None:
        found.append((full - stage.on_battery, starting))
    return found


def stage_delays(timing: Timing, supply: Supply) -> tuple[float, float]:
    """Return how long the stages' program takes to begin after the mains fail, and to see a value that is reached."""
    starting = supply.pollinterval + timing.poll + STAGE_LOOK
    return starting, max(starting, reading_age(supply, timing.release) + STAGE_LOOK)
