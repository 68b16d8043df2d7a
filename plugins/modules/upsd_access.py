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
  - Keeps an nftables table, C(inet homelab_nut), that lets the allowed addresses connect to the ports of C(upsd), and refuses
    everybody else. It is about nothing but these ports, and leaves all other tables alone, such as those of Proxmox VE's
    firewall.
  - No login is needed to block C(upsd), with TLS or without, so it matters who can connect at all.
  - C(nut-access.service) loads the table before there is a network. If C(nftables.service) is used on the host, which
    empties the ruleset when it starts, a drop-in of it loads the table again.
  - Each minute C(nut-access) looks whether names have other addresses by now, lets them in there, too, and loads a table that
    somebody has removed. It shuts nobody out. The program comes by M(homelab.nut.zipapp).
  - Before the table is made for the first time or changed, it looks who is connected. If somebody would be cut off who is
    logged in to C(upsd), as a secondary is, the run fails and names the address, unless O(force). Others who are
    connected, such as a dashboard, are a warning each.
  - A table that can't be loaded is a warning, not a failure. A host that is protected from power cuts but not from its
    network is better than one that is protected from neither. RV(loaded) says whether it is.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) keeps the table, its file and its unit.
      - V(absent) removes them. Then everybody may connect.
    type: str
    choices: [present, absent]
    default: present
  sources:
    description:
      - Who may connect, besides the host itself.
      - A name is resolved on the host. One that has no address is a warning, and may connect from where it could before.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name, for people.
        type: str
        required: true
      address:
        description: Its address, a network, or a name.
        type: str
        required: true
  ports:
    description:
      - The ports on which C(upsd) is to listen.
      - Those on which it listens by the C(upsd.conf) that is on the host now are covered, too. So when a port changes, the
        old one stays covered until the next run.
    type: list
    elements: int
    default: [3493]
  files:
    description:
      - The other files, name to text. V(nut-access.service), V(nut-access-refresh.service), V(nut-access-refresh.timer), and
        V(nftables.conf), the drop-in of C(nftables.service).
      - Required if O(state=present).
    type: dict
  force:
    description:
      - Change who may connect though a UPS is not plainly on mains, or though that cuts off somebody who is logged in
        to C(upsd). A secondary that is cut off does not hear of a power cut; one with NUT 2.8.1 or 2.8.2 that is cut off
        while its UPS is on battery shuts down at once.
    type: bool
    default: false
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
      - Where NUT is not installed yet, it says so, and does not fail.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Let everybody connect again
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
  description: Whether the kernel has the table as it should be. In check mode, whether it had it before.
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
  description: The commands that were run, or would be, with the reason.
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
