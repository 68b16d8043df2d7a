# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the gate looks at: each machine, by the network or by Proxmox VE, and what upsd says of each UPS.

Whatever may hang is asked in a thread of its own, beside the gate.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable, TypeVar

from ..base import hostnames
from ..base.cli import PrintText
from ..base.clock import read_boottime
from ..base.systemd import Run
from ..conf import grammar, upsd, upsmon
from ..net import vocabulary
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure, VarNotSupported
from . import probe
from .gate import GateReading, make_reading
from .policy import AwaitedMachine, ShutdownPolicy, UpsAddress

ASK_INTERVAL = 2.0
"""Seconds from one question to upsd, or to Proxmox VE, to the next; and how long upsd has for its answer."""

GUEST_OLD = 10.0
"""Seconds after which nobody can tell any more whether a guest runs, if Proxmox VE says nothing new."""

_T = TypeVar("_T")


class BackgroundPoll(threading.Thread):
    """Something that may hang, done again and again beside the gate."""

    def __init__(self, work: Callable[[], _T], every: float, clock: Callable[[], float]) -> None:
        super().__init__(daemon=True)
        self.work, self.every, self.clock = work, every, clock
        self.latest: tuple[Any, float] | None = None  # what it gave last, and when it was asked
        self.halt = threading.Event()
        self.tried = threading.Event()

    def run(self) -> None:
        """Work until stopped."""
        while not self.halt.is_set():
            asked = self.clock()
            # whatever goes wrong: it must be asked again, and what it said last goes out of date
            with contextlib.suppress(Exception):
                self.latest = (self.work(), asked)
            self.tried.set()
            self.halt.wait(self.every)

    def stop_polling(self) -> None:
        """Let it end when it can."""
        self.halt.set()


class MachineObserver:
    """Tells of each machine whether it is up: by the network, or by Proxmox VE for guests of this host.

    Names are resolved once, here: later there may be no name server.
    """

    def __init__(
        self,
        machines: Sequence[AwaitedMachine],
        run: Run,
        clock: Callable[[], float],
        *,
        edge: probe.ProbeIO = probe.SYSTEM_IO,
        seconds: float = ASK_INTERVAL,
        resolve: hostnames.Resolve = hostnames.resolve_name,
    ) -> None:
        self.clock, self.edge = clock, edge
        self.patience = seconds  # with the first answers about guests; qm takes a second
        self.guests = {
            machine.name: BackgroundPoll(
                partial(probe.is_guest_running, run, machine.guest.kind, machine.guest.id), ASK_INTERVAL / 2, clock
            )
            for machine in machines
            if machine.guest
        }
        for worker in self.guests.values():
            worker.start()
        self.targets = _probe_targets(machines, seconds, resolve)

    def __call__(self) -> dict[str, bool | None]:
        """Look once; at most probe.SECONDS, but the first time. Where None stands nobody can tell."""
        seen = probe.probe_machines(self.targets, probe.PROBE_SECONDS, self.edge) if self.targets else {}
        deadline = time.monotonic() + self.patience
        self.patience = 0.0
        for name, worker in self.guests.items():
            worker.tried.wait(max(deadline - time.monotonic(), 0.0))
            latest = worker.latest
            seen[name] = latest[0] if latest and self.clock() - latest[1] <= GUEST_OLD else None
        return seen

    def stop_polling(self) -> None:
        """Let the threads end."""
        for worker in self.guests.values():
            worker.stop_polling()


def _probe_targets(
    machines: Sequence[AwaitedMachine], seconds: float, resolve: hostnames.Resolve
) -> list[probe.ProbeTarget]:
    """Return what is looked at by the network: the machines that are no guests of this host."""
    far = [machine for machine in machines if not machine.guest]
    names = sorted({name for machine in far for name in machine.addresses})
    addresses, _unused = hostnames.resolve_names(names, seconds, resolve)
    return [
        probe.ProbeTarget(
            machine.name, tuple(found for name in machine.addresses for found in addresses[name]), machine.ports
        )
        for machine in far
    ]


class UpsObserver:
    """Tells what upsd said last about each UPS. Each is asked beside the gate: no upsd can hold it up."""

    def __init__(
        self,
        upses: Sequence[UpsAddress],
        clock: Callable[[], float],
        seconds: float = ASK_INTERVAL,
        remind_fsd: FsdReminder | None = None,
    ) -> None:
        self.asked = {
            str(ups): BackgroundPoll(partial(read_ups, ups, clock, seconds, remind_fsd), ASK_INTERVAL, clock)
            for ups in upses
        }
        for worker in self.asked.values():
            worker.start()

    def __call__(self) -> dict[str, GateReading]:
        """Return the last answers; a UPS that never answered is not among them."""
        return {name: worker.latest[0] for name, worker in self.asked.items() if worker.latest}

    def stop_polling(self) -> None:
        """Let the threads end."""
        for worker in self.asked.values():
            worker.stop_polling()


class FsdReminder:
    """Sets FSD again where upsd has forgotten it, because it was restarted: else secondaries would never hear of it.

    upsmon sets it once, and ends. logins: UPS (as str(Ups) names it) -> its user and password. say: takes what was done, once.
    """

    def __init__(self, logins: Mapping[str, tuple[str, str]], say: PrintText) -> None:
        self.logins, self.say = logins, say
        self.told: set[str] = set()

    def __call__(self, client: UpsdClient, ups: UpsAddress, status: str) -> None:
        """Give the order, if this status lacks it. Never raises UpsdFailure: what upsd says else is still worth hearing."""
        login = self.logins.get(str(ups))
        if login is None or "FSD" in vocabulary.split_status(status):
            return
        words = f"upsd did not report FSD for {ups.name}: set it again, so that all machines shut down"
        try:
            client.authenticate(*login)
            client.fsd(ups.name)
        except (UpsdFailure, grammar.Unencodable) as error:
            words = f"upsd does not report FSD for {ups.name}, and setting it again failed: {error}"
        if words not in self.told:
            self.told.add(words)
            self.say(words)


def read_primary_logins(upsmon_conf: Path, upses: Sequence[UpsAddress]) -> dict[str, tuple[str, str]]:
    """Return by which user and password upsmon is the primary of each UPS. {} if its file can't be read."""
    try:
        text = upsmon_conf.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return {}
    own = [monitor for monitor in upsmon.read_monitors(text) if monitor.type.lower() in upsd.PRIMARY]
    return {
        str(ups): (monitor.user, monitor.password)
        for ups in upses
        for monitor in own
        if (monitor.ups, monitor.host, monitor.port) == (ups.name, ups.host, ups.port)
    }


def read_ups(
    ups: UpsAddress, clock: Callable[[], float], seconds: float = ASK_INTERVAL, remind_fsd: FsdReminder | None = None
) -> GateReading:
    """Ask upsd once about a UPS. Raises UpsdFailure, also if its data are stale, and grammar.Unencodable."""
    asked = clock()
    with UpsdClient(ups.host, ups.port, seconds) as client:
        status = client.get_var(ups.name, "ups.status")
        try:
            runtime = client.get_var(ups.name, "battery.runtime")
        except VarNotSupported:
            runtime = None
        if remind_fsd:
            remind_fsd(client, ups, status)
    return make_reading(status, runtime, asked)


def observe_once(
    policy: ShutdownPolicy, run: Run, resolve: hostnames.Resolve = hostnames.resolve_name
) -> tuple[dict[str, bool | None], dict[str, GateReading | str]]:
    """Look once at all machines and UPSes, for `status`. A UPS that can't be asked has the reason in place of a reading."""
    seen = probe.probe_machines(_probe_targets(policy.machines, ASK_INTERVAL, resolve))
    for machine in policy.machines:
        if machine.guest:
            seen[machine.name] = probe.is_guest_running(run, machine.guest.kind, machine.guest.id)
    readings: dict[str, GateReading | str] = {}
    for ups in policy.upses:
        try:
            readings[str(ups)] = read_ups(ups, read_boottime)
        except (UpsdFailure, grammar.Unencodable) as error:
            readings[str(ups)] = str(error)
    return seen, readings
