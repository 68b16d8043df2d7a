# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.doctor_table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: doctor_table
short_description: What the doctor found, as a table
version_added: 0.2.0
description:
  - Shows a report as a table for people, with a summary in the last line. Checks that are ok are only named.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: everything, width
options:
  _input:
    description: A report, as the filter P(homelab.nut.doctor_report#filter) makes it.
    type: dict
    required: true
  everything:
    description: Whether what is ok has a row, too.
    type: bool
    default: false
  width:
    description: How many columns the table may have.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Show it
  ansible.builtin.debug:
    msg: "{{ (report | homelab.nut.doctor_table).splitlines() }}"
"""

RETURN = r"""
_value:
  description: The table.
  type: str
"""


def doctor_table(report: Mapping[str, Any], everything: bool = False, width: int = 120) -> str:
    """Show a report as a table."""
    from ..module_utils._nut.doctor import findings

    try:
        made = findings.from_json(report)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"doctor_table: this is no report of doctor_report: {error}") from None
    return findings.format_table(made, everything=bool(everything), width=int(width))


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"doctor_table": doctor_table}
