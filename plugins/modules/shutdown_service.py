#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.shutdown_service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shutdown_service
short_description: Install nut-shutdown, which powers off a primary after the other machines are down
version_added: 0.2.0
description:
  - Installs or removes the policy, the systemd units and drop-ins, and the logrotate and tmpfiles.d files of C(nut-shutdown).
    The role nut_server uses it. M(homelab.nut.zipapp) installs the program itself.
  - C(nut-shutdown.service) is not started here. C(upsmon) starts it as its SHUTDOWNCMD; it waits until the other machines are
    down, then powers off the host.
  - C(nut-stages.service), if given, is started. It watches the UPS and runs the stages of the policy.
  - C(nut-watch.service) is started. It watches C(upsd), and unblocks or restarts it when it hangs.
  - A secondary gets only the drop-in of C(nut-monitor.service). The role nut_client uses that.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) installs O(files).
      - V(absent) removes them, the program and its state. The log is kept.
    type: str
    choices: [present, absent]
    default: present
  role:
    description:
      - The role of the host. Of O(files), a secondary has only V(nut-monitor.conf).
    type: str
    choices: [primary, secondary]
    default: primary
  files:
    description:
      - The contents of the files, by name. V(shutdown.json), V(nut-shutdown.service), V(nut-stages.service), V(nut-watch.service),
        V(nut-monitor.conf), V(nut-server.conf), V(nut-driver-hardening.conf), V(nut-server-hardening.conf),
        V(nut-monitor-hardening.conf), V(nut-watch-hardening.conf), V(logrotate) and V(tmpfiles).
      - V(nut-monitor.conf) and V(nut-server.conf) are drop-ins of C(nut-monitor.service) and C(nut-server.service).
      - V(nut-driver-hardening.conf), V(nut-server-hardening.conf), V(nut-monitor-hardening.conf) and
        V(nut-watch-hardening.conf) are drop-ins that sandbox C(nut-driver@.service), C(nut-server.service),
        C(nut-monitor.service) and C(nut-watch.service). Each is first tried on a transient unit that does nothing. If systemd
        can't apply it, as in some containers, it is left out, with a warning. Check mode tries nothing, and leaves out what the
        last run could not apply.
      - A change to a drop-in does not restart NUT's daemons here. The next M(homelab.nut.config) restarts them, after checking
        that no UPS is on battery.
      - If V(nut-stages.service) is empty, that service is stopped and removed. The hardening drop-ins may be empty, too.
      - V(tmpfiles) creates the spare of C(upsmon)'s POWERDOWNFLAG, now and at each boot. If it is empty, there is no spare.
      - Required if O(state=present).
    type: dict
  renewed:
    description: Whether the program was replaced. If so, C(nut-stages.service) and C(nut-watch.service) are restarted if they run.
    type: bool
    default: false
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.service
"""

EXAMPLES = r"""
- name: Remove nut-shutdown
  homelab.nut.shutdown_service:
    state: absent
"""

RETURN = r"""
files:
  description: Names of the files that were replaced, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [shutdown.json]
removed:
  description: Paths that were removed, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/nut-shutdown.service]
actions:
  description: Commands that were run, or would be in check mode, with the reason. M(homelab.nut.config) restarts NUT's daemons.
  returned: always
  type: list
  elements: str
  sample: ["systemctl daemon-reload: the units of nut-shutdown changed"]
"""


from ..module_utils._module import Module
from ..module_utils._nut.deploy import kits
from ..module_utils._service import OPTIONS, REQUIRED_IF, Service


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            **OPTIONS,
            "role": {"choices": ["primary", "secondary"], "default": "primary"},
            "renewed": {"type": "bool", "default": False},
        },
        required_if=REQUIRED_IF,
        supports_check_mode=True,
    )
    Service(module, kits.SHUTDOWN if module.params["role"] == "primary" else kits.SECONDARY).run()


if __name__ == "__main__":
    main()
