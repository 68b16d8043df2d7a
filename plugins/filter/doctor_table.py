# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.doctor_table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: doctor_table
short_description: Format the doctor's report as a table
version_added: 0.2.0
description:
  - Formats a report as a table, with a summary in the last line. Checks that passed are listed by name only.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: everything, width
options:
  _input:
    description: A report, as returned by P(homelab.nut.doctor_report#filter).
    type: dict
    required: true
  everything:
    description: Whether checks that passed get rows, too.
    type: bool
    default: false
  width:
    description: The maximum width of the table, in characters.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Show the report
  ansible.builtin.debug:
    msg: "{{ (report | homelab.nut.doctor_table).splitlines() }}"
"""

RETURN = r"""
_value:
  description: The table.
  type: str
"""


def doctor_table(report: Mapping[str, Any], everything: bool = False, width: int = 120) -> str:
    """Return a report as a table."""
    from ..module_utils._nut.doctor import findings

    with raise_as_filter_error(KeyError, TypeError, ValueError, prefix="doctor_table: not a report of doctor_report: "):
        findings_read = findings.from_json(report)
    return findings.format_table(findings_read, everything=bool(everything), width=int(width))


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"doctor_table": doctor_table}
