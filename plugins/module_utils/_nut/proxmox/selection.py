# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests of a Proxmox VE host a stage stops: by number, by tag, or by whose storage they use.

Found on the host when an outage begins, because guests come and go between two plays. What was found last is kept in a file: for
when /etc/pve, a file system of Proxmox's own program, can't be read, or hangs.
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
from .guests import Guest, Mount, Storage

VERSION = 1


@dataclass(frozen=True)
class Selector:
    """Which guests. ids: numbers, each with the seconds that it has, or None. storage_of: names or addresses of machines.

    seconds: how long each has that has none of its own; None: as long as Proxmox gives it.
    """

    ids: tuple[tuple[int, float | None], ...] = ()
    tags: tuple[str, ...] = ()
    storage_of: tuple[str, ...] = ()
    seconds: float | None = None

    def __bool__(self) -> bool:
        """Return whether it could choose any guest at all."""
        return bool(self.ids or self.tags or self.storage_of)


NOBODY = Selector()


@dataclass(frozen=True)
class ChosenGuest:
    """A guest that was chosen, how many seconds it has for its shutdown, and why it was chosen, in words for people."""

    guest: Guest
    seconds: float
    why: str


@dataclass(frozen=True)
class LocalGuests:
    """What this host has: guests, storages by their ids, and what is mounted, or would be. All empty if it is no Proxmox VE."""

    guests: tuple[Guest, ...] = ()
    storages: Mapping[str, Storage] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()


def read_local_guests(root: Path = Path("/")) -> LocalGuests:
    """Read what this host has. Raises guests.GuestsError. It hangs where Proxmox's cluster file system does."""
    found = guests.load_guests(root)
    if not (root / "etc/pve").is_dir():
        return LocalGuests()
    return LocalGuests(
        tuple(found),
        guests.parse_storages(guests.read_text(root / "etc/pve/storage.cfg")),
        guests.parse_mounts(guests.read_text(root / "etc/fstab"), guests.read_text(root / "proc/self/mounts")),
    )


def choose_guests(selector: Selector, here: LocalGuests, resolve: guests.Resolve) -> tuple[ChosenGuest, ...]:
    """Return the guests that a selector means, by number; never a template. resolve: gives the addresses of a name, or OSError.

    A guest has the seconds of its own entry, else the selector's, else Proxmox's own (``down`` of its option startup), else what
    Proxmox gives those without.
    """
    own = dict(selector.ids)
    known = sorted((guest for guest in here.guests if not guest.template), key=lambda guest: guest.id)
    reasons: dict[int, list[str]] = {guest.id: ["its number is listed"] for guest in known if guest.id in own}
    for tag in selector.tags:
        for guest in guests.with_tag(known, tag):
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
    """Return the numbers that no guest here has. A template is none: it never runs."""
    there = {guest.id for guest in here.guests if not guest.template}
    return tuple(number for number, _seconds_ in selector.ids if number not in there)


def list_unmatched(selector: Selector, here: LocalGuests, resolve: guests.Resolve) -> tuple[str, ...]:
    """Return in words which numbers, tags and machines of a selector choose no guest here."""
    words = [f"no guest here has the number {number}" for number in list_missing_ids(selector, here)]
    words += [
        f"no guest here has the tag {tag}"
        for tag in selector.tags
        if not choose_guests(Selector(tags=(tag,)), here, resolve)
    ]
    for name in selector.storage_of:
        if not choose_guests(Selector(storage_of=(name,)), here, resolve):
            try:
                resolve(name)
            except OSError:
                words.append(f"{name} has no address here, so nobody knows who uses its storage")
            else:
                words.append(f"no guest here uses storage of {name}")
    return tuple(words)


# Names


def list_names(selectors: Iterable[Selector], here: LocalGuests) -> tuple[str, ...]:
    """Return the names and addresses that choose() would look up: none where nobody asks whose storage a guest uses."""
    asked = {name for selector in selectors for name in selector.storage_of}
    if not asked:
        return ()
    servers = {server for storage in here.storages.values() for server in storage.servers}
    return tuple(sorted(asked | servers | {mount.server for mount in here.mounts if mount.server}))


def prepare_resolver(wanted: Sequence[str], resolve: hostnames.Resolve, seconds: float) -> guests.Resolve:
    """Look names up, all at once, within SECONDS; return what then gives their addresses, or OSError.

    A name server that is gone costs each name its whole patience: one after the other they would take too long.
    """
    # a name without an address is one that no guest's storage has
    known, _problems = hostnames.resolve_names(wanted, seconds, resolve)

    def answer(name: str) -> Sequence[str]:
        if not known.get(name):
            raise OSError(f"{name} has no address")
        return known[name]

    return answer


# The guests of stages, and what is kept of them


@dataclass(frozen=True)
class SelectionResult:
    """What a look gave. stages: name -> its guests. idle: what chooses nobody, in words that name the stage."""

    local: LocalGuests
    guests_by_stage: Mapping[str, tuple[ChosenGuest, ...]]
    unmatched: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptGuest:
    """A guest that was chosen, as it is kept."""

    kind: str
    id: int
    name: str
    seconds: float
    why: str

    def __post_init__(self) -> None:
        """Refuse what can't be: half of a list may be the wrong half."""
        if self.kind not in guests.KINDS or self.id not in guests.IDS or self.seconds < 0:
            raise ValueError("there is no such guest")

    @classmethod
    def from_chosen(cls, chosen: ChosenGuest) -> KeptGuest:
        """Return what is kept of a guest that was chosen."""
        return cls(chosen.guest.kind, chosen.guest.id, chosen.guest.name, chosen.seconds, chosen.why)

    @property
    def as_chosen(self) -> ChosenGuest:
        """Return the guest as it was chosen."""
        return ChosenGuest(Guest(self.id, self.kind, printable(self.name)), self.seconds, printable(self.why))


@dataclass(frozen=True)
class KeptStage:
    """The guests of a stage, and what it meant when they were chosen."""

    select: Selector
    guests: tuple[KeptGuest, ...]


@dataclass(frozen=True)
class KeptSelections:
    """The file of what was found last, by the names of stages."""

    stages: Mapping[str, KeptStage] = field(default_factory=dict)


class GuestFinder:
    """Finds the guests of the stages of this host, and keeps them. stages: name -> selector. path: of the file.

    resolver: gives, each time anew, what finds the addresses of a name; NAME_SECONDS are given to all names together.
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
        """Find them anew. Raises guests.GuestsError. It may hang."""
        return self.select_guests().guests_by_stage

    def select_guests(self) -> SelectionResult:
        """Find them anew, and say what chooses nobody. Raises guests.GuestsError. It may hang."""
        here = read_local_guests(self.root)
        resolve = prepare_resolver(list_names(self.selectors.values(), here), self.resolver(), self.NAME_SECONDS)
        return SelectionResult(
            here,
            {name: choose_guests(selector, here, resolve) for name, selector in self.selectors.items()},
            tuple(
                f"stage {name}: {words}"
                for name, selector in self.selectors.items()
                for words in list_unmatched(selector, here, resolve)
            ),
        )

    def read_kept(self) -> dict[str, tuple[ChosenGuest, ...]]:
        """Return what was kept last, of the stages that still mean the same guests. Never raises; {} if there is nothing."""
        kept = records.recall_record(KeptSelections, self.path, VERSION) or KeptSelections()
        return {
            name: tuple(guest.as_chosen for guest in kept.stages[name].guests)
            for name, selector in self.selectors.items()
            if name in kept.stages and kept.stages[name].select == selector
        }

    def keep_guests(self, found: Mapping[str, Sequence[ChosenGuest]]) -> bool:
        """Keep what was found, if it is not what is kept already. Returns whether it was written. Raises files.WriteError."""
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
