# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether upsd hangs, which connections block it, and when it may be restarted: decided from what was seen, and remembered.

A hung upsd is told from a slow machine by its process, not by a clock alone: somebody waits for it, and it sleeps and uses no
processor time. One that is runnable, or waits for a disk, is slow, and has a minute.

On battery a restart is the last resort on NUT 2.8.1 and 2.8.2: an upsmon of these that fails one poll while its UPS was on
battery shuts down at once. It polls every 5 s and waits 5 s for an answer, so after BATTERY_SECONDS of silence each upsmon has
decided. Then a restart loses nothing, and lets the primary's FSD reach the machines that are still up. NUT 2.8.0 waits for
DEADTIME (15 s) since the last answer, so there an early restart prevents the shutdown.
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
from ..net.readings import may_be_outage
from ..net.vocabulary import ABSENT, split_status

if TYPE_CHECKING:
    from ..net.upsd_process import Activity, ClientConnection, Sockets

VERSION = 1

ASKS = 3
"""Questions in a row without an answer before a restart is thought of."""
IDLE_SECONDS = 3.0
"""How long upsd must have slept through its work, seen at each look. With the questions before it, about 6 s of silence."""
BUSY_SECONDS = 60.0
"""How long a upsd that is slow, but not asleep, may say nothing."""
BATTERY_SECONDS = 20.0
START_SECONDS = 10.0
"""An upsd that is younger than this is starting."""
RESTARTS, RESTART_SECONDS = 3, 3600.0
"""How many restarts there may be within how long."""
FLOOD_LOOKS, FLOOD_SECONDS = 3, 10.0
"""An address whose connections are full that often within this long sends without reading."""
UNREAD_BYTES = 128
"""More commands than that a client has sent at once only to keep upsd busy."""
MERGE_SECONDS = 600.0
"""Events of one kind and address that are no further apart than this are one."""
EVENTS = 50  # how many are kept

MAINS, BATTERY, UNKNOWN = "mains", "battery", "unknown"
BLOCKED, FLOODED, RESTARTED, LEFT, LISTENS = "blocked", "flooded", "restarted", "left alone", "listens"


# What is seen


def latest_power_status(before: str, now: str) -> str:
    """Return the status that counts for the power, of the one that counted so far and a new one.

    One that says nothing of the power (stale data, a driver that waits, a UPS that was unplugged) changes nothing: upsmon, too, takes
    a UPS that was on battery for that until it says OL, and one that was on mains for that until it says OB.
    """
    return before if _tells_power(before) and not _tells_power(now) else now


def power_source(words: Iterable[str]) -> str:
    """Return where the power comes from by the last words of all UPSes: MAINS, BATTERY (also during FSD), or UNKNOWN.

    A UPS that is not there, and has not been, has no say. One whose data have been stale from the beginning may be on battery.
    """
    flags = [found for found in map(split_status, words) if ABSENT not in found]
    if any(map(may_be_outage, flags)):
        return BATTERY
    return MAINS if flags and all("OL" in found for found in flags) else UNKNOWN


def is_mains_seen(words: Iterable[str], statuses: Iterable[str]) -> bool:
    """Return whether a UPS says now that there are mains, and none said last that it is on battery."""
    return power_source(words) != BATTERY and any("OL" in split_status(status) for status in statuses)


def _tells_power(status: str) -> bool:
    flags = split_status(status)
    return "OL" in flags or may_be_outage(flags)


def is_hasty(release: str) -> bool:
    """Return whether upsmon of a release shuts down at once when one poll fails on battery. One that is unknown is taken for it."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", release)
    return found is None or (2, 8, 1) <= tuple(map(int, found.groups())) < (2, 8, 3)


def blocking_connections(before: Sockets, now: Sockets) -> tuple[ClientConnection, ...]:
    """Return the connections to close while upsd is silent: those that block it, and those that would do so next.

    One that was full at two looks blocks it. Of a client that reads slowly some may have moved: it blocks upsd all the same. Of the
    same address also those go that upsd has many commands to read from: no NUT client sends a second one before its answer.
    """
    full = {connection.inode for connection in before.connections if connection.is_full}
    many = {connection.inode for connection in before.connections if connection.unread > UNREAD_BYTES}
    blocking = {found.inode: found for found in now.connections if found.is_full and found.inode in full}
    addresses = {connection.address for connection in blocking.values()}
    return tuple(
        found
        for found in now.connections
        if found.inode in blocking
        or (found.address in addresses and found.inode in many and found.unread > UNREAD_BYTES)
    )


@dataclass(frozen=True)
class Silence:
    """That upsd does not answer. Times: seconds of a clock that never goes back."""

    since: float  # the last answer, or the start of the watch
    asks: int = 0  # questions without an answer since then
    ticks: int = -1  # the processor time of upsd at the last look
    idle_since: float | None = None  # since when it has slept though there was work; None: it does not

    def with_look(self, now: float, activity: Activity, has_work: bool) -> Silence:
        """Return it with one more look at upsd, after a question that got no answer."""
        rests = has_work and activity.state in ("S", "T") and activity.ticks == self.ticks
        idle_since = (now if self.idle_since is None else self.idle_since) if rests else None
        return Silence(self.since, self.asks + 1, activity.ticks, idle_since)


def is_restart_due(
    silence: Silence, now: float, activity: Activity, *, power: str, hasty: bool, has_work: bool
) -> bool:
    """Return whether upsd hangs so that only a restart helps, and it is time for that."""
    if silence.asks < ASKS or activity.age < START_SECONDS or activity.state == "t" or not has_work:
        return False
    silent = now - silence.since
    idle = silence.idle_since is not None and now - silence.idle_since >= IDLE_SECONDS
    if power != MAINS and hasty and silent < BATTERY_SECONDS:
        return False
    return idle or silent >= BUSY_SECONDS


class Floods:
    """Which addresses have connections that are full again and again, though upsd, which drops them, is not blocked."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {}

    def note_look(self, sockets: Sockets, now: float) -> list[str]:
        """Take a look at the connections; return the addresses that send without reading."""
        for address in {connection.address for connection in sockets.connections if connection.is_full}:
            self._seen.setdefault(address, []).append(now)
        recent = {name: [at for at in times if now - at < FLOOD_SECONDS] for name, times in self._seen.items()}
        self._seen = {name: times for name, times in recent.items() if times}
        return sorted(name for name, times in self._seen.items() if len(times) >= FLOOD_LOOKS)


# What is remembered


@dataclass(frozen=True)
class WatchEvent:
    """Something that happened. first, last: seconds since 1970. address: whose connection it was, "" if nobody's."""

    kind: str
    address: str
    words: str
    first: float
    last: float
    times: int = 1

    def __str__(self) -> str:
        """Return it in one line."""
        again = f" ({self.times} times, until {format_time(self.last)})" if self.times > 1 else ""
        return f"{format_time(self.first)}  {printable(self.words, 300)}{again}"


@dataclass(frozen=True)
class Memory:
    """What outlives the watcher. restarts: when upsd was restarted, in seconds of this boot. tried: LISTEN lines, by a restart.

    release: that of upsd, as it said itself. A watcher that starts while upsd hangs can't ask. The power is not kept: it may have
    failed since, and "unknown" costs only time.
    """

    boot: str = ""
    restarts: tuple[float, ...] = ()
    tried: tuple[str, ...] = ()
    events: tuple[WatchEvent, ...] = ()
    release: str = ""

    def may_restart(self, now: float) -> bool:
        """Return whether another restart is allowed."""
        return len(self._recent_restarts(now)) < RESTARTS

    def with_restart(self, now: float) -> Memory:
        """Return it with a restart."""
        return replace(self, restarts=(*self._recent_restarts(now), now))

    def with_event(self, event: WatchEvent) -> tuple[Memory, bool]:
        """Return it with an event, and whether that is news: the same once more within MERGE_SECONDS is only counted."""
        same = [old for old in self.events if (old.kind, old.address) == (event.kind, event.address)]
        if same and 0 <= event.first - same[-1].last < MERGE_SECONDS:
            merged = replace(same[-1], last=event.last, times=same[-1].times + 1, words=event.words)
            others = [old for old in self.events if old is not same[-1]]
            return replace(self, events=(*others, merged)), False
        return replace(self, events=(*self.events, event)[-EVENTS:]), True

    def for_boot(self, boot: str) -> Memory:
        """Return what of it counts in a boot: of another one, the events alone."""
        return self if boot and self.boot == boot else Memory(boot, events=self.events)

    def _recent_restarts(self, now: float) -> tuple[float, ...]:
        return tuple(at for at in self.restarts if 0 <= now - at < RESTART_SECONDS)


def dump_memory(memory: Memory) -> str:
    """Return the text of the memory's file."""
    return records.dump_record(memory, VERSION)


def load_memory(text: str, boot: str) -> Memory:
    """Read what dump() wrote, for this boot. Never raises: a broken memory is none."""
    try:
        return records.load_record(Memory, text, VERSION).for_boot(boot)
    except records.RecordError:
        return Memory(boot)


def recall_memory(path: Path, boot: str) -> Memory:
    """Read the memory's file, for this boot. Never raises: a broken memory is none."""
    return (records.recall_record(Memory, path, VERSION) or Memory()).for_boot(boot)
