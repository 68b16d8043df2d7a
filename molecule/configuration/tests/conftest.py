# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures that this scenario's tests share: its inventory, and the primary's variables there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="session")
def inventory() -> Path:
    """Return the inventory of the large site."""
    return Path(__file__).resolve().parents[1] / "inventory"


@pytest.fixture(scope="session")
def site(inventory: Path) -> dict[str, Any]:
    """Return the variables of the primary in the inventory."""
    variables: dict[str, Any] = yaml.safe_load((inventory / "group_vars" / "pve.yml").read_text())
    return variables
