# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the settings must be so that a plan holds, all together, and the sums behind that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..conf.upsd import IDLE_SECONDS
from .model import GUEST, LEAST_HOSTSYNC, PlanMachine, Supply, Timing
from .supplies import CPS_STEP, DELAYS, is_cyberpower, low_marks, notice_time, reading_age, real_delays
from .timeline import LOOK, Milestones, PlanInputs, compute_milestones, stage_delays

# FINALDELAY is a floor under the gate.
LEAST_FINALDELAY = 2
SYNC_MARGIN = 5
# between the moment that the UPS should have cut and the reboot that is done instead
REBOOT_MARGIN = 60
# a look that fails is no reason yet: so many of them must
LOOKS = 3
# The least that the gate leaves to the primary: as the role's default
LEAST_LEFT = 30

# A sum: its parts, each with what it is
Terms = list[tuple[float, str]]


def sum_terms(terms: Iterable[tuple[float, str]]) -> float:
    """Add up a sum."""
    return sum(value for value, _what in terms)


def compute_needed(given: PlanInputs) -> dict[str, Any]:
    """Return what the settings must be: at least, or at most; longer and shorter ones will do as well."""
    timing = given.timing
    begin = max((secondary.begin_time for secondary in given.secondaries), default=0)
    hostsync = max(LEAST_HOSTSYNC, math.ceil(begin + SYNC_MARGIN))
    limits = {secondary.name: _limit_needed(secondary, timing) for secondary in given.secondaries}
    guests = max([given.guests_time, given.proxmox.seconds or 0, *(guest.shutdown_limit for guest in given.unstaged)])
    polls = {name: min(value, IDLE_SECONDS - 1) for name, value in polls_of(timing).items()}
    mended = replace(
        given,
        machines=tuple(
            replace(each, shutdown_limit=limits.get(each.name, each.shutdown_limit)) for each in given.machines
        ),
        supplies=tuple(replace(supply, ignorelb=True) for supply in given.supplies),
        timing=replace(
            timing,
            hostsync=max(hostsync, timing.hostsync),
            finaldelay=max(LEAST_FINALDELAY, timing.finaldelay),
            guests_time=guests,
        ),
    )
    lowest = [sum_terms(terms_at_limits(mended, supply)) for supply in mended.supplies]
    delays = {supply.name: _delays_needed(supply, timing) for supply in given.supplies}
    off, on = ({name: pair[place] for name, pair in delays.items()} for place in (0, 1))
    return {
        "hostsync": hostsync,
        "finaldelay": LEAST_FINALDELAY,
        "deadtime": math.ceil(max(15, LOOKS * max(polls.values()))),
        **polls,
        "maxage": math.ceil(max(15, LOOKS * max(supply.pollinterval for supply in given.supplies))),
        "guests_time": guests,
        "runtime_low": math.ceil(max(lowest)),
        "longest": math.ceil(mended.slowest_limit + LOOK),
        # what the primary wants from its own poweroff on; and that without guests, and without anything kept back
        "reserve": math.ceil(sum_terms(_reserve_terms(mended))),
        "least": math.ceil(max(LEAST_LEFT, timing.own_shutdown + timing.killpower)),
        "poweroff_wait": math.ceil(timing.killpower + max(off.values()) + REBOOT_MARGIN),
        # these by machine
        "limits": limits,
        "guest_timeouts": {machine.name: machine.shutdown_limit for machine in given.machines if machine.role == GUEST},
        # and these by UPS
        "offdelay": off,
        "ondelay": on,
    }


def polls_of(timing: Timing) -> dict[str, float]:
    """Return the two intervals of upsmon by their names."""
    return {"pollfreq": timing.pollfreq, "pollfreqalert": timing.pollfreqalert}


def _limit_needed(secondary: PlanMachine, timing: Timing) -> float:
    return max(secondary.shutdown_limit, math.ceil(secondary.shutdown_time + timing.settle))


def _delays_needed(supply: Supply, timing: Timing) -> tuple[float, float]:
    """Return an offdelay and an ondelay that will do: those that are, if they do."""
    off, on = real_delays(supply, timing.release)
    step = CPS_STEP if is_cyberpower(supply) or supply.driver == "nutdrv_qx" else 10
    if off is None or off < timing.killpower:
        off = max(DELAYS["usbhid-ups"][0], math.ceil(timing.killpower / step) * step)
        off = math.ceil(off / step) * step
    if on is None or on <= off:
        on = off // step * step + step
    return off, on


def needed_stage_runtime(given: PlanInputs, seconds: float, runtime_low: float) -> int:
    """Return with how much left a stage must begin whose guests take so long."""
    marks = [runtime_low, *(low_marks(supply)[1] or 0 for supply in given.supplies)]
    late = max(stage_delays(given.timing, supply)[1] for supply in given.supplies)
    return math.ceil(max(marks) + late + seconds)


# At the limits


def terms_at_limits(given: PlanInputs, supply: Supply) -> Terms:
    """Return what the battery must last from its low mark on."""
    return [*waits_at_limits(given, supply), *_reserve_terms(given)]


def waits_at_limits(given: PlanInputs, supply: Supply) -> Terms:
    """Return what passes at most from the low mark until the gate is over."""
    timing = given.timing
    return [
        (notice_time(supply, timing.release), "until upsd says so"),
        (timing.poll, "poll"),
        (timing.hostsync if given.secondaries else 0, "HOSTSYNC"),
        (timing.finaldelay, "FINALDELAY"),
        (given.slowest_limit, "limit of the slowest"),
        (LOOK, "look"),
    ]


def _reserve_terms(given: PlanInputs) -> Terms:
    """Return what the primary needs from its poweroff on. The time left that the gate sees may be old."""
    timing = given.timing
    return [
        (given.guests_time, "guests"),
        (timing.own_shutdown, "the primary itself"),
        (timing.killpower, "killpower"),
        (max(reading_age(supply, timing.release) for supply in given.supplies), "age of the reading"),
        (timing.margin, "margin"),
    ]


# As expected


def terms_as_expected(given: PlanInputs, noticed: float) -> Terms:
    """Return what passes as expected from the low mark until all are off; NOTICED seconds until upsd says so."""
    clock = compute_milestones(given, worst=False)
    return [
        *waits_as_expected(clock, noticed),
        (clock.stopped - clock.poweroff, "guests"),
        (clock.killing - clock.stopped, "the primary itself"),
        (clock.off - clock.killing, "killpower"),
        (max([0, *(end - clock.off for end in clock.down.values())]), "until the others are down"),
    ]


def waits_as_expected(clock: Milestones, noticed: float) -> Terms:
    """Return what passes as expected from the low mark until the gate is over."""
    return [
        (noticed, "until upsd says so"),
        (clock.fsd, "poll"),
        (clock.synced - clock.fsd, "until the others begin"),
        (clock.gate - clock.synced, "FINALDELAY"),
        (clock.poweroff - clock.gate, "until they are down"),
    ]
