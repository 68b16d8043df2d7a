# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done in an outage before the battery is low: stop these guests, tell somebody, then FSD. And undone if it ends.

decide() is a function of data: from the stages, what is remembered and what the UPSes say, to what is to be done. The program around
it is stages_loop.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..net import readings
from ..proxmox import guests
from .policy import Stage, StageGuest

# The mains are back when they have been back for so long: until then it is the same outage, and no guest is started
STABLE_SECONDS = 30.0
# A charge or a runtime counts when it has been that low for so long. Some UPSes report nonsense when they change to battery.
HOLD_SECONDS = 6.0
# While a test runs, a UPS may be on battery without saying that it is one (no CAL); no test takes longer
TEST_SECONDS = 60.0
# How long upsd is given to show FSD before upsmon is told again
FSD_AGAIN_SECONDS = 15.0
# How often a guest is started that does not start, and how long is waited in between
START_TRIES = 3
START_AGAIN_SECONDS = 10.0

# no flag of NUT's: ups.test.result says that a test runs
TEST = "TEST"


@dataclass(frozen=True)
class Power:
    """How the power stands."""

    on_battery: bool | None = None  # None if nobody can tell
    charge: float | None = None  # percent, of the emptiest UPS on battery
    runtime: float | None = None  # seconds, of the emptiest UPS on battery
    flags: frozenset[str] = frozenset()  # of ups.status, of all
    upses: frozenset[str] = frozenset()  # the names of those on battery


@dataclass(frozen=True)
class StagesState:
    """What is remembered, also across a restart. Times are seconds of CLOCK_BOOTTIME, which go on while the program does not run."""

    boot: str = ""
    # of this outage
    since: float | None = None  # when the first UPS went on battery; None: no outage
    mains: float | None = None  # since when the mains are back; None: they are not
    upses: frozenset[str] = frozenset()  # which were on battery
    low: Mapping[str, float] = field(
        default_factory=dict
    )  # "stage charge" or "stage runtime" -> since when it has been so low
    begun: Mapping[str, float] = field(default_factory=dict)  # stage -> when
    asked: Mapping[str, float] = field(default_factory=dict)  # guest -> when its stop was decided
    done: Mapping[str, str] = field(default_factory=dict)  # guest -> what came of its stop
    fsd: float | None = None  # when upsmon was told last
    down: float | None = None  # since when upsd says FSD, or has said it last; None: the shutdown has not begun
    # beyond it
    ours: Mapping[str, bool] = field(
        default_factory=dict
    )  # guests that we stopped and must start again -> whether HA works them
    tries: Mapping[str, tuple[int, float]] = field(
        default_factory=dict
    )  # guest -> how often its start failed, and when last

    def __post_init__(self) -> None:
        """Raise ValueError if it names impossible guests."""
        if not all(_is_key(key) for key in self.ours):
            raise ValueError("it names impossible guests")

    @property
    def is_idle(self) -> bool:
        """Return whether there is no outage, and nothing left of one: nothing that is worth remembering."""
        return self.since is None and not self.ours

    def after_outage(self) -> StagesState:
        """Return the memory when the outage is over: which guests are to be started, and since when the mains are back."""
        return StagesState(boot=self.boot, mains=self.mains, ours=self.ours, tries=self.tries)


@dataclass(frozen=True)
class StageAction:
    """One thing to do."""

    kind: str  # notify, stop_guests, fsd, start_guests, or rest: there is nothing to do until the power changes
    reason: str
    stage: str = ""
    targets: tuple[StageGuest, ...] = ()  # the guests that it is about


@dataclass(frozen=True)
class StagesDecision:
    """What is to be remembered, and then done, in this order."""

    state: StagesState
    actions: tuple[StageAction, ...] = ()


# What the UPSes say


def read_power(name: str, variables: Mapping[str, str] | None) -> Power:
    """Return how the power of one UPS stands. variables: as upsd has them; None if it gave none.

    On battery for a calibration (CAL) is no outage, and whether the mains are there can't be told meanwhile.
    """
    reading = readings.read_variables(variables or {})
    flags = set(reading.flags)
    if (variables or {}).get("ups.test.result", "").casefold() == "in progress":
        flags.add(TEST)
    on_battery = reading.on_battery
    if on_battery and "CAL" in flags:
        on_battery = None
    upses = frozenset([name] if on_battery else ())
    return Power(on_battery, reading.charge, reading.runtime, frozenset(flags), upses)


def combine_power(powers: Mapping[str, Power], were: Collection[str]) -> Power:
    """Return how the power stands as a whole. were: the UPSes that have been on battery in this outage.

    One on battery is an outage. It is over when all that were on battery are back; one that says nothing, and was not, does not
    count: it may have been unplugged long ago.
    """
    flags = frozenset(flag for power in powers.values() for flag in power.flags)
    if any("FSD" not in power.flags for power in powers.values() if power.flags):
        # upsmon sets it for all of its UPSes; for one alone it is somebody else's
        flags -= {"FSD"}
    on = [power for power in powers.values() if power.on_battery]
    if on:
        charges = [power.charge for power in on if power.charge is not None]
        runtimes = [power.runtime for power in on if power.runtime is not None]
        upses = frozenset(name for power in on for name in power.upses)
        return Power(True, min(charges, default=None), min(runtimes, default=None), flags, upses)
    concerned = [power for name, power in powers.items() if name in were]
    if concerned:
        return Power(None if any(power.on_battery is None for power in concerned) else False, flags=flags)
    return Power(False if any(power.on_battery is False for power in powers.values()) else None, flags=flags)


# The decision


def decide_stages(
    stages: Sequence[Stage],
    state: StagesState,
    now: float,
    seen: Power,
    busy: Collection[str] = frozenset(),
    *,
    finding: bool = False,
) -> StagesDecision:
    """Return what is to be done now. busy: the guests that are being stopped or started at this moment. finding: whether the
    guests of the stages are still being found, and those that are known may be too few.

    Rules: a stage begins once in an outage. An outage lasts from the first UPS on battery until the mains have been back for
    STABLE seconds. What is unknown triggers nothing and ends nothing, and the time on battery goes on. After FSD the guests of
    all stages are stopped, and nothing else is done, nor undone, until it is gone and the mains are there: then the outage is over.
    Started again are only the guests that we have shut down, and that are still down.
    """
    return _StagesDecider(stages, state, now, seen, busy=busy, finding=finding).make_decision()


class _StagesDecider:
    """One decision. The methods change self.state, and add to self.actions."""

    def __init__(
        self,
        stages: Sequence[Stage],
        state: StagesState,
        now: float,
        seen: Power,
        *,
        busy: Collection[str],
        finding: bool,
    ) -> None:
        self.stages, self.state, self.now, self.seen, self.busy, self.finding = stages, state, now, seen, busy, finding
        self.actions: list[StageAction] = []

    def make_decision(self) -> StagesDecision:
        self._update_times()
        if self.state.down is not None:
            self._stop_all_guests()
        elif self.state.since is None:
            self._start_guests_again()
        elif self._is_mains_stable():
            if not self.busy:
                self.state = self.state.after_outage()
                self._start_guests_again()
        elif self.state.mains is None:
            if not self._is_calibrating():
                self._begin_due_stages()
            self._stop_guests()
            self._request_fsd()
        return StagesDecision(self.state, tuple(self.actions))

    def _update_times(self) -> None:
        """Keep the times of the outage."""
        since = self.now if self.state.since is None else self.state.since
        if "FSD" in self.seen.flags:
            # somebody may say it while the mains are there
            down = self.now if self.state.down is None else self.state.down
            self.state = replace(
                self.state, since=since, mains=None, down=down, upses=self.state.upses | self.seen.upses
            )
        elif self.state.down is not None:
            if self.seen.on_battery is False and not self.busy:
                # the shutdown was called off: upsd forgets FSD only when it is started anew
                self.state = replace(self.state.after_outage(), mains=self.now)
        elif self.seen.on_battery:
            self.state = replace(self.state, since=since, mains=None, upses=self.state.upses | self.seen.upses)
        elif self.seen.on_battery is False and self.state.mains is None:
            self.state = replace(self.state, mains=self.now, low={})
        elif self._is_calibrating() and not self.state.begun:
            # a calibration that said OB before it said CAL was no outage
            self.state = self.state.after_outage()

    def _is_calibrating(self) -> bool:
        return self.seen.on_battery is None and "CAL" in self.seen.flags

    def _is_mains_stable(self) -> bool:
        """Return whether the mains have been back for long enough. If nobody says so now, they have not."""
        mains = self.state.mains
        return self.seen.on_battery is False and mains is not None and self.now - mains >= STABLE_SECONDS

    def _stop_all_guests(self) -> None:
        """upsd says FSD, or has said it before it went: all go down, and nothing can be called back.

        What the stages would have stopped later is stopped now: its storage is about to go.
        """
        self._stop_guests(self.stages)
        if not self.busy and not self.finding:
            self.actions.append(StageAction("rest", "upsd says FSD: the shutdown goes on without the stages"))

    def _start_guests_again(self) -> None:
        """The mains are there: start what we have stopped, one after the other, last stopped first; then rest."""
        if self.seen.on_battery is None or self.busy:
            return
        if not self.state.ours:
            self.actions.append(StageAction("rest", "on mains, and nothing is left to do"))
        elif self._is_mains_stable():
            for key in reversed(list(self.state.ours)):
                count, last = self.state.tries.get(key, (0, -math.inf))
                if not count or self.now - last >= START_AGAIN_SECONDS:
                    kind, _slash, number = key.partition("/")
                    reason = f"the mains have been back for {STABLE_SECONDS:g} s, and a stage had stopped it"
                    self.actions.append(StageAction("start_guests", reason, targets=(StageGuest(kind, int(number)),)))
                    break

    def _begin_due_stages(self) -> None:
        """Begin the stages that are due."""
        since = self.state.since
        time_on = self.now - (self.now if since is None else since)
        if TEST in self.seen.flags and time_on < TEST_SECONDS:
            return
        self._note_low()
        for stage in self.stages:
            if stage.name in self.state.begun:
                continue
            reason = self._find_trigger(stage, time_on)
            if reason:
                self.state = replace(self.state, begun={**self.state.begun, stage.name: self.now})
                self.actions.append(StageAction("notify", reason, stage.name))

    def _note_low(self) -> None:
        """Keep since when each charge and runtime has been low enough. What is unknown changes nothing."""
        low = dict(self.state.low)
        for stage in self.stages:
            for what in ("charge", "runtime"):
                value, limit = getattr(self.seen, what), getattr(stage, what)
                if value is None or limit is None:
                    continue
                key = f"{stage.name} {what}"
                if value <= limit:
                    low.setdefault(key, self.now)
                else:
                    low.pop(key, None)
        self.state = replace(self.state, low=low)

    def _find_trigger(self, stage: Stage, time_on: float) -> str:
        if stage.on_battery is not None and time_on >= stage.on_battery:
            return f"{time_on:.0f} s on battery (limit {stage.on_battery:g} s)"
        for what, unit in (("charge", "%"), ("runtime", " s")):
            value, limit = getattr(self.seen, what), getattr(stage, what)
            since = self.state.low.get(f"{stage.name} {what}")
            if value is not None and since is not None and self.now - since >= HOLD_SECONDS:
                return f"{what} {value:g}{unit} (limit {limit:g}{unit})"
        return ""

    def _stop_guests(self, stages: Sequence[Stage] | None = None) -> None:
        """Stop the guests of the stages that have begun, or of STAGES, each once."""
        for stage in self._begun_stages() if stages is None else stages:
            targets = []
            for target in stage.guests:
                if target.key in self.state.done or target.key in self.busy:
                    continue
                self.busy = {*self.busy, target.key}
                began = self.state.asked.get(target.key, self.now)
                self.state = replace(self.state, asked={**self.state.asked, target.key: began})
                # what a run that was killed has waited counts
                targets.append(replace(target, seconds=max(1.0, target.seconds - (self.now - began))))
            if targets:
                self.actions.append(StageAction("stop_guests", f"stage {stage.name}", stage.name, tuple(targets)))

    def _request_fsd(self) -> None:
        """Have upsmon set FSD when all guests of the stages that have begun are down, or have had their time."""
        begun = self._begun_stages()
        last = [stage for stage in begun if stage.fsd]
        waits = any(target.key not in self.state.done for stage in begun for target in stage.guests)
        # those that no stage names any more, since the guests were found anew
        waits = waits or any(key in self.state.asked and key not in self.state.done for key in self.busy)
        if last and not waits and not self.finding:
            if self.state.fsd is None:
                self.actions.append(StageAction("fsd", f"stage {last[0].name}", last[0].name))
            elif self.now - self.state.fsd >= FSD_AGAIN_SECONDS:
                reason = f"upsd has not reported FSD for {self.now - self.state.fsd:.0f} s"
                self.actions.append(StageAction("fsd", reason, last[0].name))

    def _begun_stages(self) -> list[Stage]:
        return [stage for stage in self.stages if stage.name in self.state.begun]


# What came of an action


def note_stopping(state: StagesState, key: str) -> StagesState:
    """Note that a guest is about to be shut down by us: whatever happens then, it is ours to start."""
    return replace(state, ours={**state.ours, key: state.ours.get(key, False)})


def note_stopped(state: StagesState, key: str, outcome: str, ha: bool = False) -> StagesState:
    """Note what came of a stop. outcome: the outcome of a control.StopResult, or "lost". What was down already, or is gone, is not ours."""
    if key not in state.asked:
        return state  # of an outage that is over
    ours = dict(state.ours)
    if outcome in ("already", "gone"):
        ours.pop(key, None)
    elif key in ours:
        ours[key] = ours[key] or ha
    return replace(state, ours=ours, done={**state.done, key: outcome})


def note_started(state: StagesState, key: str, good: bool, now: float) -> StagesState:
    """Note what came of a start. One that fails too often is given up."""
    ours, tries = dict(state.ours), dict(state.tries)
    count = tries.pop(key, (0, now))[0] + 1
    if good or count >= START_TRIES:
        ours.pop(key, None)
    else:
        tries[key] = (count, now)
    return replace(state, ours=ours, tries=tries)


def _is_key(key: str) -> bool:
    kind, _slash, number = key.partition("/")
    return kind in guests.KINDS and number.isascii() and number.isdigit() and len(number) < 10
