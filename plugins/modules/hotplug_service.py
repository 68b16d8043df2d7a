#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.hotplug_service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hotplug_service
short_description: The service that watches the USB bus for NUT
version_added: 0.2.0
description:
  - Puts the policy, the units, the udev rule and the logrotate file of C(nut-hotplug) in place, and starts its timer. Or
    removes all of them.
  - It does in one round trip what the role nut_hotplug needs. The program itself comes by M(homelab.nut.zipapp).
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) puts O(files) in place.
      - V(absent) removes them, the program, and what it remembers. Its log and the sections that it has made in C(ups.conf) stay.
    type: str
    choices: [present, absent]
    default: present
  files:
    description:
      - The files, name to text. V(hotplug.json), V(nut-hotplug.service), V(nut-hotplug.timer), V(nut-hotplug-hardening.conf),
        V(63-nut-hotplug.rules) and V(logrotate).
      - V(nut-hotplug-hardening.conf) is a drop-in of C(nut-hotplug.service), and may be empty. It is tried first, by a unit of its own
        that does nothing. Where systemd can't apply it, as in some containers, it is left out, with a warning. In check mode nothing
        is tried, and what the last run could not apply is left out.
      - Required if O(state=present).
    type: dict
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.service
"""

EXAMPLES = r"""
- name: Remove what watched the USB bus
  homelab.nut.hotplug_service:
    state: absent
"""

RETURN = r"""
files:
  description: The files that were replaced, or would be.
  returned: always
  type: list
  elements: str
  sample: [nut-hotplug.timer]
removed:
  description: The paths that were removed, or would be.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/nut-hotplug.timer]
actions:
  description: The commands that were run, or would be, with the reason.
  returned: always
  type: list
  elements: str
  sample: ["systemctl start nut-hotplug.timer: not running"]
"""


from ..module_utils import _host
from ..module_utils._module import Module
from ..module_utils._nut.deploy import kits
from ..module_utils._service import OPTIONS, REQUIRED_IF, Service


class HotplugService(Service):
    """nut-hotplug, which needs a NUT that serves."""

    def explain_missing(self) -> str:
        """Return what the host must have first, and the remedy; "" if it has all."""
        return _host.explain_missing_primary()


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec=OPTIONS,
        required_if=REQUIRED_IF,
        supports_check_mode=True,
    )
    HotplugService(module, kits.HOTPLUG).run()


if __name__ == "__main__":
    main()
