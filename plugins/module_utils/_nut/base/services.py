# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manager of a host's services: systemd, or in our container the supervisor of container/supervisor.py.

Hotplug uses ServiceManager only. It names services by the units of NUT's packages and describes them in systemd's words, whichever
manager runs them.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from . import files, jsontext, records
from . import systemd as base_systemd
from .paths import UNITS
from .systemd import ABSENT, JournalEntry, Run, Unit, UnitError, is_driver
from .text import one_line, printable

SOCKET = "homelab-nut-supervisor.sock"
"""The supervisor's socket, in /run."""
ANSWER_SECONDS = 30.0  # for the supervisor's answer; it kills what does not stop after a few seconds
ANSWER_BYTES = 4 << 20
_CHECKSUM = re.compile(r"(SECTION_CHECKSUM(?:_GLOBAL)?=)[0-9a-f]{32}")


class ServiceManager(Protocol):
    """Shows, starts and stops services. Each method raises UnitError if the manager can't be asked, or refuses."""

    @property
    def name(self) -> str:
        """Return what messages call it."""

    def show_units(self, names: Sequence[str], booted: float = 0.0) -> dict[str, Unit]:
        """Return the state of units. Every requested name is in the result. booted: see systemd.show_units()."""

    def change_unit(self, verb: str, unit: str, *, wait: bool = True) -> None:
        """Start, stop, restart or reload a unit. Starting the enumerator makes the drivers' units match ups.conf.

        wait: until a driver has started.
        """

    def record_checksums(self, checksums: Mapping[str, str]) -> None:
        """Note that drivers already run with their sections, so that the enumerator leaves them alone.

        checksums: of sections (enumerator.section_checksum); "" is the part before the first one.
        """

    def read_log(self, units: Sequence[str], since: float, lines: int) -> list[JournalEntry]:
        """Return the last lines that units logged. since: seconds since 1970."""


@dataclass(frozen=True)
class Systemd:
    """systemd, by systemctl and journalctl."""

    runner: Run
    unit_dir: Path = Path("/", UNITS)
    name: str = "systemd"

    def show_units(self, names: Sequence[str], booted: float = 0.0) -> dict[str, Unit]:
        """Return the state of units."""
        return base_systemd.show_units(names, self.runner, booted)

    def change_unit(self, verb: str, unit: str, *, wait: bool = True) -> None:
        """Run a command of systemctl for a unit."""
        begins = verb in ("restart", "start")
        if begins:
            # systemd refuses to start a unit that has failed too often until its counter is reset
            self.runner(["systemctl", "reset-failed", unit])
        late = " --no-block" if begins and not wait and is_driver(unit) else ""
        base_systemd.run_systemctl(verb + late, unit, runner=self.runner)

    def record_checksums(self, checksums: Mapping[str, str]) -> None:
        """Update the checksums that the enumerator keeps in drop-ins, where they differ."""
        texts = {}
        for name, checksum in checksums.items():
            path = base_systemd.checksum_path(name, self.unit_dir)
            try:
                seen = path.read_text(encoding="ascii")
            except (OSError, ValueError):
                continue
            now = _CHECKSUM.sub(rf"\g<1>{checksum}", seen)
            if now != seen:
                texts[path] = now
        if not texts:
            return
        try:
            files.replace_files(texts, 0o644)
        except files.WriteError as error:
            raise UnitError(str(error)) from None
        finally:
            self.runner(["systemctl", "daemon-reload"])

    def read_log(self, units: Sequence[str], since: float, lines: int) -> list[JournalEntry]:
        """Return entries of the journal, also systemd's own about the units."""
        matches = [f"{word}={unit}" for unit in units for word in ("_SYSTEMD_UNIT", "UNIT")]
        joined = [word for match in matches for word in (match, "+")][:-1]
        options = [f"--lines={lines}", f"--since=@{since:.0f}", *joined]
        return list(base_systemd.read_journal(options, self.runner))


@dataclass(frozen=True)
class Supervised:
    """The supervisor of our container, by its socket: a line of JSON each way."""

    path: Path
    name: str = "the supervisor"

    def show_units(self, names: Sequence[str], booted: float = 0.0) -> dict[str, Unit]:
        """Return the state of units."""
        shown = self._ask("show", units=list(names))
        return {name: _read_unit(shown, name, booted) for name in names}

    def change_unit(self, verb: str, unit: str, *, wait: bool = True) -> None:
        """Have the supervisor start, stop, restart or reload a unit. It never waits for a driver to find its UPS."""
        self._ask("change", verb=verb, unit=unit)

    def record_checksums(self, checksums: Mapping[str, str]) -> None:
        """Do nothing: the supervisor starts and stops drivers by name, and restarts none because of its section."""

    def read_log(self, units: Sequence[str], since: float, lines: int) -> list[JournalEntry]:
        """Return what the supervisor has kept of the units' output."""
        logged = self._ask("log", units=list(units), since=since, lines=lines)
        try:
            return [records.build_record(JournalEntry, entry, "$") for entry in logged]
        except (ValueError, TypeError) as error:
            raise UnitError(f"the supervisor's answer is not valid: {printable(str(error))}") from None

    def _ask(self, command: str, **words: Any) -> Any:
        """Send a command and return the answer. Raise UnitError."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(ANSWER_SECONDS)
                connection.connect(str(self.path))
                connection.sendall(json.dumps({"command": command, **words}).encode() + b"\n")
                with connection.makefile("rb") as stream:
                    answer = jsontext.parse_json(stream.readline(ANSWER_BYTES))
        except (OSError, ValueError) as error:
            raise UnitError(f"the supervisor does not answer at {self.path}: {error}") from None
        if not isinstance(answer, dict) or "error" in answer:
            said = str(answer.get("error")) if isinstance(answer, dict) else "its answer is not valid"
            raise UnitError(f"the supervisor refuses to {command}: {one_line(said)}")
        return answer.get("result")


def _read_unit(shown: object, name: str, booted: float) -> Unit:
    """Return a unit of the supervisor's answer. Raise UnitError."""
    data = shown.get(name) if isinstance(shown, dict) else None
    if data is None:
        return ABSENT
    try:
        unit = records.build_record(Unit, data, name)
    except ValueError as error:
        raise UnitError(f"the supervisor's answer is not valid: {printable(str(error))}") from None
    return Unit(**{**vars(unit), "since": booted + unit.since if unit.since else 0.0})


def find_manager(run_dir: Path, runner: Run, unit_dir: Path = Path("/", UNITS)) -> ServiceManager:
    """Return the manager of this host's services."""
    path = run_dir / SOCKET
    return Supervised(path) if path.is_socket() else Systemd(runner, unit_dir)
