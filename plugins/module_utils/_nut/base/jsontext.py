# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JSON that somebody else wrote, or that may be damaged: what comes of it can be worked with, or it is a ValueError."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

# Python reads hundreds of brackets inside of each other, and then fails to write or compare what it has read.
DEPTH = 60
# 64 bits. A longer one may fit no float, and one of a million digits takes older Pythons minutes.
_DIGITS = 20


def parse_json(text: str | bytes, pairs: Callable[[Sequence[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return what a JSON text holds. Raises ValueError, and nothing else, for all that is not plain JSON.

    Lists and objects are at most DEPTH deep. A whole number of more than 64 bits is a float. As Python reads and writes NaN
    and Infinity, to_finite_number() tells whether one can be calculated with. pairs: see json.loads().
    """
    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_int=_parse_whole)
    except RecursionError:
        raise ValueError("too many brackets inside of each other") from None
    level = [value]
    for _floor in range(DEPTH):
        level = [inner for outer in level for inner in _children_of(outer)]
        if not level:
            return value
    raise ValueError("too many brackets inside of each other")


def to_finite_number(value: object) -> float | None:
    """Return a number of JSON or YAML as a float. None for anything else, also for True, NaN and what fits no float."""
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
