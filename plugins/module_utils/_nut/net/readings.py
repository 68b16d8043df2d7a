# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What upsd says of a UPS, and what of that can be believed. The only place that decides it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .vocabulary import split_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OUTAGE = frozenset({"OB", "LB", "FSD"})
"""Flags with which an outage, or a shutdown, may be under way."""

CAUTION = OUTAGE | {"CAL", "BYPASS", "OFF"}
"""Flags with which nothing may be risked: the battery is in use, or does not protect what is behind the UPS."""

RUNTIME_MOST = 7 * 86400.0
CHARGE_MOST = 100.0


@dataclass(frozen=True)
class Reading:
    """What a UPS says of its power. What it does not say, or says implausibly, is None.

    A runtime or charge of 0 is not believed: many UPSes always say 0, others for a moment when they change to battery. One that is
    really empty says LB, and has said more before. Some say -1 for "I don't know", and some 255 % and 3932100 s, the largest
    numbers of their fields.
    """

    flags: tuple[str, ...]  # of ups.status
    charge: float | None = None  # percent of the battery
    runtime: float | None = None  # seconds that the battery lasts
    charge_low: float | None = None  # percent at which the UPS, or its driver, says LB
    runtime_low: float | None = None  # seconds at which it does

    @property
    def on_battery(self) -> bool | None:
        """Return whether it is on battery; None if its status says neither. One that says both is."""
        return True if "OB" in self.flags else False if "OL" in self.flags else None

    @property
    def cautions(self) -> tuple[str, ...]:
        """Return the flags with which nothing may be risked."""
        return tuple(flag for flag in self.flags if flag in CAUTION)

    @property
    def is_plainly_on_mains(self) -> bool:
        """Return whether it is on mains and its battery is ready for an outage."""
        return "OL" in self.flags and not self.cautions


def read_variables(variables: Mapping[str, str], flags: Iterable[str] | None = None) -> Reading:
    """Return the reading in the variables of a UPS, as upsd serves them. flags: of its ups.status, if not among them."""

    def within(name: str, most: float) -> float | None:
        number = parse_quantity(variables.get(name))
        return number if number is not None and 0 < number <= most else None

    return Reading(
        split_status(variables.get("ups.status", "")) if flags is None else tuple(flags),
        within("battery.charge", CHARGE_MOST),
        within("battery.runtime", RUNTIME_MOST),
        within("battery.charge.low", CHARGE_MOST),
        within("battery.runtime.low", RUNTIME_MOST),
    )


def may_be_outage(flags: Iterable[str]) -> bool:
    """Return whether an outage, or a shutdown, may be under way by the flags of a ups.status."""
    return not OUTAGE.isdisjoint(flags)


def parse_quantity(text: str | None) -> float | None:
    """Return a number that a UPS says; None if it says none, or one below 0."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
