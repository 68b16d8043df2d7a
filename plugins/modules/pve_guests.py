#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.pve_guests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_guests
short_description: Compute how long a Proxmox VE node with its guests takes to shut down
version_added: 0.2.0
description:
  - For a Proxmox VE node that is a secondary, such as the second node of a cluster on the same UPS. The primary must wait until the
    node's guests have stopped, which takes much longer than the shutdown of an ordinary Linux machine.
  - Reads the guests that run or start at boot, the time that each has for its shutdown, and how many Proxmox VE and its HA stop at a
    time.
  - Warns if O(shutdown_time) or O(shutdown_limit) is less than that. On a host that is no Proxmox VE node, it does nothing.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  name:
    description: The node's name in the inventory, for the warning.
    type: str
    required: true
  primary:
    description: The name of its primary, for the warning.
    type: str
    required: true
  shutdown_time:
    description: How many seconds the primary expects the node to take.
    type: float
    required: true
  shutdown_limit:
    description: How many seconds the primary waits for the node, at most.
    type: float
    required: true
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.read_only
attributes:
  platform:
    platforms: debian
    support: full
"""

EXAMPLES = r"""
- name: Check how long the second node takes
  homelab.nut.pve_guests:
    name: node2
    primary: node1
    shutdown_time: 30
    shutdown_limit: 60
"""

RETURN = r"""
is_node:
  description: Whether the host is a Proxmox VE node.
  returned: always
  type: bool
guests:
  description: The guests that run or start at boot.
  returned: on a Proxmox VE node
  type: list
  elements: str
  sample: [101 web, 102 dns]
usual:
  description: How many seconds the node usually takes to shut down, with its guests.
  returned: on a Proxmox VE node
  type: int
  sample: 60
limit:
  description: How many seconds it may take, until Proxmox VE has stopped all guests by force.
  returned: on a Proxmox VE node
  type: int
  sample: 222
ha:
  description: What high availability does when the node powers off. Empty if it manages no guest.
  returned: on a Proxmox VE node
  type: list
  elements: str
msg:
  description: What is wrong with the times, and what to set. Empty if they suffice.
  returned: always
  type: str
"""

from dataclasses import asdict

from ansible_collections.homelab.nut.plugins.module_utils import _host
from ansible_collections.homelab.nut.plugins.module_utils._command import make_runner
from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import node
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import GuestsError, is_node

SECONDS = 20
"""Time limit for each program that the module runs."""


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            "name": {"type": "str", "required": True},
            "primary": {"type": "str", "required": True},
            "shutdown_time": {"type": "float", "required": True},
            "shutdown_limit": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    if not is_node(_host.ROOT):
        module.exit_json(changed=False, is_node=False, msg="")
    options = module.params
    try:
        times = node.compute_node_times(make_runner(module, SECONDS), _host.ROOT)
    except GuestsError as error:
        message = (
            f"{options['name']} is a Proxmox VE node, and its guests can't be read: {error}. Make sure that nut_client_shutdown_time "
            "has the time that they take"
        )
        module.warn(message)
        module.exit_json(changed=False, is_node=True, msg=message)
    problem, remedy = node.explain_short_times(
        options["name"], options["primary"], times, options["shutdown_time"], options["shutdown_limit"]
    )
    message = f"{problem}. To do: {remedy}" if problem else ""
    for text in (message, *(f"{options['name']}: {remark}" for remark in times.ha)):
        if text:
            module.warn(text)
    module.exit_json(changed=False, is_node=True, msg=message, **asdict(times))


if __name__ == "__main__":
    main()
