# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.nut_status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: nut_status
short_description: How all UPSes stand, on one screen
version_added: 0.2.0
description:
  - Shows each UPS, who is logged in and would be waited for, and what happened last, in plain words.
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
    description: The variable C(hostvars). Used of each primary is C(__nut_status), the result of M(homelab.nut.doctor).
    type: dict
    required: true
  clients:
    description: The secondaries, as the filter P(homelab.nut.clients#filter) lists them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show it
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
    """Show how all UPSes stand."""
    from ..module_utils._nut.base.text import as_text, one_line
    from ..module_utils._nut.doctor import status

    primaries: dict[str, object] = {}
    for name in hosts:
        result = hostvars[name].get("__nut_status")
        result = result if isinstance(result, Mapping) else {}
        said = one_line(as_text(result.get("msg") or "no answer"))
        seen = result.get("seen", said)
        primaries[name] = f"can't be asked: {said}" if isinstance(seen, str) else seen
    return status.format_status(primaries, clients)


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"nut_status": nut_status}
