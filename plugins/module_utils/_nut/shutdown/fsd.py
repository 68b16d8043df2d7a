# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Telling this host's upsmon to set FSD: the shutdown of all machines begins.

`upsmon -c fsd` signals whatever process /run/nut/upsmon.pid names, and the user nut can write that file: root would end any
process. So systemd is asked which process it has started, and the kernel which one of it is meant.

upsmon is two processes: one is root, and runs SHUTDOWNCMD; the other is the user nut, and sets FSD when it gets SIGUSR1. Of 2.8.0
and 2.8.1 systemd's main process is root's, which ignores SIGUSR1, and the other is its child. Of 2.8.5 the main process is the
user nut's. `systemctl kill --kill-whom=main` would miss it on the first two, and `all` would also end upssched with its timers, and
what NOTIFYCMD has started.
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
"""How long systemd has for its answer."""

_NAME = "upsmon"

Send = Callable[[int, int], None]


class FsdError(Exception):
    """upsmon was not told; the message says why."""


def request_fsd(run: Run, proc: Path = Path("/proc"), send: Send | None = None) -> None:
    """Tell the upsmon that nut-monitor.service runs to set FSD. Raises FsdError.

    run: runs systemctl, by `timeout`. send: sends a signal to a process that is held open by a descriptor.
    """
    send = send or signal.pidfd_send_signal
    question = ["systemctl", "show", "--property=MainPID", "--value", "--", MONITOR]
    code, said = run(["timeout", "--kill-after=5", f"{SECONDS:g}", *question])
    if code or not said.strip().isdigit():
        raise FsdError(f"systemd does not name the main process of {MONITOR}: {one_line(said)[:200]}")
    main = int(said)
    if not main:
        raise FsdError(f"{MONITOR} is not running")
    for pid in [main, *_child_pids(proc, main)]:
        try:
            held = os.pidfd_open(pid)
        except OSError:
            continue  # it has ended
        try:
            # looked at while it is held: the number can't have gone to another process since
            if _sets_fsd(proc, pid, main):
                send(held, signal.SIGUSR1)
                return
        except OSError as error:
            raise FsdError(f"can't signal upsmon (process {pid}): {error.strerror}") from None
        finally:
            os.close(held)
    raise FsdError(f"{MONITOR} has no process of upsmon that sets FSD")


def _sets_fsd(proc: Path, pid: int, main: int) -> bool:
    """Return whether a process is the half of upsmon that sets FSD: its main process, unless that is root's, or a child of it."""
    about = _read_status(proc, pid)
    if about.get("Name") != _NAME:
        return False
    if pid == main:
        return about["Uid"].split()[0] != "0"
    return about["PPid"] == str(main)


def _child_pids(proc: Path, main: int) -> list[int]:
    found = [int(folder.name) for folder in proc.iterdir() if folder.name.isdigit()]
    return sorted(pid for pid in found if _read_status(proc, pid).get("PPid") == str(main))


def _read_status(proc: Path, pid: int) -> dict[str, str]:
    """Return what the kernel says of a process; {} if it has ended."""
    try:
        return read_status(proc / str(pid))
    except OSError:
        return {}
