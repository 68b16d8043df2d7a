# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts that others have written, for people to read.

Whatever a device, a peer, a program, a file or a managed host says may hold what a terminal obeys: escape sequences, control
characters, marks that reverse the direction of writing, characters that nobody sees. Here, and nowhere else, it becomes harmless.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

LIMIT = 200
LINE = 2000
"""Of a text of several lines: so many characters a line."""

LINES = 5000
"""And so many lines."""

WHOLE = 1 << 30
"""No limit."""

# str.isprintable() knows controls, format characters (also those of direction), separators, surrogates and what is not assigned.
# These it takes for printable, and they leave nothing, or only a blank, to see.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str, limit: int = LIMIT) -> str:
    """Return a text as one line that is fit for a terminal and a log: printable characters only, and at most LIMIT of them."""
    # cut first: what others say may be long
    shown = _escape_unprintable(text[: limit + 1])
    return shown if len(shown) <= limit and len(text) <= limit else f"{shown[: limit - 3]}..."


def printable_lines(text: str, limit: int = LINE, most: int = LINES) -> list[str]:
    """Return the lines of a text, each fit for a terminal; at most MOST of them. Tabs become blanks."""
    lines = text.split("\n", most)
    shown = [printable(line[: limit + 1].removesuffix("\r").expandtabs(), limit) for line in lines[:most]]
    return [*shown, "..."] if len(lines) > most else shown


def printable_text(text: str, limit: int = LINE, most: int = LINES) -> str:
    """Return a text of several lines that is fit for a terminal."""
    return "\n".join(printable_lines(text, limit, most))


def one_line(text: str) -> str:
    """Return what a program or a peer said as one line, so that no line of its own can be taken for one of ours."""
    return " ".join(text.split())


def as_text(value: object) -> str:
    """Return what should be a text, and comes from a host that may send anything, as a text."""
    if isinstance(value, str):
        return value
    try:
        return str(value)
    except (ValueError, RecursionError):
        # an integer of thousands of digits; a list in a list in a list
        return f"({type(value).__name__})"


def well_formed(text: str) -> str:
    """Return a text that JSON and UTF-8 can hold: halves of characters, which stand for bytes that are no UTF-8, get a mark."""
    return _SURROGATE.sub("\ufffd", text)


def change_texts(data: Any, change: Callable[[str], str]) -> Any:
    """Return data with each text in it changed, keys too. What is no text, list or dictionary stays as it is."""
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
