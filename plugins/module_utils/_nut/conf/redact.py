# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's files without their secrets, for a diff.

A line is shown only if it is known to contain no secret, so that a typo can't put a password into a log.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from . import grammar
from .directives import DIRECTIVES

MARK = "<redacted>"
"""Replaces a secret."""

_SHOWN_WHOLE = frozenset({"nut.conf", "upssched.conf"})
_SECRET_KINDS = ("monitor", "identity", "password")

# The first words of lines without a secret. None: any word that doesn't sound like a secret, because each driver has its own keys.
_HARMLESS: dict[str, frozenset[str] | None] = {
    "ups.conf": None,
    **{
        name: frozenset(
            word.lower() for word, directive in DIRECTIVES[name].items() if directive.kind not in _SECRET_KINDS
        )
        for name in ("upsd.conf", "upsd.users", "upsmon.conf")
    },
}
_SECRET_KEYS = {
    "ups.conf": frozenset({"password", "authpassword", "privpassword", "community"}),
    "upsd.users": frozenset({"password"}),
}
_WITH_SECTIONS = frozenset({"ups.conf", "upsd.users"})
_UPSMON_TYPES = frozenset({"primary", "secondary", "master", "slave"})
_NAMES_A_SECRET = re.compile(r"pass(word|wd|phrase)?|pwd|secret|monitor|certident|community", re.IGNORECASE)
_A_SETTING = re.compile(r"(monitor|certident|password)(=.*)?", re.IGNORECASE)


class _Shown(enum.Enum):
    ALL = enum.auto()
    NOTHING = enum.auto()


def redact_text(file_name: str, text: str) -> str:
    """Return a NUT file for a diff: each secret is replaced by ``<redacted>``, and the rest is unchanged.

    Secrets are the passwords in upsd.users, MONITOR (upsmon.conf) and CERTIDENT (upsmon.conf, upsd.conf), and the logins of
    drivers (ups.conf). A line that is neither clearly one of those nor clearly harmless is replaced as a whole, and so is a
    comment that mentions a secret or follows one. In a file of any other name, all lines are replaced. The number of lines
    stays the same.
    """
    name = file_name.rsplit("/", 1)[-1]
    if name in _SHOWN_WHOLE:
        return text
    if name not in _HARMLESS:
        return re.sub(r"[^\n]*[^\s][^\n]*", MARK, text)
    edits: list[tuple[int, int, str]] = []
    whole: list[tuple[int, int]] = []
    for piece in grammar.scan_text(text).pieces:
        shown = _judge_line(name, piece, text)
        if shown is _Shown.NOTHING:
            whole.append((piece.start, piece.end))
            continue
        if isinstance(shown, grammar.Word):
            edits.append((shown.start, shown.end, MARK))
        if piece.comment is not None:
            beside = isinstance(shown, grammar.Word)
            if beside or _NAMES_A_SECRET.search(text, piece.comment, piece.end):
                edits.append((piece.comment, piece.end, f"# {MARK}"))
    return _replace_spans(text, edits, whole)


def _judge_line(name: str, piece: grammar.Piece, text: str) -> _Shown | grammar.Word:
    """Return whether a line may be shown, or its only word that may not. redact_text() judges the comment."""
    words = tuple(word.text for word in piece.words)
    if piece.after_error:
        return _Shown.NOTHING
    if not words:
        return _Shown.ALL
    code = text[piece.start : piece.end if piece.comment is None else piece.comment]
    if piece.clean and "\n" not in code:
        secret = _find_secret(name, words)
        if secret is not None:
            return piece.words[secret]
        # If a line break was forgotten, this line contains the next setting, too.
        suspect = any(_A_SETTING.fullmatch(word) for word in words[1:])
    else:
        # Open quotes may contain anything.
        suspect = _NAMES_A_SECRET.search(code) is not None or _NAMES_A_SECRET.search(" ".join(words)) is not None
    return _Shown.ALL if not suspect and _is_harmless(name, words) else _Shown.NOTHING


def _is_harmless(name: str, words: tuple[str, ...]) -> bool:
    first = words[0].lower()
    if name in _WITH_SECTIONS and len(words) == 1 and first.startswith("[") and first.endswith("]"):
        return True
    known = _HARMLESS[name]
    return first in known if known is not None else not _NAMES_A_SECRET.search(first)


def _find_secret(name: str, words: tuple[str, ...]) -> int | None:
    """Return the index of the secret if the line has exactly the form of such a setting, otherwise None."""
    first = words[0].lower()
    found = None
    if name in _SECRET_KEYS:
        if first in _SECRET_KEYS[name] and len(words) == 3 and words[1] == "=":
            found = 2
    elif "=" in words:
        pass  # an unquoted password was split
    elif first == "certident" and len(words) == 3:
        found = 2
    elif name == "upsmon.conf" and first == "monitor" and len(words) == 6:
        found = 4 if words[2].isdigit() and words[5].lower() in _UPSMON_TYPES else None
    return found


def _replace_spans(text: str, edits: Sequence[tuple[int, int, str]], whole: Sequence[tuple[int, int]]) -> str:
    """Replace the spans of ``edits``, and every line of the file that a span of ``whole`` touches."""
    result: list[str] = []
    start = 0
    for line in text.split("\n"):
        end = start + len(line)
        if any(first <= end and start <= last for first, last in whole):
            result.append(MARK if line.strip() else line)
        else:
            position, parts = start, []
            for first, last, replacement in edits:
                if start <= first and last <= end:
                    parts += [text[position:first], replacement]
                    position = last
            result.append("".join([*parts, text[position:end]]))
        start = end + 1
    return "\n".join(result)
