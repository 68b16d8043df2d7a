# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs of a host: where they are, how our own programs run them, and time limits. Ansible modules run programs through _command.py."""

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

# Where Debian keeps the drivers and the real daemons: 2.8.0, 2.8.1, and 2.8.4 or newer, whose daemons are in sbin. With the
# first two releases, sbin has shell wrappers that do nothing unless MODE in nut.conf enables them.
NUT_PLACES = ("/lib/nut", "/usr/lib/nut", "/usr/libexec/nut", "/usr/sbin")


def find_program(name: str) -> Path | None:
    """Return the path of a driver, or of the real program of a daemon of NUT; None if it is not installed."""
    found = (Path(place, name) for place in NUT_PLACES)
    return next((path for path in found if path.exists()), None)


def read_status(folder: Path) -> dict[str, str]:
    """Return the fields of ``/proc/PID/status``. folder: /proc/PID. Raise OSError if the process has ended."""
    lines = (folder / "status").read_text(encoding="ascii", errors="replace").splitlines()
    return {name: value.strip() for name, _colon, value in (line.partition(":") for line in lines)}


def run_within(seconds: float, work: Callable[[], T]) -> T:
    """Return what ``work`` returns or raise what it raises. Raise TimeoutError after SECONDS.

    Work that hangs in the kernel can't be ended, so its thread is left behind.
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
    """Return the function that runs programs for the library. After SECONDS a program is left behind, with exit code 124."""
    environment = {**os.environ, "LC_ALL": "C"}

    def run(command: Sequence[str]) -> tuple[int, str]:
        try:
            # our own programs have no AnsibleModule, and so no run_command
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
            # subprocess.run() would wait forever for a process that hangs in the kernel
            process.kill()
            if process.stdout:
                process.stdout.close()
            return 124, f"{command[0]} did not end within {seconds:g} s"
        return process.returncode, said.decode("utf-8", "replace")

    return run


def run_timeout(command: Sequence[str]) -> tuple[int, str]:
    """Run a `timeout` command whose third word is the seconds. Leave it behind if even `timeout` can't end it."""
    return make_runner(float(command[2]) + 10)(command)
