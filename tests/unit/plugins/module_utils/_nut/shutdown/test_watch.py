# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.upsd_process import (
    Activity,
    ClientConnection,
    Sockets,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.vocabulary import ABSENT
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import watch

ASLEEP = Activity("S", 40, 1000.0)


@pytest.mark.parametrize(
    ("statuses", "power"),
    [
        (["OL"], watch.MAINS),
        (["OL CHRG", "OL"], watch.MAINS),
        (["OL", "OB DISCHRG"], watch.BATTERY),
        (["FSD OL"], watch.BATTERY),
        (["OL", ""], watch.UNKNOWN),
        (["OL", ABSENT], watch.MAINS),
        (["OB", ABSENT], watch.BATTERY),
        ([ABSENT], watch.UNKNOWN),
        ([""], watch.UNKNOWN),
        ([], watch.UNKNOWN),
    ],
)
def test_power_source(statuses: list[str], power: str) -> None:
    assert watch.power_source(statuses) == power


@pytest.mark.parametrize(
    ("before", "now", "word"),
    [
        ("", "OL CHRG", "OL CHRG"),
        ("OL", "OB DISCHRG", "OB DISCHRG"),
        ("OB", "OL", "OL"),
        # stale data, a waiting driver, an unplugged UPS
        ("OB", "", "OB"),
        ("OL", "", "OL"),
        ("OB", "WAIT", "OB"),
        ("OB LB", ABSENT, "OB LB"),
        ("", ABSENT, ABSENT),
        (ABSENT, "", ""),
    ],
)
def test_latest_power_status(before: str, now: str, word: str) -> None:
    assert watch.latest_power_status(before, now) == word


@pytest.mark.parametrize(
    ("words", "statuses", "seen"),
    [
        (["OL"], ["OL"], True),
        (["OL", "", ABSENT], ["OL", "", ABSENT], True),
        (["OL", "OB"], ["OL", "OB"], False),
        (["OL", "OB"], ["OL", ""], False),  # the second UPS was last on battery
        (["FSD OL"], ["FSD OL"], False),
        (["OL"], [""], False),
        ([], [], False),
    ],
)
def test_is_mains_seen(words: list[str], statuses: list[str], seen: bool) -> None:
    assert watch.is_mains_seen(words, statuses) is seen


@pytest.mark.parametrize(
    ("release", "hasty"),
    [("2.8.0", False), ("2.8.1", True), ("2.8.2", True), ("2.8.3", False), ("2.8.5.1", False), ("", True)],
)
def test_hasty_releases(release: str, hasty: bool) -> None:
    assert watch.is_hasty(release) is hasty


# Which connections are closed

FULL = {"queued": 4_000_000, "room": 4_194_304}


def connection(
    inode: int, address: str = "192.0.2.9", *, unread: int = 0, queued: int = 0, room: int = 87040
) -> ClientConnection:
    return ClientConnection(inode, address, 50000 + inode, unread, queued, room)


def closed(before: list[ClientConnection], now: list[ClientConnection]) -> list[int]:
    return [found.inode for found in watch.blocking_connections(Sockets(tuple(before), 0), Sockets(tuple(now), 0))]


def test_connection_full_in_two_looks_is_closed() -> None:
    stuck = connection(1, **FULL)
    assert closed([stuck], [stuck]) == [1]


def test_slowly_read_connection_is_closed() -> None:
    assert closed([connection(1, **FULL)], [connection(1, queued=3_900_000, room=4_194_304)]) == [1]


def test_briefly_full_connection_stays() -> None:
    stuck, free = connection(1, **FULL), connection(1)
    assert closed([stuck], [free]) == []
    assert closed([free], [stuck]) == []
    assert closed([connection(1, **FULL)], [connection(2, **FULL)]) == []


def test_flooded_connections_of_same_address_are_closed() -> None:
    waiting, other = connection(2, unread=511), connection(3, "192.0.2.10", unread=511)
    upsmon = connection(4, unread=24)
    both = [connection(1, **FULL), waiting, other, upsmon]
    assert closed(both, both) == [1, 2]
    assert closed([connection(1, **FULL), connection(2, unread=24)], both) == [1]


def test_honest_clients_stay() -> None:
    """A slow answer, while clients wait for theirs, is no reason to close a connection."""
    clients = [connection(number, unread=24) for number in range(9)]
    assert closed(clients, clients) == []


# When upsd is restarted


def silence(*looks: tuple[float, Activity, bool], since: float = 100.0) -> watch.UpsdSilence:
    found = watch.UpsdSilence(since)
    for now, activity, has_work in looks:
        found = found.with_look(now, activity, has_work)
    return found


def due(looks: list[tuple[float, Activity, bool]], power: str = watch.MAINS, *, hasty: bool = True) -> bool:
    now, activity, has_work = looks[-1]
    return watch.is_restart_due(silence(*looks), now, activity, power=power, hasty=hasty, has_work=has_work)


def looks(seconds: float, activity: Activity = ASLEEP, *, has_work: bool = True) -> list[tuple[float, Activity, bool]]:
    """Return equal looks at upsd, one each second, starting 2 s after its last answer."""
    return [(102.0 + number, activity, has_work) for number in range(int(seconds) - 1)]


def test_hung_upsd_is_restarted_on_mains_within_7s() -> None:
    assert not due(looks(5))
    assert due(looks(6))


def test_stopped_upsd_is_restarted() -> None:
    assert due(looks(6, Activity("T", 40, 1000.0)))


def test_traced_upsd_is_left_alone() -> None:
    assert not due(looks(300, Activity("t", 40, 1000.0)))


@pytest.mark.parametrize("state", ["R", "D"])
def test_slow_machine_is_no_hang(state: str) -> None:
    """Runnable but without a processor, or waiting for a disk: that is load, not a hang."""
    assert not due(looks(59, Activity(state, 40, 1000.0)))
    assert due(looks(60, Activity(state, 40, 1000.0)))


def test_working_upsd_is_no_hang() -> None:
    busy = [(102.0 + number, Activity("S", 40 + number, 1000.0), True) for number in range(57)]
    assert not due(busy)


def test_work_resets_idle_time() -> None:
    assert not due([*looks(5), (107.0, Activity("S", 41, 1000.0), True), (108.0, Activity("S", 41, 1000.0), True)])


def test_upsd_without_work_is_not_hung() -> None:
    assert not due(looks(300, has_work=False))


def test_starting_upsd_is_not_hung() -> None:
    assert not due(looks(9, Activity("S", 4, 9.0)))


def test_two_failed_polls_are_not_enough() -> None:
    assert not due([(102.0, ASLEEP, True), (163.0, ASLEEP, True)])


@pytest.mark.parametrize("power", [watch.BATTERY, watch.UNKNOWN])
def test_hasty_release_on_battery_is_restarted_after_20s(power: str) -> None:
    assert not due(looks(19), power)
    assert due(looks(20), power)


def test_patient_release_on_battery_is_restarted_before_deadtime() -> None:
    assert due(looks(6), watch.BATTERY, hasty=False)


# Who sends without reading


def test_flood_detector_names_address() -> None:
    floods = watch.FloodDetector()
    seen = Sockets((connection(1, **FULL), connection(2), connection(3, "192.0.2.10", **FULL)), 0)
    quiet = Sockets((connection(3, "192.0.2.10", **FULL),), 0)
    assert floods.note_look(seen, 0.0) == []
    assert floods.note_look(seen, 1.0) == []
    assert floods.note_look(quiet, 5.0) == ["192.0.2.10"]
    assert floods.note_look(seen, 6.0) == ["192.0.2.10", "192.0.2.9"]
    assert floods.note_look(Sockets((), 0), 30.0) == []


# What is remembered

EVENT = watch.WatchEvent(watch.BLOCKED, "192.0.2.9", "192.0.2.9 blocked upsd", 5000.0, 5000.0)


def test_at_most_three_restarts_an_hour() -> None:
    memory = watch.WatchMemory("b")
    for moment in (10.0, 20.0, 30.0):
        assert memory.may_restart(moment)
        memory = memory.with_restart(moment)
    assert not memory.may_restart(31.0)
    assert not watch.load_memory(watch.dump_memory(memory), "b").may_restart(3600.0)  # the watcher was restarted
    assert memory.may_restart(3610.0)
    assert memory.with_restart(3700.0).restarts == (3700.0,)


def test_boot_clears_restarts() -> None:
    memory = replace(
        watch.WatchMemory("b"),
        restarts=(1.0, 2.0, 3.0),
        restarted_for=("192.0.2.1:3493",),
        events=(EVENT,),
        release="2.8.0",
    )
    assert watch.load_memory(watch.dump_memory(memory), "b") == memory
    assert watch.load_memory(watch.dump_memory(memory), "c") == watch.WatchMemory("c", events=(EVENT,))
    assert watch.load_memory(watch.dump_memory(memory), "") == watch.WatchMemory("", events=(EVENT,))


def test_repeated_event_is_counted() -> None:
    memory, first = watch.WatchMemory().with_event(EVENT)
    memory, again = memory.with_event(replace(EVENT, first=5300.0, last=5300.0))
    assert (first, again) == (True, False)
    assert [(event.times, event.first, event.last) for event in memory.events] == [(2, 5000.0, 5300.0)]
    memory, other = memory.with_event(replace(EVENT, address="192.0.2.10", first=5301.0))
    memory, later = memory.with_event(replace(EVENT, first=9000.0, last=9000.0))
    assert (other, later) == (True, True)
    assert len(memory.events) == 3
    # the clock was set back
    assert memory.with_event(replace(EVENT, first=100.0, last=100.0))[1]


def test_last_events_are_kept() -> None:
    memory = watch.WatchMemory()
    for number in range(watch.EVENTS + 9):
        memory, _news = memory.with_event(replace(EVENT, address=str(number)))
    assert len(memory.events) == watch.EVENTS
    assert memory.events[-1].address == str(watch.EVENTS + 8)


def test_event_is_one_printable_line() -> None:
    line = str(replace(EVENT, message="x\n\x1b[2J", times=3))
    assert line.isprintable()
    assert "(3 times, until " in line


GOOD: dict[str, Any] = json.loads(watch.dump_memory(watch.WatchMemory("b", (1.0,), ("x",), (EVENT,), "2.8.0")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100000,
        "null",
        json.dumps({**GOOD, "version": 2}),
        json.dumps({**GOOD, "restarts": [10**400]}),
        json.dumps({**GOOD, "restarts": [float("nan")]}),
        json.dumps({**GOOD, "restarts": "12"}),
        json.dumps({**GOOD, "restarts": [True]}),
        json.dumps({**GOOD, "boot": 1}),
        json.dumps({**GOOD, "release": None}),
        json.dumps({**GOOD, "events": [{}]}),
        json.dumps({**GOOD, "events": [None]}),
        json.dumps({**GOOD, "events": [{**GOOD["events"][0], "times": 10**400}]}),
        json.dumps({**GOOD, "events": [{**GOOD["events"][0], "message": 5}]}),
        json.dumps({**GOOD, "events": [{**GOOD["events"][0], "last": 1e300}]}),
    ],
)
def test_damaged_memory_is_empty(text: str) -> None:
    assert watch.load_memory(text, "b") == watch.WatchMemory("b")
