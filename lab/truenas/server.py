# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge of the stand-in: WebSockets, a certificate, the configuration file. Run: python3 -m truenas.server."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from . import accounts
from .middleware import Connection, Job, Middleware
from .releases import RELEASES
from .service import StateFile, SystemdRunner

CONFIG = Path("/etc/truenas-lab.json")
FAULTS = Path("/etc/lab/faults.json")
#: Gone after a reboot: so the enabled service starts once a boot, not at each start of this server.
BOOTED = Path("/run/truenas-lab.booted")

_LOG = logging.getLogger("truenas")
_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Config:
    """The configuration file. Its members have the names that TrueNAS has for them, where it has one."""

    release: str = "25.10"
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: accounts.LAB_USERS)
    api_keys: tuple[Mapping[str, Any], ...] = accounts.LAB_API_KEYS
    ui_address: str | None = None
    ui_port: int = 80
    ui_httpsport: int = 443
    ui_httpsredirect: bool = False
    data: str = "/data"


def load_config(path: Path) -> Config:
    """Read the file. Raises ValueError for a member that does not exist, or a release that cannot be played."""
    given = json.loads(path.read_text()) if path.exists() else {}
    unknown = sorted(set(given) - {each.name for each in fields(Config)})
    if unknown:
        raise ValueError(f"{path}: unknown member {', '.join(unknown)}")
    config = Config(**given)
    if config.release not in RELEASES:
        raise ValueError(f"{path}: release {config.release!r}: choose one of {', '.join(RELEASES)}")
    return config


def read_faults(path: Path) -> Mapping[str, Any]:
    """The faults to play now. No file, no faults."""
    try:
        loaded: Mapping[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return loaded


def certificate(directory: Path) -> ssl.SSLContext:
    """The server's TLS side, with a self-signed certificate that is made once, as on a fresh TrueNAS."""
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


def application(middleware: Middleware, *, redirect_to: int | None = None) -> web.Application:
    """The HTTP side. `redirect_to`: a port; everything is sent to https there."""
    app = web.Application()
    if redirect_to is not None:
        app.router.add_route("*", "/{path:.*}", partial(_redirect, redirect_to))
        return app
    app.router.add_get("/api/versions", partial(_versions, middleware))
    app.router.add_get("/api/{version}", partial(_websocket, middleware))
    return app


async def _redirect(port: int, request: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect(str(request.url.with_scheme("https").with_port(port)))


async def _versions(middleware: Middleware, _unused: web.Request) -> web.Response:
    return web.json_response(middleware.release.api_versions)


async def _websocket(middleware: Middleware, request: web.Request) -> web.StreamResponse:
    version = request.match_info["version"]
    if version != "current" and version not in middleware.release.api_versions:
        raise web.HTTPNotFound
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    remote = request.remote or ""
    connection = Connection(remote=remote, secure=request.secure or remote in _LOOPBACK, api=version)
    running: set[asyncio.Task[None]] = set()
    async for message in ws:
        if message.type != WSMsgType.TEXT:
            break
        outcome = await _in_thread(middleware.receive, connection, message.data)
        if outcome.answer is not None:
            await ws.send_str(outcome.answer)
        if outcome.job is not None:
            task = asyncio.create_task(_run(middleware, outcome.job, ws))
            running.add(task)
            task.add_done_callback(running.discard)
    await asyncio.gather(*running)  # a job goes on when its caller has gone
    return ws


async def _run(middleware: Middleware, job: Job, ws: web.WebSocketResponse) -> None:
    answer = await _in_thread(middleware.run, job)
    if answer is not None and not ws.closed:
        await ws.send_str(answer)


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def listen(middleware: Middleware, config: Config) -> list[web.AppRunner]:
    """Open both ports. Port 0 takes any free one. Returns the runners: the first is plain, the second is TLS."""
    plain = application(middleware, redirect_to=config.ui_httpsport if config.ui_httpsredirect else None)
    sites = (
        (plain, config.ui_port, None),
        (application(middleware), config.ui_httpsport, certificate(Path(config.data))),
    )
    runners = []
    for app, port, context in sites:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, config.ui_address, port, ssl_context=context).start()
        runners.append(runner)
    return runners


def start_at_boot(middleware: Middleware, marker: Path) -> None:
    """Start the service once a boot, if it is enabled. A failure is only logged, as on TrueNAS."""
    if marker.exists():
        return
    marker.touch()
    if middleware.enabled and not middleware.start_ups(silent=True):
        _LOG.error("the ups service is enabled, but does not start")


async def serve(middleware: Middleware, config: Config) -> None:
    """Listen until somebody ends the process."""
    await listen(middleware, config)
    _LOG.info("TrueNAS stand-in, release %s", middleware.release.version)
    await _in_thread(start_at_boot, middleware, BOOTED)
    await asyncio.Event().wait()


def main(config_path: Path = CONFIG) -> None:
    """Run the stand-in on this machine."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    config = load_config(config_path)
    middleware = Middleware(
        release=RELEASES[config.release],
        accounts=accounts.parse(config.users, config.api_keys),
        state=StateFile(Path(config.data) / "truenas.json"),
        runner=SystemdRunner(),
        clock=time.time,
        faults=partial(read_faults, FAULTS),
        hostname=socket.gethostname(),
    )
    asyncio.run(serve(middleware, config))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
