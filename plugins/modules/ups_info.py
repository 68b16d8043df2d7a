#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module homelab.nut.ups_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ups_info
short_description: Ask upsd what it serves and who is logged in
version_added: 0.1.0
author: The homelab.nut contributors (@homelab-nut)
description:
  - Asks NUT's server, C(upsd), over the network for its UPSes, their variables, and the clients that are logged in.
  - A unit that is active proves little. A UPS is served when C(upsd) has fresh data of it, and a secondary will be
    warned of a power cut only when it is logged in. This module tells both.
  - It can wait until everything is as it should be.
  - It needs no password, and does not log in.
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
    details:
      - This module does not modify anything.
  diff_mode:
    support: N/A
    details:
      - This module does not modify anything.
  idempotent:
    support: full
    details:
      - This module does not modify anything.
  platform:
    platforms: posix
    support: full
options:
  host:
    description: Where C(upsd) listens, as seen from the host on which this module runs.
    type: str
    default: localhost
  port:
    description: The port on which C(upsd) listens.
    type: int
    default: 3493
  ups:
    description: The names of the UPSes to look at, as in C(ups.conf). Without it, all that C(upsd) serves.
    type: list
    elements: str
  expected_clients:
    description:
      - Addresses or names of the systems whose C(upsmon) ought to be logged in to at least one of the UPSes looked at.
      - Names are resolved on the host on which this module runs. Any of the addresses of a name counts.
      - All addresses of the loopback interface, and names of them, are one. C(upsd) shows a C(upsmon) of its own host
        under the address by which that connected, which is often V(127.0.0.1).
    type: list
    elements: str
    default: []
  wait:
    description:
      - How many seconds to wait until C(upsd) can be reached, each UPS is fresh, and each of O(expected_clients) is
        logged in.
      - With V(0), there is one look only.
    type: int
    default: 0
  timeout:
    description: How many seconds one look may take.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Wait until the UPS is served and all secondaries are logged in
  homelab.nut.ups_info:
    host: pve
    expected_clients:
      - localhost
      - truenas
    wait: 60
  register: nut

- name: Insist on it
  ansible.builtin.assert:
    that: nut.ok
    fail_msg: "{{ nut.msg }}"

- name: Do nothing while the UPS is not plainly on mains
  homelab.nut.ups_info:
    ups: [ups]
  register: nut
  failed_when: nut.upses[0].status != ['OL']
"""

RETURN = r"""
server:
  description: Who answered.
  returned: success
  type: dict
  contains:
    version:
      description: The release of C(upsd).
      type: str
      sample: 2.8.1
    protocol:
      description: The version of the network protocol.
      type: str
      sample: "1.3"
upses:
  description: The UPSes, in the order in which C(upsd) lists them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: ups
    description:
      description: Its description, C(desc) in C(ups.conf).
      type: str
      sample: Rack, bottom
    status:
      description: The flags of C(ups.status). Empty if C(upsd) has no fresh data.
      type: list
      elements: str
      sample: [OL, CHRG]
    fresh:
      description: Whether C(upsd) has fresh data, with a status.
      type: bool
    error:
      description: The code with which C(upsd) refuses the data, or none.
      type: str
      sample: DATA-STALE
    variables:
      description: All variables. Quantities are numbers; names, releases and dates are text.
      type: dict
      sample:
        battery.charge: 100
        device.serial: "000123"
        ups.status: OL
    clients:
      description: The addresses of the clients that are logged in.
      type: list
      elements: str
      sample: [127.0.0.1, 192.0.2.3]
    num_logins:
      description: How many clients count as logged in, or none if C(upsd) has no fresh data.
      type: int
      sample: 2
missing_clients:
  description: Those of O(expected_clients) that are not logged in, as they were given.
  returned: success
  type: list
  elements: str
  sample: [truenas]
stale:
  description: The UPSes without fresh data.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: ups
    reason:
      description: Why, in words.
      type: str
      sample: "DATA-STALE: the driver has had no news from the UPS for too long"
not_on_mains:
  description:
    - The UPSes that are not plainly on mains, with their flags, so on battery, calibrating, bypassed or off. A restart of NUT
      then could shut down hosts. One without data is not among them.
  returned: success
  type: list
  elements: str
  sample: [ups (OB DISCHRG)]
ok:
  description: Whether there is a UPS, each UPS is fresh, and each of O(expected_clients) is logged in.
  returned: success
  type: bool
msg:
  description: What was seen, in one line.
  returned: always
  type: str
  sample: "upsd at pve:3493 serves ups (OL) fresh; truenas (192.0.2.3) has not logged in: logged in are 127.0.0.1"
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.nut.plugins.module_utils._nut import monitors, upsd


def returned(report: upsd.Report) -> dict[str, Any]:
    """Return a report in the form that RETURN describes."""
    return {
        "server": {"version": report.version, "protocol": report.protocol},
        "upses": [
            {
                "name": state.name,
                "description": state.description,
                "status": list(state.status),
                "fresh": state.fresh,
                "error": state.error,
                "variables": {name: upsd.typed_value(name, value) for name, value in state.variables.items()},
                "clients": list(state.clients),
                "num_logins": state.num_logins,
            }
            for state in report.upses
        ],
        "missing_clients": [client.name for client in report.missing],
        "stale": [{"name": name, "reason": reason} for name, reason in report.stale],
        "not_on_mains": upsd.careful(report.upses),
        "ok": report.ok,
        "msg": report.message,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "default": "localhost"},
            "port": {"type": "int", "default": monitors.PORT},
            "ups": {"type": "list", "elements": "str"},
            "expected_clients": {"type": "list", "elements": "str", "default": []},
            "wait": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    options = module.params

    def open_client() -> upsd.Client:
        return upsd.Client(options["host"], options["port"], timeout=options["timeout"])

    try:
        report = upsd.wait_until_ok(open_client, options["ups"], options["expected_clients"], wait=options["wait"])
    except upsd.UpsdFailure as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **returned(report))


if __name__ == "__main__":
    main()
