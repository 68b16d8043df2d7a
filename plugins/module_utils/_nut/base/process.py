# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other programs on a host: where they are, how our own programs run them, and work that may hang. Modules of Ansible run them their
own way."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional, TypeVar

from .systemd import Run

T = TypeVar("T")
Find = Callable[[str], Optional[Path]]

# Where Debian keeps the drivers and the real daemons: 2.8.0, 2.8.1, and 2.8.4 or newer, whose daemons are in sbin. What
# stands in sbin on the first two are shell wrappers, which do nothing unless nut.conf's MODE tells them to.
NUT_PLACES = ("/lib/nut", "/usr/lib/nut", "/usr/libexec/nut", "/usr/sbin")


def find_program(name: str) -> Path | None:
    """Return the path of a driver, or of the real program of a daemon of NUT; None if it is not installed."""
    found = (Path(place, name) for place in NUT_PLACES)
    return next((path for path in found if path.exists()), None)


def read_status(folder: Path) -> dict[str, str]:
    """Return what the kernel says of a process in ``status``. folder: of the process, below /proc. Raises OSError, if it has ended."""
    lines = (folder / "status").read_text(encoding="ascii", errors="replace").splitlines()
    return {name: value.strip() for name, _colon, value in (line.partition(":") for line in lines)}


def run_within(seconds: float, work: Callable[[], T]) -> T:
    """Return what ``work`` returns, or raise what it raises, but wait no longer for it. Raises TimeoutError.

    What hangs in the kernel can't be ended, so its thread is left behind.
    """
    results: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()

    def do() -> None:
        try:
            result = work()
        except Exception as error:
            failure = error

            def fail() -> T:
                raise failure

            results.put(fail)
        else:
            results.put(lambda: result)

    threading.Thread(target=do, daemon=True).start()
    try:
        ended = results.get(timeout=max(seconds, 0.001))
    except queue.Empty:
        raise TimeoutError(f"it did not end within {seconds:g} s") from None
    return ended()


def make_runner(seconds: float) -> Run:
    """Return what the library runs programs with. One that hangs for SECONDS is left behind, with exit code 124."""
    environment = {**os.environ, "LC_ALL": "C"}

    def run(command: Sequence[str]) -> tuple[int, str]:
        try:
            # a program of its own on the host: there is no AnsibleModule whose run_command could be called
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                list(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            return 127, str(error)
        try:
            said, _nothing = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # subprocess.run() would wait for its end; but what hangs in the kernel has none
            process.kill()
            if process.stdout:
                process.stdout.close()
            return 124, f"{command[0]} did not end within {seconds:g} s"
        return process.returncode, said.decode("utf-8", "replace")

    return run


def run_timeout(command: Sequence[str]) -> tuple[int, str]:
    """Run a program that `timeout` ends, with its seconds at place 2. Left behind is one that even `timeout` can't end."""
    return make_runner(float(command[2]) + 10)(command)
