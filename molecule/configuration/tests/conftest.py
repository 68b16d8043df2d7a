# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of this scenario."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def inventory() -> Path:
    """Return the inventory of the large site."""
    return Path(__file__).resolve().parents[1] / "inventory"
