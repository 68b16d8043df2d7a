# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""USB cables into a virtual machine: the device's side of the usbredir protocol.

QEMU has a `usb-redir` device with a socket for each port of its xHCI controller. Connecting to the socket
plugs a UPS in, closing it unplugs the UPS. Names and layouts are from "USB Network Redirection protocol description",
version 0.7. The enumeration of the bus (addresses, speeds, resets) stays between QEMU's controller and the guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Callable, cast

from usb.model import EP_INTERRUPT, NAK, Setup, UsbHardware

PORTS = 8
CONNECT_SECONDS = 5.0

(
    HELLO,
    DEVICE_CONNECT,
    _DEVICE_DISCONNECT,
    _RESET,
    INTERFACE_INFO,
    EP_INFO,
    SET_CONFIGURATION,
    GET_CONFIGURATION,
    CONFIGURATION_STATUS,
    SET_ALT_SETTING,
    GET_ALT_SETTING,
    ALT_SETTING_STATUS,
) = range(12)
START_INTERRUPT, STOP_INTERRUPT, INTERRUPT_STATUS, CANCEL = 15, 16, 17, 21
CONTROL_PACKET, INTERRUPT_PACKET = 100, 103

SUCCESS, CANCELLED, STALLED = 0, 1, 4
FULL_SPEED, HID_CLASS, TYPE_CONTROL, TYPE_INTERRUPT, TYPE_INVALID = 1, 3, 0, 3, 255

# What QEMU asks for before it lets a host near xHCI: the device's release number, maximum packet sizes, ids of 64 bits,
# bulk lengths of 32 bits.
CAPABILITIES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6
IDS_64 = 1 << 5
VERSION = b"homelab.nut lab".ljust(64, b"\0")
MAX_BODY = 1 << 20  # bytes; real packets have a transfer's few bytes


class ProtocolError(Exception):
    """The peer does not speak usbredir as required."""


class UsbCable:
    """The protocol for one device, without a socket: receive_bytes takes bytes, `send` gets bytes.

    A control transfer that the device does not answer (NAK) stays open until the guest cancels it or the device
    recovers, because a real host controller keeps asking.
    """

    def __init__(self, device: UsbHardware, send: Callable[[bytes], None]) -> None:
        self.device = device
        self._send = send
        self._received = b""
        self._greeted = False
        self._receiving = False
        self._sent_reports = 0
        self._open: dict[int, tuple[bytes, bytes]] = {}  # id of a control packet -> its header and data
        body = VERSION + struct.pack("<I", CAPABILITIES)
        send(struct.pack("<III", HELLO, len(body), 0) + body)  # only the hellos have ids of 32 bits

    def receive_bytes(self, data: bytes) -> None:
        """Process bytes from QEMU. Raise ProtocolError if they are invalid."""
        self._received += data
        while True:
            form = "<IIQ" if self._greeted else "<III"
            size = struct.calcsize(form)
            if len(self._received) < size:
                return
            kind, length, number = struct.unpack_from(form, self._received)
            if length > MAX_BODY:
                raise ProtocolError(f"a packet of kind {kind} with {length} bytes")
            if len(self._received) < size + length:
                return
            body, self._received = self._received[size : size + length], self._received[size + length :]
            try:
                self._handle_packet(kind, number, body)
            except (struct.error, IndexError):
                raise ProtocolError(f"a packet of kind {kind} with only {length} bytes") from None

    def send_pending(self) -> None:
        """Send pending reports of the device, and answers that it can give by now."""
        for number, (header, data) in list(self._open.items()):
            self._answer_control(number, header, data)
        while self._receiving:
            report = self.device.interrupt_in()
            if report is None:
                return
            self._sent_reports += 1
            head = struct.pack("<BBH", EP_INTERRUPT, SUCCESS, len(report))
            self._send_packet(INTERRUPT_PACKET, self._sent_reports, head + report)

    def _send_packet(self, kind: int, number: int, body: bytes) -> None:
        self._send(struct.pack("<IIQ", kind, len(body), number) + body)

    def _handle_packet(self, kind: int, number: int, body: bytes) -> None:
        if not self._greeted:
            capabilities = struct.unpack_from("<I", body, 64)[0] if len(body) >= 68 else 0
            if kind != HELLO or not capabilities & IDS_64:
                raise ProtocolError(f"no hello with ids of 64 bits, but a packet of kind {kind}")
            self._greeted = True
            self._describe_device()
        elif kind == SET_CONFIGURATION:
            self._send_packet(CONFIGURATION_STATUS, number, bytes((SUCCESS, body[0])))
        elif kind == GET_CONFIGURATION:
            self._send_packet(CONFIGURATION_STATUS, number, bytes((SUCCESS, 1)))
        elif kind == SET_ALT_SETTING:
            self._send_packet(ALT_SETTING_STATUS, number, bytes((SUCCESS, body[0], body[1])))
        elif kind == GET_ALT_SETTING:
            self._send_packet(ALT_SETTING_STATUS, number, bytes((SUCCESS, body[0], 0)))
        elif kind in (START_INTERRUPT, STOP_INTERRUPT):
            self._receiving = kind == START_INTERRUPT
            self._send_packet(INTERRUPT_STATUS, number, bytes((SUCCESS, body[0])))
            self.send_pending()
        elif kind == CONTROL_PACKET:
            self._answer_control(number, body[:10], body[10:])
        elif kind == INTERRUPT_PACKET:  # to the device: a UPS has no such endpoint
            self._send_packet(INTERRUPT_PACKET, number, struct.pack("<BBH", body[0], STALLED, 0))
        elif kind == CANCEL:
            header, _unused = self._open.pop(number, (b"", b""))
            if header:
                self._send_packet(CONTROL_PACKET, number, header[:3] + bytes((CANCELLED,)) + header[4:8] + b"\0\0")

    def _describe_device(self) -> None:
        """Describe the device: control pipe, one interrupt endpoint, one HID interface, ids."""
        into = 16 + (EP_INTERRUPT & 0x0F)
        kinds, intervals, sizes = [TYPE_INVALID] * 32, [0] * 32, [0] * 32
        kinds[0] = kinds[16] = TYPE_CONTROL
        kinds[into], intervals[into] = TYPE_INTERRUPT, 100
        sizes[0] = sizes[16] = sizes[into] = 8
        self._send_packet(EP_INFO, 0, bytes(kinds) + bytes(intervals) + bytes(32) + struct.pack("<32H", *sizes))
        columns = [bytes((value,)) + bytes(31) for value in (0, HID_CLASS, 0, 0)]
        self._send_packet(INTERFACE_INFO, 0, struct.pack("<I", 1) + b"".join(columns))
        identity = self.device.identity
        ids = (identity.vendor_id, identity.product_id, identity.release)
        self._send_packet(DEVICE_CONNECT, 0, struct.pack("<BBBBHHH", FULL_SPEED, 0, 0, 0, *ids))

    def _answer_control(self, number: int, header: bytes, data: bytes) -> None:
        endpoint, request, kind, _unused, value, index, length = struct.unpack("<BBBBHHH", header)
        answer = self.device.control_transfer(Setup(kind, request, value, index, length), data)
        if answer is NAK:
            self._open[number] = (header, data)
            return
        self._open.pop(number, None)
        status, sent = (SUCCESS, answer) if isinstance(answer, bytes) else (STALLED, b"")
        is_in = bool(kind & 0x80)
        done = len(sent) if is_in else (length if status == SUCCESS else 0)
        head = struct.pack("<BBBBHHH", endpoint, request, kind, status, value, index, done)
        self._send_packet(CONTROL_PACKET, number, head + (sent if is_in else b""))


class _PluggedCable(asyncio.Protocol):
    """A cable connected to a socket of QEMU."""

    def __init__(self, device: UsbHardware) -> None:
        self._device = device
        self._cable: UsbCable | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._cable = UsbCable(self._device, self._transport.write)

    def data_received(self, data: bytes) -> None:
        try:
            if self._cable:
                self._cable.receive_bytes(data)
        except ProtocolError:
            self.pull_plug()

    def send_pending(self) -> None:
        """Send pending reports of the device."""
        if self._cable and self._transport and not self._transport.is_closing():
            self._cable.send_pending()

    def pull_plug(self) -> None:
        """Pull the plug."""
        if self._transport:
            self._transport.abort()


class VmBus:
    """The USB ports of a machine. Devices stay plugged in while the machine is off.

    It has the interface that usb.emulator needs of a bus. A device's number counts the plug-ins; the number that the guest's
    kernel assigns is not known here.
    """

    def __init__(self, folder: Path) -> None:
        """Use the sockets port1, port2... that are in `folder` while the machine is running."""
        self.folder = folder
        self.nodes: dict[int, _PluggedCable] = {}
        self.device_numbers: dict[int, int] = {}
        self._devices: dict[int, UsbHardware] = {}
        self._powered = False
        self._pluggings = 0

    @property
    def devices(self) -> Mapping[int, UsbHardware]:
        """The plugged-in devices by port."""
        return self._devices

    async def plug_device(self, device: UsbHardware, port: int, mode: int = 0) -> int:
        """Plug a device in and return its number. `mode` is ignored, because the guest sets the modes of device nodes."""
        if not 1 <= port <= PORTS:
            raise ValueError(f"no port {port}: ports are 1 to {PORTS}")
        if port in self._devices:
            raise ValueError(f"port {port} is not free")
        if self._powered:
            await self._connect_port(port, device)
        self._devices[port] = device
        self._pluggings += 1
        self.device_numbers[port] = self._pluggings
        return self._pluggings

    def unplug_device(self, port: int) -> None:
        """Unplug the device at a port."""
        if port not in self._devices:
            raise ValueError(f"nothing is plugged in at port {port}")
        del self._devices[port], self.device_numbers[port]
        if port in self.nodes:
            self.nodes.pop(port).pull_plug()

    async def set_power(self, on: bool) -> None:
        """Connect all devices after the machine has started, or disconnect them after it has ended."""
        self._powered = on
        for port in list(self.nodes):
            self.nodes.pop(port).pull_plug()
        if on:
            for port, device in self._devices.items():
                await self._connect_port(port, device)

    async def _connect_port(self, port: int, device: UsbHardware) -> None:
        # a relative path, because paths of sockets must be short
        loop, path = asyncio.get_running_loop(), self.folder / f"port{port}"
        deadline = loop.time() + CONNECT_SECONDS
        while True:
            try:
                _unused, plugged = await loop.create_unix_connection(lambda: _PluggedCable(device), str(path))
                break
            except OSError as error:
                # QEMU needs a moment to listen again after a device was unplugged
                if loop.time() > deadline:
                    raise ValueError(f"port {port} of the machine does not answer: {error}") from None
                await asyncio.sleep(0.02)
        with contextlib.suppress(KeyError):
            self.nodes.pop(port).pull_plug()
        self.nodes[port] = plugged
