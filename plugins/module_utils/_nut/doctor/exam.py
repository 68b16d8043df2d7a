# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the checks of a host share: the observed state, the expected state, and the making of findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from ..base.hostnames import join_host
from ..base.systemd import SERVER
from ..base.text import printable
from ..conf.feeds import read_monitored_feeds
from ..conf.files import NutFiles
from ..conf.fit import fit_files
from ..deploy import actions
from .findings import FAILURE, NOTE, OK, UNKNOWN, WARNING, Finding
from .journal import is_from_systemd
from .observe import HostObservation, UpsdAnswer

DAY = 86400.0
DEPLOY = "make ups tags=ups limit={host}"
TROUBLES = 6
"""Problems from the journal that one finding lists."""


@dataclass(frozen=True)
class ExpectedClient:
    """A secondary, according to the inventory."""

    name: str
    address: str
    ups: str
    # how it reaches the primary's upsd, by default as the primary itself
    primary_address: str = "localhost"
    primary_port: int = 3493
    managed: bool = True  # whether Ansible logs in to it

    @property
    def system(self) -> str:
        """The UPS as this secondary names it to upsc."""
        return f"{self.ups}@{join_host(self.primary_address, self.primary_port)}"


@dataclass(frozen=True)
class ExpectedTimes:
    """How long the primary of a secondary gives it, according to the inventory. Seconds."""

    primary: str
    shutdown_time: float
    shutdown_limit: float


@dataclass(frozen=True)
class Expected:
    """What the inventory says of a host."""

    name: str  # in the inventory
    primary: bool
    files: Mapping[str, str] = field(default_factory=dict)  # NUT's files: name -> text
    # our programs that should be installed, with their files
    kits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # path of a program -> SHA-256 of the one that would be installed
    digests: Mapping[str, str] = field(default_factory=dict)
    clients: tuple[ExpectedClient, ...] = ()
    tls: bool = False
    times: ExpectedTimes | None = None  # of a secondary, None if they are not known
    plan: Mapping[str, Any] | None = None  # result of the module shutdown_plan, None if it did not run


Findings = Iterator[Finding]


class Exam:
    """The examination of one host: its observed state beside what the inventory expects. Makes findings about it."""

    def __init__(self, seen: HostObservation, expected: Expected) -> None:
        self.seen, self.expected, self.host = seen, expected, expected.name
        self.files = NutFiles({name: file.text for name, file in seen.files.items()})
        self.wanted = NutFiles(fit_files(expected.files, seen.release).files if seen.release else expected.files)
        self.sections = self.files.ups_conf.sections
        self.upses = {state.name.lower(): state for state in self.served.report.upses} if self.served else {}
        minsupplies = self.files.directive("upsmon.conf", "MINSUPPLIES")
        self.feeds = read_monitored_feeds(self.files.monitors, minsupplies, self.sections if expected.primary else ())

    @property
    def limit(self) -> str:
        """Return the hosts to which a run is limited that deploys this one: a secondary needs its primary, which must know its login."""
        return f"{self.expected.times.primary},{self.host}" if self.expected.times else self.host

    @property
    def is_taken_away(self) -> bool:
        """Return whether a run with state absent has emptied NUT's files on this host."""
        return actions.is_emptied(self.nut_file_text("nut.conf"))

    @property
    def served(self) -> UpsdAnswer | None:
        """The answer of this host's upsd, None if it did not answer."""
        return self.seen.served if isinstance(self.seen.served, UpsdAnswer) else None

    def find_secondaries(self, ups: str) -> tuple[str, ...]:
        """Return the names of the secondaries that a UPS powers, according to the inventory."""
        return tuple(client.name for client in self.expected.clients if client.ups.lower() == ups.lower())

    def judge_ups(self, ups: str) -> str:
        """Return the verdict for a UPS that does not work: a warning if no machine would go down because of it, else a failure."""
        powers_something = self.feeds.is_powered_by(ups) or self.find_secondaries(ups) or not self.feeds.power
        return FAILURE if powers_something else WARNING

    def describe_powered(self, ups: str) -> str:
        """Return what a UPS powers, as words that follow its name."""
        return self.feeds.describe_powered(ups, self.find_secondaries(ups))

    def nut_file_text(self, name: str) -> str:
        """Return the text of one of NUT's files, "" if it does not exist."""
        return self.files.get(name, "")

    def make_finding(
        self, check: str, verdict: str, message: str, todo: str = "", host: str = "", *, about: Iterable[str] = ()
    ) -> Finding:
        """Return a finding, about this host unless another is named. about: as in Finding."""
        todo = todo.format(host=self.limit) if todo == DEPLOY else todo
        return Finding(check, host or self.host, verdict, message, todo, tuple(about))

    def fail(self, check: str, message: str, todo: str = "", host: str = "", *, about: Iterable[str] = ()) -> Finding:
        """Return a failure."""
        return self.make_finding(check, FAILURE, message, todo, host, about=about)

    def warn(self, check: str, message: str, todo: str = "", host: str = "", *, about: Iterable[str] = ()) -> Finding:
        """Return a warning."""
        return self.make_finding(check, WARNING, message, todo, host, about=about)

    def note(self, check: str, message: str, todo: str, host: str = "") -> Finding:
        """Return a note: something to do some time. What needs no action is ok."""
        return self.make_finding(check, NOTE, message, todo, host)

    def unknown(
        self, check: str, message: str, todo: str = "", host: str = "", *, about: Iterable[str] = ()
    ) -> Finding:
        """Return a finding that something could not be determined."""
        return self.make_finding(check, UNKNOWN, message, todo, host, about=about)

    def ok(self, check: str, message: str, host: str = "") -> Finding:
        """Return a finding that needs no action."""
        return self.make_finding(check, OK, message, "", host)

    def report_unseen(self, check: str, part: str) -> Findings:
        """Yield why a part of the host could not be observed; nothing if it was."""
        if part in self.seen.troubles:
            yield self.unknown(check, f"could not be checked: {printable(self.seen.troubles[part])}")

    def last_words(self, unit: str) -> str:
        """Return the unit's last log line, in brackets and with a leading blank; "" if there is none."""
        lines = [entry.words for entry in self.seen.journal if entry.unit == unit and not is_from_systemd(entry.words)]
        return f" (last log line: {printable(lines[-1], 120)})" if lines else ""


def restart_on_mains(unit: str) -> str:
    """Return the remedy "restart a unit", at a time at which that shuts nothing down."""
    return f"while on mains: systemctl restart {unit}"


def name_unit(unit: str, host: str) -> str:
    """Return a unit in Finding.about. Only upsd's is the same for all machines on its UPSes."""
    return unit if unit == SERVER else f"{unit} on {host}"


MODE = "MODE"
"""In Finding.about: a unit that runs only if MODE in nut.conf is right."""


PRIMARY, BOTH = "P", "P L"


@dataclass(frozen=True)
class HostCheck:
    """A check of a host."""

    names: tuple[str, ...]  # of its findings, as docs/doctor.md lists them; the first is the check's own
    where: str  # PRIMARY or BOTH
    examine: Callable[[Exam], Findings]


class Registry(list[HostCheck]):
    """The checks of one subject, in order. Used as a decorator that registers a check."""

    def __call__(
        self, *names: str, where: str = BOTH
    ) -> Callable[[Callable[[Exam], Findings]], Callable[[Exam], Findings]]:
        """Return a decorator that registers a check under the names of its findings."""

        def register(run: Callable[[Exam], Findings]) -> Callable[[Exam], Findings]:
            self.append(HostCheck(names, where, run))
            return run

        return register
