# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was seen of a power cut, what must be true of it, and whether it was: judge() looks at what was seen, and at nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SETTLE = 3.0  # nut_server_gate.settle, as the lab's inventory leaves it
SOON = 8.0
"""Seconds from the end of the last secondary to the begin of the primary's shutdown, at most: SETTLE, up to 3 s for a look at the
machines and for systemd, and FINALDELAY, if that secondary is down as soon as it has logged out."""

QUEUE_SECONDS = 3.0
"""What is added to each limit for each further process that waits for a processor: on a machine that runs other tests at the
same time, each of the gate's looks, and systemd's first step, wait for one."""


# What is seen


@dataclass(frozen=True)
class Stop:
    """How a machine went down. began, down: seconds since the case began; began is None if it had no time to.

    how: "shutdown", by itself; "lost", it ran when its outlet went off; "pulled" and "reboot", the case did it; "stopped", it
    ended without a shutdown.
    """

    host: str
    role: str
    began: float | None
    down: float
    how: str


@dataclass(frozen=True)
class Observation:
    """What was seen of a case. Times: seconds since it began.

    events: what happened to whom, in words. cuts: when the outlets went off. gate: the report of nut-shutdown, if it ran.
    asleep: who stayed off though there was power. unwell: what was wrong when all had been up again for a while. busy: how many
    processes there were for each processor, at most.
    """

    primary: str
    secondaries: tuple[str, ...]
    stops: tuple[Stop, ...] = ()
    cuts: tuple[float, ...] = ()
    events: tuple[tuple[float, str], ...] = ()
    gate: Mapping[str, Any] | None = None
    stayed_off: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    guests: tuple[tuple[float, int, str], ...] = ()
    load: float = 0.0

    @property
    def extra_time(self) -> float:
        """Seconds that all may take longer."""
        return extra_time(self.load)

    def last_stop(self, host: str) -> Stop | None:
        """Return how a machine went down at last, but for reboots."""
        found = [fall for fall in self.stops if fall.host == host and fall.how != "reboot"]
        return found[-1] if found else None


def extra_time(busy: float) -> float:
    """Return how many seconds a limit is longer on a machine with so many processes for each processor."""
    return QUEUE_SECONDS * max(0.0, busy - 1)


# What must be true

ExtraCheck = Callable[[Observation], "list[str]"]


@dataclass(frozen=True)
class Expectation:
    """What must be true of a case.

    ends: "stays", nobody goes down; "cycle", all go down, lose their power, and come back; "either" of them, and nothing between.
    late: who may be up when the primary begins to power off. lost: who may lose its power while it runs. rules: by which of them
    the gate must have ended; () if it need not have run. soon: how long after the last secondary the primary begins; None: not
    looked at. also: what else.
    """

    ends: str = "cycle"
    late: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    rules: tuple[str, ...] = ("down",)
    max_wait: float | None = SOON
    checks: tuple[ExtraCheck, ...] = ()


def judge_case(want: Expectation, seen: Observation) -> list[str]:
    """Say in words what was wrong. Nothing: it was as it must be."""
    hosts = (seen.primary, *seen.secondaries)
    fell = [fall for fall in seen.stops if fall.how in ("shutdown", "lost", "stopped")]
    wrong = [f"{host} stayed off, and nothing would have started it" for host in seen.stayed_off]
    wrong += [
        f"{fall.host} lost its power while it ran" for fall in fell if fall.how == "lost" and fall.host not in want.lost
    ]
    wrong += [f"{fall.host} stopped without a shutdown" for fall in fell if fall.how == "stopped"]
    if want.ends == "cycle" or (want.ends == "either" and fell):
        wrong += _check_cycle(want, seen, hosts)
    elif fell:
        wrong += [f"{fall.host} went down" for fall in fell]
    elif seen.cuts:
        wrong.append("the UPS cut its outlets")
    return [*wrong, *(words for check in want.checks for words in check(seen)), *seen.faults]


def _check_cycle(want: Expectation, seen: Observation, hosts: Sequence[str]) -> list[str]:
    wrong = [f"{host} did not go down" for host in hosts if seen.last_stop(host) is None]
    primary = seen.last_stop(seen.primary)
    if primary is None or primary.how != "shutdown" or primary.began is None:
        return [*wrong, f"{seen.primary} began no shutdown of its own"]
    if not [cut for cut in seen.cuts if cut >= primary.down]:
        wrong.append("the UPS did not cut its outlets, so nothing starts when the mains return")
    for host in seen.secondaries:
        fall = seen.last_stop(host)
        if fall and host not in want.late and fall.down >= primary.began:
            wrong.append(
                f"{host} was not down when {seen.primary} began to power off, {fall.down - primary.began:.1f} s too late"
            )
    if want.rules:
        rule = seen.gate["rule"] if seen.gate else None
        if rule not in want.rules:
            wrong.append(f"the gate ended by the rule {rule}, not {' or '.join(want.rules)}")
    after = measure_wait(seen)
    if want.max_wait is not None and after is not None and after > want.max_wait + seen.extra_time:
        most = want.max_wait + seen.extra_time
        wrong.append(f"{seen.primary} began {after:.1f} s after the last secondary was down; {most:g} s at most")
    return wrong


def measure_wait(seen: Observation) -> float | None:
    """Return the seconds from the end of the last secondary to the begin of the primary's own shutdown, if there are such."""
    primary = seen.last_stop(seen.primary)
    downs = [fall.down for host in seen.secondaries if (fall := seen.last_stop(host))]
    if primary is None or primary.began is None or not downs:
        return None
    return primary.began - max(downs)


def nas_takes(seconds: float) -> ExtraCheck:
    """TrueNAS really took that long: a quick one would prove nothing."""

    def check(seen: Observation) -> list[str]:
        fall = seen.last_stop(seen.secondaries[0])
        if fall is None or fall.began is None or fall.down - fall.began < seconds:
            return [f"{seen.secondaries[0]} did not take {seconds:g} s to go down"]
        return []

    return check


def primary_within(seconds: float) -> ExtraCheck:
    """The primary began that soon after the battery was low (or after the FSD)."""

    def check(seen: Observation) -> list[str]:
        fall = seen.last_stop(seen.primary)
        start = next((at for at, words in seen.events if words in ("battery low", "FSD")), None)
        if start is None or fall is None or fall.began is None or fall.began - start > seconds + seen.extra_time:
            return [f"{seen.primary} did not begin to power off within {seconds:g} s"]
        return []

    return check


def begins_within(seconds: float) -> ExtraCheck:
    """The first machine began that soon after the battery was low, and not before."""

    def check(seen: Observation) -> list[str]:
        after = measure_delay(seen.events, [fall.began for fall in seen.stops])
        if after is None or not 0 <= after <= seconds + seen.extra_time:
            return [f"the shutdown did not begin between 0 and {seconds:g} s after the battery was low, but {after}"]
        return []

    return check


def measure_delay(events: Iterable[Sequence[Any]], begins: Iterable[float | None]) -> float | None:
    """Return the seconds from the low battery to the first machine that begins to go down; None if one of them is missing."""
    low = next((float(event[0]) for event in events if event[1] == "battery low"), None)
    began = min((moment for moment in begins if moment is not None), default=None)
    return None if low is None or began is None else round(began - low, 1)


def guests_first(*numbers: int) -> ExtraCheck:
    """These guests were down before the first secondary began to go down."""

    def check(seen: Observation) -> list[str]:
        fall = seen.last_stop(seen.secondaries[0])
        wrong = []
        for number in numbers:
            down = next((at for at, one, what in seen.guests if one == number and what in ("down", "killed")), None)
            if down is None or fall is None or fall.began is None or down >= fall.began:
                wrong.append(f"guest {number} was not down before {seen.secondaries[0]} began to go down")
        return wrong

    return check


def guests_ended(*numbers: int) -> ExtraCheck:
    """These guests went down by themselves, before the primary was down."""

    def check(seen: Observation) -> list[str]:
        fall = seen.last_stop(seen.primary)
        wrong = []
        for number in numbers:
            down = next((at for at, one, what in seen.guests if one == number and what == "down"), None)
            if down is None or fall is None or down >= fall.down:
                wrong.append(f"guest {number} did not go down by itself")
        return wrong

    return check


def guests_again(*numbers: int) -> ExtraCheck:
    """These guests were stopped, and started again."""

    def check(seen: Observation) -> list[str]:
        wrong = []
        for number in numbers:
            done = [what for _at, one, what in seen.guests if one == number]
            if done[-3:] != ["told", "down", "started"]:
                wrong.append(
                    f"guest {number} was not stopped and started again: {', '.join(done) or 'nothing is known of it'}"
                )
        return wrong

    return check


# What is told


def describe_events(seen: Observation) -> str:
    """Tell what happened, in the order of time."""
    events = [(at, words) for at, words in seen.events if words != "POWERDOWNFLAG"]
    events += [(at, f"guest {number} {what}") for at, number, what in seen.guests if what != "told"]
    if seen.gate and seen.gate.get("rule"):
        steps = seen.gate["steps"]
        start = next((at for at, words in events if words == "the gate begins"), None)
        if start is not None and steps:
            events.append((round(start + steps[-1][0], 1), f"the gate ends ({seen.gate['rule']})"))
    return "; ".join(f"{at:.0f} {words}" for at, words in sorted(events))
