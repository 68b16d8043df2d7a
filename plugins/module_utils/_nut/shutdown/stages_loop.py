# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The loop around the stages: polls the UPSes, takes the actions of decide_stages(), and saves the state.

It may be killed at any moment and restarted, because each action is saved before it is taken. It is a long file because everything
here shares the state and its lock.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Optional

from ..base import clock as base_clock
from ..base import files, paths, records
from ..base.systemd import Run
from ..base.text import LINE, one_line, printable
from ..conf import grammar
from ..conf.feeds import Feeds
from ..events.report import ReportEvent, ignore_event, name_host
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..net.readings import HOLD_SECONDS
from ..proxmox import control, guests, running, startup
from ..proxmox.cluster import HaSwitch
from ..proxmox.guests import Guest
from .boot_starts import BootFinder, BootStarts
from .fsd import FsdError, request_fsd
from .ha_keeper import HaKeeper
from .policy import ReturnPolicy, Stage, StageGuest, UpsAddress
from .recharge import Recharge
from .return_keeper import ReturnKeeper
from .returns import ReturnResult, ReturnView, spell_result
from .stage_guests import GuestSource, RunInThread, StageResolver
from .stages import (
    VERSION,
    Power,
    StageAction,
    StagesDecision,
    StagesState,
    combine_power,
    decide_stages,
    note_given_up,
    note_running,
    note_settled,
    note_started,
    note_started_late,
    note_stopped,
    note_stopping,
    read_power,
)
from .watchdog import no_watchdog

MODE = 0o600  # of the state file

POLL = 2.0  # seconds between two rounds
REST_POLL = 5.0  # the same, while there is nothing to do
ASK_SECONDS = 2.0  # time limit for upsd
SYSTEMCTL_SECONDS = 5.0  # time limit for systemctl
NOTIFY_SECONDS = 30.0  # time limit for a stage's program
REPEAT_SECONDS = 60.0  # a problem that persists is logged again after so long

MakeKeeper = Callable[[str, Callable[[str], None], Callable[[ReturnResult], None]], ReturnKeeper]
"""Returns the keeper of the return, given the boot, the log, and what tells the user."""
FindStarts = Callable[[Sequence[int]], BootFinder]
"""Returns a finder, given the numbers of the guests that a stage shut down before the boot."""
Ask = Callable[[UpsAddress], Optional[Mapping[str, str]]]
Log = Callable[[str], None]


# The state file


def load_state(path: Path, boot: str) -> tuple[StagesState, str]:
    """Return the saved state, and a line for the log, "" if there is none. Never raises.

    From another boot only the guests that must run again count.
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
    kept = saved.after_boot(boot)
    message = f"{path} is from another boot"
    if kept.guests_to_start:
        message += f"; HA will be told to start {', '.join(kept.guests_to_start)} again"
    if kept.owed:
        message += f"; a stage had shut down {', '.join(kept.owed)}: started again unless Proxmox VE does it"
    return kept, message


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
    minsupplies: int = 1,
    state_path: Path,
    log: Log,
    run: Run,
    clock: control.Clock = base_clock.read_boottime,
    ask: Ask = ask_upsd,
    sleep: control.Pause = time.sleep,
    boot_id: Callable[[], str] = base_clock.name_system_start,
    run_in_thread: RunInThread = start_thread,
    set_fsd: Callable[[Run], None] = request_fsd,
    finder: GuestSource | None = None,
    alive: Callable[[], None] = no_watchdog,
    stay: Callable[[], bool] = stay_forever,
    root: Path = Path("/"),
    ha: HaSwitch | None = None,
    disarms_ha: bool = False,
    find_starts: FindStarts | None = None,
    report_event: ReportEvent = ignore_event,
    make_keeper: MakeKeeper | None = None,
    after: ReturnPolicy | None = None,
) -> str:
    """Watch the UPSes and run the stages, for ever. Return BUSY, or the reason to rest when `stay` returned False.

    minsupplies: how many of this host's power supplies must be fed. state_path: its directory is created. run: runs programs, from
    several threads at once; each command begins with `timeout`, so run must allow it the seconds in its third word, and a few more.
    set_fsd: tells upsmon, or raises FsdError. finder: looks up the guests; None: those that the policy names with their kind are
    all. alive: called in each round. stay: whether to go on when there is nothing left to do. root: of the file system with
    /etc/pve, /proc and /run. ha: None on a host without HA. disarms_ha: whether it is to be disarmed during an outage.
    find_starts: returns a finder of the guests that may have to be started after a boot; None: nothing is started then. make_keeper:
    returns what wakes machines after an outage; None: nobody is awaited. after: what is done after an outage. report_event: tells people.
    """
    program = _StagesLoop(
        stages=tuple(stages),
        upses=tuple(upses),
        feeds=Feeds({ups.name: ups.power for ups in upses}, minsupplies),
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
        root=root,
        ha=HaKeeper(ha, disarms_ha, clock, run_in_thread) if ha else None,
        report_event=report_event,
        recharge=Recharge(after or ReturnPolicy()),
    )
    try:
        with program.hold_lock():
            program.load_state(boot_id())
            program.start_late_guests(find_starts)
            if make_keeper:
                program.keeper = make_keeper(program.state.boot, program.log_line, program.tell_return)
            return program.watch_power()
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
    feeds: Feeds
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
    root: Path
    ha: HaKeeper | None
    report_event: ReportEvent
    recharge: Recharge
    guests: StageResolver = field(init=False)
    state: StagesState = field(default_factory=StagesState, init=False)
    began: float = field(init=False)
    late: BootStarts | None = field(default=None, init=False)
    keeper: ReturnKeeper | None = field(default=None, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)
    _saved: str = field(default="", init=False)  # the text in the state file
    _jobs: dict[str, _GuestJob] = field(default_factory=dict, init=False)  # by StageGuest.key
    _announced: set[str] = field(default_factory=set, init=False)  # guests whose start was logged
    _may_start_guests: bool = field(default=True, init=False)  # whether Proxmox VE may be starting guests, as at boot
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

    def load_state(self, boot: str) -> None:
        """Read the state file."""
        self.state, message = load_state(self.path, boot)
        if message:
            self.log_line(message)
        self._saved = "unknown"

    def start_late_guests(self, find_starts: FindStarts | None) -> None:
        """Start, in a thread, the guests that Proxmox VE does not start after a boot, or can't yet."""
        owed = self.state.owed
        if find_starts is None:
            self.settle_starts(owed)  # this host has no guests any more
            return
        self.late = late = BootStarts(
            find_starts([guests.parse_key(key).id for key in owed]),
            self.path.with_name(Path(paths.BOOT_STARTS).name),
            self.state.boot,
            self.run,
            self.log_line,
            self,
            owed=owed,
            hold=lambda: self.recharge.hold if self.state.outage_since is None else "the power is out",
            clock=self.clock,
            pause=self.sleep,
            root=self.root,
            booted=base_clock.read_system_start(self.root),
        )

        def run_to_end() -> None:
            try:
                late.run_to_end()
            except Exception as error:
                # the stages go on without it
                self.log_line(f"can't start guests after the boot: {type(error).__name__}: {error}")

        self.run_in_thread(run_to_end)

    def watch_power(self) -> str:
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
        answers = {ups.name: self.ask(ups) for ups in self.upses}
        powers = {name: read_power(name, answer) for name, answer in answers.items()}
        self.drop_finished_jobs()
        with self._lock:
            seen = combine_power(powers, self.state.upses_on_battery, self.feeds)
            outage = bool(seen.on_battery) or "FSD" in seen.flags or self.state.outage_since is not None
            finding = self.guests.update_search(outage=outage)
            self.find_late_starts()
            self.forget_running()
            before, now = self.state, self.clock()
            hold = self.recharge.update(seen, now)
            if hold and seen.on_battery is False and self.state.guests_to_start:
                self.log_problem(f"the guests are not started yet: {hold}")
            decision = decide_stages(
                self.guests.stages, self.state, now, seen, frozenset(self._jobs), finding=finding, hold=hold
            )
            self.state = decision.state
            self.log_power_change(before, seen)
            self.log_unknown_readings(seen, now)
            self.save_state()
        if self.ha:
            since, fsd = self.state.outage_since, "FSD" in seen.flags
            seconds = None if since is None else now - since
            self.ha.update(outage_seconds=seconds, fsd=fsd, on_mains=seen.on_battery is False)
        if self.keeper:
            is_outage = decision.state.outage_since is not None
            self.keeper.update(
                ReturnView(
                    None if seen.on_battery is None and not is_outage else is_outage,
                    guests=self.list_pending_guests(),
                    hold=self.recharge.hold,
                    since=now if decision.state.mains_since is None else decision.state.mains_since,
                ),
                [name for name, answer in answers.items() if answer is not None],
            )
        return decision

    def list_pending_guests(self) -> tuple[str, ...]:
        """Return the guests that are still to be started after an outage or a boot."""
        pending = self.late.pending if self.late else ()
        return (*pending, *(f"{guests.parse_key(key)}: a stage had shut it down" for key in self.state.guests_to_start))

    def find_late_starts(self) -> None:
        """Have guests shut down that Proxmox VE starts, at boot, after a stage has found them down."""
        down = [key for key, outcome in self.state.stop_outcomes.items() if outcome in ("already", "gone")]
        if not down:
            self._may_start_guests = True
        elif self._may_start_guests:
            # looked at before the guests: one that is started in between is found in this round
            self._may_start_guests = startup.read_state(
                lambda command: running.run_bounded(self.run, SYSTEMCTL_SECONDS, *command)
            ) in (startup.STARTING, "inactive")
            late = self.list_running(down)
            for key in late:
                self.log_line(f"{guests.parse_key(key)} has been started meanwhile")
            self.state = note_started_late(self.state, late)

    def list_running(self, keys: Iterable[str]) -> list[str]:
        """Return which of these guests have a process."""
        known = {key: guests.parse_key(key) for key in keys}
        return [key for key, guest in known.items() if running.find_process(guest.kind, guest.id, self.root)]

    def forget_running(self) -> None:
        """Forget guests whose start has failed, or that have been given up, once they run: the user has started them.

        A guest that the user then stops again is not started.
        """
        if self.state.given_up and (started := self.list_running(self.state.given_up)):
            self.state = note_running(self.state, started)
        if self.state.outage_since is None:
            for key in self.list_running(set(self.state.failed_starts).difference(self._jobs)):
                self.log_line(f"{guests.parse_key(key)} is running")
                self.state = note_started(self.state, key, "started", self.clock())

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
            self.report_event("stage-begun", action.stage, f"The reason: {action.reason}.")
            stage = next(stage for stage in self.guests.stages if stage.name == action.stage)
            self.run_notify_program(stage, stage.message or f"UPS: stage {stage.name} begins: {action.reason}")
        elif action.kind == "stop_guests":
            for target in action.targets:
                self._announced.discard(target.key)
                self.start_job(target, self.stop_guest, control.longest_stop(target.seconds))
        elif action.kind == "start_guests":
            for target in action.targets:
                if target.key not in self._announced:
                    self.log_line(f"starting {target.guest}: {action.reason}")
                    self._announced.add(target.key)
                self.start_job(target, self.start_guest, control.START_SECONDS + 3 * running.STATUS_SECONDS)
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
                    self.report_event("guest-stuck", str(guests.parse_key(key)), "The shutdown goes on without it.")
                    self.state = note_stopped(self.state, key, "lost")
                elif not job.has_ended and key in self.state.guests_to_start:
                    self.note_start(guests.parse_key(key), control.StartResult("failed", "start timed out"))

    def update_state(self, new: Callable[[StagesState], StagesState]) -> None:
        with self._lock:
            self.state = new(self.state)
            self.save_state()

    def stop_guest(self, target: StageGuest) -> None:
        key, guest = target.key, target.guest
        # an earlier run of this program has begun to shut it down
        was_begun = key in self.state.guests_to_start
        status = running.read_status(self.run, guest.kind, guest.id, self.root)
        if status == running.STOPPED:
            self.log_line(
                f"{guest} is {'down, shut down before nut-shutdown was restarted' if was_begun else 'already down'}"
            )
            self.update_state(lambda state: note_stopped(state, key, "stopped" if was_begun else "already"))
            return
        if status == running.RUNNING:
            self.update_state(lambda state: note_stopping(state, key))
        self.log_line(f"shutting down {guest}, within {target.seconds:g} s")
        result = control.stop_guest(self.run, guest, target.seconds, self.root, clock=self.clock, pause=self.sleep)
        self.log_line(result.message)
        kind = "guest-down" if result.outcome in ("stopped", "already", "gone") else "guest-stuck"
        self.report_event(kind, str(guest), f"{result.message}.")
        outcome = "stopped" if was_begun and result.outcome == "already" else result.outcome
        self.update_state(lambda state: note_stopped(state, key, outcome, result.by_ha))

    def start_guest(self, target: StageGuest) -> None:
        guest = target.guest
        status = running.read_status(self.run, guest.kind, guest.id, self.root)
        if status == running.RUNNING:
            self.log_line(f"{guest} is already running")
            result = control.StartResult("started")
        elif status is None:
            result = control.StartResult("failed", "its status is unknown")
        else:
            result = control.start_guest(self.run, guest, self.root)
            if result.outcome == "started":
                self.log_line(f"{guest} is running")
                self.report_event("guest-running", str(guest))
        self.note_start(guest, result)

    def note_start(self, guest: Guest, result: control.StartResult) -> None:
        new = note_started(self.state, guest.key, result.outcome, self.clock())
        if guest.key in new.guests_to_start:
            self.log_problem(f"can't start {guest} yet: {result.message}. Trying again")
        elif result.outcome != "started":
            self.give_up_start(guest, result)
        self.update_state(lambda state: note_started(state, guest.key, result.outcome, self.clock()))

    # Guests that are started, or given up, after an outage or a boot (StartsKeeper)

    def settle_starts(self, keys: Collection[str]) -> None:
        """Forget that guests are owed."""
        self.update_state(lambda state: note_settled(state, keys))

    def give_up_start(self, guest: Guest, result: control.StartResult) -> None:
        """Tell that a guest is not started: in the log, with the stages' programs, and in the state file."""
        reason = f"{guest}: {printable(one_line(result.message), LINE)}"
        if result.outcome != "impossible":
            # `impossible`: it does not exist here any more, so there is nothing to start by hand
            self.update_state(lambda state: note_given_up(state, guest.key, reason))
            reason += f". Start it by hand: {guest.kind} start {guest.id}"
        self.log_line(f"giving up on {reason}")
        self.report_event("guest-not-started", str(guest), f"{reason}.")
        self.notify_user(f"UPS: a guest is not running again: {reason}")

    def tell_return(self, result: ReturnResult) -> None:
        """Tell how the return after an outage ended."""
        words = spell_result(result)
        name = "return-incomplete" if result.missing or result.guests else "return-complete"
        self.report_event(name, name_host(), f"{words}.")
        self.notify_user(f"UPS: {words}")

    def notify_user(self, message: str) -> None:
        """Run the program of each stage, each program once."""
        for stage in {stage.notify: stage for stage in self.guests.stages if stage.notify}.values():
            self.run_notify_program(stage, message)

    def run_notify_program(self, stage: Stage, message: str) -> None:
        if not stage.notify:
            return

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
        if self.state.is_empty:
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
