# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: clients
short_description: The secondaries of an inventory
version_added: 0.1.0
description:
  - Says which hosts of the groups C(truenas) and C(ups_clients) hang on which UPS of which host of the group C(pve), and how they log in.
  - Stops where the inventory does not fit together, such as at a secondary without a primary.
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
- name: Show who hangs on which UPS
  ansible.builtin.debug:
    msg: "{{ groups | homelab.nut.clients(hostvars) }}"
"""

RETURN = r"""
_value:
  description: A dictionary for each secondary.
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
"""


def clients(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List the secondaries of an inventory."""
    from ..module_utils._nut import inventory

    try:
        return inventory.list_secondaries(groups, hostvars)
    except inventory.InventoryError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"clients": clients}
