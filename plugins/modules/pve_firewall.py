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
  - Where Proxmox VE's firewall is on, it shuts out what no rule lets in. C(upsd) is among that. A client that is shut out is
    not warned of a power cut.
  - This module tells what is missing, or keeps the rules for C(upsd)'s clients in the host's own C(host.fw).
  - Its rules are the first in the section C([RULES]) and carry a mark in their comment, by which it knows them again. They
    may be seen, and are kept, in the web interface. All else in the file stays as it is.
  - Proxmox VE takes up a changed file by itself, within some seconds.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  mode:
    description: What to do.
    type: str
    choices:
      hint: Change nothing. Say in RV(hint) what to add, if anything is missing.
      rules: Keep a rule for each address of O(sources), and no other that this module has made.
      absent: Remove the rules that this module has made.
    default: hint
  sources:
    description:
      - Addresses, networks or names of the clients. Names are resolved on the host, as rules take addresses only.
      - With O(mode=rules), a name that does not resolve is an error. With O(mode=hint) it is part of the hint.
    type: list
    elements: str
    default: []
  port:
    description: The port on which C(upsd) listens.
    type: int
    default: 3493
  path:
    description: Where Proxmox VE's cluster file system is.
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
  - Only rules that name addresses, networks and ports are judged. Security groups, IP sets, aliases, interfaces and
    destinations are not followed, and count as letting nobody in; RV(hint) names such rules.
  - On a host that is no Proxmox VE there is never a hint and nothing to remove, and O(mode=rules) fails.
"""

EXAMPLES = r"""
- name: See whether the firewall lets the clients in
  homelab.nut.pve_firewall:
    sources: [truenas, 192.0.2.7]
  register: firewall

- name: Say what is missing
  ansible.builtin.debug:
    msg: "{{ firewall.hint }}"
  when: firewall.hint

- name: Let them in
  homelab.nut.pve_firewall:
    sources: [truenas, 192.0.2.7]
    mode: rules
"""

RETURN = r"""
hint:
  description:
    - What to add to which file, and why, in lines. Empty if the firewall is off, or lets all clients in.
  returned: success
  type: list
  elements: str
  sample:
    - >-
      Proxmox VE's firewall is on, and no rule is known to let in to port 3493: truenas (192.0.2.5). A client that is shut
      out is not warned of a power cut, and loses its power while it runs.
    - >-
      Put these lines first in the section [RULES] of /etc/pve/local/host.fw, which you may have to make; or add such
      rules in the web interface, at this node's Firewall:
    - IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493
msg:
  description: What was seen or done, in one line.
  returned: always
  type: str
  sample: "Proxmox VE's firewall: it is off (cluster.fw does not have enable: 1)"
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
    """Return the addresses of each source, and a sentence for each that has none."""
    found, problems = access.resolve_sources([access.make_source(one, one) for one in sources], resolve_name)
    return {source.address: those for source, those in found.items()}, list(problems.values())


def find_hint(texts: tuple[str, str], sources: list[str], port: int, path: Path) -> tuple[list[str], str]:
    """Return the hint and the one line."""
    off = firewall.explain_off(*texts)
    if off:  # no name is resolved for nothing
        return [], f"Proxmox VE's firewall: {off}"
    clients, problems = find_addresses(sources)
    seen = firewall.judge_clients(*texts, [one for those in clients.values() for one in those], port)
    hint = [*firewall.describe_missing_rules(seen, clients, port, path), *problems]
    return hint, hint[0] if hint else f"Proxmox VE's firewall lets all of them in to port {port}"


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
        if mode == "rules":
            clients, problems = find_addresses(module.params["sources"])
            if problems:
                module.fail_json(msg=". ".join(problems))
            ours = firewall.make_rules([one for those in clients.values() for one in those], port)
        before = texts[1]
        after = firewall.with_rules(before, ours)
        if after != before and not module.check_mode:
            firewall.write_host_fw(root, after)
    except (firewall.FirewallError, AccessError) as error:
        module.fail_json(msg=str(error))
    off = firewall.explain_off(*texts)
    msg = f"rules of this module in {path}: {len(ours)}"
    result: dict[str, Any] = {"changed": after != before, "hint": [], "msg": f"{msg}; {off}" if ours and off else msg}
    if after != before:
        result["diff"] = {"before": before, "after": after, "before_header": str(path), "after_header": str(path)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
