# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask upsd what it serves: a client of NUT's network protocol (RFC 9271) that only reads.

It never logs in: a LOGIN would count as one more system that hangs on the UPS, and the primary would wait for it.
Nothing that is asked here needs a password. It trusts nobody: whatever the other side sends or does not send, a Client
comes to an end within its timeout. With starttls it sees whom it speaks to, and speaks on encrypted.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

from . import parseconf
from .monitors import PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    Resolve = Callable[[str, float], "Sequence[str]"]

LINE_LIMIT = 4096
"""Bytes of a line of an answer. upsd cuts a value at 512 characters; twice that if each has a backslash."""

LINES_LIMIT = 10000
"""Lines of one answer. A large UPS has some hundred variables."""

LOOPBACK = "127.0.0.1"
"""What normal_address makes of every address of the loopback interface."""

CAREFUL = frozenset({"OB", "LB", "FSD", "CAL", "BYPASS", "OFF"})
"""Flags of a status that says more than "on mains, and well"."""

_RETRY_INTERVAL = 1.0

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
    "DATA-STALE": "the driver has had no news from the UPS for too long",
    "DRIVER-NOT-CONNECTED": "the driver of this UPS does not run",
    "FEATURE-NOT-CONFIGURED": "it has no TLS, or could not read its certificate when it started (see its journal)",
    "FEATURE-NOT-SUPPORTED": "it was built without TLS",
    "UNKNOWN-UPS": "it has no UPS of this name",
    "VAR-NOT-SUPPORTED": "the UPS has no such variable",
}
_ERRORS: dict[str, type[UpsdError]] = {
    "ACCESS-DENIED": AccessDenied,
    "DATA-STALE": DataStale,
    "DRIVER-NOT-CONNECTED": DriverNotConnected,
    "FEATURE-NOT-CONFIGURED": NoTls,
    "FEATURE-NOT-SUPPORTED": NoTls,
    "UNKNOWN-UPS": UnknownUps,
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


class Client:
    """A connection to upsd, as a context manager.

    ``timeout`` (seconds) bounds everything from the connection to the last answer, the resolving of the name included.
    So who waits for something to change opens a new Client for each look; upsd drops a silent one after 60 s anyway.

    Each method raises UpsdError (or the subclass for its code) if upsd answers so, after which the connection can still
    be used; Unreachable if there is no upsd or no answer in time, and BadAnswer, which is an Unreachable too, for an
    answer that breaks the protocol. A name that cannot be written raises parseconf.Unencodable.
    """

    def __init__(self, host: str, port: int = PORT, timeout: float = 5.0) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self._deadline = 0.0
        self._socket: socket.socket | None = None
        self._buffer = b""

    def __enter__(self) -> Client:
        self._deadline = time.monotonic() + self.timeout
        self._buffer = b""
        self._socket = self._connect()
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

    def starttls(self, ca_pem: str, server_name: str) -> None:
        """Encrypt all further talk, with an upsd that a certificate from ``ca_pem`` shows to be ``server_name``.

        ``ca_pem``: the certificates (PEM) that are trusted, and no others. ``server_name``: a DNS name, or an IP
        address without brackets. Raises NoTls, after which the connection can still be used; WrongName, or Untrusted,
        also if ``ca_pem`` holds no certificate; BadAnswer if what comes is no TLS.
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

    def get_var(self, ups: str, name: str) -> str:
        """Return one variable of a UPS. Raises VarNotSupported, besides what list_vars raises."""
        return self._get("VAR", ups, name)

    def num_logins(self, ups: str) -> int:
        """Return how many are logged in to a UPS. Raises DataStale and DriverNotConnected, besides UnknownUps."""
        text = self._get("NUMLOGINS", ups)
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise self._nonsense("GET NUMLOGINS", (text,))
        return int(text)

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
        return words[:3] == (edge, "LIST", what) and len(words) == 3 + len(of) and all(map(_same, words[3:], of))

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
        lines = parseconf.parse(line + "\n")
        # DEL is the one control character that NUT's parser lets through, and that we could not ask for again.
        if len(lines) != 1 or "\x7f" in line:
            raise self._nonsense(about, (line,))
        words = lines[0].words
        if words[0] == "ERR":
            code = words[1] if len(words) > 1 else "(none)"
            raise _ERRORS.get(code, UpsdError)(code, self.where, about, " ".join(words[2:]))
        return words

    def _nonsense(self, about: str, words: Sequence[str]) -> BadAnswer:
        shown = " ".join(words)
        return self._failed(BadAnswer, f"it answered {about} with {shown[:80]!r}, which is not NUT's protocol")

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


def _context(ca_pem: str) -> ssl.SSLContext:
    """Return what verifies a server against these certificates and the name that it is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # NSS takes any CA that it is told to trust for an anchor, OpenSSL a self-signed one only. 3.9 does not know the flag.
    context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0)
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


def snapshot(client: Client, names: Iterable[str] | None = None) -> tuple[UpsState, ...]:
    """Return the state of the UPSes with these names (in any case), or of all that upsd serves, in upsd's order.

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
    return tuple(_state(client, name, served[name]) for name in wanted)


def _state(client: Client, name: str, description: str) -> UpsState:
    error: str | None = None
    variables: dict[str, str] = {}
    clients: tuple[str, ...] = ()
    num_logins: int | None = None
    try:
        variables = client.list_vars(name)
        num_logins = client.num_logins(name)
    except UpsdError as trouble:
        error = trouble.code
    try:
        clients = client.list_clients(name)
    except UpsdError as trouble:
        error = error or trouble.code
    status = split_status(variables.get("ups.status", ""))
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
    )


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
    """What a look at upsd saw. ``stale`` pairs the name of a UPS that is not fresh with the reason."""

    version: str
    protocol: str
    upses: tuple[UpsState, ...]
    missing: tuple[Missing, ...]
    stale: tuple[tuple[str, str], ...]
    message: str

    @property
    def ok(self) -> bool:
        """Whether there is a UPS, each is fresh, and each expected client has logged in."""
        return bool(self.upses) and not self.stale and not self.missing


def look(
    client: Client,
    ups: Sequence[str] | None = None,
    expected_clients: Sequence[str] = (),
    addresses_of: Resolve = resolve,
) -> Report:
    """Look once, through an open client, at the UPSes named (default: all), and at who is logged in to them.

    An expected client is an address or a name; it is there if any of its addresses is logged in to any of these UPSes.
    Raises what snapshot raises.
    """
    version, protocol = client.version(), client.net_version()
    upses = snapshot(client, ups)
    logged_in = tuple(dict.fromkeys(normal_address(address) for state in upses for address in state.clients))
    missing: list[Missing] = []
    for name in expected_clients:
        try:
            addresses = tuple(dict.fromkeys(normal_address(address) for address in addresses_of(name, client.timeout)))
        except OSError as error:
            missing.append(Missing(name, (), f"cannot be resolved ({_reason(error)})"))
            continue
        if not set(addresses) & set(logged_in):
            missing.append(Missing(name, addresses, "has not logged in"))
    stale = tuple((state.name, _staleness(state)) for state in upses if not state.fresh)
    message = _message(client.where, upses, logged_in, missing, expected_clients)
    return Report(version, protocol, upses, tuple(missing), stale, message)


def wait_until_ok(
    open_client: Callable[[], Client],
    ups: Sequence[str] | None = None,
    expected_clients: Sequence[str] = (),
    *,
    wait: float = 0.0,
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
                report = look(client, ups, expected_clients, addresses_of)
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
    r"(device|driver|server)\..*|.*\.(serial|mfr|model|firmware|aux|version|vendorid|productid|part|id|date|time|type)",
)


def typed_value(name: str, value: str) -> str | int | float:
    """Return the value of a variable as a number if it is a quantity; names, releases and dates stay text."""
    if _TEXT.fullmatch(name) or not _NUMBER.fullmatch(value):
        return value
    return float(value) if "." in value else int(value)
