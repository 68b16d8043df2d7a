# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program around the stages: it asks the UPSes, does what decide_stages() says, and remembers, for as long as the host runs.

It may be killed at any moment and started again: what it was about to do is written down before it is done.
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
from .stage_guests import GuestSource, StageResolver, Start
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

VERSION = 1  # of the memory
MODE = 0o600

# How often the UPSes are asked while there is something to do, and while there is not; and how long upsd may take to answer
POLL = 2.0
REST_POLL = 5.0
ASK_SECONDS = 2.0
NOTIFY_SECONDS = 30.0
# The same complaint is made once in so many seconds
COMPLAIN = 60.0

Ask = Callable[[UpsAddress], Optional[Mapping[str, str]]]
Log = Callable[[str], None]


# The file of the memory


def load_state(path: Path, boot: str) -> tuple[StagesState, str]:
    """Return what is remembered, and what is to be said about it, "" if nothing. Never raises.

    Of another boot only this counts: a guest that HA works, and that we have stopped, is not started by HA, because it has
    noted that this guest is not to run. The others have been started, or not, by Proxmox.
    """
    fresh = StagesState(boot=boot)
    try:
        found = records.read_record(StagesState, path, VERSION)
    except FileNotFoundError:
        return fresh, ""
    except (OSError, records.RecordError) as error:
        return (
            fresh,
            f"{path} can't be used ({error}): the outage counts from now on, and the guests that it lists are not started",
        )
    if boot and found.boot == boot:
        return found, ""
    kept = {key: ha for key, ha in found.ours.items() if ha}
    words = f"{path} is from another boot" + (f"; HA will be told to start {', '.join(kept)} again" if kept else "")
    return replace(fresh, ours=kept), words


def ask_upsd(ups: UpsAddress) -> Mapping[str, str] | None:
    """Ask upsd for the variables of a UPS. Returns None if it gives none within ASK_SECONDS."""
    try:
        with UpsdClient(ups.host, ups.port, ASK_SECONDS) as client:
            return client.list_vars(ups.name)
    except (UpsdFailure, grammar.Unencodable):
        return None


def start_thread(job: Callable[[], None]) -> None:
    """Do a job beside the loop. What still runs when the program ends ends with it."""
    threading.Thread(target=job, daemon=True).start()


def stay_forever() -> bool:
    """Stay."""
    return True


BUSY = "another instance is running"
"""Why run() ended at once."""


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
    start: Start = start_thread,
    set_fsd: Callable[[Run], None] = request_fsd,
    finder: GuestSource | None = None,
    alive: Callable[[], None] = no_watchdog,
    stay: Callable[[], bool] = stay_forever,
) -> str:
    """Watch the UPSes, and do what the stages say, for ever. Returns why it ended: BUSY, or what was done when `stay` said no.

    state_path: its folder is made if it is not there. log
    takes a line for each step. run: runs programs, from several threads at once. Each of them is ended by `timeout`, whose seconds
    stand at place 2; run may give it up some seconds later, but not before. set_fsd: has upsmon set FSD, or raises FsdError. finder: finds
    the guests; None: those of the policy whose kind it gives are all. alive: called in each round. stay: whether to go on watching
    when nothing is left to do.
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
        start=start,
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
    """What is being done to a guest. until: when it is given up, if it has not ended."""

    until: float
    ended: bool = False


@dataclass
class _StagesLoop:
    """The loop, and what it does beside it. The state is changed under the lock alone, and written at each change."""

    stages: tuple[Stage, ...]
    upses: tuple[UpsAddress, ...]
    path: Path
    log: Log
    run: Run
    clock: control.Clock
    ask: Ask
    sleep: control.Pause
    start: Start
    set_fsd: Callable[[Run], None]
    finder: GuestSource | None
    alive: Callable[[], None]
    stay: Callable[[], bool]
    guests: StageResolver = field(init=False)
    state: StagesState = field(default_factory=StagesState, init=False)
    began: float = field(init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)
    _saved: str = field(default="", init=False)
    _jobs: dict[str, _GuestJob] = field(default_factory=dict, init=False)
    _complained: dict[str, float] = field(default_factory=dict, init=False)
    _told: tuple[object, ...] = field(default=(), init=False)
    _rests: str = field(default="", init=False)
    _unknown: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Begin now."""
        self.began = self.clock()
        self.guests = StageResolver(self.stages, self.finder, self.clock, self.start, self.log_line, self.log_repeated)

    @contextlib.contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Keep a second run out. Where no lock can be had, go on: a full disk must not cost the shutdown."""
        lock = self.path.with_name(f"{self.path.name}.lock")
        with contextlib.ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.hold_lock(lock, 0.0, pause=self.sleep))
                files.sweep_temporary_files([self.path.parent])
            except OSError as error:
                self.log_line(f"{lock} can't be locked: {error.strerror}")
            yield

    def watch_power(self, boot: str) -> str:
        self.state, words = load_state(self.path, boot)
        if words:
            self.log_line(words)
        self._saved = "what was there"
        while True:
            self.alive()
            for action in self.run_round().actions:
                if action.kind != "rest":
                    self.run_action(action)
                elif not self.log_rest(action.reason):
                    return action.reason
            self.sleep(REST_POLL if self.state.is_idle and not self._jobs else POLL)

    def run_round(self) -> StagesDecision:
        """Ask the UPSes, decide, and remember what was decided."""
        powers = {ups.name: read_power(ups.name, self.ask(ups)) for ups in self.upses}
        self.drop_finished_jobs()
        with self._lock:
            seen = combine_power(powers, self.state.upses)
            outage = bool(seen.on_battery) or "FSD" in seen.flags or self.state.since is not None
            finding = self.guests.update_search(outage=outage)
            before, now = self.state, self.clock()
            decision = decide_stages(self.guests.stages, self.state, now, seen, frozenset(self._jobs), finding=finding)
            self.state = decision.state
            self.log_power_change(before, seen)
            self.log_unknown_readings(seen, now)
            self.save_state()
        return decision

    def log_power_change(self, before: StagesState, seen: Power) -> None:
        """Log what is new about the power."""
        now = self.state
        told = (seen.on_battery, now.since is None, "FSD" in seen.flags, "CAL" in seen.flags)
        if told == self._told:
            return
        self._told = told
        self._rests = ""
        if "FSD" in seen.flags:
            self.log_line("upsd says FSD")
        elif now.since is None and before.since is not None:
            self.log_line("the outage is over")
        elif seen.on_battery:
            self.log_line(f"on battery: {', '.join(sorted(seen.upses))}{_describe_readings(seen)}")
        elif "CAL" in seen.flags:
            self.log_line("calibration in progress: not an outage")
        elif seen.on_battery is None:
            self.log_line("upsd does not say whether the mains are on")
        else:
            self.log_line("on mains")

    def log_unknown_readings(self, seen: Power, now: float) -> None:
        """Log, once in an outage, what the stages go by and no UPS says."""
        if self.state.since is None:
            self._unknown.clear()
        elif seen.on_battery and now - self.state.since >= HOLD_SECONDS:
            for what in ("charge", "runtime"):
                stages = [stage.name for stage in self.guests.stages if getattr(stage, what) is not None]
                if stages and getattr(seen, what) is None and what not in self._unknown:
                    self._unknown.add(what)
                    self.log_line(
                        f"battery.{what} is unknown: no stage begins because of it until a UPS reports it ({', '.join(stages)})"
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

    # Beside the loop

    def start_job(self, target: StageGuest, work: Callable[[StageGuest], None], seconds: float) -> None:
        job = _GuestJob(self.clock() + seconds)
        self._jobs[target.key] = job

        def work_in_background() -> None:
            try:
                work(target)
            except Exception as error:
                # whatever it is, the loop must go on, and the guest counts as done
                self.log_line(f"{target.guest}: {type(error).__name__}: {error}")
            finally:
                job.ended = True

        self.start(work_in_background)

    def drop_finished_jobs(self) -> None:
        """Forget the jobs that have ended, and those that should have long ago."""
        for key, job in list(self._jobs.items()):
            late = self.clock() >= job.until
            if not job.ended and not late:
                continue
            del self._jobs[key]
            with self._lock:
                if key in self.state.asked and key not in self.state.done:
                    self.log_line(f"{key}: stop timed out; continuing without it")
                    self.state = note_stopped(self.state, key, "lost")
                elif not job.ended and key in self.state.ours:
                    self.log_line(f"{key}: start timed out; continuing without it")
                    self.state = note_started(self.state, key, False, self.clock())

    def update_state(self, new: Callable[[StagesState], StagesState]) -> None:
        with self._lock:
            self.state = new(self.state)
            self.save_state()

    def stop_guest(self, target: StageGuest) -> None:
        key, guest = target.key, target.guest
        ours = key in self.state.ours
        if control.read_status(self.run, guest) == "stopped":
            self.log_line(f"{guest} is {'down, stopped before nut-shutdown was restarted' if ours else 'already down'}")
            self.update_state(lambda state: note_stopped(state, key, "stopped" if ours else "already"))
            return
        self.update_state(lambda state: note_stopping(state, key))
        self.log_line(f"shutting down {guest}, within {target.seconds:g} s")
        came = control.stop_guest(self.run, guest, target.seconds, clock=self.clock, pause=self.sleep)
        self.log_line(came.message)
        outcome = "stopped" if ours and came.outcome == "already" else came.outcome
        self.update_state(lambda state: note_stopped(state, key, outcome, came.by_ha))

    def start_guest(self, target: StageGuest) -> None:
        key, guest = target.key, target.guest
        stands = control.read_status(self.run, guest)
        if stands == "running":
            self.log_line(f"{guest} is already running: it was not started here")
            self.update_state(lambda state: note_started(state, key, True, self.clock()))
            return
        code, said = control.start_guest(self.run, guest) if stands else (1, "its status is unknown")
        if code:
            last = (said.strip().splitlines() or [""])[-1]
            self.log_line(f"{guest} could not be started: {last}")
        self.update_state(lambda state: note_started(state, key, not code, self.clock()))
        if key not in self.state.ours:
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
            code, said = self.run(["timeout", "--kill-after=5", f"{NOTIFY_SECONDS:g}", *stage.notify, message])
            if code:
                self.log_line(f"{stage.notify[0]} of stage {stage.name} failed with {code}: {one_line(said)[-200:]}")

        self.start(run_program)

    def tell_upsmon(self, action: StageAction) -> None:
        try:
            self.set_fsd(self.run)
        except FsdError as error:
            self.log_repeated(f"can't tell upsmon to set FSD: {one_line(str(error))}. Trying again every {POLL:g} s")
        else:
            self.log_line(f"told upsmon to set FSD: {action.reason}")
            self.update_state(lambda state: replace(state, fsd=self.clock()))

    # Words, and the file

    def log_rest(self, reason: str) -> bool:
        """There is nothing to do. Say so once, and whether to go on watching."""
        if self._rests != reason:
            self._rests = reason
            self.log_line(reason)
        return self.stay()

    def log_line(self, words: str) -> None:
        with self._lock:
            since = self.began if self.state.since is None else self.state.since
            self.log(f"+{max(0.0, self.clock() - since):.1f} s  {printable(words, LINE)}")

    def log_repeated(self, words: str) -> None:
        last = self._complained.get(words)
        if last is None or self.clock() - last >= COMPLAIN:
            self._complained[words] = self.clock()
            self.log_line(words)

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
            # the outage is worse than a run that can't go on where this one was killed
            self.log_repeated(str(error))


def _describe_readings(seen: Power) -> str:
    shown = [f"{seen.charge:g} %"] if seen.charge is not None else []
    shown += [f"{seen.runtime:g} s left"] if seen.runtime is not None else []
    return f" ({', '.join(shown)})" if shown else ""
