#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.upsd_access."""

from __future__ import annotations

DOCUMENTATION = r"""
module: upsd_access
short_description: Limit who may connect to C(upsd)
version_added: 0.2.0
description:
  - Maintains an nftables table, C(inet homelab_nut), that lets the allowed addresses connect to the ports of C(upsd), and
    refuses all others. It only affects these ports, and does not change other tables, such as those of Proxmox VE's firewall.
  - Blocking C(upsd) takes no login, with or without TLS, so it matters who can connect at all.
  - C(nut-access.service) loads the table before the network is up. C(nftables.service) empties the ruleset when it starts; where
    it is in use, a drop-in for it loads the table again.
  - Once a minute C(nut-access) resolves the names again, lets new addresses in, too, and reloads the table if it is gone. It
    never removes an address. M(homelab.nut.zipapp) installs the program.
  - Before it creates or changes the table, the module checks which machines are connected. If it would cut off a machine that
    is logged in to C(upsd), such as a secondary, it fails and names the address, unless O(force) is set. For every other
    connected machine, such as a dashboard, it warns.
  - A table that can't be loaded is a warning, not a failure, because a host that is protected from power cuts but not from its
    network is better than one that is protected from neither. RV(loaded) tells whether the table is loaded.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) maintains the table, its file and its unit.
      - V(absent) removes them. Then any machine may connect.
    type: str
    choices: [present, absent]
    default: present
  sources:
    description:
      - The machines that may connect, besides the host itself.
      - Names are resolved on the host. For a name that can't be resolved, the module warns and keeps its last known addresses.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the machine, for messages.
        type: str
        required: true
      address:
        description: The address of the machine, a network, or a name.
        type: str
        required: true
  ports:
    description:
      - The ports on which C(upsd) will listen.
      - The ports in the current C(upsd.conf) of the host are covered, too. So when a port changes, the old one stays covered
        until the next run.
    type: list
    elements: int
    default: [3493]
  files:
    description:
      - The texts of the other files by name. V(nut-access.service), V(nut-access-refresh.service), V(nut-access-refresh.timer), and
        V(nftables.conf), the drop-in for C(nftables.service).
      - Required if O(state=present).
    type: dict
  force:
    description:
      - Change the table even if a UPS is not plainly on mains, or if that cuts off a machine that is logged in to C(upsd). A
        secondary that is cut off gets no warning of a power cut. With NUT 2.8.1 or 2.8.2, a secondary that is cut off while its
        UPS is on battery shuts down at once.
    type: bool
    default: false
  wait:
    description: Seconds to wait for another run that is changing NUT.
    type: int
    default: 60
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
    details:
      - Where NUT is not installed yet, it warns and does not fail.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Let every machine connect again
  homelab.nut.upsd_access:
    state: absent
"""

RETURN = r"""
allowed:
  description: The addresses and networks that may connect, by the names in O(sources).
  returned: always
  type: dict
  sample:
    truenas: [192.0.2.20]
loaded:
  description: Whether the kernel has the wanted table. In check mode, whether it had it before.
  returned: always
  type: bool
  sample: true
files:
  description: The files that were replaced, or would be.
  returned: always
  type: list
  elements: str
  sample: [access.nft]
removed:
  description: The paths that were removed, or would be.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/nut-access.service]
actions:
  description: The commands that were run, or would be, each with its reason.
  returned: always
  type: list
  elements: str
  sample: ["systemctl restart nut-access.service: access.nft changed"]
"""

from ..module_utils._module import Module
from ..module_utils._service import OPTIONS, REQUIRED_IF
from ..module_utils._upsd_access import AccessService


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            **{name: option for name, option in OPTIONS.items() if name != "log"},
            "sources": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {name: {"type": "str", "required": True} for name in ("name", "address")},
            },
            "force": {"type": "bool", "default": False},
            "ports": {"type": "list", "elements": "int", "default": [3493]},
        },
        required_if=REQUIRED_IF,
        supports_check_mode=True,
    )
    AccessService(module).run()


if __name__ == "__main__":
    main()
