# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.clock import Clock
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    inside,
    job,
    sandbox,
    simulation,
)
from ansible_collections.homelab.nut.tests.unit.support.fake_nut import FakeNut
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import make_drill_job, make_policy


def test_drill_refuses_to_start_outside_the_sandbox() -> None:
    assert sandbox.find_holes() != []
    out: list[str] = []
    with pytest.raises(job.RehearsalRefused, match="the sandbox of the drill has holes"):
        inside.hold_drill(-1, out.append, out.append, as_json=False)
    assert out == []


@pytest.fixture
def nut(tmp_path: Path) -> Iterator[FakeNut]:
    made = FakeNut(tmp_path)
    yield made
    for pid in made.list_running():
        os.kill(pid, signal.SIGKILL)


QUICK = {"name": "nas", "addresses": ["192.0.2.20"], "shutdown_time": 1.2, "shutdown_limit": 5}


QUICKER = {"name": "web", "addresses": ["192.0.2.21"], "shutdown_time": 0.1, "shutdown_limit": 5}


def quick(*hosts: Any, **changes: Any) -> job.Job:
    timing = {"POLLFREQ": 1, "POLLFREQALERT": 1, "HOSTSYNC": 1, "DEADTIME": 3, "FINALDELAY": 0}
    made = make_policy(*(hosts or (QUICK, QUICKER)), settle=0.5, timeout=8)
    return job.Job(made, **{"timing": timing, "runtime": 900.0, "outage": 0.2, "primary": "pve", **changes})


class Pipe:
    """The input of the inner half: its job, then nothing until it is closed."""

    def __init__(self, line: str) -> None:
        self.source, self.writer = os.pipe()
        os.write(self.writer, f"{line}\n".encode())

    def close(self) -> None:
        os.close(self.writer)


def hold(nut: FakeNut, drill: job.Job, said: list[str], *, as_json: bool = True) -> bool:
    pipe = Pipe(drill.to_json())
    try:
        return inside.hold_drill(
            pipe.source,
            said.append,
            said.append,
            as_json=as_json,
            room=nut.folder,
            check=lambda: [],
            finder=nut.find_program,
        )
    finally:
        pipe.close()


def test_drill_reports_measured_times_and_leaves_nothing_behind(nut: FakeNut) -> None:
    said: list[str] = []
    assert hold(nut, quick(), said) is True
    data = json.loads(said.pop())
    assert data["held"] is True
    assert data["decision"] == {"rule": "down", "reason": "all are down"}
    for name, takes in (("nas", 1.2), ("web", 0.1)):
        began, down = data["machines"][name]
        assert down == pytest.approx(began + takes, abs=0.011)
    last = max(down for _began, down in data["machines"].values())
    assert data["poweroff"] >= last + 0.5 - 0.011
    assert abs(data["trigger"] - time.time()) < 60
    text = "\n".join(said)
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in said)
    for words in (
        "2 more for the other machines", "UPS: on battery, 900 s left", "UPS: battery is low", "nas: upsmon runs its SHUTDOWNCMD",
        "nas: down", "web: down", "pve: upsmon runs its SHUTDOWNCMD", "pve: +0.0 s  the gate begins", "drill is on battery",
        "the gate ends (down): all are down", "pve: would power off now",
    ):  # fmt: skip
        assert words in text
    assert len(nut.read_pids()) == 2 + 2 * 3
    assert nut.list_running() == []
    assert nut.list_folders() == []


def test_drill_names_machine_still_up(nut: FakeNut) -> None:
    # its SHUTDOWNCMD never runs
    nut.set_mode("drill-0")
    said: list[str] = []
    hosts = ({**QUICK, "shutdown_time": 0.3, "shutdown_limit": 1}, QUICKER)
    assert hold(nut, quick(*hosts), said, as_json=False) is False
    assert "The order did not hold: nas had not begun to go down" in said[-1]
    assert "giving up on nas" in "\n".join(said)
    assert nut.list_running() == []
    assert nut.list_folders() == []


def test_drill_fails_if_a_program_exits_unexpectedly(nut: FakeNut) -> None:
    nut.set_mode("upsd-dies")
    with pytest.raises(job.RehearsalError, match="upsd exited unexpectedly: no mood for it"):
        hold(nut, quick(), [])
    assert nut.list_running() == []
    nut.set_mode("drill-1-dies")
    with pytest.raises(job.RehearsalError, match="web's upsmon exited unexpectedly: no mood for it"):
        hold(nut, quick(), [])
    assert nut.list_running() == []
    assert nut.list_folders() == []


def test_drill_fails_if_nut_is_not_installed(nut: FakeNut) -> None:
    (nut.folder / "upsmon").unlink()
    with pytest.raises(job.RehearsalError, match=r"upsmon \(NUT\) not found on this host"):
        hold(nut, quick(), [])
    assert nut.read_pids() == []
    assert nut.list_folders() == []


def test_drill_kills_programs_ignoring_sigterm(nut: FakeNut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation.Programs.stop_all, "__defaults__", (0.3,))
    nut.set_mode("deaf")
    assert hold(nut, quick(), []) is True
    assert len(nut.read_pids()) == 8
    assert nut.list_running() == []


def test_drill_stops_at_the_time_limit(nut: FakeNut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.Job, "time_limit", property(lambda _job: 3.0))
    with pytest.raises(job.RehearsalError, match="exceeded its time limit of 3 s"):
        hold(nut, quick(outage=100.0), [])
    assert nut.list_running() == []
    assert nut.list_folders() == []


def test_drill_fails_if_primary_never_runs_shutdowncmd(nut: FakeNut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.Job, "time_limit", property(lambda _job: 12.0))
    nut.set_mode("drill-primary")
    with pytest.raises(job.RehearsalError, match="did not run its SHUTDOWNCMD in time"):
        hold(nut, quick(), [])
    assert nut.list_running() == []


INSIDE = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from _nut.rehearsal import inside, job
folder = Path(sys.argv[2])
try:
    inside.hold_drill(0, lambda line: print(line, flush=True), print, as_json=False, room=folder, check=lambda: [],
                 finder=lambda name: folder / name)
except job.RehearsalError as error:
    print(error)
    sys.exit(7)
"""


def _interrupted(nut: FakeNut, how: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    words = [sys.executable, "-c", INSIDE, str(Path(inside.__file__).parents[2]), str(nut.folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{quick(outage=1000.0).to_json()}\n")
        process.stdin.flush()
        assert any("on battery" in line for line in iter(process.stdout.readline, ""))
        assert len(nut._find_running()) == 8
        how(process)
        code = process.wait(60)
        return code, process.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_stops_drill_in_order(nut: FakeNut, number: int) -> None:
    assert _interrupted(nut, lambda process: process.send_signal(number)) == (7, "the drill was stopped\n")
    assert nut.list_running() == []
    assert nut.list_folders() == []


def test_drill_stops_when_input_is_closed(nut: FakeNut) -> None:
    def close(process: subprocess.Popen[str]) -> None:
        assert process.stdin
        process.stdin.close()

    assert _interrupted(nut, close) == (7, "the drill was stopped\n")
    assert nut.list_running() == []
    assert nut.list_folders() == []


def test_simulated_runtime_counts_down_and_each_update_has_a_new_mtime(tmp_path: Path) -> None:
    now = [100.0]
    drill = inside.Drill(
        make_drill_job(), tmp_path, print, threading.Event(), clock=Clock(lambda: now[0], lambda: 5000.7)
    )
    drill.write_supply()
    path = tmp_path / "drill.dev"
    assert path.read_text() == simulation.compose_ups_data("OL", 900)
    assert path.stat().st_mtime == 5000
    drill.since = 100.0
    now[0] = 130.0
    drill.set_status("OB")
    assert path.read_text() == simulation.compose_ups_data("OB", 870)
    assert path.stat().st_mtime == 5001
    # updated every two seconds
    now[0] = 131.9
    drill.check_progress()
    assert path.stat().st_mtime == 5001
    now[0] = 132.0
    drill.check_progress()
    assert path.read_text() == simulation.compose_ups_data("OB", 868)
