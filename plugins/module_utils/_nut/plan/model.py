# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who goes down when, how long that takes, and whether the battery lasts. Nothing is touched here.

All times are seconds. They count from the trigger, the moment at which upsd says OB LB, or at which a stage asks for FSD;
what comes before it has a negative time. From there on a run goes like this:

    the primary's upsmon looks (POLLFREQALERT), and says FSD
    each secondary looks, waits for its own FINALDELAY, begins to go down, and logs out (together: its begin_time)
    the primary waits until all have logged out, HOSTSYNC seconds at most, and then for its own FINALDELAY
    the gate waits until each of them is silent, at most as long as its limit
    Proxmox stops its guests, then itself; at the very end the UPS is told to cut the power (killpower)
    the UPS does so after its offdelay

Two runs are worked out. The expected one takes each machine's usual time, and half of an interval between two looks. In
the worst one each time is at its limit, and one secondary never logs out, so that all of HOSTSYNC passes.

A plan *holds* if all is well even in the worst run. It is *feasible* if the expected run ends before a charged battery does: a plan
that is not can't work on any day. A guest that is not stopped before the NAS whose disks it has is no reason for that: it hangs,
and is said loudly, but the battery lasts, and so it was before.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..base import records
from ..base.text import printable
from ..conf.upsmon import IDLE_SECONDS
from ..inventory import BEGIN_SECONDS, POLL_SECONDS, usual_limit

PRIMARY, SECONDARY, GUEST = "primary", "secondary", "guest"
KINDS = {
    PRIMARY: ("pve", "linux"),
    SECONDARY: ("truenas", "linux", "pve"),
    GUEST: ("qm", "pct"),
}

# What an event is. A machine's own have its name; those of the whole run have none, the UPS's have the UPS's name.
WAITS = "waits"
GOES = "goes down"
DOWN = "down"
SYNCS = "waits for the others to begin"
FLOOR = "FINALDELAY"
GATE = "waits until they are down"
GUESTS = "stops its guests"
ITSELF = "goes down itself"
KILLS = "tells the UPS to cut"
TRIGGER = "trigger"
FSD = "FSD"
POWEROFF = "power off"
CUT = "the UPS cuts"
EMPTY = "the battery is empty"

# Seconds of a gate's look at all hosts, with the pause before it
LOOK = 2
# between two looks of the stages' program
STAGE_LOOK = 5
# The least of HOSTSYNC and FINALDELAY. The first costs nothing unless a secondary hangs, the second is a floor under the gate.
LEAST_HOSTSYNC = 30
LEAST_FINALDELAY = 2
SYNC_MARGIN = 5
# between the moment that the UPS should have cut and the reboot that is done instead
REBOOT_MARGIN = 60
# a look that fails is no reason yet: so many of them must
LOOKS = 3
# How long the guests take where nobody says: Proxmox's own limit for one of them
GUESTS_SECONDS = 180
# The least that the gate leaves to the primary: as the role's default
LEAST_LEFT = 30
# Seconds between two readings of the charge and the time left; the status is read each pollinterval. usbhid-ups 2.8.1 -h;
# drivers/usbhid-ups.c of 2.8.3 for CyberPower. Drivers that are not known here are taken for slow ones.
READS = 30
READS_CPS = 12
# offdelay and ondelay if ups.conf does not say: the drivers' own -h
DELAYS = {"usbhid-ups": (20, 30), "nutdrv_qx": (30, 180)}
DELAYS_CPS = (60, 120)
CPS_SINCE = (2, 8, 3)
CPS_VENDOR = "0764"
CPS_STEP = 60


class PlanError(ValueError):
    """What was asked for can't be a plan; the message names the machine or stage, what is wrong, and what to do."""


@dataclass(frozen=True)
class Machine:
    """A machine that hangs on the UPS, or a guest of the primary.

    begin_time: from FSD until it begins to go down, at most: its poll and its FINALDELAY. shutdown_time: from there until it
    is down, as a rule. shutdown_limit: the longest that this is waited for; None: half as long again, and 30 s more at least. needs: names
    of the machines whose storage it uses, so that it must be down before they begin. guest_id: its number, if it is a guest of the
    primary, as also a secondary may be. address: where it is seen; only to find the guests that use its storage (placement.py).
    Of the primary only the name counts: its times are in Timing.
    """

    name: str
    role: str
    kind: str
    begin_time: float = BEGIN_SECONDS
    shutdown_time: float = 60
    shutdown_limit: float | None = None
    needs: tuple[str, ...] = ()
    guest_id: int | None = None
    address: tuple[str, ...] = ()

    @property
    def most(self) -> float:
        """Say how long it may take to go down."""
        return usual_limit(self.shutdown_time) if self.shutdown_limit is None else self.shutdown_limit


@dataclass(frozen=True)
class Supply:
    """A UPS. None: not known.

    runtime, charge: what is left now, at the load of all machines; s and percent. runtime_low, charge_low: at which of these the
    battery is low. offdelay, ondelay: from the order to cut until the power is off, and on again. mfr, driver, vendorid: by
    which its quirks are known. ignorelb: NUT decides by these values, not the UPS. pollfreq: between two readings of them;
    pollinterval: between two of the status. says_runtime: whether it says battery.runtime by itself, so that NUT can decide by that.
    """

    name: str = "ups"
    runtime: float | None = None
    runtime_low: float | None = None
    charge_low: float | None = None
    charge: float | None = None
    offdelay: float | None = None
    ondelay: float | None = None
    mfr: str | None = None
    driver: str | None = None
    vendorid: str | None = None
    ignorelb: bool = False
    pollfreq: float | None = None
    pollinterval: float = 2
    says_runtime: bool | None = None


@dataclass(frozen=True)
class Timing:
    """What stands in NUT's files on the primary, and how long the primary itself takes.

    settle: how long a host must be silent to count as down. own_shutdown: Proxmox without its guests. guests_time: until
    Proxmox has stopped all guests; None: as Proxmox itself says, if it was asked, else 180 s, its limit for one VM. killpower: until
    the order to cut is given and the system is off. poweroff_wait: POWEROFF_WAIT; None: not set. margin: what is kept back.
    release: of NUT. reserve, least: of the gate's policy, with how much left of the battery it waits no longer once the expected
    times are over, and at any time; None: not set.
    """

    pollfreq: float = 5
    pollfreqalert: float = 5
    hostsync: float = LEAST_HOSTSYNC
    finaldelay: float = 5
    deadtime: float = 15
    maxage: float = 15
    settle: float = 3
    own_shutdown: float = 30
    guests_time: float | None = None
    killpower: float = 10
    poweroff_wait: float | None = None
    margin: float = 30
    release: str = "2.8.1"
    reserve: float | None = None
    least: float | None = None

    @property
    def poll(self) -> float:
        """Say how long upsmon may look away. A battery may be low at once, and then the look before was at POLLFREQ."""
        return max(self.pollfreq, self.pollfreqalert)


@dataclass(frozen=True)
class StagePlan:
    """What is done before the battery is low, as soon as one of on_battery (s), charge (percent), runtime (s) is reached.

    guests: names of machines that it stops. fsd: whether it then asks for FSD. seconds: how long its guests may take; at least
    the longest limit of them.
    """

    name: str
    on_battery: float | None = None
    charge: float | None = None
    runtime: float | None = None
    guests: tuple[str, ...] = ()
    fsd: bool = False
    seconds: float | None = None

    @property
    def trigger(self) -> str:
        """Say what starts it, in words."""
        parts = [
            f"{self.on_battery:g} s on battery" if self.on_battery is not None else "",
            f"charge {self.charge:g} %" if self.charge is not None else "",
            f"{self.runtime:g} s left" if self.runtime is not None else "",
        ]
        return " or ".join(part for part in parts if part)


@dataclass(frozen=True)
class Event:
    """What a machine does from ``at`` until ``until``. worst: at the limits; else as expected.

    what is one of the words above. machine is "" for what concerns all.
    """

    at: float
    until: float
    machine: str
    what: str
    worst: bool = False


@dataclass(frozen=True)
class Constraint:
    """Something that must be so for the plan to hold.

    holds: None if it can't be told. have, need: what is compared, have must not be less; slack is the difference. about: the
    machine, UPS or stage, or "". words: the arithmetic. remedy: what to change, or to measure; "" if nothing.
    """

    name: str
    about: str
    holds: bool | None
    slack: float | None
    have: float | None
    need: float | None
    words: str
    remedy: str = ""


@dataclass(frozen=True)
class PlannedGuest:
    """A guest of the primary. machine: its name in the plan; name: its own, or "".

    stage: which stops it, or "": the primary does when it goes down. seconds: how long it has for that. why: why that stage stops
    it, in words, or whose storage it uses. needs: as Machine has it. ha: whether Proxmox's HA works it.
    """

    machine: str
    id: int | None
    kind: str
    name: str
    stage: str
    seconds: float
    why: str = ""
    needs: tuple[str, ...] = ()
    ha: bool = False


@dataclass(frozen=True)
class Proxmox:
    """What Proxmox VE on the primary says of its guests; placement.py finds it out.

    seconds: how long it takes at most to stop those that no stage stops; usual: as a rule. problem: why its guests can't be read; ""
    if they could. turns: by machine, how long after the primary's poweroff each is stopped, as a rule and at most. migrates: HA
    moves its guests to another node when the host powers off; ha: what a person should know of HA; () if it works no guest.
    remarks: what is wrong with what the stages choose.
    """

    seconds: float | None = None
    usual: float | None = None
    problem: str = ""
    guests: tuple[PlannedGuest, ...] = ()
    turns: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    migrates: bool = False
    ha: tuple[str, ...] = ()
    remarks: tuple[Constraint, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A plan. events: as expected; worst: at the limits; both in the order of time.

    needed: what the settings must be at least, or at most: hostsync, finaldelay, deadtime, pollfreq, pollfreqalert, maxage,
    guests_time, runtime_low, longest, reserve, least, poweroff_wait, limits and guest_timeouts (by machine), offdelay and ondelay (by
    UPS). reserve is what the primary wants from its own poweroff on; least is that without guests, and without anything kept back.
    constraints: those that fail first, and of these the ones for which it is not feasible; then what can't be told, then the tightest.
    holds: at the limits; feasible: as expected; None if that can't be told. guests: of the primary, the staged ones first. ha: as
    Proxmox has it.
    """

    events: tuple[Event, ...]
    worst: tuple[Event, ...]
    needed: Mapping[str, float | Mapping[str, float]]
    constraints: tuple[Constraint, ...]
    holds: bool | None
    machines: tuple[Machine, ...] = ()
    supplies: tuple[Supply, ...] = ()
    stages: tuple[StagePlan, ...] = ()
    feasible: bool | None = None
    guests: tuple[PlannedGuest, ...] = ()
    ha: tuple[str, ...] = ()

    def at(self, what: str, machine: str = "", *, worst: bool = False) -> float | None:
        """Say when something ends that lasts, or happens; None if it is not part of this plan."""
        events = self.worst if worst else self.events
        return next((one.until for one in events if (one.what, one.machine) == (what, machine)), None)


@dataclass(frozen=True)
class _Inputs:
    """What a plan is made from, and what of it is asked for often."""

    machines: tuple[Machine, ...]
    supplies: tuple[Supply, ...]
    timing: Timing
    stages: tuple[StagePlan, ...]
    proxmox: Proxmox
    named: Mapping[str, Machine] = field(default_factory=dict)

    @property
    def guests_time(self) -> float:
        """Say how long the primary may take to stop its guests: as given, as found out, or as Proxmox has it for one."""
        if self.timing.guests_time is not None:
            return self.timing.guests_time
        if self.proxmox.seconds is not None:
            return max([self.proxmox.seconds, *(one.most for one in self.unstaged)])
        return GUESTS_SECONDS

    @property
    def primary(self) -> Machine:
        return next(one for one in self.machines if one.role == PRIMARY)

    @property
    def secondaries(self) -> list[Machine]:
        return [one for one in self.machines if one.role == SECONDARY]

    @property
    def staged(self) -> dict[str, int]:
        """The position of the first stage that stops a guest, by the guest's name."""
        found: dict[str, int] = {}
        for position, stage in enumerate(self.stages):
            for name in stage.guests:
                found.setdefault(name, position)
        return found

    @property
    def unstaged(self) -> list[Machine]:
        return [one for one in self.machines if one.role == GUEST and one.name not in self.staged]

    def stage_seconds(self, stage: StagePlan) -> float:
        return max([stage.seconds or 0, *(self.named[name].most for name in stage.guests)])


def plan(
    machines: Iterable[Machine],
    supplies: Iterable[Supply],
    timing: Timing,
    stages: Iterable[StagePlan] = (),
    proxmox: Proxmox | None = None,
) -> Plan:
    """Work out both runs, what the settings must be for it, and whether they are. Raises PlanError.

    proxmox: None if nobody asked; the machines then say which guests there are.
    """
    machines, supplies, stages = tuple(machines), tuple(supplies), tuple(stages)
    _check(machines, supplies, timing, stages)
    given = _Inputs(machines, supplies, timing, stages, proxmox or Proxmox(), {one.name: one for one in machines})
    needed = _needed(given)
    events = [_run(given, worst) for worst in (False, True)]
    constraints = sorted(_constraints(given, needed), key=_urgency)
    return Plan(
        events[0],
        events[1],
        needed,
        tuple(constraints),
        holds=_all(constraints),
        machines=machines,
        supplies=supplies,
        stages=stages,
        feasible=_all(one for one in constraints if one.name in _MUST),
        guests=tuple(_guests(given)),
        ha=given.proxmox.ha,
    )


def _all(constraints: Iterable[Constraint]) -> bool | None:
    verdicts = {one.holds for one in constraints}
    return False if False in verdicts else None if None in verdicts else True


# Without these it is not feasible: it can't work even if all goes as expected.
_MUST = frozenset({"as expected", "least", "order", "HA"})


def _urgency(one: Constraint) -> tuple[int, bool, float]:
    rank = {False: 0, None: 1, True: 2}[one.holds]
    return rank, one.holds is False and one.name not in _MUST, 0 if one.slack is None else one.slack


def _guests(given: _Inputs) -> Iterator[PlannedGuest]:
    """List the guests: by stage, then those that the primary stops, each as Proxmox says it, or else as given."""
    found, staged = {one.machine: one for one in given.proxmox.guests}, given.staged
    machines = [one for one in given.machines if one.role == GUEST]
    for one in sorted(machines, key=lambda one: (staged.get(one.name, len(given.stages)), one.guest_id or 0, one.name)):
        stage = given.stages[staged[one.name]].name if one.name in staged else ""
        row = found.get(one.name) or PlannedGuest(one.name, one.guest_id, one.kind, "", stage, one.most)
        yield replace(row, stage=stage, needs=one.needs)


# --- what can't be a plan


def _check(
    machines: Sequence[Machine], supplies: Sequence[Supply], timing: Timing, stages: Sequence[StagePlan]
) -> None:
    for what, called in (
        ("machine", [one.name for one in machines]),
        ("UPS", [one.name for one in supplies]),
        ("stage", [one.name for one in stages]),
    ):
        for name in called:
            if not name or called.count(name) > 1:
                raise PlanError(f"{what} {name!r}: each {what} has a name of its own")
    primaries = [one.name for one in machines if one.role == PRIMARY]
    if len(primaries) != 1:
        raise PlanError(
            f"a plan is for one primary, and there are {len(primaries)} ({', '.join(primaries) or 'none'}):"
            f" give one machine the role {PRIMARY}"
        )
    if not supplies:
        raise PlanError("there is no UPS: name at least one in supplies")
    names = {one.name for one in machines}
    for one in machines:
        _check_machine(one, names)
    guests = {one.name for one in machines if one.role == GUEST}
    for stage in stages:
        for name in stage.guests:
            if name not in guests:
                raise PlanError(
                    f"stage {stage.name}: {name} is no guest: only guests of the primary are stopped by a stage"
                )
        if not stage.trigger:
            raise PlanError(f"stage {stage.name}: nothing starts it: set on_battery, charge or runtime")
        _check_numbers(f"stage {stage.name}", stage)
    for supply in supplies:
        _check_numbers(f"UPS {supply.name}", supply)
    _check_numbers("timing", timing)
    _release(timing.release)


def _check_machine(one: Machine, names: set[str]) -> None:
    if one.role not in KINDS:
        raise PlanError(f"{one.name}: role {one.role!r} is none of {', '.join(KINDS)}")
    if one.kind not in KINDS[one.role]:
        raise PlanError(f"{one.name}: kind {one.kind!r} is none of a {one.role}'s: {', '.join(KINDS[one.role])}")
    for name in one.needs:
        if name not in names or name == one.name:
            raise PlanError(f"{one.name}: needs names {name}, which is no other machine of this plan")
    _check_numbers(one.name, one)


def _check_numbers(about: str, one: Any) -> None:
    for name, value in asdict(one).items():
        if isinstance(value, (int, float)) and not 0 <= value < math.inf:
            raise PlanError(f"{about}: {name} is {value}; it can't be less than 0, and must be a number")


def _release(text: str) -> tuple[int, ...]:
    found = re.match(r"([0-9]+)\.([0-9]+)(?:\.([0-9]+))?", text)
    if found is None:
        raise PlanError(f"timing: release {text!r} is none of NUT, such as 2.8.1")
    return tuple(int(part or 0) for part in found.groups())


# --- the UPS and its quirks


def is_cps(supply: Supply) -> bool:
    """Say whether it is a CyberPower on usbhid-ups, which counts its delays in whole minutes."""
    if supply.driver not in {None, "", "auto", "usbhid-ups"}:
        return False
    maker = (supply.mfr or "").lower()
    return maker.startswith(("cps", "cyber")) or (supply.vendorid or "").lower().removeprefix("0x") == CPS_VENDOR


def delays(supply: Supply, release: str) -> tuple[float | None, float | None]:
    """Return offdelay and ondelay as the UPS makes them; None for one that is not known.

    A CyberPower drops what is no whole minute, and so does nutdrv_qx, which takes steps of 6 s below a minute.
    """
    driver = supply.driver if supply.driver not in {None, "", "auto"} else "usbhid-ups"
    cps = is_cps(supply)
    defaults: tuple[float | None, float | None] = DELAYS.get(str(driver), (None, None))
    if cps and _release(release) >= CPS_SINCE:
        defaults = DELAYS_CPS
    off = defaults[0] if supply.offdelay is None else supply.offdelay
    on = defaults[1] if supply.ondelay is None else supply.ondelay
    if cps:
        return _steps(off, CPS_STEP), _steps(on, CPS_STEP)
    if driver == "nutdrv_qx":
        return _steps(off, 6 if off is not None and off < 60 else 60), _steps(on, 60)
    return off, on


def _steps(value: float | None, step: int) -> float | None:
    return None if value is None else value // step * step


def reading(supply: Supply, release: str) -> float:
    """Say how old the time left may be that upsd shows."""
    if supply.pollfreq is not None:
        return max(supply.pollfreq, supply.pollinterval)
    return READS_CPS if is_cps(supply) and _release(release) >= CPS_SINCE else READS


def noticing(supply: Supply, release: str, *, ignorelb: bool | None = None) -> float:
    """Say how long it takes until upsd says LB: as often as the status is read, or the values are that NUT decides by."""
    ignorelb = supply.ignorelb if ignorelb is None else ignorelb
    return reading(supply, release) if ignorelb else supply.pollinterval


def low(supply: Supply) -> tuple[float | None, float | None]:
    """Say how long the battery still lasts when it counts as low, at least and at most; None if that can't be told.

    NUT, told by ignorelb to decide, goes by whichever of charge and runtime is reached first. Which of the two a UPS goes
    by that decides itself, only its maker knows.
    """
    known = [supply.runtime_low] if supply.runtime_low is not None else []
    if supply.charge_low is not None and supply.runtime is not None:
        known.append(supply.runtime * min(1.0, supply.charge_low / (supply.charge or 100)))
    if not known:
        return None, None
    return max(known) if supply.ignorelb else min(known), max(known)


def charged(supply: Supply) -> Supply:
    """Return the UPS as it is with a full battery: the time left is taken to go with the charge."""
    if supply.runtime is None:
        return supply
    share = min(supply.charge or 100, 100) / 100
    return replace(supply, runtime=supply.runtime / share, charge=100)


# --- the two runs


@dataclass(frozen=True)
class _Clock:
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


def _clock(given: _Inputs, worst: bool) -> _Clock:
    timing = given.timing
    fsd = timing.poll if worst else timing.poll / 2
    begun = {
        one.name: fsd + one.begin_time - (0 if worst else min(POLL_SECONDS, one.begin_time) / 2)
        for one in given.secondaries
    }
    down = {one.name: begun[one.name] + _usual(one, worst) for one in given.secondaries}
    synced = fsd
    if begun:
        synced = fsd + timing.hostsync if worst else min(max(begun.values()), fsd + timing.hostsync)
    gate = synced + timing.finaldelay
    last = gate + max([0, *(one.most for one in given.secondaries)]) + LOOK
    silent = max([0, *down.values()]) + timing.settle + LOOK / 2
    poweroff = last if worst else min(max(gate + LOOK / 2, silent), last)
    stopped = poweroff + _guests_seconds(given, worst)
    killing = stopped + timing.own_shutdown
    return _Clock(begun, down, fsd, synced, gate, poweroff, stopped, killing, killing + timing.killpower)


def _run(given: _Inputs, worst: bool) -> tuple[Event, ...]:
    """Return the events of a run, in the order of time."""
    timing, primary, clock = given.timing, given.primary.name, _clock(given, worst)
    cuts = {one.name: clock.off + (delays(one, timing.release)[0] or 0) for one in given.supplies}
    found = [(0.0, 0.0, "", TRIGGER), (clock.fsd, clock.fsd, "", FSD), (clock.poweroff, clock.poweroff, "", POWEROFF)]
    found += [
        (0.0, clock.fsd, primary, WAITS),
        (clock.fsd, clock.synced, primary, SYNCS),
        (clock.synced, clock.gate, primary, FLOOR),
        (clock.gate, clock.poweroff, primary, GATE),
        (clock.poweroff, clock.stopped, primary, GUESTS),
        (clock.stopped, clock.killing, primary, ITSELF),
        (clock.killing, clock.off, primary, KILLS),
    ]
    goes = {name: (begun, clock.down[name]) for name, begun in clock.begun.items()}
    found += [(0.0, begun, name, WAITS) for name, begun in clock.begun.items()]
    for one in given.unstaged:
        begin = min(clock.poweroff + given.proxmox.turns.get(one.name, (0, 0))[worst], clock.stopped)
        goes[one.name] = begin, min(begin + _usual(one, worst), clock.stopped)
    for name, position in given.staged.items():
        begin = _stage_begin(given, given.stages[position], worst)
        goes[name] = begin, begin + _usual(given.named[name], worst)
    found += [(*times, name, GOES) for name, times in goes.items()]
    ends = {name: end for name, (_unused, end) in goes.items()}
    found += [(end, max(cuts.values()), name, DOWN) for name, end in {**ends, primary: clock.off}.items()]
    found += [(cut, cut, name, CUT) for name, cut in cuts.items()]
    for supply in given.supplies:
        least = low(supply)[0]
        if least is not None:
            left = least if supply.runtime is None else min(least, supply.runtime)
            left -= noticing(supply, timing.release) / (1 if worst else 2)
            found.append((left, left, supply.name, EMPTY))
    events = (Event(at, until, machine, what, worst) for at, until, machine, what in found)
    return tuple(sorted(events, key=lambda one: (one.at, one.until)))


def _usual(one: Machine, worst: bool) -> float:
    return one.most if worst else min(one.shutdown_time, one.most)


def _guests_seconds(given: _Inputs, worst: bool) -> float:
    """Say how long Proxmox stops guests. As expected: as it was found out, and as the slowest that is named, if any is."""
    usual = [_usual(one, worst) for one in given.unstaged]
    if given.proxmox.usual is not None:
        usual.append(given.proxmox.usual)
    return given.guests_time if worst or not usual else min(given.guests_time, max(usual))


def _stage_begin(given: _Inputs, stage: StagePlan, worst: bool) -> float:
    """Say when a stage begins. One that asks for FSD makes the trigger itself, when its guests are down."""
    taken = max([0.0, *(_usual(given.named[name], worst) for name in stage.guests)])
    if stage.fsd:
        return -max(taken, stage.seconds or 0) if worst else -taken
    rooms = [room for room in (_stage_room(given, stage, one) for one in given.supplies) if room is not None]
    if not rooms:
        return -taken
    room = min(rooms, key=lambda one: one.seconds)
    return -room.seconds if worst else -(room.seconds + room.late / 2)


# --- what the settings must be


def _limit_needed(given: _Inputs, one: Machine) -> float:
    return max(one.most, math.ceil(one.shutdown_time + given.timing.settle))


def _reserve(given: _Inputs, guests: float) -> list[tuple[float, str]]:
    """Return what the primary needs from its poweroff on. The time left that the gate sees may be old."""
    timing = given.timing
    return [
        (guests, "guests"),
        (timing.own_shutdown, "the primary itself"),
        (timing.killpower, "killpower"),
        (max(reading(one, timing.release) for one in given.supplies), "age of the reading"),
        (timing.margin, "margin"),
    ]


@dataclass(frozen=True)
class _Settings:
    """What the time from the low mark to the cut depends on, and may be changed."""

    hostsync: float
    finaldelay: float
    limit: float
    guests: float


def _terms(given: _Inputs, supply: Supply, settings: _Settings, ignorelb: bool) -> list[tuple[float, str]]:
    """Return what the battery must last from its low mark on."""
    return [*_waits(given, supply, settings, ignorelb), *_reserve(given, settings.guests)]


def _waits(given: _Inputs, supply: Supply, settings: _Settings, ignorelb: bool) -> list[tuple[float, str]]:
    """Return what passes at most from the low mark until the gate is over."""
    timing = given.timing
    return [
        (noticing(supply, timing.release, ignorelb=ignorelb), "until upsd says so"),
        (timing.poll, "poll"),
        (settings.hostsync if given.secondaries else 0, "HOSTSYNC"),
        (settings.finaldelay, "FINALDELAY"),
        (settings.limit, "limit of the slowest"),
        (LOOK, "look"),
    ]


def _settings_now(given: _Inputs) -> _Settings:
    timing = given.timing
    limit = max([0, *(one.most for one in given.secondaries)])
    return _Settings(timing.hostsync, timing.finaldelay, limit, given.guests_time)


def _terms_now(given: _Inputs, supply: Supply) -> list[tuple[float, str]]:
    return _terms(given, supply, _settings_now(given), supply.ignorelb)


def _sum(terms: Iterable[tuple[float, str]]) -> float:
    return sum(value for value, _unused in terms)


def _needed(given: _Inputs) -> dict[str, Any]:
    """Return what the settings must be so that the plan holds, all together."""
    timing = given.timing
    begin = max((one.begin_time for one in given.secondaries), default=0)
    hostsync = max(LEAST_HOSTSYNC, math.ceil(begin + SYNC_MARGIN))
    limits = {one.name: _limit_needed(given, one) for one in given.secondaries}
    guests = max([given.guests_time, given.proxmox.seconds or 0, *(one.most for one in given.unstaged)])
    polls = {name: min(value, IDLE_SECONDS - 1) for name, value in _polls(timing).items()}
    settings = _Settings(
        max(hostsync, timing.hostsync), max(LEAST_FINALDELAY, timing.finaldelay), max([0, *limits.values()]), guests
    )
    lowest = [_sum(_terms(given, one, settings, ignorelb=True)) for one in given.supplies]
    off, on = {}, {}
    for one in given.supplies:
        off[one.name], on[one.name] = _delays_needed(one, timing)
    return {
        "hostsync": hostsync,
        "finaldelay": LEAST_FINALDELAY,
        "deadtime": math.ceil(max(15, LOOKS * max(polls.values()))),
        **polls,
        "maxage": math.ceil(max(15, LOOKS * max(one.pollinterval for one in given.supplies))),
        "guests_time": guests,
        "runtime_low": math.ceil(max(lowest)),
        "longest": math.ceil(max([0, *limits.values()]) + LOOK),
        "reserve": math.ceil(_sum(_reserve(given, guests))),
        "least": math.ceil(max(LEAST_LEFT, timing.own_shutdown + timing.killpower)),
        "poweroff_wait": math.ceil(timing.killpower + max(off.values()) + REBOOT_MARGIN),
        "limits": limits,
        "guest_timeouts": {one.name: one.most for one in given.machines if one.role == GUEST},
        "offdelay": off,
        "ondelay": on,
    }


def _polls(timing: Timing) -> dict[str, float]:
    return {"pollfreq": timing.pollfreq, "pollfreqalert": timing.pollfreqalert}


def _delays_needed(supply: Supply, timing: Timing) -> tuple[float, float]:
    """Return an offdelay and an ondelay that will do: those that are, if they do."""
    off, on = delays(supply, timing.release)
    driver = supply.driver or ""
    step = CPS_STEP if is_cps(supply) or driver == "nutdrv_qx" else 10
    if off is None or off < timing.killpower:
        off = max(DELAYS["usbhid-ups"][0], math.ceil(timing.killpower / step) * step)
        off = math.ceil(off / step) * step
    if on is None or on <= off:
        on = off // step * step + step
    return off, on


# --- what must be so


def _constraints(given: _Inputs, needed: Mapping[str, Any]) -> Iterator[Constraint]:
    yield from _nut(given, needed)
    yield from _order(given, needed)
    for supply in given.supplies:
        yield _as_expected(given, supply, needed)
        yield from _battery(given, supply, needed)
        yield from _gate(given, supply, needed)
        yield from _cut(given, supply, needed)
    for stage in given.stages:
        yield _stage(given, stage, needed)
    yield from _ha(given)
    yield from given.proxmox.remarks


def _compare(name: str, about: str, have: float, need: float, *, words: str, remedy: str) -> Constraint:
    holds = have >= need
    return Constraint(name, about, holds, have - need, have, need, words, "" if holds else remedy)


def _unknown(name: str, about: str, need: float | None, *, words: str, remedy: str) -> Constraint:
    return Constraint(name, about, None, None, None, need, words, remedy)


def _nut(given: _Inputs, needed: Mapping[str, Any]) -> Iterator[Constraint]:
    """What NUT's own files must say."""
    timing = given.timing
    if given.secondaries:
        one = max(given.secondaries, key=lambda one: one.begin_time)
        words = f"{one.name} begins to go down up to {_n(one.begin_time)} s after FSD; HOSTSYNC gives {_n(timing.hostsync)} s"
        remedy = f"set nut_server_hostsync to {needed['hostsync']}"
        yield _compare("HOSTSYNC", "", timing.hostsync, one.begin_time, words=words, remedy=remedy)
    for name, value in _polls(timing).items():
        words = f"upsd drops a client that is silent for {IDLE_SECONDS} s; upsmon is for {_n(value)} s"
        remedy = f"set nut_server_{name} to {_n(needed[name])} or less"
        yield _compare(name.upper(), "", IDLE_SECONDS - 1, value, words=words, remedy=remedy)
    need = LOOKS * timing.poll
    words = f"{LOOKS} looks, {_n(timing.poll)} s apart, are {_n(need)} s; DEADTIME gives {_n(timing.deadtime)} s"
    remedy = f"set nut_server_deadtime to {needed['deadtime']}"
    yield _compare("DEADTIME", "", timing.deadtime, need, words=words, remedy=remedy)
    interval = max(one.pollinterval for one in given.supplies)
    need = LOOKS * interval
    words = f"{LOOKS} looks at the UPS, {_n(interval)} s apart, are {_n(need)} s; MAXAGE gives {_n(timing.maxage)} s"
    remedy = f"set nut_server_maxage to {needed['maxage']}"
    yield _compare("MAXAGE", "", timing.maxage, need, words=words, remedy=remedy)
    if timing.poweroff_wait is not None:
        off = max(delays(one, timing.release)[0] or 0 for one in given.supplies)
        terms = [(timing.killpower, "killpower"), (off, "offdelay"), (REBOOT_MARGIN, "margin")]
        words = f"{_added(terms)}; after POWEROFF_WAIT, {_n(timing.poweroff_wait)} s, the host is rebooted"
        remedy = f"set nut_server_poweroff_wait to {needed['poweroff_wait']}s"
        yield _compare("POWEROFF_WAIT", "", timing.poweroff_wait, _sum(terms), words=words, remedy=remedy)


def _order(given: _Inputs, needed: Mapping[str, Any]) -> Iterator[Constraint]:
    """Who must be down before whom."""
    timing, primary = given.timing, given.primary.name
    for one in given.secondaries:
        terms = [(one.shutdown_time, "its shutdown"), (timing.settle, "silence")]
        words = f"{_added(terms)}; the gate waits {_n(one.most)} s for {one.name} before {primary} goes"
        remedy = f"set the limit of {one.name} to {_n(needed['limits'][one.name])}"
        yield _compare("order", one.name, one.most, _sum(terms), words=words, remedy=remedy)
    yield from _guests_in_time(given, needed)
    for one in given.machines:
        for name in one.needs:
            yield from _storage(given, one, given.named[name], needed)


def _guests_in_time(given: _Inputs, needed: Mapping[str, Any]) -> Iterator[Constraint]:
    """Whether guests_time is enough for the guests that no stage stops. What was worked out from them is."""
    time = given.timing.guests_time
    if given.proxmox.problem:
        words = f"{given.proxmox.problem}; so {_n(given.guests_time)} s are counted for all guests, whatever they use"
        remedy = "mend that" if time is not None else "mend that, or set nut_server_guests_time"
        yield _unknown("guests", "", None, words=words, remedy=remedy)
        return
    if time is None:
        time = given.guests_time
        if given.proxmox.seconds is not None:
            return
    slowest = max(given.unstaged, key=lambda one: one.most, default=None)
    most, remedy = given.proxmox.seconds or 0, f"set nut_server_guests_time to {_n(needed['guests_time'])}"
    if slowest is not None and slowest.most >= most:
        words, most = f"{slowest.name} may take {_n(slowest.most)} s", slowest.most
    elif most:
        words = f"by their startup options the guests may take {_n(most)} s"
        remedy += ", or give them less time in Proxmox (startup: down=...)"
    else:
        return
    words += f"; guests_time gives {_n(time)} s to all that Proxmox stops"
    yield _compare("guests", "", time, most, words=words, remedy=remedy)


def _ha(given: _Inputs) -> Iterator[Constraint]:
    proxmox = given.proxmox
    if proxmox.ha:
        words = "; ".join(proxmox.ha)
        remedy = "set shutdown_policy to freeze: Datacenter, Options, HA Settings" if proxmox.migrates else ""
        yield Constraint("HA", "", not proxmox.migrates, None, None, None, words, remedy)


def _stage_for(given: _Inputs, one: Machine, its: Machine, needed: Mapping[str, Any]) -> str:
    """Say how a guest comes into a stage. By storage only those are found that Proxmox was asked for."""
    if one.name not in {guest.machine for guest in given.proxmox.guests}:
        return f"put {one.name} into the guests of a stage"
    if given.stages:
        return f"add storage_of: [{its.name}] to a stage of nut_server_stages"
    most = max(guest.most for guest in given.unstaged if its.name in guest.needs)
    stage = f"{{name: guests, runtime: {_stage_runtime(given, most, needed)}, storage_of: [{its.name}], fsd: true}}"
    return f"add {stage} to nut_server_stages"


def _stage_runtime(given: _Inputs, seconds: float, needed: Mapping[str, Any]) -> int:
    """Say with how much left a stage must begin whose guests take so long."""
    marks: list[float] = [needed["runtime_low"], *(low(supply)[1] or 0 for supply in given.supplies)]
    return math.ceil(max(marks) + max(_late(given, supply)[1] for supply in given.supplies) + seconds)


def _storage(given: _Inputs, one: Machine, its: Machine, needed: Mapping[str, Any]) -> Iterator[Constraint]:
    """Say what is wrong if a machine is not down before the one whose storage it uses begins.

    The primary goes last in any case. Whether a stage has the time for it is said where the stages are.
    """
    staged, last = given.staged, len(given.stages)
    if its.role == PRIMARY:
        return
    uses = f"{one.name} uses the storage of {its.name}, and"
    if one.role == GUEST and its.role == GUEST and one.name not in staged and its.name not in staged:
        words = f"{uses} Proxmox stops both: in which order, only its settings say"
        remedy = (
            f"give {one.name} a higher startup order than {its.name} in Proxmox, and take {its.name} from its needs"
        )
        yield _unknown("needs", one.name, None, words=words, remedy=remedy)
        return
    if one.role == SECONDARY:
        words = f"{uses} nothing makes it go first"
        remedy = f"make {one.name} a guest that a stage stops, or take {its.name} from its needs if it can do without"
    elif one.name not in staged:
        words = f"{uses} is stopped only after that"
        remedy = _stage_for(given, one, its, needed)
    elif its.role == GUEST and staged.get(its.name, last) <= staged[one.name]:
        words = f"{uses} stage {given.stages[staged[its.name]].name} stops that too early"
        remedy = f"put {its.name} into a later stage than {one.name}"
    else:
        return
    words += f": it takes up to {_n(one.most)} s"
    yield _compare("needs", one.name, 0, max(one.most, 1), words=words, remedy=remedy)


def _battery(given: _Inputs, supply: Supply, needed: Mapping[str, Any]) -> Iterator[Constraint]:
    name, terms = supply.name, _terms_now(given, supply)
    need, least = _sum(terms), low(supply)[0]
    remedy = _earlier(given, supply, needed)
    if least is None:
        words = f"{_added(terms)} must be left when the battery is low; when {name} says so is not known"
        yield _unknown("low battery", name, need, words=words, remedy=remedy)
    else:
        by = "NUT decides that" if supply.ignorelb else "it decides that itself"
        words = f"{_added(terms)} must be left when the battery is low; {name} says so with {_n(least)} s left ({by})"
        yield _compare("low battery", name, least, need, words=words, remedy=remedy)
    if supply.runtime is None:
        words = f"{_n(need)} s are needed; how long the battery of {name} lasts is not known"
        yield _unknown("battery", name, need, words=words, remedy=_measure(name))
        return
    partly = f", at {_n(supply.charge)} % charge" if supply.charge is not None and supply.charge < 100 else ""
    words = f"{_n(need)} s are needed; the battery of {name} lasts {_n(supply.runtime)} s{partly}"
    remedy = "when it is charged, plan again; else " if partly else ""
    yield _compare("battery", name, supply.runtime, need, words=words, remedy=remedy + _larger(need))


def _larger(need: float) -> str:
    return f"{_n(math.ceil(need))} s need a larger or new battery, less load, or shorter limits and guests_time"


def _earlier(given: _Inputs, supply: Supply, needed: Mapping[str, Any]) -> str:
    """Say what makes a battery count as low early enough: at the limits, or at least as expected if it can't be more.

    NUT can decide by what it is told only, and its drivers don't start with ignorelb where neither battery.runtime nor battery.charge
    is known (drivers/main.c).
    """
    name, full = supply.name, charged(supply).runtime
    expected = math.ceil(
        _sum(_expected_terms(given, supply, noticing(supply, given.timing.release, ignorelb=True) / 2))
    )
    want = needed["runtime_low"]
    if full is not None and want >= full:
        if expected >= full:
            return _larger(want)
        want = expected
    if supply.says_runtime is not False:
        only = f", if upsc {name} shows battery.runtime" if supply.says_runtime is None and full is None else ""
        less = f" (all goes well if nothing takes longer than expected; {_larger(needed['runtime_low'])})"
        return f"set nut_server_runtime_low to {want}{only}" + (less if want < needed["runtime_low"] else "")
    words = f"{name} does not say battery.runtime, so that NUT can't decide by it: "
    if supply.charge is None:
        return (
            f"{words}measure on battery how long it lasts with all machines on, and let a stage with fsd: true begin after so many "
            f"seconds on battery (on_battery) that {want} s are left"
        )
    if full is None:
        return (
            f"{words}measure on battery at which charge {want} s are left, and set ignorelb: true and override: {{battery.charge.low: "
            f"that charge}} for {name} in nut_server_devices"
        )
    percent = min(math.ceil(100 * want / full), 100)
    return f"{words}set ignorelb: true and override: {{battery.charge.low: {percent}}} for {name} in nut_server_devices"


# As expected, from a charged battery on


def _expected_terms(given: _Inputs, supply: Supply, noticed: float) -> list[tuple[float, str]]:
    """Return what passes as expected from the low mark until all are off; NOTICED seconds until upsd says so."""
    clock = _clock(given, worst=False)
    return [
        *_expected_wait(clock, noticed),
        (clock.stopped - clock.poweroff, "guests"),
        (clock.killing - clock.stopped, "the primary itself"),
        (clock.off - clock.killing, "killpower"),
        (max([0, *(end - clock.off for end in clock.down.values())]), "until the others are down"),
    ]


def _expected_wait(clock: _Clock, noticed: float) -> list[tuple[float, str]]:
    return [
        (noticed, "until upsd says so"),
        (clock.fsd, "poll"),
        (clock.synced - clock.fsd, "until the others begin"),
        (clock.gate - clock.synced, "FINALDELAY"),
        (clock.poweroff - clock.gate, "until they are down"),
    ]


@dataclass(frozen=True)
class _Begin:
    """What begins the shutdown, as expected: with so much left, and noticed so late. left: None if that is not known."""

    left: float | None
    noticed: float
    words: str


def _begins(given: _Inputs, supply: Supply) -> _Begin:
    """Say what begins the shutdown of a charged battery: it is low, or a stage asks for FSD before that."""
    full, mark = charged(supply), low(charged(supply))[0]
    noticed = noticing(supply, given.timing.release) / 2
    found = _Begin(
        mark, noticed, f"{supply.name} says with {_n(mark)} s left that it is low" if mark is not None else ""
    )
    for stage in given.stages:
        taken = max([0.0, *(_usual(given.named[name], worst=False) for name in stage.guests)])
        left = max((early - late / 2 - taken for early, late in _stage_starts(given, stage, full)), default=None)
        if stage.fsd and left is not None and left > (found.left or 0) - found.noticed:
            found = _Begin(left, 0, f"stage {stage.name} asks for FSD with {_n(left)} s left")
    if found.left is None:
        return replace(found, words=f"when {supply.name} says that its battery is low is not known")
    return found


def _as_expected(given: _Inputs, supply: Supply, needed: Mapping[str, Any]) -> Constraint:
    """Whether the last machine is off before the battery is empty, if nothing takes longer than it usually does."""
    name, full, begin = supply.name, charged(supply).runtime, _begins(given, supply)
    terms = _expected_terms(given, supply, begin.noticed)
    need = _sum(terms)
    lasts = f"how long {name} lasts is not known" if full is None else f"charged, {name} lasts {_n(full)} s"
    words = f"{_added(terms)} pass as expected until all are off; {begin.words}; {lasts}"
    known = [one for one in (begin.left, full) if one is not None]
    if len(known) == 2 or (known and known[0] < need):
        remedy = _larger(need) if full is not None and full < need else _earlier(given, supply, needed)
        return _compare("as expected", name, min(known), need, words=words, remedy=remedy)
    remedy = _earlier(given, supply, needed) if begin.left is None else _measure(name)
    return _unknown("as expected", name, need, words=words, remedy=remedy)


def _measure(name: str) -> str:
    return f"read battery.runtime (upsc {name}) with all machines on, or measure it on battery, and give it as runtime"


def _gate(given: _Inputs, supply: Supply, needed: Mapping[str, Any]) -> Iterator[Constraint]:
    """Whether the gate waits for the secondaries as long as it should, and is not ended by what it keeps of the battery.

    It is when a UPS has no more than `reserve` left and the expected times are over; or at any time no more than `least`.
    """
    timing, name = given.timing, supply.name
    kept = [one for one in (timing.reserve, timing.least) if one is not None]
    if not given.secondaries or not kept:
        return
    mark = low(supply)[0]
    if mark is not None and timing.reserve is not None:
        reserve = timing.reserve
        mark = mark if supply.runtime is None else min(mark, supply.runtime)
        terms = [*_waits(given, supply, _settings_now(given), supply.ignorelb), (reserve, "reserve")]
        words = f"{_added(terms)} must be left when the battery is low, or at the limits the gate ends before the machines are down; "
        words += f"{name} says so with {_n(mark)} s left"
        remedy = _earlier(given, supply, needed)
        if reserve > needed["reserve"]:
            enough = mark >= _sum(terms) - reserve + needed["reserve"]
            remedy = f"set nut_server_gate_reserve to {needed['reserve']}" + ("" if enough else f", and {remedy}")
        yield _compare("reserve", name, mark, _sum(terms), words=words, remedy=remedy)
    begin, full = _begins(given, supply), charged(supply).runtime
    if begin.left is not None:
        least = min(kept)
        called = "least" if timing.least is not None else "reserve"
        left = begin.left if full is None else min(begin.left, full)
        wait = _expected_wait(_clock(given, worst=False), begin.noticed)
        words = f"{_added([*wait, (least, called)])}, or the gate ends before the machines are down as expected; {begin.words}"
        remedy = _earlier(given, supply, needed)
        if least > needed["least"]:
            remedy = f"set nut_server_gate_{called} to {needed['least']}, or {remedy}"
        yield _compare("least", name, left, _sum(wait) + least, words=words, remedy=remedy)


def _cut(given: _Inputs, supply: Supply, needed: Mapping[str, Any]) -> Iterator[Constraint]:
    """When the UPS cuts the power, and when it gives it again."""
    timing, name = given.timing, supply.name
    off, on = delays(supply, timing.release)
    want_off = f"set offdelay of {name} in nut_server_devices to {_n(needed['offdelay'][name])}"
    want_on = f"ondelay to {_n(needed['ondelay'][name])}"
    if off is None or on is None:
        words = (
            f"when {name} cuts the power and gives it again is not known: driver {supply.driver} has no known default"
        )
        yield _unknown("offdelay", name, timing.killpower, words=words, remedy=f"{want_off} and {want_on}")
        return
    rounded = ""
    if is_cps(supply):
        rounded = f" (CyberPower counts whole minutes{', and so cuts at once' if not off else ''})"
    words = f"the host may need {_n(timing.killpower)} s from the order to cut; {name} cuts after {_n(off)} s{rounded}"
    remedy = f"{want_off} and {want_on}" if needed["ondelay"][name] != on else want_off
    yield _compare("offdelay", name, off, timing.killpower, words=words, remedy=remedy)
    words = f"{name} cuts {_n(off)} s after the order, and gives power again after {_n(on)} s, which must be later"
    remedy = f"set {want_on.replace(' to ', f' of {name} in nut_server_devices to ', 1)}"
    yield _compare("ondelay", name, on, off + 1, words=words + rounded, remedy=remedy)


@dataclass(frozen=True)
class _Room:
    """What is left at a stage's trigger and at low battery, and how late the stage may notice."""

    early: float
    low: float
    late: float

    @property
    def seconds(self) -> float:
        return self.early - self.low - self.late


def _stage_room(given: _Inputs, stage: StagePlan, supply: Supply) -> _Room | None:
    """Return how much time a stage has before low battery; None if that can't be told.

    Whichever of its triggers comes first counts.
    """
    mark = low(supply)[1]
    if mark is None:
        return None
    found = [_Room(early, mark, late) for early, late in _stage_starts(given, stage, supply)]
    return max(found, key=lambda one: one.seconds, default=None)


def _stage_starts(given: _Inputs, stage: StagePlan, supply: Supply) -> list[tuple[float, float]]:
    """Say for each trigger of a stage what is left then, and how late it may be noticed; none of what can't be told."""
    full = supply.runtime
    starting, late = _late(given, supply)
    found: list[tuple[float, float]] = []
    if stage.runtime is not None:
        found.append((stage.runtime if full is None else min(stage.runtime, full), late))
    if stage.charge is not None and full is not None:
        found.append((full * min(1.0, stage.charge / (supply.charge or 100)), late))
    if stage.on_battery is not None and full is not None:
        found.append((full - stage.on_battery, starting))
    return found


def _late(given: _Inputs, supply: Supply) -> tuple[float, float]:
    """Say how long the stages' program takes to begin after the mains fail, and to see a value that is reached."""
    starting = supply.pollinterval + given.timing.poll + STAGE_LOOK
    return starting, max(starting, reading(supply, given.timing.release) + STAGE_LOOK)


def _stage(given: _Inputs, stage: StagePlan, needed: Mapping[str, Any]) -> Constraint:
    seconds = given.stage_seconds(stage)
    rooms = [(_stage_room(given, stage, supply), supply) for supply in given.supplies]
    known = [(room, supply) for room, supply in rooms if room is not None]
    remedy = f"set runtime of stage {stage.name} to {_stage_runtime(given, seconds, needed)}"
    if len(known) < len(rooms):
        words = f"stage {stage.name} starts at {stage.trigger}; how long before low battery that is, is not known"
        return _unknown(
            "stage", stage.name, None, words=words, remedy=f"{remedy}, and find out what is not known below"
        )
    room, supply = min(known, key=lambda one: one[0].seconds)
    terms = [(room.low, f"low battery of {supply.name}"), (room.late, "until it is noticed"), (seconds, "its guests")]
    words = f"{_added(terms)}; the stage ({stage.trigger}) starts with {_n(room.early)} s left"
    if stage.guests:
        words += f", and stops {', '.join(stage.guests)} before FSD"
    return _compare("stage", stage.name, room.early, _sum(terms), words=words, remedy=remedy)


def _added(terms: Sequence[tuple[float, str]]) -> str:
    """Write a sum with what each part is."""
    parts = [f"{_n(value)} ({what})" for value, what in terms if value]
    return f"{' + '.join(parts) or '0'} = {_n(_sum(terms))} s"


def _n(value: float) -> str:
    """Write a number with one digit after the point, if any."""
    return f"{value:.1f}".removesuffix(".0")


# --- for people and programs

_ENDS = {
    GOES: "is down",
    SYNCS: "the others have begun, or HOSTSYNC is over",
    FLOOR: "FINALDELAY is over: the gate waits until they are down",
    GUESTS: "its guests are stopped",
    ITSELF: "is down itself, and tells the UPS to cut",
    KILLS: "is off",
}
# Where little to spare means little: these don't depend on how long anything takes
_SETTINGS = frozenset({"POLLFREQ", "POLLFREQALERT", "DEADTIME", "MAXAGE", "POWEROFF_WAIT", "offdelay", "ondelay"})
_WIDTH = 88
# a plan that was sent, and is drawn, may have so many machines and UPSes
MOST_ROWS = 1000
# of many that fail, so many are named in the verdict
_NAMED = 6


def to_dict(one: Plan) -> dict[str, Any]:
    """Return a plan as data that JSON can hold."""
    data: dict[str, Any] = json.loads(json.dumps(asdict(one)))
    return {**data, "verdict": verdict(one)}


def from_dict(data: Mapping[str, Any]) -> Plan:
    """Return the plan of which to_dict() has made this. It may come from a host that answers anything. Raises PlanError."""
    try:
        if not isinstance(data, Mapping):
            raise records.RecordError("it is no dictionary")
        # the verdict is worked out anew
        made = records.build(Plan, {name: value for name, value in data.items() if name != "verdict"}, "plan")
        _check_whole(made)
    except records.RecordError as error:
        raise PlanError(f"this is no plan that was kept: {error}") from None
    return made


def _check_whole(made: Plan) -> None:
    """See that a plan has what each plan has. Raises RecordError."""
    if len(made.machines) + len(made.supplies) > MOST_ROWS:
        raise records.RecordError(f"it has more than {MOST_ROWS} machines and UPSes")
    if [one.role for one in made.machines].count(PRIMARY) != 1:
        raise records.RecordError("it does not have one primary")
    wrong = [one.name for one in made.machines if one.kind not in KINDS.get(one.role, ())]
    wrong += [one.machine for one in made.guests if one.kind not in KINDS[GUEST]]
    if wrong:
        raise records.RecordError(f"a machine has a role or a kind that there is not: {printable(wrong[0], 60)}")
    primary = next(one.name for one in made.machines if one.role == PRIMARY)
    for events in (made.events, made.worst):
        told = {(one.what, one.machine) for one in events}
        if not {(POWEROFF, ""), (KILLS, primary)} <= told or CUT not in {what for what, _machine in told}:
            raise records.RecordError("it does not say when the primary and the UPS go off")
    if {(one.what, one.machine) for one in made.events} - {(one.what, one.machine) for one in made.worst}:
        raise records.RecordError("something happens as expected, and not at the limits")
    if not any(one.name not in _SETTINGS and one.slack is not None for one in made.constraints):
        raise records.RecordError("it does not say what must be so")


def verdict(one: Plan) -> str:
    """Say in a line whether the plan holds, and what is tight."""
    failing = [each for each in one.constraints if each.holds is False]
    unknown = [each for each in one.constraints if each.holds is None]
    if failing:
        lacks = [title(each) + (f" lacks {_n(-each.slack)} s" if each.slack is not None else "") for each in failing]
        lasts = ". If all goes as expected, the battery lasts" if one.feasible else ""
        return f"The plan does not hold: {_some(lacks)}{lasts}"
    if unknown:
        return f"The plan can't be judged: too little is known about {_some(list(dict.fromkeys(map(title, unknown))))}"
    tightest = next(each for each in one.constraints if each.name not in _SETTINGS and each.slack is not None)
    return f"The plan holds. Tightest is {title(tightest)}, with {_n(tightest.slack or 0)} s to spare"


def _some(words: Sequence[str]) -> str:
    """List words, but not too many: the rest stands below."""
    more = len(words) - _NAMED
    return ", ".join(words if more <= 1 else [*words[:_NAMED], f"and {more} more"])


def title(one: Constraint) -> str:
    """Name a constraint, with what it is about."""
    return f"{one.name} ({one.about})" if one.about else one.name


def moments(one: Plan) -> list[tuple[float, float, str, str]]:
    """List what happens, by its expected time: that, the time at the limits, who ("" for all), what in words."""
    latest = {(each.machine, each.what): each for each in one.worst}
    primary = next(each.name for each in one.machines if each.role == PRIMARY)
    found = []
    for each in one.events:
        last = latest[each.machine, each.what]
        if each.what in {TRIGGER, FSD, POWEROFF, CUT, EMPTY}:
            found.append((each.at, last.at, each.machine, each.what))
        elif each.what == WAITS and each.machine != primary:
            found.append((each.until, last.until, each.machine, "begins to go down"))
        elif each.what in _ENDS:
            found.append((each.until, last.until, each.machine, _ENDS[each.what]))
    return sorted(found, key=lambda row: row[0])


def table(one: Plan) -> str:
    """Return a plan as text of fixed width: the verdict, the two runs, what must be so, and what is needed."""
    times = [(f"{at:+.1f}", f"{last:+.1f}", who, what) for at, last, who, what in moments(one)]
    lines = [*textwrap.wrap(verdict(one), _WIDTH + 30), ""]
    lines += [*grid(("expected", "at most", "", "s from the trigger on"), times, "rrll"), ""]
    marks: dict[bool | None, str] = {True: "ok", False: "NO", None: "?"}
    rows: list[tuple[str, ...]] = []
    for each in one.constraints:
        slack = "" if each.slack is None else f"{each.slack:+.1f}".removesuffix(".0")
        start = (marks[each.holds], slack, title(each))
        for part in (each.words, f"-> {each.remedy}" if each.remedy else ""):
            for line in textwrap.wrap(part, _WIDTH):
                rows.append((*start, line))
                start = ("", "", "")
    lines += [*grid(("", "slack", "", "what must be so"), rows, "lrll"), ""]
    if one.guests:
        lines += [*grid(("guest", "stopped by", "s", "why"), list(_guest_rows(one)), "llrl"), ""]
    needs = [(name, needs_words(value)) for name, value in one.needed.items() if value != {}]
    return "\n".join(line.rstrip() for line in [*lines, *grid(("needed", ""), needs, "ll")]) + "\n"


def _guest_rows(one: Plan) -> Iterator[tuple[str, ...]]:
    for guest in one.guests:
        start = (guest.machine, stopped_by(one, guest), _n(guest.seconds))
        for line in textwrap.wrap(guest_words(guest), _WIDTH - 20) or [""]:
            yield (*start, line)
            start = ("", "", "")


def stopped_by(one: Plan, guest: PlannedGuest) -> str:
    """Say who stops a guest."""
    if guest.stage:
        return f"stage {guest.stage}"
    return "HA" if guest.ha else next(each.name for each in one.machines if each.role == PRIMARY)


def guest_words(guest: PlannedGuest) -> str:
    """Say why a guest is stopped when it is."""
    if guest.why or not guest.needs:
        return guest.why
    return f"it uses the storage of {', '.join(guest.needs)}"


def needs_words(value: Any) -> str:
    """Write what is needed: a number, or one by name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_n(each)}" for name, each in value.items())
    return _n(value)


def grid(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], sides: str) -> list[str]:
    """Return rows as lines, with each column as wide as its widest cell. sides: of each column, "l" or "r"."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width) for cell, width, side in zip(row, widths, sides)
        )
        for row in cells
    ]
