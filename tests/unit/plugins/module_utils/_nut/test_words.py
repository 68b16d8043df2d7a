# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.module_utils._nut.words import printable
from hypothesis import given
from hypothesis import strategies as st


@given(st.text(), st.integers(10, 300))
def test_printable(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    if text.isprintable() and len(text) <= limit:
        assert shown == text


def test_printable_shows_what_it_hides() -> None:
    assert printable("a\x1b[31m\n\udc80\u202eb") == "a\\x1b[31m\\n\\udc80\\u202eb"
