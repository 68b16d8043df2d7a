# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""midclt as a program of its own, over the real socket: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from truenas.releases import RELEASES

pytestmark = pytest.mark.slow

LIBRARY = Path(__file__).parents[4] / "lab"
PROGRAM = LIBRARY / "truenas" / "files" / "midclt"
SLAVE = {"mode": "SLAVE", "remotehost": "192.0.2.10", "shutdown": "LOWBATT"}
UPS = '[["service", "=", "ups"]]'
OLD = ("13.0", "22.12", "24.10")
NEW = ("25.04", "25.10", "26")
TRACEBACK = "Traceback (most recent call last):\n"


@dataclass
class Box:
    """A machine with midclt."""

    lab: Any
    release: str
    socket: Path

    def run(self, *words: str, stdin: str = "", program: tuple[str, ...] = (str(PROGRAM),)) -> Any:
        environment = {**os.environ, "TRUENAS_LAB_SOCKET": str(self.socket), "TRUENAS_LAB_LIBRARY": str(LIBRARY)}
        done = subprocess.run(
            [sys.executable, *program, *words],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def call(self, method: str, *params: Any, stdin: str = "") -> str:
        """What it prints, if all goes well."""
        words = [each if isinstance(each, str) else json.dumps(each) for each in params]
        code, out, err = self.run("call", method, *words, stdin=stdin)
        assert (code, err) == (0, "")
        return str(out)

    def log(self) -> list[list[str]]:
        lines = self.socket.with_name("midclt.log").read_text().splitlines()
        return [json.loads(line)["argv"] for line in lines]


@pytest.fixture
def make_box(make_lab: Callable[..., Any], serve: Callable[..., Any]) -> Callable[..., Box]:
    def make(release: str, **how: Any) -> Box:
        lab = make_lab(release)
        return Box(lab, release, serve(lab, release, **how).socket)

    return make


@pytest.fixture(params=list(RELEASES))
def box(request: pytest.FixtureRequest, make_box: Callable[..., Box]) -> Box:
    return make_box(request.param)


def test_midclt_prints_results(box: Box) -> None:
    assert json.loads(box.call("ups.config"))["mode"] == "MASTER"
    assert box.call("core.ping") == "pong\n"
    assert box.call("service.update", "ups", {"enable": True}) == "14\n"
    assert box.call("system.version") == box.lab.middleware.release.version + "\n"
    assert json.loads(box.call("service.query", UPS, {"get": True}))["enable"] is True
    assert box.lab.middleware.enabled is True


@pytest.mark.parametrize("release", RELEASES)
def test_midclt_prints_null_and_true(make_box: Callable[..., Box], release: str) -> None:
    box = make_box(release)
    box.call("ups.update", SLAVE)
    answer = {"25.04": "null"}.get(release, "null" if release in OLD else '{"legacy_jobs": true')
    assert box.call("core.set_options", {}).startswith(answer)
    if release == "26":
        assert box.call("service.control", "STOP", "ups") == "1\n"
        return
    assert box.call("service.start", "ups") == "True\n"
    assert box.call("service.stop", "ups") == ("False\n" if release in OLD else "True\n")
    assert box.lab.runner.running is False


@pytest.mark.parametrize("release", ["25.10", "26"])
def test_call_of_a_job_prints_its_number(make_box: Callable[..., Box], release: str) -> None:
    box = make_box(release)
    box.call("ups.update", SLAVE)
    assert box.call("service.control", "START", "ups", {"silent": False}) == "1\n"
    while (job := json.loads(box.call("core.get_jobs", '[["id", "=", 1]]'))[0])["state"] == "RUNNING":
        pass
    assert (job["state"], job["result"], job["credentials"]["type"]) == ("SUCCESS", True, "UNIX_SOCKET")
    assert job["time_finished"].keys() == {"$date"}


def test_call_can_wait_for_a_job(make_box: Callable[..., Box]) -> None:
    box = make_box("25.10")
    box.call("ups.update", SLAVE)
    code, out, err = box.run("call", "-j", "service.control", "START", "ups", '{"silent": false}')
    assert (code, out) == (0, "True\n")
    assert err.splitlines()[-1] == "Total Progress: 100.00%"
    box.lab.faults["job"] = "nobody works today"
    code, out, err = box.run("call", "-j", "service.control", "STOP", "ups")
    assert (code, out) == (1, "")
    assert err.splitlines()[-2:] == ["[EFAULT] nobody works today"] * 2  # the text, and the exception's


@pytest.mark.parametrize("release", OLD)
def test_job_flag_takes_a_value_in_old_releases(make_box: Callable[..., Box], release: str) -> None:
    box = make_box(release)
    code, _out, err = box.run("call", "-j", "ups.config")
    assert (code, "required: method" in err) == (2, True)
    assert box.run("call", "-j", "", "core.ping")[1] == "pong\n"


def test_refused_values_are_printed_one_per_line(box: Box) -> None:
    box.call("ups.update", SLAVE)
    code, out, err = box.run("call", "ups.update", '{"identifier": "my ups"}')
    assert (code, out) == (1, "")
    assert err == '[EINVAL] ups_update.identifier: Use alphanumeric characters, ".", "-" and "_"\n'
    prefix = {"13.0": "", "26": "data."}.get(box.release, "ups_update.")
    code, out, err = box.run("call", "ups.update", '{"remoteport": 0, "hostsync": -1}')
    assert (code, out) == (1, "")
    assert [line.partition(": ")[0] for line in err.splitlines()] == [
        f"[EINVAL] {prefix}remoteport",
        f"[EINVAL] {prefix}hostsync",
    ]
    assert box.lab.middleware.settings["identifier"] == "ups"


def test_failed_call_prints_a_traceback(box: Box) -> None:
    box.call("ups.update", SLAVE)
    box.lab.middleware.service.start(silent=False)
    box.lab.faults["service_start"] = "no power today"
    code, out, err = box.run("call", "ups.update", '{"hostsync": 5}')
    words = "[ESERVICESTARTFAILURE] The ups service failed to start\n"
    assert (code, out) == (1, "")
    assert err.startswith(words + TRACEBACK)
    assert err.endswith(f"middlewared.service_exception.CallError: {words}\n['ups']\n")
    code, out, err = box.run("call", "-q", "service.query", '[["service", "=", "no"]]', '{"get": true}')
    assert (code, out, err) == (1, "", "")


@pytest.mark.parametrize("release", RELEASES)
def test_unknown_methods_are_reported(make_box: Callable[..., Box], release: str) -> None:
    box = make_box(release)
    service = box.run("call", "nope.nope")
    method = box.run("call", "service.nope")
    assert (service[:2], method[:2]) == ((1, ""), (1, ""))
    if release in OLD:
        assert service[2].startswith(f"[ENOMETHOD] Service 'nope' not found\n{TRACEBACK}")
        assert method[2].startswith(f"[ENOMETHOD] Method 'nope' not found in 'service'\n{TRACEBACK}")
        assert "Method 'login_ex' not found in 'auth'" in box.run("call", "auth.login_ex", "{}")[2]
    else:
        assert service[2] == method[2] == "Method does not exist\n"
    has_control = release in ("25.10", "26")
    assert (box.run("call", "service.control", "STOP", "ups")[0] == 0) is has_control


def test_payload_can_come_from_stdin(box: Box) -> None:
    code, out, err = box.run("call", "ups.update", "-", stdin=json.dumps({**SLAVE, "monpwd": "Canary"}))
    if box.release == "26":
        assert (code, json.loads(out)["monpwd"]) == (0, "Canary")
    else:
        assert (code, out) == (1, "")
        whole = {"25.10": "Input should be a valid dictionary or instance of UPSUpdateArgs"}
        assert err == f"[EINVAL] ups_update: {whole.get(box.release, 'A dict was expected')}\n"
        assert box.lab.middleware.settings["mode"] == "MASTER"


def test_help_mentions_stdin(box: Box) -> None:
    code, out, _err = box.run("call", "--help")
    assert code == 0
    assert ("stdin" in out) is (box.release == "26")


def test_other_users_are_refused_with_exit_code_0_in_old_releases(make_box: Callable[..., Box]) -> None:
    box = make_box("24.10", admins=(os.getuid() + 1,))
    assert box.run("call", "ups.config") == (0, "Failed to login:  [ENOTAUTHENTICATED] Not authenticated\n", "")


@pytest.mark.parametrize("release", NEW)
def test_other_users_are_refused_in_new_releases(make_box: Callable[..., Box], release: str) -> None:
    box = make_box(release, admins=(os.getuid() + 1,))
    code, out, err = box.run("call", "ups.update", json.dumps(SLAVE))
    assert (code, out) == (1, "")
    assert err.startswith("[ENOTAUTHENTICATED] Not authenticated\n")
    assert box.lab.middleware.settings["mode"] == "MASTER"


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("gone", [True, False])
def test_midclt_fails_if_the_middleware_is_down(tmp_path: Path, release: str, gone: bool) -> None:
    """Either there is no socket, or nobody listens there any more."""
    path = tmp_path / "middlewared.sock"
    path.with_name("release").write_text(release)
    if not gone:
        import socket

        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    code, out, err = Box(None, release, path).run("call", "ups.config")
    assert (code, out) == (1, "")
    if release in OLD:
        assert err.startswith(TRACEBACK)
        assert err.splitlines()[-1].startswith("FileNotFoundError" if gone else "ConnectionRefusedError")
    else:
        assert err == "Failed to run middleware call. Daemon not running?\n"


def test_call_times_out(box: Box) -> None:
    box.lab.faults["slow"] = {"ups.update": 60}
    code, out, err = box.run("-t", "1", "call", "ups.update", json.dumps(SLAVE))
    assert (code, out, err) == (1, "", "Call timeout\n")
    assert box.lab.middleware.settings["mode"] == "SLAVE"  # done all the same


@pytest.mark.parametrize(("when", "mode"), [("before", "MASTER"), ("after", "SLAVE")])
def test_call_fails_if_the_connection_is_dropped(make_box: Callable[..., Box], when: str, mode: str) -> None:
    box = make_box("25.10")
    box.lab.faults["drop"] = {"ups.update": when}
    code, out, err = box.run("call", "ups.update", json.dumps(SLAVE))
    assert (code, out, err) == (1, "", "WebSocket connection closed with code=1006, reason=None\n")
    assert box.lab.middleware.settings["mode"] == mode


def test_call_fails_if_the_connection_is_dropped_at_once(make_box: Callable[..., Box]) -> None:
    box = make_box("26")
    box.lab.faults["drop"] = {"connect": "before"}
    assert box.run("call", "core.ping")[2] == "WebSocket connection closed with code=1006, reason=None\n"
    box.lab.faults.clear()
    assert box.call("core.ping") == "pong\n"


@pytest.mark.parametrize("garbage", ["<html>", "[]", '{"id": 99, "result": "pong"}', "two\nlines"])
def test_garbage_is_ignored_until_the_timeout(make_box: Callable[..., Box], garbage: str) -> None:
    box = make_box("22.12")
    box.lab.faults["garbage"] = {"core.ping": garbage}
    assert box.run("-t", "1", "call", "core.ping") == (1, "", "Call timeout\n")


def test_other_subcommands_are_refused(make_box: Callable[..., Box]) -> None:
    box = make_box("25.10")
    for name in ("ping", "subscribe", "sql"):
        words = f"midclt: unknown subcommand '{name}': this stand-in has only call\n"
        assert box.run(name, "-x") == (2, "", words)


def test_arguments_are_json_or_strings(make_box: Callable[..., Box]) -> None:
    """JSON if it is, else a string; the machine is one, so what one client sets another sees."""
    box = make_box("22.12")
    assert box.run("call", "service.update", "14", '{"enable": true}')[1] == "14\n"
    assert "Service True not found" in box.run("call", "service.update", "true", '{"enable": true}')[2]
    assert "Service {x not found" in box.run("call", "service.update", "{x", '{"enable": true}')[2]
    box.call("ups.update", SLAVE)
    assert box.lab.middleware.settings["remotehost"] == "192.0.2.10"


def test_command_line_of_each_call_is_logged(make_box: Callable[..., Box]) -> None:
    box = make_box("24.10")
    box.call("ups.update", {**SLAVE, "monpwd": "Canary"})
    box.run("call", "--help")
    box.run("nope")
    unseen = (
        "import json, runpy, sys; sys.argv = json.load(sys.stdin); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = json.dumps([str(PROGRAM), "call", "ups.update", '{"monpwd": "Secret"}'])
    code, _out, _err = box.run(stdin=words, program=("-c", unseen))
    assert (code, box.lab.middleware.settings["monpwd"]) == (0, "Secret")
    first, second, third, fourth = box.log()
    assert first[1:4] == [str(PROGRAM), "call", "ups.update"]
    assert json.loads(first[4])["monpwd"] == "Canary"
    assert (second[2:], third[2:]) == (["call", "--help"], ["nope"])
    assert fourth[1:] == ["-c", unseen]


def test_midclt_works_before_the_server_ever_ran(tmp_path: Path) -> None:
    box = Box(None, "", tmp_path / "nowhere" / "middlewared.sock")
    assert box.run("call", "ups.config") == (1, "", "Failed to run middleware call. Daemon not running?\n")
