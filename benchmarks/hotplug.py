#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure the CPU time and the latency of USB hotplug, on each release of NUT in the lab.

    benchmarks/hotplug.py [HOST]...     (default: pve8 pve9)

The benchmark starts a lab called bench (or the one that LAB names), deploys to it, and unplugs and plugs in its UPSes. It
compares the agent with a polling script: nut-scanner, then lsusb through grep and sort, every 60 s.

Targets:
- a run that finds nothing to do: at most the CPU time of the polling script, 0.8 of it if possible
- each further device on the bus: less than 1 ms
- from plug to OL, for a UPS that is already in ups.conf: at most 1.5 s more than the driver alone

For a new UPS, NUT's enumerator (a shell script that takes seconds) has to create a unit first. The lab has no udev, so the
benchmark starts the agent when the device appears, as the udev rule would.
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
MAX_DELAY = 1.5  # seconds more than the driver alone


def start_part(host: str, part: str) -> subprocess.Popen[str]:
    """Start one part of hotplug_on_host.py on a host."""
    command = ["lab/lab", "ssh", host, "python3", "-", part]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=CHECKOUT, text=True, stdin=ON_HOST.open(), stdout=pipe, stderr=pipe)


def read_result(process: subprocess.Popen[str], host: str) -> dict[str, Any]:
    """Wait for a part to end and return the JSON that it printed. Exit if it failed."""
    output, errors = process.communicate()
    if process.returncode:
        sys.exit(f"{host}: {errors or output}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def control_ups(host: str, *arguments: str) -> None:
    """Run lab/ups on the UPS of a host."""
    subprocess.run(["lab/ups", host, *arguments], check=False, cwd=CHECKOUT, capture_output=True)


def time_plugging(host: str, part: str) -> float:
    """Plug a UPS in and return the seconds until upsd reports OL.

    The best of several rounds, because a busy machine only ever adds time.
    """
    times = []
    for _round in range(ROUNDS):
        control_ups(host, "unplug")
        process = start_part(host, part)
        for line in process.stdout or ():
            if line == "ready\n":
                break
        control_ups(host, "plug", MODEL)
        times.append(float(read_result(process, host)["seconds"]))
    return min(times)


def run_part(host: str, part: str) -> dict[str, Any]:
    """Run one part of hotplug_on_host.py on a host and return its result."""
    return read_result(start_part(host, part), host)


def measure_host(host: str) -> bool:
    """Print a host's table. Return whether it meets the targets."""
    costs = run_part(host, "quiet")
    sizes = run_part(host, "sizes")
    hand = time_plugging(host, "hand")
    known = time_plugging(host, "known")
    new = time_plugging(host, "new")
    enumerator = min(float(run_part(host, "enumerator")["seconds"]) for _round in range(ROUNDS))
    ratio = costs["agent"] / costs["seed"]
    slope = {kind: (sizes["100"][kind] - sizes["1"][kind]) / 99 for kind in ("quiet", "full")}
    print(f"\n{host}")
    print(f"  {'a run that finds nothing to do':<44} {costs['agent']:8.1f} ms CPU")
    print(f"  {'polling script: nut-scanner; lsusb|grep|sort':<44} {costs['polling']:8.1f} ms CPU")
    print(f"  {'ratio (at most 1.0, better 0.8)':<44} {ratio:8.2f}")
    print(f"  {'a full run':<44} {costs['full']:8.1f} ms CPU")
    for count, cost in sizes.items():
        label = f"{count} device{'s' if count != '1' else ''} on the bus: quiet, full"
        print(f"  {label:<44} {cost['quiet']:8.1f} ms {cost['full']:8.1f} ms CPU")
    print(f"  {'each further device (< 1 ms): quiet, full':<44} {slope['quiet']:8.3f} ms {slope['full']:8.3f} ms CPU")
    print(f"  {'plug to OL, driver started by hand':<44} {hand:8.2f} s")
    print(f"  {f'known UPS, by nut-hotplug (at most +{MAX_DELAY} s)':<44} {known:8.2f} s   {known - hand:+.2f} s")
    print(f"  {'new UPS: creates a section and a unit':<44} {new:8.2f} s   {new - hand:+.2f} s")
    print(f"  {'of which NUT takes for the unit':<44} {enumerator:8.2f} s")
    print(f"  {'polling script: at its next scan, plus':<44} 0 to 60 s + {hand:.2f} s")
    return ratio <= 1 and max(slope.values()) < 1 and known - hand <= MAX_DELAY


def main() -> None:
    """Print a table for each host. Exit with 1 if a target is missed."""
    os.environ.setdefault("LAB", "bench")
    hosts = sys.argv[1:] or list(HOSTS)
    subprocess.run(["lab/lab", "up", *hosts], check=True, cwd=CHECKOUT)
    playbook = [".venv/bin/ansible-playbook", "playbooks/pve.yml", "-i", "inventories/lab", "--limit", ",".join(hosts)]
    subprocess.run([*playbook, "--tags", "ups,hotplug"], check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    met = [measure_host(host) for host in hosts]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
