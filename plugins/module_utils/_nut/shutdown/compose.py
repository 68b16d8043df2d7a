# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shutdown's policy of a primary, composed from its secondaries in the inventory; controller only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..inventory import KINDS, UNSET_VALUES, InventoryError
from .policy import AwaitedMachine, GuestId, ShutdownPolicy, UpsAddress

SPARE_SECONDS = 30


def compose_policy(
    secondaries: Sequence[Mapping[str, Any]],
    upses: Sequence[str],
    port: int,
    *,
    longest: float | None = None,
    stages: Sequence[Mapping[str, Any]] = (),
    **timings: Any,
) -> ShutdownPolicy:
    """Return the policy for secondaries as inventory.list_secondaries() lists them. Raises InventoryError.

    The gate begins when the last of them has begun to shut down, or has had its time for that. longest: by default half a minute
    after the last shutdown_limit. stages: as nut_server_stages. timings: more members of the policy.
    """
    machines = tuple(_compose_machine(secondary) for secondary in secondaries)
    if longest is None:
        longest = max([0, *(machine.shutdown_limit for machine in machines)]) + SPARE_SECONDS
    addresses = {secondary["name"]: secondary["address"].strip("[]") for secondary in secondaries}
    return ShutdownPolicy(
        tuple(UpsAddress(name, "localhost", port) for name in upses),
        machines,
        longest=longest,
        stages=tuple(_compose_stage(stage, addresses) for stage in stages),
        **timings,
    )


def _compose_machine(secondary: Mapping[str, Any]) -> AwaitedMachine:
    return AwaitedMachine(
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", secondary["name"]).lstrip("_.-") or "host",
        addresses=(secondary["address"].strip("[]"),),
        ports=KINDS[secondary["kind"]].ports,
        guest=GuestId(**secondary["guest"]) if secondary["guest"] else None,
        shutdown_time=secondary["shutdown_time"],
        shutdown_limit=secondary["shutdown_limit"],
    )


def _compose_stage(given: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
    """Give a stage the addresses of the machines whose storage it is about; drop what is not set."""
    stage = {key: value for key, value in given.items() if value not in UNSET_VALUES}
    if "storage_of" in stage:
        unknown = [name for name in stage["storage_of"] if name not in addresses and not re.search("[.:]", str(name))]
        if unknown:
            known = ", ".join(addresses) or "none"
            raise InventoryError(
                f"nut_server_stages: stage {given.get('name')}: storage_of names {unknown[0]}, which is no secondary of this primary "
                f"({known}), nor an address"
            )
        # a storage may have the machine's name where the inventory has its address, and the other way round
        words = [word for name in stage["storage_of"] for word in (addresses.get(name, name), name)]
        stage["storage_of"] = list(dict.fromkeys(words))
    return stage
