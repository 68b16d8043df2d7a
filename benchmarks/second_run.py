#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a run of `make pve tags=ups` takes that changes nothing, beside ten small tasks on the same host.

Aims, on two cores: one site of the lab at most 20 s, the primary alone at most 8 s. The lab is started and deployed first.
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


def seconds(command: list[str]) -> float:
    """Time a command. Ends the benchmark if it fails, or if it changed anything."""
    begin = time.monotonic()
    done = subprocess.run(command, check=False, cwd=CHECKOUT, text=True, capture_output=True)
    took = time.monotonic() - begin
    if done.returncode or "changed=0" not in done.stdout:
        sys.exit(f"{' '.join(command)} did not run without a change:\n{done.stdout}{done.stderr}")
    return took


def main() -> None:
    """Print the table."""
    subprocess.run(["make", "lab", "sites=pve8"], check=True, cwd=CHECKOUT)
    subprocess.run([*ROWS["one site, three hosts"][0]], check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    best = {name: min(seconds(command) for _round in range(ROUNDS)) for name, (command, _aim) in ROWS.items()}
    print(f"{'what':<24} {'best of ' + str(ROUNDS):>10} {'aim':>6} {'to ten tasks':>13}")
    for name, took in best.items():
        aim = ROWS[name][1]
        print(f"{name:<24} {took:8.1f} s {f'{aim} s' if aim else '':>6} {took / best['ten small tasks']:13.2f}")


if __name__ == "__main__":
    main()
