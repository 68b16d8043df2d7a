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
    description: The policy, as in the variable C(nut_hotplug_policy) of the role nut_hotplug. Without it, O(policy_path) is read.
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

from pathlib import Path
from typing import Any

from ..module_utils._command import runner
from ..module_utils._host import find_lack_of_primary
from ..module_utils._hotplug import POLICY, chosen, host
from ..module_utils._module import Module
from ..module_utils._nut.base.process import find_program
from ..module_utils._nut.conf.release import find_release
from ..module_utils._nut.conf.ups_conf import UpsConf
from ..module_utils._nut.hotplug.observe import ReconcileError
from ..module_utils._nut.usb import bus, fingerprint, names, policy


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={**POLICY, "all": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    configured = not find_lack_of_primary()
    status: dict[str, tuple[str, ...]] = {}
    try:
        rules = chosen(module)
        if configured:
            look = host(module, rules).look()
            devices, upses, resolution, remarks = look.devices, look.upses, look.resolution, look.remarks
            status = {name: seen.status for name, seen in look.seen.items()}
        else:
            devices, upses, resolution = without_nut(module, rules)
            remarks = resolution.remarks
    except (policy.PolicyError, ReconcileError, bus.UsbError, OSError) as error:
        module.fail_json(msg=str(error))
    listed = [ups.device for ups in upses]
    if module.params["all"]:
        listed += [device for device in devices if device not in listed]
    module.exit_json(
        changed=False,
        configured=configured,
        devices=[told(device, upses, resolution, status) for device in listed],
        absent=list(resolution.absent),
        remarks=list(remarks),
    )


def without_nut(
    module: Module, rules: policy.Policy
) -> tuple[tuple[bus.UsbDevice, ...], tuple[bus.Ups, ...], names.Resolution]:
    """Look at the bus of a host on which NUT is not configured. Raises usb.UsbError."""
    run = runner(module)
    try:
        devices = bus.scan(Path(rules.sysfs), Path(rules.dev))
    except bus.UsbError:
        devices = bus.by_lsusb(run)
    upses = bus.candidates(devices, bus.table(), rules, lambda _device: False)
    known = names.Known(None, UpsConf((), {}))
    return devices, upses, names.resolve(known, upses, rules, find_release(run, find_program))


def told(
    device: bus.UsbDevice,
    upses: tuple[bus.Ups, ...],
    resolution: names.Resolution,
    status: dict[str, tuple[str, ...]],
) -> dict[str, Any]:
    """Return a device in the form that RETURN describes."""
    ups = next((one for one in upses if one.device == device), None)
    name = next((name for name, one in resolution.plugged.items() if one.device == device), "")
    named = resolution.plugged[name] if name else ups
    return {
        "ids": device.ids,
        "manufacturer": device.manufacturer,
        "product": device.product,
        "serial": device.serial,
        "serial_trusted": bool(fingerprint.trusted_serial(device)),
        "bus": f"{device.bus:03d}",
        "device": f"{device.device:03d}",
        "busport": f"{device.port:03d}",
        "port": device.name,
        "place": device.place,
        "accessible": device.accessible,
        "ups": ups is not None,
        "why": ups.why if ups else "",
        "driver": named.driver if named else "",
        "name": name,
        "unserved": next((why for one, why in resolution.unserved if one.device == device), ""),
        "status": list(status.get(name, ())),
    }


if __name__ == "__main__":
    main()
