# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's midclt: `midclt [-t SECONDS] call METHOD ARG...`, with the output and exit codes of the real ones.

It calls the running server over its socket, so it shows the same state as the API. It behaves like the release's midclt, good and
bad: bare text for strings, True for true, exit code 0 for a failed login. It uses the standard library only and supports no
subcommand but `call`. Sources: truenas/api_client, and src/middlewared/middlewared/client
of truenas/middleware for the releases before 25.04.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import pprint
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from .releases import RELEASES, Release

SOCKET = Path("/var/run/middleware/middlewared.sock")
_LOG = Path("/run/truenas-lab/midclt.log")
_SOCKET_VARIABLE = "TRUENAS_LAB_SOCKET"
_TIMEOUT = 60
_POLL_SECONDS = 0.1
_DAEMON_DOWN = "Failed to run middleware call. Daemon not running?"
_INVALID_PARAMS, _CALL_ERROR, _NO_SUCH_METHOD = -32602, -32001, -32601


class MidcltError(Exception):
    """The real client's ClientException: a text, and possibly a traceback and details."""

    def __init__(self, error: str, *, trace: str = "", extra: Any = None) -> None:
        super().__init__(error)
        self.trace = trace
        self.extra = extra


class NotLoggedIn(Exception):
    """The caller is not root."""


# --- where things are ------------------------------------------------------------------------------------------------


def socket_path(environment: Mapping[str, str]) -> Path:
    """Return the path of the server's socket. Tests set their own."""
    return Path(environment.get(_SOCKET_VARIABLE, SOCKET))


def release_file(path: Path) -> Path:
    """Return the file in which the server of this socket has saved its release."""
    return path.with_name("release")


def log_file(path: Path) -> Path:
    """Return the file in which each midclt of this socket logs its arguments."""
    return _LOG if path == SOCKET else path.with_name("midclt.log")


def _read_release(path: Path) -> Release:
    try:
        return RELEASES[release_file(path).read_text()]
    except FileNotFoundError:
        return RELEASES["25.10"]  # the server's default, if it has never run


def _log_call(path: Path) -> None:
    """Log this process's arguments as every user can see them, so that tests can look for secrets."""
    shown = Path("/proc/self/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    with contextlib.suppress(OSError), log_file(path).open("a") as file:  # logging must never fail the call
        file.write(json.dumps({"argv": shown}) + "\n")


# --- the command line ------------------------------------------------------------------------------------------------


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="midclt", usage="midclt [-h] [-t SECONDS] call ...")
    parser.add_argument("-t", "--timeout", type=int)
    parser.add_argument("name", nargs="?")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser


def _make_call_parser(release: Release) -> argparse.ArgumentParser:
    stdin = " Use '-' as the final argument to read one JSON payload from stdin." if release.stdin_payload else ""
    parser = argparse.ArgumentParser(prog="midclt call", description=f"Call a method.{stdin}")
    parser.add_argument("-q", "--quiet", action="store_true")
    if release.job_flag_takes_value:
        parser.add_argument("-j", "--job", type=bool, default=False)
    else:
        parser.add_argument("-j", "--job", action="store_true")
    parser.add_argument("-jp", "--job-print", choices=("progressbar", "description"), default="progressbar")
    parser.add_argument("method", nargs="+")
    return parser


def _parse_params(release: Release, words: Sequence[str], stdin: TextIO) -> Iterator[Any]:
    """Yield each word as JSON, or as a string if it is no JSON."""
    piped: str | None = None
    for word in words:
        text = word
        if word == "-" and release.stdin_payload:
            text = piped = stdin.read() if piped is None else piped
        try:
            yield json.loads(text)
        except ValueError:
            yield text


def main(
    argv: Sequence[str], stdin: TextIO, stdout: TextIO, stderr: TextIO, environment: Mapping[str, str] | None = None
) -> int:
    """Run the program and return its exit code. argparse may exit before. Old releases let an OSError through."""
    path = socket_path(os.environ if environment is None else environment)
    _log_call(path)
    release = _read_release(path)
    arguments = _make_parser().parse_args(argv)
    if arguments.name != "call":
        print(f"midclt: unknown subcommand {arguments.name!r}: this stand-in has only call", file=stderr)
        return 2
    call = _make_call_parser(release).parse_args(arguments.rest)
    try:
        with MidcltClient(path, release, arguments.timeout or _TIMEOUT) as client:
            params = list(_parse_params(release, call.method[1:], stdin))
            result = (
                client.call_job(call.method[0], params, stderr)
                if call.job
                else client.call_method(call.method[0], params)
            )
    except (FileNotFoundError, ConnectionRefusedError):
        if not release.says_daemon_down:
            raise
        print(_DAEMON_DOWN, file=stderr)
        return 1
    except NotLoggedIn as error:
        print("Failed to login: ", error, file=stdout)
        return 0
    except MidcltError as failure:
        if not call.quiet:
            _print_error(failure, stderr)
        return 1
    print(result if isinstance(result, (int, str)) else json.dumps(result), file=stdout)
    return 0


def _print_error(failure: MidcltError, stderr: TextIO) -> None:
    print(failure, file=stderr)
    if failure.trace:
        print(failure.trace, file=stderr)
    if failure.extra:
        pprint.pprint(failure.extra, stream=stderr)


# --- the socket ------------------------------------------------------------------------------------------------------


class MidcltClient:
    """A connection to the server. `timeout` is for each call, in seconds."""

    def __init__(self, path: Path, release: Release, timeout: float) -> None:
        self._release = release
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> MidcltClient:
        return self

    def __exit__(self, *_unused: object) -> None:
        self._socket.close()

    def call_method(self, method: str, params: list[Any]) -> Any:
        """Call a method. Raise MidcltError or NotLoggedIn if it fails."""
        deadline = time.monotonic() + self._timeout
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            answer = self._read_answer(request["id"], deadline)
        except TimeoutError:
            raise MidcltError("Call timeout") from None
        except (BrokenPipeError, ConnectionResetError):
            raise MidcltError("WebSocket connection closed with code=1006, reason=None") from None
        if "error" in answer:
            raise self._make_error(method, answer["error"])
        return answer.get("result")

    def _read_answer(self, number: Any, deadline: float) -> Mapping[str, Any]:
        """Return the answer with this id. Like the real clients, ignore anything else until the timeout."""
        while True:
            with contextlib.suppress(ValueError):
                answer = json.loads(self._read_line(deadline))
                if isinstance(answer, dict) and answer.get("id") == number:
                    return answer

    def _read_line(self, deadline: float) -> bytes:
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionResetError
            self._received += chunk
        line, _unused, self._received = self._received.partition(b"\n")
        return line

    def _make_error(self, method: str, error: Mapping[str, Any]) -> Exception:
        data = error.get("data", {})
        if error["code"] == _NO_SUCH_METHOD:
            return self._unknown_method(method, str(error["message"]))
        if error["code"] == _INVALID_PARAMS:
            # The client turns them into lines without the traceback and the details.
            lines = [f"[EINVAL] {attribute or 'ALL'}: {text}" for attribute, text, _unused in data["extra"]]
            return MidcltError("\n".join(lines))
        if error["code"] != _CALL_ERROR:
            return MidcltError(str(error["message"]))
        if data["errname"] == "ENOTAUTHENTICATED" and self._release.login_failure_exits_0:
            return NotLoggedIn(data["reason"])
        return MidcltError(data["reason"], trace=_fake_traceback(data["reason"]), extra=data["extra"])

    def _unknown_method(self, method: str, message: str) -> MidcltError:
        if self._release.unknown_method is None:
            return MidcltError(message)
        service, _unused, name = method.rpartition(".")
        no_method, no_service = self._release.unknown_method
        form = no_method if service in ("auth", "core", "service", "system", "ups") else no_service
        text = form.format(method=name, service=service)
        return MidcltError(text, trace=_fake_traceback(text))

    def call_job(self, method: str, params: list[Any], stderr: TextIO) -> Any:
        """Call a method that is a job, and show its progress until it ends."""
        number = self.call_method(method, params)
        while True:
            (job,) = self.call_method("core.get_jobs", [[["id", "=", number]]])
            print(f"Total Progress: {job['progress']['percent']:.2f}%", end="\r", file=stderr)
            if job["state"] == "SUCCESS":
                print(file=stderr)
                return job["result"]
            if job["state"] != "RUNNING":
                raise MidcltError(job["error"], trace=job["exception"], extra=job["exc_info"]["extra"])
            time.sleep(_POLL_SECONDS)


def _fake_traceback(reason: str) -> str:
    """Return a traceback, as long and useless as a real one."""
    return (
        "Traceback (most recent call last):\n"
        '  File "/usr/lib/python3/dist-packages/middlewared/main.py", line 208, in call_method\n'
        "    result = await self.middleware.call_with_audit(message['method'], serviceobj, methodobj, params, self)\n"
        f"middlewared.service_exception.CallError: {reason}\n"
    )


def run_console() -> None:
    """Run /usr/bin/midclt."""
    sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout, sys.stderr))


if __name__ == "__main__":
    run_console()
