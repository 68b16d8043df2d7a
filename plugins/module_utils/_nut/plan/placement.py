# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guests of a Proxmox VE host as machines of a plan: which stage stops each, whose storage it uses, how long the rest takes.

observe_host() reads the host. place_guests() is a pure function of what was read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import hostnames
from ..base.process import run_within
from ..base.systemd import Run
from ..inventory import LINUX
from ..proxmox import control, guests, selection
from ..proxmox.guests import Guest
from ..proxmox.selection import LocalGuests, Selector
from ..proxmox.turns import longest_stop, read_workers, take_turns
from .model import GUEST, SECONDARY, Constraint, PlanError, PlanMachine, PlannedGuest, ProxmoxGuests, StagePlan

# How long a guest takes as a rule, if nobody has measured it: as a Linux machine does that nobody has measured
USUAL_SECONDS = LINUX.shutdown_time
# What HA gives each guest, whatever its `down` says, and how many it stops at a time if datacenter.cfg does not say: pve-ha-manager,
# PVE/HA/Resources/PVEVM.pm (shutdown) and PVE/HA/Env/PVE2.pm (get_max_workers)
HA_STOP_SECONDS = 60
HA_WORKERS = 4
# Proxmox's cluster file system answers at once, or not at all
LOOK_SECONDS = 20.0
# all names together
NAME_SECONDS = 4.0


@dataclass(frozen=True)
class ProxmoxHost:
    """What a Proxmox VE host has; all empty if it is none."""

    here: LocalGuests = field(default_factory=LocalGuests)
    running: frozenset[int] | None = frozenset()  # numbers of the guests that run; None: not known
    ha: guests.HaSetup = field(default_factory=guests.HaSetup)
    workers: int = 1  # how many guests Proxmox stops at a time
    ha_workers: int = HA_WORKERS  # how many its HA does


@dataclass(frozen=True)
class GuestPlacement:
    """What place_guests() returns and make_plan() takes."""

    machines: tuple[PlanMachine, ...]
    stages: tuple[StagePlan, ...]
    proxmox: ProxmoxGuests


def observe_host(
    run: Run, root: Path = Path("/"), *, cpus: int | None = None, patience: float = LOOK_SECONDS
) -> ProxmoxHost:
    """Ask a host for its guests. cpus: of the host. patience: s. Raises guests.GuestsError, also if its files give no answer."""
    try:
        host = run_within(patience, lambda: _read_host(root, cpus or os.cpu_count() or 1))
    except TimeoutError:
        raise guests.GuestsError(
            f"{root / 'etc/pve'} has not answered for {patience:g} s: see to Proxmox's cluster file system (systemctl status "
            "pve-cluster)"
        ) from None
    return replace(host, running=control.list_running(run)) if host.here.guests else host


def _read_host(root: Path, cpus: int) -> ProxmoxHost:
    text = guests.read_text(root / "etc/pve/datacenter.cfg")
    return ProxmoxHost(
        here=selection.read_local_guests(root),
        ha=guests.read_ha(root),
        workers=read_workers(text, cpus),
        ha_workers=read_workers(text, HA_WORKERS),
    )


def look_up_names(
    machines: Iterable[PlanMachine],
    selectors: Iterable[Selector],
    host: ProxmoxHost,
    resolve: hostnames.Resolve = hostnames.resolve_name,
) -> guests.Resolve:
    """Look up all names that place_guests() needs, at once, within NAME_SECONDS."""
    asked = Selector(storage_of=tuple(address for machine in machines for address in machine.address))
    return selection.prepare_resolver(selection.list_names([asked, *selectors], host.here), resolve, NAME_SECONDS)


def with_addresses(selector: Selector, machines: Iterable[PlanMachine]) -> Selector:
    """Put the addresses of machines in place of their names. What names none of them is an address itself, or a name to look up."""
    known = {machine.name: machine.address for machine in machines}
    found = [address for name in selector.storage_of for address in known.get(name) or (name,)]
    return replace(selector, storage_of=tuple(dict.fromkeys(found)))


def place_guests(
    machines: Iterable[PlanMachine],
    stages: Iterable[StagePlan],
    selectors: Mapping[str, Selector],
    host: ProxmoxHost,
    resolve: guests.Resolve,
) -> GuestPlacement:
    """Make machines of the guests, and let the stages choose among them.

    selectors: by the stage's name, with addresses (see with_addresses()). The guests that count are those that run, start at boot, or are
    named by their number. One that is among the machines already keeps its name and times there. A secondary that is a guest of this
    host is none here: it goes down by itself at FSD, and the gate waits for it. Raises PlanError.
    """
    machines, stages = tuple(machines), tuple(stages)
    given = _by_number(machines)
    named = {number for selector in selectors.values() for number, _seconds in selector.ids}
    counting = [guest for guest in host.here.guests if _is_planned(guest, host, given, named)]
    chosen, remarks = _choose_guests(stages, selectors, host, resolve, given)
    names = _name_guests(counting, given, {machine.name for machine in machines})
    needs = _find_needs(machines, counting, host.here, resolve)
    made: dict[int, PlanMachine] = {}
    rows: list[PlannedGuest] = []
    for guest in counting:
        choice = chosen.get(guest.id) or _StopChoice("", _given_by_proxmox(guest, host), "")
        machine = given.get(guest.id) or _as_machine(guest, names[guest.id], choice.seconds)
        uses = needs.get(guest.id, {})
        made[guest.id] = machine = replace(machine, needs=tuple(dict.fromkeys((*machine.needs, *uses))))
        if guest.id in given:
            choice = replace(choice, seconds=machine.shutdown_limit)
        rows.append(_planned_guest(guest, machine, choice, uses, host))
    stages = tuple(_with_chosen(stage, chosen, names) for stage in stages)
    staged = {name for stage in stages for name in stage.guests}
    rest = [guest for guest in counting if names[guest.id] not in staged]
    proxmox = _as_proxmox(rest, made, host)
    kept = [machine if machine.guest_id is None else made.pop(machine.guest_id, machine) for machine in machines]
    return GuestPlacement((*kept, *made.values()), stages, replace(proxmox, guests=tuple(rows), remarks=tuple(remarks)))


@dataclass(frozen=True)
class _StopChoice:
    """What stops a guest."""

    stage: str  # the first that chooses it, or "": Proxmox stops it
    seconds: float  # how long it has for that
    why: str


def _as_machine(guest: Guest, name: str, seconds: float) -> PlanMachine:
    """Return a guest as a machine that nobody has measured."""
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
    """Return a stage with the guests that it is the first to choose."""
    found = [names[number] for number, choice in chosen.items() if choice.stage == stage.name]
    return replace(stage, guests=tuple(dict.fromkeys((*stage.guests, *found))))


def _as_proxmox(rest: Sequence[Guest], made: Mapping[int, PlanMachine], host: ProxmoxHost) -> ProxmoxGuests:
    """Return how Proxmox and its HA stop those that no stage stops."""
    seconds, latest = _stop_times(rest, {number: machine.takes(worst=True) for number, machine in made.items()}, host)
    usual, turns = _stop_times(rest, {number: machine.takes(worst=False) for number, machine in made.items()}, host)
    return ProxmoxGuests(
        seconds=seconds,
        usual=usual,
        turns={made[guest.id].name: (turns[guest.id], latest[guest.id]) for guest in rest},
        migrates=bool(host.ha.managed) and host.ha.policy == "migrate",
        ha=host.ha.remarks,
    )


def _by_number(machines: Iterable[PlanMachine]) -> dict[int, PlanMachine]:
    """Return the machines that are guests of this host, secondaries too, by their number. Raises PlanError."""
    found: dict[int, PlanMachine] = {}
    for machine in machines:
        if machine.guest_id is not None and found.setdefault(machine.guest_id, machine) is not machine:
            raise PlanError(
                f"{machine.name}: guest_id {machine.guest_id} is that of {found[machine.guest_id].name}, too; each has its own"
            )
    return found


def _is_planned(guest: Guest, host: ProxmoxHost, given: Mapping[int, PlanMachine], named: Collection[int]) -> bool:
    """Return whether a guest is one of those that must be stopped, and no secondary, which goes by itself."""
    if guest.template or (guest.id in given and given[guest.id].role != GUEST):
        return False
    return guest.onboot or host.running is None or guest.id in {*host.running, *named, *given}


def _name_guests(counting: Sequence[Guest], given: Mapping[int, PlanMachine], taken: set[str]) -> dict[int, str]:
    """Name each guest so that a person knows it, and no two machines have one name."""
    found: dict[int, str] = {}
    for guest in counting:
        name = f"{guest.id} {guest.name}" if guest.name else str(guest)
        while name in taken:
            name = f"{name} ({guest.kind})"
        found[guest.id] = given[guest.id].name if guest.id in given else name
        taken.add(found[guest.id])
    return found


def _choose_guests(
    stages: Sequence[StagePlan],
    selectors: Mapping[str, Selector],
    host: ProxmoxHost,
    resolve: guests.Resolve,
    given: Mapping[int, PlanMachine],
) -> tuple[dict[int, _StopChoice], list[Constraint]]:
    """Return what stops each guest that a stage chooses, by its number; and what is wrong with the choice."""
    found: dict[int, _StopChoice] = {}
    remarks: list[Constraint] = []
    for stage in stages:
        selector = selectors.get(stage.name, selection.NOBODY)
        for choice in selection.choose_guests(selector, host.here, resolve):
            guest, other = choice.guest, given.get(choice.guest.id)
            if other is not None and other.role != GUEST:
                words = f"stage {stage.name} stops {guest}, which is {other.name}, before FSD: {choice.why}"
                remedy = f"let it not choose {guest.id}: {other.name} goes down by itself at FSD"
                remarks.append(Constraint(f"stage {stage.name}", other.name, False, None, None, None, words, remedy))
            elif _is_planned(guest, host, given, {number for number, _seconds in selector.ids}):
                found.setdefault(guest.id, _StopChoice(stage.name, choice.seconds, choice.why))
        for number in selection.list_missing_ids(selector, host.here):
            words = f"stage {stage.name} names guest {number}, and there is none of this number on this host"
            remedy = f"take {number} from it, or see on which host it is"
            remarks.append(Constraint(f"stage {stage.name}", str(number), None, None, None, None, words, remedy))
    return found, remarks


def _find_needs(
    machines: Iterable[PlanMachine], counting: Sequence[Guest], here: LocalGuests, resolve: guests.Resolve
) -> dict[int, dict[str, str]]:
    """Return number -> name of the secondary whose storage it uses -> why that is so."""
    found: dict[int, dict[str, str]] = {}
    for machine in machines:
        if machine.role == SECONDARY and machine.address:
            for guest, words in guests.find_storage_users(
                counting, here.storages, machine.address, here.mounts, resolve
            ).items():
                found.setdefault(guest.id, {})[machine.name] = words
    return found


def _given_by_proxmox(guest: Guest, host: ProxmoxHost) -> float:
    """Return how long a guest has that no stage stops."""
    if guest.id in host.ha.managed:
        return HA_STOP_SECONDS
    return guests.DOWN_SECONDS if guest.down is None else guest.down


def _stop_times(rest: Sequence[Guest], takes: Mapping[int, float], host: ProxmoxHost) -> tuple[float, dict[int, float]]:
    """Return how long it takes until these are stopped, if each takes so long; and after how many seconds each has its turn.

    Those of HA come after the others, because HA's service ends after Proxmox's own. It knows no order.
    """
    managed = [replace(guest, order=None) for guest in rest if guest.id in host.ha.managed]
    turns = take_turns((guest for guest in rest if guest.id not in host.ha.managed), takes, host.workers)
    seconds = max((end for _begin, end in turns.values()), default=0)
    begins: dict[int, float] = {number: begin for number, (begin, _end) in turns.items()}
    if managed:
        turns = take_turns(managed, takes, host.ha_workers)
        begins.update({number: seconds + begin for number, (begin, _end) in turns.items()})
        seconds += max(end for _begin, end in turns.values()) + guests.HA_SECONDS
    return seconds, begins
