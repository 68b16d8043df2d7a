# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done in an outage before the battery is low: stop these guests, tell somebody, then FSD. And undone if it ends.

decide() is a function of data: from the stages, what is remembered and what the UPSes say, to what is to be done. run() is the
program around it: it asks, does, and remembers, for as long as the host runs. It may be killed at any moment and started
again: what it was about to do is written down before it is done.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

from ..base import clock as base_clock
from ..base import files, jsontext
from ..base.systemd import Run
from ..base.text import LINE, one_line, printable
from ..conf import grammar
from ..net import readings
from ..net.client import Client, UpsdFailure
from ..proxmox import control, guests
from ..proxmox.guests import Guest
from ..proxmox.selection import NOBODY, Chosen, Selector
from .fsd import FsdError, request_fsd

VERSION = 1
MODE = 0o600
# of the state's file
_LIMIT = 1 << 18

# How often the UPSes are asked while there is something to do, and while there is not; and how long upsd may take to answer
POLL = 2.0
REST_POLL = 5.0
ASK_SECONDS = 2.0
# The mains are back when they have been back for so long: until then it is the same outage, and no guest is started
STABLE = 30.0
# A charge or a runtime counts when it has been that low for so long. Some UPSes report nonsense when they change to battery.
HOLD = 6.0
# While a test runs, a UPS may be on battery without saying that it is one (no CAL); no test takes longer
TEST_SECONDS = 60.0
# How long upsd is given to show FSD before upsmon is told again
FSD_AGAIN = 15.0
NOTIFY_SECONDS = 30.0
# How often a guest is started that does not start, and how long is waited in between
STARTS = 3
START_AGAIN = 10.0
# How long FSD waits, when an outage begins, until the guests have been found; and when that is tried again if it failed
FIND_SECONDS = 10.0
FIND_AGAIN = 30.0
# The same complaint is made once in so many seconds
COMPLAIN = 60.0

# no flag of NUT's: ups.test.result says that a test runs
TEST = "TEST"

Ask = Callable[[Mapping[str, Any]], Optional[Mapping[str, str]]]
Log = Callable[[str], None]
Start = Callable[[Callable[[], None]], None]
Key = str


class StagesError(ValueError):
    """The stages of the policy can't be used; the message names the member, what is wrong with it, and what to do."""


@dataclass(frozen=True)
class Target:
    """A guest that a stage stops, and how many seconds it gets for that. name: for people."""

    kind: str
    id: int
    seconds: float = guests.DOWN_SECONDS
    name: str = ""

    @property
    def key(self) -> Key:
        """Its name in the state."""
        return f"{self.kind}/{self.id}"

    @property
    def guest(self) -> Guest:
        """What qm and pct need to know of it."""
        return Guest(self.id, self.kind, self.name)


@dataclass(frozen=True)
class Stage:
    """A stage. It begins when any of its triggers is reached: seconds on battery, charge (%) or runtime (s) at or below.

    select: which guests it stops. guests: those that are known; until they have been found, those whose kind the policy gives.
    """

    name: str
    on_battery: float | None = None
    charge: float | None = None
    runtime: float | None = None
    guests: tuple[Target, ...] = ()
    notify: tuple[str, ...] = ()
    message: str = ""
    fsd: bool = False
    select: Selector = NOBODY


@dataclass(frozen=True)
class Power:
    """How the power stands. on_battery: None if nobody can tell. charge (%) and runtime (s): of the emptiest UPS on battery.

    flags: of ups.status, of all. upses: the names of those on battery.
    """

    on_battery: bool | None = None
    charge: float | None = None
    runtime: float | None = None
    flags: frozenset[str] = frozenset()
    upses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class State:
    """The memory. Times are seconds of CLOCK_BOOTTIME, which go on while the program does not run. Of this outage:

    since: when the first UPS went on battery; None: no outage. mains: since when the mains are back; None: they are not.
    upses: which were on battery. low: "stage charge" or "stage runtime" -> since when it has been so low. begun: stage ->
    when. asked: guest -> when its stop was decided. done: guest -> what came of it. fsd: when upsmon was told last. down:
    since when upsd says FSD, or has said it last; None: the shutdown has not begun.

    And beyond it, ours: the guests that we have shut down and must start again -> whether HA works them. tries: guest -> how
    often its start failed, and when last.
    """

    boot: str = ""
    since: float | None = None
    mains: float | None = None
    upses: frozenset[str] = frozenset()
    low: Mapping[str, float] = field(default_factory=dict)
    begun: Mapping[str, float] = field(default_factory=dict)
    asked: Mapping[Key, float] = field(default_factory=dict)
    done: Mapping[Key, str] = field(default_factory=dict)
    fsd: float | None = None
    down: float | None = None
    ours: Mapping[Key, bool] = field(default_factory=dict)
    tries: Mapping[Key, tuple[int, float]] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Say whether there is no outage, and nothing left of one: nothing that is worth remembering."""
        return self.since is None and not self.ours

    def over(self) -> State:
        """Return the memory when the outage is over: which guests are to be started, and since when the mains are back."""
        return State(boot=self.boot, mains=self.mains, ours=self.ours, tries=self.tries)


@dataclass(frozen=True)
class Action:
    """One thing to do. kind: "notify", "stop_guests", "fsd", "start_guests" or "rest". targets: the guests it is about.

    "rest": there is nothing to do, until the power changes.
    """

    kind: str
    reason: str
    stage: str = ""
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What is to be remembered, and then done, in this order."""

    state: State
    actions: tuple[Action, ...] = ()


# The policy


def read(data: object) -> tuple[Stage, ...]:
    """Read the member `stages` of the policy. Raises StagesError."""
    if not isinstance(data, (list, tuple)):
        raise StagesError("stages must be a list")
    found = [one if isinstance(one, Stage) else _stage(one, f"stages[{place}]") for place, one in enumerate(data)]
    for place, one in enumerate(found):
        if one.name in (other.name for other in found[:place]):
            raise StagesError(f"stages[{place}].name: there are two stages {one.name!r}; give each its own name")
    return tuple(found)


_MAY = (
    *("on_battery", "charge", "runtime"),
    *("guests", "tags", "storage_of", "seconds"),
    *("notify", "message", "fsd"),
)
# what separates tags in Proxmox's files, and what no name or address of a machine has
_TAG = re.compile(r"[^\s,;]{1,128}")
_MACHINE = re.compile(r"[^\s/@\[\],;]{1,255}")


def _stage(data: object, where: str) -> Stage:
    one = _members(data, where, ("name",), _MAY)
    name = one["name"]
    if not isinstance(name, str) or not name or not name.isprintable() or len(name) > 64:
        raise StagesError(f"{where}.name must be a text of 1 to 64 characters, not {name!r}")
    triggers = {key: _number(one.get(key), f"{where}.{key}") for key in ("on_battery", "charge", "runtime")}
    if all(value is None for value in triggers.values()):
        raise StagesError(f"{where} never begins: set on_battery, charge or runtime")
    if (triggers["charge"] or 0) > 100:
        raise StagesError(f"{where}.charge is a percentage, and must not be more than 100")
    select, known = _guests(one, where)
    notify = one.get("notify") or []
    if not isinstance(notify, list) or not all(isinstance(word, str) and "\0" not in word for word in notify):
        raise StagesError(f"{where}.notify must be a list of a program and its arguments")
    if notify and not notify[0].startswith("/"):
        raise StagesError(f"{where}.notify: the program must be given with its path, not as {notify[0]!r}")
    message, fsd = one.get("message") or "", one.get("fsd") or False
    if not isinstance(message, str) or "\0" in message:
        raise StagesError(f"{where}.message must be a text")
    if not isinstance(fsd, bool):
        raise StagesError(f"{where}.fsd must be true or false")
    if not (select or notify or fsd):
        raise StagesError(f"{where} does nothing: give it guests, tags, storage_of, notify or fsd")
    return Stage(name, guests=known, notify=tuple(notify), message=message, fsd=fsd, select=select, **triggers)


def _guests(one: Mapping[str, Any], where: str) -> tuple[Selector, tuple[Target, ...]]:
    """Return what a stage chooses, and what of it is known without a look at Proxmox."""
    seconds = _number(one.get("seconds"), f"{where}.seconds")
    found = one.get("guests") or []
    if not isinstance(found, list):
        raise StagesError(f"{where}.guests must be a list")
    ids: dict[int, float | None] = {}
    known = []
    for place, guest in enumerate(found):
        kind, number, own = _guest(guest, f"{where}.guests[{place}]")
        if number in ids:
            raise StagesError(f"{where}.guests[{place}]: {number} stands there twice. Say it once")
        ids[number] = own
        if kind:
            known.append(Target(kind, number, next((x for x in (own, seconds) if x is not None), guests.DOWN_SECONDS)))
    tags = _texts(one.get("tags"), f"{where}.tags", _TAG, "a tag, without spaces, commas and semicolons")
    machines = _texts(
        one.get("storage_of"), f"{where}.storage_of", _MACHINE, "a machine's name or address, without port and brackets"
    )
    return Selector(tuple(ids.items()), tags, machines, seconds), tuple(known)


def _guest(data: object, where: str) -> tuple[str, int, float | None]:
    """Read a guest: a number, or an object. The kind is "" if it is not said: Proxmox knows it."""
    one = data if isinstance(data, dict) else {"id": data}
    _members(one, where, ("id",), ("seconds", "kind"))
    kind, number = one.get("kind"), one["id"]
    if kind not in (None, *guests.KINDS):
        raise StagesError(f"{where}.kind must be qm (a VM) or pct (a container), not {kind!r}")
    if isinstance(number, bool) or not isinstance(number, int) or not 100 <= number <= 999_999_999:
        name = f"{where}.id" if isinstance(data, dict) else where
        raise StagesError(f"{name} must be the number of a guest, 100 or more, not {number!r}")
    return kind or "", number, _number(one.get("seconds"), f"{where}.seconds")


def _texts(data: object, where: str, pattern: re.Pattern[str], what: str) -> tuple[str, ...]:
    if data is None:
        return ()
    if not isinstance(data, list):
        raise StagesError(f"{where} must be a list")
    for place, one in enumerate(data):
        if not isinstance(one, str) or not one.isprintable() or not pattern.fullmatch(one):
            raise StagesError(f"{where}[{place}] must be {what}, not {one!r}")
    return tuple(dict.fromkeys(data))


def _members(data: object, where: str, must: Sequence[str], may: Sequence[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise StagesError(f"{where} must be an object")
    for name in must:
        if name not in data:
            raise StagesError(f"{where}.{name} is missing")
    for name in data:
        if name not in (*must, *may):
            raise StagesError(f"{where} has a member {name!r} that is not known; known are {', '.join((*must, *may))}")
    return data


def _number(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e6:
        raise StagesError(f"{where} must be a number from 0 to 1000000, not {value!r}")
    return float(value)


# What the UPSes say


def power(name: str, variables: Mapping[str, str] | None) -> Power:
    """Say how the power of one UPS stands. variables: as upsd has them; None if it gave none.

    On battery for a calibration (CAL) is no outage, and whether the mains are there can't be told meanwhile.
    """
    reading = readings.read_variables(variables or {})
    flags = set(reading.flags)
    if (variables or {}).get("ups.test.result", "").casefold() == "in progress":
        flags.add(TEST)
    on_battery = reading.on_battery
    if on_battery and "CAL" in flags:
        on_battery = None
    upses = frozenset([name] if on_battery else ())
    return Power(on_battery, reading.charge, reading.runtime, frozenset(flags), upses)


def combine(powers: Mapping[str, Power], were: Collection[str]) -> Power:
    """Say how the power stands as a whole. were: the UPSes that have been on battery in this outage.

    One on battery is an outage. It is over when all that were on battery are back; one that says nothing, and was not, does not
    count: it may have been unplugged long ago.
    """
    flags = frozenset(flag for one in powers.values() for flag in one.flags)
    if any("FSD" not in one.flags for one in powers.values() if one.flags):
        # upsmon sets it for all of its UPSes; for one alone it is somebody else's
        flags -= {"FSD"}
    on = [one for one in powers.values() if one.on_battery]
    if on:
        charges = [one.charge for one in on if one.charge is not None]
        runtimes = [one.runtime for one in on if one.runtime is not None]
        upses = frozenset(name for one in on for name in one.upses)
        return Power(True, min(charges, default=None), min(runtimes, default=None), flags, upses)
    concerned = [one for name, one in powers.items() if name in were]
    if concerned:
        return Power(None if any(one.on_battery is None for one in concerned) else False, flags=flags)
    return Power(False if any(one.on_battery is False for one in powers.values()) else None, flags=flags)


# The decision


def decide(
    stages: Sequence[Stage],
    state: State,
    now: float,
    seen: Power,
    busy: Collection[Key] = frozenset(),
    *,
    finding: bool = False,
) -> Decision:
    """Say what is to be done now. busy: the guests that are being stopped or started at this moment. finding: whether the
    guests of the stages are still being found, and those that are known may be too few.

    Rules: a stage begins once in an outage. An outage lasts from the first UPS on battery until the mains have been back for
    STABLE seconds. What is unknown triggers nothing and ends nothing, and the time on battery goes on. After FSD the guests of
    all stages are stopped, and nothing else is done, nor undone, until it is gone and the mains are there: then the outage is over.
    Started again are only the guests that we have shut down, and that are still down.
    """
    return _Decide(stages, state, now, seen, busy=busy, finding=finding).result()


class _Decide:
    """One decision. The methods change self.state, and add to self.actions."""

    def __init__(
        self,
        stages: Sequence[Stage],
        state: State,
        now: float,
        seen: Power,
        *,
        busy: Collection[Key],
        finding: bool,
    ) -> None:
        self.stages, self.state, self.now, self.seen, self.busy, self.finding = stages, state, now, seen, busy, finding
        self.actions: list[Action] = []

    def result(self) -> Decision:
        self._follow()
        if self.state.down is not None:
            self._go_down()
        elif self.state.since is None:
            self._restore()
        elif self._is_back():
            if not self.busy:
                self.state = self.state.over()
                self._restore()
        elif self.state.mains is None:
            if not self._calibrates():
                self._begin()
            self._stop()
            self._fsd()
        return Decision(self.state, tuple(self.actions))

    def _follow(self) -> None:
        """Keep the times of the outage."""
        since = self.now if self.state.since is None else self.state.since
        if "FSD" in self.seen.flags:
            # somebody may say it while the mains are there
            down = self.now if self.state.down is None else self.state.down
            self.state = replace(
                self.state, since=since, mains=None, down=down, upses=self.state.upses | self.seen.upses
            )
        elif self.state.down is not None:
            if self.seen.on_battery is False and not self.busy:
                # the shutdown was called off: upsd forgets FSD only when it is started anew
                self.state = replace(self.state.over(), mains=self.now)
        elif self.seen.on_battery:
            self.state = replace(self.state, since=since, mains=None, upses=self.state.upses | self.seen.upses)
        elif self.seen.on_battery is False and self.state.mains is None:
            self.state = replace(self.state, mains=self.now, low={})
        elif self._calibrates() and not self.state.begun:
            # a calibration that said OB before it said CAL was no outage
            self.state = self.state.over()

    def _calibrates(self) -> bool:
        return self.seen.on_battery is None and "CAL" in self.seen.flags

    def _is_back(self) -> bool:
        """Say whether the mains have been back for long enough. If nobody says so now, they have not."""
        mains = self.state.mains
        return self.seen.on_battery is False and mains is not None and self.now - mains >= STABLE

    def _go_down(self) -> None:
        """upsd says FSD, or has said it before it went: all go down, and nothing can be called back.

        What the stages would have stopped later is stopped now: its storage is about to go.
        """
        self._stop(self.stages)
        if not self.busy and not self.finding:
            self.actions.append(Action("rest", "upsd says FSD: the shutdown goes on without the stages"))

    def _restore(self) -> None:
        """The mains are there: start what we have stopped, one after the other, last stopped first; then rest."""
        if self.seen.on_battery is None or self.busy:
            return
        if not self.state.ours:
            self.actions.append(Action("rest", "the mains are there, and nothing is left to do"))
        elif self._is_back():
            for key in reversed(list(self.state.ours)):
                count, last = self.state.tries.get(key, (0, -math.inf))
                if not count or self.now - last >= START_AGAIN:
                    kind, _slash, number = key.partition("/")
                    reason = f"the mains have been back for {STABLE:g} s, and we had stopped it"
                    self.actions.append(Action("start_guests", reason, targets=(Target(kind, int(number)),)))
                    break

    def _begin(self) -> None:
        """Begin the stages that are due."""
        since = self.state.since
        time_on = self.now - (self.now if since is None else since)
        if TEST in self.seen.flags and time_on < TEST_SECONDS:
            return
        self._note_low()
        for stage in self.stages:
            if stage.name in self.state.begun:
                continue
            reason = self._reason(stage, time_on)
            if reason:
                self.state = replace(self.state, begun={**self.state.begun, stage.name: self.now})
                self.actions.append(Action("notify", reason, stage.name))

    def _note_low(self) -> None:
        """Keep since when each charge and runtime has been low enough. What is unknown changes nothing."""
        low = dict(self.state.low)
        for stage in self.stages:
            for what in ("charge", "runtime"):
                value, limit = getattr(self.seen, what), getattr(stage, what)
                if value is None or limit is None:
                    continue
                key = f"{stage.name} {what}"
                if value <= limit:
                    low.setdefault(key, self.now)
                else:
                    low.pop(key, None)
        self.state = replace(self.state, low=low)

    def _reason(self, stage: Stage, time_on: float) -> str:
        if stage.on_battery is not None and time_on >= stage.on_battery:
            return f"{time_on:.0f} s on battery, {stage.on_battery:g} s were allowed"
        for what, unit in (("charge", "%"), ("runtime", " s")):
            value, limit = getattr(self.seen, what), getattr(stage, what)
            since = self.state.low.get(f"{stage.name} {what}")
            if value is not None and since is not None and self.now - since >= HOLD:
                return f"{what} {value:g}{unit}, and {limit:g}{unit} is the limit"
        return ""

    def _stop(self, stages: Sequence[Stage] | None = None) -> None:
        """Stop the guests of the stages that have begun, or of STAGES, each once."""
        for stage in self._begun() if stages is None else stages:
            targets = []
            for target in stage.guests:
                if target.key in self.state.done or target.key in self.busy:
                    continue
                self.busy = {*self.busy, target.key}
                began = self.state.asked.get(target.key, self.now)
                self.state = replace(self.state, asked={**self.state.asked, target.key: began})
                # what a run that was killed has waited counts
                targets.append(replace(target, seconds=max(1.0, target.seconds - (self.now - began))))
            if targets:
                self.actions.append(Action("stop_guests", f"stage {stage.name}", stage.name, tuple(targets)))

    def _fsd(self) -> None:
        """Have upsmon set FSD when all guests of the stages that have begun are down, or have had their time."""
        begun = self._begun()
        last = [stage for stage in begun if stage.fsd]
        waits = any(target.key not in self.state.done for stage in begun for target in stage.guests)
        # those that no stage names any more, since the guests were found anew
        waits = waits or any(key in self.state.asked and key not in self.state.done for key in self.busy)
        if last and not waits and not self.finding:
            if self.state.fsd is None:
                self.actions.append(Action("fsd", f"stage {last[0].name}", last[0].name))
            elif self.now - self.state.fsd >= FSD_AGAIN:
                reason = f"upsd has not shown FSD for {self.now - self.state.fsd:.0f} s"
                self.actions.append(Action("fsd", reason, last[0].name))

    def _begun(self) -> list[Stage]:
        return [stage for stage in self.stages if stage.name in self.state.begun]


# What came of an action


def stopping(state: State, key: Key) -> State:
    """Note that a guest is about to be shut down by us: whatever happens then, it is ours to start."""
    return replace(state, ours={**state.ours, key: state.ours.get(key, False)})


def stopped(state: State, key: Key, outcome: str, ha: bool = False) -> State:
    """Note what came of a stop. outcome: control.Stopped's, or "lost". What was down already, or is gone, is not ours."""
    if key not in state.asked:
        return state  # of an outage that is over
    ours = dict(state.ours)
    if outcome in ("already", "gone"):
        ours.pop(key, None)
    elif key in ours:
        ours[key] = ours[key] or ha
    return replace(state, ours=ours, done={**state.done, key: outcome})


def started(state: State, key: Key, good: bool, now: float) -> State:
    """Note what came of a start. One that fails too often is given up."""
    ours, tries = dict(state.ours), dict(state.tries)
    count = tries.pop(key, (0, now))[0] + 1
    if good or count >= STARTS:
        ours.pop(key, None)
    else:
        tries[key] = (count, now)
    return replace(state, ours=ours, tries=tries)


# The file of the state


def load(path: Path, boot: str) -> tuple[State, str]:
    """Read the state. Returns it, and what is to be said about it, "" if nothing. Never raises.

    Of another boot only this counts: a guest that HA works, and that we have stopped, is not started by HA, because it has
    noted that this guest is not to run. The others have been started, or not, by Proxmox.
    """
    fresh = State(boot=boot)
    try:
        data = jsontext.parse(_bytes(path).decode("ascii"))
        found = _state(data)
    except FileNotFoundError:
        return fresh, ""
    except (OSError, ValueError) as error:
        return (
            fresh,
            f"{path} can't be used ({error}): the outage counts from now, and no guest is started that it named",
        )
    if boot and found.boot == boot:
        return found, ""
    kept = {key: ha for key, ha in found.ours.items() if ha}
    words = f"{path} is of another boot" + (f"; HA is to start {', '.join(kept)} again" if kept else "")
    return replace(fresh, ours=kept), words


def dump(state: State) -> str:
    """Write the state as JSON, in ASCII."""
    data = {
        "version": VERSION,
        "boot": state.boot,
        "since": state.since,
        "mains": state.mains,
        "upses": sorted(state.upses),
        "low": dict(state.low),
        "begun": dict(state.begun),
        "asked": dict(state.asked),
        "done": dict(state.done),
        "fsd": state.fsd,
        "down": state.down,
        "ours": dict(state.ours),
        "tries": {key: list(one) for key, one in state.tries.items()},
    }
    return json.dumps(data, indent=1) + "\n"


def _bytes(path: Path) -> bytes:
    # whatever stands there: a FIFO must not stop us, nor a file without end
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > _LIMIT:
            raise ValueError("it is no file of ours")
        return file.read(_LIMIT + 1)


def _state(data: object) -> State:
    """Read what dump() has written. Raises ValueError: half a memory is worse than none."""
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError("it is of no version that is known")
    names = _typed(data.get("upses"), list, lambda one: isinstance(one, str))
    tries = _typed(data.get("tries"), dict, lambda one: isinstance(one, list) and len(one) == 2)
    ours = _typed(data.get("ours"), dict, lambda one: isinstance(one, bool))
    if not all(_is_key(key) for key in ours):
        raise ValueError("it names guests that can't be")
    boot = data.get("boot")
    if not isinstance(boot, str):
        raise ValueError("it has no boot")
    return State(
        boot=boot,
        since=_time(data.get("since")),
        mains=_time(data.get("mains")),
        upses=frozenset(names),
        low=_typed(data.get("low"), dict, _is_time),
        begun=_typed(data.get("begun"), dict, _is_time),
        asked=_typed(data.get("asked"), dict, _is_time),
        done=_typed(data.get("done"), dict, lambda one: isinstance(one, str)),
        fsd=_time(data.get("fsd")),
        down=_time(data.get("down")),
        ours=ours,
        tries={key: (_count(one[0]), _time(one[1]) or 0.0) for key, one in tries.items()},
    )


def _typed(value: object, kind: type, holds: Callable[[Any], bool]) -> Any:
    if not isinstance(value, kind):
        raise ValueError("a part of it is missing")
    inner = value.values() if isinstance(value, dict) else value
    if not all(holds(one) for one in inner):  # type: ignore[attr-defined]
        raise ValueError("a part of it is of another type")
    return value


def _is_key(key: str) -> bool:
    kind, _slash, number = key.partition("/")
    return kind in guests.KINDS and number.isascii() and number.isdigit() and len(number) < 10


def _is_time(value: object) -> bool:
    return jsontext.number(value) is not None


def _time(value: object) -> float | None:
    if value is None:
        return None
    found = jsontext.number(value)
    if found is None:
        raise ValueError("a time of it is none")
    return found


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a count of it is none")
    return value


# The program


def ask_upsd(ups: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Ask upsd for the variables of a UPS (name, host, port). None if it gives none within ASK_SECONDS."""
    try:
        with Client(str(ups["host"]), int(ups["port"]), ASK_SECONDS) as client:
            return client.list_vars(str(ups["name"]))
    except (UpsdFailure, grammar.Unencodable):
        return None


def thread(job: Callable[[], None]) -> None:
    """Do a job beside the loop. What still runs when the program ends ends with it."""
    threading.Thread(target=job, daemon=True).start()


class Finder(Protocol):
    """Who finds the guests of the stages: selection.Finder."""

    def find(self) -> Mapping[str, Sequence[Chosen]]:
        """Find them: name of a stage -> its guests. Raises guests.GuestsError. It may hang."""

    def kept(self) -> Mapping[str, Sequence[Chosen]]:
        """Return those that were found last."""

    def keep(self, found: Mapping[str, Sequence[Chosen]]) -> bool:
        """Keep them. Raises writing.WriteError."""


def always() -> bool:
    """Stay."""
    return True


def nothing() -> None:
    """Do nothing."""


BUSY = "another run is at work"
"""Why run() ended at once."""


def run(
    stages: Sequence[Stage | Mapping[str, Any]],
    upses: Sequence[Mapping[str, Any]],
    *,
    state_path: Path,
    log: Log,
    run: Run,
    clock: control.Clock = base_clock.boottime,
    ask: Ask = ask_upsd,
    sleep: control.Pause = time.sleep,
    boot_id: Callable[[], str] = base_clock.boot_id,
    start: Start = thread,
    set_fsd: Callable[[Run], None] = request_fsd,
    finder: Finder | None = None,
    alive: Callable[[], None] = nothing,
    stay: Callable[[], bool] = always,
) -> str:
    """Watch the UPSes, and do what the stages say, for ever. Returns why it ended: BUSY, or what was done when `stay` said no.

    stages, upses: as the policy has them (upses: name, host, port). state_path: its folder is made if it is not there. log
    takes a line for each step. run: runs programs, from several threads at once. Each of them is ended by `timeout`, whose seconds
    stand at place 2; run may give it up some seconds later, but not before. set_fsd: has upsmon set FSD, or raises FsdError. finder: finds
    the guests; None: those of the policy whose kind it gives are all. alive: called in each round. stay: whether to go on watching
    when nothing is left to do. Raises StagesError.
    """
    program = _Program(
        stages=read(list(stages)),
        upses=tuple(upses),
        path=state_path,
        log=log,
        run=run,
        clock=clock,
        ask=ask,
        sleep=sleep,
        start=start,
        set_fsd=set_fsd,
        finder=finder,
        alive=alive,
        stay=stay,
    )
    try:
        with program.alone():
            return program.watch(boot_id())
    except files.Busy:
        log(f"{BUSY}: this one ends")
        return BUSY


@dataclass
class _Job:
    """What is being done to a guest. until: when it is given up, if it has not ended."""

    until: float
    ended: bool = False


@dataclass
class _Search:
    """One try to find the guests. good: it has found them."""

    began: float
    ended: bool = False
    good: bool = False
    told: bool = False  # that it takes too long


@dataclass
class _Program:
    """The loop, and what it does beside it. The state is changed under the lock alone, and written at each change."""

    stages: tuple[Stage, ...]
    upses: tuple[Mapping[str, Any], ...]
    path: Path
    log: Log
    run: Run
    clock: control.Clock
    ask: Ask
    sleep: control.Pause
    start: Start
    set_fsd: Callable[[Run], None]
    finder: Finder | None
    alive: Callable[[], None]
    stay: Callable[[], bool]
    given: tuple[Stage, ...] = field(init=False)  # as the policy has them
    state: State = field(default_factory=State, init=False)
    began: float = field(init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)
    _saved: str = field(default="", init=False)
    _jobs: dict[Key, _Job] = field(default_factory=dict, init=False)
    _complained: dict[str, float] = field(default_factory=dict, init=False)
    _told: tuple[object, ...] = field(default=(), init=False)
    _search: _Search | None = field(default=None, init=False)
    _rests: str = field(default="", init=False)
    _shown: dict[str, str] = field(default_factory=dict, init=False)
    _unknown: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Begin now."""
        self.began = self.clock()
        self.given = self.stages

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second run out. Where no lock can be had, go on: a full disk must not cost the shutdown."""
        lock = self.path.with_name(f"{self.path.name}.lock")
        with contextlib.ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.alone(lock, 0.0, pause=self.sleep))
                files.sweep([self.path.parent])
            except OSError as error:
                self.say(f"{lock} can't be locked: {error.strerror}")
            yield

    def watch(self, boot: str) -> str:
        self.state, words = load(self.path, boot)
        if words:
            self.say(words)
        self._saved = "what was there"
        while True:
            self.alive()
            for action in self.look().actions:
                if action.kind != "rest":
                    self.do(action)
                elif not self.rest(action.reason):
                    return action.reason
            self.sleep(REST_POLL if self.state.idle and not self._jobs else POLL)

    def look(self) -> Decision:
        """Ask the UPSes, decide, and remember what was decided."""
        powers = {str(one["name"]): power(str(one["name"]), self.ask(one)) for one in self.upses}
        self.give_up()
        with self._lock:
            seen = combine(powers, self.state.upses)
            outage = bool(seen.on_battery) or "FSD" in seen.flags or self.state.since is not None
            finding = self.search(outage=outage)
            before, now = self.state, self.clock()
            decision = decide(self.stages, self.state, now, seen, frozenset(self._jobs), finding=finding)
            self.state = decision.state
            self.narrate(before, seen)
            self.tell_unknown(seen, now)
            self.save()
        return decision

    # Who is stopped

    def search(self, *, outage: bool) -> bool:
        """Have the guests found when an outage begins, beside the loop. Says whether FSD should wait for that."""
        if self.finder is None or not any(stage.select for stage in self.given):
            return False
        one = self._search
        if not outage:
            if one and one.ended:
                self._search = None
            return False
        if one is None or (one.ended and not one.good and self.clock() - one.began >= FIND_AGAIN):
            self.take(self.finder.kept())
            self._search = one = _Search(self.clock())
            self.find(self.finder, one)
        late = self.clock() - one.began >= FIND_SECONDS
        if late and not one.ended and not one.told:
            one.told = True
            self.say(f"the guests of the stages have not been found within {FIND_SECONDS:g} s: those found last count")
        return not one.ended and not late

    def find(self, finder: Finder, search: _Search) -> None:
        def whole() -> None:
            try:
                found = finder.find()
                search.good = True
                self.take(found)
                self.show()
                finder.keep(found)
            except Exception as error:
                lost = "" if search.good else ": those found last count"
                self.complain(f"{_words(error)}{lost}")
            finally:
                search.ended = True

        self.start(whole)

    def take(self, found: Mapping[str, Sequence[Chosen]]) -> None:
        """Let these be the guests of the stages. A stage that is not among them stops those whose kind the policy gives."""
        with self._lock:
            stages = tuple(
                replace(stage, guests=tuple(_target(one) for one in found[stage.name]))
                if stage.name in found
                else stage
                for stage in self.given
            )
            self.stages = stages

    def show(self) -> None:
        """Log who the stages are for, if it is news."""
        for stage in self.stages:
            names = ", ".join(str(one.guest) for one in stage.guests)
            words = f"stage {stage.name} is for {names or 'no guest that is here'}"
            if stage.select and self._shown.get(stage.name) != words:
                self._shown[stage.name] = words
                self.say(words)

    def narrate(self, before: State, seen: Power) -> None:
        """Log what is new about the power."""
        now = self.state
        told = (seen.on_battery, now.since is None, "FSD" in seen.flags, "CAL" in seen.flags)
        if told == self._told:
            return
        self._told = told
        self._rests = ""
        if "FSD" in seen.flags:
            self.say("upsd says FSD")
        elif now.since is None and before.since is not None:
            self.say("the outage is over")
        elif seen.on_battery:
            self.say(f"on battery: {', '.join(sorted(seen.upses))}{_measures(seen)}")
        elif "CAL" in seen.flags:
            self.say("a calibration, not an outage")
        elif seen.on_battery is None:
            self.say("upsd does not say how the power stands")
        else:
            self.say("on mains")

    def tell_unknown(self, seen: Power, now: float) -> None:
        """Log, once in an outage, what the stages go by and no UPS says."""
        if self.state.since is None:
            self._unknown.clear()
        elif seen.on_battery and now - self.state.since >= HOLD:
            for what in ("charge", "runtime"):
                stages = [stage.name for stage in self.stages if getattr(stage, what) is not None]
                if stages and getattr(seen, what) is None and what not in self._unknown:
                    self._unknown.add(what)
                    self.say(
                        f"battery.{what} is unknown: until a UPS says it, it begins no stage ({', '.join(stages)})"
                    )

    def do(self, action: Action) -> None:
        if action.kind == "notify":
            self.say(f"stage {action.stage} begins: {action.reason}")
            self.notify(action)
        elif action.kind == "stop_guests":
            for target in action.targets:
                self.begin(target, self.stop, control.longest_stop(target.seconds))
        elif action.kind == "start_guests":
            for target in action.targets:
                self.say(f"{target.guest} is started: {action.reason}")
                self.begin(target, self.restart, control.START_SECONDS + 3 * control.STATUS_SECONDS)
        else:
            self.fsd(action)

    # Beside the loop

    def begin(self, target: Target, work: Callable[[Target], None], seconds: float) -> None:
        job = _Job(self.clock() + seconds)
        self._jobs[target.key] = job

        def whole() -> None:
            try:
                work(target)
            except Exception as error:
                # whatever it is, the loop must go on, and the guest counts as done
                self.say(f"{target.guest}: {type(error).__name__}: {error}")
            finally:
                job.ended = True

        self.start(whole)

    def give_up(self) -> None:
        """Forget the jobs that have ended, and those that should have long ago."""
        for key, job in list(self._jobs.items()):
            late = self.clock() >= job.until
            if not job.ended and not late:
                continue
            del self._jobs[key]
            with self._lock:
                if key in self.state.asked and key not in self.state.done:
                    self.say(f"{key}: its stop has not come to an end, and is waited for no longer")
                    self.state = stopped(self.state, key, "lost")
                elif not job.ended and key in self.state.ours:
                    self.say(f"{key}: its start has not come to an end, and is waited for no longer")
                    self.state = started(self.state, key, False, self.clock())

    def change(self, new: Callable[[State], State]) -> None:
        with self._lock:
            self.state = new(self.state)
            self.save()

    def stop(self, target: Target) -> None:
        key, guest = target.key, target.guest
        ours = key in self.state.ours
        if control.status(self.run, guest) == "stopped":
            self.say(f"{guest} is down{', stopped by a run before this one' if ours else ' already'}")
            self.change(lambda state: stopped(state, key, "stopped" if ours else "already"))
            return
        self.change(lambda state: stopping(state, key))
        self.say(f"{guest} is shut down, and has {target.seconds:g} s for it")
        came = control.stop(self.run, guest, target.seconds, clock=self.clock, pause=self.sleep)
        self.say(came.words)
        outcome = "stopped" if ours and came.outcome == "already" else came.outcome
        self.change(lambda state: stopped(state, key, outcome, came.ha))

    def restart(self, target: Target) -> None:
        key, guest = target.key, target.guest
        stands = control.status(self.run, guest)
        if stands == "running":
            self.say(f"{guest} runs already: somebody has started it")
            self.change(lambda state: started(state, key, True, self.clock()))
            return
        code, said = control.start(self.run, guest) if stands else (1, "its status can't be told")
        if code:
            last = (said.strip().splitlines() or [""])[-1]
            self.say(f"{guest} was not started: {last}")
        self.change(lambda state: started(state, key, not code, self.clock()))
        if key not in self.state.ours:
            self.say(
                f"{guest} is given up. Start it by hand: {guest.kind} start {guest.id}" if code else f"{guest} runs"
            )

    def notify(self, action: Action) -> None:
        stage = next(one for one in self.stages if one.name == action.stage)
        if not stage.notify:
            return
        message = stage.message or f"UPS: stage {stage.name} begins: {action.reason}"

        def tell() -> None:
            code, said = self.run(["timeout", "--kill-after=5", f"{NOTIFY_SECONDS:g}", *stage.notify, message])
            if code:
                self.say(f"{stage.notify[0]} of stage {stage.name} failed with {code}: {one_line(said)[-200:]}")

        self.start(tell)

    def fsd(self, action: Action) -> None:
        try:
            self.set_fsd(self.run)
        except FsdError as error:
            self.complain(
                f"upsmon can't be told to set FSD: {one_line(str(error))}. It is tried again every {POLL:g} s"
            )
        else:
            self.say(f"upsmon is told to set FSD: {action.reason}")
            self.change(lambda state: replace(state, fsd=self.clock()))

    # Words, and the file

    def rest(self, reason: str) -> bool:
        """There is nothing to do. Say so once, and whether to go on watching."""
        if self._rests != reason:
            self._rests = reason
            self.say(reason)
        return self.stay()

    def say(self, words: str) -> None:
        with self._lock:
            since = self.began if self.state.since is None else self.state.since
            self.log(f"+{max(0.0, self.clock() - since):.1f} s  {printable(words, LINE)}")

    def complain(self, words: str) -> None:
        last = self._complained.get(words)
        if last is None or self.clock() - last >= COMPLAIN:
            self._complained[words] = self.clock()
            self.say(words)

    def save(self) -> None:
        if self.state.idle:
            if self._saved:
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)
                self._saved = ""
            return
        text = dump(self.state)
        if text == self._saved:
            return
        try:
            files.replace({self.path: text}, MODE)
            self._saved = text
        except files.WriteError as error:
            # the outage is worse than a run that can't go on where this one was killed
            self.complain(str(error))


def _target(one: Chosen) -> Target:
    return Target(one.guest.kind, one.guest.id, one.seconds, one.guest.name)


def _words(error: Exception) -> str:
    """Say what went wrong: an error of ours by its words alone."""
    ours = isinstance(error, (guests.GuestsError, files.WriteError))
    return str(error) if ours else f"the guests of the stages can't be found: {type(error).__name__}: {error}"


def _measures(seen: Power) -> str:
    shown = [f"{seen.charge:g} %"] if seen.charge is not None else []
    shown += [f"{seen.runtime:g} s left"] if seen.runtime is not None else []
    return f" ({', '.join(shown)})" if shown else ""
