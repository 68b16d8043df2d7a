# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.check import TEXT_LIMIT, Checker, read_json
from hypothesis import given
from hypothesis import strategies as st

WORD = re.compile(r"[a-z]+")


class MistakeError(ValueError):
    pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "$: not UTF-8"),
        ("\ud800", "$: not UTF-8"),
        ("{\n", "$: not valid JSON: line 2, column 1"),
        ("[" * 100_000, "$: brackets are nested too deeply"),
        (" " * (TEXT_LIMIT + 1), "$: more than"),
    ],
)
def test_text_that_is_not_json_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(MistakeError) as caught:
        read_json(text, MistakeError)
    assert str(caught.value).startswith(words)


@given(st.text() | st.binary())
def test_any_text_gives_a_value_or_a_mistake(text: str | bytes) -> None:
    with contextlib.suppress(MistakeError):
        read_json(text, MistakeError)


def test_duplicate_member_is_reported_with_the_path() -> None:
    check = Checker()
    check.members("$", read_json('{"a b": 1, "a b": 2, "c": 3}', MistakeError), ())
    assert check.problems == ['$["a b"]: is given twice. Remove one']


def test_unknown_and_missing_members_are_reported() -> None:
    check = Checker()
    given_ = check.members("$", {"name": "x", "odd": 1, 7: 2, "port": None}, ("name", "port", "host"), ("host", "port"))
    assert given_ == {"name": "x", "port": None}
    assert given_.at("name") == ("$.name", "x")
    assert check.problems == [
        "$.odd: is unknown. The known members are name, port, host",
        '$["7"]: is unknown. The known members are name, port, host',
        "$: lacks host",
        "$: lacks port",
    ]


@pytest.mark.parametrize(
    ("method", "value", "rest", "found", "problem"),
    [
        ("number", 3, (0, 5), 3.0, ""),
        ("number", None, (1, 5), 0, ""),
        ("number", True, (0, 5), 0, "must be a number of seconds from 0 to 5"),
        ("number", float("nan"), (0, 5), 0, "must be a number of seconds from 0 to 5"),
        ("number", 10**400, (0, 5), 0, "must be a number of seconds from 0 to 5"),
        ("whole", 3, (1, 5, "a port"), 3, ""),
        ("whole", 3.0, (1, 5, "a port"), 1, "must be a port, a whole number from 1 to 5"),
        ("whole", False, (0, 5, "a port"), 0, "must be a port, a whole number from 0 to 5"),
        ("truth", True, (), True, ""),
        ("truth", 1, (), False, "must be true or false"),
        ("choice", "b", (("a", "b"), "a or b"), "b", ""),
        ("choice", None, (("a", "b"), "a or b"), "a", ""),
        ("choice", [], (("a", "b"), "a or b"), "a", "must be a or b"),
        ("text", "abc", (WORD, "a word"), "abc", ""),
        ("text", "abc\n", (WORD, "a word"), "", "must be a word"),
        ("text", 3, (WORD, "a word"), "", "must be a word"),
        ("texts", ["b", "a", "b"], (WORD, "a word"), ("b", "a"), ""),
        ("texts", "abc", (WORD, "a word"), (), "must be a list"),
        ("entries", ["a", "b"], (1,), [], "has 2 entries, but the limit is 1"),
        ("entries", ("a",), (), [("$.x[0]", "a")], ""),
        ("members", 3, (("a", "b"),), {}, "must be an object with the members a, b"),
    ],
)
def test_value_is_returned_or_reported(method: str, value: Any, rest: Any, found: Any, problem: str) -> None:
    check = Checker()
    assert getattr(check, method)("$.x", value, *rest) == found
    assert check.problems == ([f"$.x: {problem}"] if problem else [])


def test_all_problems_are_raised_at_once() -> None:
    check = Checker()
    check.raise_problems(MistakeError)
    check.differ("$.x", ["a", "b", "a", "", ""])
    check.version(check.members("$", json.loads('{"version": true}'), ("version",)), 1)
    with pytest.raises(MistakeError) as caught:
        check.raise_problems(MistakeError)
    assert str(caught.value) == ("$.x: a is listed twice. Remove one\n$.version: must be 1, the only version")
