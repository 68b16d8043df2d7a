#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.notify_service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: notify_service
short_description: Install nut-notify, which tells people and services about power cuts
version_added: 0.2.0
description:
  - Installs or removes the targets, the systemd unit and the logrotate file of C(nut-notify). The role nut_server uses it.
    M(homelab.nut.zipapp) installs the program itself.
  - C(nut-notify.service) is started. It records the events of C(upsmon) and C(nut-shutdown), and delivers them.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) installs O(files).
      - V(absent) removes them, the program and messages that were not delivered. The log of events is kept.
    type: str
    choices: [present, absent]
    default: present
  files:
    description:
      - The contents of the files, by name. V(notify.json), V(nut-notify.service) and V(logrotate).
      - V(notify.json) is a secret. Only root can read it on the host, and no diff shows it.
      - Required if O(state=present).
    type: dict
  renewed:
    description: Whether the program was replaced. If so, C(nut-notify.service) is restarted if it runs.
    type: bool
    default: false
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.service
"""

EXAMPLES = r"""
- name: Remove nut-notify
  homelab.nut.notify_service:
    state: absent
"""

RETURN = r"""
files:
  description: Names of the files that were replaced, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [notify.json]
removed:
  description: Paths that were removed, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [/etc/nut/notify.json]
actions:
  description: Commands that were run, or would be in check mode, with the reason.
  returned: always
  type: list
  elements: str
  sample: ["systemctl restart nut-notify.service: notify.json changed"]
"""


from ..module_utils._module import Module
from ..module_utils._nut.deploy import kits
from ..module_utils._service import OPTIONS, REQUIRED_IF, Service


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            **OPTIONS,
            "files": {"type": "dict", "no_log": True},
            "renewed": {"type": "bool", "default": False},
        },
        required_if=REQUIRED_IF,
        supports_check_mode=True,
    )
    Service(module, kits.NOTIFY).run()


if __name__ == "__main__":
    main()
