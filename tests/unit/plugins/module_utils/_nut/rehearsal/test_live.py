# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd as base_systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot, vocabulary
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import drill, live
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import policy as shutdown_policy
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serving

NAS = {"name": "nas", "addresses": ["192.0.2.20"], "shutdown_time": 60, "shutdown_limit": 120}
MEDIA = {"name": "media", "addresses": ["192.0.2.30", "2001:db8::30"], "shutdown_time": 5, "shutdown_limit": 40}
CONF = """\
SHUTDOWNCMD "/bin/systemctl start --no-block nut-shutdown.service || /sbin/shutdown -h +0"
POWERDOWNFLAG /run/nut-killpower
HOSTSYNC 30
FINALDELAY 5
"""
STATIC = base_systemd.Unit("inactive", "static", 0, "dead")
ACTIVE = base_systemd.Unit("active", "enabled", 7, "running")
VARIABLES = {
    "ups.status": "OL CHRG",
    "battery.runtime": "900",
    "battery.charge": "90",
    "battery.charge.low": "20",
    "ups.delay.start": "30",
}


def policy(*hosts: Any, **changes: Any) -> shutdown_policy.Policy:
    whole = {
        "version": 1,
        "upses": [{"name": "ups"}],
        "machines": list(hosts or (NAS, MEDIA)),
        "settle": 3,
        "reserve": 30,
    }
    return shutdown_policy.check_policy({**whole, "longest": 150, **changes})


def names(name: str, seconds: float) -> tuple[str, ...]:
    assert seconds > 0
    if name == "nowhere":
        raise OSError(name)
    return (name,)


# Is all fit for it?


def state(
    clients: Sequence[str] = ("127.0.0.1", "::ffff:192.0.2.20", "2001:db8::30"), **variables: str
) -> snapshot.UpsState:
    known = {**VARIABLES, **{name.replace("_", "."): value for name, value in variables.items()}}
    known = {name: value for name, value in known.items() if value}
    status = vocabulary.split_status(known.get("ups.status", ""))
    return snapshot.UpsState("ups", "", status, bool(status), None, known, tuple(clients), 3)


def found(one: snapshot.UpsState | str | None = None, **changes: Any) -> live.Found:
    upses = {"ups@localhost": state() if one is None else one}
    where = live.addresses(policy(), names)
    whole = live.Found(
        {str(shutdown_policy.Ups("ups")): upses["ups@localhost"]},
        where,
        {"nas": True, "media": True},
        CONF,
        STATIC,
        ACTIVE,
    )
    return dataclasses.replace(whole, **changes)


def test_all_is_fit() -> None:
    assert live.fitness(policy(), found(), 900.0) == live.Fitness((), ())
    assert live.fitness(policy(), found()) == live.Fitness((), ())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (found("upsd is away"), "nobody can tell whether it is on mains: upsd is away"),
        (found(upses={}), "upsd was not asked"),
        (found(state(ups_status="")), "nobody can tell whether it is on mains: it has no status yet"),
        (found(state(ups_status="OB")), "ups says OB, and must be plainly on mains"),
        (found(state(ups_status="OL FSD")), "ups says OL FSD"),
        (found(state(ups_status="OL CAL")), "ups says OL CAL"),
        (found(state(ups_status="CHRG")), "ups says CHRG"),
        (found(state(battery_runtime="899")), "ups lasts 899 s, and the plan wants 900 s"),
        (found(state(battery_charge="20")), "ups is charged to 20 %, and counts as low at 20 %"),
        (found(state(["127.0.0.1", "192.0.2.30"])), "nas is not logged in to upsd"),
        (found(state([])), "Logged in are none"),
        (found(addresses={"nas": frozenset(), "media": frozenset({"192.0.2.30"})}), "nas has no address here"),
        (found(seen={"nas": False, "media": True}), "nas is logged in, but does not answer"),
        (found(seen={"media": True}), "nas is logged in, but nobody can tell whether it is up"),
        (found(gate=base_systemd.ABSENT), "nut-shutdown.service is not installed"),
        (found(gate=base_systemd.Unit("inactive", "masked", 0)), "nut-shutdown.service is masked"),
        (found(gate=base_systemd.Unit("activating", "static", 3)), "nut-shutdown.service runs already"),
        (found(upsmon=STATIC), "nut-monitor.service does not run"),
        (found(conf=None), "/etc/nut/upsmon.conf can't be read"),
        (found(conf='SHUTDOWNCMD "/sbin/shutdown -h +0"\nPOWERDOWNFLAG /x\n'), "does not start nut-shutdown.service"),
        (found(conf="POWERDOWNFLAG /x\n"), "does not start nut-shutdown.service"),
    ],
)
def test_what_stands_against_it(given: live.Found, words: str) -> None:
    problems = live.fitness(policy(), given, 900.0).problems
    assert any(words in one for one in problems), problems
    # and it is but that
    others = [one for one in problems if words not in one and "is not logged in" not in one]
    assert others == []


def test_without_a_ups_there_is_nothing_to_begin() -> None:
    assert "names no UPS" in live.fitness(policy(upses=[]), found()).problems[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (found(state(ups_delay_start="")), "does not say when it gives power again"),
        (found(state(ups_delay_start="-1")), "does not say when it gives power again"),
        (found(state(battery_runtime="")), "does not say how long it lasts"),
        (found(conf=CONF.replace("POWERDOWNFLAG", "# ")), "upsmon.conf has no POWERDOWNFLAG"),
    ],
)
def test_what_one_has_to_know(given: live.Found, words: str) -> None:
    fit = live.fitness(policy(), given, 900.0)
    assert fit.problems == ()
    assert [words in one for one in fit.remarks] == [True]


def test_a_charge_without_a_limit_is_fit() -> None:
    one = state(**{"battery_charge": "0.5"})
    variables = {name: value for name, value in one.variables.items() if name != "battery.charge.low"}
    assert live.fitness(policy(), found(dataclasses.replace(one, variables=variables))).problems == ()


def systemd(gate_unit: str = "static", load: str = "loaded") -> Callable[[Sequence[str]], tuple[int, str]]:
    def run(command: Sequence[str]) -> tuple[int, str]:
        assert command[:2] == ["systemctl", "show"]
        first = f"Id=a\nLoadState={load}\nActiveState=inactive\nSubState=dead\nUnitFileState={gate_unit}\nMainPID=0"
        second = "Id=b\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=7"
        return 0, f"{first}\n\n{second}\n"

    return run


ANSWERS = {
    "LIST UPS": 'BEGIN LIST UPS\nUPS ups "x"\nEND LIST UPS\n',
    "LIST VAR ups": "".join(
        [
            'BEGIN LIST VAR ups\nVAR ups ups.status "OL"\nVAR ups battery.runtime "900"\n',
            'VAR ups ups.delay.start "30"\nEND LIST VAR ups\n',
        ]
    ),
    "LIST CLIENT ups": "BEGIN LIST CLIENT ups\nCLIENT ups 127.0.0.1\nCLIENT ups 127.0.0.2\nEND LIST CLIENT ups\n",
    "GET VAR ups ups.status": 'VAR ups ups.status "OL"\n',
}
NEAR = {"name": "nas", "addresses": ["127.0.0.2"], "ports": [9], "shutdown_time": 60, "shutdown_limit": 120}


def test_all_is_found(tmp_path: Path) -> None:
    conf = tmp_path / "upsmon.conf"
    conf.write_text(CONF)
    with serving(ANSWERS) as server:
        one = policy(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        there = live.find(one, systemd(), names=names, conf=conf)
        assert live.fitness(one, there, 900.0) == live.Fitness((), ())
        assert (there.gate, there.upsmon, there.conf) == (STATIC, ACTIVE, CONF)
        away = live.find(one, lambda _command: (1, "no"), names=names, conf=tmp_path / "none")
    assert (away.gate, away.upsmon, away.conf) == (base_systemd.ABSENT, base_systemd.ABSENT, None)
    gone = live.find(one, systemd(), names=names, conf=conf)
    assert isinstance(gone.upses[str(one.upses[0])], str)


def test_addresses() -> None:
    one = policy({**NAS, "addresses": ["::ffff:192.0.2.20", "nowhere"]}, {**MEDIA, "addresses": ["nowhere"]})
    assert live.addresses(one, names) == {"nas": frozenset({"192.0.2.20"}), "media": frozenset()}


# What is noted


def notes(**changes: Any) -> live.Notes:
    machines = {"nas": live.Noted(True), "media": live.Noted(True)}
    return dataclasses.replace(live.Notes("t0", "b0", "pve", 1000.0, 1000.0, machines), **changes)


def look(
    at: float, inside: Sequence[str] | None = ("nas", "media"), *, fsd: bool = False, **seen: bool | None
) -> live.Look:
    return live.Look(at, fsd, None if inside is None else frozenset(inside), {"nas": True, "media": True, **seen})


def test_what_is_noted_of_a_shutdown() -> None:
    one = notes()
    for each in (
        look(1001),
        look(1002, fsd=True),
        look(1003, fsd=True),
        look(1007, ["nas"], fsd=True),
        look(1008, None, fsd=True),
        look(1009, ["nas"], fsd=True, media=False),
        look(1010, [], fsd=True, media=None),
        look(1011, [], fsd=True, media=False, nas=False),
        look(1012, None, nas=True, media=False),
        look(1020, None, nas=False, media=False),
    ):
        one = live.note(one, each)
    assert one.fsd == 1002
    assert one.last == 1020
    assert one.machines["media"] == live.Noted(True, 1007, 1009)
    # the last silence counts
    assert one.machines["nas"] == live.Noted(True, 1010, 1020)
    assert one.steps == (
        (1002, "pve: upsmon has set FSD"),
        (1007, "media has logged out: it begins to go down"),
        (1009, "media is silent"),
        (1010, "nas has logged out: it begins to go down"),
        (1011, "nas is silent"),
        (1012, "nas answers again"),
        (1020, "nas is silent"),
    )


def test_one_that_was_never_logged_in_has_not_left() -> None:
    one = live.note(notes(machines={"nas": live.Noted()}), live.Look(1, False, frozenset(), {"nas": True}))
    assert one.machines["nas"] == live.Noted()
    one = live.note(one, live.Look(2, False, frozenset({"nas"}), {}))
    one = live.note(one, live.Look(3, False, frozenset(), {}))
    assert one.machines["nas"].left == 3
    # a lost connection is none
    assert live.note(one, live.Look(4, False, frozenset({"nas"}), {})).machines["nas"].left is None


def test_where_nobody_can_tell_there_is_no_silence() -> None:
    one = live.note(notes(), look(1001, nas=None))
    one = live.note(one, live.Look(1002, False, None, {}))
    assert one.machines["nas"] == live.Noted(True)
    one = live.note(live.note(one, look(1003, nas=False)), look(1004, nas=None))
    assert one.machines["nas"].silent == 1003


def test_notes_travel(tmp_path: Path) -> None:
    one = live.note(notes(fsd=1001.5, ended=1030.25), look(1007, ["nas"]))
    path = tmp_path / "live.json"
    path.write_text(one.dump())
    assert live.read_notes(path) == one
    with pytest.raises(live.LiveError, match="no real shutdown was recorded"):
        live.read_notes(tmp_path / "none")
    whole = json.loads(one.dump())
    for nonsense in (
        "",
        "[]",
        "{}",
        json.dumps({**whole, "version": 2}),
        json.dumps({**whole, "more": 1}),
        json.dumps({**whole, "machines": []}),
    ):
        path.write_text(nonsense)
        with pytest.raises(live.LiveError, match="can't be understood"):
            live.read_notes(path)


# The recorder


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A house to look at: who is up, what upsd says, and what happens at which look."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.up: dict[str, bool | None] = {"nas": True, "media": True}
        self.told: tuple[bool, frozenset[str] | None] = (False, frozenset({"nas", "media"}))
        self.looks = 0
        self.events: dict[int, Callable[[], None]] = {}
        self.folder = folder
        self.recorder = live.Recorder(
            policy(),
            self.said.append,
            prober=self.probe,
            known={},
            path=folder / "var" / "live.json",
            token=folder / "run" / "live",
            clock=self.clock,
            wall=lambda: self.clock.now - 4000,
        )
        monkeypatch.setattr(self.recorder, "ask", lambda: self.told)
        monkeypatch.setattr(self.recorder, "stopped", self)
        self.set_ = False

    # in the place of an Event: time passes where it is waited for

    def set(self) -> None:
        self.set_ = True

    def is_set(self) -> bool:
        return self.set_

    def wait(self, seconds: float) -> None:
        assert 0 <= seconds <= live.TICK
        self.clock.now += seconds

    def probe(self) -> dict[str, bool | None]:
        self.looks += 1
        assert self.looks < 20000
        self.events.pop(self.looks, lambda: None)()
        return dict(self.up)

    def kept(self) -> live.Notes:
        return live.read_notes(self.folder / "var" / "live.json")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_the_recorder(world: World) -> None:
    kept: list[live.Notes] = []

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
        world.clock.now += 7
        world.recorder.stop()
        # what the end of the network shows is nobody's silence
        world.up = {"nas": True, "media": True}

    world.events = {3: fsd, 7: leave, 21: fall, 31: end}
    ready: list[str] = []
    assert world.recorder.run(lambda: ready.append((world.folder / "run" / "live").read_text()))
    assert ready == [f"{world.recorder.notes.token}\n"]
    last = world.kept()
    assert last.token == ready[0].strip()
    # each look is half a second after the one before; what a look sees is as old as its begin
    assert (last.began, last.fsd, last.ended) == (1000.0, 1001.0, 1014.5)
    assert {name: (one.left, one.silent) for name, one in last.machines.items()} == {
        "nas": (1003.0, 1009.5),
        "media": (1003.0, 1009.5),
    }
    # written down as it happened
    assert [one.fsd for one in kept] == [1001.0, 1001.0, 1001.0]
    assert [one.machines["nas"].left for one in kept] == [None, 1003.0, 1003.0]
    assert [one.machines["nas"].silent for one in kept] == [None, None, 1009.5]
    assert [one.ended for one in kept] == [None, None, None]
    assert world.said[-1] == "this host goes down; the record ends"
    assert "nas has logged out: it begins to go down" in world.said
    assert (world.folder / "var" / "live.json").stat().st_mode & 0o777 == 0o600


def test_a_sign_of_life_is_written_now_and_then(world: World) -> None:
    seen: list[float] = []
    world.events = {number: lambda: seen.append(world.kept().last) for number in range(5, 60)}
    world.events[60] = world.recorder.stop
    world.recorder.run(lambda: None)
    assert seen[-1] - seen[0] >= 20
    assert 4 <= len(set(seen)) <= 7


def test_nobody_wants_it(world: World) -> None:
    assert world.recorder.run(lambda: None) is False
    assert world.clock.now - 5000 == pytest.approx(live.PATIENCE, abs=1)
    assert world.said[-1] == "no FSD within 120 s: nobody wants a record"


def test_the_host_does_not_go_down(world: World) -> None:
    world.told = (True, None)
    assert world.recorder.run(lambda: None) is False
    # FSD, HOSTSYNC, FINALDELAY, the gate, and ten minutes
    assert world.clock.now - 5000 == pytest.approx(live.PATIENCE + 15 + 5 + 150 + 600, abs=1)


def test_a_disk_that_is_full_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        def replace(*_args: Any) -> None:
            raise live.files.WriteError("no space")

        monkeypatch.setattr(live.files, "replace", replace)

    world.events = {3: full, 30: world.recorder.stop}
    assert world.recorder.run(lambda: None)
    assert "no space" in world.said


def recorder(server: Any, known: dict[str, frozenset[str]], tmp_path: Path) -> live.Recorder:
    upses = [
        {"name": "none", "host": "127.0.0.1", "port": server.port},
        {"name": "ups", "host": "127.0.0.1", "port": server.port},
    ]
    return live.Recorder(policy(upses=upses), print, prober=dict, known=known, path=tmp_path / "live.json")


def test_upsd_is_asked(tmp_path: Path) -> None:
    known = {"nas": frozenset({"192.0.2.21", "192.0.2.20"}), "media": frozenset({"192.0.2.30"})}
    inside = {**ANSWERS, "LIST CLIENT ups": ANSWERS["LIST CLIENT ups"].replace("127.0.0.2", "::ffff:192.0.2.20")}
    with serving(inside) as server:
        one = recorder(server, known, tmp_path)
        assert one.ask() == (False, frozenset({"nas"}))
    with serving({**inside, "GET VAR ups ups.status": 'VAR ups ups.status "FSD OL"\n'}) as server:
        assert recorder(server, known, tmp_path).ask() == (True, frozenset({"nas"}))
        # one of two has it
        two = recorder(server, known, tmp_path)
        two.policy = dataclasses.replace(two.policy, upses=(two.policy.upses[1], two.policy.upses[0]))
        assert two.ask() == (True, frozenset({"nas"}))
    other = {
        **inside,
        "GET VAR none ups.status": 'VAR none ups.status "OL"\n',
        "LIST CLIENT none": "BEGIN LIST CLIENT none\nCLIENT none 192.0.2.30\nEND LIST CLIENT none\n",
        "GET VAR ups ups.status": 'VAR ups ups.status "FSD OL"\n',
    }
    with serving(other) as server:
        two = recorder(server, known, tmp_path)
        assert two.ask() == (True, frozenset({"nas", "media"}))
        two.policy = dataclasses.replace(two.policy, upses=two.policy.upses[::-1])
        assert two.ask() == (True, frozenset({"nas", "media"}))
    assert one.ask() == (False, None)


def test_systemd_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(path)
        live.tell_systemd("READY=1", {"NOTIFY_SOCKET": path})
        assert one.recv(100) == b"READY=1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        name = f"homelab-nut-test-{os.getpid()}"
        one.bind(f"\0{name}")
        live.tell_systemd("READY=1", {"NOTIFY_SOCKET": f"@{name}"})
        assert one.recv(100) == b"READY=1"
    live.tell_systemd("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "none")})
    live.tell_systemd("READY=1", {})


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.usefixtures("handlers")
def test_a_record_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal, as systemd sends it when the host goes down, is its end."""
    ready = threading.Event()
    monkeypatch.setattr(live, "tell_systemd", lambda words: words == "READY=1" and ready.set())
    main = threading.main_thread().ident

    def shut_down() -> None:
        assert ready.wait(20)
        signal.pthread_kill(main or 0, signal.SIGTERM)

    threading.Thread(target=shut_down, daemon=True).start()
    with serving(ANSWERS) as server:
        one = policy(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        wanted = live.Wanted(
            inside=True, report=tmp_path / "last.json", token=tmp_path / "token", conf=tmp_path / "none"
        )
        before = time.time()
        assert live.main(one, wanted, [].append, program=[], run=lambda _command: (1, ""), names=names)
    kept = live.read_notes(tmp_path / "live.json")
    assert kept.ended is not None
    assert before <= kept.began <= kept.ended <= time.time()
    assert kept.machines["nas"].logged_in
    assert (tmp_path / "token").read_text().strip() == kept.token


# How it is started


class Systemd:
    def __init__(self, code: int = 0) -> None:
        self.ran: list[list[str]] = []
        self.code = code

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.ran.append(list(command))
        if command[:2] == ["systemctl", "show"]:
            return systemd()(command)
        return (self.code, "Job failed.\n") if "systemd-run" in command[0] else (0, "")


def begin(run: Systemd, tmp_path: Path, *, answers: dict[str, str] | None = None, **changes: Any) -> live.Fitness:
    conf = tmp_path / "upsmon.conf"
    conf.write_text(CONF)
    with serving(answers or ANSWERS) as server:
        one = policy(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        more = {"starter": lambda: "/bin/systemd-run", "user": lambda: 0, **changes}
        return live.start(one, live.Wanted(need=900, conf=conf), program=["python", "me"], run=run, names=names, **more)


def test_it_is_started(tmp_path: Path) -> None:
    run = Systemd()
    assert begin(run, tmp_path) == live.Fitness((), ())
    stop, start = run.ran[-2:]
    assert stop == ["systemctl", "stop", "--", "nut-shutdown-record.service"]
    assert start[0] == "/bin/systemd-run"
    assert start[-5:] == ["--", "python", "me", "record", "--inside"]
    # it comes back when the record has begun, not before
    assert "--property=Type=notify" in start
    assert "--unit=nut-shutdown-record" in start
    assert not {"--no-block", "--scope"} & set(start)


def test_it_is_not_started(tmp_path: Path) -> None:
    run = Systemd()
    with pytest.raises(live.Unfit, match="the plan wants 900 s"):
        begin(run, tmp_path, answers={**ANSWERS, "LIST VAR ups": ANSWERS["LIST VAR ups"].replace("900", "899")})
    with pytest.raises(live.LiveError, match="run it as root"):
        begin(run, tmp_path, user=lambda: 1000)

    def none() -> str:
        raise drill.Refused("without systemd nothing goes")

    with pytest.raises(live.LiveError, match="without systemd nothing goes"):
        begin(run, tmp_path, starter=none)
    assert [command for command in run.ran if command[:2] != ["systemctl", "show"]] == []
    with pytest.raises(
        live.LiveError, match=r"could not be started: Job failed\.\. See journalctl -u nut-shutdown-record"
    ):
        begin(Systemd(1), tmp_path)


# What came of it


SEEN = notes(
    fsd=1002.0,
    ended=1080.0,
    machines={"nas": live.Noted(True, 1008.0, 1068.5), "media": live.Noted(True, 1007.5, 1010.0)},
    steps=((1002.0, "pve: upsmon has set FSD"),),
)
AFTER = live.After(True, end=1120.0, guests=30.0, reason="all are down", poweroff=1079.5)


def test_the_result() -> None:
    data = live.result(SEEN, policy(), CONF, AFTER, 40)
    assert data["machines"] == {"nas": [6.0, 66.5], "media": [5.5, 8.0], "pve": [78.0, 118.0]}
    assert data["took"] == {"nas": 60.5, "media": 2.5, "pve": 10.0}
    assert data["guests"] == 30.0
    # the plan counts from the low battery on, and here FSD is the beginning
    made = drill.arithmetic(live.job(policy(), CONF, "pve"))
    poll = made.at("FSD") or 0.0
    assert poll > 0
    whole = drill.planned(live.job(policy(), CONF, "pve"))
    assert data["planned"]["nas"] == [round((one or 0) - poll, 2) for one in whole["nas"]]
    assert data["planned"]["pve"] == [round((whole["pve"][0] or 0) - poll, 2), None]
    assert data["seen"]["nas"] == [6.0 + poll, 66.5 + poll]
    assert data["held"] is True
    assert data["verdict"] == "The order held: all were down before this host began to power off"
    assert data["steps"] == [[0.0, "pve: upsmon has set FSD"]]
    assert (data["again"], data["primary"], data["reason"], data["fsd"]) == (True, "pve", "all are down", 1002.0)
    assert json.loads(json.dumps(data)) == data


def test_the_timing_of_upsmon_counts_in_the_plan() -> None:
    slow = live.result(SEEN, policy(), CONF + "POLLFREQ 20\nPOLLFREQALERT 20\n", AFTER)
    quick = live.result(SEEN, policy(), CONF, AFTER)
    assert slow["seen"]["nas"][0] > quick["seen"]["nas"][0]


@pytest.mark.parametrize(
    ("machines", "changes", "words"),
    [
        ({"nas": live.Noted(True, 1008.0, 1081.0)}, {}, "nas was not down when pve powered off"),
        ({"nas": live.Noted(True, 1008.0, None)}, {}, "nas was not down when pve powered off"),
        ({"nas": live.Noted(True, None, 1050.0)}, {}, "nas fell silent without having logged out"),
        ({}, {"fsd": None}, "no FSD was seen"),
    ],
)
def test_an_order_that_did_not_hold(machines: dict[str, live.Noted], changes: Any, words: str) -> None:
    one = dataclasses.replace(SEEN, machines={**SEEN.machines, **machines}, **changes)
    data = live.result(one, policy(), CONF, AFTER)
    assert data["held"] is False
    assert data["verdict"] == f"The order did not hold: {words}"
    assert data["table"].endswith(words)


def test_while_it_is_under_way_and_where_the_recorder_was_killed() -> None:
    one = dataclasses.replace(SEEN, ended=None)
    assert live.result(one, policy(), CONF, live.After(False))["verdict"].endswith("pve still waits")
    assert live.result(one, policy(), CONF, live.After(True))["verdict"].endswith("nobody saw when pve powered off")
    # the gate knows it, too
    assert live.result(one, policy(), CONF, AFTER)["machines"]["pve"] == [77.5, 118.0]
    assert (
        live.result(notes(machines={}, fsd=1, ended=2), policy(), CONF, AFTER)["verdict"]
        == "The order held: there was nobody to wait for"
    )


@pytest.mark.parametrize(
    ("seconds", "better"), [(43.2, 52), (10.0, 12), (10.1, 13), (0.0, 5), (4.1, 5), (4.2, 6), (100.0, 120), (12.5, 15)]
)
def test_the_time_to_write_down(seconds: float, better: int) -> None:
    assert live.fair(seconds) == better


def test_what_is_offered() -> None:
    offered = live.offers(policy(), {"nas": 43.2, "media": 2.5, "pve": 12.0}, "pve", 30)
    assert [one.line for one in offered] == [
        "host_vars/nas.yml: nut_client_shutdown_time: 52  # measured 43.2 s, rounded up with 20 % margin",
        "host_vars/pve.yml, or group_vars/pve.yml: nut_server_shutdown_time: 15  # measured 12.0 s, rounded up with 20 % margin",
    ]
    assert [(one.name, one.now, one.value) for one in offered] == [("nas", 60.0, 52), ("pve", 30, 15)]


def test_offers_that_a_host_has_sent() -> None:
    """They come as JSON; the primary may call itself by its own name."""
    offered = live.offers(policy(), {"nas": 43.2, "pve": 12.0}, "pve", 30)
    sent = json.loads(json.dumps([dataclasses.asdict(one) for one in offered]))
    assert live.read_offers(sent, "pve", ["nas"]) == offered
    assert [one.name for one in live.read_offers(sent, "proxmox", ["nas"])] == ["nas", "proxmox"]


@pytest.mark.parametrize(
    ("measured", "now", "offered"),
    [
        (50.0, 60, False),
        (49.0, 60, False),
        (45.0, 60, False),
        (44.1, 60, True),
        (55.0, 60, False),
        (55.1, 60, True),
        (56.0, 61, True),
    ],
)
def test_only_where_it_differs(measured: float, now: float, *, offered: bool) -> None:
    one = policy({**NAS, "shutdown_time": now})
    assert bool(live.offers(one, {"nas": measured}, "pve", None)) is offered


def test_nothing_is_offered_of_what_was_not_measured() -> None:
    assert live.offers(policy(), {"nas": None}, "pve", 30) == []
    # less than it takes is never near enough
    assert live.offers(policy({**MEDIA, "shutdown_time": 4}), {"media": 4.1}, "pve", None)[0].value == 5
    assert live.offers(policy({**MEDIA, "shutdown_time": 4}), {"media": 3.9}, "pve", None) == []
    assert live.offers(policy({**MEDIA, "shutdown_time": 5}), {"media": 5.1}, "pve", None)[0].value == 7
    assert live.offers(policy({**MEDIA, "shutdown_time": 20}), {"media": 2.0}, "pve", None)[0].line.endswith(
        "margin, at least 5"
    )


def test_the_table() -> None:
    lines = live.table(live.result(SEEN, policy(), CONF, AFTER)).splitlines()
    assert re.split(r"  +", lines[0]) == ["s from FSD on", "planned", "seen", "took"]
    assert re.split(r"  +", lines[1])[:2] == ["nas", "begins to go down"]
    assert lines[1].endswith("+6.0")
    assert lines[2].endswith("+66.5  60.5")
    assert re.split(r"  +", lines[5])[:2] == ["pve", "powers off"]
    assert lines[6].split() == ["is", "off", "-", "+118.0", "10.0"]
    assert "Its guests took 30.0 s of that" in lines[8]
    without = live.table(live.result(SEEN, policy(), CONF, live.After(False)))
    assert "guests" not in without
    assert without.splitlines()[6].split() == ["is", "off", "-", "-", "-"]


# The host, in the end


class Journal:
    """journalctl, with entries of two boots."""

    def __init__(self, *entries: tuple[float, str], code: int = 0) -> None:
        self.entries, self.code = entries, code
        self.asked: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        assert command[0] == "journalctl"
        assert "--output=json" in command
        self.asked.append(list(command))
        chosen = [one for one in self.entries if bool(one[1]) == ("UNIT=pve-guests.service" in command)]
        if "--reverse" in command:
            chosen = chosen[::-1][:1]
        lines = [json.dumps({"__REALTIME_TIMESTAMP": f"{at * 1e6:.0f}", "MESSAGE_ID": kind}) for at, kind in chosen]
        return self.code, "".join(f"{line}\n" for line in [*lines, "no json"])


STOPPING, STOPPED = "de5b426a63be47a7b6ac3eaac82e2f6f", "9d1aaa27d60140bd96365438aad20286"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in ("proc/sys/kernel/random", "proc/1", "run", "var"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("b1\n")
    (tmp_path / "proc/1/stat").write_text(f"1 (a (b) c) S {' '.join(['0'] * 18)} {100 * os.sysconf('SC_CLK_TCK')} 0\n")
    return tmp_path


def ask(root: Path, journal: Journal, one: live.Notes = SEEN) -> live.After:
    return live.after(
        one,
        journal,
        token=root / "run/live",
        report=root / "var/last.json",
        root=root,
        wall=lambda: 3000.0,
        clock=lambda: 800.0,
    )


def test_it_has_not_been_off_yet(root: Path) -> None:
    (root / "run/live").write_text("t0\n")
    journal = Journal()
    assert ask(root, journal) == live.After(False)
    assert journal.asked == []


def test_the_last_line_of_the_journal_and_the_guests(root: Path) -> None:
    report = {"began": 1040.0, "elapsed": 39.5, "reason": "all are down"}
    (root / "var/last.json").write_text(json.dumps(report))
    # a token of another record is of another boot
    (root / "run/live").write_text("t1\n")
    journal = Journal((1090.0, ""), (1120.25, ""), (1081.0, STOPPING), (1111.5, STOPPED))
    one = dataclasses.replace(SEEN, boot="b0-0f")
    assert ask(root, journal, one) == live.After(True, 1120.25, 30.5, "all are down", 1079.5)
    assert all("--boot=b00f" in command for command in journal.asked)
    assert all("--merge" not in command for command in journal.asked)
    assert "--since=@1080" in journal.asked[1]


def test_a_container_knows_its_boots_by_its_first_process(root: Path) -> None:
    journal = Journal((1120.25, ""))
    assert ask(root, journal, dataclasses.replace(SEEN, boot="b1")).end == 1120.25
    # 3000 - 800 is when the kernel was started, 100 s later that process
    assert [word for word in journal.asked[0] if word.startswith(("--until", "--merge"))] == [
        "--merge",
        "--until=@2300.000",
    ]
    (root / "proc/1/stat").unlink()
    ask(root, journal, dataclasses.replace(SEEN, boot="b1"))
    assert "--until=@2200.000" in journal.asked[-1]


def test_a_journal_that_does_not_tell(root: Path) -> None:
    assert ask(root, Journal()) == live.After(True)
    assert ask(root, Journal((1120.0, ""), code=1)) == live.After(True)
    # what stands there is older than the shutdown: it was not kept
    assert ask(root, Journal((1079.0, ""))) == live.After(True)
    assert ask(root, Journal((1120.0, ""), (1081.0, STOPPING))).guests is None


@pytest.mark.parametrize(
    "report",
    [
        "",
        "[]",
        "{}",
        '{"began": 1, "elapsed": 2, "reason": "of another shutdown"}',
        '{"began": 1040, "elapsed": 3, "reason": null}',
    ],
)
def test_a_report_of_the_gate_that_says_nothing(root: Path, report: str) -> None:
    (root / "var/last.json").write_text(report)
    assert ask(root, Journal(), dataclasses.replace(SEEN, ended=None)) == live.After(True)


# The command


def wanted(tmp_path: Path, **changes: Any) -> live.Wanted:
    conf = tmp_path / "upsmon.conf"
    conf.write_text(CONF)
    return live.Wanted(report=tmp_path / "last.json", token=tmp_path / "token", conf=conf, **changes)


def say(one: live.Wanted, run: Any, answers: dict[str, str] | None = None) -> tuple[bool, str]:
    said: list[str] = []
    with serving(answers or ANSWERS) as server:
        whole = policy(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        done = live.main(whole, one, said.append, program=["me"], run=run, names=names)
    return done, "\n".join(said)


def test_the_check(tmp_path: Path) -> None:
    assert say(wanted(tmp_path, check=True, need=900), systemd()) == (True, "all is fit for a real shutdown")
    done, text = say(wanted(tmp_path, check=True, as_json=True, need=901), systemd())
    assert done is False
    assert re.search("the plan wants 901 s", json.loads(text)["problems"][0])
    with pytest.raises(live.Unfit, match="the plan wants 901 s"):
        say(wanted(tmp_path, check=True, need=901), systemd())
    unsure = {**ANSWERS, "LIST VAR ups": ANSWERS["LIST VAR ups"].replace("ups.delay.start", "ups.delay.other")}
    assert "does not say when it gives power again" in say(wanted(tmp_path, check=True), systemd(), unsure)[1]


def test_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        live, "start", lambda *args, **_more: asked.append(args[1]) or live.Fitness((), ("mind the button",))
    )
    done, text = say(wanted(tmp_path, need=5), systemd())
    assert done
    assert text.splitlines() == [
        "mind the button",
        "nut-shutdown-record.service records from now on, until this host goes down",
    ]
    assert asked[0].need == 5


def test_what_is_shown(tmp_path: Path) -> None:
    with pytest.raises(live.LiveError, match="no real shutdown was recorded"):
        say(wanted(tmp_path, show=True), Journal())
    (tmp_path / "live.json").write_text(SEEN.dump())
    done, text = say(wanted(tmp_path, show=True, own=100), Journal((1120.0, "")))
    assert done
    assert text.splitlines()[0] == "    +0.0 s  pve: upsmon has set FSD"
    assert "The order held" in text
    assert "For the inventory:" in text
    assert "host_vars/pve.yml, or group_vars/pve.yml: nut_server_shutdown_time: 48  # measured 40.0 s" in text
    data = json.loads(say(wanted(tmp_path, show=True, as_json=True), Journal((1120.0, "")))[1])
    assert data["took"] == {"nas": 60.5, "media": 2.5, "pve": 40.0}
    (tmp_path / "token").write_text("t0")
    assert json.loads(say(wanted(tmp_path, show=True, as_json=True), Journal())[1])["again"] is False


def test_nothing_in_it_powers_off_or_sets_fsd() -> None:
    text = Path(live.__file__).read_text(encoding="utf-8")
    for word in ("poweroff.target", "systemctl poweroff", '"-c"', "set_fsd", "FSD ups", "os.kill", "reboot"):
        assert word not in text.replace("after a reboot", ""), word
