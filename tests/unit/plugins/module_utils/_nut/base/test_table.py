# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.module_utils._nut.base.table import format_grid, wrap_row


def test_column_is_as_wide_as_the_widest_cell() -> None:
    assert format_grid([("name", "s", "why"), ("nas", "60", ""), ("a", "100.5", "x")], "lrl") == [
        "name      s  why",
        "nas      60",
        "a     100.5  x",
    ]


def test_columns_are_left_aligned_by_default() -> None:
    assert format_grid([("a", "bb"), ("aaa", "b")], indent="  ") == ["  a    bb", "  aaa  b"]


def test_table_without_rows_has_no_lines() -> None:
    assert format_grid([]) == []


def test_long_cells_are_wrapped() -> None:
    assert wrap_row(("pve", "a text of some length", ""), (4, 10, 3)) == [
        "pve   a text of",
        "      some",
        "      length",
    ]
    assert wrap_row(("pve", "", "x"), (4, 3, 3)) == ["pve        x"]
