# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import probe
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.probe import ProbeIO, ProbeTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = 0.05
NO_CARDS = Path("/nonexistent")


def no_ping(family: int, kind: int, protocol: int) -> socket.socket:
    """Make sockets as for a user who is not permitted to ping."""
    if protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6):
        raise PermissionError(errno.EPERM, "Operation not permitted")
    return socket.socket(family, kind, protocol)


TCP_ONLY = ProbeIO(no_ping, interfaces=NO_CARDS)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def refused() -> Iterator[int]:
    # bound, so that nothing else listens there
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[int]:
    """Yield a port that does not respond: its backlog is full, so the kernel drops new connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        others = []
        for _unused in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            others.append(client)
        yield server.getsockname()[1]
        for client in others:
            client.close()


# TCP


def test_accepting_port_is_answer(listener: socket.socket) -> None:
    assert probe.probe_machine(["127.0.0.1"], [listener.getsockname()[1]], 5, TCP_ONLY) is True


def test_refusing_port_is_answer(refused: int) -> None:
    assert probe.probe_machine(["127.0.0.1"], [refused], 5, TCP_ONLY) is True


def test_silent_port_is_no_answer(silent: int) -> None:
    assert probe.probe_machine(["127.0.0.1"], [silent], SHORT, TCP_ONLY) is False


def test_any_port_is_enough(silent: int, refused: int) -> None:
    assert probe.probe_machine(["127.0.0.1"], [silent, refused], 5, TCP_ONLY) is True
    assert probe.probe_machine(["127.0.0.1"], [refused, silent], 5, TCP_ONLY) is True


def test_any_address_is_enough(refused: int) -> None:
    assert probe.probe_machine(["nonsense", "127.0.0.1"], [refused], 5, TCP_ONLY) is True


def test_each_machine_has_own_answer(silent: int, refused: int) -> None:
    targets = [
        ProbeTarget("up", ("127.0.0.1",), (refused,)),
        ProbeTarget("down", ("127.0.0.1",), (silent,)),
        ProbeTarget("unknown", ("nas.example",), (silent,)),
        ProbeTarget("nowhere", (), (22,)),
    ]
    assert probe.probe_machines(targets, SHORT, TCP_ONLY) == {
        "up": True,
        "down": False,
        "unknown": None,
        "nowhere": None,
    }


def test_probe_ends_when_all_have_answered(refused: int, listener: socket.socket) -> None:
    clock = iter(map(float, range(1000)))
    io = ProbeIO(no_ping, lambda: next(clock), NO_CARDS)
    targets = [
        ProbeTarget("a", ("127.0.0.1",), (refused,)),
        ProbeTarget("b", ("127.0.0.1",), (listener.getsockname()[1],)),
    ]
    # hours, on this clock
    assert probe.probe_machines(targets, 3600, io) == {"a": True, "b": True}
    assert next(clock) < 10


def _failing_with(**codes: int) -> tuple[Callable[[int, int, int], socket.socket], list[tuple[Any, ...]]]:
    """Return a socket maker whose connect_ex() returns a code at once. codes: pPORT=errno."""
    asked: list[tuple[Any, ...]] = []

    class Ends(socket.socket):
        def connect_ex(self, address: Any) -> int:
            asked.append(tuple(address))
            return codes[f"p{address[1]}"]

    def make(family: int, kind: int, protocol: int) -> socket.socket:
        return Ends(family, kind, protocol) if protocol == 0 else no_ping(family, kind, protocol)

    return make, asked


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, True),
        (errno.ECONNREFUSED, True),
        (errno.ECONNRESET, True),
        (errno.EHOSTUNREACH, False),
        (errno.EHOSTDOWN, False),
        (errno.ETIMEDOUT, False),
        (errno.ENETUNREACH, None),
        (errno.ENETDOWN, None),
        (errno.EADDRNOTAVAIL, None),
        (errno.EPERM, None),
        (errno.EACCES, None),
        (errno.EMFILE, None),
        (errno.ENOBUFS, None),
    ],
)
def test_immediate_connect_error_is_classified(code: int, expected: bool | None) -> None:
    make, asked = _failing_with(p1=code)
    assert probe.probe_machine(["192.0.2.1"], [1], SHORT, ProbeIO(make, interfaces=NO_CARDS)) is expected
    assert asked == [("192.0.2.1", 1)]


def test_single_sent_packet_is_enough_for_silence() -> None:
    make, _asked = _failing_with(p1=errno.ENETUNREACH, p2=errno.EHOSTUNREACH)
    assert probe.probe_machine(["192.0.2.1"], [1, 2], SHORT, ProbeIO(make, interfaces=NO_CARDS)) is False


def test_addresses_of_both_families_with_zone() -> None:
    make, asked = _failing_with(p1=errno.EHOSTUNREACH)
    index = socket.if_nametoindex("lo")
    probe.probe_machine(
        ["fd00:0:0::1", "fe80::1%lo", "fe80::1%7", "fe80::1%nosuch"], [1], SHORT, ProbeIO(make, interfaces=NO_CARDS)
    )
    assert asked == [("fd00::1", 1, 0, 0), ("fe80::1", 1, 0, index), ("fe80::1", 1, 0, 7)]


def _refused_by_icmp(offender: str | None, refused: bool = True) -> Callable[[int, int, int], socket.socket]:
    """Return a maker of sockets that are refused by ICMP from this address, according to the error queue."""

    class Told(socket.socket):
        def connect_ex(self, address: Any) -> int:
            return errno.ECONNREFUSED

        def recvmsg(self, *arguments: Any) -> Any:
            if offender is None:
                raise BlockingIOError
            family = 10 if ":" in offender else 2
            origin = 3 if family == 10 else 2
            head = struct.pack("=IBBBBII", errno.ECONNREFUSED, origin, 3, 3, 0, 0, 0)
            if family == 2:
                name = struct.pack("=HH", 2, 0) + socket.inet_pton(socket.AF_INET, offender) + bytes(8)
                return b"", [(0, 1, b""), (0, 11, head + name)], 0, None
            name = struct.pack("=HHI", 10, 0, 0) + socket.inet_pton(socket.AF_INET6, offender) + bytes(4)
            return b"", [(41, 25, head + name)], 0, None

    def make(family: int, kind: int, protocol: int) -> socket.socket:
        return Told(family, kind, protocol) if protocol == 0 else no_ping(family, kind, protocol)

    return make


@pytest.mark.parametrize(
    ("address", "offender", "expected"),
    [
        ("192.0.2.1", None, True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.254", False),
        ("fd00::1", None, True),
        ("fd00::1", "fd00::1", True),
        ("fd00::1", "fd00::fe", False),
    ],
)
def test_refusal_by_router_is_no_answer(address: str, offender: str | None, expected: bool) -> None:
    assert (
        probe.probe_machine([address], [1], SHORT, ProbeIO(_refused_by_icmp(offender), interfaces=NO_CARDS)) is expected
    )


# Echo


class Echo(socket.socket):
    """An ICMP socket whose peer is a function: (packet, address) -> replies and their senders."""

    def __init__(self, answer: Callable[[bytes, str], list[tuple[bytes, str]]], fails: int = 0) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.bind(("127.0.0.1", 0))
        self.answer, self.fails = answer, fails
        self.come: deque[tuple[bytes, str]] = deque()

    def setsockopt(self, *arguments: Any) -> None:
        assert arguments[0] in (255, 58)

    def sendto(self, packet: Any, place: Any) -> int:  # type: ignore[override]
        if self.fails:
            raise OSError(self.fails, "no")
        for reply in self.answer(bytes(packet), place[0]):
            self.come.append(reply)
            super().sendto(b"x", self.getsockname())
        return len(packet)

    def recvfrom(self, size: int, flags: int = 0) -> Any:
        super().recvfrom(size)
        data, sender = self.come.popleft()
        return data, (sender, 0)


IP = bytes([0x46]) + bytes(23)  # a header of 24 bytes


def reply(packet: bytes, kind: int = 0, code: int = 0, number: int = 0, sequence: int = 0) -> bytes:
    got, sent = struct.unpack("!HH", packet[4:8])
    return struct.pack("!BBHHH", kind, code, 0, got ^ number, sent ^ sequence) + packet[8:]


def _pinging(
    answer: Callable[[bytes, str], list[tuple[bytes, str]]], raw: bool = True, fails: int = 0, cards: Path = NO_CARDS
) -> ProbeIO:
    def make(family: int, kind: int, protocol: int) -> socket.socket:
        if protocol not in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6):
            raise AssertionError("it need not connect")
        if kind & 0xF == socket.SOCK_RAW and not raw:
            raise PermissionError(errno.EPERM, "no")
        return Echo(answer, fails)

    return ProbeIO(make, interfaces=cards)


def _ask(answer: Callable[[bytes], tuple[bytes, str]], address: str = "192.0.2.1", raw: bool = True) -> bool | None:
    return probe.probe_machine([address], [], SHORT, _pinging(lambda packet, to: [answer(packet)], raw))


def test_echo_reply_is_answer() -> None:
    assert _ask(lambda packet: (IP + reply(packet), "192.0.2.1")) is True
    assert _ask(lambda packet: (reply(packet, 129), "fd00::1"), "fd00::1") is True
    assert _ask(lambda packet: (reply(packet, 129), "fe80::1%eth0"), "fe80::1%7") is True


def test_other_packets_are_no_echo_reply() -> None:
    assert _ask(lambda packet: (IP + reply(packet), "192.0.2.2")) is False
    assert _ask(lambda packet: (IP + reply(packet, number=1), "192.0.2.1")) is False
    assert _ask(lambda packet: (IP + reply(packet, sequence=1), "192.0.2.1")) is False
    assert _ask(lambda packet: (IP + reply(packet, kind=3), "192.0.2.1")) is False
    assert _ask(lambda packet: (IP + reply(packet, kind=8), "192.0.2.1")) is False
    assert _ask(lambda packet: (IP + reply(packet, code=1), "192.0.2.1")) is False
    assert _ask(lambda packet: (IP + reply(packet)[:7], "192.0.2.1")) is False
    assert _ask(lambda packet: (b"", "192.0.2.1")) is False
    assert _ask(lambda packet: (reply(packet), "192.0.2.1")) is False
    assert _ask(lambda packet: (reply(packet, 0), "fd00::1"), "fd00::1") is False
    assert _ask(lambda packet: (reply(packet, 129, number=1), "fd00::1"), "fd00::1") is False


def test_ping_socket_ignores_id() -> None:
    assert _ask(lambda packet: (reply(packet, number=0x1234), "192.0.2.1"), raw=False) is True
    assert _ask(lambda packet: (reply(packet, sequence=1), "192.0.2.1"), raw=False) is False
    assert _ask(lambda packet: (reply(packet), "192.0.2.2"), raw=False) is False


def test_echo_request_has_valid_checksum() -> None:
    sent: list[bytes] = []

    def answer(packet: bytes, to: str) -> list[tuple[bytes, str]]:
        sent.append(packet)
        return []

    probe.probe_machines(
        [ProbeTarget("a", ("192.0.2.1", "192.0.2.2")), ProbeTarget("b", ("fd00::1",))], SHORT, _pinging(answer)
    )
    assert [packet[:2] for packet in sent] == [b"\x08\0", b"\x08\0", b"\x80\0"]
    # RFC 1071: the sum over data with a valid checksum is all ones
    for packet in sent:
        padded = packet + b"\0" * (len(packet) % 2)
        total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
        assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    assert len({packet[6:8] for packet in sent[:2]}) == 2


def test_echo_replies_are_matched_to_machines() -> None:
    def answer(packet: bytes, to: str) -> list[tuple[bytes, str]]:
        # first an unrelated reply, then the right one, then a duplicate
        return (
            [(IP + reply(packet), "192.0.2.9"), (IP + reply(packet), to), (IP + reply(packet), to)]
            if to != "192.0.2.2"
            else []
        )

    targets = [ProbeTarget(name, (f"192.0.2.{name}",)) for name in ("1", "2", "3")]
    assert probe.probe_machines(targets, SHORT, _pinging(answer)) == {"1": True, "2": False, "3": True}


def test_answered_echo_avoids_connection() -> None:
    # _pinging() refuses TCP sockets
    io = _pinging(lambda packet, to: [(IP + reply(packet), to)])
    assert probe.probe_machine(["192.0.2.1"], [22], 5, io) is True


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.ENETUNREACH, None), (errno.EPERM, None), (errno.EHOSTUNREACH, False)]
)
def test_unsendable_echo_request(code: int, expected: bool | None) -> None:
    assert probe.probe_machine(["192.0.2.1"], [], SHORT, _pinging(lambda packet, to: [], fails=code)) is expected


def test_loopback_is_up() -> None:
    def may(kind: int) -> bool:
        try:
            socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
        except OSError:
            return False
        return True

    expected = True if may(socket.SOCK_RAW) or may(socket.SOCK_DGRAM) else None
    assert probe.probe_machine(["127.0.0.1"], [], 5) is expected


# Our own network


def _cards(folder: Path, **carriers: str | None) -> Path:
    for name, carrier in carriers.items():
        (folder / name / ("device" if name.startswith("e") else "bridge")).mkdir(parents=True)
        if carrier is not None:
            (folder / name / "carrier").write_text(carrier)
    return folder


def test_link_of_network_cards(tmp_path: Path) -> None:
    assert probe.has_link(_cards(tmp_path / "1", eno1="0\n", eno2="1\n")) is True
    assert probe.has_link(_cards(tmp_path / "2", eno1="0\n", vmbr0="1\n")) is False
    # a card that is not up has no readable carrier
    assert probe.has_link(_cards(tmp_path / "3", eno1=None)) is False
    assert probe.has_link(_cards(tmp_path / "4", lo="1\n", veth="1\n")) is None
    assert probe.has_link(tmp_path / "5") is None


def test_silence_without_link_is_unknown(tmp_path: Path, silent: int) -> None:
    down, up = _cards(tmp_path / "1", eno1="0\n"), _cards(tmp_path / "2", eno1="1\n")
    assert probe.probe_machine(["192.0.2.1"], [], SHORT, _pinging(lambda packet, to: [], cards=down)) is None
    assert probe.probe_machine(["192.0.2.1"], [], SHORT, _pinging(lambda packet, to: [], cards=up)) is False
    # an answer counts without a link, too
    io = _pinging(lambda packet, to: [(IP + reply(packet), to)], cards=down)
    assert probe.probe_machine(["192.0.2.1"], [], SHORT, io) is True
    # this host itself needs no card
    assert probe.probe_machine(["127.0.0.1"], [silent], SHORT, ProbeIO(no_ping, interfaces=down)) is False


def test_exhausted_descriptors_are_unknown() -> None:
    def make(family: int, kind: int, protocol: int) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    assert probe.probe_machine(["192.0.2.1"], [1, 2], SHORT, ProbeIO(make, interfaces=NO_CARDS)) is None


# Guests
