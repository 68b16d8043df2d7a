# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.login_report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

DOCUMENTATION = r"""
name: login_report
short_description: Report the machines that are logged in to each UPS at the end of a run
version_added: 0.2.0
description:
  - Reports for each UPS which machines are logged in, which are not and why, and which hosts could not be reached.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: hostvars, clients, primaries
options:
  _input:
    description: The names of the hosts that are part of the run.
    type: list
    elements: str
    required: true
  hostvars:
    description:
      - The variable C(hostvars). The filter reads C(__nut_server_logins) of each primary, the results of M(homelab.nut.ups_info), and
        the results that the role P(homelab.nut.nut_client#role) has registered on each secondary.
    type: dict
    required: true
  clients:
    description: The secondaries, as returned by P(homelab.nut.clients#filter).
    type: list
    elements: dict
    required: true
  primaries:
    description: The names of all primaries.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the machines that are logged in
  ansible.builtin.debug:
    msg: "{{ (__nut_hosts_in_run | homelab.nut.login_report(hostvars, groups | homelab.nut.clients(hostvars), groups.pve)).lines }}"
"""

RETURN = r"""
_value:
  description: C(lines), the report, and C(missing), the machines that are not logged in and the hosts that were not reached.
  type: dict
"""


def _shorten(message: Any) -> str:
    from ..module_utils._nut.base.text import as_text, one_line, printable

    return printable(one_line(as_text(message)), 300).removeprefix("Task failed: ").rstrip(". ")


def _read_result(own: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a registered result; an empty one if it was skipped, or never registered."""
    result = own.get(name)
    return result if isinstance(result, Mapping) and not result.get("skipped") else {}


def _explain_host(own: Mapping[str, Any]) -> str:
    """Return why a host of the run was not deployed; "" if its results do not say so."""
    for name in ("__nut_client_deployed", "__nut_client_checked", "__nut_client_by_midclt", "__nut_server_plan"):
        result = _read_result(own, name)
        if result.get("unreachable"):
            return f"not reached: {_shorten(result.get('msg') or 'no answer')}"
        if result.get("failed"):
            return _shorten(result.get("msg") or "its deployment failed")
    by_api = _read_result(own, "__nut_client_by_api")
    if by_api and "service" not in by_api:
        return _shorten(by_api.get("msg") or "TrueNAS did not answer")
    login = _read_result(own, "__nut_client_mains").get("login")
    return _shorten(login.get("reason") or "") if isinstance(login, Mapping) else ""


def _explain_missing(
    name: str, *, clients: Sequence[Mapping[str, Any]], hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> str:
    client = next(client for client in clients if client["name"] == name)
    if not client["managed"]:
        port = "" if client["primary_port"] == 3493 else f", port {client['primary_port']}"
        given = hostvars[name].get("nut_client_password")
        password = "nut_client_password" if given else f".homelab-nut/passwords/{name} beside the inventory"
        return (
            f"enter there: server {client['primary_address']}{port}, UPS {client['ups']}, user {client['user']}, and the password in "
            f"{password}. If it is there already, restart its UPS service, because a refused login is not tried again; see docs/clients.md"
        )
    if name not in hosts:
        return "it has no part in this run"
    return _explain_host(hostvars[name]) or "the playbook doctor shows why"


def _is_deployed(own: Mapping[str, Any]) -> bool:
    """Return whether the role nut_client has seen that a secondary is logged in."""
    deployed = _read_result(own, "__nut_client_deployed")
    seen = _read_result(own, "__nut_client_seen_again") or _read_result(own, "__nut_client_seen")
    on_linux = bool(deployed) and not deployed.get("failed") and not deployed.get("unreachable")
    return on_linux or (bool(seen) and seen.get("missing_clients") == [])


def _describe_ups(ups: str, primary: str, result: Mapping[str, Any]) -> str:
    states = result.get("upses")
    state = states[0] if isinstance(states, Sequence) and states and isinstance(states[0], Mapping) else {}
    flags = state.get("status")
    status = " ".join(map(str, flags)) if isinstance(flags, Sequence) and flags else state.get("error") or "no data"
    return f"{ups} on {primary} ({_shorten(status)})"


def _report_ups(
    what: str, names: Sequence[str], missing: Sequence[str], explain: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    """Yield the lines about a UPS, each with the machine that is missing; "" if none is."""
    logged_in = [name for name in names if name not in missing]
    listed = ", ".join(logged_in) or ("none" if names else "no secondary is in the inventory")
    yield f"{what}: logged in: {listed}", ""
    for name in missing:
        yield f"  NOT logged in: {name} ({explain(name)})", name


def _report_primary(
    primary: str,
    hosts: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    clients: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, str]]:
    """Yield the lines about a primary of the run."""
    explain = partial(_explain_missing, clients=clients, hosts=hosts, hostvars=hostvars)
    logins = hostvars[primary].get("__nut_server_logins")
    results = logins.get("results") if isinstance(logins, Mapping) else None
    if not isinstance(results, Sequence):
        yield (
            f"{primary}: {_explain_host(hostvars[primary]) or 'it was not deployed: see the failed task above'}",
            primary,
        )
        return
    for result in results:
        ups = str(result.get("item")) if isinstance(result, Mapping) else ""
        own = [client for client in clients if client["primary"] == primary and client["ups"].lower() == ups.lower()]
        names = [client["name"] for client in own]
        if not isinstance(result.get("missing_clients"), Sequence):
            yield f"{ups} on {primary}: upsd can't be asked: {_shorten(result.get('msg') or 'no answer')}", primary
            continue
        addresses = {client["address"].strip("[]"): client["name"] for client in own}
        missing = [addresses[str(address)] for address in result["missing_clients"] if str(address) in addresses]
        yield from _report_ups(_describe_ups(ups, primary, result), names, missing, explain)


def login_report(
    hosts: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    clients: Sequence[Mapping[str, Any]],
    primaries: Sequence[str],
) -> dict[str, Any]:
    """Return the report on all UPSes of a run."""
    present = [client for client in clients if client["present"]]
    reported: list[tuple[str, str]] = []
    for primary in primaries:
        if str(hostvars[primary].get("nut_server_state")) == "absent":
            continue
        if primary in hosts:
            reported += _report_primary(primary, hosts, hostvars, present)
            continue
        own = [client for client in present if client["primary"] == primary and client["name"] in hosts]
        for ups in dict.fromkeys(client["ups"] for client in own):
            names = [client["name"] for client in own if client["ups"] == ups]
            missing = [name for name in names if not _is_deployed(hostvars[name])]
            explain = partial(_explain_missing, clients=own, hosts=hosts, hostvars=hostvars)
            reported += _report_ups(f"{ups} on {primary}", names, missing, explain)
    return {"lines": [line for line, _name in reported], "missing": [name for _line, name in reported if name]}


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"login_report": login_report}
