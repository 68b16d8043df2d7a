# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guests that should run again after an outage or a boot, and do not: for the doctor and the status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..base import paths, records
from ..base.systemd import Run
from ..base.text import printable
from ..proxmox import guests, running
from ..proxmox.startup import GuestStart
from . import boot_starts, stages


@dataclass(frozen=True)
class OpenStarts:
    """Guests that should run, and do not. Each text begins with the guest's name."""

    waiting: tuple[str, ...] = ()  # those that nut-stages still tries to start, with the reason why they do not run
    given_up: Mapping[str, str] = field(default_factory=dict)  # command that starts the guest -> why it was given up


def read_open_starts(folder: Path, boot: str, run: Run, root: Path = Path("/")) -> OpenStarts:
    """Return the guests that should run. folder: of nut-shutdown's files. boot: of base.clock.name_system_start().

    A guest that has been given up is over once it runs, or is no guest of this host any more.
    """
    state = records.recall_record(stages.StagesState, folder / Path(paths.STAGES_STATE).name, stages.VERSION)
    state = state or stages.StagesState()
    report = boot_starts.recall_report(folder / Path(paths.BOOT_STARTS).name, boot)
    waiting = [*report.waiting] if report else []
    if state.boot == boot:
        waiting += [
            f"{guests.parse_key(key)}: its start has failed so far"
            for key in state.failed_starts
            if key in state.guests_to_start
        ]
    given_up = {}
    for key, reason in state.given_up.items():
        guest = guests.parse_key(key)
        if running.read_status(run, guest.kind, guest.id, root) not in (running.RUNNING, running.GONE):
            given_up[f"{guest.kind} start {guest.id}"] = printable(reason)
    return OpenStarts(tuple(map(printable, waiting)), given_up)


def describe_guests(starts: OpenStarts, start: GuestStart | None) -> list[str]:
    """Return a line for each guest that should run and does not, and one if Proxmox VE has not started all guests yet."""
    lines = [start.message] if start and start.message else []
    lines += [f"not running yet: {line}" for line in starts.waiting]
    return lines + [f"not running: {line}. Start it by hand: {command}" for command, line in starts.given_up.items()]
