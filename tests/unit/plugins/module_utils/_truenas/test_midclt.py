# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test midclt as a real process: a script that behaves like midclt of each release. One file, because all tests share the script."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._truenas import midclt as module
from ansible_collections.homelab.nut.plugins.module_utils._truenas.midclt import (
    Completed,
    Midclt,
    find_midclt,
    open_midclt,
    run_program,
)
from ansible_collections.homelab.nut.plugins.module_utils._truenas.middleware import (
    CallFailed,
    ConnectionFailed,
    ConnectionLost,
    JobFailed,
    LoginFailed,
    MethodMissing,
    NotAnAnswer,
)

SECRET = "Canary-1 \"'\\ $x\n\u00e4\u2028\U0001f50b"  # what a shell, JSON or a terminal might spoil

# Beside the script stand: script.json, METHOD -> answers in turn {out, err, code}; neighbour.py; log, a line a start.
FAKE = """\
import argparse, json, os, sys
import neighbour
here = os.path.dirname(os.path.abspath(__file__))
parser = argparse.ArgumentParser(prog="midclt")
parser.add_argument("-t", "--timeout", type=int)
subparsers = parser.add_subparsers(dest="name")
call = subparsers.add_parser("call", help="Call method")
call.add_argument("-j", "--job", type=bool, default=False)
call.add_argument("method", nargs="+", help="'-' reads one payload from stdin" if {dash} else None)

def read(word):
    if word == "-" and {dash}:
        word = sys.stdin.read()
    try:
        return json.loads(word)
    except ValueError:
        return word

def main():
    with open("/proc/self/cmdline") as file:
        entry = {{"cmdline": file.read(), "environ": dict(os.environ), "cwd": os.getcwd(), "argv0": sys.argv[0]}}
    args = parser.parse_args()
    entry.update(timeout=args.timeout, method=args.method[0], params=[read(word) for word in args.method[1:]])
    with open(here + "/log", "a") as file:
        file.write(json.dumps(entry) + "\\n")
    with open(here + "/script.json") as file:
        script = json.load(file)
    answer = script[args.method[0]].pop(0)
    with open(here + "/script.json", "w") as file:
        json.dump(script, file)
    sys.stdout.write(answer.get("out", ""))
    sys.stderr.write(answer.get("err", ""))
    return answer.get("code", 0)

if __name__ == "__main__":
    sys.exit(main())
"""

TRACE = """\
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/middlewared/main.py", line 198, in call_method
    result = await self.middleware.call_with_audit(message['method'], serviceobj, methodobj, params, self)
middlewared.service_exception.ValidationErrors: something longer

"""


class Fake:
    """A midclt in its own directory."""

    def __init__(self, directory: Path, *, dash: bool, first: str = f"#!{sys.executable}") -> None:
        directory.mkdir()
        self.program = directory / "midclt"
        self.program.write_text(f"{first}\n{FAKE.format(dash=dash)}")
        self.program.chmod(0o755)
        (directory / "neighbour.py").write_text("")
        self.directory = directory

    def answers(self, **script: Sequence[Any]) -> Midclt:
        """A midclt that gives these answers; dots of a method's name are written as two underscores."""
        named = {name.replace("__", "."): list(each) for name, each in script.items()}
        (self.directory / "script.json").write_text(json.dumps(named))
        return Midclt(str(self.program), "nas", 30, sleep=lambda _seconds: None)

    @property
    def log(self) -> list[dict[str, Any]]:
        path = self.directory / "log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path / "box", dash=False)


@pytest.fixture(params=[False, True], ids=["before 26", "from 26 on"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Fake:
    return Fake(tmp_path / "box", dash=request.param)


# --- results and arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "value"),
    [
        ("True\n", True),
        ("False\n", False),
        ("16\n", 16),
        ("-3\n", -3),
        ("null\n", None),
        ("TrueNAS-13.0-U6.7\n", "TrueNAS-13.0-U6.7"),
        ("26.04\n", "26.04"),
        ("two\nlines\n", "two\nlines"),
        ('{"a": [1, null, true], "t": {"$date": 1}}\n', {"a": [1, None, True], "t": {"$date": 1}}),
        ("[]\n", []),
        ("none of {JSON}\n", "none of {JSON}"),
    ],
)
def test_results_are_parsed(fake: Fake, out: str, value: Any) -> None:
    answer = fake.answers(core__ping=[{"out": out}]).call("core.ping")
    assert (answer, type(answer)) == (value, type(value))


@pytest.mark.parametrize("out", ["", "\n", "{'not': 'json'}\n", '{"cut": ', "[Canary"])
def test_garbage_is_not_an_answer(fake: Fake, out: str) -> None:
    with pytest.raises(NotAnAnswer, match=r"nas: the reply of midclt to ups\.config is not an answer") as caught:
        fake.answers(ups__config=[{"out": out}]).call("ups.config")
    assert "Canary" not in str(caught.value)


def test_arguments_are_json(either: Fake) -> None:
    """A text that reads like JSON, or like an option, arrives as that text."""
    params = ["ups", {"silent": False}, [["id", "=", 3]], None, "-", "3493", "--help", "\u00e4\n"]
    either.answers(service__query=[{"out": "[]\n"}]).call("service.query", *params)
    (entry,) = either.log
    assert entry["params"] == params
    assert entry["timeout"] == 30
    assert entry["cwd"] == "/"
    assert entry["environ"]["PATH"].endswith("/usr/bin:/usr/local/bin")


@pytest.mark.parametrize(
    ("method", "seconds"),
    [("ups.config", 3), ("ups.update", 123), ("service.start", 123), ("service.stop", 123), ("service.control", 3)],
)
def test_time_limit_of_a_call(method: str, seconds: int, fake: Fake) -> None:
    given: list[tuple[Sequence[str], str | None, float]] = []

    def run(argv: Sequence[str], stdin: str | None, limit: float) -> Completed:
        given.append((argv, stdin, limit))
        return Completed(0, "True\n", "")

    Midclt(str(fake.program), "nas", 2.5, run=run).call(method, {})
    argv, stdin, limit = given[-1]
    words = list(argv[argv.index("-t") :])
    assert words[:4] == ["-t", str(seconds), "call", method]
    assert stdin == ("{}" if method == "ups.update" else None)
    assert limit == (122.5 if seconds > 100 else 2.5) + 30


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_parameters_of_an_update_are_hidden(either: Fake) -> None:
    payload = {"monpwd": SECRET, "extrausers": f"[x]\n password = {SECRET}", "hostsync": 15, "shutdowncmd": None}
    answer = either.answers(ups__update=[{"out": '{"mode": "SLAVE"}\n'}]).call("ups.update", payload)
    assert answer == {"mode": "SLAVE"}
    (entry,) = either.log
    assert entry["params"] == [payload]
    assert "Canary" not in entry["cmdline"]
    assert "Canary" not in json.dumps(entry["environ"])
    assert "monpwd" not in entry["cmdline"]
    assert entry["argv0"] == str(either.program)
    assert sorted(path.name for path in either.directory.iterdir() if path.name != "__pycache__") == [
        "log",
        "midclt",
        "neighbour.py",
        "script.json",
    ]


def test_dash_is_used_if_midclt_supports_it(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "box", dash=True)
    fake.answers(ups__update=[{"out": "{}"}]).call("ups.update", {})
    assert fake.log[0]["cmdline"].split("\0")[1:-1] == [str(fake.program), "-t", "150", "call", "ups.update", "-"]


def test_hidden_call_reports_exit_code_and_error(either: Fake) -> None:
    err = f"[EINVAL] ups_update.monpwd: Spaces or number signs are not allowed.\n\n{TRACE}"
    with pytest.raises(CallFailed, match="TrueNAS refuses monpwd: Spaces or number"):
        either.answers(ups__update=[{"code": 1, "err": err}]).call("ups.update", {"monpwd": SECRET})


@pytest.mark.parametrize("help_text", [Completed(1, "stdin", ""), Completed(0, "call", "stdin"), None])
def test_unclear_help_of_midclt_means_no_dash(fake: Fake, help_text: Completed | None) -> None:
    """If support for `-` is unclear, the call uses the wrapper, which works with every midclt."""
    argvs: list[Sequence[str]] = []

    def run(argv: Sequence[str], _stdin: str | None, _seconds: float) -> Completed:
        argvs.append(argv)
        if "--help" not in argv:
            return Completed(0, "{}", "")
        if help_text is None:
            raise ConnectionLost("no answer within 60 s")
        return help_text

    Midclt(str(fake.program), "nas", run=run).call("ups.update", {"monpwd": SECRET})
    assert argvs[-1][1] == "-c"


def test_interpreter_from_env_line(tmp_path: Path) -> None:
    for number, first in enumerate(
        ("#!/usr/bin/env python3", "#! /usr/bin/env -S python3 -u", "#! /usr/bin/python3 -s")
    ):
        fake = Fake(tmp_path / f"box{number}", dash=False, first=first)
        assert fake.answers(ups__update=[{"out": "{}"}]).call("ups.update", {"monpwd": SECRET}) == {}
        assert fake.log[0]["params"] == [{"monpwd": SECRET}]
        assert "Canary" not in fake.log[0]["cmdline"]


def test_isolated_python_keeps_its_path(tmp_path: Path) -> None:
    """With -I Python does not search the script's directory, but the rest of the path must stay."""
    fake = Fake(tmp_path / "box", dash=False, first=f"#!{sys.executable} -I")
    fake.program.write_text(fake.program.read_text().replace("import neighbour\n", "import zoneinfo\n"))
    assert fake.answers(ups__update=[{"out": "{}"}]).call("ups.update", {}) == {}


@pytest.mark.parametrize(
    ("first", "python"),
    [
        ("#!/usr/bin/python3", ["/usr/bin/python3"]),
        ("#! /usr/local/bin/python3.9", ["/usr/local/bin/python3.9"]),
        ("#!/usr/bin/env python3", ["/usr/bin/env", "python3"]),
        ("#!/usr/bin/env -S python3 -s", ["/usr/bin/env", "-S", "python3", "-s"]),
        ("#!/bin/sh", None),
        ("#!/usr/bin/env bash", None),
        ("#!/usr/bin/env", None),
        ("#!", None),
        ("\x7fELF python3", None),
        ("", None),
    ],
)
def test_interpreter_is_read_from_the_first_line(tmp_path: Path, first: str, python: list[str] | None) -> None:
    program = tmp_path / "midclt"
    program.write_text(f"{first}\nmore\n")
    assert module._find_interpreter(program) == python


def shell(directory: Path, help_text: str) -> Path:
    program = directory / "midclt"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {directory}/log\n'
        f'case "$*" in *--help*) echo "{help_text}";; *) cat > {directory}/input; echo "{{}}";; esac\n'
    )
    program.chmod(0o755)
    return program


def test_binary_without_stdin_support_never_gets_a_secret_argument(tmp_path: Path) -> None:
    """The secret goes to standard input; a midclt without support for `-` sends a literal `-`, which TrueNAS refuses."""
    program = shell(tmp_path, "Call method")
    Midclt(str(program), "nas").call("ups.update", {"monpwd": "Canary"})
    assert "Canary" not in (tmp_path / "log").read_text()


def test_binary_with_stdin_support_gets_input(tmp_path: Path) -> None:
    program = shell(tmp_path, "read it from stdin")
    assert Midclt(str(program), "nas").call("ups.update", {"monpwd": "Canary"}) == {}
    assert (tmp_path / "input").read_text() == '{"monpwd": "Canary"}'
    assert "Canary" not in (tmp_path / "log").read_text()


def test_code_parses_with_python_3_9() -> None:
    """Up to CORE 13 and SCALE 22.12: Python 3.9."""
    for path in sorted(Path(module.__file__).parent.glob("*.py")):
        ast.parse(path.read_text(), feature_version=(3, 9))


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("err", "kind", "words"),
    [
        (
            f'[EINVAL] ups_update.identifier: Use alphanumeric characters, ".", "-" and "_"\n\n{TRACE}'
            '[[\'ups_update.identifier\',\n  \'Use alphanumeric characters, ".", "-" and "_"\',\n  22]]\n',
            CallFailed,
            'ups.update failed: TrueNAS refuses identifier: Use alphanumeric characters, ".", "-" and "_"',
        ),
        (
            "[EINVAL] data.remoteport: Input should be less than or equal to 65535\n"
            "[EINVAL] data.shutdown: Input should be 'LOWBATT' or 'BATT'\n\n",
            CallFailed,
            "TrueNAS refuses remoteport: Input should be less than or equal to 65535; shutdown: Input should be",
        ),
        ("[EINVAL] remotehost: This field is required\n", CallFailed, "TrueNAS refuses remotehost: This field"),
        (
            "[EINVAL] ups_update.driver: one\n  two\n[EINVAL] ups_update.port: three\n",
            CallFailed,
            "TrueNAS refuses driver: one two; port: three",
        ),
        ("[EINVAL] : Too many arguments\n", CallFailed, "TrueNAS refuses parameters: Too many arguments"),
        ("[EFAULT] upsmon[1]: bad line\nand one more\n" + TRACE, CallFailed, "[EFAULT] upsmon[1]: bad line and one"),
        (
            "/x.py:1: DeprecationWarning: old\n  import x\n[EFAULT] reason\n" + TRACE,
            CallFailed,
            "ups.update failed: [EFAULT] reason",
        ),
        ("'data'\n" + TRACE, CallFailed, "ups.update failed: 'data'"),
        (f"[EACCES] Not authorized\n{TRACE}", CallFailed, "this user may not call ups.update. midclt needs root"),
        ("Not authorized\n", CallFailed, "this user may not call ups.update. midclt needs root"),
        ("[ENOTAUTHENTICATED] Not authenticated\n", LoginFailed, "midclt could not log in. midclt needs root"),
        ("Not authenticated\n", LoginFailed, "midclt could not log in. midclt needs root"),
        ("Traceback (most recent call last):\n  x\nPermissionError: [Errno 13] x\n", LoginFailed, "as root"),
        (
            "Method does not exist\n",
            MethodMissing,
            "has no method ups.update. Upgrade: TrueNAS 22.12 or newer, or CORE 13",
        ),
        ("[ENOMETHOD] Method 'update' not found in 'ups'\n" + TRACE, MethodMissing, "has no method ups.update"),
        (
            "Call timeout\n",
            ConnectionLost,
            "no answer within 150 s while waiting for ups.update. TrueNAS may or may not",
        ),
        (
            "WebSocket connection closed with code=1006, reason=None\n",
            ConnectionLost,
            "the connection broke while waiting for ups.update",
        ),
        ("Failed to run middleware call. Daemon not running?\n", ConnectionFailed, "If TrueNAS is booting"),
        (
            "Traceback (most recent call last):\n  x\nFileNotFoundError: [Errno 2] No such file or directory\n",
            ConnectionFailed,
            "If TrueNAS is booting",
        ),
        (
            "Traceback (most recent call last):\n  x\nConnectionRefusedError: [Errno 111] Connection refused\n",
            ConnectionFailed,
            "If TrueNAS is booting",
        ),
        (
            "Traceback (most recent call last):\n  x\nModuleNotFoundError: No module named 'y'\n",
            NotAnAnswer,
            "midclt failed with exit code 1 while waiting for ups.update: ModuleNotFoundError: No module named 'y'.",
        ),
        ("", NotAnAnswer, "midclt failed with exit code 1 while waiting for ups.update. TrueNAS may or may not"),
    ],
)
def test_errors_are_explained(fake: Fake, err: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        fake.answers(ups__update=[{"err": err, "code": 1}]).call("ups.update", {})
    assert caught.type is kind
    assert str(caught.value).startswith("nas: ")
    assert words in str(caught.value)
    assert "role" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_failed_service_start_has_its_own_errname(fake: Fake) -> None:
    err = f"[ESERVICESTARTFAILURE] The ups service failed to start\n{TRACE}['ups']\n"
    with pytest.raises(CallFailed) as caught:
        fake.answers(ups__update=[{"err": err, "code": 1}]).call("ups.update", {})
    assert caught.value.errname == "ESERVICESTARTFAILURE"
    assert caught.value.reason == "[ESERVICESTARTFAILURE] The ups service failed to start"


def test_failed_login_is_read_from_standard_output(fake: Fake) -> None:
    with pytest.raises(LoginFailed, match=r"nas: midclt could not log in\. .*become: true"):
        fake.answers(ups__config=[{"out": "Failed to login:  [Errno 1] x\n"}]).call("ups.config")


def test_signal_is_reported() -> None:
    def run(_argv: Sequence[str], _stdin: str | None, _seconds: float) -> Completed:
        return Completed(-9, "", "")

    with pytest.raises(NotAnAnswer, match=r"midclt was killed by signal 9 while waiting for ups\.config"):
        Midclt(sys.executable, "nas", run=with_help(run)).call("ups.config")


def with_help(run: Callable[..., Completed]) -> Callable[..., Completed]:
    """Wrap a runner like a midclt that is not a script (sys.executable) and supports `-`."""

    def both(argv: Sequence[str], stdin: str | None, seconds: float) -> Completed:
        return Completed(0, "stdin", "") if "--help" in argv else run(argv, stdin, seconds)

    return both


def test_slow_call_times_out() -> None:
    def run(_argv: Sequence[str], _stdin: str | None, _seconds: float) -> Completed:
        raise ConnectionLost("no answer within 60 s")

    words = r"nas: no answer within 60 s while waiting for ups\.config\. TrueNAS may or may not have carried it out. Run again"
    with pytest.raises(ConnectionLost, match=words):
        Midclt(sys.executable, "nas", run=with_help(run)).call("ups.config")


def test_unstartable_midclt_is_explained(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "box", dash=False, first="#!/nowhere/python3")
    with pytest.raises(ConnectionFailed, match=r"can't run .*midclt: No such file or directory"):
        fake.answers().call("ups.config")


# --- jobs ------------------------------------------------------------------------------------------------------------


def jobs(*states: str, **members: Any) -> list[dict[str, str]]:
    shown = [{"id": 71, "state": state, "result": None, "error": None, **members} for state in states]
    return [{"out": json.dumps([each])} for each in shown]


def test_job_is_polled(fake: Fake) -> None:
    polls = jobs("WAITING", "RUNNING") + jobs("SUCCESS", result=True)
    box = fake.answers(service__control=[{"out": "71\n"}], core__get_jobs=polls)
    assert box.call_job("service.control", "START", "ups", {"silent": False}) is True
    assert [entry["method"] for entry in fake.log] == ["service.control", *["core.get_jobs"] * 3]
    assert fake.log[1]["params"] == [[["id", "=", 71]]]


def test_failed_job(fake: Fake) -> None:
    box = fake.answers(service__control=[{"out": "71\n"}], core__get_jobs=jobs("FAILED", error="[EFAULT] a\nb"))
    with pytest.raises(JobFailed, match=r"nas: service\.control START ups failed: \[EFAULT\] a b"):
        box.call_job("service.control", "START", "ups", {"silent": False})


def test_endless_job_times_out(fake: Fake) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds * 100

    fake.answers(service__control=[{"out": "71\n"}], core__get_jobs=jobs(*["RUNNING"] * 9))
    box = Midclt(str(fake.program), "nas", 30, clock=lambda: now[0], sleep=sleep)
    with pytest.raises(ConnectionLost, match=r"\(job 71\) did not end within 150 s"):
        box.call_job("service.control", "START", "ups", {"silent": False})


# --- the program -----------------------------------------------------------------------------------------------------


def test_midclt_is_found(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_midclt(str(fake.directory)) == str(fake.program)
    assert find_midclt(str(tmp_path)) is None
    monkeypatch.setenv("PATH", f"{tmp_path}:{fake.directory}")
    assert find_midclt() == str(fake.program)


def test_missing_midclt_is_explained(fake: Fake, tmp_path: Path) -> None:
    fake.answers(core__ping=[{"out": "pong\n"}])
    box = open_midclt(30, path=str(fake.directory))
    assert (box.call("core.ping"), box.host) == ("pong", os.uname().nodename)
    box.close()
    with pytest.raises(ConnectionFailed, match=r"there is no midclt here.*Run this on TrueNAS itself"):
        open_midclt(30, path=str(tmp_path))


@pytest.mark.parametrize("path", [None, "", "/nowhere", ":/nowhere:"])
def test_directories_of_scale_and_core_are_searched(path: str | None) -> None:
    found = module._search_path(path).split(os.pathsep)
    assert found[-2:] == ["/usr/bin", "/usr/local/bin"]
    assert "" not in found  # that would be the directory where we happen to be


def test_timeout_leaves_no_process_running(tmp_path: Path) -> None:
    """Children are killed, too: they would hold the pipes open."""
    program = tmp_path / "hangs"
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/child\necho $$ > {tmp_path}/parent\nwait\n")
    program.chmod(0o755)
    with pytest.raises(ConnectionLost, match=r"^no answer within 1 s$"):
        run_program([str(program)], None, 1)
    for name in ("child", "parent"):
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", (tmp_path / name).read_text()], check=False, capture_output=True, text=True
        ).stdout
        assert state.strip()[:1] in ("", "Z")


def test_output_of_a_program_is_returned() -> None:
    script = (
        "import sys; sys.stdout.buffer.write(b'\\xff' + sys.stdin.buffer.read()); sys.stderr.write('e'); sys.exit(3)"
    )
    assert run_program([sys.executable, "-c", script], "in", 60) == Completed(3, "\ufffdin", "e")


def test_missing_input_is_empty() -> None:
    assert run_program([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"], None, 60).out == "''\n"


def test_unread_input_is_dropped() -> None:
    assert run_program(["/bin/true"], "x" * 1_000_000, 60).code == 0
