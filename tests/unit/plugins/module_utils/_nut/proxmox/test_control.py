# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test with real processes as guests, managed by stand-ins for qm and pct."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import control
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import HA_SECONDS, KINDS, Guest
from ansible_collections.homelab.nut.tests.unit.support import proxmox_commands
from pve import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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


class Script:
    """A host whose qm and pct give recorded answers, one after the other."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.kind, self.number, self.state = row["kind"], row["number"], row["before"]
        self.answers = list(row["answers"])
        self.now = 0.0
        self.asked: list[str] = []
        self.later = ""  # the state after the next pause

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        words = list(command[3:])
        if words == [self.kind, "status", str(self.number)]:
            folder = {"qm": "qemu-server", "pct": "lxc"}[self.kind]
            gone = (2, f"Configuration file 'nodes/pve1/{folder}/{self.number}.conf' does not exist\n")
            return {"unknown": (124, ""), "gone": gone}.get(self.state, (0, f"status: {self.state}\n"))
        self.asked.append(" ".join(words))
        answer = self.answers.pop(0)
        self.now += answer["takes"]
        self.state, self.later = answer["after"], answer.get("later", "")
        return answer["code"], answer["output"]

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.state = self.later or self.state


def write_ha_state(root: Path, row: Mapping[str, Any]) -> None:
    if state := row.get("ha_state"):
        resource = f"{'vm' if row['kind'] == 'qm' else 'ct'}:{row['number']}"
        (root / "etc/pve/ha").mkdir(parents=True)
        status = {"service_status": {resource: {"node": "pve1", "state": state}}}
        (root / "etc/pve/ha/manager_status").write_text(json.dumps(status))


@pytest.mark.parametrize("row", proxmox_commands.STOP, ids=lambda row: row["name"])
def test_recorded_answers_lead_to_right_stop(row: Mapping[str, Any], tmp_path: Path) -> None:
    script = Script(row)
    write_ha_state(tmp_path, row)
    found = control.stop_guest(
        script.run,
        Guest(row["number"], row["kind"]),
        row["seconds"],
        tmp_path,
        clock=lambda: script.now,
        pause=script.pause,
    )
    assert (found.outcome, found.by_ha) == (row["outcome"], row["by_ha"])
    assert script.asked == row["commands"]
    assert not script.answers
    assert script.now <= control.longest_stop(row["seconds"])


@pytest.mark.parametrize("row", proxmox_commands.START, ids=lambda row: f"{row['code']} {row['output'].strip()}")
def test_recorded_answer_leads_to_right_start(row: Mapping[str, Any], tmp_path: Path) -> None:
    write_ha_state(tmp_path, row)
    asked: list[list[str]] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        asked.append(list(command[3:]))
        return row["code"], row["output"]

    found = control.start_guest(run, Guest(row["number"], row["kind"]), tmp_path)
    assert found.outcome == row["outcome"]
    assert bool(found.message) == (row["outcome"] != "started")
    assert asked == [[row["kind"], "start", str(row["number"])]]


def test_message_says_that_ha_lacks_quorum(tmp_path: Path) -> None:
    row = next(row for row in proxmox_commands.STOP if row["name"] == "VM that HA manages, without a quorum")
    script = Script(row)
    found = control.stop_guest(script.run, Guest(104, "qm"), 20, tmp_path, clock=lambda: script.now, pause=script.pause)
    assert "the cluster has no quorum" in found.message


@pytest.mark.parametrize("kind", KINDS)
def test_guest_is_started(stand: Stand, kind: str) -> None:
    stand.host.add_guest(100, kind=kind, running=False)
    assert control.start_guest(stand.run, Guest(100, kind)).outcome == "started"
    assert stand.host.find_pid(100)


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


def test_unreachable_vm_is_forced_at_once() -> None:
    def run(command: Sequence[str]) -> tuple[int, str]:
        if command[4] == "status":
            return 0, "status: stopped\n"
        return 0, "VM quit/powerdown failed - terminating now with SIGTERM\n"

    assert control.stop_guest(run, Guest(100, "qm"), 60, clock=lambda: 0.0).outcome == "forced"


def test_guest_that_cannot_be_forced_still_runs(stand: Stand) -> None:
    stand.host.add_guest(100)
    stand.hooks["shutdown"] = stand.hooks["stop"] = "can't lock file\n"
    found = stand.stop(100, 10)
    assert found.outcome == "runs"
    assert "could not be stopped in" in found.message
    assert found.message.endswith("can't lock file")


def test_guest_with_unknown_status_is_down_when_proxmox_says_so(stand: Stand) -> None:
    stand.host.add_guest(100, shutdown=3)
    stand.hooks["status"] = "ipcc_send_rec failed\n"
    assert stand.stop(100, 10).outcome == "stopped"
    assert stand.stop(100, 10).outcome == "already"


def test_ha_gets_one_request_and_time_to_act(stand: Stand) -> None:
    stand.host.add_guest(100, ha=True, shutdown=5)
    found = stand.stop(100, 600)
    assert (found.outcome, found.by_ha) == ("stopped", True)
    assert stand.verbs.count("qm shutdown --timeout --forceStop") == 1


def test_guest_runs_on_if_ha_does_nothing() -> None:
    """Every command for it is only a request to HA."""
    now = [0.0]
    asked: list[str] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        asked.append(command[4])
        now[0] += 1
        return 0, "status: running\n" if command[4] == "status" else "Requesting HA stop for VM 100\n"

    def pause(seconds: float) -> None:
        now[0] += seconds

    found = control.stop_guest(run, Guest(100, "qm"), 30, clock=lambda: now[0], pause=pause)
    assert (found.outcome, found.by_ha) == ("runs", True)
    assert asked.count("shutdown") == 1
    assert 30 + HA_SECONDS - 2 <= now[0] <= control.longest_stop(30)


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
