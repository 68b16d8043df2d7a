# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter plugin homelab.nut.inventory_problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

DOCUMENTATION = r"""
name: inventory_problems
short_description: Find contradictions between the machines of an inventory
version_added: 0.2.0
description:
  - Checks that there is a primary, that each secondary has a primary and a UPS, and that a host is in the group by which the roles find it.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: _input, hostvars
options:
  _input:
    description: The variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  host:
    description: A host that a role is applied to.
    type: str
    default: ""
  role:
    description: That role, C(nut_server) or C(nut_client).
    type: str
    default: ""
  sources:
    description: The files of the inventory, C(ansible_inventory_sources), for the message that it has no primary.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Check the machines of the inventory
  ansible.builtin.assert:
    that: groups | homelab.nut.inventory_problems(hostvars) == []
"""

RETURN = r"""
_value:
  description: Messages, each with what to change. Empty if all is well.
  type: list
  elements: str
  sample:
    - "desk is a secondary without a primary: group pve has cellar, attic; set nut_client_primary to one of them"
"""


def inventory_problems(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    host: str = "",
    role: str = "",
    sources: Sequence[str] = (),
) -> list[str]:
    """Return what is wrong with the machines of an inventory."""
    from ..module_utils._nut import inventory

    return inventory.find_problems(groups, hostvars, host, role, sources)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"inventory_problems": inventory_problems}
