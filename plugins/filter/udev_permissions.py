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
short_description: Write udev rules for the devices of a hotplug policy
version_added: 0.2.0
description:
  - Writes rules that give NUT's drivers access to devices that the policy counts as UPSes and that NUT's own udev rules lack.
  - Replaces characters that are special to udev with wildcards, so that no pattern can break a rule.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description: The policy, as in the variable C(__nut_hotplug_policy). It is checked as by P(homelab.nut.hotplug_policy#filter).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the rules
  ansible.builtin.debug:
    msg: "{{ {'patterns': ['1234:*']} | homelab.nut.udev_permissions }}"
"""

RETURN = r"""
_value:
  description: Lines for a rules file, to be placed after lines that skip everything but USB devices.
  type: str
"""


def udev_permissions(policy: Mapping[str, Any]) -> str:
    """Return the lines of the rules file."""
    from ..module_utils._nut.usb import udev

    return udev.render_permissions(hotplug_policy(policy))


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"udev_permissions": udev_permissions}
