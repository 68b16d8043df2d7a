# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inner half of a drill: NUT's own programs, the gate, and all their waits, on a simulated UPS.

It does nothing before it has seen that the walls stand (sandbox).
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
from .report import DrillResult, drill_table
from .sandbox import find_holes
from .simulation import PRIMARY, UPS, Programs, free_port, nut_files, parse_note, ups_data

SUPPLY = 2.0
"""Seconds from one word of the simulated UPS about its battery to the next."""


class Drill:
    """One drill, in a folder of its own. stopped: is set when somebody wants it to end."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        say: Output,
        stopped: threading.Event,
        *,
        finder: Find = find_program,
        clock: Clock = CLOCK,
    ) -> None:
        self.job, self.folder, self.stopped, self.finder = job, folder, stopped, finder
        self.clock, self.wall, self.tell = clock.now, clock.wall, say
        self.deadline = clock.now() + job.time_limit
        self.programs = Programs(folder)
        self.port = 0
        self.status = "OL"
        self.since: float | None = None  # on battery
        self.fsd = False  # was it seen?
        self.written = -math.inf
        self.changed = 0  # the time of drill.dev, whole seconds
        self.note_times: dict[str, float] = {}
        self.down: set[str] = set()

    def print_step(self, words: str) -> None:
        self.tell(f"{time.strftime('%H:%M:%S', time.localtime(self.wall()))}  {words}")

    def run(self) -> DrillResult:
        """Hold it. Raises RehearsalError. Whatever happens, nothing of it runs when this has ended."""
        try:
            self.start_programs()
            return self.fail_power()
        finally:
            self.programs.stop_all()

    def start_programs(self) -> None:
        """Start NUT's programs, and wait until all are logged in."""
        found = {name: self.finder(name) for name in ("dummy-ups", "upsd", "upsmon")}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise RehearsalError(
                f"NUT's {', '.join(missing)} is not installed on this host; the role nut_server installs it"
            )
        for name in ("bin", "state", "notes"):
            (self.folder / name).mkdir(mode=0o700)
        self.port = free_port()
        for name, text in nut_files(self.folder, self.job, self.port, secrets.token_hex(16)).items():
            (self.folder / name).write_text(text, encoding="utf-8")
            (self.folder / name).chmod(0o600)
        self.write_supply()
        hosts = self.job.policy.machines
        self.print_step(
            f"a simulated UPS, its upsd, upsmon as on this host, and {len(hosts)} more for the others are started"
        )
        for name, arguments in (("dummy-ups", ("-F", "-a", UPS)), ("upsd", ("-F",))):
            self.programs.start_program(name, found[name] or Path(), *arguments)
        self.wait_until_ready("the simulated UPS answers", lambda: self.read_flags() == ("OL",))
        for name in (PRIMARY, *map(str, range(len(hosts)))):
            conf = str(self.folder / f"{name}.conf")
            self.programs.start_program(name, found["upsmon"] or Path(), "-F", "-f", conf)
        self.wait_until_ready("all are logged in", lambda: (self.ask_upsd("logins") or 0) > len(hosts))
        self.print_step("all are logged in, the UPS is on mains")

    def fail_power(self) -> DrillResult:
        """Let the power fail, and see what follows."""
        job = self.job
        self.since = self.clock()
        left = "" if job.runtime is None else f", {job.runtime:.0f} s left"
        self.set_status("OB")
        self.print_step(f"the UPS: on battery{left}")
        self.let_time_pass(job.outage)
        self.set_status("OB LB")
        self.wait_until_ready("upsd says that the battery is low", lambda: "LB" in self.read_flags())
        trigger, moment = self.clock(), self.wall()
        self.print_step("the UPS: the battery is low. The times at the end count from here")
        late = "upsmon of this host did not come to its SHUTDOWNCMD; see HOSTSYNC and FINALDELAY"
        self.wait_until(self.has_primary_shut_down, self.deadline - job.policy.longest, late)
        return self.run_gate(trigger, moment)

    def has_primary_shut_down(self) -> bool:
        """Return whether the primary's upsmon has run its SHUTDOWNCMD, and tell once that it has set FSD."""
        if not self.fsd and "FSD" in self.read_flags():
            self.fsd = True
            self.print_step(f"{self.job.primary}: upsmon sets FSD")
        return PRIMARY in self.note_times

    def run_gate(self, trigger: float, moment: float) -> DrillResult:
        job = self.job
        policy = replace(job.policy, upses=(UpsAddress(UPS, "127.0.0.1", self.port),))
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
            self.machine_times(trigger, end), moment, end - trigger, report.rule or "", report.reason or ""
        )

    def machine_times(self, trigger: float, end: float) -> dict[str, tuple[float | None, float | None]]:
        found: dict[str, tuple[float | None, float | None]] = {}
        for number, host in enumerate(self.job.policy.machines):
            began = self.note_times.get(str(number))
            down = began + host.shutdown_time if began is not None and began + host.shutdown_time <= end else None
            found[host.name] = (
                None if began is None else began - trigger,
                None if down is None else down - trigger,
            )
        return found

    def probe_machines(self) -> dict[str, bool | None]:
        """Return which machines are up, in the place of pings: each is until it has had its time since its SHUTDOWNCMD."""
        self.read_notes()
        now = self.clock()
        return {
            host.name: str(number) not in self.note_times or now < self.note_times[str(number)] + host.shutdown_time
            for number, host in enumerate(self.job.policy.machines)
        }

    # What goes on all the time

    def let_time_pass(self, seconds: float) -> None:
        """Let time pass. Raises RehearsalError if it shall, or must, go on no longer."""
        end = self.clock() + seconds
        self.check_progress()
        while (left := end - self.clock()) > 0:
            self.stopped.wait(min(left, LOOK))
            self.check_progress()

    def check_progress(self) -> None:
        if self.stopped.is_set():
            raise RehearsalStopped("the drill was stopped")
        if self.clock() > self.deadline:
            raise RehearsalError(f"the drill is not over after {self.job.time_limit:g} s")
        if self.clock() - self.written >= SUPPLY and self.since is not None:
            self.write_supply()
        # one that has run its SHUTDOWNCMD may end; the note was there first
        ended = self.programs.list_exited()
        self.read_notes()
        for name in ended:
            if name not in self.note_times:
                who = name if not name.isdigit() else f"upsmon of {self.job.policy.machines[int(name)].name}"
                raise RehearsalError(f"{who} ended by itself: {self.programs.last_words(name)}")

    def wait_until_ready(self, what: str, done: Callable[[], bool]) -> None:
        self.wait_until(done, self.clock() + STARTING, f"within {STARTING:g} s it did not come to this: {what}")

    def wait_until(self, done: Callable[[], bool], deadline: float, late: str) -> None:
        while not done():
            if self.clock() > deadline:
                raise RehearsalError(late)
            self.let_time_pass(LOOK)

    def set_status(self, status: str) -> None:
        self.status = status
        self.write_supply()

    def write_supply(self) -> None:
        """Let the simulated UPS say how it stands. dummy-ups looks at the file's time, in whole seconds."""
        now, left = self.clock(), self.job.runtime
        if left is not None and self.since is not None:
            left -= now - self.since
        self.changed = max(self.changed + 1, int(self.wall()))
        path, new = self.folder / f"{UPS}.dev", self.folder / f"{UPS}.new"
        new.write_text(ups_data(self.status, left), encoding="utf-8")
        os.utime(new, (self.changed, self.changed))
        new.replace(path)
        self.written = now

    def read_notes(self) -> None:
        """Read the notes."""
        for number, host in enumerate(self.job.policy.machines):
            name = str(number)
            if self.read_note(name):
                self.print_step(
                    f"{host.name}: upsmon runs its SHUTDOWNCMD, and it begins to go down ({host.shutdown_time:g} s)"
                )
            if (
                name in self.note_times
                and name not in self.down
                and self.clock() >= self.note_times[name] + host.shutdown_time
            ):
                self.down.add(name)
                self.print_step(f"{host.name}: is down")
        if self.read_note(PRIMARY):
            self.print_step(f"{self.job.primary}: upsmon runs its SHUTDOWNCMD")

    def read_note(self, name: str) -> bool:
        """Take up a note, if there is a new one."""
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

    def ask_upsd(self, what: str) -> Any:
        """Ask the simulated upsd: for the "status" of its UPS, or the number of its "logins". None: it does not say."""
        try:
            with UpsdClient("127.0.0.1", self.port, 2.0) as client:
                return client.num_logins(UPS) if what == "logins" else client.get_var(UPS, "ups.status")
        except UpsdFailure:
            return None


def _read_line(source: int) -> str:
    """Read a line, and not a byte more. Without a buffer: no thread that reads on shall hold one when the program ends."""
    with os.fdopen(os.dup(source), "rb", buffering=0) as file:
        return file.readline(OWN_FILE_LIMIT).decode("utf-8", "replace")


def hold_drill(
    source: int,
    say: Output,
    out: Output,
    *,
    as_json: bool,
    room: Path | None = None,
    check: Callable[[], Sequence[str]] = find_holes,
    finder: Find = find_program,
) -> bool:
    """Hold the drill that the first line of SOURCE (a file descriptor) names, and say whether the order held. Raises RehearsalError.

    It ends when SOURCE does: then the outer half is gone, or wants it so. room: where its folder goes.
    """
    wrong = check()
    if wrong:
        raise RehearsalRefused(
            f"the drill runs only where it can do no harm, and here {'; '.join(wrong)}. Run `nut-shutdown drill`"
        )
    job = read_job(_read_line(source))
    stopped = threading.Event()

    def listen() -> None:
        with contextlib.suppress(OSError):
            while os.read(source, 1):
                pass
        stopped.set()

    threading.Thread(target=listen, daemon=True).start()
    with stop_on_signals(stopped.set):
        folder = Path(tempfile.mkdtemp(prefix="d", dir=room or os.environ.get("RUNTIME_DIRECTORY") or "/run"))
        try:
            seen = Drill(job, folder, say, stopped, finder=finder).run()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    data = seen.to_data(job)
    out(json.dumps(data, indent=2) if as_json else f"\n{drill_table(data)}")
    return bool(data["held"])
