# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.hosts_of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: hosts_of
short_description: The hosts of an inventory that are primaries or secondaries
version_added: 0.2.0
description:
  - Lists the hosts of one kind, whatever the inventory calls their group (C(nut_groups)).
author:
  - The homelab.nut contributors (@homelab-nut)
positional: hostvars, group
options:
  _input:
    description: The variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  group:
    description:
      - The usual name of the group, such as V(pve) for the primaries.
      - By default all hosts that Ansible logs in to, primaries first.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show the primaries
  ansible.builtin.debug:
    msg: "{{ groups | homelab.nut.hosts_of(hostvars, 'pve') }}"
"""

RETURN = r"""
_value:
  description: Names of hosts.
  type: list
  elements: str
  sample: [pve1, pve2]
"""


def hosts_of(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], group: str = ""
) -> list[str]:
    """Return the hosts of a kind, or all that Ansible logs in to."""
    from ..module_utils._nut import inventory

    with raise_as_filter_error(inventory.InventoryError, KeyError):
        found = inventory.find_groups(groups, hostvars)
        return list(found.hosts[group]) if group else found.list_managed()


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"hosts_of": hosts_of}
