# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The findings of checks_*.py: as a table for people, and as JSON for programs. merge.py puts them in order."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..base.commands import spell_commands
from ..base.table import wrap_row
from ..base.text import as_text, printable

OK, NOTE, UNKNOWN, WARNING, FAILURE = "ok", "note", "unknown", "warning", "failure"
VERDICTS = (FAILURE, WARNING, UNKNOWN, NOTE, OK)
"""Worst first."""

CODES = {OK: 0, NOTE: 0, UNKNOWN: 1, WARNING: 1, FAILURE: 2}
"""The exit code for the worst verdict."""

FORMAT = 1
"""Format of the JSON report; see docs/doctor.md."""

TAKEN_AWAY = "NUT was taken away here on purpose (state absent)"
"""What is seen of a host whose files a run with state absent has emptied, although the inventory wants NUT there."""

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
    about: tuple[str, ...] = ()  # UPSes, units, files or machines that it is about; (): the whole host
    because: str = ""  # the finding that this only follows from, as "host: check"; see merge.py

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # The only way to set a field of a frozen dataclass.
            if field.name == "about":
                object.__setattr__(self, field.name, tuple(printable(as_text(word), _MOST) for word in value))
            else:
                object.__setattr__(self, field.name, printable(spell_commands(as_text(value)), _MOST))


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
        """The number of findings by verdict, in one line. What only follows from another finding is counted apart."""
        own = [finding for finding in self.findings if not finding.because]
        count = {verdict: sum(finding.verdict == verdict for finding in own) for verdict in VERDICTS}
        hosts = len({finding.host for finding in self.findings})
        names = {FAILURE: "failure", WARNING: "warning", UNKNOWN: "unknown", NOTE: "note"}
        counted = [
            f"{count[verdict]} {name}{'s' if count[verdict] != 1 and verdict != UNKNOWN else ''}"
            for verdict, name in names.items()
            if count[verdict]
        ]
        if len(own) < len(self.findings):
            counted.append(f"{len(self.findings) - len(own)} more because of {'it' if _is_single(count) else 'them'}")
        checks = len(self.findings)
        return (
            f"{hosts} host{'s' if hosts != 1 else ''}, {checks} check{'s' if checks != 1 else ''}: "
            f"{', '.join([*counted, f'{count[OK]} ok'])}"
        )

    @property
    def last_words(self) -> str:
        """What the exit code of tools/doctor means, in words; "" if it is 0."""
        if self.exit_code == CODES[OK]:
            return ""
        meaning = (
            "something is broken, or would go wrong in an outage"
            if self.exit_code == CODES[FAILURE]
            else "nothing is broken, but the rows above need a look"
        )
        return f"Exit code {self.exit_code}: {meaning}. (make reports any exit code but 0 as an error; the checks themselves have worked.)"

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
        Finding(
            item["check"],
            item["host"],
            item["verdict"],
            item["seen"],
            item.get("todo", ""),
            tuple(item.get("about", ())),
            item.get("because", ""),
        )
        for item in given
    )
    if not all(finding.verdict in VERDICTS for finding in findings):
        raise ValueError("a finding has an unknown verdict")
    return DoctorReport(findings)


_HEAD = ("HOST", "CHECK", "VERDICT", "SEEN", "TO DO")


def format_table(report: DoctorReport, *, everything: bool = False, width: int = _WIDTH) -> str:
    """Return a report as a table of WIDTH columns, the worst first, with the notes below it.

    everything: give each finding a row, by hosts, also notes, what is ok, and what only follows from another finding.
    """
    if everything:
        rows = [replace(finding, seen=finding.seen + _spell_cause(finding)) for finding in report.findings]
    else:
        own = [finding for finding in report.findings if not finding.because and finding.verdict not in (OK, NOTE)]
        own.sort(key=lambda finding: VERDICTS.index(finding.verdict))
        rows = [replace(finding, seen=finding.seen + _spell_consequences(finding, report)) for finding in own]
    lines = [*_table_lines(rows, width), ""] if rows else []
    if not everything:
        lines += _note_lines(report, width)
    return "\n".join([*lines, report.summary])


def name_finding(finding: Finding) -> str:
    """Return how a finding is named as the cause of another."""
    return f"{finding.host}: {finding.check}"


def is_about_same(finding: Finding, other: Finding) -> bool:
    """Return whether two findings may be about the same thing."""
    return not finding.about or not other.about or bool({*finding.about} & {*other.about})


def _spell_cause(finding: Finding) -> str:
    return f" (because of {finding.because})" if finding.because else ""


def _spell_consequences(cause: Finding, report: DoctorReport) -> str:
    """Return which other checks a finding makes fail, as the end of a message; "" if there are none."""
    name = name_finding(cause)
    others = [finding for finding in report.findings if finding.because == name]
    named = [
        other.check if other.host == cause.host else f"{other.check} of {other.host}"
        for other in others
        if other.verdict != NOTE
    ]
    return f" (so also: {', '.join(dict.fromkeys(named))})" if named else ""


def _note_lines(report: DoctorReport, width: int) -> list[str]:
    """Return the notes as lines. Hosts with the same note share one."""
    notes: dict[tuple[str, str], list[str]] = {}
    for finding in report.findings:
        if finding.verdict == NOTE and not finding.because:
            text = finding.seen + (f" -> {finding.todo}" if finding.todo else "")
            notes.setdefault((finding.check, text), []).append(finding.host)
    lines = [
        line
        for (check, text), hosts in notes.items()
        for line in _wrap_line(f"note, {', '.join(hosts)}, {check}: {text}", width)
    ]
    return [*lines, ""] if lines else []


def _is_single(count: Mapping[str, int]) -> bool:
    """Return whether there is only a single finding that needs attention."""
    return sum(count[verdict] for verdict in VERDICTS if verdict != OK) == 1


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
