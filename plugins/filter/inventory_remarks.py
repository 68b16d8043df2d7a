# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.inventory_remarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: inventory_remarks
short_description: Find hosts of an inventory that are perhaps meant to be secondaries
version_added: 0.2.0
description:
  - Remarks that no host is a secondary, or that a group is called almost like one by which the roles find secondaries.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: hostvars
options:
  _input:
    description: The variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show hosts that are perhaps meant to be secondaries
  ansible.builtin.debug:
    msg: "{{ groups | homelab.nut.inventory_remarks(hostvars) }}"
"""

RETURN = r"""
_value:
  description: Sentences, each with what to change. Empty if there is nothing to remark.
  type: list
  elements: str
"""


def inventory_remarks(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return remarks about hosts that are in none of the groups."""
    from ..module_utils._nut import inventory

    with raise_as_filter_error(inventory.InventoryError):
        return inventory.find_remarks(groups, hostvars)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"inventory_remarks": inventory_remarks}
