# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start nothing heavy on an empty battery: is it charged enough for another outage?

nut-stages asks before it starts guests and wakes machines, and `nut-shutdown hold` before Proxmox VE starts its guests after a boot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable

from ..conf.feeds import Feeds
from ..proxmox import control
from .policy import ReturnPolicy, UpsAddress
from .stages import Power, combine_power, read_power

# After a boot upsd and its drivers need some time, and a UPS may never report its charge
UNKNOWN_SECONDS = 90.0
POLL_SECONDS = 5.0


@dataclass
class Recharge:
    """Whether the battery has the charge of the policy, since the mains are back. An outage begins it again."""

    policy: ReturnPolicy
    hold: str = ""  # why nothing is started yet; "" if everything may start
    _is_over: bool = field(default=False, init=False)
    _mains_since: float | None = field(default=None, init=False)
    _unknown_since: float | None = field(default=None, init=False)

    def update(self, power: Power, now: float) -> str:
        """Take note of the power of this host, and return the hold."""
        wanted = self.policy.charge
        if wanted is None:
            return ""
        if power.on_battery or "FSD" in power.flags:
            self._is_over, self._mains_since, self._unknown_since = False, None, None
            self.hold = "the power is out"
        elif not self._is_over:
            self.hold = self._judge(wanted, power, now)
            self._is_over = not self.hold
        return self.hold

    def _judge(self, wanted: float, power: Power, now: float) -> str:
        if power.on_battery is False and self._mains_since is None:
            self._mains_since = now
        if self._mains_since is not None and now - self._mains_since >= self.policy.charge_limit:
            return ""
        if power.charge is not None:
            self._unknown_since = None
            return "" if power.charge >= wanted else f"the battery has less than {wanted:g} %"
        if self._unknown_since is None:
            self._unknown_since = now
        return "" if now - self._unknown_since >= UNKNOWN_SECONDS else "the charge of the battery is not known yet"


def wait_for_charge(
    policy: ReturnPolicy,
    upses: Sequence[UpsAddress],
    feeds: Feeds,
    *,
    ask: Callable[[UpsAddress], Mapping[str, str] | None],
    log: Callable[[str], None],
    clock: control.Clock,
    pause: control.Pause,
) -> None:
    """Return when the battery has the charge of the policy, or there is no use in waiting."""
    recharge, logged, began = Recharge(policy), "", clock()
    while hold := recharge.update(
        combine_power({ups.name: read_power(ups.name, ask(ups)) for ups in upses}, frozenset(), feeds), clock()
    ):
        if hold != logged:
            logged = hold
            log(f"the guests are not started yet: {hold}")
        pause(POLL_SECONDS)
    if logged:
        log(f"the guests may start, after {clock() - began:.0f} s")
