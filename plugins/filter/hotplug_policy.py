# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.hotplug_policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: hotplug_policy
short_description: Check a hotplug policy
version_added: 0.2.0
description:
  - Returns the policy unchanged. Fails if C(nut-hotplug) on the host would reject the policy, and lists all mistakes.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description: The policy, as in the variable C(__nut_hotplug_policy).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the policy as the host reads it
  ansible.builtin.debug:
    msg: "{{ __nut_hotplug_policy | homelab.nut.hotplug_policy | to_nice_json }}"
"""

RETURN = r"""
_value:
  description: The same policy.
  type: dict
"""


def hotplug_policy(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the policy. Raises AnsibleFilterError with all its mistakes."""
    from ..module_utils._nut.usb import policy as library

    try:
        library.check_policy(policy)
    except library.UsbPolicyError as error:
        raise AnsibleFilterError(str(error).replace("$.", "nut_hotplug_")) from None
    return policy


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"hotplug_policy": hotplug_policy}
