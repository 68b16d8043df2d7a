# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits for what the other side may take: one deadline for a whole exchange, and a bound for what it may send.

A timeout of a socket is for each read alone: who sends a byte a second keeps a reader for ever, and who announces a frame of
a terabyte gets the memory for it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


class TooMuch(Exception):
    """The other side has sent more than it may."""


class Deadline:
    """The moment by which all must be done."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._ends = clock() + seconds

    def seconds_left(self) -> float:
        """Return the seconds that are left, more than 0. Raises socket.timeout when there are none."""
        left = self._ends - self._clock()
        if left <= 0:
            raise socket.timeout("timed out")  # TimeoutError is another class on Python 3.9
        return left


class BoundedStream:
    """A connected socket, as websocket-client uses one, with a deadline for all reads and writes and a bound for what comes."""

    def __init__(self, stream: socket.socket, deadline: Deadline, size: int) -> None:
        self._stream = stream
        self._deadline = deadline
        self._room = size

    def allow_exchange(self, seconds: float, size: int) -> None:
        """Begin the next exchange: so many seconds, and so many bytes of the other side's."""
        self._deadline = Deadline(seconds)
        self._room = size

    def recv(self, size: int) -> bytes:
        """Read at most SIZE bytes. Raises socket.timeout and TooMuch."""
        self._stream.settimeout(self._deadline.seconds_left())
        data = self._stream.recv(size)
        self._room -= len(data)
        if self._room < 0:
            raise TooMuch
        return data

    def send(self, data: bytes) -> int:
        """Write some of it, and return how much. Raises socket.timeout."""
        self._stream.settimeout(self._deadline.seconds_left())
        return self._stream.send(data)

    def settimeout(self, seconds: float | None) -> None:
        """Ignore what a library wishes: the deadline counts."""

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
