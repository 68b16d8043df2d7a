# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest, GuestsError
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.selection import Chosen, Selector
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import stages
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.fsd import FsdError
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.stages import (
    Action,
    Power,
    Stage,
    StagesError,
    State,
    Target,
)
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serving
from hypothesis import given
from hypothesis import strategies as st
from pve import stand_in

if TYPE_CHECKING:
    from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import Run
    from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.stages import Finder

SPEED = 500.0
BOOT = 5000.0  # CLOCK_BOOTTIME when a story begins
LIMIT = 3 * 3600.0
UPS = {"name": "ups", "host": "localhost", "port": 3493}

OL = {"ups.status": "OL", "battery.charge": "100", "battery.runtime": "3000"}
OB = {"ups.status": "OB DISCHRG", "battery.charge": "80", "battery.runtime": "2000"}

Says = "Mapping[str, str] | None"


def ob(charge: float, runtime: float = 2000) -> Mapping[str, str]:
    return {"ups.status": "OB", "battery.charge": f"{charge:g}", "battery.runtime": f"{runtime:g}"}


# The world of a story: guests are processes, and the time is ours


class Killed(BaseException):
    """kill -9."""


class World:
    """A host with guests. Its time stands still while a program runs, and then makes the step that the program waited for.

    Each thread that sleeps gives way; when all do, it is the next one's moment. So a story goes the same way each time, however
    slow the machine is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "guests"):
            (folder / name).mkdir()
        self.host = stand_in.Host(folder / "guests", SPEED)
        stand_in.programs(folder / "bin", folder / "guests", SPEED)
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self.state = folder / "lib/stages.json"
        self.boot = "boot-1"
        self.upses: list[dict[str, Any]] = [UPS]
        self.says: dict[str, list[tuple[float, Says]]] = {}
        self.now = BOOT
        self.lines: list[str] = []
        self.told: list[float] = []  # when upsmon was told to set FSD
        self.fsd_codes: list[int] = []  # what upsmon answers, then 0
        self.fsd_works = True
        self.latch = False  # upsd shows FSD
        self.seen_at_fsd: list[list[int]] = []  # which guests ran then
        self.notified: list[Sequence[str]] = []
        self.events: list[tuple[float, Callable[[], None]]] = []
        self.kill_at = LIMIT
        self.kill_before_fsd = False
        self.finder: Finder | None = None
        self.stay_until = 0.0  # seconds until which the program goes on when nothing is left to do
        self.looks: list[float] = []  # when upsd was asked
        self._condition = threading.Condition()
        self._mine = threading.local()
        self._busy = 0
        self._sleepers: list[list[Any]] = []
        self._life = 0

    # What the program is given

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._condition:
            target = self.now + seconds
            if getattr(self._mine, "job", False):
                me: list[Any] = [target, False]
                self._sleepers.append(me)
                self._busy -= 1
                self._condition.notify_all()
                life = self._life
                assert self._condition.wait_for(lambda: me[1] or self._life != life, 60)
                if self._life != life:
                    raise Killed
                return
            while True:
                assert self._condition.wait_for(lambda: self._busy == 0, 60), "a job does not end"
                self.now = min([target, *(one[0] for one in self._sleepers)])
                due = [one for one in self._sleepers if one[0] <= self.now]
                for one in due:
                    one[1] = True
                    self._sleepers.remove(one)
                self._busy += len(due)
                self._condition.notify_all()
                if not due and self.now >= target:
                    break
        if self.now >= self.kill_at:
            self.kill_at = LIMIT
            raise Killed
        assert self.now < BOOT + LIMIT, "\n".join(["the story does not end", *self.lines])

    def start(self, job: Callable[[], None]) -> None:
        def whole() -> None:
            self._mine.job = True
            try:
                job()
            except Killed:
                return  # it counts no more
            with self._condition:
                if self._life == life:
                    self._busy -= 1
                    self._condition.notify_all()

        with self._condition:
            self._busy += 1
            life = self._life
        threading.Thread(target=whole, daemon=True).start()

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        assert list(command[:2]) == ["timeout", "--kill-after=5"]
        what = list(command[3:])
        if what[0].startswith("/"):
            self.notified.append(what)
            return 1, "no mail today"
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if what[1:2] == ["shutdown"] and done.returncode == 0:
            guest, limit = self.host.get(int(what[2])), float(what[4])
            if not guest["ha"]:
                self.sleep(limit if guest["shutdown"] is None else min(limit, guest["shutdown"]))
        return done.returncode, done.stdout + done.stderr

    def set_fsd(self, _run: Run) -> None:
        if self.kill_before_fsd:
            self.kill_before_fsd = False
            raise Killed
        self.told.append(self.now - BOOT)
        self.seen_at_fsd.append(
            sorted(int(one.stem) for one in self.host.folder.glob("*.json") if self.host.runs(int(one.stem)))
        )
        code = self.fsd_codes.pop(0) if self.fsd_codes else 0
        if code:
            raise FsdError("nut-monitor.service is not running")
        if self.fsd_works:
            self.latch = True

    def ask(self, ups: Mapping[str, Any]) -> Says:
        self.looks.append(self.now - BOOT)
        for event in [one for one in self.events if one[0] <= self.now - BOOT]:
            self.events.remove(event)
            event[1]()
        said: Says = None
        for since, what in self.says.get(str(ups["name"]), []):
            if self.now - BOOT >= since:
                said = what
        return {**said, "ups.status": f"FSD {said['ups.status']}"} if said and self.latch else said

    # The story

    def story(self, *steps: tuple[float, Says], ups: str = "ups") -> None:
        """Say from which second on a UPS says what."""
        self.says[ups] = list(steps)

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        self.events.append((seconds, event))

    def go(self, *policy: Mapping[str, Any] | Stage) -> str:
        return stages.run(
            policy,
            self.upses,
            state_path=self.state,
            log=self.lines.append,
            run=self.run,
            clock=self.clock,
            ask=self.ask,
            sleep=self.sleep,
            boot_id=lambda: self.boot,
            start=self.start,
            set_fsd=self.set_fsd,
            finder=self.finder,
            stay=lambda: self.now - BOOT < self.stay_until,
        )

    def go_killed(self, *policy: Mapping[str, Any]) -> None:
        """The same, until it is killed; then nothing of it is left."""
        with pytest.raises(Killed):
            self.go(*policy)
        self.kill()

    def kill(self) -> None:
        with self._condition:
            self._life += 1
            self._busy, self._sleepers = 0, []
            self._condition.notify_all()

    # What came of it

    def running(self, *numbers: int) -> list[int]:
        return [number for number in numbers if self.host.runs(number)]

    def count(self, verb: str, number: int) -> int:
        return sum(call[1:3] == [verb, str(number)] for call in self.host.calls())

    def has(self, words: str) -> bool:
        return any(words in line for line in self.lines)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path)
    yield one
    one.kill()
    one.host.kill_all()


NAS = {
    "name": "nas-guests",
    "on_battery": 120,
    "guests": [{"kind": "qm", "id": 101, "seconds": 100}, {"kind": "pct", "id": 102, "seconds": 60}],
    "fsd": True,
}
EARLY = {"name": "early", "on_battery": 60, "guests": [{"kind": "qm", "id": 101, "seconds": 100}]}
FSD = {"name": "the-end", "charge": 30, "fsd": True}


def guests_of(world: World, first: float | None = 20, second: float | None = 5, **more: Any) -> None:
    world.host.put(101, kind="qm", shutdown=first, **more)
    world.host.put(102, kind="pct", shutdown=second)


# Mains return before, during and after each stage


def test_to_the_end(world: World) -> None:
    guests_of(world)
    world.story((0, OB))
    assert "FSD" in world.go(NAS)
    assert world.running(101, 102) == []
    assert world.seen_at_fsd == [[]]
    # the slower guest takes 20 s, and two looks are 2 s apart
    assert 140 <= world.told[0] <= 144
    assert len(world.told) == 1
    assert world.has("stage nas-guests begins: 120 s on battery, 120 s were allowed")
    assert world.has("VM 101 is down, after 20.0 s")
    assert world.state.exists()


def test_mains_were_never_away(world: World) -> None:
    guests_of(world)
    world.story((0, OL))
    assert world.go(NAS) == "the mains are there, and nothing is left to do"
    assert world.now == BOOT
    assert not world.state.exists()
    assert world.host.calls() == []


def test_mains_return_before_any_stage(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (110, OL))
    world.go(NAS)
    assert world.running(101, 102) == [101, 102]
    assert not world.state.exists()
    assert world.told == []
    assert 140 <= world.now - BOOT <= 144


def test_mains_return_after_a_stage_without_fsd(world: World) -> None:
    guests_of(world)
    world.host.put(103, running=False)
    stage = {**NAS, "fsd": False, "guests": [*NAS["guests"], {"kind": "qm", "id": 103}]}  # type: ignore[misc]
    world.story((0, OB), (200, OL))
    world.go(stage)
    assert world.running(101, 102, 103) == [101, 102]
    assert (world.count("start", 101), world.count("start", 102), world.count("start", 103)) == (1, 1, 0)
    assert not world.state.exists()
    # one after the other, and at once when the mains are stable
    assert 230 <= world.now - BOOT <= 240


def test_what_was_stopped_last_is_started_first(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (200, OL))
    world.go(EARLY, {**NAS, "fsd": False})
    assert [call[2] for call in world.host.calls() if call[1] == "start"] == ["102", "101"]


def test_they_are_started_only_when_the_mains_are_stable(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (100, OL), (125, OB), (130, OL))
    seen: list[list[int]] = []
    world.at(158, lambda: seen.append(world.running(101)))
    world.go(EARLY)
    assert seen == [[]]
    assert world.running(101) == [101]
    assert world.count("start", 101) == 1
    assert world.count("shutdown", 101) == 1


def test_mains_return_while_guests_go_down(world: World) -> None:
    guests_of(world, first=90)
    world.story((0, OB), (130, OL))
    world.go(NAS)
    # what has been told to go down does so, and comes back; and FSD is not sent
    assert world.told == []
    assert world.running(101, 102) == [101, 102]
    assert world.count("start", 101) == 1


def test_mains_return_between_the_guests_and_fsd(world: World) -> None:
    guests_of(world)
    world.fsd_codes = [1] * 5
    world.story((0, OB), (146, OL))
    world.go(NAS)
    assert len(world.told) == 3
    assert world.running(101, 102) == [101, 102]
    assert not world.state.exists()


def test_a_flap_between_the_guests_and_fsd_only_delays_it(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (140, OL), (160, OB))
    assert "FSD" in world.go(NAS)
    assert 160 <= world.told[0] <= 164
    assert world.count("start", 101) == 0


def test_mains_return_after_fsd(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (150, OL))
    assert "FSD" in world.go(NAS)
    assert world.running(101, 102) == []
    assert world.count("start", 101) == world.count("start", 102) == 0


def test_mains_return_after_fsd_that_nobody_heard(world: World) -> None:
    guests_of(world)
    world.fsd_works = False
    world.story((0, OB), (150, OL))
    world.go(NAS)
    assert len(world.told) == 1
    assert world.running(101, 102) == [101, 102]


# It stays


def test_it_stays_when_the_mains_are_there(world: World) -> None:
    guests_of(world)
    world.story((0, OL))
    world.stay_until = 86400
    world.kill_at = BOOT + 3000
    world.at(100, lambda: world.state.write_text("not touched"))
    world.go_killed(NAS)
    assert world.state.read_text() == "not touched"
    world.state.unlink()
    # nothing is done, nothing is written, and not more than the two words of its beginning are said
    assert world.host.calls() == []
    assert [path.name for path in world.state.parent.iterdir()] == ["stages.json.lock"]
    assert [line.partition("  ")[2] for line in world.lines] == [
        "on mains",
        "the mains are there, and nothing is left to do",
    ]
    assert [after - before for before, after in zip(world.looks, world.looks[1:])] == [5] * 599


def test_an_outage_costs_nothing_after_it(world: World) -> None:
    guests_of(world)
    world.stay_until = 86400
    stage = {**NAS, "fsd": False}
    world.story((0, OL), (1000, OB), (1200, OL), (2000, OB), (2200, OL))
    there: list[bool] = []
    for second in (900, 1100, 1900, 2100, 2900):
        world.at(second, lambda: there.append(world.state.exists()))
    world.kill_at = BOOT + 3000
    world.go_killed(stage)
    assert there == [False, True, False, True, False]
    assert world.running(101, 102) == [101, 102]
    assert [world.count("shutdown", 101), world.count("start", 101)] == [2, 2]
    begun = [float(line.split(" s")[0][1:]) for line in world.lines if " begins: " in line]
    assert begun == [120, 120]
    pauses = {(round(before // 1000), after - before) for before, after in zip(world.looks, world.looks[1:])}
    assert {pause for _when, pause in pauses} == {5.0, 2.0}
    quick = [one for one, after in zip(world.looks, world.looks[1:]) if after - one == 2]
    assert {1000 <= one <= 1250 or 2000 <= one <= 2250 for one in quick} == {True}


FSD_SAID = {"ups.status": "FSD OB LB"}


def test_after_fsd_it_stays_and_does_nothing_more(world: World) -> None:
    guests_of(world)
    world.stay_until = 86400
    notify = {"name": "late", "on_battery": 300, "notify": ["/bin/mail"], "fsd": True}
    world.story((0, OB), (1000, None))
    world.kill_at = BOOT + 1500
    world.go_killed(NAS, notify)
    calls = len(world.host.calls())
    assert world.latch
    assert len(world.told) == 1
    assert world.notified == []
    assert world.running(101, 102) == []
    # killed and started again while upsd is gone: it knows
    world.kill_at = BOOT + 3000
    world.go_killed(NAS, notify)
    assert len(world.told) == 1
    assert world.notified == []
    assert len(world.host.calls()) == calls


def test_fsd_that_is_called_off(world: World) -> None:
    guests_of(world)
    world.stay_until = 86400
    world.story((0, OL), (100, FSD_SAID), (200, None), (210, OL), (1000, OB))
    world.kill_at = BOOT + 1100
    world.go_killed(NAS)
    # upsd was started anew: what we have stopped is started, when the mains are stable
    assert world.count("start", 101) == world.count("start", 102) == 1
    assert world.running(101, 102) == [101, 102]
    assert world.told == []
    # and the next outage is one of its own
    world.kill_at = LIMIT
    world.stay_until = 0
    world.go(NAS)
    assert 1140 <= world.told[0] <= 1144
    assert world.count("shutdown", 101) == 2


def test_fsd_that_is_called_off_begins_anew_at_once(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (100, FSD_SAID), (200, OL), (210, OB))
    world.stay_until = 200
    world.go(NAS)
    assert 210 + 120 <= world.told[0] <= 210 + 124
    assert world.count("start", 101) == 0


def test_fsd_that_is_called_off_on_battery_is_not_believed(world: World) -> None:
    guests_of(world)
    world.stay_until = 86400
    world.story((0, OB), (30, FSD_SAID), (100, OB))
    world.kill_at = BOOT + 1000
    world.go_killed(NAS)
    assert world.told == []
    assert not world.has("begins")


def test_fsd_while_the_mains_are_there(world: World) -> None:
    guests_of(world)
    world.stay_until = 86400
    world.story((0, OL), (100, {"ups.status": "FSD OL"}), (300, OL))
    world.kill_at = BOOT + 290
    world.go_killed(NAS)
    assert world.running(101, 102) == []
    world.kill_at = BOOT + 325
    world.go_killed(NAS)
    assert world.running(101, 102) == []
    world.kill_at = BOOT + 400
    world.go_killed(NAS)
    assert world.running(101, 102) == [101, 102]
    # and nothing of it is left over for the next outage
    world.story((0, OB))
    world.stay_until = 0
    world.go(NAS)
    assert world.running(101, 102) == []


def test_fsd_is_called_off_while_a_guest_still_goes_down(world: World) -> None:
    guests_of(world, first=90)
    world.story((0, FSD_SAID), (10, OL))
    world.stay_until = 100
    world.go(NAS)
    assert world.running(101, 102) == [101, 102]
    assert 120 <= world.now - BOOT <= 130


# Who is stopped


class Finds:
    """A finder: what it finds, and kept, is said beforehand."""

    def __init__(self, world: World, kept: Mapping[str, Sequence[Chosen]] | None = None) -> None:
        self.world, self.known = world, dict(kept or {})
        self.found: list[
            Callable[[], Mapping[str, Sequence[Chosen]]]
        ] = []  # one try after the other, the last for ever
        self.tries: list[float] = []
        self.broken = False

    def find(self) -> Mapping[str, Sequence[Chosen]]:
        self.tries.append(self.world.now - BOOT)
        return (self.found.pop(0) if len(self.found) > 1 else self.found[0])()

    def kept(self) -> Mapping[str, Sequence[Chosen]]:
        return self.known

    def keep(self, found: Mapping[str, Sequence[Chosen]]) -> bool:
        if self.broken:
            raise files.WriteError("guests.json could not be written: No space left on device.")
        self.known = dict(found)
        return True


def chosen(number: int, seconds: float = 60.0) -> Chosen:
    return Chosen(Guest(number, "pct" if number == 102 else "qm", f"guest{number}"), seconds, "it has the tag nas")


TAGGED = {"name": "tagged", "on_battery": 120, "tags": ["nas"], "fsd": True}


def finding(world: World, *found: Any, kept: Sequence[Chosen] | None = None) -> Finds:
    """Let it find these, one after the other: guests, an error, or how many seconds it takes before what comes next."""
    one = Finds(world, None if kept is None else {"tagged": kept})

    def give(what: Any) -> Mapping[str, Sequence[Chosen]]:
        if isinstance(what, tuple):
            world.sleep(what[0])
            what = what[1]
        if isinstance(what, Exception):
            raise what
        return {"tagged": what}

    one.found = [lambda what=what: give(what) for what in found]  # type: ignore[misc]
    world.finder = one
    guests_of(world)
    world.host.put(103)
    return one


def test_guests_are_found_when_an_outage_begins(world: World) -> None:
    finds = finding(world, [chosen(101), chosen(102)])
    world.story((0, OL), (1000, OB))
    world.stay_until = 999
    world.go(TAGGED)
    assert finds.tries == [1000]
    assert world.running(101, 102, 103) == [103]
    assert world.seen_at_fsd == [[103]]
    assert set(finds.known) == {"tagged"}
    assert world.has("stage tagged is for VM 101 (guest101), container 102 (guest102)")
    assert world.has("VM 101 (guest101) is shut down, and has 60 s for it")


def test_they_are_found_anew_in_each_outage(world: World) -> None:
    finds = finding(world, [chosen(101)], [chosen(102)])
    world.story((0, OB), (60, OL), (1000, OB), (1200, OL))
    world.stay_until = 1100
    world.go({**TAGGED, "fsd": False})
    assert finds.tries == [0, 1000]
    assert (world.count("shutdown", 101), world.count("shutdown", 102)) == (0, 1)


def test_fsd_waits_until_they_are_found(world: World) -> None:
    finding(world, (6, [chosen(101)]))
    world.story((0, OB))
    world.go({**TAGGED, "on_battery": 0})
    assert world.seen_at_fsd == [[102, 103]]
    assert 26 <= world.told[0] <= 28


def test_but_not_for_ever(world: World) -> None:
    finding(world, (1e6, [chosen(101)]))
    world.story((0, OB))
    world.kill_at = BOOT + 400
    world.stay_until = 86400
    world.go_killed({**TAGGED, "on_battery": 0})
    assert world.told[0] == stages.FIND_SECONDS
    assert world.seen_at_fsd[0] == [101, 102, 103]
    assert sum("have not been found within 10 s" in line for line in world.lines) == 1


def test_it_is_not_tried_again_while_the_first_try_hangs(world: World) -> None:
    finds = finding(world, (1e6, []))
    world.story(*((place * 200.0, OB if place % 2 == 0 else OL) for place in range(6)))
    world.kill_at = BOOT + 1000
    world.stay_until = 86400
    world.go_killed(TAGGED)
    assert finds.tries == [0]


@pytest.mark.parametrize("found", [(1e6, []), GuestsError("/etc/pve/local is not there"), ValueError("odd")])
def test_what_was_kept_counts_where_nothing_is_found(world: World, found: Any) -> None:
    finding(world, found, kept=[chosen(101), chosen(102)])
    world.story((0, OB))
    world.go(TAGGED)
    assert world.seen_at_fsd == [[103]]
    assert 140 <= world.told[0] <= 144
    assert world.has("last count")


def test_it_is_tried_again_after_a_failure(world: World) -> None:
    finds = finding(world, GuestsError("x is not there"), GuestsError("x is not there"), [chosen(101)])
    world.story((0, OB))
    world.go(TAGGED)
    assert finds.tries == [0, 30, 60]
    assert world.seen_at_fsd == [[102, 103]]
    assert sum("x is not there: those found last count" in line for line in world.lines) == 1


@pytest.mark.parametrize("then", [OB, None])
def test_killed_in_an_outage_they_are_found_anew(world: World, then: Says) -> None:
    finds = finding(world, [chosen(101)])
    world.story((0, OB), (50, then))
    world.stay_until = 86400
    world.kill_at = BOOT + 60
    world.go_killed(TAGGED)
    world.kill_at = BOOT + 160
    world.go_killed(TAGGED)
    assert world.running(101) == []
    assert finds.tries == [0, 60]


def test_what_was_kept_is_stopped_at_once_and_what_is_found_later_too(world: World) -> None:
    # 101 is not meant any more, and 103 is new
    finds = finding(world, (130, [chosen(102), chosen(103)]), kept=[chosen(101), chosen(102)])
    world.story((0, OB))
    world.host.put(101, shutdown=55)
    world.go({**TAGGED, "on_battery": 100})
    # FSD is not sent before what was told to go down has gone, though no stage names it any more
    assert 155 <= world.told[0] <= 158
    assert world.seen_at_fsd == [[]]
    assert [chosen.guest.id for chosen in finds.known["tagged"]] == [102, 103]
    assert world.count("shutdown", 102) == 1
    assert set(json.loads(world.state.read_text())["ours"]) == {"qm/101", "pct/102", "qm/103"}


def test_what_is_meant_no_more_is_not_stopped(world: World) -> None:
    finding(world, (5, [chosen(102)]), kept=[chosen(101), chosen(102)])
    world.story((0, OB))
    world.go(TAGGED)
    assert world.seen_at_fsd == [[101, 103]]


def test_killed_while_one_goes_down_that_no_stage_names_any_more(world: World) -> None:
    finding(world, (105, []), [], kept=[chosen(101)])
    world.host.put(101, shutdown=60)
    world.story((0, OB))
    world.kill_at = BOOT + 110
    world.go_killed({**TAGGED, "on_battery": 100})
    world.go({**TAGGED, "on_battery": 100})
    # nobody waits for it, and it comes back with the mains
    assert 110 <= world.told[0] <= 114
    assert set(json.loads(world.state.read_text())["ours"]) == {"qm/101"}


def test_a_guest_without_a_kind_that_nobody_has_found(world: World) -> None:
    world.finder = Finds(world)
    world.finder.found = [lambda: {}]
    guests_of(world)
    world.story((0, OB))
    world.go({**TAGGED, "guests": [101, {"id": 102, "kind": "pct", "seconds": 30}]})
    # the other one's program is known
    assert world.seen_at_fsd == [[101]]


def test_what_is_found_is_not_looked_for_where_nobody_is_to_be_stopped(world: World) -> None:
    finds = finding(world, [chosen(101)])
    world.story((0, OB))
    world.go(FSD | {"on_battery": 10})
    assert finds.tries == []
    assert world.told == [10]


def test_what_was_found_can_not_be_kept(world: World) -> None:
    finds = finding(world, [chosen(101)])
    finds.broken = True
    world.story((0, OB))
    world.go(TAGGED)
    assert finds.tries == [0]
    assert world.seen_at_fsd == [[102, 103]]
    assert world.has("guests.json could not be written: No space left on device.")
    assert not world.has("last count")


@pytest.mark.parametrize("status", ["FSD OB LB", "FSD OL"])
def test_fsd_of_somebody_else_waits_for_who_is_found(world: World, status: str) -> None:
    finding(world, (8, [chosen(101)]))
    world.story((0, {"ups.status": status}))
    assert "FSD" in world.go(TAGGED)
    assert world.running(101, 102) == [102]


# Flaps and the clock


def test_a_flap_does_not_set_the_clock_back(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (100, OL), (110, OB))
    world.go(NAS)
    assert 140 <= world.told[0] <= 144


def test_after_a_long_return_the_clock_begins_anew(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (100, OL))
    world.go(NAS)
    world.story((0, OL), (200, OB))
    world.now = BOOT + 200
    world.go(NAS)
    assert 340 <= world.told[0] <= 344


def test_many_flaps_in_a_row_are_one_outage(world: World) -> None:
    guests_of(world)
    world.story(*((place * 12.0, OB if place % 2 == 0 else OL) for place in range(30)))
    world.go(NAS)
    # it never begins, or sends FSD, while the mains are there
    assert world.told
    assert world.told[0] % 24 < 12


def test_the_outage_comes_back_while_guests_are_started(world: World) -> None:
    guests_of(world)
    stage = {**NAS, "on_battery": 60, "fsd": False}
    world.story((0, OB), (100, OL), (131, OB), (300, OL))
    world.go(stage)
    assert world.running(101, 102) == [101, 102]
    # a new outage, and so the stage begins anew
    assert sum("begins" in line for line in world.lines) == 2
    assert world.count("start", 101) + world.count("start", 102) <= 4


# upsd, upsmon


def test_upsd_dies_on_battery(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (20, None))
    world.fsd_works = False
    world.at(180, lambda: world.story((0, {"ups.status": "FSD OB"})))
    world.go(NAS)
    assert 140 <= world.told[0] <= 144
    assert world.has("upsd does not say how the power stands")


def test_upsd_dies_and_charge_triggers_nothing(world: World) -> None:
    guests_of(world)
    world.story((0, ob(80)), (20, None), (4000, OL))
    world.go({**NAS, "on_battery": None, "charge": 50})
    assert world.told == []
    assert world.running(101, 102) == [101, 102]


def test_upsd_dies_when_the_mains_are_back(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (100, OL), (110, None), (1000, OL))
    world.go(NAS)
    assert world.told == []
    assert 1000 <= world.now - BOOT <= 1004


def test_upsd_was_never_there(world: World) -> None:
    world.story((0, None))
    world.kill_at = BOOT + 1000
    world.go_killed(NAS)
    assert world.lines == ["+0.0 s  upsd does not say how the power stands"]
    assert not world.state.exists()


def test_upsd_comes_late(world: World) -> None:
    guests_of(world)
    world.story((0, None), (200, OB))
    world.go(NAS)
    assert 340 <= world.told[0] <= 344


def test_upsmon_does_not_run(world: World) -> None:
    guests_of(world)
    world.fsd_codes = [1] * 40
    world.story((0, OB))
    world.go(NAS)
    assert len(world.told) == 41
    assert [round(after - before) for before, after in zip(world.told, world.told[1:])] == [2] * 40
    # and it is said once a minute
    assert sum("can't be told to set FSD: nut-monitor.service is not running" in line for line in world.lines) == 2


def test_upsd_does_not_show_fsd(world: World) -> None:
    guests_of(world)
    world.fsd_works = False
    world.story((0, OB), (200, {"ups.status": "FSD OB"}))
    world.go(NAS)
    assert [round(after - before) for before, after in zip(world.told, world.told[1:])] == [16, 16, 16]
    assert world.has("upsd has not shown FSD for 16 s")


def test_fsd_comes_from_somebody_else(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (30, {"ups.status": "FSD OB LB"}))
    assert "FSD" in world.go(NAS)
    # its storage is about to go: the stage's guests are not left running
    assert world.running(101, 102) == []
    assert world.told == []


def test_fsd_of_another_ups_is_not_ours(world: World) -> None:
    guests_of(world)
    world.upses = [UPS, {**UPS, "name": "rack"}]
    world.story((0, OL))
    world.story((0, {"ups.status": "FSD OB LB"}), (50, OL), ups="rack")
    world.go({**NAS, "on_battery": 1000})
    assert world.running(101, 102) == [101, 102]


def test_two_upses(world: World) -> None:
    guests_of(world)
    world.upses = [UPS, {**UPS, "name": "rack"}, {**UPS, "name": "gone"}]
    # the one that comes back first does not end the outage; one that was never heard of does not count
    world.story((0, OB), (50, OL))
    world.story((0, OL), (20, OB), (100, None), (110, OB), ups="rack")
    world.go(NAS)
    assert 140 <= world.told[0] <= 144


def test_two_upses_and_the_one_that_was_on_battery_falls_silent(world: World) -> None:
    guests_of(world)
    world.upses = [UPS, {**UPS, "name": "rack"}]
    world.story((0, OL))
    world.story((0, OB), (20, None), ups="rack")
    world.go(NAS)
    assert 140 <= world.told[0] <= 144


def test_one_ups_is_back_and_the_other_one_falls_silent(world: World) -> None:
    guests_of(world)
    world.upses = [UPS, {**UPS, "name": "rack"}]
    world.story((0, OB), (30, OL))
    world.story((0, OB), (20, None), ups="rack")
    world.go(NAS)
    assert 140 <= world.told[0] <= 144


def test_a_ups_that_was_never_heard_of_keeps_no_outage_alive(world: World) -> None:
    guests_of(world)
    world.upses = [UPS, {**UPS, "name": "rack"}]
    world.story((0, OB), (50, OL))
    world.go(NAS)
    assert 80 <= world.now - BOOT <= 84
    assert world.told == []


# Killed and started again


@pytest.mark.parametrize("second", [4, 60, 118])
def test_killed_before_the_stage(world: World, second: float) -> None:
    guests_of(world)
    world.story((0, OB))
    world.kill_at = BOOT + second
    world.go_killed(NAS)
    world.now += 2
    world.go(NAS)
    assert 140 <= world.told[0] <= 146


def test_killed_while_guests_go_down(world: World) -> None:
    guests_of(world, first=50)
    world.story((0, OB))
    world.kill_at = BOOT + 130
    world.go_killed(NAS)
    assert world.told == []
    world.now += 2
    world.go(NAS)
    assert world.running(101, 102) == []
    assert len(world.told) == 1
    # what the first run has shut down is ours, though it is down when the second one looks
    assert json.loads(world.state.read_text())["ours"] == {"qm/101": False, "pct/102": False}


def test_killed_and_a_guest_goes_down_just_before_it_is_told_again(world: World) -> None:
    guests_of(world, first=50)
    world.story((0, OB))
    world.kill_at = BOOT + 130
    world.go_killed(NAS)
    said = ["status: running\n"]

    def late(command: Sequence[str]) -> tuple[int, str]:
        if command[3:6] == ["qm", "status", "101"] and said:
            return 0, said.pop()
        return World.run(world, command)

    world.run = late  # type: ignore[method-assign]
    world.host.kill(101)
    world.now += 2
    world.go(NAS)
    assert "qm/101" in json.loads(world.state.read_text())["ours"]


def test_killed_while_a_guest_hangs_its_time_goes_on(world: World) -> None:
    guests_of(world, first=None)
    world.story((0, OB))
    world.kill_at = BOOT + 150

    def gone(command: Sequence[str]) -> tuple[int, str]:
        # the first run is killed before qm has forced the guest
        if command[3:5] == ["qm", "shutdown"] and world.now < BOOT + 150:
            world.sleep(1000)
        return World.run(world, command)

    world.run = gone  # type: ignore[method-assign]
    world.go_killed(NAS)
    assert world.running(101) == [101]
    world.now += 2
    world.go(NAS)
    timeouts = [call[4] for call in world.host.calls() if call[1:3] == ["shutdown", "101"]]
    assert timeouts == ["68"]
    assert world.running(101) == []


def test_killed_between_the_guests_and_fsd(world: World) -> None:
    guests_of(world)
    world.story((0, OB))
    world.kill_before_fsd = True
    world.go_killed(NAS)
    assert world.told == []
    calls = len(world.host.calls())
    world.now += 2
    world.go(NAS)
    assert len(world.told) == 1
    # nothing is stopped twice
    assert len(world.host.calls()) == calls


def test_killed_and_the_mains_return_meanwhile(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (143, OL))
    world.kill_before_fsd = True
    world.go_killed(NAS)
    world.now = BOOT + 300
    world.go(NAS)
    assert world.told == []
    assert world.running(101, 102) == [101, 102]
    assert not world.state.exists()


def test_killed_after_fsd(world: World) -> None:
    guests_of(world)
    world.story((0, OB))
    world.go(NAS)
    calls = len(world.host.calls())
    assert "FSD" in world.go(NAS)
    assert len(world.told) == 1
    assert len(world.host.calls()) == calls


def test_killed_while_guests_are_started(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (150, OL))
    stage = {**NAS, "fsd": False}
    world.kill_at = BOOT + 182
    world.go_killed(stage)
    assert len(world.running(101, 102)) == 1
    world.go(stage)
    assert world.running(101, 102) == [101, 102]
    assert world.count("start", 101) == world.count("start", 102) == 1


# The state file


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '{"version": 1}', '{"version": 2}', "\xff", '{"version": 1, "boot": "boot-1", "ours": 3}'],
)
def test_a_damaged_state(world: World, text: str) -> None:
    guests_of(world)
    world.state.parent.mkdir()
    world.state.write_text(text, encoding="latin-1")
    world.story((0, OB))
    world.go(NAS)
    assert 140 <= world.told[0] <= 144
    assert world.has("can't be used")


def test_a_state_that_is_no_file(world: World) -> None:
    guests_of(world)
    world.state.parent.mkdir()
    os.mkfifo(world.state)
    world.story((0, OB))
    world.go(NAS)
    assert len(world.told) == 1


def test_a_state_of_another_boot(world: World) -> None:
    guests_of(world)
    world.story((0, OB))
    world.kill_at = BOOT + 100
    world.go_killed(NAS)
    world.boot = "boot-2"
    world.story((100, OB))
    world.go(NAS)
    assert 240 <= world.told[0] <= 246
    assert world.has("of another boot")


def test_after_the_reboot_proxmox_starts_its_guests_itself(world: World) -> None:
    guests_of(world)
    world.story((0, OB))
    world.go(NAS)
    world.boot, world.latch = "boot-2", False
    world.story((0, OL))
    world.go(NAS)
    assert world.running(101, 102) == []
    assert not world.state.exists()


def test_after_the_reboot_what_ha_was_told_is_told_otherwise(world: World) -> None:
    guests_of(world, ha=True)
    world.story((0, OB))
    world.go(NAS)
    assert world.running(101, 102) == []
    world.boot, world.latch = "boot-2", False
    world.story((0, OL))
    world.now = BOOT + 1000
    world.go(NAS)
    assert world.running(101, 102) == [101]
    assert world.now - BOOT >= 1030
    assert not world.state.exists()


def test_after_the_reboot_upsd_takes_its_time(world: World) -> None:
    guests_of(world, ha=True)
    world.story((0, OB))
    world.go(NAS)
    world.boot, world.latch = "boot-2", False
    world.now = BOOT
    world.story((0, None), (400, OL))
    world.go(NAS)
    assert world.running(101) == [101]


def test_the_state_can_not_be_written(world: World) -> None:
    guests_of(world)
    world.state.parent.write_text("no folder")
    world.story((0, OB))
    world.go(NAS)
    assert len(world.told) == 1
    assert world.has("could not be written")


@given(
    st.sampled_from(sorted(json.loads(stages.dump(State())))),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_any_type_in_any_place(tmp_path_factory: pytest.TempPathFactory, name: str, value: Any) -> None:
    path = tmp_path_factory.mktemp("state") / "stages.json"
    path.write_text(json.dumps({**json.loads(stages.dump(State(boot="b", since=5.0))), name: value}))
    found, _words = stages.load(path, "b")
    files.replace({path: stages.dump(found)}, 0o600)
    assert stages.load(path, "b") == (found, "")
    stages.decide(stages.read([NAS]), found, 10.0, Power(True))


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    whole = State(
        boot="b",
        since=1.0,
        mains=2.5,
        upses=frozenset({"ups", "rack"}),
        low={"nas charge": 3.0},
        begun={"nas": 4.0},
        asked={"qm/101": 5.0},
        done={"qm/101": "stopped"},
        fsd=6.0,
        down=6.5,
        ours={"qm/101": True},
        tries={"qm/101": (1, 7.0)},
    )
    path = tmp_path / "s.json"
    path.write_text(stages.dump(whole))
    assert stages.load(path, "b") == (whole, "")
    assert stages.load(path, "c")[0] == State(boot="c", ours={"qm/101": True})
    # a kernel that says no boot id may have been started anew
    path.write_text(stages.dump(replace(whole, boot="")))
    assert stages.load(path, "")[0].since is None


def test_a_second_run_ends_at_once(world: World) -> None:
    world.story((0, OB))
    world.state.parent.mkdir()
    with files.alone(world.state.with_name("stages.json.lock"), 0.0):
        assert world.go(NAS) == "another run is at work"
    assert world.now == BOOT


# Guests


def test_two_stages_at_once(world: World) -> None:
    guests_of(world)
    one = {"name": "one", "on_battery": 60, "guests": [{"kind": "qm", "id": 101, "seconds": 100}]}
    two = {
        "name": "two",
        "on_battery": 60,
        "guests": [{"kind": "qm", "id": 101}, {"kind": "pct", "id": 102}],
        "fsd": True,
    }
    world.story((0, OB))
    world.go(one, two)
    assert world.count("shutdown", 101) == world.count("shutdown", 102) == 1
    assert world.seen_at_fsd == [[]]


def test_fsd_of_a_later_stage_waits_for_the_guests_of_an_earlier_one(world: World) -> None:
    guests_of(world, first=90)
    world.story((0, OB))
    world.go(EARLY, {**NAS, "on_battery": 80, "guests": []})
    assert 150 <= world.told[0] <= 154
    assert world.seen_at_fsd == [[102]]


def test_stages_one_after_the_other(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (200, ob(29)))
    world.go(EARLY, FSD)
    assert 206 <= world.told[0] <= 212
    begun = [line for line in world.lines if " begins: " in line]
    assert [line.split("stage ")[1].split(" ")[0] for line in begun] == ["early", "the-end"]


def test_guests_of_a_stage_go_down_at_the_same_time(world: World) -> None:
    guests_of(world, first=50, second=50)
    world.story((0, OB))
    world.go(NAS)
    assert 170 <= world.told[0] <= 174


@pytest.mark.parametrize(("kind", "number", "seconds"), [("qm", 101, 100), ("pct", 102, 60)])
def test_a_guest_hangs(world: World, kind: str, number: int, seconds: int) -> None:
    guests_of(world, **{"first" if number == 101 else "second": None})  # type: ignore[arg-type]
    world.story((0, OB))
    world.go(NAS)
    assert world.running(101, 102) == []
    assert 120 + seconds <= world.told[0] <= 124 + seconds
    assert world.has(f"did not go down within {seconds} s, and was forced")


def test_a_guest_can_not_be_stopped_at_all(world: World) -> None:
    guests_of(world)

    def broken(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "qm":
            return (0, "status: running\n") if command[4] == "status" else (255, "can't lock file\n")
        return World.run(world, command)

    world.run = broken  # type: ignore[method-assign]
    world.story((0, OB))
    world.go(NAS)
    # it has its time, and FSD comes all the same
    assert 218 <= world.told[0] <= 226
    assert world.has("could not be stopped")


def test_a_program_that_never_returns(world: World) -> None:
    guests_of(world)

    def hung(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "qm":
            world.sleep(1e9)
        return World.run(world, command)

    world.run = hung  # type: ignore[method-assign]
    world.story((0, OB))
    world.go(NAS)
    assert 120 + 100 <= world.told[0] <= 120 + 104 + stages.control.longest_stop(0)
    assert world.has("is waited for no longer")


def test_a_job_that_fails_is_no_reason_to_stop(world: World) -> None:
    guests_of(world)

    def bad(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "qm":
            raise ValueError("what is that")
        return World.run(world, command)

    world.run = bad  # type: ignore[method-assign]
    world.story((0, OB))
    world.go(NAS)
    assert len(world.told) == 1
    assert world.has("VM 101: ValueError: what is that")


def test_a_guest_that_is_down_already_is_not_ours(world: World) -> None:
    guests_of(world)
    world.host.kill(101)
    world.story((0, OB), (150, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [102]
    assert world.count("shutdown", 101) == 0


def test_a_guest_that_goes_down_by_itself_before_it_is_told_is_not_ours(world: World) -> None:
    guests_of(world)

    def late(command: Sequence[str]) -> tuple[int, str]:
        came = World.run(world, command)
        if command[3:6] == ["qm", "status", "101"]:
            world.host.kill(101)
        return came

    world.run = late  # type: ignore[method-assign]
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [102]
    assert world.has("VM 101 is down already")
    assert world.count("start", 101) == 0


def test_fsd_does_not_wait_for_a_guest_that_is_being_started() -> None:
    state = State(boot="b", since=0.0, ours={"qm/900": False})
    found = stages.decide(POLICY[2:], state, 10.0, Power(True, runtime=100), {"qm/900"}).state
    found_later = stages.decide(POLICY[2:], found, 20.0, Power(True, runtime=100), {"qm/900"})
    assert [action.kind for action in found_later.actions] == ["notify", "fsd"]


def test_a_guest_that_is_on_another_node_now(world: World) -> None:
    world.host.put(102, kind="pct")
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.has("there is no VM 101 on this host")
    assert world.running(102) == [102]
    assert world.count("start", 101) == 0


def test_a_guest_that_a_user_has_started_meanwhile(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (200, OL))
    world.at(180, lambda: world.host.spawn(101))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [101, 102]
    # once by us, as it was down; it was not stopped again, nor started
    assert (world.count("shutdown", 101), world.count("start", 101)) == (1, 0)
    assert world.has("VM 101 runs already: somebody has started it")


def test_a_guest_that_starts_at_the_third_try(world: World) -> None:
    guests_of(world, starts=2)
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [101, 102]
    assert world.count("start", 101) == 3
    # 30 s of mains, and twice 10 s in between
    assert world.now - BOOT >= 250
    assert world.has("VM 101 was not started: start failed: storage of 101 is not online")


def test_a_guest_that_does_not_start(world: World) -> None:
    guests_of(world, starts=9)
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [102]
    assert world.count("start", 101) == 3
    assert world.has("VM 101 is given up. Start it by hand: qm start 101")
    assert not world.state.exists()


def test_a_start_that_never_returns(world: World) -> None:
    guests_of(world)

    def hung(command: Sequence[str]) -> tuple[int, str]:
        if command[3:5] == ["qm", "start"]:
            world.sleep(1e9)
        return World.run(world, command)

    world.run = hung  # type: ignore[method-assign]
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [102]
    assert world.has("qm/101: its start has not come to an end, and is waited for no longer")


def test_a_backup_is_ended(world: World) -> None:
    guests_of(world, lock="backup")
    world.story((0, OB))
    world.go(NAS)
    assert ["vzdump", "--stop"] in world.host.calls()
    assert world.seen_at_fsd == [[]]


def test_somebody_is_told(world: World) -> None:
    world.story((0, OB))
    world.go({"name": "mail", "on_battery": 10, "notify": ["/usr/bin/mail", "me"]}, {**FSD, "on_battery": 20})
    assert world.notified == [["/usr/bin/mail", "me", "UPS: stage mail begins: 10 s on battery, 10 s were allowed"]]
    # and that it failed holds nothing up
    assert world.has("/usr/bin/mail of stage mail failed with 1: no mail today")
    assert 20 <= world.told[0] <= 22


def test_who_is_told_may_take_his_time(world: World) -> None:
    def slow(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "/usr/bin/mail":
            world.sleep(30)
        return World.run(world, command)

    world.run = slow  # type: ignore[method-assign]
    world.story((0, OB))
    world.go({**FSD, "on_battery": 10, "notify": ["/usr/bin/mail"]})
    assert world.told == [10]


def test_somebody_is_told_in_other_words(world: World) -> None:
    world.story((0, OB), (20, OL))
    world.go({"name": "mail", "on_battery": 10, "notify": ["/usr/bin/mail"], "message": "power; $(rm) is out"})
    assert world.notified == [["/usr/bin/mail", "power; $(rm) is out"]]


# The battery


CHARGE = {"name": "low", "charge": 50, "fsd": True}
RUNTIME = {"name": "low", "runtime": 900, "fsd": True}


def test_charge_falls(world: World) -> None:
    world.story(*((place * 10.0, ob(60 - place)) for place in range(20)))
    world.go(CHARGE)
    # 50 % at 100 s, and HOLD
    assert world.told == [106]
    assert world.has("stage low begins: charge 50%, and 50% is the limit")


def test_noise_at_the_threshold(world: World) -> None:
    noise = [51, 50, 52, 49, 51, 50, 53, 50]
    world.story(*((place * 4.0, ob(noise[place % len(noise)])) for place in range(100)), (400, OL))
    world.go(CHARGE)
    assert world.told == []


def test_a_flap_forgets_how_long_the_charge_was_low(world: World) -> None:
    world.story((0, ob(49)), (4, OL), (14, ob(49)), (18, ob(60)), (60, OL))
    world.go(CHARGE)
    assert world.told == []


def test_charge_rises_after_the_stage_began(world: World) -> None:
    guests_of(world)
    world.story((0, ob(49)), (8, ob(60)), (60, OL))
    world.go({**CHARGE, "fsd": False, "guests": NAS["guests"]})
    assert world.count("shutdown", 101) == 1
    assert sum(" begins: " in line for line in world.lines) == 1


def test_runtime_jumps(world: World) -> None:
    # what some UPSes say in the first seconds on battery, and at a change of the load
    world.story((0, ob(100, 0)), (4, ob(99, 2400)), (50, ob(98, 300)), (54, ob(98, 2300)), (100, OL))
    world.go(RUNTIME)
    assert world.told == []


def test_runtime_falls(world: World) -> None:
    world.story((0, ob(90, 901)), (40, ob(80, 900)))
    world.go(RUNTIME)
    assert world.told == [46]
    assert world.has("runtime 900 s, and 900 s is the limit")


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "a lot"])
def test_a_value_that_is_none(world: World, value: str) -> None:
    world.story((0, {"ups.status": "OB", "battery.charge": value, "battery.runtime": value}), (100, OL))
    world.go({**CHARGE, "runtime": 900})
    assert world.told == []
    for what in ("charge", "runtime"):
        words = f"battery.{what} is unknown: until a UPS says it, it begins no stage (low)"
        assert sum(words in line for line in world.lines) == 1


def test_a_ups_that_always_says_runtime_0_begins_no_stage(world: World) -> None:
    """At 95 %, 6 s into any flicker, this shut the house down."""
    world.story((0, ob(95, 0)), (100, OL))
    world.go(RUNTIME)
    assert world.told == []
    assert world.has("battery.runtime is unknown: until a UPS says it, it begins no stage (low)")


def test_a_runtime_that_is_unknown_for_a_moment_is_not_told(world: World) -> None:
    world.story((0, ob(95, 0)), (4, ob(95)), (100, OL))
    world.go(RUNTIME)
    assert not any("unknown" in line for line in world.lines)


def test_a_low_charge_on_mains_is_no_reason(world: World) -> None:
    world.story((0, OB), (20, {"ups.status": "OL CHRG", "battery.charge": "10", "battery.runtime": "60"}))
    world.go({**CHARGE, "runtime": 900})
    assert world.told == []


def test_the_emptiest_counts(world: World) -> None:
    world.upses = [UPS, {**UPS, "name": "rack"}]
    world.story((0, ob(90)))
    world.story((0, ob(80)), (50, ob(40)), ups="rack")
    world.go(CHARGE)
    assert world.told == [56]


def test_a_low_battery_that_is_on_mains_does_not_count(world: World) -> None:
    world.upses = [UPS, {**UPS, "name": "rack"}]
    world.story((0, ob(90)), (100, OL))
    world.story((0, {**OL, "battery.charge": "5"}), ups="rack")
    world.go(CHARGE)
    assert world.told == []


def test_a_calibration_is_no_outage(world: World) -> None:
    guests_of(world)
    world.story((0, {**ob(20, 100), "ups.status": "OB CAL"}), (1800, {"ups.status": "OL CHRG"}))
    world.go({**NAS, "charge": 50, "runtime": 900})
    assert world.told == []
    assert world.host.calls() == []
    assert 1800 <= world.now - BOOT <= 1804


def test_a_calibration_that_says_ob_first(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (4, {**ob(20), "ups.status": "OB CAL"}), (1800, OL))
    world.go({**NAS, "charge": 50})
    assert world.host.calls() == []


def test_a_calibration_that_says_ob_first_does_not_start_the_clock(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (4, {**OB, "ups.status": "OB CAL"}), (600, OB))
    world.go(NAS)
    assert 740 <= world.told[0] <= 744


def test_no_stage_begins_while_a_ups_calibrates(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (70, {**OB, "ups.status": "OB CAL"}), (400, OL))
    world.go(EARLY, NAS)
    assert (world.count("shutdown", 101), world.count("shutdown", 102)) == (1, 0)
    assert world.running(101, 102) == [101, 102]


def test_the_power_fails_in_a_calibration(world: World) -> None:
    guests_of(world)
    world.story((0, {**OB, "ups.status": "OB CAL"}), (600, OB))
    world.go(NAS)
    assert 740 <= world.told[0] <= 744


def test_a_self_test_on_battery(world: World) -> None:
    world.story((0, {**ob(100, 60), "ups.test.result": "In progress"}), (25, OL))
    world.go({**RUNTIME, "on_battery": 10})
    assert world.told == []


def test_a_test_that_never_ends_stops_no_stage(world: World) -> None:
    world.story((0, {**ob(100, 60), "ups.test.result": "In progress"}))
    world.go(RUNTIME)
    assert stages.TEST_SECONDS <= world.told[0] <= stages.TEST_SECONDS + stages.HOLD + 2


def test_a_stand_in_for_a_ups_that_is_not_there_tells_nothing(world: World) -> None:
    world.story((0, {"ups.status": "ABSENT"}))
    world.kill_at = BOOT + 1000
    world.go_killed(NAS)
    assert world.lines == ["+0.0 s  upsd does not say how the power stands"]


# The core: whatever happens

levels = st.none() | st.floats(0, 100)
powers = st.builds(
    Power,
    st.sampled_from([True, True, True, False, None]),
    levels,
    st.none() | st.floats(0, 3000),
    st.frozensets(st.sampled_from(["OB", "LB", "CAL", "TEST"]), max_size=2),
    st.just(frozenset({"ups"})),
)
POLICY = stages.read([EARLY, {**NAS, "charge": 40}, {**FSD, "runtime": 300}])


@given(st.lists(st.tuples(st.floats(0.5, 40), powers, st.integers(0, 3)), max_size=60))
def test_the_rules_hold_whatever_the_ups_says(  # noqa: PLR0912, PLR0915
    steps: list[tuple[float, Power, int]],
) -> None:
    state, now, jobs = State(boot="b"), 100.0, dict[str, tuple[str, int]]()
    begun: list[str] = []
    steady = -1.0  # since when the mains have been there without a break, as far as it was said
    for seconds, seen, patience in steps:
        now += seconds
        if seen.on_battery is not False:
            steady = -1.0 if seen.on_battery else steady
        elif steady < 0:
            steady = now
        before = state
        decision = stages.decide(POLICY, state, now, seen, frozenset(jobs))
        state = decision.state
        if before.since is not None and state.since is None:
            begun = []
        for action in decision.actions:
            if action.kind == "notify":
                assert action.stage not in begun
                assert steady < 0
                begun.append(action.stage)
            elif action.kind == "stop_guests":
                assert steady < 0
                assert action.stage in begun
                for target in action.targets:
                    assert target.key not in jobs
                    assert target.seconds >= 1
                    jobs[target.key] = ("stop", patience)
                    state = stages.stopping(state, target.key)
            elif action.kind == "fsd":
                assert steady < 0
                assert all(what == "start" for what, _left in jobs.values())
                assert {"nas-guests", "the-end"} & set(begun)
                for stage in POLICY:
                    assert stage.name not in begun or all(one.key in state.done for one in stage.guests)
                state = replace(state, fsd=now)
            elif action.kind == "start_guests":
                assert steady >= 0
                assert now - steady >= stages.STABLE
                assert not jobs
                for target in action.targets:
                    assert target.key in state.ours
                    jobs[target.key] = ("start", patience)
            else:
                assert action.kind == "rest"
                assert steady >= 0
                assert not state.ours
                assert state.since is None
        for key, (what, left) in list(jobs.items()):
            if left:
                jobs[key] = (what, left - 1)
                continue
            del jobs[key]
            state = stages.stopped(state, key, "stopped") if what == "stop" else stages.started(state, key, True, now)
    # and when the mains are back for good, all that we stopped is started
    for _look in range(60):
        now += 2
        for key, (what, _left) in jobs.items():
            state = stages.stopped(state, key, "stopped") if what == "stop" else stages.started(state, key, True, now)
        jobs = {}
        decision = stages.decide(POLICY, state, now, Power(False))
        state = decision.state
        for action in decision.actions:
            jobs |= {target.key: ("start", 0) for target in action.targets}
    assert [action.kind for action in decision.actions] == ["rest"]
    assert not state.ours


def test_a_stop_that_ends_after_its_outage_counts_no_more() -> None:
    assert stages.stopped(State(), "qm/101", "stopped") == State()


def test_decide_needs_no_more_than_data() -> None:
    state = State(boot="b", since=0.0)
    found = stages.decide(POLICY, state, 61.0, Power(True))
    assert [action.kind for action in found.actions] == ["notify", "stop_guests"]
    assert found.actions[1] == Action("stop_guests", "stage early", "early", (Target("qm", 101, 100.0),))
    assert stages.decide(POLICY, state, 59.9, Power(True)).actions == ()


def test_an_outage_is_not_over_while_a_guest_still_goes_down() -> None:
    state = State(boot="b", since=0.0, mains=10.0, begun={"early": 1.0}, asked={"qm/101": 1.0}, ours={"qm/101": False})
    found = stages.decide(POLICY, state, 60.0, Power(False), {"qm/101"})
    assert found == stages.Decision(state)
    assert stages.decide(POLICY, state, 60.0, Power(False)).state.since is None


# The policy


def test_read() -> None:
    assert stages.read([NAS, FSD, {**CHARGE, "name": "n", "notify": ["/bin/x"], "message": "m", "runtime": 3}]) == (
        Stage(
            "nas-guests",
            on_battery=120,
            guests=(Target("qm", 101, 100), Target("pct", 102, 60)),
            fsd=True,
            select=Selector(((101, 100), (102, 60))),
        ),
        Stage("the-end", charge=30, fsd=True),
        Stage("n", charge=50, runtime=3, notify=("/bin/x",), message="m", fsd=True),
    )
    assert stages.read([]) == ()
    assert stages.read([{**EARLY, "guests": [{"kind": "qm", "id": 101}]}])[0].guests[0].seconds == 180
    assert stages.read(stages.read([NAS])) == stages.read([NAS])


def test_read_who_is_stopped() -> None:
    whole = {
        "name": "nas",
        "charge": 50,
        "guests": [
            101,
            {"id": 102, "seconds": 60},
            {"id": 103, "kind": "pct"},
            {"id": 104, "kind": "qm", "seconds": 0},
        ],
        "tags": ["nas", "Web", "nas"],
        "storage_of": ["192.0.2.20", "nas.lan", "2001:db8::1"],
        "seconds": 90,
    }
    stage = stages.read([whole])[0]
    assert stage.select == Selector(
        ((101, None), (102, 60), (103, None), (104, 0)), ("nas", "Web"), ("192.0.2.20", "nas.lan", "2001:db8::1"), 90
    )
    # without a look at Proxmox only those can be stopped whose program is known
    assert stage.guests == (Target("pct", 103, 90), Target("qm", 104, 0))
    for one in ({"tags": ["nas"]}, {"storage_of": ["nas"]}, {"guests": [101]}):
        assert stages.read([{"name": "n", "charge": 3, **one}])[0].select


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "stages must be a list"),
        ([3], r"stages\[0\] must be an object"),
        ([{"charge": 3}], r"stages\[0\]\.name is missing"),
        ([{**FSD, "name": ""}], r"stages\[0\]\.name must be a text"),
        ([{**FSD, "name": "a\nb"}], r"stages\[0\]\.name must be a text"),
        ([FSD, EARLY, FSD], r"stages\[2\]\.name: there are two stages 'the-end'"),
        ([{**FSD, "extra": 1}], r"stages\[0\] has a member 'extra' that is not known; known are name, on_battery"),
        ([{**FSD, "charge": None}], r"stages\[0\] never begins"),
        ([{**FSD, "charge": 101}], r"stages\[0\]\.charge is a percentage"),
        ([{**FSD, "charge": True}], r"stages\[0\]\.charge must be a number"),
        ([{**FSD, "runtime": "3"}], r"stages\[0\]\.runtime must be a number"),
        ([{**FSD, "on_battery": -1}], r"stages\[0\]\.on_battery must be a number"),
        ([{**FSD, "on_battery": float("nan")}], r"stages\[0\]\.on_battery must be a number"),
        ([{**FSD, "guests": {"kind": "qm"}}], r"stages\[0\]\.guests must be a list"),
        ([{**FSD, "guests": [{"kind": "vm", "id": 100}]}], r"stages\[0\]\.guests\[0\]\.kind must be qm"),
        ([{**FSD, "guests": [{"kind": "qm", "id": 99}]}], r"guests\[0\]\.id must be the number"),
        ([{**FSD, "guests": [{"kind": "qm", "id": "100"}]}], r"guests\[0\]\.id must be the number"),
        ([{**FSD, "guests": [{"kind": "qm", "id": True}]}], r"guests\[0\]\.id must be the number"),
        ([{**FSD, "guests": [{"kind": "qm", "id": 100, "seconds": "x"}]}], r"guests\[0\]\.seconds must be a number"),
        ([{**FSD, "guests": [{"kind": "qm"}]}], r"guests\[0\]\.id is missing"),
        ([{**FSD, "guests": [{"id": 100, "secs": 3}]}], r"guests\[0\] has a member 'secs' that is not known"),
        ([{**FSD, "guests": [99]}], r"stages\[0\]\.guests\[0\] must be the number of a guest"),
        ([{**FSD, "guests": [1000000000]}], r"stages\[0\]\.guests\[0\] must be the number of a guest"),
        ([{**FSD, "guests": ["101"]}], r"stages\[0\]\.guests\[0\] must be the number of a guest, .* not '101'"),
        ([{**FSD, "guests": [101, {"id": 101}]}], r"stages\[0\]\.guests\[1\]: 101 stands there twice"),
        ([{**FSD, "tags": "nas"}], r"stages\[0\]\.tags must be a list"),
        ([{**FSD, "tags": ["nas", "a b"]}], r"stages\[0\]\.tags\[1\] must be a tag, .* not 'a b'"),
        ([{**FSD, "tags": [""]}], r"stages\[0\]\.tags\[0\] must be a tag"),
        ([{**FSD, "tags": ["\x1b"]}], r"stages\[0\]\.tags\[0\] must be a tag"),
        ([{**FSD, "storage_of": [3]}], r"stages\[0\]\.storage_of\[0\] must be a machine's name or address"),
        ([{**FSD, "storage_of": ["[2001:db8::1]:3260"]}], r"stages\[0\]\.storage_of\[0\] must be a machine's"),
        ([{**FSD, "seconds": -1}], r"stages\[0\]\.seconds must be a number"),
        (
            [{"name": "x", "charge": 3, "guests": [], "tags": [], "storage_of": []}],
            r"stages\[0\] does nothing: give it",
        ),
        ([{**FSD, "notify": "/bin/x"}], r"stages\[0\]\.notify must be a list"),
        ([{**FSD, "notify": ["mail"]}], r"stages\[0\]\.notify: the program must be given with its path"),
        ([{**FSD, "notify": ["/bin/x", 3]}], r"stages\[0\]\.notify must be a list"),
        ([{**FSD, "message": 3}], r"stages\[0\]\.message must be a text"),
        ([{**FSD, "fsd": 1}], r"stages\[0\]\.fsd must be true or false"),
        ([{"name": "x", "charge": 3}], r"stages\[0\] does nothing"),
    ],
)
def test_a_policy_that_is_none(data: Any, words: str) -> None:
    with pytest.raises(StagesError, match=words):
        stages.read(data)


# The real clock, and the real end of a process


def test_ask_upsd() -> None:
    answers = {"LIST VAR ups": 'BEGIN LIST VAR ups\nVAR ups ups.status "OB LB"\nEND LIST VAR ups\n'}
    with serving(answers) as server:
        ups = {"name": "ups", "host": "127.0.0.1", "port": server.port}
        assert stages.ask_upsd(ups) == {"ups.status": "OB LB"}
        assert stages.ask_upsd({**ups, "name": "other"}) is None
        assert stages.ask_upsd({**ups, "name": "a\nb"}) is None
    assert stages.ask_upsd(ups) is None


PROGRAM = """
import json, subprocess, sys
from pathlib import Path
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import stages
stages.POLL = 0.02
folder = Path(sys.argv[1])
def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
def log(line):
    with open(folder / "log", "a") as file:
        file.write(line + "\\n")
stages.run(
    json.loads((folder / "stages.json").read_text()), [{"name": "ups", "host": "127.0.0.1", "port": int(sys.argv[2])}],
    state_path=folder / "state.json", log=log, run=run, set_fsd=lambda run: run([str(folder / "bin/upsmon"), "-c", "fsd"]),
)
"""


def test_kill_9_and_again_with_processes_and_the_real_clock(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "guests").mkdir()
    host = stand_in.Host(tmp_path / "guests", 1.0)
    stand_in.programs(tmp_path / "bin", tmp_path / "guests", 1.0)
    upsmon = tmp_path / "bin/upsmon"
    upsmon.write_text(f"#!/bin/sh\nls {tmp_path}/guests > {tmp_path}/at-fsd\necho $* >> {tmp_path}/fsd\n")
    upsmon.chmod(0o755)
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    host.put(101, shutdown=0.3)
    # it hangs until it is let go
    host.put(102, kind="pct", shutdown=None)
    policy = [
        {
            "name": "nas",
            "on_battery": 0,
            "fsd": True,
            "guests": [{"kind": "qm", "id": 101, "seconds": 60}, {"kind": "pct", "id": 102, "seconds": 60}],
        }
    ]
    (tmp_path / "stages.json").write_text(json.dumps(policy))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }

    def status(word: str) -> dict[str, str]:
        return {"LIST VAR ups": f'BEGIN LIST VAR ups\nVAR ups ups.status "{word}"\nEND LIST VAR ups\n'}

    def wait(what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not what():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)

    with serving(status("OB")) as server:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(server.port)]
        first = subprocess.Popen(command, env=environment)
        try:
            wait(lambda: "qm/101" in _done(tmp_path) and ["pct", "shutdown"] in [call[:2] for call in host.calls()])
        finally:
            first.kill()
            first.wait()
        assert host.runs(102)
        assert not host.runs(101)
        assert not (tmp_path / "fsd").exists()
        since = json.loads((tmp_path / "state.json").read_text())["since"]
        host.kill(102)
        second = subprocess.Popen(command, env=environment)
        try:
            wait((tmp_path / "fsd").exists)
            assert json.loads((tmp_path / "state.json").read_text())["since"] == since
            server.answers.update(status("FSD OB"))
            wait(lambda: "the shutdown goes on" in (tmp_path / "log").read_text())
            second.terminate()
            assert second.wait(60) == -signal.SIGTERM
        finally:
            second.kill()
            second.wait()
    assert (tmp_path / "fsd").read_text() == "-c fsd\n"
    assert json.loads((tmp_path / "state.json").read_text())["ours"] == {"qm/101": False, "pct/102": False}
    assert sum(call[:3] == ["qm", "shutdown", "101"] for call in host.calls()) == 1


def _done(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / "state.json").read_text())["done"]
    except FileNotFoundError:
        return {}
    return found
