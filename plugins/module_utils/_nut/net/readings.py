# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the variables of a UPS say about its power, and which of them to believe. The only place that decides this."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .vocabulary import split_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OUTAGE = frozenset({"OB", "LB", "FSD"})
"""Flags that mean a possible outage or shutdown."""

CAUTION = OUTAGE | {"CAL", "BYPASS", "OFF"}
"""Flags with which nothing may be risked: the battery is in use, or does not protect the machines on the UPS."""

HOLD_SECONDS = 6.0
"""A charge or runtime begins something when it has been that low for so long: it may jump for a moment."""

RUNTIME_MOST = 7 * 86400.0
CHARGE_MOST = 100.0
CHARGED = 90.0
"""Percent from which a battery counts as charged."""


@dataclass(frozen=True)
class Reading:
    """The power-related variables of a UPS. A value that is missing or implausible is None.

    A runtime or charge of 0 is not believed: many UPSes always report 0, others for a moment when they switch to battery. A UPS
    that is really empty reports LB, and reported more before. Some report -1 for "unknown", and some 255 % or 3932100 s, the
    largest numbers of their fields.
    """

    flags: tuple[str, ...]  # of ups.status
    charge: float | None = None  # percent of the battery
    runtime: float | None = None  # seconds until the battery is empty
    charge_low: float | None = None  # percent at which the UPS or its driver reports LB
    runtime_low: float | None = None  # seconds at which the UPS or its driver reports LB

    @property
    def on_battery(self) -> bool | None:
        """Return whether the UPS is on battery; None if its status has neither OB nor OL. OB wins over OL."""
        return True if "OB" in self.flags else False if "OL" in self.flags else None

    @property
    def cautions(self) -> tuple[str, ...]:
        """Return the flags with which nothing may be risked."""
        return tuple(flag for flag in self.flags if flag in CAUTION)

    @property
    def risks(self) -> tuple[str, ...]:
        """Return the flags with which nothing may be restarted or changed.

        LB on mains with a charged battery is none of them: the low mark is too high, or the battery old, and both need a change.
        """
        is_wrong_mark = (
            "OL" in self.flags and (self.charge or 0) >= CHARGED and OUTAGE.intersection(self.flags) == {"LB"}
        )
        return tuple(flag for flag in self.cautions if not (is_wrong_mark and flag == "LB"))

    @property
    def is_plainly_on_mains(self) -> bool:
        """Return whether the UPS is on mains and its battery ready for an outage."""
        return "OL" in self.flags and not self.cautions


def read_variables(variables: Mapping[str, str], flags: Iterable[str] | None = None) -> Reading:
    """Return the reading in the variables of a UPS, as upsd serves them. flags: of ups.status, if it is not among them."""

    def read_plausible(name: str, most: float) -> float | None:
        number = parse_quantity(variables.get(name))
        return number if number is not None and 0 < number <= most else None

    def read_low_mark(name: str, most: float) -> float | None:
        # without ignorelb, what ups.conf sets is only shown: the UPS goes by its own, which is then not known (drivers/main.c)
        shown = (variables.get(f"driver.parameter.{prefix}.{name}") for prefix in ("override", "default"))
        has_effect = "driver.flag.ignorelb" in variables or variables.get(name) not in shown
        return read_plausible(name, most) if has_effect else None

    return Reading(
        split_status(variables.get("ups.status", "")) if flags is None else tuple(flags),
        read_plausible("battery.charge", CHARGE_MOST),
        read_plausible("battery.runtime", RUNTIME_MOST),
        read_low_mark("battery.charge.low", CHARGE_MOST),
        read_low_mark("battery.runtime.low", RUNTIME_MOST),
    )


def may_be_outage(flags: Iterable[str]) -> bool:
    """Return whether these flags of ups.status mean a possible outage or shutdown."""
    return not OUTAGE.isdisjoint(flags)


def parse_quantity(text: str | None) -> float | None:
    """Return the value of a variable as a number; None if it is missing, not a finite number, or below 0."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
