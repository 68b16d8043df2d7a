# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.printable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

DOCUMENTATION = r"""
name: printable
short_description: What a host has said, fit for a terminal
version_added: 0.2.0
description:
  - Returns what a managed host has said as lines in which a terminal finds nothing to obey.
  - Escape sequences, control characters, marks that turn the direction of writing round and characters that nobody sees are spelled,
    as V(\\x1b).
  - Ansible prints some of what a host says as it comes. For tasks that show such texts to people.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description: A text of one or more lines, or a list of such texts. None is no line.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Show what it said
  ansible.builtin.debug:
    msg: "{{ result.stderr | homelab.nut.printable }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""


def printable(said: Any) -> list[str]:
    """Return what was said as lines."""
    from ..module_utils._nut.base import text as base_text

    return [line for text in _texts(said) for line in base_text.printable_lines(base_text.as_text(text).rstrip("\n"))]


def _texts(said: Any, depth: int = 3) -> Iterator[Any]:
    """Yield the texts of a list, also of lists in it: plays put such lists together."""
    if isinstance(said, (list, tuple)) and depth:
        for each in said:
            yield from _texts(each, depth - 1)
    elif said is not None and not isinstance(said, Mapping):
        yield said
    elif isinstance(said, Mapping):
        yield f"({len(said)} values)"


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"printable": printable}
