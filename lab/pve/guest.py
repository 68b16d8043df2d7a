# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process that is a guest in the lab.

Run with the name of QEMU or lxc-start, and with arguments that make Proxmox VE (and whoever looks at what it looks at) take it for
one: kvm guest.py -id ID ... -pidfile FILE -lab JSON. It notes its events, and ends when it is told to shut down, or by SIGTERM.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any


def append_moment(path: str, number: int, what: str) -> None:
    """Note an event of a guest: TIME ID started|told|down|killed, in seconds since 1970."""
    with Path(path).open("a") as file:
        file.write(f"{time.time():.3f} {number} {what}\n")


def run_guest(number: int, lab: dict[str, Any]) -> None:
    """Run until the power button is pressed (SIGUSR1), then shut down, if this guest ever does. SIGTERM ends it at once."""
    ends = set() if lab["stubborn"] else {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    append_moment(lab["moments"], number, "started")
    if signal.sigwait({signal.SIGUSR1, *ends}) == signal.SIGTERM:
        append_moment(lab["moments"], number, "killed")
        return
    append_moment(lab["moments"], number, "told")
    seconds = json.loads(Path(lab["properties"]).read_text())["shutdown"]
    end = None if seconds is None else time.monotonic() + seconds / lab["speed"]
    while end is None or time.monotonic() < end:
        left = 3600.0 if end is None else max(0.0, end - time.monotonic())
        if ends and signal.sigtimedwait(ends, left):
            append_moment(lab["moments"], number, "killed")
            return
        if not ends:
            time.sleep(left)
    append_moment(lab["moments"], number, "down")


def serve_monitor(path: str, properties: str) -> None:
    """Answer QEMU's monitor (QMP), one client at a time: query-status, system_powerdown and quit."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    hidden = place.with_name(f".{place.name}")
    hidden.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(hidden))
        server.listen()
        hidden.rename(place)  # only now, so that nobody finds a monitor that refuses
        while True:
            client = server.accept()[0]
            with client, contextlib.suppress(OSError, ValueError), client.makefile("rwb") as stream:
                _serve_client(stream, Path(properties))


def _serve_client(stream: io.BufferedRWPair, properties: Path) -> None:
    def say(words: dict[str, Any]) -> None:
        stream.write(json.dumps(words).encode() + b"\n")
        stream.flush()

    guest = json.loads(properties.read_text())
    if guest["monitor"]:
        say({"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 9}}, "capabilities": []}})
    for line in stream:
        guest = json.loads(properties.read_text())
        command = json.loads(line)["execute"]
        if not guest["monitor"]:
            continue
        if command == "query-status":
            say({"return": {"status": guest["state"], "running": guest["state"] == "running"}})
            continue
        say({"return": {}})
        if command == "quit":
            os.kill(os.getpid(), signal.SIGTERM)
        elif command == "system_powerdown" and guest["state"] == "running":
            # a VM whose processors stand still does not see its power button
            os.kill(os.getpid(), signal.SIGUSR1)


def main() -> None:
    """Be a guest."""
    words = sys.argv
    lab = json.loads(words[words.index("-lab") + 1])
    number = int(words[words.index("-id") + 1])
    with socket.socket(socket.AF_UNIX) as command:
        if lab["socket"]:
            # the command socket of lxc-start, in the abstract namespace
            command.bind(f"\0{lab['socket']}")
            command.listen()
        if lab["monitor"]:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
            threading.Thread(target=serve_monitor, args=(lab["monitor"], lab["properties"]), daemon=True).start()
        run_guest(number, lab)
        if lab["monitor"]:
            Path(lab["monitor"]).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
