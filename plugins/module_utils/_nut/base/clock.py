# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time on a host: a clock that never goes back, the id of the boot, and how a time is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable


def read_boottime() -> float:
    """Return the seconds since this host booted, including time asleep (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return an id that changes with each boot; "" if the kernel does not give one."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Clock:
    """The clocks of a host, and how to wait."""

    now: Callable[[], float] = read_boottime  # seconds of a clock that never goes back
    wall: Callable[[], float] = time.time  # seconds since 1970
    sleep: Callable[[float], None] = time.sleep
    boot: Callable[[], str] = read_boot_id  # changes with each boot


CLOCK = Clock()
"""The clock of this host."""


def format_time(moment: float) -> str:
    """Return a time (seconds since 1970) as text, in the local time zone (TZ)."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment))
