# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.shutdown_site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: shutdown_site
short_description: Describe a primary and its machines for the shutdown plan
version_added: 0.2.0
description:
  - Composes the options C(machines), C(supplies) and C(stages) of M(homelab.nut.shutdown_plan) from the inventory.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: primary, devices, stages
options:
  _input:
    description: The secondaries of the primary, as returned by P(homelab.nut.clients#filter).
    type: list
    elements: dict
    required: true
  primary:
    description: The name of the primary.
    type: str
    required: true
  devices:
    description: The UPSes of the primary, as in the variable C(nut_server_devices).
    type: list
    elements: dict
    required: true
  stages:
    description: What to do before the battery is low, as in the variable C(nut_server_stages).
    type: list
    elements: dict
  monitors:
    description: UPSes of other hosts that the primary monitors, as in the variable C(nut_server_extra_monitors).
    type: list
    elements: dict
  minsupplies:
    description: MINSUPPLIES in C(nut_server_upsmon_conf), if it is set.
    type: int
"""

EXAMPLES = r"""
- name: Show the input of the plan
  ansible.builtin.debug:
    msg: "{{ groups | homelab.nut.clients(hostvars) | homelab.nut.shutdown_site('pve', nut_server_devices) }}"
"""

RETURN = r"""
_value:
  description:
    - A dictionary with C(machines), C(supplies), C(stages) and C(elsewhere), the UPSes of other hosts that keep the primary up when its
      own are low, as in C(timing) of M(homelab.nut.shutdown_plan).
  type: dict
"""


def shutdown_site(
    clients: Sequence[Mapping[str, Any]],
    primary: str,
    devices: Sequence[Mapping[str, Any]],
    stages: Sequence[Mapping[str, Any]] = (),
    *,
    monitors: Sequence[Mapping[str, Any]] = (),
    minsupplies: Any = None,
) -> dict[str, Any]:
    """Return the options of the module shutdown_plan."""
    from ..module_utils._nut import inventory

    with raise_as_filter_error(inventory.InventoryError):
        elsewhere = inventory.list_upses_elsewhere(primary, devices, monitors, minsupplies)
    return {**inventory.plan_site(primary, clients, devices, stages), "elsewhere": elsewhere}


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"shutdown_site": shutdown_site}
