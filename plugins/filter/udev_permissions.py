# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.udev_permissions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .hotplug_policy import hotplug_policy

DOCUMENTATION = r"""
name: udev_permissions
short_description: The devices of a hotplug policy, for udev
version_added: 0.2.0
description:
  - Writes lines of a udev rule that give NUT's drivers the devices that a policy takes for UPSes and that NUT's own rules lack.
  - A pattern can't break such a line. Characters that mean something to udev become wildcards.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description: The policy, as in the variable C(__nut_hotplug_policy). It is checked.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what udev is told
  ansible.builtin.debug:
    msg: "{{ {'patterns': ['1234:*']} | homelab.nut.udev_permissions }}"
"""

RETURN = r"""
_value:
  description: Lines for a file of rules, behind those that leave out all but USB devices.
  type: str
"""


def udev_permissions(policy: Mapping[str, Any]) -> str:
    """Write the lines."""
    from ..module_utils._nut.usb import udev

    return udev.render_permissions(hotplug_policy(policy))


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"udev_permissions": udev_permissions}
