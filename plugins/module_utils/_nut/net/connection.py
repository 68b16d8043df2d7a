# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection to upsd that exchanges lines (RFC 9271).

It does not trust the other side: whatever that sends or fails to send, the connection ends within its timeout. starttls
verifies upsd's certificate and encrypts the connection.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

from ..base.hostnames import join_host, normal_address, resolve_name
from ..base.text import printable
from ..conf import grammar
from ..conf.upsd import PORT
from .errors import ERRORS, BadAnswer, UnknownIssuer, Unreachable, Untrusted, UpsdError, WrongName, explain_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

LINE_LIMIT = 4096
"""Maximum bytes of a line. upsd cuts a value at 512 characters, or twice that if each is escaped with a backslash."""

# upsd writes each line separately. Its kernel holds back the second line until the first is acknowledged, which ours delays by
# 40 ms: for each list. Linux forgets the option after a while, so it is set again before each receive.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)

# What nearly all lines look like: plain words, separated by one blank; the last one may be in quotes.
_PLAIN = re.compile(r'([A-Za-z0-9_.,:;@/+*%-]+(?: [A-Za-z0-9_.,:;@/+*%-]+)*)(?: "([^"#\\\x00-\x1f\x7f-\xff]*)")?')

# OpenSSL's error codes (x509_vfy.h) for a certificate with another host name, and with another address.
_WRONG_NAME = (62, 64)
# And those for a certificate of another authority: its issuer is missing, or it or one of its issuers signed itself.
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)


_F = TypeVar("_F", bound=Unreachable)
_C = TypeVar("_C", bound="UpsdConnection")


@dataclass(frozen=True)
class TlsOptions:
    """How to encrypt a connection, and which certificate to expect."""

    ca: str | None = None  # trusted certificates (PEM); None: those that the system trusts
    server_name: str = ""  # the name or address in upsd's certificate; "": the host that is connected to


class UpsdConnection:
    """A connection to upsd, as a context manager.

    ``timeout`` (seconds) limits everything from resolving the name to the last answer. To wait for a change, open a new
    connection for each query, or call renew_timeout(); upsd drops silent connections after 60 s anyway.
    ``tls``: encrypt from the start; if that fails, there is no connection (raises what starttls raises).
    """

    def __init__(self, host: str, port: int = PORT, timeout: float = 5.0, tls: TlsOptions | None = None) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self.tls = tls
        self._deadline = 0.0
        self._socket: socket.socket | None = None
        self._buffer = b""

    def __enter__(self: _C) -> _C:
        self.renew_timeout()
        self._buffer = b""
        self._socket = self._open_socket()
        if self.tls is not None:
            try:
                self.starttls(self.tls.ca, self.tls.server_name or self.host)
            except BaseException:
                self.close()  # __exit__ is not called if __enter__ raises
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. upsd needs no LOGOUT from a client that did not log in."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def renew_timeout(self) -> None:
        """Restart the timeout: from now on, the remaining requests may take ``timeout`` seconds."""
        self._deadline = time.monotonic() + self.timeout

    @property
    def address(self) -> str:
        """``host:port``, for messages."""
        return join_host(self.host, self.port)

    @property
    def local_address(self) -> str:
        """Our address as upsd sees it, unless there is NAT in between; in the form of normal_address."""
        try:
            return normal_address(str(self._get_socket().getsockname()[0]))
        except OSError as error:
            raise self._give_up(Unreachable, explain_error(error)) from error

    def starttls(self, ca_pem: str | None, server_name: str) -> None:
        """Encrypt the connection from now on, after verifying that upsd's certificate is for ``server_name``.

        ``ca_pem``: the only trusted certificates (PEM); None: those that the system trusts. ``server_name``: a DNS name, or an
        IP address without brackets. Raises NoTls, after which the connection can still be used; WrongName; Untrusted, also if
        ``ca_pem`` holds no certificate; BadAnswer if the answer is not TLS.
        """
        words = self._parse_answer(self._send_request("STARTTLS"), "STARTTLS")
        # Unencrypted data behind the answer may come from an attacker.
        if words != ("OK", "STARTTLS") or self._buffer:
            raise self._reject_answer("STARTTLS", (*words, self._buffer.decode("latin-1")))
        connection = self._get_socket()
        untrusted = f"its certificate can't be trusted for {server_name}"
        try:
            connection.settimeout(self._seconds_left())
            self._socket = _make_tls_context(ca_pem).wrap_socket(connection, server_hostname=server_name)
        except ssl.SSLCertVerificationError as error:
            kinds = {**dict.fromkeys(_WRONG_NAME, WrongName), **dict.fromkeys(_UNKNOWN_ISSUER, UnknownIssuer)}
            kind = kinds.get(error.verify_code, Untrusted)
            raise self._give_up(kind, f"{untrusted}: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise self._give_up(BadAnswer, f"the TLS handshake failed ({error.reason or error.strerror})") from error
        except OSError as error:
            raise self._give_up(Unreachable, explain_error(error)) from error
        except ValueError as error:  # from the text of the CA, or from an impossible server name
            raise self._give_up(Untrusted, f"{untrusted}: {error}") from error

    @property
    def tls_version(self) -> str | None:
        """The TLS version, such as ``TLSv1.3``; None if the connection is not encrypted."""
        connection = self._get_socket()
        return connection.version() if isinstance(connection, ssl.SSLSocket) else None

    @property
    def peer_not_after(self) -> datetime | None:
        """When upsd's certificate expires; None if the connection is not encrypted."""
        connection = self._get_socket()
        if not isinstance(connection, ssl.SSLSocket):
            return None
        # starttls accepts no upsd without a certificate
        expiry = str((connection.getpeercert() or {})["notAfter"])
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(expiry), timezone.utc)

    def _send_request(self, *words: str) -> str:
        """Send a command, and return the first line of the answer."""
        request = grammar.join_words(words).encode("ascii") + b"\n"
        connection = self._get_socket()
        try:
            connection.settimeout(self._seconds_left())
            connection.sendall(request)
        except OSError as error:
            raise self._give_up(Unreachable, explain_error(error)) from error
        return self._read_line()

    def _read_line(self) -> str:
        connection = self._get_socket()
        while b"\n" not in self._buffer:
            if len(self._buffer) > LINE_LIMIT:
                raise self._give_up(BadAnswer, f"it sent a line of more than {LINE_LIMIT} bytes")
            try:
                connection.settimeout(self._seconds_left())
                if _QUICKACK is not None:
                    connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
                received = connection.recv(LINE_LIMIT)
            except OSError as error:
                raise self._give_up(Unreachable, explain_error(error)) from error
            if not received:
                raise self._give_up(Unreachable, "it closed the connection before its answer was complete")
            self._buffer += received
        line, _newline, self._buffer = self._buffer.partition(b"\n")
        if len(line) > LINE_LIMIT:
            raise self._give_up(BadAnswer, f"it sent a line of more than {LINE_LIMIT} bytes")
        # The parser drops the non-ASCII characters that this makes, as NUT's own parser does.
        return line.decode("latin-1")

    def _parse_answer(self, line: str, about: str) -> tuple[str, ...]:
        """Return the words of a line. Raises UpsdError (or the subclass for its code) for an ERR. about: the request."""
        words = split_line(line)
        if words is None:
            raise self._reject_answer(about, (line,))
        if words[0] == "ERR":
            code = printable(words[1], 80) if len(words) > 1 else "(none)"
            detail = printable(" ".join(words[2:]))
            raise ERRORS.get(code, UpsdError)(code, self.address, about, detail)
        return words

    def _reject_answer(self, about: str, words: Sequence[str]) -> BadAnswer:
        shown = repr(" ".join(words)[:80]) if words else "something"
        return self._give_up(BadAnswer, f"it answered {about} with {shown}, which is not NUT's protocol")

    def _give_up(self, kind: type[_F], why: str) -> _F:
        """Close the connection, which is out of step after a failure; return the exception to raise."""
        self.close()
        return kind(self.host, self.port, why)

    def _get_socket(self) -> socket.socket:
        if self._socket is None:
            raise Unreachable(self.host, self.port, "the connection is closed")
        return self._socket

    def _seconds_left(self) -> float:
        """Return the remaining seconds. Raises TimeoutError, which is an OSError, if there are none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _open_socket(self) -> socket.socket:
        if not 0 < self.port < 65536:
            # The system would silently use the port modulo 65536.
            raise Unreachable(self.host, self.port, "there is no such port")
        try:
            addresses = resolve_name(self.host, self._seconds_left())
        except socket.gaierror as error:
            raise Unreachable(self.host, self.port, f"the name cannot be resolved ({error.strerror})") from error
        except OSError as error:
            raise Unreachable(self.host, self.port, str(error) or explain_error(error)) from error
        reasons: list[str] = []
        for position, address in enumerate(addresses):
            try:
                # An address that never answers must leave time for those after it.
                share = self._seconds_left() / (len(addresses) - position)
                return socket.create_connection((address, self.port), timeout=share)
            except OSError as error:
                reasons.append(
                    f"{explain_error(error)} ({normal_address(address)})"
                    if len(addresses) > 1
                    else explain_error(error)
                )
        raise Unreachable(self.host, self.port, ", ".join(dict.fromkeys(reasons)))


def split_line(line: str) -> tuple[str, ...] | None:
    """Return the words of a line (without newline) as NUT's parser reads it; None if it has no words or breaks the rules.

    DEL is refused: it is the only control character that NUT's parser accepts, and a name with it could not be sent back.
    """
    # the full parser reads character by character and is 20 times as slow; a server with 500 UPSes sends 20000 lines
    plain = _PLAIN.fullmatch(line)
    if plain is not None:
        bare, quoted = plain.groups()
        words = tuple(bare.split(" ")) if quoted is None else (*bare.split(" "), quoted)
        if len(words) <= grammar.WORDS_LIMIT and max(map(len, words)) <= grammar.WORD_LIMIT:
            return words
    lines = grammar.parse_lines(line + "\n")
    return lines[0].words if len(lines) == 1 and "\x7f" not in line else None


def _make_tls_context(ca_pem: str | None) -> ssl.SSLContext:
    """Return a TLS context that verifies servers against these certificates; None: against those that the system trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # NSS accepts any trusted CA as an anchor, OpenSSL by default only a self-signed one. Python 3.9 lacks the flag.
    context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0)
    if ca_pem is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError("the CA text contains no certificate in PEM") from error
    return context
