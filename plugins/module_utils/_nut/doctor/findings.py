# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The findings of checks_*.py, in order: as a table for people, and as JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..base.table import wrap_row
from ..base.text import as_text, printable

OK, NOTE, UNKNOWN, WARNING, FAILURE = "ok", "note", "unknown", "warning", "failure"
VERDICTS = (FAILURE, WARNING, UNKNOWN, NOTE, OK)
"""Worst first."""

CODES = {OK: 0, NOTE: 0, UNKNOWN: 1, WARNING: 1, FAILURE: 2}
"""The exit code for the worst verdict."""

FORMAT = 1
"""Format of the JSON report; see docs/doctor.md."""

_WIDTH = 120
_MOST = 2000
_FINDINGS = 5000
_NAME = 20
"""Columns for a host or a check; longer names are wrapped."""


@dataclass(frozen=True)
class Finding:
    """What a check found on a host.

    Much of the text comes from hosts, devices and peers. All of it is made safe for a terminal here, in one place.
    """

    check: str
    host: str
    verdict: str
    seen: str  # what was observed, in words
    todo: str = ""  # what to do about it, "" if nothing

    def __post_init__(self) -> None:
        for field in fields(self):
            # The only way to set a field of a frozen dataclass.
            object.__setattr__(self, field.name, printable(as_text(getattr(self, field.name)), _MOST))


@dataclass(frozen=True)
class DoctorReport:
    """All findings: hosts in inventory order, and of each host the worst finding first."""

    findings: tuple[Finding, ...]

    @property
    def worst_verdict(self) -> str:
        """The worst verdict of all findings."""
        present = {finding.verdict for finding in self.findings}
        return next((verdict for verdict in VERDICTS if verdict in present), OK)

    @property
    def exit_code(self) -> int:
        """The exit code of tools/doctor."""
        return CODES[self.worst_verdict]

    @property
    def summary(self) -> str:
        """The number of findings by verdict, in one line."""
        count = {verdict: sum(finding.verdict == verdict for finding in self.findings) for verdict in VERDICTS}
        hosts = len({finding.host for finding in self.findings})
        names = {FAILURE: "failure", WARNING: "warning", UNKNOWN: "unknown", NOTE: "note"}
        counted = [
            f"{count[verdict]} {name}{'s' if count[verdict] != 1 and verdict != UNKNOWN else ''}"
            for verdict, name in names.items()
            if count[verdict]
        ]
        return f"{hosts} host{'s' if hosts != 1 else ''}, {len(self.findings)} checks: {', '.join([*counted, f'{count[OK]} ok'])}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as data for JSON."""
        return {
            "format": FORMAT,
            "verdict": self.worst_verdict,
            "code": self.exit_code,
            "summary": self.summary,
            "findings": [asdict(finding) for finding in self.findings],
        }


def from_json(data: Mapping[str, Any]) -> DoctorReport:
    """Read the data that DoctorReport.to_json() returns. Raises KeyError, TypeError or ValueError for anything else."""
    given = data["findings"]
    if not isinstance(given, list) or len(given) > _FINDINGS:
        raise ValueError(f"findings is not a list of at most {_FINDINGS}")
    findings = tuple(
        Finding(item["check"], item["host"], item["verdict"], item["seen"], item.get("todo", "")) for item in given
    )
    if not all(finding.verdict in VERDICTS for finding in findings):
        raise ValueError("a finding has an unknown verdict")
    return DoctorReport(findings)


def merge_findings(hosts: Sequence[str], findings: Iterable[Finding]) -> DoctorReport:
    """Put the findings of all hosts in order. Where two hosts checked the same login, keep the worse verdict."""
    grouped: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        grouped.setdefault((finding.host, finding.check), []).append(finding)
    kept: list[Finding] = []
    for group in grouped.values():
        bad = [finding for finding in group if finding.verdict != OK]
        if group[0].check == "login":
            # The primary and the secondary have both checked this login.
            kept.append(min(group, key=lambda finding: VERDICTS.index(finding.verdict)))
        else:
            kept += dict.fromkeys(bad or group)
    order = {name: number for number, name in enumerate(hosts)}
    kept.sort(key=lambda finding: (order.get(finding.host, len(order)), VERDICTS.index(finding.verdict)))
    return DoctorReport(tuple(kept))


_HEAD = ("HOST", "CHECK", "VERDICT", "SEEN", "TO DO")


def format_table(report: DoctorReport, *, everything: bool = False, width: int = _WIDTH) -> str:
    """Return a report as a table of WIDTH columns, with notes and the names of the ok checks below it.

    everything: give each finding a row, notes and ok ones too.
    """
    rows = [finding for finding in report.findings if everything or finding.verdict not in (OK, NOTE)]
    lines = [*_table_lines(rows, width), ""] if rows else []
    if not everything:
        lines += [*_note_lines(report, width), *_ok_lines(report, width)]
    return "\n".join([*lines, report.summary])


def _note_lines(report: DoctorReport, width: int) -> list[str]:
    """Return the notes as lines. Hosts with the same note share one."""
    notes: dict[tuple[str, str], list[str]] = {}
    for finding in report.findings:
        if finding.verdict == NOTE:
            text = finding.seen + (f" -> {finding.todo}" if finding.todo else "")
            notes.setdefault((finding.check, text), []).append(finding.host)
    lines = [
        line
        for (check, text), hosts in notes.items()
        for line in _wrap_line(f"note, {', '.join(hosts)}, {check}: {text}", width)
    ]
    return [*lines, ""] if lines else []


def _ok_lines(report: DoctorReport, width: int) -> list[str]:
    """Return the names of the ok checks, a line for each host."""
    passed: dict[str, list[str]] = {}
    for finding in report.findings:
        if finding.verdict == OK:
            passed.setdefault(finding.host, []).append(finding.check)
    lines = [
        line
        for host, names in passed.items()
        for line in _wrap_line(f"ok, {host}: {', '.join(dict.fromkeys(names))}", width)
    ]
    return [*lines, ""] if lines else []


def _wrap_line(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def _table_lines(rows: Sequence[Finding], width: int) -> list[str]:
    """Return findings as the lines of a table, with a heading and an empty line between hosts."""
    short = [(row.host, row.check, row.verdict.upper() if row.verdict == FAILURE else row.verdict) for row in rows]
    sizes = [min(max(len(cells[column]) for cells in (*short, _HEAD)), _NAME) for column in range(3)]
    rest = max(width - sum(sizes) - 4 * 2, 30)
    seen = rest * 11 // 20
    columns = [*sizes, seen, rest - seen]
    lines = [*wrap_row(_HEAD, columns), "  ".join("-" * size for size in columns)]
    before = ""
    for row, cells in zip(rows, short):
        if before and before != row.host:
            lines.append("")
        lines += wrap_row((cells[0] if before != row.host else "", *cells[1:], row.seen, row.todo), columns)
        before = row.host
    return lines
