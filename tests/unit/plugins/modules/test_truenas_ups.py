# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module as Ansible runs it, against what real releases answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.modules import truenas_ups
from ansible_collections.homelab.nut.tests.unit.plugins.module_utils.truenas_replay import (
    DROP,
    KEY,
    RELEASES,
    V25_04,
    V25_10,
    V26,
    WRONG_KEY,
    Replay,
    login,
)

NEW_PASSWORD = "Canary-new_1"
OLD_PASSWORD = "Canary-old_2"
SECRETS = (NEW_PASSWORD, OLD_PASSWORD, KEY, WRONG_KEY, "Canary-extra", "Canary-otp", "Canary-login")
# What the recorded machine gets as a secondary.
SECONDARY = {"mode": "SLAVE", "remotehost": "192.0.2.10", "monuser": "truenas", "monpwd": NEW_PASSWORD}
START = ("service.control", "START", "ups", {"silent": False})
STOP = ("service.control", "STOP", "ups", {"silent": False})

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the module. Whatever it says, no secret may be in it."""

    def run(replay: Replay | None, *, check: bool = False, **params: Any) -> dict[str, Any]:
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
            truenas_ups.main(connect=connect)
        out, err = capfd.readouterr()
        result: dict[str, Any] = json.loads(out)
        told = json.dumps({name: value for name, value in result.items() if name != "invocation"}) + err
        assert [secret for secret in SECRETS if secret in out + told] == []
        if replay is not None:
            assert replay.closed == 1
        return result

    return run


def unchanged(result: dict[str, Any]) -> bool:
    """Well, and nothing to do. A failure too may report changed: false."""
    return result["changed"] is False and "failed" not in result


def configured(release: str, **settings: Any) -> Replay:
    """A machine that is what the module makes of it by default."""
    return Replay(release, running=True, enable=True, **{**SECONDARY, "shutdown": "LOWBATT", **settings})


@pytest.mark.parametrize("release", RELEASES)
def test_fresh_machine(run: Run, release: str) -> None:
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
def test_every_frame_was_recorded(run: Run, release: str) -> None:
    """What the module sends is what the real releases were asked, down to the last member."""
    replay = Replay(release, identifier="other", remoteport=1, powerdown=True)
    run(replay, monpwd="Abc-123_x")
    asked = [(each["method"], each["params"]) for each, _answer in replay.pairs]
    sent = [(each["method"], each["params"]) for each in replay.sent if each["method"] != "system.version"]
    assert len(sent) > 7
    assert [call for call in sent if call not in asked] == []


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("check", [False, True])
def test_nothing_differs(run: Run, release: str, check: bool) -> None:
    replay = configured(release)
    result = run(replay, check=check)
    assert replay.writes == []
    assert unchanged(result)
    assert result["actions"] == []
    assert result["diff"]["before"] == result["diff"]["after"]


@pytest.mark.parametrize("release", RELEASES)
def test_second_run_is_quiet(run: Run, release: str) -> None:
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


def test_diff_only_on_demand(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    given = {"url": "truenas.lan", "username": "nutadm", "api_key": KEY, "remotehost": "192.0.2.10"}
    with patch_module_args(given), pytest.raises(SystemExit):
        truenas_ups.main(connect=configured(V25_10).connect)
    assert "diff" not in json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("release", RELEASES)
def test_running_service_is_restarted_by_truenas_only(run: Run, release: str) -> None:
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


def test_unset_options_stay(run: Run) -> None:
    replay = configured(V25_10, hostsync=42, nocommwarntime=7, shutdowncmd="/sbin/poweroff", driver="x", rmonitor=True)
    assert unchanged(run(replay, monuser=None, monpwd=None, remotehost=None))


def test_empty_is_truenas_own(run: Run) -> None:
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


def test_saved_but_failed_then_repaired(run: Run) -> None:
    """TrueNAS keeps the settings and loses the service. That is a failure that changed something."""
    replay = configured(V25_10, remotehost="192.0.2.99")
    failure = {"errname": "ESERVICESTARTFAILURE", "reason": "[ESERVICESTARTFAILURE] The ups service failed to start"}
    replay.answers["ups.update"] = [{"error": {"code": -32001, "message": "Method call error", "data": failure}}]
    replay.settings["remotehost"] = "192.0.2.10"  # saved
    replay.answers["ups.config"] = [{"result": {**replay.settings, "remotehost": "192.0.2.99"}}]
    result = run(replay)
    assert result["failed"] is True
    assert result["changed"] is True
    assert "the settings were saved, but the UPS service failed to start" in result["msg"]
    assert "truenas.lan" in result["msg"]
    assert result["actions"] == ["set remotehost; TrueNAS could not start its UPS service with that"]
    assert replay.writes == [("ups.update", {"remotehost": "192.0.2.10"})]

    replay.row["state"] = "STOPPED"
    replay.sent.clear()
    replay.closed = 0
    result = run(replay)
    assert (result["changed"], result["actions"]) == (True, ["started the UPS service"])
    assert replay.row["state"] == "RUNNING"


@pytest.mark.parametrize("release", RELEASES)
def test_restart_that_leaves_it_stopped_is_mended_once(run: Run, release: str) -> None:
    replay = configured(release, monuser="other")
    replay.stays_stopped = 1
    result = run(replay)
    assert result["actions"] == [
        "set monuser; TrueNAS restarted its UPS service",
        "found the UPS service not running after that, and stopped and started it",
    ]
    if release == V25_04:
        verbs = [write[0] for write in replay.writes[1:]]
        assert verbs == ["service.control", "service.stop", "service.control", "service.start"]
    else:
        assert replay.writes[1:] == [STOP, START]
    assert result["service"]["state"] == "RUNNING"


def test_service_that_never_runs(run: Run) -> None:
    replay = Replay(V25_10)
    replay.stays_stopped = 9
    result = run(replay)
    assert result["failed"] is True
    assert result["changed"] is True
    assert "started twice and is STOPPED" in result["msg"]
    assert [write[1] for write in replay.writes if write[0] == "service.control"] == ["START", "STOP", "START"]


def test_failed_job_tells_its_log_without_the_secret(run: Run) -> None:
    replay = Replay(V25_10)
    error = f"[EFAULT] upsmon[1]: bad line MONITOR ups@192.0.2.10:3493 1 truenas {NEW_PASSWORD} SLAVE"
    replay.answers["core.get_jobs"] = [{"result": [{"id": 1, "state": "FAILED", "error": error, "result": None}]}]
    result = run(replay)
    assert result["failed"] is True
    assert result["changed"] is True
    assert "service.control START ups failed: [EFAULT] upsmon[1]: bad line" in result["msg"]
    assert "Done before: set mode, remotehost" in result["msg"]


def test_unknown_state(run: Run) -> None:
    """TrueNAS does not restart a service whose state it does not know, so it is stopped and started."""
    replay = configured(V25_10, monuser="other")
    replay.row["state"] = "UNKNOWN"
    run(replay)
    assert replay.writes == [("ups.update", {"monuser": "truenas"}), STOP, START]


def test_stop_that_does_not_stop(run: Run) -> None:
    replay = configured(V25_10)
    replay.answers["service.control"] = [{"result": True}]
    result = run(replay, state="absent")
    assert "was told to stop and is RUNNING" in result["msg"]


def test_value_that_was_not_kept(run: Run) -> None:
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


def test_absent_goes_back_to_master_where_truenas_allows_it(run: Run) -> None:
    replay = configured(V25_10, driver="usbhid-ups", port="auto")
    run(replay, state="absent")
    assert replay.settings["mode"] == "MASTER"


def test_absent_on_a_machine_that_never_had_it(run: Run) -> None:
    replay = Replay(V26)
    assert unchanged(run(replay, state="absent"))
    assert replay.writes == []


# --- goals that TrueNAS would refuse ---------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"remotehost": None}, "remotehost: needed for mode SLAVE"),
        ({"mode": "MASTER"}, "driver and port: needed for mode MASTER"),
        ({"mode": "MASTER", "driver": "usbhid-ups"}, "port: needed for mode MASTER"),
    ],
)
def test_impossible_goal(run: Run, check: bool, params: dict[str, Any], words: str) -> None:
    replay = Replay(V25_10)
    result = run(replay, check=check, **params)
    assert result["failed"] is True
    assert words in result["msg"]
    assert "Nothing was changed" in result["msg"]
    assert replay.writes == []


@pytest.mark.parametrize("release", RELEASES)
def test_value_refused_by_truenas_names_the_option(run: Run, release: str) -> None:
    replay = Replay(release, mode="SLAVE", remotehost="192.0.2.10", shutdown="LOWBATT")
    refused = replay.recorded("ups.update", {"remotehost": ""})
    assert "error" in refused
    replay.answers["ups.update"] = [refused]
    result = run(replay)
    assert result["msg"].startswith(
        "truenas.lan: ups.update failed: TrueNAS refuses remotehost: This field is required"
    )
    assert result["changed"] is False


# --- login -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_password_login(run: Run, release: str) -> None:
    replay = configured(release)
    run(replay, api_key=None, password="pw")
    assert replay.sent[0]["params"] == [login(password="pw")]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"api_key": WRONG_KEY}, "wrong API key for user 'nutadm'"),
        ({"api_key": None, "password": "bad"}, "wrong password for user 'nutadm'"),
    ],
)
def test_wrong_secret(run: Run, release: str, params: dict[str, Any], words: str) -> None:
    replay = Replay(release)
    result = run(replay, **params)
    assert result["msg"].startswith(f"truenas.lan: login refused: {words}")
    assert "counts failed logins" in result["msg"]
    assert [each["method"] for each in replay.sent] == ["auth.login_ex"]


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
        ({"response_type": "REDIRECT", "urls": ["https://nas-b.lan"]}, {}, "active one: https://nas-b.lan."),
        ({"response_type": "REDIRECT", "urls": []}, {}, "standby node"),
        ({"response_type": "DENIED"}, {}, "may not use the API"),
        ({"response_type": "PASTE_ME"}, {}, "unknown way ('PASTE_ME')"),
        (True, {}, "unknown way"),
    ],
)
def test_other_outcomes(run: Run, outcome: Any, params: dict[str, Any], words: str) -> None:
    replay = Replay(V26)
    replay.answers["auth.login_ex"] = [{"result": outcome}]
    result = run(replay, **params)
    assert result["failed"] is True
    assert words in result["msg"]
    assert len(replay.sent) == 1


@pytest.mark.parametrize(
    ("outcome", "words"),
    [("SUCCESS", None), ("AUTH_ERR", "one-time code in otp was not accepted"), ("OTP_REQUIRED", "not accepted")],
)
def test_one_time_code(run: Run, outcome: str, words: str | None) -> None:
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


def test_rate_limit(run: Run) -> None:
    replay = Replay(V25_10)
    data = {"error": 16, "errname": "EBUSY", "reason": "[EBUSY] Rate Limit Exceeded", "extra": None}
    replay.answers["auth.login_ex"] = [{"error": {"code": -32001, "message": "Method call error", "data": data}}]
    result = run(replay)
    assert "Wait ten minutes" in result["msg"]
    assert len(replay.sent) == 1


def test_too_old_for_login_ex(run: Run) -> None:
    replay = Replay(V25_10)
    replay.answers["auth.login_ex"] = [replay.recorded("nope.nope")]
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
def test_missing_role(run: Run, release: str, method: str, role: str) -> None:
    replay = Replay(release)
    denied = replay.recorded("ups.update", {"description": "x"})
    assert denied["error"]["data"]["errname"] == "EACCES"
    replay.answers[method] = [denied]
    result = run(replay)
    assert f"the user may not call {method}; it takes the role {role}" in result["msg"]
    assert result["changed"] is (method in ("service.update", "service.control"))  # ups.update went well before


def test_missing_role_on_25_04(run: Run) -> None:
    replay = Replay(V25_04)
    replay.answers["service.start"] = [replay.recorded("ups.update", {"description": "x"})]
    assert "may not call service.start; it takes the role SERVICE_WRITE" in run(replay)["msg"]


# --- a bad line ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "changed"),
    [("auth.login_ex", False), ("ups.config", False), ("ups.update", True), ("core.get_jobs", True)],
)
@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (DROP, "the connection broke while waiting for"),
        ("<html>hello</html>", "is not an answer of TrueNAS: '<html>hello</html>'"),
        ("[1, 2]", "is not an answer of TrueNAS"),
        ('{"jsonrpc": "2.0", "id": 999, "result": 1}', "is not an answer of TrueNAS"),
        ('{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}', "is not an answer of TrueNAS"),
    ],
)
def test_bad_line(run: Run, method: str, changed: bool, frame: Any, words: str) -> None:
    """After a write without an answer nobody knows, so it counts as changed."""
    replay = Replay(V25_10)
    replay.answers[method] = [frame]
    result = run(replay)
    assert result["failed"] is True
    assert words in result["msg"]
    assert method in result["msg"]
    assert result["changed"] is changed
    assert replay.logins == 1


def test_events_between_are_skipped(run: Run) -> None:
    replay = configured(V25_10)
    replay._inbox.append('{"jsonrpc": "2.0", "method": "collection_update", "params": {"msg": "added"}}')
    assert unchanged(run(replay))


def test_secret_in_a_stray_answer_is_masked(run: Run) -> None:
    replay = configured(V25_10, monpwd=OLD_PASSWORD)
    replay.answers["ups.update"] = [f'"{OLD_PASSWORD} {NEW_PASSWORD}"']
    assert "******** ********" in run(replay)["msg"]


def test_version_is_told(run: Run) -> None:
    replay = configured(V25_10)
    replay.answers["system.version"] = [{"result": "25.10.6"}]
    assert run(replay)["version"] == "25.10.6"
    assert run(configured(V25_10))["version"] is None


# --- refused before anything is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"url": "ws://truenas.lan/api/current"}, "api_key: refused over plain http"),
        ({"url": "http://truenas.lan"}, "TrueNAS revokes a key at once"),
        ({"api_key": None}, "password and api_key: give one of them; none given"),
        ({"password": "Canary-login"}, "password and api_key: give one of them; both given"),
        ({"api_key": KEY + "\n"}, "api_key: is not a key as TrueNAS shows it"),
        ({"api_key": "Canary-extra"}, "api_key: is not a key as TrueNAS shows it"),
        ({"api_key": None, "password": "Canary-login\n"}, "password: holds a line break"),
        ({"username": ""}, "username: is empty"),
        ({"fingerprint": "AA:BB"}, "fingerprint: must be a SHA-256"),
        (
            {"url": "http://truenas.lan", "api_key": None, "password": "Canary-login", "fingerprint": "a" * 64},
            "fingerprint: there is no certificate without TLS",
        ),
        ({"timeout": 0}, "timeout: must be at least 1"),
        ({"monpwd": "Canary-extra " + NEW_PASSWORD}, "monpwd: holds a space"),
        ({"remotehost": "fd00::5"}, "remotehost: is an IPv6 address without brackets"),
        ({"remoteport": 70000}, "remoteport: must be a number from 1 to 65535"),
    ],
)
def test_refused_before_sending(run: Run, params: dict[str, Any], words: str) -> None:
    result = run(None, **params)
    assert result["failed"] is True
    assert result["changed"] is False
    assert words in result["msg"]
    assert "truenas.lan" in result["msg"]
    assert "Nothing was sent" in result["msg"]


def test_all_bad_values_in_one_message(run: Run) -> None:
    message = run(None, identifier="my ups", remotehost="pve.lan:3493", hostsync=-1)["msg"]
    assert all(f"{option}: " in message for option in ("identifier", "remotehost", "hostsync"))


def test_absent_does_not_look_at_settings(run: Run) -> None:
    assert unchanged(run(Replay(V25_10), state="absent", monpwd="left over from before"))


def test_password_over_plain_http_warns(run: Run) -> None:
    result = run(configured(V25_10), url="ws://clear.lan", api_key=None, password="pw")
    assert unchanged(result)
    assert "travel in clear" in json.dumps(result["warnings"])


def test_library_missing(capfd: pytest.CaptureFixture[str]) -> None:
    with patch_module_args({"url": "truenas.lan", "username": "nutadm", "api_key": KEY}), pytest.raises(SystemExit):
        truenas_ups.main(import_error="Traceback: No module named 'websocket'")
    assert (
        "Failed to import the required Python library (websocket-client)" in json.loads(capfd.readouterr().out)["msg"]
    )
