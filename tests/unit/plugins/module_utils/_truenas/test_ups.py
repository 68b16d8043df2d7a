# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test options, plan and prediction, without a transport."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from ansible_collections.homelab.nut.plugins.module_utils._truenas.middleware import OptionError
from ansible_collections.homelab.nut.plugins.module_utils._truenas.ups import (
    SECRETS,
    ServiceState,
    UpsStep,
    WantedSettings,
    breaks_yaml,
    find_graph_problems,
    find_problems,
    plan_steps,
    predict_result,
    redact_settings,
)
from ansible_collections.homelab.nut.tests.unit.support.truenas_replay import RELEASES, Replay
from hypothesis import given
from hypothesis import strategies as st

RUNNING = ServiceState(enable=True, state="RUNNING")
STOPPED = ServiceState(enable=False, state="STOPPED")


def fresh(**settings: Any) -> dict[str, Any]:
    return {**Replay(RELEASES[0]).settings, **settings}


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        *[
            (option, value, reason)
            for option in ("monuser", "monpwd")
            for value, reason in [
                ("", "is empty"),
                ("sec ret", "contains a space"),
                ("sec#ret", "contains a '#'"),
                ("sec\\ret", "contains a backslash"),
                ("sec=ret", "contains a '='"),
                ("sec\tret", "a control character"),
                ('"secret', "begins with a double quote"),
                ("s\u00e9cret", "outside ASCII"),
                ("secret\n", "a control character"),
                ("sec\x00ret", "control character"),
                ("s" * 502, "truncates it after 501"),
                ("s" * 513, "truncates it after 501"),
            ]
        ],
        ("identifier", "", "must not be empty"),
        ("identifier", "ups\n", "must consist of letters"),
        ("identifier", "my ups", "must consist of letters"),
        ("identifier", "ups@pve", "must consist of letters"),
        ("identifier", "\u00fcps", "must consist of letters"),
        ("identifier", "u" * 121, "longer than the 120"),
        ("remotehost", "", "must not be empty"),
        ("remotehost", " ", "contains a space"),
        ("remotehost", "pve\n", "contains a space or a line break"),
        ("remotehost", "fd00::5", "write [fd00::5]"),
        ("remotehost", "::1", "write [::1]"),
        ("remotehost", "[fd00::zz]", "must be a host name"),
        ("remotehost", "[192.0.2.1]", "must be a host name"),
        ("remotehost", "pve.lan:3493", "put it into remoteport"),
        ("remotehost", "ups@pve", "must be a host name"),
        ("remotehost", "http://pve", "must be a host name"),
        ("remotehost", "p\u00fcve", "must be a host name"),
        ("remotehost", "a" * 254, "must be a host name"),
        ("remoteport", 0, "from 1 to 65535"),
        ("remoteport", 65536, "from 1 to 65535"),
        ("shutdowntimer", -1, "from 0"),
        ("hostsync", -1, "from 0"),
        ("nocommwarntime", -1, "from 0"),
        ("shutdowncmd", '/sbin/x "y"', "must be ASCII"),
        ("shutdowncmd", "a\\b", "must be ASCII"),
        ("shutdowncmd", "a # b", "must be ASCII"),
        ("shutdowncmd", "a\nb", "must be ASCII"),
        ("shutdowncmd", "\u00e4", "must be ASCII"),
        ("shutdowncmd", "x" * 256, "longer than the 255"),
        ("driver", "a\nb", "one line"),
        ("port", "auto\n", "one line"),
        ("description", "a\x1bb", "one line"),
        ("extrausers", "a\0b", "NUL"),
        ("options", "a\ud800b", "not UTF-8"),
        ("description", 'my "UPS"', "one line"),
        ("description", "a\\", "one line"),
        ("remotehost", '[fe80::1%a"b]', "must be a host name"),
        ("remotehost", "[fe80::1%\x1b]", "must be a host name"),
        ("remotehost", "[fe80::1%]", "must be a host name"),
        ("remotehost", "fe80::1%eth0", "write [fe80::1%eth0]"),
        ("remoteport", True, "from 1 to 65535"),
        ("hostsync", False, "from 0"),
        ("shutdowntimer", "30", "from 0"),
    ],
)
def test_invalid_values_are_refused(option: str, value: Any, reason: str) -> None:
    (found,) = find_problems({option: value})
    assert found.startswith(f"{option}: ")
    assert reason in found
    assert "secret" not in found


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("monpwd", "Abc-123_x"),
        ("monpwd", "a$b'c;e|f&g!h%i^j*k(l)m"),  # seen to work with the real upsmon
        ("monpwd", "s" * 501),
        ("monuser", "truenas"),
        ("identifier", "My.UPS_1-a"),
        ("remotehost", "pve"),
        ("remotehost", "pve.lan"),
        ("remotehost", "my_host"),
        ("remotehost", "192.0.2.1"),
        ("remotehost", "[fd00::5]"),
        ("remotehost", "[::ffff:192.0.2.1]"),
        ("remotehost", "[fe80::1%eth0.5]"),
        ("remoteport", 1),
        ("remoteport", 65535),
        ("hostsync", 0),
        ("shutdowncmd", ""),
        ("shutdowncmd", "/sbin/shutdown -P now; echo 'x'"),
        ("description", "Unterbrechungsfreie Stromversorgung f\u00fcr alle"),
        ("options", "community = x\nsnmp_version = v2c"),
        ("powerdown", False),
        ("mode", "SLAVE"),
    ],
)
def test_valid_values_are_accepted(option: str, value: Any) -> None:
    assert find_problems({option: value}) == []


@given(st.text(max_size=20))
def test_accepted_login_survives_nut(value: str) -> None:
    """In `MONITOR ups@host 1 user WORD SLAVE` NUT must read an accepted word as one word, letter by letter."""
    if not find_problems({"monpwd": value}):
        (line,) = grammar.parse_lines(f"MONITOR ups@host 1 user {value} SLAVE\n")
        assert line.words == ("MONITOR", "ups@host", "1", "user", value, "SLAVE")


# As TrueNAS 26 was seen to write them: the first ones break its file.
@pytest.mark.parametrize("value", ["*!%^()", "'q'|&d", "{x}[y]", "@at<>?/+", "pw:", "-", "~", "null"])
def test_password_that_breaks_the_graphs_is_found(value: str) -> None:
    assert breaks_yaml(value) is True
    assert find_problems({"monpwd": value}) == []


@pytest.mark.parametrize("value", ["Abc-123_x", 'a"b', "$HOME;x", "a:b,c`d~", "-dash", "1e5", ":x", "?x", "a" * 40])
def test_password_that_keeps_the_graphs_is_not_found(value: str) -> None:
    assert breaks_yaml(value) is False


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12))
def test_other_passwords_keep_the_file_of_the_graphs_valid(value: str) -> None:
    if find_problems({"monpwd": value}) or breaks_yaml(value):
        return
    text = f"jobs:\n  - name: local\n    username: nut\n    password: {value}\n"
    (job,) = yaml.compose(text).value[0][1].value
    assert job.value[-1][1].value == value


@given(st.text(min_size=1, max_size=60))
def test_reasons_never_repeat_a_secret(value: str) -> None:
    marked = f"Canary{value}"
    for found in find_problems({"monpwd": marked, "monuser": "ok"}):
        assert "Canary" not in found


def wanted(present: bool = True, **settings: Any) -> WantedSettings:
    return WantedSettings(present, settings)


SECONDARY = {"mode": "SLAVE", "remotehost": "192.0.2.10", "monuser": "truenas", "monpwd": "x"}


@pytest.mark.parametrize(
    ("current", "service", "goal", "steps"),
    [
        ({}, STOPPED, SECONDARY, [UpsStep("update", SECONDARY), UpsStep("enable"), UpsStep("start")]),
        (SECONDARY, RUNNING, SECONDARY, []),
        (SECONDARY, RUNNING, {"monpwd": "y"}, [UpsStep("update", {"monpwd": "y"}, live=True)]),
        (SECONDARY, ServiceState(False, "RUNNING"), SECONDARY, [UpsStep("enable")]),
        (SECONDARY, ServiceState(True, "STOPPED"), SECONDARY, [UpsStep("start")]),
        (SECONDARY, ServiceState(True, "UNKNOWN"), SECONDARY, [UpsStep("stop"), UpsStep("start")]),
        ({**SECONDARY, "hostsync": 99}, RUNNING, SECONDARY, []),
        ({**SECONDARY, "shutdowncmd": None}, RUNNING, {"shutdowncmd": ""}, []),
        ({**SECONDARY, "nocommwarntime": 0}, RUNNING, {"nocommwarntime": 0}, []),
        ({"driver": "usbhid-ups", "port": "auto"}, RUNNING, {"mode": "MASTER"}, []),
    ],
)
def test_steps_to_the_wanted_settings(
    current: dict[str, Any], service: ServiceState, goal: dict[str, Any], steps: list[UpsStep]
) -> None:
    assert plan_steps(fresh(**current), service, wanted(**goal)) == tuple(steps)


@pytest.mark.parametrize(
    ("changes", "service", "actions"),
    [
        ({}, RUNNING, ["stop", "start"]),
        ({}, STOPPED, ["start"]),
        # TrueNAS restarts the service itself
        ({"hostsync": 99}, RUNNING, ["update"]),
    ],
)
def test_restart_that_is_asked_for_happens_once(
    changes: dict[str, Any], service: ServiceState, actions: list[str]
) -> None:
    enabled = ServiceState(True, service.state)
    goal = WantedSettings(True, {**SECONDARY, **changes}, restart=True)
    assert [step.action for step in plan_steps(fresh(**SECONDARY), enabled, goal)] == actions


@pytest.mark.parametrize(
    ("current", "service", "steps"),
    [
        ({}, STOPPED, []),
        ({}, RUNNING, [UpsStep("stop"), UpsStep("disable")]),
        # A UPS of its own: its login is none of ours.
        ({"driver": "d", "port": "auto", "monpwd": "own"}, RUNNING, [UpsStep("stop"), UpsStep("disable")]),
        (SECONDARY, STOPPED, [UpsStep("update", {"monuser": "upsmon", "monpwd": "fixmepass"})]),
        ({**SECONDARY, "monuser": "upsmon", "monpwd": "fixmepass"}, STOPPED, []),
        # TrueNAS refuses MASTER without both.
        (
            {**SECONDARY, "monuser": "upsmon", "driver": "d", "port": "auto"},
            STOPPED,
            [UpsStep("update", {"mode": "MASTER", "monpwd": "fixmepass"})],
        ),
        ({**SECONDARY, "driver": "d"}, STOPPED, [UpsStep("update", {"monuser": "upsmon", "monpwd": "fixmepass"})]),
    ],
)
def test_steps_to_absent(current: dict[str, Any], service: ServiceState, steps: list[UpsStep]) -> None:
    assert plan_steps(fresh(**current), service, wanted(present=False, mode="SLAVE", monpwd="ignored")) == tuple(steps)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (SECONDARY, []),
        ({**SECONDARY, "monpwd": "*x"}, ["monpwd"]),
        ({**SECONDARY, "monuser": "@x"}, ["monuser"]),
        ({**SECONDARY, "monuser": "null", "monpwd": "x:"}, ["monuser", "monpwd"]),
        ({**SECONDARY, "remotehost": "[fd00::5]"}, ["remotehost"]),
        ({**SECONDARY, "monpwd": None, "monuser": ""}, []),
        # a primary's file has none of them
        ({**SECONDARY, "mode": "MASTER", "monpwd": "*x"}, []),
        ({}, []),
    ],
)
def test_settings_that_break_the_graphs_are_found(settings: dict[str, Any], names: list[str]) -> None:
    assert find_graph_problems(settings) == names


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("service", [RUNNING, STOPPED, ServiceState(False, "UNKNOWN")])
@pytest.mark.parametrize("current", [{}, SECONDARY, {"driver": "d", "port": "p", **SECONDARY}])
def test_predicted_state_needs_no_steps(present: bool, service: ServiceState, current: dict[str, Any]) -> None:
    goal = wanted(present, **SECONDARY, nocommwarntime=0, shutdowncmd="")
    steps = plan_steps(fresh(**current), service, goal)
    assert plan_steps(*predict_result(fresh(**current), service, steps), goal) == ()


@pytest.mark.parametrize(
    "goal", [{"mode": "SLAVE"}, {"mode": "MASTER", "driver": "d"}, {"mode": "MASTER", "port": "p"}]
)
def test_impossible_goal_is_refused(goal: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="required for mode"):
        plan_steps(fresh(), STOPPED, wanted(**goal))


def test_secrets_are_hidden() -> None:
    old, new = fresh(monpwd="one", options="", extrausers="x"), fresh(monpwd="two", options="z", extrausers="x")
    assert {name: redact_settings(old)[name] for name in SECRETS} == {
        "monpwd": "(hidden)",
        "extrausers": "(hidden)",
        "options": "",
        "optionsupsd": "",
    }
    assert {name: redact_settings(new, old)[name] for name in SECRETS} == {
        "monpwd": "(hidden, another value)",
        "extrausers": "(hidden)",
        "options": "(hidden, another value)",
        "optionsupsd": "",
    }
