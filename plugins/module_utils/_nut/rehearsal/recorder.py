# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real shutdown, watched from the primary. It is written down step by step, because the recorder's end is the host's."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..base import files, hostnames
from ..base.text import one_line
from ..conf import grammar
from ..net import vocabulary
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..shutdown import observe
from ..shutdown.policy import ShutdownPolicy
from .fitness import Fitness, find_addresses, judge_fitness, observe_host
from .job import Output, RehearsalError, RehearsalHost, RehearsalRefused, name_primary, read_timing, stop_on_signals
from .notes import MachineNotes, Notes, RecorderLook, add_look
from .sandbox import find_systemd_run, unit_command

UNIT = "nut-shutdown-record"
TICK = 0.5
"""Seconds from one look to the next, at least."""

BEAT = 5.0
"""Seconds after which it is written down that the recorder lives, if nothing else is to be."""

PATIENCE = 120.0
"""Seconds without an FSD after which nobody wants the recorder any more."""

SPARE = 600.0
"""Seconds that it goes on after the gate must have ended. Whatever then keeps the host from going down, is not its business."""


class Recorder:
    """Looks, and writes down what it sees, until it is told to end."""

    def __init__(
        self,
        policy: ShutdownPolicy,
        host: RehearsalHost,
        path: Path,
        log: Output,
        *,
        prober: Callable[[], Mapping[str, bool | None]],
    ) -> None:
        self.policy, self.host, self.path, self.log, self.prober = policy, host, path, log, prober
        self.known = find_addresses(policy, host.names)
        timing = read_timing(host.upsmon_conf() or "")
        self.time_limit = timing["HOSTSYNC"] + timing["FINALDELAY"] + policy.longest + SPARE
        self.stopped = threading.Event()
        self.stopped_at: float | None = None
        self.notes = Notes(
            secrets.token_hex(8),
            host.clock.boot(),
            name_primary(policy),
            host.clock.wall(),
            host.clock.wall(),
            {machine.name: MachineNotes() for machine in policy.machines},
        )
        self.written = -math.inf

    def stop(self) -> None:
        """Let it end. This moment counts as the begin of this host's own shutdown."""
        if self.stopped_at is None:
            self.stopped_at = self.host.clock.wall()
        self.stopped.set()

    def run(self, ready: Callable[[], None]) -> bool:
        """Record. ready: called as soon as each machine has been seen once. Returns False if nobody set FSD, or it took too long."""
        # what is not written now could not be written later
        files.replace_private_file(self.path, self.notes.to_json())
        files.replace_private_file(self.host.token_path, f"{self.notes.token}\n")
        began = self.host.clock.now()
        self.take_look()
        ready()
        self.log("recording")
        while not self.stopped.is_set():
            begun = self.host.clock.now()
            if self.notes.fsd is None and begun - began > PATIENCE:
                self.log(f"no FSD within {PATIENCE:g} s: nobody wants a record")
                return False
            if begun - began > PATIENCE + self.time_limit:
                self.log("this host should have gone down long ago: the record ends")
                return False
            self.take_look()
            self.stopped.wait(max(TICK - (self.host.clock.now() - begun), 0.0))
        self.notes = replace(self.notes, ended=self.stopped_at)
        self.write_notes()
        self.log("this host goes down; the record ends")
        return True

    def take_look(self) -> None:
        """Look once, and write down what is new."""
        moment, begun = self.host.clock.wall(), self.host.clock.now()
        fsd, inside = self.ask_upsd()
        seen = {} if self.stopped.is_set() else self.prober()
        if self.stopped_at is not None:
            # what is seen now is seen through a network that goes down itself
            return
        before = len(self.notes.steps)
        self.notes = add_look(self.notes, RecorderLook(moment, fsd, inside, seen))
        for _at, words in self.notes.steps[before:]:
            self.log(words)
        if len(self.notes.steps) > before or begun - self.written >= BEAT:
            self.write_notes()

    def write_notes(self) -> None:
        self.written = self.host.clock.now()
        try:
            files.replace_private_file(self.path, self.notes.to_json())
        except files.WriteError as error:
            self.log(str(error))

    def ask_upsd(self) -> tuple[bool, frozenset[str] | None]:
        """Ask upsd whether FSD is set, and who is logged in. What one UPS does not say, another may; None: none says it."""
        fsd, inside = False, None
        for ups in self.policy.upses:
            try:
                with UpsdClient(ups.host, ups.port, observe.ASK_INTERVAL) as client:
                    fsd |= "FSD" in vocabulary.split_status(client.get_var(ups.name, "ups.status"))
                    there = {hostnames.normal_address(peer) for peer in client.list_clients(ups.name)}
            except (UpsdFailure, grammar.Unencodable):
                continue
            inside = (inside or frozenset()) | {name for name, its in self.known.items() if its & there}
        return fsd, inside


def tell_systemd(words: str, environment: Mapping[str, str] | None = None) -> None:
    """Tell something to the systemd that started us (sd_notify(3)); nothing, if it did not."""
    where = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
    if not where:
        return
    address = f"\0{where[1:]}" if where.startswith("@") else where
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(words.encode(), address)


def run_recorder(policy: ShutdownPolicy, host: RehearsalHost, path: Path, log: Output) -> bool:
    """Be the recorder: what its unit runs. path: of the record. Returns as Recorder.run() does."""
    looker = observe.MachineObserver(policy.machines, host.run, host.clock.now, resolve=host.names)
    try:
        recorder = Recorder(policy, host, path, log, prober=looker)
        with stop_on_signals(recorder.stop):
            return recorder.run(lambda: tell_systemd("READY=1"))
    finally:
        looker.stop_polling()


def recorder_command(starter: str, program: Sequence[str]) -> list[str]:
    """Return what starts the recorder. It comes back when that records, for the unit is ready then; and it ends with the host."""
    given = ["Type=notify", "NotifyAccess=main", "TimeoutStartSec=25", "TimeoutStopSec=5", "OOMScoreAdjust=-500"]
    return unit_command(starter, UNIT, given, [*program, "record", "--inside"])


def start_recorder(policy: ShutdownPolicy, host: RehearsalHost, need: float | None) -> Fitness:
    """See that all is fit, and have systemd start the recorder. When this returns, it records. Raises RehearsalError.

    need: seconds that the plan wants of the battery, None if not known.
    """
    words = recorder_command(find_systemd_run(host), host.program)
    fit = check_fitness(policy, host, need)
    # one that was forgotten
    host.run(["systemctl", "stop", "--", f"{UNIT}.service"])
    code, said = host.run(words)
    if code:
        raise RehearsalError(f"the recorder could not be started: {one_line(said)}. See journalctl -u {UNIT}")
    return fit


def check_fitness(policy: ShutdownPolicy, host: RehearsalHost, need: float | None) -> Fitness:
    """Return what one has to know before a real shutdown. Raises Refused if anything stands against it."""
    fit = judge_fitness(policy, observe_host(policy, host), need)
    if fit.problems:
        raise RehearsalRefused("\n".join(fit.problems))
    return fit
