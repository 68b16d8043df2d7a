# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A USB bus in a directory, laid out as Linux lays out sysfs and the device nodes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PCI = "pci0000:00/0000:00:14.0"

# the beginning of a UPS's report descriptor: page Power Device, usage UPS, application collection, a flow, charge in percent
UPS_DESCRIPTOR = bytes.fromhex("05840904a101 8524 0924 a102 0585 0966 75089501 1500 2564 b1a2 c0c0")
# a keyboard that also tells how full its own battery is
KEYBOARD_DESCRIPTOR = bytes.fromhex("05010906a101 0507 19e029e7 15002501 75019508 8102 0585 0944 8102 0584 8102 c0")


class SysfsTree:
    """A bus below a directory: sysfs is what /sys is on a host, dev is /dev. Devices are plugged in and out by their names."""

    def __init__(self, root: Path) -> None:
        self.sysfs = root / "sys"
        self.dev = root / "dev"
        self._links = self.sysfs / "bus/usb/devices"
        self._links.mkdir(parents=True)
        self._numbers: dict[int, int] = {}

    def root_hub(self, bus: int = 1, controller: str = PCI) -> str:
        """Add the root hub of a bus. plug() does it by itself where it is missing."""
        name = f"usb{bus}"
        return self._add_device(
            f"{controller}/{name}",
            bus,
            "1d6b:0002",
            ("Linux 6.1.0 xhci-hcd", "xHCI Host Controller", "0000:00:14.0"),
            device_class="09",
        )

    def plug_in(
        self,
        name: str = "1-1",
        ids: str = "051d:0002",
        manufacturer: str | bytes | None = "American Power Conversion",
        product: str | bytes | None = "Back-UPS ES 700G FW:871.O4 .I USB FW:O4",
        serial: str | bytes | None = "5B1234T56789",
        *,
        hid: bool | None = True,
        descriptor: bytes | None = None,
        device_class: str = "00",
        device: int | None = None,
        mode: int = 0o664,
        controller: str = PCI,
    ) -> Path:
        """Plug a device in, and return its directory.

        name: as the kernel's, BUS-PORT.PORT; a hub on the way must be there already. hid: what its one interface is: True a
        HID Power Device; False of a vendor's class, None a HID interface that NUT's driver has taken from the kernel. descriptor:
        another report descriptor. device_class "09" makes a hub. device: its number, by default the next one of the bus.
        """
        bus, _unused, ports = name.partition("-")
        root = self._links / f"usb{bus}"
        if not root.exists():
            self.root_hub(int(bus), controller)
        above = [f"{bus}-{ports.rsplit('.', up)[0]}" for up in range(ports.count("."), 0, -1)]
        top = root.resolve().relative_to(self.sysfs.resolve() / "devices")
        path = "/".join([str(top), *above, name])
        self._add_device(
            path, int(bus), ids, (manufacturer, product, serial), device_class=device_class, device=device, mode=mode
        )
        folder = self.sysfs / "devices" / path
        self._write_interface(folder, ids, "03" if hid is not False else "ff")
        if hid:
            self.bind_kernel(name, UPS_DESCRIPTOR if descriptor is None else descriptor)
        return folder

    def bind_kernel(self, name: str, descriptor: bytes = UPS_DESCRIPTOR) -> Path:
        """Let the kernel's usbhid take the interface of a device, so that its report descriptor can be seen."""
        interface = (self._links / name).resolve() / f"{name}:1.0"
        vendor, product = (
            (self._links / name / file).read_text().strip().upper() for file in ("idVendor", "idProduct")
        )
        child = interface / f"0003:{vendor}:{product}.0001"
        child.mkdir()
        (child / "report_descriptor").write_bytes(descriptor)
        return child

    def bind_nut(self, name: str) -> None:
        """Let NUT's driver take the interface of a device from the kernel."""
        for child in (self._links / name).resolve().glob("*:1.0/0003:*"):
            shutil.rmtree(child)

    def show_driver(self, name: str, driver: str) -> None:
        """Show the driver that has the interface of a device: usbfs for NUT's, usbhid for the kernel's own, "" for none."""
        link = (self._links / name).resolve() / f"{name}:1.0/driver"
        link.unlink(missing_ok=True)
        if driver:
            link.symlink_to(f"../../drivers/{driver}")

    def unplug_device(self, name: str) -> None:
        """Take a device away, its node, too."""
        folder = (self._links / name).resolve()
        bus, number = (int((folder / file).read_text()) for file in ("busnum", "devnum"))
        (self.dev / f"bus/usb/{bus:03d}/{number:03d}").unlink()
        for link in [*self._links.glob(f"{name}:*"), self._links / name]:
            link.unlink()
        shutil.rmtree(folder)

    def _add_device(
        self,
        path: str,
        bus: int,
        ids: str,
        texts: tuple[str | bytes | None, ...],
        *,
        device_class: str,
        device: int | None = None,
        mode: int = 0o664,
    ) -> str:
        number = self._numbers.get(bus, 0) + 1 if device is None else device
        self._numbers[bus] = number
        folder = self.sysfs / "devices" / path
        folder.mkdir(parents=True)
        vendor, _unused, product = ids.partition(":")
        uevent = (
            f"MAJOR=189\nMINOR={(bus - 1) * 128 + number - 1}\nDEVNAME=bus/usb/{bus:03d}/{number:03d}\nDEVTYPE=usb_device\n"
            f"DRIVER=usb\nPRODUCT={vendor.lstrip('0')}/{product.lstrip('0')}/90\nTYPE={int(device_class, 16)}/0/0\n"
            f"BUSNUM={bus:03d}\nDEVNUM={number:03d}"
        )
        attributes = {"idVendor": vendor, "idProduct": product, "busnum": str(bus), "devnum": str(number)}
        attributes |= {"bDeviceClass": device_class, "uevent": uevent}
        for attribute, value in {**attributes, **dict(zip(("manufacturer", "product", "serial"), texts))}.items():
            if value is not None:
                raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
                (folder / attribute).write_bytes(raw + b"\n")
        node = self.dev / f"bus/usb/{bus:03d}/{number:03d}"
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
        node.chmod(mode)
        self._link_device(folder)
        return folder.name

    def _write_interface(self, folder: Path, ids: str, interface_class: str) -> None:
        interface = folder / f"{folder.name}:1.0"
        interface.mkdir()
        (interface / "bInterfaceClass").write_text(f"{interface_class}\n")
        (interface / "uevent").write_text(f"DEVTYPE=usb_interface\nPRODUCT={ids.replace(':', '/')}/90\n")
        self._link_device(interface)

    def _link_device(self, folder: Path) -> None:
        (self._links / folder.name).symlink_to(os.path.relpath(folder, self._links))
