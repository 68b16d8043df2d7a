# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads JSON that is foreign or may be damaged: the result is safe to work with, or a ValueError is raised."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

# Python reads hundreds of nested brackets, but then fails to write or compare the result.
DEPTH = 60
# 64 bits. A longer one may fit no float, and one of a million digits takes older Pythons minutes.
_DIGITS = 20


def parse_json(text: str | bytes, pairs: Callable[[Sequence[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the value of a JSON text. Raise ValueError, and nothing else, if it is not plain JSON.

    Lists and objects are at most DEPTH deep. A whole number of more than 64 bits is a float. Python accepts NaN
    and Infinity: use to_finite_number() before calculating. pairs: object_pairs_hook of json.loads().
    """
    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_int=_parse_whole)
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None
    level = [value]
    for _floor in range(DEPTH):
        level = [inner for outer in level for inner in _children_of(outer)]
        if not level:
            return value
    raise ValueError("brackets are nested too deeply")


def to_finite_number(value: object) -> float | None:
    """Return a number from JSON or YAML as a float; None for anything else, including True, NaN and what does not fit a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _children_of(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _parse_whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)
