# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.nut_status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: nut_status
short_description: Show the status of all UPSes on one screen
version_added: 0.2.0
description:
  - Shows each UPS, the machines that are logged in and that a shutdown would wait for, and the latest events.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: hostvars, clients
options:
  _input:
    description: The names of the primaries.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars). The filter reads C(__nut_status) of each primary, the result of M(homelab.nut.doctor).
    type: dict
    required: true
  clients:
    description: The secondaries, as returned by P(homelab.nut.clients#filter).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the status
  ansible.builtin.debug:
    msg: "{{ (ansible_play_hosts_all | homelab.nut.nut_status(hostvars, groups | homelab.nut.clients(hostvars))).splitlines() }}"
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""


def nut_status(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], clients: Sequence[Mapping[str, Any]]
) -> str:
    """Return the status of all UPSes as text."""
    from ..module_utils._nut.doctor import status

    return status.format_status(status.collect_answers(hosts, hostvars), clients)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"nut_status": nut_status}
