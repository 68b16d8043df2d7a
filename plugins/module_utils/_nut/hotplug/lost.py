# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide what to do about a driver that serves old data as fresh, because its device is gone from under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..conf.directives import Release
from ..usb import liveness
from ..usb.liveness import Loss


@dataclass(frozen=True)
class LostStep:
    """What to do about such a driver now."""

    wait_until: float | None = None  # look at it again then, and do nothing yet
    restart: str = ""  # the reason to restart it; "" if it is not restarted now
    fault: str = ""  # what is wrong, with the remedy; "" while the driver may still recover by itself
    deferred: str = ""  # why it is not restarted, for a person; "" if it is, or will be


def judge_lost_driver(
    name: str,
    status: Sequence[str],
    loss: Loss,
    *,
    now: float,
    grace: float,
    power: Sequence[str],
    release: Release | None,
    obstacle: str,
) -> LostStep:
    """Decide when a lost driver is restarted, or why it is not. The power state of other UPSes does not matter, except for a shutdown.

    grace: seconds in which a driver may recover by itself. power: the UPSes that are not plainly on mains, as text. obstacle: why a
    restart would not help; "" if it would.
    """
    if now < loss.since + grace:
        return LostStep(wait_until=loss.since + grace)
    flags = liveness.forbidding_flags(status, release)
    shutdowns = [text for text in power if "FSD" in text.rpartition("(")[2]]
    if not loss.is_proven:
        obstacle = obstacle or "what is known is not proof enough"
    elif flags:
        obstacle = f"upsmon would shut down at once, because upsd still says {' '.join(flags)}"
    elif shutdowns:
        obstacle = f"a shutdown is in progress, because of {', '.join(shutdowns)}"
    fault = (
        f"[{name}]: upsd serves old data as fresh ({' '.join(status)}): {loss.evidence}. "
        f"{liveness.compose_remedy(name, status, release)}"
    )
    if obstacle:
        return LostStep(fault=fault, deferred=f"[{name}]: its driver has old data, but is not restarted: {obstacle}")
    return LostStep(restart=f"[{name}] has old data: {loss.evidence}", fault=fault)


def describe_suspicion(name: str, status: Sequence[str], suspicion: str, release: Release | None) -> str:
    """Return a fault line about a driver whose data are doubtful. suspicion: the reason, as a clause."""
    return (
        f"[{name}]: its driver is suspect ({' '.join(status)}): {suspicion}. Compare its values with the display of the UPS. If they "
        f"differ: {liveness.compose_remedy(name, status, release)}"
    )
