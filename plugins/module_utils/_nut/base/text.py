# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes foreign text safe to show.

Text from a device, a peer, a program, a file or a managed host may contain escape sequences, control characters, marks that
reverse the writing direction, or invisible characters. Here, and nowhere else, it is made harmless.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

LIMIT = 200
LINE = 2000
"""Characters per line in a text of several lines."""

LINES = 5000
"""Lines in a text of several lines."""

WHOLE = 1 << 30
"""No limit."""

# str.isprintable() knows controls, format characters (also those of direction), separators, surrogates and what is not assigned.
# It calls these printable, although they show as nothing or as a blank.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str, limit: int = LIMIT) -> str:
    """Return a text as one line that is safe for a terminal and a log: at most LIMIT characters, all printable."""
    # cut first: foreign text may be very long
    shown = _escape_unprintable(text[: limit + 1])
    return shown if len(shown) <= limit and len(text) <= limit else f"{shown[: limit - 3]}..."


def printable_lines(text: str, limit: int = LINE, most: int = LINES) -> list[str]:
    """Return the lines of a text, each safe for a terminal; at most MOST of them. Tabs become blanks."""
    lines = text.split("\n", most)
    shown = [printable(line[: limit + 1].removesuffix("\r").expandtabs(), limit) for line in lines[:most]]
    return [*shown, "..."] if len(lines) > most else shown


def printable_text(text: str, limit: int = LINE, most: int = LINES) -> str:
    """Return a text of several lines, made safe for a terminal."""
    return "\n".join(printable_lines(text, limit, most))


def one_line(text: str) -> str:
    """Return the output of a program or peer as one line, so that none of its lines looks like one of ours."""
    return " ".join(text.split())


def as_text(value: object) -> str:
    """Return any value from an untrusted host as a text."""
    if isinstance(value, str):
        return value
    try:
        return str(value)
    except (ValueError, RecursionError):
        # an integer of thousands of digits; a list in a list in a list
        return f"({type(value).__name__})"


def well_formed(text: str) -> str:
    """Return a text that JSON and UTF-8 can hold: lone surrogates (bytes that were not UTF-8) become U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def change_texts(data: Any, change: Callable[[str], str]) -> Any:
    """Return data with each text in it changed, keys too. Other values stay unchanged."""
    if isinstance(data, str):
        return change(data)
    if isinstance(data, dict):
        return {change_texts(key, change): change_texts(value, change) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [change_texts(value, change) for value in data]
    return data


def _escape_unprintable(text: str) -> str:
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "".join(
        each if each.isprintable() and not _UNSEEN.match(each) else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
