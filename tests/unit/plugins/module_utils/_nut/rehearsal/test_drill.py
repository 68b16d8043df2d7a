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
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import clock as base_clock
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar, upsd, upsmon
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import drill
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate, observe
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import policy as shutdown_policy
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serving

ROOT = Path(__file__).resolve().parents[6]
NAS = {"name": "nas", "addresses": ["192.0.2.20"], "shutdown_time": 60, "shutdown_limit": 120}
VM = {"name": "vm", "guest": {"kind": "qm", "id": 100}, "shutdown_time": 10, "shutdown_limit": 40}


def policy(*hosts: Any, **changes: Any) -> shutdown_policy.Policy:
    whole = {"version": 1, "upses": [], "machines": list(hosts), "settle": 3, "reserve": 30, "longest": 150, **changes}
    return shutdown_policy.check_policy(whole)


def job(*hosts: Any, **changes: Any) -> drill.Job:
    more = {"timing": {**drill.TIMING, "HOSTSYNC": 30}, "runtime": 900.0, "outage": 10.0, "primary": "pve", **changes}
    return drill.Job(policy(*(hosts or (NAS, VM))), **more)


# What it is given


def test_a_job_travels() -> None:
    one = job()
    line = one.dump()
    assert "\n" not in line
    assert drill.read_job(line) == one
    for nonsense in ("", "{}", "[]", line.replace('"outage"', '"odd"'), line.replace('"settle": 3.0', '"settle": -1')):
        with pytest.raises(drill.DrillError, match="can't be understood"):
            drill.read_job(nonsense)


def test_how_long_it_may_take() -> None:
    # all are ready, on battery, two polls, HOSTSYNC, FINALDELAY, DEADTIME, the gate, and a minute
    assert job().longest == 60 + 10 + 10 + 30 + 5 + 15 + 150 + 60
    assert job(timing={**drill.TIMING, "POLLFREQ": 20}).longest == 60 + 10 + 40 + 15 + 5 + 15 + 150 + 60


def test_the_times_of_upsmon() -> None:
    assert drill.timing("") == {"POLLFREQ": 5, "POLLFREQALERT": 5, "HOSTSYNC": 15, "DEADTIME": 15, "FINALDELAY": 5}
    text = "HOSTSYNC 20\nPOLLFREQ 3\n# DEADTIME 99\nHOSTSYNC 45\nFINALDELAY soon\nPOLLFREQALERT 4s\n"
    assert drill.timing(text) == {"POLLFREQ": 3, "POLLFREQALERT": 4, "HOSTSYNC": 45, "DEADTIME": 15, "FINALDELAY": 0}


# NUT's files


def test_a_note(tmp_path: Path) -> None:
    note = tmp_path / "nas"
    subprocess.run(["/bin/sh", "-c", drill.note_command(note)], check=True)
    now = base_clock.boottime()
    uptime = Path("/proc/uptime").read_text()
    when = drill.noted(note.read_text(), uptime, now)
    assert when is not None
    assert now - 60 < when <= now
    assert [path.name for path in tmp_path.iterdir()] == ["nas"]
    assert drill.noted("100.50 7.00\n", "110.75 8.00\n", 5000.0) == 4989.75
    # never later than now
    assert drill.noted("100.50", "99.00", 5000.0) == 5000.0
    for nonsense in ("", "soon", "nan 1", "inf 1"):
        assert drill.noted(nonsense, "110.75 8.00", 5000.0) is None


def test_what_the_simulated_ups_says() -> None:
    assert drill.dev("OB LB", 120.4).splitlines()[-2:] == ["ups.status: OB LB", "battery.runtime: 120"]
    assert "battery.runtime: 0\n" in drill.dev("OB LB", -3)
    assert "runtime" not in drill.dev("OL", None)


def test_the_files(tmp_path: Path) -> None:
    made = drill.files(tmp_path, job(), 40000, "secret")
    assert sorted(made) == ["0.conf", "1.conf", "primary.conf", "ups.conf", "upsd.conf", "upsd.users"]
    assert upsd.listening(made["upsd.conf"]) == [("127.0.0.1", 40000)]
    assert upsd.users(made["upsd.users"]) == {
        "primary": upsd.User("primary", "secret", "primary"),
        "secondary": upsd.User("secondary", "secret", "secondary"),
    }
    assert "[drill]\ndriver = dummy-ups\nport = drill.dev\nmode = dummy-once\n" in made["ups.conf"]
    for name, user in (("primary", "primary"), ("0", "secondary"), ("1", "secondary")):
        text = made[f"{name}.conf"]
        assert upsmon.monitors(text) == (upsmon.Monitor("drill@127.0.0.1:40000", 1, user, "secret", user),)
        # nothing else is run, and nothing else is written
        assert grammar.directive(text, "SHUTDOWNCMD") == drill.note_command(tmp_path / "notes" / name)
        assert grammar.directive(text, "NOTIFYCMD") is None
        flag = grammar.directive(text, "POWERDOWNFLAG")
        assert flag == (str(tmp_path / "killpower") if name == "primary" else None)
        quiet = [line.words[1:] for line in grammar.parse(text) if line.words[0] == "NOTIFYFLAG"]
        assert len(quiet) == 31
        assert {word for _kind, *words in quiet for word in words} == {"IGNORE"}
        assert {"ONBATT", "LOWBATT", "FSD", "SHUTDOWN"} <= {words[0] for words in quiet}
    assert drill.timing(made["primary.conf"]) == job().timing
    assert drill.timing(made["0.conf"]) == drill.TIMING


# What comes of it


def seen(rule: str = gate.DOWN, **machines: Any) -> drill.Seen:
    return drill.Seen(machines or {"nas": (10.0, 70.0), "vm": (8.0, 18.0)}, 1e9, 73.5, rule, "words")


def test_whether_the_order_held() -> None:
    assert seen().problems() == []
    assert seen().verdict() == "The order held: nas was the last to be down, 3.5 s before this host"
    assert seen(gate.ASSUMED).problems() == []
    assert dataclasses.replace(seen(), machines={}).verdict() == "The order held: there is nobody to wait for"
    late = "nas was not down when this host would have powered off"
    assert seen(nas=(10.0, None)).problems() == [late]
    assert seen(nas=(10.0, 73.6)).problems() == [late]
    assert seen(nas=(10.0, 73.5)).problems() == []
    never = seen(nas=(None, None), vm=(8.0, 18.0))
    assert never.problems() == ["nas had not begun to go down when this host would have powered off"]
    assert never.verdict() == f"The order did not hold: {never.problems()[0]}"
    for rule in (gate.LIMIT, gate.BATTERY, gate.LONGEST, ""):
        assert seen(rule).problems() == ["the wait ended because words"]


def test_what_was_planned() -> None:
    # half a poll, half a poll and FINALDELAY, and its own time
    assert drill.planned(job()) == {"nas": (10.0, 70.0), "vm": (10.0, 20.0), "pve": (74.0, None)}


def test_the_data_and_the_table() -> None:
    data = seen(nas=(10.123, 70.456), vm=(None, None)).data(job())
    assert json.loads(json.dumps(data)) == data
    assert data["machines"] == {"nas": [10.12, 70.46], "vm": [None, None]}
    assert (data["trigger"], data["poweroff"], data["held"]) == (1e9, 73.5, False)
    assert data["decision"] == {"rule": "down", "reason": "words"}
    assert data["planned"]["pve"] == [74.0, None]
    lines = drill.table(data).splitlines()
    assert [line.split() for line in lines[1:6]] == [
        ["nas", "begins", "to", "go", "down", "+10.0", "+10.1"],
        ["is", "down", "+70.0", "+70.5"],
        ["vm", "begins", "to", "go", "down", "+10.0", "-"],
        ["is", "down", "+20.0", "-"],
        ["pve", "would", "power", "off", "+74.0", "+73.5"],
    ]
    assert lines[0].split()[-2:] == ["planned", "seen"]
    assert len({len(line) for line in lines[:6]}) == 1
    assert lines[-1] == data["verdict"]


# The walls


def test_the_properties_of_the_unit() -> None:
    given = [one.split("=", 1) for one in drill.properties(99.5)]
    assert len({name for name, _value in given}) == len(given)
    found = dict(given)
    # nothing of root, nor of nut
    assert found["DynamicUser"] == "yes"
    assert "User" not in found
    assert "SupplementaryGroups" not in found
    assert found["CapabilityBoundingSet"] == ""
    assert found["AmbientCapabilities"] == ""
    assert found["NoNewPrivileges"] == "yes"
    assert found["SystemCallFilter"] == "~@reboot"
    # no way to systemd, to NUT, to a UPS
    hidden = found["InaccessiblePaths"].split()
    for path in ("/run/systemd/private", "/run/dbus", "/run/initctl", "/dev/initctl", "/dev/bus/usb", "/etc/nut"):
        assert f"-{path}" in hidden
    assert found["TemporaryFileSystem"].partition(":")[0] == "/run/nut"
    assert (found["PrivateDevices"], found["DevicePolicy"]) == ("yes", "closed")
    assert found["PrivateNetwork"] == "yes"
    assert found["ProtectProc"] == "invisible"
    assert found["ProtectKernelTunables"] == "yes"
    # one place to write, and nothing stays
    assert found["ProtectSystem"] == "strict"
    assert found["ProtectHome"] == "yes"
    assert found["RuntimeDirectory"] == "nut-shutdown-drill"
    assert "ReadWritePaths" not in found
    assert "RuntimeDirectoryPreserve" not in found
    assert found["RuntimeMaxSec"] == "100"
    assert found["KillMode"] == "control-group"
    assert found["SendSIGKILL"] == "yes"
    # and its end ends nothing else
    assert {"SuccessAction", "FailureAction", "OnFailure", "OnSuccess", "Restart"}.isdisjoint(found)


def test_how_it_is_started() -> None:
    words = drill.command("/usr/bin/systemd-run", ["/p", "-IS", "/q"], 60, as_json=False)
    head, inner = words[: words.index("--")], words[words.index("--") + 1 :]
    assert head[0] == "/usr/bin/systemd-run"
    assert {"--pipe", "--wait", "--collect", "--unit=nut-shutdown-drill"} <= set(head)
    assert [one.partition("=")[2] for one in head if one.startswith("--property=")] == drill.properties(60)
    assert inner == ["/p", "-IS", "/q", "drill", "--inside"]
    assert drill.command("s", ["/p"], 60, as_json=True)[-3:] == ["drill", "--inside", "--json"]


NONE = "".join(f"{name}:\t0000000000000000\n" for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
LO = "Inter-|   Receive\n face |bytes\n    lo:  1 2\n"


@pytest.fixture
def between_walls(tmp_path: Path) -> Path:
    (tmp_path / "proc/self/net").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(f"Name:\tx\n{NONE}NoNewPrivs:\t1\n")
    (tmp_path / "proc/self/net/dev").write_text(LO)
    return tmp_path


def test_walls_that_stand(between_walls: Path) -> None:
    assert drill.walls(between_walls, ids=(61000, 61000), groups=(61000,)) == []


def test_walls_that_do_not(between_walls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(ids: tuple[int, ...] = (61000, 61000), groups: tuple[int, ...] = (61000,)) -> list[str]:
        return drill.walls(between_walls, ids=ids, groups=groups)

    assert wrong(ids=(0, 61000)) == ["it is root"]
    assert wrong(ids=(61000, 0)) == ["it is root"]

    class Nut:
        pw_uid, pw_gid = 120, 130

    monkeypatch.setattr(drill.pwd, "getpwnam", lambda name: {"nut": Nut}[name])
    assert wrong(ids=(61000, 120)) == ["it is NUT's own user"]
    assert wrong(groups=(61000, 130)) == ["it is NUT's own user"]
    for path in (
        "run/systemd/private", "run/dbus/system_bus_socket", "run/initctl", "dev/initctl", "etc/nut/upsd.users",
        "etc/nut/upsmon.conf", "run/nut/upsmon.pid", "dev/bus/usb", "proc/sysrq-trigger",
    ):  # fmt: skip
        there = between_walls / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.touch()
        assert wrong() == [f"it reaches /{path}"]
        there.unlink()
    (between_walls / "proc/self/net/dev").write_text(f"{LO}  eth0:  1 2\n")
    assert wrong() == ["it has a network"]
    (between_walls / "proc/self/net/dev").write_text(LO)
    status = between_walls / "proc/self/status"
    status.write_text(f"{NONE}NoNewPrivs:\t0\n")
    assert wrong() == ["it may get new privileges"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        # CAP_SYS_BOOT
        status.write_text(NONE.replace(f"{name}:\t0000000000000000", f"{name}:\t0000000000400000") + "NoNewPrivs:\t1\n")
        assert wrong() == [f"it has capabilities ({name})"]
    status.write_text("NoNewPrivs:\t1\n")
    assert len(wrong()) == 5
    status.unlink()
    assert len(wrong()) == 1
    assert "nobody can tell" in wrong()[0]


def test_these_tests_themselves_run_where_harm_could_be_done() -> None:
    assert drill.walls() != []
    out: list[str] = []
    with pytest.raises(drill.Refused, match="only where it can do no harm"):
        drill.inside(-1, out.append, out.append, as_json=False)
    assert out == []


# The programs

# A NUT of a page: upsd, its driver, and upsmon as far as a drill needs them
FAKE = """\
import os, re, signal, socket, subprocess, sys, threading, time
from pathlib import Path
name, here = Path(sys.argv[0]).name, Path(os.environ["NUT_CONFPATH"])
with open(os.environ["NUT_CONFPATH"] + "/../pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
modes = (here / "../mode").read_text().split()
if name + "-dies" in modes:
    print("no mood for it")
    sys.exit(1)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in modes else signal.SIG_DFL)

def variables():
    return dict(line.split(": ", 1) for line in (here / "drill.dev").read_text().splitlines())

def serve(connection):
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            words = line.split()
            if words[:2] == ["GET", "NUMLOGINS"]:
                count = len(list((here / "state").glob("login-*")))
                answer = f"NUMLOGINS drill {count}"
            elif words[:2] == ["GET", "VAR"]:
                value = variables().get(words[3])
                answer = f'VAR drill {words[3]} "{value}"' if value else "ERR VAR-NOT-SUPPORTED"
            else:
                answer = "OK Goodbye"
            lines.write(answer + "\\n")
            lines.flush()

if name == "dummy-ups":
    time.sleep(1000)
elif name == "upsd":
    port = int(re.search(r"LISTEN \\S+ (\\d+)", (here / "upsd.conf").read_text())[1])
    server = socket.create_server(("127.0.0.1", port))
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
else:
    # a child, as upsmon has one
    child = subprocess.Popen(["sleep", "1000"])
    with open(os.environ["NUT_CONFPATH"] + "/../pids", "a") as file:
        file.write(f"{child.pid}\\n")
    (here / "state" / f"login-{name}").touch()
    text = Path(sys.argv[sys.argv.index("-f") + 1]).read_text()
    command = re.search(r'SHUTDOWNCMD "(.*)"', text)[1].replace('\\\\"', '"')
    while "LB" not in variables()["ups.status"]:
        time.sleep(0.02)
    time.sleep(0.3 if name == "drill-primary" else 0.05)
    while name in modes:
        time.sleep(1)
    subprocess.run(["/bin/sh", "-c", command])
    if "deaf" not in modes:
        child.kill()
"""


class Nut:
    """A NUT that is none, in a folder, and what it left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fake.py").write_text(FAKE)
        for name in ("dummy-ups", "upsd", "upsmon"):
            path = folder / name
            path.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.argv[0] = sys.argv.pop(1); "
                            f"exec(open(\"{folder}/fake.py\").read())' \"$0\" \"$@\"\n")  # fmt: skip
            path.chmod(0o755)
        self.mode()

    def mode(self, *words: str) -> None:
        (self.folder / "mode").write_text(" ".join(words))

    def find(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.exists() else None

    def pids(self) -> list[int]:
        path = self.folder / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def running(self) -> list[int]:
        """Return what still runs. What was killed, and is nobody's child any more, takes a moment to go."""
        deadline = time.monotonic() + 10
        while (found := self._running()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _running(self) -> list[int]:
        found = []
        for pid in self.pids():
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            found += [pid] if state != "Z" else []
        return found

    def folders(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path.is_dir()]


@pytest.fixture
def nut(tmp_path: Path) -> Iterator[Nut]:
    made = Nut(tmp_path)
    yield made
    for pid in made.running():
        os.kill(pid, signal.SIGKILL)


QUICK = {"name": "nas", "addresses": ["192.0.2.20"], "shutdown_time": 1.2, "shutdown_limit": 5}
QUICKER = {"name": "web", "addresses": ["192.0.2.21"], "shutdown_time": 0.1, "shutdown_limit": 5}


def quick(*hosts: Any, **changes: Any) -> drill.Job:
    timing = {"POLLFREQ": 1, "POLLFREQALERT": 1, "HOSTSYNC": 1, "DEADTIME": 3, "FINALDELAY": 0}
    made = policy(*(hosts or (QUICK, QUICKER)), settle=0.5, longest=8)
    return drill.Job(made, **{"timing": timing, "runtime": 900.0, "outage": 0.2, "primary": "pve", **changes})


class Pipe:
    """What the inner half reads: its job, and then nothing, until it is closed."""

    def __init__(self, line: str) -> None:
        self.source, self.writer = os.pipe()
        os.write(self.writer, f"{line}\n".encode())

    def close(self) -> None:
        os.close(self.writer)


def hold(nut: Nut, one: drill.Job, said: list[str], *, as_json: bool = True) -> bool:
    pipe = Pipe(one.dump())
    try:
        return drill.inside(
            pipe.source,
            said.append,
            said.append,
            as_json=as_json,
            room=nut.folder,
            check=lambda: [],
            finder=nut.find,
        )
    finally:
        pipe.close()


def test_a_drill(nut: Nut) -> None:
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
        "2 more for the others", "the UPS: on battery, 900 s left", "the UPS: the battery is low", "nas: upsmon runs its SHUTDOWNCMD",
        "nas: is down", "web: is down", "pve: upsmon runs its SHUTDOWNCMD", "pve: +0.0 s  the gate begins", "drill is on battery",
        "the gate ends (down): all are down", "pve: would power off now",
    ):  # fmt: skip
        assert words in text
    assert len(nut.pids()) == 2 + 2 * 3
    assert nut.running() == []
    assert nut.folders() == []


def test_a_drill_as_text_and_a_machine_that_does_not_go_down(nut: Nut) -> None:
    # its SHUTDOWNCMD never runs
    nut.mode("drill-0")
    said: list[str] = []
    hosts = ({**QUICK, "shutdown_time": 0.3, "shutdown_limit": 1}, QUICKER)
    assert hold(nut, quick(*hosts), said, as_json=False) is False
    assert "The order did not hold: nas had not begun to go down" in said[-1]
    assert "nas is given up" in "\n".join(said)
    assert nut.running() == []
    assert nut.folders() == []


def test_a_program_that_ends_by_itself(nut: Nut) -> None:
    nut.mode("upsd-dies")
    with pytest.raises(drill.DrillError, match="upsd ended by itself: no mood for it"):
        hold(nut, quick(), [])
    assert nut.running() == []
    nut.mode("drill-1-dies")
    with pytest.raises(drill.DrillError, match="upsmon of web ended by itself: no mood for it"):
        hold(nut, quick(), [])
    assert nut.running() == []
    assert nut.folders() == []


def test_nut_is_not_there(nut: Nut) -> None:
    (nut.folder / "upsmon").unlink()
    with pytest.raises(drill.DrillError, match="NUT's upsmon is not installed"):
        hold(nut, quick(), [])
    assert nut.pids() == []
    assert nut.folders() == []


def test_programs_that_do_not_want_to_end(nut: Nut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill.Programs.end, "__defaults__", (0.3,))
    nut.mode("deaf")
    assert hold(nut, quick(), []) is True
    assert len(nut.pids()) == 8
    assert nut.running() == []


def test_it_does_not_last_for_ever(nut: Nut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill.Job, "longest", property(lambda _job: 3.0))
    with pytest.raises(drill.DrillError, match="not over after 3 s"):
        hold(nut, quick(outage=100.0), [])
    assert nut.running() == []
    assert nut.folders() == []


def test_upsmon_that_does_not_come_to_its_shutdown(nut: Nut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill.Job, "longest", property(lambda _job: 12.0))
    nut.mode("drill-primary")
    with pytest.raises(drill.DrillError, match="did not come to its SHUTDOWNCMD"):
        hold(nut, quick(), [])
    assert nut.running() == []


INSIDE = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from _nut.rehearsal import drill
folder = Path(sys.argv[2])
try:
    drill.inside(0, lambda line: print(line, flush=True), print, as_json=False, room=folder, check=lambda: [],
                 finder=lambda name: folder / name)
except drill.DrillError as error:
    print(error)
    sys.exit(7)
"""


def _interrupted(nut: Nut, how: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    words = [sys.executable, "-c", INSIDE, str(ROOT / "plugins/module_utils"), str(nut.folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{quick(outage=1000.0).dump()}\n")
        process.stdin.flush()
        assert any("on battery" in line for line in iter(process.stdout.readline, ""))
        assert len(nut._running()) == 8
        how(process)
        code = process.wait(60)
        return code, process.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_order(nut: Nut, number: int) -> None:
    assert _interrupted(nut, lambda process: process.send_signal(number)) == (7, "the drill was stopped\n")
    assert nut.running() == []
    assert nut.folders() == []


def test_it_ends_when_nobody_wants_it_any_more(nut: Nut) -> None:
    def close(process: subprocess.Popen[str]) -> None:
        assert process.stdin
        process.stdin.close()

    assert _interrupted(nut, close) == (7, "the drill was stopped\n")
    assert nut.running() == []
    assert nut.folders() == []


def test_the_battery_counts_down_and_each_word_has_a_time_of_its_own(tmp_path: Path) -> None:
    now = [100.0]
    one = drill.Drill(job(), tmp_path, print, threading.Event(), clock=lambda: now[0], wall=lambda: 5000.7)
    one.supply()
    path = tmp_path / "drill.dev"
    assert path.read_text() == drill.dev("OL", 900)
    assert path.stat().st_mtime == 5000
    one.since = 100.0
    now[0] = 130.0
    one.set("OB")
    assert path.read_text() == drill.dev("OB", 870)
    assert path.stat().st_mtime == 5001
    # two seconds later it says so by itself
    now[0] = 131.9
    one.tick()
    assert path.stat().st_mtime == 5001
    now[0] = 132.0
    one.tick()
    assert path.read_text() == drill.dev("OB", 868)


# The outer half


def upsd_says(status: str, runtime: str | None = "240") -> dict[str, str]:
    lines = f'VAR ups ups.status "{status}"\n' + (f'VAR ups battery.runtime "{runtime}"\n' if runtime else "")
    return {"LIST VAR ups": f"BEGIN LIST VAR ups\n{lines}END LIST VAR ups\n"}


@pytest.mark.parametrize(("runtime", "left"), [("240", 240.0), (None, None), ("soon", None), ("0", None)])
def test_the_real_ups_is_asked(runtime: str | None, left: float | None) -> None:
    with serving(upsd_says("OL CHRG", runtime)) as server:
        assert drill.ask_real(policy(upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])) == left


@pytest.mark.parametrize(
    "status", ["OB DISCHRG", "OB LB", "FSD OL", "OL LB", "OL OB", "OL BYPASS", "BYPASS", "OL CAL", "OL OFF", ""]
)
def test_no_drill_while_a_shutdown_may_be_near(status: str) -> None:
    with (
        serving(upsd_says(status)) as server,
        pytest.raises(drill.Refused, match=f"ups says {status or 'nothing'}, and must be plainly on mains"),
    ):
        drill.ask_real(policy(upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}]))


def test_no_drill_if_nobody_can_tell() -> None:
    upses = [{"name": "ups", "host": "127.0.0.1", "port": drill.free_port()}]
    with pytest.raises(drill.Refused, match="nobody can tell whether a real shutdown is near"):
        drill.ask_real(policy(upses=upses))


def test_the_emptiest_counts() -> None:
    with serving(upsd_says("OL", "240")) as one, serving(upsd_says("OL", "120")) as other:
        upses = [{"name": "ups", "host": "127.0.0.1", "port": each.port} for each in (one, other)]
        assert drill.ask_real(policy(upses=upses)) == 120


def test_the_job_is_made_of_the_real_files(tmp_path: Path) -> None:
    conf = tmp_path / "upsmon.conf"
    with pytest.raises(drill.Refused, match=f"{conf} can't be read"):
        drill.make_job(policy(NAS), conf, 10, "pve")
    conf.write_text("HOSTSYNC 42\n")
    with serving(upsd_says("OL")) as server:
        real = policy(NAS, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}], stages=[{"name": "x"}])
        made = drill.make_job(real, conf, 10, "pve")
    assert made == drill.Job(policy(NAS), {**drill.TIMING, "HOSTSYNC": 42}, 240.0, 10, "pve")
    for outage in (-1, 3601, float("nan")):
        with pytest.raises(drill.Refused, match="--outage must be from 0 to 3600 s"):
            drill.make_job(policy(NAS), conf, outage, "pve")


def test_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill.platform, "node", lambda: "pve.example.org")
    assert drill.name_of(policy(NAS)) == "pve"
    assert drill.name_of(policy({**NAS, "name": "pve"})) == "pve (this host)"


def test_no_drill_without_systemd(tmp_path: Path) -> None:
    program = tmp_path / "systemd-run"
    with pytest.raises(drill.Refused, match="nothing that keeps a drill from doing harm"):
        drill.systemd_run(tmp_path, str(tmp_path))
    program.touch(0o755)
    assert drill.systemd_run(tmp_path, str(tmp_path)) == str(program)
    with pytest.raises(drill.Refused, match="nothing that keeps a drill from doing harm"):
        drill.systemd_run(tmp_path / "none", str(tmp_path))


class Outer:
    """The outer half, with something else in the place of systemd-run."""

    def __init__(self, folder: Path, script: str, upses: Any = ()) -> None:
        self.folder, self.said, self.ran = folder, [], []  # type: ignore[var-annotated]
        (folder / "upsmon.conf").write_text("")
        self.program = folder / "systemd-run"
        self.program.write_text(f'#!/bin/sh\ncd {folder}\necho "$@" >words\n{script}\n')
        self.program.chmod(0o755)
        self.policy = policy(NAS, upses=list(upses))

    def __call__(self, user: int = 0) -> int:
        def run(words: Any) -> tuple[int, str]:
            self.ran.append(list(words))
            return 0, ""

        return drill.outside(
            self.policy,
            10,
            self.said.append,
            as_json=True,
            program=["/p"],
            run=run,
            conf=self.folder / "upsmon.conf",
            start=lambda: str(self.program),
            user=lambda: user,
        )


@pytest.mark.parametrize(("code", "gives"), [(0, 0), (1, 1), (2, 2), (247, 1)])
def test_the_outer_half(tmp_path: Path, code: int, gives: int) -> None:
    outer = Outer(tmp_path, f"head -n 1 >job; exit {code}")
    assert outer() == gives
    made = drill.read_job((tmp_path / "job").read_text())
    assert (made.policy, made.runtime, made.outage) == (policy(NAS), None, 10)
    words = (tmp_path / "words").read_text().split()
    assert f"--property=RuntimeMaxSec={made.longest + 30:.0f}" in words
    assert words[-4:] == ["/p", "drill", "--inside", "--json"]
    assert outer.said == ([f"the drill was ended from outside ({code})"] if gives != code else [])
    assert outer.ran == []


def test_only_root_may_begin_one(tmp_path: Path) -> None:
    with pytest.raises(drill.Refused, match="run it as root"):
        Outer(tmp_path, "")(user=1000)
    assert not (tmp_path / "words").exists()


def test_the_end_of_the_mains_is_the_end_of_the_drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asker:
        """Says that the mains are there until the drill has begun, then that nobody can tell, then that they are gone."""

        def __init__(self, upses: Any, clock: Any) -> None:
            self.asked: list[bool | None] = []
            self.closed = False
            made.append(self)

        def __call__(self) -> dict[str, gate.Reading]:
            begun = (tmp_path / "begun").exists()
            self.asked.append((True if None in self.asked else None) if begun else False)
            return {"ups": gate.Reading(self.asked[-1], 100.0, 1.0)}

        def close(self) -> None:
            self.closed = True

    made: list[Asker] = []
    monkeypatch.setattr(observe, "Asker", Asker)
    outer = Outer(tmp_path, "read job; touch begun; timeout 30 cat && exit 1; exit 2")
    assert outer() == 1
    assert outer.said == ["ups is on battery, in earnest: the drill ends"]
    assert made[0].asked[-1] is True
    assert made[0].closed


def test_one_that_does_not_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "ENDING", 0.1)
    outer = Outer(tmp_path, "touch begun; trap '' TERM; sleep 2; exit 1")

    def interrupt() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    before = signal.getsignal(signal.SIGTERM)
    assert outer() == 1
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert outer.ran == [["systemctl", "stop", "--", "nut-shutdown-drill.service"]]


def test_nothing_in_it_powers_off() -> None:
    words = re.compile(r"poweroff\.target|reboot\.target|shutdown -|/sbin/shutdown|upsmon -|-c fsd|sysrq-trigger$")
    tree = ast.parse((ROOT / "plugins/module_utils/_nut/rehearsal/drill.py").read_text())
    texts = [one.value for one in ast.walk(tree) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    # this one is named to be looked at
    assert [text for text in texts if words.search(text)] == ["proc/sysrq-trigger"]
    calls = {one.attr for one in ast.walk(tree) if isinstance(one, ast.Attribute)}
    assert calls.isdisjoint({"system", "popen", "execv", "kill", "run_command", "call", "check_call"})
