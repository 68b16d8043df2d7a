# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What became of this host in a real shutdown, as its journal and the gate's report tell when it is back."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..base import records
from ..base.systemd import JournalEntry, Run, UnitError, read_journal
from ..shutdown import report as gate_report
from .job import RehearsalHost
from .notes import Notes

# systemd's messages "Stopping ..." and "Stopped ..." (systemd.catalog)
_STOPPING, _STOPPED = "de5b426a63be47a7b6ac3eaac82e2f6f", "9d1aaa27d60140bd96365438aad20286"


@dataclass(frozen=True)
class Aftermath:
    """What this host knows in the end, or up to now."""

    again: bool  # whether it has been started again since
    end: float | None = None  # the last thing in the journal of that time
    guests: float | None = None  # s that Proxmox VE took to stop them, None if it did not say
    reason: str = ""  # why the gate ended
    poweroff: float | None = None  # when it did


def find_aftermath(notes: Notes, host: RehearsalHost, report: Path) -> Aftermath:
    """Find out what became of this host. report: of the gate."""
    try:
        again = host.token_path.read_text(encoding="ascii", errors="replace").strip() != notes.token
    except OSError:
        again = True
    reason, opened = _gate_result(report, notes)
    known = Aftermath(again, reason=reason, poweroff=opened)
    poweroff = notes.ended if notes.ended is not None else opened
    if not again or poweroff is None:
        return known
    then = _previous_boot_options(notes, host)
    # in reverse: systemd 252 finds nothing at all by --lines with --until
    last = _read_entries(host.run, ["--reverse", "--lines=1", *then])
    end = last[0].at if last and last[0].at >= poweroff else None
    units_said = _read_entries(host.run, [*then, f"--since=@{math.floor(poweroff)}", "UNIT=pve-guests.service"])
    moments = {entry.kind: entry.at for entry in units_said}
    guests = None
    if _STOPPING in moments and _STOPPED in moments:
        guests = round(max(moments[_STOPPED] - moments[_STOPPING], 0.0), 2)
    return replace(known, end=end, guests=guests)


def _gate_result(report: Path, notes: Notes) -> tuple[str, float | None]:
    """Return why the gate of this shutdown ended, and when."""
    said = records.recall_record(gate_report.GateReport, report, gate_report.VERSION)
    if said is None or said.began < notes.began or not said.reason:
        return "", None
    return said.reason, said.began + said.elapsed


def _previous_boot_options(notes: Notes, host: RehearsalHost) -> list[str]:
    """Return journalctl's options for what was written before this host was started."""
    if host.clock.boot() != notes.boot:
        return [f"--boot={notes.boot.replace('-', '')}"]
    # a container: its kernel goes on, and it may have another id. What counts is its first process
    boot = host.clock.wall() - host.clock.now()
    try:
        fields = (host.root / "proc/1/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        began = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        began = boot
    return ["--merge", f"--until=@{began:.3f}"]


def _read_entries(run: Run, options: Sequence[str]) -> list[JournalEntry]:
    try:
        return list(read_journal(options, run))
    except UnitError:
        return []
