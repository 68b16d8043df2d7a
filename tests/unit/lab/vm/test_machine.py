# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from vm import machine
from vm.machine import QemuMonitor, VirtualMachine, qemu_command

FAKE = Path(__file__).with_name("fake_qemu.py")


class Lab:
    """A machine whose QEMU is a stand-in, asked as through the control socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = VirtualMachine(
            folder, 2222, lambda port, restore: [sys.executable, str(FAKE), str(folder), *[restore] * bool(restore)]
        )

    async def send_command(self, command: str, **request: Any) -> dict[str, Any]:
        return await self.machine.answer_line(json.dumps({"command": command, **request}).encode())

    async def send_accepted(self, command: str, **request: Any) -> dict[str, Any]:
        answer = await self.send_command(command, **request)
        assert answer["ok"], answer
        return answer

    async def send_refused(self, command: str, **request: Any) -> str:
        answer = await self.send_command(command, **request)
        assert not answer["ok"]
        return str(answer["error"])

    async def read_power(self) -> str:
        return str((await self.send_accepted("status"))["machine"]["power"])

    def list_told(self) -> list[str]:
        path = self.folder / "told"
        return path.read_text().splitlines() if path.exists() else []

    async def until_told(self, last: str) -> None:
        async def wait() -> None:
            while self.list_told()[-1:] != [last]:
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), 5)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Lab], Awaitable[None]]], None]:
    """Return a function that runs a scenario with a machine that is off."""
    monkeypatch.chdir(tmp_path)

    def run_whole(play_scenario: Callable[[Lab], Awaitable[None]]) -> None:
        async def run_body() -> None:
            lab = Lab(tmp_path)
            try:
                await play_scenario(lab)
            finally:
                await lab.machine.stop_qemu()

        asyncio.run(run_body())

    return run_whole


def test_boot_and_kill(run) -> None:
    async def play_scenario(lab: Lab) -> None:
        assert await lab.read_power() == "off"
        assert await lab.send_refused("kill") == "the machine is off"
        await lab.send_accepted("boot")
        status = (await lab.send_accepted("status"))["machine"]
        assert status["power"] == "on"
        os.kill(status["pid"], 0)
        assert await lab.send_refused("boot") == "the machine is on"
        await lab.send_accepted("kill")
        assert (await lab.send_accepted("status"))["machine"] == {"power": "off", "pid": None}
        with pytest.raises(ProcessLookupError):
            os.kill(status["pid"], 0)
        await lab.send_accepted("boot")
        assert lab.list_told() == ["start", "start"]

    run(play_scenario)


def test_upses_are_plugged_in_at_each_boot(run) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("plug", model="apc", port=3)
        assert [ups["port"] for ups in (await lab.send_accepted("status"))["upses"]] == [3]
        await lab.send_accepted("boot")
        await lab.until_told("plug 3")
        await lab.send_accepted("kill")
        await lab.send_accepted("boot")
        await lab.until_told("plug 3")
        assert lab.list_told() == ["start", "plug 3"] * 2
        await lab.send_accepted("replug", to=5)
        await lab.until_told("plug 5")
        await lab.send_accepted("mains", on=False)
        assert [ups["status"] for ups in (await lab.send_accepted("status"))["upses"]] == ["OB DISCHRG"]

    run(play_scenario)


def test_snapshot_is_refused_while_a_ups_is_plugged_in(run) -> None:
    async def play_scenario(lab: Lab) -> None:
        assert await lab.send_refused("snapshot", tag="one") == "the machine is off"
        await lab.send_accepted("boot")
        await lab.send_accepted("plug", model="apc", port=1)
        await lab.until_told("plug 1")
        assert "unplug the UPSes first" in await lab.send_refused("snapshot", tag="one")
        await lab.send_accepted("unplug")
        await lab.send_accepted("snapshot", tag="one")
        assert lab.list_told()[-1] == "savevm one"
        assert await lab.send_refused("snapshot", tag="full") == "QEMU: Error: no room"
        await lab.send_accepted("plug", model="apc", port=1)
        await lab.send_accepted("mains", on=False)
        await lab.send_accepted("restore", tag="one")
        assert lab.list_told()[-1] == "start one"
        status = await lab.send_accepted("status")
        assert status["upses"] == status["unplugged"] == []
        assert status["mains"] is True
        assert status["machine"]["power"] == "on"

    run(play_scenario)


@pytest.mark.parametrize("tag", ["", None, "a b", "A", "a;quit", 7])
def test_invalid_tags_are_refused(run, tag: object) -> None:
    async def play_scenario(lab: Lab) -> None:
        for command in ("snapshot", "restore"):
            assert "tag may contain" in await lab.send_refused(command, tag=tag)

    run(play_scenario)


def test_start_error_shows_the_output_of_qemu(run) -> None:
    async def play_scenario(lab: Lab) -> None:
        assert (
            await lab.send_refused("restore", tag="missing") == "QEMU did not start: Snapshot 'missing' does not exist"
        )
        assert await lab.read_power() == "off"
        await lab.send_accepted("boot")

    run(play_scenario)


def test_start_fails_if_qemu_does_not_answer(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "START_SECONDS", 0.5)

    async def play_scenario(lab: Lab) -> None:
        assert "QEMU did not answer" in await lab.send_refused("restore", tag="mute")
        assert await lab.read_power() == "off"

    run(play_scenario)


def test_start_fails_if_qemu_is_not_installed(tmp_path: Path) -> None:
    async def run_body() -> None:
        without = VirtualMachine(tmp_path, 1, lambda port, restore: ["no-such-qemu"])
        answer = await without.answer_line(b'{"command": "boot"}')
        assert "is not installed" in answer["error"]

    asyncio.run(run_body())


def test_poweroff_by_the_guest_is_noticed(run) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("boot")
        await lab.send_accepted("plug", model="apc", port=1)
        process = lab.machine._qemu
        assert process
        process.terminate()
        await process.wait()

        async def wait() -> None:
            while lab.machine.bus.nodes:
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), 5)
        assert await lab.read_power() == "off"
        await lab.send_accepted("boot")
        await lab.until_told("plug 1")

    run(play_scenario)


def test_down_stops_the_process(run) -> None:
    async def play_scenario(lab: Lab) -> None:
        await lab.send_accepted("down")
        assert lab.machine.stop.is_set()

    run(play_scenario)


def test_process_serves_its_control_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes its control socket, and goes when that was removed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "LOOK_SECONDS", 0.02)
    control = tmp_path / "elsewhere" / "control"
    control.parent.mkdir()

    async def run_body() -> None:
        task = asyncio.create_task(machine.run_machine(Path(), control, 1))
        while not control.exists():
            await asyncio.sleep(0.01)
        assert control.stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(str(control))
        writer.write(b'{"command": "status"}\n')
        answer = json.loads(await reader.readline())
        assert answer["machine"]["power"] == "off"
        writer.close()
        control.unlink()
        await asyncio.wait_for(task, 5)

    asyncio.run(run_body())


def test_monitor_reports_the_end_of_qemu(tmp_path: Path) -> None:
    async def run_body() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        qmp = QemuMonitor(reader, writer)
        theirs.sendall(b'{"error": {"desc": "no such command"}}\n')
        with pytest.raises(ValueError, match="no such command"):
            await qmp.run_command("nonsense")
        theirs.close()
        with pytest.raises((ValueError, ConnectionError)):
            await qmp.run_command("stop")
        qmp.close()

    asyncio.run(run_body())


def test_qemu_command_has_the_machine() -> None:
    words = qemu_command(2200)
    assert words[0] == "qemu-system-x86_64"
    assert words[words.index("-accel") + 1].startswith("tcg")  # hardware acceleration may hang
    (network,) = [word for word in words if word.startswith("user,")]
    assert network == "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2200-:22"
    (disk,) = [word for word in words if word.startswith("file=disk.qcow2")]
    assert "cache=unsafe" not in disk  # what the guest has flushed must outlive a power loss
    assert len([word for word in words if word.startswith("usb-redir,")]) == 8
    assert "-loadvm" not in words
    assert qemu_command(2200, "booted")[-2:] == ["-loadvm", "booted"]
    assert not [word for word in words if word.startswith("/")]
