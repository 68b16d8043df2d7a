# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which UPS is this? Its identity, as far as it has one, and the keys of ups.conf by which NUT's driver takes it.

What NUT's drivers make of these keys is from drivers/usb-common.c and libusb1.c of NUT: each value is a POSIX extended
regular expression, any case, that must match the whole of a text without the blanks at its ends.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ..conf.directives import NEWEST, Release
from ..conf.ups_conf import Section
from .bus import DRIVERS, HID_DRIVER, UsbDevice

# What drivers know none of these keys, or know them only since a release. To them a key that they don't know is a fatal
# error (and exit code 0). Seen in `DRIVER -L` of 2.8.0 and 2.8.1.
_NEVER: Release = (999, 0, 0)
_PINS_SINCE: dict[str, Release] = {
    "bcmxcp_usb": _NEVER,
    "nutdrv_atcl_usb": _NEVER,
    "richcomm_usb": _NEVER,
    "riello_usb": (2, 8, 1),
}
# 2.8.0 knows the key device, too, and then takes none: it has not filled in that number (seen in `usbhid-ups -DD`)
_BUSPORT_SINCE: Release = (2, 8, 1)

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

_IDS = re.compile(r"[0-9a-f]{4}")
_PLACE = re.compile(r"[!-~]{0,255}")
_BLANKS = " \t\n"
_SPECIAL = frozenset(".[()*+?{|$\\")
_LITERAL = re.compile(r"[A-Za-z0-9 _,:;/@%=~<>!&-]*")
# the keys of ups.conf by which a driver knows its UPS, in NUT's own order: which it is, and where
WHICH = ("vendorid", "productid", "vendor", "product", "serial")
WHERE = ("bus", "busport", "device")
KEYS = (*WHICH, *WHERE)


def trusted_serial(device: UsbDevice) -> str:
    """Return the serial number if it can tell this UPS from others of its model, without blanks at its ends; else "".

    Two that say the same are told apart by pins(). In doubt it is not trusted: that costs a UPS its name only if two alike
    change their places.
    """
    serial = device.serial.strip(_BLANKS)
    return serial if _plain(serial) and " " not in serial and not _says_nothing(serial.upper(), device) else ""


def _plain(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None and _NOT_PLAIN.isdisjoint(text)


def _says_nothing(serial: str, device: UsbDevice) -> bool:
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
    """Which UPS it is. serial: a trusted one, else "". place: where it was seen, "" if that is unknown."""

    vendor_id: str
    product_id: str
    serial: str
    place: str

    def __str__(self) -> str:
        ids = f"{self.vendor_id}:{self.product_id}"
        if self.serial:
            return f"{ids} {self.serial}"
        return f"{ids} at {self.place}" if self.place else ids

    def to_json(self) -> dict[str, str]:
        """Return what from_json() takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Fingerprint:
        """Make one of what stands in a file. Raises ValueError for anything that can't be one."""
        if not isinstance(data, dict) or set(data) != {"vendor_id", "product_id", "serial", "place"}:
            raise ValueError("a fingerprint has vendor_id, product_id, serial and place")
        for key, value in data.items():
            pattern = _IDS if key.endswith("_id") else _PLACE
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise ValueError(f"{key} of a fingerprint can't be {value!r}")
        return cls(**data)


def fingerprint(device: UsbDevice) -> Fingerprint:
    """Say which UPS a device is."""
    return Fingerprint(device.vendor_id, device.product_id, trusted_serial(device), device.place)


def likeness(known: Fingerprint, seen: Fingerprint) -> int:
    """Compare two UPSes. 3: the same. 2: it may be the same at another place: no serials, same model. 0: another."""
    if (known.vendor_id, known.product_id, known.serial) != (seen.vendor_id, seen.product_id, seen.serial):
        return 0
    return 3 if known.serial or (known.place == seen.place and known.place) else 2


# What NUT's driver takes


@dataclass(frozen=True)
class Pins:
    """Keys of ups.conf that bind a section to a device. remark: "", or why it can't be told from another."""

    keys: tuple[tuple[str, str], ...]
    remark: str = ""


def pins(device: UsbDevice, others: Sequence[UsbDevice], release: Release, driver: str = HID_DRIVER) -> Pins:
    """Return the keys by which NUT's driver takes this device, and none of the others on the bus.

    others: what else is on the bus; the device itself among them makes no difference. The ids always, the serial if it can
    be trusted; then as few as do of: the product's text, busport (since 2.8.1), bus. None for a driver that knows none.
    """
    # the same one may look another way by now, when a driver has taken its interface
    twins = [other for other in others if other.ids == device.ids and other.incarnation != device.incarnation]
    if not is_told_apart(driver, release):
        return Pins((), _cannot(device, twins, f"{driver} takes the first that it finds") if twins else "")
    keys = [("vendorid", device.vendor_id), ("productid", device.product_id)]
    serial = trusted_serial(device)
    if serial:
        keys.append(("serial", escape(serial)))
    best, left = tuple(keys), _taken(keys, twins)
    for further in _further(device, release):
        if not left:
            break
        rivals = _taken([*keys, *further], twins)
        if len(rivals) < len(left):
            best, left = (*keys, *further), rivals
    return Pins(best, _cannot(device, left, _reason(release)) if left else "")


def _further(device: UsbDevice, release: Release) -> Iterator[tuple[tuple[str, str], ...]]:
    """List keys that may tell a device from its twins, the fewest first, what a new boot may change last."""
    known = []
    product = device.product.strip(_BLANKS)
    if _plain(product):
        known.append(("product", escape(product)))
    if release >= _BUSPORT_SINCE and device.port:
        known.append(("busport", f"{device.port:03d}"))
    known.append(("bus", f"{device.bus:03d}"))
    for count in range(1, len(known) + 1):
        yield from itertools.combinations(known, count)


def _taken(keys: Sequence[tuple[str, str]], devices: Sequence[UsbDevice]) -> list[UsbDevice]:
    section = Section("", tuple(keys))
    return [device for device in devices if means(section, device)]


def _cannot(device: UsbDevice, twins: Sequence[UsbDevice], why: str) -> str:
    names = ", ".join(sorted(twin.name for twin in twins))
    return f"{device.ids} at {device.name} can't be told from that at {names}: {why}"


def _reason(release: Release) -> str:
    if release < _BUSPORT_SINCE:
        return (
            f"they have no serial numbers of their own, and NUT {'.'.join(map(str, release))} knows only buses. "
            "Plug one into a port of another USB controller, or use NUT 2.8.1"
        )
    return (
        "they have no serial numbers of their own, and NUT knows only the bus, and the last number of the port. "
        "Plug one into a port with another number"
    )


def escape(text: str) -> str:
    """Write a POSIX extended regular expression that matches just this text (as REG_ICASE goes, in any case)."""
    # a bracket where it can be, and no backslash: the enumerator's shell changes those
    return "".join(r"\^" if one == "^" else f"[{one}]" if one in _SPECIAL else one for one in text)


def is_told_apart(driver: str, release: Release) -> bool:
    """Say whether a driver knows keys that tell one UPS from another."""
    return release >= _PINS_SINCE.get(driver, (0, 0, 0))


def means(section: Section, device: UsbDevice, release: Release = NEWEST) -> bool:
    """Say whether NUT's driver would take the device for this section; without any key that says which, it takes all.

    release: 2.8.0 reads neither port nor device number, so that a section with device takes nothing. The driver's own
    tables of ids are not asked. A section of a driver that is none for USB means nothing, one of driver auto is read as any
    other. A regular expression that is none means nothing: the driver refuses it.
    """
    given = _given(section)
    driver = given.get("driver", HID_DRIVER)
    if driver not in DRIVERS and driver != "auto" and not driver.endswith("_usb"):
        return False
    numbered = release >= _BUSPORT_SINCE
    told = (
        device.vendor_id,
        device.product_id,
        *map(_as_read, (device.manufacturer, device.product, device.serial)),
        f"{device.bus:03d}",
        f"{device.port:03d}" if numbered and device.port else "",
        f"{device.device:03d}" if numbered else "",
    )
    # of a device that only lsusb knows, the texts and the port are unknown: it may be the one that is meant
    keys = KEYS if device.place else tuple(key if key in ("vendorid", "productid", "bus") else "" for key in KEYS)
    return all(_matches(given[key], text) for key, text in zip(keys, told) if key in given)


def means_model(section: Section, vendor_id: str, product_id: str) -> bool:
    """Return whether a section's ids let its driver take a device with these; a section without ids takes all."""
    given = _given(section)
    told = {"vendorid": vendor_id, "productid": product_id}
    return all(_matches(given[key], text) for key, text in told.items() if key in given)


def _given(section: Section) -> dict[str, str]:
    return {key.lower(): value for key, value in section.keys if value is not None}


def _as_read(text: str) -> str:
    """Return a text of the kernel's as a driver reads it by libusb: ? for each unit of UTF-16 that is not ASCII."""
    units = (2 if ord(one) > 0xFFFF else 1 for one in text)
    return "".join(one if one < "\x80" else "?" * count for one, count in zip(text, units)).strip(_BLANKS)


def _matches(pattern: str, text: str) -> bool:
    if _LITERAL.fullmatch(pattern):
        return pattern.lower() == text.lower()
    return _by_libc(pattern, text)


def _by_libc(pattern: str, text: str) -> bool:
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
