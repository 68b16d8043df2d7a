# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test the JSON-RPC connection over real sockets on the loopback: TLS, the WebSocket, and their failures. One file, for one server."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import ipaddress
import json
import re
import select
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from ansible_collections.homelab.nut.plugins.module_utils._truenas.jsonrpc import (
    Endpoint,
    JsonRpc,
    ServerTrust,
    open_jsonrpc,
    parse_fingerprint,
    parse_url,
    show_fingerprint,
)
from ansible_collections.homelab.nut.plugins.module_utils._truenas.middleware import (
    ConnectionFailed,
    ConnectionLost,
    JobFailed,
    NoJsonRpc,
    OptionError,
)
from ansible_collections.homelab.nut.tests.unit.support.truenas_replay import V25_10, Replay
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LOCAL = "127.0.0.1"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., int]


# --- url and fingerprint ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url", "label"),
    [
        ("truenas.lan", "wss://truenas.lan/api/current", "truenas.lan"),
        ("truenas.lan:444", "wss://truenas.lan:444/api/current", "truenas.lan:444"),
        ("192.0.2.1", "wss://192.0.2.1/api/current", "192.0.2.1"),
        ("https://truenas.lan", "wss://truenas.lan/api/current", "truenas.lan"),
        ("https://truenas.lan:443/", "wss://truenas.lan/api/current", "truenas.lan"),
        ("https://truenas.lan/ui/signin", "wss://truenas.lan/api/current", "truenas.lan"),
        ("wss://truenas.lan/api/current", "wss://truenas.lan/api/current", "truenas.lan"),
        ("WSS://TrueNAS.lan/api/current/", "wss://truenas.lan/api/current", "truenas.lan"),
        ("http://truenas.lan", "ws://truenas.lan/api/current", "truenas.lan"),
        ("ws://truenas.lan:8080", "ws://truenas.lan:8080/api/current", "truenas.lan:8080"),
        ("[fd00::5]", "wss://[fd00::5]/api/current", "[fd00::5]"),
        ("https://[fd00::5]:444", "wss://[fd00::5]:444/api/current", "[fd00::5]:444"),
    ],
)
def test_url_is_parsed(text: str, url: str, label: str) -> None:
    endpoint = parse_url(text)
    assert (endpoint.url, endpoint.label) == (url, label)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("true nas", "contains a space"),
        ("truenas.lan\n", "control character"),
        ("tru\u00ebnas", "outside ASCII"),
        ("ftp://truenas.lan", "must be wss, https, ws or http"),
        ("fd00::5", "put the IPv6 address in brackets"),
        ("https://admin:Canary@truenas.lan", "must not contain a login"),
        ("https://admin@truenas.lan", "must not contain a login"),
        ("https://truenas.lan:99999", "the port or the brackets are wrong"),
        ("https://truenas.lan:0", "no valid host name or port"),
        ("https://[fd00::5", "brackets"),
        ("https://", "no valid host"),
        ("wss://truenas.lan/websocket", "the only supported path is /api/current"),
        ("wss://truenas.lan/api/v25.10.0", "the only supported path is /api/current"),
        ("https://truenas.lan/api/current?x=Canary", "the only supported path"),
        ("https://truenas.lan/uix", "the only supported path"),
    ],
)
def test_invalid_url_is_refused(text: str, reason: str) -> None:
    with pytest.raises(OptionError, match=re.escape(reason)) as caught:
        parse_url(text)
    assert str(caught.value).startswith("url: ")
    assert "Canary" not in str(caught.value)


def test_fingerprint_is_parsed() -> None:
    digits = "0a" * 32
    for text in (digits, digits.upper(), show_fingerprint(digits), f"sha256:{digits}", f" {digits}\n"):
        assert parse_fingerprint(text) == digits
    assert parse_fingerprint(f"SHA256 Fingerprint={show_fingerprint(digits)}") == digits
    for text in ("0a" * 31, "0g" * 32, "sha1:" + digits):
        with pytest.raises(OptionError, match="64 hex digits"):
            parse_fingerprint(text)


# --- a server that a test can make misbehave -------------------------------------------------------------------------


class Certificate:
    """Return a self-signed certificate for the loopback address, like that of a new TrueNAS."""

    def __init__(self, directory: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "truenas")])
        now = datetime.datetime.now(datetime.timezone.utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOCAL))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.path = directory / "certificate.pem"
        self.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        key_path = directory / "key.pem"
        no_encryption = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_encryption)
        key_path.write_bytes(private)
        self.fingerprint = hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.path, key_path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def serve(certificate: Certificate) -> Iterator[Serve]:
    """Yield a function that starts a TLS server with a handler on the loopback, and returns the server's port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runners: list[web.AppRunner] = []

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=30)

    async def start(handler: Handler, tls: bool) -> int:
        app = web.Application()
        app.router.add_get("/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, LOCAL, 0, ssl_context=certificate.context if tls else None).start()
        return int(runner.addresses[0][1])

    yield lambda handler, tls=True: run(start(handler, tls))
    for runner in runners:
        run(runner.cleanup())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=30)
    loop.close()


def talk(*scripted: Any) -> Handler:
    """A WebSocket that answers each frame with the next of `scripted`: text, or a function of the request's frame."""

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.path == "/api/current"
        channel = web.WebSocketResponse()
        await channel.prepare(request)
        for answer in scripted:
            message = json.loads(await channel.receive_str())
            if callable(answer):
                await answer(channel, message)
            else:
                await channel.send_str(answer)
        await channel.receive()
        return channel

    return handler


async def pong(channel: web.WebSocketResponse, message: dict[str, Any]) -> None:
    await channel.send_json({"jsonrpc": "2.0", "id": message["id"], "result": "pong"})


async def hang_up(channel: web.WebSocketResponse, _message: dict[str, Any]) -> None:
    await channel.close(code=1008, message=b"not allowed")


def plain(status: int, **headers: str) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, text="Canary in the body")

    return handler


def reach(port: int, tls: ServerTrust, *, secure: bool = True, host: str = LOCAL, timeout: float = 10) -> JsonRpc:
    return open_jsonrpc(Endpoint(secure, host, port), tls, timeout)


def ping(port: int, tls: ServerTrust, **how: Any) -> Any:
    with contextlib.closing(reach(port, tls, **how)) as middleware:
        return middleware.call("core.ping")


# --- certificates ----------------------------------------------------------------------------------------------------


def test_each_kind_of_trust_connects(serve: Serve, certificate: Certificate, tmp_path: Path) -> None:
    port = serve(talk(pong))
    for tls in (
        ServerTrust(ca_path=str(certificate.path)),
        ServerTrust(fingerprint=certificate.fingerprint),
        ServerTrust(validate=False),
        ServerTrust(validate=False, fingerprint=certificate.fingerprint),
    ):
        assert ping(port, tls) == "pong"


def test_error_for_self_signed_certificate_shows_the_fingerprint(serve: Serve, certificate: Certificate) -> None:
    asked: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response()

    port = serve(note)
    with pytest.raises(ConnectionFailed, match=r"self-signed|self signed") as caught:
        ping(port, ServerTrust())
    assert f"fingerprint: {show_fingerprint(certificate.fingerprint)}" in str(caught.value)
    assert str(caught.value).startswith(f"{LOCAL}:{port}: ")
    assert asked == []


def test_certificate_for_another_name_is_refused(serve: Serve, certificate: Certificate) -> None:
    port = serve(talk(pong))
    with pytest.raises(ConnectionFailed, match=r"certificate verification failed.*localhost"):
        ping(port, ServerTrust(ca_path=str(certificate.path)), host="localhost")
    assert ping(port, ServerTrust(fingerprint=certificate.fingerprint), host="localhost") == "pong"


def test_other_fingerprint_is_refused_before_sending(serve: Serve, certificate: Certificate) -> None:
    asked: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response()

    with pytest.raises(ConnectionFailed, match="not the pinned one, so nothing was sent") as caught:
        ping(serve(note), ServerTrust(fingerprint="ab" * 32))
    assert show_fingerprint(certificate.fingerprint) in str(caught.value)
    assert asked == []


def test_unreadable_ca_path_is_an_error(serve: Serve, tmp_path: Path) -> None:
    port = serve(talk(pong))
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(ConnectionFailed, match="can't read CA certificates from ca_path"):
            ping(port, ServerTrust(ca_path=str(path)))
    with pytest.raises(ConnectionFailed, match="certificate verification failed"):
        ping(port, ServerTrust(ca_path=str(tmp_path)))  # a directory without any


# --- before the WebSocket is up --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (plain(404), "a release before 25.04"),
        (plain(403), "GUI allow list"),
        (plain(502), "is booting"),
        (plain(200), "does not answer as a WebSocket"),
        (plain(500), "does not answer as a WebSocket"),
        (plain(301, Location="https://elsewhere.invalid/"), "the web server redirects /api/current"),
        (plain(307, Location="ws://127.0.0.1:9/api/current"), "the web server redirects /api/current"),
    ],
)
def test_answer_without_websocket_is_explained(serve: Serve, handler: Handler, words: str) -> None:
    with pytest.raises(ConnectionFailed, match=re.escape(words)) as caught:
        ping(serve(handler), ServerTrust(validate=False))
    assert isinstance(caught.value, NoJsonRpc) == ("(HTTP 404)" in str(caught.value))
    assert "Canary" not in str(caught.value)
    assert len(str(caught.value)) < 300


PLACES = (
    "ws://{}/api/current",
    "wss://{}/api/current",
    "http://{}/",
    "https://127.0.0.1@{}/ui/",
    "//{}/x",
    "/ui/elsewhere",
)


@pytest.mark.parametrize("status", [200, 300, 301, 302, 303, 304, 305, 307, 308, 407])
def test_redirects_and_proxies_are_not_used(
    serve: Serve, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Redirects and proxy variables send the request nowhere else, and there is only one request."""
    elsewhere = f"{LOCAL}:{listener.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "all_proxy", "socks_proxy"):
        monkeypatch.setenv(name, f"http://{elsewhere}")
        monkeypatch.setenv(name.upper(), f"http://{elsewhere}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": PLACES[len(asked) - 1].format(elsewhere)})

    port = serve(redirect)
    for count, _place in enumerate(PLACES, 1):
        with pytest.raises(ConnectionFailed, match=rf"HTTP {status}|web server redirects"):
            ping(port, ServerTrust(validate=False))
        assert asked == ["/api/current"] * count
        assert select.select([listener], [], [], 0)[0] == []


def test_redirect_from_http_to_https_is_explained(serve: Serve) -> None:
    port = serve(plain(307, Location="https://127.0.0.1/api/current"), tls=False)
    with pytest.raises(ConnectionFailed, match="plain http to https"):
        ping(port, ServerTrust(), secure=False)


def test_plain_websocket_works(serve: Serve) -> None:
    assert ping(serve(talk(pong), tls=False), ServerTrust(), secure=False) == "pong"


def test_plain_port_refuses_tls(serve: Serve) -> None:
    with pytest.raises(ConnectionFailed, match="TLS failed on port"):
        ping(serve(talk(pong), tls=False), ServerTrust(validate=False))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOCAL, 0)) as server:
        yield server


def test_refused_connection_is_explained(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(ConnectionFailed, match=f"can't connect to port {port}: connection refused"):
        ping(port, ServerTrust())


@pytest.mark.parametrize("secure", [True, False])
def test_silent_port_times_out(listener: socket.socket, secure: bool) -> None:
    with pytest.raises(ConnectionFailed, match=r"open but silent|did not answer within"):
        ping(listener.getsockname()[1], ServerTrust(), secure=secure, timeout=0.2)


@pytest.mark.parametrize("secure", [True, False])
def test_broken_connection_is_explained(listener: socket.socket, secure: bool) -> None:
    def accept() -> None:
        for _unused in range(2):
            with contextlib.suppress(OSError):
                listener.accept()[0].close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    with pytest.raises(ConnectionFailed, match=r"the connection broke|TLS failed on port"):
        ping(listener.getsockname()[1], ServerTrust(validate=False), secure=secure)


def test_unknown_name_is_explained() -> None:
    with pytest.raises(ConnectionFailed, match="can't resolve this name") as caught:
        ping(443, ServerTrust(), host="truenas.invalid")
    assert str(caught.value).startswith("truenas.invalid: ")


def test_too_long_label_is_an_error() -> None:
    with pytest.raises(ConnectionFailed, match="Check url"):
        ping(443, ServerTrust(), host="a" * 64 + ".lan")


# --- while talking ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (hang_up, "TrueNAS closed the connection (1008 'not allowed') while waiting for core.ping"),
        ("garbage", "is not an answer of TrueNAS, but 7 characters that are not JSON"),
        ('{"jsonrpc": "2.0", "id": 1}', "is not an answer"),
        ("[]", "is not an answer"),
    ],
)
def test_broken_session_is_explained(serve: Serve, script: Any, words: str) -> None:
    with pytest.raises(ConnectionLost, match=re.escape(words)):
        ping(serve(talk(script)), ServerTrust(validate=False))


def test_missing_answer_times_out(serve: Serve) -> None:
    async def nothing(_channel: web.WebSocketResponse, _message: dict[str, Any]) -> None:
        return

    with pytest.raises(ConnectionLost, match=r"no answer within .* while waiting for core.ping"):
        ping(serve(talk(nothing)), ServerTrust(validate=False), timeout=0.3)


def test_connection_cut_in_the_middle_of_a_message(serve: Serve) -> None:
    """The connection is cut without a closing handshake."""

    async def cut(channel: web.WebSocketResponse, _message: dict[str, Any]) -> None:
        channel._req.transport.abort()  # type: ignore[union-attr]

    port = serve(talk(pong, cut))
    middleware = reach(port, ServerTrust(validate=False))
    assert middleware.call("core.ping") == "pong"
    with pytest.raises(ConnectionLost, match=r"the connection broke while waiting for ups.update"):
        middleware.call("ups.update", {})
    with pytest.raises(ConnectionLost):
        middleware.call("core.ping")
    middleware.close()


# --- jobs ------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def job(state: str, **members: Any) -> dict[str, Any]:
    return {"result": [{"id": 1, "state": state, "result": None, "error": None, **members}]}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replay() -> Replay:
    return Replay(V25_10)


@pytest.fixture
def middleware(replay: Replay, clock: Clock) -> JsonRpc:
    return JsonRpc(replay, "truenas.lan", 30, clock=clock, sleep=clock.sleep)


def test_job_is_polled_until_success(replay: Replay, middleware: JsonRpc, clock: Clock) -> None:
    replay.answers["core.get_jobs"] = [job("WAITING"), {"result": []}, job("RUNNING"), job("SUCCESS", result=True)]
    assert middleware.call_job("service.control", "START", "ups", {"silent": False}) is True
    assert clock.now == pytest.approx(1.5)
    assert [each["id"] for each in replay.sent] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("state", ["FAILED", "ABORTED"])
def test_failed_job(replay: Replay, middleware: JsonRpc, state: str) -> None:
    replay.answers["core.get_jobs"] = [job(state, error="[EFAULT] line one\nline two")]
    with pytest.raises(JobFailed, match=rf"service.control START ups {state.lower()}: \[EFAULT\] line one line two"):
        middleware.call_job("service.control", "START", "ups", {})


def test_endless_job_times_out(replay: Replay, middleware: JsonRpc, clock: Clock) -> None:
    replay.answers["core.get_jobs"] = [job("RUNNING")] * 1000
    with pytest.raises(ConnectionLost, match=r"\(job 1\) did not end within 150 s"):
        middleware.call_job("service.control", "START", "ups", {})
    assert clock.now == pytest.approx(150)


def test_job_with_immediate_result(replay: Replay, middleware: JsonRpc) -> None:
    """With legacy_jobs off the call itself waits; True is not a job number."""
    replay.answers["service.control"] = [{"result": True}]
    assert middleware.call_job("service.control", "START", "ups", {}) is True
    assert len(replay.sent) == 1


def test_ping_does_not_count_as_answer(serve: Serve) -> None:
    """Pings are signs of life, but do not extend the wait."""

    async def alive(channel: web.WebSocketResponse, _message: dict[str, Any]) -> None:
        for _unused in range(40):
            await channel.ping()
            await asyncio.sleep(0.05)

    with pytest.raises(ConnectionLost, match=r"no answer within .* while waiting for core\.ping"):
        ping(serve(talk(alive)), ServerTrust(validate=False), timeout=0.3)


@pytest.mark.parametrize(
    ("status", "location", "old"),
    [
        (404, "", True),
        (302, "https://nas.lan/ui/", True),
        (301, "http://nas.lan/ui", True),
        (302, "https://login.lan/", False),
        (302, "", False),
        (307, "https://nas.lan/ui/", False),
    ],
)
def test_truenas_before_25_04_is_recognized(serve: Serve, status: int, location: str, old: bool) -> None:
    """Its web server redirects unknown paths to the web interface; no newer release does."""
    headers = {"Location": location} if location else {}
    with pytest.raises(ConnectionFailed) as caught:
        ping(serve(plain(status, **headers)), ServerTrust(validate=False))
    assert isinstance(caught.value, NoJsonRpc) is old
