# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TLS of the client of upsd."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import client as net_client
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import connection as net_connection
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot
from ansible_collections.homelab.nut.plugins.plugin_utils import certificates
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import ANSWERS, serve_answers
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


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
    with serve_answers(misbehave=tls_server(["localhost", "127.0.0.1", "::1", "pve.home.lan"])) as server:
        with server.open_client() as client:
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
    with serve_answers(misbehave=tls_server()) as server:
        with net_client.UpsdClient(
            "127.0.0.1", server.port, tls=net_connection.TlsOptions(CA.certificate, name)
        ) as client:
            report = snapshot.observe_upsd(client, ["ups"])
        assert (report.tls_version, report.tls_expires) == ("TLSv1.3", (NOW + certificates.LIFE).replace(microsecond=0))
        assert server.asked == ["STARTTLS"]


def test_missing_tls_module_is_an_error() -> None:
    with serve_answers({"STARTTLS": "ERR FEATURE-NOT-CONFIGURED\n"}) as server:
        client = net_client.UpsdClient("127.0.0.1", server.port, tls=net_connection.TlsOptions(CA.certificate))
        with pytest.raises(net_errors.NoTls):
            client.__enter__()
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_version()


def test_own_authority_is_unknown_to_the_system(
    tls_server: Callable[..., Callable[[socket.socket, str], None]],
) -> None:
    with (
        serve_answers(misbehave=tls_server()) as server,
        pytest.raises(net_errors.Untrusted, match="can't be trusted for localhost"),
    ):
        net_client.UpsdClient("127.0.0.1", server.port, tls=net_connection.TlsOptions(None, "localhost")).__enter__()


@pytest.mark.parametrize("code", ["FEATURE-NOT-CONFIGURED", "FEATURE-NOT-SUPPORTED"])
def test_server_without_tls_is_refused(code: str) -> None:
    with serve_answers({"STARTTLS": f"ERR {code}\n"}) as server, server.open_client() as client:
        with pytest.raises(net_errors.NoTls, match=rf"answered {code} to STARTTLS: it .* TLS"):
            client.starttls(CA.certificate, "localhost")
        assert client.get_net_version() == "1.3"


@pytest.mark.parametrize("name", ["127.0.0.2", "::1", "nas", "localhost.home.lan"])
def test_certificate_for_another_name_is_refused(
    tls_server: Callable[..., Callable[[socket.socket, str], None]], name: str
) -> None:
    with serve_answers(misbehave=tls_server()) as server, server.open_client() as client:
        with pytest.raises(net_errors.WrongName, match=f"can't be trusted for {name}: .*mismatch") as caught:
            client.starttls(CA.certificate, name)
        assert caught.value.port == server.port
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_net_version()


def test_other_authority_with_the_same_name_is_refused(
    tls_server: Callable[..., Callable[[socket.socket, str], None]],
) -> None:
    other = certificates.make_ca("our CA", NOW)
    with (
        serve_answers(misbehave=tls_server(ca=other)) as server,
        server.open_client() as client,
        pytest.raises(net_errors.UnknownIssuer, match="can't be trusted for localhost"),
    ):
        client.starttls(CA.certificate, "localhost")


def test_any_of_several_authorities_is_trusted(tls_server: Callable[..., Callable[[socket.socket, str], None]]) -> None:
    both = certificates.make_ca("other CA", NOW).certificate + CA.certificate
    with serve_answers(misbehave=tls_server()) as server, server.open_client() as client:
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
    with serve_answers(misbehave=tls_server()) as server, server.open_client() as client:
        client.starttls(trusted, "localhost")
        assert client.get_net_version() == "1.3"


def test_expired_certificate_is_refused(tls_server: Callable[..., Callable[[socket.socket, str], None]]) -> None:
    long_ago = NOW - certificates.LIFE - timedelta(hours=1)
    with (
        serve_answers(misbehave=tls_server(made=long_ago)) as server,
        server.open_client() as client,
        pytest.raises(net_errors.Untrusted, match="certificate has expired") as caught,
    ):
        client.starttls(CA.certificate, "localhost")
    assert not isinstance(caught.value, net_errors.UnknownIssuer)


@pytest.mark.parametrize("text", ["", "PEM", "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"])
def test_invalid_ca_is_an_error(tls_server: Callable[..., Callable[[socket.socket, str], None]], text: str) -> None:
    with (
        serve_answers(misbehave=tls_server()) as server,
        server.open_client() as client,
        pytest.raises(net_errors.Untrusted, match="the CA text contains no certificate"),
    ):
        client.starttls(text, "localhost")


@pytest.mark.parametrize("name", ["", ".home.lan", "x" * 64 + ".lan"])
def test_invalid_server_name_is_an_error(
    tls_server: Callable[..., Callable[[socket.socket, str], None]], name: str
) -> None:
    with (
        serve_answers(misbehave=tls_server()) as server,
        server.open_client() as client,
        pytest.raises(net_errors.Untrusted, match="can't be trusted for"),
    ):
        client.starttls(CA.certificate, name)


@pytest.mark.parametrize("answer", ["OK\n", "OK STARTTLS NOW\n", "GARBAGE\n", "OK STARTTLS\nVAR ups ups.status OB\n"])
def test_malformed_answer_to_starttls_is_an_error(answer: str) -> None:
    """Text that arrives before the encryption may be from an attacker."""
    with serve_answers({"STARTTLS": answer}) as server, server.open_client() as client:
        with pytest.raises(net_errors.BadAnswer, match="answered STARTTLS with"):
            client.starttls(CA.certificate, "localhost")
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_net_version()


def send_nothing(connection: socket.socket, request: str) -> None:
    connection.recv(1)


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
    with serve_answers(misbehave=misbehave) as server:
        with server.open_client(timeout=0.5) as client, pytest.raises(kind, match=why) as caught:
            client.starttls(CA.certificate, "localhost")
        assert time.monotonic() - begin < 3
        assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_end_of_the_encryption_is_an_error(tls_server: Callable[..., Callable[[socket.socket, str], None]]) -> None:
    talk = tls_server()

    def leave(connection: socket.socket, request: str) -> None:
        # an unknown request ends the connection
        with pytest.raises(KeyError):
            talk(connection, request)

    with serve_answers(misbehave=leave) as server, server.open_client() as client:
        client.starttls(CA.certificate, "localhost")
        with pytest.raises(net_errors.Unreachable, match="closed the connection before its answer was complete"):
            client.list_vars("nobody")
        with pytest.raises(net_errors.Unreachable, match="closed"):
            _unused = client.tls_version
