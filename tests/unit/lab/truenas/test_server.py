# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole server on the loopback, with TLS, spoken to by the library that the collection uses."""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import websocket
from truenas import server
from truenas.service import StateFile


@pytest.fixture
def ports(lab: Any, serve: Callable[..., Any]) -> Any:
    """A running server."""
    return serve(lab)


def connect_to(url: str) -> Any:
    return websocket.create_connection(url, timeout=30, sslopt={"cert_reqs": ssl.CERT_NONE})


def ask_server(socket: Any, number: int, method: str, *params: Any) -> Any:
    socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
    answer = json.loads(socket.recv())
    assert answer["id"] == number
    return answer.get("result", answer.get("error"))


def test_api_over_tls(lab: Any, ports: Any) -> None:
    socket = connect_to(f"wss://127.0.0.1:{ports.tls}/api/current")
    assert ask_server(socket, 1, "core.ping") == "pong"
    assert ask_server(socket, 2, "auth.login", "root", "pw") is True
    assert ask_server(socket, 3, "ups.update", {"mode": "SLAVE", "remotehost": "192.0.2.10"})["mode"] == "SLAVE"
    job = ask_server(socket, 4, "service.control", "START", "ups", {"silent": False})
    for number in range(5, 505):
        (shown,) = ask_server(socket, number, "core.get_jobs", [["id", "=", job]])
        if shown["state"] != "RUNNING":
            break
    assert (shown["state"], shown["result"]) == ("SUCCESS", True)
    ask_server(socket, 600, "core.set_options", {"legacy_jobs": False})
    assert ask_server(socket, 601, "service.control", "STOP", "ups") is True
    assert lab.runner.calls == ["start", "stop"]
    socket.close()


def test_plain_http_and_list_of_versions(ports: Any) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.plain}/api/versions", timeout=30) as answer:
        versions = json.load(answer)
    assert versions[-1].startswith("v25.10.")
    for path in ("current", versions[-1]):
        socket = connect_to(f"ws://127.0.0.1:{ports.plain}/api/{path}")
        assert ask_server(socket, 1, "core.ping") == "pong"
        socket.close()
    with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
        connect_to(f"ws://127.0.0.1:{ports.plain}/api/v99")


def test_http_is_redirected_to_https(lab: Any) -> None:
    async def ask_plain() -> tuple[int, str]:
        from aiohttp import ClientSession, web

        runner = web.AppRunner(server.make_application(lab.middleware, redirect_to=443))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession() as session:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/current"
            async with session.get(url, allow_redirects=False) as answer:
                found = (answer.status, answer.headers["Location"])
        await runner.cleanup()
        return found

    assert asyncio.run(ask_plain()) == (307, "https://127.0.0.1/api/current")


def test_certificate_is_kept(tmp_path: Path) -> None:
    server.load_certificate(tmp_path)
    first = (tmp_path / "https.crt").read_text()
    server.load_certificate(tmp_path)
    assert (tmp_path / "https.crt").read_text() == first


def test_config_of_the_server_is_read(tmp_path: Path) -> None:
    path = tmp_path / "truenas-lab.json"
    assert server.load_config(path).release == "25.10"
    path.write_text('{"release": "26", "ui_port": 8080}')
    assert (server.load_config(path).release, server.load_config(path).ui_port) == ("26", 8080)
    path.write_text('{"relaese": "26"}')
    with pytest.raises(ValueError, match="unknown member relaese"):
        server.load_config(path)
    path.write_text('{"release": "13"}')
    with pytest.raises(ValueError, match=r"choose one of 13\.0, 22\.12, 24\.10, 25\.04, 25\.10, 26$"):
        server.load_config(path)


def test_faults_are_read_at_each_call(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    assert server.read_faults(path) == {}
    path.write_text('{"service_start": "no"}')
    assert server.read_faults(path) == {"service_start": "no"}


def test_enabled_service_starts_once_per_boot(lab: Any, tmp_path: Path) -> None:
    marker = tmp_path / "booted"
    client = lab.log_in()
    client.call("ups.update", {"mode": "SLAVE", "remotehost": "192.0.2.10"})
    server.start_at_boot(lab.middleware, marker)
    assert lab.runner.calls == []  # not enabled
    marker.unlink()
    client.call("service.update", "ups", {"enable": True})
    server.start_at_boot(lab.middleware, marker)
    assert lab.runner.calls == ["start"]
    lab.runner.stop_service()
    server.start_at_boot(lab.middleware, marker)  # the server was restarted, the machine was not
    assert lab.runner.running is False


def test_state_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    StateFile(tmp_path / "state.json").save_state({"ups": {"monpwd": "x"}})
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
