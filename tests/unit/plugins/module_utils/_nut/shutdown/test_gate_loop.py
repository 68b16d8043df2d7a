# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import clock, records
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.clock import Clock
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate, gate_loop
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.gate import GateReading
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import ShutdownPolicy
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.report import GateReport, MachineReport
from ansible_collections.homelab.nut.tests.unit.support.gate_policy import NAS, POLICY, UPS


class Killed(BaseException):
    """Ends the program, as a signal would."""


class World:
    """Machines that go down at given times, a UPS, and a clock that advances with each sleep and probe."""

    def __init__(self, folder: Path, policy: ShutdownPolicy = POLICY) -> None:
        self.folder, self.policy = folder, policy
        self.now = 5000.0
        self.start = self.now
        self.down: dict[str, float] = {}
        self.power: Callable[[float], dict[str, GateReading]] = lambda now: {}
        self.killed: list[float] = []
        self.at: dict[float, Callable[[], None]] = {}
        self.said: list[str] = []
        self.slept: list[float] = []
        self.looked: list[float] = []
        self.rounds = 0
        self.broken = ""

    @property
    def elapsed(self) -> float:
        return self.now - self.start

    def prober(self) -> dict[str, bool | None]:
        self.looked.append(self.elapsed)
        for moment in [moment for moment in self.at if moment <= self.elapsed]:
            self.at.pop(moment)()
        if self.killed and self.elapsed >= self.killed[0]:
            raise Killed(self.killed.pop(0))
        if self.broken:
            raise ValueError(self.broken)
        up = {host.name: self.elapsed < self.down.get(host.name, 1e9) for host in self.policy.machines}
        self.now += 0.1 if all(up.values()) else 1.0
        return dict(up)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def alive(self) -> None:
        self.rounds += 1

    def run(self, **more: Any) -> GateReport:
        options: dict[str, Any] = {
            "state_path": self.folder / "run/gate.json",
            "report_path": self.folder / "lib/last.json",
            "log_path": self.folder / "log/shutdown.log",
            "by": "unit",
            **more,
        }
        return gate_loop.Gate(
            self.policy,
            log=self.said.append,
            prober=self.prober,
            ask_upsd=lambda: self.power(self.now),
            clock=Clock(lambda: self.now, lambda: 1e9 + self.elapsed, self.sleep, lambda: "boot"),
            alive=self.alive,
            **options,
        ).run()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("content", ["upsmon-shutdown-file", ""])
@pytest.mark.parametrize("by", ["systemd", "hand"])
def test_killpower_flag_outlives_restart_of_upsmon(world: World, tmp_path: Path, content: str, by: str) -> None:
    flag = tmp_path / "killpower"
    if content:
        flag.write_text(content)
    world.policy = replace(world.policy, flag=str(flag))
    world.down["nas"] = 20
    world.at[10] = lambda: flag.unlink(missing_ok=True)
    world.run(by=by)
    if content and by == "systemd":
        assert flag.read_text() == content
        assert any("killpower was missing; wrote it again" in line for line in world.said)
    else:
        # a flag without an order would cut the power at the next reboot
        assert not flag.exists()


def test_restarted_gate_remembers_killpower_flag(world: World, tmp_path: Path) -> None:
    flag = tmp_path / "killpower"
    flag.write_text("upsmon-shutdown-file")
    world.policy = replace(world.policy, flag=str(flag))
    world.down["nas"] = 20
    world.killed = [5]
    with pytest.raises(Killed):
        world.run(by="systemd")
    flag.unlink()
    world.run(by="systemd")
    assert flag.read_text() == "upsmon-shutdown-file"


def test_link_at_flag_path_is_replaced_not_followed(world: World, tmp_path: Path) -> None:
    flag = tmp_path / "flags" / "killpower"
    flag.parent.mkdir()
    flag.write_text("upsmon-shutdown-file")
    (tmp_path / "victim").write_text("mine")
    world.policy = replace(world.policy, flag=str(flag))
    world.down["nas"] = 20

    def swap() -> None:
        flag.unlink()
        flag.symlink_to(tmp_path / "victim")

    world.at[10] = swap
    world.run(by="systemd")
    assert (tmp_path / "victim").read_text() == "mine"
    assert flag.read_text() == "upsmon-shutdown-file"
    assert not flag.is_symlink()


@pytest.mark.parametrize("left", ["", "upsmon-shut"])
def test_empty_flag_is_written_at_once(world: World, tmp_path: Path, left: str) -> None:
    """On a full /run upsmon leaves an empty flag, and `upsmon -K` reports that no flag is set."""
    flag = tmp_path / "killpower"
    flag.write_text(left)
    world.policy = replace(world.policy, flag=str(flag))
    seen: list[str] = []
    world.at[0] = lambda: seen.append(flag.read_text())
    world.down["nas"] = 20
    world.run(by="systemd")
    assert seen == ["upsmon-shutdown-file"]
    assert flag.read_text() == "upsmon-shutdown-file"


def test_foreign_flag_orders_no_power_cut(world: World, tmp_path: Path) -> None:
    flag = tmp_path / "killpower"
    flag.write_text("somebody's")
    world.policy = replace(world.policy, flag=str(flag))
    world.run(by="systemd")
    assert flag.read_text() == "somebody's"


@pytest.mark.parametrize(
    ("by", "fsd", "cut"), [("systemd", True, True), ("systemd", False, False), ("hand", True, False)]
)
def test_fsd_orders_power_cut_without_flag(world: World, tmp_path: Path, by: str, fsd: bool, cut: bool) -> None:
    flag = tmp_path / "killpower"
    world.policy = replace(world.policy, flag=str(flag))
    world.power = lambda now: {str(UPS): gate.make_reading("FSD OB LB" if fsd else "OB LB", "300", now)}
    world.down["nas"] = 20
    world.run(by=by)
    assert flag.exists() is cut


@pytest.mark.parametrize("tells", [True, False])
def test_unwritable_flag_is_reported_on_terminals(world: World, tmp_path: Path, tells: bool) -> None:
    flag = tmp_path / "flags" / "killpower"
    flag.parent.mkdir()
    flag.write_text("upsmon-shutdown-file")
    world.policy = replace(world.policy, flag=str(flag))
    world.down["nas"] = 20

    def take_away() -> None:
        flag.unlink()
        flag.parent.rmdir()

    world.at[10] = take_away
    shouted: list[str] = []
    world.run(by="systemd", **({"shout": shouted.append} if tells else {}))
    words = f"can't write {flag}: No such file or directory. The UPS will NOT cut the power"
    # logged once, although each round tries again
    assert [line.startswith(words) for line in shouted] == ([True] if tells else [])
    assert any(words in line and "stay off when the mains return" in line for line in world.said)


def test_gate_waits_and_reports(world: World, tmp_path: Path) -> None:
    world.down["nas"] = 20
    report = world.run()
    assert (report.rule, report.reason) == ("down", "all are down")
    assert report.began == pytest.approx(1e9)
    assert 23 <= report.elapsed <= 25
    assert world.said[0] == "+0.0 s  the gate begins: waiting for nas (at most 120 s)"
    assert world.said[-2].endswith("nas is down (silent for 3.0 s; expected 60 s)")
    assert world.said[-1] == f"+{report.elapsed:.1f} s  the gate ends (down): all are down"
    assert report.machines == (MachineReport("nas", 60.0, 120.0, down=20.0, assumed=False, given_up=False),)
    written = json.loads((tmp_path / "lib/last.json").read_text())
    assert written == json.loads(records.dump_record(report, 1))
    assert (written["rule"], written["mode"], written["steps"][0][0]) == ("down", "gate", 0.0)
    lines = (tmp_path / "log/shutdown.log").read_text().splitlines()
    assert [line.split(" ", 3)[3] for line in lines] == world.said
    assert lines[0].startswith("2001-09-0")
    # a round each second, each with a call of alive()
    assert world.looked[:4] == pytest.approx([0, 1, 2, 3])
    assert world.rounds == len(world.looked)
    for path, mode in (("run/gate.json", 0o600), ("lib/last.json", 0o600), ("log/shutdown.log", 0o640)):
        assert (tmp_path / path).stat().st_mode & 0o777 & ~mode == 0


def test_upsd_is_asked_in_each_round(world: World) -> None:
    world.power = lambda now: {str(UPS): GateReading(True, 100 - (now - 5000), now)}
    report = world.run()
    assert report.rule == "battery"
    assert 40 <= report.elapsed <= 42
    assert report.power[0].on_battery is True
    assert report.power[0].at == pytest.approx(report.elapsed)


def test_killed_gate_resumes(world: World) -> None:
    world.policy = replace(POLICY, machines=(NAS, replace(NAS, name="media", shutdown_limit=50.0)))
    world.power = lambda now: {str(UPS): GateReading(True, 1000.0, now)} if now < 5010 else {}
    world.down["nas"] = 10
    world.killed = [20, 40]
    for _unused in range(2):
        with pytest.raises(Killed):
            world.run()
        world.now += 3
    report = world.run()
    assert (report.rule, report.reason) == (
        "limit",
        "media did not go down within the limit; nothing else to wait for",
    )
    # the limit counts from the start of the first gate
    assert 50 <= report.elapsed < 53
    assert report.began == pytest.approx(1e9)
    assert [line for line in world.said if "the gate was restarted" in line] == [
        "+23.0 s  the gate was restarted and continues",
        "+43.0 s  the gate was restarted and continues",
    ]
    assert len([line for line in world.said if "nas is down" in line]) == 1
    assert report.power[0].runtime == 1000.0


def test_ended_gate_ends_at_once_when_restarted(world: World) -> None:
    world.down["nas"] = 0
    first = world.run()
    looked = len(world.looked)
    second = world.run()
    assert len(world.looked) == looked
    assert (second.rule, second.reason) == (first.rule, first.reason)
    assert world.said[-1].endswith("the gate has already ended: all are down")


def test_gate_run_by_hand_is_not_resumed_by_systemd(world: World) -> None:
    world.down["nas"] = 0
    world.run()
    world.down["nas"] = world.elapsed + 20
    report = world.run(by="other")
    assert 23 <= report.elapsed <= 25
    assert any("is damaged or from another shutdown: starting over" in line for line in world.said)


def test_damaged_state_file_starts_over(world: World, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/gate.json").write_bytes(b"\xff{")
    world.down["nas"] = 2
    assert world.run().rule
    assert any("starting over" in line for line in world.said)


def test_gate_waits_with_unwritable_files(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("state", "log"):
        (tmp_path / name).mkdir()
    world.down["nas"] = 10
    report = world.run(
        state_path=tmp_path / "file/gate.json", report_path=tmp_path / "file/last.json", log_path=tmp_path / "log"
    )
    assert (report.rule, report.reason) == ("down", "all are down")
    assert 13 <= report.elapsed <= 15
    # each failure is logged once
    for path in ("file/gate.json", "file/last.json", "log"):
        assert len([line for line in world.said if f"can't write {tmp_path / path}" in line]) == 1


def test_failed_probe_means_unknown(world: World) -> None:
    world.broken = "odd"
    report = world.run()
    assert report.rule == "assumed"
    assert 60 <= report.elapsed <= 62
    assert [line for line in world.said if "odd" in line] == ["+0.0 s  probing the machines failed: ValueError: odd"]
    assert report.machines[0].assumed is True


def test_drill_is_named_in_report_and_log(world: World, tmp_path: Path) -> None:
    world.down["nas"] = 0
    assert world.run(mode="drill").mode == "drill"
    assert " drill: +0.0 s  the gate begins" in (tmp_path / "log/shutdown.log").read_text()


def test_each_log_line_is_synced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: kept.append(Path(f"/proc/self/fd/{handle}").readlink().name))
    world.down["nas"] = 0
    world.run()
    assert len([path for path in kept if path == "shutdown.log"]) == len(world.said)


def test_gate_without_report_and_log(world: World, tmp_path: Path) -> None:
    world.down["nas"] = 0
    world.run(report_path=None, log_path=None)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_log_has_no_control_characters(world: World) -> None:
    world.broken = "a\nb\x1b[1m"
    world.policy = replace(POLICY, machines=(replace(NAS, shutdown_time=0.0),))
    world.run()
    assert any("a\\nb\\x1b[1m" in line for line in world.said)
    assert all(line.isprintable() for line in world.said)


@pytest.mark.parametrize(
    ("by", "flag", "kept", "earnest"),
    [
        ("systemd", True, False, True),
        ("systemd", False, True, True),
        ("systemd", False, False, False),
        ("hand", True, True, False),
    ],
)
def test_real_shutdown_needs_flag_and_systemd(tmp_path: Path, by: str, flag: bool, kept: bool, earnest: bool) -> None:
    path, state = tmp_path / "killpower", tmp_path / "gate.json"
    if flag:
        path.write_text("upsmon-shutdown-file")
    if kept:
        now = clock.read_boottime()
        state.write_text(gate.dump_state(replace(gate.new_state(clock.name_system_start(), by, now), flag=True)))
    assert gate_loop.is_real_shutdown(replace(POLICY, flag=str(path)), state, by) is earnest
    assert gate_loop.is_real_shutdown(POLICY, state, by) is False


def test_news_is_logged(world: World) -> None:
    world.down["nas"] = 20
    waiting = ["first", "second"]
    report = world.run(news=lambda: [waiting.pop(0)] if waiting else [])
    assert [words for _at, words in report.steps if words in ("first", "second")] == ["first", "second"]
