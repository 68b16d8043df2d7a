#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.upsd_access."""

from __future__ import annotations

DOCUMENTATION = r"""
module: upsd_access
short_description: Limit who may connect to C(upsd)
version_added: 0.2.0
description:
  - Keeps an nftables table, C(inet homelab_nut), that lets the allowed addresses connect to the ports of C(upsd), and refuses
    everybody else. It is about nothing but these ports, and leaves all other tables alone, such as those of Proxmox VE's
    firewall.
  - No login is needed to block C(upsd), with TLS or without, so it matters who can connect at all.
  - C(nut-access.service) loads the table before there is a network. If C(nftables.service) is used on the host, which
    empties the ruleset when it starts, a drop-in of it loads the table again.
  - Each minute C(nut-access) looks whether names have other addresses by now, lets them in there, too, and loads a table that
    somebody has removed. It shuts nobody out. The program comes by M(homelab.nut.zipapp).
  - Before the table is made for the first time or changed, it looks who is connected. If somebody would be cut off who is
    logged in to C(upsd), as a secondary is, the run fails and names the address, unless O(force). Others who are
    connected, such as a dashboard, are a warning each.
  - A table that can't be loaded is a warning, not a failure. A host that is protected from power cuts but not from its
    network is better than one that is protected from neither. RV(loaded) says whether it is.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) keeps the table, its file and its unit.
      - V(absent) removes them. Then everybody may connect.
    type: str
    choices: [present, absent]
    default: present
  sources:
    description:
      - Who may connect, besides the host itself.
      - A name is resolved on the host. One that has no address is a warning, and may connect from where it could before.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name, for people.
        type: str
        required: true
      address:
        description: Its address, a network, or a name.
        type: str
        required: true
  ports:
    description:
      - The ports on which C(upsd) is to listen.
      - Those on which it listens by the C(upsd.conf) that is on the host now are covered, too. So when a port changes, the
        old one stays covered until the next run.
    type: list
    elements: int
    default: [3493]
  files:
    description:
      - The other files, name to text. V(nut-access.service), V(nut-access-refresh.service), V(nut-access-refresh.timer), and
        V(nftables.conf), the drop-in of C(nftables.service).
      - Required if O(state=present).
    type: dict
  force:
    description:
      - Change who may connect though a UPS is not plainly on mains, or though that cuts off somebody who is logged in
        to C(upsd). A secondary that is cut off does not hear of a power cut; one with NUT 2.8.1 or 2.8.2 that is cut off
        while its UPS is on battery shuts down at once.
    type: bool
    default: false
  wait:
    description: How many seconds to wait for another run that is at work on NUT.
    type: int
    default: 60
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
    details:
      - Where NUT is not installed yet, it says so, and does not fail.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Let everybody connect again
  homelab.nut.upsd_access:
    state: absent
"""

RETURN = r"""
allowed:
  description: The addresses and networks that may connect, by the names in O(sources).
  returned: always
  type: dict
  sample:
    truenas: [192.0.2.20]
loaded:
  description: Whether the kernel has the table as it should be. In check mode, whether it had it before.
  returned: always
  type: bool
  sample: true
files:
  description: The files that were replaced, or would be.
  returned: always
  type: list
  elements: str
  sample: [access.nft]
removed:
  description: The paths that were removed, or would be.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/nut-access.service]
actions:
  description: The commands that were run, or would be, with the reason.
  returned: always
  type: list
  elements: str
  sample: ["systemctl restart nut-access.service: access.nft changed"]
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..module_utils import _host, _service
from ..module_utils._command import runner, warn
from ..module_utils._module import Module
from ..module_utils._nut.base import files, systemd, tcp_table
from ..module_utils._nut.base.allow import AccessError
from ..module_utils._nut.base.hostnames import is_address, normal_address, resolve
from ..module_utils._nut.conf import upsd
from ..module_utils._nut.deploy import kits
from ..module_utils._nut.deploy.kits import Installation, InstallError, Plan, Step
from ..module_utils._nut.net import access, snapshot
from ..module_utils._nut.net.client import Client, UpsdFailure


def read_file(path: Path) -> str:
    """Return the text of a file, "" if there is none."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def ask_upsd() -> tuple[snapshot.UpsState, ...]:
    """Return what this host's upsd says of its UPSes; () if it does not answer."""
    host, port = upsd.local_upsd(read_file(_host.ROOT / "etc/nut/upsd.conf"))[0]
    try:
        with Client(host, port, timeout=5) as client:
            return snapshot.snapshot(client)
    except UpsdFailure:
        return ()


def find_ports() -> list[int]:
    """Return the ports that upsd listens on by the configuration that is on the host now."""
    listening = upsd.listening(read_file(_host.ROOT / "etc/nut/upsd.conf"))
    return [port for _address, port in listening if 0 < port < 65536]


def find_shut_out(
    table: str, loaded: access.Loaded | None, states: Iterable[snapshot.UpsState]
) -> tuple[list[str], list[str]]:
    """Return whom a table would cut off now: those who are logged in to upsd, and others who are connected."""
    peers, own = tcp_table.find_peers(_host.ROOT, access.known_ports(table))
    clients = {normal_address(client) for state in states for client in state.clients}
    logged_in = {client for client in clients if is_address(client)} - own
    return access.find_shut_out(logged_in, table, loaded), access.find_shut_out(peers - logged_in, table, loaded)


def guard(module: Module, table: str, loaded: access.Loaded | None) -> None:
    """Raise InstallError if a table that is new or changes would do harm now; warn of who is cut off besides."""
    force = module.params["force"]
    states = ask_upsd()
    busy = snapshot.careful(states)
    # one who is cut off on battery may shut down at once
    if busy and not module.check_mode and not force:
        raise InstallError(
            f"upsd on this host says that {', '.join(busy)}: not plainly on mains. A secondary that is cut off "
            "now may shut down at once, so nothing was changed. Run again when the mains are back, or with "
            "force if you know that it is safe"
        )
    logged_in, connected = find_shut_out(table, loaded, states)
    if logged_in and not force:
        raise InstallError(f"{describe_logged_in(logged_in)}. Nothing was changed. To cut it off all the same: force")
    if logged_in:
        warn(module, describe_logged_in(logged_in))
    for address in connected:
        warn(
            module,
            f"{address} is connected to upsd now, and may no longer connect. If it is yours, such as a dashboard, add it to "
            "nut_server_allow",
        )


def describe_logged_in(addresses: Sequence[str]) -> str:
    """Return what it means to cut off somebody whose upsmon is logged in, and the remedy."""
    return (
        f"{', '.join(addresses)} is logged in to upsd now, and not among those who may connect. Shut out, it would not hear of "
        "a power cut, and would lose its power while it runs (an upsmon of NUT 2.8.1 or 2.8.2 on battery would shut it down at "
        "once). If it is a secondary of the inventory, set nut_client_address of that host to this address; "
        "otherwise add the address to nut_server_allow. If it is to be cut off, stop its upsmon first"
    )


def is_there(run: systemd.Run) -> bool:
    """Return whether the kernel has a table of this name, whatever it holds."""
    return run(access.LIST)[0] == 0


def complete(plan: Plan, difference: str, absent: bool, there: bool) -> Plan:
    """Add to a plan what the kernel's table needs. difference: how it is not as it should be. there: whether it is there and must go."""
    if absent:
        gone = Step(access.DELETE, "it is removed from this host")
        # stopping the unit removes it, too, and then there is none
        stops = any("disable" in step.command for step in plan.before)
        return replace(plan, before=(*plan.before, gone)) if there and not stops else plan
    if difference and not any({"start", "restart"} & set(step.command) for step in plan.after):
        return replace(plan, after=(*plan.after, Step(("systemctl", "restart", kits.ACCESS_UNIT), difference)))
    return plan


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            **{name: option for name, option in _service.OPTIONS.items() if name != "log"},
            "sources": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {name: {"type": "str", "required": True} for name in ("name", "address")},
            },
            "force": {"type": "bool", "default": False},
            "ports": {"type": "list", "elements": "int", "default": [3493]},
        },
        required_if=_service.REQUIRED_IF,
        supports_check_mode=True,
    )
    run = runner(module)
    absent = module.params["state"] == "absent"
    path = _host.ROOT / kits.ACCESS.places[kits.ACCESS_TABLE].path
    allowed: dict[str, list[str]] = {}
    wanted = None
    plan = Plan()
    try:
        if not absent:
            sources = [access.make_source(one["name"], one["address"]) for one in module.params["sources"]]
            found, problems = access.resolve_sources(sources, resolve)
            known, warnings = access.keep_known(found, problems, access.known_sources(read_file(path)))
            allowed = {source.name: list(those) for source, those in known.items()}
            for words in warnings:
                warn(module, words)
            given = module.params["ports"]
            # upsd keeps its port until the module config has changed it, and must not be open if that fails
            table = access.render({*given, *(find_ports() if given else ())}, known)
            wanted = {
                kits.ACCESS_TABLE: table,
                **{name: str(text) for name, text in (module.params["files"] or {}).items()},
            }
        missing = "" if absent else _host.lacking_nut()
        if missing and module.check_mode:
            warn(module, f"all would be installed as soon as NUT is there. {missing}")
            module.exit_json(
                changed=True, allowed=allowed, loaded=False, **_service.returned(Plan(changed=tuple(wanted or ())))
            )
        if missing:
            raise InstallError(missing)
        locked = contextlib.nullcontext("") if module.check_mode else _service.alone(module, kits.ACCESS)
        with locked as recovered:
            if recovered:
                warn(module, recovered)
            installation = Installation(wanted, run, None, _host.ROOT, _service.OWNERS, kits.ACCESS)
            loaded = access.read_table(run)
            difference = "" if wanted is None else access.find_difference(loaded, wanted[kits.ACCESS_TABLE])
            plan = complete(installation.plan(), difference, absent, absent and is_there(run))
            diff = installation.diff(plan)
            if wanted is not None and kits.ACCESS_TABLE in plan.changed:
                guard(module, wanted[kits.ACCESS_TABLE], loaded)
            trouble = ""
            if not module.check_mode:
                trouble = apply(installation, plan)
                if absent:
                    plan = replace(plan, after=(*plan.after, *remove_left(installation, run)))
                if wanted is not None:
                    difference = trouble or access.find_difference(access.read_table(run), wanted[kits.ACCESS_TABLE])
    except (
        AccessError,
        InstallError,
        systemd.UnitError,
        files.WriteError,
        files.Busy,
        OSError,
        LookupError,
    ) as error:
        module.fail_json(msg=str(error), allowed=allowed, loaded=False, **_service.returned(plan))
    if difference and not module.check_mode:
        said = systemd.last_words(kits.ACCESS_UNIT, run)
        warn(
            module,
            "ACCESS TO UPSD IS NOT LIMITED on this host, and blocking upsd takes no login: the table that "
            f"limits who may connect can't be loaded: {difference.rstrip('.')}. {said.rstrip('.')}. What to do: systemctl status "
            f"{kits.ACCESS_UNIT}; or, if everybody on the network may connect, nut_server_allow: any",
        )
    module.exit_json(
        changed=bool(plan),
        allowed=allowed,
        loaded=not absent and not difference,
        **_service.returned(plan),
        **({"diff": [{"prepared": diff}]} if plan else {}),
    )


def remove_left(installation: Installation, run: systemd.Run) -> tuple[Step, ...]:
    """Remove a table that is there though its unit is gone: one that failed at boot, and that nut-access loaded later."""
    if not is_there(run):
        return ()
    steps = (Step(access.DELETE, "it is still loaded"),)
    installation.apply(Plan(after=steps))
    return steps


def apply(installation: Installation, plan: Plan) -> str:
    """Do what was decided. Returns why the table could not be loaded, "" if it was; what else fails raises as Installation.apply does."""
    loading = [step for step in plan.after if {"start", "restart"} & set(step.command)]
    installation.apply(replace(plan, after=tuple(step for step in plan.after if step not in loading)))
    try:
        installation.apply(Plan(after=tuple(loading)))
    except systemd.UnitError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
