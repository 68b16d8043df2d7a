# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which UPSes power this host, and when too few of them are left.

upsmon shuts a host down when the UPSes that are not critical feed fewer than MINSUPPLIES of its power supplies (recalc() in
upsmon.c). The gate, the stages, the plan, the doctor and the status go by the same rule, and this module is the only place of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.spelling import list_words
from .upsmon import Monitor

NEVER = math.inf
"""The seconds until a UPS on mains is empty."""
OWN_UPSD = ("localhost", "127.0.0.1", "::1")


class FeedsError(ValueError):
    """Which UPSes power the host can't be told; the message says which variable must say so."""


@dataclass(frozen=True)
class Feeds:
    """Which UPSes power this host."""

    power: Mapping[
        str, int
    ]  # UPS -> how many of the host's power supplies it feeds: the power value of its MONITOR line
    minsupplies: int = 1  # how many of the power supplies the host needs: MINSUPPLIES

    def is_powered_by(self, ups: str) -> bool:
        """Return whether a UPS feeds this host at all."""
        return self.power.get(ups, 0) > 0

    @property
    def upses(self) -> tuple[str, ...]:
        """Return the names of the UPSes that feed this host."""
        return tuple(ups for ups in self.power if self.is_powered_by(ups))

    @property
    def is_redundant(self) -> bool:
        """Return whether the host stays up when one of its UPSes is lost."""
        fed = [self.power[ups] for ups in self.upses]
        return len(fed) > 1 and sum(fed) - min(fed) >= self.minsupplies

    def is_enough(self, upses: Sequence[str]) -> bool:
        """Return whether these UPSes alone keep the host up."""
        return sum(self.power.get(ups, 0) for ups in upses) >= self.minsupplies

    def describe_need(self) -> str:
        """Return when the host goes down, as words that follow its name; "" if no UPS powers it."""
        upses = self.upses
        if not upses:
            return ""
        if len(upses) == 1:
            return f"goes down when {upses[0]} is low"
        if not self.is_redundant:
            return f"needs all of its power supplies: it goes down when {list_words(upses, 'or')} is low"
        if all(self.is_enough([ups]) for ups in upses):
            every = f"both {' and '.join(upses)}" if len(upses) == 2 else f"all of {', '.join(upses)}"
            return f"is redundant: it stays up on {list_words(upses, 'or')} alone, and goes down when {every} are low"
        total = sum(self.power[ups] for ups in upses)
        return (
            f"is redundant: it needs {self.minsupplies} of its {total} power supplies on {', '.join(upses)}, and goes down when "
            "fewer are left"
        )

    def describe_powered(self, ups: str, secondaries: Sequence[str] = (), host: str = "this host") -> str:
        """Return what a UPS powers, as words that follow its name."""
        machines = [*([host] if self.is_powered_by(ups) else []), *secondaries]
        if not machines:
            return "powers nothing that is known here"
        return f"powers {' and '.join([', '.join(machines[:-1]), machines[-1]] if machines[1:] else machines)}"

    def find_deciding(self, left: Mapping[str, float]) -> str | None:
        """Return the UPS whose end ends the host, if the UPSes end in the order of what they have left.

        left: UPS -> what it has left, in seconds or percent, NEVER on mains. A UPS that is missing there counts as lost already.
        Returns None if none of them feeds the host, or if the host needs none of those on battery.
        """
        alive = sorted((value, ups) for ups, value in left.items() if self.is_powered_by(ups))
        for place, (value, ups) in enumerate(alive):
            if not self.is_enough([name for _value, name in alive[place + 1 :]]):
                return None if value == NEVER else ups
        return None


def read_feeds(
    host: str, devices: Sequence[Mapping[str, Any]], minsupplies: Any = None, role: str = "nut_server"
) -> Feeds:
    """Return which UPSes power a host. Raises FeedsError where the inventory must say so and does not.

    devices: as nut_server_devices. minsupplies: MINSUPPLIES of its ROLE_upsmon_conf; None if not set. One UPS alone powers the host
    unless its powervalue says otherwise; of several, each needs its powervalue, and MINSUPPLIES if more than one powers the host.
    """
    names = [str(device.get("name")) for device in devices]
    given = [device.get("powervalue") for device in devices]
    silent = [name for name, value in zip(names, given) if value in (None, "")]
    listed = ", ".join(names)
    # two of one name are a mistake of another kind, which ups.conf's own check names
    if len(set(names)) == len(names) > 1 and silent:
        raise FeedsError(
            f"{host} has {len(names)} UPSes ({listed}), and nut_server_devices does not say whether "
            f"{list_words(silent, 'or')} powers {host}: set powervalue of each to the number of its power supplies on that UPS, 0 if it "
            "feeds other machines only"
        )
    try:
        power = {name: int("1" if value in (None, "") else str(value)) for name, value in zip(names, given)}
        needed = None if minsupplies in (None, "") else int(str(minsupplies))
    except (TypeError, ValueError):
        raise FeedsError(f"{host}: powervalue and MINSUPPLIES must be whole numbers") from None
    if min([*power.values(), needed or 0], default=0) < 0:
        raise FeedsError(f"{host}: powervalue and MINSUPPLIES must not be negative")
    feeds = Feeds(power, 1 if needed is None else needed)
    if len(feeds.upses) > 1 and needed is None:
        raise FeedsError(
            f"{host} is powered by {' and '.join(feeds.upses)}, and nothing says whether it stays up on one of them: set MINSUPPLIES in "
            f"{role}_upsmon_conf to {min(power[ups] for ups in feeds.upses)} if it does, or to "
            f"{sum(power[ups] for ups in feeds.upses)} if it needs them all"
        )
    return feeds


def read_monitored_feeds(monitors: Sequence[Monitor], minsupplies: str | None, own: Iterable[str] = ()) -> Feeds:
    """Return which UPSes power a host, as its upsmon.conf says it. UPSes of other hosts have their whole MONITOR name.

    minsupplies: the value of MINSUPPLIES; None if it is not set. own: the UPSes of this host, whose names upsd takes in any case, and
    which a MONITOR line may also have by the host's address.
    """
    written = {name.lower(): name for name in own}
    power: dict[str, int] = {}
    for monitor in sorted(monitors, key=lambda monitor: monitor.host not in OWN_UPSD):
        name = written.get(monitor.ups.lower(), monitor.ups)
        is_own = monitor.host in OWN_UPSD or (name in written.values() and name not in power)
        power[name if is_own else monitor.system] = monitor.power
    return Feeds(power, int(minsupplies) if minsupplies and minsupplies.isdigit() else 1)
