# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's systemd units: what they are, how they stand, and the few things done to them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from . import jsontext
from .paths import UNITS
from .text import one_line, printable_lines

SERVER = "nut-server.service"
MONITOR = "nut-monitor.service"
ENUMERATOR = "nut-driver-enumerator.service"
WATCHER = "nut-driver-enumerator.path"
DRIVERS = "nut-driver.target"
ALL = "nut.target"
DRIVER_TEMPLATE = "nut-driver@.service"
GATE = "nut-shutdown.service"
STAGES = "nut-stages.service"
WATCH = "nut-watch.service"
HOTPLUG = "nut-hotplug.service"
HOTPLUG_TIMER = "nut-hotplug.timer"
HARDENING = "homelab-nut-hardening.conf"
"""The drop-in with a unit's sandbox."""
WORDS = 500  # characters of a line that a unit logged

# Runs a program without a shell and returns its exit code and what it said on both streams. One that is missing is 127.
Run = Callable[[Sequence[str]], "tuple[int, str]"]


class UnitError(Exception):
    """systemd refused; the message is systemctl's own, with the unit."""


@dataclass(frozen=True)
class Unit:
    """How a unit stands, in systemd's words."""

    active: str  # "" where the unit is unknown
    enabled: str
    pid: int  # of its main process; 0 if none runs
    sub: str = ""
    load: str = "loaded"
    result: str = ""  # why it ended, if it did
    since: float = 0.0  # when that changed last, by a reload too; 0 if it never did. See show()
    outdated: bool = False  # whether systemd knows an older one than its files describe

    @property
    def runs(self) -> bool:
        """Say whether it serves, or is about to."""
        return self.active in ("active", "activating", "reloading")


ABSENT = Unit("", "", 0, load="not-found")


def is_main_process(unit: str, environment: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Return whether systemd itself started this very process, for this unit.

    INVOCATION_ID would not tell: whatever a service or a session of a user starts inherits it. The kernel's word for where a
    process belongs can't be inherited from another unit, and SYSTEMD_EXEC_PID (from systemd 248 on) is true of one process.
    """
    pid = environment.get("SYSTEMD_EXEC_PID")
    if pid is not None and pid != str(os.getpid()):
        return False
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        # a shutdown must not be taken for a try because /proc is gone
        return pid is not None
    # of version 1 a line for each hierarchy, of version 2 one line
    return any(group.rpartition("/")[2] == unit for group in groups)


def driver_unit(ups: str) -> str:
    """Name the unit that runs a UPS's driver."""
    return f"nut-driver@{ups}.service"


def is_driver(unit: str) -> bool:
    """Say whether a unit runs a UPS's driver."""
    return unit.startswith("nut-driver@") and unit.endswith(".service")


def drivers_at_boot(root: Path = Path("/", UNITS)) -> tuple[str, ...]:
    """Name the units of drivers that start at boot: the enumerator enables one a section, and people do by hand."""
    folder = root / "nut-driver.target.wants"
    return tuple(sorted(path.name for path in folder.glob("nut-driver@*.service"))) if folder.is_dir() else ()


CHECKSUM = "nut-driver-enumerator-generated-checksum.conf"
"""The enumerator's note of what it has seen of a section, in the directory of drop-ins of the driver's unit."""


def checksum_path(ups: str, root: Path = Path("/", UNITS)) -> Path:
    """Name the file with the enumerator's checksum of a section; "" is the part before the sections."""
    return root / f"{driver_unit(ups)}.d" / CHECKSUM


def show_units(names: Sequence[str], runner: Run, booted: float = 0.0) -> dict[str, Unit]:
    """Ask systemd how units stand, all in one call. Every name that was asked for is in the answer. Raises UnitError.

    booted: when the monotonic clock began; Unit.since counts from where that does.
    """
    properties = "--property=Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,Result,StateChangeTimestampMonotonic,NeedDaemonReload"
    code, said = runner(["systemctl", "show", properties, "--", *names])
    if code:
        raise UnitError(f"systemctl show: {one_line(said)}")
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in said.split("\n\n")]
    # systemd answers in the order of the question; an alias answers with another Id
    return {name: _parse_unit(block, booted) for name, block in zip(names, [block for block in blocks if block])}


def _parse_unit(block: Mapping[str, str], booted: float) -> Unit:
    # one whose files are gone may still run, or be known as failed
    if block.get("LoadState") == ABSENT.load and block.get("ActiveState") == "inactive":
        return ABSENT
    changed = int(block.get("StateChangeTimestampMonotonic") or 0)
    return Unit(
        block.get("ActiveState", ""),
        block.get("UnitFileState", ""),
        int(block.get("MainPID") or 0),
        block.get("SubState", ""),
        block.get("LoadState", ""),
        block.get("Result", ""),
        booted + changed / 1e6 if changed else 0.0,
        block.get("NeedDaemonReload") == "yes",
    )


def run_systemctl(verb: str, *names: str, runner: Run) -> None:
    """Run `systemctl VERB NAMES` and wait for it. Raises UnitError."""
    code, said = runner(["systemctl", *verb.split(), "--", *names])
    if code:
        raise UnitError(f"systemctl {verb} {' '.join(names)} failed: {one_line(said)}")


# how systemd says that it could not make the surroundings that a unit asks for: the exit codes of what it started
SANDBOX_CODES = {
    216: "216/GROUP",
    217: "217/USER",
    218: "218/CAPABILITIES",
    225: "225/NETWORK",
    226: "226/NAMESPACE",
    227: "227/NO_NEW_PRIVILEGES",
    228: "228/SECCOMP",
}


def sandbox_failure(name: str, runner: Run) -> str:
    """Return a line about a unit that could not be started in its sandbox, and what to do; "" if that is not its trouble."""
    # of a driver, which forks, there is no main process yet
    code, said = runner(["systemctl", "show", "--property=ExecMainStatus,ExecStart", "--", name])
    found = [] if code else re.findall(r"(?:ExecMainStatus|status)=(\d+)", said)
    why = next((SANDBOX_CODES[int(status)] for status in found if int(status) in SANDBOX_CODES), None)
    if why is None:
        return ""
    kind = DRIVER_TEMPLATE if is_driver(name) else name
    return (
        f"systemd can't start {name} in its sandbox ({why}). Either remove /etc/systemd/system/{kind}.d/{HARDENING} "
        "(nut_server_hardening=false) or fix the cause that its log shows; a container needs nesting\n"
    )


def last_log_lines(name: str, runner: Run, lines: int = 6) -> str:
    """Return what a unit logged last, in printable lines, for an error message. Empty if the journal can't be read."""
    code, said = runner(["journalctl", f"--unit={name}", f"--lines={lines}", "--output=cat", "--no-pager"])
    return "" if code else "\n".join(printable_lines(said.strip(), WORDS))


@dataclass(frozen=True)
class JournalEntry:
    """A line of the journal."""

    at: float  # seconds since 1970
    unit: str  # whose process said it, or of which systemd spoke
    words: str
    kind: str = ""  # the id of the message, if it has one (systemd.catalog)


def read_journal(options: Sequence[str], runner: Run) -> Iterator[JournalEntry]:
    """Yield the entries that journalctl finds with these options; those that are none are left out. Raises UnitError."""
    fields = "--output-fields=MESSAGE,MESSAGE_ID,_SYSTEMD_UNIT,UNIT"
    code, said = runner(["journalctl", "--no-pager", "--quiet", "--output=json", fields, *options])
    if code:
        raise UnitError(f"journalctl: {one_line(said)[:200]}")
    for line in said.splitlines():
        with contextlib.suppress(ValueError, LookupError, TypeError):
            yield _parse_entry(jsontext.parse_json(line))


def _parse_entry(data: Mapping[str, Any]) -> JournalEntry:
    """Return an entry of journalctl's JSON. Raises LookupError, TypeError or ValueError if it does not say when it was written."""
    microseconds = data["__REALTIME_TIMESTAMP"]
    if not re.fullmatch(r"[0-9]{1,18}", microseconds):
        raise ValueError("the time of an entry of the journal is none")
    words = data.get("MESSAGE")
    if isinstance(words, list):  # bytes that are no UTF-8
        words = bytes(number & 255 for number in words if isinstance(number, int)).decode("utf-8", "replace")
    return JournalEntry(
        int(microseconds) / 1e6,
        str(data.get("UNIT") or data.get("_SYSTEMD_UNIT") or ""),
        words.strip() if isinstance(words, str) else "",
        str(data.get("MESSAGE_ID", "")),
    )
