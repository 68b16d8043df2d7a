#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time `make doctor` and `make status` on the lab's two sites (five hosts), and compare with a plain `ansible -m ping`.

Target, on two cores: at most 30 s for the doctor. The benchmark starts the lab and deploys to it first.
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


def time_command(command: list[str]) -> float:
    """Return the seconds that a command takes. Exit if it fails; 1 is not a failure: the doctor has warnings."""
    begin = time.monotonic()
    done = subprocess.run(command, check=False, cwd=CHECKOUT, text=True, capture_output=True, env=ENVIRONMENT)
    took = time.monotonic() - begin
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return took


def main() -> None:
    """Print the table. Exit with 1 if the target is missed."""
    subprocess.run(["make", "lab"], check=True, cwd=CHECKOUT)
    subprocess.run(["make", "pve", "inventory=inventories/lab"], check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    best = {name: min(time_command(command) for _round in range(ROUNDS)) for name, (command, _target) in ROWS.items()}
    print(f"{'command':<16} {'best of ' + str(ROUNDS):>10} {'target':>6} {'x ping':>10}")
    for name, took in best.items():
        target = ROWS[name][1]
        print(f"{name:<16} {took:8.1f} s {f'{target} s' if target else '':>6} {took / best['ansible -m ping']:10.1f}")
    sys.exit(any(target and best[name] > target for name, (_command, target) in ROWS.items()))


if __name__ == "__main__":
    main()
