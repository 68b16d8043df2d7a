# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.variable_problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: variable_problems
short_description: Find mistakes in the variables of this collection
version_added: 0.2.0
description:
  - Finds variables that begin with C(nut_server_), C(nut_client_) or C(nut_hotplug_) but that no role has, and unknown keys in variables
    that are dictionaries.
  - Finds logins in C(nut_server_extra_monitors) and C(nut_client_extra_monitors) that C(upsmon) can't send to another host's C(upsd).
author:
  - The homelab.nut contributors (@homelab-nut)
positional: context
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  context:
    description: Names of more variables for each host, such as the variables of the play, which C(hostvars) does not contain.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Check the names of the variables
  ansible.builtin.assert:
    that: hostvars | homelab.nut.variable_problems == []
"""

RETURN = r"""
_value:
  description: One message for each mistake, with the hosts that have it, and for an unknown name the closest known one.
  type: list
  elements: str
  sample:
    - "nas: nut_client_shutdwon_time is not a variable of this collection. Did you mean nut_client_shutdown_time?"
"""


def variable_problems(
    hostvars: Mapping[str, Mapping[str, Any]], context: Mapping[str, Iterable[str]] | None = None
) -> list[str]:
    """Return a message for each variable or key that no role has, and for each login that NUT can't send."""
    from ..plugin_utils.variables import find_problems

    return find_problems(hostvars, context or {})


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"variable_problems": variable_problems}
