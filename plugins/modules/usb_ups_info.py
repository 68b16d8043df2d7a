#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.usb_ups_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: usb_ups_info
short_description: List the UPSes on the USB bus with their names and drivers
version_added: 0.2.0
description:
  - Lists the UPSes on a host's USB bus, with what identifies each, the driver that it needs, and the name that
    M(homelab.nut.hotplug) gives it. Changes nothing.
  - Also works on a host without NUT. The drivers are then derived from the devices, and from NUT's tables if they are installed.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  policy:
    description: The policy, as in the variable C(__nut_hotplug_policy) of the role nut_hotplug. By default it is read from O(policy_path).
    type: dict
  policy_path:
    description: The file with the policy. If it does not exist, the default policy applies.
    type: path
    default: /etc/nut/hotplug.json
  all:
    description: Whether to list all devices, not just UPSes.
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
- name: List the UPSes
  homelab.nut.usb_ups_info:
  register: usb

- name: Show the ports, to write rules for two UPSes of the same model
  ansible.builtin.debug:
    msg: "{{ usb.devices | items2dict(key_name='place', value_name='product') }}"
"""

RETURN = r"""
devices:
  description: The UPSes, sorted by port. With O(all), the other devices follow.
  returned: success
  type: list
  elements: dict
  contains:
    ids:
      description: The vendor and the product id.
      type: str
      sample: "051d:0002"
    manufacturer:
      description: The manufacturer, as the device reports it.
      type: str
      sample: American Power Conversion
    product:
      description: The product, as the device reports it.
      type: str
      sample: Back-UPS XS 950U
    serial:
      description: The serial number, as the device reports it.
      type: str
      sample: 5B1830T00001
    serial_trusted:
      description: Whether the serial number identifies this UPS. Many UPSes have none, or the same as all others of their model.
      type: bool
    bus:
      description: The number of the bus, in NUT's format. It may change at a reboot.
      type: str
      sample: "001"
    device:
      description: The number on the bus, in NUT's format. It changes each time the device is plugged in.
      type: str
      sample: "004"
    busport:
      description: The number of the port on its hub, in NUT's format.
      type: str
      sample: "004"
    port:
      description: The port, by the kernel's name, which begins with the number of the bus.
      type: str
      sample: 1-1.4
    place:
      description: The port, by its path, which stays the same across reboots. Empty if unknown.
      type: str
      sample: pci-0000:00:14.0-usb-0:1.4
    accessible:
      description: Whether NUT's drivers may use the device. None if unknown, or if this host has no node for it, as in a container.
      type: bool
    ups:
      description: Whether the device counts as a UPS.
      type: bool
    why:
      description: What identifies the device as a UPS. Empty if it is not one.
      type: str
      sample: NUT's table
    driver:
      description: The driver that the UPS needs. Empty if unknown.
      type: str
      sample: usbhid-ups
    name:
      description: The name that the UPS has, or would get. Empty if it has none.
      type: str
      sample: ups
    unserved:
      description: Why the UPS has no name. Empty if it has one, or is not a UPS.
      type: str
    status:
      description: The flags of C(ups.status) that C(upsd) serves under that name. Empty without fresh data.
      type: list
      elements: str
      sample: [OL, CHRG]
absent:
  description: The names of UPSes that are not plugged in.
  returned: success
  type: list
  elements: str
remarks:
  description: Problems, each with its remedy, such as two UPSes that can't be distinguished.
  returned: success
  type: list
  elements: str
configured:
  description: Whether NUT is configured on this host as a primary.
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
