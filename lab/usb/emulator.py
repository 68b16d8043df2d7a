#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Emulate the USB hardware of a host: a bus, its UPSes, the mains, and a control socket.

    emulator.py DIR [--plug MODEL[@PORT]]...

creates DIR/bus (UMOCKDEV_DIR for the programs of the host) and DIR/control. The control socket takes one JSON object per line,
{"command": NAME, ...}, and answers each with a line: {"ok": true, ...} or {"ok": false, "error": TEXT}.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

if not __package__:  # started by its path: the package is the directory beside us
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "usb"

from .bus import PORTS, UsbBus
from .model import SETTINGS, EmulatedUps, NoAnswer, make_ups
from .profiles import PROFILES

Json = dict[str, Any]
DEFAULT_MODE = 0o666  # like root:nut 0664 of NUT's udev rules, without depending on the id of the group nut
MAX_LINE = 1 << 16


class Emulator:
    """The commands. Each takes a request and returns the answer, or raises ValueError for an invalid request."""

    def __init__(self, bus: UsbBus, make: Callable[[str, Mapping[str, Any]], EmulatedUps] = make_ups) -> None:
        self.bus = bus
        self.mains = True
        self.plugged: dict[int, EmulatedUps] = {}
        self.unplugged: dict[int, EmulatedUps] = {}  # by the port they were at
        self._make = make
        self._modes: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._commands: dict[str, Callable[[Json], Any]] = {
            "status": self._show_status,
            "models": self._list_models,
            "plug": self._plug_model,
            "unplug": self._unplug_ups,
            "replug": self._replug_ups,
            "mains": self._switch_mains,
            "set": self._set_values,
            "low": self._set_low,
            "empty": self._empty_battery,
            "hurry": self._hurry_outlets,
            "hang": self._hang_firmware,
            "unhang": self._unhang_firmware,
        }

    async def answer_line(self, line: bytes) -> Json:
        """Answer a line. Never raise, because the emulator must survive invalid requests."""
        try:
            request = json.loads(line)
            command = self._commands.get(str(request.get("command"))) if isinstance(request, dict) else None
            if command is None:
                raise ValueError(f"need an object whose `command` is one of: {', '.join(self._commands)}")
            result = command(request)
            result = await result if asyncio.iscoroutine(result) else result
            self.update_devices()
            return {"ok": True, **(result or {})}
        except Exception as error:
            expected = isinstance(error, ValueError)
            return {"ok": False, "error": str(error) if expected else f"the emulator failed: {error!r}"}

    def update_devices(self) -> None:
        """Update the devices and their clients, and schedule the next update for when an outlet is due to switch."""
        for ups in (*self.plugged.values(), *self.unplugged.values()):
            ups.update_outlets()
        for node in self.bus.nodes.values():
            node.send_pending()
        due = [ups.deadline for ups in (*self.plugged.values(), *self.unplugged.values()) if ups.deadline is not None]
        if self._timer:
            self._timer.cancel()
        # The loop's clock is time.monotonic, which is also the model's.
        self._timer = asyncio.get_running_loop().call_at(min(due), self.update_devices) if due else None

    async def plug_ups(self, ups: EmulatedUps, port: int | None, mode: int = DEFAULT_MODE) -> Json:
        """Plug a UPS in at a port, by default the first free one."""
        if port is None:
            port = next((free for free in range(1, PORTS + 1) if free not in self.plugged), None)
            if port is None:
                raise ValueError(f"all {PORTS} ports are taken")
        ups.set_mains(self.mains)
        number = await self.bus.plug_device(ups, port, mode)
        self.plugged[port], self._modes[port] = ups, mode
        self.unplugged.pop(port, None)
        ups.note_event(f"plugged in at port {port} as device {number}")
        return {"port": port, "device_number": number}

    # -- commands

    def _show_status(self, request: Json) -> Json:
        return {
            "mains": self.mains,
            "upses": [
                {"port": port, "device_number": self.bus.device_numbers[port], **ups.describe_status()}
                for port, ups in sorted(self.plugged.items())
            ],
            "unplugged": [{"port": port, **ups.describe_status()} for port, ups in sorted(self.unplugged.items())],
        }

    def _list_models(self, request: Json) -> Json:
        return {
            "models": {
                name: {
                    "id": f"{profile.identity.vendor_id:04x}:{profile.identity.product_id:04x}",
                    "manufacturer": profile.identity.manufacturer,
                    "product": profile.identity.product,
                    "serial": profile.identity.serial,
                }
                for name, profile in PROFILES.items()
            },
            "settings": {name: setting.text for name, setting in SETTINGS.items()},
        }

    async def _plug_model(self, request: Json) -> Json:
        wishes: Json = {key: request[key] for key in ("serial", "manufacturer", "product", "id") if key in request}
        mode = request.get("mode", DEFAULT_MODE)
        if not isinstance(mode, int) or not 0 <= mode <= 0o777:
            raise ValueError(f"mode must be a number from 0 to 0o777, not {mode!r}")
        ups = self._make(str(request.get("model")), wishes)
        ups.fickle = request.get("fickle") is True
        ups.unreadable_strings = request.get("unreadable_strings") is True
        return await self.plug_ups(ups, _read_port(request, "port"), mode)

    def _unplug_ups(self, request: Json) -> Json:
        port = self._one_port(request)
        self.bus.unplug_device(port)
        ups = self.unplugged[port] = self.plugged.pop(port)
        ups.note_event(f"unplugged from port {port}")
        return {"port": port}

    async def _replug_ups(self, request: Json) -> Json:
        """Unplug a UPS and plug it in again, at the same or another port; or plug in one that was unplugged."""
        source, target = _read_port(request, "port"), _read_port(request, "to")
        if source is None and not self.plugged and len(self.unplugged) == 1:
            source = next(iter(self.unplugged))
        elif source is None:
            source = self._one_port(request)
        target = source if target is None else target
        if target != source and target in self.plugged:
            raise ValueError(f"port {target} is not free")
        if source in self.plugged:
            self._unplug_ups({"port": source})
        if source not in self.unplugged:
            raise ValueError(f"nothing was ever plugged in at port {source}")
        return await self.plug_ups(self.unplugged.pop(source), target, self._modes.get(source, DEFAULT_MODE))

    def _switch_mains(self, request: Json) -> Json:
        on = request.get("on")
        if not isinstance(on, bool):
            raise ValueError("mains must be on or off")
        chosen = self._choose_upses(request)
        if _read_port(request, "port") is None:
            self.mains = on
            chosen += list(self.unplugged.values())
        for ups in chosen:
            ups.set_mains(on)
        return {}

    def _set_values(self, request: Json) -> Json:
        values = request.get("values")
        if not isinstance(values, dict) or not values:
            raise ValueError(f"nothing to set; known: {', '.join(SETTINGS)}")
        for ups in self._choose_upses(request, at_least_one=True):
            ups.set_values(values)
        return {}

    def _set_low(self, request: Json) -> Json:
        for ups in self._choose_upses(request, at_least_one=True):
            ups.force_low()
        return {}

    def _empty_battery(self, request: Json) -> Json:
        for ups in (*self._choose_upses(request), *self.unplugged.values()):
            ups.empty_battery()
        return {}

    def _hurry_outlets(self, request: Json) -> Json:
        for ups in (*self._choose_upses(request), *self.unplugged.values()):
            ups.hurry_outlets()
        return {}

    def _hang_firmware(self, request: Json) -> Json:
        try:
            hang = NoAnswer(request.get("how", "stall"))
        except ValueError:
            raise ValueError(f"hang: stall or nak, not {request.get('how')!r}") from None
        for ups in self._choose_upses(request, at_least_one=True):
            ups.set_hang(hang)
        return {}

    def _unhang_firmware(self, request: Json) -> Json:
        for ups in self._choose_upses(request, at_least_one=True):
            ups.set_hang(None)
        return {}

    # -- which UPS

    def _choose_upses(self, request: Json, at_least_one: bool = False) -> list[EmulatedUps]:
        """Return the UPS at the requested port, or all plugged-in UPSes."""
        port = _read_port(request, "port")
        if port is not None:
            if port not in self.plugged:
                raise ValueError(f"nothing is plugged in at port {port}; {self._describe_ports()}")
            return [self.plugged[port]]
        if at_least_one and not self.plugged:
            raise ValueError("no UPS is plugged in")
        return list(self.plugged.values())

    def _one_port(self, request: Json) -> int:
        port = _read_port(request, "port")
        if port is None:
            if len(self.plugged) != 1:
                raise ValueError(f"name the port; {self._describe_ports()}")
            return next(iter(self.plugged))
        return port

    def _describe_ports(self) -> str:
        plugged = ", ".join(f"{ups.profile.name} at {port}" for port, ups in sorted(self.plugged.items()))
        return f"plugged in: {plugged or 'nothing'}"


def _read_port(request: Json, key: str) -> int | None:
    port = request.get(key)
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= PORTS):
        raise ValueError(f"{key} must be a number from 1 to {PORTS}, not {port!r}")
    return port


async def serve_client(emulator: Emulator, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one client of the control socket."""
    with contextlib.suppress(OSError, ValueError):  # the client has gone, or sent an endless line
        while line := await reader.readline():
            writer.write(json.dumps(await emulator.answer_line(line)).encode() + b"\n")
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


async def run_emulator(directory: Path, plug: list[str], ready: Callable[[], None] = lambda: None) -> None:
    """Run the emulator until SIGTERM or SIGINT."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bus = UsbBus(directory / "bus")
    emulator = Emulator(bus)
    bus.on_change = emulator.update_devices
    await bus.start_bus()
    for wish in plug:
        model, _unused, port = wish.partition("@")
        await emulator.plug_ups(make_ups(model), int(port) if port else None)
    # whoever sees the socket under its name may connect: asyncio binds it some moments before it listens
    path, hidden = directory / "control", directory / "control.new"
    hidden.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(
        lambda reader, writer: serve_client(emulator, reader, writer), os.fspath(hidden), limit=MAX_LINE
    )
    hidden.chmod(0o600)
    hidden.rename(path)
    ready()
    await stop.wait()
    server.close()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    await bus.stop_bus()


def main() -> None:
    parser = argparse.ArgumentParser(description="Emulate the USB hardware of a host.")
    parser.add_argument("directory", type=Path, help="directory for bus/ and the control socket")
    parser.add_argument(
        "--plug",
        action="append",
        default=[],
        metavar="MODEL[@PORT]",
        help=f"plug in a UPS at the start; may be repeated: {', '.join(PROFILES)}",
    )
    arguments = parser.parse_args()
    os.umask(0o022)
    try:
        asyncio.run(run_emulator(arguments.directory, arguments.plug))
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
