# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Awaitable, Callable

from usb import usbfs
from usb.model import NAK, STALL, EmulatedUps, make_ups
from usb.usbfs import MESSAGE, URB, DeviceNode

TIMEOUT = 5.0


class Client:
    """What umockdev's preload library is to the emulator: it sends ioctls and lets its memory be read and written."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.memory = bytearray(4096)
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, node: DeviceNode) -> Client:
        ours, theirs = socket.socketpair()
        task = asyncio.ensure_future(node.serve_client(*await asyncio.open_connection(sock=theirs)))
        client = cls(*await asyncio.open_connection(sock=ours))
        client.task = task
        return client

    task: asyncio.Task[None]

    async def ioctl(self, request: int, arg: int = 0) -> int:
        """The result, or the negative errno."""
        self.writer.write(MESSAGE.pack(usbfs.REQ_IOCTL, request, arg))
        while True:
            code, first, second = MESSAGE.unpack(await asyncio.wait_for(self.reader.readexactly(24), TIMEOUT))
            if code == usbfs.RES_DONE:
                return int(-second if first < 0 else first)
            if code == usbfs.RES_READ_MEM:
                self.writer.write(bytes(self.memory[first : first + second]))
            else:
                assert code == usbfs.RES_WRITE_MEM
                self.memory[first : first + second] = await self.reader.readexactly(second)

    async def submit(self, at: int, kind: int, endpoint: int, data: bytes, length: int) -> int:
        buffer = at + 64
        self.memory[buffer : buffer + len(data)] = data
        self.memory[at : at + URB.size] = URB.pack(kind, endpoint, 99, 0, buffer, length, 99, 0, 0, 0, 0, 7)
        return await self.ioctl(usbfs.SUBMITURB, at)

    async def control(self, at: int, *setup: int, data: bytes = b"") -> int:
        return await self.submit(at, usbfs.URB_CONTROL, 0, struct.pack("<BBHHH", *setup) + data, 8 + setup[4])

    async def reap(self) -> tuple[int, int, bytes] | int:
        """Address, status and data of a finished URB, or the negative errno."""
        result = await self.ioctl(usbfs.REAPURBNDELAY, 0)
        if result < 0:
            return result
        (at,) = struct.unpack("<Q", self.memory[:8])
        fields = URB.unpack(self.memory[at : at + URB.size])
        start = at + 64 + (8 if fields[0] == usbfs.URB_CONTROL else 0)
        return at, fields[2], bytes(self.memory[start : start + fields[6]])

    async def close(self) -> None:
        self.writer.close()
        await asyncio.wait_for(self.task, TIMEOUT)


def run_scenario(play_scenario: Callable[[DeviceNode, EmulatedUps, list[bool]], Awaitable[None]]) -> None:
    async def run_whole() -> None:
        ups = make_ups("apc")
        ready: list[bool] = []
        await play_scenario(DeviceNode(ups, ready.append), ups, ready)

    asyncio.run(run_whole())


DEVICE = (0x80, 6, 0x0100, 0, 18)


def test_control_transfer_reaches_the_ups() -> None:
    async def play_scenario(node: DeviceNode, ups: EmulatedUps, ready: list[bool]) -> None:
        client = await Client.open(node)
        assert await client.reap() == -errno.EAGAIN
        assert await client.control(256, *DEVICE) == 0
        assert ready == [True]
        assert await client.reap() == (256, 0, ups.device_descriptor)
        assert ready == [True, False]
        await client.control(256, 0x80, 6, 0x0600, 0, 10)
        assert await client.reap() == (256, -errno.EPIPE, b"")
        await client.close()

    run_scenario(play_scenario)


def test_data_to_the_device() -> None:
    async def play_scenario(node: DeviceNode, ups: EmulatedUps, ready: list[bool]) -> None:
        client = await Client.open(node)
        number = [item.key for item in ups.profile.items if item.bits > 1].index("charge_low") + 1
        await client.control(256, 0x21, 9, 0x0300 | number, 0, 2, data=bytes((number, 33)))
        done = await client.reap()
        assert isinstance(done, tuple)
        assert done[1] == 0
        assert ups.state["charge_low"] == 33
        await client.close()

    run_scenario(play_scenario)


def test_clients_do_not_see_each_others_urbs() -> None:
    async def play_scenario(node: DeviceNode, ups: EmulatedUps, ready: list[bool]) -> None:
        first, second = await Client.open(node), await Client.open(node)
        await first.control(256, *DEVICE)
        await second.control(512, *DEVICE)
        assert ready == [True]
        reaped = await second.reap()
        assert isinstance(reaped, tuple)
        assert reaped[0] == 512
        assert await second.reap() == -errno.EAGAIN
        assert ready == [True], "the first client's still waits"
        await first.close()
        assert ready == [True, False]
        await second.close()

    run_scenario(play_scenario)


def test_kernel_hid_driver_can_be_detached() -> None:
    async def play_scenario() -> None:
        bound: list[bool] = []
        node = DeviceNode(make_ups("apc"), driver=usbfs.KERNEL_HID, on_bound=bound.append)
        client = await Client.open(node)

        async def asked(what: int, number: int = 0) -> int:
            struct.pack_into("<iI", client.memory, 128, number, what)
            return await client.ioctl(usbfs.IOCTL, 128)

        assert await client.ioctl(usbfs.GETDRIVER, 256) == 0
        assert client.memory[260:267] == b"usbhid\0"
        assert await client.ioctl(usbfs.CLAIMINTERFACE, 256) == -errno.EBUSY
        assert await asked(usbfs.CONNECT) == -errno.EBUSY
        assert await asked(usbfs.DISCONNECT, 1) == -errno.ENODATA
        assert await asked(usbfs.DISCONNECT) == 0
        assert await asked(usbfs.DISCONNECT) == -errno.ENODATA
        assert await client.ioctl(usbfs.CLAIMINTERFACE, 256) == 0
        assert await asked(usbfs.CONNECT) == -errno.EBUSY
        assert await client.ioctl(usbfs.RELEASEINTERFACE, 256) == 0
        assert bound == [False]
        assert await asked(usbfs.CONNECT) == 1
        assert await client.ioctl(usbfs.DISCONNECT_CLAIM, 256) == 0
        assert bound == [False, True, False]
        await client.close()

    asyncio.run(play_scenario())


def test_claimed_interface_is_busy_until_released() -> None:
    async def play_scenario(node: DeviceNode, ups: EmulatedUps, ready: list[bool]) -> None:
        first, second = await Client.open(node), await Client.open(node)
        assert await second.ioctl(usbfs.GETDRIVER, 128) == -errno.ENODATA
        assert await first.ioctl(usbfs.CLAIMINTERFACE, 128) == 0
        assert await first.ioctl(usbfs.CLAIMINTERFACE, 128) == 0
        for request in (usbfs.CLAIMINTERFACE, usbfs.DISCONNECT_CLAIM, usbfs.RESET):
            assert await second.ioctl(request, 128) == -errno.EBUSY
        assert await second.ioctl(usbfs.GETDRIVER, 128) == 0
        assert second.memory[132:138] == b"usbfs\0"
        assert await second.control(256, 0xA1, 1, 0x0301, 0, 8) == -errno.EBUSY
        assert await second.control(256, *DEVICE) == 0
        assert await second.ioctl(usbfs.RELEASEINTERFACE, 128) == -errno.EINVAL
        await first.close()
        assert await second.ioctl(usbfs.DISCONNECT_CLAIM, 128) == 0
        second.memory[128] = 1
        assert await second.ioctl(usbfs.CLAIMINTERFACE, 128) == -errno.ENOENT
        await second.close()

    run_scenario(play_scenario)


def test_interrupt_transfer_waits_for_a_change() -> None:
    async def play_scenario(node: DeviceNode, ups: EmulatedUps, ready: list[bool]) -> None:
        client = await Client.open(node)
        await client.submit(256, usbfs.URB_INTERRUPT, 0x81, b"", 64)
        assert await client.reap() == -errno.EAGAIN
        ups.set_mains(False)
        node.send_pending()
        assert ready == [True]
        done = await client.reap()
        assert isinstance(done, tuple)
        assert done[:2] == (256, 0)
        assert done[2][0] in ups._reports
        assert ups._reports[done[2][0]].pack_values(ups.report_values()) == done[2]
        await client.close()

    run_scenario(play_scenario)


def test_unanswered_transfer_can_be_discarded() -> None:
    async def play_scenario(node: DeviceNode, ups: EmulatedUps, ready: list[bool]) -> None:
        client = await Client.open(node)
        ups.set_hang(NAK)
        await client.control(256, 0xA1, 1, 0x0301, 0, 8)
        assert await client.reap() == -errno.EAGAIN
        assert await client.ioctl(usbfs.DISCARDURB, 300) == -errno.EINVAL
        assert await client.ioctl(usbfs.DISCARDURB, 256) == 0
        assert await client.reap() == (256, -errno.ENOENT, b"")
        ups.set_hang(STALL)
        await client.control(256, 0xA1, 1, 0x0301, 0, 8)
        assert await client.reap() == (256, -errno.EPIPE, b"")
        await client.close()

    run_scenario(play_scenario)


def test_unplug_fails_pending_and_later_transfers() -> None:
    async def play_scenario(node: DeviceNode, ups: EmulatedUps, ready: list[bool]) -> None:
        client = await Client.open(node)
        await client.submit(256, usbfs.URB_INTERRUPT, 0x81, b"", 64)
        node.mark_unplugged()
        assert ready == [True]
        assert await client.reap() == (256, -errno.ESHUTDOWN, b"")
        assert ready == [True, False]
        assert await client.reap() == -errno.ENODEV
        assert await client.control(256, *DEVICE) == -errno.ENODEV
        await client.close()

    run_scenario(play_scenario)


def test_invalid_ioctls_are_refused() -> None:
    async def play_scenario(node: DeviceNode, ups: EmulatedUps, ready: list[bool]) -> None:
        client = await Client.open(node)
        assert await client.ioctl(0x12345678) == -errno.ENOTTY
        assert await client.submit(256, 3, 0x02, b"", 64) == -errno.ENOENT
        assert await client.submit(256, usbfs.URB_CONTROL, 0, b"", 4) == -errno.EINVAL
        assert await client.submit(256, usbfs.URB_CONTROL, 0, b"", 1 << 30) == -errno.EINVAL
        assert await client.submit(256, usbfs.URB_CONTROL, 0, struct.pack("<BBHHH", *DEVICE), 9) == -errno.EINVAL
        assert await client.ioctl(usbfs.GET_SPEED) == 2
        client.writer.write(b"half a message")
        await client.close()
        assert not node.sessions

    run_scenario(play_scenario)


def test_root_hub_is_bound_to_the_kernel() -> None:
    async def play_scenario() -> None:
        node = DeviceNode(make_ups("apc"), driver="hub")
        client = await Client.open(node)
        assert await client.ioctl(usbfs.CLAIMINTERFACE, 128) == -errno.EBUSY
        assert await client.ioctl(usbfs.GETDRIVER, 128) == 0
        assert client.memory[132:136] == b"hub\0"
        await client.close()

    asyncio.run(play_scenario())
