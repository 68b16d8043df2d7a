# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan of a shutdown is made from, and what it is made of: who goes down when, and what must be so for that.

All times are seconds. They count from the trigger, the moment at which upsd says OB LB, or at which a stage asks for FSD;
what comes before it has a negative time. timeline.py works the runs out, needed.py what the settings must be, constraints.py what
must be so, planner.py the plan of all that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import inventory
from ..inventory import BEGIN_SECONDS, PRIMARIES, TRUENAS, usual_limit

PRIMARY, SECONDARY, GUEST = "primary", "secondary", "guest"
KINDS = {
    PRIMARY: (PRIMARIES, "linux"),
    SECONDARY: (*(kind.name for kind in inventory.KINDS.values()), PRIMARIES),
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

# The least of HOSTSYNC. It costs nothing unless a secondary hangs.
LEAST_HOSTSYNC = 30


class PlanError(ValueError):
    """What was asked for can't be a plan; the message names the machine or stage, what is wrong, and what to do."""


@dataclass(frozen=True)
class PlanMachine:
    """A machine on the UPS, or a guest of the primary. Of the primary only the name counts: its times are in Timing."""

    name: str
    role: str
    kind: str
    begin_time: float = BEGIN_SECONDS  # from FSD until it begins to go down, at most: its poll and its FINALDELAY
    shutdown_time: float = TRUENAS.shutdown_time  # from there until it is down, as a rule
    shutdown_limit: float = usual_limit(TRUENAS.shutdown_time)  # the longest that this is waited for
    # names of the machines whose storage it uses, so that it must be down before they begin
    needs: tuple[str, ...] = ()
    guest_id: int | None = None  # its number, if it is a guest of the primary, as also a secondary may be
    address: tuple[str, ...] = ()  # where it is seen; only to find the guests that use its storage (placement.py)

    def takes(self, *, worst: bool) -> float:
        """Return how long it takes to go down: at most, or as a rule. It is not waited for longer than its limit."""
        return self.shutdown_limit if worst else min(self.shutdown_time, self.shutdown_limit)


@dataclass(frozen=True)
class Supply:
    """A UPS. None: not known."""

    name: str = "ups"
    runtime: float | None = None  # seconds that are left now, with all machines on
    runtime_low: float | None = None  # the seconds and the charge at which the battery is low
    charge_low: float | None = None
    charge: float | None = None  # the percentage to which runtime belongs
    offdelay: float | None = None  # from the order to cut until the power is off, and on again
    ondelay: float | None = None
    mfr: str | None = None  # by these its quirks are known
    driver: str | None = None
    vendorid: str | None = None
    ignorelb: bool = False  # whether NUT decides when the battery is low, not the UPS
    # seconds between two readings of the charge and the time left, and between two of the status
    pollfreq: float | None = None
    pollinterval: float = 2
    says_runtime: bool | None = None  # whether it says battery.runtime by itself, so that NUT can decide by that


@dataclass(frozen=True)
class Timing:
    """What stands in NUT's files on the primary, and how long the primary itself takes."""

    pollfreq: float = 5
    pollfreqalert: float = 5
    hostsync: float = LEAST_HOSTSYNC
    finaldelay: float = 5
    deadtime: float = 15
    maxage: float = 15
    settle: float = 3  # how long a machine must be silent to count as down
    own_shutdown: float = 30  # the primary without its guests
    # until Proxmox has stopped all guests; None: as Proxmox itself says, if it was asked, else its limit for one VM
    guests_time: float | None = None
    killpower: float = 10  # until the order to cut is given and the system is off
    poweroff_wait: float | None = None  # POWEROFF_WAIT; None: not set
    margin: float = 30  # what is kept back of the battery
    release: str = "2.8.1"  # of NUT
    # with how much left of the battery the gate waits no longer: once the usual times are over, and at any time; None: not set
    reserve: float | None = None
    least: float | None = None

    @property
    def poll(self) -> float:
        """Return how long upsmon may look away. A battery may be low at once, and then the look before was at POLLFREQ."""
        return max(self.pollfreq, self.pollfreqalert)


@dataclass(frozen=True)
class StagePlan:
    """What is done before the battery is low. Whichever of its triggers is reached first starts it."""

    name: str
    on_battery: float | None = None  # the triggers: seconds on battery, percent and seconds left
    charge: float | None = None
    runtime: float | None = None
    guests: tuple[str, ...] = ()  # names of the machines that it stops
    fsd: bool = False  # whether it then asks for FSD
    seconds: float | None = None  # how long its guests may take; at least the longest limit of them


@dataclass(frozen=True)
class PlanEvent:
    """What a machine does from ``at`` until ``until``."""

    at: float
    until: float
    machine: str  # "" for what concerns all
    what: str  # one of the words above
    worst: bool = False  # whether this is at the limits; else as expected


@dataclass(frozen=True)
class Constraint:
    """Something that must be so for the plan to hold."""

    name: str
    about: str  # the machine, UPS or stage, or ""
    holds: bool | None  # None if it can't be told
    slack: float | None  # have - need
    have: float | None  # what is compared: have must not be less than need
    need: float | None
    words: str  # the arithmetic
    remedy: str = ""  # what to change, or to measure; "" if nothing


@dataclass(frozen=True)
class PlannedGuest:
    """A guest of the primary."""

    machine: str  # its name in the plan
    id: int | None
    kind: str
    name: str  # its own name, or ""
    stage: str  # the stage that stops it, or "": the primary does when it goes down
    seconds: float  # how long it has for that
    why: str = ""  # why that stage stops it, or whose storage it uses, in words
    needs: tuple[str, ...] = ()  # as Machine has it
    ha: bool = False  # whether Proxmox's HA manages it


@dataclass(frozen=True)
class ProxmoxGuests:
    """What Proxmox VE on the primary says of its guests; placement.py finds it out."""

    seconds: float | None = None  # how long it takes to stop those that no stage stops: at most, and as a rule
    usual: float | None = None
    problem: str = ""  # why its guests can't be read; "" if they could
    guests: tuple[PlannedGuest, ...] = ()
    # machine -> how long after the primary's poweroff it is stopped, as a rule and at most
    turns: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    migrates: bool = False  # whether HA moves its guests to another node when the host powers off
    ha: tuple[str, ...] = ()  # what a person should know of HA; () if it manages no guest
    remarks: tuple[Constraint, ...] = ()  # what is wrong with what the stages choose


@dataclass(frozen=True)
class Plan:
    """A plan. planner.py makes it, and tells when one holds and when it is feasible."""

    events: tuple[PlanEvent, ...]  # as expected, and at the limits; in the order of time
    worst: tuple[PlanEvent, ...]
    needed: Mapping[str, float | Mapping[str, float]]  # what the settings must be at least, or at most; see needed.py
    # those that fail first, and of these the ones for which it is not feasible; then what can't be told, then the tightest
    constraints: tuple[Constraint, ...]
    holds: bool | None  # at the limits; None if that can't be told
    machines: tuple[PlanMachine, ...] = ()
    supplies: tuple[Supply, ...] = ()
    stages: tuple[StagePlan, ...] = ()
    feasible: bool | None = None  # as expected; None if that can't be told
    guests: tuple[PlannedGuest, ...] = ()  # of the primary, those that a stage stops first
    ha: tuple[str, ...] = ()  # as Proxmox has it

    @property
    def primary(self) -> PlanMachine:
        """Return the one machine that has the UPS."""
        return next(machine for machine in self.machines if machine.role == PRIMARY)

    def at(self, what: str, machine: str = "", *, worst: bool = False) -> float | None:
        """Return when something ends that lasts, or happens; None if it is not part of this plan."""
        events = self.worst if worst else self.events
        return next((event.until for event in events if (event.what, event.machine) == (what, machine)), None)
