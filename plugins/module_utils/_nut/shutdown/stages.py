# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stages of an outage: shut down guests, notify, set FSD before the battery is low, and start the guests when the mains return.

decide_stages() is a pure function from the stages, the saved state and the power to the next actions. stages_loop.py has the loop
around it.

One file, because each decision depends on the same saved state, which is defined here with all that changes it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..conf.feeds import NEVER, Feeds
from ..net import readings
from ..net.readings import HOLD_SECONDS
from ..proxmox import guests
from .policy import Stage, StageGuest

VERSION = 1  # of StagesState in its file

# An outage is over when the mains have been back for so long; before that no guest is started
STABLE_SECONDS = 30.0
# The shutdown does not begin by a runtime of the first seconds on battery: drivers read it every 30 s, and the first one may be nonsense
TRANSFER_SECONDS = 30.0
# A UPS says LB, and those that are not low are too few: upsmon sees that, too, unless it waits for a UPS of which nothing is heard
# any more, or believes that one calibrates. It is given as long as its DEADTIME.
LOST_SECONDS = 15.0
# While a test runs, a UPS may be on battery without saying that it is one (no CAL); no test takes longer
TEST_SECONDS = 60.0
# upsmon is told again if upsd does not report FSD within this time
FSD_AGAIN_SECONDS = 15.0
# A start that fails is tried again, with so many seconds between two tries, for so long: the quorum, the storage, and whatever holds
# a lock may need many minutes to come back after an outage
START_AGAIN_SECONDS = 15.0
START_PATIENCE_SECONDS = 2400.0

# Not one of NUT's flags: ups.test.result reports a running test
TEST = "TEST"


@dataclass(frozen=True)
class Power:
    """The state of the power, of one UPS or of all together."""

    on_battery: bool | None = None  # None: unknown
    charge: float | None = None  # percent, of the UPS whose end ends the host: of those on battery, or of all on mains
    runtime: float | None = None  # seconds, likewise
    flags: frozenset[str] = frozenset()  # of ups.status, of all
    upses: frozenset[str] = frozenset()  # the names of those on battery
    critical: bool = (
        False  # whether UPSes are low, and those of which anything better is known are too few for this host
    )


@dataclass(frozen=True)
class StagesState:
    """The saved state. Times are seconds of CLOCK_BOOTTIME; guests are keyed by StageGuest.key."""

    boot: str = ""  # of base.clock.name_system_start()

    # This outage
    outage_since: float | None = None  # when the first UPS went on battery; None: no outage
    mains_since: float | None = None  # when the mains came back; None: they have not
    upses_on_battery: frozenset[str] = frozenset()  # names of the UPSes that have been on battery
    # "STAGE charge" or "STAGE runtime" -> since when that value has been low enough for the stage
    low_since: Mapping[str, float] = field(default_factory=dict)
    begun_at: Mapping[str, float] = field(default_factory=dict)  # stage -> when it began
    stop_decided_at: Mapping[str, float] = field(default_factory=dict)  # guest -> when its shutdown was decided
    stop_outcomes: Mapping[str, str] = field(default_factory=dict)  # guest -> see note_stopped()
    fsd_set_at: float | None = None  # when upsmon was last told to set FSD
    shutdown_since: float | None = None  # when upsd first reported FSD; None: the shutdown has not begun

    # Until the guests run again
    guests_to_start: Mapping[str, bool] = field(
        default_factory=dict
    )  # guest that a stage shut down -> is it managed by HA
    failed_starts: Mapping[str, tuple[float, float]] = field(
        default_factory=dict
    )  # guest -> when its start failed first, and last
    owed: tuple[str, ...] = ()  # guests that a stage shut down before this boot; boot_starts.py starts them
    given_up: Mapping[str, str] = field(
        default_factory=dict
    )  # guest that is no longer tried -> its name and the reason

    def __post_init__(self) -> None:
        """Raise ValueError if a key can't be a guest's."""
        for key in (*self.guests_to_start, *self.owed, *self.given_up):
            guests.parse_key(key)

    @property
    def is_idle(self) -> bool:
        """Return whether there is no outage, and no guest to start."""
        return self.outage_since is None and not self.guests_to_start

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing worth saving."""
        return self.is_idle and not self.owed and not self.given_up

    def after_boot(self, boot: str) -> StagesState:
        """Return the state at the beginning of another boot: the guests that must run again.

        HA does not start what it was told to stop, so it is told again. The others may have to wait for their storage.
        """
        managed = {key: True for key, ha in self.guests_to_start.items() if ha}
        others = [key for key, ha in self.guests_to_start.items() if not ha]
        owed = tuple(dict.fromkeys((*self.owed, *others)))
        return StagesState(boot=boot, guests_to_start=managed, owed=owed, given_up=self.given_up)

    def after_outage(self) -> StagesState:
        """Return the state without the outage: only the guests that must run again, and since when the mains are back."""
        return StagesState(
            boot=self.boot,
            mains_since=self.mains_since,
            guests_to_start=self.guests_to_start,
            owed=self.owed,
            given_up=self.given_up,
        )


@dataclass(frozen=True)
class StageAction:
    """Something to do."""

    kind: str  # notify, stop_guests, fsd, start_guests; or rest: there is nothing to do until the power changes
    reason: str
    stage: str = ""  # name of the stage
    targets: tuple[StageGuest, ...] = ()  # the guests to stop or start


@dataclass(frozen=True)
class StagesDecision:
    """The state to save, and the actions to take afterwards, in this order."""

    state: StagesState
    actions: tuple[StageAction, ...] = ()


# The power


def read_power(name: str, variables: Mapping[str, str] | None) -> Power:
    """Return the power of one UPS from its variables; None: upsd gave none.

    A calibration (CAL) is not an outage, and during one it is unknown whether the mains are there.
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


def combine_power(powers: Mapping[str, Power], upses_on_battery: Collection[str], feeds: Feeds) -> Power:
    """Return the power of this host. upses_on_battery: those that have been on battery in this outage.

    It is an outage if UPSes that power the host are on battery, and those on mains do not feed enough of its power supplies. It is
    over when they do again, or when all that were on battery are back on mains. A UPS without data that was never on battery is
    ignored: it may have been unplugged long ago.
    """
    own = {name: power for name, power in powers.items() if feeds.is_powered_by(name)}
    flags = frozenset(flag for power in own.values() for flag in power.flags)
    if any("FSD" not in power.flags for power in powers.values() if power.flags):
        # this host's upsmon sets FSD for all of its UPSes; FSD on only some of them comes from another host
        flags -= {"FSD"}
    mains = [name for name, power in own.items() if power.on_battery is False]
    on = {name: power for name, power in own.items() if power.on_battery}
    if feeds.is_enough(mains):
        known = {name: own[name].charge for name in mains}
        charges = {name: charge for name, charge in known.items() if charge is not None}
        deciding = feeds.find_deciding(charges)
        return Power(False, None if deciding is None else charges[deciding], flags=flags)
    if on:

        def find_value(values: Mapping[str, float | None]) -> float | None:
            left = {name: value for name, value in values.items() if value is not None}
            deciding = feeds.find_deciding({**left, **dict.fromkeys(mains, NEVER)})
            return None if deciding is None else left[deciding]

        charge = find_value({name: power.charge for name, power in on.items()})
        runtime = find_value({name: power.runtime for name, power in on.items()})
        good = [*mains, *(name for name, power in on.items() if "LB" not in power.flags)]
        critical = len(good) < len(mains) + len(on) and not feeds.is_enough(good)
        upses = frozenset(name for power in on.values() for name in power.upses)
        return Power(True, charge, runtime, flags, upses, critical)
    affected = [power for name, power in own.items() if name in upses_on_battery]
    if affected:
        return Power(None if any(power.on_battery is None for power in affected) else False, flags=flags)
    return Power(False if mains else None, flags=flags)


# The decision


def decide_stages(
    stages: Sequence[Stage],
    state: StagesState,
    now: float,
    seen: Power,
    busy: Collection[str] = frozenset(),
    *,
    finding: bool = False,
    hold: str = "",
) -> StagesDecision:
    """Return the new state and the actions to take now.

    busy: keys of the guests that are being stopped or started. finding: the stages' guests are still being looked up, so some may
    be missing from the stages. hold: why no guest is started yet; "" if they may be.

    - An outage lasts from the first UPS on battery until the mains have been back for STABLE_SECONDS.
    - A stage begins at most once in an outage.
    - An unknown value triggers nothing and ends nothing; the time on battery goes on.
    - After FSD the guests of all stages are shut down. Nothing else happens until FSD is gone and the mains are back, which ends
      the outage.
    - Only guests that a stage has shut down, and that are still down, are started again.
    """
    return _StagesDecider(stages, state, now, seen, busy=busy, finding=finding, hold=hold).make_decision()


class _StagesDecider:
    """One decision. Its methods replace self.state and append to self.actions."""

    def __init__(
        self,
        stages: Sequence[Stage],
        state: StagesState,
        now: float,
        seen: Power,
        *,
        busy: Collection[str],
        finding: bool,
        hold: str,
    ) -> None:
        self.stages, self.state, self.now, self.seen, self.busy, self.finding = stages, state, now, seen, busy, finding
        self.hold = hold
        self.actions: list[StageAction] = []

    def make_decision(self) -> StagesDecision:
        self._update_times()
        if self.state.shutdown_since is not None:
            self._stop_all_guests()
        elif self.state.outage_since is None:
            self._start_guests_again()
        elif self._is_mains_stable():
            if not self.busy:
                self.state = self.state.after_outage()
                self._start_guests_again()
        elif self.state.mains_since is None:
            if not self._is_calibrating():
                self._begin_due_stages()
            self._stop_guests()
            self._request_fsd()
        return StagesDecision(self.state, tuple(self.actions))

    def _update_times(self) -> None:
        """Update the beginning and the end of the outage and of the shutdown."""
        since = self.now if self.state.outage_since is None else self.state.outage_since
        if "FSD" in self.seen.flags:
            # `upsmon -c fsd` also works on mains
            down = self.now if self.state.shutdown_since is None else self.state.shutdown_since
            self.state = replace(
                self.state,
                outage_since=since,
                mains_since=None,
                shutdown_since=down,
                upses_on_battery=self.state.upses_on_battery | self.seen.upses,
            )
        elif self.state.shutdown_since is not None:
            if self.seen.on_battery is False and not self.busy:
                # the shutdown was cancelled: upsd drops FSD only when it is restarted
                self.state = replace(self.state.after_outage(), mains_since=self.now)
        elif self.seen.on_battery:
            self.state = replace(
                self.state,
                outage_since=since,
                mains_since=None,
                upses_on_battery=self.state.upses_on_battery | self.seen.upses,
            )
        elif self.seen.on_battery is False and self.state.mains_since is None:
            self.state = replace(self.state, mains_since=self.now, low_since={})
        elif self._is_calibrating() and not self.state.begun_at:
            # the UPS reported OB before CAL: that was a calibration, not an outage
            self.state = self.state.after_outage()

    def _is_calibrating(self) -> bool:
        return self.seen.on_battery is None and "CAL" in self.seen.flags

    def _is_mains_stable(self) -> bool:
        """Return whether the mains are back now, and have been for STABLE_SECONDS."""
        mains = self.state.mains_since
        return self.seen.on_battery is False and mains is not None and self.now - mains >= STABLE_SECONDS

    def _stop_all_guests(self) -> None:
        """Shut down the guests of all stages: upsd has reported FSD, and the machines with their storage are going down."""
        self._stop_guests(self.stages)
        if not self.busy and not self.finding:
            self.actions.append(StageAction("rest", "upsd reports FSD: the shutdown continues without the stages"))

    def _start_guests_again(self) -> None:
        """On mains, start the guests that stages have shut down, one at a time, last stopped first; then rest."""
        if self.seen.on_battery is None or self.busy:
            return
        if not self.state.guests_to_start:
            self.actions.append(StageAction("rest", "on mains: nothing to do"))
        elif self._is_mains_stable() and not self.hold:
            tried = {
                key: self.state.failed_starts.get(key, (0.0, -math.inf))[1]
                for key in reversed(list(self.state.guests_to_start))
            }
            # those that wait longest go first, so that one that keeps failing delays no other
            key = min(tried, key=lambda key: tried[key])
            if self.now - tried[key] >= START_AGAIN_SECONDS:
                guest = guests.parse_key(key)
                reason = f"the mains have been back for {STABLE_SECONDS:g} s, and a stage had shut it down"
                self.actions.append(StageAction("start_guests", reason, targets=(StageGuest(guest.kind, guest.id),)))

    def _begin_due_stages(self) -> None:
        """Begin the stages whose trigger is reached."""
        since = self.state.outage_since
        seconds_on_battery = self.now - (self.now if since is None else since)
        if TEST in self.seen.flags and seconds_on_battery < TEST_SECONDS:
            return
        self._note_low()
        for stage in self.stages:
            if stage.name in self.state.begun_at:
                continue
            reason = self._find_trigger(stage, seconds_on_battery)
            if reason:
                self.state = replace(self.state, begun_at={**self.state.begun_at, stage.name: self.now})
                self.actions.append(StageAction("notify", reason, stage.name))

    def _note_low(self) -> None:
        """Update since when each charge and runtime has been low enough for a stage. An unknown value changes nothing."""
        low = dict(self.state.low_since)
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
            if stage.low and self.seen.critical:
                low.setdefault(f"{stage.name} LB", self.now)
            elif stage.low:
                low.pop(f"{stage.name} LB", None)
        self.state = replace(self.state, low_since=low)

    def _find_trigger(self, stage: Stage, seconds_on_battery: float) -> str:
        if stage.on_battery is not None and seconds_on_battery >= stage.on_battery:
            return f"{seconds_on_battery:.0f} s on battery (limit {stage.on_battery:g} s)"
        critical = self.state.low_since.get(f"{stage.name} LB")
        if critical is not None and self.now - critical >= LOST_SECONDS:
            return f"LB for {self.now - critical:.0f} s, and upsd does not report FSD"
        for what, unit in (("charge", "%"), ("runtime", " s")):
            value, limit = getattr(self.seen, what), getattr(stage, what)
            since = self.state.low_since.get(f"{stage.name} {what}")
            if stage.low and seconds_on_battery < TRANSFER_SECONDS:
                continue
            if value is not None and since is not None and self.now - since >= HOLD_SECONDS:
                return f"{what} {value:g}{unit} (limit {limit:g}{unit})"
        return ""

    def _stop_guests(self, stages: Sequence[Stage] | None = None) -> None:
        """Shut down the guests of these stages, by default of those that have begun, each once."""
        for stage in self._begun_stages() if stages is None else stages:
            targets = []
            for target in stage.guests:
                if target.key in self.state.stop_outcomes or target.key in self.busy:
                    continue
                self.busy = {*self.busy, target.key}
                began = self.state.stop_decided_at.get(target.key, self.now)
                self.state = replace(self.state, stop_decided_at={**self.state.stop_decided_at, target.key: began})
                # the time that an earlier, killed run of this program has waited counts
                targets.append(replace(target, seconds=max(1.0, target.seconds - (self.now - began))))
            if targets:
                self.actions.append(StageAction("stop_guests", f"stage {stage.name}", stage.name, tuple(targets)))

    def _request_fsd(self) -> None:
        """Have upsmon set FSD if a stage says so, when the guests of all stages that have begun are down or given up."""
        begun = self._begun_stages()
        fsd_stages = sorted((stage for stage in begun if stage.fsd), key=lambda stage: not stage.low)
        waits = any(target.key not in self.state.stop_outcomes for stage in begun for target in stage.guests)
        # also guests that no stage names any more since they were looked up again
        waits = waits or any(
            key in self.state.stop_decided_at and key not in self.state.stop_outcomes for key in self.busy
        )
        if fsd_stages and (fsd_stages[0].low or not (waits or self.finding)):
            if self.state.fsd_set_at is None:
                self.actions.append(StageAction("fsd", f"stage {fsd_stages[0].name}", fsd_stages[0].name))
            elif self.now - self.state.fsd_set_at >= FSD_AGAIN_SECONDS:
                reason = f"upsd has not reported FSD for {self.now - self.state.fsd_set_at:.0f} s"
                self.actions.append(StageAction("fsd", reason, fsd_stages[0].name))

    def _begun_stages(self) -> list[Stage]:
        return [stage for stage in self.stages if stage.name in self.state.begun_at]


# The outcome of an action


def note_stopping(state: StagesState, key: str) -> StagesState:
    """Note before a guest is shut down that it must be started again, even if this program is killed meanwhile."""
    return replace(state, guests_to_start={**state.guests_to_start, key: state.guests_to_start.get(key, False)})


def note_stopped(state: StagesState, key: str, outcome: str, ha: bool = False) -> StagesState:
    """Note the outcome of a stop. A guest that was already down, or does not exist, is not started again.

    outcome: of control.StopResult, or "lost" if it timed out. ha: HA has stopped the guest. Nothing is noted about a guest of unknown
    status that is not known to have run: a guest that was off must stay off.
    """
    if key not in state.stop_decided_at:
        return state  # the stop belongs to an outage that is over
    remaining = dict(state.guests_to_start)
    if outcome in ("already", "gone"):
        remaining.pop(key, None)
    elif key in remaining or outcome in ("stopped", "forced"):
        remaining[key] = remaining.get(key, False) or ha
    return replace(state, guests_to_start=remaining, stop_outcomes={**state.stop_outcomes, key: outcome})


def note_started_late(state: StagesState, keys: Collection[str]) -> StagesState:
    """Forget that guests were down: Proxmox VE has started them since, so they must be shut down after all."""
    return replace(
        state,
        stop_decided_at={key: value for key, value in state.stop_decided_at.items() if key not in keys},
        stop_outcomes={key: value for key, value in state.stop_outcomes.items() if key not in keys},
    )


def note_started(state: StagesState, key: str, outcome: str, now: float) -> StagesState:
    """Note the outcome of a start, of control.StartResult. A guest that fails for START_PATIENCE_SECONDS is given up."""
    remaining, failed = dict(state.guests_to_start), dict(state.failed_starts)
    first, _last = failed.pop(key, (now, now))
    if outcome == "failed" and now - first < START_PATIENCE_SECONDS:
        failed[key] = (first, now)
    else:
        remaining.pop(key, None)
    return replace(state, guests_to_start=remaining, failed_starts=failed)


def note_given_up(state: StagesState, key: str, reason: str) -> StagesState:
    """Note that a guest is not started again, until it runs. reason: with the guest's name."""
    return replace(state, given_up={**state.given_up, key: reason})


def note_settled(state: StagesState, keys: Collection[str]) -> StagesState:
    """Forget guests that a stage shut down before this boot: they run, have run since, or are given up."""
    return replace(state, owed=tuple(key for key in state.owed if key not in keys))


def note_running(state: StagesState, keys: Collection[str]) -> StagesState:
    """Forget that guests have been given up: they run."""
    return replace(state, given_up={key: why for key, why in state.given_up.items() if key not in keys})
