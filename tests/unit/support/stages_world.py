# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated host for tests of stages_loop: guests are processes, and the clock is simulated."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import stages_loop
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.fsd import FsdError
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import (
    Stage,
    UpsAddress,
    read_stages,
)
from pve import stand_in

if TYPE_CHECKING:
    from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import Run
    from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.stage_guests import GuestSource
SPEED = 500.0
BOOT = 5000.0  # CLOCK_BOOTTIME when a test begins
LIMIT = 3 * 3600.0
UPS = UpsAddress("ups", "localhost", 3493)

OL = {"ups.status": "OL", "battery.charge": "100", "battery.runtime": "3000"}
OB = {"ups.status": "OB DISCHRG", "battery.charge": "80", "battery.runtime": "2000"}

Says = "Mapping[str, str] | None"


def report_battery(charge: float, runtime: float = 2000) -> Mapping[str, str]:
    return {"ups.status": "OB", "battery.charge": f"{charge:g}", "battery.runtime": f"{runtime:g}"}


class Killed(BaseException):
    """The program is killed by SIGKILL."""


class StagesWorld:
    """A host with guests. Its clock stands still while a program runs, and then advances by the time that the program waited.

    When all threads sleep, the clock jumps to the earliest wake-up. So every test runs the same way each time, however slow the
    machine is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "guests"):
            (folder / name).mkdir()
        self.host = stand_in.GuestFolder(folder / "guests", SPEED)
        stand_in.install_programs(folder / "bin", folder / "guests", SPEED)
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self.state = folder / "lib/stages.json"
        self.boot = "boot-1"
        self.root = Path("/")
        self.upses: list[UpsAddress] = [UPS]
        self.minsupplies = 1
        self.built_in: tuple[Stage, ...] = ()
        self.says: dict[str, list[tuple[float, Says]]] = {}
        self.now = BOOT
        self.lines: list[str] = []
        self.told: list[float] = []  # when upsmon was told to set FSD
        self.fsd_codes: list[int] = []  # exit codes of the next calls, then 0
        self.fsd_works = True
        self.latch = False  # upsd reports FSD
        self.seen_at_fsd: list[list[int]] = []  # the guests that were running then
        self.notified: list[Sequence[str]] = []
        self.events: list[tuple[float, Callable[[], None]]] = []
        self.kill_at = LIMIT
        self.kill_before_fsd = False
        self.finder: GuestSource | None = None
        self.find_starts: stages_loop.FindStarts | None = None
        self.stay_until = 0.0  # until then the program goes on when there is nothing to do
        self.looks: list[float] = []  # when upsd was asked
        self._condition = threading.Condition()
        self._mine = threading.local()
        self._busy = 0
        self._sleepers: list[list[Any]] = []
        self._life = 0

    # The program's arguments

    def read_clock(self) -> float:
        return self.now

    def advance_clock(self, seconds: float) -> None:
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

    def start_job(self, job: Callable[[], None]) -> None:
        def whole() -> None:
            self._mine.job = True
            try:
                job()
            except Killed:
                return  # the world has moved on
            with self._condition:
                if self._life == life:
                    self._busy -= 1
                    self._condition.notify_all()

        with self._condition:
            self._busy += 1
            life = self._life
        threading.Thread(target=whole, daemon=True).start()

    def run_command(self, command: Sequence[str]) -> tuple[int, str]:
        assert list(command[:2]) == ["timeout", "--kill-after=5"]
        what = list(command[3:])
        if what[0].startswith("/"):
            self.notified.append(what)
            return 1, "no mail today"
        # the time that the program waited, because several threads run programs at once
        took = self.folder / f"took-{threading.get_ident()}"
        environment = {**self.environment, "PVE_STAND_IN_TOOK": str(took)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if took.exists():
            seconds = float(took.read_text())
            took.unlink()
            self.advance_clock(seconds)
        return done.returncode, done.stdout + done.stderr

    def set_fsd(self, _run: Run) -> None:
        if self.kill_before_fsd:
            self.kill_before_fsd = False
            raise Killed
        self.told.append(self.now - BOOT)
        self.seen_at_fsd.append(
            sorted(int(path.stem) for path in self.host.folder.glob("*.json") if self.host.find_pid(int(path.stem)))
        )
        code = self.fsd_codes.pop(0) if self.fsd_codes else 0
        if code:
            raise FsdError("nut-monitor.service is not running")
        if self.fsd_works:
            self.latch = True

    def ask_ups(self, ups: UpsAddress) -> Says:
        self.looks.append(self.now - BOOT)
        for event in [one for one in self.events if one[0] <= self.now - BOOT]:
            self.events.remove(event)
            event[1]()
        said: Says = None
        for since, what in self.says.get(ups.name, []):
            if self.now - BOOT >= since:
                said = what
        return {**said, "ups.status": f"FSD {said['ups.status']}"} if said and self.latch else said

    # The course of events

    def set_reports(self, *steps: tuple[float, Says], ups: str = "ups") -> None:
        """Set what a UPS reports, by the second from which on it does."""
        self.says[ups] = list(steps)

    def schedule_event(self, seconds: float, event: Callable[[], None]) -> None:
        self.events.append((seconds, event))

    def run_stages(self, *policy: Mapping[str, Any]) -> str:
        return stages_loop.run_stages(
            (*read_stages(policy), *self.built_in),
            self.upses,
            minsupplies=self.minsupplies,
            state_path=self.state,
            log=self.lines.append,
            run=self.run_command,
            clock=self.read_clock,
            ask=self.ask_ups,
            sleep=self.advance_clock,
            boot_id=lambda: self.boot,
            run_in_thread=self.start_job,
            set_fsd=self.set_fsd,
            finder=self.finder,
            stay=lambda: self.now - BOOT < self.stay_until,
            root=self.root,
            find_starts=self.find_starts,
        )

    def run_until_killed(self, *policy: Mapping[str, Any]) -> None:
        """Run the program until it is killed, then drop its threads."""
        with pytest.raises(Killed):
            self.run_stages(*policy)
        self.kill_program()

    def kill_program(self) -> None:
        with self._condition:
            self._life += 1
            self._busy, self._sleepers = 0, []
            self._condition.notify_all()

    # Results

    def list_running(self, *numbers: int) -> list[int]:
        return [number for number in numbers if self.host.find_pid(number)]

    def count_commands(self, verb: str, number: int) -> int:
        return sum(call[1:3] == [verb, str(number)] for call in self.host.read_calls())

    def has_logged(self, words: str) -> bool:
        return any(words in line for line in self.lines)


NAS = {
    "name": "nas-guests",
    "on_battery": 120,
    "guests": [{"kind": "qm", "id": 101, "seconds": 100}, {"kind": "pct", "id": 102, "seconds": 60}],
    "fsd": True,
}
EARLY = {"name": "early", "on_battery": 60, "guests": [{"kind": "qm", "id": 101, "seconds": 100}]}
FSD = {"name": "the-end", "charge": 30, "fsd": True}


def guests_of(world: StagesWorld, first: float | None = 20, second: float | None = 5, **more: Any) -> None:
    world.host.add_guest(101, kind="qm", shutdown=first, **more)
    world.host.add_guest(102, kind="pct", shutdown=second)


FSD_SAID = {"ups.status": "FSD OB LB"}
CHARGE = {"name": "low", "charge": 50, "fsd": True}
RUNTIME = {"name": "low", "runtime": 900, "fsd": True}
