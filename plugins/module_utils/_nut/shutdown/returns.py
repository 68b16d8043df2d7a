# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After an outage: which machines have come back, which are woken, and when the wait for them is over.

decide_return() is a pure function from the saved state and what is seen to the next state. return_keeper.py looks, wakes and tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import records
from ..base.clock import format_time
from ..base.text import printable
from .policy import ReturnPolicy

VERSION = 1  # of ReturnState in its file

# A machine needs minutes to boot; a packet to one that is on does nothing
WAKE_AGAIN_SECONDS = 60.0

# upsd lists a client that has vanished without a word, such as one that lost its network and then shut down, until it has heard
# nothing of it for 60 s (server/upsd.c, mainloop). A client may vanish for some time after the mains have returned: until it has heard
# of that.
VANISHED_SECONDS = 90.0


@dataclass(frozen=True)
class ReturnResult:
    """How the last return ended."""

    at: float  # seconds since 1970
    seconds: float  # from the return of the mains, or from the boot, to the end of the wait
    missing: tuple[str, ...] = ()  # machines that had not logged in by then, and have not since
    guests: tuple[str, ...] = ()  # guests that did not run, each with the reason
    woken: Mapping[str, int] = field(default_factory=dict)  # machine -> how often it was woken


@dataclass(frozen=True)
class ReturnState:
    """The saved state. Times are seconds of CLOCK_BOOTTIME; machines are named as in the policy."""

    boot: str = ""  # of base.clock.name_system_start()
    expected: tuple[str, ...] = ()  # machines that are logged in, or were before the outage
    is_out: bool = False  # an outage has begun, and its end has not been seen
    has_booted: bool = False  # this host has been down since
    since: float | None = None  # when the mains came back, or this host booted; None: nobody is awaited
    waking_since: float | None = None  # when machines could be woken; None: not yet
    woken_at: float | None = None  # when the missing machines were woken last
    was_missing: bool = False  # a machine or a guest has been seen missing since
    back: Mapping[str, float] = field(default_factory=dict)  # machine -> seconds from `since` to its login
    woken: Mapping[str, int] = field(default_factory=dict)  # machine -> how often it was woken
    result: ReturnResult | None = None  # of the last return

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the machines that have not come back yet."""
        return tuple(name for name in self.expected if name not in self.back)

    def after_boot(self, boot: str) -> ReturnState:
        """Return the state at the beginning of another boot. A return that was not over begins again."""
        is_open = self.is_out or self.since is not None
        return ReturnState(boot=boot, expected=self.expected, is_out=is_open, has_booted=is_open, result=self.result)


@dataclass(frozen=True)
class ReturnView:
    """What is seen at a moment."""

    is_outage: bool | None  # whether there is an outage; it ends when the mains are stable. None: unknown
    logged_in: frozenset[str] | None = None  # names of the machines that upsd lists as clients; None: unknown
    guests: tuple[str, ...] = ()  # guests that are still to be started, each with the reason
    hold: str = ""  # why nothing is started yet
    since: float = 0.0  # when the mains came back, or this host booted


@dataclass(frozen=True)
class ReturnDecision:
    """The new state, and what to do."""

    state: ReturnState
    wake: tuple[str, ...] = ()  # machines to wake now
    has_ended: bool = False  # whether the result is new


def decide_return(state: ReturnState, now: float, at: float, view: ReturnView, policy: ReturnPolicy) -> ReturnDecision:
    """Return the new state and what to do now. at: now, in seconds since 1970.

    - Awaited are the machines that were logged in when the outage began. One that was off then stays off.
    - A second outage begins everything again.
    - Nobody is woken while something holds the start back; the limit counts from then on.
    - An outage in which nobody went away is not mentioned. That is known only when upsd lists nobody who has vanished.
    """
    if view.is_outage:
        return ReturnDecision(_note_outage(state, view))
    if state.is_out:
        if view.is_outage is None:
            return ReturnDecision(state)
        state = replace(state, is_out=False, since=view.since)
    if state.since is None:
        return ReturnDecision(_note_logins(state, view))
    seconds = max(0.0, now - state.since)
    state = replace(state, back=_find_back(state, view.logged_in, seconds))
    if state.missing or view.guests:
        state = replace(state, was_missing=True)
        return _await_rest(state, now, ReturnResult(at, seconds, state.missing, view.guests, state.woken), view, policy)
    if state.has_booted or (state.was_missing and seconds >= VANISHED_SECONDS):
        return _end_return(state, ReturnResult(at, seconds, woken=state.woken))
    return ReturnDecision(state if seconds < VANISHED_SECONDS else _forget_outage(state))


def _find_back(state: ReturnState, logged_in: frozenset[str] | None, seconds: float) -> dict[str, float]:
    """Return the machines that are back, and since when. One that upsd no longer lists is away again."""
    if logged_in is None:
        return dict(state.back)
    return {name: state.back.get(name, seconds) for name in state.expected if name in logged_in}


def _await_rest(
    state: ReturnState, now: float, result: ReturnResult, view: ReturnView, policy: ReturnPolicy
) -> ReturnDecision:
    """Wait for those that are not back yet. result: how the return ends if the limit is over now."""
    if view.hold:
        return ReturnDecision(replace(state, waking_since=None))
    waking_since = now if state.waking_since is None else state.waking_since
    if now - waking_since >= policy.limit:
        return _end_return(state, result)
    is_due = state.woken_at is None or now - state.woken_at >= WAKE_AGAIN_SECONDS
    state = replace(state, waking_since=waking_since)
    if state.missing and view.logged_in is not None and is_due:
        return ReturnDecision(replace(state, woken_at=now), state.missing)
    return ReturnDecision(state)


def _note_outage(state: ReturnState, view: ReturnView) -> ReturnState:
    expected = dict.fromkeys((*state.expected, *sorted(view.logged_in or ())))
    return ReturnState(
        boot=state.boot, expected=tuple(expected), is_out=True, has_booted=state.has_booted, result=state.result
    )


def _note_logins(state: ReturnState, view: ReturnView) -> ReturnState:
    """Note who is logged in on mains. A machine that comes back late is missing no more."""
    if view.logged_in is None:
        return state
    result = state.result
    if result:
        result = replace(
            result,
            missing=tuple(name for name in result.missing if name not in view.logged_in),
            guests=result.guests if view.guests else (),
        )
    return replace(state, expected=tuple(sorted(view.logged_in)), result=result)


def _forget_outage(state: ReturnState) -> ReturnState:
    return ReturnState(boot=state.boot, expected=state.expected, result=state.result)


def _end_return(state: ReturnState, result: ReturnResult) -> ReturnDecision:
    return ReturnDecision(replace(_forget_outage(state), result=result), has_ended=True)


def note_woken(state: ReturnState, name: str) -> ReturnState:
    """Note that a machine has been woken."""
    return replace(state, woken={**state.woken, name: state.woken.get(name, 0) + 1})


# In words


def spell_duration(seconds: float) -> str:
    """Return a duration as text: 45 s, 3 min, 6 min 10 s, 1 h 5 min."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    rest = whole % 60
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def spell_result(result: ReturnResult) -> str:
    """Return how a return ended, in one line."""
    after = f"after {spell_duration(result.seconds)}"
    if not result.missing and not result.guests:
        woken = ", ".join(f"{name} {_spell_times(times)}" for name, times in result.woken.items())
        return f"all back {after}{f' (woken: {woken})' if woken else ''}"
    return f"not back {after}: {'; '.join([*_spell_missing(result.missing, result.woken), *result.guests])}"


def _spell_missing(missing: Iterable[str], woken: Mapping[str, int]) -> list[str]:
    return [f"{name} (woken {_spell_times(woken[name])})" if woken.get(name) else name for name in missing]


def _spell_times(times: int) -> str:
    return "once" if times == 1 else f"{times} times"


def describe_return(path: Path, boot: str, now: float) -> tuple[str, ...]:
    """Return lines about the return that is under way, else about the last one; () if there was none.

    path: of the state. boot: of base.clock.name_system_start(). now: seconds of CLOCK_BOOTTIME.
    """
    state = records.recall_record(ReturnState, path, VERSION)
    if state is None:
        return ()
    missing = _spell_missing(state.missing, state.woken)
    if state.since is not None and state.boot == boot:
        awaited = f"for {', '.join(missing)}" if missing else "until all are back"
        return (printable(f"waiting {awaited}, for {spell_duration(now - state.since)}"),)
    if state.result is None or state.is_out or state.since is not None:
        return ()
    return (printable(f"{spell_result(state.result)} ({format_time(state.result.at)})"),)
