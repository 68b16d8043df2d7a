# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that nut-hotplug looks at on a host, and what decide.py makes of it. Nothing is changed here."""

from __future__ import annotations

import binascii
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

from ..base import systemd as base_systemd
from ..base.clock import read_boot_id, read_boottime
from ..base.text import printable
from ..conf import ups_conf, ups_conf_text
from ..conf.directives import Release
from ..conf.release import find_release
from ..conf.upsd import local_upsd
from ..deploy.apply import LocalNut
from ..deploy.change import Action, stop_watcher
from ..net import snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..net.vocabulary import ABSENT
from ..usb import bus, fingerprint
from ..usb import names as usb_names
from ..usb.bus import UsbDevice, UsbUps
from ..usb.policy import UsbPolicy
from ..usb.resolution import KnownUpses, NameResolution, are_others_served, only_adds_keys
from ..usb.sections import DUMMY_PORT
from . import decide, owed, quiet
from .look import Look, describe
from .memory import Plugging, State, load

UPSD_SECONDS = 5.0
# seen.error if upsd itself could not be asked; not one of upsd's own codes
UNREACHABLE = "UNREACHABLE"

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


@dataclass(frozen=True)
class _Said:
    """What upsd says: the status of each UPS that has data, why the others have none, and which are not plainly on mains.

    power is None if it could not be asked.
    """

    status: Mapping[str, tuple[str, ...]]
    errors: Mapping[str, str]
    power: tuple[str, ...] | None


def _with_old(resolution: NameResolution, known: KnownUpses, names: Iterable[str]) -> NameResolution:
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
        plugged={name: ups for name, ups in resolution.plugged.items() if name in kept},
        memory={name: identity for name, identity in resolution.memory.items() if name in kept},
    )


def _silent(line: str) -> None:
    """Do nothing."""


@dataclass
class Observer:
    """One host, looked at."""

    policy: UsbPolicy
    local: LocalNut
    release: Release | None = None  # of the host's NUT, which is asked if it is None
    say: Callable[[str], None] = _silent  # takes one line for each decision
    debug: Callable[[str], None] = _silent  # what led to it
    files: Sequence[Path] = ()  # further ones which, if they change, end the quiet: the policy's, the program's own
    tables: Sequence[Path] = ()  # where udev's rules are; () is where Debian has them
    clock: Callable[[], float] = read_boottime
    wall: Callable[[], float] = time.time
    pause: Callable[[float], None] = time.sleep
    boot: Callable[[], str] = read_boot_id
    _told: set[str] = field(default_factory=set, init=False)
    _refused: dict[str, str] = field(default_factory=dict, init=False)  # text of a section, or of ups.conf -> why not
    _state: State | None = field(default=None, init=False)

    def look(self) -> Look:
        """Read all, and decide. Changes nothing. Raises ReconcileError."""
        seen_bus = quiet.describe_bus(self.policy.sysfs)
        now = self.clock()
        files = self._identities()
        memory = self._load()
        known, old = self._known(memory)
        release = self._release()
        remarks: list[str] = []
        devices, whole = self._devices(remarks)
        upses, asked, troubled = self._upses(devices, known, memory, remarks)
        resolution = usb_names.resolve_names(known, upses, self._prudent(known, whole), release)
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
        drivers = [base_systemd.driver_unit(name) for name in (plan.conf or known.conf).sections]
        plan, left = owed.add_owed(plan, self._pending(), drivers, power, found)
        if text is not None:
            plan = replace(plan, before=(*stop_watcher(found[base_systemd.WATCHER]), *plan.before))
        remarks += [f"{describe(ups.device)} is not served: {why}" for ups, why in resolution.unserved]
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
                self._remembered(memory, known, resolution, seen, now=now), asked=asked, bus=digest(seen_bus)
            ),
            path=self.local.folder / "ups.conf",
            old=old,
            text=text,
            lacks=self._lacks(plan.conf or known.conf),
            remarks=tuple(dict.fromkeys(printable(remark, 500) for remark in remarks)),
            troubled=troubled or bool(self._refused) or (power is None and bool(names)),
        )

    def complete(self, wanted: str) -> tuple[str, NameResolution]:
        """Return the ups.conf that follows from WANTED (the text of ups.conf.wanted) and from what is plugged in now.

        For the module config, which writes both files itself. Raises ReconcileError.
        """
        memory = self._load()
        known, old = self._known(memory, wanted)
        if known.wanted is not None:
            # a play overrules what was edited by hand, and takes away what nobody declared
            kept = {
                name: section
                for name, section in known.conf.sections.items()
                if name in known.wanted.sections or name in known.found
            }
            known = replace(known, conf=replace(known.conf, sections=kept), written={}, play=True)
        remarks: list[str] = []
        devices, whole = self._devices(remarks)
        upses, _asked, _troubled = self._upses(devices, known, memory, remarks)
        resolution = usb_names.resolve_names(known, upses, self._prudent(known, whole), self._release())
        resolution = _with_old(resolution, known, self._working(known, resolution))
        resolution = replace(resolution, remarks=(*remarks, *resolution.remarks))
        return ups_conf_text.compose_text(
            ups_conf_text.header_of(wanted), resolution.conf, resolution.found, old
        ), resolution

    def _working(self, known: KnownUpses, resolution: NameResolution) -> list[str]:
        """Return the sections that would only say more of a UPS that is served, and whose driver is not restarted for that."""
        names = [name for name in resolution.plugged if only_adds_keys(name, known, resolution)]
        if not names:
            return []
        fresh = self._ask(list(resolution.plugged)).status
        return [name for name in names if name in fresh and are_others_served(name, known, resolution, fresh)]

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
        return {str(path): quiet.identify_file(str(path)) for path in paths}

    def _read(self, name: str) -> str | None:
        try:
            return self.local.read(name)
        except OSError as error:
            path = self.local.folder / name
            raise ReconcileError(f"{path} can't be read: {error.strerror}. Nothing was changed") from None

    def _known(self, memory: State, wanted: str | None = None) -> tuple[KnownUpses, str]:
        old = self._read("ups.conf") or ""
        wanted = self._read("ups.conf.wanted") if wanted is None else wanted
        conf, found = ups_conf.parse_ups_conf(old), ups_conf_text.found_sections(old)
        # A run that was cut short has written ups.conf or not: what stands there tells which.
        written = dict(memory.written)
        for name, section in conf.sections.items():
            if name in memory.intended and memory.intended[name] == ups_conf.render_sections([section]):
                written[name] = memory.intended[name]
        parsed = ups_conf.parse_ups_conf(wanted or "")
        # emptied by the module config when nothing is left to the host any more
        return KnownUpses(parsed if parsed.sections else None, conf, found, memory.memory, written), old

    def _release(self) -> Release | None:
        if self.release is None:
            self.release = find_release(self.local.runner, self.local.finder)
        return self.release

    def _devices(self, remarks: list[str]) -> tuple[tuple[UsbDevice, ...], bool]:
        """Return what is on the bus, and whether all is known of it: lsusb tells neither serials nor places."""
        try:
            return bus.scan_bus(Path(self.policy.sysfs), Path(self.policy.dev)), True
        except bus.UsbError as error:
            remarks.append(f"{error}; lsusb is asked instead")
        try:
            return bus.scan_with_lsusb(self.local.runner), False
        except bus.UsbError as error:
            raise ReconcileError(f"what is on the USB bus can't be found out: {error}. Nothing was changed") from None

    def _prudent(self, known: KnownUpses, whole: bool) -> UsbPolicy:
        """Return the policy, without new names where too little is known of the UPSes to tell that they have none."""
        named = known.conf.sections or known.wanted
        return replace(self.policy, default_name="") if named and not whole else self.policy

    def _upses(
        self, devices: tuple[UsbDevice, ...], known: KnownUpses, memory: State, remarks: list[str]
    ) -> tuple[tuple[UsbUps, ...], tuple[str, ...], bool]:
        """Return the UPSes among the devices, those that nut-scanner has been asked about, and whether it failed."""
        sections = [*known.conf.sections.values(), *(known.wanted.sections.values() if known.wanted else ())]
        telling = [
            section
            for section in sections
            if any(key.lower() in fingerprint.IDENTITY_KEYS for key, _value in section.keys)
        ]

        def named(device: UsbDevice) -> bool:
            return any(fingerprint.matches_device(section, device) for section in telling)

        table = bus.read_id_table(self.tables) if self.tables else bus.read_id_table()
        upses = bus.find_upses(devices, table, self.policy, named)
        unknown = [ups.device for ups in upses if not ups.driver and not named(ups.device) and not self._ruled(ups)]
        present = {f"{device.ids} {device.bus} {device.device}" for device in devices}
        asked = tuple(key for key in memory.asked if key in present)
        new = [device for device in unknown if f"{device.ids} {device.bus} {device.device}" not in asked]
        if not new:
            return upses, asked, False
        self.debug(f"nut-scanner is asked about {', '.join(map(describe, new))}")
        try:
            scanned = bus.ask_scanner(self.local.runner, devices)
        except bus.ScannerError as error:
            remarks.append(f"nut-scanner can't be asked which driver {', '.join(map(describe, new))} needs: {error}")
            return upses, asked, True
        asked += tuple(f"{device.ids} {device.bus} {device.device}" for device in new if device.ids not in scanned)
        return bus.find_upses(devices, table, self.policy, named, scanned), asked, False

    def _ruled(self, ups: UsbUps) -> bool:
        rule = self.policy.rule_for(ups.device)
        return rule is not None and bool(rule.driver)

    def _units(self, names: Sequence[str]) -> dict[str, base_systemd.Unit]:
        try:
            return base_systemd.show_units(
                [
                    *map(base_systemd.driver_unit, names),
                    base_systemd.SERVER,
                    base_systemd.MONITOR,
                    base_systemd.WATCHER,
                ],
                self.local.runner,
            )
        except base_systemd.UnitError as error:
            raise ReconcileError(f"systemd can't be asked how NUT stands: {error}. Nothing was changed") from None

    def _place(self) -> tuple[str, int]:
        return local_upsd(self._read("upsd.conf") or "")[0]

    def _ask(self, names: Sequence[str]) -> _Said:
        """Ask upsd for the UPSes of these names. One that hangs is waited for UPSD_SECONDS."""
        try:
            with UpsdClient(*self._place(), timeout=UPSD_SECONDS) as client:
                states = snapshot.take_snapshot(client)
        except UpsdFailure as error:
            self.debug(str(error))
            return _Said({}, dict.fromkeys(names, UNREACHABLE), None)
        by_name = {state.name.lower(): state for state in states}
        status: dict[str, tuple[str, ...]] = {}
        errors: dict[str, str] = {}
        for name in names:
            state = by_name.get(name.lower())
            if state is not None and state.fresh:
                status[name] = state.status
            else:
                errors[name] = "UNKNOWN-UPS" if state is None else state.error or "WAIT"
        return _Said(status, errors, tuple(snapshot.list_not_on_mains(states)))

    @staticmethod
    def _seen(
        name: str,
        found: Mapping[str, base_systemd.Unit],
        resolution: NameResolution,
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
            unit=found[base_systemd.driver_unit(name)],
            status=said.status.get(name, ()),
            error=said.errors.get(name, ""),
            since=now if name in said.status else memory.silent.get(name, now),
            plugged=None if ups is None else before.since if same and before else now - (decide.GRACE if lost else 0),
            new=ups is not None and not same and not lost,
            # a stand-in has no say in what its UPS said last
            last=memory.last.get(name, ()) if stands_in else said.status.get(name, memory.last.get(name, ())),
        )

    def _but_for_refused(self, resolution: NameResolution, known: KnownUpses, remarks: list[str]) -> NameResolution:
        """Leave the sections as they are that NUT has refused in this run; the others need not wait for them."""
        refused = {
            name: words
            for name, section in resolution.conf.sections.items()
            if (words := self._refused.get(ups_conf.render_sections([section])))
        }
        remarks += refused.values()
        return _with_old(resolution, known, refused)

    @staticmethod
    def _remembered(
        memory: State,
        known: KnownUpses,
        resolution: NameResolution,
        seen: Mapping[str, decide.Seen],
        *,
        now: float,
    ) -> State:
        plugged = {
            name: Plugging(*ups.device.incarnation, now if (since := seen[name].plugged) is None else since)
            for name, ups in resolution.plugged.items()
            if name in seen
        }
        # what a play has written is not an edit by hand
        agreed = {
            name: ups_conf.render_sections([section])
            for name, section in known.conf.sections.items()
            if name not in resolution.fixed and resolution.conf.sections.get(name) == section
        }
        return replace(
            memory,
            memory=dict(resolution.memory),
            written={**{name: text for name, text in known.written.items() if name in known.conf.sections}, **agreed},
            plugged=plugged,
            silent={name: state.since for name, state in seen.items() if not state.status},
            last={name: state.last for name, state in seen.items() if state.last},
        )

    def _text(self, plan: decide.Plan, old: str) -> str | None:
        if plan.conf is None:
            return None
        wanted = self._read("ups.conf.wanted")
        text = ups_conf_text.compose_text(
            ups_conf_text.header_of(old if wanted is None else wanted), plan.conf, plan.found, old
        )
        return None if text == old else text

    def _lacks(self, conf: ups_conf.UpsConf) -> tuple[str, ...]:
        needed = any(dict(section.keys).get("port") == DUMMY_PORT for section in conf.sections.values())
        return (DUMMY_PORT,) if needed and self._read(DUMMY_PORT) != DUMMY else ()

    def _pending(self) -> list[Action]:
        names = ups_conf.parse_ups_conf(self._read("ups.conf") or "").sections
        return self.local.pending.read(
            [*map(base_systemd.driver_unit, names), base_systemd.SERVER, base_systemd.MONITOR]
        )


def digest(text: str) -> str:
    return f"{binascii.crc32(text.encode('utf-8', 'surrogateescape')):08x}"
