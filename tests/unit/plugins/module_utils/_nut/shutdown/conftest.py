# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.tests.unit.support.stages_world import StagesWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[StagesWorld]:
    made = StagesWorld(tmp_path)
    yield made
    made.kill_program()
    made.host.kill_all()
