# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`nut-shutdown record`: check the readiness for a real shutdown, record it, and report on it.

A live drill checks first, starts the recorder, sets FSD with `nut-shutdown fsd`, and reads the report when this host is back. Nothing
in this package sets FSD or powers anything off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..base import paths
from ..shutdown.policy import ShutdownPolicy
from . import fitness, notes, recorder
from .aftermath import find_aftermath
from .job import Output, RehearsalHost
from .offers import Offer
from .report import build_record_report


@dataclass(frozen=True)
class RecordOptions:
    """The options of `nut-shutdown record`."""

    check: bool = False
    show: bool = False
    inside: bool = False
    as_json: bool = False
    need: float | None = None  # battery runtime that the plan needs, s
    own: float | None = None  # nut_server_shutdown_time, s
    report: Path = Path("/", paths.GATE_REPORT)  # the gate's report; the record is kept beside it

    @property
    def notes_path(self) -> Path:
        """The path of the record."""
        return self.report.with_name(notes.NAME)


def main(policy: ShutdownPolicy, options: RecordOptions, host: RehearsalHost, out: Output) -> bool:
    """Run `nut-shutdown record` and return whether it succeeded. Raises RehearsalError."""
    if options.inside:
        return recorder.run_recorder(policy, host, options.notes_path, out)
    if options.show:
        seen = notes.read_notes(options.notes_path)
        after = find_aftermath(seen, host, options.report)
        data = build_record_report(seen, policy, host.read_upsmon_conf() or "", after, options.own)
        out(json.dumps(data, indent=2) if options.as_json else format_record(data))
        return True
    if options.check and options.as_json:
        fit = fitness.judge_fitness(policy, fitness.observe_host(policy, host), options.need)
        out(json.dumps(asdict(fit), indent=2))
        return not fit.problems
    fit = (recorder.check_fitness if options.check else recorder.start_recorder)(policy, host, options.need)
    for remark in fit.remarks:
        out(remark)
    out(
        "ready for a real shutdown"
        if options.check
        else f"{recorder.UNIT}.service is recording until this host goes down"
    )
    return True


def format_record(data: Mapping[str, Any]) -> str:
    """Return build_record_report() as text for people."""
    lines = [f"{moment:+8.1f} s  {event}" for moment, event in data["steps"]]
    offered = [Offer(**offer).inventory_line for offer in data["offers"]]
    return "\n".join([*lines, "", data["table"], *(["", "For the inventory:", *offered] if offered else [])])
