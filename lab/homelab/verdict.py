# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was observed of a power cut, what is expected, and the verdict. judge_case is a pure function of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SETTLE = 3.0  # seconds; the default of nut_server_gate.settle
SOON = 8.0
"""Allowed seconds from the end of the last secondary to the beginning of the primary's shutdown: SETTLE, up to 3 s for polling the
machines and for systemd, and FINALDELAY if that secondary is down as soon as it has logged out."""

BATTERY_LOW = "battery low"
"""The event of a battery that is made low, where a site has one UPS."""

WOKEN = " is woken by a packet"
"""The end of an event, after the name of a machine."""

LATE = " boots late"
"""The end of an event, after the name of a machine that has had power for a while."""

PLUGGED_IN = ": power cord plugged in"
"""The end of an event, after the name of a machine."""

QUEUE_SECONDS = 3.0
"""Seconds added to each limit per process that waits for a processor: on a busy machine, each poll of the gate and systemd's first
step have to wait."""


# Observation


@dataclass(frozen=True)
class Stop:
    """How a machine went down. Times are seconds since the case began."""

    host: str
    role: str  # "primary" or "secondary"
    began: float | None  # the beginning of its shutdown; None if it had none
    down: float
    # "shutdown"; "lost": it was running when its outlet went off; "pulled", "reboot": a step of the case; "reset": by its watchdog;
    # "stopped": without a shutdown
    how: str


@dataclass(frozen=True)
class Observation:
    """What was observed of a case. Times are seconds since it began."""

    primary: str
    secondaries: tuple[str, ...]
    stops: tuple[Stop, ...] = ()
    cuts: tuple[float, ...] = ()  # when the primary's outlets went off
    events: tuple[tuple[float, str], ...] = ()
    gate: Mapping[str, Any] | None = None  # the report of nut-shutdown, if it ran
    stayed_off: tuple[str, ...] = ()  # machines that stayed off although there was power
    faults: tuple[str, ...] = ()  # what was wrong after the site was restored
    guests: tuple[tuple[float, int, str], ...] = ()  # time, number and event of Proxmox's guests
    load: float = 0.0  # highest load average per processor

    @property
    def extra_time(self) -> float:
        """Seconds by which every limit is extended."""
        return extra_time(self.load)

    def last_stop(self, host: str) -> Stop | None:
        """Return how a machine went down the last time, except for reboots."""
        found = [stop for stop in self.stops if stop.host == host and stop.how != "reboot"]
        return found[-1] if found else None


def extra_time(busy: float) -> float:
    """Return the seconds by which limits are extended at this load per processor."""
    return QUEUE_SECONDS * max(0.0, busy - 1)


# Expectation

ExtraCheck = Callable[[Observation], "list[str]"]


@dataclass(frozen=True)
class Expectation:
    """What must be true of a case."""

    # "stays": no machine goes down; "cycle": all go down, lose their power and come back; "either": one of these;
    # "secondaries": all go down and come back, except for the primary, which has a UPS left
    ends: str = "cycle"
    late: tuple[str, ...] = ()  # machines that may still be up when the primary begins to power off
    lost: tuple[str, ...] = ()  # machines that may lose their power while they are running
    rules: tuple[str, ...] = ("down",)  # that may have ended the gate; (): it need not have run
    max_wait: float | None = SOON  # seconds from the end of the last secondary to the primary's shutdown; None: any
    checks: tuple[ExtraCheck, ...] = ()


STAYS = Expectation("stays")
EITHER = Expectation("either", rules=(), max_wait=None)


def judge_case(want: Expectation, seen: Observation) -> list[str]:
    """Return what went wrong; empty if the case held."""
    hosts = (seen.primary, *seen.secondaries)
    stops = [stop for stop in seen.stops if stop.how in ("shutdown", "lost", "stopped")]
    wrong = [f"{host} stayed off, and nothing would have started it" for host in seen.stayed_off]
    wrong += [
        f"{stop.host} lost its power while it ran"
        for stop in stops
        if stop.how == "lost" and stop.host not in want.lost
    ]
    wrong += [f"{stop.host} stopped without a shutdown" for stop in stops if stop.how == "stopped"]
    wrong += [f"{stop.host} was reset by its watchdog" for stop in seen.stops if stop.how == "reset"]
    if want.ends == "cycle" or (want.ends == "either" and stops):
        wrong += _check_cycle(want, seen, hosts)
    elif want.ends == "secondaries":
        wrong += _check_secondaries(seen)
    elif stops:
        wrong += [f"{stop.host} went down" for stop in stops]
    elif seen.cuts:
        wrong.append("the UPS cut its outlets")
    return [*wrong, *(words for find_problems in want.checks for words in find_problems(seen)), *seen.faults]


def _check_cycle(want: Expectation, seen: Observation, hosts: Sequence[str]) -> list[str]:
    wrong = [f"{host} did not go down" for host in hosts if seen.last_stop(host) is None]
    primary = seen.last_stop(seen.primary)
    if primary is None or primary.how != "shutdown" or primary.began is None:
        return [*wrong, f"{seen.primary} did not begin a shutdown"]
    if not [cut for cut in seen.cuts if cut >= primary.down]:
        wrong.append("the UPS did not cut its outlets, so nothing starts when the mains return")
    for host in seen.secondaries:
        stop = seen.last_stop(host)
        if stop and host not in want.late and stop.down >= primary.began:
            wrong.append(
                f"{host} was not down when {seen.primary} began to power off, {stop.down - primary.began:.1f} s too late"
            )
    if want.rules:
        rule = seen.gate["rule"] if seen.gate else None
        if rule not in want.rules:
            wrong.append(f"the gate ended by the rule {rule}, not {' or '.join(want.rules)}")
    after = measure_wait(seen)
    if want.max_wait is not None and after is not None and after > want.max_wait + seen.extra_time:
        most = want.max_wait + seen.extra_time
        wrong.append(
            f"{seen.primary} began {after:.1f} s after the last secondary was down; at most {most:g} s are allowed"
        )
    return wrong


def _check_secondaries(seen: Observation) -> list[str]:
    wrong = [f"{host} did not go down" for host in seen.secondaries if seen.last_stop(host) is None]
    return wrong + ([f"{seen.primary} went down"] if seen.last_stop(seen.primary) else [])


def measure_wait(seen: Observation) -> float | None:
    """Return the seconds from the end of the last secondary to the beginning of the primary's shutdown, if both happened."""
    primary = seen.last_stop(seen.primary)
    downs = [stop.down for host in seen.secondaries if (stop := seen.last_stop(host))]
    if primary is None or primary.began is None or not downs:
        return None
    return primary.began - max(downs)


def nas_takes(seconds: float) -> ExtraCheck:
    """Check that TrueNAS took at least this long; a quicker one would prove nothing."""

    def find_problems(seen: Observation) -> list[str]:
        stop = seen.last_stop(seen.secondaries[0])
        if stop is None or stop.began is None or stop.down - stop.began < seconds:
            return [f"{seen.secondaries[0]} did not take {seconds:g} s to go down"]
        return []

    return find_problems


def primary_within(seconds: float) -> ExtraCheck:
    """Check that the primary began within this time after the low battery or the FSD."""

    def find_problems(seen: Observation) -> list[str]:
        stop = seen.last_stop(seen.primary)
        start = next((at for at, words in seen.events if words in (BATTERY_LOW, "FSD")), None)
        if start is None or stop is None or stop.began is None or stop.began - start > seconds + seen.extra_time:
            return [f"{seen.primary} did not begin to power off within {seconds:g} s"]
        return []

    return find_problems


def begins_within(seconds: float, event: str = BATTERY_LOW) -> ExtraCheck:
    """Check that the first machine began within this time after the low battery, or another event, and not before."""

    def find_problems(seen: Observation) -> list[str]:
        after = measure_delay(seen.events, [stop.began for stop in seen.stops], event)
        if after is None or not 0 <= after <= seconds + seen.extra_time:
            what = "the battery was low" if event == BATTERY_LOW else f'"{event}"'
            return [f"the shutdown began {after} s after {what}, not between 0 and {seconds:g} s"]
        return []

    return find_problems


def measure_delay(
    events: Iterable[Sequence[Any]], begins: Iterable[float | None], start: str = BATTERY_LOW
) -> float | None:
    """Return the seconds from the low battery, or another event, to the first machine's shutdown; None if one did not happen."""
    low = next((float(event[0]) for event in events if event[1] == start), None)
    began = min((moment for moment in begins if moment is not None), default=None)
    return None if low is None or began is None else round(began - low, 1)


def guests_first(*numbers: int) -> ExtraCheck:
    """Check that these guests were down before the first secondary began to go down."""

    def find_problems(seen: Observation) -> list[str]:
        stop = seen.last_stop(seen.secondaries[0])
        wrong = []
        for number in numbers:
            down = next(
                (at for at, guest, event in seen.guests if guest == number and event in ("down", "killed")), None
            )
            if down is None or stop is None or stop.began is None or down >= stop.began:
                wrong.append(f"guest {number} was not down before {seen.secondaries[0]} began to go down")
        return wrong

    return find_problems


def guests_ended(*numbers: int) -> ExtraCheck:
    """Check that these guests shut down cleanly before the primary was down."""

    def find_problems(seen: Observation) -> list[str]:
        stop = seen.last_stop(seen.primary)
        wrong = []
        for number in numbers:
            down = next((at for at, guest, event in seen.guests if guest == number and event == "down"), None)
            if down is None or stop is None or down >= stop.down:
                wrong.append(f"guest {number} did not shut down cleanly")
        return wrong

    return find_problems


def guests_clean(*numbers: int, times: int = 1) -> ExtraCheck:
    """Check that these guests shut down cleanly whenever the primary went down, and so often in all; no guest starts meanwhile."""

    def find_problems(seen: Observation) -> list[str]:
        wrong = []
        stops = [stop for stop in seen.stops if stop.host == seen.primary]
        for number in numbers:
            events = [(at, event) for at, guest, event in seen.guests if guest == number]
            done = [event for _at, event in events]
            if "killed" in done or done.count("down") < times:
                wrong.append(
                    f"guest {number} did not shut down cleanly {times} times: {', '.join(done) or 'no events'}"
                )
            for stop in stops:
                before = [event for at, event in events if at < stop.down]
                if before and before[-1] in ("started", "told"):
                    wrong.append(f"guest {number} was running when {seen.primary} went down")
        wrong += [
            f"guest {guest} was started while {seen.primary} went down"
            for at, guest, event in seen.guests
            if event == "started" and any(stop.began is not None and stop.began < at < stop.down for stop in stops)
        ]
        return wrong

    return find_problems


def guests_back(*numbers: int) -> ExtraCheck:
    """Check that these guests were started after the primary was down for the last time."""

    def find_problems(seen: Observation) -> list[str]:
        stop = seen.last_stop(seen.primary)
        since = stop.down if stop else 0.0
        started = {guest for at, guest, event in seen.guests if event == "started" and at > since}
        return [f"guest {number} was not started again" for number in numbers if number not in started]

    return find_problems


def guests_again(*numbers: int) -> ExtraCheck:
    """Check that these guests were stopped and started again."""

    def find_problems(seen: Observation) -> list[str]:
        wrong = []
        for number in numbers:
            done = [event for _at, guest, event in seen.guests if guest == number]
            if done[-3:] != ["told", "down", "started"]:
                wrong.append(f"guest {number} was not stopped and started again: {', '.join(done) or 'no events'}")
        return wrong

    return find_problems


def woken(*hosts: str) -> ExtraCheck:
    """Check that these machines ("nas" is TrueNAS), by default all secondaries, were started by Wake-on-LAN."""

    def find_problems(seen: Observation) -> list[str]:
        names = [seen.secondaries[0] if host == "nas" else host for host in hosts] or seen.secondaries
        events = [words for _at, words in seen.events]
        return [f"{name} was not woken" for name in names if f"{name}{WOKEN}" not in events]

    return find_problems


def not_before(event: str, *late: str) -> ExtraCheck:
    """Check that guests were started and machines woken only after an event. late: numbers of guests, and WOKEN."""

    def find_problems(seen: Observation) -> list[str]:
        at = next((moment for moment, words in seen.events if words.endswith(event)), None)
        if at is None:
            return [f"{event}: did not happen"]
        down = max((stop.down for stop in seen.stops if stop.host == seen.primary), default=0.0)
        early = [words for moment, words in seen.events if WOKEN in late and words.endswith(WOKEN) and moment < at]
        early += [
            f"guest {number} was started"
            for moment, number, what in seen.guests
            if str(number) in late and what == "started" and down < moment < at
        ]
        return [f"{words}, before: {event}" for words in early]

    return find_problems


# Description


def describe_events(seen: Observation) -> str:
    """Return the events as text, in order of time."""
    events = [(at, words) for at, words in seen.events if words != "POWERDOWNFLAG"]
    events += [(at, f"guest {number} {what}") for at, number, what in seen.guests if what != "told"]
    if seen.gate and seen.gate.get("rule"):
        steps = seen.gate["steps"]
        start = next((at for at, words in events if words == "the gate begins"), None)
        if start is not None and steps:
            events.append((round(start + steps[-1][0], 1), f"the gate ends ({seen.gate['rule']})"))
    return "; ".join(f"{at:.0f} {words}" for at, words in sorted(events))
