# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Select the guests of a Proxmox VE host that a stage stops: by number, by tag, or by the server of their storage.

The host selects them when an outage begins, because guests come and go between two plays. The last selection is kept in a file,
for when /etc/pve, a FUSE file system of Proxmox, can't be read or hangs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from ..base import files, hostnames, records
from ..base.text import printable
from . import guests
from .datacenter import parse_datacenter
from .guests import Guest, Mount, Storage

VERSION = 1


@dataclass(frozen=True)
class Selector:
    """The guests that a stage selects."""

    ids: tuple[tuple[int, float | None], ...] = ()  # numbers, each with its own seconds for the shutdown, or None
    tags: tuple[str, ...] = ()
    storage_of: tuple[str, ...] = ()  # names or addresses of machines
    seconds: float | None = None  # for guests without their own; None: as long as Proxmox gives them

    def __bool__(self) -> bool:
        """Return whether this can select any guest at all."""
        return bool(self.ids or self.tags or self.storage_of)


NO_GUESTS = Selector()


@dataclass(frozen=True)
class ChosenGuest:
    """A guest that was chosen."""

    guest: Guest
    seconds: float  # time for its shutdown
    why: str  # the reason, for messages


@dataclass(frozen=True)
class LocalGuests:
    """This host's guests and their storage. Empty on a host without Proxmox VE."""

    guests: tuple[Guest, ...] = ()
    storages: Mapping[str, Storage] = field(default_factory=dict)  # by id
    mounts: tuple[Mount, ...] = ()  # current ones, and those in fstab
    has_case_sensitive_tags: bool = False  # whether the tags Nas and nas differ


def read_local_guests(root: Path = Path("/")) -> LocalGuests:
    """Return this host's guests and their storage. Raises guests.GuestsError. Hangs if Proxmox's cluster file system hangs."""
    found = guests.load_guests(root)
    if not (root / "etc/pve").is_dir():
        return LocalGuests()
    return LocalGuests(
        tuple(found),
        guests.parse_storages(guests.read_text(root / "etc/pve/storage.cfg")),
        guests.parse_mounts(guests.read_text(root / "etc/fstab"), guests.read_text(root / "proc/self/mounts")),
        _has_case_sensitive_tags(root),
    )


def _has_case_sensitive_tags(root: Path) -> bool:
    """Return whether the tags Nas and nas differ. Without a readable datacenter.cfg they don't, as is Proxmox's default."""
    try:
        return parse_datacenter(guests.read_text(root / "etc/pve/datacenter.cfg")).has_case_sensitive_tags
    except guests.GuestsError:
        return False


def choose_guests(selector: Selector, here: LocalGuests, resolve: guests.Resolve) -> tuple[ChosenGuest, ...]:
    """Return the guests that a selector selects, sorted by number; never a template. `resolve` may raise OSError.

    A guest gets the seconds of its own entry, else the selector's, else Proxmox's own (``down`` in its option startup), else
    Proxmox's default.
    """
    own = dict(selector.ids)
    known = sorted((guest for guest in here.guests if not guest.template), key=lambda guest: guest.id)
    reasons: dict[int, list[str]] = {guest.id: ["its number is listed"] for guest in known if guest.id in own}
    for tag in selector.tags:
        for guest in guests.with_tag(known, tag, case_sensitive=here.has_case_sensitive_tags):
            reasons.setdefault(guest.id, []).append(f"it has the tag {tag}")
    if selector.storage_of:
        for guest, words in guests.find_storage_users(
            known, here.storages, selector.storage_of, here.mounts, resolve
        ).items():
            reasons.setdefault(guest.id, []).append(words)
    return tuple(
        ChosenGuest(
            guest, _first_seconds(own.get(guest.id), selector.seconds, guest.down), "; ".join(reasons[guest.id])
        )
        for guest in known
        if guest.id in reasons
    )


def _first_seconds(*given: float | None) -> float:
    return float(next((seconds for seconds in given if seconds is not None), guests.DOWN_SECONDS))


def list_missing_ids(selector: Selector, here: LocalGuests) -> tuple[int, ...]:
    """Return the selector's numbers that no guest here has. Templates do not count: they never run."""
    existing = {guest.id for guest in here.guests if not guest.template}
    return tuple(number for number, _seconds_ in selector.ids if number not in existing)


def list_unmatched(selector: Selector, here: LocalGuests, resolve: guests.Resolve) -> tuple[str, ...]:
    """Return a message for each number, tag and machine of a selector that selects no guest here."""
    messages = [f"no guest here has the number {number}" for number in list_missing_ids(selector, here)]
    messages += [
        f"no guest here has the tag {tag}"
        for tag in selector.tags
        if not choose_guests(Selector(tags=(tag,)), here, resolve)
    ]
    for name in selector.storage_of:
        if not choose_guests(Selector(storage_of=(name,)), here, resolve):
            try:
                resolve(name)
            except OSError:
                messages.append(f"can't resolve {name}, so can't tell which guests use its storage")
            else:
                messages.append(f"no guest here uses storage of {name}")
    return tuple(messages)


# Names


def list_names(selectors: Iterable[Selector], here: LocalGuests) -> tuple[str, ...]:
    """Return the names and addresses that choose_guests() resolves: none if no selector selects by storage."""
    machines = {name for selector in selectors for name in selector.storage_of}
    if not machines:
        return ()
    servers = {server for storage in here.storages.values() for server in storage.servers}
    return tuple(sorted(machines | servers | {mount.server for mount in here.mounts if mount.server}))


def prepare_resolver(wanted: Sequence[str], resolve: hostnames.Resolve, seconds: float) -> guests.Resolve:
    """Resolve all names at the same time, within `seconds`; return a resolver that answers from the results.

    If no name server answers, each name takes the whole timeout; one after the other they would take too long.
    """
    # names without an address can be ignored: no storage is reached by them
    known, _problems = hostnames.resolve_names(wanted, seconds, resolve)

    def find_addresses(name: str) -> Sequence[str]:
        if not known.get(name):
            raise OSError(f"{name} has no address")
        return known[name]

    return find_addresses


# The guests of the stages, and the file in which they are kept


@dataclass(frozen=True)
class SelectionResult:
    """The guests of all stages."""

    local: LocalGuests
    guests_by_stage: Mapping[str, tuple[ChosenGuest, ...]]
    unmatched: tuple[str, ...] = ()  # messages about selectors that select no guest, with the stage's name


@dataclass(frozen=True)
class KeptGuest:
    """A chosen guest in the file."""

    kind: str
    id: int
    name: str
    seconds: float
    why: str

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values, so that a damaged file is ignored as a whole."""
        if self.kind not in guests.KINDS or self.id not in guests.IDS or self.seconds < 0:
            raise ValueError("not a guest")

    @classmethod
    def from_chosen(cls, chosen: ChosenGuest) -> KeptGuest:
        """Return the file's entry for a chosen guest."""
        return cls(chosen.guest.kind, chosen.guest.id, chosen.guest.name, chosen.seconds, chosen.why)

    @property
    def as_chosen(self) -> ChosenGuest:
        """Return the chosen guest of this entry."""
        return ChosenGuest(Guest(self.id, self.kind, printable(self.name)), self.seconds, printable(self.why))


@dataclass(frozen=True)
class KeptStage:
    """A stage in the file: its guests, and the selector that chose them."""

    select: Selector
    guests: tuple[KeptGuest, ...]


@dataclass(frozen=True)
class KeptSelections:
    """The file of the last selection, by the names of the stages."""

    stages: Mapping[str, KeptStage] = field(default_factory=dict)


class GuestFinder:
    """Finds the guests of this host's stages, and keeps them in a file.

    selectors: by the stage's name. resolver: returns a new resolver for each search; all names together get NAME_SECONDS.
    """

    NAME_SECONDS = 4.0

    def __init__(
        self,
        selectors: Mapping[str, Selector],
        path: Path,
        resolver: Callable[[], hostnames.Resolve] = lambda: hostnames.resolve_name,
        root: Path = Path("/"),
    ) -> None:
        self.selectors, self.path, self.resolver, self.root = dict(selectors), path, resolver, root

    def find_guests(self) -> Mapping[str, tuple[ChosenGuest, ...]]:
        """Return each stage's guests. Raises guests.GuestsError. May hang."""
        return self.select_guests().guests_by_stage

    def select_guests(self) -> SelectionResult:
        """Return each stage's guests, and which selectors select none. Raises guests.GuestsError. May hang."""
        here = read_local_guests(self.root)
        resolve = prepare_resolver(list_names(self.selectors.values(), here), self.resolver(), self.NAME_SECONDS)
        return SelectionResult(
            here,
            {name: choose_guests(selector, here, resolve) for name, selector in self.selectors.items()},
            tuple(
                f"stage {name}: {message}"
                for name, selector in self.selectors.items()
                for message in list_unmatched(selector, here, resolve)
            ),
        )

    def read_kept(self) -> dict[str, tuple[ChosenGuest, ...]]:
        """Return the kept guests of the stages whose selectors have not changed. Never raises; {} without a valid file."""
        kept = records.recall_record(KeptSelections, self.path, VERSION) or KeptSelections()
        return {
            name: tuple(guest.as_chosen for guest in kept.stages[name].guests)
            for name, selector in self.selectors.items()
            if name in kept.stages and kept.stages[name].select == selector
        }

    def keep_guests(self, found: Mapping[str, Sequence[ChosenGuest]]) -> bool:
        """Write the guests to the file if they differ from it. Return whether it was written. Raises files.WriteError."""
        stages = {
            name: KeptStage(selector, tuple(KeptGuest.from_chosen(chosen) for chosen in found.get(name, ())))
            for name, selector in self.selectors.items()
        }
        text = records.dump_record(KeptSelections(stages), VERSION)
        with contextlib.suppress(OSError):
            if self.path.read_bytes() == text.encode("ascii"):
                return False
        files.replace_private_file(self.path, text)
        return True
