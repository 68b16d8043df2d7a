# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How guests are asked, started and stopped: by Proxmox VE's programs qm and pct, each within a time.

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

# how long `qm status` may take on a busy host; it loads all of Proxmox's Perl
STATUS_SECONDS = 15
# `qm start` waits for storages and for a large memory
START_SECONDS = 150
# a stop without a shutdown; and what ends a backup
STOP_SECONDS = 30
# how often is looked again, and how long after a refusal it is tried again
PAUSE = 2.0

Clock = Callable[[], float]
Pause = Callable[[float], None]


@dataclass(frozen=True)
class StopResult:
    """What came of a stop.

    outcome is one of these. "stopped"; "forced": it did not go down by itself; "already": it was down; "gone": there is no such guest
    here; "runs": nothing helped, or nobody can tell.
    """

    outcome: str
    message: str  # for the log
    by_ha: bool = False  # whether HA did it, and has noted that this guest is not to run


def read_status(run: Run, guest: Guest) -> str | None:
    """Ask how a guest stands: "running", "stopped", or None if that can't be told."""
    _code, said = _run_bounded(run, STATUS_SECONDS, guest.kind, "status", str(guest.id))
    match = re.search(r"^status: (running|stopped)\s*$", said, re.MULTILINE)
    return match.group(1) if match else None


def list_running(run: Run) -> frozenset[int] | None:
    """Ask which guests run, VMs that are paused too. None if qm or pct can't say it.

    Both print a table: VMID NAME STATUS MEM(MB) BOOTDISK(GB) PID, where a VM without a name is called `VM 100`, and PID is 0 if it
    is down; and VMID Status Lock Name. Where there is no guest of their kind they print nothing.
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
    """Start a guest. Returns the exit code, and what the program said."""
    return _run_bounded(run, START_SECONDS, guest.kind, "start", str(guest.id))


def longest_stop(seconds: float) -> float:
    """Return how long stop() takes at most that is given SECONDS."""
    # the last shutdown, and Proxmox's force; the end of a backup, and ours; the looks after them; what `timeout` itself waits
    return seconds + FORCE_SECONDS + 10 + 3 * STATUS_SECONDS + 2 * STOP_SECONDS + HA_SECONDS + 20


def stop_guest(
    run: Run, guest: Guest, seconds: float, *, clock: Clock = time.monotonic, pause: Pause = time.sleep
) -> StopResult:
    """Shut a guest down that runs, and force it after SECONDS. Never raises; takes longest_stop(seconds) at most.

    A backup keeps a guest locked, and is ended as Proxmox itself does when the host goes down. Of a guest that HA works, HA
    is told, and it does it in its own time; so only the status says when a guest is down.
    """
    return _Stop(run, guest, seconds, clock, pause).run_to_end()


class _Stop:
    """One guest, and its way down."""

    def __init__(self, run: Run, guest: Guest, seconds: float, clock: Clock, pause: Pause) -> None:
        self.run, self.guest, self.seconds, self.clock, self.pause = run, guest, seconds, clock, pause
        self.began = clock()
        self.ha = False
        self.backup_ended = False
        self.last = ""  # what Proxmox said last

    def run_to_end(self) -> StopResult:
        verdict = self._retry_until(self._try_shutdown, self.seconds - PAUSE) or self._force_off()
        return replace(verdict, by_ha=self.ha)

    def _retry_until(self, attempt: Callable[[], StopResult | None], until: float) -> StopResult | None:
        """Return the first verdict of an attempt; None if there is none UNTIL so many seconds have passed."""
        while not (verdict := attempt()) and self._seconds_passed() < until:
            self.pause(PAUSE)
        return verdict

    def _force_off(self) -> StopResult:
        _code, said = _run_bounded(
            self.run, STOP_SECONDS, self.guest.kind, "stop", str(self.guest.id), "--skiplock", "1"
        )
        said = _last_line(said) or self.last
        # HA acts some seconds after it was told
        until = self._seconds_passed() + (HA_SECONDS if self.ha else 0)
        return self._retry_until(self._is_forced, until) or StopResult(
            "runs", f"{self.guest} could not be stopped within {self._seconds_passed():.1f} s: {said}"
        )

    def _is_forced(self) -> StopResult | None:
        if self._read_status() != "stopped":
            return None
        return StopResult("forced", f"{self.guest} was stopped by force after {self._seconds_passed():.1f} s")

    def _try_shutdown(self) -> StopResult | None:
        """Ask it to shut down, once; with HA, which was told before, only look. None: it has to be asked again."""
        code, said, left = 0, "", max(1, math.ceil(self.seconds - self._seconds_passed()))
        if not self.ha:
            words = ("shutdown", str(self.guest.id), "--timeout", str(left), "--forceStop", "1")
            code, said = _run_bounded(self.run, left + FORCE_SECONDS + 10, self.guest.kind, *words)
            self.ha = "Requesting HA stop" in said
            self.last = _last_line(said)
        stands = self._read_status()
        if stands == "stopped":
            if code and " not running" in said:
                return StopResult("already", f"{self.guest} is down already")
            forced = "terminating now" in said or (code == 0 and not self.ha and self._seconds_passed() >= self.seconds)
            if forced:
                return StopResult("forced", f"{self.guest} did not go down within {self.seconds:g} s, and was forced")
            return StopResult("stopped", f"{self.guest} is down, after {self._seconds_passed():.1f} s")
        if code == 127:
            return StopResult("runs", f"{self.guest} can't be stopped: {self.last}")
        if stands is None and "does not exist" in said:
            return StopResult("gone", f"there is no {self.guest} on this host")
        if "is locked (backup)" in said and not self.backup_ended:
            self.backup_ended = True
            _run_bounded(self.run, STOP_SECONDS, "vzdump", "--stop")
        return None

    def _read_status(self) -> str | None:
        return read_status(self.run, self.guest)

    def _seconds_passed(self) -> float:
        return self.clock() - self.began


def _run_bounded(run: Run, seconds: float, *command: str) -> tuple[int, str]:
    """Run a program that is ended after SECONDS, whatever bounds the runner has."""
    return run(["timeout", "--kill-after=5", f"{seconds:g}", *command])


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""
