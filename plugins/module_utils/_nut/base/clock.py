# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time on a host: a clock that never goes back, the id of the boot, and how a time is written."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable


def read_boottime() -> float:
    """Return the seconds since this host booted, including time asleep (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return an id that changes with each boot of the kernel; "" if it does not give one. A container has that of its host."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def read_system_start(root: Path = Path("/")) -> float:
    """Return the read_boottime() at which this system's first process started; 0.0 if that is unknown.

    In a container boottime and boot id are those of its host, so only this shows when the container itself booted (proc(5), starttime).
    """
    try:
        fields = (root / "proc/1/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def name_system_start(root: Path = Path("/")) -> str:
    """Return a text that changes with each boot of this system, also where it is a container; "" if the kernel gives no boot id."""
    boot = read_boot_id()
    return boot and f"{boot}/{read_system_start(root):g}"


def kernel_boot(boot: str) -> str:
    """Return the kernel's boot id, as the journal has it, of name_system_start()."""
    return boot.partition("/")[0]


@dataclass(frozen=True)
class Clock:
    """The clocks of a host, and how to wait."""

    now: Callable[[], float] = read_boottime  # seconds of a clock that never goes back
    wall: Callable[[], float] = time.time  # seconds since 1970
    sleep: Callable[[float], None] = time.sleep
    boot: Callable[[], str] = name_system_start  # changes with each boot of this system


CLOCK = Clock()
"""The clock of this host."""


def format_time(moment: float) -> str:
    """Return a time (seconds since 1970) as text, in the local time zone (TZ)."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment))
