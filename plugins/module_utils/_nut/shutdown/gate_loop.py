# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate: on the primary, between FSD and poweroff. It waits until the other machines are down or given up.

NUT's primary powers off as soon as the secondaries have *begun* to shut down (clients/upsmon.c). So upsmon's SHUTDOWNCMD starts
nut-shutdown.service instead, which runs the gate and powers off when the gate has ended, for whatever reason. Nothing in this
file can power anything off.

gate.py decides and observe.py observes. This file has the loop: it waits, logs, and saves the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, TypeVar

from ..base import files, records
from ..base.cli import PrintText
from ..base.clock import CLOCK, Clock, format_time, name_system_start, read_boottime
from ..base.text import printable
from ..events.report import ReportEvent, ignore_event, name_host
from . import flag, report
from .gate import NEVER_SEEN, GateReading, GateState, advance_gate, dump_state, new_state, resume_state
from .policy import OWN_FILE_LIMIT, ShutdownPolicy
from .watchdog import no_watchdog
from .writer import BackgroundWriter

TICK = 1.0
"""Seconds between rounds."""

SYSTEMD = "systemd"
"""The value of `by` for the gate of a real shutdown, which nut-shutdown.service runs."""

_STEPS = 500  # lines that a report keeps
_STEP_LENGTH = 2000  # characters of a line
# upsmon has ordered the UPS to cut the power. Its flag is spoiled if there was no space
_ORDERED = (flag.SET, flag.SPOILED)

_T = TypeVar("_T")


def is_real_shutdown(policy: ShutdownPolicy, state_path: Path, by: str) -> bool:
    """Return whether upsmon started this shutdown: its POWERDOWNFLAG is there, or was when the gate started."""
    if by != SYSTEMD or not policy.flag:
        return False
    try:
        text = state_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = None
    return flag.read_flag(policy.flag) in _ORDERED or resume_state(text, name_system_start(), by, read_boottime()).flag


@dataclass
class Gate:
    """The gate. It resumes from the state of an earlier gate with the same `by`."""

    policy: ShutdownPolicy
    log: PrintText
    prober: Callable[[], Mapping[str, bool | None]]  # name -> whether the machine answers; takes about a second at most
    ask_upsd: Callable[[], Mapping[str, GateReading]]  # the latest readings; returns at once
    state_path: Path
    report_path: Path | None = None
    log_path: Path | None = None
    by: str = ""  # who runs it: SYSTEMD, or "hand"
    mode: str = "gate"  # for the report and the log: gate or drill
    clock: Clock = CLOCK
    alive: Callable[[], None] = no_watchdog  # called at the start of each round
    news: Callable[[], Sequence[str]] = tuple  # lines to log that background threads have left since the last call
    shout: PrintText | None = None  # writes to all terminals
    report_event: ReportEvent = ignore_event  # tells people
    state: GateState = field(default_factory=lambda: new_state("", "", 0.0), init=False)
    steps: list[tuple[float, str]] = field(default_factory=list, init=False)  # seconds since the start, line
    logged_once: set[str] = field(default_factory=set, init=False)  # messages that are not repeated

    def __post_init__(self) -> None:
        """Create the writer."""
        self.writer = BackgroundWriter(self.log)

    def run(self) -> report.GateReport:
        """Wait until the gate ends, and return its report."""
        self.writer.start()
        self.begin_or_resume()
        try:
            while self.state.ended is None:
                self.alive()
                begun = self.clock.now()
                for line in self.news():
                    self.log_step(begun, line)
                self.run_round(begun)
                if self.state.ended is None:
                    self.clock.sleep(min(max(TICK - (self.clock.now() - begun), 0.0), TICK))
        finally:
            self.writer.finish_writing(2.0)
        return self.make_report()

    def begin_or_resume(self) -> None:
        now = self.clock.now()
        text = self.read_old_state()
        self.state = resume_state(text, self.clock.boot(), self.by, now)
        # a gate run by hand must never make the UPS cut the power
        if self.by == SYSTEMD and self.policy.flag and not self.state.flag:
            self.state = replace(self.state, flag=flag.read_flag(self.policy.flag) in _ORDERED)
        self.save_state(changed=False)
        names = ", ".join(f"{machine.name} (at most {machine.shutdown_limit:g} s)" for machine in self.policy.machines)
        if self.state.ended:
            self.log_step(now, f"the gate has already ended: {self.state.ended[1]}")
        elif self.state.began < now:
            self.log_step(now, "the gate was restarted and continues")
        else:
            if text is not None:
                self.log_step(now, f"{self.state_path} is damaged or from another shutdown: starting over")
            self.log_step(now, f"the gate begins: {f'waiting for {names}' if names else 'no machines to wait for'}")
            self.report_event(
                "gate-begun", name_host(), f"Waiting for {names}." if names else "No machines to wait for."
            )
        self.keep_flag(now)
        self.save_state(changed=True)

    def read_old_state(self) -> str | None:
        try:
            with self.state_path.open("rb") as file:
                return file.read(OWN_FILE_LIMIT).decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            self.log(f"can't read {self.state_path}: {error.strerror}")
            return None

    def run_round(self, begun: float) -> None:
        seen = self.call_safely("probing the machines", self.prober)
        readings = self.call_safely("asking upsd", self.ask_upsd)
        now = self.clock.now()
        before = self.state
        self.state, decision, lines = advance_gate(self.policy, before, now, seen, readings, asked=begun)
        for line in lines:
            self.log_step(now, line)
        self.report_machines(before)
        self.keep_flag(now)
        if decision.go:
            self.log_step(now, f"the gate ends ({decision.rule}): {decision.reason}")
            self.state = replace(self.state, ended=(decision.rule, decision.reason))
            took = f"{now - self.state.began:.0f} s after the shutdown began"
            self.report_event("gate-ended", name_host(), f"It is {took}: {decision.reason}.")
        self.save_state(changed=bool(lines) or decision.go)

    def report_machines(self, before: GateState) -> None:
        """Report which machines have gone down, or have been given up, in this round."""
        elapsed = self.state.now - self.state.began
        for machine in self.policy.machines:
            old = before.machines.get(machine.name, NEVER_SEEN)
            new = self.state.machines.get(machine.name, NEVER_SEEN)
            if new.down is not None and old.down is None:
                words = "Nobody can tell, but its usual time has passed." if new.silent is None else ""
                self.report_event("machine-down", machine.name, words or f"It took {elapsed:.0f} s.")
            elif new.given_up and not old.given_up and new.down is None:
                self.report_event("machine-given-up", machine.name, f"It is still up after {elapsed:.0f} s.")

    def keep_flag(self, now: float) -> None:
        """Write POWERDOWNFLAG again if upsmon has written it, but it is missing, or empty because there was no space.

        A restarted upsmon removes it. Without it the UPS does not cut the power, and machines that are already down stay off when
        the mains return.
        """
        path = self.policy.flag
        if not path or not self.is_power_cut_ordered(now) or (status := flag.read_flag(path)) == flag.SET:
            return
        try:
            flag.write_flag(path)
        except OSError as error:
            message = (
                f"can't write {path}: {error.strerror}. The UPS will NOT cut the power: machines that are down stay off when "
                "the mains return, until you start them"
            )
            if message not in self.logged_once:
                self.logged_once.add(message)
                self.log_step(now, message)
                (self.shout or self.log)(message)
            return
        why = "was missing" if status == flag.MISSING else "was empty or damaged"
        self.log_step(
            now, f"{path} {why}; wrote it again: it tells the UPS to cut the power, so that everything restarts"
        )

    def is_power_cut_ordered(self, now: float) -> bool:
        """Return whether the UPS must cut the power: upsmon has written its flag, or upsd reports FSD though it has not."""
        if not self.state.flag and self.state.by == SYSTEMD and any(ups.fsd for ups in self.state.power.values()):
            self.log_step(now, f"upsd reports FSD, but upsmon has not written {self.policy.flag}")
            self.state = replace(self.state, flag=True)
        return self.state.flag

    def call_safely(self, what: str, work: Callable[[], Mapping[str, _T]]) -> Mapping[str, _T]:
        """Return work(), or {} if it raises: an unknown state is better than a gate that ends without having waited."""
        try:
            return work()
        except Exception as error:
            message = f"{what} failed: {type(error).__name__}: {error}"
            if message not in self.logged_once:
                self.logged_once.add(message)
                self.log_step(self.clock.now(), message)
            return {}

    def log_step(self, now: float, message: str) -> None:
        elapsed = max(now - self.state.began, 0.0)
        message = printable(message, _STEP_LENGTH)
        line = f"+{elapsed:.1f} s  {message}"
        self.log(line)
        self.steps.append((elapsed, message))
        del self.steps[:-_STEPS]
        if self.log_path:
            kind = "" if self.mode == "gate" else f"{self.mode}: "
            self.writer.queue_line(self.log_path, f"{format_time(self.clock.wall())} {kind}{line}")

    def save_state(self, *, changed: bool) -> None:
        text = dump_state(self.state)
        try:
            files.replace_private_file(self.state_path, text)
        except (OSError, files.WriteError) as error:
            message = f"can't write {self.state_path}: {error} If the gate is restarted now, it starts over"
            if message not in self.logged_once:
                self.logged_once.add(message)
                self.log(message)
        if changed and self.report_path:
            self.writer.queue_text(self.report_path, records.dump_record(self.make_report(), report.VERSION))

    def make_report(self) -> report.GateReport:
        began = self.clock.wall() - (self.clock.now() - self.state.began)
        return report.make_report(self.policy, self.state, self.mode, began, self.steps)
