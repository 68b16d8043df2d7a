# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guests of a Proxmox VE host as machines of a plan: which stage stops each, whose storage it uses, how long the rest takes.

observe_host() reads the host; place_guests() is a pure function of what was read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import hostnames
from ..base.process import run_within
from ..base.systemd import Run
from ..kinds import LINUX
from ..proxmox import guests, running, selection
from ..proxmox.cluster import Cluster, read_cluster
from ..proxmox.datacenter import parse_datacenter
from ..proxmox.guests import Guest
from ..proxmox.selection import LocalGuests, Selector
from ..proxmox.turns import LOAD_SECONDS, POLL_SECONDS, longest_stop, read_manager_release, read_workers, take_turns
from . import cluster
from .model import GUEST, SECONDARY, Constraint, PlanError, PlanMachine, PlannedGuest, ProxmoxGuests, StagePlan

# The usual time of a guest that was not measured: that of a Linux machine that was not measured.
USUAL_SECONDS = LINUX.shutdown_time
# The time that HA gives each guest, regardless of its `down`, and how many it stops at a time by default: pve-ha-manager,
# PVE/HA/Resources/PVEVM.pm (shutdown) and PVE/HA/Env/PVE2.pm (get_max_workers).
HA_STOP_SECONDS = 60
HA_WORKERS = 4
# Proxmox's cluster file system answers at once or not at all.
READ_SECONDS = 20.0
# for all names together
NAME_SECONDS = 4.0


@dataclass(frozen=True)
class ProxmoxHost:
    """The state of a Proxmox VE host; empty if the host is not one."""

    here: LocalGuests = field(default_factory=LocalGuests)
    running: frozenset[int] | None = frozenset()  # numbers of running guests; None: not known
    ha: guests.HaSetup = field(default_factory=guests.HaSetup)
    cluster: Cluster = field(default_factory=Cluster)
    workers: int = 1  # how many guests Proxmox stops at a time
    ha_workers: int = HA_WORKERS  # how many HA stops at a time


@dataclass(frozen=True)
class GuestPlacement:
    """What place_guests() returns and make_plan() uses."""

    machines: tuple[PlanMachine, ...]
    stages: tuple[StagePlan, ...]
    proxmox: ProxmoxGuests


def observe_host(
    run: Run, root: Path = Path("/"), *, cpus: int | None = None, patience: float = READ_SECONDS
) -> ProxmoxHost:
    """Read the guests of a host. patience: seconds. Raises guests.GuestsError, also if reading its files takes longer."""
    try:
        host = run_within(patience, lambda: _read_host(root, cpus or os.cpu_count() or 1))
    except TimeoutError:
        raise guests.GuestsError(
            f"{root / 'etc/pve'} did not answer within {patience:g} s: check Proxmox's cluster file system "
            "(systemctl status pve-cluster)"
        ) from None
    numbers = [(guest.kind, guest.id) for guest in host.here.guests]
    return replace(host, running=running.list_running(run, numbers, root)) if numbers else host


def _read_host(root: Path, cpus: int) -> ProxmoxHost:
    text = guests.read_text(root / "etc/pve/datacenter.cfg")
    return ProxmoxHost(
        here=selection.read_local_guests(root),
        ha=guests.read_ha(root),
        cluster=read_cluster(root),
        workers=read_workers(text, cpus, read_manager_release(root)),
        ha_workers=parse_datacenter(text).max_workers or HA_WORKERS,
    )


def look_up_names(
    machines: Iterable[PlanMachine],
    selectors: Iterable[Selector],
    host: ProxmoxHost,
    resolve: hostnames.Resolve = hostnames.resolve_name,
) -> guests.Resolve:
    """Look up all names that place_guests() needs, in parallel, within NAME_SECONDS."""
    machines = tuple(machines)
    addresses = Selector(storage_of=tuple(address for machine in machines for address in machine.address))
    names = {*selection.list_names([addresses, *selectors], host.here), *cluster.list_names(host.cluster, machines)}
    return selection.prepare_resolver(sorted(names), resolve, NAME_SECONDS)


def with_addresses(selector: Selector, machines: Iterable[PlanMachine]) -> Selector:
    """Replace names of machines by their addresses. Any other name stays: it is an address, or a name to look up."""
    known = {machine.name: machine.address for machine in machines}
    addresses = [address for name in selector.storage_of for address in known.get(name) or (name,)]
    return replace(selector, storage_of=tuple(dict.fromkeys(addresses)))


def place_guests(
    machines: Iterable[PlanMachine],
    stages: Iterable[StagePlan],
    selectors: Mapping[str, Selector],
    host: ProxmoxHost,
    resolve: guests.Resolve,
) -> GuestPlacement:
    """Add the guests to the machines, and to the stages that select them. Raises PlanError.

    selectors: stage's name -> its selector, with addresses (see with_addresses()).

    Guests that run, that start at boot, or that are listed by number become machines of the plan. A guest that MACHINES already lists
    keeps its name and times. A secondary that runs on this host as a guest is left out: it goes down by itself at FSD, and the gate
    waits for it.
    """
    machines, stages = tuple(machines), tuple(stages)
    known = _by_number(machines)
    listed = {number for selector in selectors.values() for number, _seconds in selector.ids}
    planned = [guest for guest in host.here.guests if _is_planned(guest, host, known, listed)]
    chosen, remarks = _choose_guests(stages, selectors, host, resolve, known)
    names = _name_guests(planned, known, {machine.name for machine in machines})
    needs = _find_needs(machines, planned, host.here, resolve)
    made: dict[int, PlanMachine] = {}
    rows: list[PlannedGuest] = []
    for guest in planned:
        choice = chosen.get(guest.id) or _StopChoice("", _proxmox_seconds(guest, host), "")
        machine = known.get(guest.id) or _as_machine(guest, names[guest.id], choice.seconds)
        uses = needs.get(guest.id, {})
        made[guest.id] = machine = replace(machine, needs=tuple(dict.fromkeys((*machine.needs, *uses))))
        if guest.id in known:
            choice = replace(choice, seconds=machine.shutdown_limit)
        rows.append(_planned_guest(guest, machine, choice, uses, host))
    stages = tuple(_with_chosen(stage, chosen, names) for stage in stages)
    staged = {name for stage in stages for name in stage.guests}
    rest = [guest for guest in planned if names[guest.id] not in staged]
    proxmox = replace(
        _as_proxmox(rest, made, host),
        cluster=cluster.find_cluster(host.cluster, host.ha, host.here.guests, machines, resolve),
        late=tuple(
            names[guest.id]
            for guest in planned
            if guest.onboot and needs.get(guest.id) and guest.id not in host.ha.managed
        ),
    )
    kept = [machine if machine.guest_id is None else made.pop(machine.guest_id, machine) for machine in machines]
    return GuestPlacement((*kept, *made.values()), stages, replace(proxmox, guests=tuple(rows), remarks=tuple(remarks)))


@dataclass(frozen=True)
class _StopChoice:
    """What stops a guest."""

    stage: str  # the first stage that selects it; "": Proxmox stops it
    seconds: float  # time for its shutdown
    why: str


def _as_machine(guest: Guest, name: str, seconds: float) -> PlanMachine:
    """Return a guest as a machine with default times."""
    limit = longest_stop(seconds)
    return PlanMachine(name, GUEST, guest.kind, 0, min(USUAL_SECONDS, limit), limit, (), guest.id)


def _planned_guest(
    guest: Guest, machine: PlanMachine, choice: _StopChoice, uses: Mapping[str, str], host: ProxmoxHost
) -> PlannedGuest:
    return PlannedGuest(
        machine=machine.name,
        id=guest.id,
        kind=guest.kind,
        name=guest.name,
        stage=choice.stage,
        seconds=choice.seconds,
        why=choice.why or "; ".join(dict.fromkeys(uses.values())),
        needs=machine.needs,
        ha=guest.id in host.ha.managed,
    )


def _with_chosen(stage: StagePlan, chosen: Mapping[int, _StopChoice], names: Mapping[int, str]) -> StagePlan:
    """Return a stage with the guests that it is the first to select."""
    selected = [names[number] for number, choice in chosen.items() if choice.stage == stage.name]
    return replace(stage, guests=tuple(dict.fromkeys((*stage.guests, *selected))))


def _as_proxmox(rest: Sequence[Guest], made: Mapping[int, PlanMachine], host: ProxmoxHost) -> ProxmoxGuests:
    """Return how Proxmox and its HA stop the guests that no stage stops."""
    limit, latest = _stop_times(
        rest, {number: machine.time_to_stop(worst=True) for number, machine in made.items()}, host
    )
    usual, turns = _stop_times(
        rest, {number: machine.time_to_stop(worst=False) for number, machine in made.items()}, host
    )
    return ProxmoxGuests(
        stop_limit=limit,
        stop_time=usual,
        turns={made[guest.id].name: (turns[guest.id], latest[guest.id]) for guest in rest},
        migrates=bool(host.ha.managed) and host.ha.policy == "migrate",
        ha=host.ha.remarks,
    )


def _by_number(machines: Iterable[PlanMachine]) -> dict[int, PlanMachine]:
    """Return number -> machine, for guests and secondaries that run on this host. Raises PlanError."""
    by_number: dict[int, PlanMachine] = {}
    for machine in machines:
        if machine.guest_id is not None and by_number.setdefault(machine.guest_id, machine) is not machine:
            raise PlanError(
                f"{machine.name}: guest_id {machine.guest_id} is also that of {by_number[machine.guest_id].name}; "
                "each machine needs its own"
            )
    return by_number


def _is_planned(guest: Guest, host: ProxmoxHost, known: Mapping[int, PlanMachine], listed: Collection[int]) -> bool:
    """Return whether somebody must stop this guest. A secondary goes down by itself."""
    if guest.template or (guest.id in known and known[guest.id].role != GUEST):
        return False
    return guest.onboot or host.running is None or guest.id in {*host.running, *listed, *known}


def _name_guests(planned: Sequence[Guest], known: Mapping[int, PlanMachine], taken: set[str]) -> dict[int, str]:
    """Return number -> a name that people recognize and no other machine has."""
    names: dict[int, str] = {}
    for guest in planned:
        name = f"{guest.id} {guest.name}" if guest.name else str(guest)
        while name in taken:
            name = f"{name} ({guest.kind})"
        names[guest.id] = known[guest.id].name if guest.id in known else name
        taken.add(names[guest.id])
    return names


def _choose_guests(
    stages: Sequence[StagePlan],
    selectors: Mapping[str, Selector],
    host: ProxmoxHost,
    resolve: guests.Resolve,
    known: Mapping[int, PlanMachine],
) -> tuple[dict[int, _StopChoice], list[Constraint]]:
    """Return number -> what stops this guest, for each guest that a stage selects; and the mistakes in the selections."""
    choices: dict[int, _StopChoice] = {}
    remarks: list[Constraint] = []
    for stage in stages:
        selector = selectors.get(stage.name, selection.NO_GUESTS)
        for choice in selection.choose_guests(selector, host.here, resolve):
            guest, other = choice.guest, known.get(choice.guest.id)
            if other is not None and other.role != GUEST:
                reason = f"stage {stage.name} would stop {guest} before FSD ({choice.why}), but this is the secondary {other.name}"
                remedy = f"exclude {guest.id} from stage {stage.name}: {other.name} goes down by itself at FSD"
                remarks.append(Constraint(f"stage {stage.name}", other.name, False, None, None, None, reason, remedy))
            elif _is_planned(guest, host, known, {number for number, _seconds in selector.ids}):
                choices.setdefault(guest.id, _StopChoice(stage.name, choice.seconds, choice.why))
        for number in selection.list_missing_ids(selector, host.here):
            reason = f"stage {stage.name} lists guest {number}, but this host has no guest with this number"
            remedy = f"remove {number} from stage {stage.name}, or find the host that it is on"
            remarks.append(Constraint(f"stage {stage.name}", str(number), None, None, None, None, reason, remedy))
    return choices, remarks


def _find_needs(
    machines: Iterable[PlanMachine], planned: Sequence[Guest], here: LocalGuests, resolve: guests.Resolve
) -> dict[int, dict[str, str]]:
    """Return guest's number -> secondary whose storage the guest uses -> the reason."""
    needs: dict[int, dict[str, str]] = {}
    for machine in machines:
        if machine.role == SECONDARY and machine.address:
            for guest, reason in guests.find_storage_users(
                planned, here.storages, machine.address, here.mounts, resolve
            ).items():
                needs.setdefault(guest.id, {})[machine.name] = reason
    return needs


def _proxmox_seconds(guest: Guest, host: ProxmoxHost) -> float:
    """Return how many seconds Proxmox or its HA gives a guest that no stage stops."""
    if guest.id in host.ha.managed:
        return HA_STOP_SECONDS
    return guests.DOWN_SECONDS if guest.down is None else guest.down


def _stop_times(rest: Sequence[Guest], takes: Mapping[int, float], host: ProxmoxHost) -> tuple[float, dict[int, float]]:
    """Return how many seconds it takes to stop all these guests; and number -> seconds until Proxmox begins to stop this one.

    takes: number -> seconds that the guest takes. HA stops its guests after the others, because its service ends after Proxmox's own,
    and in no particular order.
    """
    if not rest:
        return 0, {}
    managed = [replace(guest, order=None) for guest in rest if guest.id in host.ha.managed]
    turns = take_turns(
        (guest for guest in rest if guest.id not in host.ha.managed),
        takes,
        host.workers,
        begin=LOAD_SECONDS,
        pause=POLL_SECONDS,
    )
    seconds: float = max((end + POLL_SECONDS for _begin, end in turns.values()), default=LOAD_SECONDS)
    begins: dict[int, float] = {number: begin for number, (begin, _end) in turns.items()}
    if managed:
        turns = take_turns(managed, takes, host.ha_workers)
        begins.update({number: seconds + begin for number, (begin, _end) in turns.items()})
        seconds += max(end for _begin, end in turns.values()) + guests.HA_SECONDS
    return seconds, begins
