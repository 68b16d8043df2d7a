# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection to upsd, line by line (RFC 9271).

It trusts nobody: whatever the other side sends or does not send, it comes to an end within its timeout. With starttls it sees whom
it speaks to, and speaks on encrypted.
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
from .errors import ERRORS, BadAnswer, Unreachable, Untrusted, UpsdError, WrongName, explain_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

LINE_LIMIT = 4096
"""Bytes of a line of an answer. upsd cuts a value at 512 characters; twice that if each has a backslash."""

# upsd writes each line by itself, and its system holds the second one back until we have confirmed the first, which ours
# would do 40 ms later: on each list. Linux forgets the option after a while, so it is set for each receipt.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)

# How a line looks almost always: words without anything to quote, one blank between them, the last in quotes perhaps.
_PLAIN = re.compile(r'([A-Za-z0-9_.,:;@/+*%-]+(?: [A-Za-z0-9_.,:;@/+*%-]+)*)(?: "([^"#\\\x00-\x1f\x7f-\xff]*)")?')

# OpenSSL's verdicts (x509_vfy.h) of a certificate that is for another host name, and for another address.
_WRONG_NAME = (62, 64)


_F = TypeVar("_F", bound=Unreachable)
_C = TypeVar("_C", bound="UpsdConnection")


@dataclass(frozen=True)
class TlsOptions:
    """How a Client encrypts. ca: as starttls. server_name: whom the certificate must be for; "" is the Client's host."""

    ca: str | None = None
    server_name: str = ""


class UpsdConnection:
    """A connection to upsd, as a context manager.

    ``timeout`` (seconds) bounds everything from the connection to the last answer, the resolving of the name included.
    So who waits for something to change opens a new one for each look, or calls renew; upsd drops a silent one after 60 s anyway.
    ``tls``: the connection is encrypted from its beginning, or not made (raises what starttls raises).
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
                self.close()  # who gets no connection can't close it
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. upsd needs no LOGOUT from a client that did not log in."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def renew_timeout(self) -> None:
        """Let the timeout begin anew: from now on, the rest of the talk has this long."""
        self._deadline = time.monotonic() + self.timeout

    @property
    def address(self) -> str:
        """``host:port``, for messages."""
        return join_host(self.host, self.port)

    @property
    def local_address(self) -> str:
        """The address by which upsd sees us, if no NAT is in between; in the form of normal_address."""
        try:
            return normal_address(str(self._get_socket().getsockname()[0]))
        except OSError as error:
            raise self._give_up(Unreachable, explain_error(error)) from error

    def starttls(self, ca_pem: str | None, server_name: str) -> None:
        """Encrypt all further talk, with an upsd that a certificate from ``ca_pem`` shows to be ``server_name``.

        ``ca_pem``: the certificates (PEM) that are trusted, and no others; None: those that the system trusts.
        ``server_name``: a DNS name, or an IP address without brackets. Raises NoTls, after which the connection can still
        be used; WrongName, or Untrusted, also if ``ca_pem`` holds no certificate; BadAnswer if what comes is no TLS.
        """
        words = self._parse_answer(self._send_request("STARTTLS"), "STARTTLS")
        # What came with the answer, unencrypted, may be anybody's.
        if words != ("OK", "STARTTLS") or self._buffer:
            raise self._reject_answer("STARTTLS", (*words, self._buffer.decode("latin-1")))
        connection = self._get_socket()
        trusted = f"its certificate is not to be trusted for {server_name}"
        try:
            connection.settimeout(self._seconds_left())
            self._socket = _make_tls_context(ca_pem).wrap_socket(connection, server_hostname=server_name)
        except ssl.SSLCertVerificationError as error:
            kind = WrongName if error.verify_code in _WRONG_NAME else Untrusted
            raise self._give_up(kind, f"{trusted}: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise self._give_up(BadAnswer, f"TLS can't be agreed on ({error.reason or error.strerror})") from error
        except OSError as error:
            raise self._give_up(Unreachable, explain_error(error)) from error
        except ValueError as error:  # of the CA's text, or of a name that nobody can have
            raise self._give_up(Untrusted, f"{trusted}: {error}") from error

    @property
    def tls_version(self) -> str | None:
        """The version of TLS, such as ``TLSv1.3``. None if nothing is encrypted."""
        connection = self._get_socket()
        return connection.version() if isinstance(connection, ssl.SSLSocket) else None

    @property
    def peer_not_after(self) -> datetime | None:
        """When upsd's certificate expires. None if nothing is encrypted."""
        connection = self._get_socket()
        if not isinstance(connection, ssl.SSLSocket):
            return None
        # starttls lets nobody pass without a certificate
        ends = str((connection.getpeercert() or {})["notAfter"])
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), timezone.utc)

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
        # NUT's own parser drops what is not ASCII; so does ours, from whatever this makes of it.
        return line.decode("latin-1")

    def _parse_answer(self, line: str, about: str) -> tuple[str, ...]:
        """Return the words of a line. An ERR becomes an exception."""
        found = split_line(line)
        if found is None:
            raise self._reject_answer(about, (line,))
        if found[0] == "ERR":
            code = printable(found[1], 80) if len(found) > 1 else "(none)"
            detail = printable(" ".join(found[2:]))
            raise ERRORS.get(code, UpsdError)(code, self.address, about, detail)
        return found

    def _reject_answer(self, about: str, words: Sequence[str]) -> BadAnswer:
        shown = repr(" ".join(words)[:80]) if words else "something"
        return self._give_up(BadAnswer, f"it answered {about} with {shown}, which is not NUT's protocol")

    def _give_up(self, kind: type[_F], why: str) -> _F:
        """Hang up, because nobody knows which answer would come next; return the exception to raise."""
        self.close()
        return kind(self.host, self.port, why)

    def _get_socket(self) -> socket.socket:
        if self._socket is None:
            raise Unreachable(self.host, self.port, "the connection is closed")
        return self._socket

    def _seconds_left(self) -> float:
        """Return the seconds that are left. Raises TimeoutError if there are none; that is an OSError."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _open_socket(self) -> socket.socket:
        if not 0 < self.port < 65536:
            # The system would take the rest of a division by 65536.
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
                # An address that swallows everything must leave time for the ones after it.
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
    """Return the words of a line without its newline, as NUT's parser reads it; None if it has none, or breaks it.

    DEL is the one control character that NUT's parser lets through, and that we could not ask for again: it breaks it.
    """
    # parseconf goes letter by letter: 20 times as slow, and a server with 500 UPSes has 20000 lines
    plain = _PLAIN.fullmatch(line)
    if plain is not None:
        bare, quoted = plain.groups()
        found = tuple(bare.split(" ")) if quoted is None else (*bare.split(" "), quoted)
        if len(found) <= grammar.WORDS_LIMIT and max(map(len, found)) <= grammar.WORD_LIMIT:
            return found
    lines = grammar.parse_lines(line + "\n")
    return lines[0].words if len(lines) == 1 and "\x7f" not in line else None


def _make_tls_context(ca_pem: str | None) -> ssl.SSLContext:
    """Return what verifies a server against these certificates and the name that it is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # NSS takes any CA that it is told to trust for an anchor, OpenSSL a self-signed one only. 3.9 does not know the flag.
    context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0)
    if ca_pem is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError("the text of the CA holds no certificate in PEM") from error
    return context
