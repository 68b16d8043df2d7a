# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The notes of the recorder of a real shutdown, kept in a file beside the gate's report.

All times are seconds since 1970, so that they are still valid after a reboot.
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
    """What was seen of a machine."""

    logged_in: bool = False
    logged_out: float | None = None  # when it logged out, which means that it began to go down
    silent_since: float | None = None  # when it stopped answering


@dataclass(frozen=True)
class Notes:
    """What the recorder has seen of a shutdown."""

    token: str  # content of the token file; it changes with each boot
    boot: str  # of base.clock.name_system_start()
    primary: str  # name of this host
    began: float  # time of the first look
    last: float  # time of the last look
    machines: Mapping[str, MachineNotes] = field(default_factory=dict)
    fsd: float | None = None  # when FSD was set
    ended: float | None = None  # when systemd stopped the recorder, so this host began to go down
    steps: tuple[tuple[float, str], ...] = ()  # time and description of each event

    def to_json(self) -> str:
        """Return the notes as JSON."""
        return records.dump_record(self, VERSION)


def read_notes(path: Path) -> Notes:
    """Read notes from a file. Raises RehearsalError."""
    try:
        return records.read_record(Notes, path, VERSION)
    except FileNotFoundError:
        raise RehearsalError(f"{path} does not exist: no real shutdown was recorded on this host") from None
    except (OSError, records.RecordError) as error:
        raise RehearsalError(f"{path} can't be read: {error}. The next live drill replaces it") from None


@dataclass(frozen=True)
class RecorderLook:
    """What the recorder sees in one look."""

    moment: float  # when the look began
    fsd: bool  # whether FSD is set
    logged_in_now: frozenset[str] | None  # machines that are logged in; None if upsd does not answer
    seen: Mapping[str, bool | None]  # machine -> whether it is up; None if unknown


def add_look(notes: Notes, look: RecorderLook) -> Notes:
    """Return the notes with a look added."""
    steps: list[str] = []
    fsd = notes.fsd
    if look.fsd and fsd is None:
        fsd = look.moment
        steps.append(f"{notes.primary}: upsmon set FSD")
    machines = {}
    for name, before in notes.machines.items():
        machines[name] = after = _note_machine(name, before, look)
        if after.logged_out is not None and before.logged_out is None:
            steps.append(f"{name} logged out: it is going down")
        if after.silent_since is not None and before.silent_since is None:
            steps.append(f"{name} stopped answering")
        elif after.silent_since is None and before.silent_since is not None:
            steps.append(f"{name} answers again")
    added = tuple((look.moment, step) for step in steps)
    return replace(notes, machines=machines, fsd=fsd, last=look.moment, steps=(*notes.steps, *added))


def _note_machine(name: str, before: MachineNotes, look: RecorderLook) -> MachineNotes:
    after = before
    if look.logged_in_now is not None:
        if name in look.logged_in_now:
            after = replace(after, logged_in=True, logged_out=None)
        elif after.logged_in and after.logged_out is None:
            after = replace(after, logged_out=look.moment)
    answer = look.seen.get(name)
    if answer:
        return replace(after, silent_since=None)
    return replace(after, silent_since=look.moment) if answer is False and after.silent_since is None else after
