# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.action.check_values import find_root_message
from ansible_collections.homelab.nut.plugins.filter import value_problems


def raise_wrapped() -> None:
    try:
        try:
            raise ValueError("desk has\nno primary.")
        except ValueError as error:
            raise RuntimeError("the filter failed: desk has no primary.") from error
    except RuntimeError as error:
        raise LookupError("the task failed: the filter failed") from error


def test_root_message_is_that_of_the_first_error() -> None:
    with pytest.raises(LookupError) as caught:
        raise_wrapped()
    assert find_root_message(caught.value) == "desk has no primary"


def test_mistakes_of_all_hosts_are_joined() -> None:
    join = value_problems.FilterModule().filters()["value_problems"]
    hostvars = {
        "a": {"x": {"problems": ["same", "own"]}, "y": {"problems": ["same"]}},
        "b": {"x": {"problems": ["same", "a: known by another"]}, "y": {"skipped": True}},
        "c": {"x": "hostile"},
    }
    assert join(["a", "b", "c"], hostvars, ["x", "y"]) == ["a, b: same", "a: own", "a: known by another"]
    assert join(["c"], hostvars, ["x", "y"]) == []
