# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a real shutdown ended on this host, read from its journal and the gate's report once it is back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..base import clock, records
from ..base.systemd import JournalEntry, Run, UnitError, read_journal
from ..shutdown import report as gate_report
from .job import RehearsalHost
from .notes import Notes

# systemd's messages "Stopping ..." and "Stopped ..." (systemd.catalog)
_STOPPING, _STOPPED = "de5b426a63be47a7b6ac3eaac82e2f6f", "9d1aaa27d60140bd96365438aad20286"


@dataclass(frozen=True)
class Aftermath:
    """How the shutdown ended, or what is known so far."""

    restarted: bool  # whether the host has been started again since
    end: float | None = None  # time of the last journal entry before that
    guests: float | None = None  # s that Proxmox VE took to stop its guests; None if unknown
    reason: str = ""  # why the gate stopped waiting
    poweroff: float | None = None  # when the gate stopped waiting


def find_aftermath(notes: Notes, host: RehearsalHost, report: Path) -> Aftermath:
    """Return how the shutdown ended. report: path of the gate's report."""
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
    # --reverse because systemd 252 returns nothing for --lines with --until
    last = _read_entries(host.run, ["--reverse", "--lines=1", *then])
    end = last[0].at if last and last[0].at >= poweroff else None
    guest_entries = _read_entries(host.run, [*then, f"--since=@{math.floor(poweroff)}", "UNIT=pve-guests.service"])
    moments = {entry.kind: entry.at for entry in guest_entries}
    guests = None
    if _STOPPING in moments and _STOPPED in moments:
        guests = round(max(moments[_STOPPED] - moments[_STOPPING], 0.0), 2)
    return replace(known, end=end, guests=guests)


def _gate_result(report: Path, notes: Notes) -> tuple[str, float | None]:
    """Return why and when the gate stopped waiting in this shutdown; "" and None if unknown."""
    gate = records.recall_record(gate_report.GateReport, report, gate_report.VERSION)
    if gate is None or gate.began < notes.began or not gate.reason:
        return "", None
    return gate.reason, gate.began + gate.elapsed


def _previous_boot_options(notes: Notes, host: RehearsalHost) -> list[str]:
    """Return journalctl's options that select entries from before the last start of this host."""
    now, then = (clock.kernel_boot(boot) for boot in (host.clock.boot(), notes.boot))
    if now != then:
        return [f"--boot={then.replace('-', '')}"]
    # In a container the kernel and its boot id outlive a reboot; the start of the first process counts.
    began = host.clock.wall() - host.clock.now() + clock.read_system_start(host.root)
    return ["--merge", f"--until=@{began:.3f}"]


def _read_entries(run: Run, options: Sequence[str]) -> list[JournalEntry]:
    try:
        return list(read_journal(options, run))
    except UnitError:
        return []
