# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.extra_lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: extra_lines
short_description: Write a user's own lines for a NUT configuration file
version_added: 0.2.0
description:
  - Takes the lines for one file from the variable C(nut_server_extra_lines) or C(nut_client_extra_lines), and puts a comment with the
    variable's name above them.
  - Fails for the name of a file that the role does not write.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: file, role
options:
  _input:
    description: The user's lines, by file name.
    type: dict
    required: true
  file:
    description: The name of the file.
    type: str
    choices: [nut.conf, ups.conf, upsd.conf, upsd.users, upsmon.conf, upssched.conf]
    required: true
  role:
    description: The role that the variable belongs to.
    type: str
    choices: [nut_server, nut_client]
    required: true
"""

EXAMPLES = r"""
- name: Write lines for upsmon.conf
  ansible.builtin.debug:
    msg: "{{ {'upsmon.conf': 'NEWDIRECTIVE 5'} | homelab.nut.extra_lines('upsmon.conf', 'nut_server') }}"
"""

RETURN = r"""
_value:
  description: A newline, the comment and the lines; empty if there are no lines for this file.
  type: str
"""


def extra_lines(given: Mapping[str, Any], file: str, role: str) -> str:
    """Return a user's lines for a file. Raises AnsibleFilterError if the role does not write such a file."""
    from ..module_utils._nut.conf.settings import SettingsError, take_extra_lines

    with raise_as_filter_error(SettingsError):
        return take_extra_lines(given, file, role)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"extra_lines": extra_lines}
