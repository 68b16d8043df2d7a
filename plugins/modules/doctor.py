#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module homelab.nut.doctor."""

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor
short_description: Check NUT on a host
version_added: 0.2.0
author: The homelab.nut contributors (@homelab-nut)
description:
  - Checks a primary or a Linux secondary, and compares its state with the inventory.
  - Each finding has a verdict, says what was seen, and what to do. C(docs/doctor.md) lists the checks.
  - Changes nothing, and does not log in to C(upsd), because the primary would wait for that login at a shutdown.
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.read_only
attributes:
  async:
    support: none
    details:
      - An action plugin on the controller does a part of the work.
  platform:
    platforms: debian
    support: full
options:
  name:
    description: The host's name in the inventory, for the findings. By default C(inventory_hostname).
    type: str
  role:
    description: Whether the host has the UPS (V(primary)), or monitors it over the network (V(secondary)).
    type: str
    choices: [primary, secondary]
    required: true
  files:
    description: The expected text of NUT's files, by file name. A file that is not given is not compared.
    type: dict
    default: {}
  kits:
    description:
      - The expected files of C(nut-shutdown), C(nut-hotplug) and C(nut-access), by program. A program that is not given is not
        checked.
    type: dict
    default: {}
  clients:
    description: The secondaries of a primary.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The secondary's name in the inventory.
        type: str
        required: true
      address:
        description: The address that it connects from, or its host name.
        type: str
        required: true
      ups:
        description: The UPS that it monitors.
        type: str
        required: true
      primary_address:
        description: The address or name by which it reaches C(upsd) of this primary.
        type: str
        default: localhost
      primary_port:
        description: The port of C(upsd).
        type: int
        default: 3493
      managed:
        description: Whether Ansible logs in to it. If not, a person has set up its NUT client.
        type: bool
        default: true
  times:
    description: How long the primary of a secondary gives it. Checked if the secondary is a Proxmox VE node.
    type: dict
    suboptions:
      primary:
        description: The name of the primary.
        type: str
        required: true
      shutdown_time:
        description: How many seconds the secondary is expected to take.
        type: float
        required: true
      shutdown_limit:
        description: How many seconds the primary waits for it, at most.
        type: float
        required: true
  plan:
    description: The result of the module M(homelab.nut.shutdown_plan).
    type: dict
  ca:
    description: The certificates (PEM) to verify C(upsd) with, if it uses TLS.
    type: str
    default: ""
  certificate_name:
    description: The name in C(upsd)'s certificate. Used with O(ca).
    type: str
    default: localhost
  firewall:
    description: Whether to check Proxmox VE's firewall.
    type: bool
    default: true
  hours:
    description: How many hours of the journal to read.
    type: int
    default: 24
  events:
    description: The highest number of events to return in RV(seen).
    type: int
    default: 12
  digests:
    description: The SHA-256 digests of programs, by path. By default those of the programs that this collection installs.
    type: dict
"""

EXAMPLES = r"""
- name: Check NUT on this host
  homelab.nut.doctor:
    role: primary
    clients:
      - {name: nas, address: 192.0.2.20, ups: ups}
  register: nut

- name: Fail if something is wrong
  ansible.builtin.assert:
    that: nut.findings | selectattr('verdict', 'eq', 'failure') | length == 0
    fail_msg: "{{ nut.msg }}"
"""

RETURN = r"""
findings:
  description: The findings, the worst first.
  returned: success
  type: list
  elements: dict
  contains:
    check:
      description: The name of the check, as in C(docs/doctor.md).
      type: str
      sample: driver
    host:
      description: The host that the finding is about. A primary also reports the logins of its secondaries.
      type: str
      sample: pve
    verdict:
      description: V(ok), V(note), V(warning), V(failure), or V(unknown) if it could not be checked.
      type: str
      sample: failure
    seen:
      description: What was seen.
      type: str
      sample: "ups: its driver is running, but gets no data from it (DATA-STALE)"
    todo:
      description: What to do about it. Empty if there is nothing to do.
      type: str
      sample: journalctl -u nut-driver@ups.service -n 50
    about:
      description: The UPSes, units, files or machines that the finding is about. Empty if it is about the whole host.
      type: list
      elements: str
      sample: [ups]
    because:
      description: "The finding that this one only follows from, as C(host: check). Empty if it has a cause of its own."
      type: str
      sample: "pve: usb"
seen:
  description: The state of the host, as the playbook C(homelab.nut.status) shows it.
  returned: success
  type: dict
  contains:
    now:
      description: The time on the host, in seconds since 1970.
      type: float
      sample: 1790000000.5
    release:
      description: The release of NUT, or null if unknown.
      type: str
      sample: 2.8.1
    upsd:
      description: Why C(upsd) can't be queried, or null.
      type: str
    upses:
      description:
        - The UPSes, each with its name, status, charge, runtime, load, battery_date, model and clients.
        - C(power) is how many of the host's power supplies it feeds. Null if C(upsmon) does not monitor it.
      type: list
      elements: dict
    minsupplies:
      description: How many of its power supplies the host needs.
      type: int
      sample: 1
    addresses:
      description: The addresses of the secondaries, by name.
      type: dict
    outage:
      description: The moments of the last power cut, each with its time in seconds since 1970.
      type: list
      elements: list
      sample: [[1790000000.5, "on battery: ups (98 %, 2400 s left)"], [1790000031.0, "the outage is over"]]
    events:
      description: The other last events in the journal, the newest last, each with its time in seconds since 1970.
      type: list
      elements: list
      sample: [[1790000000.5, "power failure: ups is on battery"]]
msg:
  description: The number of findings by verdict, in one line.
  returned: always
  type: str
  sample: "2 hosts, 40 checks: 1 failure, 2 notes, 37 ok"
"""

import platform
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._command import make_runner
from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import merge, observe, status
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks_shutdown import KITS
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.exam import (
    Expected,
    ExpectedClient,
    ExpectedTimes,
)

SECONDS = 15
"""Time limit for each program that the module runs."""


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            "name": {"type": "str"},
            "role": {"type": "str", "choices": ["primary", "secondary"], "required": True},
            "files": {"type": "dict", "default": {}, "no_log": True},
            "kits": {"type": "dict", "default": {}},
            "clients": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **{name: {"type": "str", "required": True} for name in ("name", "address", "ups")},
                    "primary_address": {"type": "str", "default": "localhost"},
                    "primary_port": {"type": "int", "default": 3493},
                    "managed": {"type": "bool", "default": True},
                },
            },
            "times": {
                "type": "dict",
                "options": {
                    "primary": {"type": "str", "required": True},
                    "shutdown_time": {"type": "float", "required": True},
                    "shutdown_limit": {"type": "float", "required": True},
                },
            },
            "plan": {"type": "dict"},
            "ca": {"type": "str", "default": ""},
            "certificate_name": {"type": "str", "default": "localhost"},
            "firewall": {"type": "bool", "default": True},
            "hours": {"type": "int", "default": 24},
            "events": {"type": "int", "default": status.EVENTS},
            "digests": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    options: dict[str, Any] = module.params
    unknown = sorted(set(options["kits"]) - set(KITS))
    if unknown:
        module.fail_json(msg=f"kits: unknown program {', '.join(unknown)}. Known: {', '.join(KITS)}")
    host = observe.HostObserver(
        primary=options["role"] == "primary",
        runner=make_runner(module, SECONDS),
        clients={client["name"]: client["address"] for client in options["clients"]},
        kits=[KITS[name] for name in options["kits"]],
        ca=options["ca"],
        server=options["certificate_name"],
        check_firewall=options["firewall"],
        since=options["hours"] * 3600.0,
    )
    expected = Expected(
        name=options["name"] or platform.node(),
        primary=options["role"] == "primary",
        files={name: str(text) for name, text in options["files"].items()},
        kits={name: {file: str(text) for file, text in texts.items()} for name, texts in options["kits"].items()},
        digests=options["digests"] or {},
        clients=tuple(ExpectedClient(**client) for client in options["clients"]),
        tls=bool(options["ca"]),
        times=ExpectedTimes(**options["times"]) if options["times"] else None,
        plan=options["plan"],
    )
    seen = host.observe_host()
    report = merge.merge_findings(
        [expected.name], examine_host(seen, expected), {client.name: expected.name for client in expected.clients}
    )
    module.exit_json(
        changed=False,
        findings=report.to_json()["findings"],
        seen=status.collect_facts(seen, options["events"]),
        msg=report.summary,
    )


if __name__ == "__main__":
    main()
