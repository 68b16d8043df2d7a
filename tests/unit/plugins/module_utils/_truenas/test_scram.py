# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test SCRAM with the examples of RFC 5802 and RFC 7677, and against the server's side in the lab."""

from __future__ import annotations

import base64
import datetime
import hashlib
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._truenas.scram import (
    ScramClient,
    ScramError,
    bind_to_certificate,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID
from truenas.scram import ScramRefused, ScramServer, parse_client_first

# digest, nonce, first message, challenge, proof, the server's proof
RFC_5802 = (
    "sha1",
    "fyko+d2lbbFgONRv9qkxdawL",
    "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
RFC_7677 = (
    "sha256",
    "rOprNGfwEbeRWgbNEkqO",
    "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)


@pytest.mark.parametrize("vector", [RFC_5802, RFC_7677], ids=["RFC 5802", "RFC 7677"])
def test_example_of_the_rfc(vector: tuple[str, ...]) -> None:
    digest, nonce, first, challenge, proof, server_proof = vector
    client = ScramClient("user", "pencil", nonce=nonce, digest=digest, iterations=range(4096, 4097))
    assert client.first_message() == first
    assert client.final_message(challenge) == proof
    client.check_server(server_proof)
    with pytest.raises(ScramError, match="does not know the key"):
        client.check_server("v=" + base64.b64encode(b"another").decode())


def log_in(client: ScramClient, *, secret: str = "s" * 64, binding: bytes | None = b"hash") -> None:
    """Let a client log in at the lab's server."""
    server = ScramServer(parse_client_first(client.first_message()), secret, binding)
    client.check_server(server.check_proof(client.final_message(server.challenge)))


@pytest.mark.parametrize("binding", [None, b"hash"])
def test_client_and_server_prove_the_same_key(binding: bytes | None) -> None:
    log_in(ScramClient("nut:7", "s" * 64, binding))


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ({"secret": "t" * 64, "binding": b"hash"}, {}),
        ({"secret": "s" * 64, "binding": b"another"}, {}),
        ({"secret": "s" * 64, "binding": b"hash"}, {"binding": None}),
    ],
    ids=["another key", "another certificate", "a server without a certificate"],
)
def test_other_proof_is_refused(client: dict[str, Any], server: dict[str, Any]) -> None:
    with pytest.raises(ScramRefused):
        log_in(ScramClient("nut:7", **client), **server)


def test_nonces_differ_from_login_to_login() -> None:
    assert len({ScramClient("a", "b").first_message() for _login in range(20)}) == 20


@pytest.mark.parametrize(
    ("name", "written"),
    [("nut:7", "nut:7"), ("a=b,c", "a=3Db=2Cc"), ("\u2168", "IX"), ("I\u00adX", "IX"), ("a\u00a0b", "a b")],
)
def test_user_name_is_prepared(name: str, written: str) -> None:
    assert ScramClient(name, "x", nonce="n").first_message() == f"n,,n={written},r=n"


def test_secret_is_prepared() -> None:
    """RFC 4013: these are spellings of the same secret."""
    challenge = "r=nx,s=c2FsdA==,i=50000"
    proofs = {
        ScramClient("nut:7", secret, nonce="n").final_message(challenge)
        for secret in ("IX\u00e4", "\u2168\u00e4", "I\u00adXa\u0308")
    }
    assert len(proofs) == 1
    assert ScramClient("nut:7", "IXa", nonce="n").final_message(challenge) not in proofs


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "r=",
        "r=n,s=c2FsdA==,i=50000",  # nothing of its own
        "r=,s=c2FsdA==,i=50000",
        "r=mx,s=c2FsdA==,i=50000",
        "r=nx,s=c2FsdA==,i=49999",
        "r=nx,s=c2FsdA==,i=5000001",
        "r=nx,s=c2FsdA==,i=-1",
        "r=nx,s=c2FsdA==,i=0",
        "r=nx,s=c2FsdA==,i=1",
        "r=nx,s=c2FsdA==,i=1000000000",
        "r=nx,s=c2FsdA==,i=" + "9" * 5000,
        "r=nx,s=c2FsdA==,i=5e4",
        "r=nx,s=c2FsdA==,i=\u0665\u0660\u0660\u0660\u0660",
        "r=nx,s=,i=50000",
        "s=c2FsdA==,r=nx,i=50000",
        "r=nx,s=c2FsdA==",
        "r=nx,s=%,i=50000",
        "r=n\u00e4,s=c2FsdA==,i=50000",
        "m=mandatory,r=nx,s=c2FsdA==,i=50000",
        "e=unknown-user",
    ],
)
def test_strange_challenge_is_refused(challenge: str) -> None:
    with pytest.raises(ScramError):
        ScramClient("nut:7", "x", nonce="n").final_message(challenge)


@pytest.mark.parametrize("answer", ["", "v=", "e=invalid-proof", "v=####", "v=QUJD", "x=1", "v", "V=QUJD", "\ud800"])
def test_server_without_a_proof_is_refused(answer: str) -> None:
    client = ScramClient("nut:7", "x", nonce="n")
    client.final_message("r=nx,s=c2FsdA==,i=50000")
    with pytest.raises(ScramError):
        client.check_server(answer)


def test_proof_before_a_challenge_is_refused() -> None:
    with pytest.raises(ScramError):
        ScramClient("nut:7", "x").check_server("v=")


# --- the certificate -------------------------------------------------------------------------------------------------


def make_certificate(key: Any, digest: Any, rsa_padding: Any = None) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=1))
    )
    signed = builder.sign(key, digest, **({"rsa_padding": rsa_padding} if rsa_padding else {}))
    return signed.public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def rsa_key() -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


HASHES = [hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]


@pytest.mark.parametrize("digest", HASHES, ids=lambda digest: digest.name)
@pytest.mark.parametrize("kind", ["rsa", "pss", "ecdsa"])
def test_certificate_is_hashed_with_the_hash_of_its_signature(rsa_key: Any, kind: str, digest: Any) -> None:
    if kind == "ecdsa":
        certificate = make_certificate(ec.generate_private_key(ec.SECP256R1()), digest)
    else:
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size) if kind == "pss" else None
        certificate = make_certificate(rsa_key, digest, pss)
    found = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    assert found is not None
    assert bind_to_certificate(certificate) == hashlib.new(found.name, certificate).digest()


def with_algorithm(identifier: str, parameters: bytes = b"") -> bytes:
    """Return what a certificate begins with: the signed part, then the algorithm."""
    oid = bytes.fromhex(identifier)
    algorithm = bytes([0x06, len(oid)]) + oid + parameters
    body = b"\x30\x02\x05\x00" + bytes([0x30, len(algorithm)]) + algorithm
    return bytes([0x30, len(body)]) + body


@pytest.mark.parametrize(
    ("identifier", "parameters"),
    [
        ("2a864886f70d010104", b"\x05\x00"),  # MD5
        ("2a864886f70d010105", b"\x05\x00"),  # SHA-1
        ("2a8648ce3d0401", b""),  # ECDSA with SHA-1
        ("2a864886f70d01010a", b""),  # PSS, whose default is SHA-1
        ("2a864886f70d01010a", b"\x30\x00"),
        ("2a864886f70d01010a", b"\x30\x05\xa2\x03\x02\x01\x14"),
        ("2a864886f70d01010a", bytes.fromhex("300da00b300906052b0e03021a0500")),
    ],
)
def test_old_hashes_count_as_sha_256(identifier: str, parameters: bytes) -> None:
    certificate = with_algorithm(identifier, parameters)
    assert bind_to_certificate(certificate) == hashlib.sha256(certificate).digest()


def test_certificate_without_such_a_hash_is_not_bound() -> None:
    assert bind_to_certificate(make_certificate(ed25519.Ed25519PrivateKey.generate(), None)) is None


@pytest.mark.parametrize("certificate", [None, b"", b"\x30", b"\x30\x85", b"\x31\x00", b"\x30\x02\x30\x05", b"x" * 99])
def test_broken_certificate_is_not_bound(certificate: bytes | None) -> None:
    assert bind_to_certificate(certificate) is None
