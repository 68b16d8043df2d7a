# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: clients
short_description: The secondaries of an inventory
version_added: 0.1.0
description:
  - Lists the hosts of the groups C(truenas), C(ups_clients) and C(unmanaged), each with the UPS that powers it, its primary in the group
    C(pve), and how it logs in there. With C(nut_groups) the groups have other names.
  - C(managed) is false for a host that Ansible does not log in to.
  - C(present) is false for a host that NUT is taken away from (C(nut_client_state), C(nut_server_state)).
  - Fails if the inventory is inconsistent, for example if a secondary has no primary.
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
- name: Show which UPS powers each secondary
  ansible.builtin.debug:
    msg: "{{ groups | homelab.nut.clients(hostvars) }}"
"""

RETURN = r"""
_value:
  description: One dictionary for each secondary.
  type: list
  elements: dict
  sample:
    - name: truenas
      kind: truenas
      primary: pve
      primary_address: 192.0.2.10
      primary_port: 3493
      ups: ups
      user: truenas
      begin_time: 10
      shutdown_time: 60
      shutdown_limit: 90
      address: 192.0.2.20
      guest: null
      present: true
      managed: true
"""


def clients(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the secondaries of an inventory."""
    from ..module_utils._nut import inventory

    with raise_as_filter_error(inventory.InventoryError):
        return inventory.list_secondaries(groups, hostvars)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"clients": clients}
