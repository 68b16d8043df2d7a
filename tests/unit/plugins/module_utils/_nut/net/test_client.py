# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import client as net_client
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import connection as net_connection
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot
from ansible_collections.homelab.nut.plugins.plugin_utils import certificates
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import ANSWERS, FakeUpsd, serving
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


@pytest.fixture
def server() -> Iterator[FakeUpsd]:
    with serving() as fake:
        yield fake


def test_all_queries_are_answered(server: FakeUpsd) -> None:
    with server.client() as client:
        assert client.get_version() == "2.8.1"
        assert client.get_net_version() == "1.3"
        assert client.list_ups() == {"ups": 'Rack "A" #1 \\', "spare": "Description unavailable"}
        assert client.list_vars("ups") == {
            "battery.charge": "100",
            "ups.mfr": 'A "q" # \\ b',
            "ups.status": "OL CHRG",
        }
        assert client.get_var("ups", "ups.status") == "OL CHRG"
        assert client.list_clients("ups") == ("127.0.0.1", "::ffff:192.0.2.3")
        assert client.num_logins("ups") == 2
        assert client.local_address == "127.0.0.1"


def test_writable_variables_and_commands_are_listed(server: FakeUpsd) -> None:
    with server.client() as client:
        assert client.list_rw("ups") == {"ups.delay.shutdown": "020", "ups.id": "x y"}
        assert client.list_cmds("ups") == ("beeper.mute", "load.off")
        assert client.list_enum("ups", "ups.id") == ("x y", "z")
        assert client.list_range("ups", "ups.delay.shutdown") == ((-1, 300),)
        assert client.get_type("ups", "ups.id") == net_client.VariableType(True, True, False, 32, False)
        assert client.get_type("ups", "ups.delay.shutdown") == net_client.VariableType(True, False, True, None, True)
        assert client.get_type("ups", "ups.odd") == net_client.VariableType(False, False, False, None, False)
        assert client.get_desc("ups", "ups.delay.shutdown") == "Seconds"
        assert client.get_cmddesc("ups", "beeper.mute") == "Be quiet"
        assert client.ups_desc("ups") == "Rack"


def test_orders_are_sent_and_tracked(server: FakeUpsd) -> None:
    with server.client() as client:
        client.authenticate("admin", 'a "b" #=')
        client.set_tracking()
        assert client.instcmd("ups", "beeper.mute") == "1d"
        assert client.instcmd("ups", "load.on.delay", "a b") is None
        assert client.set_var("ups", "a", "0") == "2d"
        assert client.set_var("ups", "a", '"\\# =') is None
        assert client.set_var("ups", "a", "") is None
        assert [client.get_tracking(order) for order in ("pending", "done", "failed", "invalid", "unknown")] == [
            *("PENDING", "SUCCESS", "FAILED", "INVALID-ARGUMENT", "UNKNOWN")
        ]
        client.fsd("ups")
        client.check_primary("ups")
        client.check_primary("old")
        client.login("ups")
        client.logout()
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_net_version()


@pytest.mark.parametrize(
    ("request_line", "answer", "ask"),
    [
        ("USERNAME admin", "HELLO\n", lambda client: client.authenticate("admin", "secret")),
        ("SET TRACKING ON", "ON\n", lambda client: client.set_tracking()),
        ("GET TRACKING x", "DONE\n", lambda client: client.get_tracking("x")),
        ("GET TRACKING x", "SUCCESS now\n", lambda client: client.get_tracking("x")),
        ("INSTCMD ups x", "DONE\n", lambda client: client.instcmd("ups", "x")),
        ("INSTCMD ups x", "OK TRACKING\n", lambda client: client.instcmd("ups", "x")),
        ("INSTCMD ups x", "OK NUMBER 1\n", lambda client: client.instcmd("ups", "x")),
        ("SET VAR ups x 1", "VAR ups x 1\n", lambda client: client.set_var("ups", "x", "1")),
        ("FSD ups", "OK\n", lambda client: client.fsd("ups")),
        ("PRIMARY ups", "OK MASTER-GRANTED\n", lambda client: client.check_primary("ups")),
        ("LOGIN ups", "YES\n", lambda client: client.login("ups")),
        ("LOGOUT", "NO\n", lambda client: client.logout()),
        ("GET TYPE ups x", "TYPE ups y RW\n", lambda client: client.get_type("ups", "x")),
        ("GET TYPE ups x", "TYPE other x RW\n", lambda client: client.get_type("ups", "x")),
        ("GET TYPE ups x", "VAR ups x RW\n", lambda client: client.get_type("ups", "x")),
        ("GET TYPE ups x", "TYPE ups\n", lambda client: client.get_type("ups", "x")),
        (
            "LIST RANGE ups x",
            "BEGIN LIST RANGE ups x\nRANGE ups x 1 many\nEND LIST RANGE ups x\n",
            lambda client: client.list_range("ups", "x"),
        ),
        (
            "LIST ENUM ups x",
            "BEGIN LIST ENUM ups x\nENUM ups y 1\nEND LIST ENUM ups x\n",
            lambda client: client.list_enum("ups", "x"),
        ),
        (
            "LIST RW ups",
            "BEGIN LIST RW ups\nVAR ups x 1\nEND LIST RW ups\n",
            lambda client: client.list_rw("ups"),
        ),
        (
            "LIST CMD ups",
            "BEGIN LIST CMD ups\nEND LIST VAR ups\n",
            lambda client: client.list_cmds("ups"),
        ),
        (
            "LIST ENUM ups x",
            "BEGIN LIST ENUM ups x\nEND LIST RANGE ups x\n",
            lambda client: client.list_enum("ups", "x"),
        ),
    ],
)
def test_malformed_answer_to_an_order_is_an_error(
    request_line: str, answer: str, ask: Callable[[net_client.UpsdClient], object]
) -> None:
    with serving({request_line: answer}) as server, server.client() as client:
        with pytest.raises(net_errors.BadAnswer, match=f"127.0.0.1:{server.port}"):
            ask(client)
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_net_version()


def test_list_of_ranges_may_end_as_in_upsd_2_7_4() -> None:
    answer = 'BEGIN LIST RANGE ups x\nRANGE ups x "1" "2"\nEND LIST ENUM ups x\n'
    with serving({"LIST RANGE ups x": answer}) as server, server.client() as client:
        assert client.list_range("ups", "x") == ((1, 2),)
        assert client.get_net_version() == "1.3"


@pytest.mark.parametrize(
    "answer",
    [
        "GARBAGE PASSWORD s3cret-word\n",
        "ERR INVALID s3cret-word\n",
        "ERR s3cret-word\n",
        "ERR INVALID-ARGUMENT s3cret-word\n",
        '"s3cret-word\n\n',
        "s3cret-word\x7f\n",
    ],
)
def test_error_never_contains_the_password(answer: str) -> None:
    """A program that is not upsd may echo its input."""
    answers = {"PASSWORD s3cret-word": answer}
    with serving(answers) as server, server.client() as client:
        with pytest.raises(net_errors.UpsdFailure, match="PASSWORD") as caught:
            client.authenticate("admin", "s3cret-word")
        assert f"127.0.0.1:{server.port}" in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_password_that_cannot_be_sent_is_refused(server: FakeUpsd) -> None:
    with server.client() as client, pytest.raises(grammar.Unencodable) as caught:
        client.authenticate("admin", "s3cret\nINSTCMD ups load.off")
    assert "s3cret" not in str(caught.value)
    assert server.asked == ["USERNAME admin"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.set_var("ups", "a", "1\nFSD ups"),
        lambda client: client.set_var("ups\nFSD ups", "a", "1"),
        lambda client: client.instcmd("ups", "beeper.mute\rFSD ups"),
        lambda client: client.instcmd("ups", "beeper.mute", "\u00e9"),
        lambda client: client.set_var("ups", "a", "x" * 513),
    ],
)
def test_word_that_upsd_would_change_is_refused(
    server: FakeUpsd, ask: Callable[[net_client.UpsdClient], object]
) -> None:
    with server.client() as client:
        with pytest.raises(grammar.Unencodable):
            ask(client)
        assert client.get_net_version() == "1.3"
    assert server.asked == ["NETVER"]


WORD = st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20), max_size=grammar.WORD_LIMIT)


@given(st.lists(WORD, min_size=1, max_size=grammar.WORDS_LIMIT))
def test_joined_words_are_split_again(words: list[str]) -> None:
    assert net_connection.split_line(grammar.join_words(words)) == tuple(words)


LINE = st.one_of(
    st.text(st.characters(max_codepoint=0xFF, exclude_characters="\n"), max_size=40),
    st.text(st.sampled_from('VAR ups.1 "\\#=\t\x7f\xe9'), max_size=40),
    st.builds(
        '{} "{}"'.format, st.lists(st.text("a.1-", max_size=3), max_size=40).map(" ".join), st.text('ab "', max_size=5)
    ),
    st.builds('VAR ups x "{}"'.format, st.integers(500, 530).map("x".__mul__)),
)


@given(LINE)
@example(" ".join(["x"] * 31) + ' "y"')
@example(" ".join(["x"] * 32) + ' "y"')
@example('VAR ups x "a" ')
@example("x" * 513)
@example('"VAR" ups x ""')
def test_lines_are_split_as_by_the_parser(line: str) -> None:
    """Most lines take a fast path, which must give the same result."""
    lines = grammar.parse_lines(line + "\n")
    assert net_connection.split_line(line) == (lines[0].words if len(lines) == 1 and "\x7f" not in line else None)


def test_client_never_logs_in(server: FakeUpsd) -> None:
    with server.client() as client:
        snapshot.observe_upsd(client, gather=snapshot.GATHER)
    assert {request.split()[0] for request in server.asked} == {"VER", "NETVER", "LIST", "GET"}


@pytest.mark.parametrize(
    ("ask", "kind", "code"),
    [
        (lambda client: client.list_vars("spare"), net_errors.DataStale, "DATA-STALE"),
        (lambda client: client.list_vars("dead"), net_errors.DriverNotConnected, "DRIVER-NOT-CONNECTED"),
        (lambda client: client.list_vars("nix"), net_errors.UnknownUps, "UNKNOWN-UPS"),
        (lambda client: client.list_clients("secret"), net_errors.AccessDenied, "ACCESS-DENIED"),
        (lambda client: client.get_var("ups", "nix"), net_errors.VarNotSupported, "VAR-NOT-SUPPORTED"),
        (lambda client: client.get_var("ups", 'x "#'), net_errors.InvalidArgument, "INVALID-ARGUMENT"),
        (lambda client: client.list_vars("odd"), net_errors.UnknownCommand, "UNKNOWN-COMMAND"),
        (lambda client: client.instcmd("ups", "nix"), net_errors.CmdNotSupported, "CMD-NOT-SUPPORTED"),
        (lambda client: client.instcmd("ups", "load.off"), net_errors.AccessDenied, "USERNAME-REQUIRED"),
        (lambda client: client.set_var("ups", "a", "1"), net_errors.ReadOnly, "READONLY"),
        (lambda client: client.set_var("ups", "a", "2"), net_errors.InvalidValue, "INVALID-VALUE"),
        (lambda client: client.set_var("ups", "a", "3"), net_errors.TooLong, "TOO-LONG"),
        (lambda client: client.set_var("ups", "a", "4"), net_errors.UpsdError, "SET-FAILED"),
        (lambda client: client.get_tracking("denied"), net_errors.AccessDenied, "ACCESS-DENIED"),
        (lambda client: client.get_tracking("off"), net_errors.NoTls, "FEATURE-NOT-CONFIGURED"),
        (lambda client: client.check_primary("denied"), net_errors.AccessDenied, "ACCESS-DENIED"),
    ],
)
def test_error_has_a_code_and_keeps_the_connection(
    server: FakeUpsd, ask: Callable[[net_client.UpsdClient], object], kind: type[net_errors.UpsdError], code: str
) -> None:
    with server.client() as client:
        with pytest.raises(net_errors.UpsdError, match=code) as caught:
            ask(client)
        assert type(caught.value) is kind
        assert f"upsd at 127.0.0.1:{server.port} answered {code}" in str(caught.value)
        assert caught.value.code == code
        assert client.get_net_version() == "1.3"


def test_error_instead_of_a_version_is_raised() -> None:
    with (
        serving({"VER": "ERR ACCESS-DENIED\n"}) as server,
        server.client() as client,
        pytest.raises(net_errors.AccessDenied),
    ):
        client.get_version()


def test_names_are_compared_without_case() -> None:
    answers = {
        "LIST CLIENT UPS": "BEGIN LIST CLIENT UPS\nCLIENT ups 192.0.2.3\nEND LIST CLIENT UPS\n",
        "GET NUMLOGINS UPS": "NUMLOGINS UPS 1\n",
    }
    with serving(answers) as server, server.client() as client:
        assert client.list_clients("UPS") == ("192.0.2.3",)
        assert client.num_logins("UPS") == 1


# Hostile servers


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
    with serving({"LIST VAR ups": answer}) as server, server.client() as client:
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
    with serving({request_line: answer}) as server, server.client() as client, pytest.raises(net_errors.BadAnswer):
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
    with serving(misbehave=misbehave) as server:
        with server.client(timeout=0.5) as client, pytest.raises(net_errors.Unreachable) as caught:
            client.list_vars("ups")
        assert time.monotonic() - begin < 3
        assert caught.value.port == server.port
        assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_error_within_a_list_is_raised() -> None:
    with (
        serving(misbehave=send_error_within_a_list) as server,
        server.client() as client,
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
    with server.client() as client:
        client.get_net_version()
        client.get_net_version()
    confirmed = [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)] if option is not None else []
    assert calls == [*confirmed, ("recv",)] * 2


def test_renewed_deadline_applies_to_later_queries(server: FakeUpsd) -> None:
    with server.client(timeout=0.4) as client:
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
        serving(misbehave=misbehave) as server,
        server.client(timeout=60) as client,
        pytest.raises(net_errors.BadAnswer, match=why),
    ):
        client.list_vars("ups")


def test_timeout_covers_all_answers_together(server: FakeUpsd) -> None:
    def ask_for_ever(client: net_client.UpsdClient) -> None:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            client.get_net_version()

    with server.client(timeout=0.3) as client, pytest.raises(net_errors.Unreachable, match="in time"):
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


# TLS

NOW = datetime.now(timezone.utc)
CA = certificates.make_ca("our CA", NOW)


@pytest.fixture
def tls_server(tmp_path: Path) -> Callable[..., Callable[[socket.socket, str], None]]:
    """Return a factory of TLS servers for FakeUpsd with certificates of CA."""

    def make(
        names: Sequence[str] = ("localhost", "127.0.0.1"), ca: certificates.Pair = CA, made: datetime = NOW
    ) -> Callable[[socket.socket, str], None]:
        pair = certificates.issue_certificate(ca, "pve", names, made)
        (tmp_path / "pem").write_text(pair.key + pair.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "pem")

        def talk(connection: socket.socket, request: str) -> None:
            assert request == "STARTTLS"
            connection.sendall(b"OK STARTTLS\n")
            with context.wrap_socket(connection, server_side=True) as secure, secure.makefile("r") as lines:
                for line in lines:
                    secure.sendall(ANSWERS[line.rstrip("\n")].encode("latin-1"))

        return talk

    return make


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "pve.home.lan"])
def test_tls_connection_is_verified_by_name(
    tls_server: Callable[..., Callable[[socket.socket, str], None]], name: str
) -> None:
    with serving(misbehave=tls_server(["localhost", "127.0.0.1", "::1", "pve.home.lan"])) as server:
        with server.client() as client:
            assert (client.tls_version, client.peer_not_after) == (None, None)
            client.starttls(CA.certificate, name)
            assert client.list_vars("ups")["ups.status"] == "OL CHRG"
            assert client.get_net_version() == "1.3"
            assert client.tls_version == "TLSv1.3"
            assert client.peer_not_after == (NOW + certificates.LIFE).replace(microsecond=0)
        # nothing else could be read on the network
        assert server.asked == ["STARTTLS"]


@pytest.mark.parametrize("name", ["", "localhost"])
def test_tls_from_the_start_sends_no_clear_text(
    tls_server: Callable[..., Callable[[socket.socket, str], None]], name: str
) -> None:
    with serving(misbehave=tls_server()) as server:
        with net_client.UpsdClient(
            "127.0.0.1", server.port, tls=net_connection.TlsOptions(CA.certificate, name)
        ) as client:
            report = snapshot.observe_upsd(client, ["ups"])
        assert (report.tls_version, report.tls_expires) == ("TLSv1.3", (NOW + certificates.LIFE).replace(microsecond=0))
        assert server.asked == ["STARTTLS"]


def test_missing_tls_module_is_an_error() -> None:
    with serving({"STARTTLS": "ERR FEATURE-NOT-CONFIGURED\n"}) as server:
        client = net_client.UpsdClient("127.0.0.1", server.port, tls=net_connection.TlsOptions(CA.certificate))
        with pytest.raises(net_errors.NoTls):
            client.__enter__()
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_version()


def test_own_authority_is_unknown_to_the_system(
    tls_server: Callable[..., Callable[[socket.socket, str], None]],
) -> None:
    with (
        serving(misbehave=tls_server()) as server,
        pytest.raises(net_errors.Untrusted, match="can't be trusted for localhost"),
    ):
        net_client.UpsdClient("127.0.0.1", server.port, tls=net_connection.TlsOptions(None, "localhost")).__enter__()


@pytest.mark.parametrize("code", ["FEATURE-NOT-CONFIGURED", "FEATURE-NOT-SUPPORTED"])
def test_server_without_tls_is_refused(code: str) -> None:
    with serving({"STARTTLS": f"ERR {code}\n"}) as server, server.client() as client:
        with pytest.raises(net_errors.NoTls, match=rf"answered {code} to STARTTLS: it .* TLS"):
            client.starttls(CA.certificate, "localhost")
        assert client.get_net_version() == "1.3"


@pytest.mark.parametrize("name", ["127.0.0.2", "::1", "nas", "localhost.home.lan"])
def test_certificate_for_another_name_is_refused(
    tls_server: Callable[..., Callable[[socket.socket, str], None]], name: str
) -> None:
    with serving(misbehave=tls_server()) as server, server.client() as client:
        with pytest.raises(net_errors.WrongName, match=f"can't be trusted for {name}: .*mismatch") as caught:
            client.starttls(CA.certificate, name)
        assert caught.value.port == server.port
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_net_version()


def test_other_authority_with_the_same_name_is_refused(
    tls_server: Callable[..., Callable[[socket.socket, str], None]],
) -> None:
    other = certificates.make_ca("our CA", NOW)
    with serving(misbehave=tls_server(ca=other)) as server, server.client() as client:
        with pytest.raises(net_errors.Untrusted, match="can't be trusted for localhost") as caught:
            client.starttls(CA.certificate, "localhost")
        assert not isinstance(caught.value, net_errors.WrongName)


def test_any_of_several_authorities_is_trusted(tls_server: Callable[..., Callable[[socket.socket, str], None]]) -> None:
    both = certificates.make_ca("other CA", NOW).certificate + CA.certificate
    with serving(misbehave=tls_server()) as server, server.client() as client:
        client.starttls(both, "localhost")
        assert client.get_net_version() == "1.3"


def test_intermediate_authority_can_be_trusted_alone(
    tls_server: Callable[..., Callable[[socket.socket, str], None]],
) -> None:
    """Like NSS: with an intermediate as trusted authority, no root is needed."""
    own = x509.load_pem_x509_certificate(CA.certificate.encode())
    signed = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]))
        .public_key(own.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    trusted = signed.public_bytes(serialization.Encoding.PEM).decode()
    with serving(misbehave=tls_server()) as server, server.client() as client:
        client.starttls(trusted, "localhost")
        assert client.get_net_version() == "1.3"


def test_expired_certificate_is_refused(tls_server: Callable[..., Callable[[socket.socket, str], None]]) -> None:
    long_ago = NOW - certificates.LIFE - timedelta(hours=1)
    with (
        serving(misbehave=tls_server(made=long_ago)) as server,
        server.client() as client,
        pytest.raises(net_errors.Untrusted, match="certificate has expired"),
    ):
        client.starttls(CA.certificate, "localhost")


@pytest.mark.parametrize("text", ["", "PEM", "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"])
def test_invalid_ca_is_an_error(tls_server: Callable[..., Callable[[socket.socket, str], None]], text: str) -> None:
    with (
        serving(misbehave=tls_server()) as server,
        server.client() as client,
        pytest.raises(net_errors.Untrusted, match="the CA text contains no certificate"),
    ):
        client.starttls(text, "localhost")


@pytest.mark.parametrize("name", ["", ".home.lan", "x" * 64 + ".lan"])
def test_invalid_server_name_is_an_error(
    tls_server: Callable[..., Callable[[socket.socket, str], None]], name: str
) -> None:
    with (
        serving(misbehave=tls_server()) as server,
        server.client() as client,
        pytest.raises(net_errors.Untrusted, match="can't be trusted for"),
    ):
        client.starttls(CA.certificate, name)


@pytest.mark.parametrize("answer", ["OK\n", "OK STARTTLS NOW\n", "GARBAGE\n", "OK STARTTLS\nVAR ups ups.status OB\n"])
def test_malformed_answer_to_starttls_is_an_error(answer: str) -> None:
    """Text that arrives before the encryption may be from an attacker."""
    with serving({"STARTTLS": answer}) as server, server.client() as client:
        with pytest.raises(net_errors.BadAnswer, match="answered STARTTLS with"):
            client.starttls(CA.certificate, "localhost")
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_net_version()


def hang_after_ok(connection: socket.socket, request: str) -> None:
    connection.sendall(b"OK STARTTLS\n")
    while connection.recv(4096):
        pass


def drip_records(connection: socket.socket, request: str) -> None:
    connection.sendall(b"OK STARTTLS\n")
    connection.recv(4096)
    connection.sendall(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xf0")
    while True:
        connection.sendall(b"\x00")
        threading.Event().wait(0.02)


def talk_without_tls(connection: socket.socket, request: str) -> None:
    connection.sendall(b"OK STARTTLS\n")
    connection.recv(4096)
    connection.sendall(b"VAR ups ups.status OL\n" * 10)
    connection.recv(4096)


def close_after_ok(connection: socket.socket, request: str) -> None:
    connection.sendall(b"OK STARTTLS\n")
    connection.recv(4096)


@pytest.mark.parametrize(
    ("misbehave", "kind", "why"),
    [
        (send_nothing, net_errors.Unreachable, "in time"),
        (hang_after_ok, net_errors.Unreachable, "in time"),
        (drip_records, net_errors.Unreachable, "in time"),
        (talk_without_tls, net_errors.BadAnswer, "the TLS handshake failed"),
        (close_after_ok, net_errors.Unreachable, "cannot be reached: "),
    ],
)
def test_hostile_tls_server_is_abandoned_within_the_timeout(
    misbehave: Callable[[socket.socket, str], None], kind: type[net_errors.Unreachable], why: str
) -> None:
    begin = time.monotonic()
    with serving(misbehave=misbehave) as server:
        with server.client(timeout=0.5) as client, pytest.raises(kind, match=why) as caught:
            client.starttls(CA.certificate, "localhost")
        assert time.monotonic() - begin < 3
        assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_end_of_the_encryption_is_an_error(tls_server: Callable[..., Callable[[socket.socket, str], None]]) -> None:
    talk = tls_server()

    def leave(connection: socket.socket, request: str) -> None:
        # an unknown request ends the connection
        with pytest.raises(KeyError):
            talk(connection, request)

    with serving(misbehave=leave) as server, server.client() as client:
        client.starttls(CA.certificate, "localhost")
        with pytest.raises(net_errors.Unreachable, match="closed the connection before its answer was complete"):
            client.list_vars("nobody")
        with pytest.raises(net_errors.Unreachable, match="closed"):
            _unused = client.tls_version
