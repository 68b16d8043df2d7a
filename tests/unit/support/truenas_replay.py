# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A TrueNAS made of what a real release answered: it replays the recorded frames, and keeps the little state they show.

Answers are the recorded ones wherever there is one for the question; ups.config and service.query answer with the
recorded row, brought up to date by what was called before.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._truenas.jsonrpc import Endpoint, JsonRpc, ServerTrust
from ansible_collections.homelab.nut.plugins.module_utils._truenas.middleware import ConnectionLost

RECORDINGS = Path(__file__).parents[1] / "recordings" / "truenas"
RELEASES = sorted(path.stem for path in RECORDINGS.glob("*.json"))
V25_04, V25_10, V26 = RELEASES
KEY = "2-" + "n" * 64  # the key of the recordings
WRONG_KEY = "2-" + "x" * 64
READS = {
    "auth.mechanism_choices",
    "auth.login_ex",
    "auth.login_ex_continue",
    "system.version",
    "ups.config",
    "service.query",
    "core.get_jobs",
}
NO_SUCH_METHOD = -32601
# No answer at all, and the end of the connection.
DROP = object()


class Replay:
    """A channel. `answers` maps a method to answers to give first, in turn: members of a frame, DROP, or raw text."""

    def __init__(self, release: str, *, running: bool = False, enable: bool = False, **settings: Any) -> None:
        self.modern = release != V25_04
        self.pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for conversation in json.loads((RECORDINGS / f"{release}.json").read_text()):
            frames = conversation["frames"]
            for asked, answered in zip(frames[::2], frames[1::2]):
                if isinstance(asked["send"], dict):
                    self.pairs.append((asked["send"], answered["recv"]))
        self.settings = copy.deepcopy(self.find_recorded("ups.config")["result"])
        self.settings.update(settings)
        self.row = self.find_recorded("service.query", [["service", "=", "ups"]], {"get": True})["result"]
        self.row.update(enable=enable, state="RUNNING" if running else "STOPPED")
        self.answers: dict[str, list[Any]] = {}
        self.stays_stopped = 0  # so many starts succeed and leave it stopped all the same
        self.sent: list[dict[str, Any]] = []
        self.closed = 0
        self.dead = False
        self._inbox: list[str] = []
        self._jobs: list[dict[str, Any]] = []

    def find_recorded(self, method: str, *params: Any) -> dict[str, Any]:
        """The first recorded answer to this call; to a call that was never recorded, the one to nope.nope."""
        for asked, answered in self.pairs:
            if asked["method"] == method and asked["params"] == list(params):
                return copy.deepcopy(answered)
        return self.find_recorded("nope.nope")

    # The channel

    def send(self, text: str, seconds: float) -> None:
        message = json.loads(text)
        assert set(message) == {"jsonrpc", "id", "method", "params"}
        assert message["jsonrpc"] == "2.0"
        assert isinstance(message["params"], list)
        self.sent.append(message)
        given = self.answers.get(message["method"])
        answer = given.pop(0) if given else self._make_answer(message["method"], message["params"])
        if answer is DROP:
            self.dead = True
        elif isinstance(answer, str):
            self._inbox.append(answer)
        else:
            self._inbox.append(json.dumps({**answer, "jsonrpc": "2.0", "id": message["id"]}))

    def receive(self, seconds: float) -> str:
        assert seconds > 0
        if self.dead or not self._inbox:
            raise ConnectionLost("the connection broke")
        return self._inbox.pop(0)

    def close(self) -> None:
        self.closed += 1

    # The machine

    def _make_answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        with_state = {
            "ups.config": lambda: {"result": self._show_config()},
            "ups.update": lambda: self._update_config(params),
            "service.query": lambda: {"result": dict(self.row)},
            "core.get_jobs": lambda: {"result": [self._jobs.pop(0)]},
        }
        if method in with_state:
            return with_state[method]()
        if method == "service.control" and self.modern:
            return self._control_service(params[0])
        if method == "service.update":
            self.row["enable"] = params[1]["enable"]
            return self.find_recorded(method, "ups", {"enable": True})
        answer = self.find_recorded(method, *params)
        if method == "auth.login_ex" and "error" in answer:
            return self.find_recorded(method, make_login(api_key=WRONG_KEY))
        if method in ("service.start", "service.stop") and "result" in answer:
            self._run_verb(method.partition(".")[2])
        return answer

    def _update_config(self, params: list[Any]) -> dict[str, Any]:
        answer = self.find_recorded("ups.update", *params)
        if answer.get("error", {}).get("code") not in (None, NO_SUCH_METHOD):  # recorded as refused
            return answer
        self.settings.update(params[0])
        if self.row["state"] == "RUNNING":
            self._start_service()
        return {"result": self._show_config()}

    def _show_config(self) -> dict[str, Any]:
        host = "localhost" if self.settings["mode"] == "MASTER" else self.settings["remotehost"]
        whole = f"{self.settings['identifier']}@{host}:{self.settings['remoteport']}"
        return {**self.settings, "complete_identifier": whole}

    def _control_service(self, verb: str) -> dict[str, Any]:
        self._run_verb(verb.lower())
        polls = [pair[1]["result"][0] for pair in self.pairs if pair[0]["method"] == "core.get_jobs"]
        assert [job["state"] for job in polls] == ["RUNNING", "SUCCESS"]
        self._jobs = copy.deepcopy(polls)
        return self.find_recorded("service.control", "START", "ups", {"silent": False})

    def _run_verb(self, verb: str) -> None:
        if verb == "start":
            self._start_service()
        else:
            self.row["state"] = "STOPPED"

    def _start_service(self) -> None:
        self.row["state"] = "STOPPED" if self.stays_stopped else "RUNNING"
        self.stays_stopped = max(0, self.stays_stopped - 1)

    # What a test asks

    @property
    def writes(self) -> list[tuple[str, ...]]:
        """Everything that was called and is not reading: method and parameters."""
        return [(each["method"], *each["params"]) for each in self.sent if each["method"] not in READS]

    @property
    def logins(self) -> int:
        return sum(each["method"].startswith("auth.login") for each in self.sent)

    def connect(self, endpoint: Endpoint, tls: ServerTrust, timeout: float) -> JsonRpc:
        """In the place of jsonrpc.connect."""
        return JsonRpc(self, endpoint.label, timeout, sleep=lambda _seconds: None)


def make_login(**secret: str) -> dict[str, Any]:
    """The parameter of auth.login_ex as it was recorded."""
    mechanism = "API_KEY_PLAIN" if "api_key" in secret else "PASSWORD_PLAIN"
    return {"mechanism": mechanism, "username": "nutadm", **secret, "login_options": {"user_info": False}}
