# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables for people, as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

GAP = "  "


def format_grid(rows: Iterable[Sequence[str]], sides: str = "", indent: str = "") -> list[str]:
    """Return rows as lines, each column as wide as its widest cell. sides: "l" or "r" for each column; "l" if not given."""
    cells = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return [indent + _format_row(row, widths, sides) for row in cells]


def wrap_row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return one row as lines, with each cell wrapped to the width of its column."""
    wrapped = [textwrap.wrap(cell, width, break_on_hyphens=False) or [""] for cell, width in zip(cells, widths)]
    lines = range(max(map(len, wrapped)))
    return [_format_row([cell[line] if line < len(cell) else "" for cell in wrapped], widths) for line in lines]


def _format_row(cells: Iterable[str], widths: Iterable[int], sides: str = "") -> str:
    placed = [
        cell.rjust(width) if sides[column : column + 1] == "r" else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths))
    ]
    return GAP.join(placed).rstrip()
