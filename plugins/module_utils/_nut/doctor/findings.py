# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What checks find, in order, as a table for people, and as data for machines. checks_*.py make them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..base.table import wrap_row
from ..base.text import as_text, printable

OK, NOTE, UNKNOWN, WARNING, FAILURE = "ok", "note", "unknown", "warning", "failure"
VERDICTS = (FAILURE, WARNING, UNKNOWN, NOTE, OK)
"""The worst first."""

CODES = {OK: 0, NOTE: 0, UNKNOWN: 1, WARNING: 1, FAILURE: 2}
"""The exit code by the worst verdict."""

FORMAT = 1
"""Of the report for machines; see docs/doctor.md."""

_WIDTH = 120
_MOST = 2000
_FINDINGS = 5000
_NAME = 20
"""Columns that a name may take; a longer one is wrapped."""


@dataclass(frozen=True)
class Finding:
    """What a check found. seen: what was seen, in words. todo: what to do, "" where there is nothing to do.

    Much of that is what others have said. Here it becomes fit for a terminal, whoever makes a finding, and from whatever.
    """

    check: str
    host: str
    verdict: str
    seen: str
    todo: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            # a frozen one can't be set in another way
            object.__setattr__(self, field.name, printable(as_text(getattr(self, field.name)), _MOST))


@dataclass(frozen=True)
class DoctorReport:
    """All findings: hosts in the order of the inventory, of each the worst first."""

    findings: tuple[Finding, ...]

    @property
    def worst_verdict(self) -> str:
        """The worst verdict."""
        found = {one.verdict for one in self.findings}
        return next((verdict for verdict in VERDICTS if verdict in found), OK)

    @property
    def exit_code(self) -> int:
        """The exit code."""
        return CODES[self.worst_verdict]

    @property
    def summary(self) -> str:
        """Count them, in one line."""
        count = {verdict: sum(one.verdict == verdict for one in self.findings) for verdict in VERDICTS}
        hosts = len({one.host for one in self.findings})
        names = {FAILURE: "failure", WARNING: "warning", UNKNOWN: "unknown", NOTE: "note"}
        said = [
            f"{count[one]} {word}{'s' if count[one] != 1 and one != UNKNOWN else ''}"
            for one, word in names.items()
            if count[one]
        ]
        return f"{hosts} host{'s' if hosts != 1 else ''}, {len(self.findings)} checks: {', '.join([*said, f'{count[OK]} ok'])}"

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "format": FORMAT,
            "verdict": self.worst_verdict,
            "code": self.exit_code,
            "summary": self.summary,
            "findings": [asdict(one) for one in self.findings],
        }


def from_json(data: Mapping[str, Any]) -> DoctorReport:
    """Read what Report.to_json made. Raises KeyError, TypeError and ValueError for anything else."""
    given = data["findings"]
    if not isinstance(given, list) or len(given) > _FINDINGS:
        raise ValueError(f"it has no list of at most {_FINDINGS} findings")
    found = tuple(Finding(one["check"], one["host"], one["verdict"], one["seen"], one.get("todo", "")) for one in given)
    if not all(one.verdict in VERDICTS for one in found):
        raise ValueError("it has another verdict than there are")
    return DoctorReport(found)


def merge_findings(hosts: Sequence[str], findings: Iterable[Finding]) -> DoctorReport:
    """Put the findings of all hosts in order. What two hosts found of one thing stands there once, by its worse verdict."""
    best: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        best.setdefault((one.host, one.check), []).append(one)
    kept: list[Finding] = []
    for those in best.values():
        bad = [one for one in those if one.verdict != OK]
        if those[0].check == "login":
            # the primary and the machine itself have looked at one thing
            kept.append(min(those, key=lambda one: VERDICTS.index(one.verdict)))
        else:
            kept += dict.fromkeys(bad or those)
    order = {name: number for number, name in enumerate(hosts)}
    kept.sort(key=lambda one: (order.get(one.host, len(order)), VERDICTS.index(one.verdict)))
    return DoctorReport(tuple(kept))


_HEAD = ("HOST", "CHECK", "VERDICT", "SEEN", "TO DO")


def format_table(made: DoctorReport, *, everything: bool = False, width: int = _WIDTH) -> str:
    """Show a report as a table of WIDTH columns.

    Notes stand below it, what several hosts share once; what is ok is only named there. EVERYTHING: each finding has a row.
    """
    rows = [one for one in made.findings if everything or one.verdict not in (OK, NOTE)]
    lines = [*_table_lines(rows, width), ""] if rows else []
    if not everything:
        lines += [*_note_lines(made, width), *_ok_lines(made, width)]
    return "\n".join([*lines, made.summary])


def _note_lines(made: DoctorReport, width: int) -> list[str]:
    notes: dict[tuple[str, str], list[str]] = {}
    for one in made.findings:
        if one.verdict == NOTE:
            words = one.seen + (f" -> {one.todo}" if one.todo else "")
            notes.setdefault((one.check, words), []).append(one.host)
    lines = [
        line
        for (check, words), hosts in notes.items()
        for line in _wrap_line(f"note, {', '.join(hosts)}, {check}: {words}", width)
    ]
    return [*lines, ""] if lines else []


def _ok_lines(made: DoctorReport, width: int) -> list[str]:
    good: dict[str, list[str]] = {}
    for one in made.findings:
        if one.verdict == OK:
            good.setdefault(one.host, []).append(one.check)
    lines = [
        line
        for host, names in good.items()
        for line in _wrap_line(f"ok, {host}: {', '.join(dict.fromkeys(names))}", width)
    ]
    return [*lines, ""] if lines else []


def _wrap_line(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def _table_lines(rows: Sequence[Finding], width: int) -> list[str]:
    short = [(one.host, one.check, one.verdict.upper() if one.verdict == FAILURE else one.verdict) for one in rows]
    sizes = [min(max(len(one[column]) for one in (*short, _HEAD)), _NAME) for column in range(3)]
    rest = max(width - sum(sizes) - 4 * 2, 30)
    seen = rest * 11 // 20
    columns = [*sizes, seen, rest - seen]
    lines = [*wrap_row(_HEAD, columns), "  ".join("-" * size for size in columns)]
    before = ""
    for one, cells in zip(rows, short):
        if before and before != one.host:
            lines.append("")
        lines += wrap_row((cells[0] if before != one.host else "", *cells[1:], one.seen, one.todo), columns)
        before = one.host
    return lines
