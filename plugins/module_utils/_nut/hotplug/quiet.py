# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check at almost no cost whether anything has changed since the last run. Almost every run of nut-hotplug ends here.

A run that leaves everything in order writes a note of the bus, the files and upsd's answers (see quiet_note.py). This file compares
that note with the present. start.sh runs it on its own, before Python opens the archive. It is compiled at each run and no other file
is read, so it is short and imports only modules that are built into Python.
"""

from __future__ import annotations

import _socket
import os
import time

TYPE_CHECKING = False  # importing it from typing would take as long as everything else
if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST = "nut-hotplug: all is well 1"
LAST = "end"
SECONDS = 2.0  # time limit for all of upsd's answers; they usually take a millisecond
LIMIT = 4 << 20
_UEVENT_BYTES = 4096  # a uevent file has about 200
# flags of ups.status about the source of power, or a UPS that is busy
_POWER = ("OL", "OB", "LB", "FSD", "CAL", "BYPASS", "OFF", "WAIT")


def describe_bus(sysfs: str = "/sys") -> str:
    """Return sorted lines, one per USB device and hub: its name in sysfs, a blank, its uevent file on one line.

    Interfaces, and devices that vanish while they are read, are left out; "" without a bus. uevent contains bus and device number,
    so the text changes whenever a device is added, removed or replugged. Raises OSError if the directory can't be read.
    """
    folder = f"{sysfs}/bus/usb/devices"
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if ":" not in entry.name)
    except FileNotFoundError:
        return ""
    lines = []
    for name in names:
        try:
            # O_NONBLOCK: a FIFO in its place must not block
            file = os.open(f"{folder}/{name}/uevent", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            text = os.read(file, _UEVENT_BYTES)
        except OSError:
            continue
        finally:
            os.close(file)
        lines.append(f"{name} {' '.join(text.decode('utf-8', 'replace').split())}")
    return "\n".join(lines)


def identify_file(path: str) -> str:
    """Return a text that changes whenever the file at PATH is written or replaced. "-" if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib is slow to import
    except FileNotFoundError:
        return "-"
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"


def classify_answer(answer: str) -> str:
    """Return the power flags in an answer to GET VAR NAME ups.status, or the error. Other flags, such as CHRG, are left out."""
    parts = answer.split('"')
    if answer.startswith("ERR "):
        return answer
    if not answer.startswith("VAR ") or len(parts) != 3:
        return "?"
    flags = parts[1].split()
    return " ".join([flag for flag in _POWER if flag in flags])


def ask_upsd(address: str, port: int, names: Sequence[str], seconds: float = SECONDS) -> list[str]:
    """Ask upsd at a numeric address for the status of all UPSes at once. Returns the classified answers.

    Raises OSError if upsd can't be reached or hangs up, and TimeoutError after SECONDS.
    """
    deadline = time.monotonic() + seconds
    connection = _socket.socket(_socket.AF_INET6 if ":" in address else _socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect((address, port))
        connection.send("".join([f"GET VAR {name} ups.status\n" for name in names]).encode("ascii"))
        answers = b""
        while answers.count(b"\n") < len(names):
            left = deadline - time.monotonic()
            if left <= 0 or len(answers) > LIMIT:
                raise TimeoutError
            connection.settimeout(left)
            more = connection.recv(65536)
            if not more:
                raise OSError("upsd hung up")
            answers += more
    finally:
        connection.close()
    return [classify_answer(line) for line in answers.decode("latin-1").split("\n")[:-1]]


def is_quiet(path: str, now: float | None = None) -> bool:
    """Return whether everything matches the note at PATH. False if anything goes wrong. Never raises.

    now: seconds of CLOCK_BOOTTIME; the kernel's by default.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            note = os.read(handle, LIMIT)
        finally:
            os.close(handle)
        return _agrees_with_note(
            note.decode("utf-8", "surrogateescape"), time.clock_gettime(time.CLOCK_BOOTTIME) if now is None else now
        )
    except Exception:  # the full run will find and report the problem
        return False


def _agrees_with_note(note: str, now: float) -> bool:
    """Return whether the host matches a note that quiet_note.compose_note() wrote."""
    head, marker, bus = note.partition("\nbus ")
    lines = head.split("\n")
    if not marker or lines[0] != FIRST:
        return False
    sysfs, _newline, rest = bus.partition("\n")
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
        elif word != "file" or identify_file(more).replace(" ", ",") != value:
            return False
    if rest != f"{describe_bus(sysfs)}\n{LAST}\n":
        return False
    return not expected or ask_upsd(address, port, list(expected)) == list(expected.values())
