# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process of upsd, seen and helped from outside: whether it works, which of its connections are full, and closing these.

upsd (2.8.0 and 2.8.1) has one thread, and writes to its clients without a time limit. So root takes a copy of its sockets'
descriptors (pidfd_getfd(2), Linux 5.6, with CAP_SYS_PTRACE): what is set on the copy holds for the socket. This needs no
program, no parsing of what one prints, and not the kernel option without which `ss -K` does nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..base.clock import read_boottime
from ..base.hostnames import join_host, normal_address
from ..base.process import read_status

SEND_MICROSECONDS = 1000
"""How long upsd may wait to write to a client whose buffer is full. The kernel rounds it up to its tick, 1 to 10 ms."""

_PIDFD_GETFD = 438  # the same number on every architecture that Debian has
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")  # include/uapi/linux/sock_diag.h: SK_MEMINFO_*
_TIMEVAL = struct.Struct("ll")
_LINGER = struct.Struct("ii")
_BACKLOG_OFFSET = 24  # of tcpi_unacked in struct tcp_info; of a listening socket, how many wait to be accepted
_TCP_INFO_BYTES = 28


class ProcessEnded(Exception):
    """The process has ended."""


class SocketAccessDenied(Exception):
    """The kernel, or a container, does not let this process see another one's sockets; the message says why."""


@dataclass(frozen=True)
class Activity:
    """What a process does. state: the kernel's letter (R, S, D, T, t, Z). ticks: processor time so far. age: seconds."""

    state: str
    ticks: int
    age: float


@dataclass(frozen=True)
class ClientConnection:
    """A client's connection to upsd. inode: the socket's number. unread, queued, room: bytes."""

    inode: int
    address: str
    port: int
    unread: int  # that upsd has not read yet
    queued: int  # that the client has not taken yet, with the kernel's overhead
    room: int  # for what is queued

    @property
    def is_full(self) -> bool:
        """Return whether upsd has to wait before it can write. The kernel wakes a writer at two thirds."""
        return self.queued * 3 >= self.room * 2

    def __str__(self) -> str:
        """Return the client's address and port."""
        return join_host(self.address, self.port)


@dataclass(frozen=True)
class Sockets:
    """The TCP sockets of upsd. waiting: connections that it has not accepted yet."""

    connections: tuple[ClientConnection, ...]
    waiting: int

    @property
    def has_work(self) -> bool:
        """Return whether somebody waits for upsd: with a connection, or with a command that it has not read."""
        return bool(self.waiting) or any(connection.unread for connection in self.connections)


class UpsdProcess:
    """A running upsd. Raises Gone when it has ended, NotAllowed where its sockets can't be had."""

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        """Hold on to a process: its number may be another one's later, but not for this object."""
        self.pid, self._folder = pid, proc / str(pid)
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise ProcessEnded from None
        except (AttributeError, OSError) as error:
            raise SocketAccessDenied(f"pidfd_open: {getattr(error, 'strerror', error)}") from None

    def close(self) -> None:
        """Let go of it."""
        os.close(self._pidfd)

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def read_activity(self) -> Activity:
        """Return what the process does now."""
        try:
            text = (self._folder / "stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessEnded from None
        return parse_stat(text, os.sysconf("SC_CLK_TCK"), read_boottime())

    def limit_write_time(self) -> None:
        """Give upsd a time limit for its writes: on each TCP socket, and so on each one that it accepts from now on."""
        for _inode, found in self._tcp_sockets():
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, SEND_MICROSECONDS))

    def read_sockets(self) -> Sockets:
        """Return the connections of its clients, and how many wait to be accepted."""
        connections, waiting = [], 0
        for inode, found in self._tcp_sockets():
            with contextlib.suppress(OSError):  # one that has just been closed
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    waiting += _count_waiting(found)
                else:
                    connections.append(_read_connection(inode, found))
        return Sockets(tuple(connections), waiting)

    def close_connections(self, inodes: frozenset[int]) -> None:
        """Close connections at once. upsd's write fails then, and it forgets the client; what was queued is thrown away."""
        for inode, found in self._tcp_sockets():
            if inode in inodes:
                with contextlib.suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))
                    found.shutdown(socket.SHUT_RDWR)

    def _tcp_sockets(self) -> Iterator[tuple[int, socket.socket]]:
        # not by /proc/PID/fd: that folder is nut's alone, and root may lack the capability to look into it, as in containers
        for number in range(self._table_size()):
            descriptor = self._copy_descriptor(number)
            if descriptor is None:
                continue
            about = os.fstat(descriptor)
            if not stat.S_ISSOCK(about.st_mode):
                os.close(descriptor)
                continue
            with socket.socket(fileno=descriptor) as found:
                if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
                    yield about.st_ino, found

    def _table_size(self) -> int:
        """Return how many descriptors the kernel has room for in the process: no number is higher."""
        try:
            return int(read_status(self._folder)["FDSize"])
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessEnded from None

    def _copy_descriptor(self, number: int) -> int | None:
        """Return a copy of a descriptor of the process; None if it has none of this number."""
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.syscall(_PIDFD_GETFD, self._pidfd, number, 0)
        if descriptor >= 0:
            return int(descriptor)
        code = ctypes.get_errno()
        if code == errno.EBADF:
            return None
        if code == errno.ESRCH:
            raise ProcessEnded
        raise SocketAccessDenied(f"pidfd_getfd: {os.strerror(code)}")


def parse_stat(text: str, ticks_per_second: int, uptime: float) -> Activity:
    """Read /proc/PID/stat. The name of the process, in brackets, may hold anything."""
    fields = text[text.rindex(")") + 2 :].split()
    return Activity(fields[0], int(fields[11]) + int(fields[12]), uptime - int(fields[19]) / ticks_per_second)


def _count_waiting(listener: socket.socket) -> int:
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int(struct.unpack_from("I", info, _BACKLOG_OFFSET)[0])


def _read_connection(inode: int, found: socket.socket) -> ClientConnection:
    address, port = found.getpeername()[:2]
    memory = _MEMINFO.unpack(found.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    unread = struct.unpack("i", fcntl.ioctl(found, termios.FIONREAD, b"\0" * 4))[0]
    return ClientConnection(inode, normal_address(address), port, unread, queued=memory[5], room=memory[3])
