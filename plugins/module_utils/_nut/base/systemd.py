# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's systemd units: their names, their state, and the few commands run on them."""

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
NOTIFY = "nut-notify.service"
HOTPLUG = "nut-hotplug.service"
HOTPLUG_TIMER = "nut-hotplug.timer"
HARDENING = "homelab-nut-hardening.conf"
"""The drop-in with a unit's sandbox."""
WORDS = 500  # characters of a line that a unit logged
_CONTAINER_NAME = 40

# Runs a program without a shell; returns its exit code (127 if it is missing) and what it printed, stdout and stderr.
Run = Callable[[Sequence[str]], "tuple[int, str]"]


class UnitError(Exception):
    """systemd refused; the message is systemctl's own, with the unit."""


@dataclass(frozen=True)
class Unit:
    """The state of a unit, in systemd's words."""

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
        """Return whether the unit runs or is about to."""
        return self.active in ("active", "activating", "reloading")


ABSENT = Unit("", "", 0, load="not-found")


def is_main_process(unit: str, environment: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Return whether systemd started this very process for this unit.

    INVOCATION_ID does not prove it: every child of a service or a user session inherits it. The cgroup is given by the kernel and
    can't come from another unit, and SYSTEMD_EXEC_PID (systemd 248 and newer) holds for one process only.
    """
    pid = environment.get("SYSTEMD_EXEC_PID")
    if pid is not None and pid != str(os.getpid()):
        return False
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        # a real shutdown must not be mistaken for a trial run because /proc is gone
        return pid is not None
    # cgroup v1 has a line per hierarchy, v2 a single line
    return any(group.rpartition("/")[2] == unit for group in groups)


def read_container(root: Path = Path("/")) -> str:
    """Return what kind of container systemd says that this host is, such as "lxc"; "" if it is none, or unknown."""
    try:
        return (root / "run/systemd/container").read_text(encoding="utf-8", errors="replace").strip()[:_CONTAINER_NAME]
    except OSError:
        return ""


def driver_unit(ups: str) -> str:
    """Return the name of the unit that runs a UPS's driver."""
    return f"nut-driver@{ups}.service"


def is_driver(unit: str) -> bool:
    """Return whether a unit runs a UPS's driver."""
    return unit.startswith("nut-driver@") and unit.endswith(".service")


def ups_of_driver(unit: str) -> str:
    """Return the UPS whose driver a unit runs: the reverse of driver_unit()."""
    return unit.partition("@")[2].removesuffix(".service")


def drivers_at_boot(root: Path = Path("/", UNITS)) -> tuple[str, ...]:
    """Return the driver units enabled at boot, by the enumerator (one per section) or by hand."""
    folder = root / "nut-driver.target.wants"
    return tuple(sorted(path.name for path in folder.glob("nut-driver@*.service"))) if folder.is_dir() else ()


CHECKSUM = "nut-driver-enumerator-generated-checksum.conf"
"""The drop-in of a driver's unit in which the enumerator keeps the checksum of its section."""


def checksum_path(ups: str, root: Path = Path("/", UNITS)) -> Path:
    """Return the path of the enumerator's checksum of a section; "" is the part before the sections."""
    return root / f"{driver_unit(ups)}.d" / CHECKSUM


def show_units(names: Sequence[str], runner: Run, booted: float = 0.0) -> dict[str, Unit]:
    """Return the state of units, asked in one call. Every requested name is in the result. Raise UnitError.

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
    # a unit whose files are gone may still run, or be listed as failed
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


# Exit codes by which systemd reports that it could not even start a unit's program (systemd.exec(5)), and what it could not do.
START_CODES = {
    200: ("CHDIR", "change to its working directory"),
    201: ("NICE", "set its priority"),
    202: ("FDS", "pass files on to it"),
    203: ("EXEC", "execute it"),
    204: ("MEMORY", "get memory"),
    205: ("LIMITS", "set its resource limits"),
    206: ("OOM_ADJUST", "set what happens to it without memory"),
    207: ("SIGNAL_MASK", "set its signal mask"),
    208: ("STDIN", "set up its standard input"),
    209: ("STDOUT", "set up its standard output"),
    210: ("CHROOT", "change to its root directory"),
    211: ("IOPRIO", "set its I/O priority"),
    212: ("TIMERSLACK", "set its timer slack"),
    213: ("SECUREBITS", "set its secure bits"),
    214: ("SETSCHEDULER", "set its scheduler"),
    215: ("CPUAFFINITY", "choose its CPUs"),
    216: ("GROUP", "change to its group"),
    217: ("USER", "change to its user, or set up user namespaces"),
    218: ("CAPABILITIES", "drop its capabilities"),
    219: ("CGROUP", "set up its control group"),
    220: ("SETSID", "start its session"),
    221: ("CONFIRM", "get a confirmation"),
    222: ("STDERR", "set up its standard error"),
    224: ("PAM", "start its PAM session"),
    225: ("NETWORK", "separate its network"),
    226: ("NAMESPACE", "give it a file system of its own"),
    227: ("NO_NEW_PRIVILEGES", "keep it from gaining privileges"),
    228: ("SECCOMP", "filter its system calls"),
    229: ("SELINUX_CONTEXT", "set its SELinux context"),
    230: ("PERSONALITY", "set its execution domain"),
    231: ("APPARMOR_PROFILE", "set its AppArmor profile"),
    232: ("ADDRESS_FAMILIES", "limit its kinds of sockets"),
    233: ("RUNTIME_DIRECTORY", "make its directory below /run"),
    235: ("CHOWN", "change the owner of its socket"),
    236: ("SMACK_PROCESS_LABEL", "set its SMACK label"),
    237: ("KEYRING", "set up its kernel keyring"),
    238: ("STATE_DIRECTORY", "make its directory below /var/lib"),
    239: ("CACHE_DIRECTORY", "make its directory below /var/cache"),
    240: ("LOGS_DIRECTORY", "make its directory below /var/log"),
    241: ("CONFIGURATION_DIRECTORY", "make its directory below /etc"),
    242: ("NUMA_POLICY", "set its NUMA policy"),
    243: ("CREDENTIALS", "set up its credentials"),
    245: ("BPF", "load its BPF programs"),
}
# those by which it reports that it could not set up a unit's sandbox
SANDBOX_CODES = {code: f"{code}/{START_CODES[code][0]}" for code in (216, 217, 218, 225, 226, 227, 228)}


def describe_start_failure(code: int) -> str:
    """Return what systemd could not do before it started a unit's program, with its name for that; "" for any other exit code."""
    if code not in START_CODES:
        return ""
    name, what = START_CODES[code]
    return f"it can't {what} ({code}/{name})"


def sandbox_failure(name: str, runner: Run) -> str:
    """Return a line on why a unit could not start in its sandbox, with the remedy; "" if the sandbox is not the cause."""
    # a driver forks, so it has no main process yet
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
    """Return the last lines that a unit logged, printable, for an error message; "" if the journal can't be read."""
    code, said = runner(["journalctl", f"--unit={name}", f"--lines={lines}", "--output=cat", "--no-pager"])
    return "" if code else "\n".join(printable_lines(said.strip(), WORDS))


@dataclass(frozen=True)
class JournalEntry:
    """A line of the journal."""

    at: float  # seconds since 1970
    unit: str  # the unit that logged it, or that systemd's message is about
    words: str
    kind: str = ""  # the id of the message, if it has one (systemd.catalog)


def read_journal(options: Sequence[str], runner: Run) -> Iterator[JournalEntry]:
    """Yield the entries that journalctl finds with these options; malformed ones are skipped. Raise UnitError."""
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
        raise ValueError("a journal entry has no valid timestamp")
    words = data.get("MESSAGE")
    if isinstance(words, list):  # bytes that are not UTF-8
        words = bytes(number & 255 for number in words if isinstance(number, int)).decode("utf-8", "replace")
    return JournalEntry(
        int(microseconds) / 1e6,
        str(data.get("UNIT") or data.get("_SYSTEMD_UNIT") or ""),
        words.strip() if isinstance(words, str) else "",
        str(data.get("MESSAGE_ID", "")),
    )
