#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.usb_ups_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: usb_ups_info
short_description: What hangs on the USB bus, and what NUT would call it
version_added: 0.2.0
description:
  - Lists the UPSes that are plugged into a host's USB, with what tells them apart, the driver that they need, and the name that
    M(homelab.nut.hotplug) gives them. It changes nothing.
  - It also runs on a host without NUT. There the drivers' names come from the devices themselves, and from NUT's tables where these are.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  policy:
    description: The policy, as in the variable C(__nut_hotplug_policy) of the role nut_hotplug. Without it, O(policy_path) is read.
    type: dict
  policy_path:
    description: The file with the policy. If it is not there, the default policy counts.
    type: path
    default: /etc/nut/hotplug.json
  all:
    description: Whether to list devices that are no UPSes, too.
    type: bool
    default: false
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.read_only
attributes:
  platform:
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: What is there?
  homelab.nut.usb_ups_info:
  register: usb

- name: Show the connectors, to write rules for two UPSes that are alike
  ansible.builtin.debug:
    msg: "{{ usb.devices | items2dict(key_name='place', value_name='product') }}"
"""

RETURN = r"""
devices:
  description: The UPSes, by connector; with O(all), the other devices behind them.
  returned: success
  type: list
  elements: dict
  contains:
    ids:
      description: The vendor and the product id.
      type: str
      sample: "051d:0002"
    manufacturer:
      description: The maker's name, as the device reports it.
      type: str
      sample: American Power Conversion
    product:
      description: The product's name, as the device reports it.
      type: str
      sample: Back-UPS XS 950U
    serial:
      description: The serial number, as the device reports it.
      type: str
      sample: 5B1830T00001
    serial_trusted:
      description: Whether that can tell it from others of its model. Many UPSes have none, or one that they all have.
      type: bool
    bus:
      description: The number of the bus, as NUT writes it. It may change at a reboot.
      type: str
      sample: "001"
    device:
      description: The number on that bus, as NUT writes it. It changes at each plugging in.
      type: str
      sample: "004"
    busport:
      description: The number of the port on its hub, as NUT writes it.
      type: str
      sample: "004"
    port:
      description: The connector, as the kernel calls it. It holds the number of the bus.
      type: str
      sample: 1-1.4
    place:
      description: The connector, by the controller's address. Empty if it is not known.
      type: str
      sample: pci-0000:00:14.0-usb-0:1.4
    accessible:
      description: Whether NUT's drivers may use it. None if that is not known.
      type: bool
    ups:
      description: Whether it is taken for a UPS.
      type: bool
    why:
      description: Why it is taken for a UPS. Empty if it is not.
      type: str
      sample: NUT's table
    driver:
      description: The driver that it needs. Empty if nobody knows one.
      type: str
      sample: usbhid-ups
    name:
      description: What it is called, or would be. Empty if it has no name.
      type: str
      sample: ups
    unserved:
      description: Why it has no name. Empty if it has one, or is no UPS.
      type: str
    status:
      description: The flags of C(ups.status) that C(upsd) serves under its name. Empty if there is no fresh data.
      type: list
      elements: str
      sample: [OL, CHRG]
absent:
  description: The names whose UPS is not plugged in.
  returned: success
  type: list
  elements: str
remarks:
  description: What a person should know, such as two UPSes that can't be told apart.
  returned: success
  type: list
  elements: str
configured:
  description: Whether this host has NUT, configured as the one with the UPS.
  returned: success
  type: bool
"""

from ..module_utils import _usb_ups_info
from ..module_utils._hotplug import POLICY
from ..module_utils._module import Module


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={**POLICY, "all": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    _usb_ups_info.run(module)


if __name__ == "__main__":
    main()
