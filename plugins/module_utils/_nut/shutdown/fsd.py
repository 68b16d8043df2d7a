# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Telling this host's upsmon to set FSD, which starts the shutdown of all machines.

`upsmon -c fsd`, run as root, signals the process that /run/nut/upsmon.pid names. The user nut can write that file, and so could
have root kill any process. Here systemd names the main process, and /proc shows which of its processes to signal.

upsmon is two processes: one runs as root and executes SHUTDOWNCMD; the other runs as nut and sets FSD on SIGUSR1. In 2.8.0 and
2.8.1 systemd's main process is root's, which ignores SIGUSR1, and nut's is its child. With 2.8.5 the main process is nut's, unless
upsmon was started with our drop-in (nut-monitor.conf), which makes it root's again. So `systemctl kill --kill-whom=main` would
miss nut's process, and `all` would also kill upssched with its timers and the programs that NOTIFYCMD has started.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Callable

from ..base.process import read_status
from ..base.systemd import MONITOR, Run
from ..base.text import one_line

SECONDS = 10.0
"""Time limit for systemctl."""

_NAME = "upsmon"

Send = Callable[[int, int], None]


class FsdError(Exception):
    """upsmon could not be signalled; the message says why."""


def request_fsd(run: Run, proc: Path = Path("/proc"), send: Send | None = None) -> None:
    """Tell the upsmon of nut-monitor.service to set FSD. Raise FsdError.

    run: runs systemctl. send: sends a signal to the process of a pidfd.
    """
    send = send or signal.pidfd_send_signal
    question = ["systemctl", "show", "--property=MainPID", "--value", "--", MONITOR]
    code, output = run(["timeout", "--kill-after=5", f"{SECONDS:g}", *question])
    if code or not output.strip().isdigit():
        raise FsdError(f"systemd does not report the main process of {MONITOR}: {one_line(output)[:200]}")
    main = int(output)
    if not main:
        raise FsdError(f"{MONITOR} is not running")
    for pid in [main, *_child_pids(proc, main)]:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue  # the process has exited
        try:
            # checked after pidfd_open(): the descriptor can't come to mean another process that gets the same number
            if _sets_fsd(proc, pid, main):
                send(descriptor, signal.SIGUSR1)
                return
        except OSError as error:
            raise FsdError(f"can't signal upsmon (process {pid}): {error.strerror}") from None
        finally:
            os.close(descriptor)
    raise FsdError(f"{MONITOR} has no upsmon process that sets FSD")


def _sets_fsd(proc: Path, pid: int, main: int) -> bool:
    """Return whether a process is the upsmon that sets FSD: the main process unless it is root's, or a child of the main one."""
    status = _read_status(proc, pid)
    if status.get("Name") != _NAME:
        return False
    if pid == main:
        return status["Uid"].split()[0] != "0"
    return status["PPid"] == str(main)


def _child_pids(proc: Path, main: int) -> list[int]:
    pids = [int(folder.name) for folder in proc.iterdir() if folder.name.isdigit()]
    return sorted(pid for pid in pids if _read_status(proc, pid).get("PPid") == str(main))


def _read_status(proc: Path, pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status; {} if the process has exited."""
    try:
        return read_status(proc / str(pid))
    except OSError:
        return {}
