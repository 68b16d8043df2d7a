# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent remembers from run to run. Nothing in it is needed: a file that is lost or broken costs one scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import files, records
from ..usb.fingerprint import Fingerprint

VERSION = 2
HISTORY = 50  # decisions
MODE = 0o600
# seconds between two restarts of a driver in a row; it doubles
BACKOFF = 15.0
BACKOFF_MOST = 3600.0


@dataclass(frozen=True)
class Plugging:
    """One plugging in of a device."""

    bus: int
    device: int  # its number on the bus
    since: float  # when it was first seen, in seconds of CLOCK_BOOTTIME


@dataclass(frozen=True)
class Decision:
    """What was done, when (seconds since 1970), to what, and why."""

    time: float
    name: str
    what: str
    reason: str


@dataclass(frozen=True)
class Tries:
    """How often a driver was restarted in a row, and when last."""

    count: int = 0
    last: float = 0.0
    good: float | None = None  # since when it has data

    def due(self, now: float) -> float:
        """Return when it may be restarted again: at once the first time, and after a reboot, which starts the clock anew."""
        if not self.count or self.last > now:
            return now
        return self.last + min(BACKOFF * 2.0 ** min(self.count - 1, 16), BACKOFF_MOST)

    def again(self, now: float) -> Tries:
        """Return the count with one more."""
        return Tries(self.count + 1 if self.last <= now else 1, now)


@dataclass(frozen=True)
class State:
    """The memory. The maps go from the names of UPSes; times are seconds of CLOCK_BOOTTIME, unless another clock is named."""

    boot: str = ""
    memory: Mapping[str, Fingerprint] = field(default_factory=dict)  # which UPS had the name last
    written: Mapping[str, str] = field(default_factory=dict)  # each section as we wrote it last
    # as we were about to write it, so that a run that was cut short does not take its own work for somebody's
    intended: Mapping[str, str] = field(default_factory=dict)
    plugged: Mapping[str, Plugging] = field(default_factory=dict)  # what was there
    silent: Mapping[str, float] = field(default_factory=dict)  # since when upsd has had no data
    tries: Mapping[str, Tries] = field(default_factory=dict)
    last: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the last ups.status
    deferred: Mapping[str, float] = field(default_factory=dict)  # what waits for the mains, in words -> since 1970
    told: tuple[str, ...] = ()  # the remarks that were made, which are not made again
    asked: tuple[str, ...] = ()  # the devices of which nut-scanner knew nothing ("ids bus device")
    bus: str = ""  # a digest of the bus
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
    """Return what the file holds; an empty state if it is not there, or is not one of ours. Never raises."""
    return records.recall_record(State, path, VERSION) or State()


def save(path: Path, state: State) -> None:
    """Replace the file: whenever the power goes, the old or the new one is there. Raises files.WriteError."""
    files.replace_files({path: records.dump_record(state, VERSION)}, MODE)
