# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.modules import ups_info

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS = {
    "VER": "Network UPS Tools upsd 2.8.1 - http://www.networkupstools.org/\n",
    "NETVER": "1.3\n",
    "LIST UPS": 'BEGIN LIST UPS\nUPS ups "Rack"\nEND LIST UPS\n',
    "LIST VAR ups": (
        "BEGIN LIST VAR ups\n"
        'VAR ups battery.charge "100"\n'
        'VAR ups device.serial "000123"\n'
        'VAR ups ups.status "OL"\n'
        "END LIST VAR ups\n"
    ),
    "LIST CLIENT ups": "BEGIN LIST CLIENT ups\nCLIENT ups ::1\nEND LIST CLIENT ups\n",
    "GET NUMLOGINS ups": "NUMLOGINS ups 1\n",
}


@contextmanager
def serving(**changes: str) -> Iterator[int]:
    """Answer one connection from ANSWERS; give the port."""
    answers = {**ANSWERS, **changes}
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _unused = listener.accept()
            with connection, connection.makefile("r") as lines:
                for line in lines:
                    connection.sendall(answers[line.rstrip("\n")].encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=5)
        assert not thread.is_alive()


def run(capfd: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        ups_info.main()
    result: dict[str, Any] = json.loads(capfd.readouterr().out)
    return result


@pytest.mark.parametrize("check_mode", [False, True])
def test_what_it_returns(capfd: pytest.CaptureFixture[str], check_mode: bool) -> None:
    with serving() as port:
        result = run(
            capfd,
            host="127.0.0.1",
            port=port,
            expected_clients=["127.0.0.1", "192.0.2.9"],
            _ansible_check_mode=check_mode,
        )
    result.pop("invocation", None)
    assert result == {
        "changed": False,
        "server": {"version": "2.8.1", "protocol": "1.3"},
        "upses": [
            {
                "name": "ups",
                "description": "Rack",
                "status": ["OL"],
                "fresh": True,
                "error": None,
                "variables": {"battery.charge": 100, "device.serial": "000123", "ups.status": "OL"},
                "clients": ["::1"],
                "num_logins": 1,
            }
        ],
        "missing_clients": ["192.0.2.9"],
        "stale": [],
        "not_on_mains": [],
        "ok": False,
        "msg": (
            f"upsd at 127.0.0.1:{port} serves ups (OL) fresh; logged in as expected: 127.0.0.1;"
            " 192.0.2.9 has not logged in: logged in are 127.0.0.1"
        ),
    }


def test_a_stale_ups_does_not_fail(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(**{"LIST VAR ups": "ERR DATA-STALE\n"}) as port:
        result = run(capfd, host="127.0.0.1", port=port, ups=["ups"])
    assert result["ok"] is False
    assert [ups["name"] for ups in result["stale"]] == ["ups"]
    assert result["upses"][0]["error"] == "DATA-STALE"


def test_an_unknown_ups_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as port:
        result = run(capfd, host="127.0.0.1", port=port, ups=["nix"])
    assert result["failed"] is True
    assert "nix" in result["msg"]
    assert "it serves ups" in result["msg"]


def test_no_server_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = run(capfd, host="127.0.0.1", port=port)
    assert result["failed"] is True
    assert f"upsd at 127.0.0.1:{port} cannot be reached: connection refused" in result["msg"]
