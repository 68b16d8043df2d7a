# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Observe the host for nut-hotplug (USB bus, NUT's files, units, upsd) and have decide.py plan. Changes nothing.

One file, because each part uses what the earlier ones have read.
"""

from __future__ import annotations

import binascii
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

from ..base import systemd as base_systemd
from ..base.clock import read_boot_id, read_boottime
from ..base.spelling import list_words
from ..base.text import printable
from ..conf import ups_conf, ups_conf_text
from ..conf.directives import Release
from ..conf.release import find_release
from ..conf.upsd import local_upsd
from ..deploy.apply import LocalNut
from ..deploy.change import UnitAction, stop_watcher_actions
from ..events.report import ReportEvent, ignore_event
from ..net import snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..net.vocabulary import ABSENT
from ..usb import bus
from ..usb import names as usb_names
from ..usb.bus import UsbDevice
from ..usb.fingerprint import renew_fingerprint
from ..usb.liveness import read_measured
from ..usb.policy import UsbPolicy
from ..usb.resolution import KnownUpses, NameResolution, are_others_served, only_adds_keys
from ..usb.sections import DUMMY_PORT, DUMMY_STATUS, is_usb
from . import decide, owed, quiet, recognize
from .decision import DriverState, HotplugPlan
from .evidence import EvidenceReader
from .memory import HotplugState, Plugging, load_state
from .observation import HotplugObservation, describe_device

UPSD_SECONDS = 5.0
# DriverState.error if upsd could not be asked; not one of upsd's own codes
UNREACHABLE = "UNREACHABLE"

# The data that dummy-ups serves for a UPS that is not plugged in. No client takes its ups.status for mains or battery.
DUMMY = f"""\
# Written by nut-hotplug. dummy-ups serves this data for a UPS that is not plugged in.
device.mfr: none
device.model: not plugged in
device.type: ups
ups.mfr: none
ups.model: not plugged in
ups.status: {DUMMY_STATUS}
"""


class ReconcileError(Exception):
    """The host can't be observed or changed; the message says where, why, and what to do."""


@dataclass(frozen=True)
class _UpsdAnswers:
    """What upsd answered."""

    status: Mapping[str, tuple[str, ...]]  # name -> flags, of the UPSes that have data
    errors: Mapping[str, str]  # name -> error code, of the others
    # UPSes that are not plainly on mains, with status; None if upsd could not be asked
    not_on_mains: tuple[str, ...] | None
    measured: Mapping[str, str] = field(default_factory=dict)  # name -> liveness.read_measured()


def _list_auto(known: KnownUpses) -> list[str]:
    """Return the names of the UPSes whose driver is to be found."""
    wanted = known.wanted.sections if known.wanted else known.conf.sections
    return [name for name, section in wanted.items() if ups_conf.is_auto(section)]


def _needs_no_usb(known: KnownUpses) -> bool:
    """Return whether there are UPSes, and none of them can be on the USB bus."""
    sections = {**known.conf.sections, **(known.wanted.sections if known.wanted else {})}
    return bool(sections) and not any(ups_conf.is_auto(section) or is_usb(section) for section in sections.values())


def _keep_sections(resolution: NameResolution, known: KnownUpses, names: Iterable[str]) -> NameResolution:
    """Return a resolution that leaves these sections as they are in ups.conf, and adds none of them."""
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


def _ignore_line(line: str) -> None:
    """Ignore a line."""


@dataclass
class Observer:
    """Observes one host."""

    policy: UsbPolicy
    local: LocalNut
    release: Release | None = None  # of the host's NUT; None: ask it
    say: Callable[[str], None] = _ignore_line  # logs one line per decision
    debug: Callable[[str], None] = _ignore_line  # logs what led to it
    report_event: ReportEvent = ignore_event  # tells people
    # policy and program: a change of these files causes a full run, as a change of NUT's files does
    watched_files: Sequence[Path] = ()
    udev_tables: Sequence[Path] = ()  # directories of udev's rules; (): Debian's
    clock: Callable[[], float] = read_boottime
    monotonic: Callable[[], float] = time.monotonic  # systemd's clock, which stands still while the host is asleep
    wall: Callable[[], float] = time.time
    pause: Callable[[float], None] = time.sleep
    boot: Callable[[], str] = read_boot_id
    proc: Path = Path("/proc")
    _said_lines: set[str] = field(default_factory=set, init=False)
    # text of a section, or of ups.conf -> why NUT refused it
    _refused: dict[str, str] = field(default_factory=dict, init=False)
    _state: HotplugState | None = field(default=None, init=False)
    _evidence_reader: EvidenceReader | None = field(default=None, init=False)

    def observe_host(self) -> HotplugObservation:
        """Observe the host and plan what to do. Changes nothing. Raises ReconcileError."""
        seen_bus = quiet.describe_bus(self.policy.sysfs)
        now = self.clock()
        files = self._file_identities()
        memory = self._load_state()
        known, old = self._read_known(memory)
        release = self._find_release()
        remarks: list[str] = []
        devices, whole = self._scan_devices(known, remarks)
        seen_upses = self._recognize(devices, known, memory, remarks)
        devices, upses, troubled = seen_upses.devices, seen_upses.upses, seen_upses.is_incomplete
        resolution = usb_names.resolve_names(known, upses, self._cautious_policy(known, whole), release)
        resolution = self._keep_refused(resolution, known, remarks)
        if known.conf.sections and (release is None or not whole):
            # NUT is being reinstalled, or only lsusb worked: too little is known to change existing sections
            resolution = replace(_keep_sections(resolution, known, known.conf.sections), edited=frozenset())
            troubled = True
        names = list(dict.fromkeys([*resolution.conf.sections, *known.conf.sections]))
        units = self._show_units(names)
        answers = self._ask_upsd(names)
        power = answers.not_on_mains
        seen = {name: self._driver_state(name, units, resolution, answers, memory=memory, now=now) for name in names}
        # lsusb shows too little to tell whether a UPS is there
        judged = known.conf.sections if whole else {}
        evidence = self._evidence().gather_evidence(
            judged, units, answers, resolution.plugged, devices, memory=memory, now=now
        )
        seen = {
            name: replace(state, loss=found.loss, suspicion=found.suspicion, stillness=found.stillness)
            if (found := evidence.get(name))
            else state
            for name, state in seen.items()
        }
        server = units[base_systemd.SERVER]
        plan = decide.make_plan(resolution, known, seen, server, power, memory.tries, now, self.policy, release)
        text = self._compose_text(plan, old)
        if text is not None and (reason := self._refused.get(text)):
            remarks.append(reason)
            resolution = replace(resolution, conf=known.conf, found=known.found)
            plan = decide.make_plan(resolution, known, seen, server, power, memory.tries, now, self.policy, release)
            text = self._compose_text(plan, old)
        drivers = [base_systemd.driver_unit(name) for name in (plan.conf or known.conf).sections]
        plan, left = owed.add_owed(plan, self._owed_actions(), drivers, power, units)
        if text is not None:
            plan = replace(plan, before=(*stop_watcher_actions(units[base_systemd.WATCHER]), *plan.before))
        remarks += [f"{describe_device(ups.device)} is not served: {why}" for ups, why in resolution.unserved]
        remarks += resolution.remarks
        state = seen_upses.remember(self._next_state(memory, known, resolution, seen, now=now))
        # one that has data may get another name in the next run, which must not be skipped
        unproven = recognize.list_unproven(memory.proven, resolution.plugged)
        troubled = troubled or any(name in seen and seen[name].is_fresh for name in unproven)
        return HotplugObservation(
            bus_text=seen_bus,
            files=files,
            time=now,
            release=release,
            devices=devices,
            upses=upses,
            known=known,
            resolution=resolution,
            drivers=seen,
            server=server,
            plan=plan,
            owed=left,
            not_on_mains=tuple(power or ()),
            state=replace(state, bus=digest_text(seen_bus)),
            path=self.local.conf_dir / "ups.conf",
            old_text=old,
            new_text=text,
            missing_files=self._missing_files(plan.conf or known.conf),
            remarks=tuple(dict.fromkeys(printable(remark, 500) for remark in remarks)),
            is_incomplete=troubled or bool(self._refused) or (power is None and bool(names)),
        )

    def _evidence(self) -> EvidenceReader:
        if self._evidence_reader is None:
            self._evidence_reader = EvidenceReader(
                self.local.manager, Path(self.policy.sysfs), Path(self.policy.dev), self.proc, self.wall, self.debug
            )
        return self._evidence_reader

    def complete_ups_conf(self, wanted: str) -> tuple[str, NameResolution]:
        """Return the text of ups.conf for WANTED (the text of ups.conf.wanted) and the UPSes that are plugged in, and their names.

        For the module config, which writes both files itself. Raises ReconcileError.
        """
        memory = self._load_state()
        known, old = self._read_known(memory, wanted)
        if known.wanted is not None:
            # a play overrides edits by hand and removes sections that are neither declared nor added by nut-hotplug
            kept = {
                name: section
                for name, section in known.conf.sections.items()
                if name in known.wanted.sections or name in known.found
            }
            known = replace(known, conf=replace(known.conf, sections=kept), written={}, play=True)
        remarks: list[str] = []
        devices, whole = self._scan_devices(known, remarks)
        upses = self._recognize(devices, known, memory, remarks).upses
        resolution = usb_names.resolve_names(known, upses, self._cautious_policy(known, whole), self._find_release())
        resolution = _keep_sections(resolution, known, self._working_sections(known, resolution))
        resolution = replace(resolution, remarks=(*remarks, *resolution.remarks))
        return ups_conf_text.compose_text(
            ups_conf_text.header_of(wanted), resolution.conf, resolution.found, old
        ), resolution

    def _working_sections(self, known: KnownUpses, resolution: NameResolution) -> list[str]:
        """Return the sections that would only gain keys although their UPS is served. Their drivers are not restarted for that."""
        names = [name for name in resolution.plugged if only_adds_keys(name, known, resolution)]
        if not names:
            return []
        fresh = self._ask_upsd(list(resolution.plugged)).status
        return [name for name in names if name in fresh and are_others_served(name, known, resolution, fresh)]

    def _load_state(self) -> HotplugState:
        if self._state is None:
            self._state = load_state(self.local.hotplug_state)
        return self._state.for_boot(self.boot())

    def _file_identities(self) -> dict[str, str]:
        names = ("ups.conf", "ups.conf.wanted", "upsd.conf")
        # the directory and the manifest: a run that was killed while it wrote there left something to complete or remove
        paths = [
            self.local.conf_dir,
            *(self.local.conf_dir / name for name in names),
            *self.watched_files,
            self.local.manifest,
            self.local.pending.path,
        ]
        return {str(path): quiet.identify_file(str(path)) for path in paths}

    def _read_file(self, name: str) -> str | None:
        try:
            return self.local.read_file(name)
        except OSError as error:
            path = self.local.conf_dir / name
            raise ReconcileError(f"can't read {path}: {error.strerror}. Nothing was changed") from None

    def _read_known(self, memory: HotplugState, wanted: str | None = None) -> tuple[KnownUpses, str]:
        old = self._read_file("ups.conf") or ""
        wanted = self._read_file("ups.conf.wanted") if wanted is None else wanted
        conf, added = ups_conf.parse_ups_conf(old), ups_conf_text.found_sections(old)
        # An interrupted run may or may not have written ups.conf. Its text shows which.
        written = dict(memory.written)
        for name, section in conf.sections.items():
            if name in memory.intended and memory.intended[name] == ups_conf.render_sections([section]):
                written[name] = memory.intended[name]
        parsed = ups_conf.parse_ups_conf(wanted or "")
        # the module config empties ups.conf.wanted when no section has driver auto any more
        return (
            KnownUpses(
                parsed if parsed.sections else None,
                conf,
                added,
                {name: renew_fingerprint(identity) for name, identity in memory.identities.items()},
                written,
                memory.edited,
                proven=frozenset(memory.proven),
            ),
            old,
        )

    def _find_release(self) -> Release | None:
        if self.release is None:
            self.release = find_release(self.local.runner, self.local.finder)
        return self.release

    def _scan_devices(self, known: KnownUpses, remarks: list[str]) -> tuple[tuple[UsbDevice, ...], bool]:
        """Return the devices on the bus, and whether they are fully described: lsusb shows neither serial numbers nor ports."""
        try:
            if _needs_no_usb(known):
                return bus.scan_bus(Path(self.policy.sysfs), Path(self.policy.dev)), True
            devices, problem = bus.scan_devices(Path(self.policy.sysfs), Path(self.policy.dev), self.local.runner)
        except bus.UsbError as error:
            missing = _list_auto(known) if isinstance(error, bus.NoUsbBus) else []
            if missing:
                raise ReconcileError(
                    f"{error}, and the driver of {list_words(missing)} is auto, which looks for a UPS there: connect it to this host "
                    "(pass it through to a virtual machine), or name the driver in nut_server_devices. Nothing was changed"
                ) from None
            if isinstance(error, bus.NoUsbBus) or _needs_no_usb(known):
                return (), True  # a virtual machine, or a host with UPSes on the network
            raise ReconcileError(f"can't read the USB bus: {error}. Nothing was changed") from None
        if problem:
            remarks.append(f"{problem}; using lsusb instead")
        return devices, not problem

    def _cautious_policy(self, known: KnownUpses, whole: bool) -> UsbPolicy:
        """Return the policy, without a default name if too little is known of the UPSes to tell whether they already have names."""
        is_named = known.conf.sections or known.wanted
        return replace(self.policy, default_name="") if is_named and not whole else self.policy

    def _recognize(
        self, devices: tuple[UsbDevice, ...], known: KnownUpses, memory: HotplugState, remarks: list[str]
    ) -> recognize.Recognized:
        release = self._find_release() or usb_names.OLDEST
        recognizer = recognize.Recognizer(
            self.local,
            self.policy,
            release,
            known,
            memory,
            remarks,
            has_data=lambda names: self._ask_upsd(names).status,
            debug=self.debug,
            now=self.clock(),
            udev_tables=self.udev_tables,
        )
        return recognizer.find_upses(devices)

    def _show_units(self, names: Sequence[str]) -> dict[str, base_systemd.Unit]:
        try:
            return self.local.manager.show_units(
                [
                    *map(base_systemd.driver_unit, names),
                    base_systemd.SERVER,
                    base_systemd.MONITOR,
                    base_systemd.WATCHER,
                ],
                booted=self.clock() - self.monotonic(),
            )
        except base_systemd.UnitError as error:
            raise ReconcileError(
                f"can't ask {self.local.manager.name} about NUT's units: {error}. Nothing was changed"
            ) from None

    def upsd_address(self) -> tuple[str, int]:
        """Return where to ask this host's upsd. Raises ReconcileError."""
        return local_upsd(self._read_file("upsd.conf") or "")[0]

    def _ask_upsd(self, names: Sequence[str]) -> _UpsdAnswers:
        """Ask upsd for the UPSes of these names, for at most UPSD_SECONDS."""
        try:
            with UpsdClient(*self.upsd_address(), timeout=UPSD_SECONDS) as client:
                states = snapshot.take_snapshot(client)
        except UpsdFailure as error:
            self.debug(str(error))
            return _UpsdAnswers({}, dict.fromkeys(names, UNREACHABLE), None)
        by_name = {state.name.lower(): state for state in states}
        status: dict[str, tuple[str, ...]] = {}
        errors: dict[str, str] = {}
        measured: dict[str, str] = {}
        for name in names:
            state = by_name.get(name.lower())
            if state is not None and state.fresh:
                status[name] = state.status
                measured[name] = read_measured(state.variables)
            else:
                errors[name] = "UNKNOWN-UPS" if state is None else state.error or "WAIT"
        return _UpsdAnswers(status, errors, tuple(snapshot.list_not_on_mains(states)), measured)

    @staticmethod
    def _driver_state(
        name: str,
        units: Mapping[str, base_systemd.Unit],
        resolution: NameResolution,
        answers: _UpsdAnswers,
        *,
        memory: HotplugState,
        now: float,
    ) -> DriverState:
        """Return the state of a driver."""
        ups = resolution.plugged.get(name)
        stands_in = ABSENT in answers.status.get(name, ())
        before = memory.plugged.get(name)
        same = ups is not None and before is not None and ups.device.incarnation == (before.bus, before.device)
        # if the state was lost, a UPS that is served is not new
        lost = not memory.identities and name in answers.status
        return DriverState(
            unit=units[base_systemd.driver_unit(name)],
            status=answers.status.get(name, ()),
            error=answers.errors.get(name, ""),
            silent_since=now if name in answers.status else memory.silent_since.get(name, now),
            plugged_since=None
            if ups is None
            else before.since
            if same and before
            else now - (decide.GRACE if lost else 0),
            is_new_device=ups is not None and not same and not lost,
            # the status of a stand-in is not that of its UPS
            last_status=memory.last_status.get(name, ())
            if stands_in
            else answers.status.get(name, memory.last_status.get(name, ())),
        )

    def _keep_refused(self, resolution: NameResolution, known: KnownUpses, remarks: list[str]) -> NameResolution:
        """Return the resolution without the sections that NUT refused in this run, so that the others do not wait for them."""
        refused = {
            name: reason
            for name, section in resolution.conf.sections.items()
            if (reason := self._refused.get(ups_conf.render_sections([section])))
        }
        remarks += refused.values()
        return _keep_sections(resolution, known, refused)

    @staticmethod
    def _next_state(
        memory: HotplugState,
        known: KnownUpses,
        resolution: NameResolution,
        seen: Mapping[str, DriverState],
        *,
        now: float,
    ) -> HotplugState:
        plugged = {
            name: Plugging(*ups.device.incarnation, now if (since := seen[name].plugged_since) is None else since)
            for name, ups in resolution.plugged.items()
            if name in seen
        }
        # sections that a play wrote are not edits by hand
        agreed = {
            name: ups_conf.render_sections([section])
            for name, section in known.conf.sections.items()
            if name not in resolution.fixed and resolution.conf.sections.get(name) == section
        }
        return replace(
            memory,
            identities=dict(resolution.memory),
            written={**{name: text for name, text in known.written.items() if name in known.conf.sections}, **agreed},
            edited={name: ups_conf.render_sections([known.conf.sections[name]]) for name in sorted(resolution.edited)},
            plugged=plugged,
            proven=recognize.add_proven(memory.proven, known.memory, _list_settled(seen, now), resolution.plugged),
            silent_since={name: state.silent_since for name, state in seen.items() if not state.status},
            last_status={name: state.last_status for name, state in seen.items() if state.last_status},
            lost_since={name: state.loss.since for name, state in seen.items() if state.loss},
            still={name: state.stillness for name, state in seen.items() if state.stillness},
        )

    def _compose_text(self, plan: HotplugPlan, old: str) -> str | None:
        if plan.conf is None:
            return None
        wanted = self._read_file("ups.conf.wanted")
        text = ups_conf_text.compose_text(
            ups_conf_text.header_of(old if wanted is None else wanted), plan.conf, plan.found, old
        )
        return None if text == old else text

    def _missing_files(self, conf: ups_conf.UpsConf) -> tuple[str, ...]:
        needed = any(dict(section.keys).get("port") == DUMMY_PORT for section in conf.sections.values())
        return (DUMMY_PORT,) if needed and self._read_file(DUMMY_PORT) != DUMMY else ()

    def _owed_actions(self) -> list[UnitAction]:
        names = ups_conf.parse_ups_conf(self._read_file("ups.conf") or "").sections
        return self.local.pending.read_actions(
            [*map(base_systemd.driver_unit, names), base_systemd.SERVER, base_systemd.MONITOR]
        )


def _list_settled(seen: Mapping[str, DriverState], now: float) -> list[str]:
    """Return the names whose drivers have had data since their UPS was plugged in, not from the one before it."""
    return [
        name
        for name, state in seen.items()
        if state.is_fresh
        and ABSENT not in state.status
        and state.plugged_since is not None
        and now >= state.plugged_since + decide.GRACE
    ]


def digest_text(text: str) -> str:
    """Return a short checksum of a text."""
    return f"{binascii.crc32(text.encode('utf-8', 'surrogateescape')):08x}"
