# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.directives."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

from ..module_utils._nut.conf import directives as table
from ..module_utils._nut.conf import grammar

DOCUMENTATION = r"""
name: directives
short_description: The lines of a NUT configuration file, from its directives and their values
version_added: 0.2.0
description:
  - Writes each directive as the file takes it, C(NAME value), C(name = value) in C(ups.conf), C(NAME=value) in C(nut.conf),
    every word quoted that needs it.
  - A directive whose value is none or empty is left out, so that NUT's own default counts.
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


def _words(value: Any) -> list[str]:
    """Turn what stands behind a directive on one line into words. NUT's yes and no are those of SHUTDOWNEXIT."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [("yes" if one else "no") if isinstance(one, bool) else str(one) for one in values]


def _rows(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a type of event is no text. Put OFF into quotes: YAML takes it for false")
        return [[key, *_words(text)] for key, text in value.items()]
    if isinstance(value, (list, tuple)) and isinstance(value[0], (list, tuple)):
        return list(value)
    return [value]


def _shell(name: str, value: Any) -> str:
    """Write a line of nut.conf, which a shell and systemd read: both know these quotes."""
    text = str(value)
    grammar.encode(text)  # for what it refuses
    return f"{name}={shlex.quote(text)}"


def _lines(name: str, value: Any, file: str) -> list[str]:
    if value is None or (isinstance(value, (str, Sequence, Mapping)) and not value):
        return []
    kind = table.DIRECTIVES[file][name].kind
    if kind in (*table.TRUTHS, "present"):
        value = boolean(value)
        if kind == "present" and not value:
            return []
        value = str(value).lower() if file == "nut.conf" else int(value)
    if file == "nut.conf":
        return [_shell(name, value)]
    sign = " =" if file == "ups.conf" else ""
    return [f"{name}{sign} {grammar.join(_words(row))}" for row in _rows(value)]


def directives(settings: Mapping[str, Any], file: str) -> str:
    """Write the lines of a file. Raises AnsibleFilterError for what NUT could not read back."""
    lines: list[str] = []
    for name, value in settings.items():
        if name not in table.DIRECTIVES[file]:
            raise AnsibleFilterError(f"{file} has no directive {name}")
        try:
            lines += _lines(name, value, file)
        except (grammar.Unencodable, TypeError) as error:
            raise AnsibleFilterError(f"{file}: {name}: {error}") from None
    return "\n".join(lines)


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"directives": directives}
