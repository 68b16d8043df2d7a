# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.status_report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: status_report
short_description: Return the status of all UPSes as data
version_added: 0.2.0
description:
  - Returns what P(homelab.nut.nut_status#filter) shows as data, for other programs.
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
- name: Save the status
  ansible.builtin.copy:
    content: "{{ ansible_play_hosts_all | homelab.nut.status_report(hostvars, groups | homelab.nut.clients(hostvars)) | to_nice_json }}"
    dest: status.json
    mode: "0600"
"""

RETURN = r"""
_value:
  description: C(format) (1) and C(hosts), as described in C(docs/doctor.md).
  type: dict
"""


def status_report(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], clients: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the status of all UPSes as data."""
    from ..module_utils._nut.doctor import status

    return status.build_report(status.collect_answers(hosts, hostvars), clients)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"status_report": status_report}
