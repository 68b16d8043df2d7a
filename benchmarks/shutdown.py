#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time a shutdown from the low battery until every machine is down, and compare with the ideal: the slowest path of the plan.

    benchmarks/shutdown.py [SECONDS]...     (how long TrueNAS takes; default: 20 60)

The benchmark starts a lab called bench (or the one that LAB names) and deploys to it. The ideal has no margins: upsd reports
LB, upsmon polls, TrueNAS polls, waits for its FINALDELAY and goes down, and Proxmox goes down the moment TrueNAS is down.
A poll counts as half of its interval; how long TrueNAS and Proxmox take to go down is measured.

Target: at most 1.25 times the ideal.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "lab"))

from homelab import Lab, outage

SITES = {"pve8": "truenas", "pve9": "truenas9"}
SECONDS = (20, 60)
# half of each interval in the lab: pollinterval 2, POLLFREQALERT 5 on the primary and on TrueNAS
POLLING = 2 / 2 + 5 / 2 + 5 / 2
FINALDELAY = 5  # of TrueNAS


def measure_shutdown(lab: Lab, site: str, seconds: int) -> tuple[float, float]:
    """Cut the power of a site whose TrueNAS takes `seconds` to go down.

    Return the seconds until every machine was down, and the ideal. Exit if the machines went down in the wrong order.
    """
    lab.start_sites([site])
    nas = SITES[site]
    subprocess.run(["lab/lab", "ssh", nas, f"echo {seconds} > /etc/lab/shutdown-seconds"], check=True, cwd=CHECKOUT)
    falls = {fall.host: fall for fall in outage.cut_power(lab, site, lambda _words: None, seconds + 120)}
    wrong = outage.find_problems(list(falls.values()))
    if wrong:
        sys.exit(f"{site}: {'; '.join(wrong)}")
    took = {name: fall.down - fall.began for name, fall in falls.items() if fall.down and fall.began}
    return max(fall.down or 0 for fall in falls.values()), POLLING + FINALDELAY + took[nas] + took[site]


def main() -> None:
    """Print the table."""
    os.environ.setdefault("LAB", "bench")
    lab = Lab.from_environment()
    lab.start_sites(SITES)
    deploy = ["make", "pve", "tags=ups", "inventory=inventories/lab"]
    subprocess.run(deploy, check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    print(f"{'site':<6} {'TrueNAS takes':>13} {'all down':>10} {'ideal':>8} {'ratio':>6}   target 1.25")
    for seconds in map(int, sys.argv[1:] or SECONDS):
        for site in SITES:
            all_down, ideal = measure_shutdown(lab, site, seconds)
            print(f"{site:<6} {seconds:11} s {all_down:8.1f} s {ideal:6.1f} s {all_down / ideal:6.2f}", flush=True)
    lab.remove_lab()


if __name__ == "__main__":
    main()
