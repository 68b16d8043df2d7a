#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a virtual machine with UPSes at its USB ports: a process that owns QEMU and has a control socket.

    machine.py FOLDER CONTROL PORT

FOLDER has disk.qcow2, disk, vmlinuz, initrd and id_ed25519.pub; QEMU's sockets and logs are written there. CONTROL is the path of
the control socket, which takes the commands of usb/emulator.py and, for the machine, boot, kill, snapshot, restore and down. PORT on
loopback leads to the machine's ssh. QEMU ends with this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Callable, cast

if not __package__:  # started by its path: the packages are beside the folder that we are in
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "vm"

from usb.emulator import Emulator, serve_client

from .usbredir import PORTS, VmBus

Json = dict[str, Any]
QEMU = "qemu-system-x86_64"
MAX_LINE = 1 << 16
START_SECONDS = 30.0  # from QEMU's start to its first answer; 0.3 to 1 on two cores
SAVE_SECONDS = 60.0
LOOK_SECONDS = 5.0
TAG_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def qemu_command(port: int, restore: str = "") -> list[str]:
    """Return QEMU's command line for a machine whose directory is the current one.

    The processor is always emulated, because Debian's kernel may hang with nested virtualization. qemu64 lacks the newer vector
    instructions, which programs would use and which are slow to emulate. With the disk's default cache mode, data that the guest
    has not flushed may be lost when QEMU is killed, as on a real disk that loses power.
    """
    kernel = (
        "root=/dev/vda ro console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check net.ifnames=0 "
        "systemd.show_status=no"
    )
    words = [
        *(QEMU, "-name", "lab", "-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "qemu64", "-smp", "2"),
        *("-m", "1024", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "file:console.log"),
        *("-kernel", "vmlinuz", "-initrd", "initrd", "-append", kernel),
        *("-drive", "file=disk.qcow2,format=qcow2,if=virtio,backing.driver=raw,backing.file.filename=disk"),
        *("-device", "virtio-rng-pci"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-fw_cfg", "name=opt/lab/authorized_keys,file=id_ed25519.pub"),
        *("-qmp", "unix:qmp,server=on,wait=off"),
        *("-device", f"qemu-xhci,id=xhci,p2={PORTS},p3={PORTS}"),
    ]
    for number in range(1, PORTS + 1):
        words += ["-chardev", f"socket,id=port{number},path=port{number},server=on,wait=off"]
        words += ["-device", f"usb-redir,chardev=port{number},id=usb{number},bus=xhci.0,port={number}"]
    return words + (["-loadvm", restore] if restore else [])


class QemuMonitor:
    """QEMU's monitor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._lock = reader, writer, asyncio.Lock()

    @classmethod
    async def connect_to(cls, path: Path) -> QemuMonitor:
        """Connect to a monitor's socket. Raise OSError or ValueError if that fails."""
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 20)
        qmp = cls(reader, writer)
        await qmp._read_answer("QMP")
        await qmp.run_command("qmp_capabilities")
        return qmp

    async def run_command(self, name: str, **arguments: Any) -> Any:
        """Run a command and return its result. Raise ValueError if it fails."""
        async with self._lock:
            self._writer.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
            await self._writer.drain()
            return await self._read_answer("return")

    async def _read_answer(self, key: str) -> Any:
        while True:
            line = await self._reader.readline()
            if not line:
                raise ValueError("QEMU has ended")
            message = json.loads(line)
            if "error" in message:
                raise ValueError(f"QEMU: {message['error'].get('desc')}")
            if key in message:  # otherwise it is an event
                return message[key]

    async def run_human_command(self, line: str) -> None:
        """Run a command of QEMU's human monitor. Raise ValueError if it prints an error."""
        output = await self.run_command("human-monitor-command", **{"command-line": line})
        if output.strip():
            raise ValueError(f"QEMU: {output.strip()}")

    def close(self) -> None:
        self._writer.close()


class VirtualMachine(Emulator):
    """The emulator's commands for UPSes at a machine that may be off, and the commands of the machine itself."""

    def __init__(self, folder: Path, port: int, command: Callable[[int, str], list[str]] = qemu_command) -> None:
        self._folder, self._port, self._command = folder, port, command
        self._ports = VmBus(folder)
        # Both kinds of bus have what the emulator needs.
        super().__init__(cast(Any, self._ports))
        self.stop = asyncio.Event()
        self._qemu: asyncio.subprocess.Process | None = None
        self._qmp: QemuMonitor | None = None
        self._watch: asyncio.Task[None] | None = None
        self._commands |= {
            "boot": self._boot_machine,
            "kill": self._cut_power,
            "snapshot": self._save_snapshot,
            "restore": self._restore_snapshot,
            "down": self._stop_process,
        }

    @property
    def is_running(self) -> bool:
        return self._qemu is not None and self._qemu.returncode is None

    async def start_qemu(self, restore: str = "") -> None:
        """Start QEMU. Raise ValueError if it does not start."""
        for name in ("qmp", *(f"port{number}" for number in range(1, PORTS + 1))):
            with contextlib.suppress(FileNotFoundError):
                (self._folder / name).unlink()
        with (self._folder / "qemu.log").open("wb") as log:
            try:
                self._qemu = await asyncio.create_subprocess_exec(
                    *self._command(self._port, restore),
                    cwd=self._folder,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    preexec_fn=_die_with_parent,
                )
            except FileNotFoundError:
                raise ValueError(f"{QEMU} is not installed; lab/vm/vm --help names the packages") from None
        try:
            self._qmp = await asyncio.wait_for(self._connect_monitor(self._qemu), START_SECONDS)
        except asyncio.TimeoutError:
            await self.stop_qemu()
            raise ValueError(f"QEMU did not answer within {START_SECONDS:.0f} s; see {self._folder}/qemu.log") from None
        self._watch = asyncio.create_task(self._wait_for_end(self._qemu))
        await self._ports.set_power(True)

    async def _connect_monitor(self, process: asyncio.subprocess.Process) -> QemuMonitor:
        while process.returncode is None:
            with contextlib.suppress(OSError):
                return await QemuMonitor.connect_to(self._folder / "qmp")
            await asyncio.sleep(0.02)
        output = (self._folder / "qemu.log").read_text(errors="replace").strip()
        raise ValueError(f"QEMU did not start: {output or process.returncode}")

    async def _wait_for_end(self, process: asyncio.subprocess.Process) -> None:
        """Wait until QEMU ends, by `kill` or because the guest powers off."""
        await process.wait()
        await self._ports.set_power(False)

    async def stop_qemu(self) -> None:
        """Cut the machine's power."""
        if self._qemu and self._qemu.returncode is None:
            self._qemu.kill()
            await self._qemu.wait()
        if self._qmp:
            self._qmp.close()
            self._qmp = None
        if self._watch:
            await self._watch
            self._watch = None

    # -- commands

    def _show_status(self, request: Json) -> Json:
        machine = {
            "power": "on" if self.is_running else "off",
            "pid": self._qemu.pid if self._qemu and self.is_running else None,
        }
        return {"machine": machine, **super()._show_status(request)}

    async def _boot_machine(self, request: Json) -> None:
        if self.is_running:
            raise ValueError("the machine is on")
        await self.stop_qemu()
        await self.start_qemu()

    async def _cut_power(self, request: Json) -> None:
        if not self.is_running:
            raise ValueError("the machine is off")
        await self.stop_qemu()

    async def _save_snapshot(self, request: Json) -> None:
        tag = _read_tag(request)
        if not self.is_running or not self._qmp:
            raise ValueError("the machine is off")
        if self.plugged:
            raise ValueError("unplug the UPSes first: a snapshot contains the machine only")
        await asyncio.wait_for(self._qmp.run_human_command(f"savevm {tag}"), SAVE_SECONDS)

    async def _restore_snapshot(self, request: Json) -> None:
        """Restore a snapshot. Afterwards no UPS is plugged in, and the mains are on."""
        tag = _read_tag(request)
        await self.stop_qemu()
        for port in list(self.plugged):
            self._unplug_ups({"port": port})
        self.unplugged.clear()
        self.mains = True
        await self.start_qemu(tag)

    def _stop_process(self, request: Json) -> None:
        self.stop.set()


def _read_tag(request: Json) -> str:
    tag = request.get("tag")
    if not isinstance(tag, str) or not tag or not TAG_LETTERS.issuperset(tag):
        raise ValueError(f"tag may contain a-z, 0-9 and hyphens only, not {tag!r}")
    return tag


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


async def run_machine(folder: Path, control: Path, port: int) -> None:
    """Serve a machine, which is off at first, until `down`, a signal, or the removal of the control socket."""
    loop, machine = asyncio.get_running_loop(), VirtualMachine(folder, port)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, machine.stop.set)
    with contextlib.suppress(FileNotFoundError):
        control.unlink()
    # paths of sockets must be short, so create it in the current directory and move it
    server = await asyncio.start_unix_server(
        lambda reader, writer: serve_client(machine, reader, writer), "control.new", limit=MAX_LINE
    )
    Path("control.new").chmod(0o600)
    Path("control.new").rename(control)
    # removing the lab's directory also removes the machine
    while control.exists() and not machine.stop.is_set():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(machine.stop.wait(), LOOK_SECONDS)
    server.close()
    await machine.stop_qemu()
    with contextlib.suppress(FileNotFoundError):
        control.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a virtual machine with UPSes at its USB ports.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("control", type=Path)
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    os.umask(0o077)
    control = arguments.control.resolve()
    os.chdir(arguments.folder)
    try:
        asyncio.run(run_machine(Path(), control, arguments.port))
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
