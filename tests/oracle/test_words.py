# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""conf/grammar: NUT reads back what it writes, would change what it refuses, and parses texts the same way."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from hypothesis import example, given, settings
from hypothesis import strategies as st

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=100)

CHARACTERS = st.one_of(st.sampled_from('"#\\= '), st.characters(min_codepoint=0x20, max_codepoint=0x7F))
SHORT = st.text(CHARACTERS, max_size=60)
LONG = st.builds(lambda text, length: (text * length)[:length], st.text(CHARACTERS, min_size=1), st.integers(400, 512))


def quote_unchecked(word: str) -> str:
    """Quote a word like quote_word, but without checking it."""
    return '"' + re.sub(r'([\\"#])', r"\\\1", word) + '"'


def read_as_descriptions(nut: Any, written: list[str]) -> list[str]:
    """Return texts as upsd reads them in the `desc` of sections."""
    text = "".join(f"[w{n}]\ndriver = x\nport = y\ndesc = {text}\n" for n, text in enumerate(written))
    (answer,) = nut.call_inside("ask_upsd", files={"ups.conf": text}, conversations=[["LIST UPS"]])["answers"]
    lines = [line.words for line in grammar.parse_lines(answer)]
    assert lines[0] == ("BEGIN", "LIST", "UPS")
    assert lines[-1] == ("END", "LIST", "UPS")
    found = {name: desc for _ups, name, desc in lines[1:-1]}
    return [found[f"w{n}"] for n in range(len(written))]


def read_as_keys(nut: Any, written: list[str]) -> list[str]:
    """Return texts as drivers read them as unknown keys, from the drivers' error messages."""
    files = {
        "ups.conf": "".join(f"[w{n}]\ndriver = dummy-ups\nport = y\n{text} = 1\n" for n, text in enumerate(written))
    }
    done = nut.call_inside(
        "run_programs", files=files, commands=[["dummy-ups", "-a", f"w{n}", "-V"] for n in range(len(written))]
    )
    found = [
        re.search(r"^Fatal error: '(.*)' is not a valid variable name", output, re.MULTILINE) for _code, output in done
    ]
    assert all(found)
    return [match[1] for match in found if match]


@REPEATABLE
@given(st.lists(SHORT, max_size=40), st.lists(LONG, max_size=3))
def test_nut_reads_back_quoted_words(nut: Any, short: list[str], long: list[str]) -> None:
    assert read_as_descriptions(nut, [grammar.quote_word(word) for word in short]) == short
    assert read_as_descriptions(nut, [grammar.join_words([word]) for word in short]) == short
    assert read_as_keys(nut, [grammar.quote_word(word) for word in long]) == long


def test_characters_are_refused_exactly_if_nut_changes_them(nut: Any) -> None:
    characters = [chr(code) for code in (*range(0x180), 0x2028, 0xFEFF, 0x1F50B, *range(0xDC80, 0xDD00))]
    read = read_as_descriptions(nut, [quote_unchecked(f"a{character}b") for character in characters])
    changed = {ord(character) for character, desc in zip(characters, read, strict=True) if desc != f"a{character}b"}
    refused = set()
    for character in characters:
        try:
            grammar.quote_word(f"a{character}b")
        except grammar.Unencodable:
            refused.add(ord(character))
    assert refused == changed


@pytest.mark.parametrize("filler", ["x", '"', "# "])
def test_words_that_nut_would_cut_are_refused(nut: Any, filler: str) -> None:
    longest = (filler * grammar.WORD_LIMIT)[: grammar.WORD_LIMIT]
    with pytest.raises(grammar.Unencodable):
        grammar.quote_word(longest + "x")
    written = [grammar.quote_word(longest), quote_unchecked(longest + "x")]
    assert read_as_keys(nut, written) == [longest, longest]
    assert [grammar.parse_lines(f"{word} = 1\n")[0].words[0] for word in written] == [longest, longest]


# characters of an unknown line that upsd's message repeats
REPEATED_LENGTH = 400
PIECES = [
    *('"', '"', "#", "\\", "\\", "=", " ", " ", "\n", "\n", "\\\n", "\t", "\v", "\f", "\r", "[", "]", "'", "\u00e9", "\x01", "\x7f"),
    *("a", "b c", '"d e"', '\\"', "h " * 31),
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@settings(REPEATABLE, max_examples=300)
@given(TEXTS)
@example("a b " * 33 + "\nc")
@example('a "b c')
def test_parse_lines_splits_words_as_nut_does(nut: Any, text: str) -> None:
    """upsd's messages repeat the beginning of each unknown line."""
    files = {"ups.conf": "", "upsd.conf": f"LISTEN 127.0.0.1 4000\nALLOW_NO_DEVICE true\n{text}"}
    output = nut.call_inside("ask_upsd", files=files, conversations=[["LIST UPS"]])["output"]
    reported = [
        line[:REPEATED_LENGTH] for line in output.split("\n") if line.startswith("upsd.conf: invalid directive")
    ]
    assert reported == [
        " ".join(("upsd.conf: invalid directive", *line.words))[:REPEATED_LENGTH] for line in grammar.parse_lines(text)
    ]
