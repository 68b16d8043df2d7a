# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time on a host: its clock that never goes back, which boot it is, and how a moment is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable


def read_boottime() -> float:
    """Return the seconds since this host was started, those of its sleep too (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return what is another text after each boot of this host; "" if the kernel does not say."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Clock:
    """The time of a host, and how to let it pass."""

    now: Callable[[], float] = read_boottime  # seconds of a clock that never goes back
    wall: Callable[[], float] = time.time  # seconds since 1970
    sleep: Callable[[float], None] = time.sleep
    boot: Callable[[], str] = read_boot_id  # another text after each boot


CLOCK = Clock()
"""This host's."""


def format_time(moment: float) -> str:
    """Write a moment (seconds since 1970) in the local time zone, as the environment's TZ has it."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment))
