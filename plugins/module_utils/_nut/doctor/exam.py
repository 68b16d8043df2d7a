# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the checks of a host have in common: what was seen, what is expected, and how a finding is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from ..base.text import printable
from ..conf.files import NutFiles
from ..conf.fit import fit_files
from .findings import FAILURE, NOTE, OK, UNKNOWN, WARNING, Finding
from .journal import is_from_systemd
from .observe import Observation, UpsdAnswer

DAY = 86400.0
DEPLOY = "make pve tags=ups limit={host}"
TROUBLES = 6
"""Of the journal, in one finding."""


@dataclass(frozen=True)
class ExpectedClient:
    """A secondary as the inventory has it."""

    name: str
    address: str
    ups: str


@dataclass(frozen=True)
class Expected:
    """What the inventory says of a host. name: its name there.

    files: NUT's files, name -> text. kits: our programs that ought to be there, with their files. digests: path of a program ->
    SHA-256 of what would be installed. plan: what the module shutdown_plan returned; None if it was not asked.
    """

    name: str
    primary: bool
    files: Mapping[str, str] = field(default_factory=dict)
    kits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    clients: tuple[ExpectedClient, ...] = ()
    tls: bool = False
    plan: Mapping[str, Any] | None = None


Findings = Iterator[Finding]


class Exam:
    """A host as it is, beside what the inventory says of it."""

    def __init__(self, seen: Observation, expected: Expected) -> None:
        self.seen, self.expected, self.host = seen, expected, expected.name
        self.files = NutFiles({name: file.text for name, file in seen.files.items()})
        self.wanted = NutFiles(fit_files(expected.files, seen.release).files if seen.release else expected.files)
        self.sections = self.files.ups_conf.sections
        self.upses = {state.name.lower(): state for state in self.served.report.upses} if self.served else {}

    @property
    def served(self) -> UpsdAnswer | None:
        """What upsd said, None if it did not answer."""
        return self.seen.served if isinstance(self.seen.served, UpsdAnswer) else None

    def nut_file_text(self, name: str) -> str:
        """Return the text of one of NUT's files, "" if it is not there."""
        return self.files.get(name, "")

    def make_finding(self, check: str, verdict: str, words: str, todo: str = "", host: str = "") -> Finding:
        """Return a finding, of this host unless another is named."""
        todo = todo.format(host=self.host) if todo == DEPLOY else todo
        return Finding(check, host or self.host, verdict, words, todo)

    def fail(self, check: str, words: str, todo: str = "", host: str = "") -> Finding:
        """Return a failure."""
        return self.make_finding(check, FAILURE, words, todo, host)

    def warn(self, check: str, words: str, todo: str = "", host: str = "") -> Finding:
        """Return a warning."""
        return self.make_finding(check, WARNING, words, todo, host)

    def note(self, check: str, words: str, todo: str = "", host: str = "") -> Finding:
        """Return a note."""
        return self.make_finding(check, NOTE, words, todo, host)

    def unknown(self, check: str, words: str, todo: str = "", host: str = "") -> Finding:
        """Return that something can't be told."""
        return self.make_finding(check, UNKNOWN, words, todo, host)

    def ok(self, check: str, words: str, todo: str = "", host: str = "") -> Finding:
        """Return that all is well."""
        return self.make_finding(check, OK, words, todo, host)

    def report_unseen(self, check: str, part: str) -> Findings:
        """Yield why a part could not be looked at; nothing if it could."""
        if part in self.seen.troubles:
            yield self.unknown(check, f"could not be looked at: {printable(self.seen.troubles[part])}")

    def last_words(self, unit: str) -> str:
        """Return what a unit said last about itself, in brackets."""
        said = [entry.words for entry in self.seen.journal if entry.unit == unit and not is_from_systemd(entry.words)]
        return f" (it said last: {printable(said[-1], 120)})" if said else ""


PRIMARY, BOTH = "P", "P L"


@dataclass(frozen=True)
class HostCheck:
    """A check: the names of its findings, the first of which is its own, as docs/doctor.md has them; and where it looks."""

    names: tuple[str, ...]
    where: str
    examine: Callable[[Exam], Findings]


class Registry(list[HostCheck]):
    """The checks of a subject, in their order."""

    def __call__(
        self, *names: str, on: str = BOTH
    ) -> Callable[[Callable[[Exam], Findings]], Callable[[Exam], Findings]]:
        """Register a check by the names of its findings."""

        def register(run: Callable[[Exam], Findings]) -> Callable[[Exam], Findings]:
            self.append(HostCheck(names, on, run))
            return run

        return register
