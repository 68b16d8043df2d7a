# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.shutdown_times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: shutdown_times
short_description: Suggest inventory lines with the times that a live drill measured
version_added: 0.2.0
description:
  - Writes lines for the inventory from the shutdown times that a live drill has measured.
  - The lines are meant to be pasted, so only numbers are taken from the managed host. All other text is made on the controller. Fails for
    a name that is not in the inventory.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: primary, secondaries
options:
  _input:
    description: The list C(offers) in the output of C(nut-shutdown record --show --json).
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
- name: Suggest the measured times for the inventory
  ansible.builtin.debug:
    msg: "{{ (recorded.stdout | from_json).offers | homelab.nut.shutdown_times('pve', ['truenas']) }}"
"""

RETURN = r"""
_value:
  description: The lines, each with the file that it belongs in.
  type: list
  elements: str
  sample: ["host_vars/truenas.yml: nut_client_shutdown_time: 52  # measured 43.2 s plus 20 %, rounded up"]
"""


def shutdown_times(offers: Sequence[Any], primary: str, secondaries: Iterable[str]) -> list[str]:
    """Return the lines. Raises AnsibleFilterError for offers that can't be used."""
    from ..module_utils._nut.base import records
    from ..module_utils._nut.rehearsal import offers as measured

    with raise_as_filter_error(records.RecordError, prefix="shutdown_times: "):
        return [offer.inventory_line for offer in measured.read_offers(offers, primary, list(secondaries))]


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"shutdown_times": shutdown_times}
