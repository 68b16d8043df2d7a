# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data of a plan: what it is computed from, and the result.

All times are seconds, and count from the trigger: the moment at which upsd reports OB LB, or at which a stage starts FSD. Times before
the trigger are negative. timeline.py computes the two runs, needed.py the settings that the plan needs, constraints.py the conditions
that must hold, planner.py the whole plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import kinds
from ..inventory import BEGIN_SECONDS, usual_limit
from ..kinds import PRIMARIES, TRUENAS

PRIMARY, SECONDARY, GUEST = "primary", "secondary", "guest"
KINDS = {
    PRIMARY: (PRIMARIES, "linux"),
    SECONDARY: (*(kind.name for kind in kinds.KINDS.values()), PRIMARIES),
    GUEST: ("qm", "pct"),
}

# The kinds of event. An event of a machine or of a UPS carries its name; an event of the whole run has no name.
WAITS_TO_BEGIN = "waits to begin its shutdown"
GOES_DOWN = "goes down"
DOWN = "down"
WAITS_HOSTSYNC = "waits for the secondaries to log out"
WAITS_FINALDELAY = "waits for FINALDELAY"
WAITS_GATE = "waits until the secondaries are down"
STOPS_GUESTS = "stops its guests"
OWN_SHUTDOWN = "shuts down"
KILLPOWER = "orders the UPS to cut the power"
TRIGGER = "trigger"
FSD = "FSD"
POWEROFF = "power off"
CUT = "UPS cuts the power"
EMPTY = "battery empty"

# A longer HOSTSYNC costs nothing unless a secondary hangs.
# of Timing.runtime_low
AUTO = "auto"

MIN_HOSTSYNC = 30


class PlanError(ValueError):
    """The input is invalid. The message names the machine or stage, what is wrong, and what to do."""


@dataclass(frozen=True)
class PlanMachine:
    """A machine on the UPS, or a guest of the primary. Only the primary's name is used: its times are in Timing."""

    name: str
    role: str
    kind: str
    begin_time: float = BEGIN_SECONDS  # from FSD until it begins to go down, at most: its poll and its FINALDELAY
    shutdown_time: float = TRUENAS.shutdown_time  # from there until it is down, usually
    shutdown_limit: float = usual_limit(TRUENAS.shutdown_time)  # after this the primary no longer waits for it
    needs: tuple[str, ...] = ()  # machines whose storage it uses: it must be down before they begin to go down
    guest_id: int | None = None  # its number if it runs on the primary, as a guest or as a secondary
    ups: str = ""  # of a secondary: the UPS that powers it; "": the one of the primary
    address: tuple[str, ...] = ()  # of a secondary: identifies the guests that use its storage (placement.py)

    def time_to_stop(self, *, worst: bool) -> float:
        """Return how long it takes to go down: usually, or at most. Its limit caps both."""
        return self.shutdown_limit if worst else min(self.shutdown_time, self.shutdown_limit)


@dataclass(frozen=True)
class Supply:
    """A UPS. None: not known."""

    name: str = "ups"
    runtime: float | None = None  # seconds left now, with all machines on
    runtime_low: float | None = None  # the battery is low at this many seconds left
    charge_low: float | None = None  # the battery is low at this charge, percent
    charge: float | None = None  # the charge to which runtime belongs, percent
    offdelay: float | None = None  # from the order to cut until the power is off, seconds
    ondelay: float | None = None  # from the order to cut until the power is on again, seconds
    mfr: str | None = None  # identifies the maker's quirks, with driver and vendorid
    driver: str | None = None
    vendorid: str | None = None
    ignorelb: bool = False  # whether NUT, not the UPS, decides when the battery is low
    pollfreq: float | None = None  # seconds between two readings of charge and runtime
    pollinterval: float = 2  # seconds between two readings of the status
    powervalue: int = 1  # how many of the primary's power supplies it feeds
    watched: float | None = None  # nut-stages begins the shutdown at this many seconds left; the planner sets it
    reports_runtime: bool | None = None  # whether the UPS reports battery.runtime, so that NUT can use it with ignorelb


@dataclass(frozen=True)
class Timing:
    """The times in NUT's files on the primary, and how long the primary itself takes. Seconds."""

    pollfreq: float = 5
    pollfreqalert: float = 5
    hostsync: float = MIN_HOSTSYNC
    finaldelay: float = 5
    deadtime: float = 15
    maxage: float = 15
    settle: float = 3  # a machine must be silent for this long to count as down
    own_shutdown: float = 30  # the primary, without its guests
    guests_time: float | None = None  # until Proxmox has stopped all guests; None: computed, see PlanInputs.guests_time
    killpower: float = 10  # from the order to cut the power until the primary is off
    poweroff_wait: float | None = None  # POWEROFF_WAIT; None: not set
    margin: float = 30  # battery time kept back as a safety margin
    release: str = "2.8.1"  # of NUT
    # The gate ends when this much battery is left: `reserve` once the usual times have passed, `reserve_minimum` at any time.
    reserve: float | None = None
    reserve_minimum: float | None = None
    # nut-stages begins the shutdown when this much battery is left, or at the time that the plan finds (AUTO); None: it does not
    runtime_low: float | str | None = None
    cluster: str = ""  # one of proxmox.cluster.WAYS: what is done about HA's watchdog in a cluster
    deployed_runtime_low: float | None = None  # the one that nut-stages goes by now; None: none, or unknown
    # UPSes of other hosts that keep the primary up when its own are low; their primaries set FSD, or upsmon gives up on them
    elsewhere: tuple[str, ...] = ()

    @property
    def poll_interval(self) -> float:
        """Return upsmon's longest poll. The battery may be low right after the mains fail, so POLLFREQ counts as well."""
        return max(self.pollfreq, self.pollfreqalert)


@dataclass(frozen=True)
class StagePlan:
    """Guests to stop before the battery is low. The first trigger that is reached starts the stage."""

    name: str
    on_battery: float | None = None  # trigger: seconds since the mains failed
    charge: float | None = None  # trigger: percent
    runtime: float | None = None  # trigger: seconds left
    guests: tuple[str, ...] = ()  # names of the machines that it stops
    fsd: bool = False  # whether FSD follows
    seconds: float | None = None  # time for its guests; the longest limit among them counts if it is longer


@dataclass(frozen=True)
class PlanEvent:
    """What a machine does during a time, or what happens at a moment."""

    at: float  # seconds from the trigger
    until: float
    machine: str  # "" for the whole run
    what: str  # one of the constants above
    worst: bool = False  # whether this belongs to the worst case


@dataclass(frozen=True)
class Constraint:
    """A condition that must hold for the plan to hold."""

    name: str
    about: str  # the machine, UPS or stage; "" for the whole plan
    holds: bool | None  # None: too little is known
    slack: float | None  # have - need, seconds
    have: float | None
    need: float | None
    reason: str  # the arithmetic, in words
    remedy: str = ""  # what to change or to measure; "" if nothing


@dataclass(frozen=True)
class PlannedGuest:
    """A guest of the primary."""

    machine: str  # its name in the plan
    id: int | None
    kind: str
    name: str  # its name on Proxmox VE; "" if unknown
    stage: str  # the stage that stops it; "": the primary stops it when it goes down
    seconds: float  # the time it has for its shutdown
    why: str = ""  # why that stage stops it, or whose storage it uses
    needs: tuple[str, ...] = ()  # as in PlanMachine
    ha: bool = False  # whether Proxmox VE's HA manages it


@dataclass(frozen=True)
class HaCluster:
    """Proxmox VE's cluster of the primary."""

    nodes: tuple[str, ...] = ()  # secondaries of the plan that are other nodes of it
    guests: tuple[str, ...] = ()  # the primary's guests that HA manages, as HA names them: vm:100
    is_active: bool = False  # HA holds the primary's watchdog
    release: str = ""  # of pve-ha-manager
    can_disarm: bool = False  # whether that release can be disarmed


@dataclass(frozen=True)
class ProxmoxGuests:
    """What Proxmox VE on the primary knows about its guests; see placement.py."""

    stop_limit: float | None = None  # seconds to stop the guests that no stage stops: at most
    stop_time: float | None = None  # and usually
    problem: str = ""  # why the guests can't be read; "" if they can
    guests: tuple[PlannedGuest, ...] = ()
    # guest -> seconds from the primary's poweroff until Proxmox begins to stop it: (usually, at most)
    turns: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    migrates: bool = False  # whether HA moves its guests to another node when the host powers off
    ha: tuple[str, ...] = ()  # remarks about HA; () if it manages no guest
    remarks: tuple[Constraint, ...] = ()  # mistakes in what the stages select
    cluster: HaCluster = field(default_factory=HaCluster)
    late: tuple[
        str, ...
    ] = ()  # guests that start at boot, on the storage of a machine that may boot later than the primary


@dataclass(frozen=True)
class Plan:
    """A plan, made by planner.py, which also defines "holds" and "feasible"."""

    events: tuple[PlanEvent, ...]  # of the usual run, in order of time
    worst: tuple[PlanEvent, ...]  # of the worst case
    needed: Mapping[str, float | Mapping[str, float]]  # limits for the settings, see needed.py
    # Failing ones first (those that make the plan infeasible before the others), then the undecided, then by slack.
    constraints: tuple[Constraint, ...]
    holds: bool | None  # in the worst case; None: too little is known
    machines: tuple[PlanMachine, ...] = ()
    supplies: tuple[Supply, ...] = ()
    stages: tuple[StagePlan, ...] = ()
    feasible: bool | None = None  # in the usual run; None: too little is known
    guests: tuple[PlannedGuest, ...] = ()  # of the primary; those that a stage stops come first
    others: tuple[Supply, ...] = ()  # UPSes that power other machines, and not the primary
    runtime_low: float | None = None  # nut-stages begins the shutdown when this much battery is left; None: it does not
    runtime_low_reason: str = ""  # why so much
    first_mark: str = ""  # what begins the shutdown before nut-stages sees that so much is left; "": nothing does
    ha: tuple[str, ...] = ()  # as in ProxmoxGuests
    cluster_nodes: tuple[str, ...] = ()  # secondaries that are nodes of the primary's Proxmox VE cluster

    @property
    def primary(self) -> PlanMachine:
        """Return the machine to which the UPS is connected."""
        return next(machine for machine in self.machines if machine.role == PRIMARY)

    def time_of(self, what: str, machine: str = "", *, worst: bool = False) -> float | None:
        """Return when an event happens or ends, in seconds from the trigger; None if it is not part of this plan."""
        events = self.worst if worst else self.events
        return next((event.until for event in events if (event.what, event.machine) == (what, machine)), None)
