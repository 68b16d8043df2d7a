# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the recordings do not show: jobs that fail, faults, limits, and what stays.

One file, because all tests share the same few requests and helpers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

SLAVE = {"mode": "SLAVE", "remotehost": "192.0.2.10", "shutdown": "LOWBATT"}
LOUD = {"silent": False}


# Annotated as Any: conftest's classes are not importable by name in pytest's importlib mode.
def wait_for_job(client: Any, verb: str, **options: Any) -> dict[str, Any]:
    number = client.call("service.control", verb, "ups", options)
    job: dict[str, Any] = client.call("core.get_jobs", [["id", "=", number]], {"get": True})
    return job


def key_login(client: Any, key: str, user: str = "nutadm") -> str:
    data = {"mechanism": "API_KEY_PLAIN", "username": user, "api_key": key, "login_options": {"user_info": False}}
    answer: str = client.call("auth.login_ex", data)["response_type"]
    return answer


def test_started_service_gets_files(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    assert lab.runner.calls == []
    assert wait_for_job(client, "START")["result"] is True
    assert lab.runner.files["nut.conf"] == "MODE=netclient\n"
    assert "MONITOR ups@192.0.2.10:3493 1 upsmon fixmepass SLAVE\n" in lab.runner.files["upsmon.conf"]
    assert client.call("service.query", [["service", "=", "ups"]], {"get": True})["state"] == "RUNNING"
    assert wait_for_job(client, "STOP")["result"] is True
    assert lab.runner.running is False


def test_update_restarts_only_a_running_service(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    wait_for_job(client, "START")
    lab.runner.calls.clear()
    client.call("ups.update", SLAVE)
    assert lab.runner.calls == []
    client.call("ups.update", {"hostsync": 5})
    assert lab.runner.calls == ["stop", "start"]
    assert "HOSTSYNC 5\n" in lab.runner.files["upsmon.conf"]


def test_settings_are_saved_even_if_the_restart_fails(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    wait_for_job(client, "START")
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
    job = wait_for_job(client, "START")
    assert (job["state"], job["result"]) == ("SUCCESS", False)
    job = wait_for_job(client, "START", **LOUD)
    assert (job["state"], job["error"]) == ("FAILED", "[EFAULT] upsmon: cannot")
    assert client.refused("service.start", "ups", LOUD)["data"]["reason"] == "[EFAULT] upsmon: cannot"


def test_call_waits_for_its_job_without_legacy_jobs(lab: Any) -> None:
    client = lab.log_in()
    client.call("core.set_options", {"legacy_jobs": False})
    client.call("ups.update", SLAVE)
    assert client.call("service.control", "START", "ups", LOUD) is True
    lab.runner.log = "upsmon: cannot"
    assert client.refused("service.control", "START", "ups", LOUD)["data"]["reason"] == "[EFAULT] upsmon: cannot"


@pytest.mark.parametrize("release", ["25.04", "25.10", "26"])
@pytest.mark.parametrize("options", [{}, LOUD])
def test_failed_restart_is_no_error(make_lab: Callable[..., Any], release: str, options: dict[str, bool]) -> None:
    """service.restart only answers false, however it is asked."""
    lab = make_lab(release)
    lab.log_in().call("ups.update", SLAVE)
    lab.runner.log = "upsmon: cannot"
    assert lab.middleware.service.restart() is False
    if lab.middleware.release.service_control:
        job = wait_for_job(lab.log_in(), "RESTART", **options)
        assert (job["state"], job["result"]) == ("SUCCESS", False)
    else:
        assert lab.log_in().call("service.restart", "ups", options) is False


def test_service_of_a_fresh_system_starts_up_to_25_10(lab: Any) -> None:
    assert wait_for_job(lab.log_in(), "START", **LOUD)["result"] is True
    assert lab.runner.files["nut.conf"] == "MODE=netserver\n"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "driver is required for MASTER mode"),
        ({"driver": "dummy-ups$the lab's own"}, "port is required for MASTER mode"),
        ({"mode": "SLAVE"}, "remote host is required for SLAVE mode"),
    ],
)
def test_start_of_26_checks_the_settings(make_lab: Callable[..., Any], settings: dict[str, str], problem: str) -> None:
    lab = make_lab("26")
    lab.middleware.settings.update(settings)
    assert wait_for_job(lab.log_in(), "START", **LOUD)["error"] == f"[EFAULT] UPS service cannot start: {problem}"
    assert wait_for_job(lab.log_in(), "START")["result"] is False
    assert lab.runner.calls == []


MASTER = {"mode": "MASTER", "driver": "dummy-ups$the lab's own", "port": "/etc/nut/my.dev", "identifier": "own"}


@pytest.mark.parametrize(("release", "healthy"), [("25.04", True), ("25.10", True), ("26", False)])
def test_driver_of_a_former_ups_fails_each_start_of_26(
    make_lab: Callable[..., Any], release: str, healthy: bool
) -> None:
    """TrueNAS had a UPS of its own and is a SLAVE now: upsmon runs, but the driver's unit keeps failing without ups.conf."""
    lab = make_lab(release)
    client = lab.log_in()
    client.call("ups.update", MASTER)
    assert lab.middleware.service.start(silent=False) is True
    assert lab.runner.files["ups.conf"].startswith("[own]\n\tdriver = dummy-ups\n\tport = /etc/nut/my.dev\n")
    answer = client.ask("ups.update", SLAVE)
    assert lab.runner.running is True
    assert client.call("ups.config")["mode"] == "SLAVE"
    if healthy:
        assert answer["result"]["mode"] == "SLAVE"
        return
    assert answer["error"]["data"]["reason"] == "[ESERVICESTARTFAILURE] The ups service failed to start"
    error = wait_for_job(client, "START", **LOUD)["error"]
    assert error.startswith("[EFAULT] systemd[1]: nut-driver@own.service: Failed with result")
    assert "FATAL: The '/etc/nut/ups.conf' file does not exist" in error
    assert wait_for_job(client, "RESTART", **LOUD)["result"] is False
    assert client.call("service.query", [["service", "=", "ups"]], {"get": True})["state"] == "RUNNING"


@pytest.mark.parametrize(("release", "result", "running"), [("25.10", True, True), ("26", False, False)])
def test_reload_of_a_stopped_service(make_lab: Callable[..., Any], release: str, result: bool, running: bool) -> None:
    lab = make_lab(release)
    lab.log_in().call("ups.update", SLAVE)
    assert wait_for_job(lab.log_in(), "RELOAD")["result"] is result
    assert lab.runner.running is running


def test_fault_dies_stops_the_service_some_seconds_after_its_start(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    lab.faults["dies"] = {"after": 2}
    assert wait_for_job(client, "START", **LOUD)["result"] is True
    lab.now[0] += 1
    assert lab.middleware.service.read_state().running is True
    lab.now[0] += 1
    assert lab.middleware.service.read_state().running is False
    assert lab.runner.running is False


def test_fault_dies_with_restarts_changes_the_process(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    lab.faults["dies"] = {"after": 2, "restarts": True}
    wait_for_job(client, "START", **LOUD)
    first = lab.middleware.service.read_state()
    lab.now[0] += 3
    second = lab.middleware.service.read_state()
    assert first.running is second.running is True
    assert first.pids != second.pids


def test_fault_after_start_fails_an_update_of_26_that_was_saved(make_lab: Callable[..., Any]) -> None:
    lab = make_lab("26")
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    wait_for_job(client, "START")
    lab.faults["after_start"] = "netdata: cannot"
    error = client.refused("ups.update", {"hostsync": 5})
    assert (error["data"]["errname"], error["data"]["reason"]) == ("EFAULT", "[EFAULT] netdata: cannot")
    assert client.call("ups.config")["hostsync"] == 5
    assert "HOSTSYNC 5\n" in lab.runner.files["upsmon.conf"]


def test_fault_etc_fails_an_update_before_the_restart(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    wait_for_job(client, "START")
    lab.faults["etc"] = "no space left"
    assert client.refused("ups.update", {"hostsync": 5})["data"]["reason"] == "[EFAULT] no space left"
    assert client.call("ups.config")["hostsync"] == 5
    assert "HOSTSYNC 15\n" in lab.runner.files["upsmon.conf"]
    assert lab.runner.calls == ["start"]


def test_fault_service_start(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    lab.faults["service_start"] = "no power today"
    assert wait_for_job(client, "START", **LOUD)["error"] == "[EFAULT] no power today"
    lab.faults.clear()
    assert wait_for_job(client, "START", **LOUD)["state"] == "SUCCESS"
    lab.faults["service_start"] = "no power today"
    assert client.refused("ups.update", {"hostsync": 1})["data"]["errname"] == "ESERVICESTARTFAILURE"


def test_fault_restart_leaves_stopped(lab: Any) -> None:
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    wait_for_job(client, "START")
    lab.faults["restart_leaves_stopped"] = True
    assert wait_for_job(client, "RESTART")["result"] is True
    assert client.call("service.query", [["service", "=", "ups"]], {"get": True})["state"] == "STOPPED"


@pytest.mark.parametrize(
    ("release", "extra"),
    [
        ("25.04", [["service-control.nope", "Field was not expected", 22]]),
        ("25.10", [["options.nope", "Extra inputs are not permitted", 22]]),
    ],
)
def test_unknown_option_of_a_verb_is_refused(make_lab: Callable[..., Any], release: str, extra: list[Any]) -> None:
    options = {"silent": False, "timeout": 60, "ha_propagate": True}
    client = make_lab(release).log_in()
    client.call("ups.update", SLAVE)
    assert client.call("service.start", "ups", options) is True
    assert client.refused("service.start", "ups", {**options, "nope": 1})["data"]["extra"] == extra


def test_fault_job_hangs(make_lab: Callable[..., Any]) -> None:
    lab = make_lab("26")
    client = lab.log_in()
    client.call("ups.update", SLAVE)
    lab.faults["job_hangs"] = True
    number = client.call("service.control", "START", "ups", LOUD)
    jobs = [client.call("core.get_jobs", [["id", "=", number]])[0]["state"] for _look in range(3)]
    assert jobs == ["RUNNING"] * 3
    assert lab.runner.running is True


def test_fault_state_unknown(lab: Any) -> None:
    client = lab.log_in()
    lab.faults["state_unknown"] = True
    row = client.call("service.query", [["service", "=", "ups"]], {"get": True})
    assert (row["state"], row["pids"]) == ("UNKNOWN", [])


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
    assert key_login(make_lab("26").connect(), api_key) == "AUTH_ERR"


def test_revoked_key_is_as_wrong_as_any_other_on_26(make_lab: Callable[..., Any], api_key: str) -> None:
    lab = make_lab("26")
    assert key_login(lab.connect(secure=False), api_key) == "EXPIRED"
    assert key_login(lab.connect(secure=False), api_key) == "AUTH_ERR"
    assert key_login(lab.connect(), api_key) == "AUTH_ERR"


@pytest.mark.parametrize("release", ["25.04", "25.10", "26"])
def test_expired_key_is_expired(make_lab: Callable[..., Any], api_key: str, release: str) -> None:
    lab = make_lab(release)
    lab.faults["expired_keys"] = [2]
    assert key_login(lab.connect(), api_key) == "EXPIRED"


@pytest.mark.parametrize(("release", "outcome"), [("25.04", "AUTH_ERR"), ("25.10", "AUTH_ERR"), ("26", "DENIED")])
def test_user_without_a_privilege_may_not_log_in(make_lab: Callable[..., Any], release: str, outcome: str) -> None:
    client = make_lab(release).connect()
    login = {"mechanism": "PASSWORD_PLAIN", "username": "nobody", "password": "pw"}
    assert client.call("auth.login_ex", login) == {"response_type": outcome}
    assert client.call("auth.login", "nobody", "pw") is False
    assert client.refused("ups.config")["data"]["errname"] == "ENOTAUTHENTICATED"


@pytest.mark.parametrize("release", ["25.04", "25.10"])
def test_mechanisms_are_not_told_without_a_login_before_26(make_lab: Callable[..., Any], release: str) -> None:
    lab = make_lab(release)
    error = lab.connect().refused("auth.mechanism_choices")
    assert error["data"]["reason"] == "'NoneType' object has no attribute 'may_create_auth_token'"
    assert lab.log_in().call("auth.mechanism_choices") == ["API_KEY_PLAIN", "TOKEN_PLAIN", "PASSWORD_PLAIN"]


def test_mechanisms_of_26(make_lab: Callable[..., Any]) -> None:
    lab = make_lab("26")
    choices = ["API_KEY_PLAIN", "TOKEN_PLAIN", "PASSWORD_PLAIN", "SCRAM"]
    assert lab.connect().call("auth.mechanism_choices") == choices
    lab.faults["stig"] = True
    assert lab.connect().call("auth.mechanism_choices") == ["PASSWORD_PLAIN"]


def test_stig_mode_refuses_keys_and_users_without_a_second_factor(make_lab: Callable[..., Any], api_key: str) -> None:
    lab = make_lab("26")
    lab.faults["stig"] = True
    data = {"mechanism": "API_KEY_PLAIN", "username": "nutadm", "api_key": api_key}
    error = lab.connect().refused("auth.login_ex", data)["data"]
    words = "API_KEY_PLAIN: mechanism is not supported at current authenticator level."
    assert (error["errname"], error["reason"]) == ("ENOTSUP", f"[ENOTSUP] {words}")
    login = {"mechanism": "PASSWORD_PLAIN", "username": "nutadm", "password": "pw"}
    assert lab.connect().call("auth.login_ex", login) == {"response_type": "AUTH_ERR"}
    login["username"] = "careful"
    assert lab.connect().call("auth.login_ex", login)["response_type"] == "OTP_REQUIRED"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "Unable to extract tag using discriminator 'mechanism'"),
        ({"mechanism": "NOPE"}, "Input tag 'NOPE' found using 'mechanism' does not match any of the expected tags: "),
    ],
)
def test_unknown_mechanism_is_refused(lab: Any, data: dict[str, Any], words: str) -> None:
    error = lab.connect().refused("auth.login_ex", data)
    assert (error["code"], error["data"]["extra"][0][0]) == (-32602, "login_data")
    assert error["data"]["extra"][0][1].startswith(words)
    assert lab.connect().refused("auth.login_ex", {"mechanism": "SCRAM"})["code"] == -32602  # 25.10 does not have it


def test_last_message_of_scram_needs_the_first(make_lab: Callable[..., Any]) -> None:
    final = {"mechanism": "SCRAM", "scram_type": "CLIENT_FINAL_MESSAGE", "rfc_str": "c=biws,r=x,p=x"}
    error = make_lab("26").connect().refused("auth.login_ex", final)
    assert error["data"]["reason"] == "[EFAULT] SCRAM authentication is not in progress"


def test_channel_binding_needs_tls(make_lab: Callable[..., Any]) -> None:
    """A client on plain ws could copy the hash of the public certificate."""
    nonce = "A" * 43 + "="
    first = {"mechanism": "SCRAM", "scram_type": "CLIENT_FIRST_MESSAGE"}
    lab = make_lab("26")
    bound = {**first, "rfc_str": f"p=tls-server-end-point,,n=nutadm:2,r={nonce}"}
    assert lab.connect().call("auth.login_ex", bound) == {"response_type": "AUTH_ERR"}
    unbound = {**first, "rfc_str": f"n,,n=nutadm:2,r={nonce}"}
    assert lab.connect().call("auth.login_ex", unbound)["scram_type"] == "SERVER_FIRST_RESPONSE"
    for text in ("", "n,,n=nutadm:2", f"n,,n=nutadm,r={nonce}", f"n,,n=root:2,r={nonce}", "n,,n=nutadm:2,r=QUJD"):
        assert lab.connect().call("auth.login_ex", {**first, "rfc_str": text}) == {"response_type": "AUTH_ERR"}


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
    # begin again
    reason = client.refused("auth.login_ex_continue", right)["data"]["reason"]
    assert reason == "[EINVAL] OTP_TOKEN: no authentication in progress"
    client.call("auth.login_ex", password)
    answer = client.call("auth.login_ex_continue", right)
    assert answer["response_type"] == "SUCCESS"
    assert answer["user_info"]["pw_name"] == "careful"
    assert lab.connect().call("auth.login", "careful", "pw") is False
    assert lab.connect().call("auth.login", "careful", "pw", "123456") is True


def test_call_after_logout_is_refused(lab: Any) -> None:
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
def test_roles_limit_the_methods_of_a_user(lab: Any, user: str, refused: set[str]) -> None:
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
    wait_for_job(lab.log_in("root"), "STOP")
    assert lab.log_in("nutadm").call("core.get_jobs") == []
    wait_for_job(lab.log_in("nutadm"), "STOP")
    assert [job["id"] for job in lab.log_in("nutadm").call("core.get_jobs")] == [2]
    assert [job["id"] for job in lab.log_in("root").call("core.get_jobs")] == [1, 2]


def test_logins_without_success_are_rate_limited(lab: Any) -> None:
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
    assert client.call("service.update", 14, {"enable": True}) == 14
    again = make_lab().log_in()
    assert again.call("ups.config")["monpwd"] == "kept"
    row = again.call("service.query", [["service", "=", "ups"]], {"get": True})
    assert (row["enable"], row["state"]) == (True, "STOPPED")


def test_query_filters_and_counts_services(lab: Any) -> None:
    client = lab.log_in()
    assert [row["service"] for row in client.call("service.query")] == ["cifs", "ssh", "ups"]
    assert client.call("service.query", [["service", "in", ["ups", "ssh"]]], {"count": True}) == 2
    assert client.call("service.query", [], {"limit": 1})[0]["service"] == "cifs"
    error = client.refused("service.query", [["service", "=", "nope"]], {"get": True})
    assert error["data"]["reason"] == "MatchNotFound()"
    rows = client.call("service.query", [], {"select": ["service"], "order_by": ["-service"]})
    assert rows == [{"service": "ups"}, {"service": "ssh"}, {"service": "cifs"}]
    error = client.refused("service.query", [], {"nope": 1})
    assert error["data"]["extra"] == [["options.nope", "Extra inputs are not permitted", 22]]


def test_unknown_service_is_refused(lab: Any) -> None:
    client = lab.log_in()
    assert client.refused("service.update", "nope", {"enable": True})["data"]["errname"] == "ENOENT"
    number = client.call("service.control", "START", "nope")
    assert client.call("core.get_jobs", [["id", "=", number]], {"get": True})["error"] == "nope"
    error = client.refused("service.start", "nope")["data"]
    assert (error["errname"], error["reason"]) == ("EINVAL", "nope")


@pytest.mark.parametrize(
    ("release", "values", "extra"),
    [
        ("25.10", {}, [["service_update.enable", "Field required", 22]]),
        ("25.10", {"enable": 1}, [["service_update.enable", "Input should be a valid boolean", 22]]),
        ("26", {"enable": True, "x": 1}, [["service_update.x", "Extra inputs are not permitted", 22]]),
        ("25.04", {"enable": True, "x": 1}, [["service-update.x", "Field was not expected", 22]]),
    ],
)
def test_unknown_members_of_a_service_are_refused(
    make_lab: Callable[..., Any], release: str, values: dict[str, Any], extra: list[Any]
) -> None:
    assert make_lab(release).log_in().refused("service.update", "ups", values)["data"]["extra"] == extra


def test_empty_update_of_a_service_disables_it_on_25_04(make_lab: Callable[..., Any]) -> None:
    lab = make_lab("25.04")
    client = lab.log_in()
    client.call("service.update", "ups", {"enable": True})
    assert client.call("service.update", "ups", {}) == 14
    assert lab.middleware.enabled is False


@pytest.mark.parametrize(
    ("release", "params", "reason"),
    [
        ("25.04", [], "missing 1 required positional argument: 'data'"),
        ("25.10", [{}, {}], "takes 3 positional arguments but 4 were given"),
        ("26", [{}, {}], "takes 4 positional arguments but 5 were given"),
    ],
)
def test_wrong_number_of_arguments_of_an_update(
    make_lab: Callable[..., Any], release: str, params: list[Any], reason: str
) -> None:
    error = make_lab(release).log_in().refused("ups.update", *params)
    assert (error["code"], error["data"]["reason"]) == (-32001, f"ConfigService.update() {reason}")


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
    assert client.refused("service.start", "ups", LOUD)["data"]["reason"] == "'timeout'"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("[]", -32700),
        ("7", -32700),
        ('{"jsonrpc": "1.0", "method": "core.ping", "id": 1}', -32600),
        ('{"jsonrpc": "2.0", "id": null}', -32600),
        ('{"jsonrpc": "2.0", "method": 1, "id": 1}', -32600),
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


@pytest.mark.parametrize(
    "frame",
    [
        '{"jsonrpc": "2.0"}',
        '{"jsonrpc": "2.0", "method": "nope.nope"}',
        '{"jsonrpc": "2.0", "method": "core.ping"}',
        '{"jsonrpc": "2.0", "method": "ups.config"}',
    ],
)
def test_frames_without_an_id_get_no_answer(lab: Any, frame: str) -> None:
    assert lab.middleware.receive_frame(lab.connect().connection, frame).answer is None
