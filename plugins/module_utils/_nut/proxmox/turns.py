# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which Proxmox VE stops its guests when the host goes down (pve-manager, stopall; releases 8 and 9)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from .guests import FORCE_SECONDS, Guest


def longest_stop(seconds: float) -> float:
    """Return how many seconds a stop takes at most if it gives the guest `seconds`: Proxmox forces it, and looks once a second."""
    return seconds + FORCE_SECONDS + 1


def take_turns(guests: Iterable[Guest], takes: Mapping[int, float], workers: int) -> dict[int, tuple[int, int]]:
    """Return for each guest's id when its stop begins and ends, in seconds from the poweroff.

    takes: id -> seconds that the stop takes. workers: how many guests are stopped at the same time, see read_workers(). Guests
    without an order go first, then from the highest order down, one group after the other; in a group the highest id first.
    """
    groups: dict[float, list[Guest]] = {}
    for guest in guests:
        groups.setdefault(math.inf if guest.order is None else guest.order, []).append(guest)
    turns: dict[int, tuple[int, int]] = {}
    begin = 0
    for order in sorted(groups, reverse=True):
        lanes = [begin] * workers
        for guest in sorted(groups[order], key=lambda guest: guest.id, reverse=True):
            lane = lanes.index(min(lanes))
            turns[guest.id] = lanes[lane], lanes[lane] + math.ceil(takes[guest.id])
            lanes[lane] = turns[guest.id][1]
        begin = max(lanes)
    return turns


def read_workers(text: str, cpus: int) -> int:
    """Return how many guests Proxmox stops at the same time: max_workers in datacenter.cfg, else the number of CPUs."""
    match = re.search(r"^max_workers:\s*([1-9][0-9]{0,3})\s*$", text, re.MULTILINE)
    return int(match.group(1)) if match else cpus
