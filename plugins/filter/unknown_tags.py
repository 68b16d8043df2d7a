# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.unknown_tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

DOCUMENTATION = r"""
name: unknown_tags
short_description: Find tags that a playbook of this collection does not have
version_added: 0.2.0
description:
  - Finds misspelled tags on the command line, which Ansible would silently ignore.
  - Returns an empty list unless the command line names exactly one playbook, and that is a playbook of this collection. A playbook that
    imports one of them may have tags of its own.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: known
options:
  _input:
    description: The requested tags, that is, the variables C(ansible_run_tags) and C(ansible_skip_tags).
    type: list
    elements: str
    required: true
  known:
    description: The tags of the playbook.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Check that the tags exist
  ansible.builtin.assert:
    that: ansible_run_tags | homelab.nut.unknown_tags(['ups', 'hotplug']) == []
"""

RETURN = r"""
_value:
  description: The tags that the playbook does not have, sorted.
  type: list
  elements: str
"""


def unknown_tags(requested: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the requested tags that the running playbook does not have."""
    from ..plugin_utils.command_line import find_unknown_tags

    return find_unknown_tags(requested, known)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"unknown_tags": unknown_tags}
