# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a Proxmox VE node that is a secondary takes to go down: its guests stop first, then the node itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base.systemd import Run
from ..kinds import LINUX
from .placement import observe_host, place_guests
from .remedies import write_into

# the node itself, after its guests, like any Linux machine that was not measured
OWN_SECONDS = LINUX.shutdown_time


@dataclass(frozen=True)
class NodeTimes:
    """How long a node takes to go down, in seconds."""

    guests: tuple[str, ...]  # the guests that run or start at boot
    usual: int  # usually
    limit: int  # at most: Proxmox VE then stops the guests by force
    ha: tuple[str, ...]  # what HA does; () if it manages no guest


def compute_node_times(run: Run, root: Path = Path("/"), cpus: int | None = None) -> NodeTimes:
    """Return how long this node takes to go down, by what Proxmox VE gives its guests. Raises proxmox.guests.GuestsError."""
    placed = place_guests((), (), {}, observe_host(run, root, cpus=cpus), _resolve_nothing)
    proxmox = placed.proxmox
    return NodeTimes(
        tuple(guest.machine for guest in proxmox.guests),
        math.ceil(proxmox.stop_time or 0) + OWN_SECONDS,
        math.ceil(proxmox.stop_limit or 0) + OWN_SECONDS,
        proxmox.ha,
    )


def explain_short_times(
    name: str, primary: str, times: NodeTimes, shutdown_time: float, shutdown_limit: float
) -> tuple[str, str]:
    """Return what is wrong with the times that a primary expects of a node, and the remedy; ("", "") if they suffice."""
    if shutdown_time >= times.usual and shutdown_limit >= times.limit:
        return "", ""
    guests = f"{len(times.guests)} guest{'s' if len(times.guests) > 1 else ''}"
    problem = (
        f"{name} is a Proxmox VE node: with its {guests} it usually needs {times.usual} s to shut down, and Proxmox VE gives them so "
        f"much time that it may take {times.limit} s. {primary} expects {shutdown_time:g} s, waits {shutdown_limit:g} s at most, and "
        f"then powers off, which cuts the power of {name}"
    )
    entry = (
        f"nut_client_shutdown_time: {max(times.usual, math.ceil(shutdown_time))}, "
        f"nut_client_shutdown_limit: {max(times.limit, math.ceil(shutdown_limit))}"
    )
    return problem, write_into(name, entry)


def _resolve_nothing(_name: str) -> Sequence[str]:
    # no machine's storage is looked for
    return ()
