# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.extra_lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: extra_lines
short_description: A user's own lines for one of NUT's configuration files
version_added: 0.2.0
description:
  - Takes the text for one file out of a dictionary such as the variable C(nut_server_extra_lines), below a comment that names the variable.
  - Stops at the name of a file that the role does not write.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: file, role
options:
  _input:
    description: The user's lines, by the name of the file.
    type: dict
    required: true
  file:
    description: The file's name.
    type: str
    choices: [nut.conf, ups.conf, upsd.conf, upsd.users, upsmon.conf, upssched.conf]
    required: true
  role:
    description: The role whose variable it is.
    type: str
    choices: [nut_server, nut_client]
    required: true
"""

EXAMPLES = r"""
- name: Lines for upsmon.conf
  ansible.builtin.debug:
    msg: "{{ {'upsmon.conf': 'NEWDIRECTIVE 5'} | homelab.nut.extra_lines('upsmon.conf', 'nut_server') }}"
"""

RETURN = r"""
_value:
  description: The lines after a newline, with a comment above them. Empty if there are none.
  type: str
"""


def extra_lines(given: Mapping[str, Any], file: str, role: str) -> str:
    """Return a user's lines for a file. Raises AnsibleFilterError for a file that the role does not write."""
    from ..module_utils._nut.conf import settings as library

    try:
        return library.take_extra_lines(given, file, role)
    except library.SettingsError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"extra_lines": extra_lines}
