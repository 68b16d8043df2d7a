# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the scenarios' tests ask of a host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from homelab import CHECKOUT
from testinfra.host import Host


def nut_processes(host: Host) -> dict[str, str]:
    """Return every process of NUT on a host: its id -> when it was started and what it is."""
    listed = host.check_output("ps -e -o pid=,lstart=,comm=")
    names = ("upsd", "upsmon", "usbhid-ups", "dummy-ups", "nutdrv_qx")
    rows = [line.split(maxsplit=1) for line in listed.splitlines()]
    return {pid: rest for pid, rest in rows if rest.split()[-1] in names}


def status(host: Host, ups: str = "ups") -> list[str]:
    """Return the flags of a UPS that a host's upsd serves; what upsc says instead, if it is not served."""
    return host.run("upsc %s@localhost ups.status 2>/dev/null", ups).stdout.split()


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition. Fails with WHAT if it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.3)


def passwords() -> list[str]:
    """Return the passwords that were made for the lab."""
    return [path.read_text().strip() for path in Path(CHECKOUT, "inventories", "lab", "passwords").iterdir()]
