# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serving
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import (
    APC,
    Machine,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with serving({"LIST UPS": "BEGIN LIST UPS\nEND LIST UPS\n"}) as server:
        yield Machine(tmp_path, server)


@pytest.fixture
def served(machine: Machine) -> Machine:
    """A host that serves an APC as [ups]."""
    machine.bus.plug("1-1", APC)
    machine.go()
    assert machine.status == {}
    assert machine.units["nut-driver@ups.service"] == ("active", "enabled")
    return machine
