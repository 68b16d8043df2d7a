#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.pve_firewall."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_firewall
short_description: Let NUT's clients through Proxmox VE's own firewall
version_added: 0.2.0
description:
  - When Proxmox VE's firewall is on, it blocks everything that no rule lets in, including the clients of C(upsd). A client
    that is shut out gets no warning of a power cut.
  - This module reports missing rules, or maintains rules for C(upsd)'s clients in the host's own C(host.fw).
  - Its rules are the first ones in the section C([RULES]). It recognizes them by a mark in their comment. The web interface
    shows and keeps them. Everything else in the file is left unchanged.
  - Proxmox VE applies a changed file within a few seconds.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  mode:
    description: What to do.
    type: str
    choices:
      hint: Change nothing. RV(hint) says what to add, if anything is missing.
      rules: Keep a rule for each address of O(sources), and remove all others that this module has added.
      absent: Remove the rules that this module has added.
    default: hint
  sources:
    description:
      - Addresses, networks or names of the clients. Names are resolved on the host, because rules only take addresses.
      - With O(mode=rules), a name that can't be resolved is an error. With O(mode=hint), it is part of the hint.
    type: list
    elements: str
    default: []
  port:
    description: The port on which C(upsd) listens.
    type: int
    default: 3493
  path:
    description: The mount point of Proxmox VE's cluster file system.
    type: path
    default: /etc/pve
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: debian
notes:
  - The module reads C(cluster.fw) and C(host.fw) as Proxmox VE does, with aliases, IP sets and security groups. It does not
    resolve interfaces, destinations, source ports, and the IP sets of Proxmox VE's software-defined network; rules with these
    count as not letting any client in, and RV(hint) lists them. Rules that Proxmox VE ignores because of a mistake, or for
    which it can't load any rule, are listed, too.
  - With O(mode=rules), the module reads the result in the same way. If a client is still shut out, for example by the IP set
    C(blacklist), RV(hint) says why.
  - On a host without Proxmox VE there is never a hint and nothing to remove, and O(mode=rules) fails.
"""

EXAMPLES = r"""
- name: Check whether the firewall lets the clients in
  homelab.nut.pve_firewall:
    sources: [truenas, 192.0.2.7]
  register: firewall

- name: Show what is missing
  ansible.builtin.debug:
    msg: "{{ firewall.hint }}"
  when: firewall.hint

- name: Let the clients in
  homelab.nut.pve_firewall:
    sources: [truenas, 192.0.2.7]
    mode: rules
"""

RETURN = r"""
hint:
  description:
    - Lines that say what to add to which file, or what else to change, and why. Empty if the firewall is off, or lets all
      clients in.
  returned: success
  type: list
  elements: str
  sample:
    - >-
      Proxmox VE's firewall is on, and no known rule lets these clients in to port 3493: truenas (192.0.2.5). A client that is
      shut out gets no warning of a power cut, and loses power while it is running.
    - >-
      Add these lines at the top of the section [RULES] of /etc/pve/local/host.fw (add the section if it is missing), or add
      the same rules in the web interface, under this node's Firewall:
    - IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493
msg:
  description: What was found or done, in one line.
  returned: always
  type: str
  sample: "Proxmox VE's firewall is off (cluster.fw does not have enable: 1)"
"""

from pathlib import Path
from typing import Any

from ..module_utils._module import Module
from ..module_utils._nut.base.allow import AccessError
from ..module_utils._nut.base.hostnames import resolve_name
from ..module_utils._nut.conf import upsd
from ..module_utils._nut.net import access
from ..module_utils._nut.proxmox import firewall


def find_addresses(sources: list[str]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the addresses of each source, and a message for each that can't be resolved."""
    found, problems = access.resolve_sources([access.make_source(source, source) for source in sources], resolve_name)
    return {source.address: addresses for source, addresses in found.items()}, list(problems.values())


def find_hint(texts: tuple[str, str], sources: list[str], port: int, path: Path) -> tuple[list[str], str]:
    """Return the hint, and the message."""
    off_reason = firewall.explain_off(*texts)
    if off_reason:  # then there is no need to resolve names
        return [], f"Proxmox VE's firewall is {off_reason}"
    clients, problems = find_addresses(sources)
    hint = [*find_shut_out(texts, clients, port, path), *problems]
    return hint, hint[0] if hint else f"Proxmox VE's firewall lets all clients in to port {port}"


def find_shut_out(texts: tuple[str, str], clients: dict[str, tuple[str, ...]], port: int, path: Path) -> list[str]:
    """Return what shuts clients out, and what to do about it."""
    verdict = firewall.judge_host(texts, [address for addresses in clients.values() for address in addresses], port)
    return firewall.describe_missing_rules(verdict, clients, port, path)


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            "mode": {"type": "str", "choices": ["hint", "rules", "absent"], "default": "hint"},
            "sources": {"type": "list", "elements": "str", "default": []},
            "port": {"type": "int", "default": upsd.PORT},
            "path": {"type": "path", "default": "/etc/pve"},
        },
        supports_check_mode=True,
    )
    mode, port, root = module.params["mode"], module.params["port"], Path(module.params["path"])
    path = root / firewall.HOST
    try:
        texts = firewall.read_files(root)
    except firewall.FirewallError as error:
        if mode == "rules":
            module.fail_json(msg=str(error))
        module.exit_json(changed=False, hint=[], msg=str(error))
    try:
        if mode == "hint":
            hint, msg = find_hint(texts, module.params["sources"], port, path)
            module.exit_json(changed=False, hint=hint, msg=msg)
        ours: list[str] = []
        clients: dict[str, tuple[str, ...]] = {}
        if mode == "rules":
            clients, problems = find_addresses(module.params["sources"])
            if problems:
                module.fail_json(msg=". ".join(problems))
            ours = firewall.make_rules([address for addresses in clients.values() for address in addresses], port)
        before = texts[1]
        after = firewall.with_rules(before, ours)
        if after != before and not module.check_mode:
            firewall.write_host_fw(root, after)
    except (firewall.FirewallError, AccessError) as error:
        module.fail_json(msg=str(error))
    off_reason = firewall.explain_off(texts[0], after)
    hint = find_shut_out((texts[0], after), clients, port, path)
    msg = f"rules of this module in {path}: {len(ours)}"
    if ours:
        msg += f"; the firewall is {off_reason}" if off_reason else f"; {hint[0] if hint else 'all clients are let in'}"
    result: dict[str, Any] = {"changed": after != before, "hint": hint, "msg": msg}
    if after != before:
        result["diff"] = {"before": before, "after": after, "before_header": str(path), "after_header": str(path)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
