# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: code shared by the modules for USB UPSes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import _host
from ._nut.base import paths
from ._nut.hotplug.reconcile import HotplugHost
from ._nut.usb import policy

if TYPE_CHECKING:
    from ._module import Module

POLICY = {"policy": {"type": "dict"}, "policy_path": {"type": "path", "default": f"/{paths.HOTPLUG_POLICY}"}}


def choose_policy(module: Module) -> policy.UsbPolicy:
    """Return the given policy, or else that of the host, or else the default one. Raises policy.UsbPolicyError and OSError."""
    if module.params["policy"] is not None:
        return policy.check_policy(module.params["policy"])
    return policy.read_policy(Path(module.params["policy_path"])) or policy.UsbPolicy()


def make_host(module: Module, rules: policy.UsbPolicy) -> HotplugHost:
    """Return the host that the module runs on."""
    return HotplugHost(
        rules,
        _host.local_nut(module),
        watched_files=(Path(module.params["policy_path"]), _host.ROOT / paths.HOTPLUG_PROGRAM),
    )
