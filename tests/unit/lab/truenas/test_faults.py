# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each fault over the real server: a WebSocket over TLS, on the loopback."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import websocket

pytestmark = pytest.mark.slow

SLAVE = {"mode": "SLAVE", "remotehost": "192.0.2.10", "shutdown": "LOWBATT"}
LOUD = {"silent": False}
PASSWORD = {"mechanism": "PASSWORD_PLAIN", "username": "root", "password": "pw"}
# What a client of websocket-client sees of a connection that is gone without a close frame.
GONE = (websocket.WebSocketConnectionClosedException, ConnectionError, ssl.SSLError)


@dataclass
class Caller:
    """A client over TLS."""

    lab: Any
    url: str
    numbers: int = 0
    socket: Any = None

    def connect(self) -> Caller:
        if self.socket is not None:
            self.socket.close()
        self.socket = websocket.create_connection(self.url, timeout=30, sslopt={"cert_reqs": ssl.CERT_NONE})
        return self

    def log_in(self) -> Caller:
        assert self.connect().call("auth.login", "root", "pw") is True
        return self

    def send(self, method: str, *params: Any) -> None:
        self.numbers += 1
        self.socket.send(json.dumps({"jsonrpc": "2.0", "id": self.numbers, "method": method, "params": params}))

    def ask(self, method: str, *params: Any) -> dict[str, Any]:
        self.send(method, *params)
        answer: dict[str, Any] = json.loads(self.socket.recv())
        assert answer["id"] == self.numbers
        return answer

    def call(self, method: str, *params: Any) -> Any:
        return self.ask(method, *params)["result"]

    def is_gone(self) -> bool:
        """Nothing comes any more, and no close frame has come either."""
        try:
            opcode, _unused = self.socket.recv_data(control_frame=True)
        except GONE:
            return True
        return bool(opcode is None)

    def finished_job(self, number: int) -> dict[str, Any]:
        while True:
            (job,) = self.call("core.get_jobs", [["id", "=", number]])
            if job["state"] != "RUNNING":
                found: dict[str, Any] = job
                return found


@pytest.fixture
def caller(lab: Any, serve: Callable[..., Any]) -> Caller:
    return Caller(lab, f"wss://127.0.0.1:{serve(lab).tls}/api/current")


def test_failed_job_reports_the_fault(caller: Caller) -> None:
    caller.log_in().call("ups.update", SLAVE)
    caller.lab.faults["job"] = "nobody works today"
    job = caller.finished_job(caller.call("service.control", "START", "ups", LOUD))
    words = "[EFAULT] nobody works today"
    assert (job["state"], job["error"], job["exception"], job["result"]) == ("FAILED", words, words, None)
    assert job["exc_info"] == {"type": "CallError", "extra": None, "repr": repr(words)}
    assert job["time_finished"] is not None
    assert caller.lab.runner.calls == []
    caller.call("core.set_options", {"legacy_jobs": False})
    assert caller.ask("service.control", "START", "ups")["error"]["data"]["reason"] == words
    caller.lab.faults.clear()
    assert caller.call("service.control", "START", "ups") is True


@pytest.mark.parametrize(("when", "mode"), [("before", "MASTER"), ("after", "SLAVE")])
def test_connection_drops_before_or_after_a_call(caller: Caller, when: str, mode: str) -> None:
    caller.log_in()
    caller.lab.faults["drop"] = {"ups.update": when}
    assert caller.call("ups.config")["mode"] == "MASTER"
    caller.send("ups.update", SLAVE)
    assert caller.is_gone()
    assert caller.log_in().call("ups.config")["mode"] == mode


@pytest.mark.parametrize("method", ["auth.login_ex", "service.query", "service.update", "core.get_jobs", "nope.nope"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_connection_drops_for_any_method(caller: Caller, method: str, when: str) -> None:
    """Also one that would have been refused."""
    caller.lab.faults["drop"] = {method: when}
    caller.connect().send(method)
    assert caller.is_gone()


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(("when", "calls"), [("before", []), ("after", ["stop"])])
def test_connection_drops_during_a_job(caller: Caller, legacy: bool, when: str, calls: list[str]) -> None:
    """A job goes on when its caller has gone, whether the caller would have waited or not."""
    caller.log_in().call("core.set_options", {"legacy_jobs": legacy})
    caller.lab.faults["drop"] = {"service.control": when}
    caller.send("service.control", "STOP", "ups")
    assert caller.is_gone()
    caller.lab.faults.clear()
    caller.log_in()
    for (job,) in iter(lambda: caller.call("core.get_jobs") or [{"state": None}], None):
        if job["state"] != "RUNNING":
            break
    assert caller.lab.runner.calls == calls


def test_connection_drops_before_the_first_frame(caller: Caller) -> None:
    caller.lab.faults["drop"] = {"connect": "before"}
    caller.connect()
    assert caller.is_gone()
    caller.lab.faults["drop"] = {"connect": "after"}  # there is no such thing
    assert caller.connect().call("core.ping") == "pong"


def test_slow_answer_is_delayed(caller: Caller) -> None:
    """The work is done first; and the others do not wait."""
    caller.log_in()
    caller.lab.faults["slow"] = {"ups.update": 60}
    caller.send("ups.update", SLAVE)
    assert caller.call("ups.config")["mode"] == "SLAVE"
    caller.lab.faults["slow"] = {"ups.update": 0.3}
    began = time.monotonic()
    assert caller.call("ups.update", {"hostsync": 5})["hostsync"] == 5
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("legacy", [True, False])
def test_slow_answer_of_a_job(caller: Caller, legacy: bool) -> None:
    caller.log_in().call("core.set_options", {"legacy_jobs": legacy})
    caller.lab.faults["slow"] = {"service.control": 0.3}
    began = time.monotonic()
    assert caller.call("service.control", "STOP", "ups") == (1 if legacy else True)
    assert time.monotonic() - began >= 0.3
    # a job that nobody looks at takes a moment
    while not caller.lab.runner.calls:
        assert time.monotonic() - began < 10
        time.sleep(0.05)
    assert caller.lab.runner.calls == ["stop"]


def test_slow_answer_can_be_followed_by_a_drop(caller: Caller) -> None:
    caller.log_in()
    caller.lab.faults.update(slow={"ups.update": 0.3}, drop={"ups.update": "after"})
    caller.send("ups.update", SLAVE)
    assert caller.is_gone()
    assert caller.lab.middleware.settings["mode"] == "SLAVE"


@pytest.mark.parametrize(
    "text", ["<html>502 Bad Gateway</html>", "[]", '{"jsonrpc": "2.0", "id": 99, "result": 1}', ""]
)
def test_garbage_replaces_an_answer(caller: Caller, text: str) -> None:
    caller.log_in()
    caller.lab.faults["garbage"] = {"ups.update": text, "service.control": text}
    caller.send("ups.update", SLAVE)
    assert caller.socket.recv() == text
    assert caller.call("ups.config")["mode"] == "SLAVE"  # done all the same
    caller.send("service.control", "STOP", "ups")
    assert caller.socket.recv() == text
    caller.call("core.set_options", {"legacy_jobs": False})
    caller.send("service.control", "STOP", "ups")
    assert caller.socket.recv() == text


def test_garbage_replaces_an_error(caller: Caller) -> None:
    caller.lab.faults["garbage"] = {"ups.config": "?"}
    caller.connect().send("ups.config")
    assert caller.socket.recv() == "?"


def test_standby_node_redirects_logins(caller: Caller) -> None:
    urls = ["https://192.0.2.2", "https://192.0.2.3:8443"]
    caller.lab.faults["standby"] = urls
    wanted = {"response_type": "REDIRECT", "urls": urls}
    assert caller.connect().call("auth.login_ex", PASSWORD) == wanted
    assert caller.call("auth.login_ex", {**PASSWORD, "password": "bad"}) == wanted
    assert caller.ask("ups.config")["error"]["data"]["errname"] == "ENOTAUTHENTICATED"
    caller.lab.faults["standby"] = []
    assert caller.call("auth.login_ex", PASSWORD) == {"response_type": "REDIRECT", "urls": []}


@pytest.mark.parametrize("outcome", ["DENIED", "EXPIRED", "AUTH_ERR", "OTP_REQUIRED", "SOMETHING"])
def test_login_answers_the_requested_outcome(caller: Caller, outcome: str) -> None:
    caller.lab.faults["login"] = outcome
    assert caller.connect().call("auth.login_ex", PASSWORD) == {"response_type": outcome}
    assert caller.ask("ups.config")["error"]["data"]["errname"] == "ENOTAUTHENTICATED"
    caller.lab.faults.clear()
    assert caller.call("auth.login_ex", PASSWORD)["response_type"] == "SUCCESS"


def test_busy_server_refuses_clients_without_a_login(caller: Caller) -> None:
    """As the limiter says it, but from the first call on, and only to whom it does not know."""
    caller.log_in()
    caller.lab.faults["busy"] = True
    assert caller.call("core.ping") == "pong"
    for method in ("core.ping", "auth.login_ex", "ups.config"):
        error = caller.connect().ask(method, *([PASSWORD] if method == "auth.login_ex" else []))["error"]
        assert (error["code"], error["message"]) == (-32001, "Method call error")
        assert error["data"] == {
            "error": 16,
            "errname": "EBUSY",
            "reason": "[EBUSY] Rate Limit Exceeded",
            "extra": None,
        }


@pytest.mark.parametrize("release", ["13.0", "22.12", "24.10"])
def test_releases_before_25_04_have_no_json_rpc(
    make_lab: Callable[..., Any], serve: Callable[..., Any], release: str
) -> None:
    served = serve(make_lab(release), release)
    for path in ("api/current", "api/versions", "api/v25.04.0"):
        for url in (f"wss://127.0.0.1:{served.tls}/{path}", f"ws://127.0.0.1:{served.plain}/{path}"):
            client = websocket.WebSocket(sslopt={"cert_reqs": ssl.CERT_NONE})
            with pytest.raises(websocket.WebSocketException):
                client.connect(url, timeout=30, redirect_limit=0)
            assert client.handshake_response.status == 302
            assert client.handshake_response.headers["location"].endswith("/ui/")
            client.shutdown()


def test_ending_server_closes_open_connections(caller: Caller) -> None:
    """The fixture's end would take a minute, and fail: this client stays, and waits for an answer."""
    caller.log_in()
    caller.lab.faults["slow"] = {"core.ping": 3600}
    caller.send("core.ping")
