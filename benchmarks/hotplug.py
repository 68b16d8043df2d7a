#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What USB hotplug costs and how fast it is, on each release of NUT that the lab has.

    benchmarks/hotplug.py [HOST]...     (default: pve8 pve9)

The lab is started and deployed first: one of its own, called bench, unless LAB names another. Its UPSes are unplugged and
plugged in. The seed's way, for comparison: nut-scanner, then lsusb through grep and sort, every 60 s.

Aims: a run that finds nothing costs at most as much as the seed's pipeline, 0.8 of it if possible; a device on the bus costs
less than 1 ms; from plug to OL it takes at most 1.5 s longer than the driver alone, for a UPS that ups.conf has. For a new one
NUT's enumerator, a shell script of some seconds, has to make a unit first. The lab has no udev, so there the agent
is started when the device appears, as the udev rule does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
ON_HOST = Path(__file__).with_name("hotplug_on_host.py")
HOSTS = ("pve8", "pve9")
ROUNDS = 3
MODEL = "apc"
MOST = 1.5  # seconds more than the driver alone


def on(host: str, part: str) -> subprocess.Popen[str]:
    """Start a part of the measuring on a host."""
    command = ["lab/lab", "ssh", host, "python3", "-", part]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=CHECKOUT, text=True, stdin=ON_HOST.open(), stdout=pipe, stderr=pipe)


def result(started: subprocess.Popen[str], host: str) -> dict[str, Any]:
    """Return what a part found out. Ends the benchmark if it failed."""
    said, wrong = started.communicate()
    if started.returncode:
        sys.exit(f"{host}: {wrong or said}")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def ups(host: str, *words: str) -> None:
    """Handle the UPS of a host."""
    subprocess.run(["lab/ups", host, *words], check=False, cwd=CHECKOUT, capture_output=True)


def seconds_to_mains(host: str, how: str) -> float:
    """Plug a UPS in, and time until upsd says OL. The best of some rounds: what is measured is not how busy the machine is."""
    took = []
    for _round in range(ROUNDS):
        ups(host, "unplug")
        started = on(host, how)
        for line in started.stdout or ():
            if line == "ready\n":
                break
        ups(host, "plug", MODEL)
        took.append(float(result(started, host)["seconds"]))
    return min(took)


def measure(host: str) -> bool:
    """Print a host's table. Says whether the aims are met."""
    costs = result(on(host, "quiet"), host)
    sizes = result(on(host, "sizes"), host)
    hand = seconds_to_mains(host, "hand")
    known = seconds_to_mains(host, "known")
    new = seconds_to_mains(host, "new")
    enumerator = min(float(result(on(host, "enumerator"), host)["seconds"]) for _round in range(ROUNDS))
    ratio = costs["agent"] / costs["seed"]
    slope = {kind: (sizes["100"][kind] - sizes["1"][kind]) / 99 for kind in ("quiet", "full")}
    print(f"\n{host}")
    print(f"  {'a run that finds nothing to do':<44} {costs['agent']:8.1f} ms CPU")
    print(f"  {'the seed: nut-scanner; lsusb | grep | sort':<44} {costs['seed']:8.1f} ms CPU")
    print(f"  {'ratio (at most 1.0, aim 0.8)':<44} {ratio:8.2f}")
    print(f"  {'a run that looks at all':<44} {costs['full']:8.1f} ms CPU")
    for count, cost in sizes.items():
        words = f"{count} device{'s' if count != '1' else ''} on the bus: quiet, full"
        print(f"  {words:<44} {cost['quiet']:8.1f} ms {cost['full']:8.1f} ms CPU")
    print(f"  {'a device more (below 1 ms): quiet, full':<44} {slope['quiet']:8.3f} ms {slope['full']:8.3f} ms CPU")
    print(f"  {'plug to OL, driver started by hand':<44} {hand:8.2f} s")
    print(f"  {f'a known UPS, by nut-hotplug (at most + {MOST} s)':<44} {known:8.2f} s   {known - hand:+.2f} s")
    print(f"  {'a new one: a section and a unit are made':<44} {new:8.2f} s   {new - hand:+.2f} s")
    print(f"  {'of which NUT makes the unit in':<44} {enumerator:8.2f} s")
    print(f"  {'by the seed: at its next scan, and then':<44} 0 to 60 s + {hand:.2f} s")
    return ratio <= 1 and max(slope.values()) < 1 and known - hand <= MOST


def main() -> None:
    """Print a table for each host. Exits with 1 if an aim is missed."""
    os.environ.setdefault("LAB", "bench")
    hosts = sys.argv[1:] or list(HOSTS)
    subprocess.run(["lab/lab", "up", *hosts], check=True, cwd=CHECKOUT)
    playbook = [".venv/bin/ansible-playbook", "playbooks/pve.yml", "-i", "inventories/lab", "--limit", ",".join(hosts)]
    subprocess.run([*playbook, "--tags", "ups,hotplug"], check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    met = [measure(host) for host in hosts]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
