# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter.conf_word import FilterModule

conf_word = FilterModule().filters()["conf_word"]


@pytest.mark.parametrize(
    ("value", "word"), [("ups", '"ups"'), ('UPS #1 "x"', r'"UPS \#1 \"x\""'), (5, '"5"'), (1.5, '"1.5"'), ("", '""')]
)
def test_word_is_quoted_and_escaped(value: Any, word: str) -> None:
    assert conf_word(value) == word


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "True is a boolean"),
        (None, "expected a string or a number, not NoneType"),
        (["a"], "expected a string or a number, not list"),
        ("a\nb", "character 2"),
        ("Büro", "not ASCII"),
        ("x" * 513, "513 characters"),
    ],
)
def test_value_that_nut_would_change_is_refused(value: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        conf_word(value)
