# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks_others import (
    judge_login,
    judge_skew,
    judge_truenas,
    judge_unexamined,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    UNKNOWN,
    WARNING,
)


@pytest.mark.parametrize(
    ("ahead", "unsure", "verdict"),
    [(0.2, 1, OK), (5.9, 1, OK), (-7, 1, NOTE), (62, 1, WARNING), (-70, 1, WARNING), (70, 30, NOTE)],
)
def test_skew_is_judged_beyond_measuring_error(ahead: float, unsure: float, verdict: str) -> None:
    found = judge_skew("pve", ahead, unsure)
    assert (found.check, found.host, found.verdict) == ("skew", "pve", verdict)
    if verdict != OK:
        assert ("behind" in found.seen) == (ahead < 0)


def test_truenas_matching_inventory_is_ok() -> None:
    found = judge_truenas("nas", {"actions": [], "service": {}, "version": "25.10.1"})
    assert [(finding.check, finding.verdict) for finding in found] == [("settings", OK), ("service", OK)]
    assert "25.10.1" in found[0].seen


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            {"actions": ["set monpwd, shutdown; TrueNAS restarted its UPS service"], "service": {}},
            [("settings", FAILURE, "differ from the inventory: monpwd, shutdown"), ("service", OK, "")],
        ),
        (
            {"actions": ["started the UPS service"], "service": {}},
            [("settings", OK, ""), ("service", FAILURE, "is not running")],
        ),
        (
            {"actions": ["enabled the UPS service on boot"], "service": {}},
            [("settings", OK, ""), ("service", WARNING, "does not start at boot")],
        ),
        ({"failed": True, "msg": "login refused: wrong API key"}, [("settings", UNKNOWN, "wrong API key")]),
        # as Ansible stores the failure of a task with failed_when: false
        (
            {"failed": False, "failed_when_result": False, "actions": [], "msg": "login refused: wrong API key"},
            [("settings", UNKNOWN, "wrong API key")],
        ),
        ({"unreachable": True, "msg": "no route"}, [("settings", UNKNOWN, "no route")]),
        ({"skipped": True}, [("settings", UNKNOWN, "not queried")]),
    ],
)
def test_truenas_differences_are_reported(result: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    found = judge_truenas("nas", result)
    assert [(finding.check, finding.verdict) for finding in found] == [
        (check, verdict) for check, verdict, _words in expected
    ]
    assert all(words in finding.seen for finding, (_check, _verdict, words) in zip(found, expected))


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({"missing_clients": []}, OK),
        ({"missing_clients": ["nas"]}, FAILURE),
        ({"failed": True, "msg": "no"}, UNKNOWN),
        ({"unreachable": True}, UNKNOWN),
    ],
)
def test_login_is_judged_by_result_of_primary(result: dict[str, Any], verdict: str) -> None:
    found = judge_login("pve", "nas", result)
    assert [(finding.check, finding.host, finding.verdict) for finding in found] == [("login", "nas", verdict)]


@pytest.mark.parametrize(
    ("result", "check", "words"),
    [
        (None, "reachable", "no answer"),
        (
            {"unreachable": True, "msg": "Failed to connect\nto the host"},
            "reachable",
            "can't be reached: Failed to connect to the host",
        ),
        ({"failed": True, "msg": "/bin/sh: 1: /usr/bin/python3: not found"}, "python", "no Python"),
        (
            {"failed": True, "msg": "the group pve is empty"},
            "reachable",
            "could not be checked: the group pve is empty",
        ),
    ],
)
def test_unexamined_host_is_a_failure_with_reason(result: dict[str, Any] | None, check: str, words: str) -> None:
    found = judge_unexamined("pve", result)
    assert (found.check, found.verdict) == (check, FAILURE)
    assert words in found.seen
