# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a boot, start the guests that Proxmox VE does not start, or can't yet.

- Those whose storage is on a machine that boots more slowly than this host: Proxmox VE tries to start each guest once. A TrueNAS
  needs some minutes longer to boot, its storage is not online then, and the start fails.
- Those that a stage shut down in the outage before the boot, and that are not set to start at boot: the owed guests.

A guest that has run since the boot is not started again: if it is off now, the user has stopped it. Sources: pve-manager
(PVE/API2/Nodes.pm, startall), pve-storage (Storage.pm, activate_storage); releases 8 and 9.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Protocol

from ..base import files, records
from ..base.systemd import Run
from ..proxmox import control, guests, running, startup
from ..proxmox.guests import Guest
from ..proxmox.selection import ChosenGuest, Selector
from ..proxmox.storage import find_offline
from .stages import START_AGAIN_SECONDS, START_PATIENCE_SECONDS

VERSION = 2  # of the report

# The selectors' names in the finder
STAGE = "boot"
OWED = "owed"

# Without a report of this boot, guests are only started by a process that begins so soon after the boot: later, a guest that is off may
# have been stopped by the user
FRESH_SECONDS = 900.0
_LOOK_SECONDS = 5.0  # between two looks at pve-guests.service
_SYSTEMCTL_SECONDS = 5.0


@dataclass(frozen=True)
class BootReport:
    """Which guests are still to be started after a boot, for the next process and for the doctor."""

    boot: str = ""  # of base.clock.name_system_start()
    waiting: tuple[str, ...] = ()  # guests, with the reason why they are not running yet
    have_run: tuple[str, ...] = ()  # keys of guests that have run since the boot
    has_ended: bool = False


def recall_report(path: Path, boot: str) -> BootReport | None:
    """Return the report of this boot; None if there is none."""
    saved = records.recall_record(BootReport, path, VERSION)
    return saved if saved and boot and saved.boot == boot else None


class BootFinder(Protocol):
    """Finds the guests that may have to be started: proxmox.selection.GuestFinder with select_starts()."""

    def find_guests(self) -> Mapping[str, Sequence[ChosenGuest]]:
        """Return STAGE and OWED -> guests. Raise GuestsError."""


def select_starts(addresses: Sequence[str], owed: Collection[int]) -> dict[str, Selector]:
    """Return the finder's selectors: of the guests on the storage of these machines, and of those with these numbers."""
    return {
        STAGE: Selector(storage_of=tuple(dict.fromkeys(addresses))),
        OWED: Selector(ids=tuple((number, None) for number in owed)),
    }


class StartsKeeper(Protocol):
    """Keeps, in a file, which guests are owed and which are given up: stages_loop.py."""

    def settle_starts(self, keys: Collection[str]) -> None:
        """Forget that guests are owed."""

    def give_up_start(self, guest: Guest, result: control.StartResult) -> None:
        """Tell that a guest is not started."""


@dataclass
class BootStarts:
    """Starts the guests, in a thread of its own."""

    finder: BootFinder
    path: Path  # of the report
    boot: str
    run: Run
    log: Callable[[str], None]
    keeper: StartsKeeper
    hold: Callable[[], str]  # why no guest may be started now; "" if they may
    clock: control.Clock
    pause: control.Pause
    owed: Sequence[str] = ()  # keys of guests
    root: Path = Path("/")
    booted: float = 0.0  # when the system booted, by the clock
    _found: Mapping[str, Sequence[ChosenGuest]] = field(default_factory=dict, init=False)
    _managed: Collection[int] = field(default=frozenset(), init=False)  # guests of HA
    _ran: set[str] = field(default_factory=set, init=False)  # keys of guests that have run since the boot
    _seen: set[str] = field(default_factory=set, init=False)  # keys of guests that ran at the last look
    _waiting: dict[Guest, str] = field(default_factory=dict, init=False)  # guest -> why it is not running yet
    _saved: BootReport = field(default_factory=BootReport, init=False)
    _trouble: str = field(default="", init=False)  # why the guests can't be found, as the log says
    _is_starting: bool = field(default=False, init=False)  # whether Proxmox VE is starting its guests

    @property
    def pending(self) -> tuple[str, ...]:
        """Return what is still to be started, each with the reason."""
        waiting = [f"{guest}: {reason}" for guest, reason in self._waiting.copy().items()]
        return (*waiting, *(["Proxmox VE is still starting its guests"] if self._is_starting else []))

    def run_to_end(self) -> None:
        """Start the guests, and return when all run or have been given up."""
        saved = recall_report(self.path, self.boot)
        if saved.has_ended if saved else self._seconds_up() >= FRESH_SECONDS:
            self._give_up_owed()
            return
        self._ran.update(saved.have_run if saved else ())
        self._save(has_ended=False)
        names = self._wait_for_proxmox()
        if not names:
            return  # the host is going down
        if self._find_guests_patiently():
            self._choose_guests(names)
        else:
            self._give_up_owed(self._trouble)
        self._try_guests()
        self._save(has_ended=True)

    def _seconds_up(self) -> float:
        return self.clock() - self.booted

    # Before Proxmox VE has tried to start its guests

    def _wait_for_proxmox(self) -> tuple[str, ...]:
        """Wait until Proxmox VE has tried to start all guests. Return which guests are to be started then; () for none."""
        while True:
            if not self._found:
                self._find_guests()
            self._watch_guests()
            state = startup.read_state(lambda command: running.run_bounded(self.run, _SYSTEMCTL_SECONDS, *command))
            self._is_starting = state == startup.STARTING
            if state in ("active", "failed"):
                return STAGE, OWED
            if state == "deactivating":
                return ()
            if state != startup.STARTING and self._seconds_up() >= FRESH_SECONDS:
                return (OWED,)  # the user wants no guest to start at boot
            self.pause(_LOOK_SECONDS)

    def _watch_guests(self) -> None:
        """Note which guests run, at two looks in a row: a failing start may create a process for a moment."""
        keys = {chosen.guest.key for choices in self._found.values() for chosen in choices}.union(self.owed)
        seen = {key for key in keys if self._has_process(key)}
        self._note_runs(seen & self._seen)
        self._seen = seen
        self._save(has_ended=False)

    def _note_runs(self, keys: Collection[str]) -> None:
        """Note that guests run, so that they are never started again after this boot."""
        if not self._ran.issuperset(keys):
            self._ran.update(keys)
            self.keeper.settle_starts(keys)

    def _has_process(self, key: str) -> bool:
        guest = guests.parse_key(key)
        return bool(running.find_process(guest.kind, guest.id, self.root))

    def _find_guests(self) -> bool:
        """Look the guests up. Return whether that succeeded; a failure is logged once."""
        try:
            self._found = self.finder.find_guests()
            # HA starts its guests, and keeps those down that the user wants down
            self._managed = guests.read_ha(self.root).managed
        except guests.GuestsError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                self.log(f"can't find the guests that are to be started after the boot: {error}")
            return False
        return True

    # Afterwards

    def _find_guests_patiently(self) -> bool:
        """Look the guests up again: names may have had no addresses before. Try for START_PATIENCE_SECONDS."""
        began = self.clock()
        while not self._find_guests():
            if self.clock() - began >= START_PATIENCE_SECONDS:
                return False
            self.pause(START_AGAIN_SECONDS)
        return True

    def _choose_guests(self, names: Sequence[str]) -> None:
        for name in names:
            for chosen in self._found.get(name, ()):
                guest = chosen.guest
                is_owed = guest.key in self.owed
                if guest.template or guest.id in self._managed or not (guest.onboot or is_owed):
                    continue
                if guest in self._waiting or guest.key in self._ran:
                    continue
                if self._is_running(guest):
                    self._note_runs([guest.key])
                    continue
                why = (
                    "a stage had shut it down" if is_owed else f"it is started when its storage is online: {chosen.why}"
                )
                self.log(f"{guest} was not started at boot: {why}")
                self._waiting[guest] = "not tried yet"
        pending = {guest.key for guest in self._waiting}
        self.keeper.settle_starts([key for key in self.owed if key not in pending])

    def _try_guests(self) -> None:
        began = self.clock()
        while self._waiting:
            for guest in list(self._waiting):
                self._try_guest(guest)
            if self.hold():
                began = self.clock()
            elif self.clock() - began >= START_PATIENCE_SECONDS:
                for guest, reason in list(self._waiting.items()):
                    self._give_up(guest, control.StartResult("failed", reason))
            self._save(has_ended=not self._waiting)
            if self._waiting:
                self.pause(START_AGAIN_SECONDS)

    def _try_guest(self, guest: Guest) -> None:
        if self._is_running(guest):
            self.log(f"{guest} is running")
            self._note_runs([guest.key])
            del self._waiting[guest]
        elif hold := self.hold():
            self._note(guest, hold)
        elif offline := find_offline(self.run, guest, self.root):
            self._note(guest, f"{offline} is not online")
        else:
            result = control.start_guest(self.run, guest, self.root)
            if result.outcome == "started":
                self.log(f"{guest} is started")
                self._note_runs([guest.key])
                del self._waiting[guest]
            elif result.outcome == "impossible":
                self._give_up(guest, result)
            else:
                self._note(guest, result.message)

    def _note(self, guest: Guest, reason: str) -> None:
        if self._waiting[guest] != reason:
            self._waiting[guest] = reason
            self.log(f"can't start {guest} yet: {reason}. Trying again")

    def _give_up(self, guest: Guest, result: control.StartResult) -> None:
        self.keeper.give_up_start(guest, result)
        del self._waiting[guest]
        self.keeper.settle_starts([guest.key])

    def _give_up_owed(self, trouble: str = "") -> None:
        reason = trouble or (
            f"a stage had shut it down, and nut-stages began only {self._seconds_up() / 60:.0f} min after the boot. You may have "
            "stopped it since"
        )
        for key in self.owed:
            if not self._has_process(key):
                self.keeper.give_up_start(guests.parse_key(key), control.StartResult("failed", reason))
        self.keeper.settle_starts(self.owed)

    def _is_running(self, guest: Guest) -> bool:
        return running.read_status(self.run, guest.kind, guest.id, self.root) == running.RUNNING

    def _save(self, *, has_ended: bool) -> None:
        waiting = tuple(f"{guest}: {reason}" for guest, reason in self._waiting.items())
        report = BootReport(self.boot, waiting, tuple(sorted(self._ran)), has_ended)
        if report != self._saved:
            self._saved = report
            with contextlib.suppress(files.WriteError):
                files.replace_private_file(self.path, records.dump_record(report, VERSION))
