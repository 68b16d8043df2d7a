#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One virtual machine, and the UPSes at its USB ports: a process that owns QEMU, with a control socket.

    machine.py FOLDER CONTROL PORT

FOLDER has disk.qcow2, disk, vmlinuz, initrd and id_ed25519.pub, and gets QEMU's sockets and logs. CONTROL is where the
control socket is made; it takes the commands of usb/emulator.py and, for the machine: boot, kill, snapshot, restore,
down. PORT on loopback leads to the machine's ssh. QEMU ends with this process.
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

from usb.emulator import Emulator, converse

from .usbredir import PORTS, Bus

Json = dict[str, Any]
QEMU = "qemu-system-x86_64"
MAX_LINE = 1 << 16
START_SECONDS = 30.0  # from QEMU's start, or a snapshot's restoring, to its first answer; 0.3 to 1 on two cores
SAVE_SECONDS = 60.0
LOOK_SECONDS = 5.0
TAG_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def qemu(port: int, restore: str = "") -> list[str]:
    """Return QEMU's command line, for a machine whose folder is the current one.

    The processor is emulated, always: where acceleration is on offer inside a virtual machine, Debian's kernel may hang.
    qemu64 has none of the newer vector instructions, which programs would prefer, and which are slow to emulate.
    The disk's cache is QEMU's default: what the guest has flushed is safe, and what it has not may be lost with QEMU.
    That is what a disk does when its power goes.
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


class Qmp:
    """QEMU's monitor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._one = reader, writer, asyncio.Lock()

    @classmethod
    async def connect(cls, path: Path) -> Qmp:
        """Connect to a monitor's socket. Raises OSError or ValueError if none is there."""
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 20)
        qmp = cls(reader, writer)
        await qmp._answer("QMP")
        await qmp.execute("qmp_capabilities")
        return qmp

    async def execute(self, name: str, **arguments: Any) -> Any:
        """Run a command; ValueError says why it failed."""
        async with self._one:
            self._writer.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
            await self._writer.drain()
            return await self._answer("return")

    async def _answer(self, key: str) -> Any:
        while True:
            line = await self._reader.readline()
            if not line:
                raise ValueError("QEMU has ended")
            message = json.loads(line)
            if "error" in message:
                raise ValueError(f"QEMU: {message['error'].get('desc')}")
            if key in message:  # else an event
                return message[key]

    async def human(self, line: str) -> None:
        """Run a command of the monitor for people, whose answer is empty if all is well."""
        said = await self.execute("human-monitor-command", **{"command-line": line})
        if said.strip():
            raise ValueError(f"QEMU: {said.strip()}")

    def close(self) -> None:
        self._writer.close()


class Machine(Emulator):
    """The commands of the emulator, for UPSes at a machine that may be off, and those of the machine itself."""

    def __init__(self, folder: Path, port: int, command: Callable[[int, str], list[str]] = qemu) -> None:
        self._folder, self._port, self._command = folder, port, command
        self._ports = Bus(folder)
        # The emulator needs of a bus what both kinds have.
        super().__init__(cast(Any, self._ports))
        self.stop = asyncio.Event()
        self._qemu: asyncio.subprocess.Process | None = None
        self._qmp: Qmp | None = None
        self._watch: asyncio.Task[None] | None = None
        self._commands |= {
            "boot": self._boot,
            "kill": self._kill,
            "snapshot": self._snapshot,
            "restore": self._restore,
            "down": self._down,
        }

    @property
    def runs(self) -> bool:
        return self._qemu is not None and self._qemu.returncode is None

    async def start(self, restore: str = "") -> None:
        """Start QEMU. ValueError says why it did not start."""
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
            self._qmp = await asyncio.wait_for(self._connected(self._qemu), START_SECONDS)
        except asyncio.TimeoutError:
            await self.end()
            raise ValueError(f"QEMU did not answer within {START_SECONDS:.0f} s; see {self._folder}/qemu.log") from None
        self._watch = asyncio.create_task(self._ended(self._qemu))
        await self._ports.power(True)

    async def _connected(self, process: asyncio.subprocess.Process) -> Qmp:
        while process.returncode is None:
            with contextlib.suppress(OSError):
                return await Qmp.connect(self._folder / "qmp")
            await asyncio.sleep(0.02)
        said = (self._folder / "qemu.log").read_text(errors="replace").strip()
        raise ValueError(f"QEMU did not start: {said or process.returncode}")

    async def _ended(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the end of QEMU, which comes by `kill` or when the guest powers itself off."""
        await process.wait()
        await self._ports.power(False)

    async def end(self) -> None:
        """Take the machine's power away, as it stands."""
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

    def _status(self, request: Json) -> Json:
        machine = {"power": "on" if self.runs else "off", "pid": self._qemu.pid if self._qemu and self.runs else None}
        return {"machine": machine, **super()._status(request)}

    async def _boot(self, request: Json) -> None:
        if self.runs:
            raise ValueError("the machine is on")
        await self.end()
        await self.start()

    async def _kill(self, request: Json) -> None:
        if not self.runs:
            raise ValueError("the machine is off")
        await self.end()

    async def _snapshot(self, request: Json) -> None:
        tag = _tag(request)
        if not self.runs or not self._qmp:
            raise ValueError("the machine is off")
        if self.plugged:
            raise ValueError("unplug the UPSes first: a snapshot is of the machine alone")
        await asyncio.wait_for(self._qmp.human(f"savevm {tag}"), SAVE_SECONDS)

    async def _restore(self, request: Json) -> None:
        """Go back to a snapshot. No UPS is plugged in then, none was, and the mains are on."""
        tag = _tag(request)
        await self.end()
        for port in list(self.plugged):
            self._unplug({"port": port})
        self.unplugged.clear()
        self.mains = True
        await self.start(tag)

    def _down(self, request: Json) -> None:
        self.stop.set()


def _tag(request: Json) -> str:
    tag = request.get("tag")
    if not isinstance(tag, str) or not tag or not TAG_LETTERS.issuperset(tag):
        raise ValueError(f"tag must be made of a-z, 0-9 and hyphens, not {tag!r}")
    return tag


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


async def run(folder: Path, control: Path, port: int) -> None:
    """Serve a machine, which is off at first, until `down`, a signal, or the end of its control socket's file."""
    loop, machine = asyncio.get_running_loop(), Machine(folder, port)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, machine.stop.set)
    with contextlib.suppress(FileNotFoundError):
        control.unlink()
    # a socket's path is short: it is made in its folder, and moved to where it belongs
    server = await asyncio.start_unix_server(
        lambda reader, writer: converse(machine, reader, writer), "control.new", limit=MAX_LINE
    )
    Path("control.new").chmod(0o600)
    Path("control.new").rename(control)
    # who removes the lab's folder has removed the machine
    while control.exists() and not machine.stop.is_set():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(machine.stop.wait(), LOOK_SECONDS)
    server.close()
    await machine.end()
    with contextlib.suppress(FileNotFoundError):
        control.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="A virtual machine with UPSes at its USB ports.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("control", type=Path)
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    os.umask(0o077)
    control = arguments.control.resolve()
    os.chdir(arguments.folder)
    try:
        asyncio.run(run(Path(), control, arguments.port))
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
