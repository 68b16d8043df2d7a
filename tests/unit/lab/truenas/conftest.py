# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A middleware without a machine below it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from truenas import accounts
from truenas.middleware import Connection, Middleware
from truenas.releases import RELEASES
from truenas.service import ServiceState, StateFile

PID = 4242  # what the recordings show

USERS: dict[str, dict[str, Any]] = {
    "nutadm": {"password": "pw", "roles": ["SYSTEM_GENERAL_WRITE", "SERVICE_WRITE", "SERVICE_READ"]},
    "ro": {"password": "pw", "roles": ["READONLY_ADMIN"]},
    "gen": {"password": "pw", "roles": ["SYSTEM_GENERAL_WRITE"]},
    "root": {"password": "pw"},
    "careful": {"password": "pw", "otp_token": "123456"},
}
KEY = "2-" + "n" * 64
KEYS: list[dict[str, Any]] = [{"id": 2, "name": "lab", "username": "nutadm", "key": KEY}]


@dataclass
class FakeRunner:
    """Notes what it is told to do. With `log` it fails to start."""

    running: bool = False
    log: str = ""
    calls: list[str] = field(default_factory=list)
    files: Mapping[str, str] = field(default_factory=dict)

    def start(self, files: Mapping[str, str]) -> str:
        self.calls.append("start")
        self.files = files
        self.running = not self.log
        return self.log

    def stop(self) -> None:
        self.calls.append("stop")
        self.running = False

    def state(self) -> ServiceState:
        return ServiceState(self.running, (PID,) if self.running else ())


@dataclass
class Lab:
    """A middleware, and what it stands on."""

    middleware: Middleware
    runner: FakeRunner
    faults: dict[str, Any]
    now: list[float]

    def connect(self, *, secure: bool = True, remote: str = "192.0.2.1", api: str = "current") -> Client:
        return Client(self, Connection(remote=remote, secure=secure, api=api))

    def log_in(self, user: str = "root") -> Client:
        client = self.connect()
        assert client.call("auth.login", user, "pw") is True
        return client


@dataclass
class Client:
    """Speaks frames, and runs the jobs that come of them at once."""

    lab: Lab
    connection: Connection
    sent: int = 0

    def ask(self, method: str, *params: Any) -> dict[str, Any]:
        self.sent += 1
        request = {"jsonrpc": "2.0", "id": self.sent, "method": method, "params": list(params)}
        outcome = self.lab.middleware.receive(self.connection, json.dumps(request))
        late = self.lab.middleware.run(outcome.job) if outcome.job else None
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
        runner, now = FakeRunner(), [1_700_000_000.0]
        faults: dict[str, Any] = {}
        middleware = Middleware(
            release=RELEASES[release],
            accounts=accounts.parse(USERS, KEYS),
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


@pytest.fixture
def api_key() -> str:
    return KEY
