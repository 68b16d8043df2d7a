# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The USB bus as NUT sees it: what is plugged in, what of it is a UPS, and which driver that needs.

What a device says of itself (manufacturer, product, serial) can be anything, and is only carried along here.
"""

from __future__ import annotations

import grp
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Protocol

from ..base.systemd import Run
from ..base.text import one_line
from .hid import is_power_device

HID_DRIVER = "usbhid-ups"
# NUT's drivers of UPSes on USB, of all releases that are known here, as Debian packages them in nut-server
DRIVERS = frozenset(
    {
        HID_DRIVER,
        "bcmxcp_usb",
        "blazer_usb",
        "nutdrv_atcl_usb",
        "nutdrv_qx",
        "richcomm_usb",
        "riello_usb",
        "tripplite_usb",
    }
)
# NUT 2.8.1 and later name apc_modbus for an id that usbhid-ups has long driven, and still drives. Debian has apc_modbus
# in a package of its own, and it needs Modbus to be switched on in the UPS.
_STAND_INS = {"apc_modbus": HID_DRIVER}

# why a device is a UPS whose driver nobody named, and that only the descriptor speaks for
GUESS = "its HID report descriptor"

# where udev looks, the first first: a file hides those of its name in later folders
FOLDERS = tuple(
    Path(folder)
    for folder in (
        "/etc/udev/rules.d",
        "/run/udev/rules.d",
        "/usr/local/lib/udev/rules.d",
        "/usr/lib/udev/rules.d",
        "/lib/udev/rules.d",
    )
)

# bytes of a file of sysfs that are read; a text has at most 378, a report descriptor 4096
_TEXT_BYTES = 1024
_DESCRIPTOR_BYTES = 16384

_NAME = re.compile(r"usb[0-9]+|[0-9]+-[0-9]+(?:\.[0-9]+)*")
_ID = re.compile(r"[0-9a-f]{4}")
_NUMBER = re.compile(r"[0-9]{1,6}")
_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]")
_PCI_BRIDGE = re.compile(r"pci[0-9a-f]{4,}:[0-9a-f]{2}")
_HID_CHILD = re.compile(r"[0-9A-F]{4}:[0-9A-F]{4}:[0-9A-F]{4}\.[0-9A-F]{4,}")
_HUB = "09"
_HID = "03"

_LSUSB = re.compile(r"Bus ([0-9]{3}) Device ([0-9]{3}): ID ([0-9a-f]{4}):([0-9a-f]{4})(?: (.*))?")
_RULE = re.compile(r'ATTR\{idVendor\}=="([0-9A-Fa-f]{4})", ?ATTR\{idProduct\}=="([0-9A-Fa-f]{4})",.*')
_RULE_DRIVER = re.compile(r"#.* - ([a-z0-9][a-z0-9_-]*)[ \t]*")
_SCANNED = re.compile(
    r'USB:driver="([a-z0-9][a-z0-9_-]*)",port="auto",vendorid="([0-9A-Fa-f]{4})",productid="([0-9A-Fa-f]{4})"(?:,.*)?'
)


class UsbError(Exception):
    """The bus can't be read; the message names the directory and what was wrong."""


class ScannerError(Exception):
    """nut-scanner failed; the message has its own words."""


class DeviceFilter(Protocol):
    """What candidates() needs of a policy."""

    def explain_match(self, device: UsbDevice) -> str:
        """Return the pattern or rule that makes the device a UPS, in words; "" if none does."""

    def is_ignored(self, device: UsbDevice) -> bool:
        """Say whether the device is to be left alone."""


@dataclass(frozen=True)
class UsbDevice:
    """A device on the bus.

    name: its name in sysfs, "1-1.4" (of a root hub "usb1"). vendor_id, product_id: four lower hex digits. manufacturer,
    product, serial: as the kernel has them, without the newline that sysfs puts behind; "" if there is none; bytes that are
    no UTF-8 as surrogates. bus, device: numbers from 1. place: the connector as udev's ID_PATH names it, "" if unknown.
    hid_power: whether it is a HID Power Device; None if it has a HID interface, and its driver has taken that from the
    kernel, so that nobody can say. accessible: whether NUT's group may use its node; None if there is no node, or no
    group. hub: whether it is a hub.
    """

    name: str
    vendor_id: str
    product_id: str
    manufacturer: str
    product: str
    serial: str
    bus: int
    device: int
    place: str
    hid_power: bool | None = False
    accessible: bool | None = None
    hub: bool = False

    @property
    def ids(self) -> str:
        """Return both ids as people write them: 051d:0002."""
        return f"{self.vendor_id}:{self.product_id}"

    @property
    def port(self) -> int:
        """Return the last number of the port path, which is NUT's busport; 0 of a root hub, or if it is unknown."""
        number = re.search(r"(?:^[0-9]+-|\.)([0-9]+)$", self.name)
        return int(number[1]) if number else 0

    @property
    def incarnation(self) -> tuple[int, int]:
        """Return what is new at each plugging in: bus and device number."""
        return self.bus, self.device

    @property
    def node(self) -> str:
        """Return the path of the device node."""
        return f"/dev/bus/usb/{self.bus:03d}/{self.device:03d}"


@dataclass(frozen=True)
class UsbUps:
    """A device that is a UPS. driver: NUT's driver for it, "" if nobody knows one. why: who says so, in words."""

    device: UsbDevice
    driver: str
    why: str


# The bus, by sysfs


def scan_bus(sysfs: Path = Path("/sys"), dev: Path = Path("/dev"), group: int | None = None) -> tuple[UsbDevice, ...]:
    """Return what is on the bus, hubs too, in the order of names. Needs no rights, and touches no device.

    group: the id of NUT's group; None: that of the group nut, if there is one. A device that goes away while it is read is
    left out. Raises UsbError if there is no bus.
    """
    folder = sysfs / "bus/usb/devices"
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        raise UsbError(f"{folder}: {error.strerror or error}. Is this host's USB visible here?") from None
    inside = os.path.realpath(sysfs / "devices") + "/"
    owner = _nut_group() if group is None else group
    found = (_read_device(f"{folder}/{name}", name, inside, dev, owner) for name in names if _NAME.fullmatch(name))
    return tuple(device for device in found if device is not None)


def _nut_group() -> int | None:
    try:
        return grp.getgrnam("nut").gr_gid
    except KeyError:
        return None


def _read_device(link: str, name: str, inside: str, dev: Path, group: int | None) -> UsbDevice | None:
    """Read one device; None if it is none, or went away meanwhile."""
    path = os.path.realpath(link)
    if not path.startswith(inside) or path.rpartition("/")[2] != name:
        return None
    # the number of the device first, and once more at the end
    number, bus = _read_attribute(path, "devnum"), _read_attribute(path, "busnum")
    vendor, product = _read_attribute(path, "idVendor").lower(), _read_attribute(path, "idProduct").lower()
    if not (_ID.fullmatch(vendor) and _ID.fullmatch(product) and _is_positive(bus) and _is_positive(number)):
        return None
    hub = name.startswith("usb") or _read_attribute(path, "bDeviceClass") == _HUB
    texts = [_read_attribute(path, attribute) for attribute in ("manufacturer", "product", "serial")]
    power = False if hub else _has_power_interface(path, name)
    accessible = _is_accessible(dev / "bus/usb" / f"{int(bus):03d}" / f"{int(number):03d}", group)
    # Gone, or another one in its place: then what was read may be of both, and its uevent brings the next look.
    if _read_attribute(path, "devnum") != number:
        return None
    return UsbDevice(
        name=name,
        vendor_id=vendor,
        product_id=product,
        manufacturer=texts[0],
        product=texts[1],
        serial=texts[2],
        bus=int(bus),
        device=int(number),
        place=_name_place(path[len(inside) :].split("/")),
        hid_power=power,
        accessible=accessible,
        hub=hub,
    )


def _is_positive(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and int(text) > 0


def _read_start(path: str, limit: int) -> bytes:
    """Read the beginning of a file; b"" if it can't be read, is none, or has gone."""
    try:
        # a link leads out of sysfs, and a FIFO would wait for a writer
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(file, limit)
    except OSError:
        return b""
    finally:
        os.close(file)


def _read_attribute(path: str, attribute: str) -> str:
    """Read an attribute, without the one newline that the kernel puts behind it."""
    return _read_start(f"{path}/{attribute}", _TEXT_BYTES).decode("utf-8", "surrogateescape").removesuffix("\n")


def _list_names(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def _has_power_interface(path: str, name: str) -> bool | None:
    """Say whether a HID interface of a device is that of a UPS; None if nobody can say."""
    unknown = False
    for interface in _list_names(path):
        if not interface.startswith(f"{name}:") or _read_attribute(f"{path}/{interface}", "bInterfaceClass") != _HID:
            continue
        below = f"{path}/{interface}"
        descriptors = [
            _read_start(f"{below}/{child}/report_descriptor", _DESCRIPTOR_BYTES)
            for child in _list_names(below)
            if _HID_CHILD.fullmatch(child)
        ]
        if any(map(is_power_device, descriptors)):
            return True
        # The kernel's usbhid makes the child, and takes it away when NUT's driver claims the interface.
        unknown = unknown or not any(descriptors)
    return None if unknown else False


def _is_accessible(node: Path, group: int | None) -> bool | None:
    if group is None:
        return None
    try:
        state = node.stat()
    except OSError:
        return None
    wanted = 0o060 if state.st_gid == group else 0o006
    return state.st_mode & wanted == wanted


def _name_place(parts: list[str]) -> str:
    """Name the connector from the directories below /sys/devices, as udev's path_id does (systemd, udev-builtin-path_id.c).

    It names the nearest of neighbouring PCI devices, and of neighbouring platform devices. The number of the bus is no part:
    it changes at boot.
    """
    name = parts[-1]
    root = next((index for index, part in enumerate(parts) if re.fullmatch(r"usb[0-9]+", part)), None)
    if root is None or "-" not in name:
        return ""
    named: list[str] = []
    below = "usb"
    for part in reversed(parts[:root]):
        kind = "pci" if _PCI.fullmatch(part) else "" if _PCI_BRIDGE.fullmatch(part) else "platform"
        if kind and kind != below:
            named.insert(0, f"{kind}-{part}")
        below = kind
    return "-".join([*named, "usb", f"0:{name.partition('-')[2]}"])


# The bus, by programs


def scan_with_lsusb(runner: Run) -> tuple[UsbDevice, ...]:
    """Return what `lsusb` lists, for where sysfs can't be read. Raises UsbError if it fails.

    It tells ids, numbers and one text, which stands in product. A device is then called 1-dev4, and has no place.
    """
    code, said = runner(["lsusb"])
    if code:
        raise UsbError(f"lsusb: {one_line(said) or f'exit code {code}'}")
    found: dict[tuple[int, int], UsbDevice] = {}
    twice = set()
    for line in said.split("\n"):
        match = _LSUSB.fullmatch(line)
        if match is None:
            continue
        bus, number = int(match[1]), int(match[2])
        # nobody has two names: a text with a newline has made one
        if (bus, number) in found:
            twice.add((bus, number))
        if bus and number:
            # Linux's own root hubs
            hub = match[3] == "1d6b" and match[4] in ("0001", "0002", "0003")
            name = f"usb{bus}" if hub else f"{bus}-dev{number}"
            found[bus, number] = UsbDevice(
                name, match[3], match[4], "", match[5] or "", "", bus, number, "", None, None, hub
            )
    return tuple(device for key, device in sorted(found.items()) if key not in twice)


def read_id_table(folders: Iterable[Path] = FOLDERS) -> dict[str, str]:
    """Map the ids that NUT knows to drivers, from the udev rules that it ships (62-nut-usbups.rules); {} without them.

    The driver stands in the comment before a rule: "#  various models  - usbhid-ups". "" if there is none.
    """
    drivers: dict[str, str] = {}
    files: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*-nut-usbups.rules")) if folder.is_dir() else ():
            files.setdefault(path.name, path)
    for path in files.values():
        driver = ""
        for line in _read_lines(path):
            rule = _RULE.fullmatch(line)
            if rule:
                drivers[f"{rule[1]}:{rule[2]}".lower()] = driver
            comment = _RULE_DRIVER.fullmatch(line)
            driver = comment[1] if comment else ""
    return drivers


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def ask_scanner(runner: Run, devices: Iterable[UsbDevice] = ()) -> dict[str, str]:
    """Map ids on the bus to drivers, as `nut-scanner -U` names them. Raises ScannerError if it fails.

    devices: what is on the bus. nut-scanner prints what a device says of itself as it is. So of each line only the part
    before the first such text counts, an id with two drivers is left out, and nothing is believed while a device on the
    bus has a newline in its texts.
    """
    code, said = runner(["nut-scanner", "-U", "-q", "-P"])
    # 2.8.0 and 2.8.1 end with 1 and these words if there is no bus, or nothing on it
    if code and "No USB device found" not in said:
        raise ScannerError(f"nut-scanner -U: {one_line(said) or f'exit code {code}'}")
    if any("\n" in text for device in devices for text in (device.manufacturer, device.product, device.serial)):
        return {}
    claims: dict[str, set[str]] = {}
    for line in said.split("\n"):
        match = _SCANNED.fullmatch(line)
        if match:
            claims.setdefault(f"{match[2]}:{match[3]}".lower(), set()).add(match[1])
    return {ids: next(iter(drivers)) for ids, drivers in claims.items() if len(drivers) == 1}


# What of it is a UPS


def find_upses(
    devices: Iterable[UsbDevice],
    table: Mapping[str, str],
    policy: DeviceFilter,
    named: Callable[[UsbDevice], bool],
    scanned: Mapping[str, str] | None = None,
) -> tuple[UsbUps, ...]:
    """Return the UPSes among devices, by place and then by incarnation; never a hub, nor what the policy ignores.

    table: see table(); scanned: see ask_scanner(), if it was asked; named: says whether ups.conf names the device. The driver
    is the table's, else the scanner's, else that for HID Power Devices, else "". The policy's own driver is the caller's to
    apply.
    """
    found = []
    for device in devices:
        if device.hub or policy.is_ignored(device):
            continue
        why = _explain_match(device, table, scanned or {}, policy, named)
        if why:
            found.append(UsbUps(device, _choose_driver(device, table, scanned or {}), why))
    return tuple(sorted(found, key=lambda ups: (ups.device.place, ups.device.incarnation)))


def _explain_match(
    device: UsbDevice,
    table: Mapping[str, str],
    scanned: Mapping[str, str],
    policy: DeviceFilter,
    named: Callable[[UsbDevice], bool],
) -> str:
    if device.ids in table:
        return "NUT's table"
    if device.ids in scanned:
        return "nut-scanner"
    if device.hid_power:
        return GUESS
    return policy.explain_match(device) or ("ups.conf names it" if named(device) else "")


def _choose_driver(device: UsbDevice, table: Mapping[str, str], scanned: Mapping[str, str]) -> str:
    for source in (table, scanned):
        driver = source.get(device.ids, "")
        driver = _STAND_INS.get(driver, driver)
        if driver in DRIVERS:
            return driver
    return HID_DRIVER if device.hid_power else ""
