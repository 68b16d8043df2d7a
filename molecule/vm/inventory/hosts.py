#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dynamic inventory: the lab's virtual machines; each is a primary."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "lab"))

from homelab import Lab, LabError
from vm.client import Vm


def make_inventory(machines: list[Vm]) -> dict[str, object]:
    """Return the inventory in the format of Ansible's script plugin."""
    variables = {
        vm.name: {
            "ansible_ssh_common_args": f"-F {shlex.quote(str(vm.ssh_config))}",
            # Ansible reuses connections by host, port and user. Without the port, it could reuse one to a host of another lab.
            "ansible_port": vm.read_record().port,
        }
        for vm in machines
    }
    return {"pve": {"hosts": list(variables)}, "_meta": {"hostvars": variables}}


if __name__ == "__main__":
    os.umask(0o077)
    try:
        print(json.dumps(make_inventory(Vm.find_all(Lab.from_environment()))))
    except LabError as error:
        sys.exit(f"lab: {error}")
