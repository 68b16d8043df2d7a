# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.printable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

DOCUMENTATION = r"""
name: printable
short_description: Make a host's output safe to print on a terminal
version_added: 0.2.0
description:
  - Splits a managed host's output into lines, and replaces everything that could control the terminal.
  - Escape sequences, control characters, bidirectional formatting characters and invisible characters become escapes such as
    V(\\x1b).
  - Meant for tasks that show such output, because Ansible prints some of it unfiltered.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description: A text of one or more lines, or a list of such texts. V(none) gives no lines.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Show the error output
  ansible.builtin.debug:
    msg: "{{ result.stderr | homelab.nut.printable }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""


def printable(output: Any) -> list[str]:
    """Return a host's output as lines that are safe to print."""
    from ..module_utils._nut.base import text as base_text
    from ..module_utils._nut.base.commands import spell_commands

    return [
        line
        for text in _flatten_texts(output)
        for line in base_text.printable_lines(spell_commands(base_text.as_text(text).rstrip("\n")))
    ]


def _flatten_texts(output: Any, depth: int = 3) -> Iterator[Any]:
    """Yield the texts of nested lists: plays combine lists of lines."""
    if isinstance(output, (list, tuple)) and depth:
        for element in output:
            yield from _flatten_texts(element, depth - 1)
    elif isinstance(output, Mapping):
        yield f"({len(output)} values)"
    elif output is not None:
        yield output


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"printable": printable}
