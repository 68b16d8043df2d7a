# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After an outage: look who has come back, wake who stays off, and tell how it ended.

decide_return() in returns.py decides. nut-stages calls update() in each of its rounds, because it knows when an outage is over.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

from ..base import clock, files, hostnames, records
from ..base.systemd import Run
from ..base.text import one_line
from ..conf import grammar
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from .policy import AwaitedMachine, ReturnPolicy, UpsAddress, WakeUp
from .returns import (
    VERSION,
    ReturnDecision,
    ReturnResult,
    ReturnState,
    ReturnView,
    decide_return,
    note_woken,
    spell_result,
)
from .stage_guests import RunInThread
from .wake import WakeError, send_packet

LOOK_SECONDS = 30.0  # between two looks at the logins, on mains
AWAY_LOOK_SECONDS = 5.0  # the same, in an outage and until all are back
ASK_SECONDS = 2.0  # time limit for upsd
RESOLVE_SECONDS = 1.0  # time limit for the names of all machines
COMMAND_SECONDS = 60.0  # time limit for a command that wakes a machine

ListClients = Callable[[UpsAddress], Collection[str]]
"""Returns the addresses of a UPS's clients. Raises UpsdFailure."""


def list_clients(ups: UpsAddress) -> tuple[str, ...]:
    """Return the addresses of the clients that are logged in to a UPS. Raise UpsdFailure, or grammar.Unencodable."""
    with UpsdClient(ups.host, ups.port, ASK_SECONDS) as client:
        return client.list_clients(ups.name)


@dataclass
class ReturnKeeper:
    """Keeps the state of the return in its file, and acts on it."""

    policy: ReturnPolicy
    machines: Sequence[AwaitedMachine]
    upses: Sequence[UpsAddress]
    path: Path  # of the state
    boot: str
    booted: float  # when the system booted, by the clock
    run: Run
    log: Callable[[str], None]
    tell: Callable[[ReturnResult], None]  # tells the user
    run_in_thread: RunInThread
    resolve: hostnames.Resolve
    clients: ListClients = list_clients
    clock: Callable[[], float] = clock.read_boottime
    wall: Callable[[], float] = time.time
    send: Callable[[str], Sequence[str]] = send_packet
    state: ReturnState = field(init=False)
    _saved: str = field(default="", init=False)  # the text in the state file
    _looked_at: float = field(default=-math.inf, init=False)
    _addresses: dict[str, frozenset[str]] = field(default_factory=dict, init=False)  # by machine
    _hold: str = field(default="", init=False)  # as the log says

    def __post_init__(self) -> None:
        """Read the state."""
        state = records.recall_record(ReturnState, self.path, VERSION) or ReturnState(boot=self.boot)
        if not self.boot or state.boot != self.boot:
            state = state.after_boot(self.boot)
        known = {machine.name for machine in self.machines}
        # a machine that is no secondary any more is not awaited
        self.state = replace(state, expected=tuple(name for name in state.expected if name in known))

    @property
    def is_waiting(self) -> bool:
        """Return whether a return is under way, or an outage."""
        return self.state.is_out or self.state.since is not None

    def update(self, view: ReturnView, answered: Collection[str]) -> None:
        """Take note of what nut-stages sees, and act. Its `logged_in` and, after a boot, its `since` are added here.

        answered: names of the UPSes for which upsd has just answered. The others are not asked again: that takes long if upsd hangs.
        """
        now = self.clock()
        every = AWAY_LOOK_SECONDS if self.is_waiting or view.is_outage else LOOK_SECONDS
        has_news = bool(view.is_outage) != self.state.is_out
        if not self.machines or (now - self._looked_at < every and not has_news):
            return
        self._looked_at = now
        logged_in = self._find_logged_in(answered, may_resolve=view.is_outage is False)
        since = self.booted if self.state.has_booted else view.since
        decision = decide_return(
            self.state, now, self.wall(), replace(view, logged_in=logged_in, since=since), self.policy
        )
        self._log_changes(decision, view)
        self.state = decision.state
        for name in decision.wake:
            self._wake_machine(name)
        self._save()

    def _find_logged_in(self, answered: Collection[str], *, may_resolve: bool) -> frozenset[str] | None:
        """Return the names of the machines that are logged in; None if upsd gives no answer."""
        clients: dict[str, set[str]] = {}
        for ups in self.upses:
            if not any(machine.ups.lower() == ups.name.lower() for machine in self.machines):
                continue
            if ups.name not in answered:
                return None
            try:
                clients[ups.name.lower()] = {hostnames.normal_address(address) for address in self.clients(ups)}
            except (UpsdFailure, grammar.Unencodable):
                return None
        if may_resolve or not self._addresses:
            self._resolve_addresses()
        return frozenset(
            machine.name
            for machine in self.machines
            if self._addresses.get(machine.name, frozenset()) & clients.get(machine.ups.lower(), set())
        )

    def _resolve_addresses(self) -> None:
        """Look up the addresses of all machines. One whose name server is down keeps its addresses."""
        names = sorted({name for machine in self.machines for name in machine.addresses})
        found, _unknown = hostnames.resolve_names(names, RESOLVE_SECONDS, self.resolve)
        for machine in self.machines:
            addresses = frozenset(
                hostnames.normal_address(address) for name in machine.addresses for address in found[name]
            )
            if addresses:
                self._addresses[machine.name] = addresses

    def _log_changes(self, decision: ReturnDecision, view: ReturnView) -> None:
        new, old = decision.state, self.state
        if new.since is not None and old.since is None and new.missing:
            self.log(f"waiting for {', '.join(new.missing)} to come back")
        hold = view.hold if new.since is not None else ""
        if hold and hold != self._hold:
            self.log(f"nobody is woken yet: {hold}")
        self._hold = hold
        if new.was_missing or new.has_booted:
            for name in new.back:
                if name not in old.back:
                    self.log(f"{name} is back")
        if decision.has_ended and new.result:
            self.log(spell_result(new.result))
            self.tell(new.result)

    def _wake_machine(self, name: str) -> None:
        machine = next(machine for machine in self.machines if machine.name == name)
        if machine.wake is None:
            return
        self.state = note_woken(self.state, name)
        is_first = self.state.woken[name] == 1
        if machine.wake.mac:
            try:
                cards = self.send(machine.wake.mac)
            except WakeError as error:
                self.log(f"can't wake {name}: {error}")
            else:
                if is_first:
                    self.log(f"waking {name}: Wake-on-LAN for {machine.wake.mac}, through {', '.join(cards)}")
        if machine.wake.command:
            if is_first:
                self.log(f"waking {name}: {machine.wake.command[0]}")
            self._run_command(name, machine.wake)

    def _run_command(self, name: str, wake: WakeUp) -> None:
        def run_command() -> None:
            code, output = self.run(["timeout", "--kill-after=5", f"{COMMAND_SECONDS:g}", *wake.command])
            if code:
                self.log(f"can't wake {name}: {wake.command[0]} failed ({code}): {one_line(output)[-200:]}")

        self.run_in_thread(run_command)

    def _save(self) -> None:
        text = records.dump_record(self.state, VERSION)
        if text != self._saved:
            # going on matters more than being able to resume
            with contextlib.suppress(files.WriteError):
                files.replace_private_file(self.path, text)
                self._saved = text
