# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.shutdown_picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: shutdown_picture
short_description: Draw the plan of a shutdown as an HTML page
version_added: 0.2.0
description:
  - Draws a plan with its timeline as a single self-contained HTML page.
  - The plan comes from a managed host, so it is not trusted. The page is made on the controller from data whose types and sizes have
    been checked. All texts are escaped, and a content security policy keeps the browser from running scripts.
  - Fails for input that is not a plan.
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
      - The times measured in a shutdown or a drill, to be drawn beside the planned ones.
      - For the name of each machine a list of two times, in seconds after the trigger, when the machine began to shut down and when it was
        down. A time that was not observed is none.
    type: dict
"""

EXAMPLES = r"""
- name: Draw the plan
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
    """Return the page for a plan."""
    from ..module_utils._nut.plan import data, model, picture

    with raise_as_filter_error(model.PlanError, prefix="shutdown_picture: "):
        return picture.draw_page(data.plan_from_dict(given), None if seen is None else picture.read_observed(seen))


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"shutdown_picture": shutdown_picture}
