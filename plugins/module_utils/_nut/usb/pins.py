# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of ups.conf that bind a section to one UPS, and let its driver take none of its twins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..conf.directives import Release
from ..conf.release import format_release
from ..conf.ups_conf import FIRST, Pair, Section
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

# What drivers know none of these keys, or know them only since a release. To them a key that they don't know is a fatal
# error (and exit code 0). Seen in `DRIVER -L` of 2.8.0 and 2.8.1.
_NEVER: Release = (999, 0, 0)
_PINS_SINCE: dict[str, Release] = {
    "bcmxcp_usb": _NEVER,
    "nutdrv_atcl_usb": _NEVER,
    "richcomm_usb": _NEVER,
    "riello_usb": (2, 8, 1),
}
_SPECIAL = frozenset(".[()*+?{|$\\")
# what only a twin makes necessary
_OF_TWINS = ("product", "bus", "busport")
# a vendor id that no device has: the section takes none
PARKED = ("vendorid", "none")


@dataclass(frozen=True)
class Pins:
    """Keys of ups.conf that bind a section to a device. remark: "", or why it can't be told from another."""

    keys: tuple[tuple[str, str], ...]
    remark: str = ""


def find_pins(device: UsbDevice, others: Sequence[UsbDevice], release: Release, driver: str = HID_DRIVER) -> Pins:
    """Return the keys by which NUT's driver takes this device, and none of the others on the bus.

    others: what else is on the bus; the device itself among them makes no difference. The ids always, the serial if it can
    be trusted; then as few as do of: the product's text, busport (since 2.8.1), bus. None for a driver that knows none.
    """
    # the same one may look another way by now, when a driver has taken its interface
    twins = [other for other in others if other.ids == device.ids and other.incarnation != device.incarnation]
    if not is_told_apart(driver, release):
        return Pins((), _explain_twins(device, twins, f"{driver} takes the first that it finds") if twins else "")
    keys = [("vendorid", device.vendor_id), ("productid", device.product_id)]
    serial = trusted_serial(device)
    if serial:
        keys.append(("serial", escape_pattern(serial)))
    best, left = tuple(keys), _find_taken(keys, twins)
    for further in _list_further_keys(device, release):
        if not left:
            break
        rivals = _find_taken([*keys, *further], twins)
        if len(rivals) < len(left):
            best, left = (*keys, *further), rivals
    return Pins(best, _explain_twins(device, left, _explain_lack(release)) if left else "")


def _list_further_keys(device: UsbDevice, release: Release) -> Iterator[tuple[tuple[str, str], ...]]:
    """List keys that may tell a device from its twins, the fewest first, what a new boot may change last."""
    known = []
    product = device.product.strip(BLANKS)
    if is_plain(product):
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
    return f"{device.ids} at {device.name} can't be told from that at {names}: {why}"


def _explain_lack(release: Release) -> str:
    if release < BUSPORT_SINCE:
        return (
            f"they have no serial numbers of their own, and NUT {format_release(release)} knows only buses. "
            "Plug one into a port of another USB controller, or use NUT 2.8.1"
        )
    return (
        "they have no serial numbers of their own, and NUT knows only the bus, and the last number of the port. "
        "Plug one into a port with another number"
    )


def escape_pattern(text: str) -> str:
    """Write a POSIX extended regular expression that matches just this text (as REG_ICASE goes, in any case)."""
    # a bracket where it can be, and no backslash: the enumerator's shell changes those
    return "".join(r"\^" if sign == "^" else f"[{sign}]" if sign in _SPECIAL else sign for sign in text)


def is_told_apart(driver: str, release: Release) -> bool:
    """Return whether a driver knows keys that tell one UPS from another."""
    return release >= _PINS_SINCE.get(driver, (0, 0, 0))


def own_pins(section: Section | None, declared: Section | None) -> tuple[Pair, ...]:
    """Return the pins of a section that are ours: not declared. None of a parked one."""
    if section is None or PARKED in section.keys:
        return ()
    said = lowered_keys(declared.keys) if declared else frozenset()
    return tuple(pair for pair in identifying_pairs(section.keys) if pair[0].lower() not in said)


def still_hold(old: tuple[Pair, ...], fresh: tuple[Pair, ...], device: UsbDevice) -> bool:
    """Return whether pins that a section has do as well as fresh ones.

    What told a UPS from a twin stays when the twin has gone, as long as it is true: no driver restarts for that.
    """
    more = {key for key, _value in old} - lowered_keys(fresh)
    return (
        bool(fresh) and set(fresh) <= set(old) and more <= set(_OF_TWINS) and matches_device(Section("", old), device)
    )


def only_adds_pins(was: Section, will: Section, declared: Section | None, device: UsbDevice) -> bool:
    """Return whether a section changes in nothing but by which keys its driver knows the device, which it takes already."""
    return (
        set(identifying_pairs(declared.keys if declared else ())) <= set(was.keys)
        and _drop_pins(was) == _drop_pins(will)
        and matches_device(was, device)
    )


def _drop_pins(section: Section) -> tuple[Pair, ...]:
    return tuple(pair for pair in section.keys if pair[0].lower() not in KEYS)


def park_section(section: Section) -> Section:
    """Return a section whose driver takes no UPS at all, and that keeps what it knew of its own."""
    rest = [pair for pair in section.keys if pair[0].lower() not in (*FIRST, "vendorid")]
    return Section(section.name, (*(pair for pair in section.keys if pair[0].lower() in FIRST), PARKED, *rest))
