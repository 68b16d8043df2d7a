# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.action import zipapp
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import inside, job, live, outside
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate_loop, observe, stages_loop
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.names import AddressCache
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import Stage, UpsAddress
from ansible_collections.homelab.nut.tests.unit.support.shutdown_host import ShutdownProgram

ROOT = Path(__file__).resolve().parents[6]


def test_gate_runs_and_reports(program: ShutdownProgram) -> None:
    assert program("gate") == 0
    assert program.ran[0][3:] == ["qm", "status", "100"]
    assert program.out[-1].endswith("the gate ends (down): all are down")
    assert program.err == []
    assert program.read_json("last.json")["rule"] == "down"
    assert "all are down" in (program.folder / "log").read_text()
    assert program.read_json("gate.json")["by"] == "hand"


def test_gate_run_by_hand_does_not_count_for_systemd(program: ShutdownProgram) -> None:
    program("gate")
    program.out.clear()
    program.by_systemd()
    assert program("gate") == 0
    assert not any("has already ended" in line for line in program.out)
    assert program.read_json("gate.json")["by"] == "systemd"
    # the next gate of systemd has nothing to do
    assert program("gate") == 0
    assert program.out[-1].endswith("the gate has already ended: all are down")


@pytest.mark.parametrize(
    "unit",
    [
        "ssh.service",
        "session-3.scope",
        "cron.service",
        "xnut-shutdown.service",
        "nut-shutdown.service/more",
        "run-u1.service",
    ],
)
def test_gate_of_other_service_or_session_is_by_hand(program: ShutdownProgram, unit: str) -> None:
    """Their children inherit INVOCATION_ID; a process replaced by exec() keeps SYSTEMD_EXEC_PID, too."""
    program.by_systemd(unit)
    assert program("gate") == 0
    assert program.read_json("gate.json")["by"] == "hand"


def test_gate_of_child_process_is_by_hand(program: ShutdownProgram) -> None:
    program.by_systemd()
    program.environment["SYSTEMD_EXEC_PID"] = str(os.getppid())
    assert program("gate") == 0
    assert program.read_json("gate.json")["by"] == "hand"


@pytest.mark.parametrize(
    "groups",
    [
        "0::/system.slice/nut-shutdown.service\n",
        "12:pids:/\n3:memory:/system.slice\n1:name=systemd:/machine/x/system.slice/nut-shutdown.service\n0::/\n",
    ],
)
def test_unit_is_recognized_by_cgroup(program: ShutdownProgram, groups: str) -> None:
    """With cgroups v1 and v2, and systemd before 248, which does not set SYSTEMD_EXEC_PID."""
    program.by_systemd()
    (program.folder / "proc/self/cgroup").write_text(groups)
    del program.environment["SYSTEMD_EXEC_PID"]
    assert program("gate") == 0
    assert program.read_json("gate.json")["by"] == "systemd"


def test_gate_of_a_real_shutdown_takes_the_logins_of_upsmon_conf(
    program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POWERDOWNFLAG is there: the gate then reminds upsd of FSD, as upsmon of upsmon.conf would."""
    seen: list[Any] = []
    monkeypatch.setattr(observe, "read_primary_logins", lambda path, upses: seen.append((path, upses)) or {})
    flag = program.folder / "killpower"
    flag.write_text("upsmon-shutdown-file")
    upsmon_conf = program.folder / "upsmon.conf"
    program.write_policy(flag=str(flag), upses=[{"name": "ups"}])
    program.by_systemd()
    assert program("gate", f"--upsmon-conf={upsmon_conf}") == 0
    assert seen == [(upsmon_conf, (UpsAddress("ups"),))]


def test_unit_is_recognized_without_proc(program: ShutdownProgram) -> None:
    program.by_systemd()
    (program.folder / "proc/self/cgroup").unlink()
    assert program("gate") == 0
    assert program.read_json("gate.json")["by"] == "systemd"


def test_crash_is_printed_and_delays_exit(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(gate_loop.Gate, "run", crash)
    assert program("gate") == 1
    assert program.err[0] == "nut-shutdown gate failed: RuntimeError: odd"
    assert any("Traceback" in line for line in program.err)
    assert program.slept == [1.0]


def test_invalid_policy_exits_2(program: ShutdownProgram) -> None:
    program.write_policy(timeout=0)
    for command in ("gate", "stages", "status", "check", "guests"):
        program.err.clear()
        assert program(command) == 2
        assert program.err == [
            f"{program.folder}/shutdown.json: $.timeout: must be a number of seconds from 1 to 86400"
        ]
    assert program.out == []


OWN = {
    "status": "json policy state report",
    "guests": "json policy report",
    "check": "policy report",
    "refresh": "policy report",
    "drill": "json outage policy",
    "record": "check show json need own policy report",
    "fsd": "policy",
    "gate": "policy report state log",
    "stages": "policy report state log",
    "hold": "policy log",
    "watch": "state log",
}
"""The options that each command shows."""


def test_help_lists_commands(program: ShutdownProgram) -> None:
    assert program("--help") == 0
    (text,) = program.out
    assert re.findall(r"^    ([a-z]+) {2,}\S", text, re.MULTILINE) == list(OWN)
    assert "2  the command line or the policy is wrong" in text
    assert "--outage" not in text


@pytest.mark.parametrize("command", OWN)
def test_command_help_shows_own_options(program: ShutdownProgram, command: str) -> None:
    assert program(command, "--help") == 0
    (text,) = program.out
    assert text.startswith(f"usage: nut-shutdown {command} [-h]")
    assert re.findall(r"^  --([a-z-]+)", text, re.MULTILINE) == OWN[command].split()


@pytest.mark.parametrize("command", OWN)
def test_command_refuses_options_of_others(program: ShutdownProgram, command: str) -> None:
    others = {option for options in OWN.values() for option in options.split()} - set(OWN[command].split())
    for option in sorted(others):
        assert program(command, f"--{option}=1") == 2
        assert f"unrecognized arguments: --{option}=1" in program.err[-1]
    assert program.out == []
    assert program.ran == []


def test_wrong_command_line_is_refused(program: ShutdownProgram) -> None:
    for words in (("poweroff",), ("--json", "status"), ("gate", "--odd\x1b"), ("status", "--js")):
        assert program(*words) == 2
        assert "See nut-shutdown" in program.err[-1]
        assert "\x1b" not in program.err[-1]
    assert program.out == []


STAGE = {"name": "first", "on_battery": 120, "guests": [{"kind": "qm", "id": 101, "seconds": 60}]}


def test_stages_run_with_policy(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import selection
    from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import boot_starts

    seen: list[Any] = []
    found_starts: list[Any] = []

    def run(
        known: Any,
        upses: Any,
        *,
        minsupplies: int,
        state_path: Path,
        log: Any,
        run: Any,
        finder: Any,
        alive: Any,
        root: Path,
        ha: Any,
        disarms_ha: bool,
        find_starts: Any,
        report_event: Any,
        make_keeper: Any,
        after: Any,
    ) -> str:
        found_starts.append(find_starts)
        assert (minsupplies, root, disarms_ha) == (1, program.folder / ".", True)
        assert (report_event.source, report_event.root, after.charge) == ("stages", root, 30)
        assert make_keeper("boot", log, None).path == program.folder / "return.json"
        assert ha.marker == program.folder / "ha-disarmed"
        alive()
        seen.append((known, upses, state_path, run, finder))
        log("a stage begins")
        return stages_loop.BUSY

    monkeypatch.setattr(stages_loop, "run_stages", run)
    program.write_policy(upses=[{"name": "ups"}], stages=[STAGE], cluster="disarm", after={"charge": 30})
    # run_stages() returns only if another instance is running; systemd must then try again
    assert program("stages") == 1
    known, upses, state, runs, finder = seen[0]
    assert known[0].name == "first"
    assert upses == (UpsAddress("ups"),)
    assert (state, runs) == (program.folder / "gate.json", program.run_qm)
    assert finder.selectors == {"first": selection.Selector(((101, 60.0),))}
    assert (finder.path, finder.root) == (program.folder / "guests.json", program.folder)
    names = finder.resolver()
    assert (type(names), names.path) == (AddressCache, program.folder / "addresses.json")
    assert finder.resolver() is not names
    assert program.out == ["a stage begins"]
    assert (program.folder / "log").read_text().endswith(" stages: a stage begins\n")
    assert found_starts == [None]  # no Proxmox VE
    (program.folder / "etc/pve").mkdir(parents=True)
    nas = {"name": "nas", "addresses": ["192.0.2.20"], "shutdown_time": 60, "shutdown_limit": 120}
    program.write_policy(
        upses=[{"name": "ups"}], stages=[STAGE], machines=[nas], cluster="disarm", after={"charge": 30}
    )
    assert program("stages") == 1
    assert found_starts[1]([104]).selectors == {
        boot_starts.STAGE: selection.Selector(storage_of=("192.0.2.20", "nas")),
        boot_starts.OWED: selection.Selector(ids=((104, None),)),
    }


def test_low_battery_is_watched_for_without_stages_too(
    program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = []
    monkeypatch.setattr(stages_loop, "run_stages", lambda stages, *_upses, **_rest: watched.append(stages))
    assert program("stages") == 1
    assert watched == [(Stage("low battery", fsd=True, low=True),)]


def test_invalid_stages_exit_2(program: ShutdownProgram) -> None:
    program.write_policy(stages=[{"name": "first", "surprise": 1}])
    for command in ("stages", "guests", "check"):
        assert program(command) == 2
        assert program.err.pop().startswith(f"{program.folder}/shutdown.json: $.stages[0].surprise: is unknown")
        assert program.err == []
    # all other commands work without stages
    assert program("status") == 0


def test_drill_runs_outer_half(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def hold(policy: Any, outage: float, host: job.RehearsalHost, say: Any, *, as_json: bool) -> int:
        seen.append((policy.machines[0].name, outage, as_json, host.program, host.run))
        say("it is on")
        return 1

    monkeypatch.setattr(outside, "hold_drill", hold)
    monkeypatch.setattr(sys, "argv", ["/usr/local/sbin/nut-shutdown"])
    assert program("drill") == 1
    words = [sys.executable, "-IS", "/usr/local/sbin/nut-shutdown"]
    assert seen == [("vm", 10.0, False, words, program.run_qm)]
    assert (program.out, program.err) == (["it is on"], [])
    # progress goes to standard error, the result to standard output
    assert program("drill", "--json", "--outage", "2.5") == 1
    assert seen[-1][1:3] == (2.5, True)
    assert (program.out, program.err) == (["it is on"], ["it is on"])
    assert program("drill", "--outage", "soon") == 2


def test_inner_half_of_drill_reads_no_policy(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    held = True

    def hold(source: int, say: Any, out: Any, *, as_json: bool) -> bool:
        assert source == 0
        say("it is on")
        out("done")
        return held

    monkeypatch.setattr(inside, "hold_drill", hold)
    (program.folder / "shutdown.json").unlink()
    assert program("drill", "--inside", "--json") == 0
    assert (program.out, program.err) == (["done"], ["it is on"])
    held = False
    assert program("drill", "--inside") == 1
    assert program.out == ["done", "it is on", "done"]
    assert program("drill") == 2
    # for this command only
    assert program("gate", "--inside") == 2


def test_refused_drill_exits_2(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code, words in (
        (job.RehearsalRefused("not now"), 2, "nut-shutdown drill: not now"),
        (job.RehearsalError("odd"), 1, "nut-shutdown drill failed: odd"),
    ):

        def fail(*arguments: Any, error: Exception = error, **more: Any) -> int:
            raise error

        monkeypatch.setattr(outside, "hold_drill", fail)
        assert program("drill") == code
        assert program.err.pop() == words


def test_record_passes_options(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def main(policy: Any, wanted: live.RecordOptions, host: job.RehearsalHost, out: Any) -> bool:
        names: Any = host.names
        asked.append((policy.machines[0].name, wanted, host.program[:2], host.run, type(names), names.path))
        out("it records")
        return not wanted.check

    monkeypatch.setattr(live, "main", main)
    assert program("record") == 0
    addresses = program.folder / "addresses.json"
    plain = live.RecordOptions(report=program.folder / "last.json")
    assert asked == [("vm", plain, [sys.executable, "-IS"], program.run_qm, AddressCache, addresses)]
    assert program.out == ["it records"]
    words = ("record", "--check", "--show", "--json", "--need", "382.5", "--own", "30", "--inside")
    assert program(*words) == 1
    more = {"check": True, "show": True, "inside": True, "as_json": True, "need": 382.5, "own": 30.0}
    assert asked[1][1] == dataclasses.replace(plain, **more)


def test_refused_record_exits_2(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    error: list[Exception] = [
        job.RehearsalRefused("ups is on battery\nnas is not logged in"),
        job.RehearsalError("run it as root"),
    ]

    def main(*_args: Any, **_more: Any) -> bool:
        raise error.pop(0)

    monkeypatch.setattr(live, "main", main)
    assert program("record", "--check") == 2
    assert program.err == ["nut-shutdown record: ups is on battery", "nut-shutdown record: nas is not logged in"]
    assert program("record") == 1
    assert program.err[2:] == ["nut-shutdown record: run it as root"]


# As a program


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "nut-shutdown"
    path.write_bytes(
        zipapp.build_program(
            ROOT / "roles/nut_server/files/nut_shutdown.py", "_nut", f"#!{sys.executable} -IS\n".encode()
        )
    )
    path.chmod(0o755)
    return path


def _options(folder: Path) -> list[str]:
    return [f"--{name}={folder / name}" for name in ("policy", "state", "report", "log")]


def test_program_runs_from_archive(archive: Path, tmp_path: Path) -> None:
    whole = {"version": 1, "upses": [], "machines": [], "settle": 3, "reserve": 30, "timeout": 100}
    (tmp_path / "policy").write_text(json.dumps(whole))
    done = subprocess.run([archive, "gate", *_options(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("no machines to wait for")
    assert subprocess.run([archive, "odd"], capture_output=True, check=False).returncode == 2


def test_killed_program_resumes(archive: Path, tmp_path: Path) -> None:
    whole = {"version": 1, "upses": [], "reserve": 30, "timeout": 3, "settle": 0.5}
    host = {"name": "here", "addresses": ["127.0.0.1"], "ports": [1], "shutdown_time": 1, "shutdown_limit": 1000}
    (tmp_path / "policy").write_text(json.dumps({**whole, "machines": [host]}))
    command = [str(archive), "gate", *_options(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        assert first.stdout.readline().endswith("the gate begins: waiting for here (at most 1000 s)\n")
        began = json.loads((tmp_path / "state").read_text())["began"]
        first.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "the gate was restarted and continues" in done.stdout
    assert "the gate ends (timeout)" in done.stdout
    assert json.loads((tmp_path / "state").read_text())["began"] == began


def test_program_survives_closed_output(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "policy").write_text('{"version": 1, "upses": [], "machines": [], "reserve": 30, "timeout": 100}')
    with subprocess.Popen([archive, "gate", *_options(tmp_path)], stdout=subprocess.PIPE) as program:
        assert program.stdout
        program.stdout.close()
        assert program.wait(60) == 0
