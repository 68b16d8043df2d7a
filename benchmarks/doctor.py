#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the doctor takes on the lab's two sites (five hosts), and the status, beside a mere `ansible -m ping` of the same hosts.

Aim, on two cores: the doctor at most 30 s. The lab is started and deployed first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
ROUNDS = 3
INVENTORY = ["--inventory", "inventories/lab"]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{CHECKOUT / '.venv/bin'}:{os.environ['PATH']}",
    "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
}
ROWS = {
    "doctor": (["tools/doctor", *INVENTORY], 30),
    "status": (["tools/doctor", "status", *INVENTORY], None),
    "ansible -m ping": (
        ["ansible", "pve:ups_clients:truenas", *INVENTORY, "--module-name", "ansible.builtin.ping"],
        None,
    ),
}


def seconds(command: list[str]) -> float:
    """Time a command. Ends the benchmark if it fails; the doctor may have found something that is no failure."""
    begin = time.monotonic()
    done = subprocess.run(command, check=False, cwd=CHECKOUT, text=True, capture_output=True, env=ENVIRONMENT)
    took = time.monotonic() - begin
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return took


def main() -> None:
    """Print the table. It ends with 1 if the aim is missed."""
    subprocess.run(["make", "lab"], check=True, cwd=CHECKOUT)
    subprocess.run(["make", "pve", "inventory=inventories/lab"], check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    best = {name: min(seconds(command) for _round in range(ROUNDS)) for name, (command, _aim) in ROWS.items()}
    print(f"{'what':<16} {'best of ' + str(ROUNDS):>10} {'aim':>6} {'to a ping':>10}")
    for name, took in best.items():
        aim = ROWS[name][1]
        print(f"{name:<16} {took:8.1f} s {f'{aim} s' if aim else '':>6} {took / best['ansible -m ping']:10.1f}")
    sys.exit(any(aim and best[name] > aim for name, (_command, aim) in ROWS.items()))


if __name__ == "__main__":
    main()
