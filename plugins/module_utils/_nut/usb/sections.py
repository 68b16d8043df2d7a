# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the sections of ups.conf once names.py has given the names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..conf import ups_conf
from ..conf.directives import Release
from ..conf.fit import unfit_key
from ..conf.ups_conf import FIRST, Pair, Section, choose_delays
from .bus import HID_DRIVER, NOTHING, UsbDevice, UsbUps, looks_on_usb
from .fingerprint import KEYS, Fingerprint, identifying_pairs, lowered_keys, matches_device
from .generic import is_generic
from .pins import can_keep_pins, find_own_pins, find_pins, is_told_apart, park_section
from .policy import DeviceRule, UsbPolicy

DUMMY = "dummy-ups"
# a file in /etc/nut, where dummy-ups looks for its port
DUMMY_PORT = "nut-hotplug-absent.dev"
DUMMY_STATUS = "wait wait"
"""ups.status of the stand-in: net/vocabulary.py's ABSENT, twice. A single one would never arrive: upsd compares without regard to case
(state.c), and takes it for the WAIT that it has already."""


def get_value(section: Section | None, key: str) -> str:
    """Return a key's value; "" without one."""
    return next((value or "" for word, value in section.keys if word.lower() == key), "") if section else ""


def is_dummy(section: Section | None) -> bool:
    """Return whether a section is our stand-in for an absent UPS."""
    return section is not None and (get_value(section, "driver"), get_value(section, "port")) == (DUMMY, DUMMY_PORT)


def is_usb(section: Section) -> bool:
    """Return whether a section's driver looks for a UPS on the USB bus."""
    return looks_on_usb({key.lower(): value for key, value in section.keys if value is not None})


def is_real(section: Section | None) -> bool:
    """Return whether a section names a real driver, not "auto" or our stand-in."""
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
    """Return a device's description for messages, without texts that the device controls."""
    return f"{device.ids} at {device.place or device.node}"


def make_dummy(name: str, section: Section) -> Section:
    """Return the stand-in for an absent UPS."""
    head = dict(_make_head(section, DUMMY))
    # also here, because dummy-ups of 2.8.3 and later drops a word that occurs twice in its file
    return Section(name, tuple({**head, "port": DUMMY_PORT, "override.ups.status": DUMMY_STATUS}.items()))


def _make_head(declared: Section, driver: str) -> tuple[Pair, ...]:
    desc = get_value(declared, "desc")
    head: tuple[Pair, ...] = (("driver", driver), ("port", get_value(declared, "port") or "auto"))
    return (*head, ("desc", desc)) if desc else head


def _drop_given(pairs: Iterable[Pair], stronger: Iterable[Pair]) -> tuple[Pair, ...]:
    """Return the pairs whose keys are not among those of STRONGER."""
    given = lowered_keys(stronger)
    return tuple(pair for pair in pairs if pair[0].lower() not in given)


@dataclass(eq=False)
class Sighting:
    """A UPS on the bus while names are being given."""

    ups: UsbUps
    rule: DeviceRule | None  # the policy's rule for it
    seen: Fingerprint  # its identity
    is_proven: bool = False  # whether its driver has already had data from it

    @property
    def device(self) -> UsbDevice:
        """Return the USB device."""
        return self.ups.device

    @property
    def driver(self) -> str:
        """Return its driver, disregarding earlier sections; "" if unknown."""
        return (
            (self.rule.driver if self.rule else "") or self.ups.driver or (HID_DRIVER if self.device.hid_power else "")
        )

    @property
    def is_unproven(self) -> bool:
        """Return whether it may be any device with a serial adapter in it, or one that its driver does not take.

        Until its driver has had data, it must not take the place of another UPS.
        """
        device, rule = self.device, self.rule
        if self.is_proven:
            return False
        if is_generic(device.vendor_id, device.product_id) and not device.hid_power:
            return True
        is_told = rule and (rule.driver or "subdriver" in lowered_keys(rule.options))
        return self.driver == HID_DRIVER and self.ups.support == NOTHING and not is_told


@dataclass
class SectionWriter:
    """Writes the sections of ups.conf once all names are given."""

    conf: Mapping[str, Section]  # sections of the current ups.conf
    declared: Mapping[str, Section]  # sections of the inventory with driver auto
    memory: Mapping[str, Fingerprint]  # name -> the UPS that had it last
    given: Mapping[str, Sighting]  # name -> the UPS that has it now
    drivers: Mapping[str, str]  # name -> the driver of that UPS
    devices: Sequence[UsbDevice]  # all UPSes on the bus
    policy: UsbPolicy
    release: Release
    remarks: list[str]  # problems, each with its remedy, are appended here

    def _keep_supported(self, name: str, driver: str, pairs: Iterable[Pair]) -> tuple[Pair, ...]:
        """Return the pairs that the host's NUT knows: with any other key, its driver would not start."""
        kept = []
        for pair in pairs:
            why = unfit_key(name, driver, pair[0], self.release)
            if why:
                self.remarks.append(why)
            else:
                kept.append(pair)
        return tuple(kept)

    def write_present(self, name: str) -> Section:
        """Return the section of a UPS that is plugged in."""
        sighting, driver = self.given[name], self.drivers[name]
        declared = self.declared.get(name, Section(name, ()))
        rest = self._keep_supported(name, driver, (pair for pair in declared.keys if pair[0].lower() not in FIRST))
        options = self._keep_supported(name, driver, _drop_given(sighting.rule.options if sighting.rule else (), rest))
        pins = _drop_given(self._choose_pins(name, sighting.device, driver), (*rest, *options))
        delays = choose_delays(driver, sighting.device.vendor_id, (*rest, *options))
        return Section(name, (*_make_head(declared, driver), *pins, *rest, *options, *delays))

    def _choose_pins(self, name: str, device: UsbDevice, driver: str) -> tuple[Pair, ...]:
        fresh = find_pins(device, self.devices, self.release, driver)
        if fresh.remark:
            self.remarks.append(f"[{name}]: {fresh.remark}")
        old = find_own_pins(self.conf.get(name), self.declared.get(name))
        if can_keep_pins(old, fresh.keys, device) and self._keep_supported(name, driver, old) == old:
            return old
        return fresh.keys

    def write_absent(self, name: str) -> Section:
        """Return the section of an absent UPS: its last one, updated from the inventory."""
        old = self.conf.get(name, Section(name, ()))
        declared = self.declared.get(name)
        if is_dummy(old) and self.policy.absent == "dummy":
            return make_dummy(name, declared or old)
        unknown = Section(name, (("driver", HID_DRIVER),))
        last = get_last_section(name, old, self.memory.get(name), self.policy) or unknown
        driver, pins = get_value(last, "driver"), identifying_pairs(last.keys)
        # options that are no longer declared go; those of rules stay
        kept = {pair for rule in self.policy.rules for pair in rule.options} if declared else {*last.keys}
        kept |= {*choose_delays(driver, get_value(last, "vendorid"), declared.keys if declared else ())}
        options = tuple(pair for pair in last.keys if pair in kept and pair[0].lower() not in (*FIRST, *KEYS))
        base = declared or Section(name, tuple(pair for pair in old.keys if pair[0] == "desc"))
        rest = self._keep_supported(name, driver, (pair for pair in base.keys if pair[0].lower() not in FIRST))
        keys = (*_drop_given(pins, rest), *rest, *_drop_given(options, rest))
        return self._park_beside_rival(Section(name, (*_make_head(base, driver), *keys)), rest)

    def _park_beside_rival(self, section: Section, declared: Sequence[Pair]) -> Section:
        """Return the section, changed so that its driver can't take a UPS that has another name."""
        rival = self._find_rival(section)
        if rival is None:
            return section
        if "vendorid" in lowered_keys(declared) or not is_told_apart(get_value(section, "driver"), self.release):
            self.remarks.append(
                f"[{section.name}]: its UPS is not plugged in, and its keys also match {describe_device(rival)}, which has another "
                "name. Declare it with its serial"
            )
            return section
        return park_section(section)

    def _find_rival(self, section: Section) -> UsbDevice | None:
        """Return a UPS with another name that this section's driver would take as well; None without one."""
        driver = get_value(section, "driver")
        rivals = (
            sighting.device
            for name, sighting in self.given.items()
            if name != section.name and self.drivers[name] == driver and matches_device(section, sighting.device)
        )
        return next(rivals, None)

    def check_fixed(self, sections: Iterable[Section]) -> None:
        """Remark on fixed sections whose driver may take a UPS with another name."""
        for section in sections:
            rival = self._find_rival(section) if is_usb(section) else None
            if rival:
                self.remarks.append(
                    f"[{section.name}]: its keys also match {describe_device(rival)}, so its driver may take that UPS. "
                    "Set vendorid, productid and serial"
                )
