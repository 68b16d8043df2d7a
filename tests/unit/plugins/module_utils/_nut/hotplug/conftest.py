# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import (
    APC,
    HotplugMachine,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[HotplugMachine]:
    with serve_answers({"LIST UPS": "BEGIN LIST UPS\nEND LIST UPS\n"}) as server:
        yield HotplugMachine(tmp_path, server)


@pytest.fixture
def served(machine: HotplugMachine) -> HotplugMachine:
    """A host that serves an APC as [ups]."""
    machine.bus.plug_in("1-1", APC)
    machine.run_hotplug()
    assert machine.status == {}
    assert machine.units["nut-driver@ups.service"] == ("active", "enabled")
    return machine
