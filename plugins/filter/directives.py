# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.directives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: directives
short_description: The lines of a NUT configuration file, from its directives and their values
version_added: 0.2.0
description:
  - Writes each directive as the file takes it, C(NAME value), C(name = value) in C(ups.conf), C(NAME=value) in C(nut.conf),
    every word quoted that needs it.
  - A directive whose value is null or empty is left out, so NUT's default applies.
  - A boolean becomes the words that the file has for it, also if it is given as text, such as C(yes) from the command line.
  - Stops at a directive that the file does not have, and at what NUT would change in silence, as P(homelab.nut.conf_word#filter) does.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: file
options:
  _input:
    description:
      - What stands in the file, in this order. A value that is a list is one line of several words, a list of lists is a line for
        each, and a dictionary is a line for each of its keys.
      - C(CERTIDENT) also takes a dictionary of C(nickname) and C(password), C(CERTHOST) a list of dictionaries of C(host), C(certname),
        C(certverify) and C(forcessl), and C(NOTIFYFLAG) a list of flags for each type of event.
    type: dict
    required: true
  file:
    description: The file's name.
    type: str
    choices: [nut.conf, ups.conf, upsd.conf, upsmon.conf, upssched.conf]
    required: true
seealso:
  - plugin: homelab.nut.conf_word
    plugin_type: filter
  - plugin: homelab.nut.merge_directives
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Lines of upsmon.conf
  ansible.builtin.debug:
    msg: "{{ {'FORCESSL': true, 'OFFDURATION': none, 'NOTIFYMSG': {'ONBATT': '%s: mains lost'}} | homelab.nut.directives('upsmon.conf') }}"
    # FORCESSL 1
    # NOTIFYMSG ONBATT "%s: mains lost"
"""

RETURN = r"""
_value:
  description: The lines, without a newline behind the last.
  type: str
"""


def directives(settings: Mapping[str, Any], file: str) -> str:
    """Write the lines of a file. Raises AnsibleFilterError for what NUT could not read back."""
    from ..module_utils._nut.conf import settings as library

    try:
        return library.write_settings(settings, file)
    except library.SettingsError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"directives": directives}
