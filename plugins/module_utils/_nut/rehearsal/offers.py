# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times measured in a real shutdown, as lines for the inventory."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ..base import records
from ..base.text import printable
from ..shutdown.policy import ShutdownPolicy

MARGIN = 1.2
LEAST_TIME = 5
"""The smallest time offered, s: the time of a quick machine varies from day to day."""

MOST_MEASURED = 86400.0
"""The longest believable time of a shutdown, s."""


def round_up(seconds: float) -> int:
    """Return the inventory's time for a measured one, in seconds, with a margin."""
    return max(math.ceil(round(seconds * MARGIN, 6)), LEAST_TIME)


@dataclass(frozen=True)
class Offer:
    """A measured time that should replace the inventory's."""

    name: str  # of the host whose variables it belongs in
    own: bool  # whether that host is the primary
    now: float  # the inventory's time, s
    measured: float  # s

    @property
    def shutdown_time(self) -> int:
        """The time to write into the inventory, s."""
        return round_up(self.measured)

    @property
    def inventory_line(self) -> str:
        """The file, and the line of YAML for it."""
        source = f"measured {self.measured:.1f} s plus {100 * (MARGIN - 1):.0f} %, rounded up"
        source += f", minimum {LEAST_TIME}" if self.shutdown_time == LEAST_TIME else ""
        file = f"host_vars/{self.name}.yml" + (", or its group's file in group_vars" if self.own else "")
        return f"{file}: nut_{'server' if self.own else 'client'}_shutdown_time: {self.shutdown_time}  # {source}"


def read_offers(data: object, primary: str, secondaries: Collection[str]) -> list[Offer]:
    """Return the offers that a host sent. Only its times are used; names must be the inventory's. Raises RecordError."""
    if not isinstance(data, list) or len(data) > records.ITEMS_LIMIT:
        raise records.RecordError("the measured times are not a list, or too many")
    offers = [records.build_record(Offer, offer, f"measured time [{position}]") for position, offer in enumerate(data)]
    # the primary's own name may differ from its name in the inventory
    offers = [replace(offer, name=primary) if offer.own else offer for offer in offers]
    for offer in offers:
        if offer.name not in (primary, *secondaries) or not 0 <= offer.measured <= MOST_MEASURED:
            raise records.RecordError(
                f"measured time of {printable(offer.name, 60)}: unknown host, or {offer.measured:g} s is not from 0 to {MOST_MEASURED:g} s"
            )
    return offers


def find_offers(
    policy: ShutdownPolicy, took: Mapping[str, float | None], primary: str, own: float | None
) -> list[Offer]:
    """Return an Offer for each of the inventory's times that is too short, or differs by more than 1 s and 10 %."""
    inventory: list[tuple[str, bool, float | None]] = [
        (machine.name, False, machine.shutdown_time) for machine in policy.machines
    ]
    inventory.append((primary, True, own))
    offers = []
    for name, is_primary, now in inventory:
        measured = took.get(name)
        if measured is None or now is None:
            continue
        better = round_up(measured)
        if abs(better - now) <= max(1.0, now / 10) and now >= measured:
            continue
        offers.append(Offer(name, is_primary, now, measured))
    return offers
