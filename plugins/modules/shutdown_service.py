#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.shutdown_service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shutdown_service
short_description: The service that waits until the other machines are down
version_added: 0.2.0
description:
  - Puts the policy, the units, the logrotate and the tmpfiles.d file of C(nut-shutdown) in place. Or removes all of them.
  - C(nut-shutdown.service) is not started. C(upsmon) does so, as its SHUTDOWNCMD, and the unit powers the host off.
  - C(nut-stages.service) is started, where it is given. It watches the UPS and does what the stages of the policy say.
  - C(nut-watch.service) is started. It watches C(upsd), and helps it when it hangs.
  - It does in one round trip what the role nut_server needs. The program itself comes by M(homelab.nut.zipapp).
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) puts O(files) in place.
      - V(absent) removes them, the program, and what it remembers. Its log stays.
    type: str
    choices: [present, absent]
    default: present
  files:
    description:
      - The files, name to text. V(shutdown.json), V(nut-shutdown.service), V(nut-stages.service), V(nut-watch.service),
        V(nut-monitor.conf), V(nut-server.conf), V(nut-driver-hardening.conf), V(nut-server-hardening.conf),
        V(nut-monitor-hardening.conf), V(nut-watch-hardening.conf), V(logrotate) and V(tmpfiles).
      - V(nut-monitor.conf) and V(nut-server.conf) are drop-ins of C(nut-monitor.service) and C(nut-server.service).
      - V(nut-driver-hardening.conf), V(nut-server-hardening.conf), V(nut-monitor-hardening.conf) and
        V(nut-watch-hardening.conf) are further ones, of C(nut-driver@.service) and C(nut-watch.service), too. Each is tried first,
        by a unit of its own that does nothing. Where systemd can't apply it, as in some containers, it is left out, with a warning.
        In check mode nothing is tried, and what the last run could not apply is left out.
      - The daemons that run are not restarted here when one of these changes. The next M(homelab.nut.config) does so, which first
        asks whether a UPS is on battery.
      - V(nut-stages.service) may be empty. Then it is stopped, and not there. These may be empty, too.
      - V(tmpfiles) makes the spare of C(upsmon)'s POWERDOWNFLAG, now and at each boot. It may be empty. Then there is none.
      - Required if O(state=present).
    type: dict
  renewed:
    description: Whether the program has been replaced. Then C(nut-stages.service) and C(nut-watch.service), which run, are restarted.
    type: bool
    default: false
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.service
"""

EXAMPLES = r"""
- name: Remove what waits for the other machines
  homelab.nut.shutdown_service:
    state: absent
"""

RETURN = r"""
files:
  description: The files that were replaced, or would be.
  returned: always
  type: list
  elements: str
  sample: [shutdown.json]
removed:
  description: The paths that were removed, or would be.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/nut-shutdown.service]
actions:
  description: The commands that were run, or would be, with the reason. Restarts of NUT's daemons are left to M(homelab.nut.config).
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
        argument_spec={**OPTIONS, "renewed": {"type": "bool", "default": False}},
        required_if=REQUIRED_IF,
        supports_check_mode=True,
    )
    Service(module, kits.SHUTDOWN).run()


if __name__ == "__main__":
    main()
