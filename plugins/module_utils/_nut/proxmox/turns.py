# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which turns Proxmox VE stops its guests when the host goes down, and how long that takes (pve-manager, stopall; releases 8 and 9)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from .guests import DOWN_SECONDS, FORCE_SECONDS, Guest


def proxmox_seconds(
    guests: Iterable[Guest], running: Collection[int], workers: int | None = None, managed: Collection[int] = ()
) -> int:
    """Return how many seconds Proxmox takes at worst to stop its guests when the host goes down.

    running: ids of those that run. workers: how many it stops at a time, see read_workers(); None: all. managed: ids of what HA
    works, which stopall leaves out. Those without an order go first, then from the highest order down; one group after the
    other, within a group the highest id first. It looks once a second.
    """
    groups: dict[int | None, list[Guest]] = {}
    for guest in guests:
        if guest.id in running and guest.id not in managed and not guest.template:
            groups.setdefault(guest.order, []).append(guest)
    total = 0
    for group in groups.values():
        lanes = [0] * max(1, min(workers or len(group), len(group)))
        for guest in sorted(group, key=lambda one: one.id, reverse=True):
            lane = lanes.index(min(lanes))
            lanes[lane] += (DOWN_SECONDS if guest.down is None else guest.down) + FORCE_SECONDS + 1
        total += max(lanes)
    return total


def read_workers(text: str, cpus: int) -> int:
    """Return how many guests Proxmox stops at a time: max_workers of datacenter.cfg, else the host's CPUs."""
    match = re.search(r"^max_workers:\s*([1-9][0-9]{0,3})\s*$", text, re.MULTILINE)
    return int(match.group(1)) if match else cpus
