# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the scenarios' tests ask of a host."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from homelab import CHECKOUT, Lab
from testinfra.host import Host


def nut_processes(host: Host) -> dict[str, str]:
    """Return every process of NUT on a host: its id -> when it was started and what it is."""
    listed = host.check_output("ps -e -o pid=,lstart=,comm=")
    names = ("upsd", "upsmon", "usbhid-ups", "dummy-ups", "nutdrv_qx")
    rows = [line.split(maxsplit=1) for line in listed.splitlines()]
    return {pid: rest for pid, rest in rows if rest.split()[-1] in names}


def read_status(host: Host, ups: str = "ups", port: int = 3493) -> list[str]:
    """Return the flags of a UPS that a host's upsd serves; what upsc says instead, if it is not served."""
    return host.run("upsc %s@localhost:%s ups.status 2>/dev/null", ups, str(port)).stdout.split()


def show_unit(host: Host, name: str, what: str = "MainPID") -> str:
    """Return what systemd knows of a unit, by default its process."""
    return host.check_output("systemctl show --property=%s --value %s", what, name)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition. Fails with WHAT if it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.3)


def read_passwords(inventory: Path = CHECKOUT / "inventories" / "lab") -> list[str]:
    """Return the passwords that were made for an inventory."""
    # what begins with a dot is the lookup's lock
    return [path.read_text().strip() for path in Path(inventory, ".homelab-nut", "passwords").glob("[!.]*")]


def extra_vars(**variables: object) -> tuple[str, str]:
    """Give variables to a play."""
    return "--extra-vars", json.dumps(variables)


def wait_for_end(process: subprocess.Popen[str], seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """Wait for a play that was started."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill_upsd_when_replaced(lab: Lab, name: str, file: str) -> subprocess.Popen[str]:
    """Kill a host's upsd in the moment in which FILE is replaced there, within two minutes. Returns what waits for that."""
    script = f"""
        was=$(stat -c %i {file}); pid=$(systemctl show --property=MainPID --value nut-server); echo "$pid"
        for _ in $(seq 6000); do
            [ "$(stat -c %i {file})" = "$was" ] || exec kill -9 "$pid"
            sleep 0.02
        done
        exit 1"""
    process = subprocess.Popen(
        ["ssh", "-F", str(lab.state / "ssh_config"), name, script],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline().strip() not in ("", "0")  # it watches
    return process
