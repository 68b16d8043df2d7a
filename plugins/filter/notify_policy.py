# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.notify_policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: notify_policy
short_description: Compose the policy of nut-notify
version_added: 0.2.0
description:
  - Checks who is to be told of which events, with the same code as the host, and returns the policy for C(nut-notify).
  - A message about a mistake names the place of a target, and never its URL.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description: The targets, as in the variable C(nut_server_notify).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Check the targets
  ansible.builtin.assert:
    that: (nut_server_notify | homelab.nut.notify_policy).targets | length > 0
"""

RETURN = r"""
_value:
  description: The policy, for C(/etc/nut/notify.json).
  type: dict
"""


def notify_policy(targets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the policy. Raises AnsibleFilterError if the host would reject it."""
    from ..module_utils._nut.notify import targets as library

    with raise_as_filter_error(library.NotifyPolicyError):
        return library.compose_policy(targets)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"notify_policy": notify_policy}
