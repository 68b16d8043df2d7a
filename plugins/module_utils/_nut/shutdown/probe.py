# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is a machine still up? Its network stack is asked, or, where it is a guest of this host, Proxmox VE.

A machine that goes down closes its services first and its kernel last. So it counts as up while its kernel says anything
at all: an echo, a connection, or the refusal of one.
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

from ..base.systemd import Run

Make = Callable[[int, int, int], socket.socket]

PROBE_SECONDS = 1.0
"""How long one look takes at most."""

HEAD_START = 0.2
"""Part of a look for which an echo alone is waited for. A connection each second would fill the logs of a machine that is up."""

# Linux: include/uapi/linux/{icmp,icmpv6,in,in6,errqueue}.h. Python has no names for these.
_ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}  # request, reply
_RAW_FILTER = {socket.AF_INET: (255, 1), socket.AF_INET6: (58, 1)}  # SOL_RAW ICMP_FILTER, SOL_ICMPV6 ICMPV6_FILTER
_RECVERR = {socket.AF_INET: (0, 11), socket.AF_INET6: (41, 25)}  # IP_RECVERR, IPV6_RECVERR
_ERRQUEUE = 0x2000
_FROM_ICMP = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6

# What this host itself says at once when it can't even send.
_OWN = frozenset(
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
_ALIVE = frozenset({0, errno.EISCONN, errno.ECONNRESET})
_PACKETS = 200  # read at once; whoever floods us shall not keep us from the clock


@dataclass(frozen=True)
class ProbeTarget:
    """A machine to ask: its addresses (numbers, no names), and TCP ports, some of which may be closed."""

    name: str
    addresses: tuple[str, ...]
    ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class ProbeIO:
    """What a look touches: how sockets are made, which clock (s) ends it, where the kernel lists the interfaces."""

    make: Make = socket.socket
    clock: Callable[[], float] = time.monotonic
    interfaces: Path = Path("/sys/class/net")


SYSTEM_IO = ProbeIO()


def probe_machine(
    addresses: Sequence[str], ports: Sequence[int], seconds: float = PROBE_SECONDS, edge: ProbeIO = SYSTEM_IO
) -> bool | None:
    """Say whether one machine answers; see look()."""
    return probe_machines([ProbeTarget("", tuple(addresses), tuple(ports))], seconds, edge)[""]


def probe_machines(
    targets: Sequence[ProbeTarget], seconds: float = PROBE_SECONDS, edge: ProbeIO = SYSTEM_IO
) -> dict[str, bool | None]:
    """Ask all machines at once, at most for ``seconds``, and say which of them answer.

    True: an echo came back, or a port accepts, or refuses. False: silence, or somebody else said that it can't be
    reached. None: nobody can tell, because nothing could be sent (no route, no permission, no address), or because it is
    silent and no network card of this host has a link. Returns early when all have answered.
    """
    probe = _Probe(targets, seconds, edge)
    try:
        return probe.run_probe()
    finally:
        probe.close_sockets()


def has_link(interfaces: Path = SYSTEM_IO.interfaces) -> bool | None:
    """Say whether any network card has a link. None where there is no card, as in a container, or the kernel does not say."""
    try:
        cards = [path for path in interfaces.iterdir() if (path / "device").exists()]
    except OSError:
        return None
    return any(_has_link(card) for card in cards) if cards else None


def _has_link(card: Path) -> bool:
    try:
        return (card / "carrier").read_text(encoding="ascii").strip() == "1"
    except (OSError, ValueError):  # the kernel refuses to say it of a card that is not up
        return False


def is_guest_running(run: Run, kind: str, number: int) -> bool | None:
    """Ask Proxmox VE whether a guest of this host runs. kind: "qm" or "pct". None: it does not say."""
    code, said = run([kind, "status", str(number)])
    word = said.partition("status:")[2].split()[:1]
    if code or word not in (["running"], ["stopped"]):
        return None
    return word == ["running"]


# One look


@dataclass
class _Attempt:
    """What became of one machine: attempts under way, and whether anything at all was sent."""

    target: ProbeTarget
    sent: bool = False
    alive: bool = False
    far: bool = False  # it is reached by a network card
    sockets: set[socket.socket] = field(default_factory=set)


@dataclass(frozen=True)
class _Address:
    family: int
    number: str  # in the spelling that replies have
    place: tuple[object, ...]  # as sendto() and connect() want it, with port 0
    loopback: bool

    def with_port(self, port: int) -> tuple[object, ...]:
        return (self.place[0], port, *self.place[2:])


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
    def __init__(self, targets: Sequence[ProbeTarget], seconds: float, edge: ProbeIO) -> None:
        self.edge = edge
        self.begin = edge.clock()
        self.seconds = seconds
        self.asked = {target.name: _Attempt(target) for target in targets}
        self.selector = selectors.DefaultSelector()
        self.pings: dict[int, _Pings] = {}

    def run_probe(self) -> dict[str, bool | None]:
        for attempt in self.asked.values():
            self.send_pings(attempt)
        self.wait_for_answers(self.seconds * HEAD_START, [attempt for attempt in self.asked.values() if attempt.sent])
        for attempt in self.asked.values():
            self.start_connections(attempt)
        self.wait_for_answers(self.seconds, list(self.asked.values()))
        link = has_link(self.edge.interfaces)
        return {name: self.judge_attempt(attempt, link) for name, attempt in self.asked.items()}

    @staticmethod
    def judge_attempt(attempt: _Attempt, link: bool | None) -> bool | None:
        if attempt.alive:
            return True
        return None if not attempt.sent or (attempt.far and link is False) else False

    def close_sockets(self) -> None:
        for attempt in self.asked.values():
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
            attempt.far |= not address.loopback
            if address.family not in self.pings:
                self.pings[address.family] = pings = _Pings(address.family, self.edge.make)
                if pings.socket:
                    self.selector.register(pings.socket, selectors.EVENT_READ)
            attempt.sent |= self.pings[address.family].send_request(address, attempt)

    def start_connections(self, attempt: _Attempt) -> None:
        for address in filter(None, map(_parse_address, attempt.target.addresses)):
            for port in attempt.target.ports:
                if not attempt.alive:
                    self.try_port(attempt, address, port)

    def try_port(self, attempt: _Attempt, address: _Address, port: int) -> None:
        try:
            connection = self.edge.make(address.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0)
        except OSError:
            return
        try:
            connection.setblocking(False)
            connection.setsockopt(*_RECVERR[socket.AddressFamily(address.family)], 1)
            code = connection.connect_ex(address.with_port(port))
        except OSError as error:
            code = error.errno or errno.EINVAL
        if code in (errno.EINPROGRESS, errno.EALREADY):
            attempt.sent = True
            attempt.sockets.add(connection)
            self.selector.register(connection, selectors.EVENT_WRITE, (attempt, address))
            return
        attempt.sent |= code not in _OWN
        attempt.alive |= _says_life(connection, code, address)
        connection.close()

    def wait_for_answers(self, until: float, attempts: Sequence[_Attempt]) -> None:
        """Read what comes until that many seconds after the begin, or until each of these machines has answered."""
        while any(not attempt.alive and self.can_answer(attempt) for attempt in attempts):
            left = self.begin + until - self.edge.clock()
            if left <= 0:
                return
            for key, _events in self.selector.select(left):
                if key.data is None:
                    self.read_replies(key.fileobj)
                else:
                    self.finish_connection(key.fileobj, *key.data)

    def can_answer(self, attempt: _Attempt) -> bool:
        return bool(attempt.sockets) or any(attempt in pings.waits.values() for pings in self.pings.values())

    def read_replies(self, receiver: object) -> None:
        for pings in self.pings.values():
            if pings.socket is receiver:
                for attempt in pings.receive_replies():
                    attempt.alive = True
                    self.drop_connections(attempt)

    def finish_connection(self, connection: object, attempt: _Attempt, address: _Address) -> None:
        if not isinstance(connection, socket.socket) or connection not in attempt.sockets:
            return  # its machine has answered meanwhile
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        alive = _says_life(connection, code, address)
        attempt.sockets.discard(connection)
        self.selector.unregister(connection)
        connection.close()
        if alive:
            attempt.alive = True
            self.drop_connections(attempt)


def _says_life(connection: socket.socket, code: int, address: _Address) -> bool:
    """Say whether the end of a connection's beginning shows that the machine's kernel runs."""
    if code in _ALIVE:
        return True
    return code == errno.ECONNREFUSED and _refused_by(connection, address) in (None, address.number)


def _refused_by(connection: socket.socket, address: _Address) -> str | None:
    """Return who refused by ICMP: a gateway may speak for a machine that is down. None: the machine itself did, by TCP."""
    level, kind = _RECVERR[socket.AddressFamily(address.family)]
    try:
        _data, ancillary, _flags, _from = connection.recvmsg(1, 512, _ERRQUEUE | socket.MSG_DONTWAIT)
    except OSError:
        return None
    for got_level, got_kind, data in ancillary:
        if (got_level, got_kind) != (level, kind) or len(data) < 24 or data[4] not in _FROM_ICMP:
            continue
        # struct sock_extended_err is 16 bytes, then comes the sender's sockaddr
        if address.family == socket.AF_INET:
            return socket.inet_ntop(socket.AF_INET, data[20:24])
        return socket.inet_ntop(socket.AF_INET6, data[24:40]) if len(data) >= 40 else ""
    return None


class _Pings:
    """Echo requests of one look, of one family: a raw socket, or where that is not permitted one that the kernel minds."""

    def __init__(self, family: int, make: Make) -> None:
        self.family = family
        self.request, self.reply = _ECHO[socket.AddressFamily(family)]
        self.id, self.next = struct.unpack("!HH", os.urandom(4))
        # (address, sequence) -> the machine that shall answer
        self.waits: dict[tuple[str, int], _Attempt] = {}
        self.raw = True
        self.socket = self.open_socket(make, socket.SOCK_RAW)
        if self.socket is None:
            self.raw = False
            self.socket = self.open_socket(make, socket.SOCK_DGRAM)

    def open_socket(self, make: Make, kind: int) -> socket.socket | None:
        protocol = socket.IPPROTO_ICMP if self.family == socket.AF_INET else socket.IPPROTO_ICMPV6
        try:
            opened = make(self.family, kind | socket.SOCK_CLOEXEC, protocol)
        except OSError:
            return None
        opened.setblocking(False)
        if kind == socket.SOCK_RAW:
            # else each packet of a busy host's ICMP is ours to read
            some = bytearray(b"\xff" * (4 if self.family == socket.AF_INET else 32))
            word = self.reply // 32 * 4
            some[word : word + 4] = struct.pack("=I", 0xFFFFFFFF & ~(1 << self.reply % 32))
            with contextlib.suppress(OSError):
                opened.setsockopt(*_RAW_FILTER[socket.AddressFamily(self.family)], bytes(some))
        return opened

    def close_sockets(self) -> None:
        if self.socket:
            self.socket.close()

    def send_request(self, address: _Address, attempt: _Attempt) -> bool:
        """Send a request; say whether it left this host."""
        if self.socket is None:
            return False
        sequence = self.next = (self.next + 1) & 0xFFFF
        packet = _make_echo(self.request, self.id, sequence)
        try:
            self.socket.sendto(packet, address.place)
        except OSError as error:
            return error.errno not in _OWN
        self.waits[address.number, sequence] = attempt
        return True

    def receive_replies(self) -> list[_Attempt]:
        """Read what is there; return the machines that have answered."""
        found: list[_Attempt] = []
        for _packet in range(_PACKETS):
            if self.socket is None:
                break
            try:
                data, sender = self.socket.recvfrom(2048)
            except BlockingIOError:
                break
            except OSError:  # an unreachable address is told here, too
                continue
            attempt = self.match_reply(data, str(sender[0]).partition("%")[0])
            found += [attempt] if attempt else []
        return found

    def match_reply(self, data: bytes, sender: str) -> _Attempt | None:
        if self.raw and self.family == socket.AF_INET:
            # with its header, the length of which stands in it
            data = data[(data[0] & 15) * 4 :] if data and data[0] >> 4 == 4 else b""
        if len(data) < 8:
            return None
        kind, code, _checksum, number, sequence = struct.unpack("!BBHHH", data[:8])
        # the kernel has put an id of its own into what a socket sends that is not raw, and minds it
        if (kind, code) != (self.reply, 0) or (self.raw and number != self.id):
            return None
        return self.waits.pop((sender, sequence), None)


def _make_echo(kind: int, number: int, sequence: int) -> bytes:
    body = struct.pack("!HH", number, sequence) + b"homelab.nut"
    head = struct.pack("!BBH", kind, 0, 0)
    return struct.pack("!BBH", kind, 0, _internet_checksum(head + body)) + body


def _internet_checksum(data: bytes) -> int:
    """RFC 1071. For IPv6 the kernel writes its own, which knows the addresses."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
