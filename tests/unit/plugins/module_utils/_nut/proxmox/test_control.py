# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test with real processes as guests, managed by stand-ins for qm and pct."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import control
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import HA_SECONDS, KINDS, Guest
from pve import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SPEED = 200.0


class Stand:
    """The stand-in's programs, and a clock that is as fast as they are."""

    def __init__(self, folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "guests").mkdir()
        self.host = stand_in.GuestFolder(folder / "guests", SPEED)
        stand_in.install_programs(folder / "bin", folder / "guests", SPEED)
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self.now = 0.0
        self.hooks: dict[str, str] = {}  # a word of a command -> what is said instead

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        for word, said in self.hooks.items():
            if word in command:
                return 1, said
        took = self.host.folder / "took"
        took.unlink(missing_ok=True)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        self.now += float(took.read_text()) if took.exists() else 0.0
        return done.returncode, done.stdout + done.stderr

    def stop(self, number: int, seconds: float, kind: str = "qm") -> control.StopResult:
        return control.stop_guest(self.run, Guest(number, kind), seconds, clock=self.clock, pause=self.pause)

    @property
    def verbs(self) -> list[str]:
        return [
            " ".join(call[:1] + [word for word in call[1:] if not word.isdigit()]) for call in self.host.read_calls()
        ]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    new_stand = Stand(tmp_path)
    yield new_stand
    new_stand.host.kill_all()


@pytest.mark.parametrize("kind", KINDS)
def test_guest_status_is_read_and_guest_is_started(stand: Stand, kind: str) -> None:
    stand.host.add_guest(100, kind=kind)
    assert control.read_status(stand.run, Guest(100, kind)) == "running"
    stand.host.kill_guest(100)
    assert control.read_status(stand.run, Guest(100, kind)) == "stopped"
    assert control.read_status(stand.run, Guest(999, kind)) is None
    assert control.start_guest(stand.run, Guest(100, kind))[0] == 0
    assert stand.host.find_pid(100)
    assert control.start_guest(stand.run, Guest(100, kind))[0] == 255


def test_running_guests_are_listed(stand: Stand) -> None:
    assert control.list_running(stand.run) == frozenset()
    stand.host.add_guest(100, name="mail")
    stand.host.add_guest(101)
    stand.host.add_guest(102, running=False)
    stand.host.add_guest(103, kind="pct", name="films")
    stand.host.add_guest(104, kind="pct", lock="backup")
    stand.host.add_guest(105, kind="pct", running=False, lock="backup")
    assert control.list_running(stand.run) == {100, 101, 103, 104}
    assert "       101 VM 101 " in stand.run(["qm", "list"])[1]


def test_guest_name_that_looks_like_a_table_row_is_not_misread() -> None:
    table = {
        "qm": "      VMID NAME   STATUS     MEM(MB)    BOOTDISK(GB) PID       \n"
        "       100 running  stopped    512                 0.00 0         \n"
        "       101 stopped  paused     512               900.00 7         \n"
        "      1020 stopped  running    512               900.00 4217      \n",
        "pct": "VMID       Status     Lock         Name                \n"
        "200        stopped                 running             \n"
        "201        running                 stopped             \n",
    }
    assert control.list_running(lambda command: (0, table[command[3]])) == {101, 1020, 201}


@pytest.mark.parametrize("broken", ["qm", "pct"])
def test_running_guests_are_unknown_if_qm_or_pct_fails(stand: Stand, broken: str) -> None:
    stand.host.add_guest(100)
    stand.host.add_guest(103, kind="pct")
    stand.hooks[broken] = "       100 mail running 512 0.00 7\n103 running  films\n"
    assert control.list_running(stand.run) is None


@pytest.mark.parametrize("kind", KINDS)
def test_guest_that_shuts_down_is_stopped(stand: Stand, kind: str) -> None:
    stand.host.add_guest(100, kind=kind, shutdown=7)
    found = stand.stop(100, 120, kind)
    assert (found.outcome, found.by_ha) == ("stopped", False)
    assert "is down after 7.0 s" in found.message
    assert not stand.host.find_pid(100)
    assert [kind, "shutdown", "100", "--timeout", "120", "--forceStop", "1"] in stand.host.read_calls()


@pytest.mark.parametrize("kind", KINDS)
def test_hanging_guest_is_forced_off_by_proxmox(stand: Stand, kind: str) -> None:
    stand.host.add_guest(100, kind=kind, shutdown=None)
    found = stand.stop(100, 20, kind)
    assert (found.outcome, stand.now) == ("forced", 20)
    assert "within 20 s" in found.message
    assert not stand.host.find_pid(100)


def test_guest_that_was_down_is_already_down(stand: Stand) -> None:
    stand.host.add_guest(100, running=False)
    assert stand.stop(100, 20).outcome == "already"


def test_missing_guest_is_gone(stand: Stand) -> None:
    stand.host.add_guest(100, kind="pct")
    assert stand.stop(100, 600).outcome == "gone"
    assert stand.now == 0
    assert stand.host.find_pid(100)


def test_host_without_qm_cannot_stop_guest() -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        asked.append(command)
        return 127, "timeout: failed to run command 'qm': No such file or directory\n"

    found = control.stop_guest(run, Guest(100, "qm"), 600, clock=lambda: 0.0, pause=lambda _seconds: None)
    assert found.outcome == "runs"
    assert "No such file" in found.message
    assert len(asked) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_backup_is_ended_once(stand: Stand, kind: str) -> None:
    stand.host.add_guest(100, kind=kind, lock="backup", shutdown=3)
    assert stand.stop(100, 60, kind).outcome == "stopped"
    assert stand.verbs.count("vzdump --stop") == 1


def test_guest_is_forced_if_backup_does_not_end(stand: Stand) -> None:
    stand.host.add_guest(100, lock="backup")
    asked: list[str] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        asked.append(command[3])
        return (0, "") if command[3] == "vzdump" else stand.run(command)

    found = control.stop_guest(run, Guest(100, "qm"), 10, clock=stand.clock, pause=stand.pause)
    assert found.outcome == "forced"
    assert asked.count("vzdump") == 1


def test_unreachable_vm_is_forced_at_once() -> None:
    def run(command: Sequence[str]) -> tuple[int, str]:
        if command[4] == "status":
            return 0, "status: stopped\n"
        return 0, "VM quit/powerdown failed - terminating now with SIGTERM\n"

    assert control.stop_guest(run, Guest(100, "qm"), 60, clock=lambda: 0.0).outcome == "forced"


def test_permanent_lock_is_broken_at_the_end(stand: Stand) -> None:
    stand.host.add_guest(100, lock="migrate")
    found = stand.stop(100, 10)
    assert found.outcome == "forced"
    assert 8 <= stand.now <= 10
    assert "vzdump --stop" not in stand.verbs
    assert ["qm", "stop", "100", "--skiplock", "1"] in stand.host.read_calls()
    # each try has what is left of the time
    tries = [call[4] for call in stand.host.read_calls() if call[1] == "shutdown"]
    assert tries[:3] == ["10", "8", "6"]


def test_guest_that_cannot_be_forced_still_runs(stand: Stand) -> None:
    stand.host.add_guest(100, lock="migrate")
    stand.hooks["stop"] = "can't lock file\n"
    found = stand.stop(100, 10)
    assert found.outcome == "runs"
    assert "could not be stopped in" in found.message
    assert found.message.endswith("can't lock file")


def test_guest_with_unknown_status_counts_as_running(stand: Stand) -> None:
    stand.host.add_guest(100, shutdown=3)
    stand.hooks["status"] = "ipcc_send_rec failed\n"
    found = stand.stop(100, 10)
    assert found.outcome == "runs"
    del stand.hooks["status"]
    assert stand.stop(100, 10).outcome == "already"


def test_ha_gets_one_request_and_time_to_act(stand: Stand) -> None:
    stand.host.add_guest(100, ha=True, shutdown=5)
    found = stand.stop(100, 600)
    assert (found.outcome, found.by_ha) == ("stopped", True)
    assert stand.verbs.count("qm shutdown --timeout --forceStop") == 1


def test_guest_is_forced_if_ha_does_nothing(stand: Stand) -> None:
    stand.host.add_guest(100, ha=True, shutdown=None)
    found = stand.stop(100, 30)
    assert (found.outcome, found.by_ha) == ("runs", True)
    assert stand.verbs.count("qm shutdown --timeout --forceStop") == 1
    assert stand.now <= control.longest_stop(30)
    assert stand.now >= 30 + HA_SECONDS - 2


def test_each_command_has_a_time_limit(stand: Stand) -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        asked.append(command)
        return 0, "status: stopped\n"

    control.stop_guest(run, Guest(100, "qm"), 44.2, clock=lambda: 0.0, pause=lambda _seconds: None)
    control.start_guest(run, Guest(100, "qm"))
    assert [list(command[:3]) for command in asked] == [
        ["timeout", "--kill-after=5", "66"],
        ["timeout", "--kill-after=5", "15"],
        ["timeout", "--kill-after=5", "150"],
    ]
