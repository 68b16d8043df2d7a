# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings that make a plan hold, all together, and the sums behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..conf.upsd import IDLE_SECONDS
from .model import GUEST, MIN_HOSTSYNC, PlanMachine, Supply, Timing
from .supplies import (
    CPS_STEP,
    DEFAULT_DELAYS,
    find_low_mark,
    highest_mark,
    is_cyberpower,
    notice_time,
    reading_age,
    real_delays,
    restores_at_once,
    watch_time,
    when_charged,
)
from .timeline import GATE_ROUND, Milestones, PlanInputs, compute_milestones, stage_delays, time_elsewhere

# FINALDELAY passes before the gate begins, even if all machines are down.
MIN_FINALDELAY = 2
SYNC_MARGIN = 5
# from the moment at which the UPS should have cut the power until the host reboots instead
REBOOT_MARGIN = 60
# One failed poll proves nothing; this many in a row do.
POLLS = 3
# An outage that is shorter shuts nothing down.
SHORT_OUTAGE = 60
# The time left at which nut-stages begins the shutdown is a multiple of this: the battery's runtime is never quite the same.
RUNTIME_STEP = 30
# A deployed one stays if the battery allows at most this much more (1/STEADY).
STEADY = 0.75
# The least that the gate leaves for the primary; the role's default is the same.
MIN_RESERVE = 30

# A sum: (seconds, what they are for)
Terms = list[tuple[float, str]]


def sum_terms(terms: Iterable[tuple[float, str]]) -> float:
    """Return the total of a sum."""
    return sum(value for value, _what in terms)


def compute_needed(inputs: PlanInputs) -> dict[str, Any]:
    """Return the settings that the plan needs. Each is a minimum or a maximum."""
    timing = inputs.timing
    begin = max((secondary.begin_time for secondary in inputs.secondaries), default=0)
    hostsync = max(MIN_HOSTSYNC, math.ceil(begin + SYNC_MARGIN))
    limits = {secondary.name: _needed_limit(secondary, timing) for secondary in inputs.secondaries}
    guests = max(
        [
            inputs.guests_time,
            inputs.proxmox.stop_limit or 0,
            *(guest.shutdown_limit for guest in inputs.unstaged_guests),
        ]
    )
    polls = {name: min(value, IDLE_SECONDS - 1) for name, value in poll_intervals(timing).items()}
    corrected = replace(
        inputs,
        machines=tuple(
            replace(machine, shutdown_limit=limits.get(machine.name, machine.shutdown_limit))
            for machine in inputs.machines
        ),
        # nut-stages sees when the battery is low (nut_server_runtime_low), or NUT does for a UPS that does not report battery.runtime
        supplies=tuple(replace(supply, ignorelb=True, watched=math.inf) for supply in inputs.supplies),
        timing=replace(
            timing,
            hostsync=max(hostsync, timing.hostsync),
            finaldelay=max(MIN_FINALDELAY, timing.finaldelay),
            guests_time=guests,
        ),
    )
    lowest = [sum_terms(worst_terms(corrected, supply)) for supply in corrected.supplies]
    delays = {supply.name: _needed_delays(supply, timing) for supply in inputs.supplies}
    off, on = ({name: pair[place] for name, pair in delays.items()} for place in (0, 1))
    return {
        "hostsync": hostsync,
        "finaldelay": MIN_FINALDELAY,
        "deadtime": math.ceil(max(15, POLLS * max(polls.values()))),
        **polls,
        "maxage": math.ceil(max(15, POLLS * max(supply.pollinterval for supply in inputs.supplies))),
        "guests_time": guests,
        "runtime_low": math.ceil(max(lowest)),
        "gate_timeout": math.ceil(corrected.slowest_limit + GATE_ROUND),
        # what the primary needs from its own poweroff on; and that without guests, and without the margin
        "reserve": math.ceil(sum_terms(_reserve_terms(corrected))),
        "reserve_minimum": math.ceil(max(MIN_RESERVE, timing.own_shutdown + timing.killpower)),
        "poweroff_wait": math.ceil(timing.killpower + max(off.values()) + REBOOT_MARGIN),
        # by machine
        "limits": limits,
        "guest_timeouts": {
            machine.name: machine.shutdown_limit for machine in inputs.machines if machine.role == GUEST
        },
        # by UPS
        "offdelay": off,
        "ondelay": on,
    }


def runtime_notice_time(supply: Supply, timing: Timing) -> float:
    """Return how many seconds may pass until a battery that is low begins the shutdown, if this host decides when it is low."""
    if supply.reports_runtime is False:
        return notice_time(replace(supply, ignorelb=True), timing.release)
    return watch_time(supply, timing.release)


def choose_runtime_low(inputs: PlanInputs, needed: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return with how much battery left nut-stages begins the shutdown, and why; None: it does not.

    AUTO is enough for the worst case, or as much as the battery has beyond a short outage. What is deployed stays while upsd reports
    no runtime, and while the battery allows little more: a reading that wavers must not change the number with each run.
    """
    given = inputs.timing.runtime_low
    if not isinstance(given, str):
        how = "not set: the UPS alone decides when its battery is low" if given is None else f"{given:g}"
        return given, f"nut_server_runtime_low is {how}"
    charged = [when_charged(supply) for supply in inputs.supplies if supply.reports_runtime is not False]
    deployed = inputs.timing.deployed_runtime_low
    if not charged:
        return None, "no UPS reports battery.runtime: the UPS alone decides when its battery is low"
    known = [supply.runtime for supply in charged if supply.runtime is not None]
    if not known and deployed is not None:
        return deployed, "as deployed: upsd does not report battery.runtime now"
    if not known:
        return None, "not known until upsd reports battery.runtime"
    worst = math.ceil(needed["runtime_low"] / RUNTIME_STEP) * RUNTIME_STEP
    most = math.floor((min(known) - SHORT_OUTAGE) / RUNTIME_STEP) * RUNTIME_STEP
    if worst <= most:
        rounded = f", rounded up to a multiple of {RUNTIME_STEP}" if worst > needed["runtime_low"] else ""
        return worst, f"the worst case of this plan needs {needed['runtime_low']} s{rounded}"
    if deployed is not None and STEADY * most <= deployed <= most:
        most = math.floor(deployed)
    full = f"the battery lasts {min(known):.0f} s when charged"
    return max(
        most, 1
    ), f"as early as possible: {full}, and the worst case of this plan needs {needed['runtime_low']} s"


def poll_intervals(timing: Timing) -> dict[str, float]:
    """Return upsmon's two poll intervals by name."""
    return {"pollfreq": timing.pollfreq, "pollfreqalert": timing.pollfreqalert}


def _needed_limit(secondary: PlanMachine, timing: Timing) -> float:
    return max(secondary.shutdown_limit, math.ceil(secondary.shutdown_time + timing.settle))


def _needed_delays(supply: Supply, timing: Timing) -> tuple[float, float]:
    """Return an offdelay and an ondelay that are sufficient: today's where they are."""
    off, on = real_delays(supply, timing.release)
    step = CPS_STEP if is_cyberpower(supply) or supply.driver == "nutdrv_qx" else 10
    if off is None or off < timing.killpower:
        off = max(DEFAULT_DELAYS["usbhid-ups"][0], math.ceil(timing.killpower / step) * step)
        off = math.ceil(off / step) * step
    if on is None or (on <= off and not restores_at_once(supply)):
        on = off // step * step + step
    return off, on


def needed_stage_runtime(inputs: PlanInputs, seconds: float, runtime_low: float) -> int:
    """Return how much battery must be left when a stage begins whose guests take SECONDS."""
    marks = [runtime_low, *(highest_mark(supply) or 0 for supply in inputs.supplies)]
    delay = max(stage_delays(inputs.timing, supply)[1] for supply in inputs.supplies)
    return math.ceil(max(marks) + delay + seconds)


# The worst case


def worst_terms(inputs: PlanInputs, supply: Supply) -> Terms:
    """Return how long the battery must last once it is low, in the worst case."""
    return [*worst_waits(inputs, supply), *_reserve_terms(inputs)]


def worst_waits(inputs: PlanInputs, supply: Supply) -> Terms:
    """Return how long it takes from low battery until the gate ends, in the worst case."""
    timing, mark = inputs.timing, find_low_mark(supply, inputs.timing.release)
    by_stages = mark is not None and mark.decider == "nut-stages"
    return [
        (
            mark.notice if mark else notice_time(supply, timing.release),
            "until nut-stages sees it" if by_stages else "until upsd reports low battery",
        ),
        (time_elsewhere(inputs), f"until upsmon gives up on the primary of {' and '.join(timing.elsewhere)}"),
        (timing.poll_interval, "upsmon's poll"),
        (timing.hostsync if inputs.secondaries else 0, "HOSTSYNC"),
        (timing.finaldelay, "FINALDELAY"),
        (inputs.slowest_limit, "limit of the slowest secondary"),
        (GATE_ROUND, "the gate's poll"),
    ]


def _reserve_terms(inputs: PlanInputs) -> Terms:
    """Return what the primary needs from its poweroff on. The runtime that the gate reads may be old."""
    timing = inputs.timing
    return [
        (inputs.guests_time, "guests"),
        (timing.own_shutdown, "the primary's own shutdown"),
        (timing.killpower, "killpower"),
        (max(reading_age(supply, timing.release) for supply in inputs.supplies), "age of the battery reading"),
        (timing.margin, "margin"),
    ]


# The usual run


def usual_terms(inputs: PlanInputs, noticed: float) -> Terms:
    """Return how long it usually takes from low battery until all machines are off.

    noticed: seconds until upsd reports low battery.
    """
    clock = compute_milestones(inputs, worst=False)
    return [
        *usual_waits(clock, noticed),
        (clock.stopped - clock.poweroff, "guests"),
        (clock.killing - clock.stopped, "the primary's own shutdown"),
        (clock.off - clock.killing, "killpower"),
        (max([0, *(end - clock.off for end in clock.down.values())]), "until the last secondary is down"),
    ]


def usual_waits(clock: Milestones, noticed: float) -> Terms:
    """Return how long it usually takes from low battery until the gate ends."""
    return [
        (noticed, "until low battery is noticed"),
        (clock.elsewhere, "until upsmon gives up on the primaries of UPSes elsewhere"),
        (clock.fsd - clock.elsewhere, "upsmon's poll"),
        (clock.synced - clock.fsd, "until the secondaries begin"),
        (clock.gate - clock.synced, "FINALDELAY"),
        (clock.poweroff - clock.gate, "until the secondaries are down"),
    ]
