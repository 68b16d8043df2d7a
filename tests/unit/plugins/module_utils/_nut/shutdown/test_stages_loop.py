# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files, records
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.selection import ChosenGuest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import boot_starts, stages, stages_loop
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import (
    UpsAddress,
    read_stages,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.stages import Power, StagesState
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.stages_world import (
    BOOT,
    NAS,
    OB,
    OL,
    StagesWorld,
    guests_of,
)
from hypothesis import given
from hypothesis import strategies as st
from pve import stand_in

if TYPE_CHECKING:
    pass

# Killed and started again


@pytest.mark.parametrize("second", [4, 60, 118])
def test_killed_before_stage_begins(world: StagesWorld, second: float) -> None:
    guests_of(world)
    world.set_reports((0, OB))
    world.kill_at = BOOT + second
    world.run_until_killed(NAS)
    world.now += 2
    world.run_stages(NAS)
    assert 140 <= world.told[0] <= 146


def test_killed_while_guests_go_down(world: StagesWorld) -> None:
    guests_of(world, first=50)
    world.set_reports((0, OB))
    world.kill_at = BOOT + 130
    world.run_until_killed(NAS)
    assert world.told == []
    world.now += 2
    world.run_stages(NAS)
    assert world.list_running(101, 102) == []
    assert len(world.told) == 1
    # a guest that the first run shut down is started again, although the second run finds it down
    assert json.loads(world.state.read_text())["guests_to_start"] == {"qm/101": False, "pct/102": False}


def test_killed_and_guest_goes_down_before_second_shutdown(world: StagesWorld) -> None:
    guests_of(world, first=50)
    world.set_reports((0, OB))
    world.kill_at = BOOT + 130
    world.run_until_killed(NAS)
    said = ["status: running\n"]

    def late(command: Sequence[str]) -> tuple[int, str]:
        if command[3:6] == ["qm", "status", "101"] and said:
            return 0, said.pop()
        return StagesWorld.run_command(world, command)

    world.run_command = late  # type: ignore[method-assign]
    world.host.kill_guest(101)
    world.now += 2
    world.run_stages(NAS)
    assert "qm/101" in json.loads(world.state.read_text())["guests_to_start"]


def test_killed_while_guest_hangs_keeps_time_limit(world: StagesWorld) -> None:
    guests_of(world, first=None)
    world.set_reports((0, OB))
    world.kill_at = BOOT + 150

    def gone(command: Sequence[str]) -> tuple[int, str]:
        # the first run is killed before qm has forced the guest
        if command[3:5] == ["qm", "shutdown"] and world.now < BOOT + 150:
            world.advance_clock(1000)
        return StagesWorld.run_command(world, command)

    world.run_command = gone  # type: ignore[method-assign]
    world.run_until_killed(NAS)
    assert world.list_running(101) == [101]
    world.now += 2
    world.run_stages(NAS)
    timeouts = [call[4] for call in world.host.read_calls() if call[1:3] == ["shutdown", "101"]]
    assert timeouts == ["68"]
    assert world.list_running(101) == []


def test_killed_between_guests_and_fsd(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB))
    world.kill_before_fsd = True
    world.run_until_killed(NAS)
    assert world.told == []
    calls = len(world.host.read_calls())
    world.now += 2
    world.run_stages(NAS)
    assert len(world.told) == 1
    # no guest is stopped twice
    assert len(world.host.read_calls()) == calls


def test_killed_and_mains_return(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (143, OL))
    world.kill_before_fsd = True
    world.run_until_killed(NAS)
    world.now = BOOT + 300
    world.run_stages(NAS)
    assert world.told == []
    assert world.list_running(101, 102) == [101, 102]
    assert not world.state.exists()


def test_killed_after_fsd(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB))
    world.run_stages(NAS)
    calls = len(world.host.read_calls())
    assert "FSD" in world.run_stages(NAS)
    assert len(world.told) == 1
    assert len(world.host.read_calls()) == calls


def test_killed_while_guests_are_started(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (150, OL))
    stage = {**NAS, "fsd": False}
    world.kill_at = BOOT + 182
    world.run_until_killed(stage)
    assert len(world.list_running(101, 102)) == 1
    world.run_stages(stage)
    assert world.list_running(101, 102) == [101, 102]
    assert world.count_commands("start", 101) == world.count_commands("start", 102) == 1


# The state file


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '{"version": 2}', "\xff", '{"version": 1, "boot": "boot-1", "guests_to_start": 3}'],
)
def test_damaged_stages_state_starts_over(world: StagesWorld, text: str) -> None:
    guests_of(world)
    world.state.parent.mkdir()
    world.state.write_text(text, encoding="latin-1")
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert 140 <= world.told[0] <= 144
    assert world.has_logged("can't use ")


def test_state_path_is_fifo(world: StagesWorld) -> None:
    guests_of(world)
    world.state.parent.mkdir()
    os.mkfifo(world.state)
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert len(world.told) == 1


def test_state_of_other_boot_is_dropped(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB))
    world.kill_at = BOOT + 100
    world.run_until_killed(NAS)
    world.boot = "boot-2"
    world.set_reports((100, OB))
    world.run_stages(NAS)
    assert 240 <= world.told[0] <= 246
    assert world.has_logged("from another boot")


def test_reboot_forgets_guests_where_proxmox_is_gone(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB))
    world.run_stages(NAS)
    world.boot, world.latch = "boot-2", False
    world.set_reports((0, OL))
    world.run_stages(NAS)
    assert world.list_running(101, 102) == []
    assert not world.state.exists()


def test_reboot_starts_guests_managed_by_ha(world: StagesWorld) -> None:
    guests_of(world, ha=True)
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert world.list_running(101, 102) == []
    world.boot, world.latch = "boot-2", False
    world.set_reports((0, OL))
    world.now = BOOT + 1000
    world.run_stages(NAS)
    assert world.list_running(101, 102) == [101]
    assert world.now - BOOT >= 1030
    assert not world.state.exists()


def test_guest_that_a_stage_shut_down_starts_after_a_reboot(world: StagesWorld, tmp_path: Path) -> None:
    """Container 102 was off, so it stays off."""
    guests_of(world)
    world.host.kill_guest(102)
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert world.list_running(101, 102) == []
    (tmp_path / "etc/pve/local").mkdir(parents=True)
    (tmp_path / "proc/1").mkdir(parents=True)
    fields = ["S", *(["0"] * 18), f"{(BOOT + 990) * os.sysconf('SC_CLK_TCK'):.0f}"]
    (tmp_path / "proc/1/stat").write_text(f"1 (systemd) {' '.join(fields)}\n")
    world.root, world.boot, world.latch, world.now = tmp_path, "boot-2", False, BOOT + 1000
    asked: list[list[int]] = []

    class Finder:
        def find_guests(self) -> dict[str, list[ChosenGuest]]:
            return {boot_starts.OWED: [ChosenGuest(Guest(number, "qm"), 60.0, "listed") for number in asked[0]]}

    def find_starts(owed: Sequence[int]) -> Finder:
        asked.append(list(owed))
        return Finder()

    def answer(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "systemctl":
            return 0, f"LoadState=loaded\nActiveState={'activating' if world.now - BOOT < 1100 else 'active'}\n"
        return StagesWorld.run_command(world, command)

    world.find_starts, world.run_command = find_starts, answer  # type: ignore[method-assign]
    world.set_reports((0, OL))
    world.stay_until = 1050
    world.kill_at = BOOT + 1050
    world.run_until_killed(NAS)
    # Proxmox VE is still starting its guests, and nut-stages is started again
    assert world.list_running(101) == []
    world.stay_until = 1200
    world.run_stages(NAS)
    assert asked == [[101], [101]]
    assert world.list_running(101, 102) == [101]
    assert world.count_commands("start", 101) == 1
    assert not world.state.exists()


def test_reboot_waits_for_slow_upsd(world: StagesWorld) -> None:
    guests_of(world, ha=True)
    world.set_reports((0, OB))
    world.run_stages(NAS)
    world.boot, world.latch = "boot-2", False
    world.now = BOOT
    world.set_reports((0, None), (400, OL))
    world.run_stages(NAS)
    assert world.list_running(101) == [101]


def test_unwritable_state_does_not_stop_stages(world: StagesWorld) -> None:
    guests_of(world)
    world.state.parent.write_text("no folder")
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert len(world.told) == 1
    assert world.has_logged("could not be written")


@given(
    st.sampled_from(sorted(json.loads(records.dump_record(StagesState(), stages_loop.VERSION)))),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_state_with_any_types_is_read_or_dropped(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any
) -> None:
    path = tmp_path_factory.mktemp("state") / "stages.json"
    path.write_text(
        json.dumps(
            {
                **json.loads(records.dump_record(StagesState(boot="b", outage_since=5.0), stages_loop.VERSION)),
                name: value,
            }
        )
    )
    found, _words = stages_loop.load_state(path, "b")
    files.replace_files({path: records.dump_record(found, stages_loop.VERSION)}, 0o600)
    assert stages_loop.load_state(path, "b") == (found, "")
    stages.decide_stages(read_stages([NAS]), found, 10.0, Power(True))


def test_state_survives_save_and_load(tmp_path: Path) -> None:
    whole = StagesState(
        boot="b",
        outage_since=1.0,
        mains_since=2.5,
        upses_on_battery=frozenset({"ups", "rack"}),
        low_since={"nas charge": 3.0},
        begun_at={"nas": 4.0},
        stop_decided_at={"qm/101": 5.0},
        stop_outcomes={"qm/101": "stopped"},
        fsd_set_at=6.0,
        shutdown_since=6.5,
        guests_to_start={"qm/101": True, "pct/102": False},
        failed_starts={"qm/101": (6.0, 7.0)},
        owed=("qm/104",),
        given_up={"qm/103": "VM 103: why"},
    )
    path = tmp_path / "s.json"
    path.write_text(records.dump_record(whole, stages_loop.VERSION))
    assert stages_loop.load_state(path, "b") == (whole, "")
    assert stages_loop.load_state(path, "c")[0] == StagesState(
        boot="c", guests_to_start={"qm/101": True}, owed=("qm/104", "pct/102"), given_up={"qm/103": "VM 103: why"}
    )
    # without a boot id the host may have been rebooted
    path.write_text(records.dump_record(replace(whole, boot=""), stages_loop.VERSION))
    assert stages_loop.load_state(path, "")[0].outage_since is None


def test_second_instance_ends_at_once(world: StagesWorld) -> None:
    world.set_reports((0, OB))
    world.state.parent.mkdir()
    with files.hold_lock(world.state.with_name("stages.json.lock"), 0.0):
        assert world.run_stages(NAS) == "another instance is running"
    assert world.now == BOOT


# The real clock, and the real end of a process


def test_ask_upsd_returns_the_variables_or_none() -> None:
    answers = {"LIST VAR ups": 'BEGIN LIST VAR ups\nVAR ups ups.status "OB LB"\nEND LIST VAR ups\n'}
    with serve_answers(answers) as server:
        ups = UpsAddress("ups", "127.0.0.1", server.port)
        assert stages_loop.ask_upsd(ups) == {"ups.status": "OB LB"}
        assert stages_loop.ask_upsd(replace(ups, name="other")) is None
        assert stages_loop.ask_upsd(replace(ups, name="a\nb")) is None
    assert stages_loop.ask_upsd(ups) is None


PROGRAM = """
import json, subprocess, sys
from pathlib import Path
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import stages_loop
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import UpsAddress, read_stages
stages_loop.POLL = 0.02
folder = Path(sys.argv[1])
def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
def log(line):
    with open(folder / "log", "a") as file:
        file.write(line + "\\n")
stages_loop.run_stages(
    read_stages(json.loads((folder / "stages.json").read_text())), [UpsAddress("ups", "127.0.0.1", int(sys.argv[2]))],
    state_path=folder / "state.json", log=log, run=run, set_fsd=lambda run: run([str(folder / "bin/upsmon"), "-c", "fsd"]),
)
"""


def test_kill_9_and_restart_with_real_processes(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "guests").mkdir()
    host = stand_in.GuestFolder(tmp_path / "guests", 1.0)
    stand_in.install_programs(tmp_path / "bin", tmp_path / "guests", 1.0)
    upsmon = tmp_path / "bin/upsmon"
    upsmon.write_text(f"#!/bin/sh\nls {tmp_path}/guests > {tmp_path}/at-fsd\necho $* >> {tmp_path}/fsd\n")
    upsmon.chmod(0o755)
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    host.add_guest(101, shutdown=0.3)
    # this guest hangs until it is killed below
    host.add_guest(102, kind="pct", shutdown=None)
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

    with serve_answers(status("OB")) as server:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(server.port)]
        first = subprocess.Popen(command, env=environment)
        try:
            wait(
                lambda: "qm/101" in _done(tmp_path) and ["pct", "shutdown"] in [call[:2] for call in host.read_calls()]
            )
        finally:
            first.kill()
            first.wait()
        assert host.find_pid(102)
        assert not host.find_pid(101)
        assert not (tmp_path / "fsd").exists()
        since = json.loads((tmp_path / "state.json").read_text())["outage_since"]
        host.kill_guest(102)
        second = subprocess.Popen(command, env=environment)
        try:
            wait((tmp_path / "fsd").exists)
            assert json.loads((tmp_path / "state.json").read_text())["outage_since"] == since
            server.answers.update(status("FSD OB"))
            wait(lambda: "the shutdown continues" in (tmp_path / "log").read_text())
            second.terminate()
            assert second.wait(60) == -signal.SIGTERM
        finally:
            second.kill()
            second.wait()
    assert (tmp_path / "fsd").read_text() == "-c fsd\n"
    assert json.loads((tmp_path / "state.json").read_text())["guests_to_start"] == {"qm/101": False, "pct/102": False}
    assert sum(call[:3] == ["qm", "shutdown", "101"] for call in host.read_calls()) == 1


def _done(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / "state.json").read_text())["stop_outcomes"]
    except FileNotFoundError:
        return {}
    return found
