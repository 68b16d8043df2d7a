# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The loop around the stages: polls the UPSes, takes the actions of decide_stages(), and saves the state.

It may be killed at any moment and restarted, because each action is saved before it is taken.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Optional

from ..base import clock as base_clock
from ..base import files, records
from ..base.systemd import Run
from ..base.text import LINE, one_line, printable
from ..conf import grammar
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..proxmox import control
from .fsd import FsdError, request_fsd
from .policy import Stage, StageGuest, UpsAddress
from .stage_guests import GuestSource, RunInThread, StageResolver
from .stages import (
    HOLD_SECONDS,
    Power,
    StageAction,
    StagesDecision,
    StagesState,
    combine_power,
    decide_stages,
    note_started,
    note_stopped,
    note_stopping,
    read_power,
)
from .watchdog import no_watchdog

VERSION = 1  # of the state file
MODE = 0o600  # of the state file

POLL = 2.0  # seconds between two rounds
REST_POLL = 5.0  # the same, while there is nothing to do
ASK_SECONDS = 2.0  # time limit for upsd
NOTIFY_SECONDS = 30.0  # time limit for a stage's program
REPEAT_SECONDS = 60.0  # a problem that persists is logged again after so long

Ask = Callable[[UpsAddress], Optional[Mapping[str, str]]]
Log = Callable[[str], None]


# The state file


def load_state(path: Path, boot: str) -> tuple[StagesState, str]:
    """Return the saved state, and a line for the log, "" if there is none. Never raises.

    From another boot only the guests managed by HA count: HA has noted that they were stopped on purpose, and does not start
    them. Proxmox VE has already started the others at boot, if they are to start.
    """
    fresh = StagesState(boot=boot)
    try:
        saved = records.read_record(StagesState, path, VERSION)
    except FileNotFoundError:
        return fresh, ""
    except (OSError, records.RecordError) as error:
        return (
            fresh,
            f"can't use {path} ({error}): the outage starts now, and guests that an earlier run shut down are not started",
        )
    if boot and saved.boot == boot:
        return saved, ""
    kept = {key: ha for key, ha in saved.guests_to_start.items() if ha}
    message = f"{path} is from another boot" + (f"; HA will be told to start {', '.join(kept)} again" if kept else "")
    return replace(fresh, guests_to_start=kept), message


def ask_upsd(ups: UpsAddress) -> Mapping[str, str] | None:
    """Return the variables of a UPS from upsd; None if there are none within ASK_SECONDS."""
    try:
        with UpsdClient(ups.host, ups.port, ASK_SECONDS) as client:
            return client.list_vars(ups.name)
    except (UpsdFailure, grammar.Unencodable):
        return None


def start_thread(job: Callable[[], None]) -> None:
    """Run a job in a daemon thread."""
    threading.Thread(target=job, daemon=True).start()


def stay_forever() -> bool:
    """Return True: the loop of the service never ends."""
    return True


BUSY = "another instance is running"
"""What run_stages() returns if another instance holds the lock."""


def run_stages(
    stages: Sequence[Stage],
    upses: Sequence[UpsAddress],
    *,
    state_path: Path,
    log: Log,
    run: Run,
    clock: control.Clock = base_clock.read_boottime,
    ask: Ask = ask_upsd,
    sleep: control.Pause = time.sleep,
    boot_id: Callable[[], str] = base_clock.read_boot_id,
    run_in_thread: RunInThread = start_thread,
    set_fsd: Callable[[Run], None] = request_fsd,
    finder: GuestSource | None = None,
    alive: Callable[[], None] = no_watchdog,
    stay: Callable[[], bool] = stay_forever,
) -> str:
    """Watch the UPSes and run the stages, for ever. Return BUSY, or the reason to rest when `stay` returned False.

    state_path: its directory is created. run: runs programs, from several threads at once; each command begins with `timeout`, so
    run must allow it the seconds in its third word, and a few more. set_fsd: tells upsmon, or raises FsdError. finder: looks up
    the guests; None: those that the policy names with their kind are all. alive: called in each round. stay: whether to go on
    when there is nothing left to do.
    """
    program = _StagesLoop(
        stages=tuple(stages),
        upses=tuple(upses),
        path=state_path,
        log=log,
        run=run,
        clock=clock,
        ask=ask,
        sleep=sleep,
        run_in_thread=run_in_thread,
        set_fsd=set_fsd,
        finder=finder,
        alive=alive,
        stay=stay,
    )
    try:
        with program.hold_lock():
            return program.watch_power(boot_id())
    except files.Busy:
        log(f"{BUSY}: exiting")
        return BUSY


@dataclass
class _GuestJob:
    """A guest being stopped or started, in a thread."""

    until: float  # when it is given up
    has_ended: bool = False


@dataclass
class _StagesLoop:
    """The loop and its threads. The state is changed only under the lock, and saved at each change."""

    stages: tuple[Stage, ...]
    upses: tuple[UpsAddress, ...]
    path: Path
    log: Log
    run: Run
    clock: control.Clock
    ask: Ask
    sleep: control.Pause
    run_in_thread: RunInThread
    set_fsd: Callable[[Run], None]
    finder: GuestSource | None
    alive: Callable[[], None]
    stay: Callable[[], bool]
    guests: StageResolver = field(init=False)
    state: StagesState = field(default_factory=StagesState, init=False)
    began: float = field(init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)
    _saved: str = field(default="", init=False)  # the text in the state file
    _jobs: dict[str, _GuestJob] = field(default_factory=dict, init=False)  # by StageGuest.key
    _logged_at: dict[str, float] = field(default_factory=dict, init=False)  # problem -> when it was logged last
    _logged_power: tuple[object, ...] = field(default=(), init=False)  # what the log said last about the power
    _logged_rest: str = field(default="", init=False)  # the reason to rest that was logged last
    _logged_unknown: set[str] = field(default_factory=set, init=False)  # readings logged as unknown in this outage

    def __post_init__(self) -> None:
        """Start the clock, and create the resolver of the stages' guests."""
        self.began = self.clock()
        self.guests = StageResolver(
            self.stages, self.finder, self.clock, self.run_in_thread, self.log_line, self.log_problem
        )

    @contextlib.contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Hold the lock against a second instance. Go on if the file can't be locked: a full disk must not stop the stages."""
        lock = self.path.with_name(f"{self.path.name}.lock")
        with contextlib.ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.hold_lock(lock, 0.0, pause=self.sleep))
                files.sweep_temporary_files([self.path.parent])
            except OSError as error:
                self.log_line(f"can't lock {lock}: {error.strerror}")
            yield

    def watch_power(self, boot: str) -> str:
        self.state, message = load_state(self.path, boot)
        if message:
            self.log_line(message)
        self._saved = "unknown"
        while True:
            self.alive()
            for action in self.run_round().actions:
                if action.kind != "rest":
                    self.run_action(action)
                elif not self.log_rest(action.reason):
                    return action.reason
            self.sleep(REST_POLL if self.state.is_idle and not self._jobs else POLL)

    def run_round(self) -> StagesDecision:
        """Poll the UPSes, decide, and save the new state."""
        powers = {ups.name: read_power(ups.name, self.ask(ups)) for ups in self.upses}
        self.drop_finished_jobs()
        with self._lock:
            seen = combine_power(powers, self.state.upses_on_battery)
            outage = bool(seen.on_battery) or "FSD" in seen.flags or self.state.outage_since is not None
            finding = self.guests.update_search(outage=outage)
            before, now = self.state, self.clock()
            decision = decide_stages(self.guests.stages, self.state, now, seen, frozenset(self._jobs), finding=finding)
            self.state = decision.state
            self.log_power_change(before, seen)
            self.log_unknown_readings(seen, now)
            self.save_state()
        return decision

    def log_power_change(self, before: StagesState, seen: Power) -> None:
        """Log a change of the power."""
        now = self.state
        power = (seen.on_battery, now.outage_since is None, "FSD" in seen.flags, "CAL" in seen.flags)
        if power == self._logged_power:
            return
        self._logged_power = power
        self._logged_rest = ""
        if "FSD" in seen.flags:
            self.log_line("upsd reports FSD")
        elif now.outage_since is None and before.outage_since is not None:
            self.log_line("the outage is over")
        elif seen.on_battery:
            self.log_line(f"on battery: {', '.join(sorted(seen.upses))}{_describe_readings(seen)}")
        elif "CAL" in seen.flags:
            self.log_line("calibration in progress: not an outage")
        elif seen.on_battery is None:
            self.log_line("cannot tell whether the mains are on: upsd does not report it")
        else:
            self.log_line("on mains")

    def log_unknown_readings(self, seen: Power, now: float) -> None:
        """Log once per outage which readings the stages need but no UPS reports."""
        if self.state.outage_since is None:
            self._logged_unknown.clear()
        elif seen.on_battery and now - self.state.outage_since >= HOLD_SECONDS:
            for what in ("charge", "runtime"):
                stages = [stage.name for stage in self.guests.stages if getattr(stage, what) is not None]
                if stages and getattr(seen, what) is None and what not in self._logged_unknown:
                    self._logged_unknown.add(what)
                    self.log_line(
                        f"battery.{what} is unknown: it can't begin a stage until a UPS reports it ({', '.join(stages)})"
                    )

    def run_action(self, action: StageAction) -> None:
        if action.kind == "notify":
            self.log_line(f"stage {action.stage} begins: {action.reason}")
            self.run_notify_program(action)
        elif action.kind == "stop_guests":
            for target in action.targets:
                self.start_job(target, self.stop_guest, control.longest_stop(target.seconds))
        elif action.kind == "start_guests":
            for target in action.targets:
                self.log_line(f"starting {target.guest}: {action.reason}")
                self.start_job(target, self.start_guest, control.START_SECONDS + 3 * control.STATUS_SECONDS)
        else:
            self.tell_upsmon(action)

    # Jobs, in threads

    def start_job(self, target: StageGuest, work: Callable[[StageGuest], None], seconds: float) -> None:
        job = _GuestJob(self.clock() + seconds)
        self._jobs[target.key] = job

        def work_in_background() -> None:
            try:
                work(target)
            except Exception as error:
                # drop_finished_jobs() gives the guest up, and the loop goes on
                self.log_line(f"{target.guest}: {type(error).__name__}: {error}")
            finally:
                job.has_ended = True

        self.run_in_thread(work_in_background)

    def drop_finished_jobs(self) -> None:
        """Drop the jobs that have ended, and give up those that have timed out."""
        for key, job in list(self._jobs.items()):
            if not job.has_ended and self.clock() < job.until:
                continue
            del self._jobs[key]
            with self._lock:
                if key in self.state.stop_decided_at and key not in self.state.stop_outcomes:
                    self.log_line(f"{key}: stop timed out; continuing without it")
                    self.state = note_stopped(self.state, key, "lost")
                elif not job.has_ended and key in self.state.guests_to_start:
                    self.log_line(f"{key}: start timed out; continuing without it")
                    self.state = note_started(self.state, key, False, self.clock())

    def update_state(self, new: Callable[[StagesState], StagesState]) -> None:
        with self._lock:
            self.state = new(self.state)
            self.save_state()

    def stop_guest(self, target: StageGuest) -> None:
        key, guest = target.key, target.guest
        # an earlier run of this program has begun to shut it down
        was_begun = key in self.state.guests_to_start
        if control.read_status(self.run, guest) == "stopped":
            self.log_line(
                f"{guest} is {'down, shut down before nut-shutdown was restarted' if was_begun else 'already down'}"
            )
            self.update_state(lambda state: note_stopped(state, key, "stopped" if was_begun else "already"))
            return
        self.update_state(lambda state: note_stopping(state, key))
        self.log_line(f"shutting down {guest}, within {target.seconds:g} s")
        result = control.stop_guest(self.run, guest, target.seconds, clock=self.clock, pause=self.sleep)
        self.log_line(result.message)
        outcome = "stopped" if was_begun and result.outcome == "already" else result.outcome
        self.update_state(lambda state: note_stopped(state, key, outcome, result.by_ha))

    def start_guest(self, target: StageGuest) -> None:
        key, guest = target.key, target.guest
        status = control.read_status(self.run, guest)
        if status == "running":
            self.log_line(f"{guest} is already running")
            self.update_state(lambda state: note_started(state, key, True, self.clock()))
            return
        code, output = control.start_guest(self.run, guest) if status else (1, "its status is unknown")
        if code:
            last = (output.strip().splitlines() or [""])[-1]
            self.log_line(f"can't start {guest}: {last}")
        self.update_state(lambda state: note_started(state, key, not code, self.clock()))
        if key not in self.state.guests_to_start:
            self.log_line(
                f"giving up on {guest}. Start it by hand: {guest.kind} start {guest.id}"
                if code
                else f"{guest} is running"
            )

    def run_notify_program(self, action: StageAction) -> None:
        stage = next(stage for stage in self.guests.stages if stage.name == action.stage)
        if not stage.notify:
            return
        message = stage.message or f"UPS: stage {stage.name} begins: {action.reason}"

        def run_program() -> None:
            code, output = self.run(["timeout", "--kill-after=5", f"{NOTIFY_SECONDS:g}", *stage.notify, message])
            if code:
                self.log_line(f"stage {stage.name}: {stage.notify[0]} failed ({code}): {one_line(output)[-200:]}")

        self.run_in_thread(run_program)

    def tell_upsmon(self, action: StageAction) -> None:
        try:
            self.set_fsd(self.run)
        except FsdError as error:
            self.log_problem(f"can't tell upsmon to set FSD: {one_line(str(error))}. Trying again every {POLL:g} s")
        else:
            self.log_line(f"told upsmon to set FSD: {action.reason}")
            self.update_state(lambda state: replace(state, fsd_set_at=self.clock()))

    # The log and the state file

    def log_rest(self, reason: str) -> bool:
        """Log once that there is nothing to do. Return whether to go on watching."""
        if self._logged_rest != reason:
            self._logged_rest = reason
            self.log_line(reason)
        return self.stay()

    def log_line(self, message: str) -> None:
        with self._lock:
            since = self.began if self.state.outage_since is None else self.state.outage_since
            self.log(f"+{max(0.0, self.clock() - since):.1f} s  {printable(message, LINE)}")

    def log_problem(self, message: str) -> None:
        """Log a problem, but not again within REPEAT_SECONDS."""
        last = self._logged_at.get(message)
        if last is None or self.clock() - last >= REPEAT_SECONDS:
            self._logged_at[message] = self.clock()
            self.log_line(message)

    def save_state(self) -> None:
        if self.state.is_idle:
            if self._saved:
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)
                self._saved = ""
            return
        text = records.dump_record(self.state, VERSION)
        if text == self._saved:
            return
        try:
            files.replace_files({self.path: text}, MODE)
            self._saved = text
        except files.WriteError as error:
            # going on matters more than being able to resume
            self.log_problem(str(error))


def _describe_readings(seen: Power) -> str:
    shown = [f"{seen.charge:g} %"] if seen.charge is not None else []
    shown += [f"{seen.runtime:g} s left"] if seen.runtime is not None else []
    return f" ({', '.join(shown)})" if shown else ""
