# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JSON-RPC 2.0 over a WebSocket: TrueNAS's own way in, from 25.04 on.

The socket and TLS are opened here, with the standard library, and handed to websocket-client. So the certificate is
checked before anything is sent, a redirect is never followed (it could lead a key to plain http), and a proxy from
the environment is not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import ipaddress
import json
import re
import socket
import ssl
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from .._nut.base import hostnames, jsontext
from .middleware import (
    ACTION_SECONDS,
    SLOW_METHODS,
    ConnectionFailed,
    ConnectionLost,
    NoJsonRpc,
    NotAnAnswer,
    OptionError,
    call_error,
    lost_answer,
    run_job,
)
from .stream import BoundedStream, Deadline, TooMuch

try:
    import websocket
except ImportError:
    IMPORT_ERROR: str | None = traceback.format_exc()
else:
    IMPORT_ERROR = None

API_PATH = "/api/current"  # a pinned version breaks: 25.10 knows no ups.* under /api/v25.04, 26 none of 25.10's updates
# What TrueNAS's web server may say before the WebSocket is open, with the page of an error; and one message after that.
# The longest answer of those that are asked for has some 10 kB.
HEAD_LIMIT = 256 * 1024
MESSAGE_LIMIT = 4 * 1024 * 1024
CLOSE_SECONDS = 1.0
_SCHEMES = {"wss": "wss", "https": "wss", "ws": "ws", "http": "ws"}
_PORTS = {"wss": 443, "ws": 80}


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where TrueNAS listens. `host` is without brackets."""

    secure: bool
    host: str
    port: int

    @property
    def label(self) -> str:
        """The machine's name in messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["wss" if self.secure else "ws"] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"{'wss' if self.secure else 'ws'}://{self.label}{API_PATH}"


def parse_url(text: str) -> Endpoint:
    """Read what people write for a TrueNAS: HOST[:PORT], https://HOST[:PORT][/ui/...], wss://HOST[:PORT]/api/current.

    Raises OptionError. The text itself is not repeated: it may hold a password.
    """

    def refuse(reason: str) -> OptionError:
        return OptionError(f"url: {reason}; write a name or an address, or wss://truenas.lan{API_PATH}")

    if not text or not text.isascii() or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise refuse("is empty, or holds a blank, a control character or a letter outside ASCII")
    with contextlib.suppress(ValueError):
        ipaddress.IPv6Address(text)
        raise refuse("an IPv6 address must stand in brackets, such as [fd00::5]")
    scheme, separator, _rest = text.partition("://")
    if separator and scheme.lower() not in _SCHEMES:
        raise refuse("its scheme is none of wss, https, ws, http")
    try:
        parts = urlsplit(text if separator else f"wss://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refuse("its port or its brackets are wrong") from None
    if parts.username is not None or parts.password is not None:
        raise refuse("must not hold a login; use username with password or api_key")
    if not host or not re.fullmatch(r"[A-Za-z0-9._:%-]+", host) or port == 0:
        raise refuse("holds no valid host name or port")
    # The web interface's own address, /ui/..., is what people copy from the browser.
    if parts.query or parts.fragment or not re.fullmatch(rf"/?|/ui(/.*)?|{API_PATH}/?", parts.path):
        raise refuse(f"only the path {API_PATH} is spoken here")
    secure = _SCHEMES[parts.scheme.lower()] == "wss"
    return Endpoint(secure=secure, host=host, port=port or _PORTS["wss" if secure else "ws"])


def parse_fingerprint(text: str) -> str:
    """A SHA-256 as 64 lower-case hex digits, from a text with or without colons and a leading `sha256:`."""
    digits = re.sub(r"^sha-?256( fingerprint)?[:=]", "", text.strip(), flags=re.IGNORECASE)
    digits = re.sub(r"[:\s]", "", digits).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise OptionError("fingerprint: must be a SHA-256: 64 hex digits, with or without colons")
    return digits


def show_fingerprint(digits: str) -> str:
    """As browsers and openssl show it: AA:BB:..."""
    return ":".join(re.findall("..", digits.upper()))


@dataclasses.dataclass(frozen=True)
class ServerTrust:
    """How the server proves itself. A fingerprint (64 hex digits) pins one certificate and replaces the CA check."""

    validate: bool = True
    ca_path: str | None = None
    fingerprint: str | None = None


class Channel(Protocol):
    """Carries whole text frames. `receive` raises socket.timeout when none comes in time, ConnectionLost when none will come."""

    def send(self, text: str, seconds: float) -> None:
        """Send one frame, in at most so many seconds."""

    def receive(self, seconds: float) -> str:
        """Wait for one frame, at most so many seconds."""

    def close(self) -> None:
        """Close; never raises."""


class JsonRpc:
    """The middleware over a channel: one call at a time, answers matched by their id."""

    def __init__(
        self,
        channel: Channel,
        host: str,
        timeout: float = 30,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        self._channel = channel
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self._last_id = 0

    def call(self, method: str, *params: Any) -> Any:
        """See Middleware.call. Waits `timeout` seconds, longer where TrueNAS itself works for longer."""
        self._last_id += 1
        # `params` must be an array and "jsonrpc" must be there, else TrueNAS answers -32600.
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": list(params)}
        seconds = self._timeout + (ACTION_SECONDS if method in SLOW_METHODS else 0)
        deadline = Deadline(seconds, self._clock)
        self._channel.send(json.dumps(request), seconds)
        while True:
            answer = self._receive_answer(method, deadline)
            if "method" in answer and "id" not in answer:
                continue  # an event: TrueNAS may send some that nobody asked for
            if answer.get("id") != self._last_id or ("result" in answer) == ("error" in answer):
                raise self._make_not_an_answer(method, json.dumps(answer))
            if "error" in answer:
                raise call_error(self.host, method, answer["error"])
            return answer["result"]

    def call_job(self, method: str, *params: Any) -> Any:
        """See Middleware.call_job."""
        return run_job(self, method, params, self._timeout, clock=self._clock, sleep=self._sleep)

    def close(self) -> None:
        """See Middleware.close."""
        self._channel.close()

    def _receive_answer(self, method: str, deadline: Deadline) -> dict[str, Any]:
        try:
            text = self._channel.receive(deadline.seconds_left())
        except socket.timeout as error:
            raise lost_answer(self.host, method, f"no answer in {deadline.seconds:.0f} s") from error
        except ConnectionLost as error:
            raise lost_answer(self.host, method, str(error)) from error
        try:
            answer = jsontext.parse_json(text)
        except ValueError:
            raise self._make_not_an_answer(method, text) from None
        if not isinstance(answer, dict):
            raise self._make_not_an_answer(method, text)
        return answer

    def _make_not_an_answer(self, method: str, text: str) -> NotAnAnswer:
        return NotAnAnswer(
            f"{self.host}: what came back for {method} is not an answer of TrueNAS, but {_describe_text(text)}. "
            "Is url really a TrueNAS, with no other server before it?"
        )


def _describe_text(text: str) -> str:
    """What this is, without a letter of it: it may hold settings, and so a password."""
    if text.lstrip().startswith("<"):
        return "a page of HTML"
    try:
        jsontext.parse_json(text)
    except ValueError:
        return f"{len(text)} characters that are no JSON"
    return "JSON that does not belong to this call"


def open_jsonrpc(endpoint: Endpoint, tls: ServerTrust, timeout: float) -> JsonRpc:
    """Open a connection, within `timeout` seconds in all. Raises ConnectionFailed.

    The server's certificate is checked before anything is sent.
    """
    deadline = Deadline(timeout)
    stream = _open_tcp(endpoint, deadline)
    try:
        if endpoint.secure:
            stream = _start_tls(stream, endpoint, tls, deadline)
        bounded = BoundedStream(stream, deadline, HEAD_LIMIT)
        return JsonRpc(_WebSocketChannel(_open_websocket(bounded, endpoint, timeout), bounded), endpoint.label, timeout)
    except BaseException:
        stream.close()
        raise


def _connect_socket(endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    """Connect to the first address of the host that answers. Each has its share of the time that is left. Raises OSError."""
    addresses = hostnames.resolve_name(endpoint.host, deadline.seconds_left())
    problem: OSError | None = None
    for number, address in enumerate(addresses):
        try:
            return socket.create_connection(
                (address, endpoint.port), deadline.seconds_left() / (len(addresses) - number)
            )
        except OSError as error:
            problem = error
    raise problem or OSError("this name has no address")


def _open_tcp(endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    at = f"{endpoint.label}: no connection to port {endpoint.port}"
    try:
        return _connect_socket(endpoint, deadline)
    except socket.gaierror as error:
        raise ConnectionFailed(
            f"{endpoint.label}: this name is not known ({error.strerror}). Check url and the name server."
        ) from error
    except socket.timeout as error:  # TimeoutError is another class on Python 3.9
        raise ConnectionFailed(
            f"{at} in {deadline.seconds:g} s. Is the machine up, and does no firewall stand between?"
        ) from error
    except ConnectionRefusedError as error:
        raise ConnectionFailed(f"{at}: refused. Does the web interface of TrueNAS listen on that port?") from error
    except (OSError, UnicodeError) as error:
        raise ConnectionFailed(
            f"{at}: {getattr(error, 'strerror', None) or error}. Check url and the route."
        ) from error


def _tls_context(tls: ServerTrust, endpoint: Endpoint) -> ssl.SSLContext:
    if tls.fingerprint or not tls.validate:
        return _context_without_checks()
    if tls.ca_path is None:
        return ssl.create_default_context()
    try:
        if Path(tls.ca_path).is_dir():
            return ssl.create_default_context(capath=tls.ca_path)
        return ssl.create_default_context(cafile=tls.ca_path)
    except OSError as error:  # ssl.SSLError is one
        raise ConnectionFailed(
            f"{endpoint.label}: no certificates can be read from ca_path {tls.ca_path}: {error.strerror or error}."
        ) from error


def _context_without_checks() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _start_tls(stream: socket.socket, endpoint: Endpoint, tls: ServerTrust, deadline: Deadline) -> ssl.SSLSocket:
    context = _tls_context(tls, endpoint)
    try:
        stream.settimeout(deadline.seconds_left())  # for a handshake as a whole
        secured = context.wrap_socket(stream, server_hostname=endpoint.host)
    except ssl.SSLCertVerificationError as error:
        raise ConnectionFailed(
            f"{endpoint.label}: its certificate does not pass ({error.verify_message.rstrip('.')}). "
            f"{_certificate_advice(endpoint, deadline)}"
        ) from error
    except ssl.SSLError as error:
        raise ConnectionFailed(
            f"{endpoint.label}: no TLS on port {endpoint.port} ({error.reason or error}). "
            "Is it the https port of TrueNAS?"
        ) from error
    except socket.timeout as error:
        raise ConnectionFailed(
            f"{endpoint.label}: port {endpoint.port} is open but silent: no TLS in {deadline.seconds:g} s. "
            "Is it the https port of TrueNAS?"
        ) from error
    except OSError as error:
        raise ConnectionFailed(
            f"{endpoint.label}: the connection broke before TLS was up ({error.strerror or error}). "
            "Is it the https port, and does TrueNAS allow this address (System > General > GUI allow list)?"
        ) from error
    if tls.fingerprint:
        seen = _certificate_fingerprint(secured)
        if seen != tls.fingerprint:
            secured.close()
            raise ConnectionFailed(
                f"{endpoint.label}: its certificate is not the pinned one; nothing was sent. It shows "
                f"{show_fingerprint(seen)}. If TrueNAS got a new certificate, set fingerprint to this; "
                "if not, something stands between."
            )
    return secured


def _certificate_fingerprint(secured: ssl.SSLSocket) -> str:
    return hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()


def _certificate_advice(endpoint: Endpoint, deadline: Deadline) -> str:
    """What to do about a certificate that does not pass, with its fingerprint if it can still be had."""
    other = "Set ca_path to the CA that signed it, and url to a name that it is made out to"
    # A refused handshake yields no certificate. So one more, in which nothing is sent, to be able to show it.
    try:
        with contextlib.ExitStack() as opened:
            stream = opened.enter_context(_connect_socket(endpoint, deadline))
            stream.settimeout(deadline.seconds_left())
            secured = _context_without_checks().wrap_socket(stream, server_hostname=endpoint.host)
            seen = show_fingerprint(_certificate_fingerprint(opened.enter_context(secured)))
    except OSError:
        return f"{other}, or pin it with fingerprint."
    return f"{other}; or, if TrueNAS itself shows this SHA-256 for its certificate, pin it: fingerprint: {seen}"


def _open_websocket(stream: BoundedStream, endpoint: Endpoint, timeout: float) -> Any:
    """From a stream to a WebSocket. Returns websocket-client's object."""
    client = websocket.WebSocket(
        skip_utf8_validation=True
    )  # it takes seconds for a megabyte; decode() does it in no time
    problem: Exception | None = None
    try:
        client.connect(endpoint.url, socket=stream, timeout=timeout, redirect_limit=0)
    except (websocket.WebSocketException, OSError, ValueError, TooMuch) as error:
        problem = error
    status = getattr(problem, "status_code", None) or getattr(client.handshake_response, "status", None)
    if problem is None and status == 101:
        return client
    if _is_too_old(status, client.handshake_response):
        raise NoJsonRpc(f"{endpoint.label}: {_BY_STATUS[404].format(path=API_PATH)} (HTTP {status})") from problem
    raise ConnectionFailed(f"{endpoint.label}: {_why_no_websocket(status, problem, endpoint, timeout)}") from problem


def _is_too_old(status: int | None, response: Any) -> bool:
    """Whether this is what a TrueNAS before 25.04 says to API_PATH, or a server that knows no such path.

    nginx there has no `location /api` but only /api/v2.0 and /api/docs, and sends all it does not know on to the web
    interface: 302, Location: SCHEME://HOST/ui/ (nginx.conf.mako of truenas/middleware). 25.04 and newer never do.
    """
    if status == 404:
        return True
    location = str((getattr(response, "headers", None) or {}).get("location", ""))
    return status in (301, 302) and urlsplit(location).path.rstrip("/") == "/ui"


_ALLOW_LIST = "System > General > GUI allow list"
_BY_STATUS = {
    **dict.fromkeys((301, 302, 303, 307, 308), "it sends {path} on to another place. Set url to TrueNAS itself."),
    **dict.fromkeys((401, 403), f"it does not let this address in. See {_ALLOW_LIST} on TrueNAS."),
    **dict.fromkeys((502, 503, 504), "TrueNAS behind the web server is down. Is it starting? Try again in a minute."),
    404: "there is no {path}: this is not a TrueNAS, or one older than 25.04. Check url, or use midclt, over ssh.",
}


def _why_no_websocket(status: int | None, problem: Exception | None, endpoint: Endpoint, timeout: float) -> str:
    if status == 307 and not endpoint.secure:
        return "it sends plain http on to https. Write wss:// in url."
    if status is not None:
        text = _BY_STATUS.get(status, "{path} does not answer as a WebSocket. Is url a TrueNAS?")
        return f"{text.format(path=API_PATH)} (HTTP {status})"
    if isinstance(problem, (websocket.WebSocketTimeoutException, socket.timeout)):
        return f"port {endpoint.port} is open, but {API_PATH} did not answer in {timeout:g} s. Is url a TrueNAS, and is it well?"
    if isinstance(problem, TooMuch):
        return f"it sends more than {HEAD_LIMIT // 1024} KiB before {API_PATH} answers. Is url a TrueNAS?"
    return (
        f"the connection broke before {API_PATH} answered. Is url a TrueNAS, and does it allow this address "
        f"({_ALLOW_LIST})?"
    )


class _WebSocketChannel:
    """websocket-client behind the Channel interface."""

    def __init__(self, client: Any, stream: BoundedStream) -> None:
        self._client = client
        self._stream = stream

    def send(self, text: str, seconds: float) -> None:
        self._stream.allow_exchange(seconds, MESSAGE_LIMIT)
        try:
            self._client.send(text)
        except (websocket.WebSocketException, OSError):
            # What was to be read says more than what could not be written: leave it to receive().
            return

    def receive(self, seconds: float) -> str:
        self._stream.allow_exchange(seconds, MESSAGE_LIMIT)
        opcode: int = websocket.ABNF.OPCODE_PING
        frame: Any = None
        try:
            # A ping is a sign of life, and no answer.
            while opcode in (websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_PONG):
                opcode, frame = self._client.recv_data_frame(control_frame=True)
        except (websocket.WebSocketTimeoutException, socket.timeout):
            raise socket.timeout("timed out") from None
        except TooMuch:
            raise ConnectionLost(f"more than {MESSAGE_LIMIT // 2**20} MiB came") from None
        except (websocket.WebSocketException, OSError, ValueError, AttributeError):
            raise ConnectionLost("the connection broke") from None
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = int.from_bytes(frame.data[:2], "big")
            reason = frame.data[2:].decode("utf-8", "replace")
            raise ConnectionLost(f"TrueNAS closed the connection ({code}{' ' + ascii(reason) if reason else ''})")
        return bytes(frame.data).decode("utf-8", "replace")

    def close(self) -> None:
        self._stream.allow_exchange(CLOSE_SECONDS, MESSAGE_LIMIT)
        with contextlib.suppress(Exception):
            self._client.close(timeout=CLOSE_SECONDS)
        self._stream.close()
