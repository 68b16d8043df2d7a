# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests of a Proxmox VE host a stage stops: by number, by tag, or by whose storage they use.

Found on the host when an outage begins, because guests come and go between two plays. What was found last is kept in a file: for
when /etc/pve, a file system of Proxmox's own program, can't be read, or hangs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from ..base import files, hostnames, jsontext
from ..base.text import printable
from . import guests
from .guests import Guest, Mount, Storage

VERSION = 1
MODE = 0o600
# of the file of what was found; a guest takes 200 bytes or so
_LIMIT = 1 << 20


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
        """Say whether it could choose any guest at all."""
        return bool(self.ids or self.tags or self.storage_of)


NOBODY = Selector()


@dataclass(frozen=True)
class Chosen:
    """A guest that was chosen, how many seconds it has for its shutdown, and why it was chosen, in words for people."""

    guest: Guest
    seconds: float
    why: str


@dataclass(frozen=True)
class Here:
    """What this host has: guests, storages by their ids, and what is mounted, or would be. All empty if it is no Proxmox VE."""

    guests: tuple[Guest, ...] = ()
    storages: Mapping[str, Storage] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()


def look(root: Path = Path("/")) -> Here:
    """Read what this host has. Raises guests.GuestsError. It hangs where Proxmox's cluster file system does."""
    found = guests.load(root)
    if not (root / "etc/pve").is_dir():
        return Here()
    return Here(
        tuple(found),
        guests.storages(guests.text_of(root / "etc/pve/storage.cfg")),
        guests.mounts(guests.text_of(root / "etc/fstab"), guests.text_of(root / "proc/self/mounts")),
    )


def choose(selector: Selector, here: Here, resolve: guests.Resolve) -> tuple[Chosen, ...]:
    """Return the guests that a selector means, by number; never a template. resolve: gives the addresses of a name, or OSError.

    A guest has the seconds of its own entry, else the selector's, else Proxmox's own (``down`` of its option startup), else what
    Proxmox gives those without.
    """
    own = dict(selector.ids)
    known = [one for one in here.guests if not one.template]
    reasons: dict[int, list[str]] = {one.id: ["its number is listed"] for one in known if one.id in own}
    for tag in selector.tags:
        for one in guests.with_tag(known, tag):
            reasons.setdefault(one.id, []).append(f"it has the tag {tag}")
    if selector.storage_of:
        for one, words in guests.on(known, here.storages, selector.storage_of, here.mounts, resolve).items():
            reasons.setdefault(one.id, []).append(words)
    return tuple(
        Chosen(one, _seconds(own.get(one.id), selector.seconds, one.down), "; ".join(reasons[one.id]))
        for one in sorted(known, key=lambda one: one.id)
        if one.id in reasons
    )


def _seconds(*given: float | None) -> float:
    return float(next((one for one in given if one is not None), guests.DOWN_SECONDS))


def missing(selector: Selector, here: Here) -> tuple[int, ...]:
    """Return the numbers that no guest here has. A template is none: it never runs."""
    there = {one.id for one in here.guests if not one.template}
    return tuple(number for number, _seconds_ in selector.ids if number not in there)


def idle(selector: Selector, here: Here, resolve: guests.Resolve) -> tuple[str, ...]:
    """Say in words which numbers, tags and machines of a selector choose no guest here."""
    words = [f"no guest here has the number {number}" for number in missing(selector, here)]
    words += [
        f"no guest here has the tag {tag}" for tag in selector.tags if not choose(Selector(tags=(tag,)), here, resolve)
    ]
    for name in selector.storage_of:
        if not choose(Selector(storage_of=(name,)), here, resolve):
            try:
                resolve(name)
            except OSError:
                words.append(f"{name} has no address here, so nobody knows who uses its storage")
            else:
                words.append(f"no guest here uses storage of {name}")
    return tuple(words)


# Names


def names(selectors: Iterable[Selector], here: Here) -> tuple[str, ...]:
    """Return the names and addresses that choose() would look up: none where nobody asks whose storage a guest uses."""
    asked = {name for selector in selectors for name in selector.storage_of}
    if not asked:
        return ()
    servers = {server for storage in here.storages.values() for server in storage.servers}
    return tuple(sorted(asked | servers | {one.server for one in here.mounts if one.server}))


def look_up(wanted: Sequence[str], resolve: hostnames.Resolve, seconds: float) -> guests.Resolve:
    """Look names up, all at once, within SECONDS; return what then gives their addresses, or OSError.

    A name server that is gone costs each name its whole patience: one after the other they would take too long.
    """
    # a name without an address is one that no guest's storage has
    known, _problems = hostnames.resolve_all(wanted, seconds, resolve)

    def answer(name: str) -> Sequence[str]:
        if not known.get(name):
            raise OSError(f"{name} has no address")
        return known[name]

    return answer


# The guests of stages, and what is kept of them


@dataclass(frozen=True)
class Found:
    """What a look gave. stages: name -> its guests. idle: what chooses nobody, in words that name the stage."""

    here: Here
    stages: Mapping[str, tuple[Chosen, ...]]
    idle: tuple[str, ...] = ()


class Finder:
    """Finds the guests of the stages of this host, and keeps them. stages: name -> selector. path: of the file.

    resolver: gives, each time anew, what finds the addresses of a name; NAME_SECONDS are given to all names together.
    """

    NAME_SECONDS = 4.0

    def __init__(
        self,
        stages: Mapping[str, Selector],
        path: Path,
        resolver: Callable[[], hostnames.Resolve] = lambda: hostnames.resolve,
        root: Path = Path("/"),
    ) -> None:
        self.stages, self.path, self.resolver, self.root = dict(stages), path, resolver, root

    def find(self) -> Mapping[str, tuple[Chosen, ...]]:
        """Find them anew. Raises guests.GuestsError. It may hang."""
        return self.look().stages

    def look(self) -> Found:
        """Find them anew, and say what chooses nobody. Raises guests.GuestsError. It may hang."""
        here = look(self.root)
        resolve = look_up(names(self.stages.values(), here), self.resolver(), self.NAME_SECONDS)
        return Found(
            here,
            {name: choose(one, here, resolve) for name, one in self.stages.items()},
            tuple(f"stage {name}: {words}" for name, one in self.stages.items() for words in idle(one, here, resolve)),
        )

    def kept(self) -> dict[str, tuple[Chosen, ...]]:
        """Return what was kept last, of the stages that still mean the same guests. Never raises; {} if there is nothing."""
        try:
            # whatever stands there must not stop us
            with open(self.path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                data = jsontext.parse(file.read(_LIMIT))
            return {
                name: tuple(_chosen(guest) for guest in data["stages"][name]["guests"])
                for name, selector in self.stages.items()
                if data["version"] == VERSION
                and name in data["stages"]
                and data["stages"][name]["select"] == _select(selector)
            }
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return {}

    def keep(self, found: Mapping[str, Sequence[Chosen]]) -> bool:
        """Keep what was found, if it is not what is kept already. Says whether it was written. Raises writing.WriteError."""
        data = {
            "version": VERSION,
            "stages": {
                name: {"select": _select(selector), "guests": [_plain(one) for one in found.get(name, ())]}
                for name, selector in self.stages.items()
            },
        }
        text = json.dumps(data, indent=1) + "\n"
        try:
            if self.path.read_bytes() == text.encode("ascii"):
                return False
        except OSError:
            pass
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise files.WriteError(f"{self.path} could not be written: {error.strerror}.") from None
        files.replace({self.path: text}, MODE)
        return True


def _select(selector: Selector) -> dict[str, Any]:
    """Return a selector as JSON gives it back."""
    return {
        "ids": [list(one) for one in selector.ids],
        "tags": list(selector.tags),
        "storage_of": list(selector.storage_of),
        "seconds": selector.seconds,
    }


def _plain(one: Chosen) -> dict[str, Any]:
    return {
        "kind": one.guest.kind,
        "id": one.guest.id,
        "name": one.guest.name,
        "seconds": one.seconds,
        "why": one.why,
    }


def _chosen(data: Mapping[str, Any]) -> Chosen:
    """Read what _plain() made. Raises ValueError: half of a list may be the wrong half."""
    kind, number, name, seconds, why = (data[key] for key in ("kind", "id", "name", "seconds", "why"))
    length = jsontext.number(seconds)
    fits = (
        kind in guests.KINDS
        and isinstance(number, int)
        and not isinstance(number, bool)
        and number in guests.IDS
        and isinstance(name, str)
        and isinstance(why, str)
        and length is not None
        and length >= 0
    )
    if not fits:
        raise ValueError("it names guests that can't be")
    return Chosen(Guest(number, kind, printable(name)), length or 0.0, printable(why))
