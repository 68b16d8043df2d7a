#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.hotplug."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hotplug
short_description: Bring NUT and the USB bus together
version_added: 0.2.0
description:
  - Looks at what is plugged in, decides which UPS is which, and does what is needed for NUT to serve each under its name. It does once what
    C(nut-hotplug) does on a host whenever a USB device comes or goes.
  - A driver or C(upsd) that works is never restarted. While a UPS is on battery, what would disturb others waits.
  - Sections of C(ups.conf) with a driver of their own are never changed. Those with C(driver=auto) in the inventory are
    completed, and a UPS that nobody has declared gets one.
  - The host must have NUT, configured by M(homelab.nut.config) or the role nut_server.
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
  log:
    description: The file for the log of what was done, if its directory is there.
    type: path
    default: /var/log/nut/hotplug.log
  wait:
    description:
      - How many seconds UPSes that were just plugged in, or whose drivers were restarted, have to recover.
      - It does not wait at all if there is nothing to wait for.
    type: int
    default: 60
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
    details:
      - Where NUT is not configured yet, it can't tell what it would do. It says so, and does not fail.
  diff_mode:
    support: full
    details:
      - Shows C(ups.conf). Passwords are replaced by a mark.
  idempotent:
    support: full
    details:
      - What is plugged in may change between two runs.
  platform:
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: See to it that NUT serves what is plugged in
  homelab.nut.hotplug:

- name: Show what would be done if EcoFlow's were ignored
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
  description: What was done, or would be, with the reason. One line for each.
  returned: success
  type: list
  elements: str
  sample: ["restart nut-driver@ups.service: another UPS has taken over the name"]
names:
  description: What is plugged in and has a name, by this name.
  returned: success
  type: dict
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
    place:
      description: The connector, as a rule's C(port) takes it.
      type: str
      sample: pci-0000:00:14.0-usb-0:1.4
    driver:
      description: Its driver.
      type: str
      sample: usbhid-ups
    status:
      description: The flags of C(ups.status). Empty if C(upsd) has no fresh data.
      type: list
      elements: str
      sample: [OL, CHRG]
    error:
      description: The code with which C(upsd) refuses the data. Empty if it is fresh.
      type: str
      sample: DATA-STALE
absent:
  description: The names whose UPS is not plugged in.
  returned: success
  type: list
  elements: str
unserved:
  description: UPSes that are plugged in and have no name, each with the reason.
  returned: success
  type: list
  elements: str
deferred:
  description: What waits for the mains, with the reason.
  returned: success
  type: list
  elements: str
remarks:
  description: What a person should know, such as two UPSes that can't be told apart. Each is a warning, too.
  returned: success
  type: list
  elements: str
msg:
  description: What was done, or why nothing could be.
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
