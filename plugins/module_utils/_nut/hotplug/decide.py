# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide what nut-hotplug does now, as the smallest list of actions. Changes nothing.

usb/names.py resolves which UPS has which name and what its section should be. make_plan() decides which of these changes are made
now and which are postponed, and which drivers need a restart, from the state of each driver and what upsd reports.

One file, because each decision depends on the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..base import systemd
from ..conf.directives import NEWEST, Release
from ..conf.ups_conf import Section, UpsConf
from ..deploy.change import UnitAction
from ..net.readings import may_be_outage
from ..usb import fingerprint, presence
from ..usb.bus import UsbDevice
from ..usb.liveness import STILL, mark_old_data
from ..usb.policy import UsbPolicy
from ..usb.resolution import KnownUpses, NameResolution, are_others_served, only_adds_keys
from ..usb.sections import DUMMY, describe_device, get_value, is_dummy, make_dummy
from . import lost
from .decision import DriverState, HotplugPlan
from .memory import Tries

# All times are seconds of CLOCK_BOOTTIME.
# How long a driver may take to reconnect to its UPS by itself. It tries once per pollinterval, 2 s.
GRACE = 10.0
# a driver that serves data may take longer to notice that its UPS was reset, if the host is busy
LOST_GRACE = 15.0
# A driver without data for this long, although its UPS is plugged in, counts as hung. With hung firmware, data go stale after 14 s.
HUNG = 60.0
# A UPS that has been unplugged for this long is not expected to come back soon.
DUMMY_AFTER = 30.0
# After this long with data, a driver's failed attempts are forgotten.
SETTLED = 300.0
# A driver is left alone for this long if the last status of its UPS was on battery. Few batteries last longer.
OUTAGE = 1800.0


def make_plan(  # noqa: PLR0917 - all that a decision depends on
    resolution: NameResolution,
    known: KnownUpses,
    seen: Mapping[str, DriverState],
    server: systemd.Unit,
    power: Sequence[str] | None,
    tries: Mapping[str, Tries],
    now: float,
    policy: UsbPolicy,
    release: Release | None = None,
) -> HotplugPlan:
    """Decide what to do now.

    resolution: from resolve_names(known). seen: name of a section -> the state of its driver. server: the unit of upsd. power: UPSes
    that are not plainly on mains, as text; None if upsd can't be asked. tries: from the last plan. now: seconds of CLOCK_BOOTTIME.
    release: of NUT; None if unknown.
    """
    return _Planner(resolution, known, seen, server, power, tries, now, policy, release).build_plan()


@dataclass
class _Planner:
    """Builds one HotplugPlan."""

    resolution: NameResolution
    known: KnownUpses
    seen: Mapping[str, DriverState]
    server: systemd.Unit
    power: Sequence[str] | None
    counts: Mapping[str, Tries]  # the last plan's tries
    now: float
    policy: UsbPolicy
    release: Release | None = None
    target: dict[str, Section] = field(default_factory=dict)  # the sections of ups.conf after this plan
    before: list[UnitAction] = field(default_factory=list)
    drivers: list[UnitAction] = field(default_factory=list)
    enumerate: list[str] = field(default_factory=list)  # reasons to run the enumerator, apart from changed sections
    permits: dict[str, str] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)
    deferred: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        lost_names = {name for name, state in self.seen.items() if state.loss}
        self.busy = ", ".join(mark_old_data(self.power or (), lost_names, "see its fault"))
        self.blind = self.power is None or not self.server.runs
        self.old = self.known.conf.sections
        self.tries = self._carry_over_tries()

    def _carry_over_tries(self) -> dict[str, Tries]:
        """Return the counts of attempts, without those of drivers that have had data long enough or have another UPS now."""
        kept = {}
        for name, tries in self.counts.items():
            if name == "":
                fresh = self.server.active == "active"
            elif name in self.resolution.conf.sections:
                fresh = self._driver_state(name).is_fresh
            else:
                continue
            before, after = self.known.memory.get(name), self.resolution.memory.get(name)
            if (
                before
                and after
                and name in self.resolution.plugged
                and not fingerprint.compare_fingerprints(before, after)
            ):
                continue
            # after a reboot, which restarts the clock, the old time may be in the future
            begin = self.now if tries.good_since is None or tries.good_since > self.now else tries.good_since
            good = begin if fresh else None
            if tries.count and not (good is not None and self.now - good >= SETTLED):
                kept[name] = replace(tries, good_since=good)
        return kept

    def _driver_state(self, name: str) -> DriverState:
        return self.seen.get(name, DriverState(systemd.ABSENT))

    def _plugged_device(self, name: str) -> UsbDevice:
        return self.resolution.plugged[name].device

    def _reason_to_wait(self, name: str) -> str:
        """Return why a running driver must not be restarted now; "" if it may be."""
        if self.busy:
            return f"waiting until the mains are back, because of {self.busy}"
        if self._driver_state(name).unit.runs and self.blind:
            return "upsd is not answering, so it is unknown whether the mains are on"
        return ""

    def build_plan(self) -> HotplugPlan:
        for name in dict.fromkeys([*self.resolution.conf.sections, *self.old]):
            self._choose_section(name)
        changed = frozenset(name for name, section in self.target.items() if self.old.get(name) != section)
        for name in self.target:
            if name in changed:
                self._replace_section(name)
            elif name in self.resolution.plugged:
                self._check_driver(name)
            elif self._driver_state(name).loss:
                self._check_lost_driver(name, self._driver_state(name))
            self._review_values(name, self._driver_state(name))
        for name in self.old:
            if name not in self.target and self._driver_state(name).unit.runs:
                # otherwise the enumerator starts the new driver first, which then finds the UPS in use
                self.before.append(UnitAction("stop", systemd.driver_unit(name), f"[{name}] was removed"))
        after = [*self._enumerator_actions(changed), *self.drivers, *self._server_actions(changed)]
        conf = UpsConf(self.resolution.conf.settings, self.target)
        found = frozenset(
            name
            for name in self.target
            if name in (self.resolution.found if name in self.resolution.conf.sections else self.known.found)
        )
        same = (conf.settings, [*conf.sections.items()], found) == (
            self.known.conf.settings,
            [*self.old.items()],
            self.known.found & self.old.keys(),
        )
        if self.busy and not same:
            # On battery all sections stay, so only the mark of a section that is declared now can differ. That can wait.
            same, found = True, self.known.found
        return HotplugPlan(
            conf=None if same else conf,
            found=found,
            before=tuple(self.before),
            after=tuple(after),
            permits=tuple(self.permits.items()),
            waits=self.waits,
            deferred=tuple(dict.fromkeys(self.deferred)),
            tries=self.tries,
            faults=tuple(self.faults),
        )

    # The file

    def _choose_section(self, name: str) -> None:
        """Decide whether a section changes now or stays for a while."""
        current, wanted = self.old.get(name), self._wanted_section(name)
        if current == wanted:
            stays = ""
        elif wanted is None:
            stays = self._reason_to_wait(name)
        else:
            stays = self._reason_to_wait(name) or (self._reason_to_keep(name, current, wanted) if current else "")
        if stays:
            self.deferred.append(f"[{name}] in ups.conf is not changed yet: {stays}")
        chosen = current if stays else wanted
        if chosen:
            self.target[name] = chosen

    def _wanted_section(self, name: str) -> Section | None:
        """Return the section that the resolution asks for, or its stand-in (dummy-ups)."""
        section = self.resolution.conf.sections.get(name)
        if (
            section is None
            or self.policy.absent != "dummy"
            or name in self.resolution.fixed
            or name not in self.resolution.absent
            or is_dummy(section)
        ):
            return section
        return section if self._forbids_stand_in(name) else make_dummy(name, section)

    def _forbids_stand_in(self, name: str) -> bool:
        """Return whether a UPS that is not plugged in must not have a stand-in, or not yet."""
        state = self._driver_state(name)
        if state.last_status:
            if "OL" not in state.last_status or may_be_outage(state.last_status):
                self.deferred.append(f"[{name}] gets no stand-in: its last status was {' '.join(state.last_status)}")
                return True
        elif name in self.known.memory or fingerprint.identifying_pairs(
            self.old[name].keys if name in self.old else ()
        ):
            # The UPS may have been on battery, and a stand-in would hide the outage. A UPS that was never plugged in has no such
            # history.
            self.deferred.append(f"[{name}] gets no stand-in: the last status of its UPS is unknown")
            return True
        if state.is_fresh:
            return True
        if self.now < state.silent_since + DUMMY_AFTER:
            self.waits[name] = state.silent_since + DUMMY_AFTER
            return True
        return False

    def _reason_to_keep(self, name: str, current: Section, wanted: Section) -> str:
        """Return why a section of ups.conf is not changed yet; "" if it is changed now."""
        state = self._driver_state(name)
        if name not in self.resolution.plugged:
            if name in self.resolution.fixed or is_dummy(current) or is_dummy(wanted):
                return ""
            if self.now < state.silent_since + DUMMY_AFTER:
                self.waits[name] = state.silent_since + DUMMY_AFTER
                return "its UPS may be about to come back"
            return ""
        due = self.tries.get(name, Tries()).next_try(self.now)
        if due > self.now and not self._ends_stand_in(name):
            self.waits[name] = due
            return "its driver was started only a moment ago"
        if state.is_fresh and state.unit.runs and self._only_adds_detail(name):
            return "its driver works; keys that tell its UPS from others are added when the driver next stops"
        return ""

    def _ends_stand_in(self, name: str) -> bool:
        """Return whether a UPS has been plugged in for which dummy-ups still answers.

        Attempts before that were not in vain: its driver was started each time that it came back. While the stand-in answers,
        nobody knows whether the mains are on.
        """
        return is_dummy(self.old.get(name)) and self._is_start_owed(name)

    def _only_adds_detail(self, name: str) -> bool:
        # a driver that has not had time to fail counts as working
        work = {
            other
            for other in self.resolution.plugged
            if self._driver_state(other).is_fresh or self._is_within_grace(other)
        }
        return only_adds_keys(name, self.known, self.resolution) and are_others_served(
            name, self.known, self.resolution, work
        )

    def _is_within_grace(self, name: str) -> bool:
        state = self._driver_state(name)
        return name not in self.old or state.plugged_since is None or self.now < self._searching_since(name) + GRACE

    def _given_chance_at(self, name: str) -> float:
        """Return when a driver last had a reason to look for its UPS: plugged in, data lost, or started by nut-hotplug."""
        state, tries = self._driver_state(name), self.tries.get(name)
        own_start = tries.last_try if tries and tries.last_try <= self.now else 0.0
        return max(self.now if state.plugged_since is None else state.plugged_since, state.silent_since, own_start)

    def _searching_since(self, name: str) -> float:
        """Return since when a driver has had time to find its UPS. On a busy host it may take long until it has started."""
        unit, chance = self._driver_state(name).unit, self._given_chance_at(name)
        started = unit.since if unit.active == "active" else 0.0
        if unit.active == "activating" and unit.sub != "auto-restart":
            started = self.now
        # systemd restarts a failing driver for ever, so a start without us gives more time only once
        return max(chance, min(started, self.now, chance + HUNG))

    def _replace_section(self, name: str) -> None:
        """Restart a driver with its new section."""
        state, unit = self._driver_state(name), systemd.driver_unit(name)
        why = self._explain_change(name)
        self._permit_node(name)
        if name in self.resolution.plugged:
            earlier = Tries() if self._ends_stand_in(name) else self.tries.get(name, Tries())
            self.tries[name] = earlier.add_try(self.now)
        if name not in self.old:
            return  # the enumerator starts it
        if state.unit.runs:
            self.before.append(UnitAction("stop", unit, why))
        elif state.unit.active == "inactive" and not self._is_start_owed(name):
            return
        if state.unit.enabled != "masked" and (name not in self.resolution.absent or is_dummy(self.target[name])):
            self.drivers.append(UnitAction("start", unit, why))

    def _explain_change(self, name: str) -> str:
        """Return why a section is added or changed."""
        current, wanted = self.old.get(name), self.target[name]
        if is_dummy(wanted):
            return f"[{name}]: its UPS is not plugged in; {DUMMY} stands in"
        if name not in self.resolution.plugged:
            return f"[{name}] changed"
        here = f"[{name}] is {describe_device(self._plugged_device(name))}"
        if current is None:
            return f"{here}, which is new"
        before = self.known.memory.get(name)
        if before and not fingerprint.compare_fingerprints(before, self.resolution.memory[name]):
            return f"{here}, which takes over from {before}"
        return f"{here}, and its section changed"

    def _enumerator_actions(self, changed: frozenset[str]) -> list[UnitAction]:
        gone = [name for name in self.old if name not in self.target]
        reasons = [
            *(self._explain_change(name) for name in self.target if name in changed),
            *(f"[{name}] was removed" for name in gone),
            *self.enumerate,
        ]
        return [UnitAction("start", systemd.ENUMERATOR, "; ".join(reasons))] if reasons else []

    # Drivers

    def _permit_node(self, name: str) -> None:
        if (
            name in self.resolution.plugged
            and self._plugged_device(name).accessible is False
            and not self._driver_state(name).is_fresh
        ):
            self.permits[self._plugged_device(name).node] = (
                f"NUT's group can't write to {describe_device(self._plugged_device(name))}, which is [{name}]"
            )

    def _is_start_owed(self, name: str) -> bool:
        """Return whether the driver has not been started since its UPS was plugged in. The start may have been postponed."""
        state, tries = self._driver_state(name), self.tries.get(name)
        return state.is_new_device or (
            tries is not None and state.plugged_since is not None and state.plugged_since > tries.last_try
        )

    def _check_driver(self, name: str) -> None:
        """Restart or start a driver if it needs that: its section stays and its UPS is plugged in."""
        state = self._driver_state(name)
        if state.is_fresh:
            self._check_fresh_driver(name, state)
            return
        if missing := presence.explain_missing_node([self._plugged_device(name)]):
            self.deferred.append(f"[{name}]: its driver is not restarted: {missing}. To do: {presence.GRANT_NODE}")
            self.waits[name] = self.now + HUNG
            return
        self._permit_node(name)
        if self.target[name] != self.resolution.conf.sections.get(name) and not state.unit.runs:
            return  # with its old section it would look for another UPS; already reported as deferred
        if state.unit.enabled == "masked":
            self.deferred.append(f"[{name}]: its unit is masked, so its driver is left stopped")
        elif state.unit.active in ("active", "reloading"):
            self._restart_silent_driver(name, state)
        elif state.unit.active == "activating":
            self._restart_slow_start(name, state)
        elif state.unit.active == "deactivating":
            self.waits[name] = self.now + GRACE
        elif state.unit.active == "failed":
            self._try_action(name, "start", f"{self._describe_presence(name)}, but its driver has failed")
        elif state.unit.enabled not in ("enabled", "enabled-runtime"):
            self._make_unit(name)
        elif self._is_start_owed(name):
            self._try_action(name, "start", f"{self._describe_presence(name)}, but its driver is not running")
        else:
            self.deferred.append(
                f"[{name}]: its driver was stopped by hand. To start it again: systemctl start {systemd.driver_unit(name)}"
            )

    def _describe_presence(self, name: str) -> str:
        return f"{describe_device(self._plugged_device(name))} is plugged in as [{name}]"

    def _check_fresh_driver(self, name: str, state: DriverState) -> None:
        """Check a driver whose data upsd calls fresh: they may be old ones."""
        if state.loss:
            self._check_lost_driver(name, state)
        else:
            self._recheck_soon(name, state)

    def _recheck_soon(self, name: str, state: DriverState) -> None:
        """Check again soon, because upsd's data may be from before the UPS was replugged."""
        tries = self.tries.get(name)
        until = (state.plugged_since if state.plugged_since is not None else self.now - GRACE) + GRACE
        if (
            self.now < until
            and state.unit.runs
            and not (tries and state.plugged_since is not None and tries.last_try >= state.plugged_since)
        ):
            self.waits[name] = until

    def _check_lost_driver(self, name: str, state: DriverState) -> None:
        """Restart a driver that serves old data as fresh because its device is gone, at any power state that the release allows."""
        if state.loss is None:
            return
        is_plugged = name in self.resolution.plugged
        obstacle = ""
        if state.unit.enabled == "masked":
            obstacle = "its unit is masked"
        elif is_plugged and not fingerprint.matches_device(
            self.target[name], self._plugged_device(name), self.release or NEWEST
        ):
            obstacle = "its section of ups.conf is for another UPS, and has to change first"
        step = lost.judge_lost_driver(
            name,
            state.status,
            state.loss,
            now=self.now,
            # without its UPS, a driver can only stop serving old data, so the UPS has some time to come back
            grace=LOST_GRACE if is_plugged else DUMMY_AFTER,
            power=self.power or (),
            release=self.release,
            obstacle=obstacle,
        )
        self.faults += [step.fault] if step.fault else []
        self.deferred += [step.deferred] if step.deferred else []
        if step.wait_until is not None:
            self.waits[name] = step.wait_until
        if step.restart:
            self._try_action(name, "restart", step.restart, is_safe=True)

    def _review_values(self, name: str, state: DriverState) -> None:
        if state.suspicion:
            self.faults.append(lost.describe_suspicion(name, state.status, state.suspicion, self.release))
        if state.stillness:
            # look again before the values count as still, and later whether they have begun to move
            due = max(state.stillness.since, self.now if state.stillness.seconds >= STILL else 0.0) + STILL
            self.waits[name] = min(self.waits.get(name, due), due)

    def _restart_silent_driver(self, name: str, state: DriverState) -> None:
        """Restart a running driver that has no data although its UPS is plugged in, once it has had time to reconnect."""
        plugged = state.plugged_since if state.plugged_since is not None else self.now
        is_replugged = state.silent_since <= plugged + GRACE
        until = self._searching_since(name) + GRACE if is_replugged else state.silent_since + HUNG
        if self.now < until:
            self.waits[name] = until
            return
        # the last status is outdated if the UPS was replugged after it, or if it is older than any outage can last
        stale = state.silent_since < plugged or self.now >= state.silent_since + OUTAGE
        if may_be_outage(state.last_status) and not stale:
            self.deferred.append(
                f"[{name}]: its last status was {' '.join(state.last_status)}, so its driver is not restarted for now"
            )
            return
        what = (
            "has not reconnected by itself"
            if is_replugged
            else f"has had no data for {self.now - state.silent_since:.0f} s"
        )
        self._try_action(name, "restart", f"{self._describe_presence(name)}, but its driver {what}")

    def _restart_slow_start(self, name: str, state: DriverState) -> None:
        """Restart a driver that is starting, or is waiting for systemd to retry, if that takes too long."""
        tries = self.tries.get(name, Tries())
        if self._is_start_owed(name):
            self._try_action(
                name, "restart", f"{self._describe_presence(name)}, but its driver is waiting for systemd to retry"
            )
        elif tries.count and self.now < tries.last_try + GRACE:
            self.waits[name] = tries.last_try + GRACE
        elif state.unit.sub == "auto-restart":
            self._try_action(name, "restart", f"{self._describe_presence(name)}, but its driver has exited")
        elif self.now < self._given_chance_at(name) + HUNG:
            self.waits[name] = self._given_chance_at(name) + HUNG
        else:
            self._try_action(
                name, "restart", f"{self._describe_presence(name)}, but its driver does not finish starting"
            )

    def _make_unit(self, name: str) -> None:
        due = self.tries.get(name, Tries()).next_try(self.now)
        if self.busy:
            self.deferred.append(f"the unit of [{name}] is made later: {self._reason_to_wait(name)}")
        elif due > self.now:
            self.waits[name] = due
        else:
            self.enumerate.append(f"[{name}] has no enabled unit")
            self.tries[name] = self.tries.get(name, Tries()).add_try(self.now)

    def _try_action(self, name: str, verb: str, reason: str, *, is_safe: bool = False) -> None:
        """Start or restart a driver, unless that was tried a moment ago. is_safe: whether it shuts nothing down at this power state."""
        due = self.tries.get(name, Tries()).next_try(self.now)
        why = self._reason_to_wait(name) if verb == "restart" and not is_safe else ""
        if why:
            self.deferred.append(f"{reason}. Restart postponed: {why}")
        elif due > self.now:
            self.waits[name] = due
        else:
            self.drivers.append(UnitAction(verb, systemd.driver_unit(name), reason))
            self.tries[name] = self.tries.get(name, Tries()).add_try(self.now)

    # upsd

    def _server_actions(self, changed: Iterable[str]) -> Iterator[UnitAction]:
        if self.server.active == "failed" and self.server.enabled in ("enabled", "enabled-runtime"):
            due = self.tries.get("", Tries()).next_try(self.now)
            if due > self.now:
                self.waits[""] = due
            else:
                self.tries[""] = self.tries.get("", Tries()).add_try(self.now)
                yield UnitAction("restart", systemd.SERVER, "upsd has failed")
        elif self.server.runs and {*self.old} != {*self.target}:
            yield UnitAction("reload", systemd.SERVER, "sections were added to ups.conf or removed from it")
        elif self.server.runs and any(
            _upsd_fields(self.old[name]) != _upsd_fields(self.target[name]) for name in changed
        ):
            yield UnitAction("reload", systemd.SERVER, "driver or description of a UPS changed in ups.conf")


def _upsd_fields(section: Section) -> tuple[str, str]:
    """Return the values of a section that upsd itself uses: driver and desc."""
    return get_value(section, "driver"), get_value(section, "desc")
