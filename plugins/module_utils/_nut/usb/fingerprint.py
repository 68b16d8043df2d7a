# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The identity of a UPS, and whether the keys of a section in ups.conf match it.

NUT's drivers match each key as a POSIX extended regular expression, in any case, against the whole text stripped of blanks
(drivers/usb-common.c, libusb1.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..conf.directives import NEWEST, Release
from ..conf.ups_conf import AUTO, Pair, Section
from ..conf.usb_keys import compile_by_libc
from .bus import TEXT_KEYS, UsbDevice, looks_on_usb

# 2.8.0 accepts the key "device" but never fills in that number, so nothing matches (seen in `usbhid-ups -DD`)
BUSPORT_SINCE: Release = (2, 8, 1)
# drivers read texts themselves, and not with libusb_get_string_descriptor_ascii() (drivers/usb-common.c, nut_usb_get_string)
LATIN_SINCE: Release = (2, 8, 3)
_BYTE = "\x01"  # stands for a byte above 127

# Serial numbers that identify nothing. Source: 360 dumps of USB UPSes in networkupstools/nut-ddl, and issues of NUT, Home
# Assistant and others. Only a third have a serial number at all, and some of those hold something else:
# - firmware: Tripp Lite has FW-2263 E or FW-2473 A in a whole series
# - chemistry: LI-ION, PBSO4-LiFePO
# - words: Eaton 3S have Blank
# - ids and firmware: Powercom have 004-0D9F-000 (0d9f:0004) and 3A4-0000-0001 (FW3.A4)
# - examples of the makers of chips: 00000000001A (STMicroelectronics), A02014090305 (Nuvoton)
# - dates of a firmware: 20080314
_FIRMWARE = re.compile(r"(?:^|[^A-Z0-9])(?:FW|FIRMWARE|HW|REV|VER|VERSION)(?![A-Z])|^V?[0-9]+(?:\.[0-9]+)+[A-Z]?$")
_CHEMISTRY = re.compile(r"LI-?ION|LIFEPO|LI-?PO|PB-?AC|PBSO4|LEAD|NI-?MH|NI-?CD|VRLA|AGM")
_WORDS = re.compile(
    r"BLANK|DEFAULT|DUMMY|EMPTY|EXAMPLE|FILLED|INVALID|MODEL|NONE|NOT-?AVAIL|NUMBER|PRODUCT|REDACT|SAMPLE|SERIAL|STRING"
    r"|TBD|TEST|UNKNOWN|UNSPEC|XXX|^N/?A(?![A-Z])|^NULL|^NO[-_.]|DEADBEEF|CAFEBABE|^A0201409030[0-9]$"
)
_DATE = re.compile(r"[0-9]{4}([-/.])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\2[0-9]{2,4}")
_DAY, _MONTH, _YEAR = "(?:0[1-9]|[12][0-9]|3[01])", "(?:0[1-9]|1[0-2])", "(?:199[0-9]|20[0-4][0-9])"
_COMPACT_DATE = re.compile(f"{_YEAR}{_MONTH}{_DAY}|{_DAY}{_MONTH}{_YEAR}")
# 1234567890, 123456789ABC, 9876543210, ABCDEF01
_SEQUENCES = (
    "0123456789" * 3,
    "9876543210" * 3,
    "0123456789ABCDEF" * 2,
    "1234567890ABCDEF" * 2,
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
)
# 112233445566 and 1A2B3C4D are two sequences in turn
_IN_TURN = 8
# what a device has of its own, in characters; zeros in a row say nothing
_SHORTEST = 5
_ZEROS = re.compile(r"000+")
# a serial number that is made of the same few characters again and again, such as A1B2A1B2
_REPEATED = re.compile(r"(.{1,4})\1+")
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
        or _is_sequence(core)
        or _is_sequence(tail)
        or (len(core) >= _IN_TURN and _is_sequence(core[::2]) and _is_sequence(core[1::2]))
        or _is_made_of_two_sequences(core)
        # all bits set, such as 65535
        or (tail.isdigit() and int(tail) & (int(tail) + 1) == 0)
        or core in names
        or core in (ids, f"{ids[4:]}{ids[:4]}")
        or core.isalpha()
        or _REPEATED.fullmatch(core) is not None
        or len(_drop_constants(serial, device, names)) < _SHORTEST
        or any(pattern.search(serial) for pattern in (_FIRMWARE, _CHEMISTRY, _WORDS))
        or _DATE.fullmatch(serial) is not None
        or _COMPACT_DATE.fullmatch(tail) is not None
    )


def _is_sequence(text: str) -> bool:
    return any(text in sequence for sequence in _SEQUENCES)


def _is_made_of_two_sequences(core: str) -> bool:
    """Return whether a text is a sequence of digits and one of letters, such as 1234ABCD."""
    parts = re.findall("[0-9]+|[A-Z]+", core)
    return len(parts) == 2 and all(map(_is_sequence, parts))


def _drop_constants(serial: str, device: UsbDevice, names: str) -> str:
    """Return what is left of a serial number without what all devices of the model have: ids, parts of their names, zeros.

    names: of the maker and the product, as one word of letters and digits.
    """
    ids = [device.vendor_id.upper(), device.product_id.upper()]
    short = [number.lstrip("0") for number in ids]
    parts = []
    for part in re.split(r"[^0-9A-Z]+", serial):
        if part.lstrip("0") in ("", *short) or (len(part) > 2 and part in names):
            continue
        parts.append(re.sub("|".join(ids), "", part))
    return "".join(_ZEROS.sub("", part.lstrip("0")) for part in parts)


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


def renew_fingerprint(known: Fingerprint) -> Fingerprint:
    """Return an identity that was remembered, without a serial number that is no longer trusted."""
    device = UsbDevice("", known.vendor_id, known.product_id, "", "", known.serial, 0, 0, known.place)
    return make_fingerprint(device)


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
    if given.get("driver", AUTO) != AUTO and not looks_on_usb(given):
        return False
    numbered = release >= BUSPORT_SINCE
    texts = (
        device.vendor_id,
        device.product_id,
        *read_texts(device, release),
        f"{device.bus:03d}",
        f"{device.port:03d}" if numbered and device.port else "",
        f"{device.device:03d}" if numbered else "",
    )
    # texts and port are unknown for a device from lsusb, so they can't rule it out
    keys = KEYS if device.place else tuple(key if key in ("vendorid", "productid", "bus") else "" for key in KEYS)
    return all(_matches_text(given[key], text) for key, text in zip(keys, texts) if key in given)


def read_texts(device: UsbDevice, release: Release = NEWEST) -> tuple[str, str, str]:
    """Return a device's manufacturer, product and serial number as NUT's drivers read them; "" for those that they can't read."""
    texts = zip(TEXT_KEYS, (device.manufacturer, device.product, device.serial))
    vendor, product, serial = ("" if key in device.unread else _read_by_driver(text, release) for key, text in texts)
    return vendor, product, serial


def matches_model(section: Section, vendor_id: str, product_id: str) -> bool:
    """Return whether a section's ids match these; a section without ids matches any."""
    return matches_known(section, {"vendorid": vendor_id, "productid": product_id})


def matches_known(section: Section, known: Mapping[str, str]) -> bool:
    """Return whether the keys of a section match what is known of a device, key by key. What is not known rules nothing out."""
    given = _lowered_keys(section)
    return all(_matches_text(given[key], text) for key, text in known.items() if key in given and key in KEYS)


def _lowered_keys(section: Section) -> dict[str, str]:
    return {key.lower(): value for key, value in section.keys if value is not None}


def _read_by_driver(text: str, release: Release) -> str:
    """Return the kernel's text as a driver gets it, stripped: "?" for each UTF-16 unit that is not ASCII.

    2.8.3 and later read the text themselves, and keep the units below 256 as bytes. These are no characters to a driver, so here
    they are one that only "." and its like match, whatever the locale.
    """

    def read(character: str) -> str:
        if character < "\x80":
            return character
        if character <= "\xff" and release >= LATIN_SINCE:
            return _BYTE
        return "?" * (2 if ord(character) > 0xFFFF else 1)

    return "".join(map(read, text)).strip(BLANKS)


def _matches_text(pattern: str, text: str) -> bool:
    if _LITERAL.fullmatch(pattern):
        return pattern.lower() == text.lower()
    return _matches_by_libc(pattern, text)


def _matches_by_libc(pattern: str, text: str) -> bool:
    matches = compile_by_libc(pattern)
    return matches is not None and matches(text)
