# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test truenas_ups as Ansible runs it, against recorded answers of real releases. One file, because all tests share its replay."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils._truenas import apply
from ansible_collections.homelab.nut.plugins.module_utils._truenas.jsonrpc import Endpoint, JsonRpc, ServerTrust
from ansible_collections.homelab.nut.plugins.module_utils._truenas.middleware import (
    ConnectionFailed,
    ConnectionLost,
    LoginFailed,
    NoJsonRpc,
)
from ansible_collections.homelab.nut.plugins.module_utils._truenas.module import Transports
from ansible_collections.homelab.nut.plugins.modules import truenas_ups
from ansible_collections.homelab.nut.tests.unit.support.hostile import find_unfit
from ansible_collections.homelab.nut.tests.unit.support.truenas_replay import (
    DROP,
    KEY,
    RELEASES,
    V25_04,
    V25_10,
    V26,
    WRONG_KEY,
    Replay,
    make_login,
)

NEW_PASSWORD = "Canary-new_1"
OLD_PASSWORD = "Canary-old_2"
SECRETS = (NEW_PASSWORD, OLD_PASSWORD, KEY, WRONG_KEY, "Canary-extra", "Canary-otp", "Canary-login")
# What the recorded machine gets as a secondary.
SECONDARY = {"mode": "SLAVE", "remotehost": "192.0.2.10", "monuser": "truenas", "monpwd": NEW_PASSWORD}
# Questions that the recorder did not ask: the replay answers them as a method that does not exist.
NOT_RECORDED = ("system.version", "auth.mechanism_choices")
START = ("service.control", "START", "ups", {"silent": False})
STOP = ("service.control", "STOP", "ups", {"silent": False})

Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits between two looks at the service."""
    monkeypatch.setattr(apply, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the module, and check that its output contains no secret."""

    def run(
        replay: Replay | None, *, check: bool = False, transports: Transports | None = None, **params: Any
    ) -> dict[str, Any]:
        given: dict[str, Any] = {
            "url": "truenas.lan",
            "username": "nutadm",
            "api_key": KEY,
            "remotehost": "192.0.2.10",
            "monuser": "truenas",
            "monpwd": NEW_PASSWORD,
            **params,
        }
        given = {name: value for name, value in given.items() if value is not None}
        given.update(_ansible_check_mode=check, _ansible_diff=True)

        def connect(*args: Any) -> Any:
            assert replay is not None, "it connected"
            return replay.connect(*args)

        with patch_module_args(given), pytest.raises(SystemExit):
            truenas_ups.main(transports or Transports(connect=connect, connect_here=nowhere, is_here=lambda: False))
        out, err = capfd.readouterr()
        result: dict[str, Any] = json.loads(out)
        told = json.dumps({name: value for name, value in result.items() if name != "invocation"}) + err
        assert [secret for secret in SECRETS if secret in out + told] == []
        if replay is not None:
            assert replay.closed == 1
        return result

    return run


def nowhere(_unused: float) -> Any:
    raise AssertionError("it looked for midclt")


def unchanged(result: dict[str, Any]) -> bool:
    """Return whether the run succeeded without a change; a failure may also report changed: false."""
    return result["changed"] is False and "failed" not in result


def warnings(result: dict[str, Any]) -> list[str]:
    """Ansible wraps a warning."""
    return [each["event"]["msg"] for each in result.get("warnings", [])]


def configured(release: str, **settings: Any) -> Replay:
    """Return a replay of a machine that the module has already configured with its defaults."""
    return Replay(release, running=True, enable=True, **{**SECONDARY, "shutdown": "LOWBATT", **settings})


@pytest.mark.parametrize("release", RELEASES)
def test_new_truenas_becomes_a_secondary(run: Run, release: str) -> None:
    replay = Replay(release)
    result = run(replay)
    update = ("ups.update", {**SECONDARY, "shutdown": "LOWBATT"})  # identifier, remoteport, powerdown are so already
    start = [START] if release != V25_04 else [START, ("service.start", "ups", {"silent": False})]
    assert replay.writes == [update, ("service.update", "ups", {"enable": True}), *start]
    assert result["changed"] is True
    assert result["actions"] == [
        "set mode, remotehost, monuser, monpwd, shutdown",
        "enabled the UPS service on boot",
        "started the UPS service",
    ]
    assert result["service"] == {"enable": True, "state": "RUNNING"}
    assert result["settings"]["complete_identifier"] == "ups@192.0.2.10:3493"
    assert result["settings"]["monpwd"] == "(hidden)"
    assert result["settings"]["remotehost"] == "192.0.2.10"
    assert result["diff"]["before"]["settings"]["mode"] == "MASTER"
    assert result["diff"]["after"]["settings"]["mode"] == "SLAVE"
    assert result["diff"]["after"]["settings"]["monpwd"] == "(hidden, another value)"
    assert replay.logins == 1


@pytest.mark.parametrize("release", RELEASES)
def test_every_sent_frame_was_recorded(run: Run, release: str) -> None:
    """What the module sends is what the real releases were asked, down to the last member."""
    replay = Replay(release, identifier="other", remoteport=1, powerdown=True)
    run(replay, monpwd="Abc-123_x")
    asked = [(each["method"], each["params"]) for each, _answer in replay.pairs]
    sent = [(each["method"], each["params"]) for each in replay.sent if each["method"] not in NOT_RECORDED]
    assert len(sent) > 7
    assert [call for call in sent if call not in asked] == []


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("check", [False, True])
def test_unchanged_settings_send_nothing(run: Run, release: str, check: bool) -> None:
    replay = configured(release)
    result = run(replay, check=check)
    assert replay.writes == []
    assert unchanged(result)
    assert result["actions"] == []
    assert result["diff"]["before"] == result["diff"]["after"]


@pytest.mark.parametrize("release", RELEASES)
def test_second_run_changes_nothing(run: Run, release: str) -> None:
    replay = Replay(release)
    assert run(replay)["changed"] is True
    replay.sent.clear()
    replay.closed = 0
    assert unchanged(run(replay))
    assert replay.writes == []


@pytest.mark.parametrize("release", RELEASES)
def test_check_mode_only_reads_and_predicts(run: Run, release: str) -> None:
    checked = run(Replay(release), check=True)
    real = run(Replay(release))
    for name in ("changed", "actions", "settings", "service", "diff"):
        assert checked[name] == real[name], name
    assert checked["settings"]["complete_identifier"] == "ups@192.0.2.10:3493"
    replay = Replay(release)
    run(replay, check=True)
    assert replay.writes == []


def test_diff_is_returned_only_in_diff_mode(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    given = {"url": "truenas.lan", "username": "nutadm", "api_key": KEY, "remotehost": "192.0.2.10"}
    with patch_module_args(given), pytest.raises(SystemExit):
        truenas_ups.main(Transports(connect=configured(V25_10).connect))
    assert "diff" not in json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("release", RELEASES)
def test_running_service_is_restarted_only_by_truenas(run: Run, release: str) -> None:
    replay = configured(release, monpwd=OLD_PASSWORD)
    result = run(replay)
    assert replay.writes == [("ups.update", {"monpwd": NEW_PASSWORD})]
    assert result["actions"] == ["set monpwd; TrueNAS restarted its UPS service"]
    assert result["diff"]["before"]["settings"]["monpwd"] == "(hidden)"
    assert result["diff"]["after"]["settings"]["monpwd"] == "(hidden, another value)"


def test_extra_users_and_options_are_secrets(run: Run) -> None:
    replay = configured(V25_10, extrausers="[x] password = Canary-old_2", options="community = Canary-old_2")
    result = run(replay, extrausers="[x]\n password = Canary-extra", optionsupsd="LISTEN 192.0.2.1")
    assert replay.writes == [
        ("ups.update", {"optionsupsd": "LISTEN 192.0.2.1", "extrausers": "[x]\n password = Canary-extra"})
    ]
    assert result["settings"]["options"] == "(hidden)"
    assert result["diff"]["after"]["settings"]["options"] == "(hidden)"
    assert result["diff"]["after"]["settings"]["extrausers"] == "(hidden, another value)"


def test_unset_options_do_not_change(run: Run) -> None:
    replay = configured(V25_10, hostsync=42, nocommwarntime=7, shutdowncmd="/sbin/poweroff", driver="x", rmonitor=True)
    assert unchanged(run(replay, monuser=None, monpwd=None, remotehost=None))


def test_empty_value_means_the_default_of_truenas(run: Run) -> None:
    """TrueNAS keeps null for both; asking for empty again must not differ."""
    replay = configured(V25_10, nocommwarntime=7, shutdowncmd="/sbin/poweroff")
    run(replay, nocommwarntime=0, shutdowncmd="")
    assert replay.writes == [("ups.update", {"shutdowncmd": None, "nocommwarntime": None})]
    assert unchanged(run(configured(V25_10), nocommwarntime=0, shutdowncmd=""))


# --- the service -----------------------------------------------------------------------------------------------------


def test_stopped_service_is_started(run: Run) -> None:
    replay = configured(V25_10)
    replay.row["state"] = "STOPPED"
    assert run(replay)["actions"] == ["started the UPS service"]
    assert replay.writes == [START]


def test_failed_start_is_repaired_by_the_next_run(run: Run) -> None:
    """TrueNAS keeps the settings, but the service does not start: a failure with changed."""
    replay = configured(V25_10, remotehost="192.0.2.99")
    failure = {"errname": "ESERVICESTARTFAILURE", "reason": "[ESERVICESTARTFAILURE] The ups service failed to start"}
    replay.answers["ups.update"] = [{"error": {"code": -32001, "message": "Method call error", "data": failure}}]
    replay.settings["remotehost"] = "192.0.2.10"  # saved
    replay.answers["ups.config"] = [{"result": {**replay.settings, "remotehost": "192.0.2.99"}}]
    replay.answers["service.query"] = [{"result": dict(replay.row)}]
    replay.row["state"] = "STOPPED"  # afterwards
    result = run(replay)
    assert result["failed"] is True
    assert result["changed"] is True
    assert "the settings were saved, but the UPS service failed to start" in result["msg"]
    assert "truenas.lan" in result["msg"]
    assert result["actions"] == ["set remotehost; TrueNAS could not start its UPS service with them"]
    assert replay.writes == [("ups.update", {"remotehost": "192.0.2.10"})]

    replay.sent.clear()
    replay.closed = 0
    result = run(replay)
    assert (result["changed"], result["actions"]) == (True, ["started the UPS service"])
    assert replay.row["state"] == "RUNNING"


@pytest.mark.parametrize("release", RELEASES)
def test_service_left_stopped_by_a_restart_is_started_once(run: Run, release: str) -> None:
    replay = configured(release, monuser="other")
    replay.stays_stopped = 1
    result = run(replay)
    assert result["actions"] == [
        "set monuser; TrueNAS restarted its UPS service",
        "restarted the UPS service, which was not running after the change",
    ]
    if release == V25_04:
        verbs = [write[0] for write in replay.writes[1:]]
        assert verbs == ["service.control", "service.stop", "service.control", "service.start"]
    else:
        assert replay.writes[1:] == [STOP, START]
    assert result["service"]["state"] == "RUNNING"


def test_service_that_never_runs_is_an_error(run: Run) -> None:
    replay = Replay(V25_10)
    replay.stays_stopped = 9
    result = run(replay)
    assert result["failed"] is True
    assert result["changed"] is True
    assert "started twice but is STOPPED" in result["msg"]
    assert [write[1] for write in replay.writes if write[0] == "service.control"] == ["START", "STOP", "START"]


def test_error_of_a_failed_job_masks_the_secret(run: Run) -> None:
    replay = Replay(V25_10)
    error = f"[EFAULT] upsmon[1]: bad line MONITOR ups@192.0.2.10:3493 1 truenas {NEW_PASSWORD} SLAVE"
    replay.answers["core.get_jobs"] = [{"result": [{"id": 1, "state": "FAILED", "error": error, "result": None}]}]
    replay.stays_stopped = 1
    result = run(replay)
    assert result["failed"] is True
    assert result["changed"] is True
    assert "service.control START ups failed: [EFAULT] upsmon[1]: bad line" in result["msg"]
    assert "Already done: set mode, remotehost" in result["msg"]


def test_key_is_masked_without_its_number_too(run: Run) -> None:
    replay = Replay(V25_10)
    secret = KEY.partition("-")[2]
    replay.answers["ups.update"] = [{"error": {"code": -32001, "message": f"bad key {secret} or {KEY}"}}]
    assert "bad key ******** or ********" in run(replay)["msg"]


ESCAPES = "\x1b[1m\u202e\x9b2J\nok: [pve]\u2028\ud800" + "x" * 30_000


@pytest.mark.parametrize(
    "error",
    [
        {"code": -32001, "message": ESCAPES},
        {"code": -32001, "message": "m", "data": {"errname": "EFAULT", "reason": ESCAPES}},
        {"code": -32001, "message": "m", "data": {"errname": "EINVAL", "extra": [[ESCAPES, ESCAPES, 22]]}},
        {"code": -32001, "message": "m", "data": {"errname": "EINVAL", "extra": [[["\x1b"], {"\x1b": 10**400}, 22]]}},
    ],
)
def test_control_characters_from_truenas_are_escaped(run: Run, error: dict[str, Any]) -> None:
    """Ansible prints the message of a failure unchanged."""
    replay = Replay(V25_10)
    replay.answers["ups.update"] = [{"error": error}]
    result = run(replay)
    assert result["failed"] is True
    assert not find_unfit(result["msg"])
    assert "\n" not in result["msg"]
    assert len(result["msg"]) < 3000


def test_control_characters_from_a_job_are_escaped(run: Run) -> None:
    replay = Replay(V25_10)
    replay.answers["core.get_jobs"] = [{"result": [{"id": 1, "state": "FAILED", "error": ESCAPES, "result": None}]}]
    replay.stays_stopped = 1
    result = run(replay)
    assert "service.control START ups failed: \\x1b[1m" in result["msg"]
    assert not find_unfit(result["msg"])


@pytest.mark.parametrize("text", ["\x1b", "x", "word "])
def test_long_reason_does_not_hide_the_state_of_the_service(run: Run, text: str) -> None:
    replay = Replay(V25_10)
    job = {"id": 1, "state": "FAILED", "error": text * 30_000, "result": None}
    replay.answers["core.get_jobs"] = [{"result": [job]}]
    replay.stays_stopped = 1
    message = run(replay)["msg"]
    assert "service.control START ups failed: " in message
    assert "The UPS service is STOPPED. TrueNAS is NOT protected now" in message
    assert "Already done: set mode" in message


def test_service_in_unknown_state_is_stopped_and_started(run: Run) -> None:
    """TrueNAS does not restart a service whose state it does not know, so the module stops and starts the service."""
    replay = configured(V25_10, monuser="other")
    replay.row["state"] = "UNKNOWN"
    run(replay)
    assert replay.writes == [("ups.update", {"monuser": "truenas"}), STOP, START]


def test_failed_stop_is_an_error(run: Run) -> None:
    replay = configured(V25_10)
    replay.answers["service.control"] = [{"result": True}]
    result = run(replay, state="absent")
    assert "was told to stop but is RUNNING" in result["msg"]


def test_value_that_truenas_does_not_keep_is_an_error(run: Run) -> None:
    replay = Replay(V25_10)
    replay.answers["ups.update"] = [{"result": {**replay.settings, **SECONDARY, "remotehost": "192.0.2"}}]
    result = run(replay)
    assert "did not keep remotehost, shutdown as sent" in result["msg"]
    assert result["changed"] is True


# --- absent ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_absent(run: Run, release: str) -> None:
    replay = configured(release, monpwd=OLD_PASSWORD)
    checked = run(configured(release, monpwd=OLD_PASSWORD), state="absent", check=True)
    result = run(replay, state="absent")
    assert result["actions"] == checked["actions"]
    assert result["actions"] == [
        "stopped the UPS service",
        "disabled the UPS service on boot",
        "set monuser, monpwd",
    ]
    stop = [STOP] if release != V25_04 else [STOP, ("service.stop", "ups", {"silent": False})]
    assert replay.writes == [
        *stop,
        ("service.update", "ups", {"enable": False}),
        ("ups.update", {"monuser": "upsmon", "monpwd": "fixmepass"}),
    ]
    assert result["service"] == checked["service"] == {"enable": False, "state": "STOPPED"}
    replay.sent.clear()
    replay.closed = 0
    assert unchanged(run(replay, state="absent", remotehost=None, monuser=None, monpwd=None))
    assert replay.writes == []


def test_absent_returns_to_master_if_truenas_allows_it(run: Run) -> None:
    replay = configured(V25_10, driver="usbhid-ups", port="auto")
    run(replay, state="absent")
    assert replay.settings["mode"] == "MASTER"


def test_absent_on_a_new_truenas_changes_nothing(run: Run) -> None:
    replay = Replay(V26)
    assert unchanged(run(replay, state="absent"))
    assert replay.writes == []


# --- goals that TrueNAS would refuse ---------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"remotehost": None}, "remotehost: required for mode SLAVE"),
        ({"mode": "MASTER"}, "driver and port: required for mode MASTER"),
        ({"mode": "MASTER", "driver": "usbhid-ups"}, "port: required for mode MASTER"),
    ],
)
def test_impossible_goal_is_refused(run: Run, check: bool, params: dict[str, Any], words: str) -> None:
    replay = Replay(V25_10)
    result = run(replay, check=check, **params)
    assert result["failed"] is True
    assert words in result["msg"]
    assert "Nothing was changed" in result["msg"]
    assert replay.writes == []


@pytest.mark.parametrize("release", RELEASES)
def test_error_for_a_refused_value_names_the_option(run: Run, release: str) -> None:
    replay = Replay(release, mode="SLAVE", remotehost="192.0.2.10", shutdown="LOWBATT")
    refused = replay.find_recorded("ups.update", {"remotehost": ""})
    assert "error" in refused
    replay.answers["ups.update"] = [refused]
    result = run(replay)
    assert result["msg"].startswith(
        "truenas.lan: ups.update failed: TrueNAS refuses remotehost: This field is required"
    )
    assert result["changed"] is False


# --- login -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_login_with_password(run: Run, release: str) -> None:
    replay = configured(release)
    run(replay, api_key=None, password="pw")
    assert replay.sent[0]["params"] == [make_login(password="pw")]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"api_key": WRONG_KEY}, "wrong API key for user 'nutadm'"),
        ({"api_key": None, "password": "bad"}, "wrong password for user 'nutadm'"),
    ],
)
def test_wrong_secret_is_explained(run: Run, release: str, params: dict[str, Any], words: str) -> None:
    replay = Replay(release)
    result = run(replay, **params)
    assert result["msg"].startswith(f"truenas.lan: login refused: {words}")
    assert "counts failed logins" in result["msg"]
    assert [each["method"] for each in replay.sent if each["method"] not in NOT_RECORDED] == ["auth.login_ex"]
    assert "in no group with a privilege" in result["msg"]
    assert ("the key is revoked or expired" in result["msg"]) is (
        "api_key" in params and params["api_key"] == WRONG_KEY
    )


@pytest.mark.parametrize(
    ("outcome", "params", "words"),
    [
        ({"response_type": "EXPIRED"}, {}, "the API key of user 'nutadm' is revoked or expired"),
        (
            {"response_type": "EXPIRED"},
            {"api_key": None, "password": "Canary-login"},
            "password of user 'nutadm' has exp",
        ),
        ({"response_type": "OTP_REQUIRED", "username": "nutadm"}, {}, "needs a one-time code"),
        ({"response_type": "REDIRECT", "urls": []}, {}, "active node: TrueNAS does not say which."),
        ({"response_type": "REDIRECT"}, {}, "active node: TrueNAS does not say which."),
        ({"response_type": "REDIRECT", "urls": "https://nas-b.lan"}, {}, "active node: TrueNAS does not say which."),
        ({"response_type": "REDIRECT", "urls": [7, None]}, {}, "active node: TrueNAS does not say which."),
        # Never from TLS to plain http, not to itself, and not where parse_url would not go.
        (
            {"response_type": "REDIRECT", "urls": ["http://nas-b.lan", "wss://truenas.lan", "ftp://nas-b.lan", ""]},
            {},
            "Set url to the active node: http://nas-b.lan, wss://truenas.lan, ftp://nas-b.lan, .",
        ),
        ({"response_type": "DENIED"}, {}, "may not use the API"),
        ({"response_type": "PASTE_ME"}, {}, "unknown outcome ('PASTE_ME')"),
        (True, {}, "unknown outcome"),
    ],
)
def test_other_login_outcomes_are_explained(run: Run, outcome: Any, params: dict[str, Any], words: str) -> None:
    replay = Replay(V26)
    replay.answers["auth.login_ex"] = [{"result": outcome}]
    result = run(replay, **params)
    assert result["failed"] is True
    assert words in result["msg"]
    assert replay.logins == 1


@pytest.mark.parametrize(
    ("outcome", "words"),
    [("SUCCESS", None), ("AUTH_ERR", "one-time code in otp was not accepted"), ("OTP_REQUIRED", "not accepted")],
)
def test_login_with_one_time_code(run: Run, outcome: str, words: str | None) -> None:
    replay = configured(V25_10)
    replay.answers["auth.login_ex"] = [{"result": {"response_type": "OTP_REQUIRED", "username": "nutadm"}}]
    replay.answers["auth.login_ex_continue"] = [{"result": {"response_type": outcome}}]
    result = run(replay, api_key=None, password="Canary-login", otp="Canary-otp")
    assert replay.sent[1]["params"] == [
        {"mechanism": "OTP_TOKEN", "otp_token": "Canary-otp", "login_options": {"user_info": False}}
    ]
    assert replay.logins == 2
    if words:
        assert words in result["msg"]
    else:
        assert unchanged(result)


def test_used_one_time_code_is_not_sent_to_the_active_node(run: Run) -> None:
    """A code works once, so the active node would refuse a second login."""
    replay = Replay(V26)
    replay.answers["auth.login_ex"] = [{"result": {"response_type": "OTP_REQUIRED", "username": "nutadm"}}]
    redirect = {"response_type": "REDIRECT", "urls": ["https://nas-b.lan"]}
    replay.answers["auth.login_ex_continue"] = [{"result": redirect}]
    result = run(replay, api_key=None, password="Canary-login", otp="Canary-otp")
    assert "otp was not accepted" not in result["msg"]
    assert "active node: https://nas-b.lan." in result["msg"]


def test_rate_limit_is_explained(run: Run) -> None:
    replay = Replay(V25_10)
    data = {"error": 16, "errname": "EBUSY", "reason": "[EBUSY] Rate Limit Exceeded", "extra": None}
    replay.answers["auth.login_ex"] = [{"error": {"code": -32001, "message": "Method call error", "data": data}}]
    result = run(replay)
    assert "Wait a minute" in result["msg"]
    assert replay.logins == 1


def test_truenas_without_login_ex_is_too_old(run: Run) -> None:
    replay = Replay(V25_10)
    replay.answers["auth.login_ex"] = [replay.find_recorded("nope.nope")]
    assert "TrueNAS 25.04 or newer is needed" in run(replay)["msg"]


@pytest.mark.parametrize(
    ("method", "role"),
    [
        ("ups.config", "SYSTEM_GENERAL_READ"),
        ("service.query", "SERVICE_READ"),
        ("ups.update", "SYSTEM_GENERAL_WRITE"),
        ("service.update", "SERVICE_WRITE"),
        ("service.control", "SERVICE_WRITE"),
    ],
)
@pytest.mark.parametrize("release", [V25_10, V26])
def test_missing_role_is_named(run: Run, release: str, method: str, role: str) -> None:
    replay = Replay(release)
    denied = replay.find_recorded("ups.update", {"description": "x"})
    assert denied["error"]["data"]["errname"] == "EACCES"
    replay.answers[method] = [denied]
    result = run(replay)
    assert f"the user may not call {method}, which needs the role {role}" in result["msg"]
    assert result["changed"] is (method in ("service.update", "service.control"))  # ups.update went well before


def test_missing_role_is_named_on_25_04(run: Run) -> None:
    replay = Replay(V25_04)
    replay.answers["service.start"] = [replay.find_recorded("ups.update", {"description": "x"})]
    assert "may not call service.start, which needs the role SERVICE_WRITE" in run(replay)["msg"]


# --- a bad line ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "changed"),
    [("auth.login_ex", False), ("ups.config", False), ("ups.update", True), ("core.get_jobs", True)],
)
@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (DROP, "the connection broke while waiting for"),
        ("<html>hello</html>", "is not an answer of TrueNAS, but an HTML page"),
        ("[1, 2]", "is not an answer of TrueNAS"),
        ('{"jsonrpc": "2.0", "id": 999, "result": 1}', "is not an answer of TrueNAS"),
        ('{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}', "is not an answer of TrueNAS"),
    ],
)
def test_garbage_is_not_an_answer(run: Run, method: str, changed: bool, frame: Any, words: str) -> None:
    """A write without an answer may have happened, so it counts as changed."""
    replay = Replay(V25_10)
    replay.answers[method] = [frame]
    result = run(replay)
    assert result["failed"] is True
    assert words in result["msg"]
    assert method in result["msg"]
    assert result["changed"] is changed
    assert replay.logins == 1


def test_events_between_answers_are_skipped(run: Run) -> None:
    replay = configured(V25_10)
    replay._inbox.append('{"jsonrpc": "2.0", "method": "collection_update", "params": {"msg": "added"}}')
    assert unchanged(run(replay))


def test_stray_answer_is_not_quoted(run: Run) -> None:
    """It may contain a password that the module does not know and so can't mask."""
    replay = configured(V25_10, monpwd=OLD_PASSWORD)
    replay.answers["ups.config"] = [f'{{"result": {{"monpwd": "{OLD_PASSWORD}"}}}}']
    message = run(replay)["msg"]
    assert "JSON that does not belong to this call" in message
    assert "monpwd" not in message


def test_version_is_returned(run: Run) -> None:
    replay = configured(V25_10)
    replay.answers["system.version"] = [{"result": "25.10.6"}]
    assert run(replay)["version"] == "25.10.6"
    assert run(configured(V25_10))["version"] is None


# --- refused before anything is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"url": "ws://truenas.lan/api/current"}, "api_key: refused over plain http"),
        ({"url": "http://truenas.lan"}, "TrueNAS revokes a key"),
        ({"api_key": None}, "password and api_key: set one of them; neither is set"),
        ({"password": "Canary-login"}, "password and api_key: set one of them; both are set"),
        ({"api_key": KEY + "\n"}, "api_key: is not a key as TrueNAS shows it"),
        ({"api_key": "Canary-extra"}, "api_key: is not a key as TrueNAS shows it"),
        ({"api_key": None, "password": "Canary-login\n"}, "password: contains a line break"),
        ({"username": ""}, "username: is not set"),
        ({"username": "nut\x1b[1m"}, "username: contains a control character, or bytes that are not UTF-8"),
        ({"username": "nut\n"}, "username: contains a control character"),
        ({"fingerprint": "AA:BB"}, "fingerprint: must be a SHA-256"),
        (
            {"url": "http://truenas.lan", "api_key": None, "password": "Canary-login", "fingerprint": "a" * 64},
            "fingerprint: needs TLS",
        ),
        ({"timeout": 0}, "timeout: must be from 1 to 86400"),
        ({"timeout": 10**11}, "timeout: must be from 1 to 86400"),
        ({"monpwd": "Canary-extra " + NEW_PASSWORD}, "monpwd: contains a space"),
        ({"remotehost": "fd00::5"}, "remotehost: is an IPv6 address without brackets"),
        ({"remoteport": 70000}, "remoteport: must be a number from 1 to 65535"),
    ],
)
def test_invalid_login_options_are_refused_before_sending(run: Run, params: dict[str, Any], words: str) -> None:
    result = run(None, **params)
    assert result["failed"] is True
    assert result["changed"] is False
    assert words in result["msg"]
    assert "truenas.lan" in result["msg"]
    assert "Nothing was sent" in result["msg"]


def test_all_invalid_values_are_in_one_message(run: Run) -> None:
    message = run(None, identifier="my ups", remotehost="pve.lan:3493", hostsync=-1)["msg"]
    assert all(f"{option}: " in message for option in ("identifier", "remotehost", "hostsync"))


def test_absent_ignores_invalid_settings(run: Run) -> None:
    assert unchanged(run(Replay(V25_10), state="absent", monpwd="left over from before"))


def test_password_over_plain_http_warns(run: Run) -> None:
    result = run(configured(V25_10), url="ws://clear.lan", api_key=None, password="pw")
    assert unchanged(result)
    assert "are sent unencrypted" in json.dumps(result["warnings"])


def test_unverified_certificate_warns(run: Run) -> None:
    result = run(configured(V25_10), validate_certs=False, api_key=None, password="pw")
    assert unchanged(result)
    (warning,) = warnings(result)
    assert warning.startswith("truenas.lan: the certificate is not verified (validate_certs: false)")
    assert "learn the password and monpwd" in warning


@pytest.mark.parametrize("release", RELEASES)
def test_key_is_not_sent_to_an_unverified_certificate(run: Run, release: str) -> None:
    """The recorded releases offer no SCRAM to somebody who is not logged in."""
    replay = configured(release)
    result = run(replay, validate_certs=False)
    assert (result["failed"], result["changed"]) == (True, False)
    assert "the API key was not sent. The certificate is not verified" in result["msg"]
    assert [each["method"] for each in replay.sent] == ["auth.mechanism_choices"]


@pytest.mark.parametrize(
    "offered",
    [
        {"result": ["API_KEY_PLAIN", "PASSWORD_PLAIN"]},
        {"result": ["scram", "SCRAM-PLUS", "API_KEY_PLAIN"]},
        {"result": []},
        {"result": None},
        {"result": "SCRAM"},
        {"result": {"SCRAM": True}},
        {"error": {"code": -32601, "message": "Method does not exist"}},
        {"error": {"code": -32001, "data": {"errname": "EINVAL", "reason": "no"}}},
        {"error": None},
    ],
    ids=str,
)
def test_machine_that_does_not_offer_scram_does_not_get_the_key(run: Run, offered: dict[str, Any]) -> None:
    """A machine that poses as TrueNAS would do that, to be sent the key itself."""
    replay = Replay(V26)
    replay.answers["auth.mechanism_choices"] = [offered]
    result = run(replay, validate_certs=False)
    assert (result["failed"], result["changed"]) == (True, False)
    assert "the API key was not sent" in result["msg"]
    assert replay.logins == 0


def answer_scram(*answers: dict[str, Any]) -> Replay:
    """Return a replay that offers SCRAM and gives these answers to its messages."""
    replay = Replay(V26)
    replay.answers["auth.mechanism_choices"] = [{"result": ["SCRAM", "API_KEY_PLAIN"]}]
    replay.answers["auth.login_ex"] = list(answers)
    return replay


@pytest.mark.parametrize(
    "answer",
    [
        {"result": {"response_type": "AUTH_ERR"}},
        {"result": {"response_type": "SUCCESS"}},
        {"result": {"response_type": "EXPIRED"}},
        {"result": {"response_type": "OTP_REQUIRED"}},
        {"result": {"response_type": "SCRAM_RESPONSE"}},
        {"result": {"response_type": "SCRAM_RESPONSE", "rfc_str": "r=x,s=c2FsdA==,i=1000000000"}},
        {"result": None},
        {"error": {"code": -32602, "message": "Invalid params"}},
        {"error": {"code": -32001, "data": {"errname": "ENOTSUP", "reason": "SCRAM: mechanism is not supported"}}},
    ],
    ids=str,
)
@pytest.mark.parametrize("verified", [True, False])
def test_refused_proof_does_not_lead_to_the_key(run: Run, answer: dict[str, Any], verified: bool) -> None:
    replay = answer_scram(answer)
    result = run(replay) if verified else run(replay, validate_certs=False)
    assert (result["failed"], result["changed"]) == (True, False)
    mechanisms = [each["params"][0]["mechanism"] for each in replay.sent if each["method"] == "auth.login_ex"]
    assert mechanisms == (["SCRAM"] if verified else [])  # this connection has no certificate to bind the login to


def test_login_that_is_bound_to_nothing_needs_a_verified_certificate(run: Run) -> None:
    """A machine in between could choose a certificate without a hash (Ed25519), and pass the messages on."""
    result = run(answer_scram(), validate_certs=False)
    assert "the login can't be bound to it because of its signature (such as Ed25519)" in result["msg"]
    replay = answer_scram({"result": {"response_type": "AUTH_ERR"}})
    run(replay)
    (first,) = (each["params"][0]["rfc_str"] for each in replay.sent if each["method"] == "auth.login_ex")
    assert first.startswith("n,,n=nutadm:2,r=")


@pytest.mark.parametrize("choices", [["PASSWORD_PLAIN"], ["PASSWORD_PLAIN", "TOKEN_PLAIN"]])
def test_key_is_not_sent_in_stig_mode(run: Run, choices: list[str]) -> None:
    replay = Replay(V26)
    replay.answers["auth.mechanism_choices"] = [{"result": choices}]
    result = run(replay)
    assert "accepts no API keys, because it requires two-factor authentication (STIG mode)" in result["msg"]
    assert replay.logins == 0


@pytest.mark.parametrize(
    ("answer", "logins"),
    [
        ({"result": None}, 1),
        ({"result": []}, 1),
        ({"result": [None, 7, "API_KEY_PLAIN"]}, 1),
        (
            {"error": {"code": -32001, "message": "Method call error", "data": {"errname": "EINVAL", "reason": "'x'"}}},
            1,
        ),
        ({"error": {"code": -32001, "message": "m", "data": {"errname": "EBUSY", "reason": "Rate Limit Exceeded"}}}, 0),
    ],
)
def test_release_without_a_list_of_mechanisms_gets_the_key(run: Run, answer: dict[str, Any], logins: int) -> None:
    replay = configured(V25_10)
    replay.answers["auth.mechanism_choices"] = [answer]
    result = run(replay)
    assert replay.logins == logins
    assert unchanged(result) is bool(logins)
    if not logins:
        assert "Wait a minute" in result["msg"]


@pytest.mark.parametrize("params", [{}, {"validate_certs": False, "fingerprint": "AB" * 32}, {"ca_path": "/ca.pem"}])
def test_verified_certificate_does_not_warn(run: Run, params: dict[str, Any]) -> None:
    assert warnings(run(configured(V25_10), **params)) == []


def test_run_has_one_deadline(run: Run) -> None:
    """Each answer comes in time, but together they take too long."""
    replay, now = Replay(V25_10), [0.0]

    class Slow:
        host = "truenas.lan"
        certificate = None

        def call(self, method: str, *params: Any) -> Any:
            now[0] += 200
            return JsonRpc(replay, self.host).call(method, *params)

        job = call

        def close(self) -> None:
            replay.close()

    transports = Transports(
        connect=lambda *_unused: Slow(), connect_here=nowhere, is_here=lambda: False, clock=lambda: now[0]
    )
    result = run(replay, transports=transports, timeout=30)
    assert result["failed"] is True
    assert result["msg"].startswith("truenas.lan: this run has taken more than 540 s, so service.query was not called")
    assert now[0] == 600


def test_missing_library_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with patch_module_args({"url": "truenas.lan", "username": "nutadm", "api_key": KEY}), pytest.raises(SystemExit):
        truenas_ups.main(Transports(import_error="Traceback: No module named 'websocket'"))
    assert (
        "Failed to import the required Python library (websocket-client)" in json.loads(capfd.readouterr().out)["msg"]
    )


# --- a pair ----------------------------------------------------------------------------------------------------------


class Pair:
    """Nodes by the address that they are reached at; a list of addresses stands for a standby node that names them."""

    def __init__(self, **nodes: Replay | list[str]) -> None:
        self.nodes: dict[str, Replay] = {}
        self.reached: list[tuple[Endpoint, ServerTrust]] = []
        for name, node in nodes.items():
            replay = self.nodes[f"{name}.lan"] = Replay(V26) if isinstance(node, list) else node
            if isinstance(node, list):
                replay.answers["auth.login_ex"] = [{"result": {"response_type": "REDIRECT", "urls": node}}]

    def connect(self, endpoint: Endpoint, tls: ServerTrust, timeout: float) -> Any:
        # One connection at a time: two sessions of one run would be a riddle in TrueNAS's log.
        before = [one.host for one, _unused in self.reached]
        assert all(node.closed for host, node in self.nodes.items() if host in before)
        self.reached.append((endpoint, tls))
        return self.nodes[endpoint.host].connect(endpoint, tls, timeout)

    @property
    def transports(self) -> Transports:
        return Transports(connect=self.connect, connect_here=nowhere, is_here=lambda: True)


def test_standby_node_leads_to_the_active_node(run: Run) -> None:
    active = Replay(V26)
    urls = ["http://c.lan", "ftp://c.lan", "https://admin:x@c.lan", "https://b.lan:444/ui/", "https://c.lan"]
    pair = Pair(a=urls, b=active)
    result = run(None, transports=pair.transports, url="a.lan", fingerprint="AB" * 32)
    assert (result["changed"], result["host"], result["transport"]) == (True, "b.lan", "jsonrpc")
    assert [endpoint.url for endpoint, _unused in pair.reached] == [
        "wss://a.lan/api/current",
        "wss://b.lan:444/api/current",
    ]
    assert pair.reached[0][1] == pair.reached[1][1] == ServerTrust(fingerprint="ab" * 32)
    assert warnings(result) == [
        "a.lan is the standby node of a pair; continuing with b.lan:444. Set url to the address that the pair shares"
    ]
    for node in pair.nodes.values():
        assert (node.logins, node.closed) == (1, 1)
    assert [each["method"] for each in pair.nodes["a.lan"].sent] == ["auth.mechanism_choices", "auth.login_ex"]


def test_standby_node_names_bare_addresses(run: Run) -> None:
    """As failover.get_ips has them. One that can't be reached costs no login, and the port is the pair's."""
    active = Replay(V26)
    pair = Pair(a=["192.0.2.7", "fd00::7"])
    pair.nodes["fd00::7"] = active

    def connect(endpoint: Endpoint, tls: ServerTrust, timeout: float) -> Any:
        if endpoint.host == "192.0.2.7":
            pair.reached.append((endpoint, tls))
            raise ConnectionFailed("192.0.2.7:8443: no route")
        return pair.connect(endpoint, tls, timeout)

    transports = dataclasses.replace(pair.transports, connect=connect)
    result = run(None, transports=transports, url="https://a.lan:8443", fingerprint="AB" * 32)
    assert (result["changed"], result["host"]) == (True, "fd00::7")
    assert [endpoint.url for endpoint, _unused in pair.reached] == [
        "wss://a.lan:8443/api/current",
        "wss://192.0.2.7:8443/api/current",
        "wss://[fd00::7]:8443/api/current",
    ]
    assert "continuing with [fd00::7]:8443" in warnings(result)[0]
    assert active.logins == 1


def test_unreachable_active_node_is_explained(run: Run) -> None:
    pair = Pair(a=["192.0.2.7"])

    def connect(endpoint: Endpoint, tls: ServerTrust, timeout: float) -> Any:
        if endpoint.host == "192.0.2.7":
            raise ConnectionFailed("192.0.2.7: no route")
        return pair.connect(endpoint, tls, timeout)

    result = run(None, transports=dataclasses.replace(pair.transports, connect=connect), url="a.lan")
    assert result["failed"] is True
    assert result["msg"].startswith(
        "a.lan: this is the standby node of a pair, and the active node can't be used. 192.0.2"
    )


def test_active_node_without_api_does_not_lead_to_midclt(run: Run) -> None:
    """After a login there is no fallback to midclt."""
    pair = Pair(a=["https://b.lan"])

    def connect(endpoint: Endpoint, tls: ServerTrust, timeout: float) -> Any:
        if endpoint.host == "b.lan":
            raise NoJsonRpc("b.lan: there is no /api/current")
        return pair.connect(endpoint, tls, timeout)

    result = run(None, transports=dataclasses.replace(pair.transports, connect=connect), url="a.lan")
    assert result["failed"] is True
    assert "reason" not in result
    assert result["msg"].startswith(
        "a.lan: this is the standby node of a pair, and the active node can't be used. b.lan: "
    )


def test_addresses_of_a_standby_node_are_limited(run: Run) -> None:
    tried: list[str] = []
    pair = Pair(a=[f"192.0.2.{number}" for number in range(1, 200)])

    def connect(endpoint: Endpoint, tls: ServerTrust, timeout: float) -> Any:
        if endpoint.host == "a.lan":
            return pair.connect(endpoint, tls, timeout)
        tried.append(endpoint.host)
        raise ConnectionFailed(f"{endpoint.host}: no route")

    result = run(None, transports=dataclasses.replace(pair.transports, connect=connect), url="a.lan")
    assert result["failed"] is True
    assert tried == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]


def test_two_standby_nodes_are_explained(run: Run) -> None:
    pair = Pair(a=["https://b.lan"], b=["https://a.lan", "https://c.lan"], c=Replay(V26))
    result = run(None, transports=pair.transports, url="a.lan")
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"].startswith("a.lan: both nodes of the pair say that they are on standby; this one names b.lan.")
    assert [endpoint.host for endpoint, _unused in pair.reached] == ["a.lan", "b.lan"]
    assert [(node.logins, node.closed) for node in pair.nodes.values()] == [(1, 1), (1, 1), (0, 0)]


def test_wrong_secret_on_the_active_node_is_explained(run: Run) -> None:
    pair = Pair(a=["https://b.lan"], b=Replay(V26))
    result = run(None, transports=pair.transports, url="a.lan", api_key=WRONG_KEY)
    assert result["msg"].startswith("b.lan: login refused: wrong API key for user 'nutadm'")
    assert [(node.logins, node.closed) for node in pair.nodes.values()] == [(1, 1), (1, 1)]


def test_plain_standby_node_may_lead_to_a_plain_node(run: Run) -> None:
    pair = Pair(a=["http://b.lan"], b=configured(V26))
    result = run(None, transports=pair.transports, url="http://a.lan", api_key=None, password="pw")
    assert (result["host"], result["changed"]) == ("b.lan", False)


# --- transport -------------------------------------------------------------------------------------------------------


class Here:
    """midclt where the module runs: a replayed machine that nobody logs in to. `present`: midclt is installed."""

    def __init__(self, replay: Replay | None, *, present: bool = True, api: Any = None) -> None:
        self.replay = replay
        self.present = present
        self.api = api
        self.asked: list[str] = []
        self.timeouts: list[float] = []

    def connect(self, endpoint: Endpoint, _unused: ServerTrust, __: float) -> Any:
        self.asked.append(endpoint.host)
        if isinstance(self.api, Replay):
            return self.api.connect(endpoint, ServerTrust(), 30)
        raise self.api

    def connect_here(self, timeout: float) -> Any:
        assert self.replay is not None, "it asked midclt"
        self.timeouts.append(timeout)
        return self.replay.connect(Endpoint(True, "box", 443), ServerTrust(), timeout)

    @property
    def transports(self) -> Transports:
        return Transports(connect=self.connect, connect_here=self.connect_here, is_here=lambda: self.present)


NO_API = NoJsonRpc("truenas.lan: there is no /api/current: use midclt. (HTTP 404)")
IGNORED = {"url": "ftp://never looked at", "api_key": "x", "password": "y", "fingerprint": "z", "ca_path": "/nowhere"}
NO_LOGIN = {"url": None, "username": None, "api_key": None}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("params", [NO_LOGIN, {**NO_LOGIN, "transport": "midclt"}, {**IGNORED, "transport": "midclt"}])
def test_midclt_configures_the_service(run: Run, release: str, params: dict[str, Any]) -> None:
    replay = Replay(release)
    here = Here(replay)
    result = run(None, transports=here.transports, timeout=7, **params)
    assert (result["changed"], result["transport"], result["host"]) == (True, "midclt", "box")
    assert (replay.logins, replay.closed, here.asked, here.timeouts) == (0, 1, [], [7.0])
    assert "warnings" not in result
    assert unchanged(run(None, transports=here.transports, **params))


def test_midclt_needs_no_library(run: Run) -> None:
    here = Here(configured(V25_10))
    transports = dataclasses.replace(here.transports, import_error="Traceback: No module named 'websocket'")
    assert unchanged(run(None, transports=transports, transport="midclt"))


@pytest.mark.parametrize("transport", [None, "auto", "jsonrpc"])
def test_auto_with_url_uses_json_rpc(run: Run, transport: str | None) -> None:
    here = Here(None, api=configured(V25_10))
    result = run(None, transports=here.transports, transport=transport)
    assert (result["transport"], result["host"], here.asked) == ("jsonrpc", "truenas.lan", ["truenas.lan"])


def test_missing_api_falls_back_to_local_midclt(run: Run) -> None:
    here = Here(configured(V25_10), api=NO_API)
    result = run(None, transports=here.transports)
    assert unchanged(result)
    assert (result["transport"], result["host"]) == ("midclt", "box")
    (warning,) = warnings(result)
    assert warning.startswith("truenas.lan: there is no /api/current")
    assert "Continuing with midclt on this machine" in warning


@pytest.mark.parametrize(("transport", "present"), [("auto", False), ("jsonrpc", True), ("jsonrpc", False)])
def test_missing_api_without_midclt_is_an_error(run: Run, transport: str, present: bool) -> None:
    here = Here(None, api=NO_API, present=present)
    result = run(None, transports=here.transports, transport=transport)
    assert (result["failed"], result["changed"], result["reason"]) == (True, False, "no_jsonrpc")
    assert result["msg"] == str(NO_API)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("truenas.lan: no connection to port 443: refused."),
        ConnectionLost("truenas.lan: the connection broke while waiting for auth.login_ex."),
        LoginFailed("truenas.lan: login refused."),
    ],
)
def test_no_other_failure_leads_to_midclt(run: Run, error: Exception) -> None:
    result = run(None, transports=Here(None, api=error).transports)
    assert result["msg"] == str(error)
    assert "reason" not in result


def test_refused_login_does_not_lead_to_midclt(run: Run) -> None:
    api = Replay(V25_10)
    result = run(None, transports=Here(None, api=api).transports, api_key=WRONG_KEY)
    assert "login refused" in result["msg"]
    assert "reason" not in result
    assert api.logins == 1


def test_missing_library_does_not_lead_to_midclt(run: Run) -> None:
    transports = dataclasses.replace(Here(None).transports, import_error="Traceback: No module named 'websocket'")
    assert "websocket-client" in run(None, transports=transports)["msg"]


@pytest.mark.parametrize("url", [None, ""])
def test_json_rpc_needs_a_url(run: Run, url: str | None) -> None:
    result = run(None, transports=Here(None).transports, transport="jsonrpc", url=url)
    assert result["msg"] == "url: required for transport jsonrpc; write a name or an address. Nothing was sent."


def test_empty_url_counts_as_unset(run: Run) -> None:
    assert run(None, transports=Here(configured(V25_10)).transports, url="")["transport"] == "midclt"


def test_invalid_values_are_refused_before_midclt_runs(run: Run) -> None:
    message = run(None, transports=Here(None).transports, transport="midclt", remotehost="fd00::5", timeout=30)["msg"]
    assert message.startswith(f"{platform.node()}: remotehost: ")
    assert "timeout: must be" in run(None, transports=Here(None).transports, transport="midclt", timeout=0)["msg"]


# --- short secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["a", "s", "3", "nas", "ups", "truenas", "lan", "True", "SLAVE", "(hidden)"[:7]])
def test_short_secret_does_not_mask_the_result(run: Run, capfd: pytest.CaptureFixture[str], secret: str) -> None:
    """Ansible masks a secret everywhere: in the host's name, a number, a state."""
    params = {"api_key": None, "password": secret, "monpwd": secret, "otp": secret, "options": secret, "extrausers": ""}
    given = {"url": "truenas.lan", "username": "nutadm", "remotehost": "192.0.2.10", "monuser": "truenas"}
    given.update({name: value for name, value in params.items() if value is not None})
    replay = Replay(V25_10)
    replay.answers["auth.login_ex"] = [{"result": {"response_type": "SUCCESS"}}]
    with patch_module_args({**given, "_ansible_inject_invocation": True}), pytest.raises(SystemExit):
        truenas_ups.main(Transports(connect=replay.connect))
    result = json.loads(capfd.readouterr().out)
    assert result["changed"] is True
    assert (result["host"], result["transport"]) == ("truenas.lan", "jsonrpc")
    assert result["settings"]["complete_identifier"] == "ups@192.0.2.10:3493"
    assert (result["settings"]["remoteport"], result["settings"]["mode"]) == (3493, "SLAVE")
    assert result["settings"]["monpwd"] == result["settings"]["options"] == "(hidden)"
    assert result["settings"]["extrausers"] == ""
    assert result["actions"][0] == "set mode, remotehost, monuser, monpwd, shutdown, options"
    arguments = result["invocation"]["module_args"]
    assert arguments["extrausers"] == ""
    for name in ("password", "monpwd", "otp", "options"):
        assert arguments[name] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


def test_short_secret_is_masked_in_a_message(run: Run) -> None:
    replay = Replay(V25_10)
    error = "[EFAULT] MONITOR ups@192.0.2.10:3493 1 truenas nas SLAVE"
    replay.answers["core.get_jobs"] = [{"result": [{"id": 1, "state": "FAILED", "error": error, "result": None}]}]
    replay.stays_stopped = 1
    message = run(replay, monpwd="nas")["msg"]
    assert message.startswith("truenas.lan: service.control START ups failed")
    assert "1 truenas ******** SLAVE" in message


def test_invocation_contains_no_secret_of_any_length(capfd: pytest.CaptureFixture[str]) -> None:
    given = {"url": "truenas.lan", "username": "nutadm", "api_key": KEY, "remotehost": "192.0.2.10"}
    given.update(monpwd="Canary-a", options="Canary-b\nc", optionsupsd="Canary-d", extrausers="Canary-e", otp="C-f")
    for params in (given, {**given, "timeout": 0}):
        with patch_module_args({**params, "_ansible_inject_invocation": True}), pytest.raises(SystemExit):
            truenas_ups.main(Transports(connect=Replay(V25_10).connect))
        out = capfd.readouterr().out
        assert json.loads(out)["invocation"]["module_args"]["monuser"] is None
        assert [secret for secret in ("Canary", "C-f", KEY) if secret in out] == []
