# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process of upsd, observed and helped from outside: its activity, its full connections, and how to close them.

upsd 2.8.0 and 2.8.1 have one thread, and write to clients without a time limit. So root copies the descriptors of upsd's
sockets (pidfd_getfd(2), Linux 5.6, with CAP_SYS_PTRACE): an option that is set on a copy applies to the socket. This needs no
other program and no parsing of its output, nor the kernel option without which `ss -K` has no effect.
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
"""Time limit for a write of upsd to a client whose buffer is full. The kernel rounds it up to its tick, 1 to 10 ms."""

_PIDFD_GETFD = 438  # the system call's number on all architectures of Debian
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")  # include/uapi/linux/sock_diag.h: SK_MEMINFO_*
_TIMEVAL = struct.Struct("ll")
_LINGER = struct.Struct("ii")
_BACKLOG_OFFSET = (
    24  # of tcpi_unacked in struct tcp_info; for a listening socket, the number of connections not accepted yet
)
_TCP_INFO_BYTES = 28


class ProcessEnded(Exception):
    """The process has ended."""


class SocketAccessDenied(Exception):
    """The kernel, or a container, denies this process access to upsd's sockets; the message says why."""


@dataclass(frozen=True)
class Activity:
    """The activity of a process."""

    state: str  # the kernel's letter: R, S, D, T, t, Z
    ticks: int  # of processor time so far
    age: float  # seconds


@dataclass(frozen=True)
class ClientConnection:
    """A client's connection to upsd."""

    inode: int  # of the socket
    address: str
    port: int
    unread: int  # bytes that upsd has not read yet
    queued: int  # bytes that the client has not received yet, including the kernel's overhead
    room: int  # bytes that can be queued

    @property
    def is_full(self) -> bool:
        """Return whether upsd has to wait before it can write. The kernel wakes a writer at two thirds."""
        return self.queued * 3 >= self.room * 2

    def __str__(self) -> str:
        """Return the client's address and port."""
        return join_host(self.address, self.port)


@dataclass(frozen=True)
class Sockets:
    """The TCP sockets of upsd."""

    connections: tuple[ClientConnection, ...]
    waiting: int  # connections that upsd has not accepted yet

    @property
    def has_work(self) -> bool:
        """Return whether upsd has a connection to accept, or a command to read."""
        return bool(self.waiting) or any(connection.unread for connection in self.connections)


class UpsdProcess:
    """A running upsd. Methods raise ProcessEnded if it has ended, and SocketAccessDenied."""

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        """Open a pidfd, so that this object never refers to another process that reuses the id."""
        self.pid, self._folder = pid, proc / str(pid)
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise ProcessEnded from None
        except (AttributeError, OSError) as error:
            raise SocketAccessDenied(f"pidfd_open: {getattr(error, 'strerror', error)}") from None

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self._pidfd)

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def read_activity(self) -> Activity:
        """Return the current activity of the process."""
        try:
            text = (self._folder / "stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessEnded from None
        return parse_stat(text, os.sysconf("SC_CLK_TCK"), read_boottime())

    def limit_write_time(self) -> None:
        """Set the time limit for writes on all TCP sockets of upsd. Connections that it accepts later inherit it."""
        for _inode, copy in self._copy_sockets():
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, SEND_MICROSECONDS))

    def read_sockets(self) -> Sockets:
        """Return the sockets of upsd."""
        connections, waiting = [], 0
        for inode, copy in self._copy_sockets():
            with contextlib.suppress(OSError):  # it may have been closed meanwhile
                if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    waiting += _count_waiting(copy)
                else:
                    connections.append(_read_connection(inode, copy))
        return Sockets(tuple(connections), waiting)

    def close_connections(self, inodes: frozenset[int]) -> None:
        """Close connections at once, dropping queued data. upsd's next write fails, and it drops the client."""
        for inode, copy in self._copy_sockets():
            if inode in inodes:
                with contextlib.suppress(OSError):
                    copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))
                    copy.shutdown(socket.SHUT_RDWR)

    def _copy_sockets(self) -> Iterator[tuple[int, socket.socket]]:
        # not through /proc/PID/fd: nut owns that folder, and in a container root may lack the capability to read it
        for number in range(self._table_size()):
            descriptor = self._copy_descriptor(number)
            if descriptor is None:
                continue
            about = os.fstat(descriptor)
            if not stat.S_ISSOCK(about.st_mode):
                os.close(descriptor)
                continue
            with socket.socket(fileno=descriptor) as copy:
                if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM:
                    yield about.st_ino, copy

    def _table_size(self) -> int:
        """Return the size of the process's descriptor table; all descriptors are below it."""
        try:
            return int(read_status(self._folder)["FDSize"])
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessEnded from None

    def _copy_descriptor(self, number: int) -> int | None:
        """Return a copy of a descriptor of the process; None if it is not open."""
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
    """Read the text of /proc/PID/stat. The name of the process, in brackets, may contain anything."""
    fields = text[text.rindex(")") + 2 :].split()
    return Activity(fields[0], int(fields[11]) + int(fields[12]), uptime - int(fields[19]) / ticks_per_second)


def _count_waiting(listener: socket.socket) -> int:
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int(struct.unpack_from("I", info, _BACKLOG_OFFSET)[0])


def _read_connection(inode: int, connection: socket.socket) -> ClientConnection:
    address, port = connection.getpeername()[:2]
    memory = _MEMINFO.unpack(connection.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    unread = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]
    return ClientConnection(inode, normal_address(address), port, unread, queued=memory[5], room=memory[3])
