#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dynamic inventory: the started hosts of the lab and their ports on loopback.

What a user's inventory would contain for such hosts is in group_vars/ and host_vars/.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "lab"))

from homelab import Lab, LabError


def make_inventory(lab: Lab) -> dict[str, object]:
    """Return the inventory in the format of Ansible's script plugin."""
    groups: dict[str, dict[str, list[str]]] = {}
    variables: dict[str, dict[str, object]] = {}
    for name, ports in lab.read_hosts().items():
        groups.setdefault(lab.find_host(name).group, {"hosts": []})["hosts"].append(name)
        variables[name] = {
            # the file has port, key and host key; testinfra and `lab/lab ssh` use it too
            "ansible_ssh_common_args": f"-F {shlex.quote(str(lab.state / 'ssh_config'))}",
            # Ansible reuses connections by host, port and user. Without the port, it could reuse one to a host of another lab.
            "ansible_port": ports["ssh"],
        }
        if "api" in ports:
            variables[name]["nut_client_truenas_url"] = f"wss://127.0.0.1:{ports['api']}/api/current"
            variables[name]["nut_client_truenas_fingerprint"] = lab.read_fingerprint(name)
    return {**groups, "_meta": {"hostvars": variables}}


if __name__ == "__main__":
    os.umask(0o077)
    try:
        print(json.dumps(make_inventory(Lab.from_environment())))
    except LabError as error:
        sys.exit(f"lab: {error}")
