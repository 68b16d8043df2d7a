# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts that others have written, for people to read."""

from __future__ import annotations

LIMIT = 200


def printable(text: str, limit: int = LIMIT) -> str:
    """Make a text fit for a terminal and a log: nothing but printable characters, and not more than LIMIT of them."""
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
