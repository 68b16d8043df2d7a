# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Speak with upsd: a client of NUT's network protocol (RFC 9271).

It trusts nobody: whatever the other side sends or does not send, a Client comes to an end within its timeout. With
starttls it sees whom it speaks to, and speaks on encrypted.

To look needs no password, and no LOGIN: that would count as one more system that hangs on the UPS, and the primary
would wait for it. So snapshot, look and wait_until_ok never log in. What has an effect (instcmd, set_var, fsd) needs
authenticate.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

from . import parseconf
from .monitors import PORT
from .words import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from types import TracebackType

    Resolve = Callable[[str, float], "Sequence[str]"]

LINE_LIMIT = 4096
"""Bytes of a line of an answer. upsd cuts a value at 512 characters; twice that if each has a backslash."""

LINES_LIMIT = 10000
"""Lines of one answer. A large UPS has some hundred variables."""

VARIABLES, CLIENTS, COMMANDS, WRITABLE = "variables", "clients", "commands", "writable"

GATHER = (VARIABLES, CLIENTS, COMMANDS, WRITABLE)
"""What a snapshot can hold of a UPS, besides its name, description and status."""

SEEN_ALWAYS = (VARIABLES, CLIENTS)
"""What a snapshot holds unless it is told otherwise."""

LOOPBACK = "127.0.0.1"
"""What normal_address makes of every address of the loopback interface."""

CAREFUL = frozenset({"OB", "LB", "FSD", "CAL", "BYPASS", "OFF"})
"""Flags of a status that says more than "on mains, and well"."""

_RETRY_INTERVAL = 1.0

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
        meaning = detail or _MEANINGS.get(code, "")
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

_MEANINGS = {
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


def join_host(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_status(status: str) -> tuple[str, ...]:
    """Return the flags of a ``ups.status``: ``"OB LB"`` gives ``("OB", "LB")``."""
    return tuple(status.split())


def normal_address(text: str) -> str:
    """Return an IP address so that two spellings of it compare equal; what is no IP address comes back as it is.

    IPv4 mapped into IPv6 becomes IPv4: a upsd that listens on :: shows IPv4 clients that way. All of the loopback
    interface becomes 127.0.0.1, because Debian gives a host's own name the address 127.0.1.1. A zone (%eth0) goes.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return LOOPBACK if address.is_loopback else str(address)


def resolve(name: str, timeout: float) -> tuple[str, ...]:
    """Return the addresses of ``name``, as the system's resolver gives them, at most ``timeout`` seconds from now.

    Raises OSError: socket.gaierror if it has none, TimeoutError if the answer takes too long.
    """
    try:
        return (str(ipaddress.ip_address(name)),)
    except ValueError:
        pass
    found: queue.SimpleQueue[tuple[str, ...] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found.put(tuple(dict.fromkeys(str(answer[4][0]) for answer in answers)))
        except UnicodeError as error:  # an empty label, or one that is too long
            found.put(OSError(str(error)))
        except OSError as error:
            found.put(error)

    # getaddrinfo() has no timeout of its own, and a dead name server takes long. A thread can be left behind.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = found.get(timeout=max(timeout, 0.001))
    except queue.Empty:
        raise TimeoutError(f"the name was not resolved within {timeout:g} s") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


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


@dataclass(frozen=True)
class Writable:
    """A variable that can be set. values, ranges: what it may be, as upsd lists it; () if it lists nothing."""

    name: str
    value: str
    description: str
    type: Type
    values: tuple[str, ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()


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
            raise self._failed(Unreachable, _reason(error)) from error

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
            raise self._failed(Unreachable, _reason(error)) from error
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
                raise type(error)(error.code if error.code in _MEANINGS else "an error", self.where, about) from None
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
        request = parseconf.join(words).encode("ascii") + b"\n"
        connection = self._connected()
        try:
            connection.settimeout(self._left())
            connection.sendall(request)
        except OSError as error:
            raise self._failed(Unreachable, _reason(error)) from error
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
                raise self._failed(Unreachable, _reason(error)) from error
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
            raise Unreachable(self.host, self.port, str(error) or _reason(error)) from error
        reasons: list[str] = []
        for position, address in enumerate(addresses):
            try:
                # An address that swallows everything must leave time for the ones after it.
                share = self._left() / (len(addresses) - position)
                return socket.create_connection((address, self.port), timeout=share)
            except OSError as error:
                reasons.append(
                    f"{_reason(error)} ({normal_address(address)})" if len(addresses) > 1 else _reason(error)
                )
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
        if len(found) <= parseconf.WORDS_LIMIT and max(map(len, found)) <= parseconf.WORD_LIMIT:
            return found
    lines = parseconf.parse(line + "\n")
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


def _reason(error: OSError) -> str:
    if isinstance(error, (TimeoutError, socket.timeout)):  # two classes before Python 3.10
        return "no complete answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused (does upsd run, and LISTEN on this address?)"
    return error.strerror or str(error) or type(error).__name__


@dataclass(frozen=True)
class UpsState:
    """What upsd says about one UPS at one moment.

    ``fresh``: upsd serves its data, and they have a status. If not, ``error`` is upsd's code (DATA-STALE,
    DRIVER-NOT-CONNECTED, ...) or None while the driver is still starting, and status and variables are what there is.
    ``clients`` are the addresses of those who are logged in, as upsd writes them; ``num_logins`` is None if upsd would
    not say.
    """

    name: str
    description: str
    status: tuple[str, ...]
    fresh: bool
    error: str | None
    variables: Mapping[str, str]
    clients: tuple[str, ...]
    num_logins: int | None
    commands: Mapping[str, str] = field(default_factory=dict)
    writable: Mapping[str, Writable] = field(default_factory=dict)


def snapshot(
    client: Client, names: Iterable[str] | None = None, gather: Collection[str] = SEEN_ALWAYS
) -> tuple[UpsState, ...]:
    """Return the state of the UPSes with these names (in any case), or of all that upsd serves, in upsd's order.

    gather: what is wanted (GATHER). Without VARIABLES only the status is asked for; what is not asked for is empty.
    Raises UnknownUps if upsd does not serve one of the names, and Unreachable.
    """
    served = client.list_ups()
    wanted = list(served)
    if names is not None:
        known = {name.lower(): name for name in served}
        for name in names:
            if name.lower() not in known:
                others = ", ".join(served) or "none at all"
                raise UnknownUps("UNKNOWN-UPS", client.where, f"the question for {name!r}", f"it serves {others}")
        asked = {name.lower() for name in names}
        wanted = [name for name in served if name.lower() in asked]
    descriptions: dict[str, str] = {}
    return tuple(_state(client, name, served[name], gather, descriptions) for name in wanted)


def _state(
    client: Client, name: str, description: str, gather: Collection[str], descriptions: dict[str, str]
) -> UpsState:
    """descriptions: upsd's of commands and variables so far, which are the same for all UPSes."""
    error: str | None = None
    variables: dict[str, str] = {}
    status: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    num_logins: int | None = None
    commands: dict[str, str] = {}
    writable: dict[str, Writable] = {}
    try:
        if VARIABLES in gather:
            variables = client.list_vars(name)
            status = split_status(variables.get("ups.status", ""))
        else:
            status = _status(client, name)
        if CLIENTS in gather:
            num_logins = client.num_logins(name)
        if COMMANDS in gather:
            commands = commands_of(client, name, descriptions)
        if WRITABLE in gather:
            for variable, value in client.list_rw(name).items():
                writable[variable] = _writable(client, name, variable, value, descriptions)
    except UpsdError as trouble:
        error = trouble.code
    if CLIENTS in gather:
        try:
            clients = client.list_clients(name)
        except UpsdError as trouble:
            error = error or trouble.code
    return UpsState(
        name=name,
        description=description,
        status=status,
        # A driver that has not yet heard from its UPS has no status, or says WAIT.
        fresh=error is None and bool(status) and "WAIT" not in status,
        error=error,
        variables=variables,
        clients=clients,
        num_logins=num_logins,
        commands=commands,
        writable=writable,
    )


def _status(client: Client, ups: str) -> tuple[str, ...]:
    try:
        return split_status(client.get_var(ups, "ups.status"))
    except VarNotSupported:
        return ()


def commands_of(client: Client, ups: str, descriptions: dict[str, str]) -> dict[str, str]:
    """Return the commands of a UPS with upsd's descriptions. Those that descriptions has are not asked for again."""
    found = {}
    for command in client.list_cmds(ups):
        key = f"command {command.lower()}"
        if key not in descriptions:
            descriptions[key] = _described(client.get_cmddesc(ups, command))
        found[command] = descriptions[key]
    return found


def writable_of(client: Client, ups: str, name: str) -> Writable | None:
    """Return what a variable may be set to; None if it can't be set. Raises what get_var raises."""
    for known, value in client.list_rw(ups).items():
        if _same(known, name):
            return _writable(client, ups, known, value, {})
    client.get_var(ups, name)
    return None


def _writable(client: Client, ups: str, name: str, value: str, descriptions: dict[str, str]) -> Writable:
    key = f"variable {name.lower()}"
    if key not in descriptions:
        descriptions[key] = _described(client.get_desc(ups, name))
    kind = client.get_type(ups, name)
    return Writable(
        name=name,
        value=value,
        description=descriptions[key],
        type=kind,
        values=client.list_enum(ups, name) if kind.enum else (),
        ranges=client.list_range(ups, name) if kind.range else (),
    )


def _described(text: str) -> str:
    """What upsd says where it has no description is none (server/netget.c)."""
    return "" if text == "Description unavailable" else text


def careful(states: Iterable[UpsState]) -> list[str]:
    """Name the UPSes that are not plainly on mains, with their status: ``ups (OB LB)``. One without data is not among them."""
    return [
        f"{one.name} ({' '.join(one.status)})" for one in states if one.fresh and not CAREFUL.isdisjoint(one.status)
    ]


@dataclass(frozen=True)
class Missing:
    """A client that is expected and has not logged in. ``addresses`` is empty if the name could not be resolved."""

    name: str
    addresses: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Report:
    """What a look at upsd saw.

    ``stale`` pairs the name of a UPS that is not fresh with the reason. ``unexpected``: the addresses that are logged in
    and belong to none of the expected clients; it counts for nothing, and is () where nobody was expected.
    ``tls_version`` and ``tls_expires``: of the connection and of upsd's certificate; None if it was not encrypted.
    """

    version: str
    protocol: str
    upses: tuple[UpsState, ...]
    missing: tuple[Missing, ...]
    stale: tuple[tuple[str, str], ...]
    message: str
    unexpected: tuple[str, ...] = ()
    tls_version: str | None = None
    tls_expires: datetime | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a UPS, each is fresh, and each expected client has logged in."""
        return bool(self.upses) and not self.stale and not self.missing


def look(
    client: Client,
    ups: Sequence[str] | None = None,
    expected_clients: Sequence[str] = (),
    addresses_of: Resolve = resolve,
    gather: Collection[str] = SEEN_ALWAYS,
) -> Report:
    """Look once, through an open client, at the UPSes named (default: all), and at who is logged in to them.

    An expected client is an address or a name; it is there if any of its addresses is logged in to any of these UPSes.
    gather: as snapshot; with expected clients the clients are asked for in any case. Raises what snapshot raises.
    """
    version, protocol = client.version(), client.net_version()
    upses = snapshot(client, ups, {*gather, CLIENTS} if expected_clients else gather)
    tls_version, tls_expires = client.tls_version, client.peer_not_after
    logged_in = tuple(dict.fromkeys(normal_address(address) for state in upses for address in state.clients))
    missing: list[Missing] = []
    known: set[str] = set()
    for name in expected_clients:
        try:
            addresses = tuple(dict.fromkeys(normal_address(address) for address in addresses_of(name, client.timeout)))
        except OSError as error:
            missing.append(Missing(name, (), f"cannot be resolved ({_reason(error)})"))
            continue
        known.update(addresses)
        if not set(addresses) & set(logged_in):
            missing.append(Missing(name, addresses, "has not logged in"))
    stale = tuple((state.name, _staleness(state)) for state in upses if not state.fresh)
    message = _message(client.where, upses, logged_in, missing, expected_clients)
    unexpected = tuple(address for address in logged_in if address not in known) if expected_clients else ()
    return Report(version, protocol, upses, tuple(missing), stale, message, unexpected, tls_version, tls_expires)


def wait_until_ok(
    open_client: Callable[[], Client],
    ups: Sequence[str] | None = None,
    expected_clients: Sequence[str] = (),
    *,
    wait: float = 0.0,
    gather: Collection[str] = SEEN_ALWAYS,
    addresses_of: Resolve = resolve,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Look, once a second, until all is well or ``wait`` seconds are over; return the last look.

    Each look is a connection of its own. If the last look failed, its exception is raised: Unreachable, or UnknownUps
    (a UPS may be missing for a moment while upsd reads its files). An earlier failure does not count.
    """
    end = clock() + wait
    while True:
        failure: UpsdFailure | None = None
        try:
            with open_client() as client:
                report = look(client, ups, expected_clients, addresses_of, gather)
            if report.ok:
                return report
        except UpsdFailure as error:
            failure = error
        left = end - clock()
        if left <= 0:
            if failure is not None:
                raise failure
            return report
        sleep(min(_RETRY_INTERVAL, left))


def _staleness(state: UpsState) -> str:
    if state.error is not None:
        return f"{state.error}: {_MEANINGS[state.error]}" if state.error in _MEANINGS else state.error
    return "its driver has no status yet"


def _message(
    where: str,
    upses: Sequence[UpsState],
    logged_in: Sequence[str],
    missing: Sequence[Missing],
    expected: Sequence[str],
) -> str:
    served = [
        f"{state.name} ({' '.join(state.status)}) fresh"
        if state.fresh
        else f"{state.name} not fresh ({_staleness(state)})"
        for state in upses
    ]
    parts = [f"upsd at {where} serves {', '.join(served) or 'no UPS'}"]
    absent = {client.name for client in missing}
    present = [name for name in expected if name not in absent]
    if present:
        parts.append(f"logged in as expected: {', '.join(present)}")
    for client in missing:
        # An address does not need itself in brackets.
        others = [address for address in client.addresses if address != normal_address(client.name)]
        parts.append(f"{client.name}{' (' + ', '.join(others) + ')' if others else ''} {client.why}")
    text = "; ".join(parts)
    return f"{text}: logged in {'are ' + ', '.join(logged_in) if logged_in else 'is nobody'}" if missing else text


_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?")
# These look like numbers at times, but are names: 2.10 is not 2.1, and a serial number may begin with a 0.
_TEXT = re.compile(
    r"(device|driver|server)\.(?!(uptime|count)$).*"
    r"|.*\.(serial|mfr|model|firmware|aux|version|vendorid|productid|part|id|date|time|type|name|desc|description)"
    r"|.*\.(alarm|chemistry|contact|country|debug|group|location|macaddr|password|sensitivity|result|uri|uuid)"
    r"|ups\.(contacts|status)"
)


def typed_value(name: str, value: str) -> str | int | float:
    """Return the value of a variable as a number if it is a quantity; names, releases and dates stay text.

    It goes by the name (docs/nut-names.txt) and by the form. upsd's own word for it, TYPE, is of no use: it calls
    everything a NUMBER that the driver did not call a text, so most serial numbers, too.
    """
    if _TEXT.fullmatch(name) or not _NUMBER.fullmatch(value):
        return value
    return float(value) if "." in value else int(value)


def same_value(left: str, right: str) -> bool:
    """Say whether two values of a variable mean the same: numbers are compared as numbers, so 020 is 20.0."""
    number = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,9})?")
    if number.fullmatch(left) and number.fullmatch(right):
        return Decimal(left) == Decimal(right)
    return left == right
