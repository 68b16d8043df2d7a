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
from ..deploy.change import Action
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
class Seen:
    """How a section's driver stands.

    status: what upsd says; empty: no data. error: upsd's code, "" if there are data. since: when it was first seen without
    data; now if it has. plugged: when this incarnation of its UPS was first seen; None: not there. new: the last run did not
    see this incarnation. last: the last status that it had.
    """

    unit: systemd.Unit
    status: tuple[str, ...] = ()
    error: str = ""
    since: float = 0.0
    plugged: float | None = None
    new: bool = False
    last: tuple[str, ...] = ()

    @property
    def fresh(self) -> bool:
        """Say whether upsd serves its data."""
        return bool(self.status) and not self.error


@dataclass(frozen=True)
class Plan:
    """What is to be done now, in this order: permits, before, the file, after.

    conf: the new ups.conf; None: the file stays. found: names of its found sections. permits: device nodes that NUT's group
    must be given, with the reason. waits: name -> until when a driver is given time, or has to wait ("" is upsd). deferred:
    what is not done now, with the reason. tries: to be kept for the next run.
    """

    conf: UpsConf | None
    found: frozenset[str]
    before: tuple[Action, ...]
    after: tuple[Action, ...]
    permits: tuple[tuple[str, str], ...]
    waits: Mapping[str, float]
    deferred: tuple[str, ...]
    tries: Mapping[str, Tries]

    def __bool__(self) -> bool:
        """Say whether there is anything to do now."""
        return self.conf is not None or bool(self.before or self.after or self.permits)


def plan(  # noqa: PLR0917 - all that a decision depends on
    res: NameResolution,
    known: KnownUpses,
    seen: Mapping[str, Seen],
    server: systemd.Unit,
    power: Sequence[str] | None,
    tries: Mapping[str, Tries],
    now: float,
    policy: UsbPolicy,
) -> Plan:
    """Decide what is done now.

    res: resolve()'s, of the same known. seen: how the driver of each section stands. server: the unit of upsd. power: UPSes
    that are not plainly on mains, in words; None if upsd can't be asked. tries: the last plan's. now: of CLOCK_BOOTTIME.
    """
    return _Planning(res, known, seen, server, power, tries, now, policy).result()


@dataclass
class _Planning:
    """One plan(), while it goes on."""

    res: NameResolution
    known: KnownUpses
    seen: Mapping[str, Seen]
    server: systemd.Unit
    power: Sequence[str] | None
    counts: Mapping[str, Tries]  # the last plan's tries
    now: float
    policy: UsbPolicy
    target: dict[str, Section] = field(default_factory=dict)  # name -> its section from now on
    before: list[Action] = field(default_factory=list)
    drivers: list[Action] = field(default_factory=list)
    enumerate: list[str] = field(default_factory=list)  # why the enumerator is called, besides the new sections
    permits: dict[str, str] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)
    deferred: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.busy = ", ".join(self.power or ())
        self.blind = self.power is None or not self.server.runs
        self.old = self.known.conf.sections
        self.tries = self._settled()

    def _settled(self) -> dict[str, Tries]:
        """Carry on the counts: a driver that had data for long enough starts anew, and so does another UPS."""
        kept = {}
        for name, one in self.counts.items():
            if name == "":
                fresh = self.server.active == "active"
            elif name in self.res.conf.sections:
                fresh = self._of(name).fresh
            else:
                continue
            was, is_ = self.known.memory.get(name), self.res.memory.get(name)
            if was and is_ and name in self.res.plugged and not fingerprint.compare_fingerprints(was, is_):
                continue
            good = (self.now if one.good is None or one.good > self.now else one.good) if fresh else None
            if one.count and not (good is not None and self.now - good >= SETTLED):
                kept[name] = replace(one, good=good)
        return kept

    def _of(self, name: str) -> Seen:
        return self.seen.get(name, Seen(systemd.ABSENT))

    def _ups(self, name: str) -> UsbDevice:
        return self.res.plugged[name].device

    def _stands_aside(self, name: str) -> str:
        """Say why nothing may be done to a driver that runs; "" if it may."""
        if self.busy:
            return f"{self.busy}: it waits until the mains are back"
        if self._of(name).unit.runs and self.blind:
            return "upsd does not say whether the power is on"
        return ""

    def result(self) -> Plan:
        for name in dict.fromkeys([*self.res.conf.sections, *self.old]):
            self._choose(name)
        changed = frozenset(name for name, section in self.target.items() if self.old.get(name) != section)
        for name in self.target:
            if name in changed:
                self._replace(name)
            elif name in self.res.plugged:
                self._mend(name)
        for name in self.old:
            if name not in self.target and self._of(name).unit.runs:
                # or the enumerator starts the driver that takes its place first, and that finds the UPS taken
                self.before.append(Action("stop", systemd.driver_unit(name), f"[{name}] is gone"))
        after = [*self._enumerator(changed), *self.drivers, *self._serve(changed)]
        conf = UpsConf(self.res.conf.settings, self.target)
        found = frozenset(
            name
            for name in self.target
            if name in (self.res.found if name in self.res.conf.sections else self.known.found)
        )
        same = (conf.settings, [*conf.sections.items()], found) == (
            self.known.conf.settings,
            [*self.old.items()],
            self.known.found & self.old.keys(),
        )
        if self.busy and not same:
            # the mark of a section whose driver was declared meanwhile
            same, found = True, self.known.found
        return Plan(
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

    def _choose(self, name: str) -> None:
        """Decide whether a section becomes what it should be now, or stays for a while."""
        was, will = self.old.get(name), self._will(name)
        if was == will:
            stays = ""
        elif will is None:
            stays = self._stands_aside(name)
        else:
            stays = self._stands_aside(name) or (self._not_yet(name, was, will) if was else "")
        if stays:
            self.deferred.append(f"[{name}] of ups.conf stays as it is for now: {stays}")
        chosen = was if stays else will
        if chosen:
            self.target[name] = chosen

    def _will(self, name: str) -> Section | None:
        """Return the section that should be, or its stand-in."""
        section = self.res.conf.sections.get(name)
        if (
            section is None
            or self.policy.absent != "dummy"
            or name in self.res.fixed
            or name not in self.res.absent
            or is_dummy(section)
        ):
            return section
        return section if self._must_stay(name) else make_dummy(name, section)

    def _must_stay(self, name: str) -> bool:
        """Say whether a UPS that is not there must not have a stand-in, or not yet."""
        state = self._of(name)
        if state.last:
            if "OL" not in state.last or may_be_outage(state.last):
                self.deferred.append(f"[{name}] gets no stand-in: {' '.join(state.last)} is the last that it said")
                return True
        elif name in self.known.memory or fingerprint.identifying_pairs(
            self.old[name].keys if name in self.old else ()
        ):
            # It may have been on battery. A stand-in says that the mains are on, and would hide an outage. Of a UPS that was
            # never there nobody expects the truth.
            self.deferred.append(f"[{name}] gets no stand-in: nobody knows what its UPS said last")
            return True
        if state.fresh:
            return True
        if self.now < state.since + DUMMY_AFTER:
            self.waits[name] = state.since + DUMMY_AFTER
            return True
        return False

    def _not_yet(self, name: str, was: Section, will: Section) -> str:
        """Say why a section of ups.conf that should change does not, now; "" if it does."""
        state = self._of(name)
        if name not in self.res.plugged:
            if name in self.res.fixed or is_dummy(was) or is_dummy(will):
                return ""
            if self.now < state.since + DUMMY_AFTER:
                self.waits[name] = state.since + DUMMY_AFTER
                return "its UPS may be about to come back"
            return ""
        due = self.tries.get(name, Tries()).due(self.now)
        if due > self.now:
            self.waits[name] = due
            return "its driver was started a moment ago"
        if state.fresh and state.unit.runs and self._says_more(name):
            return "its driver works, and is told from other UPSes when it next stands still"
        return ""

    def _says_more(self, name: str) -> bool:
        # what has not had the time to show that it does not work counts as if it did
        work = {other for other in self.res.plugged if self._of(other).fresh or self._is_young(other)}
        return only_adds_keys(name, self.known, self.res) and are_others_served(name, self.known, self.res, work)

    def _is_young(self, name: str) -> bool:
        state = self._of(name)
        if name not in self.old or state.plugged is None:
            return True
        return self.now < max(state.plugged, state.since) + GRACE

    def _replace(self, name: str) -> None:
        """Have a driver started with the section that it has now."""
        state, unit = self._of(name), systemd.driver_unit(name)
        why = self._why(name)
        self._permit(name)
        if name in self.res.plugged:
            self.tries[name] = self.tries.get(name, Tries()).again(self.now)
        if name not in self.old:
            return  # the enumerator starts it
        if state.unit.runs:
            self.before.append(Action("stop", unit, why))
        elif state.unit.active == "inactive" and not self._is_owed(name):
            return
        if state.unit.enabled != "masked" and (name not in self.res.absent or is_dummy(self.target[name])):
            self.drivers.append(Action("start", unit, why))

    def _why(self, name: str) -> str:
        """Say why a section is new or another."""
        was, will = self.old.get(name), self.target[name]
        if is_dummy(will):
            return f"[{name}]: its UPS is not there, and {DUMMY} stands in"
        if name not in self.res.plugged:
            return f"[{name}] changed"
        here = f"[{name}] is {describe_device(self._ups(name))}"
        if was is None:
            return f"{here}, which is new"
        before = self.known.memory.get(name)
        if before and not fingerprint.compare_fingerprints(before, self.res.memory[name]):
            return f"{here}, which takes over from {before}"
        return f"{here}, and its section changed"

    def _enumerator(self, changed: frozenset[str]) -> list[Action]:
        gone = [name for name in self.old if name not in self.target]
        reasons = [
            *(self._why(name) for name in self.target if name in changed),
            *(f"[{name}] is gone" for name in gone),
            *self.enumerate,
        ]
        return [Action("start", systemd.ENUMERATOR, "; ".join(reasons))] if reasons else []

    # Drivers

    def _permit(self, name: str) -> None:
        if name in self.res.plugged and self._ups(name).accessible is False and not self._of(name).fresh:
            self.permits[self._ups(name).node] = (
                f"NUT's group can't write to {describe_device(self._ups(name))}, which is [{name}]"
            )

    def _is_owed(self, name: str) -> bool:
        """Say whether this plugging in has not been answered yet: a start of it may have had to wait."""
        state, tries = self._of(name), self.tries.get(name)
        return state.new or (tries is not None and state.plugged is not None and state.plugged > tries.last)

    def _mend(self, name: str) -> None:
        """Look after a driver whose section stays, and whose UPS is there."""
        state = self._of(name)
        if state.fresh:
            self._watch(name, state)
            return
        self._permit(name)
        if self.target[name] != self.res.conf.sections.get(name) and not state.unit.runs:
            return  # it would look for another UPS; that it waits was said
        if state.unit.enabled == "masked":
            self.deferred.append(f"[{name}]: its unit is masked, so somebody wants it not to run")
        elif state.unit.active in ("active", "reloading"):
            self._revive(name, state)
        elif state.unit.active == "activating":
            self._hasten(name, state)
        elif state.unit.active == "deactivating":
            self.waits[name] = self.now + GRACE
        elif state.unit.active == "failed":
            self._try(name, "start", f"{self._here(name)}, and its driver has failed")
        elif state.unit.enabled not in ("enabled", "enabled-runtime"):
            self._register(name)
        elif self._is_owed(name):
            self._try(name, "start", f"{self._here(name)}, and its driver does not run")
        else:
            self.deferred.append(
                f"[{name}]: its driver was stopped by hand. To have it back: systemctl start {systemd.driver_unit(name)}"
            )

    def _here(self, name: str) -> str:
        return f"{describe_device(self._ups(name))} is there as [{name}]"

    def _watch(self, name: str, state: Seen) -> None:
        """Look again soon: what upsd still has may be from before the UPS was plugged in anew."""
        tries = self.tries.get(name)
        until = (state.plugged if state.plugged is not None else self.now - GRACE) + GRACE
        if (
            self.now < until
            and state.unit.runs
            and not (tries and state.plugged is not None and tries.last >= state.plugged)
        ):
            self.waits[name] = until

    def _revive(self, name: str, state: Seen) -> None:
        """A driver runs, its UPS is there, and there are no data."""
        plugged = state.plugged if state.plugged is not None else self.now
        anew = state.since <= plugged + GRACE
        until = max(plugged, state.since) + GRACE if anew else state.since + HUNG
        if self.now < until:
            self.waits[name] = until
            return
        # one that came back after that says something new; and no outage that still matters is as old as this
        stale = state.since < plugged or self.now >= state.since + OUTAGE
        if may_be_outage(state.last) and not stale:
            self.deferred.append(
                f"[{name}]: {' '.join(state.last)} is the last that it said, so its driver is left alone for now"
            )
            return
        what = "has not found it again by itself" if anew else f"has had no data for {self.now - state.since:.0f} s"
        self._try(name, "restart", f"{self._here(name)}, and its driver {what}")

    def _hasten(self, name: str, state: Seen) -> None:
        """A driver is about to start, or waits for its next try."""
        tries = self.tries.get(name, Tries())
        if self._is_owed(name):
            self._try(name, "restart", f"{self._here(name)}, and its driver waits for its next try")
        elif tries.count and self.now < tries.last + GRACE:
            self.waits[name] = tries.last + GRACE
        elif state.unit.sub == "auto-restart":
            self._try(name, "restart", f"{self._here(name)}, and its driver has ended")
        elif self.now < state.since + HUNG:
            self.waits[name] = state.since + HUNG
        else:
            self._try(name, "restart", f"{self._here(name)}, and its driver does not come up")

    def _register(self, name: str) -> None:
        due = self.tries.get(name, Tries()).due(self.now)
        if self.busy:
            self.deferred.append(f"[{name}] gets its unit later: {self._stands_aside(name)}")
        elif due > self.now:
            self.waits[name] = due
        else:
            self.enumerate.append(f"[{name}] has no unit that starts")
            self.tries[name] = self.tries.get(name, Tries()).again(self.now)

    def _try(self, name: str, verb: str, reason: str) -> None:
        due = self.tries.get(name, Tries()).due(self.now)
        why = self._stands_aside(name) if verb == "restart" else ""
        if why:
            self.deferred.append(f"{reason}. Its restart waits: {why}")
        elif due > self.now:
            self.waits[name] = due
        else:
            self.drivers.append(Action(verb, systemd.driver_unit(name), reason))
            self.tries[name] = self.tries.get(name, Tries()).again(self.now)

    # upsd

    def _serve(self, changed: Iterable[str]) -> Iterator[Action]:
        if self.server.active == "failed" and self.server.enabled in ("enabled", "enabled-runtime"):
            due = self.tries.get("", Tries()).due(self.now)
            if due > self.now:
                self.waits[""] = due
            else:
                self.tries[""] = self.tries.get("", Tries()).again(self.now)
                yield Action("restart", systemd.SERVER, "it has failed")
        elif self.server.runs and {*self.old} != {*self.target}:
            yield Action("reload", systemd.SERVER, "ups.conf has other sections")
        elif self.server.runs and any(_of_upsd(self.old[name]) != _of_upsd(self.target[name]) for name in changed):
            yield Action("reload", systemd.SERVER, "ups.conf says other things of a UPS")


def _of_upsd(section: Section) -> tuple[str, str]:
    """Return what upsd itself reads of a section."""
    return get_value(section, "driver"), get_value(section, "desc")
