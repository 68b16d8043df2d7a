# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.action import zipapp
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_shutdown
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import inside, job, live, outside
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate_loop
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.names import Names
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serving

ROOT = Path(__file__).resolve().parents[6]
GUEST = {"name": "vm", "guest": {"kind": "qm", "id": 100}, "shutdown_time": 10, "shutdown_limit": 60}


class Program:
    """The program as a host would run it, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out: list[str] = []
        self.err: list[str] = []
        self.slept: list[float] = []
        self.ran: list[list[str]] = []
        self.says = "status: stopped"
        self.lists: dict[str, str] = {}
        self.environment: dict[str, str] = {}

    def policy(self, **changes: Any) -> None:
        whole = {"version": 1, "upses": [], "machines": [GUEST], "settle": 3, "reserve": 30, "longest": 100, **changes}
        (self.folder / "shutdown.json").write_text(json.dumps(whole))

    def by_systemd(self, unit: str = "nut-shutdown.service") -> None:
        """Let what follows be run by a unit of systemd's."""
        self.environment = {"INVOCATION_ID": "5f", "SYSTEMD_EXEC_PID": str(os.getpid())}
        (self.folder / "proc/self").mkdir(parents=True, exist_ok=True)
        (self.folder / "proc/self/cgroup").write_text(f"0::/system.slice/{unit}\n")

    def qm(self, command: Any) -> tuple[int, str]:
        self.ran.append(list(command))
        return 0, self.lists.get(command[-2], "") if command[-1] == "list" else self.says

    def __call__(self, *words: str) -> int:
        folder = self.folder
        options = ["--policy", str(folder / "shutdown.json"), "--state", str(folder / "gate.json")]
        options += ["--report", str(folder / "last.json"), "--log", str(folder / "log"), "--root", str(folder)]
        return nut_shutdown.main(
            [*words, *(options if "--help" not in words else [])],
            self.out.append,
            self.err.append,
            environment=self.environment,
            run=self.qm,
            sleep=self.slept.append,
        )

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path)
    made.policy()
    return made


def test_the_gate(program: Program) -> None:
    assert program("gate") == 0
    assert program.ran[0] == ["qm", "status", "100"]
    assert program.out[-1].endswith("the gate ends (down): all are down")
    assert program.err == []
    assert program.json("last.json")["rule"] == "down"
    assert "all are down" in (program.folder / "log").read_text()
    assert program.json("gate.json")["by"] == "hand"


def test_what_was_waited_for_by_hand_does_not_count_for_systemd(program: Program) -> None:
    program("gate")
    program.out.clear()
    program.by_systemd()
    assert program("gate") == 0
    assert not any("has ended before" in line for line in program.out)
    assert program.json("gate.json")["by"] == "systemd"
    # but the next of systemd's own has nothing to do
    assert program("gate") == 0
    assert program.out[-1].endswith("the gate has ended before: all are down")


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
def test_what_a_service_or_a_session_starts_is_by_hand(program: Program, unit: str) -> None:
    """Each of their children inherits INVOCATION_ID, and an exec() SYSTEMD_EXEC_PID, too."""
    program.by_systemd(unit)
    assert program("gate") == 0
    assert program.json("gate.json")["by"] == "hand"


def test_a_child_of_the_unit_is_by_hand(program: Program) -> None:
    program.by_systemd()
    program.environment["SYSTEMD_EXEC_PID"] = str(os.getppid())
    assert program("gate") == 0
    assert program.json("gate.json")["by"] == "hand"


@pytest.mark.parametrize(
    "groups",
    [
        "0::/system.slice/nut-shutdown.service\n",
        "12:pids:/\n3:memory:/system.slice\n1:name=systemd:/machine/x/system.slice/nut-shutdown.service\n0::/\n",
    ],
)
def test_the_unit_is_known_by_its_group(program: Program, groups: str) -> None:
    """Of both versions of cgroups, and before systemd 248, which says no SYSTEMD_EXEC_PID."""
    program.by_systemd()
    (program.folder / "proc/self/cgroup").write_text(groups)
    del program.environment["SYSTEMD_EXEC_PID"]
    assert program("gate") == 0
    assert program.json("gate.json")["by"] == "systemd"


def test_a_shutdown_is_one_without_proc(program: Program) -> None:
    program.by_systemd()
    (program.folder / "proc/self/cgroup").unlink()
    assert program("gate") == 0
    assert program.json("gate.json")["by"] == "systemd"


def test_a_crash_is_told_and_waits_a_moment(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(gate_loop.Gate, "run", crash)
    assert program("gate") == 1
    assert program.err[0] == "nut-shutdown gate failed: RuntimeError: odd"
    assert any("Traceback" in line for line in program.err)
    assert program.slept == [1.0]


def test_a_policy_that_is_wrong(program: Program) -> None:
    program.policy(longest=0)
    for command in ("gate", "stages", "status", "check", "guests"):
        program.err.clear()
        assert program(command) == 2
        assert program.err == [
            f"{program.folder}/shutdown.json: $.longest: must be a number of seconds from 1 to 86400"
        ]
    assert program.out == []


def test_check(program: Program) -> None:
    assert program("check") == 0
    assert program.out == [f"{program.folder}/shutdown.json is right: 1 to wait for, 100 s at most"]
    program.policy(stages=[{"name": "first", "surprise": 1}])
    assert program("check") == 2
    assert program.err[0].startswith(f"{program.folder}/shutdown.json: $.stages[0]")
    # the gate waits all the same
    assert program("gate") == 0


def test_check_refuses_a_program_of_a_stage_that_others_can_write(program: Program) -> None:
    script = program.folder / "tell"
    script.write_text("#!/bin/sh\n")
    program.policy(stages=[{"name": "first", "on_battery": 60, "notify": [str(script), "x"]}])
    script.chmod(0o755)
    assert program("check") == 0
    script.chmod(0o757)
    assert program("check") == 1
    assert f"stage first: notify {script}: users other than root can write {script} (mode 0757" in program.err[-1]
    assert "chmod go-w" in program.err[-1]


def test_the_command_line(program: Program) -> None:
    assert program("--help") == 0
    assert "nut-shutdown status --json" in program.out[0]
    assert program("poweroff") == 2
    assert "See nut-shutdown --help" in program.err[-1]
    assert program("gate", "--odd\x1b") == 2
    assert "\x1b" not in program.err[-1]


def test_status(program: Program) -> None:
    answers = {
        "GET VAR ups ups.status": 'VAR ups ups.status "OB DISCHRG"\n',
        "GET VAR ups battery.runtime": 'VAR ups battery.runtime "240"\n',
        "GET VAR old ups.status": "ERR DATA-STALE\n",
    }
    with serving(answers) as server:
        upses = [{"name": name, "host": "127.0.0.1", "port": server.port} for name in ("ups", "old")]
        nas = {"name": "nas", "addresses": ["nas.invalid"], "shutdown_time": 60, "shutdown_limit": 120}
        program.policy(upses=upses, machines=[GUEST, nas])
        program.says = "status: running"
        assert program("status") == 0
        text = program.out.pop()
        assert program("status", "--json") == 0
        data = json.loads(program.out.pop())
    assert re.search(r"^  vm +up +shutdown_time 10 s, shutdown_limit 60 s, by qm status 100$", text, re.MULTILINE)
    assert re.search(
        r"^  nas +can't tell +shutdown_time 60 s, shutdown_limit 120 s, by nas.invalid$", text, re.MULTILINE
    )
    assert "would wait at most 100 s for:" in text
    assert "no longer than until a UPS has 30 s left:" in text
    program.policy(machines=[GUEST], least=20)
    assert program("status") == 0
    assert "until a UPS has 20 s, or 30 s where one takes longer than expected, left:" in program.out.pop()
    assert "on battery, 240 s left" in text
    assert "DATA-STALE" in text
    assert text.endswith("last: nothing")
    assert [(one["name"], one["up"]) for one in data["hosts"]] == [("vm", True), ("nas", None)]
    assert (data["upses"][0]["runtime"], data["upses"][0]["error"]) == (240.0, None)
    assert "DATA-STALE" in data["upses"][1]["error"]
    assert data["gate"] is None
    assert data["last"] is None


def test_status_tells_how_the_last_one_went(program: Program) -> None:
    program("gate")
    program.out.clear()
    program("status")
    assert "last: gate, began " in program.out[0]
    assert "it ended (down): all are down" in program.out[0]
    assert re.search(r"^  \+0\.\d s  vm is down", program.out[0], re.MULTILINE)
    program("status", "--json")
    assert json.loads(program.out[1])["last"] == program.json("last.json")
    for nonsense in (
        '{"began": "x"}',
        '{"began": 1e300, "rule": null, "steps": []}',
        '{"began": 1, "rule": null, "steps": 7}',
    ):
        (program.folder / "last.json").write_text(nonsense)
        program("status")
        assert program.out[-1].endswith("last: its report can't be understood")
    (program.folder / "last.json").write_text("[]")
    program("status")
    assert program.out[-1].endswith("last: nothing")


def test_status_where_there_is_nobody(program: Program) -> None:
    program.policy(machines=[])
    program("status")
    assert "  nobody\n" in program.out[0]
    assert "  none is known\n" in program.out[0]


STAGE = {"name": "first", "on_battery": 120, "guests": [{"kind": "qm", "id": 101, "seconds": 60}]}


def test_stages(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import selection
    from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import stages

    seen: list[Any] = []

    def run(known: Any, upses: Any, *, state_path: Path, log: Any, run: Any, finder: Any, alive: Any) -> str:
        alive()
        seen.append((known, upses, state_path, run, finder))
        log("a stage begins")
        return stages.BUSY

    monkeypatch.setattr(stages, "run", run)
    program.policy(upses=[{"name": "ups"}], stages=[STAGE])
    # it ends only if another one is at work, and is to be started again then
    assert program("stages") == 1
    known, upses, state, runs, finder = seen[0]
    assert known[0].name == "first"
    assert upses == [{"name": "ups", "host": "localhost", "port": 3493}]
    assert (state, runs) == (program.folder / "gate.json", program.qm)
    assert finder.stages == {"first": selection.Selector(((101, 60.0),))}
    assert (finder.path, finder.root) == (program.folder / "guests.json", program.folder)
    names = finder.resolver()
    assert (type(names), names.path) == (Names, program.folder / "addresses.json")
    assert finder.resolver() is not names
    assert program.out == ["a stage begins"]
    assert (program.folder / "log").read_text().endswith(" stages: a stage begins\n")


def test_no_stages(program: Program) -> None:
    assert program("stages") == 0
    assert program.out == [f"{program.folder}/shutdown.json has no stages: there is nothing to watch for"]
    assert sorted(path.name for path in program.folder.iterdir()) == ["shutdown.json"]


def test_stages_that_are_wrong(program: Program) -> None:
    program.policy(stages=[{"name": "first", "surprise": 1}])
    for command in ("stages", "guests", "check"):
        assert program(command) == 2
        assert program.err.pop().startswith(f"{program.folder}/shutdown.json: $.stages[0] has a member 'surprise'")
        assert program.err == []
    # all the others go on without them
    assert program("status") == 0


# The guests


def proxmox(folder: Path) -> None:
    local = folder / "etc/pve/local"
    for name in ("qemu-server", "lxc"):
        (local / name).mkdir(parents=True)
    (local / "qemu-server/101.conf").write_text("name: mail\ntags: nas\nscsi0: local:101/a.qcow2\n")
    (local / "qemu-server/103.conf").write_text("name: onnas\nstartup: down=40\nscsi0: nas:103/a.qcow2\n")
    (local / "qemu-server/104.conf").write_text("name: other\nscsi0: local:104/a.qcow2\n")
    (local / "qemu-server/105.conf").write_text("name: model\ntemplate: 1\ntags: nas\n")
    (local / "lxc/102.conf").write_text("hostname: films\nstartup: down=70\n")
    (folder / "etc/pve/storage.cfg").write_text("nfs: nas\n\tserver 192.0.2.20\n\tpath /mnt/pve/nas\n")


STAGES = [
    {"name": "nas", "on_battery": 60, "guests": [{"id": 101, "seconds": 90}, 999], "tags": ["none"], "seconds": 30},
    {"name": "late", "charge": 30, "guests": [101], "storage_of": ["192.0.2.20", "nowhere.invalid"]},
]
IDLE = [
    "stage nas: no guest here has the number 999",
    "stage nas: no guest here has the tag none",
    "stage late: nowhere.invalid has no address here, so nobody knows who uses its storage",
]


def test_check_finds_the_guests_and_keeps_them(program: Program) -> None:
    proxmox(program.folder)
    program.policy(stages=STAGES)
    assert program("check") == 0
    assert program.out[1:] == ["stage nas is for VM 101 (mail)", "stage late is for VM 101 (mail), VM 103 (onnas)"]
    assert program.err == IDLE
    kept = program.json("guests.json")["stages"]
    assert [(one["id"], one["seconds"]) for one in kept["late"]["guests"]] == [(101, 180.0), (103, 40.0)]
    # nobody is asked whether they run
    assert program.ran == []


def test_check_keeps_the_addresses_of_names(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.homelab.nut.plugins.module_utils._nut.base import hostnames

    proxmox(program.folder)
    (program.folder / "etc/pve/storage.cfg").write_text("nfs: nas\n\tserver truenas.lan\n\tpath /mnt/pve/nas\n")
    program.policy(stages=[{"name": "nas", "on_battery": 60, "storage_of": ["nas.lan"]}])
    known = {"nas.lan": ("192.0.2.20",), "truenas.lan": ("192.0.2.20",)}

    def names(name: str, seconds: float) -> tuple[str, ...]:
        if name not in known:
            raise OSError("not known")
        return known[name]

    monkeypatch.setattr(nut_shutdown, "Names", lambda path: Names(path, names))
    assert program("check") == 0
    assert program.out[1:] == ["stage nas is for VM 103 (onnas)"]
    assert program.json("addresses.json")["addresses"] == {"nas.lan": ["192.0.2.20"], "truenas.lan": ["192.0.2.20"]}
    # and when what knew them is gone
    known.clear()
    program.out.clear()
    assert program("check") == 0
    assert program.out[1:] == ["stage nas is for VM 103 (onnas)"]
    assert program.err == []
    assert hostnames.resolve is not names


def test_check_where_the_guests_can_not_be_found(program: Program) -> None:
    (program.folder / "etc/pve").mkdir(parents=True)
    program.policy(stages=STAGES)
    # the policy is right all the same
    assert program("check") == 0
    assert "etc/pve/local is not there: start Proxmox's cluster file system" in program.err[0]
    assert len(program.err) == 1
    assert not (program.folder / "guests.json").exists()


def test_check_where_the_guests_can_not_be_kept(program: Program) -> None:
    proxmox(program.folder)
    program.policy(stages=STAGES)
    (program.folder / "guests.json").mkdir()
    assert program("check") == 0
    assert "guests.json could not be written" in program.err[-1]


def test_check_without_guests_looks_at_none(program: Program) -> None:
    (program.folder / "etc/pve").mkdir(parents=True)
    program.policy(stages=[{"name": "end", "charge": 30, "fsd": True}])
    assert program("check") == 0
    assert program.err == []
    assert len(program.out) == 1


def test_check_where_proxmox_hangs(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    proxmox(program.folder)
    path = program.folder / "etc/pve/storage.cfg"
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(nut_shutdown, "FIND_SECONDS", 0.05)
    program.policy(stages=STAGES)
    assert program("check") == 0
    assert program.err == ["Proxmox's files (/etc/pve) can't be read within 0.05 s. Is pve-cluster.service well?"]
    assert program("guests") == 1
    # let the two threads go
    path.write_text("")


QM = "      VMID NAME\n       101 mail   running  512  8.00 77\n       103 onnas  stopped  512  8.00 0\n"
PCT = "VMID       Status     Lock         Name\n102        running                 films\n"


def test_guests(program: Program) -> None:
    proxmox(program.folder)
    (program.folder / "etc/pve/ha").mkdir()
    (program.folder / "etc/pve/ha/resources.cfg").write_text("ct: 102\n\tstate started\n")
    program.policy(stages=STAGES)
    program.lists = {"qm": QM, "pct": PCT}
    assert program("guests") == 0
    assert program.out[0].splitlines()[:6] == [
        "VM 101 (mail)                runs        has 90 s, stopped by stage nas, late: its number is listed",
        "container 102 (films)        runs        has 70 s, stopped by Proxmox VE, with the host; HA works it",
        "VM 103 (onnas)               stopped     has 40 s, stopped by stage late: "
        "its disk is on storage nas, on 192.0.2.20",
        "VM 104 (other)               stopped     has 180 s, stopped by Proxmox VE, with the host",
        "",
        "HA works 1 guest (102)",
    ]
    assert program.out[0].splitlines()[-3:] == IDLE
    assert program("guests", "--json") == 0
    data = json.loads(program.out[1])
    assert [(one["id"], one["kind"], one["running"], one["ha"]) for one in data["guests"]] == [
        (101, "qm", True, False),
        (102, "pct", True, True),
        (103, "qm", False, False),
        (104, "qm", False, False),
    ]
    assert data["guests"][0] == {
        "id": 101,
        "kind": "qm",
        "name": "mail",
        "running": True,
        "ha": False,
        "stage": "nas",
        "stages": ["nas", "late"],
        "seconds": 90.0,
        "why": "its number is listed",
    }
    assert {key: data["guests"][3][key] for key in ("stage", "stages", "seconds", "why")} == {
        "stage": None,
        "stages": [],
        "seconds": 180,
        "why": "",
    }
    assert data["ha"][0] == "HA works 1 guest (102)"
    assert data["idle"] == IDLE
    # it only looks
    assert not (program.folder / "guests.json").exists()


def test_guests_that_nobody_can_tell_of(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    proxmox(program.folder)
    monkeypatch.setattr(Program, "qm", lambda self, command: (127, "no such program"))
    assert program("guests") == 0
    assert "VM 101 (mail)                can't tell  has 180 s, stopped by Proxmox VE" in program.out[0]
    program("guests", "--json")
    assert {one["running"] for one in json.loads(program.out[1])["guests"]} == {None}


def test_guests_where_there_are_none(program: Program) -> None:
    assert program("guests") == 0
    assert program.out == ["this host has no guests of Proxmox VE"]
    assert program.ran == []


def test_guests_where_ha_can_not_be_read(program: Program) -> None:
    proxmox(program.folder)
    (program.folder / "etc/pve/datacenter.cfg").mkdir()
    assert program("guests") == 0
    assert "datacenter.cfg can't be read" in program.out[0]


def test_what_timeout_ends_is_waited_for_as_long() -> None:
    # that one has nothing to say; what is left behind would be named
    assert nut_shutdown.patient(["timeout", "--kill-after=5", "0.05", "sleep", "1000"]) == (124, "")
    assert nut_shutdown.patient(["timeout", "--kill-after=5", "60", "sh", "-c", "sleep 0.3; echo a"]) == (0, "a\n")


def test_a_drill(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def hold(policy: Any, outage: float, host: job.Host, say: Any, *, as_json: bool) -> int:
        seen.append((policy.machines[0].name, outage, as_json, host.program, host.run))
        say("it is on")
        return 1

    monkeypatch.setattr(outside, "hold_drill", hold)
    monkeypatch.setattr(sys, "argv", ["/usr/local/sbin/nut-shutdown"])
    assert program("drill") == 1
    words = [sys.executable, "-IS", "/usr/local/sbin/nut-shutdown"]
    assert seen == [("vm", 10.0, False, words, program.qm)]
    assert (program.out, program.err) == (["it is on"], [])
    # what happens is not what came of it
    assert program("drill", "--json", "--outage", "2.5") == 1
    assert seen[-1][1:3] == (2.5, True)
    assert (program.out, program.err) == (["it is on"], ["it is on"])
    assert program("drill", "--outage", "soon") == 2


def test_the_inner_half_of_a_drill_reads_no_policy(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
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
    # for this one alone
    assert program("gate", "--inside") == 2


def test_a_drill_that_can_not_be_held(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code, words in (
        (job.Refused("not now"), 2, "nut-shutdown drill: not now"),
        (job.RehearsalError("odd"), 1, "nut-shutdown drill failed: odd"),
    ):

        def fail(*arguments: Any, error: Exception = error, **more: Any) -> int:
            raise error

        monkeypatch.setattr(outside, "hold_drill", fail)
        assert program("drill") == code
        assert program.err.pop() == words


def test_a_record(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def main(policy: Any, wanted: live.Wanted, host: job.Host, out: Any) -> bool:
        names: Any = host.names
        asked.append((policy.machines[0].name, wanted, host.program[:2], host.run, type(names), names.path))
        out("it records")
        return not wanted.check

    monkeypatch.setattr(live, "main", main)
    assert program("record") == 0
    addresses = program.folder / "addresses.json"
    plain = live.Wanted(report=program.folder / "last.json")
    assert asked == [("vm", plain, [sys.executable, "-IS"], program.qm, Names, addresses)]
    assert program.out == ["it records"]
    words = ("record", "--check", "--show", "--json", "--need", "382.5", "--own", "30", "--inside")
    assert program(*words) == 1
    more = {"check": True, "show": True, "inside": True, "as_json": True, "need": 382.5, "own": 30.0}
    assert asked[1][1] == dataclasses.replace(plain, **more)


def test_a_record_that_can_not_be(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    error: list[Exception] = [
        job.Refused("ups is on battery\nnas is not logged in"),
        job.RehearsalError("run it as root"),
    ]

    def main(*_args: Any, **_more: Any) -> bool:
        raise error.pop(0)

    monkeypatch.setattr(live, "main", main)
    assert program("record", "--check") == 2
    assert program.err == ["nut-shutdown record: ups is on battery", "nut-shutdown record: nas is not logged in"]
    assert program("record") == 1
    assert program.err[2:] == ["nut-shutdown record: run it as root"]


def test_programs_are_run() -> None:
    run = nut_shutdown.runner(10)
    assert run([sys.executable, "-c", "import os; print(os.environ['LC_ALL'])"]) == (0, "C\n")
    code, said = run([sys.executable, "-c", "import sys; sys.stderr.write('no\\xff'); sys.exit(3)"])
    assert (code, said[:2]) == (3, "no")
    assert run(["/nonexistent/qm", "status"])[0] == 127


def test_a_program_that_hangs_is_left_behind() -> None:
    run = nut_shutdown.runner(0.05)
    assert run([sys.executable, "-c", "import time; time.sleep(1000)"]) == (
        124,
        f"{sys.executable} did not end within 0.05 s",
    )


# As a program


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "nut-shutdown"
    path.write_bytes(
        zipapp.build(ROOT / "roles/nut_server/files/nut_shutdown.py", "_nut", f"#!{sys.executable} -IS\n".encode())
    )
    path.chmod(0o755)
    return path


def _options(folder: Path) -> list[str]:
    return [f"--{name}={folder / name}" for name in ("policy", "state", "report", "log")]


def test_the_program(archive: Path, tmp_path: Path) -> None:
    whole = {"version": 1, "upses": [], "machines": [], "settle": 3, "reserve": 30, "longest": 100}
    (tmp_path / "policy").write_text(json.dumps(whole))
    done = subprocess.run([archive, "gate", *_options(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("there is nobody to wait for")
    assert subprocess.run([archive, "odd"], capture_output=True, check=False).returncode == 2


def test_killed_the_program_goes_on(archive: Path, tmp_path: Path) -> None:
    whole = {"version": 1, "upses": [], "reserve": 30, "longest": 3, "settle": 0.5}
    host = {"name": "here", "addresses": ["127.0.0.1"], "ports": [1], "shutdown_time": 1, "shutdown_limit": 1000}
    (tmp_path / "policy").write_text(json.dumps({**whole, "machines": [host]}))
    command = [str(archive), "gate", *_options(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        assert first.stdout.readline().endswith("the gate begins: waiting for here (at most 1000 s)\n")
        began = json.loads((tmp_path / "state").read_text())["began"]
        first.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "the gate was started again, and goes on" in done.stdout
    assert "the gate ends (longest)" in done.stdout
    assert json.loads((tmp_path / "state").read_text())["began"] == began


def test_nobody_reads_what_it_says(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "policy").write_text('{"version": 1, "upses": [], "machines": [], "reserve": 30, "longest": 100}')
    with subprocess.Popen([archive, "gate", *_options(tmp_path)], stdout=subprocess.PIPE) as program:
        assert program.stdout
        program.stdout.close()
        assert program.wait(60) == 0


def test_a_round_that_does_not_end_ends_the_program(tmp_path: Path) -> None:
    hangs = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from _nut.programs import nut_shutdown\n"
        "with nut_shutdown.watchdog(0.2) as pet:\n"
        "    pet()\n"
        "    time.sleep(1000)\n"
    )
    folder = ROOT / "plugins/module_utils"
    done = subprocess.run(
        [sys.executable, "-c", hangs, folder], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr


def test_the_watchdog_goes_with_the_gate() -> None:
    with nut_shutdown.watchdog(0.05):
        pass
    # would end all tests
    time.sleep(0.2)


def test_nothing_in_the_program_powers_off() -> None:
    words = re.compile(r"systemctl|poweroff|reboot|halt|shutdown -|/sbin/|upsmon -|killpower|sysrq")
    for path in (
        *(
            ROOT / "plugins/module_utils/_nut" / f"{name}.py"
            for name in ("shutdown/gate_loop", "shutdown/probe", "programs/nut_shutdown")
        ),
        ROOT / "roles/nut_server/files/nut_shutdown.py",
    ):
        tree = ast.parse(path.read_text())
        told = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}  # docstrings
        texts = [
            one.value
            for one in ast.walk(tree)
            if isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in told
        ]
        assert texts
        assert [text for text in texts if words.search(text)] == []
        names = {one.attr for one in ast.walk(tree) if isinstance(one, ast.Attribute)}
        assert names.isdisjoint(
            {"system", "popen", "kill" if path.stem != "nut_shutdown" else "", "execv", "run_command"}
        )
