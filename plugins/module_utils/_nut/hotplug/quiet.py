# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether all is as the last run left it, found out with next to nothing: nearly each run of the agent ends here.

The last run leaves a text that says how the bus, the files and the answers of upsd look while all is well. Here they are
compared. No other process is started, and no module is imported that this does not use: the program keeps no compiled
code, so each line counts, and socket, json, subprocess and dataclasses would cost more than all the rest.
"""

from __future__ import annotations

import _socket
import os
import time

from .glance import bus

TYPE_CHECKING = False  # importing it from typing would take as long as all the rest
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST = "nut-hotplug: all is well 1"
LAST = "end"
SECONDS = 2.0  # for all answers of upsd; it needs a millisecond
LIMIT = 4 << 20
# the flags of ups.status that say where the power comes from, and that a UPS is busy
_POWER = ("OL", "OB", "LB", "FSD", "CAL", "BYPASS", "OFF", "WAIT")


def identity(path: str) -> str:
    """Say which file stands at PATH, as it was last written: another text for each other one. "-" if there is none."""
    try:
        seen = os.stat(path)  # noqa: PTH116 - pathlib is dear
    except FileNotFoundError:
        return "-"
    return f"{seen.st_mtime_ns} {seen.st_size} {seen.st_ino}"


def kind(answer: str) -> str:
    """Reduce an answer to GET VAR NAME ups.status to what matters: the flags about power, or the error. Charging does not."""
    parts = answer.split('"')
    if answer.startswith("ERR "):
        return answer
    if not answer.startswith("VAR ") or len(parts) != 3:
        return "?"
    words = parts[1].split()
    return " ".join([flag for flag in _POWER if flag in words])


def ask(address: str, port: int, names: Sequence[str], seconds: float = SECONDS) -> list[str]:
    """Ask upsd for the status of UPSes, all at once, and return the kinds of its answers. address: numeric.

    Raises OSError, also if it takes longer than SECONDS (TimeoutError), or hangs up.
    """
    deadline = time.monotonic() + seconds
    connection = _socket.socket(_socket.AF_INET6 if ":" in address else _socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect((address, port))
        connection.send("".join([f"GET VAR {name} ups.status\n" for name in names]).encode("ascii"))
        said = b""
        while said.count(b"\n") < len(names):
            left = deadline - time.monotonic()
            if left <= 0 or len(said) > LIMIT:
                raise TimeoutError
            connection.settimeout(left)
            more = connection.recv(65536)
            if not more:
                raise OSError("upsd hung up")
            said += more
    finally:
        connection.close()
    return [kind(line) for line in said.decode("latin-1").split("\n")[:-1]]


def describe(
    sysfs: str,
    seen: str,
    files: Mapping[str, str],
    place: tuple[str, int],
    answers: Mapping[str, str],
    *,
    until: float,
) -> str:
    """Write down how it looks while all is well, for is_quiet().

    seen: glance.bus(sysfs). files: path -> identity(path). place: where upsd is asked, a numeric address and a port. answers:
    name of a UPS -> kind of its answer. until: seconds of CLOCK_BOOTTIME, after which the whole is looked at in any case.
    Raises ValueError for a name or path that has no place in a line.
    """
    fields = [
        FIRST,
        f"until {int(until)}",
        f"upsd {place[0]} {place[1]}",
        *(f"ups {name} {answer}" for name, answer in answers.items()),
        *(f"file {known} {path}" for path, known in ((path, known.replace(" ", ",")) for path, known in files.items())),
        f"bus {sysfs}",
    ]
    strange = [one for one in [*fields, *answers] if not one.isprintable()]
    strange += [name for name in answers if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii()]
    if strange:
        raise ValueError(f"{strange[0]!r} can't be asked for in passing")
    return "\n".join([*fields, seen, LAST, ""])


def is_quiet(path: str, now: float | None = None) -> bool:
    """Say whether all is as the text at PATH has it. Whatever is odd, there or elsewhere, is not quiet. Never raises.

    now: seconds of CLOCK_BOOTTIME, if the kernel's are not to count.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            left = os.read(handle, LIMIT)
        finally:
            os.close(handle)
        return _agrees(
            left.decode("utf-8", "surrogateescape"), time.clock_gettime(time.CLOCK_BOOTTIME) if now is None else now
        )
    except Exception:  # whatever it is, the long way finds out, and says so
        return False


def _agrees(left: str, now: float) -> bool:
    head, marker, seen = left.partition("\nbus ")
    lines = head.split("\n")
    if not marker or lines[0] != FIRST:
        return False
    sysfs, _newline, rest = seen.partition("\n")
    address, port = "", 0
    expected = {}
    for line in lines[1:]:
        word, value, more = (line + "  ").split(" ", 2)
        more = more[:-2] if more.endswith("  ") else more.rstrip(" ")
        if word == "until":
            if now >= float(value):
                return False
        elif word == "upsd":
            address, port = value, int(more)
        elif word == "ups":
            expected[value] = more
        elif word != "file" or identity(more).replace(" ", ",") != value:
            return False
    if rest != f"{bus(sysfs)}\n{LAST}\n":
        return False
    return not expected or ask(address, port, list(expected)) == list(expected.values())
