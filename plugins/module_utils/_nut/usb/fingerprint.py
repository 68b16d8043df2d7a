# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which UPS is this? Its identity, as far as it has one, and the keys of ups.conf by which NUT's driver takes it.

What NUT's drivers make of these keys is from drivers/usb-common.c and libusb1.c of NUT: each value is a POSIX extended
regular expression, any case, that must match the whole of a text without the blanks at its ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..conf.directives import NEWEST, Release
from ..conf.ups_conf import Pair, Section
from .bus import DRIVERS, HID_DRIVER, UsbDevice

# 2.8.0 knows the key device, too, and then takes none: it has not filled in that number (seen in `usbhid-ups -DD`)
BUSPORT_SINCE: Release = (2, 8, 1)

# Serial numbers that tell nothing. The source is 360 dumps of USB UPSes in networkupstools/nut-ddl, and what people show in
# issues of NUT, Home Assistant and others: of a third that have something there, these have something else.
# - firmware: Tripp Lite says FW-2263 E or FW-2473 A in all of a series
# - chemistry: LI-ION, PBSO4-LiFePO
# - words: Eaton 3S say Blank
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
# CPS 00000001 is one of a series without numbers, and so are other small ones behind zeros
_SMALLEST = 1000
_FEWEST_KINDS = 3

# What is left is held by a file of NUT, by its enumerator's shell, and as a pattern, without a backslash.
_PLAIN = re.compile(r"[ -~]+")
_NOT_PLAIN = frozenset("\"'#\\`^")

BLANKS = " \t\n"
_LITERAL = re.compile(r"[A-Za-z0-9 _,:;/@%=~<>!&-]*")
# the keys of ups.conf by which a driver knows its UPS, in NUT's own order: which it is, and where
IDENTITY_KEYS = ("vendorid", "productid", "vendor", "product", "serial")
PLACE_KEYS = ("bus", "busport", "device")
KEYS = (*IDENTITY_KEYS, *PLACE_KEYS)


def trusted_serial(device: UsbDevice) -> str:
    """Return the serial number if it can tell this UPS from others of its model, without blanks at its ends; else "".

    Two that say the same are told apart by pins.pins(). In doubt it is not trusted: that costs a UPS its name only if two alike
    change their places.
    """
    serial = device.serial.strip(BLANKS)
    return serial if is_plain(serial) and " " not in serial and not _is_worthless(serial.upper(), device) else ""


def is_plain(text: str) -> bool:
    """Return whether a text can stand in ups.conf, and be a pattern, without harm."""
    return _PLAIN.fullmatch(text) is not None and _NOT_PLAIN.isdisjoint(text)


def _is_worthless(serial: str, device: UsbDevice) -> bool:
    core = re.sub(r"[^0-9A-Z]", "", serial)
    # behind letters that all of a series have; empty, which is part of any sequence, if there is no digit
    tail = re.sub(r"^[A-Z]+", "", core)
    told = re.sub(r"[^0-9A-Z]", "", f"{device.manufacturer} {device.product}".upper())
    ids = f"{device.vendor_id}{device.product_id}".upper()
    return (
        len(core) < _SHORTEST
        or len(set(core)) < _FEWEST_KINDS
        or (tail.isdigit() and int(tail) < _SMALLEST)
        or any(part in sequence for part in (core, tail) for sequence in _SEQUENCES)
        or core in told
        or core in (ids, f"{ids[4:]}{ids[:4]}")
        or any(pattern.search(serial) for pattern in (_FIRMWARE, _CHEMISTRY, _WORDS))
        or _DATE.fullmatch(serial) is not None
    )


@dataclass(frozen=True)
class Fingerprint:
    """Which UPS it is."""

    vendor_id: str
    product_id: str
    serial: str  # a trusted one, else ""
    place: str  # where it was seen; "" if that is unknown

    def __str__(self) -> str:
        ids = f"{self.vendor_id}:{self.product_id}"
        if self.serial:
            return f"{ids} {self.serial}"
        return f"{ids} at {self.place}" if self.place else ids


def make_fingerprint(device: UsbDevice) -> Fingerprint:
    """Say which UPS a device is."""
    return Fingerprint(device.vendor_id, device.product_id, trusted_serial(device), device.place)


def compare_fingerprints(known: Fingerprint, seen: Fingerprint) -> int:
    """Compare two UPSes. 3: the same. 2: it may be the same at another place: no serials, same model. 0: another."""
    if (known.vendor_id, known.product_id, known.serial) != (seen.vendor_id, seen.product_id, seen.serial):
        return 0
    return 3 if known.serial or (known.place == seen.place and known.place) else 2


# What NUT's driver takes


def identifying_pairs(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Return those keys by which a driver knows its UPS."""
    return tuple(pair for pair in pairs if pair[0].lower() in KEYS)


def lowered_keys(pairs: Iterable[Pair]) -> frozenset[str]:
    """Return the keys of pairs, in lower case: NUT takes them in any."""
    return frozenset(key.lower() for key, _value in pairs)


def matches_device(section: Section, device: UsbDevice, release: Release = NEWEST) -> bool:
    """Return whether NUT's driver would take the device for this section; without any key that says which, it takes all.

    release: 2.8.0 reads neither port nor device number, so that a section with device takes nothing. The driver's own
    tables of ids are not asked. A section of a driver that is none for USB means nothing, one of driver auto is read as any
    other. A regular expression that is none means nothing: the driver refuses it.
    """
    given = _lowered_keys(section)
    driver = given.get("driver", HID_DRIVER)
    if driver not in DRIVERS and driver != "auto" and not driver.endswith("_usb"):
        return False
    numbered = release >= BUSPORT_SINCE
    told = (
        device.vendor_id,
        device.product_id,
        *map(_read_by_driver, (device.manufacturer, device.product, device.serial)),
        f"{device.bus:03d}",
        f"{device.port:03d}" if numbered and device.port else "",
        f"{device.device:03d}" if numbered else "",
    )
    # of a device that only lsusb knows, the texts and the port are unknown: it may be the one that is meant
    keys = KEYS if device.place else tuple(key if key in ("vendorid", "productid", "bus") else "" for key in KEYS)
    return all(_matches_text(given[key], text) for key, text in zip(keys, told) if key in given)


def matches_model(section: Section, vendor_id: str, product_id: str) -> bool:
    """Return whether a section's ids let its driver take a device with these; a section without ids takes all."""
    given = _lowered_keys(section)
    told = {"vendorid": vendor_id, "productid": product_id}
    return all(_matches_text(given[key], text) for key, text in told.items() if key in given)


def _lowered_keys(section: Section) -> dict[str, str]:
    return {key.lower(): value for key, value in section.keys if value is not None}


def _read_by_driver(text: str) -> str:
    """Return a text of the kernel's as a driver reads it by libusb: ? for each unit of UTF-16 that is not ASCII."""
    units = (2 if ord(one) > 0xFFFF else 1 for one in text)
    return "".join(one if one < "\x80" else "?" * count for one, count in zip(text, units)).strip(BLANKS)


def _matches_text(pattern: str, text: str) -> bool:
    if _LITERAL.fullmatch(pattern):
        return pattern.lower() == text.lower()
    return _matches_by_libc(pattern, text)


def _matches_by_libc(pattern: str, text: str) -> bool:
    """Match as NUT does, with the C library's own regcomp: no other dialect is just that one."""
    import ctypes  # noqa: PLC0415 - it takes long, and hardly any section has a pattern

    libc = ctypes.CDLL(None)
    # regex_t has 64 bytes in glibc; regmatch_t is two numbers of type regoff_t, an int there
    compiled, span = ctypes.create_string_buffer(1024), (ctypes.c_int * 4)(-1, -1, -1, -1)
    extended, any_case = 1, 2
    if "\0" in pattern or libc.regcomp(compiled, pattern.encode("utf-8", "replace"), extended | any_case):
        return False
    try:
        found = libc.regexec(compiled, text.encode("ascii", "replace"), ctypes.c_size_t(1), span, 0) == 0
    finally:
        libc.regfree(compiled)
    return found and (span[0], span[1]) == (0, len(text))
