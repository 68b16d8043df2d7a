# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record a real shutdown from the primary. Each step is written at once, because the recorder goes down with the host."""

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
from .sandbox import build_unit_command, find_systemd_run

UNIT = "nut-shutdown-record"
TICK = 0.5
"""Least time between two looks, s."""

BEAT = 5.0
"""Time after which the notes are written even without a new step, s, to show that the recorder is alive."""

PATIENCE = 120.0
"""Time without FSD after which the recorder stops, s."""

SPARE = 600.0
"""Time that it records after the gate must have finished, s. After that the recorder stops even if the host is still up."""


class Recorder:
    """Looks repeatedly and writes down what it sees, until it is stopped."""

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
        timing = read_timing(host.read_upsmon_conf() or "")
        self.time_limit = timing["HOSTSYNC"] + timing["FINALDELAY"] + policy.timeout + SPARE
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
        """Stop recording. This moment counts as the start of this host's own shutdown."""
        if self.stopped_at is None:
            self.stopped_at = self.host.clock.wall()
        self.stopped.set()

    def run(self, ready: Callable[[], None]) -> bool:
        """Record, and call READY after the first look. Returns False without FSD, or if this host does not go down."""
        # a write that fails now would also fail during the shutdown
        files.replace_private_file(self.path, self.notes.to_json())
        files.replace_private_file(self.host.token_path, f"{self.notes.token}\n")
        began = self.host.clock.now()
        self.take_look()
        ready()
        self.log("recording")
        while not self.stopped.is_set():
            begun = self.host.clock.now()
            if self.notes.fsd is None and begun - began > PATIENCE:
                self.log(f"no FSD within {PATIENCE:g} s; stopping")
                return False
            if begun - began > PATIENCE + self.time_limit:
                self.log("this host should have gone down long ago; stopping")
                return False
            self.take_look()
            self.stopped.wait(max(TICK - (self.host.clock.now() - begun), 0.0))
        self.notes = replace(self.notes, ended=self.stopped_at)
        self.write_notes()
        self.log("this host is going down; stopping")
        return True

    def take_look(self) -> None:
        """Look once and write down what is new."""
        moment, begun = self.host.clock.wall(), self.host.clock.now()
        fsd, inside = self.ask_upsd()
        seen = {} if self.stopped.is_set() else self.prober()
        if self.stopped_at is not None:
            # ignore this look: the network is going down as well
            return
        before = len(self.notes.steps)
        self.notes = add_look(self.notes, RecorderLook(moment, fsd, inside, seen))
        for _moment, step in self.notes.steps[before:]:
            self.log(step)
        if len(self.notes.steps) > before or begun - self.written >= BEAT:
            self.write_notes()

    def write_notes(self) -> None:
        self.written = self.host.clock.now()
        try:
            files.replace_private_file(self.path, self.notes.to_json())
        except files.WriteError as error:
            self.log(str(error))

    def ask_upsd(self) -> tuple[bool, frozenset[str] | None]:
        """Return whether FSD is set and which machines are logged in, over all UPSes; None if upsd answers for none."""
        fsd, inside = False, None
        for ups in self.policy.upses:
            try:
                with UpsdClient(ups.host, ups.port, observe.ASK_INTERVAL) as client:
                    fsd |= "FSD" in vocabulary.split_status(client.get_var(ups.name, "ups.status"))
                    there = {hostnames.normal_address(peer) for peer in client.list_clients(ups.name)}
            except (UpsdFailure, grammar.Unencodable):
                continue
            inside = (inside or frozenset()) | {name for name, addresses in self.known.items() if addresses & there}
        return fsd, inside


def tell_systemd(state: str, environment: Mapping[str, str] | None = None) -> None:
    """Send a state such as READY=1 to systemd (sd_notify(3)), if systemd started this process."""
    where = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
    if not where:
        return
    address = f"\0{where[1:]}" if where.startswith("@") else where
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)


def run_recorder(policy: ShutdownPolicy, host: RehearsalHost, path: Path, log: Output) -> bool:
    """Run the recorder; its unit calls this. path: of the record. Returns what Recorder.run() returns."""
    looker = observe.MachineObserver(policy.machines, host.run, host.clock.now, resolve=host.names)
    try:
        recorder = Recorder(policy, host, path, log, prober=looker)
        with stop_on_signals(recorder.stop):
            return recorder.run(lambda: tell_systemd("READY=1"))
    finally:
        looker.stop_polling()


def build_recorder_command(starter: str, program: Sequence[str]) -> list[str]:
    """Return the command that starts the recorder's unit. It returns as soon as the recorder is ready."""
    given = ["Type=notify", "NotifyAccess=main", "TimeoutStartSec=25", "TimeoutStopSec=5", "OOMScoreAdjust=-500"]
    return build_unit_command(starter, UNIT, given, [*program, "record", "--inside"])


def start_recorder(policy: ShutdownPolicy, host: RehearsalHost, need: float | None) -> Fitness:
    """Check the readiness and start the recorder, which is recording when this returns. Raises RehearsalError.

    need: seconds of battery that the plan needs, None if unknown.
    """
    command = build_recorder_command(find_systemd_run(host), host.program)
    fit = check_fitness(policy, host, need)
    # stop a recorder that was left running
    host.run(["systemctl", "stop", "--", f"{UNIT}.service"])
    code, said = host.run(command)
    if code:
        raise RehearsalError(f"can't start the recorder: {one_line(said)}. See journalctl -u {UNIT}")
    return fit


def check_fitness(policy: ShutdownPolicy, host: RehearsalHost, need: float | None) -> Fitness:
    """Return what to know before a real shutdown. Raises RehearsalRefused if anything prevents it."""
    fit = judge_fitness(policy, observe_host(policy, host), need)
    if fit.problems:
        raise RehearsalRefused("\n".join(fit.problems))
    return fit
