# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.value_problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: value_problems
short_description: Join the mistakes that check_values has found on all hosts
version_added: 0.2.0
description:
  - Returns each mistake once, with the hosts that have it.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: hostvars, names
options:
  _input:
    description: The names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  names:
    description: The variables with the results of M(homelab.nut.check_values).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Check the settings of all hosts
  ansible.builtin.assert:
    that: ansible_play_hosts_all | homelab.nut.value_problems(hostvars, ['checked']) == []
  run_once: true
"""

RETURN = r"""
_value:
  description: One line for each mistake.
  type: list
  elements: str
  sample: ["cellar, attic: DEADTIME in nut_server_upsmon_conf must be a number, not 15s"]
"""


def value_problems(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return each mistake once, with the hosts that have it."""
    from ..plugin_utils.variables import join_problems

    results = {host: [hostvars[host].get(name) for name in names] for host in hosts}
    return join_problems(
        {
            host: [
                str(problem)
                for result in given
                if isinstance(result, Mapping)
                for problem in result.get("problems", ())
            ]
            for host, given in results.items()
        }
    )


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"value_problems": value_problems}
