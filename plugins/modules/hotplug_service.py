#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.hotplug_service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hotplug_service
short_description: Install or remove the service that watches the USB bus for NUT
version_added: 0.2.0
description:
  - Installs the policy, the units, the udev rule and the logrotate file of C(nut-hotplug) and starts its timer, or removes
    all of them.
  - The role nut_hotplug uses it to do this in one round trip. M(homelab.nut.zipapp) installs the program itself.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) installs O(files).
      - V(absent) removes them, the program and its state. The log stays, and so do the sections it added to C(ups.conf).
    type: str
    choices: [present, absent]
    default: present
  files:
    description:
      - "The files, as a mapping of name to text: V(hotplug.json), V(nut-hotplug.service), V(nut-hotplug.timer),
        V(nut-hotplug-hardening.conf), V(63-nut-hotplug.rules) and V(logrotate)."
      - V(nut-hotplug-hardening.conf) is a drop-in of C(nut-hotplug.service) and may be empty. Before installing it, the
        module tries it on a transient unit that does nothing. If systemd can't apply it, as in some containers, it is
        left out with a warning. Check mode tries nothing and relies on the result of the last run.
      - Required if O(state=present).
    type: dict
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.service
"""

EXAMPLES = r"""
- name: Remove nut-hotplug
  homelab.nut.hotplug_service:
    state: absent
"""

RETURN = r"""
files:
  description: The files that were replaced, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [nut-hotplug.timer]
removed:
  description: The paths that were removed, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/nut-hotplug.timer]
actions:
  description: The commands that were run, or would be in check mode, each with its reason.
  returned: always
  type: list
  elements: str
  sample: ["systemctl start nut-hotplug.timer: not running"]
"""


from ..module_utils import _host
from ..module_utils._command import warn_with_host
from ..module_utils._module import Module
from ..module_utils._nut.deploy import kits
from ..module_utils._service import OPTIONS, REQUIRED_IF, Service


class HotplugService(Service):
    """The service nut-hotplug, which needs a configured primary."""

    def explain_missing(self) -> str:
        """Return what the host lacks and how to get it; "" if nothing."""
        return _host.explain_missing_primary()

    def warn_about_order(self) -> None:
        """Warn that nut-hotplug alone can't be installed."""
        warn_with_host(
            self.module,
            "nut-hotplug would be installed after NUT, which is not there yet. The playbook pve installs both",
        )


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
