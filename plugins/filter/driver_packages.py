# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.driver_packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DOCUMENTATION = r"""
name: driver_packages
short_description: List the packages that the drivers of UPSes need
version_added: 0.2.0
description:
  - Reads the drivers in an C(ups.conf), and lists Debian's packages that have them, besides C(nut-server).
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description: The text of the file.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Install the drivers
  ansible.builtin.apt:
    name: "{{ ['nut-server'] + lookup('ansible.builtin.file', 'ups.conf') | homelab.nut.driver_packages }}"
"""

RETURN = r"""
_value:
  description: The names of the packages.
  type: list
  elements: str
  sample: [nut-snmp]
"""


def driver_packages(ups_conf: str) -> list[str]:
    """Return the packages that the drivers in an ups.conf need besides nut-server."""
    from ..module_utils._nut.conf import packages

    return packages.list_packages(ups_conf)


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"driver_packages": driver_packages}
