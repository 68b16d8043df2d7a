# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.shutdown_picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: shutdown_picture
short_description: The plan of a shutdown as a page for the browser
version_added: 0.2.0
description:
  - Draws a plan as a page of HTML with a timeline, which needs nothing but itself.
  - The plan comes from a managed host, which may answer anything. So the page is made here, from data whose types and sizes are checked,
    with all texts escaped, and with a policy by which the browser runs no script. What is no plan is refused.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: seen
options:
  _input:
    description: The plan, RV(homelab.nut.shutdown_plan#module:plan).
    type: dict
    required: true
  seen:
    description:
      - What was seen of a shutdown, or of its rehearsal, to be drawn beside what is planned.
      - By the name of a machine when it began to go down, and when it was down, in seconds from the trigger on. None for what was not seen.
    type: dict
"""

EXAMPLES = r"""
- name: Draw it
  ansible.builtin.copy:
    content: "{{ plan.plan | homelab.nut.shutdown_picture }}"
    dest: plan.html
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The page.
  type: str
"""


def shutdown_picture(given: Mapping[str, Any], seen: Mapping[str, Any] | None = None) -> str:
    """Draw a plan."""
    from ..module_utils._nut.plan import data, model, picture

    try:
        return picture.draw_page(data.plan_from_dict(given), None if seen is None else picture.read_observed(seen))
    except model.PlanError as error:
        raise AnsibleFilterError(f"shutdown_picture: {error}") from None


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"shutdown_picture": shutdown_picture}
