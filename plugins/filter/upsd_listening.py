# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.upsd_listening."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DOCUMENTATION = r"""
name: upsd_listening
short_description: Where an C(upsd.conf) makes C(upsd) listen
version_added: 0.2.0
description:
  - Reads the LISTEN lines of an C(upsd.conf), wherever they come from.
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
    - V(ports) are the ports, V(local) those on which the host reaches its own C(upsd) under a
      loopback address, V(own) the addresses that the host must have for itself, and V(reachable) is whether other hosts can connect.
  type: dict
  sample:
    ports: [3493]
    local: []
    own: [192.0.2.10]
    reachable: true
"""


def upsd_listening(upsd_conf: str) -> dict[str, Any]:
    """Read the LISTEN lines."""
    from ..module_utils._nut.conf import upsd

    ports = [port for _unused, port in upsd.read_listen_lines(upsd_conf)] or [upsd.PORT]
    return {
        "ports": sorted(set(ports)),
        "local": sorted(set(upsd.local_ports(upsd_conf))),
        "own": upsd.own_addresses(upsd_conf),
        "reachable": upsd.is_reachable(upsd_conf),
    }


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"upsd_listening": upsd_listening}
