# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Composes the shutdown policy of a primary from its secondaries in the inventory. Runs on the controller only."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..base import hostnames
from ..conf.feeds import Feeds
from ..inventory import UNSET_VALUES, InventoryError
from ..kinds import KINDS
from .policy import AwaitedMachine, GuestId, ShutdownPolicy, UpsAddress, WakeUp

SPARE_SECONDS = 30  # added to the longest shutdown_limit


def compose_policy(
    secondaries: Sequence[Mapping[str, Any]],
    feeds: Feeds,
    port: int,
    *,
    timeout: float | None = None,
    stages: Sequence[Mapping[str, Any]] = (),
    unawaited: Collection[str] = (),
    **timings: Any,
) -> ShutdownPolicy:
    """Return the policy for secondaries as inventory.list_secondaries() lists them. Raise InventoryError.

    timeout: seconds; by default SPARE_SECONDS more than the longest shutdown_limit. stages: as in nut_server_stages. timings:
    further members of the policy. unawaited: names of secondaries that the gate does not wait for.
    """
    machines = tuple(_compose_machine(secondary) for secondary in secondaries if secondary["name"] not in unawaited)
    others = tuple(_compose_machine(secondary) for secondary in secondaries if secondary["name"] in unawaited)
    if timeout is None:
        timeout = max([0, *(machine.shutdown_limit for machine in machines)]) + SPARE_SECONDS
    addresses = {secondary["name"]: hostnames.split_addresses(secondary["address"]) for secondary in secondaries}
    return ShutdownPolicy(
        tuple(UpsAddress(name, "localhost", port, power) for name, power in feeds.power.items()),
        machines,
        timeout=timeout,
        stages=tuple(_compose_stage(stage, addresses) for stage in stages),
        minsupplies=feeds.minsupplies,
        unawaited=others,
        **timings,
    )


def _compose_machine(secondary: Mapping[str, Any]) -> AwaitedMachine:
    return AwaitedMachine(
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", secondary["name"]).lstrip("_.-") or "host",
        addresses=hostnames.split_addresses(secondary["address"]),
        ports=KINDS[secondary["kind"]].ports,
        guest=GuestId(**secondary["guest"]) if secondary["guest"] else None,
        shutdown_time=secondary["shutdown_time"],
        shutdown_limit=secondary["shutdown_limit"],
        ups=secondary["ups"],
        wake=WakeUp(secondary["wake"]["mac"], tuple(secondary["wake"]["command"])) if secondary["wake"] else None,
    )


def _compose_stage(given: Mapping[str, Any], addresses: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return a stage with the addresses of the machines in storage_of added, and without unset members."""
    stage = {key: value for key, value in given.items() if value not in UNSET_VALUES}
    if "storage_of" in stage:
        unknown = [name for name in stage["storage_of"] if name not in addresses and not re.search("[.:]", str(name))]
        if unknown:
            known = ", ".join(addresses) or "none"
            raise InventoryError(
                f"nut_server_stages: stage {given.get('name')}: storage_of names {unknown[0]}, which is neither an address nor a "
                f"secondary of this primary ({known})"
            )
        # Proxmox's storage.cfg may name a machine that the inventory gives by address, and the other way round
        servers = [server for name in stage["storage_of"] for server in (*addresses.get(name, ()), name)]
        stage["storage_of"] = list(dict.fromkeys(servers))
    return stage
