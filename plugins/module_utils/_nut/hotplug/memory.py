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
class HistoryEntry:
    """What was done, when (seconds since 1970), to what, and why."""

    time: float
    name: str
    what: str
    reason: str


@dataclass(frozen=True)
class Tries:
    """How often a driver was restarted in a row, and when last."""

    count: int = 0
    last_try: float = 0.0
    good_since: float | None = None  # since when it has data

    def next_try(self, now: float) -> float:
        """Return when it may be restarted again: at once the first time, and after a reboot, which starts the clock anew."""
        if not self.count or self.last_try > now:
            return now
        return self.last_try + min(BACKOFF * 2.0 ** min(self.count - 1, 16), BACKOFF_MOST)

    def add_try(self, now: float) -> Tries:
        """Return the count with one more."""
        return Tries(self.count + 1 if self.last_try <= now else 1, now)


@dataclass(frozen=True)
class HotplugState:
    """The memory. The maps go from the names of UPSes; times are seconds of CLOCK_BOOTTIME, unless another clock is named."""

    boot: str = ""
    identities: Mapping[str, Fingerprint] = field(default_factory=dict)  # which UPS had the name last
    written: Mapping[str, str] = field(default_factory=dict)  # each section as we wrote it last
    # as we were about to write it, so that a run that was cut short does not take its own work for somebody's
    intended: Mapping[str, str] = field(default_factory=dict)
    plugged: Mapping[str, Plugging] = field(default_factory=dict)  # what was there
    silent_since: Mapping[str, float] = field(default_factory=dict)  # since when upsd has had no data
    tries: Mapping[str, Tries] = field(default_factory=dict)
    last_status: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the last ups.status
    deferred: Mapping[str, float] = field(default_factory=dict)  # what waits for the mains, in words -> since 1970
    remarks_made: tuple[str, ...] = ()  # the remarks that were made, which are not made again
    scanned: tuple[str, ...] = ()  # the devices of which nut-scanner knew nothing ("ids bus device")
    bus: str = ""  # a digest of the bus
    history: tuple[HistoryEntry, ...] = ()

    def for_boot(self, boot: str) -> HotplugState:
        """Return the state as it counts for this boot: of another one the times, and what was plugged in, say nothing."""
        if boot == self.boot:
            return self
        return replace(
            self, boot=boot, plugged={}, silent_since={}, tries={}, last_status={}, remarks_made=(), scanned=(), bus=""
        )

    def with_history(self, *decisions: HistoryEntry) -> HotplugState:
        """Return the state with decisions added; the oldest go."""
        return replace(self, history=(*self.history, *decisions)[-HISTORY:])


def load_state(path: Path) -> HotplugState:
    """Return what the file holds; an empty state if it is not there, or is not one of ours. Never raises."""
    return records.recall_record(HotplugState, path, VERSION) or HotplugState()


def save_state(path: Path, state: HotplugState) -> None:
    """Replace the file: whenever the power goes, the old or the new one is there. Raises files.WriteError."""
    files.replace_files({path: records.dump_record(state, VERSION)}, MODE)
