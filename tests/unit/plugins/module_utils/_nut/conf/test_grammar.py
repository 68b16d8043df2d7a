# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from hypothesis import given
from hypothesis import strategies as st

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F), max_size=grammar.WORD_LIMIT)
# mostly characters that are special to the parser
TRICKY = st.text(st.one_of(st.sampled_from('"\\#= \n\t\rab[]é\x01\x7f'), st.characters()), max_size=80)


def list_words(text: str) -> list[tuple[str, ...]]:
    return [line.words for line in grammar.parse_lines(text)]


@given(PRINTABLE)
def test_quoted_word_is_read_back(word: str) -> None:
    assert list_words(grammar.quote_word(word) + "\n") == [(word,)]
    assert grammar.find_problems(grammar.quote_word(word) + "\n") == []


@given(st.lists(PRINTABLE, min_size=1, max_size=grammar.WORDS_LIMIT))
def test_joined_words_are_read_back(words: list[str]) -> None:
    line = grammar.join_words(words)
    assert list_words(line + "\n") == [tuple(words)]
    assert "\n" not in line


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("", '""'),
        ("ups", '"ups"'),
        ("UPS #1", r'"UPS \#1"'),
        ('the "lab"', r'"the \"lab\""'),
        ("C:\\", r'"C:\\"'),
        ("a=b", '"a=b"'),
        ("x" * 512, '"' + "x" * 512 + '"'),
    ],
)
def test_word_is_quoted_and_escaped(word: str, written: str) -> None:
    assert grammar.quote_word(word) == written


@pytest.mark.parametrize(
    ("word", "position", "reason"),
    [
        ("a\nb", 1, r"character 2 \(U\+000A\) is a control character"),
        ("\t", 0, "control character"),
        ("ab\x1f", 2, "control character"),
        ("Büro", 1, r"character 2 \(U\+00FC\) is not ASCII"),
        ("\udc80", 0, "not ASCII"),
        ("x" * 513, 512, "513 characters"),
    ],
)
def test_word_that_nut_would_change_is_refused(word: str, position: int, reason: str) -> None:
    with pytest.raises(grammar.Unencodable, match=reason) as caught:
        grammar.quote_word(word)
    assert caught.value.position == position


def test_joined_words_are_quoted_only_if_necessary() -> None:
    assert grammar.join_words(["GET", "VAR", "ups", "ups.status"]) == "GET VAR ups ups.status"
    assert grammar.join_words(["a", "=", "b c", ""]) == 'a "=" "b c" ""'


def test_too_many_and_too_long_words_are_refused() -> None:
    with pytest.raises(grammar.Unencodable, match="33 words"):
        grammar.join_words(["x"] * 33)
    with pytest.raises(grammar.Unencodable, match="513 characters"):
        grammar.join_words(["x" * 513])


# verified with upsd 2.8.0 and 2.8.1
@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", []),
        ("\n \t\n# a comment\n", []),
        ("this is a line\n", [("this", "is", "a", "line")]),
        ('this "is also" a line\r\n', [("this", "is also", "a", "line")]),
        (r"embedded\ space \\ \"" + "\n", [("embedded space", "\\", '"')]),
        ("a=b\na = b\n", [("a", "=", "b"), ("a", "=", "b")]),
        ('"a=b"=c\n', [("a=b", "=", "c")]),
        (r"a\=b" + "\n", [("a=b",)]),
        ("==\n", [("=", "=")]),
        ("a#b c\n", [("a",)]),
        ('a"b c"\n', [('a"b', 'c"')]),
        ('"a"b\n', [("a", "b")]),
        ("'a b'\n", [("'a", "b'")]),
        ('""\n', [("",)]),
        ("one \\\ntwo\n", [("one", "two")]),
        ("one\\\ntwo\n", [("onetwo",)]),
        ("one \\\n two\n", [("one", "", "two")]),
        ('"one\\\ntwo"\n', [("onetwo",)]),
        ('"one\ntwo"\n', [("onetwo",)]),
        ('a "b#c" d\ne\n', [('c"', "d"), ("e",)]),
        ('a "b# c "d\ne" f\n', [("c", "de", "f")]),
        ("Büro b\n", [("Bro", "b")]),
        ("é b\n", [("", "b")]),
        ('"a\tb"\n', [("ab",)]),
        ("a\x7f\n", [("a\x7f",)]),
        ("key = value", [("key", "=", "value")]),
        ('key = "value', [("key", "=", "value")]),
        ("ignorelb", []),
        ("a\nignorelb", [("a",)]),
        ("x" * 600 + " y\n", [("x" * 512, "y")]),
        (" ".join("x" * 40) + "\nz\n", [("x",) * 32, ("z",)]),
    ],
)
def test_lines_are_parsed_as_by_nut(text: str, read: list[tuple[str, ...]]) -> None:
    assert list_words(text) == read


def test_line_number_is_that_of_the_first_line() -> None:
    text = '# first\n\na \\\nb\n"c\nd"\ne "f#g\nh\n'
    assert [(line.number, line.words) for line in grammar.parse_lines(text)] == [
        (3, ("a", "b")),
        (5, ("cd",)),
        (7, ("g",)),
        (8, ("h",)),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('\ndesc = "UPS #1"\n', 2, "needs a backslash"),
        ("\n\nBüro Büro\n", 3, "U\\+00FC"),
        ("a \x01\n", 1, "U\\+0001"),
        ("x" * 513 + "\n", 1, "more than 512 characters"),
        ("x " * 33 + "\n", 1, "more than 32 words"),
        ("a\nignorelb", 2, "without a newline"),
        ('a "b\nc"\n', 1, "open at the end of the line"),
        ('a "b', 1, "open at the end of the file"),
    ],
)
def test_problem_is_found_with_line_number(text: str, line: int, message: str) -> None:
    (problem,) = grammar.find_problems(text)
    assert problem.line == line
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problem.message)


def test_clean_file_has_no_problems() -> None:
    assert grammar.find_problems('[ups]\n    driver = usbhid-ups # yes\n    desc = "UPS \\#1"\n    ignorelb\n') == []


@given(TRICKY)
def test_any_text_can_be_parsed(text: str) -> None:
    for line in grammar.parse_lines(text):
        assert 1 <= line.number <= text.count("\n") + 1
        assert line.words
    grammar.find_problems(text)


@pytest.mark.parametrize("password", ["s3cret", "a'b!$%&*()+,-./:;<>?@^_`{|}~", "[a[b]c]", 'a"b', "x" * 501])
def test_safe_password_is_accepted(password: str) -> None:
    assert grammar.find_password_problem(password) is None
    assert grammar.find_user_problem(password) is None


@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("", "is empty"),
        ("a b", "a space"),
        ("a#b", "a '#'"),
        ("a=b", "a '='"),
        ("a\\b", "a backslash"),
        ('"a"', "begins with a double quote"),
        ("a\tb", "control character"),
        ("hünter2", "outside ASCII"),
        ("x" * 502, "502 characters"),
    ],
)
def test_unsafe_password_is_refused(password: str, message: str) -> None:
    problem = grammar.find_password_problem(password)
    assert problem is not None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problem)
    assert len(password) < 2 or password not in problem
    assert grammar.find_user_problem(password) == problem
