# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is a machine still up? Probe it over the network. For guests of this host, see proxmox/running.py.

During a shutdown services stop first and the kernel last. So a machine is up as long as its kernel responds at all: with an echo
reply, or by accepting or refusing a connection.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

MakeSocket = Callable[[int, int, int], socket.socket]

PROBE_SECONDS = 1.0
"""Time limit for a probe of all machines."""

PING_SHARE = 0.2
"""Share of that limit for pings alone. Connecting every second would fill the logs of a machine that is up."""

# From Linux's include/uapi/linux/{icmp,icmpv6,in,in6,errqueue}.h; Python has no names for these
_ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}  # request, reply
_RAW_FILTER = {socket.AF_INET: (255, 1), socket.AF_INET6: (58, 1)}  # SOL_RAW ICMP_FILTER, SOL_ICMPV6 ICMPV6_FILTER
_RECVERR = {socket.AF_INET: (0, 11), socket.AF_INET6: (41, 25)}  # IP_RECVERR, IPV6_RECVERR
_ERRQUEUE = 0x2000
_FROM_ICMP = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6

# Errors with which this host's own kernel refuses to send: they say nothing about the other machine
_LOCAL_ERRORS = frozenset(
    {
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EPERM,
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENODEV,
        errno.EINVAL,
    }
)
_CONNECTED = frozenset({0, errno.EISCONN, errno.ECONNRESET})
_PACKETS = 200  # read at a time, so that a flood of packets can't outlast the time limit


@dataclass(frozen=True)
class ProbeTarget:
    """A machine to probe over the network."""

    name: str
    addresses: tuple[str, ...]  # IP addresses, not names
    ports: tuple[int, ...] = ()  # TCP ports, open or closed


@dataclass(frozen=True)
class ProbeIO:
    """The system interfaces of a probe, which tests replace."""

    make_socket: MakeSocket = socket.socket
    clock: Callable[[], float] = time.monotonic  # seconds
    interfaces: Path = Path("/sys/class/net")


SYSTEM_IO = ProbeIO()


def probe_machine(
    addresses: Sequence[str], ports: Sequence[int], seconds: float = PROBE_SECONDS, io: ProbeIO = SYSTEM_IO
) -> bool | None:
    """Return whether a machine answers; see probe_machines()."""
    return probe_machines([ProbeTarget("", tuple(addresses), tuple(ports))], seconds, io)[""]


def probe_machines(
    targets: Sequence[ProbeTarget], seconds: float = PROBE_SECONDS, io: ProbeIO = SYSTEM_IO
) -> dict[str, bool | None]:
    """Probe all machines in parallel, at most for ``seconds``; return which of them answer.

    True: an echo reply, or a port that accepts or refuses. False: silence, or a router reports it unreachable. None: unknown,
    because nothing could be sent (no route, permission or address), or it is silent and no network card of this host has a
    link. Returns early when all machines have answered.
    """
    probe = _Probe(targets, seconds, io)
    try:
        return probe.run_probe()
    finally:
        probe.close_sockets()


def has_link(interfaces: Path = SYSTEM_IO.interfaces) -> bool | None:
    """Return whether any network card has a link; None without a card, as in a container, or if the kernel does not say."""
    try:
        cards = [path for path in interfaces.iterdir() if (path / "device").exists()]
    except OSError:
        return None
    return any(_has_link(card) for card in cards) if cards else None


def _has_link(card: Path) -> bool:
    try:
        return (card / "carrier").read_text(encoding="ascii").strip() == "1"
    except (OSError, ValueError):  # reading it fails for a card that is not up
        return False


# A probe of all machines


@dataclass
class _Attempt:
    """The state of one machine's probe."""

    target: ProbeTarget
    has_sent: bool = False  # something left this host
    is_up: bool = False  # the machine has answered
    is_remote: bool = False  # the machine is reached through a network card
    sockets: set[socket.socket] = field(default_factory=set)  # of connections under way


@dataclass(frozen=True)
class _Address:
    family: int
    number: str  # spelled as in replies
    sockaddr: tuple[object, ...]  # for sendto() and connect(), with port 0
    is_loopback: bool

    def with_port(self, port: int) -> tuple[object, ...]:
        return (self.sockaddr[0], port, *self.sockaddr[2:])


def _parse_address(text: str) -> _Address | None:
    plain, _percent, zone = text.partition("%")
    try:
        number = ipaddress.ip_address(plain)
    except ValueError:
        return None
    if isinstance(number, ipaddress.IPv4Address):
        return _Address(socket.AF_INET, str(number), (str(number), 0), number.is_loopback)
    try:
        scope = (int(zone) if zone.isdigit() else socket.if_nametoindex(zone)) if zone else 0
    except (OSError, OverflowError):
        return None
    return _Address(socket.AF_INET6, str(number), (str(number), 0, 0, scope), number.is_loopback)


class _Probe:
    def __init__(self, targets: Sequence[ProbeTarget], seconds: float, io: ProbeIO) -> None:
        self.io = io
        self.began = io.clock()
        self.seconds = seconds
        self.attempts = {target.name: _Attempt(target) for target in targets}
        self.selector = selectors.DefaultSelector()
        self.pings: dict[int, _Pings] = {}

    def run_probe(self) -> dict[str, bool | None]:
        for attempt in self.attempts.values():
            self.send_pings(attempt)
        self.wait_for_answers(
            self.seconds * PING_SHARE, [attempt for attempt in self.attempts.values() if attempt.has_sent]
        )
        for attempt in self.attempts.values():
            self.start_connections(attempt)
        self.wait_for_answers(self.seconds, list(self.attempts.values()))
        link = has_link(self.io.interfaces)
        return {name: self.judge_attempt(attempt, link) for name, attempt in self.attempts.items()}

    @staticmethod
    def judge_attempt(attempt: _Attempt, link: bool | None) -> bool | None:
        if attempt.is_up:
            return True
        return None if not attempt.has_sent or (attempt.is_remote and link is False) else False

    def close_sockets(self) -> None:
        for attempt in self.attempts.values():
            self.drop_connections(attempt)
        for pings in self.pings.values():
            pings.close_sockets()
        self.selector.close()

    def drop_connections(self, attempt: _Attempt) -> None:
        for connection in attempt.sockets:
            self.selector.unregister(connection)
            connection.close()
        attempt.sockets = set()

    def send_pings(self, attempt: _Attempt) -> None:
        for address in filter(None, map(_parse_address, attempt.target.addresses)):
            attempt.is_remote |= not address.is_loopback
            if address.family not in self.pings:
                self.pings[address.family] = pings = _Pings(address.family, self.io.make_socket)
                if pings.socket:
                    self.selector.register(pings.socket, selectors.EVENT_READ)
            attempt.has_sent |= self.pings[address.family].send_request(address, attempt)

    def start_connections(self, attempt: _Attempt) -> None:
        for address in filter(None, map(_parse_address, attempt.target.addresses)):
            for port in attempt.target.ports:
                if not attempt.is_up:
                    self.try_port(attempt, address, port)

    def try_port(self, attempt: _Attempt, address: _Address, port: int) -> None:
        try:
            connection = self.io.make_socket(address.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0)
        except OSError:
            return
        try:
            connection.setblocking(False)
            connection.setsockopt(*_RECVERR[socket.AddressFamily(address.family)], 1)
            code = connection.connect_ex(address.with_port(port))
        except OSError as error:
            code = error.errno or errno.EINVAL
        if code in (errno.EINPROGRESS, errno.EALREADY):
            attempt.has_sent = True
            attempt.sockets.add(connection)
            self.selector.register(connection, selectors.EVENT_WRITE, (attempt, address))
            return
        attempt.has_sent |= code not in _LOCAL_ERRORS
        attempt.is_up |= _is_own_answer(connection, code, address)
        connection.close()

    def wait_for_answers(self, until: float, attempts: Sequence[_Attempt]) -> None:
        """Read answers until so many seconds after the start, or until none of these machines can still answer."""
        while any(not attempt.is_up and self.can_answer(attempt) for attempt in attempts):
            left = self.began + until - self.io.clock()
            if left <= 0:
                return
            for key, _events in self.selector.select(left):
                if key.data is None:
                    self.read_replies(key.fileobj)
                else:
                    self.finish_connection(key.fileobj, *key.data)

    def can_answer(self, attempt: _Attempt) -> bool:
        return bool(attempt.sockets) or any(attempt in pings.pending.values() for pings in self.pings.values())

    def read_replies(self, receiver: object) -> None:
        for pings in self.pings.values():
            if pings.socket is receiver:
                for attempt in pings.receive_replies():
                    attempt.is_up = True
                    self.drop_connections(attempt)

    def finish_connection(self, connection: object, attempt: _Attempt, address: _Address) -> None:
        if not isinstance(connection, socket.socket) or connection not in attempt.sockets:
            return  # the machine has already answered
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        is_up = _is_own_answer(connection, code, address)
        attempt.sockets.discard(connection)
        self.selector.unregister(connection)
        connection.close()
        if is_up:
            attempt.is_up = True
            self.drop_connections(attempt)


def _is_own_answer(connection: socket.socket, code: int, address: _Address) -> bool:
    """Return whether the result of connect() came from the machine itself, so that its kernel runs."""
    if code in _CONNECTED:
        return True
    return code == errno.ECONNREFUSED and _find_icmp_sender(connection, address) in (None, address.number)


def _find_icmp_sender(connection: socket.socket, address: _Address) -> str | None:
    """Return the address that refused a connection by ICMP, such as a router's; None: the machine itself did, by TCP."""
    level, kind = _RECVERR[socket.AddressFamily(address.family)]
    try:
        _data, ancillary, _flags, _from = connection.recvmsg(1, 512, _ERRQUEUE | socket.MSG_DONTWAIT)
    except OSError:
        return None
    for got_level, got_kind, data in ancillary:
        if (got_level, got_kind) != (level, kind) or len(data) < 24 or data[4] not in _FROM_ICMP:
            continue
        # struct sock_extended_err is 16 bytes, followed by the sender's sockaddr
        if address.family == socket.AF_INET:
            return socket.inet_ntop(socket.AF_INET, data[20:24])
        return socket.inet_ntop(socket.AF_INET6, data[24:40]) if len(data) >= 40 else ""
    return None


class _Pings:
    """Pings of one address family in a probe: by a raw socket, or a ping socket (SOCK_DGRAM) where raw ones are not permitted."""

    def __init__(self, family: int, make_socket: MakeSocket) -> None:
        self.family = family
        self.request, self.reply = _ECHO[socket.AddressFamily(family)]
        self.id, self.last_sequence = struct.unpack("!HH", os.urandom(4))
        self.pending: dict[tuple[str, int], _Attempt] = {}  # (address, sequence) -> whose reply is expected
        self.is_raw = True
        self.socket = self.open_socket(make_socket, socket.SOCK_RAW)
        if self.socket is None:
            self.is_raw = False
            self.socket = self.open_socket(make_socket, socket.SOCK_DGRAM)

    def open_socket(self, make_socket: MakeSocket, kind: int) -> socket.socket | None:
        protocol = socket.IPPROTO_ICMP if self.family == socket.AF_INET else socket.IPPROTO_ICMPV6
        try:
            opened = make_socket(self.family, kind | socket.SOCK_CLOEXEC, protocol)
        except OSError:
            return None
        opened.setblocking(False)
        if kind == socket.SOCK_RAW:
            # receive only echo replies, not all ICMP packets of a busy host: a set bit blocks its type
            blocked = bytearray(b"\xff" * (4 if self.family == socket.AF_INET else 32))
            word = self.reply // 32 * 4
            blocked[word : word + 4] = struct.pack("=I", 0xFFFFFFFF & ~(1 << self.reply % 32))
            with contextlib.suppress(OSError):
                opened.setsockopt(*_RAW_FILTER[socket.AddressFamily(self.family)], bytes(blocked))
        return opened

    def close_sockets(self) -> None:
        if self.socket:
            self.socket.close()

    def send_request(self, address: _Address, attempt: _Attempt) -> bool:
        """Send a request; return whether it left this host."""
        if self.socket is None:
            return False
        sequence = self.last_sequence = (self.last_sequence + 1) & 0xFFFF
        packet = _make_echo(self.request, self.id, sequence)
        try:
            self.socket.sendto(packet, address.sockaddr)
        except OSError as error:
            return error.errno not in _LOCAL_ERRORS
        self.pending[address.number, sequence] = attempt
        return True

    def receive_replies(self) -> list[_Attempt]:
        """Read the packets that have arrived; return the attempts of the machines that have answered."""
        answered: list[_Attempt] = []
        for _packet in range(_PACKETS):
            if self.socket is None:
                break
            try:
                data, sender = self.socket.recvfrom(2048)
            except BlockingIOError:
                break
            except OSError:  # an earlier request was reported undeliverable
                continue
            attempt = self.match_reply(data, str(sender[0]).partition("%")[0])
            answered += [attempt] if attempt else []
        return answered

    def match_reply(self, data: bytes, sender: str) -> _Attempt | None:
        if self.is_raw and self.family == socket.AF_INET:
            # a raw IPv4 socket delivers the IP header, whose length is in its first byte
            data = data[(data[0] & 15) * 4 :] if data and data[0] >> 4 == 4 else b""
        if len(data) < 8:
            return None
        kind, code, _checksum, number, sequence = struct.unpack("!BBHHH", data[:8])
        # on a ping socket the kernel has replaced the id, and delivers only matching replies
        if (kind, code) != (self.reply, 0) or (self.is_raw and number != self.id):
            return None
        return self.pending.pop((sender, sequence), None)


def _make_echo(kind: int, number: int, sequence: int) -> bytes:
    body = struct.pack("!HH", number, sequence) + b"homelab.nut"
    head = struct.pack("!BBH", kind, 0, 0)
    return struct.pack("!BBH", kind, 0, _internet_checksum(head + body)) + body


def _internet_checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071. For IPv6 the kernel overwrites it, as it covers the addresses, too."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
