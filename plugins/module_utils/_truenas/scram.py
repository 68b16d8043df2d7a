# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SCRAM, the login that never sends the secret (RFC 5802), bound to the certificate of the connection (RFC 5929).

Both sides prove that they know the secret, and the proof covers the certificate. So a machine that poses as TrueNAS learns
nothing, and one that sits in between and passes the messages on is found out by TrueNAS.

The libraries for it on PyPI follow the RFC to the letter: they reject a server whose nonce does not begin with the text of the
client's. TrueNAS joins the bytes of the two nonces and writes the result in base64 anew, which only begins with the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata

# What TrueNAS uses: truenas_scram of its sources takes nonces of 32 bytes and these counts only. The upper limit also keeps a
# server from keeping a run busy for minutes.
DIGEST = "sha512"
NONCE_BYTES = 32
ITERATIONS = range(50_000, 5_000_001)
BINDING_NAME = "tls-server-end-point"


class ScramError(Exception):
    """The other side's message is no proof that it knows the secret. The text is a reason, without a subject."""


class ScramClient:
    """The client's side of one login. `binding` is from bind_to_certificate(); None: the connection has no such certificate."""

    def __init__(
        self,
        name: str,
        secret: str,
        binding: bytes | None = None,
        *,
        nonce: str | None = None,
        digest: str = DIGEST,
        iterations: range = ITERATIONS,
    ) -> None:
        self._secret = _prepare_text(secret).encode()
        self._digest = digest
        self._iterations = iterations
        self._nonce = nonce or base64.b64encode(secrets.token_bytes(NONCE_BYTES)).decode()
        header = f"p={BINDING_NAME},," if binding is not None else "n,,"
        self._header = header
        self._binding = base64.b64encode(header.encode() + (binding or b"")).decode()
        self._first = f"n={_escape_name(name)},r={self._nonce}"
        self._server_signature = b""

    def first_message(self) -> str:
        """Return the client's first message."""
        return self._header + self._first

    def final_message(self, server_first: str) -> str:
        """Return the answer to the server's first message: the proof. Raises ScramError."""
        found = re.fullmatch(r"r=([!-+\--~]+),s=([A-Za-z0-9+/=]+),i=([0-9]{1,9})(,.*)?", server_first)
        if not found:
            raise ScramError("sent a challenge that can't be read")
        nonce, iterations = found[1], int(found[3])
        if not _continues_nonce(nonce, self._nonce):
            raise ScramError("answered another login than this one")
        if iterations not in self._iterations:
            raise ScramError(f"asks for {iterations} iterations, which TrueNAS does not use")
        salted = hashlib.pbkdf2_hmac(self._digest, self._secret, _decode_base64(found[2]), iterations)
        client_key = self._sign(salted, b"Client Key")
        proved = f"c={self._binding},r={nonce}"
        message = f"{self._first},{server_first},{proved}".encode()
        signature = self._sign(hashlib.new(self._digest, client_key).digest(), message)
        self._server_signature = self._sign(self._sign(salted, b"Server Key"), message)
        proof = bytes(left ^ right for left, right in zip(client_key, signature))
        return f"{proved},p={base64.b64encode(proof).decode()}"

    def check_server(self, server_final: str) -> None:
        """Raise ScramError unless the server's last message proves that it knows the secret, too."""
        found = re.fullmatch(r"v=([A-Za-z0-9+/=]+)(,.*)?", server_final)
        if not self._server_signature or not found:
            raise ScramError("did not prove that it knows the key")
        if not hmac.compare_digest(_decode_base64(found[1]), self._server_signature):
            raise ScramError("does not know the key")

    def _sign(self, key: bytes, message: bytes) -> bytes:
        return hmac.new(key, message, self._digest).digest()


def _escape_name(name: str) -> str:
    """Return a user name as SCRAM writes it: prepared, with `=` and `,` escaped."""
    return _prepare_text(name).replace("=", "=3D").replace(",", "=2C")


def _prepare_text(text: str) -> str:
    """Return a user name or a secret in the form that SASLprep (RFC 4013) gives to all its spellings."""
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each for each in text if not stringprep.in_table_b1(each)
    )
    return unicodedata.normalize("NFKC", mapped)


def _continues_nonce(nonce: str, start: str) -> bool:
    """Return whether a nonce begins with the client's, as text (RFC 5802) or as bytes (TrueNAS), and has something of its own."""
    if nonce.startswith(start):
        return len(nonce) > len(start)
    try:
        whole, own = _decode_base64(nonce), _decode_base64(start)
    except ScramError:
        return False
    return whole.startswith(own) and len(whole) > len(own)


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ScramError("sent a message that is not in base64") from None


# ---------------------------------------------------------------------------------------------------------------------
# Channel binding

# The object identifier of a signature, in DER, and its hash. RFC 5929 puts SHA-256 in the place of MD5 and SHA-1.
_SIGNATURES = {
    "2a864886f70d010104": "sha256",  # md5WithRSAEncryption
    "2a864886f70d010105": "sha256",  # sha1WithRSAEncryption
    "2a864886f70d01010e": "sha224",  # sha224WithRSAEncryption
    "2a864886f70d01010b": "sha256",
    "2a864886f70d01010c": "sha384",
    "2a864886f70d01010d": "sha512",
    "2a8648ce3d0401": "sha256",  # ecdsa-with-SHA1
    "2a8648ce3d040301": "sha224",
    "2a8648ce3d040302": "sha256",
    "2a8648ce3d040303": "sha384",
    "2a8648ce3d040304": "sha512",
}
_RSA_PSS = "2a864886f70d01010a"  # its hash is among its parameters; without it, SHA-1
_HASHES = {
    "2a864886f70d0205": "sha256",  # MD5
    "2b0e03021a": "sha256",  # SHA-1
    "608648016503040204": "sha224",
    "608648016503040201": "sha256",
    "608648016503040202": "sha384",
    "608648016503040203": "sha512",
}
_SEQUENCE, _IDENTIFIER, _FIRST_PARAMETER = 0x30, 0x06, 0xA0


def bind_to_certificate(certificate: bytes | None) -> bytes | None:
    """Return the channel binding tls-server-end-point of a certificate (DER); None if there is none, as with Ed25519."""
    if not certificate:
        return None
    try:
        name = _find_signature_hash(certificate)
    except (IndexError, ValueError):
        return None  # not a certificate; TLS would have failed
    return hashlib.new(name, certificate).digest() if name else None


def _find_signature_hash(certificate: bytes) -> str | None:
    whole = _read_der(certificate, _SEQUENCE)
    signed = _read_der(whole, _SEQUENCE)
    algorithm = _read_der(whole[_size_of_der(whole, signed) :], _SEQUENCE)
    identifier = _read_der(algorithm, _IDENTIFIER)
    if identifier.hex() != _RSA_PSS:
        return _SIGNATURES.get(identifier.hex())
    parameters = algorithm[_size_of_der(algorithm, identifier) :]
    values = _read_der(parameters, _SEQUENCE) if parameters else b""
    if not values or values[0] != _FIRST_PARAMETER:
        return _HASHES["2b0e03021a"]
    chosen = _read_der(_read_der(_read_der(values, _FIRST_PARAMETER), _SEQUENCE), _IDENTIFIER)
    return _HASHES.get(chosen.hex())


def _read_der(data: bytes, tag: int) -> bytes:
    """Return the content of the element that a text in DER begins with. Raises ValueError and IndexError."""
    if data[0] != tag:
        raise ValueError("another element")
    start, length = 2, data[1]
    if length >= 0x80:
        start += length - 0x80
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("truncated")
    return data[start : start + length]


def _size_of_der(data: bytes, content: bytes) -> int:
    """Return how long the first element of `data` is, whose content is `content`."""
    return 2 + (data[1] - 0x80 if data[1] >= 0x80 else 0) + len(content)
