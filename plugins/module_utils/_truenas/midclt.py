# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""midclt, TrueNAS's own command, run on TrueNAS itself: the only way for CORE 13 and SCALE before 25.04, an option for newer ones.

Root needs no login there. Each call is a process that prints the result, or an error and a traceback. Every user of the
machine can read the arguments of a process, so parameters that may contain a secret go through its standard input.
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
# Where midclt is on SCALE and on CORE. The PATH of an ssh session may lack both.
DIRECTORIES = ("/usr/bin", "/usr/local/bin")
# How long a process may take on top of the call: a small NAS needs seconds to load Python.
START_SECONDS = 30.0
# Bytes that it may print, to standard output and to standard error each.
OUTPUT_LIMIT = 4 * 1024 * 1024
# Methods whose parameters may contain a secret.
_SECRET_METHODS = frozenset({"ups.update"})

# For a midclt that does not know `-`: runs it so that the argument `-` means the JSON from standard input. Then not even
# its own sys.argv contains a secret. All versions parse their arguments with json.loads (ejson.py wraps it).
_READ_STDIN = """\
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
    """A program that has ended."""

    code: int  # exit code; negative: the signal that ended it
    out: str
    err: str


class RunProgram(Protocol):
    """A function that runs a program."""

    def __call__(self, argv: Sequence[str], stdin: str | None, seconds: float) -> Completed:
        """Run a program with this input. Raises OSError if it can't start, and ConnectionLost, with a bare reason, after `seconds`."""


def run_program(argv: Sequence[str], stdin: str | None, seconds: float) -> Completed:
    """See RunProgram."""
    # AnsibleModule.run_command has no time limit, and may log its input.
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
                os.killpg(process.pid, signal.SIGKILL)  # with its children
            process.kill()
            if isinstance(error, (socket.timeout, subprocess.TimeoutExpired)):
                raise ConnectionLost(f"no answer within {seconds:.0f} s") from None
            if isinstance(error, TooMuch):
                raise ConnectionLost(f"{argv[0]} printed more than {OUTPUT_LIMIT // 2**20} MiB") from None
            raise
    return Completed(process.returncode, out, err)


def _exchange_data(process: subprocess.Popen[bytes], given: bytes, deadline: Deadline) -> tuple[str, str]:
    """Send a program its input, and return its standard output and error. Raises socket.timeout, TimeoutExpired and TooMuch.

    Unlike subprocess.communicate(), this limits how much is kept.
    """
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise ValueError("the process needs pipes for stdin, stdout and stderr")
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
    """Write some data to a pipe that has room, and return the rest; nothing if the reader has closed the pipe."""
    try:
        return given[os.write(pipe, given[: select.PIPE_BUF]) :]
    except BrokenPipeError:
        return b""


def _read_some(pipe: int, said: bytearray) -> bool:
    """Append some of a program's output to `said`. Return whether there may be more. Raises TooMuch."""
    data = os.read(pipe, 65536)
    said += data
    if len(said) > OUTPUT_LIMIT:
        raise TooMuch
    return bool(data)


def _search_path(path: str | None) -> str:
    return os.pathsep.join([*filter(None, (path or "").split(os.pathsep)), *DIRECTORIES])


def find_midclt(path: str | None = None) -> str | None:
    """Return the path of midclt on this machine, or None. `path`: a search path like PATH; by default PATH and DIRECTORIES."""
    return shutil.which(PROGRAM, path=_search_path(os.environ.get("PATH")) if path is None else path)


def open_midclt(timeout: float, *, path: str | None = None, run: RunProgram = run_program) -> Midclt:
    """Return a Midclt; calls nothing yet. `timeout` is in seconds, for each call. Raises ConnectionFailed."""
    host = platform.node()
    program = find_midclt(path)
    if program is None:
        raise ConnectionFailed(
            f"{host}: there is no midclt here, so this is not TrueNAS. Run this on TrueNAS itself (over ssh, as root), "
            "or set url and api_key."
        )
    return Midclt(program, host, timeout, run=run)


class Midclt:
    """A Middleware that runs midclt, one process for each call."""

    certificate: bytes | None = None  # there is no TLS

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
        """See Middleware.call. Waits `timeout` seconds, and longer for methods that take TrueNAS longer."""
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
            raise ConnectionFailed(
                f"{self.host}: can't run {self._program}: {error.strerror or error}. Check that this TrueNAS is complete."
            ) from error
        if done.code != 0:
            self._raise_failure(method, done, seconds)
        return self._parse_result(method, done.out)

    def call_job(self, method: str, *params: Any) -> Any:
        """See Middleware.call_job. midclt's own option -j draws progress bars, and differs from release to release."""
        return run_job(self, method, params, self._timeout, clock=self._clock, sleep=self._sleep)

    def close(self) -> None:
        """See Middleware.close. There is nothing to close."""

    # Parameters

    def _hide_parameters(self, words: list[str], given: list[str]) -> tuple[list[str], str]:
        """Return the arguments and the input for a call whose parameters contain a secret."""
        (payload,) = given
        # An old midclt that is not a Python script takes `-` literally; TrueNAS then refuses the call and changes nothing.
        if self._interpreter is None or self._reads_stdin():
            return [self._program, *words, "-"], payload
        return [*self._interpreter, "-c", _READ_STDIN, self._program, *words, "-"], payload

    def _reads_stdin(self) -> bool:
        """Return whether `-` means a parameter from standard input, as it does from 26 on. Before, it is an ordinary text."""
        if self._takes_input is None:
            try:
                done = self._run([self._program, "call", "--help"], None, self._timeout + START_SECONDS)
            except (ConnectionLost, OSError):
                return False  # the call itself fails in the same way, and reports it
            self._takes_input = done.code == 0 and re.search(r"\bstdin\b", done.out) is not None
        return self._takes_input

    # Results

    def _parse_result(self, method: str, out: str) -> Any:
        """Return the result that midclt printed: JSON for a list, an object or null, else bare text for a str, an int or a bool."""
        text = out[:-1] if out.endswith("\n") else out
        if text.startswith("Failed to login:"):  # on standard output, with exit code 0, in all releases
            raise LoginFailed(f"{self.host}: midclt could not log in. {AS_ROOT}")
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
                f"{self.host}: the reply of midclt to {method} is not an answer of TrueNAS, but {len(out)} characters "
                "that are not JSON. TrueNAS may or may not have carried it out. Check that this TrueNAS release is supported."
            ) from None

    def _raise_failure(self, method: str, done: Completed, seconds: float) -> NoReturn:
        """Raise the exception for a midclt that ended with an error."""
        if done.code == 2 and re.search(r"^usage: ", done.err, re.MULTILINE):
            raise ConnectionFailed(
                f"{self.host}: {self._program} rejected its arguments. Check that this TrueNAS release is supported."
            )
        lines = _error_lines(done.err)
        reason = " ".join(" ".join(lines).split())
        if re.search(r"Daemon not running\?", reason):
            raise ConnectionFailed(self._describe_missing_daemon())
        if reason == "Call timeout":
            raise lost_answer(self.host, method, f"no answer within {seconds:.0f} s")
        if re.match(r"WebSocket connection closed|Connection (to the server )?closed", reason):
            raise lost_answer(self.host, method, "the connection broke")
        if not reason:
            self._raise_crash(method, done)
        found = re.match(r"\[(E[A-Z]+)\]", reason)
        errname = found[1] if found else _PLAIN_TEXTS.get(reason, "")
        if errname == "ENOTAUTHENTICATED":
            raise LoginFailed(f"{self.host}: midclt could not log in. {AS_ROOT}")
        error = {
            "code": METHOD_NOT_FOUND if reason in ("Method does not exist", "Method not found") else None,
            "data": {"errname": errname, "reason": "\n".join(lines), "extra": _refused_values(lines)},
        }
        raise call_error(self.host, method, error, local=True)

    def _describe_missing_daemon(self) -> str:
        return (
            f"{self.host}: midclt can't reach TrueNAS's middleware. If TrueNAS is booting, run again in a minute; "
            "if not, check the service middlewared."
        )

    def _raise_crash(self, method: str, done: Completed) -> NoReturn:
        """Raise the exception for a midclt that ended with a traceback, by a signal or without output."""
        last = _last_of_traceback(done.err)
        name = last.partition(":")[0].rpartition(".")[2]
        if name in ("FileNotFoundError", "ConnectionRefusedError"):  # its socket; before 25.04 it did not catch these
            raise ConnectionFailed(self._describe_missing_daemon())
        if name == "PermissionError":
            raise LoginFailed(f"{self.host}: midclt could not log in. {AS_ROOT}")
        how = f"was killed by signal {-done.code}" if done.code < 0 else f"failed with exit code {done.code}"
        raise NotAnAnswer(
            f"{self.host}: midclt {how} while waiting for {method}{f': {last}' if last else ''}. "
            "TrueNAS may or may not have carried it out. Run again."
        )


# Errors that releases before 25.04 print without a name in brackets.
_PLAIN_TEXTS = {"Not authenticated": "ENOTAUTHENTICATED", "Not authorized": "EACCES"}


def _find_interpreter(program: Path) -> list[str] | None:
    """Return the Python in the first line of a script, with its options; None if the program is not a Python script."""
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
    """Return the middleware's message in midclt's standard error: the lines before the traceback and `extra`."""
    found = []
    for line in err.splitlines():
        if re.match(r"Traceback \(most recent|\S*RemoteTraceback|\[[\[('\"]|\{['\"]", line):
            break
        if line.strip():
            found.append(line)
    # there may be other lines before the message, such as a Python warning
    start = next((number for number, line in enumerate(found) if re.match(r"\[E[A-Z]+\] ", line)), 0)
    return found[start:]


def _refused_values(lines: Sequence[str]) -> list[list[str]]:
    """Return the refused values, [attribute, text] each, if all lines have the form `[EINVAL] ups_update.port: text`; else []."""
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
    """Return the line of an uncaught exception, 'Name: text', or ''."""
    lines = [line for line in err.splitlines() if re.match(r"[A-Za-z_][\w.]*(:|$)", line)]
    return lines[-1].strip() if lines and "Traceback" in err else ""
