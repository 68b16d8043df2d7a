# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the recorder of a real shutdown has seen, kept in a file beside the gate's report.

Moments are seconds since 1970: they must mean the same after a reboot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import records
from .job import RehearsalError

VERSION = 1
NAME = "live.json"


@dataclass(frozen=True)
class MachineNotes:
    """What is known of a machine."""

    logged_in: bool = False
    left: float | None = None  # when it logged out, and so begins to go down
    silent: float | None = None  # since when it does not answer


@dataclass(frozen=True)
class Notes:
    """What the recorder has seen."""

    token: str  # of the recorder's boot
    boot: str  # the kernel's id of it
    primary: str
    began: float  # its first look
    last: float  # its last look
    machines: Mapping[str, MachineNotes] = field(default_factory=dict)
    fsd: float | None = None  # when FSD was set
    ended: float | None = None  # when it was told to end, and so this host goes down
    steps: tuple[tuple[float, str], ...] = ()  # what happened, in words

    def to_json(self) -> str:
        """Write it as JSON."""
        return records.dump_record(self, VERSION)


def read_notes(path: Path) -> Notes:
    """Read what was noted. Raises RehearsalError."""
    try:
        return records.read_record(Notes, path, VERSION)
    except FileNotFoundError:
        raise RehearsalError(f"{path} is not there: no real shutdown was recorded on this host") from None
    except (OSError, records.RecordError) as error:
        raise RehearsalError(f"{path} can't be understood: {error}. The next real drill writes it anew") from None


@dataclass(frozen=True)
class RecorderLook:
    """One look."""

    at: float  # when it began
    fsd: bool  # whether FSD is set
    inside: frozenset[str] | None  # who is logged in, None if upsd does not say
    seen: Mapping[str, bool | None]  # whether each machine is up


def add_look(notes: Notes, look: RecorderLook) -> Notes:
    """Take in what a look has seen."""
    steps: list[str] = []
    fsd = notes.fsd
    if look.fsd and fsd is None:
        fsd = look.at
        steps.append(f"{notes.primary}: upsmon has set FSD")
    machines = {}
    for name, before in notes.machines.items():
        machines[name] = after = _note_machine(name, before, look)
        if after.left is not None and before.left is None:
            steps.append(f"{name} has logged out: it begins to go down")
        if after.silent is not None and before.silent is None:
            steps.append(f"{name} is silent")
        elif after.silent is None and before.silent is not None:
            steps.append(f"{name} answers again")
    told = tuple((look.at, words) for words in steps)
    return replace(notes, machines=machines, fsd=fsd, last=look.at, steps=(*notes.steps, *told))


def _note_machine(name: str, before: MachineNotes, look: RecorderLook) -> MachineNotes:
    after = before
    if look.inside is not None:
        if name in look.inside:
            after = replace(after, logged_in=True, left=None)
        elif after.logged_in and after.left is None:
            after = replace(after, left=look.at)
    answer = look.seen.get(name)
    if answer:
        return replace(after, silent=None)
    return replace(after, silent=look.at) if answer is False and after.silent is None else after
