# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's USB bus and its NUT, brought together: what is there is read, decide.py decides, and it is done here.

The agent, the module hotplug and (for the drivers that are `auto`) the module config all come through this file.
"""

from __future__ import annotations

import binascii
import contextlib
import grp
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

from ..base import files as base_files
from ..base import hostnames, sets
from ..base import systemd as base_systemd
from ..base.clock import boot_id, boottime, stamp
from ..base.text import printable
from ..conf import dry_run, enumerator, host, releases, ups_conf, ups_conf_text
from ..conf.directives import Release
from ..conf.upsmon import local_upsd
from ..deploy.apply import LocalNut
from ..deploy.change import Action, FileChange, show, stage, stop_watcher
from ..net import snapshot
from ..net.client import Client, UpsdFailure
from ..net.vocabulary import ABSENT
from ..usb import bus, fingerprint
from ..usb import names as usb_names
from ..usb.bus import Ups, UsbDevice
from ..usb.policy import Policy
from ..usb.sections import DUMMY_PORT
from . import decide, glance, quiet
from .memory import Decision, Plugging, State, load, save

MODE = 0o640
LOCK_SECONDS = 60.0
QUIET = "nut-hotplug.quiet"
# A bus on which something is being plugged in is looked at when it has not changed for SETTLE seconds
SETTLE = 0.2
SETTLE_MOST = 3.0
# How often upsd is asked while a driver is given time to find its UPS
POLL = 0.25
UPSD_SECONDS = 5.0
# All looks of a run together; a plan that is never satisfied must not keep the host busy
RUN_SECONDS = 60.0
LOOKS = 40
# What a driver is given more time for than this is left to a later run
PATIENCE = 15.0
# After this long all is looked at, however quiet it is
QUIET_SECONDS = 3600.0
# seen.error if upsd itself could not be asked; not one of upsd's own codes
UNREACHABLE = "UNREACHABLE"

# the units that a note may name, besides the drivers'
_OWN = (base_systemd.SERVER, base_systemd.MONITOR, base_systemd.ENUMERATOR, base_systemd.DRIVERS, base_systemd.ALL)
_RUNS = base_systemd.Unit("active", "", 0)  # of which nothing is known

# What upsd serves in the place of a UPS that is not there. ups.status is no flag of NUT's, so that no client takes it for
# mains or battery: upsmon of 2.8.0 and 2.8.1 does nothing about it.
DUMMY = f"""\
# Written by nut-hotplug: what upsd serves under the name of a UPS that is not plugged in.
device.mfr: none
device.model: not plugged in
device.type: ups
ups.mfr: none
ups.model: not plugged in
ups.status: {ABSENT}
"""


class ReconcileError(Exception):
    """The host can't be looked at, or nothing can be done there; the message says where, why, and what to do."""


def describe(device: UsbDevice) -> str:
    """Name a device in a line: its ids, what it calls itself, its serial, its place."""
    names = " ".join(part for part in (device.manufacturer, device.product) if part)
    parts = [device.ids, printable(names, 80), f"serial {printable(device.serial, 60)}" if device.serial else ""]
    return " ".join(part for part in [*parts, f"at {printable(device.place or device.name, 80)}"] if part)


def difference(before: str, after: str, path: str = "/etc/nut/ups.conf") -> str:
    """Show what changes in ups.conf, as a unified diff without secrets."""
    return show(FileChange("ups.conf", Path(path), before, after, "ups.conf").diff())


@dataclass(frozen=True)
class Look:
    """What there is on a host at one moment, and what follows from it."""

    glance: str  # of the bus, from before anything else was read
    files: Mapping[str, str]  # path -> quiet.identity, from before the files were read
    time: float  # CLOCK_BOOTTIME
    release: Release | None
    devices: tuple[UsbDevice, ...]
    upses: tuple[Ups, ...]
    known: usb_names.Known
    resolution: usb_names.Resolution
    seen: Mapping[str, decide.Seen]
    server: base_systemd.Unit
    plan: decide.Plan
    left: tuple[Action, ...]  # what an earlier run did not live to do, and can't be done now either
    power: tuple[str, ...]  # the UPSes that are not plainly on mains
    state: State  # the memory, with what this look adds to it
    path: Path  # of ups.conf
    old: str  # the ups.conf that is there
    text: str | None  # the new one; None if it stays
    lacks: tuple[str, ...]  # further files that NUT needs and that are not there
    remarks: tuple[str, ...]  # what a person should know
    troubled: bool  # something could not be found out, and should be tried again

    @property
    def changes(self) -> bool:
        """Say whether act() would do anything to the host."""
        return self.text is not None or bool(self.plan or self.lacks)

    @property
    def steps(self) -> tuple[str, ...]:
        """Say what act() would do, one line a step."""
        permits = [f"permit {printable(node)}: {reason}" for node, reason in self.plan.permits]
        written = [f"write {self.path}: {why}" for why in self.changed().values()] if self.text is not None else []
        lines = [*permits, *map(str, self.plan.before), *written, *map(str, self.plan.after)]
        return tuple(printable(line, 500) for line in lines)

    def diff(self) -> str:
        """Show what changes in ups.conf, as a unified diff without secrets. Empty if it stays."""
        if self.text is None:
            return ""
        return difference(self.old, self.text, str(self.path))

    @property
    def deferred(self) -> dict[str, float]:
        """Return what waits, in words, and since when (seconds since 1970); 0.0 if it was not noted before."""
        since = {_gist(line): moment for line, moment in self.state.deferred.items()}
        return {line: since.get(_gist(line), 0.0) for line in self.plan.deferred}

    def changed(self) -> dict[str, str]:
        """Name the sections that the plan adds, changes or takes away, each with what it is now. "" is the global part."""
        conf, was = self.plan.conf, self.known.conf
        if conf is None:
            return {}
        told = {name: self._becomes(name, one) for name, one in conf.sections.items() if was.sections.get(name) != one}
        told |= {name: f"[{name}] goes" for name in was.sections if name not in conf.sections}
        return told or {"": "its sections stay, and the rest follows ups.conf.wanted"}

    def _becomes(self, name: str, section: ups_conf.Section) -> str:
        driver = dict(section.keys).get("driver")
        plugged = self.resolution.plugged.get(name)
        if plugged is None:
            return f"[{name}] has driver {driver}, its UPS is not there"
        return f"[{name}] is {describe(plugged.device)}, driver {driver} ({plugged.why})"


@dataclass(frozen=True)
class Outcome:
    """What a run did: lines, one for each decision; failed are those that could not be done.

    look: the last one of the run. written: whether ups.conf was replaced.
    """

    look: Look
    done: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    written: bool = False

    @property
    def changed(self) -> bool:
        """Say whether anything was done to the host."""
        return bool(self.done or self.written)


@dataclass(frozen=True)
class _Said:
    """What upsd says: the status of each UPS that has data, why the others have none, and which are not plainly on mains.

    power is None if it could not be asked.
    """

    status: Mapping[str, tuple[str, ...]]
    errors: Mapping[str, str]
    power: tuple[str, ...] | None


def _with_old(resolution: usb_names.Resolution, known: usb_names.Known, names: Iterable[str]) -> usb_names.Resolution:
    """Return a resolution in which these sections are as they were; one that was not is not."""
    kept = dict(resolution.conf.sections)
    for name in [name for name in names if name in kept]:
        if name in known.conf.sections:
            kept[name] = known.conf.sections[name]
        else:
            del kept[name]
    return replace(
        resolution,
        conf=ups_conf.UpsConf(resolution.conf.settings, kept),
        found=resolution.found & kept.keys(),
        plugged={name: one for name, one in resolution.plugged.items() if name in kept},
        memory={name: one for name, one in resolution.memory.items() if name in kept},
    )


def _silent(line: str) -> None:
    """Say nothing."""


@dataclass
class Host:
    """One host. Only this class touches it."""

    policy: Policy
    local: LocalNut
    release: Release | None = None  # of the host's NUT, which is asked if it is None
    say: Callable[[str], None] = _silent  # takes one line for each decision
    debug: Callable[[str], None] = _silent  # what led to it
    files: Sequence[Path] = ()  # further ones which, if they change, end the quiet: the policy's, the program's own
    tables: Sequence[Path] = ()  # where udev's rules are; () is where Debian has them
    clock: Callable[[], float] = boottime
    wall: Callable[[], float] = time.time
    pause: Callable[[float], None] = time.sleep
    boot: Callable[[], str] = boot_id
    _told: set[str] = field(default_factory=set, init=False)
    _refused: dict[str, str] = field(default_factory=dict, init=False)  # text of a section, or of ups.conf -> why not
    _state: State | None = field(default=None, init=False)

    # Looking

    @contextlib.contextmanager
    def alone(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Keep other runs out, the module config's too, and put right what killed ones have left.

        Raises files.Busy after SECONDS, and ReconcileError.
        """
        try:
            with self.local.alone(seconds, self.pause) as found:
                if found:
                    self.say(printable(found, 500))
                yield
        except sets.Unfinished as error:
            raise ReconcileError(str(error)) from None

    def look(self) -> Look:
        """Read all, and decide. Changes nothing. Raises ReconcileError."""
        seen_bus = glance.bus(self.policy.sysfs)
        now = self.clock()
        files = self._identities()
        memory = self._load()
        known, old = self._known(memory)
        release = self._release()
        remarks: list[str] = []
        devices, whole = self._devices(remarks)
        upses, asked, troubled = self._upses(devices, known, memory, remarks)
        resolution = usb_names.resolve(known, upses, self._prudent(known, whole), release)
        resolution = self._but_for_refused(resolution, known, remarks)
        if known.conf.sections and (release is None or not whole):
            # NUT is being installed anew, or only lsusb could be asked: too little is known to change what there is
            resolution = _with_old(resolution, known, known.conf.sections)
            troubled = True
        names = list(dict.fromkeys([*resolution.conf.sections, *known.conf.sections]))
        found = self._units(names)
        said = self._ask(names)
        power = said.power
        seen = {name: self._seen(name, found, resolution, said, memory=memory, now=now) for name in names}
        server = found[base_systemd.SERVER]
        plan = decide.plan(resolution, known, seen, server, power, memory.tries, now, self.policy)
        text = self._text(plan, old)
        if text is not None and (words := self._refused.get(text)):
            remarks.append(words)
            resolution = replace(resolution, conf=known.conf, found=known.found)
            plan = decide.plan(resolution, known, seen, server, power, memory.tries, now, self.policy)
            text = self._text(plan, old)
        plan, left = self._with_left(plan, power, known, found)
        if text is not None:
            plan = replace(plan, before=(*stop_watcher(found[base_systemd.WATCHER]), *plan.before))
        remarks += [f"{describe(one.device)} is not served: {why}" for one, why in resolution.unserved]
        remarks += resolution.remarks
        return Look(
            glance=seen_bus,
            files=files,
            time=now,
            release=release,
            devices=devices,
            upses=upses,
            known=known,
            resolution=resolution,
            seen=seen,
            server=server,
            plan=plan,
            left=left,
            power=tuple(power or ()),
            state=replace(
                self._remembered(memory, known, resolution, seen, now=now), asked=asked, bus=_digest(seen_bus)
            ),
            path=self.local.folder / "ups.conf",
            old=old,
            text=text,
            lacks=self._lacks(plan.conf or known.conf),
            remarks=tuple(dict.fromkeys(printable(one, 500) for one in remarks)),
            troubled=troubled or bool(self._refused) or (power is None and bool(names)),
        )

    def complete(self, wanted: str) -> tuple[str, usb_names.Resolution]:
        """Return the ups.conf that follows from WANTED (the text of ups.conf.wanted) and from what is plugged in now.

        For the module config, which writes both files itself. Raises ReconcileError.
        """
        memory = self._load()
        known, old = self._known(memory, wanted)
        if known.wanted is not None:
            # a play overrules what was edited by hand, and takes away what nobody declared
            kept = {
                name: one
                for name, one in known.conf.sections.items()
                if name in known.wanted.sections or name in known.found
            }
            known = replace(known, conf=replace(known.conf, sections=kept), written={}, play=True)
        remarks: list[str] = []
        devices, whole = self._devices(remarks)
        upses, _asked, _troubled = self._upses(devices, known, memory, remarks)
        resolution = usb_names.resolve(known, upses, self._prudent(known, whole), self._release())
        resolution = _with_old(resolution, known, self._working(known, resolution))
        resolution = replace(resolution, remarks=(*remarks, *resolution.remarks))
        return ups_conf_text.compose(
            ups_conf_text.header_of(wanted), resolution.conf, resolution.found, old
        ), resolution

    def _working(self, known: usb_names.Known, resolution: usb_names.Resolution) -> list[str]:
        """Name the sections that would only say more of a UPS that is served, and whose driver is not restarted for that."""
        names = [name for name in resolution.plugged if usb_names.says_more(name, known, resolution)]
        if not names:
            return []
        fresh = self._ask(list(resolution.plugged)).status
        return [name for name in names if name in fresh and usb_names.others_have(name, known, resolution, fresh)]

    def adopt(self, text: str, resolution: usb_names.Resolution) -> None:
        """Note what a play has written, if this host has a memory: nobody has edited that by hand."""
        if self.local.memory.exists():
            written = self._ours(text, resolution)
            self._keep(replace(self._load(), memory=dict(resolution.memory), written=written, intended={}))

    def intend(self, text: str, resolution: usb_names.Resolution) -> None:
        """Note what a play is about to write, as begin() does: one that is killed then must not look like somebody's edit."""
        if self.local.memory.exists():
            self._keep(replace(self._load(), intended=self._ours(text, resolution)))

    @staticmethod
    def _ours(text: str, resolution: usb_names.Resolution) -> dict[str, str]:
        sections = ups_conf.parse(text).sections
        return {name: ups_conf.render([one]) for name, one in sections.items() if name not in resolution.fixed}

    def _load(self) -> State:
        if self._state is None:
            self._state = load(self.local.memory)
        return self._state.booted(self.boot())

    def _identities(self) -> dict[str, str]:
        names = ("ups.conf", "ups.conf.wanted", "upsd.conf")
        # the directory, the manifest: a run that was killed while it wrote there has left something to finish, or to remove
        paths = [
            self.local.folder,
            *(self.local.folder / name for name in names),
            *self.files,
            self.local.manifest,
            self.local.pending.path,
        ]
        return {str(path): quiet.identity(str(path)) for path in paths}

    def _read(self, name: str) -> str | None:
        try:
            return self.local.read(name)
        except OSError as error:
            path = self.local.folder / name
            raise ReconcileError(f"{path} can't be read: {error.strerror}. Nothing was changed") from None

    def _known(self, memory: State, wanted: str | None = None) -> tuple[usb_names.Known, str]:
        old = self._read("ups.conf") or ""
        wanted = self._read("ups.conf.wanted") if wanted is None else wanted
        conf, found = ups_conf.parse(old), ups_conf_text.found_in(old)
        # A run that was cut short has written ups.conf or not: what stands there tells which.
        written = dict(memory.written)
        for name, one in conf.sections.items():
            if name in memory.intended and memory.intended[name] == ups_conf.render([one]):
                written[name] = memory.intended[name]
        parsed = ups_conf.parse(wanted or "")
        # emptied by the module config when nothing is left to the host any more
        return usb_names.Known(parsed if parsed.sections else None, conf, found, memory.memory, written), old

    def _release(self) -> Release | None:
        if self.release is None:
            self.release = releases.installed(self.local.runner, self.local.finder)
        return self.release

    def _devices(self, remarks: list[str]) -> tuple[tuple[UsbDevice, ...], bool]:
        """Return what is on the bus, and whether all is known of it: lsusb tells neither serials nor places."""
        try:
            return bus.scan(Path(self.policy.sysfs), Path(self.policy.dev)), True
        except bus.UsbError as error:
            remarks.append(f"{error}; lsusb is asked instead")
        try:
            return bus.by_lsusb(self.local.runner), False
        except bus.UsbError as error:
            raise ReconcileError(f"what is on the USB bus can't be found out: {error}. Nothing was changed") from None

    def _prudent(self, known: usb_names.Known, whole: bool) -> Policy:
        """Return the policy, without new names where too little is known of the UPSes to tell that they have none."""
        named = known.conf.sections or known.wanted
        return replace(self.policy, unknown="") if named and not whole else self.policy

    def _upses(
        self, devices: tuple[UsbDevice, ...], known: usb_names.Known, memory: State, remarks: list[str]
    ) -> tuple[tuple[Ups, ...], tuple[str, ...], bool]:
        """Return the UPSes among the devices, those that nut-scanner has been asked about, and whether it failed."""
        sections = [*known.conf.sections.values(), *(known.wanted.sections.values() if known.wanted else ())]
        telling = [one for one in sections if any(key.lower() in fingerprint.WHICH for key, _value in one.keys)]

        def named(device: UsbDevice) -> bool:
            return any(fingerprint.means(one, device) for one in telling)

        table = bus.table(self.tables) if self.tables else bus.table()
        upses = bus.candidates(devices, table, self.policy, named)
        unknown = [one.device for one in upses if not one.driver and not named(one.device) and not self._ruled(one)]
        present = {f"{one.ids} {one.bus} {one.device}" for one in devices}
        asked = tuple(one for one in memory.asked if one in present)
        new = [one for one in unknown if f"{one.ids} {one.bus} {one.device}" not in asked]
        if not new:
            return upses, asked, False
        self.debug(f"nut-scanner is asked about {', '.join(map(describe, new))}")
        try:
            scanned = bus.ask_scanner(self.local.runner, devices)
        except bus.ScannerError as error:
            remarks.append(f"nut-scanner can't be asked which driver {', '.join(map(describe, new))} needs: {error}")
            return upses, asked, True
        asked += tuple(f"{one.ids} {one.bus} {one.device}" for one in new if one.ids not in scanned)
        return bus.candidates(devices, table, self.policy, named, scanned), asked, False

    def _ruled(self, ups: Ups) -> bool:
        rule = self.policy.rule_for(ups.device)
        return rule is not None and bool(rule.driver)

    def _units(self, names: Sequence[str]) -> dict[str, base_systemd.Unit]:
        try:
            return base_systemd.show(
                [*map(base_systemd.driver, names), base_systemd.SERVER, base_systemd.MONITOR, base_systemd.WATCHER],
                self.local.runner,
            )
        except base_systemd.UnitError as error:
            raise ReconcileError(f"systemd can't be asked how NUT stands: {error}. Nothing was changed") from None

    def _place(self) -> tuple[str, int]:
        return local_upsd(self._read("upsd.conf") or "")[0]

    def _ask(self, names: Sequence[str]) -> _Said:
        """Ask upsd for the UPSes of these names. One that hangs is waited for UPSD_SECONDS."""
        try:
            with Client(*self._place(), timeout=UPSD_SECONDS) as client:
                states = snapshot.snapshot(client)
        except UpsdFailure as error:
            self.debug(str(error))
            return _Said({}, dict.fromkeys(names, UNREACHABLE), None)
        by_name = {one.name.lower(): one for one in states}
        status: dict[str, tuple[str, ...]] = {}
        errors: dict[str, str] = {}
        for name in names:
            one = by_name.get(name.lower())
            if one is not None and one.fresh:
                status[name] = one.status
            else:
                errors[name] = "UNKNOWN-UPS" if one is None else one.error or "WAIT"
        return _Said(status, errors, tuple(snapshot.careful(states)))

    @staticmethod
    def _seen(
        name: str,
        found: Mapping[str, base_systemd.Unit],
        resolution: usb_names.Resolution,
        said: _Said,
        *,
        memory: State,
        now: float,
    ) -> decide.Seen:
        """Put together how a driver stands."""
        ups = resolution.plugged.get(name)
        stands_in = ABSENT in said.status.get(name, ())
        before = memory.plugged.get(name)
        same = ups is not None and before is not None and ups.device.incarnation == (before.bus, before.device)
        # a memory that was lost makes nothing new of what is served
        lost = not memory.memory and name in said.status
        return decide.Seen(
            unit=found[base_systemd.driver(name)],
            status=said.status.get(name, ()),
            error=said.errors.get(name, ""),
            since=now if name in said.status else memory.silent.get(name, now),
            plugged=None if ups is None else before.since if same and before else now - (decide.GRACE if lost else 0),
            new=ups is not None and not same and not lost,
            # a stand-in has no say in what its UPS said last
            last=memory.last.get(name, ()) if stands_in else said.status.get(name, memory.last.get(name, ())),
        )

    def _but_for_refused(
        self, resolution: usb_names.Resolution, known: usb_names.Known, remarks: list[str]
    ) -> usb_names.Resolution:
        """Leave the sections as they are that NUT has refused in this run; the others need not wait for them."""
        refused = {
            name: words
            for name, one in resolution.conf.sections.items()
            if (words := self._refused.get(ups_conf.render([one])))
        }
        remarks += refused.values()
        return _with_old(resolution, known, refused)

    @staticmethod
    def _remembered(
        memory: State,
        known: usb_names.Known,
        resolution: usb_names.Resolution,
        seen: Mapping[str, decide.Seen],
        *,
        now: float,
    ) -> State:
        plugged = {
            name: Plugging(*one.device.incarnation, now if (since := seen[name].plugged) is None else since)
            for name, one in resolution.plugged.items()
            if name in seen
        }
        # what a play has written is not an edit by hand
        agreed = {
            name: ups_conf.render([one])
            for name, one in known.conf.sections.items()
            if name not in resolution.fixed and resolution.conf.sections.get(name) == one
        }
        return replace(
            memory,
            memory=dict(resolution.memory),
            written={**{name: text for name, text in known.written.items() if name in known.conf.sections}, **agreed},
            plugged=plugged,
            silent={name: one.since for name, one in seen.items() if not one.status},
            last={name: one.last for name, one in seen.items() if one.last},
        )

    def _text(self, plan: decide.Plan, old: str) -> str | None:
        if plan.conf is None:
            return None
        wanted = self._read("ups.conf.wanted")
        text = ups_conf_text.compose(
            ups_conf_text.header_of(old if wanted is None else wanted), plan.conf, plan.found, old
        )
        return None if text == old else text

    def _lacks(self, conf: ups_conf.UpsConf) -> tuple[str, ...]:
        needed = any(dict(one.keys).get("port") == DUMMY_PORT for one in conf.sections.values())
        return (DUMMY_PORT,) if needed and self._read(DUMMY_PORT) != DUMMY else ()

    def _with_left(
        self,
        plan: decide.Plan,
        power: Sequence[str] | None,
        known: usb_names.Known,
        found: Mapping[str, base_systemd.Unit],
    ) -> tuple[decide.Plan, tuple[Action, ...]]:
        """Add what an earlier run, or a play, did not live to do. What must wait for the mains is returned, too."""
        drivers = [base_systemd.driver(name) for name in (plan.conf or known.conf).sections]
        planned = {one.unit: one.verb for one in (*plan.before, *plan.after)}
        left = [
            one
            for one in _owed(self._pending(), drivers)
            if one.verb == "enable"
            or one.unit not in planned
            # a reload does not do what a restart was noted for
            or (one.verb == "restart" and planned[one.unit] == "reload")
        ]
        later: tuple[Action, ...] = ()
        if power or power is None:
            later = tuple(one for one in left if _disturbs(one, found))
            left = [one for one in left if one not in later]
        before: list[Action] = []
        if any(one.unit == base_systemd.ENUMERATOR for one in (*plan.after, *left)):
            before, left = _apart(left, found)
        restarted = {one.unit for one in left if one.verb == "restart"}
        after = [one for one in plan.after if one.verb != "reload" or one.unit not in restarted]
        why = ", ".join(power) if power else "upsd does not say whether the power is on"
        lines = tuple(f"{one.verb} {one.unit} waits: {why}: {one.reason}" for one in later)
        ordered = tuple(sorted([*after, *left], key=stage)) if left else plan.after
        return replace(plan, before=(*plan.before, *before), after=ordered, deferred=(*plan.deferred, *lines)), later

    def _pending(self) -> list[Action]:
        names = ups_conf.parse(self._read("ups.conf") or "").sections
        return self.local.pending.read([*map(base_systemd.driver, names), base_systemd.SERVER, base_systemd.MONITOR])

    # Doing

    def act(self, look: Look) -> Outcome:
        """Do what a look has decided on. The caller holds the lock. Never raises for what could not be done."""
        work = _Work(self, look, self._tell(look), noted=[*look.left])
        for node, reason in look.plan.permits:
            work.permit(node, reason)
        wrong = self._check(look)
        for name, words in wrong.items():
            work.refuse(name, f"NUT does not take what it should become: {words}")
        if not wrong:
            if look.changes:
                work.begin()
            for action in look.plan.before:
                work.do(action)
            if work.write():
                self.local.take_up(look.plan.after, work.take, work.noted)
        self._keep(work.state.with_history(*work.history))
        return work.outcome()

    def _tell(self, look: Look) -> State:
        """Say what has not been said, and what waits. Returns the memory with that."""
        memory = look.state
        for line in look.remarks:
            if line not in memory.told:
                self._once(line)
        now = self.wall()
        before = {_gist(line): line for line in memory.deferred}
        deferred = {}
        for line in look.plan.deferred:
            known = before.pop(_gist(line), "")
            deferred[known or line] = memory.deferred.get(known, now)
            if not known:
                self._once(f"deferred: {line}")
        decided = []
        for line in before.values():
            how = "now done" if look.changes else "no longer needed"
            since = f"deferred since {stamp(memory.deferred[line])}"
            self.say(f"{how} ({since}): {printable(line, 500)}")
            decided.append(Decision(now, "", how, f"{since}: {line}"))
        for name, until in look.plan.waits.items():
            self.debug(f"{name}: its driver is given {max(until - look.time, 0):.1f} s to find its UPS by itself")
        told = replace(memory, told=look.remarks, deferred=deferred, tries=dict(look.plan.tries))
        return told.with_history(*decided)

    def _once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self.say(printable(line, 500))

    def _keep(self, new: State) -> None:
        """Save the memory. A disk that is full, or read-only, is no reason to stop: it is only memory."""
        self._state = new
        try:
            self.local.memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            save(self.local.memory, new)
        except (OSError, base_files.WriteError) as error:
            self._once(f"what was done can't be remembered: {error}")

    def _check(self, look: Look) -> dict[str, str]:
        """Let NUT's own drivers read the sections that change, in a scratch directory.

        Returns what is wrong, in words, by the name of the section; "" is all of them.
        """
        conf = look.plan.conf
        if conf is None or look.text is None:
            return {}
        changed = [name for name in look.changed() if name in conf.sections]
        if not changed:
            return {}
        try:
            told = dry_run.check_sections(
                look.text, changed, self.local.runner, self.local.finder, self.local.owner, room=self.local.room
            )
            return {name: "; ".join(said) for name, said in told.items() if said}
        except (OSError, LookupError) as error:
            return {"": f"it can't be checked: {error}"}

    # The whole

    def run(self, seconds: float = RUN_SECONDS) -> Outcome:
        """Look and act until nothing is left to do, for SECONDS at most; then leave a note for the runs that find nothing.

        Takes the lock. Raises writing.Busy and ReconcileError.
        """
        with self.alone():
            lacks = host.find_lack(self.local.folder)
            if lacks:
                raise ReconcileError(lacks)
            self._state = None  # another run may have saved its own, while this one waited
            (self.local.room / QUIET).unlink(missing_ok=True)
            end = self.clock() + seconds
            self._settle()
            done: list[str] = []
            failed: list[str] = []
            written = False
            for _look in range(LOOKS):
                look = self.look()
                outcome = self.act(look)
                done += outcome.done
                failed += outcome.failed
                written = written or outcome.written
                late = self.clock() >= end
                again = outcome.changed or (outcome.failed and look.text is not None)
                if not late and (again or self._wait(look, end)):
                    continue
                if not outcome.changed and not outcome.failed:
                    self._leave_quiet(look)
                # as late as can be: an event that comes while this service runs starts no other run
                if late or glance.bus(self.policy.sysfs) == look.glance:
                    break
            return Outcome(look, tuple(done), tuple(dict.fromkeys(failed)), written)

    def _settle(self) -> None:
        """Wait until a bus that has changed since the last run changes no more: a hub brings its devices one by one."""
        seen = glance.bus(self.policy.sysfs)
        if _digest(seen) == self._load().bus:
            return
        end = self.clock() + SETTLE_MOST
        while self.clock() < end:
            self.pause(SETTLE)
            before, seen = seen, glance.bus(self.policy.sysfs)
            if seen == before:
                return
        self.debug("the bus does not come to rest")

    def _wait(self, look: Look, end: float) -> bool:
        """Give drivers time to find their UPS by themselves, until one's standing changes, or its time is over, or the bus
        changes. False if there is nothing to wait for now: what takes long is left to a later run.
        """
        soon = {name: until for name, until in look.plan.waits.items() if until <= look.time + PATIENCE}
        if not soon:
            return False
        while True:
            self.pause(POLL)
            now = self.clock()
            if now >= min([end, *soon.values()]) or glance.bus(self.policy.sysfs) != look.glance:
                return True
            status = self._ask(list(soon)).status
            if any(name in look.seen and (name in status) != look.seen[name].fresh for name in soon):
                return True

    def _leave_quiet(self, look: Look) -> None:
        """Write down how all looks now, if there is nothing to do before something changes. See quiet.py."""
        if look.changes or look.left or look.troubled:
            return
        wanted = {}
        for name in look.known.conf.sections:
            seen = look.seen[name]
            answer = f'VAR {name} ups.status "{" ".join(seen.status)}"' if seen.fresh else f"ERR {seen.error}"
            wanted[name] = quiet.kind(answer)
        try:
            place = self._answering(wanted) if wanted else ("-", 0)
            files = {**look.files, str(self.local.memory): quiet.identity(str(self.local.memory))}
            until = min([look.time + QUIET_SECONDS, *look.plan.waits.values()])
            text = quiet.describe(self.policy.sysfs, look.glance, files, place, wanted, until=until)
            base_files.replace({self.local.room / QUIET: text}, 0o600)
        except (OSError, ValueError, base_files.WriteError) as error:
            self.debug(f"the next run looks at all again: {error}")

    def _answering(self, wanted: Mapping[str, str]) -> tuple[str, int]:
        """Return the address at which upsd gives these answers. Raises OSError if there is none."""
        host, port = self._place()
        for address in hostnames.resolve(host, UPSD_SECONDS):
            with contextlib.suppress(OSError):
                if quiet.ask(address, port, list(wanted)) == list(wanted.values()):
                    return address, port
        raise OSError("upsd says something else by now")


@dataclass
class _Work:
    """What one act() does, step by step."""

    host: Host
    look: Look
    state: State
    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    history: list[Decision] = field(default_factory=list)
    noted: list[Action] = field(default_factory=list)
    written: bool = False

    def note(self, name: str, what: str, reason: str) -> None:
        line = printable(f"{what}: {reason}", 500)
        self.host.say(line)
        self.done.append(line)
        self.history.append(Decision(self.host.wall(), name, what, reason))

    def fail(self, name: str, what: str, reason: str) -> None:
        """Note what could not be done. It is said once, and not at each run."""
        line = printable(f"{what}: {reason}", 500)
        self.failed.append(line)
        self.state = replace(self.state, told=(*self.state.told, line))
        if line not in self.look.state.told:
            self.host._once(line)
            self.history.append(Decision(self.host.wall(), name, what, reason))

    def refuse(self, name: str, reason: str) -> None:
        """Note that a section, or ("") all of ups.conf, can't become what it should, so that the next look does without."""
        conf = self.look.plan.conf
        section = conf.sections.get(name) if conf else None
        what = f"[{name}] of {self.look.path} is not changed" if section else f"{self.look.path} is not changed"
        text = ups_conf.render([section]) if section else self.look.text or ""
        self.host._refused[text] = printable(f"{what}: {reason}", 500)
        self.state = replace(self.state, tries=self.look.state.tries)
        self.fail(name, what, reason)

    def outcome(self) -> Outcome:
        return Outcome(self.look, tuple(self.done), tuple(self.failed), self.written)

    def permit(self, node: str, reason: str) -> None:
        try:
            permit(Path(self.host.policy.dev), node, self.host.local.owner[1])
        except (OSError, KeyError, ValueError) as error:
            self.fail(node, f"permit {node}", f"{getattr(error, 'strerror', None) or error}")
            return
        self.note(node, f"permit {node}", reason)

    def take(self, action: Action) -> None:
        """Take one step of those behind the file."""
        if action.unit == base_systemd.ENUMERATOR:
            self.spare()
        self.do(action)

    def begin(self) -> None:
        """Note what is about to be done, so that a run that is cut short is finished by the next one."""
        look, host = self.look, self.host
        # Whether a driver then runs with its old section nobody knows: so it is restarted.
        noted = [
            replace(one, verb="restart") if one.verb == "start" and base_systemd.is_driver(one.unit) else one
            for one in look.plan.after
        ]
        self.noted = [*noted, *look.left]
        try:
            host.local.pending.write(self.noted)
        except base_files.WriteError as error:
            host.debug(str(error))
        if look.text is not None and look.plan.conf is not None:
            fixed = look.resolution.fixed
            # what was edited by hand has not become ours by being written along
            ours = {name: text for name, text in look.known.written.items() if name in fixed}
            sections = look.plan.conf.sections
            ours |= {name: ups_conf.render([one]) for name, one in sections.items() if name not in fixed}
            self.state = replace(self.state, written=dict(look.known.written), intended=ours)
        # with the tries, before they are made: who is killed while a driver hangs must not begin anew for ever
        host._keep(self.state)

    def write(self) -> bool:
        """Write what is to be written. If it can't be, what was stopped for it is started again by the next look."""
        look, host = self.look, self.host
        texts = {host.local.folder / name: DUMMY for name in look.lacks}
        if look.text is not None:
            texts[look.path] = look.text
        if not texts:
            return True
        try:
            base_files.replace(texts, MODE, host.local.owner)
        except base_files.WriteError as error:
            self.refuse("", str(error))
            return False
        if look.text is not None:
            self.written = True
            self.state = replace(self.state, written=self.state.intended, intended={})
            for name, why in look.changed().items():
                self.note(name, f"write {look.path}", why)
        return True

    def do(self, action: Action) -> None:
        host = self.host
        name = (
            action.unit.partition("@")[2].removesuffix(".service")
            if base_systemd.is_driver(action.unit)
            else action.unit
        )
        try:
            # a driver whose UPS hangs takes a minute or more to stop, or to start, and nobody shall wait for it
            action = host.local.do(action, wait=False)
        except base_systemd.UnitError as error:
            if not base_systemd.is_driver(action.unit):
                self.fail(name, f"{action.verb} {action.unit}", str(error))
                return
            # What that means is seen at the next look. It is counted in tries.
            host.debug(str(error))
            self.note(name, f"{action.verb} {action.unit}", f"{action.reason}. It did not come up")
            return
        self.note(name, f"{action.verb} {action.unit}", action.reason)

    def spare(self) -> None:
        """Keep the enumerator from restarting drivers whose sections we leave alone.

        One that somebody has edited, and taken up by hand, is another one to it than the last that it has seen; and 2.8.1
        forgets what it had a driver reload.
        """
        host, text = self.host, self.look.text or self.look.old
        conf, was = ups_conf.parse(text), self.look.known.conf
        same = [name for name, one in conf.sections.items() if was.sections.get(name) == one]
        texts = {}
        for name in (*same, *([""] if conf.settings == was.settings else [])):
            path = base_systemd.checksum(name, host.local.systemd)
            try:
                seen = path.read_text(encoding="ascii")
            except (OSError, ValueError):
                continue
            now = re.sub(
                r"(SECTION_CHECKSUM(?:_GLOBAL)?=)[0-9a-f]{32}", rf"\g<1>{enumerator.checksum(text, name)}", seen
            )
            if now != seen:
                texts[path] = now
        if texts:
            try:
                base_files.replace(texts, 0o644)
            except base_files.WriteError as error:
                host.debug(str(error))
            host.local.runner(["systemctl", "daemon-reload"])


def permit(dev: Path, node: str, group: str | int) -> None:
    """Let a group read and write a device's node, without following any link below DEV.

    node: as the kernel names it, /dev/bus/usb/001/004. Raises OSError; ValueError if there is something else than a
    device; KeyError if there is no such group.
    """
    number = grp.getgrnam(group).gr_gid if isinstance(group, str) else group
    parts = Path(node).parts[2:]
    if not parts or ".." in parts or not node.startswith("/dev/"):
        raise ValueError("it is no node below /dev")
    handle = os.open(dev, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = inner
        mode = os.fstat(handle).st_mode
        # on a bus that is made for a test the nodes are FIFOs
        if not stat.S_ISCHR(mode) and not (stat.S_ISFIFO(mode) and dev != Path("/dev")):
            raise ValueError("it is no device")
        itself = Path(f"/proc/self/fd/{handle}")
        os.chown(itself, -1, number)
        itself.chmod(stat.S_IMODE(mode) | 0o060)
    finally:
        os.close(handle)


def _digest(text: str) -> str:
    return f"{binascii.crc32(text.encode('utf-8', 'surrogateescape')):08x}"


def _gist(line: str) -> str:
    """Return what stays the same of a line about something that waits: not the charge, nor the seconds."""
    return re.sub("[0-9]+", "#", line.partition(": ")[0])


def _owed(noted: Sequence[Action], drivers: Sequence[str]) -> list[Action]:
    """Return what of a note still has a meaning with these drivers. One that was to be stopped and started is restarted."""
    stopped = {action.unit for action in noted if action.verb == "stop"}
    owed: dict[tuple[str, str], Action] = {}
    for action in noted:
        if action.verb == "disable --now":
            # what a play takes away, it takes away itself; but for a driver whose section has gone
            if base_systemd.is_driver(action.unit) and action.unit not in drivers:
                owed.setdefault((action.verb, action.unit), action)
        elif action.unit in drivers:
            again = replace(action, verb="restart") if action.unit in stopped else action
            owed.setdefault(("", action.unit), again)
        elif action.unit in _OWN:
            owed.setdefault((action.verb, action.unit), action)
    return list(owed.values())


def _apart(left: Sequence[Action], found: Mapping[str, base_systemd.Unit]) -> tuple[list[Action], list[Action]]:
    """Turn restarts of drivers that run into stops and starts, so that the enumerator of 2.8.1 does not have them reload."""
    running = [
        one
        for one in left
        if one.verb == "restart" and base_systemd.is_driver(one.unit) and found.get(one.unit, base_systemd.ABSENT).runs
    ]
    stops = [replace(one, verb="stop") for one in running]
    return stops, [replace(one, verb="start") if one in running else one for one in left]


def _disturbs(action: Action, found: Mapping[str, base_systemd.Unit]) -> bool:
    """Return whether a step must wait for the mains. What does not run can be started at any time, what runs stays as it is."""
    if action.verb == "enable" or (action.verb == "start" and base_systemd.is_driver(action.unit)):
        return False
    # the enumerator ends drivers whose section has gone
    return found.get(base_systemd.SERVER if action.unit == base_systemd.ENUMERATOR else action.unit, _RUNS).runs
