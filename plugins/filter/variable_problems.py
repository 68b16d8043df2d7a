# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.variable_problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: variable_problems
short_description: Variables that no role of this collection knows
version_added: 0.2.0
description:
  - Finds variables of any host that begin with C(nut_server_), C(nut_client_) or C(nut_hotplug_) and are no role's, and unknown keys of
    variables that are dictionaries.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: context
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  context:
    description: Names of further variables, by host, such as those of the play, which C(hostvars) lacks.
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
  description: A message for each unknown name, with the hosts that have it and the nearest known name.
  type: list
  elements: str
  sample:
    - "nas: nut_client_shutdwon_time is not a variable of this collection. Did you mean nut_client_shutdown_time?"
"""


def variable_problems(
    hostvars: Mapping[str, Mapping[str, Any]], context: Mapping[str, Iterable[str]] | None = None
) -> list[str]:
    """List the variables and keys that no role knows."""
    from ..plugin_utils.variables import find_problems

    return find_problems(hostvars, context or {})


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"variable_problems": variable_problems}
