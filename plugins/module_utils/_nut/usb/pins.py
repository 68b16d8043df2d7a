# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pins: the keys of ups.conf that bind a section to one UPS, so that its driver takes none of its twins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..conf.directives import Release
from ..conf.release import format_release
from ..conf.ups_conf import FIRST, Pair, Section
from ..conf.usb_keys import NO_DEVICE
from .bus import HID_DRIVER, UsbDevice
from .fingerprint import (
    BLANKS,
    BUSPORT_SINCE,
    KEYS,
    identifying_pairs,
    is_plain,
    lowered_keys,
    matches_device,
    trusted_serial,
)

# Drivers that support pins, and since which release. An unknown key is a fatal error to a driver (with exit code 0), so no other
# driver gets any, nor one that a newer release adds. Source: `DRIVER -L` of 2.8.0 and 2.8.1; nut_usb_addvars() in their source.
_NEVER: Release = (999, 0, 0)
_PINS_SINCE: dict[str, Release] = {
    "usbhid-ups": (0, 0, 0),
    "nutdrv_qx": (0, 0, 0),
    "blazer_usb": (0, 0, 0),
    "tripplite_usb": (0, 0, 0),
    "riello_usb": (2, 8, 1),
    "apc_modbus": (2, 8, 1),
}
_SPECIAL = frozenset(".[()*+?{|$\\")
# needed only while there is a twin
_OF_TWINS = ("product", "bus", "busport")
# matches no device
PARKED = ("vendorid", NO_DEVICE)


@dataclass(frozen=True)
class Pins:
    """The pins of a device."""

    keys: tuple[tuple[str, str], ...]
    remark: str = ""  # why they don't distinguish it from another device; "" if they do


def find_pins(device: UsbDevice, others: Sequence[UsbDevice], release: Release, driver: str = HID_DRIVER) -> Pins:
    """Return the keys with which NUT's driver takes this device and no other on the bus.

    others: devices on the bus, with or without this one. The pins are the ids, the serial if trusted, and as few as possible of
    product, busport (since 2.8.1) and bus; none for a driver that does not support pins. Texts that NUT can't read are not used.
    """
    # compared by incarnation, since a device looks different once a driver has taken its interface
    twins = [other for other in others if other.ids == device.ids and other.incarnation != device.incarnation]
    if not is_told_apart(driver, release):
        return Pins((), _explain_twins(device, twins, f"{driver} takes the first one that it finds") if twins else "")
    keys = [("vendorid", device.vendor_id), ("productid", device.product_id)]
    serial = "" if "serial" in device.unread else trusted_serial(device)
    if serial:
        keys.append(("serial", escape_pattern(serial)))
    best, left = tuple(keys), _find_taken(keys, twins)
    for further in _list_further_keys(device, release):
        if not left:
            break
        rivals = _find_taken([*keys, *further], twins)
        if len(rivals) < len(left):
            best, left = (*keys, *further), rivals
    return Pins(best, _explain_twins(device, left, _explain_lack(device, release)) if left else "")


def _list_further_keys(device: UsbDevice, release: Release) -> Iterator[tuple[tuple[str, str], ...]]:
    """Yield keys that may distinguish a device from its twins: the fewest first, those that a reboot may change last."""
    known = []
    product = device.product.strip(BLANKS)
    if is_plain(product) and "product" not in device.unread:
        known.append(("product", escape_pattern(product)))
    if release >= BUSPORT_SINCE and device.port:
        known.append(("busport", f"{device.port:03d}"))
    known.append(("bus", f"{device.bus:03d}"))
    for count in range(1, len(known) + 1):
        yield from itertools.combinations(known, count)


def _find_taken(keys: Sequence[tuple[str, str]], devices: Sequence[UsbDevice]) -> list[UsbDevice]:
    section = Section("", tuple(keys))
    return [device for device in devices if matches_device(section, device)]


def _explain_twins(device: UsbDevice, twins: Sequence[UsbDevice], why: str) -> str:
    names = ", ".join(sorted(twin.name for twin in twins))
    return f"{device.ids} at {device.name} can't be distinguished from the one at {names}: {why}"


def _explain_lack(device: UsbDevice, release: Release) -> str:
    serials = "NUT can't read its serial number" if "serial" in device.unread else "they have no unique serial numbers"
    if release < BUSPORT_SINCE:
        return (
            f"{serials}, and NUT {format_release(release)} can only select a bus. "
            "Plug one into another USB controller, or upgrade to NUT 2.8.1"
        )
    return (
        f"{serials}, and NUT can only select the bus and the last number of the port. "
        "Plug one into a port with a different last number"
    )


def escape_pattern(text: str) -> str:
    """Return a POSIX extended regular expression that matches exactly this text, in any case (REG_ICASE)."""
    # brackets rather than backslashes, which the enumerator's shell would change
    return "".join(r"\^" if sign == "^" else f"[{sign}]" if sign in _SPECIAL else sign for sign in text)


def is_told_apart(driver: str, release: Release) -> bool:
    """Return whether a driver supports pins."""
    return release >= _PINS_SINCE.get(driver, _NEVER)


def find_own_pins(section: Section | None, declared: Section | None) -> tuple[Pair, ...]:
    """Return the pins of a section that we set, which are those not declared; () for a parked section. A bare key pins nothing."""
    if section is None or PARKED in section.keys:
        return ()
    given = lowered_keys(declared.keys) if declared else frozenset()
    pairs = (pair for pair in identifying_pairs(section.keys) if pair[1] is not None)
    return tuple(pair for pair in pairs if pair[0].lower() not in given)


def can_keep_pins(old: tuple[Pair, ...], fresh: tuple[Pair, ...], device: UsbDevice) -> bool:
    """Return whether a section can keep its old pins, because they contain the fresh ones and still match.

    So pins that were needed for a twin stay when the twin is gone, and the driver need not restart.
    """
    more = {key for key, _value in old} - lowered_keys(fresh)
    return (
        bool(fresh) and set(fresh) <= set(old) and more <= set(_OF_TWINS) and matches_device(Section("", old), device)
    )


def only_adds_pins(was: Section, will: Section, declared: Section | None, device: UsbDevice) -> bool:
    """Return whether only the pins of a section change, and its driver already takes the device."""
    return (
        set(identifying_pairs(declared.keys if declared else ())) <= set(was.keys)
        and _drop_pins(was) == _drop_pins(will)
        and matches_device(was, device)
    )


def _drop_pins(section: Section) -> tuple[Pair, ...]:
    return tuple(pair for pair in section.keys if pair[0].lower() not in KEYS)


def park_section(section: Section) -> Section:
    """Return a section whose driver takes no UPS, with its other keys kept."""
    rest = [pair for pair in section.keys if pair[0].lower() not in (*FIRST, "vendorid")]
    return Section(section.name, (*(pair for pair in section.keys if pair[0].lower() in FIRST), PARKED, *rest))
