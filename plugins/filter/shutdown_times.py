# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.shutdown_times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: shutdown_times
short_description: Lines for the inventory, from what a live drill has measured
version_added: 0.2.0
description:
  - Writes the lines that a live drill offers for the inventory. Somebody will paste them there, so only numbers are taken of what the
    managed host has sent; all else is written here, and a name that is not in the inventory is refused.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: primary, secondaries
options:
  _input:
    description: The member C(offers) of what C(nut-shutdown record --show --json) says.
    type: list
    elements: dict
    required: true
  primary:
    description: The name of the primary in the inventory.
    type: str
    required: true
  secondaries:
    description: The names of its secondaries in the inventory.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Offer the measured times for the inventory
  ansible.builtin.debug:
    msg: "{{ (recorded.stdout | from_json).offers | homelab.nut.shutdown_times('pve', ['truenas']) }}"
"""

RETURN = r"""
_value:
  description: The lines, each with the file in which it belongs.
  type: list
  elements: str
  sample: ["host_vars/truenas.yml: nut_client_shutdown_time: 52  # measured 43.2 s, rounded up with 20 % margin"]
"""


def shutdown_times(offers: Sequence[Any], primary: str, secondaries: Iterable[str]) -> list[str]:
    """Write the lines."""
    from ..module_utils._nut.base import records
    from ..module_utils._nut.rehearsal import offers as measured

    try:
        return [offer.inventory_line for offer in measured.read_offers(offers, primary, list(secondaries))]
    except records.RecordError as error:
        raise AnsibleFilterError(f"shutdown_times: {error}") from None


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"shutdown_times": shutdown_times}
