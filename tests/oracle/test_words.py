# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What parseconf writes, NUT reads back; what it refuses to write, NUT would change; and it reads as NUT does."""

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


def bluntly(word: str) -> str:
    """Quote as encode does, but without looking at what is quoted."""
    return '"' + re.sub(r'([\\"#])', r"\\\1", word) + '"'


def descs(nut: Any, written: list[str]) -> list[str]:
    """Let upsd read texts, each as the desc of a section, and tell what it read."""
    text = "".join(f"[w{n}]\ndriver = x\nport = y\ndesc = {one}\n" for n, one in enumerate(written))
    (answer,) = nut.ask("ask_upsd", files={"ups.conf": text}, conversations=[["LIST UPS"]])["answers"]
    lines = [line.words for line in grammar.parse_lines(answer)]
    assert lines[0] == ("BEGIN", "LIST", "UPS")
    assert lines[-1] == ("END", "LIST", "UPS")
    found = {name: desc for _ups, name, desc in lines[1:-1]}
    return [found[f"w{n}"] for n in range(len(written))]


def keys(nut: Any, written: list[str]) -> list[str]:
    """Let drivers read texts, each as a key that no driver knows, and tell what they complain of."""
    files = {"ups.conf": "".join(f"[w{n}]\ndriver = dummy-ups\nport = y\n{one} = 1\n" for n, one in enumerate(written))}
    done = nut.ask("run", files=files, commands=[["dummy-ups", "-a", f"w{n}", "-V"] for n in range(len(written))])
    found = [
        re.search(r"^Fatal error: '(.*)' is not a valid variable name", said, re.MULTILINE) for _code, said in done
    ]
    assert all(found)
    return [one[1] for one in found if one]


@REPEATABLE
@given(st.lists(SHORT, max_size=40), st.lists(LONG, max_size=3))
def test_words_come_back(nut: Any, short: list[str], long: list[str]) -> None:
    assert descs(nut, [grammar.quote_word(word) for word in short]) == short
    assert descs(nut, [grammar.join_words([word]) for word in short]) == short
    assert keys(nut, [grammar.quote_word(word) for word in long]) == long


def test_a_character_is_refused_if_nut_changes_it(nut: Any) -> None:
    characters = [chr(code) for code in (*range(0x180), 0x2028, 0xFEFF, 0x1F50B, *range(0xDC80, 0xDD00))]
    read = descs(nut, [bluntly(f"a{character}b") for character in characters])
    changed = {ord(one) for one, desc in zip(characters, read, strict=True) if desc != f"a{one}b"}
    refused = set()
    for character in characters:
        try:
            grammar.quote_word(f"a{character}b")
        except grammar.Unencodable:
            refused.add(ord(character))
    assert refused == changed


@pytest.mark.parametrize("filler", ["x", '"', "# "])
def test_a_word_is_refused_if_nut_cuts_it(nut: Any, filler: str) -> None:
    longest = (filler * grammar.WORD_LIMIT)[: grammar.WORD_LIMIT]
    with pytest.raises(grammar.Unencodable):
        grammar.quote_word(longest + "x")
    written = [grammar.quote_word(longest), bluntly(longest + "x")]
    assert keys(nut, written) == [longest, longest]
    assert [grammar.parse_lines(f"{one} = 1\n")[0].words[0] for one in written] == [longest, longest]


# of a line that upsd repeats
MUCH = 400
PIECES = [
    *('"', '"', "#", "\\", "\\", "=", " ", " ", "\n", "\n", "\\\n", "\t", "\v", "\f", "\r", "[", "]", "'", "\u00e9", "\x01", "\x7f"),
    *("a", "b c", '"d e"', '\\"', "h " * 31),
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@settings(REPEATABLE, max_examples=300)
@given(TEXTS)
@example("a b " * 33 + "\nc")
@example('a "b c')
def test_parse_reads_words_as_nut_does(nut: Any, text: str) -> None:
    """upsd repeats each line that it knows nothing of, the beginning at least."""
    files = {"ups.conf": "", "upsd.conf": f"LISTEN 127.0.0.1 4000\nALLOW_NO_DEVICE true\n{text}"}
    said = nut.ask("ask_upsd", files=files, conversations=[["LIST UPS"]])["said"]
    told = [line[:MUCH] for line in said.split("\n") if line.startswith("upsd.conf: invalid directive")]
    assert told == [
        " ".join(("upsd.conf: invalid directive", *line.words))[:MUCH] for line in grammar.parse_lines(text)
    ]
