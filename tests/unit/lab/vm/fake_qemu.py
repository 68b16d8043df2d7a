# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for QEMU: `fake_qemu.py FOLDER [TAG]` has a monitor and ports, and notes what it was told in FOLDER/told."""

from __future__ import annotations

import json
import selectors
import socket
import sys
from pathlib import Path

FOLDER, TAG = Path(sys.argv[1]), "".join(sys.argv[2:])
if TAG == "missing":
    sys.exit("Snapshot 'missing' does not exist")


def listen(name: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(name)
    server.listen()
    return server


def note(text: str) -> None:
    with (FOLDER / "told").open("a") as file:
        file.write(text + "\n")


def main() -> None:
    note(f"start {TAG}".strip())
    select = selectors.DefaultSelector()
    for number in range(1, 9):
        select.register(listen(f"port{number}"), selectors.EVENT_READ, number)
    monitor = listen("qmp.new")
    Path("qmp.new").rename("qmp")
    link, _unused = monitor.accept()
    stream = link.makefile("rwb", buffering=0)
    if TAG == "mute":
        link.recv(1)
        return
    stream.write(b'{"QMP": {"version": {}}}\n')
    select.register(link, selectors.EVENT_READ, 0)
    while True:
        for key, _events in select.select():
            if key.data:
                client, _unused = key.fileobj.accept()
                note(f"plug {key.data}")
                clients.append(client)
                continue
            line = stream.readline()
            if not line:
                return
            request = json.loads(line)
            if request["execute"] == "human-monitor-command":
                words = request["arguments"]["command-line"]
                note(words)
                stream.write(b'{"event": "STOP"}\n{"event": "RESUME"}\n')
                answer = {"return": "Error: no room\r\n" if words.endswith(" full") else ""}
            else:
                answer = {"return": {}}
            stream.write(json.dumps(answer).encode() + b"\n")


clients: list[socket.socket] = []
main()
