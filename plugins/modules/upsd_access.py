#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.upsd_access."""

from __future__ import annotations

DOCUMENTATION = r"""
module: upsd_access
short_description: Limit which machines can connect to upsd
version_added: 0.2.0
description:
  - Maintains an nftables table, C(inet homelab_nut), that lets the allowed addresses connect to the ports of C(upsd) and
    rejects all others. The table affects only these ports. Other tables, such as those of Proxmox VE's firewall, are not changed.
  - A client can block C(upsd) without a login, with TLS or without. Only limiting who can connect prevents that.
  - C(nut-access.service) loads the table at boot, before the network is up. C(nftables.service) empties the ruleset when it
    starts; if the host uses it, a drop-in for that unit loads the table again.
  - Once a minute C(nut-access) resolves the names in O(sources), allows addresses that are new, and loads the table again if
    it is gone. It never removes an address. M(homelab.nut.zipapp) installs this program.
  - Before it creates or changes the table, the module checks which machines are connected. If the change would cut off a
    client that is logged in to C(upsd), as secondaries are, the module fails and names the client's address, unless O(force) is
    set. For any other connection, such as a dashboard's, it warns.
  - If the table can't be loaded, the module warns and does not fail, because NUT without this protection is better than no
    NUT. RV(loaded) says whether the table is loaded.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) installs the table, its file and its unit.
      - V(absent) removes them. Any machine may then connect.
    type: str
    choices: [present, absent]
    default: present
  sources:
    description:
      - The machines that may connect, besides the host itself.
      - Names are resolved on the host. For a name that does not resolve, the module warns, and its last known addresses stay
        allowed.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: A name for the entry, shown in messages.
        type: str
        required: true
      address:
        description: An address, a network, or a host name.
        type: str
        required: true
  ports:
    description:
      - The ports that C(upsd) will listen on.
      - The ports in the host's current C(upsd.conf) are covered, too. So when the port changes, the old one stays covered until
        the next run.
    type: list
    elements: int
    default: [3493]
  files:
    description:
      - "The other files, as a mapping of name to text: V(nut-access.service), V(nut-access-refresh.service),
        V(nut-access-refresh.timer), and V(nftables.conf), the drop-in for C(nftables.service)."
      - Required if O(state=present).
    type: dict
  force:
    description:
      - Change the table even if a UPS is not plainly on mains, or if that cuts off a client that is logged in to C(upsd).
      - A secondary that is cut off is not warned of a power cut. With NUT 2.8.1 or 2.8.2, a secondary that is cut off while
        its UPS is on battery shuts down at once.
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
      - Does not fail on a host where NUT is not installed yet; the message says so.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Let any machine connect again
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
  description: Whether the table is loaded and current. In check mode, whether it was before the run.
  returned: always
  type: bool
  sample: true
files:
  description: The files that were replaced, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [access.nft]
removed:
  description: The paths that were removed, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/nut-access.service]
actions:
  description: The commands that were run, or would be in check mode, each with its reason.
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
