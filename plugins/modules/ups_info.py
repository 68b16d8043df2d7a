#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module homelab.nut.ups_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ups_info
short_description: Query the UPSes that upsd serves and the clients that are logged in
version_added: 0.1.0
author: The homelab.nut contributors (@homelab-nut)
description:
  - Queries NUT's server, C(upsd), over the network for its UPSes, their variables and commands, and the clients that are
    logged in.
  - An active systemd unit proves little. A UPS is served if C(upsd) has fresh data from it, and a secondary hears of a power
    cut only if it is logged in. This module checks both.
  - Can wait until all UPSes are served and all expected clients are logged in.
  - Needs no password, and does not log in unless O(username) is set.
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
    description: The names of the UPSes to query, as in C(ups.conf). By default all that C(upsd) serves.
    type: list
    elements: str
  expected_clients:
    description:
      - Addresses or names of the systems whose C(upsmon) should be logged in to at least one of the queried UPSes.
      - Names are resolved on the host on which this module runs. Any of a name's addresses will do. Several addresses or names of one
        system are written with commas, as V(192.0.2.20,2001:db8::20).
      - All loopback addresses, and names for them, count as the same client. C(upsd) lists the C(upsmon) of its own host
        by the address that it connected from, often V(127.0.0.1).
      - RV(unexpected_clients) lists the other clients that are logged in.
    type: list
    elements: str
    default: []
    aliases: [expect]
  gather:
    description:
      - What to query for each UPS, besides its name, description and status.
      - V(variables) are its values, V(clients) the clients that are logged in, V(commands) its instant commands, and
        V(writable) the variables that can be set, with their possible values. The last two take several queries for each UPS.
      - With O(expected_clients), clients are always queried.
    type: list
    elements: str
    choices: [variables, clients, commands, writable]
    default: [variables, clients]
  facts:
    description:
      - Whether to return the result also as the fact RV(ansible_facts.nut) of the host, with its UPSes by name.
      - A host has only one such fact. If you query a second server, its result replaces the first.
    type: bool
    default: false
  username:
    description:
      - A user of C(upsd) whose login is tried, as C(upsmon) logs in. It logs out at once; until then, one machine more counts as
        powered by the UPS.
      - Needs O(password), and one UPS in O(ups).
    type: str
    version_added: 0.2.0
  password:
    description: The password of O(username).
    type: str
    version_added: 0.2.0
  wait:
    description:
      - Seconds to wait until C(upsd) can be reached, each UPS has fresh data, and each of O(expected_clients) is logged in.
      - With V(0), query once.
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

- name: Fail if that did not happen in time
  ansible.builtin.assert:
    that: nut.ok
    fail_msg: "{{ nut.msg }}"

- name: Stop unless the UPS is on mains
  homelab.nut.ups_info:
    ups: [ups]
  register: nut
  failed_when: nut.upses[0].status != ['OL']

- name: Gather everything as facts, over TLS
  homelab.nut.ups_info:
    host: pve.home.lan
    ca_path: /etc/ssl/certs/house-ca.pem
    gather: [variables, clients, commands, writable]
    facts: true

- name: Warn if the battery needs to be replaced
  ansible.builtin.debug:
    msg: "Replace the battery (charge: {{ ansible_facts.nut.ups.rack.variables['battery.charge'] }} %)"
  when: "'RB' in ansible_facts.nut.ups.rack.status"
"""

RETURN = r"""
server:
  description: The server that answered.
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
      description: The version of TLS, or null if the connection was not encrypted.
      type: str
      sample: TLSv1.3
    certificate_expires:
      description: When C(upsd)'s certificate expires (UTC), or null if the connection was not encrypted.
      type: str
      sample: "2036-11-20T10:00:00Z"
upses:
  description: The UPSes, in the order in which C(upsd) lists them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the UPS.
      type: str
      sample: ups
    description:
      description: Its description (C(desc) in C(ups.conf)).
      type: str
      sample: Rack, bottom
    status:
      description: The flags of C(ups.status). Empty if C(upsd) has no fresh data.
      type: list
      elements: str
      sample: [OL, CHRG]
    status_words:
      description: The status in words.
      type: str
      sample: on mains, charging
    fresh:
      description: Whether C(upsd) has fresh data, including a status.
      type: bool
    error:
      description: The error code with which C(upsd) refuses to return data, or null.
      type: str
      sample: DATA-STALE
    variables:
      description: All variables. Quantities are numbers; names, serial numbers, releases and dates are strings.
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
      description: The number of clients that C(upsd) counts as logged in, or null if it has no fresh data.
      returned: if O(gather) has V(clients)
      type: int
      sample: 2
    commands:
      description: Its instant commands, each with its description if C(upsd) has one.
      returned: if O(gather) has V(commands)
      type: dict
      sample:
        beeper.disable: Disable the UPS beeper
    writable:
      description: The variables that can be set, by name.
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
  description: Those of O(expected_clients) that are not logged in, as given.
  returned: success
  type: list
  elements: str
  sample: [truenas]
unexpected_clients:
  description:
    - Addresses that are logged in and belong to none of O(expected_clients). Empty without O(expected_clients).
    - They do not affect RV(ok).
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
      description: The name of the UPS.
      type: str
      sample: ups
    reason:
      description: The reason, in words.
      type: str
      sample: "DATA-STALE: the driver has not heard from the UPS for too long"
not_on_mains:
  description:
    - The UPSes that are not clearly on mains (on battery, calibrating, on bypass, or off), with their flags. Restarting NUT now
      could shut down hosts. UPSes without data are not listed.
  returned: success
  type: list
  elements: str
  sample: [ups (OB DISCHRG)]
login:
  description: Whether C(upsd) accepts the login of O(username). It does not affect RV(ok).
  returned: if O(username) is set
  type: dict
  contains:
    verdict:
      description: V(accepted), V(refused) or V(unknown).
      type: str
      sample: refused
    reason:
      description: The reason, in words. Empty if it is accepted.
      type: str
      sample: "upsd at localhost:3493 does not accept the login nas to ups (ACCESS-DENIED)"
ansible_facts:
  description: The result as a fact.
  returned: if O(facts)
  type: dict
  contains:
    nut:
      description:
        - Like the result, but with C(ups), the UPSes by name, instead of RV(upses), and without RV(msg).
      type: dict
      sample:
        ok: true
        ups:
          rack:
            status: [OL]
ok:
  description: Whether there is a UPS, each UPS has fresh data, and each of O(expected_clients) is logged in.
  returned: success
  type: bool
msg:
  description: A summary in one line.
  returned: always
  type: str
  sample: "upsd at pve:3493 serves ups (OL) with fresh data; truenas (192.0.2.3) has not logged in (logged in: 127.0.0.1)"
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils import _upsd
from ansible_collections.homelab.nut.plugins.module_utils._command import make_runner
from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.hostnames import LOOPBACK, normal_address
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access, login, snapshot, vocabulary
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.client import UpsdClient
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.errors import UpsdFailure


def to_result(report: snapshot.UpsdReport, gather: list[str]) -> dict[str, Any]:
    """Return a report as RETURN describes it."""
    expires = report.tls_expires
    return {
        "server": {
            "version": report.version,
            "protocol": report.protocol,
            "tls": report.tls_version,
            "certificate_expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}" if expires else None,
        },
        "upses": [to_ups(state, gather) for state in report.upses],
        "missing_clients": [client.name for client in report.missing],
        "unexpected_clients": list(report.unexpected),
        "stale": [{"name": name, "reason": reason} for name, reason in report.stale],
        "not_on_mains": snapshot.list_not_on_mains(report.upses),
        "ok": report.is_ok,
        "msg": report.message,
    }


def to_ups(state: snapshot.UpsState, gather: list[str]) -> dict[str, Any]:
    """Return a UPS as an element of RV(upses)."""
    ups: dict[str, Any] = {
        "name": state.name,
        "description": state.description,
        "status": list(state.status),
        "status_words": vocabulary.describe_status(state.status),
        "fresh": state.fresh,
        "error": state.error,
    }
    if snapshot.VARIABLES in gather:
        ups["variables"] = {name: vocabulary.convert_value(name, value) for name, value in state.variables.items()}
    if snapshot.CLIENTS in gather:
        ups["clients"] = list(state.clients)
        ups["num_logins"] = state.num_logins
    if snapshot.COMMANDS in gather:
        ups["commands"] = dict(state.commands)
    if snapshot.WRITABLE in gather:
        ups["writable"] = {
            name: {
                "value": vocabulary.convert_value(name, variable.value),
                "description": variable.description,
                "type": "string" if variable.type.length is not None else "number",
                "length": variable.type.length,
                "values": [vocabulary.convert_value(name, value) for value in variable.values],
                "ranges": [list(span) for span in variable.ranges],
            }
            for name, variable in state.writable.items()
        }
    return ups


def explain_refusals(module: Module) -> str:
    """Return the addresses that this host refuses, as an addition to the message; "" if there are none or they are unknown."""
    refusals = access.explain_refusals(access.read_table(make_runner(module, 10)))
    return f". Addresses {refusals}" if refusals else ""


def try_login(open_client: Callable[[], UpsdClient], options: dict[str, Any]) -> dict[str, str]:
    """Try the login of O(username), and return the answer as RV(login)."""
    try:
        with open_client() as client:
            answer = login.try_login(client, options["ups"][0], options["username"], options["password"])
    except UpsdFailure as error:
        answer = login.LoginAnswer(login.UNKNOWN, str(error))
    return {"verdict": answer.verdict, "reason": answer.why}


def to_facts(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result as RV(ansible_facts)."""
    kept = {name: value for name, value in result.items() if name not in ("upses", "msg")}
    return {"nut": {**kept, "ups": {ups["name"]: ups for ups in result["upses"]}}}


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
                "default": list(snapshot.GATHER_DEFAULT),
            },
            "facts": {"type": "bool", "default": False},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "wait": {"type": "int", "default": 0},
        },
        required_together=[("username", "password")],
        mutually_exclusive=_upsd.MUTUALLY_EXCLUSIVE,
        supports_check_mode=True,
    )
    options = module.params
    expected = options["expected_clients"]
    if options["username"] and len(options["ups"] or ()) != 1:
        module.fail_json(msg="username is set, so name the UPS to log in to: set ups to one name")
    gather = [
        *options["gather"],
        *([snapshot.CLIENTS] if expected and snapshot.CLIENTS not in options["gather"] else []),
    ]
    open_client = _upsd.make_client_opener(module)
    try:
        report = snapshot.wait_until_ok(open_client, options["ups"], expected, wait=options["wait"], gather=gather)
    except UpsdFailure as error:
        module.fail_json(msg=str(error))
    result = to_result(report, gather)
    if report.missing and normal_address(options["host"]) in (LOOPBACK, "localhost"):
        result["msg"] += explain_refusals(module)
    if options["username"]:
        result["login"] = try_login(open_client, options)
    if options["facts"]:
        result["ansible_facts"] = to_facts(result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
