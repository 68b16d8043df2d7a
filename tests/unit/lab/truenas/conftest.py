# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A middleware without a machine below it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.tests.unit.support.truenas_units import FakeUnits
from truenas import accounts, server
from truenas.middleware import ClientConnection, Middleware
from truenas.releases import RELEASES
from truenas.service import StateFile

USERS: dict[str, dict[str, Any]] = {
    "nutadm": {"password": "pw", "roles": ["SYSTEM_GENERAL_WRITE", "SERVICE_WRITE", "SERVICE_READ"]},
    "ro": {"password": "pw", "roles": ["READONLY_ADMIN"]},
    "gen": {"password": "pw", "roles": ["SYSTEM_GENERAL_WRITE"]},
    "root": {"password": "pw"},
    "careful": {"password": "pw", "otp_token": "123456"},
    "nobody": {"password": "pw", "roles": []},
}
KEY = "2-" + "n" * 64
KEYS: list[dict[str, Any]] = [{"id": 2, "name": "lab", "username": "nutadm", "key": KEY}]


@dataclass
class Lab:
    """A middleware, and what it stands on."""

    middleware: Middleware
    runner: FakeUnits
    faults: dict[str, Any]
    now: list[float]

    def connect(self, *, secure: bool = True, remote: str = "192.0.2.1", api: str = "current") -> Client:
        return Client(self, ClientConnection(remote=remote, secure=secure, api=api))

    def log_in(self, user: str = "root") -> Client:
        client = self.connect()
        assert client.call("auth.login", user, "pw") is True
        return client


@dataclass
class Client:
    """Speaks frames, and runs the jobs that come of them at once."""

    lab: Lab
    connection: ClientConnection
    sent: int = 0

    def ask(self, method: str, *params: Any) -> dict[str, Any]:
        self.sent += 1
        request = {"jsonrpc": "2.0", "id": self.sent, "method": method, "params": list(params)}
        outcome = self.lab.middleware.receive_frame(self.connection, json.dumps(request))
        late = self.lab.middleware.run_job(outcome.job) if outcome.job else None
        answer: dict[str, Any] = json.loads(outcome.answer or late or "")
        assert answer["id"] == self.sent
        return answer

    def call(self, method: str, *params: Any) -> Any:
        answer = self.ask(method, *params)
        assert "error" not in answer, answer
        return answer["result"]

    def refused(self, method: str, *params: Any) -> dict[str, Any]:
        error: dict[str, Any] = self.ask(method, *params)["error"]
        return error


@pytest.fixture
def make_lab(tmp_path: Path) -> Callable[..., Lab]:
    def make(release: str = "25.10") -> Lab:
        runner, now = FakeUnits(pid_step=0), [1_700_000_000.0]
        faults: dict[str, Any] = {}
        middleware = Middleware(
            release=RELEASES[release],
            accounts=accounts.parse_accounts(USERS, KEYS),
            state=StateFile(tmp_path / "data" / "truenas.json"),
            runner=runner,
            clock=lambda: now[0],
            faults=lambda: faults,
        )
        return Lab(middleware, runner, faults, now)

    return make


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab()


@dataclass
class Served:
    """A server that listens: two ports on the loopback, and the socket for midclt."""

    plain: int
    tls: int
    socket: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making one takes a while, and all may have the same."""
    directory = tmp_path_factory.mktemp("certificate")
    server.load_certificate(directory)
    return directory


@pytest.fixture
def serve(tmp_path: Path, certificate: Path) -> Iterator[Callable[..., Served]]:
    """Starts servers, of a Lab and the name of its release; its job threads are those of the event loop."""
    loop = asyncio.new_event_loop()
    # A daemon: a test that fails must not keep all of pytest from its end.
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runners: list[Any] = []
    sockets: list[Any] = []

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=30)

    def start(lab: Lab, release: str = "25.10", *, admins: tuple[int, ...] | None = None) -> Served:
        """`admins`: who is root over the socket; by default root, and who runs the test."""
        shutil.copytree(certificate, tmp_path, dirs_exist_ok=True)
        config = server.ServerConfig(data=str(tmp_path), ui_address="127.0.0.1", ui_port=0, ui_httpsport=0)
        listening = run(server.open_ports(lab.middleware, config))
        runners.extend(listening)
        path = tmp_path / "run" / "middlewared.sock"
        sockets.append(run(server.open_midclt_socket(lab.middleware, path, release, admins or (0, os.getuid()))))
        return Served(*(runner.addresses[0][1] for runner in listening), path)

    yield start
    for each in sockets:
        loop.call_soon_threadsafe(each.close)
    for runner in runners:
        run(runner.cleanup())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=30)
    loop.close()


@pytest.fixture
def api_key() -> str:
    return KEY
