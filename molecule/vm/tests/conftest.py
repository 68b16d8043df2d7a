# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures that this scenario's tests share: its machines, freshly deployed for each test."""

from __future__ import annotations

import os

import pytest
import testinfra
from homelab import Lab
from testinfra.host import Host
from vm.client import Vm

RELEASES = (os.environ.get("VM_RELEASES") or "bookworm").split(",")


@pytest.fixture(params=RELEASES)
def vm(request, lab: Lab) -> Vm:
    """Return a deployed machine into which no UPS was ever plugged."""
    machine = Vm(f"vm-{request.param}", lab)
    machine.restore_snapshot("deployed")
    return machine


@pytest.fixture
def host(vm: Vm) -> Host:
    """Return the machine by ssh."""
    return testinfra.get_host(f"ssh://{vm.name}", ssh_config=str(vm.ssh_config), controlpersist=60)
