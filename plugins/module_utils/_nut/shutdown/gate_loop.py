# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate: on the primary, between FSD and its own poweroff. It ends when the other machines are down, or must be left alone.

NUT's primary goes on when a secondary *begins* to go down (clients/upsmon.c). So upsmon's SHUTDOWNCMD starts the unit
nut-shutdown.service, which runs this, and powers off when this has ended, however it ended. Nothing in here can power
anything off.

gate.py decides, from data alone; observe.py looks and asks. This is the loop: it waits, tells, and remembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, TypeVar

from ..base import files, records
from ..base.cli import PrintText
from ..base.clock import CLOCK, Clock, format_time, read_boot_id, read_boottime
from ..base.text import printable
from . import flag, report
from .gate import GateReading, GateState, advance_gate, dump_state, new_state, resume_state
from .policy import OWN_FILE_LIMIT, ShutdownPolicy
from .watchdog import no_watchdog
from .writer import BackgroundWriter

TICK = 1.0
"""Seconds from one look at the machines to the next."""

SYSTEMD = "systemd"
"""Who runs the gate of a real shutdown."""

_STEPS = 500  # lines of a report
_HISTORY_TEXT = 2000  # characters of a line
# a flag that upsmon has left, if only an empty one, because there was no space
_ORDERED = (flag.SET, flag.SPOILED)

_T = TypeVar("_T")


def is_real_shutdown(policy: ShutdownPolicy, state_path: Path, by: str) -> bool:
    """Return whether upsmon has begun this shutdown: it has left its POWERDOWNFLAG, or had when the gate began."""
    if by != SYSTEMD or not policy.flag:
        return False
    try:
        text = state_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = None
    return flag.read_flag(policy.flag) in _ORDERED or resume_state(text, read_boot_id(), by, read_boottime()).flag


@dataclass
class Gate:
    """The gate, and what it works with. One gate goes on where another one of the same `by` was ended."""

    policy: ShutdownPolicy
    log: PrintText  # takes each line
    prober: Callable[[], Mapping[str, bool | None]]  # does each machine answer? It takes at most a second or so
    ask_upsd: Callable[[], Mapping[str, GateReading]]  # what upsd said last; it takes no time
    state_path: Path
    report_path: Path | None = None
    log_path: Path | None = None
    by: str = ""  # who runs it: SYSTEMD, or somebody else
    mode: str = "gate"  # a word for the report, such as gate or drill
    clock: Clock = CLOCK
    # called in each round, so that somebody else notices when no round comes to its end
    alive: Callable[[], None] = no_watchdog
    # what has been done beside it since it was asked last, in words
    news: Callable[[], Sequence[str]] = tuple
    shout: PrintText | None = None  # tells everybody who is logged in
    state: GateState = field(default_factory=lambda: new_state("", "", 0.0), init=False)
    steps: list[tuple[float, str]] = field(default_factory=list, init=False)
    told: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Make what writes."""
        self.writer = BackgroundWriter(self.log)

    def run(self) -> report.GateReport:
        """Wait until the gate opens, and return what was seen. That is all it does: who called it goes on."""
        self.writer.start()
        self.begin_or_resume()
        try:
            while self.state.ended is None:
                self.alive()
                begun = self.clock.now()
                for words in self.news():
                    self.log_step(begun, words)
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
        # by hand it is no shutdown, and nothing may make the UPS cut the power
        if self.by == SYSTEMD and self.policy.flag and not self.state.flag:
            self.state = replace(self.state, flag=flag.read_flag(self.policy.flag) in _ORDERED)
        self.save_state(changed=False)
        names = ", ".join(f"{host.name} (at most {host.shutdown_limit:g} s)" for host in self.policy.machines)
        if self.state.ended:
            self.log_step(now, f"the gate has already ended: {self.state.ended[1]}")
        elif self.state.began < now:
            self.log_step(now, "the gate was restarted, and continues")
        else:
            if text is not None:
                self.log_step(now, f"{self.state_path} is from another shutdown, or damaged: starting over")
            self.log_step(now, f"the gate begins: {f'waiting for {names}' if names else 'no machines to wait for'}")
        self.keep_flag(now)
        self.save_state(changed=True)

    def read_old_state(self) -> str | None:
        try:
            with self.state_path.open("rb") as file:
                return file.read(OWN_FILE_LIMIT).decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            self.log(f"{self.state_path} can't be read: {error.strerror}")
            return None

    def run_round(self, begun: float) -> None:
        seen = self.call_safely("probing the machines", self.prober)
        readings = self.call_safely("asking upsd", self.ask_upsd)
        now = self.clock.now()
        self.state, decision, words = advance_gate(self.policy, self.state, now, seen, readings, asked=begun)
        for line in words:
            self.log_step(now, line)
        self.keep_flag(now)
        if decision.go:
            self.log_step(now, f"the gate ends ({decision.rule}): {decision.reason}")
            self.state = replace(self.state, ended=(decision.rule, decision.reason))
        self.save_state(changed=bool(words) or decision.go)

    def keep_flag(self, now: float) -> None:
        """Write POWERDOWNFLAG again if upsmon has left it and it is gone, or empty because there was no space for its text.

        An upsmon that is restarted removes it. Without it the UPS does not cut the power, and machines that are down already stay
        off when the mains return.
        """
        path = self.policy.flag
        if not path or not self.is_power_cut_ordered(now) or (found := flag.read_flag(path)) == flag.SET:
            return
        try:
            flag.write_flag(path)
        except OSError as error:
            words = (
                f"{path} can't be written: {error.strerror}. The UPS will NOT cut the power: machines that are down stay off when "
                "the mains return, until you start them"
            )
            if words not in self.told:
                self.told.add(words)
                self.log_step(now, words)
                (self.shout or self.log)(words)
            return
        why = "was missing" if found == flag.MISSING else "was empty or damaged"
        self.log_step(
            now, f"{path} {why}; wrote it again: it tells the UPS to cut the power, so that everything restarts"
        )

    def is_power_cut_ordered(self, now: float) -> bool:
        """Return whether the UPS must cut the power: upsmon has left its flag, or could not, and FSD shows that it began this."""
        if not self.state.flag and self.state.by == SYSTEMD and any(said.fsd for said in self.state.power.values()):
            self.log_step(now, f"upsd reports FSD, but upsmon has not written {self.policy.flag}")
            self.state = replace(self.state, flag=True)
        return self.state.flag

    def call_safely(self, what: str, work: Callable[[], Mapping[str, _T]]) -> Mapping[str, _T]:
        """Do it. If it fails, nobody can tell; that is better than to end without having waited."""
        try:
            return work()
        except Exception as error:
            words = f"{what} failed: {type(error).__name__}: {error}"
            if words not in self.told:
                self.told.add(words)
                self.log_step(self.clock.now(), words)
            return {}

    def log_step(self, now: float, words: str) -> None:
        elapsed = max(now - self.state.began, 0.0)
        words = printable(words, _HISTORY_TEXT)
        line = f"+{elapsed:.1f} s  {words}"
        self.log(line)
        self.steps.append((elapsed, words))
        del self.steps[:-_STEPS]
        if self.log_path:
            kind = "" if self.mode == "gate" else f"{self.mode}: "
            self.writer.queue_line(self.log_path, f"{format_time(self.clock.wall())} {kind}{line}")

    def save_state(self, *, changed: bool) -> None:
        text = dump_state(self.state)
        try:
            files.replace_private_file(self.state_path, text)
        except (OSError, files.WriteError) as error:
            words = f"{self.state_path} can't be written: {error} If the gate is restarted now, it starts over"
            if words not in self.told:
                self.told.add(words)
                self.log(words)
        if changed and self.report_path:
            self.writer.queue_text(self.report_path, records.dump_record(self.make_report(), report.VERSION))

    def make_report(self) -> report.GateReport:
        began = self.clock.wall() - (self.clock.now() - self.state.began)
        return report.make_report(self.policy, self.state, self.mode, began, self.steps)
