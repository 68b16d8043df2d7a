# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's server: WebSockets, the socket for midclt, certificate, configuration file. Run: python3 -m truenas.server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import socket
import ssl
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from . import accounts
from .login import ClientConnection, unix_connection
from .midclt import SOCKET, log_file, release_file
from .middleware import NEARLY_SECONDS, AnswerFate, Middleware, MiddlewareJob
from .releases import RELEASES
from .service import StateFile, SystemdRunner

CONFIG = Path("/etc/truenas-lab.json")
FAULTS = Path("/etc/lab/faults.json")
#: Gone after a reboot: so the enabled service starts once a boot, not at each start of this server.
BOOTED = Path("/run/truenas-lab.booted")

_LOG = logging.getLogger("truenas")
_LOOPBACK = ("127.0.0.1", "::1")
Connections = weakref.WeakSet[web.WebSocketResponse]

_PEERCRED = struct.Struct("3i")  # process, user and group of the other side
_LONGEST_LINE = 2**24


@dataclass(frozen=True)
class ServerConfig:
    """The configuration file. Its members have TrueNAS's names where these exist."""

    release: str = "25.10"
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: accounts.LAB_USERS)
    api_keys: tuple[Mapping[str, Any], ...] = accounts.LAB_API_KEYS
    ui_address: str | None = None
    ui_port: int = 80
    ui_httpsport: int = 443
    ui_httpsredirect: bool = False
    data: str = "/data"


def load_config(path: Path) -> ServerConfig:
    """Read the configuration file. Raise ValueError for an unknown member or release."""
    given = json.loads(path.read_text()) if path.exists() else {}
    unknown = sorted(set(given) - {each.name for each in fields(ServerConfig)})
    if unknown:
        raise ValueError(f"{path}: unknown member {', '.join(unknown)}")
    config = ServerConfig(**given)
    if config.release not in RELEASES:
        raise ValueError(f"{path}: release {config.release!r}: choose one of {', '.join(RELEASES)}")
    return config


def read_faults(path: Path) -> Mapping[str, Any]:
    """Return the faults to play now; none without a file."""
    try:
        loaded: Mapping[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return loaded


def load_certificate(directory: Path) -> ssl.SSLContext:
    """Return the server's TLS context, with a self-signed certificate that is created once, as on a fresh TrueNAS."""
    key, crt = directory / "https.key", directory / "https.crt"
    if not crt.exists():
        directory.mkdir(parents=True, exist_ok=True)
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"]
        command += ["-subj", "/C=US/O=iXsystems/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command += ["-keyout", str(key), "-out", str(crt)]
        subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    return context


def hash_certificate(directory: Path) -> bytes:
    """Return the channel binding tls-server-end-point of the server's certificate, which is signed with SHA-256."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert((directory / "https.crt").read_text())).digest()


def make_application(middleware: Middleware, *, redirect_to: int | None = None) -> web.Application:
    """Return the HTTP application. With a port in `redirect_to`, it redirects every request to https there."""
    app = web.Application()
    if redirect_to is not None:
        app.router.add_route("*", "/{path:.*}", partial(_redirect_to_https, redirect_to))
        return app
    connections: Connections = weakref.WeakSet()
    app.on_shutdown.append(partial(_close_all, connections))
    app.router.add_get("/api/versions", partial(_answer_versions, middleware))
    app.router.add_get("/api/{version}", partial(_serve_websocket, middleware, connections))
    return app


async def _redirect_to_https(port: int, request: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect(str(request.url.with_scheme("https").with_port(port)))


async def _answer_versions(middleware: Middleware, _unused: web.Request) -> web.Response:
    if not middleware.release.json_rpc:
        raise web.HTTPFound("/ui/")
    return web.json_response(middleware.release.api_versions)


async def _serve_websocket(
    middleware: Middleware, connections: Connections, request: web.Request
) -> web.StreamResponse:
    version = request.match_info["version"]
    if not middleware.release.json_rpc:
        # nginx of these releases has /api/v2.0 and /api/docs only, and redirects the rest to the web interface.
        raise web.HTTPFound(f"{request.scheme}://{request.host}/ui/")
    current = version == "current"
    if not current and version not in middleware.release.api_versions:
        raise web.HTTPNotFound
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    connections.add(ws)

    def drop() -> None:
        if request.transport:
            request.transport.abort()

    remote = request.remote or ""
    secure = request.secure or remote in _LOOPBACK
    connection = ClientConnection(remote=remote, secure=secure, tls=request.secure, api=version)
    wire = _Wire(middleware, ws.send_str, drop)
    if middleware.is_dropping_connections():
        drop()
        return ws
    async for message in ws:
        if message.type != WSMsgType.TEXT:
            break
        await wire.receive_frame(connection, message.data)
    connections.discard(ws)
    await wire.finish_tasks()
    return ws


async def _close_all(connections: Connections, _unused: web.Application) -> None:
    """Close all connections, so that they don't delay the server's shutdown."""
    for ws in list(connections):
        await ws.close()


class _Wire:
    """The frames between a client and the middleware, with faults applied on the way."""

    def __init__(
        self, middleware: Middleware, send: Callable[[str], Awaitable[None]], drop: Callable[[], None]
    ) -> None:
        self._middleware = middleware
        self._send = send
        self._drop = drop
        self._gone = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    async def receive_frame(self, connection: ClientConnection, frame: str) -> None:
        """Pass a frame on and answer it: at once, later, or not at all."""
        outcome = await _in_thread(self._middleware.receive_frame, connection, frame)
        if outcome.fate.delay:
            self._start_task(self._send_answer(outcome.answer, outcome.fate))
        else:
            await self._send_answer(outcome.answer, outcome.fate)
        if outcome.job is not None:
            self._start_task(self._run_job(outcome.job))

    async def finish_tasks(self) -> None:
        """Finish the jobs of a client that has disconnected, without sending answers."""
        self._gone.set()
        await asyncio.gather(*self._running)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_job(self, job: MiddlewareJob) -> None:
        if not job.answer_late:
            await _in_thread(job.seen.wait, NEARLY_SECONDS)  # a real job is never finished at once
        await self._send_answer(await _in_thread(self._middleware.run_job, job), job.fate)

    async def _send_answer(self, answer: str | None, fate: AnswerFate) -> None:
        if fate.delay:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._gone.wait(), fate.delay)
        if self._gone.is_set():
            return
        if fate.drop:
            self._gone.set()
            self._drop()
        elif answer is not None:
            with contextlib.suppress(ConnectionError):  # the client has just disconnected
                await self._send(answer)


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def open_ports(middleware: Middleware, config: ServerConfig) -> list[web.AppRunner]:
    """Open both ports (0: any free one). Return the runners: the first is plain, the second TLS."""
    plain = make_application(middleware, redirect_to=config.ui_httpsport if config.ui_httpsredirect else None)
    sites = (
        (plain, config.ui_port, None),
        (make_application(middleware), config.ui_httpsport, load_certificate(Path(config.data))),
    )
    middleware.logins.certificate_hash = hash_certificate(Path(config.data))
    runners = []
    for app, port, context in sites:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, config.ui_address, port, ssl_context=context).start()
        runners.append(runner)
    return runners


async def open_midclt_socket(
    middleware: Middleware, path: Path, release: str, admins: Container[int] = (0,)
) -> asyncio.AbstractServer:
    """Open the socket for midclt, with one JSON-RPC frame per line. The user ids in `admins` count as root.

    Save `release` beside the socket, because midclt needs it even if the server is down.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    hidden.unlink(missing_ok=True)
    release_file(path).write_text(release)
    log = log_file(path)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    log.chmod(0o666)  # every caller of midclt writes to it
    server = await asyncio.start_unix_server(partial(_serve_midclt, middleware, admins), hidden, limit=_LONGEST_LINE)
    hidden.chmod(0o666)  # every user may connect; the user id is checked afterwards
    hidden.rename(path)  # only now, since asyncio binds it some moments before it listens
    return server


async def _serve_midclt(
    middleware: Middleware, admins: Container[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    connection = unix_connection(root=_PEERCRED.unpack(peer)[1] in admins)

    async def send(frame: str) -> None:
        # Faults may contain line breaks.
        writer.write(frame.replace("\n", " ").encode() + b"\n")
        await writer.drain()

    wire = _Wire(middleware, send, writer.transport.abort)
    if middleware.is_dropping_connections():
        writer.transport.abort()
        return
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            await wire.receive_frame(connection, line.decode())
    await wire.finish_tasks()
    writer.close()


def start_at_boot(middleware: Middleware, marker: Path) -> None:
    """Start the service once per boot if it is enabled. Only log a failure, as TrueNAS does."""
    if marker.exists():
        return
    marker.touch()
    if middleware.enabled and not middleware.service.start(silent=True):
        _LOG.error("the ups service is enabled, but does not start")


async def serve_forever(middleware: Middleware, config: ServerConfig) -> None:
    """Listen until the process is ended."""
    await open_ports(middleware, config)
    await open_midclt_socket(middleware, SOCKET, config.release)
    _LOG.info("TrueNAS stand-in, release %s", middleware.release.version)
    await _in_thread(start_at_boot, middleware, BOOTED)
    await asyncio.Event().wait()


def main(config_path: Path = CONFIG) -> None:
    """Run the stand-in on this machine."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    config = load_config(config_path)
    middleware = Middleware(
        release=RELEASES[config.release],
        accounts=accounts.parse_accounts(config.users, config.api_keys),
        state=StateFile(Path(config.data) / "truenas.json"),
        runner=SystemdRunner(),
        clock=time.time,
        faults=partial(read_faults, FAULTS),
        hostname=socket.gethostname(),
    )
    asyncio.run(serve_forever(middleware, config))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
