# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The times that were measured in a real shutdown, as lines for the inventory."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ..base import records
from ..base.text import printable
from ..shutdown.policy import ShutdownPolicy

MARGIN = 1.2
LEAST_TIME = 5
"""Seconds below which no time is offered: what a quick machine takes depends on what it does that day."""

MOST_MEASURED = 86400.0
"""Seconds above which a time is none that a shutdown takes."""


def round_up(seconds: float) -> int:
    """Return the time to write into the inventory for one that was measured."""
    return max(math.ceil(round(seconds * MARGIN, 6)), LEAST_TIME)


@dataclass(frozen=True)
class Offer:
    """A time that was measured, for the inventory, which has another one."""

    name: str  # of the host in whose variables it belongs
    own: bool  # whether that is the primary
    now: float  # s, in the inventory
    measured: float  # s

    @property
    def shutdown_time(self) -> int:
        """The time to write down."""
        return round_up(self.measured)

    @property
    def inventory_line(self) -> str:
        """Where it belongs, and the line in YAML."""
        how = f"measured {self.measured:.1f} s, rounded up with {MARGIN - 1:.0%} margin".replace("%", " %")
        how += f", at least {LEAST_TIME}" if self.shutdown_time == LEAST_TIME else ""
        file = f"host_vars/{self.name}.yml" + (", or group_vars/pve.yml" if self.own else "")
        return f"{file}: nut_{'server' if self.own else 'client'}_shutdown_time: {self.shutdown_time}  # {how}"


def read_offers(data: object, primary: str, secondaries: Collection[str]) -> list[Offer]:
    """Return the offers that a host has sent. Only times come from there: the names are the inventory's. Raises RecordError."""
    if not isinstance(data, list) or len(data) > records.ITEMS_LIMIT:
        raise records.RecordError("what was measured is no list of times")
    found = [
        records.build_record(Offer, offer, f"what was measured [{position}]") for position, offer in enumerate(data)
    ]
    # the primary may call itself by another name than the inventory does
    found = [replace(offer, name=primary) if offer.own else offer for offer in found]
    for offer in found:
        if offer.name not in (primary, *secondaries) or not 0 <= offer.measured <= MOST_MEASURED:
            raise records.RecordError(
                f"{printable(offer.name, 60)} is no host of this primary, or its time is none: {offer.measured:g} s"
            )
    return found


def find_offers(
    policy: ShutdownPolicy, took: Mapping[str, float | None], primary: str, own: float | None
) -> list[Offer]:
    """Return what the inventory should say, where it says something else; a second or a tenth more or less is no difference."""
    said: list[tuple[str, bool, float | None]] = [
        (machine.name, False, machine.shutdown_time) for machine in policy.machines
    ]
    said.append((primary, True, own))
    found = []
    for name, its, now in said:
        measured = took.get(name)
        if measured is None or now is None:
            continue
        better = round_up(measured)
        if abs(better - now) <= max(1.0, now / 10) and now >= measured:
            continue
        found.append(Offer(name, its, now, measured))
    return found
