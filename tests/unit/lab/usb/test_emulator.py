# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from usb.bus import PollPipe, UsbBus, udev_hash, uevent_message
from usb.emulator import Emulator, serve_client
from usb.model import EmulatedUps

TIMEOUT = 5.0


class Lab:
    """An emulator with its bus in a directory, asked as through the control socket."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator, self.bus = emulator, emulator.bus

    async def send_command(self, command: str, **request: Any) -> dict[str, Any]:
        answer = await self.emulator.answer_line(json.dumps({"command": command, **request}).encode())
        json.dumps(answer)
        return answer

    async def send_accepted(self, command: str, **request: Any) -> dict[str, Any]:
        answer = await self.send_command(command, **request)
        assert answer["ok"], answer
        return answer

    async def send_refused(self, command: str, **request: Any) -> str:
        answer = await self.send_command(command, **request)
        assert not answer["ok"]
        return str(answer["error"])


def run_scenario(root: Path, play_scenario: Callable[[Lab], Awaitable[None]]) -> None:
    async def run_whole() -> None:
        bus = UsbBus(root)
        emulator = Emulator(bus)
        bus.on_change = emulator.update_devices
        await bus.start_bus()
        try:
            await play_scenario(Lab(emulator))
        finally:
            await bus.stop_bus()
        assert not (root / "sys").exists()

    asyncio.run(run_whole())


def listen_for_uevents(root: Path, name: str) -> socket.socket:
    """A program that waits for uevents, as umockdev's library makes it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    (root / name).unlink(missing_ok=True)
    listener.bind(os.fspath(root / name))
    listener.settimeout(TIMEOUT)
    return listener


async def receive_uevent(listener: socket.socket) -> dict[str, str]:
    """The next uevent that is not a probe."""
    loop = asyncio.get_running_loop()
    while True:
        message = await loop.run_in_executor(None, listener.recv, 8192)
        properties = dict(line.split("=", 1) for line in message[40:].decode().rstrip("\0").split("\0"))
        if "ACTION" in properties:
            return properties


async def wait_for_clients(lab: Lab, count: int) -> None:
    listeners = lab.bus._listeners
    assert listeners

    async def wait() -> None:
        while len(listeners._sockets) < count:
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), TIMEOUT)


def test_fickle_ups_changes_its_strings(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("plug", model="apc", fickle=True)
        await lab.send_accepted("plug", model="apc", fickle=False)
        await lab.send_accepted("plug", model="apc")
        assert [ups["fickle"] for ups in (await lab.send_accepted("status"))["upses"]] == [True, False, False]

    run_scenario(tmp_path, play_scenario)


def test_unreadable_strings_are_readable_in_sysfs(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("plug", model="eaton", serial="G123E45678", unreadable_strings=True)
        (ups,) = (await lab.send_accepted("status"))["upses"]
        assert ups["unreadable_strings"] is True
        assert (tmp_path / "sys/bus/usb/devices/1-1/serial").read_text() == "G123E45678\n"

    run_scenario(tmp_path, play_scenario)


def test_serial_adapter_has_no_hid_driver_in_sysfs(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("plug", model="ch340")
        interface = tmp_path / "sys/bus/usb/devices/1-1:1.0"
        assert (interface / "bInterfaceClass").read_text() == "ff\n"
        assert not (interface / "driver").exists()
        assert not list(interface.glob("0003:*"))
        await lab.send_accepted("unplug")
        assert not interface.exists()

    run_scenario(tmp_path, play_scenario)


def test_sysfs_tree_looks_like_linux(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        assert await lab.send_accepted("plug", model="apc") == {"ok": True, "port": 1, "device_number": 2}
        devices = tmp_path / "sys/bus/usb/devices"
        assert sorted(path.name for path in devices.iterdir()) == ["1-0:1.0", "1-1", "1-1:1.0", "usb1"]
        device = devices / "1-1"
        assert device.resolve() == (tmp_path / "sys/devices/pci0000:00/0000:00:14.0/usb1/1-1").resolve()
        texts = {name: (device / name).read_text() for name in ("idVendor", "idProduct", "busnum", "devnum", "serial")}
        assert texts == {
            "idVendor": "051d\n",
            "idProduct": "0002\n",
            "busnum": "1\n",
            "devnum": "2\n",
            "serial": "5B1234T56789\n",
        }
        assert (device / "descriptors").read_bytes()[:2] == b"\x12\x01"
        assert (device / "subsystem").resolve() == (tmp_path / "sys/bus/usb").resolve()
        assert (devices / "1-1:1.0/bInterfaceClass").read_text() == "03\n"
        assert (devices / "1-1:1.0/driver").resolve().name == "usbhid"
        descriptor = devices / "1-1:1.0/0003:051D:0002.0002/report_descriptor"
        assert descriptor.read_bytes().startswith(b"\x05\x84")  # usage page: power device
        lab.bus.nodes[1].bind_driver("")
        assert not (devices / "1-1:1.0/driver").exists()
        assert not descriptor.parent.exists()
        lab.bus.nodes[1].bind_driver("usbhid")
        assert descriptor.exists()
        assert "DEVNAME=bus/usb/001/002\n" in (device / "uevent").read_text()
        assert (tmp_path / "dev/.node/bus_usb_001_002").readlink() == Path("189:1")
        assert (tmp_path / "dev/bus/usb/001/002").is_fifo()
        assert (tmp_path / "dev/bus/usb/001/002").stat().st_mode & 0o777 == 0o666
        assert (tmp_path / "ioctl/dev/bus/usb/001/002").is_socket()
        await lab.send_accepted("plug", model="cps", mode=0o600)
        assert not (devices / "1-2/serial").exists()
        assert (tmp_path / "dev/bus/usb/001/003").stat().st_mode & 0o777 == 0o600

    run_scenario(tmp_path, play_scenario)


def test_plug_unplug_and_replug(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        devices = tmp_path / "sys/bus/usb/devices"
        await lab.send_accepted("plug", model="apc", port=3)
        assert "taken" in await lab.send_refused("plug", model="apc", port=3)
        assert (await lab.send_accepted("plug", model="apc", serial="TWO"))["port"] == 1
        assert "name the port; plugged in: apc at 1, apc at 3" in await lab.send_refused("unplug")
        assert (await lab.send_accepted("replug", port=3, to=5))["device_number"] == 4
        assert not (devices / "1-3").exists()
        assert (devices / "1-5/devnum").read_text() == "4\n"
        assert "not free" in await lab.send_refused("replug", port=5, to=1)
        assert (await lab.send_accepted("replug", port=5))["device_number"] == 5
        assert not (tmp_path / "dev/bus/usb/001/004").exists()
        await lab.send_accepted("unplug", port=1)
        assert [ups["serial"] for ups in (await lab.send_accepted("status"))["unplugged"]] == ["TWO"]
        await lab.send_accepted("unplug")
        assert "name the port" in await lab.send_refused("replug")
        assert (await lab.send_accepted("replug", port=1))["port"] == 1
        assert "nothing was ever" in await lab.send_refused("replug", port=8)
        assert (await lab.send_accepted("status"))["upses"][0]["serial"] == "TWO"

    run_scenario(tmp_path, play_scenario)


def test_mains_apply_to_all_upses_of_a_host(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("plug", model="apc")
        await lab.send_accepted("plug", model="cps")
        await lab.send_accepted("mains", on=False)
        await lab.send_accepted("plug", model="eaton")
        await lab.send_accepted("low", port=2)
        status = await lab.send_accepted("status")
        assert not status["mains"]
        assert [ups["status"] for ups in status["upses"]] == ["OB DISCHRG", "OB LB DISCHRG", "OB DISCHRG"]
        await lab.send_accepted("mains", on=True, port=1)
        status = await lab.send_accepted("status")
        assert not status["mains"], "one UPS has other mains; the host has none still"
        assert status["upses"][0]["status"] == "OL"
        await lab.send_accepted("mains", on=True)
        await lab.send_accepted("set", values={"charge": 50}, port=3)
        assert [ups["status"] for ups in (await lab.send_accepted("status"))["upses"]] == ["OL", "OL", "OL CHRG"]

    run_scenario(tmp_path, play_scenario)


def test_empty_battery_and_hurry(tmp_path: Path) -> None:
    """Also of a UPS whose USB plug is pulled: its outlets are no business of that cable."""

    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("plug", model="apc")
        await lab.send_accepted("plug", model="cps")
        await lab.send_accepted("unplug", port=2)
        await lab.send_accepted("empty")
        status = await lab.send_accepted("status")
        assert status["upses"][0]["outlets"]
        await lab.send_accepted("mains", on=False)
        await lab.send_accepted("empty")
        status = await lab.send_accepted("status")
        assert not status["upses"][0]["outlets"]
        assert not status["unplugged"][0]["outlets"]
        await lab.send_accepted("mains", on=True)
        await lab.send_accepted("hurry")
        status = await lab.send_accepted("status")
        assert status["upses"][0]["outlets"]
        assert status["unplugged"][0]["outlets"]

    run_scenario(tmp_path, play_scenario)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"command": "plug"}, "unknown model"),
        ({"command": "plug", "model": ["apc"]}, "unknown model"),
        ({"command": "plug", "model": "apc", "port": 9}, "1 to 8"),
        ({"command": "plug", "model": "apc", "port": True}, "1 to 8"),
        ({"command": "plug", "model": "apc", "serial": 5}, "must be a string"),
        ({"command": "plug", "model": "apc", "mode": "rw"}, "mode"),
        ({"command": "unplug", "port": 1}, "nothing is plugged in"),
        ({"command": "low"}, "no UPS is plugged in"),
        ({"command": "mains", "on": "off"}, "on or off"),
        ({"command": "set", "values": []}, "nothing to set"),
        ({"command": "hang", "how": {}}, "stall or nak"),
        ({"command": "dance"}, "one of: status"),
        ([1], "one of: status"),
        (None, "one of: status"),
    ],
)
def test_invalid_commands_are_answered_with_errors(tmp_path: Path, request_: object, message: str) -> None:
    async def play_scenario(lab: Lab) -> None:
        answer = await lab.emulator.answer_line(json.dumps(request_).encode())
        assert not answer["ok"]
        assert message in answer["error"]
        await lab.send_accepted("plug", model="apc")

    run_scenario(tmp_path, play_scenario)


@pytest.mark.parametrize("line", [b"", b"{", b"\xff\xfe", b"[" * 100000, b'{"command": "status", "port": 1e999}'])
def test_emulator_survives_garbage(tmp_path: Path, line: bytes) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.emulator.answer_line(line)
        await lab.send_accepted("status")

    run_scenario(tmp_path, play_scenario)


def test_hostile_strings_stay_strings(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("plug", model="apc", serial='a"b\n../../x\0\udcff')
        device = tmp_path / "sys/bus/usb/devices/1-1"
        assert (device / "serial").read_bytes() == b'a"b\n../../x\n'
        assert "../x" not in (device / "uevent").read_text()
        await lab.send_accepted("unplug")

    run_scenario(tmp_path, play_scenario)


def test_control_socket_answers_line_by_line(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        path = os.fspath(tmp_path / "control")
        server = await asyncio.start_unix_server(lambda r, w: serve_client(lab.emulator, r, w), path, limit=1000)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'nonsense\n{"command": "models"}\n')
        assert json.loads(await asyncio.wait_for(reader.readline(), TIMEOUT))["ok"] is False
        assert "apc" in json.loads(await asyncio.wait_for(reader.readline(), TIMEOUT))["models"]
        writer.write(b"x" * 5000)
        assert await asyncio.wait_for(reader.read(), TIMEOUT) == b"", "a line without end is not read to its end"
        server.close()
        await lab.send_accepted("status")

    run_scenario(tmp_path, play_scenario)


def test_outlets_are_switched_on_time(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("plug", model="apc")
        ups: EmulatedUps = lab.emulator.plugged[1]
        ups._write_value("delay_startup", 0)
        ups._write_value("delay_shutdown", 0)
        lab.emulator.update_devices()

        async def switched() -> None:
            while [event["event"] for event in ups.events][-1] != "outlets on":
                await asyncio.sleep(0.001)

        await asyncio.wait_for(switched(), TIMEOUT)
        assert [event["event"] for event in ups.events][-2:] == ["outlets off", "outlets on"]

    run_scenario(tmp_path, play_scenario)


def test_listeners_hear_add_and_remove(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        listener = listen_for_uevents(tmp_path, "event5")
        await wait_for_clients(lab, 1)
        await lab.send_accepted("plug", model="apc", port=2)
        added = await receive_uevent(listener)
        assert added["ACTION"] == "add"
        assert added["DEVPATH"] == "/devices/pci0000:00/0000:00:14.0/usb1/1-2"
        assert (added["DEVNAME"], added["DEVTYPE"], added["BUSNUM"], added["DEVNUM"]) == (
            "/dev/bus/usb/001/002",
            "usb_device",
            "001",
            "002",
        )
        assert (await receive_uevent(listener))["INTERFACE"] == "3/0/0"
        await lab.send_accepted("unplug")
        assert [(await receive_uevent(listener))["DEVTYPE"] for _unused in range(2)] == ["usb_interface", "usb_device"]
        listener.close()
        await lab.send_accepted("replug")

    run_scenario(tmp_path, play_scenario)


def test_listener_without_its_name_still_receives_uevents(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        first = listen_for_uevents(tmp_path, "event5")
        await wait_for_clients(lab, 1)
        second = listen_for_uevents(tmp_path, "event5")
        await wait_for_clients(lab, 2)
        await lab.send_accepted("plug", model="apc")
        assert (await receive_uevent(first))["ACTION"] == (await receive_uevent(second))["ACTION"] == "add"

    run_scenario(tmp_path, play_scenario)


def test_bus_is_rebuilt_after_a_crash(tmp_path: Path) -> None:
    (tmp_path / "dev/bus/usb/001").mkdir(parents=True)
    (tmp_path / "dev/bus/usb/001/009").write_text("left over")
    listener = listen_for_uevents(tmp_path, "event7")
    listen_for_uevents(tmp_path, "event8").close()

    async def play_scenario(lab: Lab) -> None:
        assert not (tmp_path / "dev/bus/usb/001/009").exists()
        await wait_for_clients(lab, 1)
        await lab.send_accepted("plug", model="apc")
        assert (await receive_uevent(listener))["ACTION"] == "add"

    run_scenario(tmp_path, play_scenario)


def test_device_numbers_wrap_after_127(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("plug", model="apc")
        lab.bus._last_number = 127
        assert (await lab.send_accepted("plug", model="apc"))["device_number"] == 3

    run_scenario(tmp_path, play_scenario)


def test_plug_is_refused_if_all_ports_are_taken(tmp_path: Path) -> None:
    async def play_scenario(lab: Lab) -> None:
        for _unused in range(8):
            await lab.send_accepted("plug", model="cps")
        assert "all 8 ports" in await lab.send_refused("plug", model="cps")

    run_scenario(tmp_path, play_scenario)


def test_device_node_can_be_polled(tmp_path: Path) -> None:
    path = tmp_path / "node"
    pipe = PollPipe(path, 0o666)
    client = os.open(path, os.O_RDWR)
    poll = select.poll()
    poll.register(client, select.POLLOUT)
    for ready in (False, True, True, False, False, True):
        pipe.set_ready(ready)
        assert bool(poll.poll(0)) is ready
    os.close(client)
    pipe.close_pipe()


def test_uevent_header_has_magic_and_hashes() -> None:
    message = uevent_message({"ACTION": "add", "SUBSYSTEM": "usb", "DEVTYPE": "usb_device"})
    assert message[:12] == b"libudev\0\xfe\xed\xca\xfe"
    header, properties, length = struct.unpack("=III", message[12:24])
    assert (header, properties, length) == (40, 40, len(message) - 40)
    assert message[40:].endswith(b"DEVTYPE=usb_device\0")


def test_hash_is_that_of_udev() -> None:
    # As computed by string_hash32() of umockdev's uevent_sender.c, compiled.
    hashes = [udev_hash(text) for text in ("usb", "usb_device", "block", "")]
    assert hashes == [0x0577C5E5, 0x27F8F50C, 0xF0031DB7, 0]
