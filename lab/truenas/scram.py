# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's side of SCRAM-SHA-512, as TrueNAS 26 has it: truenas_pyscram and pam_truenas.

Like TrueNAS, and unlike RFC 5802, it joins the bytes of the two nonces and writes the result in base64 anew.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_DIGEST = "sha512"
_NONCE_BYTES = 32
#: The fewest that TrueNAS's own library takes. A real TrueNAS uses 500000, which would make each login of the lab slow.
ITERATIONS = 50_000
_BINDING = "p=tls-server-end-point"


class ScramRefused(Exception):
    """The client's message is not right."""


@dataclass(frozen=True)
class ClientFirst:
    """The client's first message."""

    header: str  # the flag of GS2, without its commas
    name: str
    key_id: int  # 0: none
    nonce: bytes
    bare: str  # the message without the flag

    @property
    def wants_binding(self) -> bool:
        """Return whether the client binds the login to the certificate that it has seen."""
        return self.header.startswith("p=")


def parse_client_first(text: str) -> ClientFirst:
    """Read the client's first message. Raise ScramRefused."""
    found = re.fullmatch(r"(n|y|p=[A-Za-z0-9.-]+),,(n=([^,=]+),r=([A-Za-z0-9+/=]+))", text)
    if not found:
        raise ScramRefused("the message can't be read")
    name, _colon, number = found[3].partition(":")
    nonce = _decode(found[4])
    if len(nonce) not in (_NONCE_BYTES, 2 * _NONCE_BYTES):
        raise ScramRefused(f"{len(nonce)}: unexpected nonce size")
    return ClientFirst(found[1], name, int(number) if number.isdigit() else 0, nonce, found[2])


class ScramServer:
    """One login in progress. `binding` is the hash of this server's certificate; None without one."""

    def __init__(self, first: ClientFirst, secret: str, binding: bytes | None) -> None:
        self._first = first
        self._binding = binding
        self._salted = _salt_secret(secret)
        self._nonce = base64.b64encode(first.nonce + secrets.token_bytes(_NONCE_BYTES)).decode()
        self.challenge = f"r={self._nonce},s={base64.b64encode(_make_salt(secret)).decode()},i={ITERATIONS}"

    def check_proof(self, text: str) -> str:
        """Check the client's last message and return this server's proof. Raise ScramRefused."""
        found = re.fullmatch(r"(c=([A-Za-z0-9+/=]+),r=([A-Za-z0-9+/=]+)),p=([A-Za-z0-9+/=]+)", text)
        if not found:
            raise ScramRefused("the message can't be read")
        wanted = f"{self._first.header},,".encode()
        if self._first.wants_binding:
            if self._binding is None or self._first.header != _BINDING:
                raise ScramRefused("there is no such channel binding here")
            wanted += self._binding
        if _decode(found[2]) != wanted:
            raise ScramRefused("the channel binding is another one")
        if found[3] != self._nonce:
            raise ScramRefused("the nonce is another one")
        message = f"{self._first.bare},{self.challenge},{found[1]}".encode()
        stored_key = hashlib.new(_DIGEST, _sign(self._salted, b"Client Key")).digest()
        signature = _sign(stored_key, message)
        client_key = bytes(left ^ right for left, right in zip(_decode(found[4]), signature))
        if not hmac.compare_digest(hashlib.new(_DIGEST, client_key).digest(), stored_key):
            raise ScramRefused("the proof is wrong")
        return f"v={base64.b64encode(_sign(_sign(self._salted, b'Server Key'), message)).decode()}"


def _sign(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, _DIGEST).digest()


def _make_salt(secret: str) -> bytes:
    """Return the salt of a key. TrueNAS draws one when it makes the key, and keeps it."""
    return hashlib.sha256(f"salt of {secret}".encode()).digest()[:16]


@functools.cache
def _salt_secret(secret: str) -> bytes:
    return hashlib.pbkdf2_hmac(_DIGEST, secret.encode(), _make_salt(secret), ITERATIONS)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ScramRefused("the message is not in base64") from None
