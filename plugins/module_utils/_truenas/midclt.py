# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""midclt, TrueNAS's own program, on TrueNAS itself: the way in for CORE 13 and SCALE before 25.04, and one for newer ones.

Root needs no login there. Each call is a process; it prints the result, or an error and a traceback. Anybody on the
machine can read the arguments of a process, so what may hold a secret goes through its standard input.
(truenas_api_client/__init__.py of truenas/api_client; before 24.10 S/client/client.py of truenas/middleware.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
import re
import select
import selectors
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from .._nut.base import jsontext
from .middleware import (
    ACTION_SECONDS,
    AS_ROOT,
    METHOD_NOT_FOUND,
    SLOW_METHODS,
    ConnectionFailed,
    ConnectionLost,
    LoginFailed,
    NotAnAnswer,
    call_error,
    lost_answer,
    run_job,
)
from .stream import Deadline, TooMuch

PROGRAM = "midclt"
# Where it is: SCALE, CORE. The PATH of an ssh session may lack either.
DIRECTORIES = ("/usr/bin", "/usr/local/bin")
# How long a process may take besides the call: a small NAS loads Python for seconds.
START_SECONDS = 30.0
# How much it may print: what it says on its standard output, and on its standard error.
OUTPUT_LIMIT = 4 * 1024 * 1024
# Their parameters may hold a secret.
_SECRET_METHODS = frozenset({"ups.update"})

# Runs a Python program that takes `-` for a text, so that it takes it for the JSON from standard input: not even its own
# sys.argv holds a secret then. All clients read their arguments with json.loads (ejson.py is a shell around it).
_UNSEEN = """\
import sys
program = sys.argv[1]
if not sys.path[0]:
    sys.path[0] = program.rpartition("/")[0]
import io, json, runpy
payload, loads = sys.stdin.read(), json.loads
sys.stdin = io.StringIO(payload)
json.loads = lambda text, *args, **options: loads(payload if text == "-" else text, *args, **options)
sys.argv = sys.argv[1:]
runpy.run_path(program, run_name="__main__")
"""


@dataclasses.dataclass(frozen=True)
class Completed:
    """A program that has ended: its exit code (negative: the signal that ended it) and what it wrote."""

    code: int
    out: str
    err: str


class RunProgram(Protocol):
    """Runs a program."""

    def __call__(self, argv: Sequence[str], stdin: str | None, seconds: float) -> Completed:
        """Run it with this input. After so many seconds end it, and raise ConnectionLost with the reason alone.

        Raises OSError if it can't be started.
        """


def run_program(argv: Sequence[str], stdin: str | None, seconds: float) -> Completed:
    """See Run."""
    # AnsibleModule.run_command knows no time limit; and the input is nobody else's business.
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PATH": _search_path(os.environ.get("PATH"))},  # for #!/usr/bin/env python3
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            out, err = _exchange_data(process, (stdin or "").encode(), Deadline(seconds))
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # also what it may have started
            process.kill()
            if isinstance(error, (socket.timeout, subprocess.TimeoutExpired)):
                raise ConnectionLost(f"no answer in {seconds:.0f} s") from None
            if isinstance(error, TooMuch):
                raise ConnectionLost(f"{argv[0]} prints more than {OUTPUT_LIMIT // 2**20} MiB") from None
            raise
    return Completed(process.returncode, out, err)


def _exchange_data(process: subprocess.Popen[bytes], given: bytes, deadline: Deadline) -> tuple[str, str]:
    """Give a program its input, and return what it prints until its end. Raises socket.timeout, TimeoutExpired and TooMuch.

    subprocess.communicate() keeps whatever comes.
    """
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise ValueError("a program without pipes can't be spoken to")
    said = {stdout: bytearray(), stderr: bytearray()}
    with selectors.DefaultSelector() as waiting:
        waiting.register(stdin, selectors.EVENT_WRITE)
        for stream in said:
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _events in waiting.select(deadline.seconds_left()):
                if key.fileobj is stdin:
                    given = _write_some(key.fd, given)
                    more = bool(given)
                else:
                    more = _read_some(key.fd, said[key.fileobj])  # type: ignore[index]
                if not more:
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
    process.wait(deadline.seconds_left())
    return said[stdout].decode("utf-8", "replace"), said[stderr].decode("utf-8", "replace")


def _write_some(pipe: int, given: bytes) -> bytes:
    """Write some of it to a pipe that has room, and return the rest. What nobody reads is left out."""
    try:
        return given[os.write(pipe, given[: select.PIPE_BUF]) :]
    except BrokenPipeError:
        return b""


def _read_some(pipe: int, said: bytearray) -> bool:
    """Read some of what a program prints; whether there may be more. Raises TooMuch."""
    data = os.read(pipe, 65536)
    said += data
    if len(said) > OUTPUT_LIMIT:
        raise TooMuch
    return bool(data)


def _search_path(path: str | None) -> str:
    return os.pathsep.join([*filter(None, (path or "").split(os.pathsep)), *DIRECTORIES])


def find_midclt(path: str | None = None) -> str | None:
    """Where midclt is on this machine, if it is. `path`: where to look, as in PATH; by default PATH and DIRECTORIES."""
    return shutil.which(PROGRAM, path=_search_path(os.environ.get("PATH")) if path is None else path)


def open_midclt(timeout: float, *, path: str | None = None, run: RunProgram = run_program) -> Midclt:
    """Find midclt. `timeout` in seconds is for each call. Raises ConnectionFailed; nothing is asked yet."""
    host = platform.node()
    program = find_midclt(path)
    if program is None:
        raise ConnectionFailed(
            f"{host}: there is no midclt here, so this is no TrueNAS. Run this on TrueNAS itself (over ssh, as root), "
            "or give url and an API key."
        )
    return Midclt(program, host, timeout, run=run)


class Midclt:
    """The middleware behind midclt: a process for each call.

    Raises ConnectionFailed if no way is known to keep a secret out of the arguments of this midclt.
    """

    def __init__(
        self,
        program: str,
        host: str,
        timeout: float = 30,
        *,
        run: RunProgram = run_program,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        self._program = program
        self._timeout = timeout
        self._run = run
        self._clock = clock
        self._sleep = sleep
        self._takes_input: bool | None = None
        self._interpreter = _find_interpreter(Path(program))

    def call(self, method: str, *params: Any) -> Any:
        """See Middleware.call. Waits `timeout` seconds, longer where TrueNAS itself works for longer."""
        seconds = self._timeout + (ACTION_SECONDS if method in SLOW_METHODS else 0)
        words = ["-t", str(math.ceil(seconds)), "call", method]
        given = [json.dumps(param) for param in params]
        argv, stdin = [self._program, *words, *given], None
        if method in _SECRET_METHODS:
            argv, stdin = self._hide_parameters(words, given)
        try:
            done = self._run(argv, stdin, seconds + START_SECONDS)
        except ConnectionLost as error:
            raise lost_answer(self.host, method, str(error)) from error
        except OSError as error:
            raise ConnectionFailed(self._cannot_run(error)) from error
        if done.code != 0:
            self._raise_failure(method, done, seconds)
        return self._parse_result(method, done.out)

    def call_job(self, method: str, *params: Any) -> Any:
        """See Middleware.call_job. midclt's own option -j draws progress bars, and is another one in each release."""
        return run_job(self, method, params, self._timeout, clock=self._clock, sleep=self._sleep)

    def close(self) -> None:
        """See Middleware.close. There is nothing to close."""

    # How parameters travel

    def _hide_parameters(self, words: list[str], given: list[str]) -> tuple[list[str], str]:
        """Arguments and input for a call whose parameters nobody may see."""
        (payload,) = given
        # To an old midclt that is no Python script `-` is a text, which TrueNAS refuses, having done nothing.
        if self._interpreter is None or self._knows_dash():
            return [self._program, *words, "-"], payload
        return [*self._interpreter, "-c", _UNSEEN, self._program, *words, "-"], payload

    def _knows_dash(self) -> bool:
        """Whether `-` stands for a parameter from standard input: from 26 on. Before, it is a text like others."""
        if self._takes_input is None:
            try:
                done = self._run([self._program, "call", "--help"], None, self._timeout + START_SECONDS)
            except (ConnectionLost, OSError):
                return False  # the call itself will tell what is wrong
            self._takes_input = done.code == 0 and re.search(r"\bstdin\b", done.out) is not None
        return self._takes_input

    def _cannot_run(self, error: OSError) -> str:
        return f"{self.host}: {self._program} cannot be run ({error.strerror or error}). Is this a whole TrueNAS?"

    # What comes back

    def _parse_result(self, method: str, out: str) -> Any:
        """What midclt printed: JSON of a list, an object or null, else the bare text of a str, an int or a bool."""
        text = out[:-1] if out.endswith("\n") else out
        if text.startswith("Failed to login:"):  # on standard output, with exit code 0, in all releases
            raise LoginFailed(f"{self.host}: midclt was not let in. {AS_ROOT}")
        if text in ("True", "False"):
            return text == "True"
        if re.fullmatch(r"-?[0-9]{1,19}", text):
            return int(text)
        if text != "null" and not text.startswith(("{", "[")) and text:
            return text
        try:
            return jsontext.parse_json(text)
        except ValueError:
            raise NotAnAnswer(
                f"{self.host}: what midclt printed for {method} is not an answer of TrueNAS, but {len(out)} characters "
                "that are no JSON. Whether it was carried out is not known. Is this release supported?"
            ) from None

    def _raise_failure(self, method: str, done: Completed, seconds: float) -> NoReturn:
        """Raise what midclt's exit means."""
        if done.code == 2 and re.search(r"^usage: ", done.err, re.MULTILINE):
            raise ConnectionFailed(
                f"{self.host}: {self._program} does not understand how it was called. Is this release supported?"
            )
        lines = _error_lines(done.err)
        reason = " ".join(" ".join(lines).split())
        if re.search(r"Daemon not running\?", reason):
            raise ConnectionFailed(self._no_daemon())
        if reason == "Call timeout":
            raise lost_answer(self.host, method, f"no answer in {seconds:.0f} s")
        if re.match(r"WebSocket connection closed|Connection (to the server )?closed", reason):
            raise lost_answer(self.host, method, "the connection broke")
        if not reason:
            self._raise_crash(method, done)
        found = re.match(r"\[(E[A-Z]+)\]", reason)
        errname = found[1] if found else _PLAIN_TEXTS.get(reason, "")
        if errname == "ENOTAUTHENTICATED":
            raise LoginFailed(f"{self.host}: midclt was not let in. {AS_ROOT}")
        error = {
            "code": METHOD_NOT_FOUND if reason in ("Method does not exist", "Method not found") else None,
            "data": {"errname": errname, "reason": reason, "extra": _refused_values(lines)},
        }
        raise call_error(self.host, method, error, local=True)

    def _no_daemon(self) -> str:
        return (
            f"{self.host}: midclt finds no middleware. Is TrueNAS starting? Try again in a minute; if that does not "
            "help, look at the service middlewared."
        )

    def _raise_crash(self, method: str, done: Completed) -> NoReturn:
        """midclt itself ended with a traceback, a signal or in silence."""
        last = _last_of_traceback(done.err)
        name = last.partition(":")[0].rpartition(".")[2]
        if name in ("FileNotFoundError", "ConnectionRefusedError"):  # its socket; before 25.04 it did not catch these
            raise ConnectionFailed(self._no_daemon())
        if name == "PermissionError":
            raise LoginFailed(f"{self.host}: midclt was not let in. {AS_ROOT}")
        how = f"was ended by signal {-done.code}" if done.code < 0 else f"ended with exit code {done.code}"
        raise NotAnAnswer(
            f"{self.host}: midclt {how} while waiting for {method}{f': {last}' if last else ''}. "
            "Whether it was carried out is not known; run again."
        )


# What releases before 25.04 say without a name in brackets.
_PLAIN_TEXTS = {"Not authenticated": "ENOTAUTHENTICATED", "Not authorized": "EACCES"}


def _find_interpreter(program: Path) -> list[str] | None:
    """The Python that runs this script, with its options, as its first line has it; None if it is no Python script."""
    try:
        with program.open("rb") as file:
            first = file.readline(512).decode("ascii", "replace")
    except OSError:
        return None
    words = first[2:].split() if first.startswith("#!") else []
    if len(words) > 1 and words[0].endswith("/env"):
        python = words[2] if words[1] == "-S" and len(words) > 2 else words[1]
    else:
        python = words[0] if words else ""
    return words if re.fullmatch(r"(.*/)?python[0-9.]*", python) else None


def _error_lines(err: str) -> list[str]:
    """What the middleware said, of what midclt wrote: the lines before its traceback and its extra."""
    found = []
    for line in err.splitlines():
        if re.match(r"Traceback \(most recent|\S*RemoteTraceback|\[[\[('\"]|\{['\"]", line):
            break
        if line.strip():
            found.append(line)
    # A warning of Python's, for example, may stand before it.
    start = next((number for number, line in enumerate(found) if re.match(r"\[E[A-Z]+\] ", line)), 0)
    return found[start:]


def _refused_values(lines: Sequence[str]) -> list[list[str]]:
    """The refused values, [attribute, text] each, if that is what these lines tell: `[EINVAL] ups_update.port: text`."""
    refused: list[list[str]] = []
    for line in lines:
        found = re.fullmatch(r"\[EINVAL\] ([A-Za-z0-9_.-]*): ?(.*)", line)
        if found:
            refused.append([found[1], found[2]])
        elif refused and not line.startswith("["):
            refused[-1][1] += f" {line.strip()}"
        else:
            return []
    return refused


def _last_of_traceback(err: str) -> str:
    """The line of an uncaught exception, 'Name: text', or ''."""
    lines = [line for line in err.splitlines() if re.match(r"[A-Za-z_][\w.]*(:|$)", line)]
    return lines[-1].strip() if lines and "Traceback" in err else ""
