# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.modules import ups_info
from ansible_collections.homelab.nut.plugins.plugin_utils import certificates
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    "GET VAR ups ups.status": 'VAR ups ups.status "OL CHRG"\n',
    "LIST CMD ups": "BEGIN LIST CMD ups\nCMD ups load.off\nEND LIST CMD ups\n",
    "GET CMDDESC ups load.off": 'CMDDESC ups load.off "Turn off"\n',
    "LIST RW ups": 'BEGIN LIST RW ups\nRW ups ups.delay.shutdown "20"\nRW ups ups.id "7"\nEND LIST RW ups\n',
    "GET DESC ups ups.delay.shutdown": 'DESC ups ups.delay.shutdown "Seconds"\n',
    "GET DESC ups ups.id": 'DESC ups ups.id "Description unavailable"\n',
    "GET TYPE ups ups.delay.shutdown": "TYPE ups ups.delay.shutdown RW ENUM RANGE NUMBER\n",
    "GET TYPE ups ups.id": "TYPE ups ups.id RW STRING:8\n",
    "LIST ENUM ups ups.delay.shutdown": (
        "BEGIN LIST ENUM ups ups.delay.shutdown\n"
        'ENUM ups ups.delay.shutdown "0"\n'
        "END LIST ENUM ups ups.delay.shutdown\n"
    ),
    "LIST RANGE ups ups.delay.shutdown": (
        "BEGIN LIST RANGE ups ups.delay.shutdown\n"
        'RANGE ups ups.delay.shutdown "1" "600"\n'
        "END LIST RANGE ups ups.delay.shutdown\n"
    ),
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
def test_result_describes_upsd_and_upses(capfd: pytest.CaptureFixture[str], check_mode: bool) -> None:
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
        "server": {"version": "2.8.1", "protocol": "1.3", "tls": None, "certificate_expires": None},
        "upses": [
            {
                "name": "ups",
                "description": "Rack",
                "status": ["OL"],
                "status_words": "on mains",
                "fresh": True,
                "error": None,
                "variables": {"battery.charge": 100, "device.serial": "000123", "ups.status": "OL"},
                "clients": ["::1"],
                "num_logins": 1,
            }
        ],
        "missing_clients": ["192.0.2.9"],
        "unexpected_clients": [],
        "stale": [],
        "not_on_mains": [],
        "ok": False,
        "msg": (
            f"upsd at 127.0.0.1:{port} serves ups (OL) with fresh data; logged in as expected: 127.0.0.1;"
            " 192.0.2.9 has not logged in (logged in: 127.0.0.1)"
        ),
    }


def test_stale_ups_does_not_fail_module(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(**{"LIST VAR ups": "ERR DATA-STALE\n"}) as port:
        result = run(capfd, host="127.0.0.1", port=port, ups=["ups"])
    assert result["ok"] is False
    assert [ups["name"] for ups in result["stale"]] == ["ups"]
    assert result["upses"][0]["error"] == "DATA-STALE"


def test_unknown_ups_fails_module(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as port:
        result = run(capfd, host="127.0.0.1", port=port, ups=["nix"])
    assert result["failed"] is True
    assert "nix" in result["msg"]
    assert "it serves ups" in result["msg"]


def test_unreachable_server_fails_module(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = run(capfd, host="127.0.0.1", port=port)
    assert result["failed"] is True
    assert f"upsd at 127.0.0.1:{port} cannot be reached: connection refused" in result["msg"]


def test_gather_everything(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as port:
        result = run(capfd, host="127.0.0.1", port=port, gather=["commands", "writable"])
    (ups,) = result["upses"]
    assert ups == {
        "name": "ups",
        "description": "Rack",
        "status": ["OL", "CHRG"],
        "status_words": "on mains, charging",
        "fresh": True,
        "error": None,
        "commands": {"load.off": "Turn off"},
        "writable": {
            "ups.delay.shutdown": {
                "value": 20,
                "description": "Seconds",
                "type": "number",
                "length": None,
                "values": [0],
                "ranges": [[1, 600]],
            },
            "ups.id": {"value": "7", "description": "", "type": "string", "length": 8, "values": [], "ranges": []},
        },
    }
    assert "ansible_facts" not in result


def test_expected_clients_imply_gathering_clients(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as port:
        result = run(capfd, host="127.0.0.1", port=port, gather=[], expect=["192.0.2.9"])
    assert set(result["upses"][0]) == {
        *("name", "description", "status", "status_words", "fresh", "error", "clients", "num_logins")
    }
    assert (result["missing_clients"], result["unexpected_clients"]) == (["192.0.2.9"], ["127.0.0.1"])


def test_facts_contain_upses_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as port:
        result = run(capfd, host="127.0.0.1", port=port, facts=True)
    assert set(result["ansible_facts"]) == {"nut"}
    found = result["ansible_facts"]["nut"]
    assert found["ups"] == {"ups": result["upses"][0]}
    names = ("server", "missing_clients", "unexpected_clients", "stale", "not_on_mains", "ok")
    assert {name: found[name] for name in names} == {name: result[name] for name in names}
    assert set(found) == {"ups", *names}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, "timeout is 0"),
        ({"ca_path": "/nowhere/ca.pem"}, "can't read ca_path /nowhere/ca.pem"),
        ({"ca": "x", "ca_path": "y"}, "mutually exclusive"),
        ({"ca": "x", "tls": False}, "tls is false"),
        ({"server_name": "x", "tls": False}, "tls is false"),
        ({"gather": ["all"]}, "gather"),
    ],
)
def test_contradictory_options_fail_module(
    capfd: pytest.CaptureFixture[str], options: dict[str, Any], words: str
) -> None:
    result = run(capfd, host="127.0.0.1", port=1, **options)
    assert result["failed"] is True
    assert words in result["msg"]


@pytest.mark.parametrize("options", [{"tls": True}, {"ca": "x"}, {"server_name": "pve"}, {"ca_path": __file__}])
def test_failed_tls_fails_module(capfd: pytest.CaptureFixture[str], options: dict[str, Any]) -> None:
    with serving(STARTTLS="ERR FEATURE-NOT-CONFIGURED\n") as port:
        result = run(capfd, host="127.0.0.1", port=port, **options)
    assert result["failed"] is True
    assert "answered FEATURE-NOT-CONFIGURED to STARTTLS" in result["msg"]


def test_tls_connection_is_described(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    ca = certificates.make_ca("ours", now)
    pair = certificates.issue_certificate(ca, "pve", ["pve.home.lan"], now)
    (tmp_path / "pem").write_text(pair.key + pair.certificate)
    (tmp_path / "ca").write_text(ca.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _unused in range(2):
                connection, _unused = listener.accept()
                with connection:
                    assert connection.recv(100) == b"STARTTLS\n"
                    connection.sendall(b"OK STARTTLS\n")
                    with (
                        context.wrap_socket(connection, server_side=True) as secure,
                        secure.makefile("r") as lines,
                    ):
                        for line in lines:
                            secure.sendall(ANSWERS[line.rstrip("\n")].encode())

        thread = threading.Thread(target=serve)
        thread.start()
        trust: list[dict[str, Any]] = [{"ca": ca.certificate}, {"ca_path": str(tmp_path / "ca")}]
        port = listener.getsockname()[1]
        results = [run(capfd, host="127.0.0.1", port=port, server_name="pve.home.lan", **options) for options in trust]
        thread.join(timeout=5)
    expires = f"{now + certificates.LIFE:%Y-%m-%dT%H:%M:%SZ}"
    for result in results:
        assert result["server"] == {
            "version": "2.8.1",
            "protocol": "1.3",
            "tls": "TLSv1.3",
            "certificate_expires": expires,
        }


KNOWN = {"USERNAME nas": "OK\n", "PASSWORD secret2": "OK\n", "LOGOUT": "OK Goodbye\n"}
LOGIN = {"username": "nas", "password": "secret2", "ups": ["ups"]}


@pytest.mark.parametrize(
    ("answer", "login"),
    [
        ("OK\n", {"verdict": "accepted", "reason": ""}),
        (
            "ERR ACCESS-DENIED\n",
            {
                "verdict": "refused",
                "reason": "upsd at 127.0.0.1:PORT does not accept the login nas to ups (ACCESS-DENIED)",
            },
        ),
    ],
)
def test_login_is_tried_without_an_effect_on_the_verdict(
    capfd: pytest.CaptureFixture[str], answer: str, login: dict[str, str]
) -> None:
    with serve_answers({**ANSWERS, **KNOWN, "LOGIN ups": answer}) as fake:
        result = run(capfd, host="127.0.0.1", port=fake.port, **LOGIN)
        assert fake.asked.count("LOGIN ups") == 1
        assert ("LOGOUT" in fake.asked) is (answer == "OK\n")
    assert result["login"] == {**login, "reason": login["reason"].replace("PORT", str(fake.port))}
    assert result["ok"]
    assert "secret2" not in json.dumps(result)


def test_login_needs_the_name_of_a_ups(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, host="127.0.0.1", port=1, username="nas", password="secret2")
    assert result["msg"] == "username is set, so name the UPS to log in to: set ups to one name"
