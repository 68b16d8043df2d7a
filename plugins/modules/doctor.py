#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module homelab.nut.doctor."""

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor
short_description: Look whether all is well with NUT on a host
version_added: 0.2.0
author: The homelab.nut contributors (@homelab-nut)
description:
  - Looks at a primary, or at a Linux secondary, and compares what it sees with what the inventory says.
  - Each check has a verdict, what was seen in words, and what to do. C(docs/doctor.md) lists the checks.
  - Nothing is changed, and nobody logs in to C(upsd), where a login would count as one more machine.
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.read_only
attributes:
  platform:
    platforms: debian
    support: full
options:
  name:
    description: The host's name in the inventory. Findings have it. If not given, the name by which Ansible knows the host.
    type: str
  role:
    description: Whether the host has the UPS, or hears of it over the network.
    type: str
    choices: [primary, secondary]
    required: true
  files:
    description: NUT's files as they should be, by their names. Without any, what stands in the files is not compared.
    type: dict
    default: {}
  kits:
    description:
      - The files of C(nut-shutdown), C(nut-hotplug) and C(nut-access) as they should be, by these names. One that is not named is
        not looked for.
    type: dict
    default: {}
  clients:
    description: The secondaries of a primary.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name in the inventory.
        type: str
        required: true
      address:
        description: The address or name from which it comes.
        type: str
        required: true
      ups:
        description: The UPS that it watches.
        type: str
        required: true
  plan:
    description: What the module M(homelab.nut.shutdown_plan) returned.
    type: dict
  ca:
    description: The certificates (PEM) by which the one of C(upsd) is checked, if it has TLS.
    type: str
    default: ""
  certificate_name:
    description: The name in the certificate of C(upsd). With O(ca).
    type: str
    default: localhost
  firewall:
    description: Whether Proxmox VE's firewall is looked at.
    type: bool
    default: true
  hours:
    description: How many hours of the journal are read.
    type: int
    default: 24
  events:
    description: How many events of the journal RV(seen) has.
    type: int
    default: 12
  digests:
    description: The SHA-256 sums of the programs, by their paths. If not given, those of the programs that this collection installs.
    type: dict
"""

EXAMPLES = r"""
- name: Is all well with the UPS here?
  homelab.nut.doctor:
    role: primary
    clients:
      - {name: nas, address: 192.0.2.20, ups: ups}
  register: nut

- name: Insist on it
  ansible.builtin.assert:
    that: nut.findings | selectattr('verdict', 'eq', 'failure') | length == 0
    fail_msg: "{{ nut.msg }}"
"""

RETURN = r"""
findings:
  description: What the checks found, in their order.
  returned: success
  type: list
  elements: dict
  contains:
    check:
      description: The name of the check, as in C(docs/doctor.md).
      type: str
      sample: driver
    host:
      description: The host that it is about. A primary also tells of the logins of its secondaries.
      type: str
      sample: pve
    verdict:
      description: V(ok), V(note), V(warning), V(failure), or V(unknown) where it could not be looked at.
      type: str
      sample: failure
    seen:
      description: What was seen.
      type: str
      sample: "ups: its driver is running, but gets no data from it (DATA-STALE)"
    todo:
      description: What to do, or empty.
      type: str
      sample: journalctl -u nut-driver@ups.service -n 50
seen:
  description: How it stands, for a status on one screen.
  returned: success
  type: dict
  contains:
    now:
      description: The host's time, in seconds since 1970.
      type: float
      sample: 1790000000.5
    release:
      description: The release of NUT, or none.
      type: str
      sample: 2.8.1
    upsd:
      description: Why C(upsd) can't be asked, or none.
      type: str
    upses:
      description: The UPSes, with name, status, charge, runtime, load, battery_date, model and clients.
      type: list
      elements: dict
    addresses:
      description: The addresses of the secondaries, by their names.
      type: dict
    events:
      description: The last events of the journal, the newest last; the time in seconds since 1970, and what happened.
      type: list
      elements: list
      sample: [[1790000000.5, "power failure: ups is on battery"]]
msg:
  description: The findings that are not ok, in one line.
  returned: always
  type: str
  sample: "2 hosts, 40 checks: 1 failure, 2 notes, 37 ok"
"""

import platform
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._command import runner
from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import findings, observe, status
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks_shutdown import KITS
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.exam import Expected, ExpectedClient

SECONDS = 15
"""How long one program may take."""


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
                "options": {name: {"type": "str", "required": True} for name in ("name", "address", "ups")},
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
    strange = sorted(set(options["kits"]) - set(KITS))
    if strange:
        module.fail_json(msg=f"kits: there is no {', '.join(strange)}. There are {', '.join(KITS)}")
    host = observe.HostObserver(
        primary=options["role"] == "primary",
        runner=runner(module, SECONDS),
        clients={one["name"]: one["address"] for one in options["clients"]},
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
        clients=tuple(ExpectedClient(**one) for one in options["clients"]),
        tls=bool(options["ca"]),
        plan=options["plan"],
    )
    seen = host.observe_host()
    report = findings.merge_findings([expected.name], examine_host(seen, expected))
    module.exit_json(
        changed=False,
        findings=report.to_json()["findings"],
        seen=status.collect_facts(seen, options["events"]),
        msg=report.summary,
    )


if __name__ == "__main__":
    main()
