# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test servers that try to stall a call or to fill the memory: each call ends in time, with a message."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import re
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._truenas import jsonrpc, midclt
from ansible_collections.homelab.nut.plugins.module_utils._truenas.jsonrpc import Endpoint, ServerTrust, open_jsonrpc
from ansible_collections.homelab.nut.plugins.module_utils._truenas.middleware import (
    ConnectionFailed,
    ConnectionLost,
    NotAnAnswer,
    TruenasError,
)
from ansible_collections.homelab.nut.plugins.module_utils._truenas.stream import Deadline

pytestmark = pytest.mark.slow

TIMEOUT = 1.0
# Far from both: what we wait, and for how long a server goes on.
LATEST = 10.0
PATIENCE = 30.0
# More than we take, and little enough for this machine if we took it all.
FLOOD = 160 * 2**20
MEMORY = 48 * 2**20

Attack = Callable[[socket.socket], None]


def drip(stream: socket.socket, text: bytes) -> None:
    """Send a byte now and then, for longer than any time limit."""
    ends = time.monotonic() + PATIENCE
    for number in itertools.count():
        if time.monotonic() > ends:
            return
        stream.sendall(text[number : number + 1] or b"x")
        time.sleep(0.05)


def flood(stream: socket.socket, block: bytes) -> None:
    """Send as much as the client accepts, up to a limit."""
    for _unused in range(FLOOD // len(block)):
        stream.sendall(block)


def frame(text: bytes, *, opcode: int = 1, last: bool = True) -> bytes:
    """Return a frame of a WebSocket, as a server sends it."""
    size = len(text)
    length = (
        bytes([size])
        if size < 126
        else b"\x7e" + struct.pack("!H", size)
        if size < 2**16
        else b"\x7f" + struct.pack("!Q", size)
    )
    return bytes([opcode | (0x80 if last else 0)]) + length + text


def upgrade(stream: socket.socket) -> None:
    """Open a WebSocket, and read the first call."""
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += stream.recv(4096)
    key = re.search(rb"Sec-WebSocket-Key: *(\S+)", asked, re.IGNORECASE)
    assert key
    accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 - the protocol's
    stream.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )
    stream.recv(4096)


def after_upgrade(attack: Attack) -> Attack:
    def attacked(stream: socket.socket) -> None:
        upgrade(stream)
        attack(stream)

    return attacked


def repeat(message: bytes) -> Attack:
    def attack(stream: socket.socket) -> None:
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            stream.sendall(message)
            time.sleep(0.02)

    return attack


def say(message: bytes) -> Attack:
    def attack(stream: socket.socket) -> None:
        stream.sendall(message)
        time.sleep(TIMEOUT / 2)

    return attack


def endless_headers(stream: socket.socket) -> None:
    stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
    flood(stream, b"X-More: " + b"x" * 4000 + b"\r\n")


def huge_frame(stream: socket.socket) -> None:
    stream.sendall(b"\x81\x7f" + struct.pack("!Q", 2**40))
    flood(stream, b"x" * 2**16)


def endless_fragments(stream: socket.socket) -> None:
    stream.sendall(frame(b"[", last=False))
    flood(stream, frame(b"x" * 60_000, opcode=0, last=False))


def tiny_fragments(stream: socket.socket) -> None:
    stream.sendall(frame(b"[", last=False))
    flood(stream, frame(b"x", opcode=0, last=False) * 20_000)


def page_without_end(stream: socket.socket) -> None:
    stream.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 1099511627776\r\n\r\n")
    flood(stream, b"x" * 2**16)


PINGS = frame(b"", opcode=9)
EVENT = frame(b'{"jsonrpc": "2.0", "method": "collection_update", "params": {}}')

ATTACKS: dict[str, tuple[Attack, type[TruenasError], str]] = {
    "status line by drops": (lambda stream: drip(stream, b"HTTP/1.1 101 "), ConnectionFailed, "did not answer within 1 s"),
    "header by drops": (
        lambda stream: drip(stream, b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nX: "),
        ConnectionFailed,
        "did not answer within 1 s",
    ),
    "endless headers": (endless_headers, ConnectionFailed, "more than 256 KiB before|did not answer within 1 s"),
    "page without end": (page_without_end, ConnectionFailed, "did not answer within 1 s|more than 256 KiB before"),
    "frame by drops": (after_upgrade(lambda stream: drip(stream, b"\x81\x7e\xff\xff")), ConnectionLost, "no answer within 1 s"),
    "frame of a terabyte": (after_upgrade(huge_frame), ConnectionLost, "no answer within 1 s|more than 4 MiB arrived"),
    "endless fragments": (after_upgrade(endless_fragments), ConnectionLost, "no answer within 1 s|more than 4 MiB arrived"),
    "tiny fragments": (after_upgrade(tiny_fragments), ConnectionLost, "no answer within 1 s|more than 4 MiB arrived"),
    "deep brackets": (after_upgrade(say(frame(b"[" * 60_000))), NotAnAnswer, "60000 characters that are not JSON"),
    "deep objects": (
        after_upgrade(say(frame(b'{"id": 1, "error": ' + b'{"a":' * 500 + b"1" + b"}" * 501))),
        NotAnAnswer,
        "characters that are not JSON",
    ),
    "very deep brackets": (after_upgrade(say(frame(b"[" * 200_000))), NotAnAnswer, "200000 characters that are not JSON"),
    "broken UTF-8": (after_upgrade(say(frame(b"\xff\xfe\xc3\x28"))), NotAnAnswer, "characters that are not JSON"),
    "pings": (after_upgrade(repeat(PINGS)), ConnectionLost, "no answer within 1 s"),
    "events": (after_upgrade(repeat(EVENT)), ConnectionLost, "no answer within 1 s"),
    "a flood of pings": (after_upgrade(lambda stream: flood(stream, PINGS * 1000)), ConnectionLost, "no answer within 1 s|more than"),
    "a number of 5000 digits": (after_upgrade(say(frame(b'{"id": ' + b"9" * 5000 + b"}"))), NotAnAnswer, "not an answer"),
}  # fmt: skip


@pytest.fixture
def serve() -> Iterator[Callable[[Attack], int]]:
    """Yield a function that starts a server with an attack on the loopback, and returns the server's port."""
    servers: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(attack: Attack) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    stream = server.accept()[0]
                    with stream, contextlib.suppress(OSError):
                        stream.settimeout(PATIENCE)
                        attack(stream)

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join(PATIENCE)


def call(port: int, *, secure: bool = False, timeout: float = TIMEOUT) -> Any:
    with contextlib.closing(
        open_jsonrpc(Endpoint(secure, "127.0.0.1", port), ServerTrust(validate=False), timeout)
    ) as middleware:
        return middleware.call("core.ping")


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_ends_within_the_time_limit(serve: Callable[[Attack], int], name: str) -> None:
    attack, kind, words = ATTACKS[name]
    port = serve(attack)
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(kind, match=words) as caught:
            call(port)
        elapsed = time.monotonic() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert elapsed < LATEST
    assert peak < MEMORY
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (page_without_end, "more than 256 KiB before /api/current answered"),
        (after_upgrade(huge_frame), "more than 4 MiB arrived while waiting for core.ping"),
        (after_upgrade(endless_fragments), "more than 4 MiB arrived while waiting for core.ping"),
    ],
)
def test_flood_ends_at_the_size_limit(serve: Callable[[Attack], int], attack: Attack, words: str) -> None:
    """The size limit ends the flood, long before the time limit."""
    with pytest.raises((ConnectionFailed, ConnectionLost), match=words):
        call(serve(attack), timeout=600)


def test_slow_tls_handshake_times_out(serve: Callable[[Attack], int]) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="no TLS handshake within 1 s"):
        call(serve(lambda stream: drip(stream, b"\x16\x03\x03\x40\x00\x02")), secure=True)
    assert time.monotonic() - began < LATEST


def test_connection_and_upgrade_share_one_deadline(
    serve: Callable[[Attack], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upgrade only gets the time that the connection has left."""
    given: list[float] = []
    real = jsonrpc.BoundedStream

    def slow(stream: socket.socket, deadline: Deadline, size: int) -> jsonrpc.BoundedStream:
        time.sleep(TIMEOUT / 2)
        given.append(deadline.seconds_left())
        return real(stream, deadline, size)

    monkeypatch.setattr(jsonrpc, "BoundedStream", slow)
    with pytest.raises(ConnectionFailed, match="did not answer within 1 s"):
        call(serve(lambda stream: drip(stream, b"")))
    assert given[0] <= TIMEOUT / 2


def test_unread_request_times_out(serve: Callable[[Attack], int]) -> None:
    def deaf(stream: socket.socket) -> None:
        upgrade(stream)
        time.sleep(TIMEOUT * 3)

    port = serve(deaf)
    with contextlib.closing(open_jsonrpc(Endpoint(False, "127.0.0.1", port), ServerTrust(), TIMEOUT)) as middleware:
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match="no answer within 1 s"):
            middleware.call("core.ping", "x" * 16 * 2**20)
        assert time.monotonic() - began < LATEST


# --- midclt ----------------------------------------------------------------------------------------------------------


def program(directory: Path, text: str) -> str:
    path = directory / "midclt"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("stream", [1, 2])
def test_endless_output_of_midclt_is_an_error(tmp_path: Path, stream: int) -> None:
    path = program(tmp_path, f"exec head -c {FLOOD} /dev/zero >&{stream}")
    tracemalloc.start()
    try:
        with pytest.raises(ConnectionLost, match="printed more than 4 MiB"):
            midclt.run_program([path], None, PATIENCE)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def test_slow_output_of_midclt_times_out(tmp_path: Path) -> None:
    path = program(tmp_path, f"for i in $(seq {int(PATIENCE * 10)}); do printf x; sleep 0.1; done")
    began = time.monotonic()
    with pytest.raises(ConnectionLost, match="no answer within 1 s"):
        midclt.run_program([path], None, 1)
    assert time.monotonic() - began < LATEST


def test_midclt_that_closes_its_output_but_runs_on_times_out(tmp_path: Path) -> None:
    path = program(tmp_path, f"exec >&- 2>&-; sleep {PATIENCE}")
    began = time.monotonic()
    with pytest.raises(ConnectionLost, match="no answer within 1 s"):
        midclt.run_program([path], "x" * 2**20, 1)
    assert time.monotonic() - began < LATEST


@pytest.mark.parametrize("printed", ["[" * 60_000, '{"a":' * 500 + "1" + "}" * 500])
def test_deeply_nested_json_of_midclt_is_refused(tmp_path: Path, printed: str) -> None:
    (tmp_path / "said").write_text(printed)
    path = program(tmp_path, f"cat {tmp_path}/said")
    middleware = midclt.Midclt(path, "nas", 5)
    with pytest.raises(NotAnAnswer, match="that are not JSON"):
        middleware.call("core.ping")


def test_long_number_of_midclt_stays_text(tmp_path: Path) -> None:
    path = program(tmp_path, f"printf %s {'9' * 5000}")
    assert midclt.Midclt(path, "nas", 5).call("core.ping") == "9" * 5000
