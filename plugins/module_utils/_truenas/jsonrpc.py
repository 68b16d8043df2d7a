# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JSON-RPC 2.0 over a WebSocket: TrueNAS's API from 25.04 on.

This module opens the socket and TLS with the standard library and hands them to websocket-client. So the certificate
is checked before anything is sent, redirects are never followed (one could send a key over plain http), and proxies
from the environment are not used.

One file, because all of it shares one socket and its time limit.
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

API_PATH = "/api/current"  # a pinned version breaks: 25.10 has no ups.* under /api/v25.04, 26 has no ups.update under /api/v25.10
# Bytes that TrueNAS's web server may send before the WebSocket is open, including the page of an error.
HEAD_LIMIT = 256 * 1024
# Bytes of one message after that. The longest answer that we ask for has about 10 kB.
MESSAGE_LIMIT = 4 * 1024 * 1024
CLOSE_SECONDS = 1.0
_SCHEMES = {"wss": "wss", "https": "wss", "ws": "ws", "http": "ws"}
_PORTS = {"wss": 443, "ws": 80}


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where TrueNAS listens."""

    secure: bool  # TLS
    host: str  # an IPv6 address has no brackets here
    port: int

    @property
    def label(self) -> str:
        """Return the machine's name for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["wss" if self.secure else "ws"] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Return the address of the API."""
        return f"{'wss' if self.secure else 'ws'}://{self.label}{API_PATH}"


def parse_url(text: str) -> Endpoint:
    """Parse the option url: HOST[:PORT], https://HOST[:PORT][/ui/...] or wss://HOST[:PORT]/api/current.

    Raises OptionError, without repeating the text: it may contain a password.
    """

    def make_error(reason: str) -> OptionError:
        return OptionError(f"url: {reason}; write a name or an address, or wss://truenas.lan{API_PATH}")

    if not text or not text.isascii() or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise make_error("is empty, or contains a space, a control character or a character outside ASCII")
    with contextlib.suppress(ValueError):
        ipaddress.IPv6Address(text)
        raise make_error("put the IPv6 address in brackets, such as [fd00::5]")
    scheme, separator, _rest = text.partition("://")
    if separator and scheme.lower() not in _SCHEMES:
        raise make_error("the scheme must be wss, https, ws or http")
    try:
        parts = urlsplit(text if separator else f"wss://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise make_error("the port or the brackets are wrong") from None
    if parts.username is not None or parts.password is not None:
        raise make_error("must not contain a login; use username with password or api_key")
    if not host or not re.fullmatch(r"[A-Za-z0-9._:%-]+", host) or port == 0:
        raise make_error("has no valid host name or port")
    # /ui/... is the address of the web interface, which people copy from the browser.
    if parts.query or parts.fragment or not re.fullmatch(rf"/?|/ui(/.*)?|{API_PATH}/?", parts.path):
        raise make_error(f"the only supported path is {API_PATH}")
    secure = _SCHEMES[parts.scheme.lower()] == "wss"
    return Endpoint(secure=secure, host=host, port=port or _PORTS["wss" if secure else "ws"])


def parse_fingerprint(text: str) -> str:
    """Return a SHA-256 as 64 lower-case hex digits. Colons and a leading `sha256:` are optional. Raises OptionError."""
    digits = re.sub(r"^sha-?256( fingerprint)?[:=]", "", text.strip(), flags=re.IGNORECASE)
    digits = re.sub(r"[:\s]", "", digits).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise OptionError("fingerprint: must be a SHA-256 fingerprint: 64 hex digits, with or without colons")
    return digits


def show_fingerprint(digits: str) -> str:
    """Return a fingerprint as browsers and openssl show it: AA:BB:..."""
    return ":".join(re.findall("..", digits.upper()))


@dataclasses.dataclass(frozen=True)
class ServerTrust:
    """How the server's certificate is checked."""

    validate: bool = True
    ca_path: str | None = None  # a file or a directory of CA certificates; None: the system's
    fingerprint: str | None = None  # 64 hex digits; pins one certificate and replaces the check against CAs


class Channel(Protocol):
    """Carries whole text frames."""

    def send(self, text: str, seconds: float) -> None:
        """Send one frame within `seconds`."""

    def receive(self, seconds: float) -> str:
        """Return the next frame. Raises socket.timeout after `seconds`, ConnectionLost if the connection has ended."""

    def close(self) -> None:
        """Close the channel. Never raises."""


class JsonRpc:
    """A Middleware over a channel: one call at a time, answers matched by their id."""

    def __init__(
        self,
        channel: Channel,
        host: str,
        timeout: float = 30,
        *,
        certificate: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        self.certificate = certificate
        self._channel = channel
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self._last_id = 0

    def call(self, method: str, *params: Any) -> Any:
        """See Middleware.call. Waits `timeout` seconds, and longer for methods that take TrueNAS longer."""
        self._last_id += 1
        # Without "jsonrpc", or with `params` that are no array, TrueNAS answers -32600.
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": list(params)}
        seconds = self._timeout + (ACTION_SECONDS if method in SLOW_METHODS else 0)
        deadline = Deadline(seconds, self._clock)
        self._channel.send(json.dumps(request), seconds)
        while True:
            answer = self._receive_answer(method, deadline)
            if "method" in answer and "id" not in answer:
                continue  # an event; TrueNAS may send some unasked
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
            raise lost_answer(self.host, method, f"no answer within {deadline.seconds:.0f} s") from error
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
            f"{self.host}: the reply to {method} is not an answer of TrueNAS, but {_describe_text(text)}. "
            "Check that url leads to TrueNAS itself, with no other server in between."
        )


def _describe_text(text: str) -> str:
    """Return what kind of text this is, without quoting it: it may contain settings, and so a password."""
    if text.lstrip().startswith("<"):
        return "an HTML page"
    try:
        jsontext.parse_json(text)
    except ValueError:
        return f"{len(text)} characters that are not JSON"
    return "JSON that does not belong to this call"


def open_jsonrpc(endpoint: Endpoint, tls: ServerTrust, timeout: float) -> JsonRpc:
    """Open a connection, within `timeout` seconds in all. Raises ConnectionFailed.

    Checks the server's certificate before anything is sent.
    """
    deadline = Deadline(timeout)
    stream = _open_tcp(endpoint, deadline)
    try:
        certificate = None
        if endpoint.secure:
            stream = secured = _start_tls(stream, endpoint, tls, deadline)
            certificate = secured.getpeercert(binary_form=True)
        bounded = BoundedStream(stream, deadline, HEAD_LIMIT)
        channel = _WebSocketChannel(_open_websocket(bounded, endpoint, timeout), bounded)
        return JsonRpc(channel, endpoint.label, timeout, certificate=certificate)
    except BaseException:
        stream.close()
        raise


def _connect_socket(endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    """Connect to the first address of the host that answers. The addresses share the remaining time. Raises OSError."""
    addresses = hostnames.resolve_name(endpoint.host, deadline.seconds_left())
    problem: OSError | None = None
    for number, address in enumerate(addresses):
        try:
            return socket.create_connection(
                (address, endpoint.port), deadline.seconds_left() / (len(addresses) - number)
            )
        except OSError as error:
            problem = error
    raise problem or OSError("the name has no address")


def _open_tcp(endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    failure = f"{endpoint.label}: can't connect to port {endpoint.port}"
    try:
        return _connect_socket(endpoint, deadline)
    except socket.gaierror as error:
        raise ConnectionFailed(
            f"{endpoint.label}: can't resolve this name ({error.strerror}). Check url and the name server."
        ) from error
    except socket.timeout as error:  # TimeoutError is another class on Python 3.9
        raise ConnectionFailed(
            f"{failure}: no answer within {deadline.seconds:g} s. Check that the machine is up and that no firewall blocks the port."
        ) from error
    except ConnectionRefusedError as error:
        raise ConnectionFailed(
            f"{failure}: connection refused. Check that TrueNAS's web interface listens on that port."
        ) from error
    except (OSError, UnicodeError) as error:
        raise ConnectionFailed(
            f"{failure}: {getattr(error, 'strerror', None) or error}. Check url and the route to this host."
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
            f"{endpoint.label}: can't read CA certificates from ca_path {tls.ca_path}: {error.strerror or error}. "
            "Check the path on the machine that runs Ansible."
        ) from error


def _context_without_checks() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _start_tls(stream: socket.socket, endpoint: Endpoint, tls: ServerTrust, deadline: Deadline) -> ssl.SSLSocket:
    context = _tls_context(tls, endpoint)
    try:
        stream.settimeout(deadline.seconds_left())  # for the whole handshake
        secured = context.wrap_socket(stream, server_hostname=endpoint.host)
    except ssl.SSLCertVerificationError as error:
        raise ConnectionFailed(
            f"{endpoint.label}: certificate verification failed ({error.verify_message.rstrip('.')}). "
            f"{_certificate_advice(endpoint, deadline)}"
        ) from error
    except ssl.SSLError as error:
        raise ConnectionFailed(
            f"{endpoint.label}: TLS failed on port {endpoint.port} ({error.reason or error}). "
            "Check that this is TrueNAS's https port."
        ) from error
    except socket.timeout as error:
        raise ConnectionFailed(
            f"{endpoint.label}: port {endpoint.port} is open but silent: no TLS handshake within {deadline.seconds:g} s. "
            "Check that this is TrueNAS's https port."
        ) from error
    except OSError as error:
        raise ConnectionFailed(
            f"{endpoint.label}: the connection broke during the TLS handshake ({error.strerror or error}). "
            "Check that this is TrueNAS's https port, and that TrueNAS allows this address (System > General > GUI allow list)."
        ) from error
    if tls.fingerprint:
        seen = _certificate_fingerprint(secured)
        if seen != tls.fingerprint:
            secured.close()
            raise ConnectionFailed(
                f"{endpoint.label}: the certificate is not the pinned one, so nothing was sent. Its fingerprint is "
                f"{show_fingerprint(seen)}. If TrueNAS has a new certificate, set fingerprint to this one; "
                "if not, another machine is answering in its place."
            )
    return secured


def _certificate_fingerprint(secured: ssl.SSLSocket) -> str:
    return hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()


def _certificate_advice(endpoint: Endpoint, deadline: Deadline) -> str:
    """Return what to do about a certificate that failed verification, with its fingerprint if the server still shows it."""
    other = "Set ca_path to the CA that signed it, and url to a name in the certificate"
    # A rejected handshake yields no certificate. So connect once more, without sending anything, to get it.
    try:
        with contextlib.ExitStack() as opened:
            stream = opened.enter_context(_connect_socket(endpoint, deadline))
            stream.settimeout(deadline.seconds_left())
            secured = _context_without_checks().wrap_socket(stream, server_hostname=endpoint.host)
            seen = show_fingerprint(_certificate_fingerprint(opened.enter_context(secured)))
    except OSError:
        return f"{other}, or pin it with fingerprint."
    return f"{other}. Or, if TrueNAS itself shows this SHA-256 for its certificate, pin it: fingerprint: {seen}"


def _open_websocket(stream: BoundedStream, endpoint: Endpoint, timeout: float) -> Any:
    """Open a WebSocket on a stream. Returns websocket-client's object. Raises ConnectionFailed."""
    # its UTF-8 validation takes seconds for a megabyte; bytes.decode() takes no time
    client = websocket.WebSocket(skip_utf8_validation=True)
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
    raise ConnectionFailed(
        f"{endpoint.label}: {_explain_websocket_failure(status, problem, endpoint, timeout)}"
    ) from problem


def _is_too_old(status: int | None, response: Any) -> bool:
    """Return whether this is the answer of a TrueNAS before 25.04 to API_PATH, or of a server without that path.

    nginx there has no `location /api`, only /api/v2.0 and /api/docs, and redirects every unknown path to the web
    interface: 302, Location: SCHEME://HOST/ui/ (nginx.conf.mako of truenas/middleware). 25.04 and newer never do.
    """
    if status == 404:
        return True
    location = str((getattr(response, "headers", None) or {}).get("location", ""))
    return status in (301, 302) and urlsplit(location).path.rstrip("/") == "/ui"


_ALLOW_LIST = "System > General > GUI allow list"
_BY_STATUS = {
    **dict.fromkeys((301, 302, 303, 307, 308), "the web server redirects {path}. Set url to TrueNAS itself."),
    **dict.fromkeys((401, 403), f"TrueNAS does not allow this address. See {_ALLOW_LIST} on TrueNAS."),
    **dict.fromkeys(
        (502, 503, 504),
        "the web server runs, but TrueNAS's middleware does not. If TrueNAS is booting, run again in a minute.",
    ),
    404: "there is no {path}: this is not TrueNAS, or a release before 25.04. Check url, or use midclt, over ssh.",
}


def _explain_websocket_failure(
    status: int | None, problem: Exception | None, endpoint: Endpoint, timeout: float
) -> str:
    if status == 307 and not endpoint.secure:
        return "the web server redirects plain http to https. Write wss:// in url."
    if status is not None:
        text = _BY_STATUS.get(status, "{path} does not answer as a WebSocket. Check that url leads to TrueNAS.")
        return f"{text.format(path=API_PATH)} (HTTP {status})"
    if isinstance(problem, (websocket.WebSocketTimeoutException, socket.timeout)):
        return (
            f"port {endpoint.port} is open, but {API_PATH} did not answer within {timeout:g} s. "
            "Check that url leads to TrueNAS, and that TrueNAS is not overloaded."
        )
    if isinstance(problem, TooMuch):
        return f"the server sent more than {HEAD_LIMIT // 1024} KiB before {API_PATH} answered. Check that url leads to TrueNAS."
    return (
        f"the connection broke before {API_PATH} answered. Check that url leads to TrueNAS, and that it allows this address "
        f"({_ALLOW_LIST})."
    )


class _WebSocketChannel:
    """A Channel that uses websocket-client."""

    def __init__(self, client: Any, stream: BoundedStream) -> None:
        self._client = client
        self._stream = stream

    def send(self, text: str, seconds: float) -> None:
        self._stream.allow_exchange(seconds, MESSAGE_LIMIT)
        try:
            self._client.send(text)
        except (websocket.WebSocketException, OSError):
            # receive() finds the reason, which says more than a failed write
            return

    def receive(self, seconds: float) -> str:
        self._stream.allow_exchange(seconds, MESSAGE_LIMIT)
        opcode: int = websocket.ABNF.OPCODE_PING
        frame: Any = None
        try:
            # a ping is a sign of life, not an answer
            while opcode in (websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_PONG):
                opcode, frame = self._client.recv_data_frame(control_frame=True)
        except (websocket.WebSocketTimeoutException, socket.timeout):
            raise socket.timeout("timed out") from None
        except TooMuch:
            raise ConnectionLost(f"more than {MESSAGE_LIMIT // 2**20} MiB arrived") from None
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
