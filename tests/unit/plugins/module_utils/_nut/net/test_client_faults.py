# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client of upsd with servers that hang, break the protocol, or do not exist."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import client as net_client
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import connection as net_connection
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, serve_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def server() -> Iterator[FakeUpsd]:
    with serve_answers() as fake:
        yield fake


@pytest.mark.parametrize(
    "answer",
    [
        "\n",
        "GARBAGE\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\xff\xfe\x00\n",
        "ERR\n",
        'VAR ups ups.status "OL"\n',
        "END LIST VAR ups\n",
        "BEGIN LIST UPS\nEND LIST UPS\n",
        "BEGIN LIST VAR other\nEND LIST VAR other\n",
        'BEGIN LIST VAR ups\nVAR other ups.status "OL"\nEND LIST VAR ups\n',
        "BEGIN LIST VAR ups\nVAR ups ups.status\nEND LIST VAR ups\n",
        "BEGIN LIST VAR ups\nVAR ups ups.status O L\nEND LIST VAR ups\n",
        'BEGIN LIST VAR ups\nVAR ups ups.status "O#L"\nEND LIST VAR ups\n',
        'BEGIN LIST VAR ups\nVAR ups a\x7fb "OL"\nEND LIST VAR ups\n',
        "BEGIN LIST VAR ups\nBEGIN LIST VAR ups\nEND LIST VAR ups\n",
        "BEGIN LIST VAR ups\nUPS ups x\nEND LIST VAR ups\n",
        "BEGIN LIST VAR ups\n\nEND LIST VAR ups\n",
        "x" * 5000 + "\n",
        "BEGIN LIST VAR ups\nVAR ups x " + "y" * 5000 + "\nEND LIST VAR ups\n",
    ],
)
def test_malformed_list_is_an_error(answer: str) -> None:
    with serve_answers({"LIST VAR ups": answer}) as server, server.open_client() as client:
        with pytest.raises(net_errors.UpsdFailure) as caught:
            client.list_vars("ups")
        if answer != "ERR\n":
            assert isinstance(caught.value, net_errors.BadAnswer)
            assert f"127.0.0.1:{server.port}" in str(caught.value)
            # the rest of the answer is unpredictable
            with pytest.raises(net_errors.Unreachable, match="closed"):
                client.get_net_version()


@pytest.mark.parametrize(
    ("request_line", "answer", "ask"),
    [
        ("VER", "SSH-2.0-OpenSSH\n", lambda client: client.get_version()),
        ("NETVER", "one point three\n", lambda client: client.get_net_version()),
        ("GET NUMLOGINS ups", "NUMLOGINS ups many\n", lambda client: client.num_logins("ups")),
        ("GET NUMLOGINS ups", "NUMLOGINS other 1\n", lambda client: client.num_logins("ups")),
        ("GET VAR ups a", 'VAR ups b "1"\n', lambda client: client.get_var("ups", "a")),
        ("GET VAR ups a", "VAR ups a\n", lambda client: client.get_var("ups", "a")),
    ],
)
def test_malformed_single_answer_is_an_error(
    request_line: str, answer: str, ask: Callable[[net_client.UpsdClient], object]
) -> None:
    with (
        serve_answers({request_line: answer}) as server,
        server.open_client() as client,
        pytest.raises(net_errors.BadAnswer),
    ):
        ask(client)


def send_nothing(connection: socket.socket, request: str) -> None:
    connection.recv(1)


def drip_bytes(connection: socket.socket, request: str) -> None:
    while True:
        connection.sendall(b"B")
        threading.Event().wait(0.02)


def send_endless_line(connection: socket.socket, request: str) -> None:
    while True:
        connection.sendall(b"x" * 65536)


def send_endless_list(connection: socket.socket, request: str) -> None:
    connection.sendall(b"BEGIN LIST VAR ups\n")
    while True:
        connection.sendall(b'VAR ups a "1"\n' * 1000)


def send_a_byte_each_second(connection: socket.socket, request: str) -> None:
    for byte in b"BEGIN LIST VAR ups":
        connection.sendall(bytes([byte]))
        threading.Event().wait(1)


def send_error_within_a_list(connection: socket.socket, request: str) -> None:
    connection.sendall(b'BEGIN LIST VAR ups\nVAR ups a "1"\nERR DATA-STALE\n')
    connection.recv(1)


def send_binary(connection: socket.socket, request: str) -> None:
    connection.sendall(bytes(range(256)) * 4 + b"\n")


def close_at_once(connection: socket.socket, request: str) -> None:
    pass


def reset_connection(connection: socket.socket, request: str) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer_twice(connection: socket.socket, request: str) -> None:
    connection.sendall(b'VAR ups ups.status "OL"\nBEGIN LIST VAR ups\nEND LIST VAR ups\n')


def send_truncated_list(connection: socket.socket, request: str) -> None:
    connection.sendall(b'BEGIN LIST VAR ups\nVAR ups ups.status "O')


@pytest.mark.parametrize(
    "misbehave",
    [
        *(
            send_nothing,
            drip_bytes,
            send_a_byte_each_second,
            send_endless_line,
            send_endless_list,
            send_truncated_list,
            send_binary,
            close_at_once,
            reset_connection,
        ),
        answer_twice,
    ],
)
def test_hostile_server_is_abandoned_within_the_timeout(misbehave: Callable[[socket.socket, str], None]) -> None:
    begin = time.monotonic()
    with serve_answers(misbehave=misbehave) as server:
        with server.open_client(timeout=0.5) as client, pytest.raises(net_errors.Unreachable) as caught:
            client.list_vars("ups")
        assert time.monotonic() - begin < 3
        assert caught.value.port == server.port
        assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_error_within_a_list_is_raised() -> None:
    with (
        serve_answers(misbehave=send_error_within_a_list) as server,
        server.open_client() as client,
        pytest.raises(net_errors.DataStale, match=f"127.0.0.1:{server.port} answered DATA-STALE"),
    ):
        client.list_vars("ups")


def test_server_that_never_accepts_times_out() -> None:
    """The kernel accepts as many connections as the backlog holds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            net_client.UpsdClient("127.0.0.1", port, 0.3) as client,
            pytest.raises(net_errors.Unreachable, match=f"{port} .* in time"),
        ):
            client.get_version()


def test_full_backlog_times_out() -> None:
    with socket.socket() as listener, ExitStack() as line:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _unused in range(4):
            waiting = line.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        with pytest.raises(
            net_errors.Unreachable, match=f"127.0.0.1:{port} cannot be reached: no complete answer in time"
        ):
            net_client.UpsdClient("127.0.0.1", port, 0.3).__enter__()


@pytest.mark.parametrize("option", [None, socket.TCP_QUICKACK])
def test_received_data_is_acknowledged_immediately(
    server: FakeUpsd, monkeypatch: pytest.MonkeyPatch, option: int | None
) -> None:
    """Otherwise each list would take 40 ms longer. Not every system has TCP_QUICKACK."""
    calls: list[tuple[str, ...]] = []
    real_set, real_recv = socket.socket.setsockopt, socket.socket.recv

    def set_(self: socket.socket, *words: Any) -> None:
        calls.append(words)
        real_set(self, *words)

    def recv(self: socket.socket, *words: Any) -> bytes:
        calls.append(("recv",))
        return real_recv(self, *words)

    monkeypatch.setattr(net_connection, "_QUICKACK", option)
    monkeypatch.setattr(socket.socket, "setsockopt", set_)
    monkeypatch.setattr(socket.socket, "recv", recv)
    with server.open_client() as client:
        client.get_net_version()
        client.get_net_version()
    confirmed = [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)] if option is not None else []
    assert calls == [*confirmed, ("recv",)] * 2


def test_renewed_deadline_applies_to_later_queries(server: FakeUpsd) -> None:
    with server.open_client(timeout=0.4) as client:
        for _unused in range(4):
            threading.Event().wait(0.2)
            client.renew_timeout()
            assert client.get_net_version() == "1.3"
        threading.Event().wait(0.5)
        with pytest.raises(net_errors.Unreachable, match="in time"):
            client.get_net_version()


@pytest.mark.parametrize(
    ("misbehave", "why"), [(send_endless_line, "more than 4096 bytes"), (send_endless_list, "more than 10000 lines")]
)
def test_oversized_answer_is_refused_before_the_timeout(
    misbehave: Callable[[socket.socket, str], None], why: str
) -> None:
    with (
        serve_answers(misbehave=misbehave) as server,
        server.open_client(timeout=60) as client,
        pytest.raises(net_errors.BadAnswer, match=why),
    ):
        client.list_vars("ups")


def test_timeout_covers_all_answers_together(server: FakeUpsd) -> None:
    def ask_for_ever(client: net_client.UpsdClient) -> None:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            client.get_net_version()

    with server.open_client(timeout=0.3) as client, pytest.raises(net_errors.Unreachable, match="in time"):
        ask_for_ever(client)


def test_closed_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(net_errors.Unreachable, match=f"127.0.0.1:{port} cannot be reached: connection refused"):
        net_client.UpsdClient("127.0.0.1", port).__enter__()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
def test_unresolvable_name_is_an_error(host: str) -> None:
    with pytest.raises(net_errors.Unreachable, match=f"upsd at {host}:3493 cannot be reached"):
        net_client.UpsdClient(host).__enter__()


@pytest.mark.parametrize("port", [-1, 0, 65536, 70000])
def test_invalid_port_is_an_error(port: int) -> None:
    with pytest.raises(net_errors.Unreachable, match="no such port"):
        net_client.UpsdClient("127.0.0.1", port).__enter__()


def test_closed_client_raises() -> None:
    with pytest.raises(net_errors.Unreachable, match="closed"):
        net_client.UpsdClient("127.0.0.1").list_ups()
