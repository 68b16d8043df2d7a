# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.merge_directives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: merge_directives
short_description: Merge a user's settings of a NUT configuration file over a role's
version_added: 0.2.0
description:
  - Checks a user's settings for one of NUT's files, such as the variable C(nut_server_upsmon_conf), and merges them over the role's own.
  - Omits a directive whose value is null or empty, so that NUT's default applies.
  - Fails for a directive that the file does not have, suggesting the closest match, and for a value of the wrong type. The message
    names the variable.
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
    description: The name of the file.
    type: str
    choices: [nut.conf, ups.conf, upsd.conf, upsmon.conf, upssched.conf]
    required: true
  role:
    description: The role that the user's variable belongs to.
    type: str
    choices: [nut_server, nut_client]
    required: true
seealso:
  - plugin: homelab.nut.directives
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show upsmon's settings
  ansible.builtin.debug:
    msg: "{{ nut_server_upsmon_conf | homelab.nut.merge_directives({'POLLFREQ': 5, 'DEADTIME': 15}, 'upsmon.conf', 'nut_server') }}"
  vars:
    nut_server_upsmon_conf: {DEADTIME: null, OFFDURATION: -1}
    # {'POLLFREQ': 5, 'OFFDURATION': -1}
"""

RETURN = r"""
_value:
  description: The merged directives and their values.
  type: dict
"""


def merge_directives(given: Mapping[str, Any], own: Mapping[str, Any], file: str, role: str) -> dict[str, Any]:
    """Return a user's settings merged over a role's own. Raises AnsibleFilterError for an invalid setting."""
    from ..module_utils._nut.conf.settings import SettingsError, merge_settings

    with raise_as_filter_error(SettingsError):
        return merge_settings(given, own, file, role)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"merge_directives": merge_directives}
