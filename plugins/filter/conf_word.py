# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.conf_word."""

from __future__ import annotations

DOCUMENTATION = r"""
name: conf_word
short_description: Write a value as one word of a NUT configuration file
version_added: 0.1.0
author: The homelab.nut contributors (@homelab-nut)
description:
  - Puts a value into double quotes and escapes it so that NUT reads back exactly this value.
  - Works for C(ups.conf), C(upsd.conf), C(upsd.users), C(upsmon.conf) and C(upssched.conf), but not for C(nut.conf), which is a
    shell script.
  - Rejects values that NUT would silently change, that is, values with a control character (such as a newline), with a character
    outside ASCII, or with more than 512 characters.
  - Rejects booleans, because each NUT setting has its own words for yes and no.
positional: _input
options:
  _input:
    description: A string or a number.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Write a line of upsmon.conf
  ansible.builtin.debug:
    msg: "SHUTDOWNCMD {{ '/sbin/shutdown -h +0' | homelab.nut.conf_word }}"
    # SHUTDOWNCMD "/sbin/shutdown -h +0"

- name: Write a description with characters that are special to NUT
  ansible.builtin.debug:
    msg: "desc = {{ 'UPS #1 in the \"lab\"' | homelab.nut.conf_word }}"
    # desc = "UPS \#1 in the \"lab\""
"""

RETURN = r"""
_value:
  description: The word in double quotes.
  type: str
"""

from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar

if TYPE_CHECKING:
    from collections.abc import Callable


def conf_word(value: Any) -> str:
    """Return a string or a number as one quoted word. Raises AnsibleFilterError if NUT could not read it back."""
    if isinstance(value, bool):
        raise AnsibleFilterError(
            f"homelab.nut.conf_word: {value} is a boolean, which NUT spells differently for each setting:"
            " write the word that this setting takes, such as 'yes' or 1"
        )
    if not isinstance(value, (str, int, float)):
        raise AnsibleFilterError(f"homelab.nut.conf_word: expected a string or a number, not {type(value).__name__}")
    try:
        return grammar.quote_word(str(value))
    except grammar.Unencodable as error:
        raise AnsibleFilterError(f"homelab.nut.conf_word: NUT could not read this value back: {error}") from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[[Any], str]]:
        return {"conf_word": conf_word}
