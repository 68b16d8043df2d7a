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
  - Puts the policy, the unit and the logrotate file of C(nut-shutdown) in place. Or removes all of them.
  - Nothing is started. C(upsmon) starts the unit, as its SHUTDOWNCMD, and the unit powers the host off.
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
      - The files, name to text. V(shutdown.json), V(nut-shutdown.service) and V(logrotate).
      - Required if O(state=present).
    type: dict
  log:
    description: The file for the log. Its directory is made if it is not there.
    type: path
  wait:
    description: How many seconds to wait for another run that is at work on NUT.
    type: int
    default: 60
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
    details:
      - Where NUT is not configured yet, it says so, and does not fail.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: debian
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
  description: The commands that were run, or would be, with the reason.
  returned: always
  type: list
  elements: str
  sample: ["systemctl daemon-reload: the units of nut-shutdown changed"]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _hotplug, _service
from ..module_utils._nut import install


def lacking() -> str:
    """Say what the host must have first: NUT, whose group may read the policy."""
    if (_hotplug.ROOT / "etc/nut").is_dir():
        return ""
    return "NUT is not installed on this host: there is no /etc/nut. Deploy it first: `make pve tags=ups`, or the role nut_server"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=_service.OPTIONS,
        required_if=_service.REQUIRED_IF,
        supports_check_mode=True,
    )
    _service.run(module, install.SHUTDOWN, lacking)


if __name__ == "__main__":
    main()
