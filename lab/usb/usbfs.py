# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""usbdevfs: answer Linux's ioctls on USB device nodes for programs that run under umockdev's preload library.

The library forwards each ioctl on an emulated node over a unix stream socket, one connection for each open file. A
message is three unsigned longs: a code and two arguments. While it waits for the answer, the library also reads and
writes its own process's memory on request. (umockdev, src/libumockdev-preload.c, remote_emulate(); the same in 0.17 and
0.19.) The ioctls and struct usbdevfs_urb are from linux/usbdevice_fs.h, for 64-bit little-endian programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import struct
from collections import deque
from dataclasses import dataclass
from typing import Callable

from .model import EP_INTERRUPT, NAK, STALL, Setup, UsbHardware

MESSAGE = struct.Struct("<QqQ")
REQ_IOCTL, REQ_READ, REQ_WRITE = 1, 7, 8
RES_DONE, RES_READ_MEM, RES_WRITE_MEM = 3, 5, 6

# type, endpoint, status, flags, buffer, buffer_length, actual_length, start_frame, packets, errors, signal, context
URB = struct.Struct("<BBxxiIxxxxQiiiiiIQ")
URB_INTERRUPT, URB_CONTROL = 1, 2
AT_STATUS, AT_ACTUAL_LENGTH = 4, 28
MAX_TRANSFER = 1 << 16

SETINTERFACE, SETCONFIGURATION, GETDRIVER = 0x80085504, 0x80045505, 0x41045508
SUBMITURB, DISCARDURB, REAPURB, REAPURBNDELAY = 0x8038550A, 0x550B, 0x4008550C, 0x4008550D
CLAIMINTERFACE, RELEASEINTERFACE, IOCTL, RESET = 0x8004550F, 0x80045510, 0xC0105512, 0x5514
RESETEP, CLEAR_HALT, GET_CAPABILITIES, DISCONNECT_CLAIM = 0x80045503, 0x80045515, 0x8004551A, 0x8108551B
GET_SPEED = 0x551F
DISCONNECT, CONNECT = 0x5516, 0x5517  # inside IOCTL
CAPABILITIES = 0x01 | 0x04 | 0x10  # zero packet, no packet size limit, reap after disconnect
SPEED_FULL = 2
KERNEL_HID = "usbhid"


class IoctlError(OSError):
    """The ioctl fails with this errno."""

    def __init__(self, code: int) -> None:
        super().__init__(code, errno.errorcode.get(code, "?"))
        self.code = code


@dataclass
class Urb:
    """A transfer submitted by a client. `address` is its address in the client's memory."""

    address: int
    kind: int
    endpoint: int
    buffer: int
    length: int
    status: int = 0
    data: bytes = b""  # for the client, from `data_at` on in its buffer
    data_at: int = 0
    actual: int = 0


class ClientMemory:
    """The client's memory. Reads are sent at once, writes together with the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read_bytes(self, address: int, length: int) -> bytes:
        self._writer.write(MESSAGE.pack(RES_READ_MEM, _to_signed(address), length))
        await self._writer.drain()
        return await self._reader.readexactly(length)

    def write_bytes(self, address: int, data: bytes) -> None:
        if data:
            self._writer.write(MESSAGE.pack(RES_WRITE_MEM, _to_signed(address), len(data)) + data)

    async def finish_ioctl(self, result: int, code: int) -> None:
        self._writer.write(MESSAGE.pack(RES_DONE, result, code))
        await self._writer.drain()


def _to_signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


class DeviceNode:
    """A plugged-in device: its clients, their claimed interfaces, and whether it is still plugged in.

    `on_ready(True)` is called when a finished URB waits for a client, `on_ready(False)` when none does; a real node can be polled
    for that. `on_change` is called after each ioctl that may have changed the device. `driver` is the kernel driver bound to
    interface 0, if any. Only usbhid can be detached and attached; `on_bound` is called for both.
    """

    def __init__(
        self,
        device: UsbHardware,
        on_ready: Callable[[bool], None] = lambda ready: None,
        on_change: Callable[[], None] = lambda: None,
        driver: str = "",
        on_bound: Callable[[bool], None] = lambda bound: None,
    ) -> None:
        self.device = device
        self.driver = driver
        self._on_bound = on_bound
        self.gone = False
        self.left = asyncio.Event()  # set when the device has gone
        self.claims: dict[int, NodeSession] = {}
        self.sessions: set[NodeSession] = set()
        self._on_ready, self._on_change = on_ready, on_change
        self._ready = False

    async def serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it closes the node."""
        session = NodeSession(self)
        self.sessions.add(session)
        try:
            await session.run_session(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has closed the node, or is dead
        finally:
            self.sessions.discard(session)
            self.claims = {number: owner for number, owner in self.claims.items() if owner is not session}
            self.send_pending()
            with contextlib.suppress(OSError):
                writer.close()

    def send_pending(self) -> None:
        """Complete waiting transfers with the device's reports, and update the readiness."""
        for session in list(self.sessions):
            session.poll_interrupts()
        ready = any(session.done for session in self.sessions)
        if ready != self._ready:
            self._ready = ready
            self._on_ready(ready)

    def mark_unplugged(self) -> None:
        """Mark the device as unplugged: pending and later transfers fail."""
        self.gone = True
        self.left.set()
        for session in self.sessions:
            for urb in list(session.pending):
                session.finish_urb(urb, -errno.ESHUTDOWN)
        self.send_pending()

    def bind_driver(self, driver: str) -> None:
        """Bind interface 0 to a kernel driver, or unbind it ("")."""
        self.driver = driver
        self._on_bound(bool(driver))

    def notify_change(self) -> None:
        self._on_change()


class NodeSession:
    """An open file of the node, with the URBs submitted through it."""

    def __init__(self, node: DeviceNode) -> None:
        self.node = node
        self.pending: list[Urb] = []
        self.done: deque[Urb] = deque()
        self._finished = asyncio.Event()

    async def run_session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        memory = ClientMemory(reader, writer)
        while True:
            code, first, second = MESSAGE.unpack(await reader.readexactly(MESSAGE.size))
            try:
                if code != REQ_IOCTL:
                    raise IoctlError(errno.EINVAL)  # read() and write() on a USB node
                result, failed = await self.answer_ioctl(first & 0xFFFFFFFF, second, memory), 0
            except IoctlError as refused:
                result, failed = -1, refused.code
            self.node.send_pending()
            await memory.finish_ioctl(result, failed)

    async def answer_ioctl(self, request: int, arg: int, memory: ClientMemory) -> int:  # noqa: PLR0911 (one return an ioctl)
        """Answer an ioctl. Raise IoctlError with the errno if it fails."""
        node = self.node
        if request in (REAPURB, REAPURBNDELAY):  # also after the device has gone
            return await self._reap_urb(arg, memory, wait=request == REAPURB)
        if node.gone:
            raise IoctlError(errno.ENODEV)
        if request == SUBMITURB:
            return await self._submit_urb(arg, memory)
        if request == DISCARDURB:
            return self._discard_urb(arg)
        if request in (CLAIMINTERFACE, RELEASEINTERFACE, DISCONNECT_CLAIM):
            (number,) = struct.unpack("<I", await memory.read_bytes(arg, 4))
            if request == DISCONNECT_CLAIM and number == 0 and node.driver == KERNEL_HID:
                node.bind_driver("")
            return self._release_interface(number) if request == RELEASEINTERFACE else self._claim_interface(number)
        if request == GETDRIVER:
            return await self._get_driver(arg, memory)
        if request == GET_CAPABILITIES:
            memory.write_bytes(arg, struct.pack("<I", CAPABILITIES))
            return 0
        if request == GET_SPEED:
            return SPEED_FULL
        if request == IOCTL:
            return self._switch_driver(*struct.unpack("<iI", await memory.read_bytes(arg, 8)))
        if request in (SETCONFIGURATION, RESET) and any(owner is not self for owner in node.claims.values()):
            raise IoctlError(errno.EBUSY)
        if request in (SETINTERFACE, SETCONFIGURATION, RESET, RESETEP, CLEAR_HALT):
            return 0
        raise IoctlError(errno.ENOTTY)

    # -- interfaces

    def _claim_interface(self, number: int) -> int:
        if number != 0:
            raise IoctlError(errno.ENOENT)
        if self.node.driver or self.node.claims.setdefault(number, self) is not self:
            raise IoctlError(errno.EBUSY)
        return 0

    def _switch_driver(self, number: int, what: int) -> int:
        """Detach or attach the kernel driver."""
        node = self.node
        if number == 0 and what == DISCONNECT and node.driver == KERNEL_HID:
            node.bind_driver("")
            return 0
        if number == 0 and what == CONNECT and not node.driver and number not in node.claims:
            node.bind_driver(KERNEL_HID)
            return 1
        raise IoctlError(errno.EBUSY if what == CONNECT else errno.ENODATA)

    def _release_interface(self, number: int) -> int:
        if self.node.claims.get(number) is not self:
            raise IoctlError(errno.EINVAL)
        del self.node.claims[number]
        return 0

    async def _get_driver(self, arg: int, memory: ClientMemory) -> int:
        (number,) = struct.unpack("<I", await memory.read_bytes(arg, 4))
        driver = self.node.driver or ("usbfs" if number in self.node.claims else "")
        if not driver:
            raise IoctlError(errno.ENODATA)
        memory.write_bytes(arg + 4, driver.encode() + b"\0")  # struct usbdevfs_getdriver: interface, char driver[256]
        return 0

    # -- transfers

    async def _submit_urb(self, address: int, memory: ClientMemory) -> int:
        kind, endpoint, _status, _flags, buffer, length, *_unused = URB.unpack(
            await memory.read_bytes(address, URB.size)
        )
        if not 0 <= length <= MAX_TRANSFER:
            raise IoctlError(errno.EINVAL)
        urb = Urb(address, kind, endpoint, buffer, length)
        if kind == URB_CONTROL and length >= 8:
            await self._submit_control(urb, memory)
        elif kind == URB_INTERRUPT and endpoint == EP_INTERRUPT:
            self._claim_interface(0)  # Linux claims the interface for a client that has not done so
            self.pending.append(urb)
            self.poll_interrupts()
        else:
            raise IoctlError(errno.EINVAL if kind == URB_CONTROL else errno.ENOENT)
        return 0

    async def _submit_control(self, urb: Urb, memory: ClientMemory) -> None:
        setup = Setup.from_bytes(await memory.read_bytes(urb.buffer, 8))
        if setup.length > urb.length - 8:
            raise IoctlError(errno.EINVAL)
        if setup.request_type & 0x1F == 1 and setup.request_type & 0x60 != 0x40:  # Linux: not without the interface
            self._claim_interface(setup.index & 0xFF)
        sent = b"" if setup.is_in or not setup.length else await memory.read_bytes(urb.buffer + 8, setup.length)
        if self.node.gone:  # it was unplugged while the memory was read
            raise IoctlError(errno.ENODEV)
        answer = self.node.device.control_transfer(setup, sent)
        if answer is NAK:
            self.pending.append(urb)  # until the client's timeout
        elif answer is STALL:
            self.finish_urb(urb, -errno.EPIPE)
        elif isinstance(answer, bytes):
            if setup.is_in:
                urb.data, urb.data_at, urb.actual = answer, 8, len(answer)
            else:
                urb.actual = setup.length
            self.finish_urb(urb, 0)
        if not setup.is_in:
            self.node.notify_change()

    def poll_interrupts(self) -> None:
        """Complete the interrupt transfers for which the device has a report."""
        if self.node.gone:
            return
        for urb in [urb for urb in self.pending if urb.kind == URB_INTERRUPT]:
            report = self.node.device.interrupt_in()
            if report is None:
                return
            urb.data = report[: urb.length]
            urb.actual = len(urb.data)
            self.finish_urb(urb, 0)

    def finish_urb(self, urb: Urb, status: int) -> None:
        """Finish a URB with 0 or a negative errno, so that the client may reap it."""
        if urb in self.pending:
            self.pending.remove(urb)
        urb.status = status
        self.done.append(urb)
        self._finished.set()

    def _discard_urb(self, address: int) -> int:
        for urb in self.pending:
            if urb.address == address:
                self.finish_urb(urb, -errno.ENOENT)
                return 0
        raise IoctlError(errno.EINVAL)

    async def _reap_urb(self, arg: int, memory: ClientMemory, wait: bool) -> int:
        while wait and not self.done and not self.node.gone:
            self._finished.clear()
            await self._finished.wait()
        if not self.done:
            raise IoctlError(errno.ENODEV if self.node.gone else errno.EAGAIN)
        urb = self.done.popleft()
        memory.write_bytes(urb.buffer + urb.data_at, urb.data)
        memory.write_bytes(urb.address + AT_STATUS, struct.pack("<i", urb.status))
        memory.write_bytes(urb.address + AT_ACTUAL_LENGTH, struct.pack("<i", urb.actual))
        memory.write_bytes(arg, struct.pack("<Q", urb.address))
        return 0
