# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.directives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: directives
short_description: Write a NUT configuration file from its directives and their values
version_added: 0.2.0
description:
  - Writes each directive in the syntax of its file, that is, C(name = value) in C(ups.conf), C(NAME=value) in C(nut.conf), and
    C(NAME value) in all others. Quotes words where necessary.
  - Omits a directive whose value is null or empty, so that NUT's default applies.
  - Writes a boolean as the file spells it, even if it is given as text, such as C(yes) from the command line.
  - Fails for a directive that the file does not have, and for a value that NUT would silently change (see
    P(homelab.nut.conf_word#filter)).
author:
  - The homelab.nut contributors (@homelab-nut)
positional: file
options:
  _input:
    description:
      - The directives and their values, in the order of the file. A list becomes one line of several words, a list of lists one line
        each, and a dictionary one line for each key.
      - C(CERTIDENT) also takes a dictionary with C(nickname) and C(password), C(CERTHOST) a list of dictionaries with C(host),
        C(certname), C(certverify) and C(forcessl), and C(NOTIFYFLAG) a list of flags for each type of event.
    type: dict
    required: true
  file:
    description: The name of the file.
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
- name: Write lines of upsmon.conf
  ansible.builtin.debug:
    msg: "{{ {'FORCESSL': true, 'OFFDURATION': none, 'NOTIFYMSG': {'ONBATT': '%s: mains lost'}} | homelab.nut.directives('upsmon.conf') }}"
    # FORCESSL 1
    # NOTIFYMSG ONBATT "%s: mains lost"
"""

RETURN = r"""
_value:
  description: The lines, without a trailing newline.
  type: str
"""


def directives(settings: Mapping[str, Any], file: str) -> str:
    """Return the lines of a file. Raises AnsibleFilterError if NUT could not read them back."""
    from ..module_utils._nut.conf.settings import SettingsError, write_settings

    with raise_as_filter_error(SettingsError):
        return write_settings(settings, file)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"directives": directives}
