# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest
from usb.model import NAK, STALL, EmulatedUps, make_ups
from vm import usbredir
from vm.usbredir import ProtocolError, UsbCable, VmBus

HELLO = struct.pack("<III", 0, 68, 0) + b"qemu".ljust(64, b"\0") + struct.pack("<I", 1 << 5)
GET_DEVICE_DESCRIPTOR = (0x80, 6, 0x0100, 0, 18)
GET_REPORT_FEATURE = (0xA1, 1, 0x0301, 0, 2)


def make_packet(kind: int, number: int, body: bytes = b"") -> bytes:
    return struct.pack("<IIQ", kind, len(body), number) + body


def make_control(number: int, request: tuple[int, int, int, int, int], data: bytes = b"") -> bytes:
    """A control transfer as QEMU sends it."""
    kind, code, value, index, length = request
    endpoint = 0x80 if kind & 0x80 else 0
    return make_packet(100, number, struct.pack("<BBBBHHH", endpoint, code, kind, 0, value, index, length) + data)


class Guest:
    """The other end of a cable: what it got, as (kind, id, body)."""

    def __init__(self, ups: EmulatedUps) -> None:
        self.raw = b""
        self.ups = ups
        self.cable = UsbCable(ups, self._take)

    def _take(self, data: bytes) -> None:
        self.raw += data

    def got(self) -> list[tuple[int, int, bytes]]:
        packets, at = [], 0
        while at < len(self.raw):
            kind, length, number = struct.unpack_from("<IIQ", self.raw, at)
            packets.append((kind, number, self.raw[at + 16 : at + 16 + length]))
            at += 16 + length
        self.raw = b""
        return packets

    def asks(self, data: bytes) -> list[tuple[int, int, bytes]]:
        self.cable.receive_bytes(data)
        return self.got()


@pytest.fixture
def guest() -> Guest:
    """A guest that has been introduced to an APC."""
    guest = Guest(make_ups("apc"))
    guest.raw = b""
    guest.cable.receive_bytes(HELLO)
    guest.got()
    return guest


def test_hello_has_32_bit_ids_and_needed_capabilities() -> None:
    guest = Guest(make_ups("apc"))
    kind, length, number = struct.unpack_from("<III", guest.raw)
    assert (kind, length, number) == (0, 68, 0)
    assert len(guest.raw) == 12 + 68
    (capabilities,) = struct.unpack_from("<I", guest.raw, 12 + 64)
    assert [bit for bit in range(32) if capabilities >> bit & 1] == [1, 4, 5, 6]


def test_device_is_described_with_endpoint_and_interface() -> None:
    guest = Guest(make_ups("cps"))
    guest.raw = b""
    guest.cable.receive_bytes(HELLO)
    endpoints, interfaces, device = guest.got()
    kinds, intervals, of, sizes = struct.unpack("<32s32s32s64s", endpoints[2])
    assert endpoints[0] == 5
    assert [(at, kind) for at, kind in enumerate(kinds) if kind != 255] == [(0, 0), (16, 0), (17, 3)]
    assert intervals == bytes(17) + b"\x64" + bytes(14)
    assert of == bytes(32)
    assert [(at, size) for at, size in enumerate(struct.unpack("<32H", sizes)) if size] == [(0, 8), (16, 8), (17, 8)]
    assert interfaces[0] == 4
    assert struct.unpack("<I32s32s32s32s", interfaces[2]) == (1, bytes(32), b"\3" + bytes(31), bytes(32), bytes(32))
    assert device == (1, 0, struct.pack("<BBBBHHH", 1, 0, 0, 0, 0x0764, 0x0501, 0x0001))


def test_no_packet_is_sent_before_the_complete_hello() -> None:
    guest = Guest(make_ups("apc"))
    guest.raw = b""
    for byte in HELLO[:-1]:
        guest.cable.receive_bytes(bytes((byte,)))
        assert guest.raw == b""
    guest.cable.receive_bytes(HELLO[-1:])
    assert len(guest.got()) == 3


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<III", 0, 68, 0) + bytes(64) + struct.pack("<I", 1 << 4),  # ids of 32 bits only
        struct.pack("<III", 0, 64, 0) + bytes(64),  # an old one, without capabilities
        struct.pack("<III", 6, 68, 0) + bytes(64) + struct.pack("<I", 1 << 5),  # no hello
    ],
)
def test_incompatible_peer_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="no hello"):
        Guest(make_ups("apc")).cable.receive_bytes(data)


def test_packets_of_invalid_length_are_refused(guest: Guest) -> None:
    with pytest.raises(ProtocolError, match="bytes"):
        guest.cable.receive_bytes(struct.pack("<IIQ", 100, 1 << 30, 1))
    for kind in (6, 9, 100):
        guest = Guest(make_ups("apc"))
        guest.cable.receive_bytes(HELLO)
        with pytest.raises(ProtocolError, match=f"kind {kind} with only 0 bytes"):
            guest.cable.receive_bytes(make_packet(kind, 1))


def test_configurations_and_alternate_settings(guest: Guest) -> None:
    assert guest.asks(make_packet(6, 7, b"\1")) == [(8, 7, b"\0\1")]
    assert guest.asks(make_packet(7, 8)) == [(8, 8, b"\0\1")]
    assert guest.asks(make_packet(9, 9, b"\2\0")) == [(11, 9, b"\0\2\0")]
    assert guest.asks(make_packet(10, 10, b"\2")) == [(11, 10, b"\0\2\0")]


def test_control_transfer_in(guest: Guest) -> None:
    ((kind, number, body),) = guest.asks(make_control(1 << 40, GET_DEVICE_DESCRIPTOR))
    assert (kind, number) == (100, 1 << 40)
    assert struct.unpack_from("<BBBBHHH", body) == (0x80, 6, 0x80, 0, 0x0100, 0, 18)
    assert body[10:] == guest.ups.device_descriptor


def test_packets_may_arrive_together_or_in_pieces(guest: Guest) -> None:
    data = make_control(1, GET_DEVICE_DESCRIPTOR) + make_control(2, GET_DEVICE_DESCRIPTOR)
    assert [number for _kind, number, _body in guest.asks(data[:-3])] == [1]
    assert [number for _kind, number, _body in guest.asks(data[-3:])] == [2]


def test_control_transfer_out_reports_its_length(guest: Guest) -> None:
    reports = {report.items[0].key: report for report in guest.ups._reports.values()}
    data = reports["charge_low"].pack_values({"charge_low": 20})
    ((_kind, _number, body),) = guest.asks(
        make_control(3, (0x21, 9, 0x0300 | reports["charge_low"].number, 0, len(data)), data)
    )
    assert struct.unpack("<BBBBHHH", body)[3:] == (0, 0x0300 | reports["charge_low"].number, 0, len(data))
    assert guest.ups.state["charge_low"] == 20


@pytest.mark.parametrize("request_type", [0x21, 0xA1])
def test_refused_transfer_is_stalled(guest: Guest, request_type: int) -> None:
    ((_kind, _number, body),) = guest.asks(make_control(4, (request_type, 0x77, 0, 0, 8), bytes(8)))
    assert struct.unpack("<BBBBHHH", body)[3] == 4
    assert struct.unpack("<BBBBHHH", body)[6] == 0


def test_unanswered_transfer_completes_after_recovery(guest: Guest) -> None:
    guest.ups.set_hang(NAK)
    assert guest.asks(make_control(5, GET_REPORT_FEATURE)) == []
    guest.cable.send_pending()
    assert guest.got() == []
    guest.ups.set_hang(None)
    guest.cable.send_pending()
    ((kind, number, body),) = guest.got()
    assert (kind, number, body[3]) == (100, 5, 0)
    assert len(body) == 10 + 2
    guest.cable.send_pending()
    assert guest.got() == []


def test_guest_can_cancel_a_transfer(guest: Guest) -> None:
    guest.ups.set_hang(NAK)
    guest.asks(make_control(6, GET_REPORT_FEATURE))
    ((kind, number, body),) = guest.asks(make_packet(21, 6))
    assert (kind, number, body[3], body[8:]) == (100, 6, 1, b"\0\0")
    guest.ups.set_hang(None)
    guest.cable.send_pending()
    assert guest.got() == []
    assert guest.asks(make_packet(21, 6)) == []  # nothing is open any more


def test_hang_with_stall_is_stalled(guest: Guest) -> None:
    guest.ups.set_hang(STALL)
    ((_kind, _number, body),) = guest.asks(make_control(5, GET_REPORT_FEATURE))
    assert body[3] == 4


def test_interrupt_pipe_reports_changes_once_started(guest: Guest) -> None:
    guest.ups.set_mains(False)
    guest.cable.send_pending()
    assert guest.got() == []
    first, *news = guest.asks(make_packet(15, 11, b"\x81"))
    assert first == (17, 11, b"\0\x81")
    assert news
    assert [number for _kind, number, _body in news] == list(range(1, len(news) + 1))
    for kind, _number, body in news:
        assert kind == 103
        assert struct.unpack_from("<BBH", body) == (0x81, 0, len(body) - 4)
    guest.ups.set_mains(True)
    guest.cable.send_pending()
    assert guest.got()[0][1] == len(news) + 1
    assert guest.asks(make_packet(16, 12, b"\x81")) == [(17, 12, b"\0\x81")]
    guest.ups.set_mains(False)
    guest.cable.send_pending()
    assert guest.got() == []


def test_interrupt_transfer_out_is_stalled(guest: Guest) -> None:
    assert guest.asks(make_packet(103, 13, b"\1\0\0\0")) == [(103, 13, b"\1\4\0\0")]


def test_unknown_packets_are_ignored(guest: Guest) -> None:
    assert guest.asks(make_packet(3, 14) + make_packet(23, 15, b"0x03\0")) == []


# ---- the ports


class Machine:
    """A stand-in for QEMU: who is connected at which port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connected: dict[int, int] = {}
        self.bodies: dict[int, bytes] = {}
        self._servers: list[asyncio.AbstractServer] = []

    async def start(self) -> None:
        for port in range(1, usbredir.PORTS + 1):

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port) -> None:
                self.connected[port] = self.connected.get(port, 0) + 1
                writer.write(HELLO + make_packet(15, 1, b"\x81"))
                try:
                    while data := await reader.read(4096):
                        self.bodies[port] = self.bodies.get(port, b"") + data
                except ConnectionError:
                    pass
                self.connected[port] -= 1
                writer.close()

            self._servers.append(await asyncio.start_unix_server(serve, str(self.folder / f"port{port}")))

    async def until(self, connected: dict[int, int]) -> None:
        async def wait() -> None:
            while {port: count for port, count in self.connected.items() if count} != connected:
                await asyncio.sleep(0.005)

        await asyncio.wait_for(wait(), 5)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()


def test_devices_stay_plugged_in_while_the_machine_is_off(tmp_path: Path) -> None:
    async def play_scenario() -> None:
        bus, machine = VmBus(tmp_path), Machine(tmp_path)
        assert await bus.plug_device(make_ups("apc"), 2) == 1
        assert bus.nodes == {}
        await machine.start()
        await bus.set_power(True)
        await machine.until({2: 1})
        assert await bus.plug_device(make_ups("cps"), 8) == 2
        await machine.until({2: 1, 8: 1})
        assert bus.device_numbers == {2: 1, 8: 2}
        bus.unplug_device(2)
        await machine.until({8: 1})
        assert list(bus.devices) == list(bus.device_numbers) == [8]
        await bus.set_power(False)
        await machine.until({})
        assert bus.nodes == {}
        assert list(bus.devices) == [8]
        await bus.set_power(True)
        await machine.until({8: 1})
        await bus.set_power(False)
        await machine.stop()

    asyncio.run(play_scenario())


def test_invalid_or_taken_ports_are_refused(tmp_path: Path) -> None:
    async def play_scenario() -> None:
        bus = VmBus(tmp_path)
        await bus.plug_device(make_ups("apc"), 1)
        for port, words in ((1, "port 1 is not free"), (0, "no port 0"), (9, "no port 9: ports are 1 to 8")):
            with pytest.raises(ValueError, match=words):
                await bus.plug_device(make_ups("apc"), port)
        with pytest.raises(ValueError, match="nothing is plugged in at port 4"):
            bus.unplug_device(4)

    asyncio.run(play_scenario())


def test_plug_fails_if_the_machine_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usbredir, "CONNECT_SECONDS", 0.05)

    async def play_scenario() -> None:
        bus = VmBus(tmp_path)
        await bus.set_power(True)
        with pytest.raises(ValueError, match="port 3 of the machine does not answer"):
            await bus.plug_device(make_ups("apc"), 3)
        assert bus.devices == {}
        assert bus.device_numbers == {}

    asyncio.run(play_scenario())


def test_changes_are_reported_after_a_replug(tmp_path: Path) -> None:
    async def play_scenario() -> None:
        bus, machine, ups = VmBus(tmp_path), Machine(tmp_path), make_ups("apc")
        await machine.start()
        await bus.set_power(True)
        await bus.plug_device(ups, 1)
        while make_packet(17, 1, b"\0\x81") not in machine.bodies.get(1, b""):
            await asyncio.sleep(0.005)
        node = bus.nodes[1]
        bus.unplug_device(1)
        ups.set_mains(False)
        node.send_pending()
        assert ups.interrupt_in() is not None
        await machine.until({})
        await machine.stop()

    asyncio.run(asyncio.wait_for(play_scenario(), 10))
