# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How people spell names and truths."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def suggest(name: object, known: Iterable[str]) -> str:
    """Return "Did you mean X?" with the known name that is nearest to a wrong one; "" if none is near."""
    by_fold = {word.lower(): word for word in known}
    fold = str(name).lower()
    near = [word for word in by_fold if word.startswith(fold)] or difflib.get_close_matches(fold, by_fold, 1, 0.7)
    return f"Did you mean {by_fold[near[0]]}?" if near else ""


def list_words(words: Iterable[str], last: str = "and") -> str:
    """Return words as a list in a sentence: "a", "a and b", "a, b and c". last: the word before the last one."""
    *others, final = words
    return f"{', '.join(others)} {last} {final}" if others else final


def read_truth(value: object) -> bool:
    """Read true, yes, on, 1 and their opposites, in any case. Raises ValueError for anything else."""
    text = str(value).lower()
    if text not in (*_YES, *_NO):
        raise ValueError(f"{value!r} is neither true nor false")
    return text in _YES
