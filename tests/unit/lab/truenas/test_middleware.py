# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the recordings do not show: jobs that fail, faults, limits, and what stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

SLAVE = {"mode": "SLAVE", "remotehost": "192.0.2.10", "shutdown": "LOWBATT"}
LOUD = {"silent": False}


# Annotated as Any: conftest's classes are not importable by name in pytest's importlib mode.
def wait(client: Any, verb: str, **options: Any) -> dict[str, Any]:
    number = client.call("service.control", verb, "ups", options)
    job: dict[str, Any] = client.call("core.get_jobs", [["id", "=", number]], {"get": True})
    return job


def key_login(client: Any, key: str, user: str = "nutadm") -> str:
    data = {"mechanism": "API_KEY_PLAIN", "username": user, "api_key": key, "login_options": {"user_info": False}}
    answer: str = client.call("auth.login_ex", data)["response_type"]
    return answer


def test_service_gets_its_files(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    assert lab.runner.calls == []
    assert wait(client, "START")["result"] is True
    assert lab.runner.files["nut.conf"] == "MODE=netclient\n"
    assert "MONITOR ups@192.0.2.10:3493 1 upsmon fixmepass SLAVE\n" in lab.runner.files["upsmon.conf"]
    assert client.call("service.query", [["service", "=", "ups"]], {"get": True})["state"] == "RUNNING"
    assert wait(client, "STOP")["result"] is True
    assert lab.runner.running is False


def test_update_restarts_only_a_running_service(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    wait(client, "START")
    lab.runner.calls.clear()
    client.call("ups.update", SLAVE)
    assert lab.runner.calls == []
    client.call("ups.update", {"hostsync": 5})
    assert lab.runner.calls == ["stop", "start"]
    assert "HOSTSYNC 5\n" in lab.runner.files["upsmon.conf"]


def test_settings_are_saved_even_if_the_restart_fails(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    wait(client, "START")
    lab.runner.log = "upsmon: cannot"
    error = client.refused("ups.update", {"hostsync": 5})
    assert error["code"] == -32001
    assert (error["data"]["error"], error["data"]["errname"]) == (202, "ESERVICESTARTFAILURE")
    assert error["data"]["reason"] == "[ESERVICESTARTFAILURE] The ups service failed to start"
    assert client.call("ups.config")["hostsync"] == 5


def test_failed_start_is_silent_by_default(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    lab.runner.log = "upsmon: cannot"
    job = wait(client, "START")
    assert (job["state"], job["result"]) == ("SUCCESS", False)
    job = wait(client, "START", **LOUD)
    assert (job["state"], job["error"]) == ("FAILED", "[EFAULT] upsmon: cannot")
    assert client.refused("service.start", "ups", LOUD)["data"]["reason"] == "[EFAULT] upsmon: cannot"


def test_call_waits_for_its_job_without_legacy_jobs(lab: Any) -> None:
    client = lab.log_in()
    client.call("core.set_options", {"legacy_jobs": False})
    client.call("ups.update", SLAVE)
    assert client.call("service.control", "START", "ups", LOUD) is True
    lab.runner.log = "upsmon: cannot"
    assert client.refused("service.control", "RESTART", "ups", LOUD)["data"]["reason"] == "[EFAULT] upsmon: cannot"


def test_service_of_a_fresh_system_does_not_start(lab: Any) -> None:
    assert "mode MASTER" in wait(lab.log_in(), "START", **LOUD)["error"]


def test_fault_service_start(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    lab.faults["service_start"] = "no power today"
    assert wait(client, "START", **LOUD)["error"] == "[EFAULT] no power today"
    lab.faults.clear()
    assert wait(client, "START", **LOUD)["state"] == "SUCCESS"
    lab.faults["service_start"] = "no power today"
    assert client.refused("ups.update", {"hostsync": 1})["data"]["errname"] == "ESERVICESTARTFAILURE"


def test_fault_restart_leaves_stopped(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    wait(client, "START")
    lab.faults["restart_leaves_stopped"] = True
    assert wait(client, "RESTART")["result"] is True
    assert client.call("service.query", [["service", "=", "ups"]], {"get": True})["state"] == "STOPPED"


def test_fault_makes_a_method_fail(lab: Any) -> None:
    client = lab.log_in()
    lab.faults["methods"] = {"ups.config": {"reason": "disk on fire"}}
    assert client.refused("ups.config")["data"]["reason"] == "[EFAULT] disk on fire"
    assert client.call("core.ping") == "pong"


def test_fault_revokes_a_key(lab: Any, api_key: str) -> None:
    lab.faults["revoked_keys"] = [2]
    assert key_login(lab.connect(), api_key) == "EXPIRED"
    lab.faults.clear()
    assert key_login(lab.connect(), api_key) == "SUCCESS"


def test_key_sent_over_plain_ws_is_revoked(make_lab: Callable[..., Any], api_key: str) -> None:
    lab = make_lab()
    assert key_login(lab.connect(secure=False), "2-" + "x" * 64) == "AUTH_ERR"
    assert key_login(lab.connect(), api_key) == "SUCCESS"
    exposed = lab.connect(secure=False)
    assert key_login(exposed, api_key) == "EXPIRED"
    assert exposed.refused("ups.config")["data"]["errname"] == "ENOTAUTHENTICATED"
    assert key_login(lab.connect(), api_key) == "EXPIRED"
    assert lab.connect().call("auth.login_with_api_key", api_key) is False
    assert key_login(make_lab().connect(), api_key) == "EXPIRED"  # also after a reboot


def test_password_over_plain_ws_is_accepted(lab: Any) -> None:
    client = lab.connect(secure=False)
    assert client.call("auth.login", "root", "pw") is True
    assert client.call("ups.config")["mode"] == "MASTER"


def test_key_of_another_user_is_refused(lab: Any, api_key: str) -> None:
    assert key_login(lab.connect(), api_key, user="root") == "AUTH_ERR"


def test_two_factor_login(lab: Any) -> None:
    client = lab.connect()
    password = {"mechanism": "PASSWORD_PLAIN", "username": "careful", "password": "pw"}
    assert client.call("auth.login_ex", password) == {"response_type": "OTP_REQUIRED", "username": "careful"}
    assert client.refused("ups.config")["data"]["errname"] == "ENOTAUTHENTICATED"
    wrong = {"mechanism": "OTP_TOKEN", "otp_token": "000000"}
    assert client.call("auth.login_ex_continue", wrong) == {"response_type": "AUTH_ERR"}
    right = {"mechanism": "OTP_TOKEN", "otp_token": "123456"}
    assert client.call("auth.login_ex_continue", right) == {"response_type": "AUTH_ERR"}  # begin again
    client.call("auth.login_ex", password)
    answer = client.call("auth.login_ex_continue", right)
    assert answer["response_type"] == "SUCCESS"
    assert answer["user_info"]["pw_name"] == "careful"
    assert lab.connect().call("auth.login", "careful", "pw") is False
    assert lab.connect().call("auth.login", "careful", "pw", "123456") is True


def test_logout(lab: Any) -> None:
    client = lab.log_in()
    assert client.call("auth.logout") is True
    assert client.refused("ups.config")["data"]["errname"] == "ENOTAUTHENTICATED"


@pytest.mark.parametrize(
    ("user", "refused"),
    [
        ("root", set()),
        ("nutadm", set()),
        ("ro", {"ups.update", "service.update", "service.control"}),
        ("gen", {"service.query", "service.update", "service.control"}),
    ],
)
def test_roles(lab: Any, user: str, refused: set[str]) -> None:
    client = lab.log_in(user)
    calls: dict[str, list[Any]] = {
        "ups.config": [],
        "ups.update": [SLAVE],
        "service.query": [],
        "service.update": ["ups", {"enable": True}],
        "service.control": ["STOP", "ups"],
    }
    answers = {method: client.ask(method, *params).get("error") for method, params in calls.items()}
    assert {method for method, error in answers.items() if error} == refused
    assert all(error["data"]["reason"] == "[EACCES] Not authorized" for error in answers.values() if error)


def test_users_see_only_their_own_jobs(lab: Any) -> None:
    wait(lab.log_in("root"), "STOP")
    assert lab.log_in("nutadm").call("core.get_jobs") == []
    wait(lab.log_in("nutadm"), "STOP")
    assert [job["id"] for job in lab.log_in("nutadm").call("core.get_jobs")] == [2]
    assert [job["id"] for job in lab.log_in("root").call("core.get_jobs")] == [1, 2]


def test_rate_limit(lab: Any) -> None:
    for _unused in range(20):
        assert lab.connect().call("auth.login", "root", "bad") is False
    error = lab.connect().refused("auth.login", "root", "pw")
    assert (error["code"], error["data"]["error"]) == (-32001, 16)
    assert error["data"]["reason"] == "[EBUSY] Rate Limit Exceeded"
    assert lab.connect().call("core.ping") == "pong"  # each method has its own count
    assert lab.connect(remote="192.0.2.2").call("auth.login", "root", "pw") is True  # and each address
    lab.now[0] += 59
    assert lab.connect().refused("auth.login", "root", "pw")["data"]["errname"] == "EBUSY"
    lab.now[0] += 1
    assert lab.connect().call("auth.login", "root", "pw") is True


def test_logged_in_clients_have_no_rate_limit(lab: Any) -> None:
    client = lab.log_in()
    assert [client.call("core.ping") for _unused in range(30)] == ["pong"] * 30


def test_state_survives_a_reboot(make_lab: Callable[..., Any]) -> None:
    client = make_lab().log_in()
    client.call("ups.update", {**SLAVE, "monpwd": "kept"})
    assert client.call("service.update", 16, {"enable": True}) == 16
    again = make_lab().log_in()
    assert again.call("ups.config")["monpwd"] == "kept"
    row = again.call("service.query", [["service", "=", "ups"]], {"get": True})
    assert (row["enable"], row["state"]) == (True, "STOPPED")


def test_query(lab: Any) -> None:
    client = lab.log_in()
    assert [row["service"] for row in client.call("service.query")] == ["cifs", "ssh", "ups"]
    assert client.call("service.query", [["service", "in", ["ups", "ssh"]]], {"count": True}) == 2
    assert client.call("service.query", [], {"limit": 1})[0]["service"] == "cifs"
    error = client.refused("service.query", [["service", "=", "nope"]], {"get": True})
    assert error["data"]["reason"] == "MatchNotFound()"


def test_unknown_service(lab: Any) -> None:
    client = lab.log_in()
    assert client.refused("service.update", "nope", {"enable": True})["data"]["errname"] == "ENOENT"


def test_old_api_versions(make_lab: Callable[..., Any]) -> None:
    """Why a client must use /api/current."""
    old = make_lab("25.10").connect(api="v25.04.0")
    assert old.refused("ups.config")["data"]["errname"] == "ENOMETHOD"
    lab = make_lab("26")
    old = lab.connect(api="v25.10.0")
    old.call("auth.login", "root", "pw")
    assert old.call("ups.config")["mode"] == "MASTER"
    assert old.refused("ups.update", SLAVE)["data"]["reason"] == "'data'"


def test_private_verbs_of_26(make_lab: Callable[..., Any]) -> None:
    client = make_lab("26").log_in("root")
    assert client.refused("service.start", "ups", LOUD)["data"]["reason"] == "'ha_propagate'"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("[]", -32600),
        ('{"jsonrpc": "1.0", "method": "core.ping"}', -32600),
        ('{"jsonrpc": "2.0"}', -32600),
        ('{"jsonrpc": "2.0", "method": 1}', -32600),
        ('{"jsonrpc": "2.0", "method": "core.ping", "id": []}', -32600),
        ('{"jsonrpc": "2.0", "method": "auth.login_ex", "params": [1], "id": 1}', -32001),
        ('{"jsonrpc": "2.0", "method": "auth.login_ex", "params": [], "id": 1}', -32602),
        ('{"jsonrpc": "2.0", "method": "auth.login_ex", "params": [{"mechanism": "API_KEY_PLAIN"}], "id": 1}', -32602),
    ],
)
def test_malformed_frames_are_answered_with_errors(lab: Any, frame: str, code: int) -> None:
    client = lab.connect()
    answer = json.loads(lab.middleware.receive_frame(client.connection, frame).answer)
    assert answer["error"]["code"] == code
