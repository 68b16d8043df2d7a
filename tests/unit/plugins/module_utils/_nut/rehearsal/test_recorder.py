# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.clock import Clock
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    fitness,
    job,
    notes,
    recorder,
)
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import (
    ANSWERS,
    MEDIA,
    NAS,
    NEAR,
    RehearsalSystemd,
    make_host,
    make_house,
)


class World:
    """A simulated site: which machines are up, what upsd answers, and what happens at which look."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5000.0
        self.said: list[str] = []
        self.up: dict[str, bool | None] = {"nas": True, "media": True}
        self.told: tuple[bool, frozenset[str] | None] = (False, frozenset({"nas", "media"}))
        self.looks = 0
        self.events: dict[int, Callable[[], None]] = {}
        clock = Clock(lambda: self.now, lambda: self.now - 4000)
        self.host = make_host(folder, conf="", clock=clock)
        self.path = folder / "var/live.json"
        self.recorder = recorder.Recorder(make_house(), self.host, self.path, self.said.append, prober=self.probe)
        monkeypatch.setattr(self.recorder, "ask_upsd", lambda: self.told)
        monkeypatch.setattr(self.recorder, "stopped", self)
        self.set_ = False

    # replaces threading.Event: waiting moves the clock

    def set(self) -> None:
        self.set_ = True

    def is_set(self) -> bool:
        return self.set_

    def wait(self, seconds: float) -> None:
        assert 0 <= seconds <= recorder.TICK
        self.now += seconds

    def probe(self) -> dict[str, bool | None]:
        self.looks += 1
        assert self.looks < 20000
        self.events.pop(self.looks, lambda: None)()
        return dict(self.up)

    def kept(self) -> notes.Notes:
        return notes.read_notes(self.path)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_recorder_notes_each_step_at_once(world: World) -> None:
    kept: list[notes.Notes] = []

    def fsd() -> None:
        world.told = (True, frozenset({"nas", "media"}))

    def leave() -> None:
        kept.append(world.kept())
        world.told = (True, frozenset())

    def fall() -> None:
        kept.append(world.kept())
        world.up = {"nas": False, "media": False}

    def end() -> None:
        kept.append(world.kept())
        world.recorder.stop()
        world.now += 7
        world.recorder.stop()
        # ignored: the network is going down as well
        world.up = {"nas": True, "media": True}

    world.events = {3: fsd, 7: leave, 21: fall, 31: end}
    ready: list[str] = []
    assert world.recorder.run(lambda: ready.append(world.host.token_path.read_text()))
    assert ready == [f"{world.recorder.notes.token}\n"]
    last = world.kept()
    assert last.token == ready[0].strip()
    # a look every half second; its time is that of its start
    assert (last.began, last.fsd, last.ended) == (1000.0, 1001.0, 1014.5)
    assert {name: (noted.logged_out, noted.silent_since) for name, noted in last.machines.items()} == {
        "nas": (1003.0, 1009.5),
        "media": (1003.0, 1009.5),
    }
    # each step was written at once
    assert [noted.fsd for noted in kept] == [1001.0, 1001.0, 1001.0]
    assert [noted.machines["nas"].logged_out for noted in kept] == [None, 1003.0, 1003.0]
    assert [noted.machines["nas"].silent_since for noted in kept] == [None, None, 1009.5]
    assert [noted.ended for noted in kept] == [None, None, None]
    assert world.said[-1] == "this host is going down; stopping"
    assert "nas logged out: it is going down" in world.said
    assert world.path.stat().st_mode & 0o777 == 0o600


def test_recorder_writes_a_heartbeat(world: World) -> None:
    seen: list[float] = []
    world.events = {number: lambda: seen.append(world.kept().last) for number in range(5, 60)}
    world.events[60] = world.recorder.stop
    world.recorder.run(lambda: None)
    assert seen[-1] - seen[0] >= 20
    assert 4 <= len(set(seen)) <= 7


def test_recorder_stops_without_fsd(world: World) -> None:
    assert world.recorder.run(lambda: None) is False
    assert world.now - 5000 == pytest.approx(recorder.PATIENCE, abs=1)
    assert world.said[-1] == "no FSD within 120 s; stopping"


def test_recorder_stops_if_host_stays_up(world: World) -> None:
    world.told = (True, None)
    assert world.recorder.run(lambda: None) is False
    # patience, HOSTSYNC, FINALDELAY, the gate, and ten minutes
    assert world.now - 5000 == pytest.approx(recorder.PATIENCE + 15 + 5 + 150 + 600, abs=1)


def test_full_disk_does_not_stop_recorder(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        def replace(*_args: Any) -> None:
            raise recorder.files.WriteError("no space")

        monkeypatch.setattr(recorder.files, "replace_files", replace)

    world.events = {3: full, 30: world.recorder.stop}
    assert world.recorder.run(lambda: None)
    assert "no space" in world.said


def make_recorder(server: Any, tmp_path: Path) -> recorder.Recorder:
    upses = [{"name": name, "host": "127.0.0.1", "port": server.port} for name in ("none", "ups")]
    house = make_house({**NAS, "addresses": ["192.0.2.21", "192.0.2.20"]}, MEDIA, upses=upses)
    return recorder.Recorder(house, make_host(tmp_path), tmp_path / "live.json", print, prober=dict)


def test_fsd_and_logins_are_read_over_all_upses(tmp_path: Path) -> None:
    inside = {**ANSWERS, "LIST CLIENT ups": ANSWERS["LIST CLIENT ups"].replace("127.0.0.2", "::ffff:192.0.2.20")}
    with serve_answers(inside) as server:
        first = make_recorder(server, tmp_path)
        assert first.ask_upsd() == (False, frozenset({"nas"}))
    with serve_answers({**inside, "GET VAR ups ups.status": 'VAR ups ups.status "FSD OL"\n'}) as server:
        assert make_recorder(server, tmp_path).ask_upsd() == (True, frozenset({"nas"}))
        # one of two UPSes is enough
        two = make_recorder(server, tmp_path)
        two.policy = dataclasses.replace(two.policy, upses=(two.policy.upses[1], two.policy.upses[0]))
        assert two.ask_upsd() == (True, frozenset({"nas"}))
    other = {
        **inside,
        "GET VAR none ups.status": 'VAR none ups.status "OL"\n',
        "LIST CLIENT none": "BEGIN LIST CLIENT none\nCLIENT none 192.0.2.30\nEND LIST CLIENT none\n",
        "GET VAR ups ups.status": 'VAR ups ups.status "FSD OL"\n',
    }
    with serve_answers(other) as server:
        two = make_recorder(server, tmp_path)
        assert two.ask_upsd() == (True, frozenset({"nas", "media"}))
        two.policy = dataclasses.replace(two.policy, upses=two.policy.upses[::-1])
        assert two.ask_upsd() == (True, frozenset({"nas", "media"}))
    assert first.ask_upsd() == (False, None)


def test_systemd_is_notified(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        recorder.tell_systemd("READY=1", {"NOTIFY_SOCKET": path})
        assert receiver.recv(100) == b"READY=1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        name = f"homelab-nut-test-{os.getpid()}"
        receiver.bind(f"\0{name}")
        recorder.tell_systemd("READY=1", {"NOTIFY_SOCKET": f"@{name}"})
        assert receiver.recv(100) == b"READY=1"
    recorder.tell_systemd("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "none")})
    recorder.tell_systemd("READY=1", {})


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.usefixtures("handlers")
def test_recorder_runs_until_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd sends SIGTERM when the host goes down."""
    ready = threading.Event()
    monkeypatch.setattr(recorder, "tell_systemd", lambda state: state == "READY=1" and ready.set())
    main = threading.main_thread().ident

    def shut_down() -> None:
        assert ready.wait(20)
        signal.pthread_kill(main or 0, signal.SIGTERM)

    threading.Thread(target=shut_down, daemon=True).start()
    host = make_host(tmp_path, lambda _command: (1, ""), conf=None)
    with serve_answers(ANSWERS) as server:
        house = make_house(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        before = time.time()
        assert recorder.run_recorder(house, host, tmp_path / "live.json", [].append)
    kept = notes.read_notes(tmp_path / "live.json")
    assert kept.ended is not None
    assert before <= kept.began <= kept.ended <= time.time()
    assert kept.machines["nas"].logged_in
    assert host.token_path.read_text().strip() == kept.token


# Starting the recorder


def begin(
    run: RehearsalSystemd, tmp_path: Path, *, answers: dict[str, str] | None = None, user: int = 0
) -> fitness.Fitness:
    with serve_answers(answers or ANSWERS) as server:
        house = make_house(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        return recorder.start_recorder(house, make_host(tmp_path, run, user=lambda: user), 900)


def test_recorder_starts_in_a_transient_unit(tmp_path: Path) -> None:
    run = RehearsalSystemd()
    assert begin(run, tmp_path) == fitness.Fitness((), ())
    stop, start = run.ran[-2:]
    assert stop == ["systemctl", "stop", "--", "nut-shutdown-record.service"]
    assert start[0] == str(tmp_path / "bin/systemd-run")
    assert start[-5:] == ["--", "python", "me", "record", "--inside"]
    # systemd-run returns once the recorder is ready
    assert "--property=Type=notify" in start
    assert "--unit=nut-shutdown-record" in start
    assert not {"--no-block", "--scope"} & set(start)


def test_recorder_is_not_started_unless_ready(tmp_path: Path) -> None:
    run = RehearsalSystemd()
    with pytest.raises(job.RehearsalRefused, match="the plan needs 900 s"):
        begin(run, tmp_path, answers={**ANSWERS, "LIST VAR ups": ANSWERS["LIST VAR ups"].replace("900", "899")})
    with pytest.raises(job.RehearsalRefused, match="must run as root"):
        begin(run, tmp_path, user=1000)
    assert [command for command in run.ran if command[:2] != ["systemctl", "show"]] == []
    with pytest.raises(
        job.RehearsalError, match=r"can't start the recorder: Job failed\.\. See journalctl -u nut-shutdown-record"
    ):
        begin(RehearsalSystemd(1), tmp_path)
