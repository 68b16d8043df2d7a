# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for upsd that can be blocked, for tests of nut-watch: a single-threaded process whose writes block."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import watch, watch_loop

SECONDS = 60  # time limit of all waits, also on a busy machine

# like upsd: poll, read at most 512 bytes, answer each line by a blocking write, and drop a client if a write fails
UPSD = r"""
import select, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
clients, silent = {}, set()
statuses = sys.argv[2].encode().split(b",")
def answer(line):
    if line == b"BURN":
        end = time.process_time() + 3
        while time.process_time() < end: pass
    if line == b"VER": return b"Network UPS Tools upsd %s - https://www.networkupstools.org/\n" % sys.argv[3].encode()
    if line == b"LIST UPS": return b"BEGIN LIST UPS\n%sEND LIST UPS\n" % b"".join(b'UPS ups%d "a"\n' % n for n in range(len(statuses)))
    if line.startswith(b"GET VAR"):
        if line.split()[2] in silent: time.sleep(99999)
        status = statuses[int(line.split()[2][3:])]
        return b'VAR %s ups.status "%s"\n' % (line.split()[2], status) if status else b"ERR DATA-STALE\n"
    if line.startswith(b"HANG"): silent.add(line.split()[1])
    if line.startswith(b"STATUS"): statuses[:] = line[7:].split(b",")
    if line.startswith(b"LIST VAR"): return b'VAR ups some.name "some value"\n' * 60
    return b"ERR UNKNOWN-COMMAND\n"
while True:
    for ready in select.select([listener, *clients], [], [])[0]:
        if ready is listener:
            clients[listener.accept()[0]] = b""
            continue
        try:
            data = ready.recv(512)
            lines = (clients[ready] + data).split(b"\n")
            clients[ready] = lines.pop()
            for line in lines:
                text = answer(line)
                if ready.send(text) != len(text): data = b""
        except OSError:
            data = b""
        if not data:
            ready.close()
            del clients[ready]
"""


class BlockedHost:
    """A host with such an upsd, and the part of systemctl that nut-watch uses."""

    def __init__(self, folder: Path, status: str, release: str = "2.8.1") -> None:
        """status: of each UPS, separated by commas; an empty one means stale data."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.conf = folder / "upsd.conf"
        self.conf.write_text(f"LISTEN 127.0.0.1 {self.port}\n")
        self.status, self.release, self.told = status, release, list[str]()
        self.upsd: subprocess.Popen[bytes] | None = None
        self.lines, self.saved, self.saves = list[str](), "", 0
        self.start_upsd()

    def start_upsd(self) -> None:
        command = [sys.executable, "-c", UPSD, str(self.port), self.status, self.release]
        self.upsd = subprocess.Popen(command, stderr=subprocess.PIPE)
        wait_until(lambda: watch_loop.is_open("127.0.0.1", self.port), "the stand-in listens")

    def stop_upsd(self) -> None:
        if self.upsd:
            self.upsd.kill()
            self.upsd.wait()
            self.upsd = None

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        if command[1] == "show":
            pid = self.upsd.pid if self.upsd else 0
            active = "active" if pid else "inactive"
            return 0, f"Id=nut-server.service\nLoadState=loaded\nActiveState={active}\nMainPID={pid}\n"
        self.told.append(" ".join(command))
        if command[1] == "restart":
            self.stop_upsd()
            self.start_upsd()
        return 0, ""

    def make_watcher(self, memory: watch.WatchMemory | None = None) -> watch_loop.UpsdWatcher:
        def save(text: str) -> None:
            self.saved = text
            self.saves += 1

        return watch_loop.UpsdWatcher(
            self.conf, memory or watch.WatchMemory("b"), log=self.lines.append, save=save, run=self, alive=lambda: None
        )

    def send_order(self, line: str) -> None:
        """Send the stand-in an order."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(f"{line}\n".encode())
            connection.recv(100)

    def block_upsd(self) -> socket.socket:
        """Return a connection that has sent many commands and reads no answer."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.settimeout(1)
        try:
            while True:
                connection.sendall(b"LIST VAR ups\n" * 39)
        except socket.timeout:
            return connection


def wait_until(condition: object, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def run_rounds_until(watcher: watch_loop.UpsdWatcher, condition: object, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        watcher.run_round()


def is_answering(host: BlockedHost, seconds: float = 0.5) -> bool:
    with socket.create_connection(("127.0.0.1", host.port)) as connection:
        connection.settimeout(seconds)
        connection.sendall(b"VER\n")
        try:
            return connection.recv(100).startswith(b"Network UPS Tools")
        except OSError:
            return False


def list_kinds(watcher: watch_loop.UpsdWatcher) -> list[str]:
    return [event.kind for event in watcher.memory.events]
