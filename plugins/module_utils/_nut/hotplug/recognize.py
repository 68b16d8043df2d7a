# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recognize the UPSes among the devices on the bus, with the help of nut-scanner, and remember what it showed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

from ..conf.directives import Release
from ..conf.release import format_release
from ..conf.ups_conf import Section, is_auto
from ..deploy.apply import LocalNut
from ..usb import bus, fingerprint, unread
from ..usb.bus import TEXT_KEYS, UsbDevice, UsbUps
from ..usb.fingerprint import Fingerprint, compare_fingerprints, make_fingerprint
from ..usb.generic import is_generic
from ..usb.pins import find_own_pins, is_told_apart
from ..usb.policy import UsbPolicy
from ..usb.resolution import KnownUpses
from .decide import GRACE
from .memory import HotplugState
from .observation import describe_device

# After this many attempts in a row, a driver that finds no UPS is not waiting for it: it can't read what its section names.
VAIN_TRIES = 2
PROVEN_MOST = 256


@dataclass(frozen=True)
class ScannerMemory:
    """What nut-scanner said of the devices on the bus. Devices are written as "ids bus device"."""

    answered: tuple[str, ...] = ()  # devices that it was asked about
    failed: tuple[str, ...] = ()  # devices that it was asked about, and gave no answer
    drivers: Mapping[str, str] = field(default_factory=dict)  # ids -> driver

    @classmethod
    def of(cls, state: HotplugState, devices: Sequence[UsbDevice], release: Release) -> ScannerMemory:
        """Return what is still true with these devices and this release of NUT."""
        if state.scanner_release not in ("", format_release(release)):
            return cls()
        present, ids = {_key(device) for device in devices}, {device.ids for device in devices}
        return cls(
            tuple(key for key in state.scanned if key in present),
            tuple(key for key in state.scanner_failed if key in present),
            {known: driver for known, driver in state.scanner_drivers.items() if known in ids},
        )

    def is_asked(self, device: UsbDevice) -> bool:
        """Return whether it was asked about this device."""
        return self.is_answered(device) or _key(device) in self.failed

    def is_answered(self, device: UsbDevice) -> bool:
        """Return whether it answered, so that a device that it did not list is one that it does not know."""
        return _key(device) in self.answered

    def add_answer(self, devices: Iterable[UsbDevice], lines: Mapping[str, Sequence[str]] | None) -> ScannerMemory:
        """Return the memory with what it said about new devices. lines: from bus.read_scanner(); None if it did not answer."""
        keys = tuple(map(_key, devices))
        if lines is None:
            return replace(self, failed=(*self.failed, *keys))
        return replace(
            self, answered=(*self.answered, *keys), drivers={**self.drivers, **bus.list_scanned_drivers(lines)}
        )


def _key(device: UsbDevice) -> str:
    return f"{device.ids} {device.bus} {device.device}"


@dataclass(frozen=True)
class Recognized:
    """The UPSes on the bus, and what to remember."""

    devices: tuple[UsbDevice, ...]
    upses: tuple[UsbUps, ...]
    scanned: ScannerMemory
    unread: tuple[str, ...]  # HotplugState.unread
    release: Release
    is_incomplete: bool = False  # nut-scanner failed, so it should be asked again

    def remember(self, state: HotplugState) -> HotplugState:
        """Return the state with what nut-scanner said."""
        return replace(
            state,
            scanned=self.scanned.answered,
            scanner_failed=self.scanned.failed,
            scanner_drivers=self.scanned.drivers,
            scanner_release=format_release(self.release),
            unread=self.unread,
        )


@dataclass
class Recognizer:
    """Recognizes the UPSes of one host, for one observation."""

    local: LocalNut
    policy: UsbPolicy
    release: Release
    known: KnownUpses
    memory: HotplugState
    remarks: list[str]  # problems are appended here
    has_data: Callable[[Sequence[str]], Iterable[str]]  # asks upsd which of these UPSes it has data for
    debug: Callable[[str], None]
    now: float
    udev_tables: Sequence[Path] = ()

    def find_upses(self, devices: Sequence[UsbDevice]) -> Recognized:
        """Return the UPSes among the devices. Changes nothing."""
        table = bus.read_id_table(self.udev_tables) if self.udev_tables else bus.read_id_table()
        notes = [*self.memory.unread, *self._find_vain_pins(devices)]
        scanned = ScannerMemory.of(self.memory, devices, self.release)
        upses = self._find_upses(self._mark_unread(devices, notes), table, scanned)
        unknown = [ups.device for ups in upses if not ups.driver and not self._has_named_driver(ups)]
        new = [
            device
            for device in dict.fromkeys([*unknown, *(ups.device for ups in upses if self._is_doubtful(ups, upses))])
            if not scanned.is_asked(device)
        ]
        is_incomplete = False
        if new:
            lines, failure = self._ask_scanner(devices, new)
            unknown = [device for device in unknown if failure and device in new]
            if unknown:
                named = ", ".join(map(describe_device, unknown))
                self.remarks.append(f"can't ask nut-scanner which driver {named} needs: {failure}")
            is_incomplete = bool(unknown)
            scanned = scanned.add_answer([device for device in new if device not in unknown], lines)
            notes += self._find_unread(new, lines or {})
            upses = self._find_upses(self._mark_unread(devices, notes), table, scanned)
        self._remark_on_adapters(devices, table, upses)
        return Recognized(
            self._mark_unread(devices, notes), upses, scanned, unread.keep_notes(notes), self.release, is_incomplete
        )

    def _ask_scanner(
        self, devices: Sequence[UsbDevice], new: Iterable[UsbDevice]
    ) -> tuple[Mapping[str, Sequence[str]] | None, str]:
        """Return the lines of bus.read_scanner(), and why it failed; "" if it did not."""
        self.debug(f"asking nut-scanner about {', '.join(map(describe_device, new))}")
        try:
            return bus.read_scanner(self.local.runner, devices), ""
        except bus.ScannerError as error:
            self.debug(str(error))
            return None, str(error)

    def _is_doubtful(self, ups: UsbUps, upses: Sequence[UsbUps]) -> bool:
        """Return whether nut-scanner can tell more of a UPS: whether NUT reads what its section names, and whether it knows the model."""
        device = ups.device
        # lsusb shows neither serial numbers nor ports
        if not device.place:
            return False
        rule = self.policy.rule_for(device)
        driver = (rule.driver if rule else "") or ups.driver
        if ups.support != bus.MODEL and driver in ("", bus.HID_DRIVER):
            return True
        if device.unread or (driver and not is_told_apart(driver, self.release)):
            return False
        has_twin = sum(other.device.ids == device.ids for other in upses) > 1
        return bool(fingerprint.trusted_serial(device) or (has_twin and device.product.strip()))

    # Sections

    def _list_sections(self) -> list[Section]:
        wanted = self.known.wanted.sections.values() if self.known.wanted else ()
        return [*self.known.conf.sections.values(), *wanted]

    def _list_written(self) -> list[Section]:
        """Return the sections that a person wrote."""
        wanted = self.known.wanted.sections if self.known.wanted else {}
        ours = {*wanted, *self.known.found}
        by_hand = [section for name, section in self.known.conf.sections.items() if name not in ours]
        return [*wanted.values(), *by_hand]

    def _has_named_driver(self, ups: UsbUps) -> bool:
        """Return whether a person names the driver of a UPS."""
        rule = self.policy.rule_for(ups.device)
        fixed = (section for section in self._list_written() if not is_auto(section))
        return bool(rule and rule.driver) or _names_device(fixed, ups.device)

    def _find_upses(
        self, devices: Sequence[UsbDevice], table: Mapping[str, str], scanned: ScannerMemory
    ) -> tuple[UsbUps, ...]:
        every, written = self._list_sections(), self._list_written()
        found = bus.find_upses(
            devices,
            table,
            self.policy,
            lambda device: _names_device(every, device),
            scanned.drivers,
            chosen=lambda device: _names_device(written, device),
            installed=lambda driver: self.local.finder(driver) is not None,
        )
        # a table may be incomplete: a model is unknown only if nut-scanner does not list it either
        return tuple(
            replace(ups, support=bus.MODEL)
            if scanned.is_asked(ups.device) and not scanned.is_answered(ups.device)
            else ups
            for ups in found
        )

    def _remark_on_adapters(
        self, devices: Iterable[UsbDevice], table: Mapping[str, str], upses: Sequence[UsbUps]
    ) -> None:
        """Remark on adapters that may be a UPS, if there is no other UPS."""
        if upses:
            return
        for device in devices:
            if (
                device.ids in table
                and is_generic(device.vendor_id, device.product_id)
                and not self.policy.is_ignored(device)
            ):
                self.remarks.append(
                    f"{describe_device(device)} is a serial adapter or a board, which may be in any device, so it is not taken for "
                    f'a UPS. If it is one, add "{device.ids}" to nut_hotplug_patterns'
                )

    # Texts that NUT can't read

    def _mark_unread(self, devices: Iterable[UsbDevice], notes: Sequence[str]) -> tuple[UsbDevice, ...]:
        return tuple(unread.read_notes(device, notes, self.release) for device in devices)

    def _find_unread(self, devices: Iterable[UsbDevice], lines: Mapping[str, Sequence[str]]) -> list[str]:
        """Return notes on the texts that nut-scanner does not show, unless the UPS's driver has read them."""
        notes: list[str] = []
        for device in devices:
            keys = unread.find_unread(device, lines)
            section = self._section_of(device)
            if keys and section and set(keys) & _text_pins(section.keys) and list(self.has_data([section.name])):
                continue
            if keys:
                self.debug(f"nut-scanner does not show the {', '.join(sorted(keys))} of {describe_device(device)}")
            notes += unread.write_notes(device, keys, self.release)
        return notes

    def _section_of(self, device: UsbDevice) -> Section | None:
        """Return the section in ups.conf of a UPS that had a name before."""
        seen = make_fingerprint(device)
        for name, identity in self.known.memory.items():
            if compare_fingerprints(identity, seen) == 3 and name in self.known.conf.sections:
                return self.known.conf.sections[name]
        return None

    def _find_vain_pins(self, devices: Iterable[UsbDevice]) -> list[str]:
        """Return notes on texts that our sections name, and whose drivers find nothing although the UPS is there.

        Of texts that a person has written, the person is told.
        """
        notes: list[str] = []
        for device in devices:
            section = self._section_of(device)
            tries = self.memory.tries.get(section.name) if section else None
            if section is None or tries is None or tries.count < VAIN_TRIES or tries.good_since is not None:
                continue
            declared = self.known.wanted.sections.get(section.name) if self.known.wanted else None
            every, ours = _text_pins(section.keys), _text_pins(find_own_pins(section, declared))
            is_due = not tries.last_try <= self.now < tries.last_try + GRACE
            if every and fingerprint.matches_device(section, device) and not list(self.has_data([section.name])):
                if ours and is_due:
                    notes += unread.write_notes(device, TEXT_KEYS, self.release)
                if theirs := sorted(every - ours):
                    self.remarks.append(
                        f"[{section.name}]: its driver does not find {describe_device(device)}, although the kernel reads the declared "
                        f"{', '.join(theirs)} from it. NUT may not be able to read that: compare with `nut-scanner -U`, and if it is "
                        f"missing there, name the UPS by vendorid and productid in nut_server_devices, without {', '.join(theirs)}"
                    )
        return notes


def _names_device(sections: Iterable[Section], device: UsbDevice) -> bool:
    """Return whether one of the sections has keys that identify the device."""
    return any(
        fingerprint.lowered_keys(section.keys) & {*fingerprint.IDENTITY_KEYS}
        and fingerprint.matches_device(section, device)
        for section in sections
    )


def _text_pins(pairs: Iterable[tuple[str, str | None]]) -> set[str]:
    return {key.lower() for key, _value in pairs} & {*TEXT_KEYS}


def list_unproven(proven: Sequence[str], plugged: Mapping[str, UsbUps]) -> list[str]:
    """Return the names of doubtful UPSes whose drivers are not known to have had data: adapters, and models that NUT does not know."""
    return [
        name
        for name, ups in plugged.items()
        if (ups.support != bus.MODEL or is_generic(ups.device.vendor_id, ups.device.product_id))
        and str(make_fingerprint(ups.device)) not in proven
    ]


def add_proven(
    proven: Sequence[str], before: Mapping[str, Fingerprint], settled: Iterable[str], plugged: Mapping[str, UsbUps]
) -> tuple[str, ...]:
    """Return HotplugState.proven with the doubtful UPSes added whose drivers have data.

    before: name -> the UPS that had it in the last run. settled: names of UPSes with data of their own.
    """
    found = list(proven)
    for name in sorted({*list_unproven(proven, plugged)} & {*settled}):
        seen = make_fingerprint(plugged[name].device)
        if name in before and compare_fingerprints(before[name], seen) == 3:
            found.append(str(seen))
    return tuple(found)[-PROVEN_MOST:]
