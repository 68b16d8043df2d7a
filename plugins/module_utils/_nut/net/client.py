# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Speak with upsd: a client of NUT's network protocol (RFC 9271).

It trusts nobody: whatever the other side sends or does not send, a Client comes to an end within its timeout. With
starttls it sees whom it speaks to, and speaks on encrypted.

To look needs no password, and no LOGIN: that would count as one more system that hangs on the UPS, and the primary
would wait for it. What has an effect (instcmd, set_var, fsd) needs authenticate.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

from ..base.hostnames import join_host, normal_address, resolve
from ..base.text import printable
from ..conf import grammar
from ..conf.upsd import PORT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

LINE_LIMIT = 4096
"""Bytes of a line of an answer. upsd cuts a value at 512 characters; twice that if each has a backslash."""

LINES_LIMIT = 10000
"""Lines of one answer. A large UPS has some hundred variables."""


# upsd writes each line by itself, and its system holds the second one back until we have confirmed the first, which ours
# would do 40 ms later: on each list. Linux forgets the option after a while, so it is set for each receipt.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)

# How a line looks almost always: words without anything to quote, one blank between them, the last in quotes perhaps.
_PLAIN = re.compile(r'([A-Za-z0-9_.,:;@/+*%-]+(?: [A-Za-z0-9_.,:;@/+*%-]+)*)(?: "([^"#\\\x00-\x1f\x7f-\xff]*)")?')

# Codes with which upsd refuses to say what became of an order. All others tell what became of it.
_NO_TRACKING = frozenset({"ACCESS-DENIED", "FEATURE-NOT-CONFIGURED", "UNKNOWN-COMMAND", "USERNAME-REQUIRED"})

# OpenSSL's verdicts (x509_vfy.h) of a certificate that is for another host name, and for another address.
_WRONG_NAME = (62, 64)


class UpsdFailure(Exception):
    """upsd could not be asked, or would not answer."""


class UpsdError(UpsdFailure):
    """upsd at ``where`` answered ``ERR code`` to ``about``. The codes are listed in RFC 9271; DATA-STALE is one."""

    def __init__(self, code: str, where: str, about: str, detail: str = "") -> None:
        meaning = detail or MEANINGS.get(code, "")
        super().__init__(f"upsd at {where} answered {code} to {about}" + (f": {meaning}" if meaning else ""))
        self.code = code
        self.about = about


class DataStale(UpsdError):
    """The driver runs, but has heard nothing from its UPS for longer than MAXAGE."""


class DriverNotConnected(UpsdError):
    """No driver of this name runs, or upsd cannot reach it."""


class UnknownUps(UpsdError):
    """upsd has no UPS of this name."""


class AccessDenied(UpsdError):
    """upsd wants a login, or does not like our address."""


class VarNotSupported(UpsdError):
    """The UPS has no such variable."""


class CmdNotSupported(UpsdError):
    """The UPS has no such instant command."""


class InvalidArgument(UpsdError):
    """upsd does not understand the request, or the value of a command."""


class InvalidValue(UpsdError):
    """The value is not among those that the variable may have."""


class TooLong(UpsdError):
    """The value has more characters than the variable may have."""


class ReadOnly(UpsdError):
    """The variable can't be set."""


class UnknownCommand(UpsdError):
    """upsd is too old for this request."""


class NoTls(UpsdError):
    """upsd offers no TLS, on purpose or because it could not read its certificate."""


class Unreachable(UpsdFailure):
    """No upsd could be talked to at ``host`` and ``port`` for the reason ``why``."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(f"upsd at {join_host(host, port)} cannot be reached: {why}")
        self.host = host
        self.port = port
        self.why = why


class BadAnswer(Unreachable):
    """Something listens there, but what it says is not NUT's protocol."""


class Untrusted(Unreachable):
    """upsd's certificate can't be trusted: it does not come from our CA, or has expired."""


class WrongName(Untrusted):
    """upsd's certificate is good, and for another name."""


_F = TypeVar("_F", bound=Unreachable)

MEANINGS = {
    "ACCESS-DENIED": "it does not let this host or user ask that",
    "ALREADY-ATTACHED": "this connection is logged in already",
    "ALREADY-LOGGED-IN": "this connection is logged in already",
    "ALREADY-SET-PASSWORD": "this connection has a password already",
    "ALREADY-SET-USERNAME": "this connection has a user already",
    "ALREADY-SSL-MODE": "this connection is encrypted already",
    "CMD-NOT-SUPPORTED": "the UPS has no such command",
    "DATA-STALE": "the driver has had no news from the UPS for too long",
    "DRIVER-NOT-CONNECTED": "the driver of this UPS does not run",
    "FEATURE-NOT-CONFIGURED": "it has no TLS, or could not read its certificate when it started (see its journal)",
    "FEATURE-NOT-SUPPORTED": "it was built without TLS",
    "INSTCMD-FAILED": "it could not hand the command to the driver",
    "INVALID-ARGUMENT": "it does not understand the request",
    "INVALID-VALUE": "the variable can't have this value",
    "PASSWORD-REQUIRED": "it wants a password",
    "READONLY": "the variable can't be set",
    "SET-FAILED": "it could not hand the value to the driver",
    "TOO-LONG": "the value is too long",
    "UNKNOWN-COMMAND": "it does not know this request",
    "UNKNOWN-UPS": "it has no UPS of this name",
    "USERNAME-REQUIRED": "it wants a user and a password",
    "VAR-NOT-SUPPORTED": "the UPS has no such variable",
}
_ERRORS: dict[str, type[UpsdError]] = {
    "ACCESS-DENIED": AccessDenied,
    "CMD-NOT-SUPPORTED": CmdNotSupported,
    "DATA-STALE": DataStale,
    "DRIVER-NOT-CONNECTED": DriverNotConnected,
    "FEATURE-NOT-CONFIGURED": NoTls,
    "FEATURE-NOT-SUPPORTED": NoTls,
    "INVALID-ARGUMENT": InvalidArgument,
    "INVALID-VALUE": InvalidValue,
    "PASSWORD-REQUIRED": AccessDenied,
    "READONLY": ReadOnly,
    "TOO-LONG": TooLong,
    "UNKNOWN-COMMAND": UnknownCommand,
    "UNKNOWN-UPS": UnknownUps,
    "USERNAME-REQUIRED": AccessDenied,
    "VAR-NOT-SUPPORTED": VarNotSupported,
}


@dataclass(frozen=True)
class Tls:
    """How a Client encrypts. ca: as starttls. server_name: whom the certificate must be for; "" is the Client's host."""

    ca: str | None = None
    server_name: str = ""


@dataclass(frozen=True)
class Type:
    """What upsd says of the type of a variable.

    length: the most characters of a text; None if it is none. Since 2.8.0 upsd calls a NUMBER whatever has no other
    type (server/netget.c), so a serial number, too: number says little.
    """

    writable: bool
    enum: bool
    range: bool
    length: int | None
    number: bool


class Client:
    """A connection to upsd, as a context manager.

    ``timeout`` (seconds) bounds everything from the connection to the last answer, the resolving of the name included.
    So who waits for something to change opens a new Client for each look, or says renew; upsd drops a silent one after
    60 s anyway. ``tls``: the connection is encrypted from its beginning, or not made (raises what starttls raises).

    Each method raises UpsdError (or the subclass for its code) if upsd answers so, after which the connection can still
    be used; Unreachable if there is no upsd or no answer in time, and BadAnswer, which is an Unreachable too, for an
    answer that breaks the protocol. A name that cannot be written raises parseconf.Unencodable.
    """

    def __init__(self, host: str, port: int = PORT, timeout: float = 5.0, tls: Tls | None = None) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self.tls = tls
        self._deadline = 0.0
        self._socket: socket.socket | None = None
        self._buffer = b""

    def __enter__(self) -> Client:
        self.renew()
        self._buffer = b""
        self._socket = self._connect()
        if self.tls is not None:
            try:
                self.starttls(self.tls.ca, self.tls.server_name or self.host)
            except BaseException:
                self.close()  # who gets no Client can't close it
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

    def renew(self) -> None:
        """Let the timeout begin anew: from now on, the rest of the talk has this long."""
        self._deadline = time.monotonic() + self.timeout

    @property
    def where(self) -> str:
        """``host:port``, for messages."""
        return join_host(self.host, self.port)

    @property
    def local_address(self) -> str:
        """The address by which upsd sees us, if no NAT is in between; in the form of normal_address."""
        try:
            return normal_address(str(self._connected().getsockname()[0]))
        except OSError as error:
            raise self._failed(Unreachable, reason(error)) from error

    def starttls(self, ca_pem: str | None, server_name: str) -> None:
        """Encrypt all further talk, with an upsd that a certificate from ``ca_pem`` shows to be ``server_name``.

        ``ca_pem``: the certificates (PEM) that are trusted, and no others; None: those that the system trusts.
        ``server_name``: a DNS name, or an IP address without brackets. Raises NoTls, after which the connection can still
        be used; WrongName, or Untrusted, also if ``ca_pem`` holds no certificate; BadAnswer if what comes is no TLS.
        """
        words = self._answer(self._ask("STARTTLS"), "STARTTLS")
        # What came with the answer, unencrypted, may be anybody's.
        if words != ("OK", "STARTTLS") or self._buffer:
            raise self._nonsense("STARTTLS", (*words, self._buffer.decode("latin-1")))
        connection = self._connected()
        trusted = f"its certificate is not to be trusted for {server_name}"
        try:
            connection.settimeout(self._left())
            self._socket = _context(ca_pem).wrap_socket(connection, server_hostname=server_name)
        except ssl.SSLCertVerificationError as error:
            kind = WrongName if error.verify_code in _WRONG_NAME else Untrusted
            raise self._failed(kind, f"{trusted}: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise self._failed(BadAnswer, f"TLS can't be agreed on ({error.reason or error.strerror})") from error
        except OSError as error:
            raise self._failed(Unreachable, reason(error)) from error
        except ValueError as error:  # of the CA's text, or of a name that nobody can have
            raise self._failed(Untrusted, f"{trusted}: {error}") from error

    @property
    def tls_version(self) -> str | None:
        """The version of TLS, such as ``TLSv1.3``. None if nothing is encrypted."""
        connection = self._connected()
        return connection.version() if isinstance(connection, ssl.SSLSocket) else None

    @property
    def peer_not_after(self) -> datetime | None:
        """When upsd's certificate expires. None if nothing is encrypted."""
        connection = self._connected()
        if not isinstance(connection, ssl.SSLSocket):
            return None
        # starttls lets nobody pass without a certificate
        ends = str((connection.getpeercert() or {})["notAfter"])
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), timezone.utc)

    def version(self) -> str:
        """Return upsd's release, such as ``2.8.1``."""
        line = self._ask("VER")
        if line.startswith("ERR "):
            self._answer(line, "VER")
        found = re.search(r"\bupsd (\S+)", line)
        if found is None:
            raise self._nonsense("VER", (line,))
        return found.group(1)

    def net_version(self) -> str:
        """Return the version of the protocol, such as ``1.3``."""
        words = self._answer(self._ask("NETVER"), "NETVER")
        if len(words) != 1 or not re.fullmatch(r"[0-9.]{1,20}", words[0]):
            raise self._nonsense("NETVER", words)
        return words[0]

    def list_ups(self) -> dict[str, str]:
        """Return the names of all UPSes and their descriptions (``desc`` of ups.conf), in upsd's order."""
        return {row[0]: row[1] for row in self._list("UPS", (), 2)}

    def list_vars(self, ups: str) -> dict[str, str]:
        """Return all variables of a UPS. Raises DataStale and DriverNotConnected, besides UnknownUps."""
        return {row[0]: row[1] for row in self._list("VAR", (ups,), 2)}

    def list_clients(self, ups: str) -> tuple[str, ...]:
        """Return the addresses of those who are logged in to a UPS: each running upsmon once for each of its MONITORs.

        upsd answers this even if the data of the UPS is stale.
        """
        return tuple(row[0] for row in self._list("CLIENT", (ups,), 1))

    def list_rw(self, ups: str) -> dict[str, str]:
        """Return the variables that can be set. Raises what list_vars raises."""
        return {row[0]: row[1] for row in self._list("RW", (ups,), 2)}

    def list_cmds(self, ups: str) -> tuple[str, ...]:
        """Return the instant commands of a UPS. Raises what list_vars raises."""
        return tuple(row[0] for row in self._list("CMD", (ups,), 1))

    def list_enum(self, ups: str, name: str) -> tuple[str, ...]:
        """Return the values that a variable may have; () if there is no list of them. Raises what get_var raises."""
        return tuple(row[0] for row in self._list("ENUM", (ups, name), 1))

    def list_range(self, ups: str, name: str) -> tuple[tuple[int, int], ...]:
        """Return from where to where a variable may go; () if nothing says so. Raises what get_var raises."""
        rows = self._list("RANGE", (ups, name), 2)
        for row in rows:
            if not all(re.fullmatch(r"-?[0-9]{1,15}", word) for word in row):
                raise self._nonsense("LIST RANGE", row)
        return tuple((int(least), int(most)) for least, most in rows)

    def get_var(self, ups: str, name: str) -> str:
        """Return one variable of a UPS. Raises VarNotSupported, besides what list_vars raises."""
        return self._get("VAR", ups, name)

    def get_type(self, ups: str, name: str) -> Type:
        """Return what upsd says of the type of a variable. Raises what get_var raises."""
        words = self._answer(self._ask("GET", "TYPE", ups, name), f"GET TYPE of {ups} {name}")
        if len(words) < 3 or words[0] != "TYPE" or not _same(words[1], ups) or not _same(words[2], name):
            raise self._nonsense("GET TYPE", words)
        said = words[3:]
        lengths = [found.group(1) for found in (re.fullmatch(r"STRING:([0-9]{1,9})", word) for word in said) if found]
        return Type(
            writable="RW" in said,
            enum="ENUM" in said,
            range="RANGE" in said,
            length=int(lengths[0]) if lengths else None,
            number="NUMBER" in said,
        )

    def get_desc(self, ups: str, name: str) -> str:
        """Return upsd's description of a variable. It says ``Description unavailable`` where it has none."""
        return self._get("DESC", ups, name)

    def get_cmddesc(self, ups: str, command: str) -> str:
        """Return upsd's description of an instant command. It says ``Description unavailable`` where it has none."""
        return self._get("CMDDESC", ups, command)

    def ups_desc(self, ups: str) -> str:
        """Return the description of a UPS (``desc`` of ups.conf). It says ``Unavailable`` where it has none."""
        return self._get("UPSDESC", ups)

    def num_logins(self, ups: str) -> int:
        """Return how many are logged in to a UPS. Raises DataStale and DriverNotConnected, besides UnknownUps."""
        text = self._get("NUMLOGINS", ups)
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise self._nonsense("GET NUMLOGINS", (text,))
        return int(text)

    def authenticate(self, username: str, password: str) -> None:
        """Say who we are, for what needs a user. It is no LOGIN.

        upsd says OK to all; whether it is right shows with the first order: AccessDenied. Without TLS the password is
        to be read on the way. No error names it. Raises UpsdError if it was done before.
        """
        self._order(("USERNAME", username), "USERNAME")
        self._order(("PASSWORD", password), "PASSWORD", secret=True)

    def set_tracking(self) -> None:
        """Have orders of this connection tracked. Raises UnknownCommand or InvalidArgument if upsd is older than 2.8.0.

        It needs authenticate (server/netcmds.h), but no right: else AccessDenied.
        """
        self._order(("SET", "TRACKING", "ON"), "SET TRACKING ON")

    def get_tracking(self, tracking: str) -> str:
        """Return what became of an order: PENDING, SUCCESS, or why not: UNKNOWN, INVALID-ARGUMENT, FAILED.

        tracking: as instcmd and set_var return it. It is good for any connection on which set_tracking was said, for
        TRACKINGDELAY (an hour). UNKNOWN: the driver does not know the command or variable, or upsd not the id.
        """
        try:
            words = self._answer(self._ask("GET", "TRACKING", tracking), "GET TRACKING")
        except UpsdError as error:
            if error.code in _NO_TRACKING:
                raise
            return error.code
        if words not in {("PENDING",), ("SUCCESS",)}:
            raise self._nonsense("GET TRACKING", words)
        return words[0]

    def instcmd(self, ups: str, command: str, value: str | None = None) -> str | None:
        """Have the driver do a command. Returns the id by which it can be tracked; None if set_tracking was not said.

        It says only that the driver was told. Raises CmdNotSupported, AccessDenied, and what list_vars raises.
        """
        words = ("INSTCMD", ups, command) if value is None else ("INSTCMD", ups, command, value)
        return self._tracked(words, f"INSTCMD {ups} {command}")

    def set_var(self, ups: str, name: str, value: str) -> str | None:
        """Have the driver set a variable. Returns as instcmd does.

        Raises AccessDenied, VarNotSupported, ReadOnly, InvalidValue, TooLong, and what list_vars raises.
        """
        return self._tracked(("SET", "VAR", ups, name, value), f"SET VAR {ups} {name}")

    def fsd(self, ups: str) -> None:
        """Set the flag FSD: every host on this UPS goes down, and the primary may cut its power. Nothing takes it back.

        Raises AccessDenied for a user without ``actions = FSD`` or ``upsmon primary``.
        """
        self._order(("FSD", ups), f"FSD {ups}", "FSD-SET")

    def primary(self, ups: str) -> None:
        """Prove that the user may be a primary of this UPS; it has no effect. Raises AccessDenied if not.

        A secondary can't be proven so: only by login.
        """
        try:
            self._order(("PRIMARY", ups), f"PRIMARY {ups}", "PRIMARY-GRANTED")
        except UnknownCommand:  # older than 2.8.0
            self._order(("MASTER", ups), f"MASTER {ups}", "MASTER-GRANTED")

    def login(self, ups: str) -> None:
        """Count as a system that hangs on this UPS, until the connection ends. Never for a look: a primary waits for us."""
        self._order(("LOGIN", ups), f"LOGIN {ups}")

    def logout(self) -> None:
        """Say good-bye, and hang up."""
        words = self._answer(self._ask("LOGOUT"), "LOGOUT")
        if words[:1] != ("OK",) and words != ("Goodbye...",):
            raise self._nonsense("LOGOUT", words)
        self.close()

    def _order(self, words: tuple[str, ...], about: str, granted: str = "", secret: bool = False) -> None:
        """Say something that upsd answers with OK. secret: what it answers is not shown, as it could be what we said."""
        try:
            answer = self._answer(self._ask(*words), about)
        except UpsdError as error:
            if secret:
                raise type(error)(error.code if error.code in MEANINGS else "an error", self.where, about) from None
            raise
        except BadAnswer:
            if secret:
                raise self._nonsense(about, ()) from None
            raise
        # an older upsd has other words after the OK
        if answer[0] != "OK" or (granted and answer[1:2] != (granted,)):
            raise self._nonsense(about, () if secret else answer)

    def _tracked(self, words: tuple[str, ...], about: str) -> str | None:
        answer = self._answer(self._ask(*words), about)
        if answer[0] != "OK" or (len(answer) > 1 and (len(answer) != 3 or answer[1] != "TRACKING")):
            raise self._nonsense(about, answer)
        return answer[2] if len(answer) > 1 else None

    def _get(self, what: str, ups: str, *names: str) -> str:
        words = self._answer(self._ask("GET", what, ups, *names), f"GET {what} of {' '.join((ups, *names))}")
        if len(words) != len(names) + 3 or (words[0], *words[2:-1]) != (what, *names) or not _same(words[1], ups):
            raise self._nonsense(f"GET {what}", words)
        return words[-1]

    def _list(self, what: str, of: tuple[str, ...], columns: int) -> list[tuple[str, ...]]:
        """Return the rows of a LIST, without the words that are the same in each."""
        about = " ".join(("LIST", what, *of))
        words = self._answer(self._ask("LIST", what, *of), about)
        if not self._frames("BEGIN", what, of, words):
            raise self._nonsense(about, words)
        rows: list[tuple[str, ...]] = []
        for _line in range(LINES_LIMIT):
            words = self._answer(self._line(), about)
            if self._frames("END", what, of, words):
                return rows
            own = words[1 : 1 + len(of)]
            if words[:1] != (what,) or len(words) != 1 + len(of) + columns or not all(map(_same, own, of)):
                raise self._nonsense(about, words)
            rows.append(words[1 + len(of) :])
        raise self._failed(BadAnswer, f"its answer to {about} has more than {LINES_LIMIT} lines")

    @staticmethod
    def _frames(edge: str, what: str, of: tuple[str, ...], words: tuple[str, ...]) -> bool:
        # upsd 2.7.4 ends a list of ranges with the word of another list
        kinds = {what, "ENUM"} if (edge, what) == ("END", "RANGE") else {what}
        begin = words[:2] == (edge, "LIST") and len(words) == 3 + len(of)
        return begin and words[2] in kinds and all(map(_same, words[3:], of))

    def _ask(self, *words: str) -> str:
        """Send a command, and return the first line of the answer."""
        request = grammar.join(words).encode("ascii") + b"\n"
        connection = self._connected()
        try:
            connection.settimeout(self._left())
            connection.sendall(request)
        except OSError as error:
            raise self._failed(Unreachable, reason(error)) from error
        return self._line()

    def _line(self) -> str:
        connection = self._connected()
        while b"\n" not in self._buffer:
            if len(self._buffer) > LINE_LIMIT:
                raise self._failed(BadAnswer, f"it sent a line of more than {LINE_LIMIT} bytes")
            try:
                connection.settimeout(self._left())
                if _QUICKACK is not None:
                    connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
                received = connection.recv(LINE_LIMIT)
            except OSError as error:
                raise self._failed(Unreachable, reason(error)) from error
            if not received:
                raise self._failed(Unreachable, "it closed the connection before its answer was complete")
            self._buffer += received
        line, _newline, self._buffer = self._buffer.partition(b"\n")
        if len(line) > LINE_LIMIT:
            raise self._failed(BadAnswer, f"it sent a line of more than {LINE_LIMIT} bytes")
        # NUT's own parser drops what is not ASCII; so does ours, from whatever this makes of it.
        return line.decode("latin-1")

    def _answer(self, line: str, about: str) -> tuple[str, ...]:
        """Return the words of a line. An ERR becomes an exception."""
        found = split(line)
        if found is None:
            raise self._nonsense(about, (line,))
        if found[0] == "ERR":
            code = printable(found[1], 80) if len(found) > 1 else "(none)"
            detail = printable(" ".join(found[2:]))
            raise _ERRORS.get(code, UpsdError)(code, self.where, about, detail)
        return found

    def _nonsense(self, about: str, words: Sequence[str]) -> BadAnswer:
        shown = repr(" ".join(words)[:80]) if words else "something"
        return self._failed(BadAnswer, f"it answered {about} with {shown}, which is not NUT's protocol")

    def _failed(self, kind: type[_F], why: str) -> _F:
        """Hang up, because nobody knows which answer would come next; return the exception to raise."""
        self.close()
        return kind(self.host, self.port, why)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise Unreachable(self.host, self.port, "the connection is closed")
        return self._socket

    def _left(self) -> float:
        """Return the seconds that are left. Raises TimeoutError if there are none; that is an OSError."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _connect(self) -> socket.socket:
        if not 0 < self.port < 65536:
            # The system would take the rest of a division by 65536.
            raise Unreachable(self.host, self.port, "there is no such port")
        try:
            addresses = resolve(self.host, self._left())
        except socket.gaierror as error:
            raise Unreachable(self.host, self.port, f"the name cannot be resolved ({error.strerror})") from error
        except OSError as error:
            raise Unreachable(self.host, self.port, str(error) or reason(error)) from error
        reasons: list[str] = []
        for position, address in enumerate(addresses):
            try:
                # An address that swallows everything must leave time for the ones after it.
                share = self._left() / (len(addresses) - position)
                return socket.create_connection((address, self.port), timeout=share)
            except OSError as error:
                reasons.append(f"{reason(error)} ({normal_address(address)})" if len(addresses) > 1 else reason(error))
        raise Unreachable(self.host, self.port, ", ".join(dict.fromkeys(reasons)))


def split(line: str) -> tuple[str, ...] | None:
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
    lines = grammar.parse(line + "\n")
    return lines[0].words if len(lines) == 1 and "\x7f" not in line else None


def _context(ca_pem: str | None) -> ssl.SSLContext:
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


def _same(left: str, right: str) -> bool:
    """upsd compares names of UPSes without regard to case, and repeats them now as asked, now as configured."""
    return left.lower() == right.lower()


def reason(error: OSError) -> str:
    if isinstance(error, (TimeoutError, socket.timeout)):  # two classes before Python 3.10
        return "no complete answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused (does upsd run, LISTEN on this address, and may this host connect to it?)"
    return error.strerror or str(error) or type(error).__name__
