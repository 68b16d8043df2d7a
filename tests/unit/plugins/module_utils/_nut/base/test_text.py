# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.text import (
    LINE,
    as_text,
    change_texts,
    one_line,
    printable,
    printable_lines,
    printable_text,
    well_formed,
)
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, find_unfit
from hypothesis import given
from hypothesis import strategies as st


@given(st.text(), st.integers(10, 300))
def test_printable_text_is_short_and_unchanged_if_possible(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    if text.isprintable() and len(text) <= limit:
        assert shown == text


def test_printable_escapes_special_characters() -> None:
    assert printable("a\x1b[31m\n\udc80\u202eb") == "a\\x1b[31m\\n\\udc80\\u202eb"


@pytest.mark.parametrize("text", NASTY)
def test_harmful_characters_are_escaped(text: str) -> None:
    assert not find_unfit(printable(text))
    assert "\n" not in printable(text)
    assert not find_unfit(printable_text(text))


@pytest.mark.parametrize("text", ["\u3164", "\u115f", "\u034f", "\ufe0f", "\U000e0100", "\u2800"])
def test_invisible_characters_are_escaped(text: str) -> None:
    assert text.isprintable()
    assert printable(text).isascii()


def test_escaping_twice_changes_nothing() -> None:
    shown = printable("\x1b\n\u202e\\x1b", 100)
    assert printable(shown, 100) == shown


def test_long_texts_are_cut_before_escaping() -> None:
    assert printable("\x1b" * 50_000_000, 20) == "\\x1b" * 4 + "\\..."
    assert len(printable_lines("\n" * 50_000_000, most=3)) == 4
    assert len(printable_text("x" * 50_000_000)) == LINE


@given(st.text())
def test_printable_text_is_safe_and_idempotent(text: str) -> None:
    shown = printable_text(text)
    assert not find_unfit(shown)
    assert printable_text(shown) == shown


def test_printable_lines_keep_line_breaks() -> None:
    assert printable_lines("a\r\n\tb\n\nc\u2028d") == ["a", "        b", "", "c\\u2028d"]


def test_one_line_joins_lines_with_blanks() -> None:
    assert one_line(" a\r\n\x1c b\x85\u2029c\t") == "a b c"


def test_any_value_becomes_text() -> None:
    deep: list[object] = []
    for _each in range(100_000):
        deep = [deep]
    assert as_text("a") == "a"
    assert as_text(None) == "None"
    assert as_text(10**5000) == "(int)"
    assert as_text(deep) == "(list)"


def test_well_formed_text_has_no_surrogates() -> None:
    assert well_formed("a\udce9\ud800b") == "a\ufffd\ufffdb"
    assert change_texts({"a\ud800": [("\ud800", 1, None)]}, well_formed) == {"a\ufffd": [["\ufffd", 1, None]]}
