# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The identity of a UPS, and whether the keys of a section in ups.conf match it.

NUT's drivers match each key as a POSIX extended regular expression, in any case, against the whole text stripped of blanks
(drivers/usb-common.c, libusb1.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..conf.directives import NEWEST, Release
from ..conf.ups_conf import Pair, Section
from .bus import DRIVERS, HID_DRIVER, UsbDevice

# 2.8.0 accepts the key "device" but never fills in that number, so nothing matches (seen in `usbhid-ups -DD`)
BUSPORT_SINCE: Release = (2, 8, 1)

# Serial numbers that identify nothing. Source: 360 dumps of USB UPSes in networkupstools/nut-ddl, and issues of NUT, Home
# Assistant and others. Only a third have a serial number at all, and some of those hold something else:
# - firmware: Tripp Lite has FW-2263 E or FW-2473 A in a whole series
# - chemistry: LI-ION, PBSO4-LiFePO
# - words: Eaton 3S have Blank
_FIRMWARE = re.compile(r"(?:^|[^A-Z])(?:FW|FIRMWARE|HW|REV|VER|VERSION)(?![A-Z])|^V?[0-9]+(?:\.[0-9]+)+[A-Z]?$")
_CHEMISTRY = re.compile(r"LI-?ION|LIFEPO|LI-?PO|PB-?AC|PBSO4|LEAD|NI-?MH|NI-?CD|VRLA|AGM")
_WORDS = re.compile(
    r"BLANK|DEFAULT|DUMMY|EMPTY|EXAMPLE|FILLED|INVALID|MODEL|NONE|NOT-?AVAIL|NUMBER|PRODUCT|REDACT|SAMPLE|SERIAL|STRING"
    r"|TBD|TEST|UNKNOWN|UNSPEC|XXX|^N/?A(?![A-Z])|^NULL|^NO[-_.]"
)
_DATE = re.compile(r"[0-9]{4}([-/.])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\2[0-9]{2,4}")
# 1234567890, 123456789ABC, 9876543210, ABCDEF01
_SEQUENCES = ("0123456789" * 3, "9876543210" * 3, "0123456789ABCDEF" * 2, "1234567890ABCDEF" * 2)
_SHORTEST = 5
# CPS 00000001 comes from a series without serial numbers; so do other small numbers with leading zeros
_SMALLEST = 1000
_FEWEST_KINDS = 3

# Texts that survive NUT's file format, its enumerator's shell, and a pattern without backslashes.
_PLAIN = re.compile(r"[ -~]+")
_NOT_PLAIN = frozenset("\"'#\\`^")

BLANKS = " \t\n"
_LITERAL = re.compile(r"[A-Za-z0-9 _,:;/@%=~<>!&-]*")
# the keys of ups.conf that identify a UPS, and those that locate it, in NUT's own order
IDENTITY_KEYS = ("vendorid", "productid", "vendor", "product", "serial")
PLACE_KEYS = ("bus", "busport", "device")
KEYS = (*IDENTITY_KEYS, *PLACE_KEYS)


def trusted_serial(device: UsbDevice) -> str:
    """Return the stripped serial number if it distinguishes this UPS from others of its model; else "".

    A doubtful one is not trusted. At worst, two UPSes of one model then swap names when they swap ports. find_pins() handles
    devices with the same serial number.
    """
    serial = device.serial.strip(BLANKS)
    return serial if is_plain(serial) and " " not in serial and not _is_worthless(serial.upper(), device) else ""


def is_plain(text: str) -> bool:
    """Return whether a text is safe in ups.conf and in a pattern."""
    return _PLAIN.fullmatch(text) is not None and _NOT_PLAIN.isdisjoint(text)


def _is_worthless(serial: str, device: UsbDevice) -> bool:
    core = re.sub(r"[^0-9A-Z]", "", serial)
    # without the leading letters of a series; "" without digits, which is part of any sequence
    tail = re.sub(r"^[A-Z]+", "", core)
    names = re.sub(r"[^0-9A-Z]", "", f"{device.manufacturer} {device.product}".upper())
    ids = f"{device.vendor_id}{device.product_id}".upper()
    return (
        len(core) < _SHORTEST
        or len(set(core)) < _FEWEST_KINDS
        or (tail.isdigit() and int(tail) < _SMALLEST)
        or any(part in sequence for part in (core, tail) for sequence in _SEQUENCES)
        or core in names
        or core in (ids, f"{ids[4:]}{ids[:4]}")
        or any(pattern.search(serial) for pattern in (_FIRMWARE, _CHEMISTRY, _WORDS))
        or _DATE.fullmatch(serial) is not None
    )


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a UPS."""

    vendor_id: str  # four lower-case hex digits
    product_id: str  # four lower-case hex digits
    serial: str  # "" unless trusted
    place: str  # connector where it was seen; "" if unknown

    def __str__(self) -> str:
        ids = f"{self.vendor_id}:{self.product_id}"
        if self.serial:
            return f"{ids} {self.serial}"
        return f"{ids} at {self.place}" if self.place else ids


def make_fingerprint(device: UsbDevice) -> Fingerprint:
    """Return the identity of a device."""
    return Fingerprint(device.vendor_id, device.product_id, trusted_serial(device), device.place)


def compare_fingerprints(known: Fingerprint, seen: Fingerprint) -> int:
    """Compare two UPSes. 3: the same; 2: same model without serials at another place, so possibly the same; 0: different."""
    if (known.vendor_id, known.product_id, known.serial) != (seen.vendor_id, seen.product_id, seen.serial):
        return 0
    return 3 if known.serial or (known.place == seen.place and known.place) else 2


# What NUT's drivers take


def identifying_pairs(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Return the pairs whose keys identify or locate a UPS."""
    return tuple(pair for pair in pairs if pair[0].lower() in KEYS)


def lowered_keys(pairs: Iterable[Pair]) -> frozenset[str]:
    """Return the keys of pairs in lower case, as NUT ignores case."""
    return frozenset(key.lower() for key, _value in pairs)


def matches_device(section: Section, device: UsbDevice, release: Release = NEWEST) -> bool:
    """Return whether NUT's driver would take the device for this section. A section without identifying keys takes any device.

    release: 2.8.0 reads neither port nor device number, so a section with the key "device" takes nothing. The driver's own table
    of ids is disregarded. A section takes nothing if its driver is not for USB, or if a key is not a valid regular expression.
    """
    given = _lowered_keys(section)
    driver = given.get("driver", HID_DRIVER)
    if driver not in DRIVERS and driver != "auto" and not driver.endswith("_usb"):
        return False
    numbered = release >= BUSPORT_SINCE
    texts = (
        device.vendor_id,
        device.product_id,
        *map(_read_by_driver, (device.manufacturer, device.product, device.serial)),
        f"{device.bus:03d}",
        f"{device.port:03d}" if numbered and device.port else "",
        f"{device.device:03d}" if numbered else "",
    )
    # texts and port are unknown for a device from lsusb, so they can't rule it out
    keys = KEYS if device.place else tuple(key if key in ("vendorid", "productid", "bus") else "" for key in KEYS)
    return all(_matches_text(given[key], text) for key, text in zip(keys, texts) if key in given)


def matches_model(section: Section, vendor_id: str, product_id: str) -> bool:
    """Return whether a section's ids match these; a section without ids matches any."""
    given = _lowered_keys(section)
    ids = {"vendorid": vendor_id, "productid": product_id}
    return all(_matches_text(given[key], text) for key, text in ids.items() if key in given)


def _lowered_keys(section: Section) -> dict[str, str]:
    return {key.lower(): value for key, value in section.keys if value is not None}


def _read_by_driver(text: str) -> str:
    """Return the kernel's text as libusb gives it to a driver, stripped: "?" for each UTF-16 unit that is not ASCII."""
    units = (2 if ord(character) > 0xFFFF else 1 for character in text)
    return "".join(character if character < "\x80" else "?" * count for character, count in zip(text, units)).strip(
        BLANKS
    )


def _matches_text(pattern: str, text: str) -> bool:
    if _LITERAL.fullmatch(pattern):
        return pattern.lower() == text.lower()
    return _matches_by_libc(pattern, text)


def _matches_by_libc(pattern: str, text: str) -> bool:
    """Match with the C library's regcomp, as NUT does: Python's dialect differs."""
    import ctypes  # noqa: PLC0415 - slow to import, and rarely needed

    libc = ctypes.CDLL(None)
    # in glibc regex_t has 64 bytes, and regmatch_t is two ints
    compiled, span = ctypes.create_string_buffer(1024), (ctypes.c_int * 4)(-1, -1, -1, -1)
    extended, any_case = 1, 2
    if "\0" in pattern or libc.regcomp(compiled, pattern.encode("utf-8", "replace"), extended | any_case):
        return False
    try:
        found = libc.regexec(compiled, text.encode("ascii", "replace"), ctypes.c_size_t(1), span, 0) == 0
    finally:
        libc.regfree(compiled)
    return found and (span[0], span[1]) == (0, len(text))
