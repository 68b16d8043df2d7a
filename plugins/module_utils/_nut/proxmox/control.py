# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Query, start and stop guests with Proxmox VE's commands qm and pct, each within a time limit.

Sources: qemu-server and pve-container (vm_shutdown, vm_stop), pve-ha-manager; releases 8 and 9.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from typing import Callable

from ..base.systemd import Run
from ..base.text import printable
from .guests import FORCE_SECONDS, HA_SECONDS, Guest

# time limit of `qm status`, which loads all of Proxmox's Perl, on a busy host
STATUS_SECONDS = 15
# `qm start` waits for storages and for large amounts of memory
START_SECONDS = 150
# time limit of a stop without a shutdown, and of ending a backup
STOP_SECONDS = 30
# seconds between two looks at the status, and before a refused shutdown is tried again
PAUSE = 2.0

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


def read_status(run: Run, guest: Guest) -> str | None:
    """Return a guest's status: "running", "stopped", or None if it is unknown."""
    _code, said = _run_bounded(run, STATUS_SECONDS, guest.kind, "status", str(guest.id))
    match = re.search(r"^status: (running|stopped)\s*$", said, re.MULTILINE)
    return match.group(1) if match else None


def list_running(run: Run) -> frozenset[int] | None:
    """Return the ids of the guests that run, including paused VMs; None if qm or pct fails.

    qm prints a table VMID NAME STATUS MEM(MB) BOOTDISK(GB) PID, where a VM without a name is called `VM 100`, and PID is 0 if it
    is down; pct prints VMID Status Lock Name. Without guests of their kind they print nothing.
    """
    code, vms = _run_bounded(run, STATUS_SECONDS, "qm", "list")
    if code:
        return None
    code, containers = _run_bounded(run, STATUS_SECONDS, "pct", "list")
    if code:
        return None
    return frozenset(
        int(number)
        for number in (
            *re.findall(r"^\s*([0-9]{3,9})\s.*\s[1-9][0-9]*[ \t]*$", vms, re.MULTILINE),
            *re.findall(r"^\s*([0-9]{3,9})\s+running\b", containers, re.MULTILINE),
        )
    )


def start_guest(run: Run, guest: Guest) -> tuple[int, str]:
    """Start a guest. Return the exit code and the output of the command."""
    return _run_bounded(run, START_SECONDS, guest.kind, "start", str(guest.id))


def longest_stop(seconds: float) -> float:
    """Return how many seconds stop_guest() takes at most if it gives the guest `seconds`."""
    # the last shutdown and Proxmox's own force; ending a backup and our force; a status query after each; `timeout`'s own grace
    return seconds + FORCE_SECONDS + 10 + 3 * STATUS_SECONDS + 2 * STOP_SECONDS + HA_SECONDS + 20


def stop_guest(
    run: Run, guest: Guest, seconds: float, *, clock: Clock = time.monotonic, pause: Pause = time.sleep
) -> StopResult:
    """Shut down a running guest, and force it off after `seconds`. Never raises; takes longest_stop(seconds) at most.

    A backup locks its guest, so end the backup, as Proxmox itself does when the host goes down. For a guest that HA manages,
    qm and pct only pass the request to HA, which acts later. So only the status shows when a guest is down.
    """
    return _Stop(run, guest, seconds, clock, pause).run_to_end()


class _Stop:
    """The stop of one guest."""

    def __init__(self, run: Run, guest: Guest, seconds: float, clock: Clock, pause: Pause) -> None:
        self.run, self.guest, self.seconds, self.clock, self.pause = run, guest, seconds, clock, pause
        self.began = clock()
        self.ha = False
        self.backup_ended = False
        self.last = ""  # the last line of Proxmox's output

    def run_to_end(self) -> StopResult:
        verdict = self._retry_until(self._try_shutdown, self.seconds - PAUSE) or self._force_off()
        return replace(verdict, by_ha=self.ha)

    def _retry_until(self, attempt: Callable[[], StopResult | None], until: float) -> StopResult | None:
        """Repeat an attempt and return its first verdict; None if there is none `until` seconds after the start."""
        while not (verdict := attempt()) and self._seconds_passed() < until:
            self.pause(PAUSE)
        return verdict

    def _force_off(self) -> StopResult:
        _code, said = _run_bounded(
            self.run, STOP_SECONDS, self.guest.kind, "stop", str(self.guest.id), "--skiplock", "1"
        )
        said = _last_line(said) or self.last
        # HA acts some seconds after the request
        until = self._seconds_passed() + (HA_SECONDS if self.ha else 0)
        return self._retry_until(self._is_forced, until) or StopResult(
            "runs", f"{self.guest} could not be stopped in {self._seconds_passed():.1f} s: {said}"
        )

    def _is_forced(self) -> StopResult | None:
        if self._read_status() != "stopped":
            return None
        return StopResult("forced", f"{self.guest} was forced off after {self._seconds_passed():.1f} s")

    def _try_shutdown(self) -> StopResult | None:
        """Request the shutdown once, unless HA has the request already, and check the status. Return None to try again."""
        code, said, left = 0, "", max(1, math.ceil(self.seconds - self._seconds_passed()))
        if not self.ha:
            arguments = ("shutdown", str(self.guest.id), "--timeout", str(left), "--forceStop", "1")
            code, said = _run_bounded(self.run, left + FORCE_SECONDS + 10, self.guest.kind, *arguments)
            self.ha = "Requesting HA stop" in said
            self.last = _last_line(said)
        status = self._read_status()
        if status == "stopped":
            if code and " not running" in said:
                return StopResult("already", f"{self.guest} is already down")
            forced = "terminating now" in said or (code == 0 and not self.ha and self._seconds_passed() >= self.seconds)
            if forced:
                return StopResult(
                    "forced", f"{self.guest} did not shut down within {self.seconds:g} s and was forced off"
                )
            return StopResult("stopped", f"{self.guest} is down after {self._seconds_passed():.1f} s")
        if code == 127:
            return StopResult("runs", f"{self.guest} can't be stopped: {self.last}")
        if status is None and "does not exist" in said:
            return StopResult("gone", f"{self.guest} does not exist on this host")
        if "is locked (backup)" in said and not self.backup_ended:
            self.backup_ended = True
            _run_bounded(self.run, STOP_SECONDS, "vzdump", "--stop")
        return None

    def _read_status(self) -> str | None:
        return read_status(self.run, self.guest)

    def _seconds_passed(self) -> float:
        return self.clock() - self.began


def _run_bounded(run: Run, seconds: float, *command: str) -> tuple[int, str]:
    """Run a command with its own time limit, in addition to the runner's."""
    return run(["timeout", "--kill-after=5", f"{seconds:g}", *command])


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""
