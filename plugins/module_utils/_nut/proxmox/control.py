# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start and stop guests with Proxmox VE's commands qm and pct, each within a time limit.

Sources: qemu-server and pve-container (vm_shutdown, vm_stop, vm_start, check_lock), pve-ha-manager; releases 8 and 9. Exit codes:
0 is success, also for a VM that was off; 255 is a failed task; 2 is an error before the task.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

from ..base.systemd import Run
from ..base.text import printable
from . import qmp, running
from .guests import FORCE_SECONDS, HA_SECONDS, Guest, read_ha_state
from .running import GONE, STATUS_SECONDS, STOPPED, run_bounded

# `qm start` waits for storages and for large amounts of memory
START_SECONDS = 150
# time limit of a stop without a shutdown, and of ending a backup
STOP_SECONDS = 30
# seconds between two looks at the status, and before a refused shutdown is tried again
PAUSE = 2.0

# Exit codes of a command that was ended at its time limit, whose effect is not known, and of one that does not exist
_TIMED_OUT = (124, 137)
_NO_PROGRAM = 127
# The states in which HA takes a request and never acts on it: the second is that of HA that is disarmed with the mode freeze
_STUCK_IN_HA = ("error", "freeze")

Clock = Callable[[], float]
Pause = Callable[[float], None]


@dataclass(frozen=True)
class StopResult:
    """The result of stopping a guest."""

    # "stopped": it shut down; "forced": it had to be forced; "already": it was down before; "gone": this host has no such
    # guest; "runs": it could not be stopped, or its status is unknown
    outcome: str
    message: str  # for the log
    by_ha: bool = False  # whether HA stopped it, and now keeps it stopped


@dataclass(frozen=True)
class StartResult:
    """The result of a try to start a guest."""

    # "started", or it was running; "failed": may pass by itself, as a missing quorum, a storage that is not online, a lock, or a
    # timeout does; "impossible": will not pass
    outcome: str
    message: str = ""  # the reason, for the log


def start_guest(run: Run, guest: Guest, root: Path = Path("/")) -> StartResult:
    """Try once to start a guest."""
    code, said = run_bounded(run, START_SECONDS, guest.kind, "start", str(guest.id))
    if (
        not code
        and "Requesting HA start" in said
        and (state := read_ha_state(guest.kind, guest.id, root)) in _STUCK_IN_HA
    ):
        return StartResult(
            "failed", f"HA has it in the state {state}, in which it starts nothing. See ha-manager status"
        )
    if not code or re.search(rf"^(?:VM|CT) {guest.id} already running$", said, re.MULTILINE):
        return StartResult("started")
    if running.is_gone(said, guest.id):
        return StartResult("impossible", "it does not exist on this host")
    if re.search(r"^you can't start a (?:vm|CT) if it's a template$", said, re.MULTILINE):
        return StartResult("impossible", "it is a template")
    if code in _TIMED_OUT:
        return StartResult("failed", f"no result within {START_SECONDS} s")
    return StartResult("failed", _last_line(said) or f"{guest.kind} start: exit code {code}")


def longest_stop(seconds: float) -> float:
    """Return how many seconds stop_guest() takes at most if it gives the guest `seconds`."""
    # the last shutdown and Proxmox's own force; ending a backup and our force; a status query after each; `timeout`'s own grace
    return seconds + FORCE_SECONDS + 10 + 3 * STATUS_SECONDS + 2 * STOP_SECONDS + HA_SECONDS + 20


def stop_guest(
    run: Run,
    guest: Guest,
    seconds: float,
    root: Path = Path("/"),
    *,
    clock: Clock = time.monotonic,
    pause: Pause = time.sleep,
) -> StopResult:
    """Shut down a running guest, and force it off after `seconds`. Never raises; takes longest_stop(seconds) at most.

    - A backup locks its guest, so end the backup, as Proxmox itself does when the host goes down. Any other lock, or that of a
      backup that no longer runs, is ignored: it must not make the guest lose its power.
    - For a guest that HA manages, qm and pct only pass the request to HA, which acts later. So only the status shows when a guest
      is down. HA can't take the request without a quorum, and does not act for a guest in the state error.
    - Where Proxmox VE's programs can't shut down a guest, QEMU or LXC is told directly.
    """
    return _Stop(run, guest, seconds, root, clock=clock, pause=pause).run_to_end()


class _Stop:
    """The stop of one guest."""

    def __init__(self, run: Run, guest: Guest, seconds: float, root: Path, *, clock: Clock, pause: Pause) -> None:
        self.run, self.guest, self.seconds, self.root, self.clock, self.pause = run, guest, seconds, root, clock, pause
        self.began = clock()
        self.ha = False  # HA has taken the request
        self.is_told = False  # the guest may have been told to shut down
        self.is_direct = False  # it is QEMU or LXC that is told, not Proxmox
        self.ignores_lock = False
        self.has_lxc_stop = True
        self.has_ended_backup = False
        self.last = ""  # the last line of Proxmox's output

    def run_to_end(self) -> StopResult:
        verdict = self._retry_until(self._try_shutdown, self.seconds - PAUSE) or self._force_off()
        return replace(verdict, by_ha=self.ha)

    def _retry_until(self, attempt: Callable[[], StopResult | None], until: float) -> StopResult | None:
        """Repeat an attempt and return its first verdict; None if there is none `until` seconds after the start."""
        while not (verdict := attempt()) and self._seconds_passed() < until:
            self.pause(PAUSE)
        return verdict

    def _try_shutdown(self) -> StopResult | None:
        """Request the shutdown once, unless it has been requested, and check the status. Return None to try again."""
        code, said = (0, "") if self.ha or (self.is_direct and self.is_told) else self._request_shutdown()
        status = self._read_status()
        if re.search(rf"^(?:VM|CT) {self.guest.id} not running$", said, re.MULTILINE) and status not in (
            "running",
            GONE,
        ):
            status = STOPPED
            if not self.is_told:
                return StopResult("already", f"{self.guest} is already down")
        if status == GONE or (status is None and running.is_gone(said, self.guest.id)):
            return StopResult("gone", f"{self.guest} does not exist on this host")
        self._note_answer(code, said)
        if status == STOPPED:
            return self._describe_stop(code, said)
        if code == _NO_PROGRAM:
            return StopResult("runs", f"{self.guest} can't be stopped: {self.last}")
        return None

    def _request_shutdown(self) -> tuple[int, str]:
        left = max(1, math.ceil(self.seconds - self._seconds_passed()))
        if self.is_direct and self.guest.kind == "qm":
            code, said = self._tell_qemu(qmp.POWERDOWN)
        elif self.has_lxc_stop and self.guest.kind == "pct" and (self.is_direct or self.ignores_lock):
            # pct can't ignore a lock; this is what it runs (pve-container, LXC.pm, vm_stop)
            code, said = self._run_for(left, "lxc-stop", "-n", str(self.guest.id), "--timeout", str(left))
            if code == _NO_PROGRAM:
                self.has_lxc_stop, code = False, 1
        else:
            command = ["shutdown", str(self.guest.id), "--timeout", str(left), "--forceStop", "1"]
            command += ["--skiplock", "1"] if self.ignores_lock and self.guest.kind == "qm" else []
            code, said = self._run_for(left, self.guest.kind, *command)
        self.last = _last_line(said) or self.last
        return code, said

    def _run_for(self, left: float, *command: str) -> tuple[int, str]:
        return run_bounded(self.run, left + FORCE_SECONDS + 10, *command)

    def _tell_qemu(self, command: str) -> tuple[int, str]:
        try:
            qmp.tell_qemu(self.guest.id, command, self.root)
        except qmp.QmpError as error:
            return 1, str(error)
        return 0, ""

    def _note_answer(self, code: int, said: str) -> None:
        """Note what an answer means for the next request."""
        asks_ha = "Requesting HA stop" in said
        if asks_ha and not code and read_ha_state(self.guest.kind, self.guest.id, self.root) in _STUCK_IN_HA:
            self.is_direct = True
        elif not code or code in _TIMED_OUT:
            self.is_told = True
            self.ha = self.ha or (asks_ha and not code)
        elif self.is_direct:
            self.is_direct = False  # let Proxmox try again: the quorum may be back
        elif asks_ha or _is_cluster_dead(said):
            # HA has no quorum, or pmxcfs does not answer: neither qm nor pct can do anything
            self.is_direct = True
            if "no quorum" in said:
                self.last = "HA manages it, and can't act: the cluster has no quorum"
        elif match := re.search(r"\b(?:VM|CT) is locked \(([^)]*)\)", said):
            if match.group(1) == "backup" and not self.has_ended_backup:
                self.has_ended_backup = True
                run_bounded(self.run, STOP_SECONDS, "vzdump", "--stop")
            else:
                self.ignores_lock = True

    def _describe_stop(self, code: int, said: str) -> StopResult:
        """Return the verdict about a guest that is down now."""
        if "is paused - stop instead of shutdown" in said:
            return StopResult("forced", f"{self.guest} was paused, so it could not shut down and was forced off")
        took_all = code == 0 and not self.ha and self._seconds_passed() >= self.seconds
        if "terminating now" in said or took_all:
            return StopResult("forced", f"{self.guest} did not shut down within {self.seconds:g} s and was forced off")
        return StopResult("stopped", f"{self.guest} is down after {self._seconds_passed():.1f} s")

    def _force_off(self) -> StopResult:
        kind, number = self.guest.kind, str(self.guest.id)
        code, said = 1, ""
        if self.is_direct and kind == "qm":
            code, _said = self._tell_qemu(qmp.QUIT)
        elif self.is_direct:
            code, _said = run_bounded(self.run, STOP_SECONDS, "lxc-stop", "-n", number, "--kill")
        if code:
            _code, said = run_bounded(self.run, STOP_SECONDS, kind, "stop", number, "--skiplock", "1")
        said = self.last if self.is_direct else _last_line(said) or self.last
        # HA acts some seconds after the request
        until = self._seconds_passed() + (HA_SECONDS if self.ha else PAUSE)
        return self._retry_until(self._is_forced, until) or StopResult(
            "runs", f"{self.guest} could not be stopped in {self._seconds_passed():.1f} s: {said}"
        )

    def _is_forced(self) -> StopResult | None:
        if self._read_status() != STOPPED:
            return None
        return StopResult("forced", f"{self.guest} was forced off after {self._seconds_passed():.1f} s")

    def _read_status(self) -> str | None:
        return running.read_status(self.run, self.guest.kind, self.guest.id, self.root)

    def _seconds_passed(self) -> float:
        return self.clock() - self.began


def _is_cluster_dead(said: str) -> bool:
    """Return whether a command failed because pmxcfs does not answer."""
    return "ipcc_send_rec" in said or "Unable to load access control list" in said


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""
