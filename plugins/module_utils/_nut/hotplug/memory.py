# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent remembers from run to run. Nothing in it is needed: a file that is lost or broken costs one scan."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, TypeVar

from ..base import files, jsontext
from ..usb.fingerprint import Fingerprint
from .decide import Tries

VERSION = 1
LIMIT = 1 << 20  # bytes; ours has some thousand
HISTORY = 50  # decisions
MODE = 0o600
# of each map; a host with more UPSes than this has other troubles
_ENTRIES = 1000
_TEXT = 20000

_T = TypeVar("_T")


@dataclass(frozen=True)
class Plugging:
    """One plugging in of a device: its bus and device number, and when it was first seen (CLOCK_BOOTTIME)."""

    bus: int
    device: int
    since: float


@dataclass(frozen=True)
class Decision:
    """What was done, when (seconds since 1970), to what, and why."""

    time: float
    name: str
    what: str
    reason: str


@dataclass(frozen=True)
class State:
    """The memory. The maps go from the names of UPSes; times are seconds of CLOCK_BOOTTIME, but for those called wall.

    memory: which UPS had the name last. written: each section as we wrote it last; intended: as we were about to write
    it, so that a run that was cut short does not take its own work for somebody's. plugged: what was there. silent:
    since when upsd has had no data. last: the last ups.status. deferred: what waits for the mains, in words -> wall
    time since when. told: the remarks that were made, which are not made again. asked: the devices of which nut-scanner
    knew nothing ("ids bus device"). bus: a digest of the bus.
    """

    boot: str = ""
    memory: Mapping[str, Fingerprint] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    intended: Mapping[str, str] = field(default_factory=dict)
    plugged: Mapping[str, Plugging] = field(default_factory=dict)
    silent: Mapping[str, float] = field(default_factory=dict)
    tries: Mapping[str, Tries] = field(default_factory=dict)
    last: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deferred: Mapping[str, float] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    bus: str = ""
    history: tuple[Decision, ...] = ()

    def booted(self, boot: str) -> State:
        """Return the state as it counts for this boot: of another one the times, and what was plugged in, say nothing."""
        if boot == self.boot:
            return self
        return replace(self, boot=boot, plugged={}, silent={}, tries={}, last={}, told=(), asked=(), bus="")

    def with_history(self, *decisions: Decision) -> State:
        """Return the state with decisions added; the oldest go."""
        return replace(self, history=(*self.history, *decisions)[-HISTORY:])


def load(path: Path) -> State:
    """Read the state. What can't be understood is left out; a file that can't be read is an empty state. Never raises."""
    try:
        data = jsontext.parse(_read(path))
    except (OSError, ValueError):
        return State()
    if not isinstance(data, dict) or data.get("version") != VERSION:
        return State()
    return State(
        boot=_text(data.get("boot")) or "",
        memory=_map(data.get("memory"), _fingerprint),
        written=_map(data.get("written"), _text),
        intended=_map(data.get("intended"), _text),
        plugged=_map(data.get("plugged"), _plugging),
        silent=_map(data.get("silent"), _number),
        tries=_map(data.get("tries"), _tries),
        last=_map(data.get("last"), _texts),
        deferred=_map(data.get("deferred"), _number),
        told=_texts(data.get("told")) or (),
        asked=_texts(data.get("asked")) or (),
        bus=_text(data.get("bus")) or "",
        history=_history(data.get("history")),
    )


def save(path: Path, state: State) -> None:
    """Replace the file: whenever the power goes, the old or the new one is there. Raises writing.WriteError."""
    files.replace({path: dump(state)}, MODE)


def dump(state: State) -> str:
    """Write the state as JSON, in ASCII."""
    data = {
        "version": VERSION,
        "boot": state.boot,
        "memory": {name: one.to_json() for name, one in state.memory.items()},
        "written": dict(state.written),
        "intended": dict(state.intended),
        "plugged": {name: [one.bus, one.device, one.since] for name, one in state.plugged.items()},
        "silent": dict(state.silent),
        "tries": {name: [one.count, one.last, one.good] for name, one in state.tries.items()},
        "last": {name: list(words) for name, words in state.last.items()},
        "deferred": dict(state.deferred),
        "told": list(state.told),
        "asked": list(state.asked),
        "bus": state.bus,
        "history": [[one.time, one.name, one.what, one.reason] for one in state.history[-HISTORY:]],
    }
    return json.dumps(data, indent=1) + "\n"


def _read(path: Path) -> str:
    # whatever stands there: a FIFO must not stop us, nor a file without end
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > LIMIT:
            raise ValueError(f"{path} is no file of ours")
        return file.read(LIMIT + 1).decode("ascii")


def _map(value: object, read: Callable[[Any], _T | None]) -> dict[str, _T]:
    if not isinstance(value, dict):
        return {}
    found = {name: one for name, raw in value.items() if (one := read(raw)) is not None}
    return found if len(found) <= _ENTRIES else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= _TEXT else None


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or len(value) > _ENTRIES:
        return None
    return tuple(value) if all(_text(one) is not None for one in value) else None


def _number(value: object) -> float | None:
    found = jsontext.number(value)
    return found if found is not None and abs(found) <= 1e15 else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000 else None


def _fingerprint(value: object) -> Fingerprint | None:
    try:
        return Fingerprint.from_json(value)
    except ValueError:
        return None


def _plugging(value: object) -> Plugging | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    bus, device, since = _count(value[0]), _count(value[1]), _number(value[2])
    return None if bus is None or device is None or since is None else Plugging(bus, device, since)


def _tries(value: object) -> Tries | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    count, last, good = _count(value[0]), _number(value[1]), _number(value[2])
    if count is None or last is None or (good is None and value[2] is not None):
        return None
    return Tries(count, last, good)


def _history(value: object) -> tuple[Decision, ...]:
    found = []
    for one in value if isinstance(value, list) else ():
        if not isinstance(one, list) or len(one) != 4 or any(_text(word) is None for word in one[1:]):
            continue
        when = _number(one[0])
        if when is not None:
            found.append(Decision(when, *one[1:]))
    return tuple(found[-HISTORY:])
