# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A USB bus in a directory: sysfs, device nodes and uevents for programs under umockdev's preload library.

Below the root: `sys` and `dev` appear to the programs as /sys and /dev, with a FIFO for each device node; `dev/.node` has links
with each node's major and minor number; `ioctl/dev` has a unix socket for each node, see usbfs.py; each program that listens for
uevents makes a socket `event<n>`.
One file, because plugging and unplugging keep all of these consistent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Callable

from .model import (
    DT_CONFIG,
    DT_DEVICE,
    DT_REPORT,
    GET_DESCRIPTOR,
    STALL,
    Answer,
    Setup,
    UsbHardware,
    answer_standard_request,
    text_as_read,
)
from .profiles import UsbIdentity
from .usbfs import KERNEL_HID, DeviceNode

CONTROLLER = "/devices/pci0000:00/0000:00:14.0"
HUB = f"{CONTROLLER}/usb1"
PORTS = 8
USB_MAJOR = 189
USB_CLASS_HID = 3
RETIRE_AFTER = 2.0  # seconds a socket outlives its node, for a client that is just about to connect


class RootHub:
    """The host's root hub. `nut-scanner` 2.8.0 fails without any device on the bus."""

    identity = UsbIdentity(0x1D6B, 0x0002, 0x0601, "Linux 6.1.0 xhci-hcd", "xHCI Host Controller", "0000:00:14.0")
    device_descriptor = struct.pack(
        "<BBHBBBBHHHBBBB", 18, DT_DEVICE, 0x0200, 9, 0, 1, 64, 0x1D6B, 0x0002, 0x0601, 3, 2, 1, 1
    )
    config_descriptor = struct.pack("<BBHBBBBB", 9, DT_CONFIG, 25, 1, 1, 0, 0xE0, 0) + bytes.fromhex(
        "0904000001090000000705810304000c"
    )

    def control_transfer(self, setup: Setup, data: bytes = b"") -> Answer:
        identity = self.identity
        strings = {1: identity.serial, 2: identity.product, 3: identity.manufacturer}
        answer = answer_standard_request(self, strings, setup)
        if setup.request_type == 0xA0 and setup.request == 6:
            answer = bytes((9, 0x29, PORTS, 0x0A, 0, 10, 0, 0, 0xFF))
        elif setup.request_type in (0xA0, 0xA3) and setup.request == 0:
            answer = b"\0\0\0\0"
        if answer is None:
            return STALL
        return answer[: setup.length] if isinstance(answer, bytes) else answer

    def interrupt_in(self) -> bytes | None:
        return None


class PollPipe:
    """A FIFO as a device node: poll() reports it as writable only while a finished URB waits, so that no client spins.

    The pipe holds one page and counts as full with a single byte. Clients open it read-write, like libusb, so open() does not
    wait.
    """

    def __init__(self, path: Path, mode: int) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, 4096)
        self.set_ready(False)
        path.chmod(mode)

    def set_ready(self, ready: bool) -> None:
        with contextlib.suppress(BlockingIOError):
            if ready:
                os.read(self._fd, 4096)
            else:
                os.write(self._fd, b"\0")

    def close_pipe(self) -> None:
        os.close(self._fd)


# ---- uevents


def udev_hash(text: str) -> int:
    """Return the MurmurHash2 of a short ASCII text, as udev's socket filters use it (systemd, src/basic/MurmurHash2.c)."""
    factor, data = 0x5BD1E995, text.encode("ascii")
    value = len(data)
    while len(data) >= 4:
        block = (int.from_bytes(data[:4], "little") * factor) & 0xFFFFFFFF
        block = ((block ^ (block >> 24)) * factor) & 0xFFFFFFFF
        value = ((value * factor) & 0xFFFFFFFF) ^ block
        data = data[4:]
    if data:
        value = ((value ^ int.from_bytes(data, "little")) * factor) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * factor) & 0xFFFFFFFF
    return value ^ (value >> 15)


def uevent_message(properties: Mapping[str, str]) -> bytes:
    """Return a uevent as udevd sends it to its listeners (systemd, device-monitor.c, monitor_netlink_header)."""
    body = b"".join(f"{key}={value}\0".encode() for key, value in properties.items())
    header = b"libudev\0" + struct.pack(">I", 0xFEEDCAFE) + struct.pack("=III", 40, 40, len(body))
    header += struct.pack(">II", udev_hash(properties["SUBSYSTEM"]), udev_hash(properties.get("DEVTYPE", "")))
    return header + bytes(8) + body


class UeventListeners:
    """The programs that wait for uevents.

    Each makes a socket `event<its file descriptor>`. Two programs with the same number replace each other's socket file, so we
    connect as soon as a name appears: a connected socket still reaches a program whose file is gone.
    """

    IN_CREATE = 0x100
    PROBE = uevent_message({"SUBSYSTEM": "lab-probe"})  # udev's filters drop it; sending it detects dead programs

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(root), self.IN_CREATE) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {root} for listeners")
        asyncio.get_running_loop().add_reader(self._fd, self._find_new_names)
        for path in root.glob("event[0-9]*"):
            self._schedule_connect(path.name)

    def _find_new_names(self) -> None:
        raw, names = os.read(self._fd, 65536), {}
        while raw:
            (length,) = struct.unpack_from("=12xI", raw)
            names[raw[16 : 16 + length].rstrip(b"\0").decode("ascii", "replace")] = True
            raw = raw[16 + length :]
        self.send_message(self.PROBE)
        for name in names:
            if name.startswith("event"):
                self._schedule_connect(name)

    def _schedule_connect(self, name: str) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.ensure_future(self._connect_listener(name)))

    async def _connect_listener(self, name: str) -> None:
        for _unused in range(20):  # the name appears a moment before the socket is ready
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                peer.connect(os.fspath(self._root / name))
            except ConnectionRefusedError:
                peer.close()
                await asyncio.sleep(0.002)
                continue
            except OSError:
                peer.close()
                return
            self._sockets.append(peer)
            return
        with contextlib.suppress(OSError):
            (self._root / name).unlink()  # left over by a program that has ended

    def send_message(self, message: bytes) -> None:
        alive = []
        for peer in self._sockets:
            try:
                peer.send(message)
            except BlockingIOError:  # a program that does not read loses events, as with netlink
                pass
            except OSError:
                peer.close()
                continue
            alive.append(peer)
        self._sockets = alive

    def close_all(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        for peer in self._sockets:
            peer.close()


# ---- the bus


class UsbBus:
    """A bus with a root hub and ports. `on_change` is called when a client may have changed a device."""

    def __init__(self, root: Path, on_change: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self.nodes: dict[int, DeviceNode] = {}
        self.device_numbers: dict[int, int] = {}
        self.on_change = on_change
        self._listeners: UeventListeners | None = None
        self._servers: dict[str, asyncio.AbstractServer] = {}
        self._retiring: list[asyncio.Task[None]] = []
        self._last_number = 0
        self._sequence = 0

    async def start_bus(self) -> None:
        """Build the tree and add the root hub. Remove files of an earlier run, except its listeners' sockets."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o777)  # programs without root make their event sockets here
        for name in ("sys", "dev", "ioctl"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for name in ("dev/.node", "ioctl", "sys/class", "sys/bus/usb/devices", "sys/dev/char", "sys/bus/pci/devices"):
            (self.root / name).mkdir(parents=True)
        for name in ("usb/drivers/usb", "usb/drivers/hub", f"usb/drivers/{KERNEL_HID}"):
            (self.root / "sys/bus" / name).mkdir(parents=True)
        pci = self.root / "sys" / CONTROLLER[1:]
        pci.mkdir(parents=True)
        (pci / "uevent").write_text("DRIVER=xhci_hcd\nPCI_CLASS=C0330\nPCI_SLOT_NAME=0000:00:14.0\n")
        self._make_link(f"{CONTROLLER}/subsystem", "/bus/pci")
        self._make_link(f"/bus/pci/devices/{Path(CONTROLLER).name}", CONTROLLER)
        self._listeners = UeventListeners(self.root)
        await self._add_device(RootHub(), HUB, 0, 0o664, "hub")

    async def plug_device(self, device: UsbHardware, port: int, mode: int) -> int:
        """Plug a device in at a port and return its device number. Raise ValueError if the port is taken or does not exist."""
        if not 1 <= port <= PORTS:
            raise ValueError(f"no port {port}: ports are 1 to {PORTS}")
        if port in self.nodes:
            raise ValueError(f"port {port} is taken")
        is_hid = device.config_descriptor[14] == USB_CLASS_HID
        return await self._add_device(device, f"{HUB}/1-{port}", port, mode, KERNEL_HID if is_hid else "")

    def unplug_device(self, port: int) -> None:
        """Unplug the device at a port. Raise ValueError if the port is empty."""
        if port not in self.nodes:
            raise ValueError(f"nothing is plugged in at port {port}")
        node, number = self.nodes.pop(port), self.device_numbers.pop(port)
        path = f"{HUB}/1-{port}"
        node.mark_unplugged()
        name = Path(path).name
        for gone in (
            self.root / f"sys/bus/usb/devices/{name}",
            self.root / f"sys/bus/usb/devices/{name}:1.0",
            self.root / f"sys/dev/char/{USB_MAJOR}:{number - 1}",
            self.root / "dev" / _node_name(number),
            self.root / "dev/.node" / _node_name(number).replace("/", "_"),
        ):
            gone.unlink()
        shutil.rmtree(self.root / "sys" / path[1:])
        self._send_uevent("remove", f"{path}/{name}:1.0", _interface_uevent(node.device))
        self._send_uevent("remove", path, _device_uevent(node.device, number))

    async def stop_bus(self) -> None:
        """Stop the bus. Clients with an open node get an end of file, which umockdev's library does not survive."""
        for task in self._retiring:
            task.cancel()
        for server in self._servers.values():
            server.close()
        if self._listeners:
            self._listeners.close_all()
        for name in ("sys", "dev", "ioctl"):
            shutil.rmtree(self.root / name, ignore_errors=True)

    async def _add_device(self, device: UsbHardware, path: str, port: int, mode: int, driver: str) -> int:
        number = self._next_number()
        node_path = self.root / "dev" / _node_name(number)
        node_path.parent.mkdir(parents=True, exist_ok=True)
        hidden = self.root / "dev" / f".new-{number}"
        pipe = PollPipe(hidden, mode)
        interface = "1-0:1.0" if driver == "hub" else f"{Path(path).name}:1.0"
        node = DeviceNode(
            device,
            pipe.set_ready,
            self._device_changed,
            driver,
            lambda bound: self._show_driver(device, f"{path}/{interface}", number, bound),
        )
        ioctl_path = self.root / "ioctl/dev" / _node_name(number)
        ioctl_path.parent.mkdir(parents=True, exist_ok=True)
        server = await asyncio.start_unix_server(node.serve_client, os.fspath(ioctl_path))
        # Access is controlled by the mode of the node. A refused connection here would end the program.
        ioctl_path.chmod(0o666)
        self._servers[os.fspath(ioctl_path)] = server
        self._retiring.append(asyncio.ensure_future(self._retire_node(node, pipe, ioctl_path)))
        self._write_sysfs(device, path, number, port, driver)
        self._link_node(number)
        hidden.rename(node_path)
        # The links below /sys/bus come last, because programs find devices through them.
        name = Path(path).name
        self._make_link(f"/dev/char/{USB_MAJOR}:{number - 1}", path)
        self._make_link(f"/bus/usb/devices/{interface}", f"{path}/{interface}")
        self._make_link(f"/bus/usb/devices/{name}", path)
        if port:
            self.nodes[port], self.device_numbers[port] = node, number
        self._send_uevent("add", path, _device_uevent(device, number))
        self._send_uevent("add", f"{path}/{interface}", _interface_uevent(device))
        return number

    def _device_changed(self) -> None:
        self.on_change()

    async def _retire_node(self, node: DeviceNode, pipe: PollPipe, ioctl_path: Path) -> None:
        """After the device is unplugged, close its sockets once no client needs them."""
        await node.left.wait()
        await asyncio.sleep(RETIRE_AFTER)
        self._servers.pop(os.fspath(ioctl_path)).close()
        with contextlib.suppress(FileNotFoundError):
            ioctl_path.unlink()
        while node.sessions:
            await asyncio.sleep(1)
        pipe.close_pipe()

    def _next_number(self) -> int:
        """Return the next free device number as Linux does: count up, wrap after 127, skip numbers in use."""
        used = {*self.device_numbers.values(), 1 if self._last_number else 0}
        used |= {int(Path(path).name) for path in self._servers}
        number = self._last_number
        while True:
            number = number % 127 + 1
            if number not in used:
                self._last_number = number
                return number

    def _write_sysfs(self, device: UsbHardware, path: str, number: int, port: int, driver: str) -> None:
        name, identity = Path(path).name, device.identity
        raw, config = device.device_descriptor, device.config_descriptor
        interface = "1-0:1.0" if driver == "hub" else f"{name}:1.0"
        attributes = {
            "idVendor": f"{identity.vendor_id:04x}",
            "idProduct": f"{identity.product_id:04x}",
            "bcdDevice": f"{identity.release:04x}",
            "manufacturer": text_as_read(identity.manufacturer),
            "product": text_as_read(identity.product),
            "serial": text_as_read(identity.serial),
            "busnum": "1",
            "devnum": str(number),
            "devpath": str(port),
            "dev": f"{USB_MAJOR}:{number - 1}",
            "speed": "480" if driver == "hub" else "12",
            "version": f"{raw[3]:2x}.{raw[2]:02x}",
            "bDeviceClass": f"{raw[4]:02x}",
            "bDeviceSubClass": f"{raw[5]:02x}",
            "bDeviceProtocol": f"{raw[6]:02x}",
            "bMaxPacketSize0": str(raw[7]),
            "bNumConfigurations": "1",
            "bConfigurationValue": "1",
            "bNumInterfaces": " 1",
            "bmAttributes": "e0",
            "bMaxPower": f"{2 * config[8]}mA",
            "configuration": "\n",
            "maxchild": str(PORTS if driver == "hub" else 0),
            "authorized": "1",
            "removable": "unknown",
            "urbnum": "0",
            "uevent": _format_lines({**_device_uevent(device, number), "DRIVER": "usb"}),
        }
        attributes = {key: value for key, value in attributes.items() if value}
        base = self.root / "sys" / path[1:]
        hidden = base.parent / f".{name}"
        _write_attributes(hidden, attributes)
        (hidden / "descriptors").write_bytes(raw + config)
        fields = config[9:18]
        _write_attributes(
            hidden / interface,
            {
                "bInterfaceNumber": f"{fields[2]:02x}",
                "bAlternateSetting": f"{fields[3]:2d}",
                "bNumEndpoints": f"{fields[4]:02x}",
                "bInterfaceClass": f"{fields[5]:02x}",
                "bInterfaceSubClass": f"{fields[6]:02x}",
                "bInterfaceProtocol": f"{fields[7]:02x}",
                "authorized": "1",
                "modalias": _interface_uevent(device)["MODALIAS"],
                "uevent": _format_lines({**_interface_uevent(device), **({"DRIVER": driver} if driver else {})}),
            },
        )
        hidden.rename(base)
        self._make_link(f"{path}/subsystem", "/bus/usb")
        self._make_link(f"{path}/driver", "/bus/usb/drivers/usb")
        self._make_link(f"{path}/{interface}/subsystem", "/bus/usb")
        if driver == "hub":
            self._make_link(f"{path}/{interface}/driver", "/bus/usb/drivers/hub")
        elif driver:
            self._show_driver(device, f"{path}/{interface}", number, bound=True)

    def _show_driver(self, device: UsbHardware, interface: str, number: int, bound: bool) -> None:
        """Show in sysfs whether the kernel's HID driver is bound; NUT's driver detaches it."""
        child = self.root / "sys" / interface[1:] / _hid_name(device, number)
        if bound:
            self._make_link(f"{interface}/driver", f"/bus/usb/drivers/{KERNEL_HID}")
            report = device.control_transfer(Setup(0x81, GET_DESCRIPTOR, DT_REPORT << 8, 0, 4096))
            child.mkdir()
            (child / "report_descriptor").write_bytes(report if isinstance(report, bytes) else b"")
        elif child.exists():
            shutil.rmtree(child)
            (child.parent / "driver").unlink()

    def _make_link(self, link: str, target: str) -> None:
        """Make a relative link below sys/. Both paths start from sys/."""
        (self.root / "sys" / link[1:]).symlink_to(os.path.relpath(target, os.path.dirname(link)))  # noqa: PTH120

    def _link_node(self, number: int) -> None:
        link = self.root / "dev/.node" / _node_name(number).replace("/", "_")
        link.symlink_to(f"{USB_MAJOR}:{number - 1}")

    def _send_uevent(self, action: str, path: str, properties: Mapping[str, str]) -> None:
        self._sequence += 1
        head = {"ACTION": action, "DEVPATH": path, "SUBSYSTEM": "usb", "SEQNUM": str(self._sequence)}
        properties = {**head, **properties}
        if "DEVNAME" in properties:
            properties["DEVNAME"] = f"/dev/{properties['DEVNAME']}"
        if self._listeners:
            self._listeners.send_message(uevent_message(properties))


def _hid_name(device: UsbHardware, number: int) -> str:
    return f"0003:{device.identity.vendor_id:04X}:{device.identity.product_id:04X}.{number:04X}"


def _node_name(number: int) -> str:
    return f"bus/usb/001/{number:03}"


def _device_uevent(device: UsbHardware, number: int) -> dict[str, str]:
    """Return the properties of a device's uevent: numbers only, no strings of the device."""
    identity, raw = device.identity, device.device_descriptor
    return {
        "MAJOR": str(USB_MAJOR),
        "MINOR": str(number - 1),
        "DEVNAME": _node_name(number),
        "DEVTYPE": "usb_device",
        "PRODUCT": f"{identity.vendor_id:x}/{identity.product_id:x}/{identity.release:x}",
        "TYPE": f"{raw[4]}/{raw[5]}/{raw[6]}",
        "BUSNUM": "001",
        "DEVNUM": f"{number:03}",
    }


def _interface_uevent(device: UsbHardware) -> dict[str, str]:
    identity, raw, fields = device.identity, device.device_descriptor, device.config_descriptor[9:18]
    alias = f"usb:v{identity.vendor_id:04X}p{identity.product_id:04X}d{identity.release:04X}"
    alias += f"dc{raw[4]:02X}dsc{raw[5]:02X}dp{raw[6]:02X}"
    alias += f"ic{fields[5]:02X}isc{fields[6]:02X}ip{fields[7]:02X}in{fields[2]:02X}"
    return {
        "DEVTYPE": "usb_interface",
        "PRODUCT": f"{identity.vendor_id:x}/{identity.product_id:x}/{identity.release:x}",
        "TYPE": f"{raw[4]}/{raw[5]}/{raw[6]}",
        "INTERFACE": f"{fields[5]}/{fields[6]}/{fields[7]}",
        "MODALIAS": alias,
    }


def _format_lines(properties: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={value}" for key, value in properties.items())


def _write_attributes(directory: Path, attributes: Mapping[str, str]) -> None:
    directory.mkdir()
    for name, value in attributes.items():
        # Linux prints a string up to a NUL; a lone surrogate has no UTF-8.
        text = value.split("\0", maxsplit=1)[0].rstrip("\n") + "\n"
        (directory / name).write_bytes(text.encode("utf-8", "replace"))
