# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.nut.tests.unit.support.shutdown_host import ShutdownProgram


@pytest.fixture
def program(tmp_path: Path) -> ShutdownProgram:
    """Return nut-shutdown on a host with a policy."""
    made = ShutdownProgram(tmp_path)
    made.write_policy()
    return made
