#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin homelab.nut.check_values."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_values
short_description: Find mistakes in the values of variables
version_added: 0.2.0
description:
  - Evaluates expressions on the controller, and returns the messages of those that fail, such as those of this collection's filters,
    without anything that Ansible adds to them.
  - Nothing runs on the host, and a mistake does not fail the task. P(homelab.nut.value_problems#filter) joins the mistakes of all hosts.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  expressions:
    description: Expressions without braces, such as the name of a variable.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.read_only
attributes:
  async:
    support: none
    details:
      - An action plugin does the work.
  platform:
    platforms: all
    support: full
"""

EXAMPLES = r"""
- name: Find mistakes in the inventory
  homelab.nut.check_values:
    expressions:
      - groups | homelab.nut.clients(hostvars)
  register: checked
  run_once: true

- name: Stop the run once, and not on each host
  ansible.builtin.assert:
    that: checked.problems == []
    fail_msg: "{{ checked.problems | join('; ') }}"
  run_once: true
"""

RETURN = r"""
problems:
  description: The messages of the expressions that fail, each once.
  returned: always
  type: list
  elements: str
  sample: ["desk is a secondary without a primary: group pve has cellar, attic; set nut_client_primary to one of them"]
"""
