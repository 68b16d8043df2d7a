# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Actions that an interrupted run or play left undone: which of them still apply, and which must wait for the mains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..base import systemd
from ..deploy.change import UnitAction, rank_action
from .decision import HotplugPlan

# the units that a note may contain, besides those of drivers
_OWN = (systemd.SERVER, systemd.MONITOR, systemd.ENUMERATOR, systemd.DRIVERS, systemd.ALL)
_RUNS = systemd.Unit("active", "", 0)  # assumed for a unit whose state is unknown


def add_owed(
    plan: HotplugPlan,
    noted: Sequence[UnitAction],
    drivers: Sequence[str],
    power: Sequence[str] | None,
    units: Mapping[str, systemd.Unit],
) -> tuple[HotplugPlan, tuple[UnitAction, ...]]:
    """Return the plan with the owed actions added, and the owed actions that must wait for the mains.

    noted: the owed actions. drivers: the units of the sections in ups.conf. power: UPSes that are not plainly on mains; None if upsd
    can't be asked. units: unit name -> its state.
    """
    planned = {action.unit: action.verb for action in (*plan.before, *plan.after)}
    due = [
        action
        for action in _still_owed(noted, drivers)
        if action.verb == "enable"
        or action.unit not in planned
        # a reload does not replace an owed restart
        or (action.verb == "restart" and planned[action.unit] == "reload")
    ]
    postponed: tuple[UnitAction, ...] = ()
    if power or power is None:
        postponed = tuple(action for action in due if _must_wait(action, units))
        due = [action for action in due if action not in postponed]
    before: list[UnitAction] = []
    if any(action.unit == systemd.ENUMERATOR for action in (*plan.after, *due)):
        before, due = _split_restarts(due, units)
    restarted = {action.unit for action in due if action.verb == "restart"}
    after = [action for action in plan.after if action.verb != "reload" or action.unit not in restarted]
    why = (
        f"waiting until the mains are back, because of {', '.join(power)}"
        if power
        else "upsd is not answering, so it is unknown whether the mains are on"
    )
    lines = tuple(f"{action.verb} {action.unit} is postponed ({action.reason}): {why}" for action in postponed)
    ordered = tuple(sorted([*after, *due], key=rank_action)) if due else plan.after
    return replace(plan, before=(*plan.before, *before), after=ordered, deferred=(*plan.deferred, *lines)), postponed


def _still_owed(noted: Sequence[UnitAction], drivers: Sequence[str]) -> list[UnitAction]:
    """Return the noted actions that still apply to these drivers. A stop and a start of one unit become a restart."""
    stopped = {action.unit for action in noted if action.verb == "stop"}
    owed: dict[tuple[str, str], UnitAction] = {}
    for action in noted:
        if action.verb == "disable --now":
            # only the play itself disables units, except for a driver whose section was removed
            if systemd.is_driver(action.unit) and action.unit not in drivers:
                owed.setdefault((action.verb, action.unit), action)
        elif action.unit in drivers:
            again = replace(action, verb="restart") if action.unit in stopped else action
            owed.setdefault(("", action.unit), again)
        elif action.unit in _OWN:
            owed.setdefault((action.verb, action.unit), action)
    return list(owed.values())


def _split_restarts(
    due: Sequence[UnitAction], units: Mapping[str, systemd.Unit]
) -> tuple[list[UnitAction], list[UnitAction]]:
    """Split restarts of running drivers into stop and start, so that the enumerator of 2.8.1 does not reload them in between."""
    running = [
        action
        for action in due
        if action.verb == "restart" and systemd.is_driver(action.unit) and units.get(action.unit, systemd.ABSENT).runs
    ]
    stops = [replace(action, verb="stop") for action in running]
    return stops, [replace(action, verb="start") if action in running else action for action in due]


def _must_wait(action: UnitAction, units: Mapping[str, systemd.Unit]) -> bool:
    """Return whether an action must wait for the mains: a stopped unit can be started at any time, a running one is left alone."""
    if action.verb == "enable" or (action.verb == "start" and systemd.is_driver(action.unit)):
        return False
    # the enumerator stops drivers whose section was removed
    return units.get(systemd.SERVER if action.unit == systemd.ENUMERATOR else action.unit, _RUNS).runs
