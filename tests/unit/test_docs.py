# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pages that are written by programs are up to date."""

from __future__ import annotations

import runpy
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_docs_directives_is_what_the_tables_say() -> None:
    tool = runpy.run_path(str(CHECKOUT / "tools" / "directives.py"))
    assert tool["PAGE"].read_text() == tool["render_page"](), "docs/directives.md is stale: run `make docs`"
