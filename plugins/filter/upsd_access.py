# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.upsd_access."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: upsd_access
short_description: Who may connect to a primary's C(upsd)
version_added: 0.2.0
description:
  - Works out from the inventory who connects to the C(upsd) of a primary, and where that listens if nobody says so.
  - These are its secondaries, the hosts that only watch one of its UPSes (C(nut_server_extra_monitors), C(nut_client_extra_monitors)), and
    what is allowed besides.
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
    description: What the variable C(nut_server_allow) has. Addresses, networks and names, or V(any).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show who may connect
  ansible.builtin.debug:
    msg: "{{ groups | homelab.nut.upsd_access(hostvars, inventory_hostname, ['192.0.2.0/24']) }}"
"""

RETURN = r"""
_value:
  description:
    - V(limited) is whether anybody is refused, V(sources) are names and addresses of those who are let in, and V(listen) is where it
      listens, as C(nut_server_listen).
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
    """Work out who may connect."""
    from ..module_utils._nut import inventory

    try:
        return inventory.upsd_access(groups, hostvars, primary, allow)
    except inventory.InventoryError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"upsd_access": upsd_access}
