# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.nut_host import (
    Place,
)

if TYPE_CHECKING:
    pass


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def unused_port() -> int:
    with serve_answers() as fake:
        return fake.port
