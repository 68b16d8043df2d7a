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
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import battery_test, commands
from ansible_collections.homelab.nut.plugins.modules import ups_command

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS = {
    "LIST UPS": 'BEGIN LIST UPS\nUPS ups "Rack"\nEND LIST UPS\n',
    "LIST CMD ups": (
        "BEGIN LIST CMD ups\nCMD ups beeper.mute\nCMD ups load.off\nCMD ups test.battery.start.quick\n"
        "CMD ups test.battery.start.deep\nEND LIST CMD ups\n"
    ),
    "LIST VAR ups": (
        'BEGIN LIST VAR ups\nVAR ups battery.charge "95"\nVAR ups ups.status "OL"\n'
        'VAR ups ups.test.result "No test initiated"\nEND LIST VAR ups\n'
    ),
    "LIST RW ups": 'BEGIN LIST RW ups\nRW ups ups.delay.shutdown "20"\nRW ups ups.id "x"\nEND LIST RW ups\n',
    "GET DESC ups ups.delay.shutdown": 'DESC ups ups.delay.shutdown "Seconds"\n',
    "GET TYPE ups ups.delay.shutdown": "TYPE ups ups.delay.shutdown RW NUMBER\n",
    "GET DESC ups ups.id": 'DESC ups ups.id "Description unavailable"\n',
    "GET TYPE ups ups.id": "TYPE ups ups.id RW STRING:8\n",
    "USERNAME admin": "OK\n",
    "PASSWORD s3cret": "OK\n",
    "SET TRACKING ON": "OK\n",
    "INSTCMD ups beeper.mute": "OK TRACKING 1\n",
    "INSTCMD ups beeper.mute 5": "OK TRACKING 1\n",
    "INSTCMD ups load.off": "OK TRACKING 1\n",
    "INSTCMD ups test.battery.start.quick": "OK TRACKING 1\n",
    "SET VAR ups ups.delay.shutdown 30": "OK TRACKING 1\n",
    "GET TRACKING 1": "SUCCESS\n",
    "GET VAR ups ups.delay.shutdown": 'VAR ups ups.delay.shutdown "30"\n',
    "FSD ups": "OK FSD-SET\n",
}
PASSED = ANSWERS["LIST VAR ups"].replace("No test initiated", "Done and passed")


class Asked(list[str]):
    """What upsd was asked, and its port."""

    port = 0

    @property
    def orders(self) -> list[str]:
        return [line for line in self if line.startswith(("INSTCMD", "SET VAR", "FSD", "LOGIN"))]


@contextmanager
def serving(**changes: str) -> Iterator[Asked]:
    """Answer any number of connections from ANSWERS. An order may change an answer: {"INSTCMD ...>LIST VAR ups": ...}."""
    answers = {**ANSWERS, **{name: text for name, text in changes.items() if ">" not in name}}
    later = {tuple(name.split(">")): text for name, text in changes.items() if ">" in name}
    asked = Asked()
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked.port = listener.getsockname()[1]

        def serve() -> None:
            while True:
                connection, _unused = listener.accept()
                with connection, connection.makefile("r") as lines:
                    if over.is_set():
                        return
                    for line in lines:
                        request = line.rstrip("\n")
                        asked.append(request)
                        for (order, question), text in later.items():
                            if request == order:
                                answers[question] = text
                        connection.sendall(answers.get(request, "ERR UNKNOWN-COMMAND\n").encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            over.set()
            socket.create_connection(("127.0.0.1", asked.port), timeout=5).close()
            thread.join(timeout=5)
    assert not thread.is_alive()


def run(capfd: pytest.CaptureFixture[str], asked: Asked, **options: Any) -> dict[str, Any]:
    given = {
        "_ansible_inject_invocation": True,
        "host": "127.0.0.1",
        "port": asked.port,
        "ups": "ups",
        "username": "admin",
        "password": "s3cret",
        **options,
    }
    with patch_module_args(given), pytest.raises(SystemExit):
        ups_command.main()
    out = capfd.readouterr().out
    assert "s3cret" not in out
    result: dict[str, Any] = json.loads(out)
    return result


def test_successful_command_is_reported_as_changed(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as asked:
        result = run(capfd, asked, command="beeper.mute")
    assert (result["changed"], result["result"], result["command"]) == (True, "success", "beeper.mute")
    assert result["msg"] == "beeper.mute on ups: the driver did it"
    assert asked.orders == ["INSTCMD ups beeper.mute"]


def test_command_is_sent_with_value(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as asked:
        assert run(capfd, asked, command="beeper.mute", value=5)["changed"]
    assert asked.orders == ["INSTCMD ups beeper.mute 5"]


def test_command_refused_by_driver_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(**{"GET TRACKING 1": "ERR FAILED\n"}) as asked:
        result = run(capfd, asked, command="beeper.mute")
    assert (result["failed"], result["changed"], result["result"]) == (True, False, "failed")


def test_command_without_answer_is_pending_and_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(**{"GET TRACKING 1": "PENDING\n"}) as asked:
        result = run(capfd, asked, command="beeper.mute", wait=0)
    assert (result["failed"], result["changed"], result["result"]) == (True, True, "pending")


def test_command_without_tracking_is_unknown(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(**{"INSTCMD ups beeper.mute": "OK\n"}) as asked:
        result = run(capfd, asked, command="beeper.mute", tracking=False)
    assert (result.get("failed", False), result["changed"], result["result"]) == (False, True, "unknown")
    assert any("without tracking" in str(warning) for warning in result["warnings"])
    assert "SET TRACKING ON" not in asked


@pytest.mark.parametrize("options", [{"command": "load.off"}, {"fsd": True}])
def test_order_that_could_cut_power_needs_permission(
    capfd: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    for check in (False, True):
        with serving() as asked:
            result = run(capfd, asked, **options, may_drain_battery=True, _ansible_check_mode=check)
        assert result["failed"] is True
        assert "may_cut_power: true" in result["msg"]
        assert asked == []
    with serving() as asked:
        result = run(capfd, asked, **options, may_cut_power=True)
    assert (result["changed"], result["result"]) == (True, "success")
    assert len(asked.orders) == 1


def test_deep_test_needs_permission(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as asked:
        result = run(capfd, asked, test="deep", may_cut_power=True)
        assert "may_drain_battery: true" in result["msg"]
        result = run(capfd, asked, test="deep", may_drain_battery=True, _ansible_check_mode=True)
        assert (result["changed"], result["command"]) == (True, "test.battery.start.deep")
    assert asked.orders == []


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"command": "BEEPER.mute"}, {"command": "beeper.mute"}),
        ({"test": "quick"}, {"command": "test.battery.start.quick"}),
        ({"fsd": True, "may_cut_power": True}, {}),
        (
            {"variables": {"ups.delay.shutdown": 30, "ups.id": "x"}},
            {
                "variables": [
                    {"name": "ups.delay.shutdown", "before": "20", "after": "30", "seen": None, "result": "planned"}
                ],
                "diff": {"before": {"ups.delay.shutdown": "20"}, "after": {"ups.delay.shutdown": "30"}},
            },
        ),
    ],
)
def test_check_mode_sends_no_order(
    capfd: pytest.CaptureFixture[str], options: dict[str, Any], more: dict[str, Any]
) -> None:
    with serving() as asked:
        result = run(capfd, asked, **options, username=None, password=None, _ansible_check_mode=True)
    assert (result["changed"], result["result"]) == (True, "planned")
    assert {name: result[name] for name in more} == more
    assert "would " in result["msg"]
    assert asked.orders == []


def test_variables_are_set_if_different(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as asked:
        result = run(capfd, asked, variables={"ups.delay.shutdown": 30, "ups.id": "x"})
    assert (result["changed"], result["result"]) == (True, "success")
    assert result["variables"] == [
        {"name": "ups.delay.shutdown", "before": "20", "after": "30", "seen": "30", "result": "success"}
    ]
    assert result["diff"] == {"before": {"ups.delay.shutdown": "20"}, "after": {"ups.delay.shutdown": "30"}}
    assert asked.orders == ["SET VAR ups ups.delay.shutdown 30"]


@pytest.mark.parametrize("check", [False, True])
def test_variables_with_wanted_value_are_not_set(capfd: pytest.CaptureFixture[str], check: bool) -> None:
    with serving() as asked:
        result = run(capfd, asked, variables={"ups.delay.shutdown": 20.0, "ups.id": "x"}, _ansible_check_mode=check)
    assert (result["changed"], result["result"], result["variables"]) == (False, "none", [])
    assert result["msg"] == "ups: all variables have these values already"
    assert asked.orders == []


def test_variable_that_keeps_old_value_fails(capfd: pytest.CaptureFixture[str]) -> None:
    changes = {"GET VAR ups ups.delay.shutdown": 'VAR ups ups.delay.shutdown "20"\n', "GET TRACKING 1": "ERR FAILED\n"}
    with serving(**changes) as asked:
        result = run(capfd, asked, variables={"ups.delay.shutdown": 30})
        assert (result["failed"], result["changed"], result["result"]) == (True, False, "failed")
        result = run(capfd, asked, variables={"ups.delay.shutdown": 30}, tracking=False, wait=0)
        assert (result["failed"], result["changed"], result["result"]) == (True, True, "unknown")
        assert result["variables"][0]["seen"] == "20"


@pytest.mark.parametrize(
    ("value", "words"), [(True, "put the word in quotes"), ([1], "a text or a number"), (None, "a text or a number")]
)
def test_value_without_spelling_in_nut_is_refused(capfd: pytest.CaptureFixture[str], value: object, words: str) -> None:
    with serving() as asked:
        result = run(capfd, asked, variables={"ups.id": value})
    assert words in result["msg"]
    assert asked == []


def test_passed_battery_test(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(**{"INSTCMD ups test.battery.start.quick>LIST VAR ups": PASSED}) as asked:
        result = run(capfd, asked, test="quick")
    assert (result["changed"], result["verdict"], result["test_result"]) == (True, "passed", "Done and passed")
    assert (result["result"], result["seconds"]) == ("success", 0)
    assert result["msg"] == "test.battery.start.quick on ups: passed: the UPS reports 'Done and passed'"
    assert asked.orders == ["INSTCMD ups test.battery.start.quick"]


def test_failed_battery_test_fails_module(capfd: pytest.CaptureFixture[str]) -> None:
    failed = PASSED.replace("passed", "error")
    with serving(**{"INSTCMD ups test.battery.start.quick>LIST VAR ups": failed}) as asked:
        result = run(capfd, asked, test="quick")
    assert (result["failed"], result["changed"], result["verdict"]) == (True, True, "failed")


def test_battery_test_without_result_is_unknown(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as asked:
        result = run(capfd, asked, test="quick", wait=0)
    assert (result.get("failed", False), result["verdict"], result["result"]) == (False, "unknown", "unknown")
    assert any("no sign of a test" in str(warning) for warning in result["warnings"])


def test_battery_test_needs_minimum_charge(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as asked:
        result = run(capfd, asked, test="quick", minimum_charge=96)
        assert "its charge is 95 %" in result["msg"]
        assert run(capfd, asked, test="quick", minimum_charge=95, _ansible_check_mode=True)["changed"]
    assert asked.orders == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "exactly one of command, variables, test and fsd is required; given: none"),
        ({"command": "x", "test": "quick"}, "given: command, test"),
        ({"test": "quick", "fsd": True}, "given: test, fsd"),
        ({"test": "quick", "value": "5"}, "value"),
        ({"test": "long"}, "quick, deep"),
        ({"test": "quick", "password": None}, "username and password are required together"),
        ({"test": "quick", "timeout": 0}, "timeout is 0"),
    ],
)
def test_contradictory_options_fail_module(
    capfd: pytest.CaptureFixture[str], options: dict[str, Any], words: str
) -> None:
    with serving() as asked:
        result = run(capfd, asked, **options)
    assert result["failed"] is True
    assert words in result["msg"]
    assert asked == []


@pytest.mark.parametrize(
    ("request_line", "answer", "words"),
    [
        ("INSTCMD ups beeper.mute", "ERR ACCESS-DENIED\n", "`instcmds = beeper.mute` in the section [admin]"),
        ("PASSWORD s3cret", "PASSWORD s3cret\n", "answered PASSWORD with something"),
        ("LIST CMD ups", "ERR DRIVER-NOT-CONNECTED\n", "the driver of this UPS is not running"),
    ],
)
def test_error_of_upsd_is_explained(
    capfd: pytest.CaptureFixture[str], request_line: str, answer: str, words: str
) -> None:
    with serving(**{request_line: answer}) as asked:
        result = run(capfd, asked, command="beeper.mute")
    assert result["failed"] is True
    assert words in result["msg"]


def test_unreachable_server_fails_module(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = Asked()
        asked.port = listener.getsockname()[1]
    result = run(capfd, asked, command="beeper.mute")
    assert f"upsd at 127.0.0.1:{asked.port} cannot be reached: connection refused" in result["msg"]


def test_default_waits_are_documented() -> None:
    assert (
        "10 for a command and for each variable, 120 for a quick test, and 14400 for a deep"
        in ups_command.DOCUMENTATION
    )
    assert (commands.SECONDS, battery_test.SECONDS) == (10, {"quick": 120, "deep": 14400})
