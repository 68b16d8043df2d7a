# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every recorded conversation with the real code, replayed: the answers must be the same, frame by frame."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from truenas.middleware import ClientConnection, MiddlewareJob

RECORDINGS = Path(__file__).parents[2] / "recordings" / "truenas"
FILES = {"25.04": "TS-25.04.2.6.json", "25.10": "TS-25.10.6.json", "26": "TS-26.0.0-BETA.3.json"}
#: What differs from run to run.
VOLATILE = {"login_id": "<uuid>", "$date": "<time>"}
#: The id of the UPS service in the recorder's database, and in a new TrueNAS (initial.sql of truenas/middleware).
RECORDED_ID, REAL_ID = 16, 14


def load_conversations(release: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((RECORDINGS / FILES[release]).read_text())
    return loaded


CASES = [
    pytest.param(release, number, id=f"{release}: {each['connection']}")
    for release in FILES
    for number, each in enumerate(load_conversations(release))
]


def mask_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: VOLATILE.get(name, mask_value(member)) for name, member in value.items()}
    return [mask_value(each) for each in value] if isinstance(value, list) else value


def with_real_id(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded answer with the id that the UPS service has in a new TrueNAS."""

    def replace_id(value: Any) -> Any:
        if isinstance(value, list):
            return [replace_id(each) for each in value]
        if isinstance(value, dict) and value.get("service") == "ups":
            return {**value, "id": REAL_ID}
        return REAL_ID if value == RECORDED_ID else value

    return {**answer, "result": replace_id(answer["result"])} if "result" in answer else answer


def play_frames(middleware: Any, frames: list[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield recorded and given answer in turn.

    A job takes its time: it is still running when the next frame comes, unless the caller waits for its answer.
    """
    connection = ClientConnection(remote="192.0.2.1", secure=True)
    unfinished: MiddlewareJob | None = None
    for frame in frames:
        if "send" in frame:
            sent = frame["send"]
            outcome = middleware.receive_frame(connection, sent if isinstance(sent, str) else json.dumps(sent))
            if unfinished:
                middleware.run_job(unfinished)
            answer, unfinished = outcome.answer, outcome.job
            if answer is None:
                answer, unfinished = middleware.run_job(unfinished), None
        else:
            yield mask_value(with_real_id(frame["recv"])), mask_value(json.loads(answer))


@pytest.mark.parametrize(("release", "number"), CASES)
def test_middleware_answers_as_recorded(make_lab: Callable[..., Any], release: str, number: int) -> None:
    middleware = make_lab(release).middleware
    recorded = load_conversations(release)
    for earlier in recorded[:number]:  # connections share one system, in the order of the file
        list(play_frames(middleware, earlier["frames"]))
    for wanted, given in play_frames(middleware, recorded[number]["frames"]):
        assert given == wanted


def replay_over_tls(url: str, frames: list[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """One conversation over a connection of its own: recorded and given answer in turn."""
    connection = websocket.create_connection(url, timeout=30, sslopt={"cert_reqs": ssl.CERT_NONE})
    try:
        for frame in frames:
            if "send" in frame:
                sent = frame["send"]
                connection.send(sent if isinstance(sent, str) else json.dumps(sent))
            else:
                yield mask_value(with_real_id(frame["recv"])), mask_value(json.loads(connection.recv()))
    finally:
        connection.close()


@pytest.mark.parametrize("release", list(FILES))
def test_replay_over_the_real_server(make_lab: Callable[..., Any], serve: Callable[..., Any], release: str) -> None:
    """All conversations, in turn, over TLS: the same again, with sockets and threads between."""
    lab = make_lab(release)
    url = f"wss://127.0.0.1:{serve(lab, release).tls}/api/current"
    for conversation in load_conversations(release):
        answers = list(replay_over_tls(url, conversation["frames"]))
        assert len(answers) == len(conversation["frames"]) // 2
        for number, (wanted, given) in enumerate(answers):
            assert given == wanted, f"{conversation['connection']}, answer {number}"


def test_every_recorded_conversation_is_replayed() -> None:
    assert {path.name for path in RECORDINGS.glob("*.json")} == set(FILES.values())
    assert [len(load_conversations(release)) for release in FILES] == [11, 11, 11]
