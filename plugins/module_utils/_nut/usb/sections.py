# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sections of ups.conf that follow from which UPS has which name. See names.py, which gives the names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..conf import ups_conf
from ..conf.directives import Release
from ..conf.fit import unfit_key
from ..conf.ups_conf import FIRST, Pair, Section
from .bus import DRIVERS, HID_DRIVER, UsbDevice, UsbUps
from .fingerprint import KEYS, Fingerprint, identifying_pairs, lowered_keys, matches_device
from .pins import find_pins, is_told_apart, own_pins, park_section, still_hold
from .policy import NO_USB, DeviceRule, UsbPolicy

DUMMY = "dummy-ups"
# a file in /etc/nut, where dummy-ups looks for it
DUMMY_PORT = "nut-hotplug-absent.dev"


def get_value(section: Section | None, key: str) -> str:
    """Return a key's value, "" if it has none."""
    return next((value or "" for word, value in section.keys if word.lower() == key), "") if section else ""


def is_dummy(section: Section | None) -> bool:
    """Return whether this is our stand-in for a UPS that is not there."""
    return section is not None and (get_value(section, "driver"), get_value(section, "port")) == (DUMMY, DUMMY_PORT)


def is_usb(section: Section) -> bool:
    """Return whether its driver looks for a UPS on the bus."""
    driver, port = get_value(section, "driver"), get_value(section, "port").lower()
    if driver == "nutdrv_qx" or driver not in DRIVERS:
        # it may speak to a serial port, or to the network
        return driver not in ("", *NO_USB) and (
            port == "auto" or port.startswith(("/dev/bus/usb", "/dev/usb", "/proc/bus/usb"))
        )
    return True


def is_real(section: Section | None) -> bool:
    """Return whether a section has a driver, and is no stand-in."""
    return section is not None and not is_dummy(section) and get_value(section, "driver") not in ("", ups_conf.AUTO)


def get_last_section(name: str, old: Section | None, memory: Fingerprint | None, policy: UsbPolicy) -> Section | None:
    """Return the section that a name's UPS had last; None if nothing is known of it.

    If ups.conf has lost the section but the UPS is remembered, usbhid-ups is assumed, the driver of most UPSes.
    """
    if is_real(old):
        return old
    if memory is None or (is_dummy(old) and policy.absent == "dummy"):
        return None
    return Section(name, (("driver", HID_DRIVER), ("vendorid", memory.vendor_id), ("productid", memory.product_id)))


def describe_device(device: UsbDevice) -> str:
    """Name a device in a sentence, by what it can't choose itself."""
    return f"{device.ids} at {device.place or device.node}"


def make_dummy(name: str, section: Section) -> Section:
    """Return the stand-in for a UPS that is not there."""
    head = dict(_make_head(section, DUMMY))
    return Section(name, tuple({**head, "port": DUMMY_PORT}.items()))


def _make_head(declared: Section, driver: str) -> tuple[Pair, ...]:
    desc = get_value(declared, "desc")
    head: tuple[Pair, ...] = (("driver", driver), ("port", get_value(declared, "port") or "auto"))
    return (*head, ("desc", desc)) if desc else head


def _drop_given(pairs: Iterable[Pair], stronger: Iterable[Pair]) -> tuple[Pair, ...]:
    """Leave out what others say."""
    said = lowered_keys(stronger)
    return tuple(pair for pair in pairs if pair[0].lower() not in said)


@dataclass(eq=False)
class Sighting:
    """A UPS on the bus, while names are given."""

    ups: UsbUps
    rule: DeviceRule | None  # that the policy has for it
    seen: Fingerprint

    @property
    def device(self) -> UsbDevice:
        """Return the device that it is."""
        return self.ups.device

    @property
    def driver(self) -> str:
        """Return the driver for it, if it had no section before."""
        return (
            (self.rule.driver if self.rule else "") or self.ups.driver or (HID_DRIVER if self.device.hid_power else "")
        )


@dataclass
class SectionWriter:
    """Writes the sections of ups.conf, once all names are given."""

    conf: Mapping[str, Section]  # as ups.conf is
    declared: Mapping[str, Section]  # what the inventory says of those whose driver is auto
    memory: Mapping[str, Fingerprint]  # who had a name last
    given: Mapping[str, Sighting]  # who has a name now
    drivers: Mapping[str, str]  # name -> the driver that a given one gets
    devices: Sequence[UsbDevice]  # all on the bus
    policy: UsbPolicy
    release: Release
    remarks: list[str]  # gets what can't be done, and the remedy

    def _keep_supported(self, name: str, driver: str, pairs: Iterable[Pair]) -> tuple[Pair, ...]:
        """Leave out what the host's NUT does not know: its driver would not start."""
        kept = []
        for pair in pairs:
            why = unfit_key(name, driver, pair[0], self.release)
            if why:
                self.remarks.append(why)
            else:
                kept.append(pair)
        return tuple(kept)

    def write_present(self, name: str) -> Section:
        """Return the section of a UPS that is there."""
        sighting, driver = self.given[name], self.drivers[name]
        declared = self.declared.get(name, Section(name, ()))
        rest = self._keep_supported(name, driver, (pair for pair in declared.keys if pair[0].lower() not in FIRST))
        options = self._keep_supported(name, driver, _drop_given(sighting.rule.options if sighting.rule else (), rest))
        pins = _drop_given(self._choose_pins(name, sighting.device, driver), (*rest, *options))
        return Section(name, (*_make_head(declared, driver), *pins, *rest, *options))

    def _choose_pins(self, name: str, device: UsbDevice, driver: str) -> tuple[Pair, ...]:
        fresh = find_pins(device, self.devices, self.release, driver)
        if fresh.remark:
            self.remarks.append(f"[{name}]: {fresh.remark}")
        old = own_pins(self.conf.get(name), self.declared.get(name))
        if still_hold(old, fresh.keys, device) and self._keep_supported(name, driver, old) == old:
            return old
        return fresh.keys

    def write_absent(self, name: str) -> Section:
        """Return the section of a UPS that is not there: as it was, but for what is declared anew."""
        old = self.conf.get(name, Section(name, ()))
        declared = self.declared.get(name)
        if is_dummy(old) and self.policy.absent == "dummy":
            return make_dummy(name, declared or old)
        unknown = Section(name, (("driver", HID_DRIVER),))
        last = get_last_section(name, old, self.memory.get(name), self.policy) or unknown
        driver, pins = get_value(last, "driver"), identifying_pairs(last.keys)
        # options that are no longer declared go; those of rules stay
        known = {pair for rule in self.policy.rules for pair in rule.options} if declared else {*last.keys}
        options = tuple(pair for pair in last.keys if pair in known and pair[0].lower() not in (*FIRST, *KEYS))
        base = declared or Section(name, tuple(pair for pair in old.keys if pair[0] == "desc"))
        rest = self._keep_supported(name, driver, (pair for pair in base.keys if pair[0].lower() not in FIRST))
        keys = (*_drop_given(pins, rest), *rest, *_drop_given(options, rest))
        return self._park_beside_rival(Section(name, (*_make_head(base, driver), *keys)), rest)

    def _park_beside_rival(self, section: Section, declared: Sequence[Pair]) -> Section:
        """Keep a driver that looks for a UPS in vain from taking one that is served under another name."""
        rival = self._find_rival(section)
        if rival is None:
            return section
        if "vendorid" in lowered_keys(declared) or not is_told_apart(get_value(section, "driver"), self.release):
            self.remarks.append(
                f"[{section.name}]: its UPS is not there, and its keys mean {describe_device(rival)} as well, which has another name. "
                "Declare it with its serial"
            )
            return section
        return park_section(section)

    def _find_rival(self, section: Section) -> UsbDevice | None:
        """Return a UPS that is served under another name, and that this section's driver would take."""
        driver = get_value(section, "driver")
        rivals = (
            sighting.device
            for name, sighting in self.given.items()
            if name != section.name and self.drivers[name] == driver and matches_device(section, sighting.device)
        )
        return next(rivals, None)

    def check_fixed(self, sections: Iterable[Section]) -> None:
        """Remark on fixed sections whose driver may take a UPS that has another name."""
        for section in sections:
            rival = self._find_rival(section) if is_usb(section) else None
            if rival:
                self.remarks.append(
                    f"[{section.name}]: its keys don't tell its UPS from {describe_device(rival)}, so its driver may take that one. "
                    "Give it vendorid, productid and serial"
                )
