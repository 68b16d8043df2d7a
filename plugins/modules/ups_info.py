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
  - Asks NUT's server, C(upsd), over the network for its UPSes, their variables, commands and settings, and the clients
    that are logged in.
  - A unit that is active proves little. A UPS is served when C(upsd) has fresh data of it, and a secondary will be
    warned of a power cut only when it is logged in. This module tells both.
  - It can wait until everything is as it should be.
  - It needs no password, and does not log in.
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.read_only
  - homelab.nut.upsd
attributes:
  platform:
    platforms: posix
    support: full
options:
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
      - Who else is logged in is in RV(unexpected_clients).
    type: list
    elements: str
    default: []
    aliases: [expect]
  gather:
    description:
      - What to ask for of each UPS. Name, description and status are always asked for.
      - V(variables) are its values, V(clients) those that are logged in, V(commands) its instant commands, and V(writable)
        what can be set and to what. The last two take several questions a UPS.
      - With O(expected_clients) the clients are asked for in any case.
    type: list
    elements: str
    choices: [variables, clients, commands, writable]
    default: [variables, clients]
  facts:
    description:
      - Whether the result is also made a fact of the host, RV(ansible_facts.nut), with its UPSes by their names.
      - There is one such fact a host. With a second server, the later run replaces it.
    type: bool
    default: false
  wait:
    description:
      - How many seconds to wait until C(upsd) can be reached, each UPS is fresh, and each of O(expected_clients) is
        logged in.
      - With V(0), there is one look only.
    type: int
    default: 0
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

- name: Know all of it, by name, and encrypted
  homelab.nut.ups_info:
    host: pve.home.lan
    ca_path: /etc/ssl/certs/house-ca.pem
    gather: [variables, clients, commands, writable]
    facts: true

- name: Warn of an old battery
  ansible.builtin.debug:
    msg: "The battery has {{ ansible_facts.nut.ups.rack.variables['battery.charge'] }} %, and has to be replaced"
  when: "'RB' in ansible_facts.nut.ups.rack.status"
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
    tls:
      description: The version of TLS, or none if nothing was encrypted.
      type: str
      sample: TLSv1.3
    certificate_expires:
      description: When C(upsd)'s certificate expires (UTC), or none if nothing was encrypted.
      type: str
      sample: "2036-11-20T10:00:00Z"
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
    status_words:
      description: The same in words.
      type: str
      sample: on mains, charging
    fresh:
      description: Whether C(upsd) has fresh data, with a status.
      type: bool
    error:
      description: The code with which C(upsd) refuses the data, or none.
      type: str
      sample: DATA-STALE
    variables:
      description: All variables. Quantities are numbers; names, serial numbers, releases and dates are text.
      returned: if O(gather) has V(variables)
      type: dict
      sample:
        battery.charge: 100
        device.serial: "000123"
        ups.status: OL
    clients:
      description: The addresses of the clients that are logged in.
      returned: if O(gather) has V(clients)
      type: list
      elements: str
      sample: [127.0.0.1, 192.0.2.3]
    num_logins:
      description: How many clients count as logged in, or none if C(upsd) has no fresh data.
      returned: if O(gather) has V(clients)
      type: int
      sample: 2
    commands:
      description: Its instant commands, with their descriptions as far as C(upsd) has one.
      returned: if O(gather) has V(commands)
      type: dict
      sample:
        beeper.disable: Disable the UPS beeper
    writable:
      description: Its variables that can be set, by their names.
      returned: if O(gather) has V(writable)
      type: dict
      sample:
        ups.delay.shutdown:
          value: 20
          description: Interval to wait after shutdown with delay command (seconds)
          type: number
          length: null
          values: []
          ranges: [[0, 600]]
missing_clients:
  description: Those of O(expected_clients) that are not logged in, as they were given.
  returned: success
  type: list
  elements: str
  sample: [truenas]
unexpected_clients:
  description:
    - The addresses that are logged in and belong to none of O(expected_clients). Empty if nobody was expected.
    - They don't count for RV(ok).
  returned: success
  type: list
  elements: str
  sample: [192.0.2.77]
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
ansible_facts:
  description: The result as a fact of the host.
  returned: if O(facts)
  type: dict
  contains:
    nut:
      description:
        - As the result, but with the UPSes by their names, C(ups), instead of RV(upses), and without RV(msg).
      type: dict
      sample:
        ok: true
        ups:
          rack:
            status: [OL]
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

from ansible_collections.homelab.nut.plugins.module_utils import _upsd
from ansible_collections.homelab.nut.plugins.module_utils._command import runner
from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.hostnames import LOOPBACK, normal_address
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access, snapshot, vocabulary
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.errors import UpsdFailure


def returned(report: snapshot.UpsdReport, gather: list[str]) -> dict[str, Any]:
    """Return a report in the form that RETURN describes."""
    expires = report.tls_expires
    return {
        "server": {
            "version": report.version,
            "protocol": report.protocol,
            "tls": report.tls_version,
            "certificate_expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}" if expires else None,
        },
        "upses": [one_ups(state, gather) for state in report.upses],
        "missing_clients": [client.name for client in report.missing],
        "unexpected_clients": list(report.unexpected),
        "stale": [{"name": name, "reason": reason} for name, reason in report.stale],
        "not_on_mains": snapshot.list_not_on_mains(report.upses),
        "ok": report.is_ok,
        "msg": report.message,
    }


def one_ups(state: snapshot.UpsState, gather: list[str]) -> dict[str, Any]:
    """Return a UPS in the form that RETURN describes."""
    found: dict[str, Any] = {
        "name": state.name,
        "description": state.description,
        "status": list(state.status),
        "status_words": vocabulary.describe_status(state.status),
        "fresh": state.fresh,
        "error": state.error,
    }
    if snapshot.VARIABLES in gather:
        found["variables"] = {name: vocabulary.convert_value(name, value) for name, value in state.variables.items()}
    if snapshot.CLIENTS in gather:
        found["clients"] = list(state.clients)
        found["num_logins"] = state.num_logins
    if snapshot.COMMANDS in gather:
        found["commands"] = dict(state.commands)
    if snapshot.WRITABLE in gather:
        found["writable"] = {
            name: {
                "value": vocabulary.convert_value(name, one.value),
                "description": one.description,
                "type": "string" if one.type.length is not None else "number",
                "length": one.type.length,
                "values": [vocabulary.convert_value(name, value) for value in one.values],
                "ranges": [list(span) for span in one.ranges],
            }
            for name, one in state.writable.items()
        }
    return found


def explain_refusals(module: Module) -> str:
    """Return whom this host refuses, to be added to who is missing; "" if that is not known here."""
    words = access.explain_refusals(access.read_table(runner(module, 10)))
    return f". Addresses {words}" if words else ""


def facts(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result as facts."""
    kept = {name: value for name, value in result.items() if name not in ("upses", "msg")}
    return {"nut": {**kept, "ups": {one["name"]: one for one in result["upses"]}}}


def main() -> None:
    module = Module(
        argument_spec={
            **_upsd.OPTIONS,
            "ups": {"type": "list", "elements": "str"},
            "expected_clients": {"type": "list", "elements": "str", "default": [], "aliases": ["expect"]},
            "gather": {
                "type": "list",
                "elements": "str",
                "choices": list(snapshot.GATHER),
                "default": list(snapshot.SEEN_ALWAYS),
            },
            "facts": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 0},
        },
        mutually_exclusive=_upsd.MUTUALLY_EXCLUSIVE,
        supports_check_mode=True,
    )
    options = module.params
    expected = options["expected_clients"]
    # who is expected is shown, too
    gather = [
        *options["gather"],
        *([snapshot.CLIENTS] if expected and snapshot.CLIENTS not in options["gather"] else []),
    ]
    open_client = _upsd.opener(module)
    try:
        report = snapshot.wait_until_ok(open_client, options["ups"], expected, wait=options["wait"], gather=gather)
    except UpsdFailure as error:
        module.fail_json(msg=str(error))
    result = returned(report, gather)
    if report.missing and normal_address(options["host"]) in (LOOPBACK, "localhost"):
        result["msg"] += explain_refusals(module)
    if options["facts"]:
        result["ansible_facts"] = facts(result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
