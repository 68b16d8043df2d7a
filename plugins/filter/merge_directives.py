# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.merge_directives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: merge_directives
short_description: A role's settings of a NUT configuration file, with the user's in their place
version_added: 0.2.0
description:
  - Checks what a user sets of one of NUT's files, such as the variable C(nut_server_upsmon_conf), and merges it over the role's own values.
  - A directive whose value is null or empty is left out, so NUT's default applies.
  - Stops at a directive that the file does not have, suggesting the nearest one, and at a value that is not of its directive's kind. The
    message names the variable.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: own, file, role
options:
  _input:
    description: The user's settings.
    type: dict
    required: true
  own:
    description: The role's own settings.
    type: dict
    required: true
  file:
    description: The file's name.
    type: str
    choices: [nut.conf, ups.conf, upsd.conf, upsmon.conf, upssched.conf]
    required: true
  role:
    description: The role whose variable holds the user's settings.
    type: str
    choices: [nut_server, nut_client]
    required: true
seealso:
  - plugin: homelab.nut.directives
    plugin_type: filter
"""

EXAMPLES = r"""
- name: What counts for upsmon
  ansible.builtin.debug:
    msg: "{{ nut_server_upsmon_conf | homelab.nut.merge_directives({'POLLFREQ': 5, 'DEADTIME': 15}, 'upsmon.conf', 'nut_server') }}"
  vars:
    nut_server_upsmon_conf: {DEADTIME: null, OFFDURATION: -1}
    # {'POLLFREQ': 5, 'OFFDURATION': -1}
"""

RETURN = r"""
_value:
  description: The directives and their values.
  type: dict
"""


def merge_directives(given: Mapping[str, Any], own: Mapping[str, Any], file: str, role: str) -> dict[str, Any]:
    """Merge a user's settings over a role's own. Raises AnsibleFilterError for what the file can't have."""
    from ..module_utils._nut.conf import settings as library

    try:
        return library.merge_settings(given, own, file, role)
    except library.SettingsError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"merge_directives": merge_directives}
