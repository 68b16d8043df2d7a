# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits for the other side of a connection: one deadline for a whole exchange, and a limit for how much it may send.

A socket's timeout only limits each read: a peer that sends a byte a second keeps a reader for ever, and for a peer that
announces a frame of a terabyte, a library allocates the memory.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


class TooMuch(Exception):
    """The other side has sent more than the limit."""


class Deadline:
    """The moment by which an exchange must end."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._ends = clock() + seconds

    def seconds_left(self) -> float:
        """Return the seconds left, more than 0. Raises socket.timeout when the time is up."""
        left = self._ends - self._clock()
        if left <= 0:
            raise socket.timeout("timed out")  # TimeoutError is another class on Python 3.9
        return left


class BoundedStream:
    """A connected socket with a deadline for all reads and writes and a limit for the received bytes, for websocket-client."""

    def __init__(self, stream: socket.socket, deadline: Deadline, size: int) -> None:
        self._stream = stream
        self._deadline = deadline
        self._room = size

    def allow_exchange(self, seconds: float, size: int) -> None:
        """Begin the next exchange: it may take `seconds`, and the other side may send `size` bytes."""
        self._deadline = Deadline(seconds)
        self._room = size

    def recv(self, size: int) -> bytes:
        """Read at most `size` bytes. Raises socket.timeout and TooMuch."""
        self._stream.settimeout(self._deadline.seconds_left())
        data = self._stream.recv(size)
        self._room -= len(data)
        if self._room < 0:
            raise TooMuch
        return data

    def send(self, data: bytes) -> int:
        """Write some of the data, and return how many bytes. Raises socket.timeout."""
        self._stream.settimeout(self._deadline.seconds_left())
        return self._stream.send(data)

    def settimeout(self, seconds: float | None) -> None:
        """Ignore the timeout that a library sets: the deadline counts."""

    def gettimeout(self) -> float | None:
        """Return the timeout of the last read or write."""
        return self._stream.gettimeout()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._stream.fileno()

    def shutdown(self, how: int) -> None:
        """Shut the connection down."""
        self._stream.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self._stream.close()
