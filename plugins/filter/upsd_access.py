# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.upsd_access."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: upsd_access
short_description: List the hosts that may connect to a primary's upsd
version_added: 0.2.0
description:
  - Derives from the inventory which hosts may connect to the C(upsd) of a primary, and on which addresses it listens by default.
  - These hosts are its secondaries, the hosts that only monitor one of its UPSes (C(nut_server_extra_monitors),
    C(nut_client_extra_monitors)), and the entries of O(allow).
author:
  - The homelab.nut contributors (@homelab-nut)
positional: hostvars, primary, allow
options:
  _input:
    description: The variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  primary:
    description: The name of the primary in the inventory.
    type: str
    required: true
  allow:
    description: Addresses, networks and names, or V(any), as in the variable C(nut_server_allow).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show which hosts may connect
  ansible.builtin.debug:
    msg: "{{ groups | homelab.nut.upsd_access(hostvars, inventory_hostname, ['192.0.2.0/24']) }}"
"""

RETURN = r"""
_value:
  description:
    - C(limited) is true if access is restricted. C(sources) lists the names and addresses of the hosts that may connect. C(listen) lists
      the addresses to listen on, in the form of the variable C(nut_server_listen).
  type: dict
  sample:
    limited: true
    sources:
      - name: truenas
        address: 192.0.2.20
    listen:
      - address: 127.0.0.1
      - address: 192.0.2.10
"""


def upsd_access(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], primary: str, allow: Any = ()
) -> dict[str, Any]:
    """Return the hosts that may connect. Raises AnsibleFilterError for an inconsistent inventory."""
    from ..module_utils._nut import inventory

    with raise_as_filter_error(inventory.InventoryError):
        return inventory.upsd_access(groups, hostvars, primary, allow)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"upsd_access": upsd_access}
