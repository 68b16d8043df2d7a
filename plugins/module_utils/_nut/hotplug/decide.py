# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From names and sections, and how each driver stands, to the smallest list of actions. Nothing is touched here.

usb/names.py says which UPS has which name, and what its section must be; plan() says what of that is done now, and what else a
driver needs, given what upsd says of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..base import systemd
from ..conf.ups_conf import Section, UpsConf
from ..deploy.change import UnitAction
from ..net.readings import may_be_outage
from ..usb import fingerprint
from ..usb.bus import UsbDevice
from ..usb.policy import UsbPolicy
from ..usb.resolution import KnownUpses, NameResolution, are_others_served, only_adds_keys
from ..usb.sections import DUMMY, describe_device, get_value, is_dummy, make_dummy
from .memory import Tries

# Seconds, of CLOCK_BOOTTIME.
# How long a driver is given to find its UPS again by itself: it looks each pollinterval, 2 s
GRACE = 10.0
# without data for so long, with its UPS there, a driver hangs; one whose firmware hangs goes stale after 14 s
HUNG = 60.0
# gone for so long, a UPS is not about to come back by itself
DUMMY_AFTER = 30.0
# with data for so long, a driver's restarts are forgotten
SETTLED = 300.0
# a driver whose UPS was on battery when it was heard last is left alone for so long; few batteries last longer
OUTAGE = 1800.0


@dataclass(frozen=True)
class DriverState:
    """How a section's driver stands.

    status: what upsd says; empty: no data. error: upsd's code, "" if there are data. since: when it was first seen without
    data; now if it has. plugged: when this incarnation of its UPS was first seen; None: not there. new: the last run did not
    see this incarnation. last: the last status that it had.
    """

    unit: systemd.Unit
    status: tuple[str, ...] = ()
    error: str = ""
    silent_since: float = 0.0
    plugged_since: float | None = None
    is_new_device: bool = False
    last_status: tuple[str, ...] = ()

    @property
    def is_fresh(self) -> bool:
        """Say whether upsd serves its data."""
        return bool(self.status) and not self.error


@dataclass(frozen=True)
class HotplugPlan:
    """What is to be done now, in this order: permits, before, the file, after.

    conf: the new ups.conf; None: the file stays. found: names of its found sections. permits: device nodes that NUT's group
    must be given, with the reason. waits: name -> until when a driver is given time, or has to wait ("" is upsd). deferred:
    what is not done now, with the reason. tries: to be kept for the next run.
    """

    conf: UpsConf | None
    found: frozenset[str]
    before: tuple[UnitAction, ...]
    after: tuple[UnitAction, ...]
    permits: tuple[tuple[str, str], ...]
    waits: Mapping[str, float]
    deferred: tuple[str, ...]
    tries: Mapping[str, Tries]

    def __bool__(self) -> bool:
        """Say whether there is anything to do now."""
        return self.conf is not None or bool(self.before or self.after or self.permits)


def make_plan(  # noqa: PLR0917 - all that a decision depends on
    res: NameResolution,
    known: KnownUpses,
    seen: Mapping[str, DriverState],
    server: systemd.Unit,
    power: Sequence[str] | None,
    tries: Mapping[str, Tries],
    now: float,
    policy: UsbPolicy,
) -> HotplugPlan:
    """Decide what is done now.

    res: resolve()'s, of the same known. seen: how the driver of each section stands. server: the unit of upsd. power: UPSes
    that are not plainly on mains, in words; None if upsd can't be asked. tries: the last plan's. now: of CLOCK_BOOTTIME.
    """
    return _Planner(res, known, seen, server, power, tries, now, policy).build_plan()


@dataclass
class _Planner:
    """One plan(), while it goes on."""

    resolution: NameResolution
    known: KnownUpses
    seen: Mapping[str, DriverState]
    server: systemd.Unit
    power: Sequence[str] | None
    counts: Mapping[str, Tries]  # the last plan's tries
    now: float
    policy: UsbPolicy
    target: dict[str, Section] = field(default_factory=dict)  # name -> its section from now on
    before: list[UnitAction] = field(default_factory=list)
    drivers: list[UnitAction] = field(default_factory=list)
    enumerate: list[str] = field(default_factory=list)  # why the enumerator is called, besides the new sections
    permits: dict[str, str] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)
    deferred: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.busy = ", ".join(self.power or ())
        self.blind = self.power is None or not self.server.runs
        self.old = self.known.conf.sections
        self.tries = self._carry_over_tries()

    def _carry_over_tries(self) -> dict[str, Tries]:
        """Carry on the counts: a driver that had data for long enough starts anew, and so does another UPS."""
        kept = {}
        for name, one in self.counts.items():
            if name == "":
                fresh = self.server.active == "active"
            elif name in self.resolution.conf.sections:
                fresh = self._driver_state(name).is_fresh
            else:
                continue
            was, is_ = self.known.memory.get(name), self.resolution.memory.get(name)
            if was and is_ and name in self.resolution.plugged and not fingerprint.compare_fingerprints(was, is_):
                continue
            good = (
                (self.now if one.good_since is None or one.good_since > self.now else one.good_since) if fresh else None
            )
            if one.count and not (good is not None and self.now - good >= SETTLED):
                kept[name] = replace(one, good_since=good)
        return kept

    def _driver_state(self, name: str) -> DriverState:
        return self.seen.get(name, DriverState(systemd.ABSENT))

    def _plugged_device(self, name: str) -> UsbDevice:
        return self.resolution.plugged[name].device

    def _reason_to_wait(self, name: str) -> str:
        """Say why nothing may be done to a driver that runs; "" if it may."""
        if self.busy:
            return f"{self.busy}; waiting until the mains are back"
        if self._driver_state(name).unit.runs and self.blind:
            return "upsd does not say whether the mains are on"
        return ""

    def build_plan(self) -> HotplugPlan:
        for name in dict.fromkeys([*self.resolution.conf.sections, *self.old]):
            self._choose_section(name)
        changed = frozenset(name for name, section in self.target.items() if self.old.get(name) != section)
        for name in self.target:
            if name in changed:
                self._replace_section(name)
            elif name in self.resolution.plugged:
                self._mend_driver(name)
        for name in self.old:
            if name not in self.target and self._driver_state(name).unit.runs:
                # or the enumerator starts the driver that takes its place first, and that finds the UPS taken
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
            # the mark of a section whose driver was declared meanwhile
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
        )

    # The file

    def _choose_section(self, name: str) -> None:
        """Decide whether a section becomes what it should be now, or stays for a while."""
        was, will = self.old.get(name), self._wanted_section(name)
        if was == will:
            stays = ""
        elif will is None:
            stays = self._reason_to_wait(name)
        else:
            stays = self._reason_to_wait(name) or (self._reason_to_keep(name, was, will) if was else "")
        if stays:
            self.deferred.append(f"[{name}] in ups.conf is not changed yet: {stays}")
        chosen = was if stays else will
        if chosen:
            self.target[name] = chosen

    def _wanted_section(self, name: str) -> Section | None:
        """Return the section that should be, or its stand-in."""
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
        """Say whether a UPS that is not there must not have a stand-in, or not yet."""
        state = self._driver_state(name)
        if state.last_status:
            if "OL" not in state.last_status or may_be_outage(state.last_status):
                self.deferred.append(f"[{name}] gets no stand-in: its last status was {' '.join(state.last_status)}")
                return True
        elif name in self.known.memory or fingerprint.identifying_pairs(
            self.old[name].keys if name in self.old else ()
        ):
            # It may have been on battery. A stand-in says that the mains are on, and would hide an outage. Of a UPS that was
            # never there nobody expects the truth.
            self.deferred.append(f"[{name}] gets no stand-in: the last status of its UPS is unknown")
            return True
        if state.is_fresh:
            return True
        if self.now < state.silent_since + DUMMY_AFTER:
            self.waits[name] = state.silent_since + DUMMY_AFTER
            return True
        return False

    def _reason_to_keep(self, name: str, was: Section, will: Section) -> str:
        """Say why a section of ups.conf that should change does not, now; "" if it does."""
        state = self._driver_state(name)
        if name not in self.resolution.plugged:
            if name in self.resolution.fixed or is_dummy(was) or is_dummy(will):
                return ""
            if self.now < state.silent_since + DUMMY_AFTER:
                self.waits[name] = state.silent_since + DUMMY_AFTER
                return "its UPS may be about to come back"
            return ""
        due = self.tries.get(name, Tries()).next_try(self.now)
        if due > self.now:
            self.waits[name] = due
            return "its driver was started only a moment ago"
        if state.is_fresh and state.unit.runs and self._only_adds_detail(name):
            return "its driver works; keys that tell its UPS from others are added when the driver next stops"
        return ""

    def _only_adds_detail(self, name: str) -> bool:
        # what has not had the time to show that it does not work counts as if it did
        work = {
            other for other in self.resolution.plugged if self._driver_state(other).is_fresh or self._is_young(other)
        }
        return only_adds_keys(name, self.known, self.resolution) and are_others_served(
            name, self.known, self.resolution, work
        )

    def _is_young(self, name: str) -> bool:
        state = self._driver_state(name)
        if name not in self.old or state.plugged_since is None:
            return True
        return self.now < max(state.plugged_since, state.silent_since) + GRACE

    def _replace_section(self, name: str) -> None:
        """Have a driver started with the section that it has now."""
        state, unit = self._driver_state(name), systemd.driver_unit(name)
        why = self._explain_change(name)
        self._permit_node(name)
        if name in self.resolution.plugged:
            self.tries[name] = self.tries.get(name, Tries()).add_try(self.now)
        if name not in self.old:
            return  # the enumerator starts it
        if state.unit.runs:
            self.before.append(UnitAction("stop", unit, why))
        elif state.unit.active == "inactive" and not self._is_owed(name):
            return
        if state.unit.enabled != "masked" and (name not in self.resolution.absent or is_dummy(self.target[name])):
            self.drivers.append(UnitAction("start", unit, why))

    def _explain_change(self, name: str) -> str:
        """Say why a section is new or another."""
        was, will = self.old.get(name), self.target[name]
        if is_dummy(will):
            return f"[{name}]: its UPS is not plugged in; {DUMMY} stands in"
        if name not in self.resolution.plugged:
            return f"[{name}] changed"
        here = f"[{name}] is {describe_device(self._plugged_device(name))}"
        if was is None:
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

    def _is_owed(self, name: str) -> bool:
        """Say whether this plugging in has not been answered yet: a start of it may have had to wait."""
        state, tries = self._driver_state(name), self.tries.get(name)
        return state.is_new_device or (
            tries is not None and state.plugged_since is not None and state.plugged_since > tries.last_try
        )

    def _mend_driver(self, name: str) -> None:
        """Look after a driver whose section stays, and whose UPS is there."""
        state = self._driver_state(name)
        if state.is_fresh:
            self._recheck_soon(name, state)
            return
        self._permit_node(name)
        if self.target[name] != self.resolution.conf.sections.get(name) and not state.unit.runs:
            return  # it would look for another UPS; that it waits was said
        if state.unit.enabled == "masked":
            self.deferred.append(f"[{name}]: its unit is masked, so its driver is left stopped")
        elif state.unit.active in ("active", "reloading"):
            self._revive_driver(name, state)
        elif state.unit.active == "activating":
            self._hasten_start(name, state)
        elif state.unit.active == "deactivating":
            self.waits[name] = self.now + GRACE
        elif state.unit.active == "failed":
            self._try_action(name, "start", f"{self._describe_presence(name)}, but its driver has failed")
        elif state.unit.enabled not in ("enabled", "enabled-runtime"):
            self._register_unit(name)
        elif self._is_owed(name):
            self._try_action(name, "start", f"{self._describe_presence(name)}, but its driver is not running")
        else:
            self.deferred.append(
                f"[{name}]: its driver was stopped by hand. To start it again: systemctl start {systemd.driver_unit(name)}"
            )

    def _describe_presence(self, name: str) -> str:
        return f"{describe_device(self._plugged_device(name))} is plugged in as [{name}]"

    def _recheck_soon(self, name: str, state: DriverState) -> None:
        """Look again soon: what upsd still has may be from before the UPS was plugged in anew."""
        tries = self.tries.get(name)
        until = (state.plugged_since if state.plugged_since is not None else self.now - GRACE) + GRACE
        if (
            self.now < until
            and state.unit.runs
            and not (tries and state.plugged_since is not None and tries.last_try >= state.plugged_since)
        ):
            self.waits[name] = until

    def _revive_driver(self, name: str, state: DriverState) -> None:
        """A driver runs, its UPS is there, and there are no data."""
        plugged = state.plugged_since if state.plugged_since is not None else self.now
        anew = state.silent_since <= plugged + GRACE
        until = max(plugged, state.silent_since) + GRACE if anew else state.silent_since + HUNG
        if self.now < until:
            self.waits[name] = until
            return
        # one that came back after that says something new; and no outage that still matters is as old as this
        stale = state.silent_since < plugged or self.now >= state.silent_since + OUTAGE
        if may_be_outage(state.last_status) and not stale:
            self.deferred.append(
                f"[{name}]: its last status was {' '.join(state.last_status)}, so its driver is not restarted for now"
            )
            return
        what = "has not reconnected by itself" if anew else f"has had no data for {self.now - state.silent_since:.0f} s"
        self._try_action(name, "restart", f"{self._describe_presence(name)}, but its driver {what}")

    def _hasten_start(self, name: str, state: DriverState) -> None:
        """A driver is about to start, or waits for its next try."""
        tries = self.tries.get(name, Tries())
        if self._is_owed(name):
            self._try_action(
                name, "restart", f"{self._describe_presence(name)}, but its driver is waiting for systemd to retry"
            )
        elif tries.count and self.now < tries.last_try + GRACE:
            self.waits[name] = tries.last_try + GRACE
        elif state.unit.sub == "auto-restart":
            self._try_action(name, "restart", f"{self._describe_presence(name)}, but its driver has exited")
        elif self.now < state.silent_since + HUNG:
            self.waits[name] = state.silent_since + HUNG
        else:
            self._try_action(
                name, "restart", f"{self._describe_presence(name)}, but its driver does not finish starting"
            )

    def _register_unit(self, name: str) -> None:
        due = self.tries.get(name, Tries()).next_try(self.now)
        if self.busy:
            self.deferred.append(f"[{name}] gets its unit later: {self._reason_to_wait(name)}")
        elif due > self.now:
            self.waits[name] = due
        else:
            self.enumerate.append(f"[{name}] has no enabled unit")
            self.tries[name] = self.tries.get(name, Tries()).add_try(self.now)

    def _try_action(self, name: str, verb: str, reason: str) -> None:
        due = self.tries.get(name, Tries()).next_try(self.now)
        why = self._reason_to_wait(name) if verb == "restart" else ""
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
    """Return what upsd itself reads of a section."""
    return get_value(section, "driver"), get_value(section, "desc")
