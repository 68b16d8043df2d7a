# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One attempt to send a message, in a process of its own, which is killed when its time is over.

The URL reaches the process on its standard input, so no process list shows it. The process runs as nobody: it speaks with the
network, and Apprise is a lot of code. Mail is handed to this host's sendmail, which needs its own rights.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Any, Callable

from ..base.text import one_line, printable
from .targets import Target

SECONDS = 30.0
"""Time limit of an attempt."""

OUTPUT = 64 * 1024  # bytes that an attempt may print; one that prints more is stopped by its full pipe
SENDMAIL = "/usr/sbin/sendmail"
NOBODY = 65534
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


@dataclass(frozen=True)
class Post:
    """What is sent."""

    title: str
    body: str
    severity: str
    at: float  # seconds since 1970


@dataclass
class Attempt:
    """An attempt that is running or has ended."""

    target: Target
    process: subprocess.Popen[bytes] | None
    until: float
    clock: Callable[[], float]
    failure: str = ""  # why it did not even begin
    _output: bytes = field(default=b"", init=False)

    def poll(self) -> str | None:
        """Return None while it is running; then "" if the message was sent, or why it was not."""
        if self.process is None:
            return self.failure
        self._read_output()
        code = self.process.poll()
        if code is None and self.clock() < self.until:
            return None
        self.stop()
        words = printable(one_line(self._output.decode("utf-8", "replace")), 300)
        if code is None:
            return f"no answer within {SECONDS:g} s{f': {words}' if words else ''}"
        return "" if code == 0 else words or f"exit code {code}"

    def stop(self) -> None:
        """Kill what is left of it, and close its pipes. A process that hangs in the kernel is left behind."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._read_output()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)

    def _read_output(self) -> None:
        if self.process and self.process.stdout and not self.process.stdout.closed and len(self._output) < OUTPUT:
            with contextlib.suppress(OSError):  # there is nothing to read yet
                self._output += os.read(self.process.stdout.fileno(), OUTPUT - len(self._output))


def begin_attempt(
    target: Target, post: Post, program: Sequence[str], clock: Callable[[], float] = time.monotonic
) -> Attempt:
    """Start to send a message, and return the attempt. Never raises. program: runs deliver.py, which reads its standard input."""
    if target.mail:
        command, data = [SENDMAIL, "-i", "--", target.mail], write_mail(target.mail, post)
    else:
        given = {"url": target.url, "title": post.title, "body": post.body, "severity": post.severity}
        command, data = list(program), json.dumps(given).encode()
    # root may become nobody; anybody else, as in the tests, stays
    drops: Mapping[str, Any] = (
        {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 and not target.mail else {}
    )
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            **drops,
        )
    except (OSError, subprocess.SubprocessError) as error:
        hint = (
            ". Install a mail server, such as postfix" if target.mail and isinstance(error, FileNotFoundError) else ""
        )
        return Attempt(target, None, 0.0, clock, f"{command[0]}: {getattr(error, 'strerror', None) or error}{hint}")
    attempt = Attempt(target, process, clock() + SECONDS, clock)
    if process.stdin and process.stdout:
        os.set_blocking(process.stdout.fileno(), False)
        # the message fits into the pipe, so this does not block
        with contextlib.suppress(OSError):
            process.stdin.write(data)
            process.stdin.close()
    return attempt


def write_mail(address: str, post: Post) -> bytes:
    """Return a mail. Its date is when the event happened."""
    mail = EmailMessage(policy=SMTP.clone(max_line_length=200, linesep="\n"))
    mail["To"] = address
    mail["Subject"] = one_line(post.title)
    mail["Date"] = formatdate(post.at, localtime=True)
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Priority"] = "1" if post.severity == "critical" else "3"
    mail.set_content(post.body + "\n")
    return mail.as_bytes()


def own_deliverer() -> list[str]:
    """Return the command that runs deliver.py: this program, with the packages of the distribution, and without the user's."""
    return [sys.executable, "-I", os.path.realpath(sys.argv[0]), "deliver"]
