# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The USB bus as NUT sees it: which devices are plugged in, which are UPSes, and which driver each needs.

A device's own texts (manufacturer, product, serial) are untrusted and only passed on here.

One file, because sysfs, nut-scanner and the table of drivers answer one question: is this device a UPS?
"""

from __future__ import annotations

import grp
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Protocol

from ..base.systemd import Run
from ..base.text import one_line
from .generic import is_generic
from .hid import is_power_device
from .policy import NO_USB
from .sysfs import list_names, read_attribute, read_start

HID_DRIVER = "usbhid-ups"
# NUT's USB drivers of the releases that the collection was tested with, as in Debian's package nut-server. A host with a newer NUT
# may have others (see find_upses).
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
# Drivers that newer releases added (2.8.4). Any other driver in NUT's table must be installed to be chosen.
NEWER_DRIVERS = frozenset({"powervar_cx_usb"})
# nutdrv_qx uses a serial port unless one of these keys, or the port "auto", says otherwise (drivers/nutdrv_qx.c)
_QX_USB_KEYS = frozenset(
    {"vendorid", "productid", "vendor", "product", "serial", "bus", "busport", "subdriver", "langid_fix"}
)
# names of drivers that may be for USB, in this or a newer release
_PERHAPS_USB = re.compile(r"usb|^nutdrv_|^apc_modbus$")
# Since 2.8.1, NUT lists apc_modbus for an id that usbhid-ups supports as well. In Debian apc_modbus is a separate package, and it
# requires Modbus to be enabled in the UPS.
_STAND_INS = {"apc_modbus": HID_DRIVER}
# Ids that drivers take although NUT's table prefers another driver for them. The rules list such drivers since 2.8.2.
_FURTHER_IDS: Mapping[str, frozenset[str]] = {
    "apc_modbus": frozenset({"051d:0003"}),
    "bcmxcp_usb": frozenset({"06da:0002"}),
    "blazer_usb": frozenset(
        {
            "0001:0000",
            "05b8:0000",
            "0665:5161",
            "06da:0002",
            "06da:0003",
            "06da:0004",
            "06da:0005",
            "06da:0201",
            "06da:0601",
            "0f03:0001",
            "14f0:00c9",
            "ffff:0000",
        }
    ),
    "nutdrv_atcl_usb": frozenset({"0001:0000"}),
    "nutdrv_qx": frozenset({"0925:1234"}),
    "powervar_cx_usb": frozenset({"4234:0002"}),
    "richcomm_usb": frozenset({"0925:1234"}),
}

# UsbUps.support
MODEL, VENDOR, NOTHING = "model", "vendor", "nothing"
# the keys of ups.conf that drivers compare with the device's own texts
TEXT_KEYS = ("vendor", "product", "serial")

# UsbUps.why if only the HID report descriptor identifies the device as a UPS
GUESS = "its HID report descriptor"

# udev's folders by precedence: a file hides files of the same name in later folders
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

# bytes to read of a report descriptor, which has at most 4096
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
_RULE_DRIVERS = re.compile(r"#.* - ([a-z0-9][a-z0-9_-]*(?:[ \t,]+[a-z0-9][a-z0-9_-]*)*)[ \t]*")
_SCANNED = re.compile(
    r'USB:driver="([a-z0-9][a-z0-9_-]*)",port="auto",vendorid="([0-9A-Fa-f]{4})",productid="([0-9A-Fa-f]{4})"(?:,.*)?'
)


class UsbError(Exception):
    """The bus can't be read; the message names the directory and the error."""


class NoUsbBus(UsbError):
    """The kernel has no USB bus, so there are no USB devices: in a virtual machine, or without the kernel's module."""


class ScannerError(Exception):
    """nut-scanner failed; the message has its output."""


class DeviceFilter(Protocol):
    """The part of a policy that find_upses() needs."""

    def explain_match(self, device: UsbDevice) -> str:
        """Return the pattern or rule that makes the device a UPS; "" if none does."""

    def is_ignored(self, device: UsbDevice) -> bool:
        """Return whether the policy ignores the device."""


@dataclass(frozen=True)
class UsbDevice:
    """A device on the bus. Its texts are the kernel's: "" if missing, bytes that are not UTF-8 as surrogates."""

    name: str  # in sysfs, such as 1-1.4; usb1 for a root hub
    vendor_id: str  # four lower-case hex digits
    product_id: str  # four lower-case hex digits
    manufacturer: str
    product: str
    serial: str
    bus: int  # from 1
    device: int  # from 1; new at each plugging in
    place: str  # the connector as udev's ID_PATH names it; "" if unknown
    hid_power: bool | None = False  # whether it is a HID Power Device; None while a driver has the HID interface
    accessible: bool | None = None  # whether NUT's group may use its node; None without node or group
    hub: bool = False
    has_node: bool = True  # whether its node is there; a container sees the bus, but only the nodes that it was given
    unread: frozenset[str] = frozenset()  # the TEXT_KEYS whose texts NUT can't read, though the kernel can

    @property
    def ids(self) -> str:
        """Return both ids as in 051d:0002."""
        return f"{self.vendor_id}:{self.product_id}"

    @property
    def port(self) -> int:
        """Return the last number of the port path, which is NUT's busport; 0 for a root hub or if unknown."""
        number = re.search(r"(?:^[0-9]+-|\.)([0-9]+)$", self.name)
        return int(number[1]) if number else 0

    @property
    def incarnation(self) -> tuple[int, int]:
        """Return bus and device number, which together change each time the device is plugged in."""
        return self.bus, self.device

    @property
    def node(self) -> str:
        """Return the path of the device node."""
        return f"/dev/bus/usb/{self.bus:03d}/{self.device:03d}"


@dataclass(frozen=True)
class UsbUps:
    """A device that is a UPS."""

    device: UsbDevice
    driver: str  # NUT's driver for it; "" if unknown
    why: str  # what identifies it as a UPS, such as "NUT's table"
    support: str = MODEL  # what NUT's table lists of it: MODEL, only others of its VENDOR, or NOTHING


# The bus, from sysfs


def scan_bus(sysfs: Path = Path("/sys"), dev: Path = Path("/dev"), group: int | None = None) -> tuple[UsbDevice, ...]:
    """Return the devices on the bus, including hubs, by name. Needs no privileges and accesses no device.

    group: id of NUT's group; None for the group "nut", if it exists. A device that is unplugged while being read is left out.
    Raises NoUsbBus without a bus, and UsbError if it can't be read.
    """
    folder = sysfs / "bus/usb/devices"
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and sysfs.is_dir():
            raise NoUsbBus(f"this host has no USB bus ({folder} does not exist)") from None
        raise UsbError(f"{folder}: {error.strerror or error}. Is USB visible in this system?") from None
    inside = os.path.realpath(sysfs / "devices") + "/"
    owner = _nut_group() if group is None else group
    devices = (_read_device(f"{folder}/{name}", name, inside, dev, owner) for name in names if _NAME.fullmatch(name))
    return tuple(device for device in devices if device is not None)


def _nut_group() -> int | None:
    try:
        return grp.getgrnam("nut").gr_gid
    except KeyError:
        return None


def _read_device(link: str, name: str, inside: str, dev: Path, group: int | None) -> UsbDevice | None:
    """Return a device; None if the entry is not a device, or was unplugged while being read."""
    path = os.path.realpath(link)
    if not path.startswith(inside) or path.rpartition("/")[2] != name:
        return None
    # the device number is read first and again at the end
    number, bus = read_attribute(path, "devnum"), read_attribute(path, "busnum")
    vendor, product = read_attribute(path, "idVendor").lower(), read_attribute(path, "idProduct").lower()
    if not (_ID.fullmatch(vendor) and _ID.fullmatch(product) and _is_positive(bus) and _is_positive(number)):
        return None
    hub = name.startswith("usb") or read_attribute(path, "bDeviceClass") == _HUB
    texts = [read_attribute(path, attribute) for attribute in ("manufacturer", "product", "serial")]
    power = False if hub else _has_power_interface(path, name)
    node = dev / "bus/usb" / f"{int(bus):03d}" / f"{int(number):03d}"
    accessible = _is_accessible(node, group)
    # Unplugged or replaced: the attributes may be a mix of two devices. Its uevent triggers another run.
    if read_attribute(path, "devnum") != number:
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
        has_node=_has_node(node),
    )


def _is_positive(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and int(text) > 0


def _has_power_interface(path: str, name: str) -> bool | None:
    """Return whether a HID interface of a device is a UPS's; None if unknown."""
    unknown = False
    for interface in list_names(path):
        if not interface.startswith(f"{name}:") or read_attribute(f"{path}/{interface}", "bInterfaceClass") != _HID:
            continue
        below = f"{path}/{interface}"
        descriptors = [
            read_start(f"{below}/{child}/report_descriptor", _DESCRIPTOR_BYTES)
            for child in list_names(below)
            if _HID_CHILD.fullmatch(child)
        ]
        if any(map(is_power_device, descriptors)):
            return True
        # The kernel's usbhid creates the child and removes it when NUT's driver claims the interface.
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


def _has_node(node: Path) -> bool:
    try:
        node.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # not allowed to look
    return True


def _name_place(parts: list[str]) -> str:
    """Return the connector's name from the directories below /sys/devices, as udev's path_id does (udev-builtin-path_id.c).

    Of adjacent PCI devices, and of adjacent platform devices, it names the nearest. The number of the bus is left out, as it may
    change at boot.
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


# The bus, from programs


def scan_devices(sysfs: Path, dev: Path, runner: Run) -> tuple[tuple[UsbDevice, ...], str]:
    """Return the devices on the bus, and why they come from lsusb, which shows neither serial numbers nor ports; "" if they don't.

    Raises NoUsbBus if there is no bus, for lsusb neither, and UsbError if the bus can't be read.
    """
    try:
        return scan_bus(sysfs, dev), ""
    except UsbError as error:
        problem = error
    try:
        return scan_with_lsusb(runner), str(problem)
    except UsbError as error:
        raise (problem if isinstance(problem, NoUsbBus) else error) from None


def scan_with_lsusb(runner: Run) -> tuple[UsbDevice, ...]:
    """Return the devices that `lsusb` lists, for use where sysfs can't be read. Raises UsbError if it fails.

    lsusb gives ids, numbers and one text, which becomes the product. Devices are named like 1-dev4, and have no place.
    """
    code, output = runner(["lsusb"])
    if code:
        raise UsbError(f"lsusb: {one_line(output) or f'exit code {code}'}")
    found: dict[tuple[int, int], UsbDevice] = {}
    duplicates = set()
    for line in output.split("\n"):
        match = _LSUSB.fullmatch(line)
        if match is None:
            continue
        bus, number = int(match[1]), int(match[2])
        # a text with a newline can forge a second line for a device
        if (bus, number) in found:
            duplicates.add((bus, number))
        if bus and number:
            # Linux's root hubs
            hub = match[3] == "1d6b" and match[4] in ("0001", "0002", "0003")
            name = f"usb{bus}" if hub else f"{bus}-dev{number}"
            found[bus, number] = UsbDevice(
                name, match[3], match[4], "", match[5] or "", "", bus, number, "", None, None, hub
            )
    return tuple(device for key, device in sorted(found.items()) if key not in duplicates)


def read_id_table(folders: Iterable[Path] = FOLDERS) -> dict[str, str]:
    """Map ids to drivers, from the udev rules that NUT ships (62-nut-usbups.rules); {} without them.

    The driver is in the comment before a rule: "#  various models  - usbhid-ups"; "" without one. Since 2.8.2 there may be several,
    of which the one counts that nut-scanner names first.
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
            comment = _RULE_DRIVERS.fullmatch(line)
            driver = _choose_preferred(re.split(r"[ \t,]+", comment[1])) if comment else ""
    return drivers


def _choose_preferred(drivers: Iterable[str]) -> str:
    """Return the driver that nut-scanner names first, of those in the order of a rule's comment (NUT's tools/nut-usbinfo.pl)."""
    preferred = ""
    for driver in drivers:
        is_kept = preferred in (HID_DRIVER, "nutdrv_qx") or (preferred.startswith("blazer_") and driver != "nutdrv_qx")
        preferred = preferred if is_kept else driver
    return preferred


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def ask_scanner(runner: Run, devices: Iterable[UsbDevice] = ()) -> dict[str, str]:
    """Map ids on the bus to drivers, from `nut-scanner -U`. Raises ScannerError if it fails.

    devices: the devices on the bus. nut-scanner prints their texts unescaped. So only the part of a line before the first text
    counts, an id with two drivers is left out, and the result is {} while any device has a newline in its texts.
    """
    return list_scanned_drivers(read_scanner(runner, devices) or {})


def read_scanner(runner: Run, devices: Iterable[UsbDevice] = ()) -> dict[str, list[str]] | None:
    """Map ids on the bus to the lines that `nut-scanner -U` prints for them; None if they can't be trusted.

    devices, errors: as for ask_scanner().
    """
    if any("\n" in text for device in devices for text in (device.manufacturer, device.product, device.serial)):
        return None
    lines: dict[str, list[str]] = {}
    for line in list_scanned_lines(runner):
        match = _SCANNED.fullmatch(line)
        if match:
            lines.setdefault(f"{match[2]}:{match[3]}".lower(), []).append(line)
    return lines


def list_scanned_drivers(lines: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Map ids to the driver in the lines of read_scanner(), without ids that have several."""
    claims = {ids: {match[1] for line in known if (match := _SCANNED.fullmatch(line))} for ids, known in lines.items()}
    return {ids: next(iter(drivers)) for ids, drivers in claims.items() if len(drivers) == 1}


def list_scanned_lines(runner: Run) -> list[str]:
    """Return the lines that `nut-scanner -U` prints. Raises ScannerError if it fails."""
    code, output = runner(["nut-scanner", "-U", "-q", "-P"])
    # 2.8.0 and 2.8.1 exit with 1 and this message without a bus or devices
    if code and "No USB device found" not in output:
        raise ScannerError(f"nut-scanner -U: {one_line(output) or f'exit code {code}'}")
    return output.split("\n")


def read_scanned_ids(line: str) -> tuple[str, str, str] | None:
    """Return the driver and both ids in a line of nut-scanner, in lower case; None if it has none."""
    match = _SCANNED.fullmatch(line)
    return (match[1], match[2].lower(), match[3].lower()) if match else None


def looks_on_usb(given: Mapping[str, str]) -> bool:
    """Return whether a driver with these keys of ups.conf, in lower case, looks for its UPS on the USB bus.

    The driver "auto" does not, as it is none yet. A newer NUT has drivers that DRIVERS lacks: they do if their port says so.
    """
    driver, is_auto = given.get("driver", ""), given.get("port", "").lower() == "auto"
    if driver in ("", *NO_USB):
        return False
    if driver == "nutdrv_qx":
        return is_auto or not _QX_USB_KEYS.isdisjoint(given)
    if driver == "apc_modbus" and given.get("porttype"):
        return given["porttype"].lower() == "usb"
    if driver in DRIVERS or driver.endswith("_usb"):
        return True
    return is_auto and _PERHAPS_USB.search(driver) is not None


def takes_ids(driver: str, ids: str, listed: str) -> bool:
    """Return whether a driver takes a device of these ids without keys that name it.

    listed: the driver that NUT's table or nut-scanner names for the ids. "" for either driver if it is unknown.
    """
    return (
        "" in (driver, listed)
        or driver == listed
        or _STAND_INS.get(listed) == driver
        or ids in _FURTHER_IDS.get(driver, ())
    )


# UPSes among the devices


def find_upses(
    devices: Iterable[UsbDevice],
    table: Mapping[str, str],
    policy: DeviceFilter,
    named: Callable[[UsbDevice], bool],
    scanned: Mapping[str, str] | None = None,
    *,
    chosen: Callable[[UsbDevice], bool] | None = None,
    installed: Callable[[str], bool] = lambda _driver: False,
) -> tuple[UsbUps, ...]:
    """Return the UPSes among devices, by place and incarnation; no hubs, and none that the policy ignores.

    table: from read_id_table(). scanned: from ask_scanner(), if it ran. named: returns whether ups.conf has a section for a device;
    chosen: whether a person wrote one (default: as named). installed: returns whether the host has a driver. The driver is the
    table's, else nut-scanner's, else usbhid-ups for HID Power Devices, else "". Drivers of the policy's rules are left to the
    caller. A serial adapter or a board is a UPS only if its descriptor, the policy or a person says so.
    """
    upses = []
    scanned = scanned or {}
    makers = {ids[:4] for ids, driver in table.items() if _STAND_INS.get(driver, driver) == HID_DRIVER}
    for device in devices:
        if device.hub or policy.is_ignored(device):
            continue
        if is_generic(device.vendor_id, device.product_id) and not device.hid_power:
            # while a driver has the HID interface of a board, its descriptor is hidden
            known = named if device.hid_power is None or chosen is None else chosen
            why = policy.explain_match(device) or ("ups.conf names it" if known(device) else "")
        else:
            why = _explain_match(device, table, scanned, policy, named)
        if why:
            driver = _choose_driver(device, table, scanned, installed)
            is_listed = not table or device.ids in table or device.ids in scanned
            support = MODEL if is_listed else VENDOR if device.vendor_id in makers else NOTHING
            upses.append(UsbUps(device, driver, why, support))
    return tuple(sorted(upses, key=lambda ups: (ups.device.place, ups.device.incarnation)))


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


def _choose_driver(
    device: UsbDevice, table: Mapping[str, str], scanned: Mapping[str, str], installed: Callable[[str], bool]
) -> str:
    for source in (table, scanned):
        driver = source.get(device.ids, "")
        driver = _STAND_INS.get(driver, driver)
        if driver in (*DRIVERS, *NEWER_DRIVERS) or (driver and driver not in NO_USB and installed(driver)):
            return driver
    return HID_DRIVER if device.hid_power else ""
