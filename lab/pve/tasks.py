# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""startall and stopall: how Proxmox VE starts and stops its guests with the host (pve-manager, API2/Nodes.pm, 8 and 9)."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Collection, Mapping
from typing import Callable

from .host import NO_QUORUM, print_warning
from .options import CommandError
from .settings import FEWER_WORKERS, GuestProperties
from .stand_in import GuestFolder

START_DELAY = 3  # seconds after the start of a VM without `up`
DOWN_SECONDS = 180  # for a guest without `down`


def group_guests(guests: Mapping[int, GuestProperties]) -> list[tuple[float, list[int]]]:
    """Return the guests by order, and by number; without an order they come last."""
    groups: dict[float, list[int]] = {}
    for number, guest in sorted(guests.items()):
        groups.setdefault(math.inf if guest.order is None else guest.order, []).append(number)
    return sorted(groups.items())


class _Workers:
    """Tasks that run at the same time."""

    def __init__(self, host: GuestFolder, most: int) -> None:
        self.host, self.most = host, most
        self.threads: list[threading.Thread] = []

    def start_task(self, task: Callable[[], object], failed: Callable[[CommandError], None]) -> None:
        """Start a task."""

        def run_task() -> None:
            try:
                task()
            except CommandError as error:
                failed(error)

        thread = threading.Thread(target=run_task, daemon=True)
        thread.start()
        self.threads.append(thread)

    def wait_below(self, number: int) -> None:
        """Wait until fewer tasks run than this, looking each second."""
        while len(self.threads) >= number:
            self.threads = [thread for thread in self.threads if thread.is_alive()]
            self.host.wait(1)


def start_all(host: GuestFolder, force: bool = False, only: Collection[int] = (), workers: int = 0) -> None:
    """Start the guests that start at boot, each once. Wait for quorum without a limit. Raise CommandError if it is lost again."""
    if not host.has_quorum():
        print("waiting for quorum ...", flush=True)
        while not host.has_quorum():
            time.sleep(1 / host.settings.speed)
        print("got quorum", flush=True)
    for number, guest in host.list_guests().items():
        if guest.lock == "backup" and not guest.backup:
            host.change_guest(number, lock="")
            print_warning(f"removed left over backup lock from '{number}'!")
    chosen = {
        number: guest
        for number, guest in host.list_guests().items()
        if (not only or number in only) and (force or guest.onboot) and (only or not host.is_managed(guest))
    }
    together = host.settings.version >= FEWER_WORKERS
    for _order, numbers in group_guests(chosen):
        tasks = _Workers(host, workers or host.settings.count_workers())
        for number in numbers:
            if not host.has_quorum():
                raise CommandError(NO_QUORUM)
            if not host.find_pid(number):
                _start_one(host, tasks, number, chosen[number], together)
        tasks.wait_below(1)


def _start_one(host: GuestFolder, tasks: _Workers, number: int, guest: GuestProperties, together: bool) -> None:
    """Start a guest, and wait. Before 9.1.2 one after the other, and without the delay after one that failed."""
    what = "VM" if guest.kind == "qm" else "CT"
    failures: list[CommandError] = []

    def note_failure(error: CommandError) -> None:
        failures.append(error)
        print_warning(f"{error}\nStarting {what} {number} failed: {error}")

    print_warning(f"Starting {what} {number}")
    start = host.start_vm if guest.kind == "qm" else host.start_container
    tasks.start_task(lambda: start(number, {"skiplock": None}), note_failure)
    if not together:
        tasks.wait_below(1)
    delay = guest.up if guest.up is not None else START_DELAY * (guest.kind == "qm")
    if delay and (together or not failures):
        if guest.up:
            print_warning(f"Waiting for {delay} seconds (startup delay)")
        host.wait(delay)
    tasks.wait_below(tasks.most)


def stop_all(
    host: GuestFolder, only: Collection[int] = (), workers: int = 0, seconds: int | None = None, force: bool = True
) -> None:
    """Shut down all guests but those of HA, from the highest order down, the highest number first."""
    chosen = {
        number: guest
        for number, guest in host.list_guests().items()
        if (not only or number in only) and (only or not host.is_managed(guest))
    }
    for _order, numbers in reversed(group_guests(chosen)):
        tasks = _Workers(host, workers or host.settings.count_workers())
        for number in reversed(numbers):
            if host.find_pid(number):
                guest = chosen[number]
                limit = next(given for given in (guest.down, seconds, DOWN_SECONDS) if given is not None)
                _stop_one(host, tasks, number, limit, force)
                tasks.wait_below(tasks.most)
        tasks.wait_below(1)
    host.log_line("all VMs and CTs stopped")


def _stop_one(host: GuestFolder, tasks: _Workers, number: int, limit: int, force: bool) -> None:
    guest = host.read_guest(number)
    print_warning(f"Stopping {'VM' if guest.kind == 'qm' else 'CT'} {number} (timeout = {limit} seconds)")
    stop = host.shut_down_vm if guest.kind == "qm" else host.shut_down_container
    asked = {"skiplock": None, "timeout": limit, "forceStop": force}
    tasks.start_task(lambda: stop(number, asked), lambda error: print_warning(f"{error}"))


def make_upid(host: GuestFolder, kind: str) -> str:
    """Return the identifier that Proxmox prints for a task."""
    return f"UPID:{host.settings.name}:{os.getpid():08X}:{0:08X}:{int(time.time()):08X}:{kind}::root@pam:"
