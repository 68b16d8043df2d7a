# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the gate observes: whether each machine is up, by the network or Proxmox VE, and what upsd reports for each UPS.

Everything that may hang runs in a thread of its own, so the gate never waits for it.
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
from ..proxmox import running
from . import probe
from .gate import GateReading, make_reading
from .policy import AwaitedMachine, ShutdownPolicy, UpsAddress

ASK_INTERVAL = 2.0
"""Seconds between two polls of upsd, and the time limit for one. Guests are polled twice as often."""

GUEST_STALE_SECONDS = 10.0
"""An answer of Proxmox VE about a guest is valid for so long."""

_T = TypeVar("_T")


class BackgroundPoll(threading.Thread):
    """A thread that calls a function which may hang, again and again."""

    def __init__(self, work: Callable[[], _T], interval: float, clock: Callable[[], float]) -> None:
        super().__init__(daemon=True)
        self.work, self.interval, self.clock = work, interval, clock
        self.latest: tuple[Any, float] | None = None  # the last result, and when that call began
        self.stop_event = threading.Event()
        self.first_call_done = threading.Event()

    def run(self) -> None:
        """Call the function until stop_polling()."""
        while not self.stop_event.is_set():
            asked = self.clock()
            # after a failure the next call may succeed, and meanwhile the last result goes stale
            with contextlib.suppress(Exception):
                self.latest = (self.work(), asked)
            self.first_call_done.set()
            self.stop_event.wait(self.interval)

    def stop_polling(self) -> None:
        """End the thread after its current call."""
        self.stop_event.set()


class MachineObserver:
    """Observes whether each machine is up: over the network, or by asking Proxmox VE about guests of this host.

    Names are resolved once, at the start: later the name server may be down.
    """

    def __init__(
        self,
        machines: Sequence[AwaitedMachine],
        run: Run,
        clock: Callable[[], float],
        *,
        io: probe.ProbeIO = probe.SYSTEM_IO,
        seconds: float = ASK_INTERVAL,
        resolve: hostnames.Resolve = hostnames.resolve_name,
        root: Path = Path("/"),
    ) -> None:
        self.clock, self.io = clock, io
        self.first_wait = seconds  # how long the first call waits for the answers about guests; qm takes a second
        self.guests = {
            machine.name: BackgroundPoll(
                partial(running.is_running, run, machine.guest.kind, machine.guest.id, root), ASK_INTERVAL / 2, clock
            )
            for machine in machines
            if machine.guest
        }
        for poll in self.guests.values():
            poll.start()
        self.targets = _probe_targets(machines, seconds, resolve)

    def __call__(self) -> dict[str, bool | None]:
        """Return whether each machine is up (None: unknown), within probe.PROBE_SECONDS; the first call may take longer."""
        seen = probe.probe_machines(self.targets, probe.PROBE_SECONDS, self.io) if self.targets else {}
        deadline = time.monotonic() + self.first_wait
        self.first_wait = 0.0
        for name, poll in self.guests.items():
            poll.first_call_done.wait(max(deadline - time.monotonic(), 0.0))
            latest = poll.latest
            seen[name] = latest[0] if latest and self.clock() - latest[1] <= GUEST_STALE_SECONDS else None
        return seen

    def stop_polling(self) -> None:
        """End the threads after their current call."""
        for poll in self.guests.values():
            poll.stop_polling()


def _probe_targets(
    machines: Sequence[AwaitedMachine], seconds: float, resolve: hostnames.Resolve
) -> list[probe.ProbeTarget]:
    """Return the machines to probe over the network, with their names resolved: all but this host's guests."""
    remote = [machine for machine in machines if not machine.guest]
    names = sorted({name for machine in remote for name in machine.addresses})
    addresses, _unused = hostnames.resolve_names(names, seconds, resolve)
    return [
        probe.ProbeTarget(
            machine.name, tuple(address for name in machine.addresses for address in addresses[name]), machine.ports
        )
        for machine in remote
    ]


class UpsObserver:
    """Polls upsd about each UPS, in a thread each, so that a hung upsd can't delay the gate."""

    def __init__(
        self,
        upses: Sequence[UpsAddress],
        clock: Callable[[], float],
        seconds: float = ASK_INTERVAL,
        remind_fsd: FsdReminder | None = None,
    ) -> None:
        self.polls = {
            str(ups): BackgroundPoll(partial(read_ups, ups, clock, seconds, remind_fsd), ASK_INTERVAL, clock)
            for ups in upses
        }
        for poll in self.polls.values():
            poll.start()

    def __call__(self) -> dict[str, GateReading]:
        """Return str(UpsAddress) -> the last reading, without the UPSes that have given none yet."""
        return {name: poll.latest[0] for name, poll in self.polls.items() if poll.latest}

    def stop_polling(self) -> None:
        """End the threads after their current call."""
        for poll in self.polls.values():
            poll.stop_polling()


class FsdReminder:
    """Sets FSD again if upsd has lost it by a restart; otherwise the secondaries would never shut down.

    upsmon sets FSD only once. logins: str(UpsAddress) -> user and password. log: takes each message once.
    """

    def __init__(self, logins: Mapping[str, tuple[str, str]], log: PrintText) -> None:
        self.logins, self.log = logins, log
        self.logged_once: set[str] = set()

    def __call__(self, client: UpsdClient, ups: UpsAddress, status: str) -> None:
        """Set FSD if the status lacks it. A failure is only logged: the caller still needs the other answers of upsd."""
        login = self.logins.get(str(ups))
        if login is None or "FSD" in vocabulary.split_status(status):
            return
        message = f"upsd did not report FSD for {ups.name}: set it again, so that all machines shut down"
        try:
            client.authenticate(*login)
            client.fsd(ups.name)
        except (UpsdFailure, grammar.Unencodable) as error:
            message = f"upsd does not report FSD for {ups.name}, and setting it again failed: {error}"
        if message not in self.logged_once:
            self.logged_once.add(message)
            self.log(message)


def read_primary_logins(upsmon_conf: Path, upses: Sequence[UpsAddress]) -> dict[str, tuple[str, str]]:
    """Return str(UpsAddress) -> the user and password of upsmon's MONITOR line as primary; {} if the file can't be read."""
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
    """Return upsd's current reading of a UPS. Raise UpsdFailure, also if its data are stale, or grammar.Unencodable."""
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
    policy: ShutdownPolicy, run: Run, resolve: hostnames.Resolve = hostnames.resolve_name, root: Path = Path("/")
) -> tuple[dict[str, bool | None], dict[str, GateReading | str]]:
    """Return name -> whether the machine is up, and str(UpsAddress) -> its reading, or why upsd gave none."""
    seen = probe.probe_machines(_probe_targets(policy.machines, ASK_INTERVAL, resolve))
    for machine in policy.machines:
        if machine.guest:
            seen[machine.name] = running.is_running(run, machine.guest.kind, machine.guest.id, root)
    readings: dict[str, GateReading | str] = {}
    for ups in policy.upses:
        try:
            readings[str(ups)] = read_ups(ups, read_boottime)
        except (UpsdFailure, grammar.Unencodable) as error:
            readings[str(ups)] = str(error)
    return seen, readings
