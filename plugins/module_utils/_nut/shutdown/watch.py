# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides whether upsd hangs, which connections block it, and when to restart it; and what nut-watch remembers of that.

A hung upsd differs from a slow host: it has work waiting, but its process sleeps and uses no processor time. An upsd that is
runnable or waits for a disk is only slow, and gets BUSY_SECONDS.

On battery a restart is the last resort with NUT 2.8.1 and 2.8.2, whose upsmon shuts down at once if a single poll fails while
its UPS is on battery. upsmon polls every 5 s and waits 5 s for an answer, so after BATTERY_SECONDS of silence every upsmon has
made its decision. A restart then loses nothing, and lets the primary's FSD reach the machines that are still up. NUT 2.8.0 waits
for DEADTIME (15 s) after the last answer, so an early restart prevents that shutdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import records
from ..base.clock import format_time
from ..base.text import printable
from ..conf.release import is_hasty_release
from ..net.readings import may_be_outage
from ..net.vocabulary import ABSENT, split_status

if TYPE_CHECKING:
    from ..net.upsd_process import Activity, ClientConnection, Sockets

VERSION = 1

ASKS = 3
"""Failed polls in a row before a restart is considered."""
IDLE_SECONDS = 3.0
"""An upsd that has slept for so long while work was waiting hangs. With the polls before, that is about 6 s of silence."""
BUSY_SECONDS = 60.0
"""An upsd that is slow, but not asleep, is restarted after so much silence."""
BATTERY_SECONDS = 20.0
"""On battery, with a hasty upsmon, upsd is restarted only after so much silence."""
START_SECONDS = 10.0
"""An upsd younger than this is still starting."""
RESTARTS, RESTART_SECONDS = 3, 3600.0
"""At most so many restarts within so many seconds."""
FLOOD_LOOKS, FLOOD_SECONDS = 3, 10.0
"""A client floods upsd if its connections are full so often within so many seconds."""
UNREAD_BYTES = 128
"""No NUT client sends more than this before it reads an answer."""
MERGE_SECONDS = 600.0
"""Events of one kind and address within so many seconds are merged."""
EVENTS = 50
"""Events that are kept."""

MAINS, BATTERY, UNKNOWN = "mains", "battery", "unknown"
BLOCKED, FLOODED, RESTARTED, NOT_RESTARTED = "blocked", "flooded", "restarted", "not restarted"


# Decisions


def latest_power_status(before: str, now: str) -> str:
    """Return the new status if it tells the source of power; otherwise the status before.

    With stale data, a waiting driver or an unplugged UPS the source is unknown. upsmon, too, takes a UPS to be on battery until it
    reports OL, and on mains until it reports OB.
    """
    return before if _tells_power(before) and not _tells_power(now) else now


def power_source(last_statuses: Iterable[str]) -> str:
    """Return MAINS, BATTERY (also during FSD) or UNKNOWN, from latest_power_status() of each UPS.

    A UPS that has never been there is ignored. A UPS whose data have always been stale makes the source UNKNOWN.
    """
    flags = [flags for flags in map(split_status, last_statuses) if ABSENT not in flags]
    if any(map(may_be_outage, flags)):
        return BATTERY
    return MAINS if flags and all("OL" in ups_flags for ups_flags in flags) else UNKNOWN


def is_mains_seen(last_statuses: Iterable[str], statuses: Iterable[str]) -> bool:
    """Return whether a UPS reports mains now, and none was last on battery."""
    return power_source(last_statuses) != BATTERY and any("OL" in split_status(status) for status in statuses)


def _tells_power(status: str) -> bool:
    flags = split_status(status)
    return "OL" in flags or may_be_outage(flags)


def is_hasty(release: str) -> bool:
    """Return whether upsmon of a release shuts down at once if one poll fails on battery; True if the release is unknown."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", release)
    return is_hasty_release((int(numbers[1]), int(numbers[2]), int(numbers[3])) if numbers else None)


def blocking_connections(before: Sockets, now: Sockets) -> tuple[ClientConnection, ...]:
    """Return the connections to close while upsd is silent: those that block it, and those that would block it next.

    A connection that is full in both looks blocks upsd, even if a slow client has read some bytes in between. From the same
    address, connections with many unread commands are closed, too: they would block upsd next.
    """
    full = {connection.inode for connection in before.connections if connection.is_full}
    flooded = {connection.inode for connection in before.connections if connection.unread > UNREAD_BYTES}
    blocking = {
        connection.inode: connection
        for connection in now.connections
        if connection.is_full and connection.inode in full
    }
    addresses = {connection.address for connection in blocking.values()}
    return tuple(
        connection
        for connection in now.connections
        if connection.inode in blocking
        or (connection.address in addresses and connection.inode in flooded and connection.unread > UNREAD_BYTES)
    )


@dataclass(frozen=True)
class UpsdSilence:
    """How long upsd has not answered. Times: seconds of a clock that never goes back."""

    since: float  # the last answer, or the start of the watch
    asks: int = 0  # failed polls since then
    ticks: int = -1  # upsd's processor time in the last look, in clock ticks
    idle_since: float | None = None  # since when it has slept while work was waiting; None: it has not

    def with_look(self, now: float, activity: Activity, has_work: bool) -> UpsdSilence:
        """Return the silence after another failed poll and a look at upsd's process."""
        rests = has_work and activity.state in ("S", "T") and activity.ticks == self.ticks
        idle_since = (now if self.idle_since is None else self.idle_since) if rests else None
        return UpsdSilence(self.since, self.asks + 1, activity.ticks, idle_since)


def is_restart_due(
    silence: UpsdSilence, now: float, activity: Activity, *, power: str, hasty: bool, has_work: bool
) -> bool:
    """Return whether upsd hangs and should be restarted now."""
    if silence.asks < ASKS or activity.age < START_SECONDS or activity.state == "t" or not has_work:
        return False
    silent = now - silence.since
    idle = silence.idle_since is not None and now - silence.idle_since >= IDLE_SECONDS
    if power != MAINS and hasty and silent < BATTERY_SECONDS:
        return False
    return idle or silent >= BUSY_SECONDS


class FloodDetector:
    """Finds addresses whose connections fill up again and again, although upsd drops them and is not blocked."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {}

    def note_look(self, sockets: Sockets, now: float) -> list[str]:
        """Record a look at the connections; return the addresses that send commands without reading the answers."""
        for address in {connection.address for connection in sockets.connections if connection.is_full}:
            self._seen.setdefault(address, []).append(now)
        recent = {name: [at for at in times if now - at < FLOOD_SECONDS] for name, times in self._seen.items()}
        self._seen = {name: times for name, times in recent.items() if times}
        return sorted(name for name, times in self._seen.items() if len(times) >= FLOOD_LOOKS)


# The memory


@dataclass(frozen=True)
class WatchEvent:
    """An event, or several equal ones."""

    kind: str  # BLOCKED, FLOODED, RESTARTED or NOT_RESTARTED
    address: str  # of the client; "" without one
    message: str
    first: float  # seconds since 1970
    last: float  # seconds since 1970
    times: int = 1

    def __str__(self) -> str:
        """Return the event in one line."""
        again = f" ({self.times} times, until {format_time(self.last)})" if self.times > 1 else ""
        return f"{format_time(self.first)}  {printable(self.message, 300)}{again}"


@dataclass(frozen=True)
class WatchMemory:
    """What is saved for the next run of nut-watch. The source of power is not: it may have changed, and UNKNOWN only costs time."""

    boot: str = ""  # of base.clock.name_system_start()
    restarts: tuple[float, ...] = ()  # when upsd was restarted, in seconds since boot
    restarted_for: tuple[str, ...] = ()  # addresses of LISTEN lines for which upsd was restarted
    events: tuple[WatchEvent, ...] = ()
    release: str = ""  # of upsd, which a watcher that starts while upsd hangs can't ask

    def may_restart(self, now: float) -> bool:
        """Return whether another restart is allowed."""
        return len(self._recent_restarts(now)) < RESTARTS

    def with_restart(self, now: float) -> WatchMemory:
        """Return the memory with another restart."""
        return replace(self, restarts=(*self._recent_restarts(now), now))

    def with_event(self, event: WatchEvent) -> tuple[WatchMemory, bool]:
        """Return the memory with an event, and whether it is new; an equal one within MERGE_SECONDS is only counted."""
        same = [old for old in self.events if (old.kind, old.address) == (event.kind, event.address)]
        if same and 0 <= event.first - same[-1].last < MERGE_SECONDS:
            merged = replace(same[-1], last=event.last, times=same[-1].times + 1, message=event.message)
            others = [old for old in self.events if old is not same[-1]]
            return replace(self, events=(*others, merged)), False
        return replace(self, events=(*self.events, event)[-EVENTS:]), True

    def for_boot(self, boot: str) -> WatchMemory:
        """Return the memory for a boot: of another boot's memory only the events."""
        return self if boot and self.boot == boot else WatchMemory(boot, events=self.events)

    def _recent_restarts(self, now: float) -> tuple[float, ...]:
        return tuple(at for at in self.restarts if 0 <= now - at < RESTART_SECONDS)


def dump_memory(memory: WatchMemory) -> str:
    """Return the memory as JSON."""
    return records.dump_record(memory, VERSION)


def load_memory(text: str, boot: str) -> WatchMemory:
    """Return the memory from JSON, for this boot; an empty one if the text is damaged."""
    try:
        return records.load_record(WatchMemory, text, VERSION).for_boot(boot)
    except records.RecordError:
        return WatchMemory(boot)


def recall_memory(path: Path, boot: str) -> WatchMemory:
    """Return the memory from its file, for this boot; an empty one if the file is missing or damaged."""
    return (records.recall_record(WatchMemory, path, VERSION) or WatchMemory()).for_boot(boot)
