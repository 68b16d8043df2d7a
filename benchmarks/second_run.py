#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time a run of `make pve tags=ups` that changes nothing, and compare with ten small tasks on the same host.

Targets, on two cores: at most 20 s for one site of the lab, 8 s for the primary alone. The lab is started and deployed to first.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
ROUNDS = 3
LAB = "inventory=inventories/lab"
PLAIN = [".venv/bin/ansible-playbook", "benchmarks/ten_tasks.yml", "-i", "inventories/lab", "--limit", "pve8"]
ROWS = {
    "one site, three hosts": (["make", "pve", "tags=ups", LAB, "limit=pve8,truenas,media"], 20),
    "the primary alone": (["make", "pve", "tags=ups", LAB, "limit=pve8"], 8),
    "ten small tasks": (PLAIN, None),
}


def time_command(command: list[str]) -> float:
    """Return the seconds that a command takes. Exit if it fails or changes anything."""
    begin = time.monotonic()
    done = subprocess.run(command, check=False, cwd=CHECKOUT, text=True, capture_output=True)
    took = time.monotonic() - begin
    if done.returncode or "changed=0" not in done.stdout:
        sys.exit(f"{' '.join(command)} failed or changed something:\n{done.stdout}{done.stderr}")
    return took


def main() -> None:
    """Print the table."""
    subprocess.run(["make", "lab", "sites=pve8"], check=True, cwd=CHECKOUT)
    subprocess.run([*ROWS["one site, three hosts"][0]], check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    best = {name: min(time_command(command) for _round in range(ROUNDS)) for name, (command, _target) in ROWS.items()}
    print(f"{'run':<24} {'best of ' + str(ROUNDS):>10} {'target':>6} {'x ten tasks':>13}")
    for name, took in best.items():
        target = ROWS[name][1]
        print(f"{name:<24} {took:8.1f} s {f'{target} s' if target else '':>6} {took / best['ten small tasks']:13.2f}")


if __name__ == "__main__":
    main()
