# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of nut-hotplug between runs. It is not essential: a lost or damaged file costs one scan of the bus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import files, records
from ..usb.fingerprint import Fingerprint
from ..usb.liveness import Stillness

VERSION = 2
HISTORY = 50  # entries kept
MODE = 0o600
# seconds before the second attempt to restart a driver; doubled for each further one
BACKOFF = 15.0
BACKOFF_MOST = 3600.0


@dataclass(frozen=True)
class Plugging:
    """A plugged-in device."""

    bus: int
    device: int  # its number on the bus
    since: float  # when it was first seen, in seconds of CLOCK_BOOTTIME


@dataclass(frozen=True)
class HistoryEntry:
    """One action of the past."""

    time: float  # in seconds since 1970
    name: str  # of the UPS or unit
    what: str
    reason: str


@dataclass(frozen=True)
class Tries:
    """Consecutive attempts to restart a driver."""

    count: int = 0
    last_try: float = 0.0
    good_since: float | None = None  # since when it has had data; None if it has none

    def next_try(self, now: float) -> float:
        """Return the time of the next attempt: now for the first one, and after a reboot, which restarts the clock."""
        if not self.count or self.last_try > now:
            return now
        return self.last_try + min(BACKOFF * 2.0 ** min(self.count - 1, 16), BACKOFF_MOST)

    def add_try(self, now: float) -> Tries:
        """Return the attempts with one more."""
        return Tries(self.count + 1 if self.last_try <= now else 1, now)


@dataclass(frozen=True)
class HotplugState:
    """The state. Mappings are keyed by the names of UPSes. Times are seconds of CLOCK_BOOTTIME unless stated otherwise."""

    boot: str = ""  # the boot id
    identities: Mapping[str, Fingerprint] = field(default_factory=dict)  # the UPS that had the name last
    written: Mapping[str, str] = field(default_factory=dict)  # the text of each section as nut-hotplug wrote it last
    # the text of each section that counts as edited by hand
    edited: Mapping[str, str] = field(default_factory=dict)
    # the text that it was about to write, so that after an interruption it does not count as edited by hand
    intended: Mapping[str, str] = field(default_factory=dict)
    plugged: Mapping[str, Plugging] = field(default_factory=dict)  # the UPSes that are plugged in
    silent_since: Mapping[str, float] = field(default_factory=dict)  # since when upsd has had no data
    # since when a driver has been without its device although upsd has fresh data
    lost_since: Mapping[str, float] = field(default_factory=dict)
    still: Mapping[str, Stillness] = field(default_factory=dict)  # the UPSes on battery
    faults_made: tuple[str, ...] = ()  # faults already logged, which are not repeated
    tries: Mapping[str, Tries] = field(default_factory=dict)
    last_status: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the last ups.status
    # what is postponed -> since when, in seconds since 1970
    deferred: Mapping[str, float] = field(default_factory=dict)
    remarks_made: tuple[str, ...] = ()  # remarks already logged, which are not repeated
    scanned: tuple[str, ...] = ()  # devices ("ids bus device") that nut-scanner was asked about, and answered
    scanner_failed: tuple[str, ...] = ()  # those for which it gave no answer
    scanner_drivers: Mapping[str, str] = field(default_factory=dict)  # ids -> the driver that it named
    scanner_release: str = ""  # of NUT then
    unread: tuple[str, ...] = ()  # texts of UPSes that a release of NUT can't read: unread.write_notes()
    proven: tuple[str, ...] = ()  # doubtful UPSes whose drivers have had data: str(Fingerprint)
    bus: str = ""  # a checksum of quiet.describe_bus()
    history: tuple[HistoryEntry, ...] = ()

    def for_boot(self, boot: str) -> HotplugState:
        """Return the state as far as it is valid in this boot: times and plugged-in devices of another boot are dropped."""
        if boot == self.boot:
            return self
        return replace(
            self,
            boot=boot,
            plugged={},
            silent_since={},
            lost_since={},
            still={},
            tries={},
            last_status={},
            remarks_made=(),
            faults_made=(),
            scanned=(),
            scanner_failed=(),
            bus="",
        )

    def with_history(self, *decisions: HistoryEntry) -> HotplugState:
        """Return the state with entries added and the oldest dropped."""
        return replace(self, history=(*self.history, *decisions)[-HISTORY:])


def load_state(path: Path) -> HotplugState:
    """Return the state in a file; an empty one if the file is missing or invalid. Never raises."""
    return records.recall_record(HotplugState, path, VERSION) or HotplugState()


def save_state(path: Path, state: HotplugState) -> None:
    """Replace the file atomically. Raises files.WriteError."""
    files.replace_files({path: records.dump_record(state, VERSION)}, MODE)
