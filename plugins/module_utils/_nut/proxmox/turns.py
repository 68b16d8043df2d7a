# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which Proxmox VE stops its guests when the host goes down (pve-manager, stopall; releases 8 and 9)."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from .datacenter import parse_datacenter
from .guests import FORCE_SECONDS, Guest

# From the beginning of the poweroff until Proxmox VE begins to stop guests: vzdump and pvesh each load all of its Perl.
LOAD_SECONDS = 5
# After a guest is down: Proxmox VE looks every second, and waits for another one before it goes on.
POLL_SECONDS = 2
# the release of pve-manager
_FEWER_WORKERS_SINCE = (9, 1, 2)


def longest_stop(seconds: float) -> float:
    """Return how many seconds a stop takes at most if it gives the guest `seconds`: Proxmox forces it, and looks once a second."""
    return seconds + FORCE_SECONDS + 1


def take_turns(
    guests: Iterable[Guest], takes: Mapping[int, float], workers: int, *, begin: int = 0, pause: int = 0
) -> dict[int, tuple[int, int]]:
    """Return for each guest's id when its stop begins and ends, in seconds from the poweroff.

    takes: id -> seconds that the stop takes. workers: how many guests are stopped at the same time, see read_workers(). begin: when the
    first stop begins. pause: seconds between the end of a stop and the next one. Guests without an order go first, then from the
    highest order down, one group after the other; in a group the highest id first.
    """
    groups: dict[float, list[Guest]] = {}
    for guest in guests:
        groups.setdefault(math.inf if guest.order is None else guest.order, []).append(guest)
    turns: dict[int, tuple[int, int]] = {}
    for order in sorted(groups, reverse=True):
        lanes = [begin] * workers
        for guest in sorted(groups[order], key=lambda guest: guest.id, reverse=True):
            lane = lanes.index(min(lanes))
            turns[guest.id] = lanes[lane], lanes[lane] + math.ceil(takes[guest.id])
            lanes[lane] = turns[guest.id][1] + pause
        begin = max(lanes)
    return turns


def read_manager_release(root: Path = Path("/")) -> tuple[int, ...] | None:
    """Return the release of pve-manager, such as (9, 1, 2); None if unknown."""
    sources = (
        ("usr/share/perl5/PVE/pvecfg.pm", r"sub version \{\s*return '([0-9.]+)"),
        ("var/lib/dpkg/status", r"^Package: pve-manager\n(?:.+\n)*?Version: ([0-9.]+)"),
    )
    for path, pattern in sources:
        with contextlib.suppress(OSError):
            if match := re.search(pattern, (root / path).read_text(errors="replace"), re.MULTILINE):
                return tuple(int(part) for part in match.group(1).split(".") if part)
    return None


def read_workers(datacenter_cfg: str, cpus: int, release: tuple[int, ...] | None = None) -> int:
    """Return how many guests Proxmox VE stops at the same time. release: of pve-manager; None: unknown, then the smaller number.

    Source: pve-manager, PVE/API2/Nodes.pm (stopall, get_max_workers): max_workers of datacenter.cfg, else the number of CPUs; since
    9.1.2, one CPU is left for the host, and there are no more than eight workers.
    """
    if workers := parse_datacenter(datacenter_cfg).max_workers:
        return workers
    if release is not None and release < _FEWER_WORKERS_SINCE:
        return max(1, cpus)
    return min(max(1, cpus - 1), 8)
