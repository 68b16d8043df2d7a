# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter.upssched import FilterModule

upssched = FilterModule().filters()["upssched"]

SYSTEMS = {"left": "left@localhost:3493", "right": "right@localhost:3493"}
EXECUTE = {"notifytype": "ONLINE", "command": "EXECUTE", "name": "back"}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (EXECUTE, ["ONLINE", "*", "EXECUTE", "back"]),
        ({**EXECUTE, "ups": "*"}, ["ONLINE", "*", "EXECUTE", "back"]),
        ({**EXECUTE, "ups": "right"}, ["ONLINE", "right@localhost:3493", "EXECUTE", "back"]),
        ({**EXECUTE, "ups": "far@away"}, ["ONLINE", "far@away", "EXECUTE", "back"]),
        ({**EXECUTE, "command": "START-TIMER", "seconds": 0}, ["ONLINE", "*", "START-TIMER", "back", 0]),
        ({**EXECUTE, "command": "START-TIMER-SHARED", "seconds": 2}, ["ONLINE", "*", "START-TIMER-SHARED", "back", 2]),
        ({**EXECUTE, "command": "CANCEL-TIMER"}, ["ONLINE", "*", "CANCEL-TIMER", "back"]),
        ({**EXECUTE, "command": "CANCEL-TIMER", "then": "late"}, ["ONLINE", "*", "CANCEL-TIMER", "back", "late"]),
    ],
)
def test_rule_becomes_an_at_line(rule: dict[str, Any], words: list[Any]) -> None:
    assert upssched([rule], SYSTEMS) == {"at": [words], "notifyflag": {"ONLINE": "SYSLOG+WALL+EXEC"}}


def test_no_rules_give_no_flags() -> None:
    assert upssched([], SYSTEMS) == {"at": [], "notifyflag": {}}


def test_flags_of_the_user_are_kept() -> None:
    given = {"ONLINE": ["EXEC"], "FSD": "SYSLOG+WALL", "CAL": ["IGNORE"]}
    assert upssched([EXECUTE, {**EXECUTE, "notifytype": "ONBATT"}], SYSTEMS, given)["notifyflag"] == {
        "ONLINE": "EXEC",
        "FSD": "SYSLOG+WALL",
        "CAL": "IGNORE",
        "ONBATT": "SYSLOG+WALL+EXEC",
    }
    assert given == {"ONLINE": ["EXEC"], "FSD": "SYSLOG+WALL", "CAL": ["IGNORE"]}


@pytest.mark.parametrize(
    ("rule", "flags", "message"),
    [
        (
            {**EXECUTE, "ups": "middle"},
            {},
            "nut_server_upssched_rules: ONLINE EXECUTE back: .*no UPS called middle. Use one of left, right",
        ),
        (EXECUTE, {"ONLINE": ["SYSLOG", "WALL"]}, "NOTIFYFLAG of ONLINE is SYSLOG\\+WALL, and without EXEC"),
        ({**EXECUTE, "name": "early #1"}, {}, "a shell reads 'early #1'"),
        ({**EXECUTE, "command": "CANCEL-TIMER", "then": "$(id)"}, {}, r"a shell reads '\$\(id\)'"),
        (EXECUTE, {"ONLINE": "SYSLOG"}, "NOTIFYFLAG of ONLINE is SYSLOG, and without EXEC"),
        ({**EXECUTE, "command": "START-TIMER"}, {}, "START-TIMER takes seconds"),
        ({**EXECUTE, "seconds": 5}, {}, "EXECUTE takes no seconds"),
        (
            {**EXECUTE, "notifytype": "ONLIN"},
            {},
            "rules: ONLIN: NUT has no such type of notification. Did you mean ONLINE\\?",
        ),
        (
            {**EXECUTE, "command": "EXCUTE"},
            {},
            "rules: ONLINE: upssched has no command 'EXCUTE'. Did you mean EXECUTE\\?",
        ),
        (
            {**EXECUTE, "command": "START-TIMER", "seconds": "soon"},
            {},
            "START-TIMER back needs a whole number of seconds",
        ),
        ({**EXECUTE, "then": "x"}, {}, "only CANCEL-TIMER can have then"),
    ],
)
def test_rule_without_effect_is_refused(rule: dict[str, Any], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        upssched([rule], SYSTEMS, flags)
