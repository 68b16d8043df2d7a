# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.upsd_listening."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DOCUMENTATION = r"""
name: upsd_listening
short_description: List the addresses that upsd listens on
version_added: 0.2.0
description:
  - Reads the LISTEN lines of an C(upsd.conf).
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description: The text of the file.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the ports
  ansible.builtin.debug:
    msg: "{{ lookup('ansible.builtin.file', 'upsd.conf') | homelab.nut.upsd_listening }}"
"""

RETURN = r"""
_value:
  description:
    - C(ports) lists all ports. C(local) lists the ports on which C(upsd) can be reached by a loopback address. C(own) lists the
      addresses that must be configured on the host. C(reachable) is true if other hosts can connect.
  type: dict
  sample:
    ports: [3493]
    local: []
    own: [192.0.2.10]
    reachable: true
"""


def upsd_listening(upsd_conf: str) -> dict[str, Any]:
    """Return the ports and addresses of the LISTEN lines."""
    from ..module_utils._nut.conf import upsd

    ports = [port for _unused, port in upsd.read_listen_lines(upsd_conf)] or [upsd.PORT]
    return {
        "ports": sorted(set(ports)),
        "local": sorted(set(upsd.local_ports(upsd_conf))),
        "own": upsd.own_addresses(upsd_conf),
        "reachable": upsd.is_reachable(upsd_conf),
    }


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"upsd_listening": upsd_listening}
