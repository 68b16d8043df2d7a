# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The input and the result of decide.make_plan(): the state of each driver, and what to do now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..base import systemd
from ..conf.ups_conf import UpsConf
from ..deploy.change import UnitAction
from ..usb.liveness import Loss, Stillness
from .memory import Tries


@dataclass(frozen=True)
class DriverState:
    """The state of the driver of one section."""

    unit: systemd.Unit
    status: tuple[str, ...] = ()  # the flags of ups.status; () without data
    error: str = ""  # upsd's error code; "" if it has data
    silent_since: float = 0.0  # when it was first seen without data; the current time if it has data
    plugged_since: float | None = None  # since when its UPS has been plugged in; None if it is not
    is_new_device: bool = False  # the UPS was plugged in after the last run
    last_status: tuple[str, ...] = ()  # the last status that upsd reported
    loss: Loss | None = None  # evidence that its device is gone from under it although its data are fresh
    suspicion: str = ""  # another reason to doubt its data, as a clause
    stillness: Stillness | None = None  # what its UPS measures on battery

    @property
    def is_fresh(self) -> bool:
        """Return whether upsd has fresh data from this driver."""
        return bool(self.status) and not self.error


@dataclass(frozen=True)
class HotplugPlan:
    """What to do now, in this order: permits, before, write ups.conf, after."""

    conf: UpsConf | None  # the new ups.conf; None if the file stays
    found: frozenset[str]  # the names of its sections that nut-hotplug added
    before: tuple[UnitAction, ...]
    after: tuple[UnitAction, ...]
    permits: tuple[tuple[str, str], ...]  # (device node to give to NUT's group, reason)
    waits: Mapping[str, float]  # name -> when to look at its driver again; the name "" is upsd
    deferred: tuple[str, ...]  # what is postponed, each with the reason
    tries: Mapping[str, Tries]  # to be kept for the next run
    faults: tuple[str, ...] = ()  # drivers whose data are not those of their UPS, each with the remedy

    def __bool__(self) -> bool:
        """Return whether there is anything to do now."""
        return self.conf is not None or bool(self.before or self.after or self.permits)
