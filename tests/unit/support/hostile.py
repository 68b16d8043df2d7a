# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a managed host may answer that means harm, for tests of what is shown of it."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

NASTY = (
    "\x1b[2J\x1b]0;pwned\x07",  # clears the screen, renames the window
    "\x9b31m",  # the same in one character
    "\u202etxt.exe\u2066",  # turns the direction of writing round
    "a\u200bb\u2028c\u00ad\u3164",  # nobody sees these, or they end a line
    "\ud800\udc80",  # halves of characters
    "\r\nok: [pve]\x00\x7f\x85",
    "x" * 30_000,
)
texts = st.one_of(st.text(max_size=30), st.sampled_from(NASTY))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([10**400, -(10**400), 2**63, float("inf"), float("nan"), -1, 0, 1e308]),
    st.integers(),
    st.floats(),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


@st.composite
def changed_data(draw: st.DrawFn, data: Any) -> Any:
    """Return data of which some places have another value."""
    made = copy.deepcopy(data)
    for _each in range(draw(st.integers(1, 4))):
        places = list(_list_places(made))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        holder[key] = draw(st.one_of(texts, values) if isinstance(holder[key], str) else values)
    return made


def _list_places(data: Any) -> Any:
    members = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in members:
        yield data, key
        yield from _list_places(value)


def find_unfit(shown: str) -> set[str]:
    """Return the characters of a text that no terminal should get."""
    return {each for each in shown if not each.isprintable() and each != "\n"} | (set(shown) & {"\u3164", "\u115f"})


def make_cases(count: int) -> Iterator[tuple[str, random.Random]]:
    """Yield cases: what each is called, so that it can be had again, and its source of chance.

    They are the same in each run. HOSTILE_TIMES=10 in the environment makes ten times as many, HOSTILE_SEED=1 others.
    """
    seed = os.environ.get("HOSTILE_SEED", "0")
    for number in range(count * int(os.environ.get("HOSTILE_TIMES", "1"))):
        yield f"HOSTILE_SEED={seed}, case {number}", random.Random(f"{seed}/{number}")  # noqa: S311 - to have them again
