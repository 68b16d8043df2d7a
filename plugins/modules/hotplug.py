#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.hotplug."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hotplug
short_description: Make NUT serve the USB UPSes that are plugged in
version_added: 0.2.0
description:
  - Scans the USB bus, tells the UPSes apart, and makes NUT serve each of them under its name. This is a single run of
    C(nut-hotplug), which also runs on the host whenever a USB device is plugged in or unplugged.
  - It never restarts a driver or C(upsd) that works. While a UPS is on battery, it postpones anything that could disturb other hosts.
  - It never changes sections of C(ups.conf) that name a driver. It completes those with C(driver=auto) in the inventory,
    and adds a section for a UPS that is not declared.
  - NUT must have been configured on the host by M(homelab.nut.config) or the role nut_server.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  policy:
    description: The policy, as in the variable C(__nut_hotplug_policy) of the role nut_hotplug. Default is the one in O(policy_path).
    type: dict
  policy_path:
    description: The file with the policy. If it does not exist, the default policy applies.
    type: path
    default: /etc/nut/hotplug.json
  log:
    description: The file to log actions to, if its directory exists.
    type: path
    default: /var/log/nut/hotplug.log
  wait:
    description:
      - How many seconds to wait at most for UPSes that were just plugged in, or whose drivers were restarted.
    type: int
    default: 60
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
    details:
      - If NUT is not configured yet, the module can't tell what it would do. It warns and does not fail.
  diff_mode:
    support: full
    details:
      - Shows C(ups.conf). Passwords are masked.
  idempotent:
    support: full
    details:
      - What is plugged in may change between two runs.
  platform:
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Serve the USB UPSes that are plugged in
  homelab.nut.hotplug:

- name: Show what would change if EcoFlow devices were ignored
  homelab.nut.hotplug:
    policy:
      rules:
        - vendor: "3746"
          ignore: true
  check_mode: true
  register: hotplug
"""

RETURN = r"""
actions:
  description: The actions that were taken, or would be in check mode, one line each with its reason.
  returned: success
  type: list
  elements: str
  sample: ["restart nut-driver@ups.service: another UPS has taken over the name"]
names:
  description: The UPSes that are plugged in and have a name, by name.
  returned: success
  type: dict
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
      description: The product name, as the device reports it.
      type: str
      sample: Back-UPS XS 950U
    serial:
      description: The serial number, as the device reports it.
      type: str
      sample: 5B1830T00001
    place:
      description: The USB port, as in C(port) of a rule.
      type: str
      sample: pci-0000:00:14.0-usb-0:1.4
    driver:
      description: The driver.
      type: str
      sample: usbhid-ups
    status:
      description: The flags of C(ups.status). Empty if C(upsd) has no fresh data.
      type: list
      elements: str
      sample: [OL, CHRG]
    error:
      description: The error code of C(upsd) if it has no fresh data. Empty otherwise.
      type: str
      sample: DATA-STALE
absent:
  description: Names of UPSes that are not plugged in.
  returned: success
  type: list
  elements: str
unserved:
  description: UPSes that are plugged in but have no name, each with the reason.
  returned: success
  type: list
  elements: str
deferred:
  description: What was postponed, each with the reason, such as a UPS on battery.
  returned: success
  type: list
  elements: str
remarks:
  description: Things that need your attention, such as two UPSes that can't be told apart. Each is also a warning.
  returned: success
  type: list
  elements: str
msg:
  description: What was done, or why nothing could be done.
  returned: always
  type: str
"""

from ..module_utils import _hotplug_run
from ..module_utils._hotplug import POLICY
from ..module_utils._module import Module
from ..module_utils._nut.base import paths


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            **POLICY,
            "log": {"type": "path", "default": f"/{paths.HOTPLUG_LOG}"},
            "wait": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    _hotplug_run.run(module)


if __name__ == "__main__":
    main()
