# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inner half of a drill: NUT's own programs and the gate, with all their waits, on a simulated UPS.

It starts nothing before it has checked that the sandbox holds (sandbox.find_holes()).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

from ..base.clock import CLOCK, Clock
from ..base.process import Find, find_program
from ..net import vocabulary
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..shutdown import gate_loop, observe
from ..shutdown.policy import OWN_FILE_LIMIT, UpsAddress
from .job import (
    LOOK,
    STARTING,
    Job,
    Output,
    RehearsalError,
    RehearsalRefused,
    RehearsalStopped,
    read_job,
    stop_on_signals,
)
from .report import DrillResult, format_drill_table
from .sandbox import find_holes
from .simulation import PRIMARY, UPS, Programs, compose_nut_files, compose_ups_data, find_free_port, parse_note

SUPPLY = 2.0
"""Seconds between two updates of the simulated UPS's readings."""


class Drill:
    """One drill, in its own folder."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        print_line: Output,
        stopped: threading.Event,  # set: the drill is to stop
        *,
        finder: Find = find_program,
        clock: Clock = CLOCK,
    ) -> None:
        self.job, self.folder, self.stopped, self.finder = job, folder, stopped, finder
        self.clock, self.wall, self.print_line = clock.now, clock.wall, print_line
        self.deadline = clock.now() + job.time_limit
        self.programs = Programs(folder)
        self.port = 0
        self.status = "OL"
        self.since: float | None = None  # when the UPS went on battery
        self.fsd = False  # whether upsd has shown FSD
        self.written = -math.inf  # when drill.dev was last written
        self.changed = 0  # modification time of drill.dev, whole seconds
        self.note_times: dict[str, float] = {}  # program -> when its SHUTDOWNCMD ran
        self.down: set[str] = set()  # names of the simulated machines that are down

    def print_step(self, step: str) -> None:
        self.print_line(f"{time.strftime('%H:%M:%S', time.localtime(self.wall()))}  {step}")

    def run(self) -> DrillResult:
        """Run the drill. Its programs have stopped when this returns or raises. Raises RehearsalError."""
        try:
            self.start_programs()
            return self.fail_power()
        finally:
            self.programs.stop_all()

    def start_programs(self) -> None:
        """Start NUT's programs and wait until every upsmon is logged in."""
        programs = {name: self.finder(name) for name in ("dummy-ups", "upsd", "upsmon")}
        missing = [name for name, path in programs.items() if path is None]
        if missing:
            raise RehearsalError(f"{', '.join(missing)} (NUT) not found on this host; the role nut_server installs NUT")
        for name in ("bin", "state", "notes"):
            (self.folder / name).mkdir(mode=0o700)
        self.port = find_free_port()
        for name, text in compose_nut_files(self.folder, self.job, self.port, secrets.token_hex(16)).items():
            (self.folder / name).write_text(text, encoding="utf-8")
            (self.folder / name).chmod(0o600)
        self.write_supply()
        machines = self.job.policy.machines
        self.print_step(
            f"starting a simulated UPS, upsd, this host's upsmon and {len(machines)} more for the other machines"
        )
        for name, arguments in (("dummy-ups", ("-F", "-a", UPS)), ("upsd", ("-F",))):
            self.programs.start_program(name, programs[name] or Path(), *arguments)
        self.wait_until_ready("the simulated UPS", lambda: self.read_flags() == ("OL",))
        for name in (PRIMARY, *map(str, range(len(machines)))):
            conf = str(self.folder / f"{name}.conf")
            self.programs.start_program(name, programs["upsmon"] or Path(), "-F", "-f", conf)
        self.wait_until_ready("all upsmons to log in", lambda: (self.ask_upsd("logins") or 0) > len(machines))
        self.print_step("all upsmons are logged in; the UPS is on mains")

    def fail_power(self) -> DrillResult:
        """Simulate a power failure that lasts until the battery is low, and watch the shutdown that follows."""
        job = self.job
        self.since = self.clock()
        left = "" if job.runtime is None else f", {job.runtime:.0f} s left"
        self.set_status("OB")
        self.print_step(f"UPS: on battery{left}")
        self.let_time_pass(job.outage)
        self.set_status("OB LB")
        self.wait_until_ready("upsd to report the low battery", lambda: "LB" in self.read_flags())
        trigger, moment = self.clock(), self.wall()
        self.print_step("UPS: battery is low. The measured times count from here")
        error = "this host's upsmon did not run its SHUTDOWNCMD in time; check HOSTSYNC and FINALDELAY"
        self.wait_until(self.has_primary_shut_down, self.deadline - job.policy.timeout, error)
        return self.run_gate(trigger, moment)

    def has_primary_shut_down(self) -> bool:
        """Return whether the primary's upsmon has run its SHUTDOWNCMD. Prints a step when FSD first appears."""
        if not self.fsd and "FSD" in self.read_flags():
            self.fsd = True
            self.print_step(f"{self.job.primary}: upsmon sets FSD")
        return PRIMARY in self.note_times

    def run_gate(self, trigger: float, moment: float) -> DrillResult:
        job = self.job
        policy = replace(job.policy, upses=(UpsAddress(UPS, "127.0.0.1", self.port),), minsupplies=1)
        asker = observe.UpsObserver(policy.upses, self.clock)
        try:
            report = gate_loop.Gate(
                policy,
                log=lambda line: self.print_step(f"{job.primary}: {line}"),
                prober=self.probe_machines,
                ask_upsd=asker,
                state_path=self.folder / "gate.json",
                report_path=self.folder / "last.json",
                log_path=self.folder / "shutdown.log",
                by="drill",
                mode="drill",
                clock=Clock(self.clock, self.wall, self.let_time_pass),
            ).run()
        finally:
            asker.stop_polling()
        end = self.clock()
        self.print_step(f"{job.primary}: would power off now")
        return DrillResult(
            self.list_machine_times(trigger, end), moment, end - trigger, report.rule or "", report.reason or ""
        )

    def list_machine_times(self, trigger: float, end: float) -> dict[str, tuple[float | None, float | None]]:
        """Return when each machine began to go down and was down, in seconds since TRIGGER; None if not before END."""
        times: dict[str, tuple[float | None, float | None]] = {}
        for number, machine in enumerate(self.job.policy.machines):
            began = self.note_times.get(str(number))
            down = began + machine.shutdown_time if began is not None and began + machine.shutdown_time <= end else None
            times[machine.name] = (
                None if began is None else began - trigger,
                None if down is None else down - trigger,
            )
        return times

    def probe_machines(self) -> dict[str, bool | None]:
        """Return which machines are up. This replaces pings: each is up for its shutdown_time after its SHUTDOWNCMD."""
        self.read_notes()
        now = self.clock()
        return {
            machine.name: str(number) not in self.note_times
            or now < self.note_times[str(number)] + machine.shutdown_time
            for number, machine in enumerate(self.job.policy.machines)
        }

    # While time passes

    def let_time_pass(self, seconds: float) -> None:
        """Wait, and check the drill meanwhile. Raises RehearsalError if it must not continue."""
        end = self.clock() + seconds
        self.check_progress()
        while (left := end - self.clock()) > 0:
            self.stopped.wait(min(left, LOOK))
            self.check_progress()

    def check_progress(self) -> None:
        if self.stopped.is_set():
            raise RehearsalStopped("the drill was stopped")
        if self.clock() > self.deadline:
            raise RehearsalError(f"the drill exceeded its time limit of {self.job.time_limit:g} s")
        if self.clock() - self.written >= SUPPLY and self.since is not None:
            self.write_supply()
        # upsmon may exit once it has run its SHUTDOWNCMD, which writes the note first
        exited = self.programs.list_exited()
        self.read_notes()
        for name in exited:
            if name not in self.note_times:
                program = name if not name.isdigit() else f"{self.job.policy.machines[int(name)].name}'s upsmon"
                raise RehearsalError(f"{program} exited unexpectedly: {self.programs.read_last_lines(name)}")

    def wait_until_ready(self, subject: str, done: Callable[[], bool]) -> None:
        self.wait_until(done, self.clock() + STARTING, f"timed out after {STARTING:g} s waiting for {subject}")

    def wait_until(self, done: Callable[[], bool], deadline: float, error: str) -> None:
        while not done():
            if self.clock() > deadline:
                raise RehearsalError(error)
            self.let_time_pass(LOOK)

    def set_status(self, status: str) -> None:
        self.status = status
        self.write_supply()

    def write_supply(self) -> None:
        """Update the readings of the simulated UPS. dummy-ups compares the file's modification time in whole seconds."""
        now, left = self.clock(), self.job.runtime
        if left is not None and self.since is not None:
            left -= now - self.since
        self.changed = max(self.changed + 1, int(self.wall()))
        path, new = self.folder / f"{UPS}.dev", self.folder / f"{UPS}.new"
        new.write_text(compose_ups_data(self.status, left), encoding="utf-8")
        os.utime(new, (self.changed, self.changed))
        new.replace(path)
        self.written = now

    def read_notes(self) -> None:
        """Read new notes, and print a step for each and for each machine that is down."""
        for number, machine in enumerate(self.job.policy.machines):
            name = str(number)
            if self.read_note(name):
                self.print_step(
                    f"{machine.name}: upsmon runs its SHUTDOWNCMD; shutting down takes {machine.shutdown_time:g} s"
                )
            if (
                name in self.note_times
                and name not in self.down
                and self.clock() >= self.note_times[name] + machine.shutdown_time
            ):
                self.down.add(name)
                self.print_step(f"{machine.name}: down")
        if self.read_note(PRIMARY):
            self.print_step(f"{self.job.primary}: upsmon runs its SHUTDOWNCMD")

    def read_note(self, name: str) -> bool:
        """Return whether a program has written its note since the last look, and remember when."""
        if name in self.note_times:
            return False
        try:
            text = (self.folder / "notes" / name).read_text(encoding="ascii", errors="replace")
            uptime = Path("/proc/uptime").read_text(encoding="ascii")
        except OSError:
            return False
        now = self.clock()
        when = parse_note(text, uptime, now)
        self.note_times[name] = now if when is None else when
        return True

    def read_flags(self) -> tuple[str, ...]:
        status = self.ask_upsd("status")
        return vocabulary.split_status(status) if isinstance(status, str) else ()

    def ask_upsd(self, question: str) -> Any:
        """Return the "status" of the simulated UPS, or the number of "logins" to it; None if upsd does not answer."""
        try:
            with UpsdClient("127.0.0.1", self.port, 2.0) as client:
                return client.num_logins(UPS) if question == "logins" else client.get_var(UPS, "ups.status")
        except UpsdFailure:
            return None


def _read_line(source: int) -> str:
    """Return one line, and read no further.

    Unbuffered, because another thread goes on reading SOURCE, and a buffer's lock that it held would block the exit.
    """
    with os.fdopen(os.dup(source), "rb", buffering=0) as file:
        return file.readline(OWN_FILE_LIMIT).decode("utf-8", "replace")


def hold_drill(
    source: int,
    print_step: Output,
    print_result: Output,
    *,
    as_json: bool,
    room: Path | None = None,
    check: Callable[[], Sequence[str]] = find_holes,
    finder: Find = find_program,
) -> bool:
    """Run the drill described by the first line of SOURCE, a file descriptor; return whether the order held.

    The drill stops at the end of SOURCE: the outer half has exited, or wants it stopped. room: parent of the drill's folder.
    Raises RehearsalError.
    """
    holes = check()
    if holes:
        raise RehearsalRefused(
            f"the sandbox of the drill has holes: {'; '.join(holes)}. Run `nut-shutdown drill`, which sets it up"
        )
    job = read_job(_read_line(source))
    stopped = threading.Event()

    def watch_source() -> None:
        with contextlib.suppress(OSError):
            while os.read(source, 1):
                pass
        stopped.set()

    threading.Thread(target=watch_source, daemon=True).start()
    with stop_on_signals(stopped.set):
        folder = Path(tempfile.mkdtemp(prefix="d", dir=room or os.environ.get("RUNTIME_DIRECTORY") or "/run"))
        try:
            result = Drill(job, folder, print_step, stopped, finder=finder).run()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    data = result.to_data(job)
    print_result(json.dumps(data, indent=2) if as_json else f"\n{format_drill_table(data)}")
    return bool(data["held"])
