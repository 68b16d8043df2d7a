# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Functions that the scenarios' tests share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from homelab import CHECKOUT, Lab
from testinfra.host import Host

IS_FULL = os.environ.get("TESTS") == "all"
"""Whether every test runs, as with `make test-all`."""

NEWEST: tuple[str, ...] = ("pve14",) if IS_FULL else ()
"""The primary with the newest NUT. No Proxmox VE has it yet, and a third site costs a third more, so only TESTS=all has it."""


def nut_processes(host: Host) -> dict[str, str]:
    """Return the NUT processes of a host: id -> start time and program. Without the short-lived ones that upsmon forks to notify."""
    listed = host.check_output("ps -e -o pid=,ppid=,lstart=,comm=")
    names = ("upsd", "upsmon", "usbhid-ups", "dummy-ups", "nutdrv_qx")
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    parents = {pid: parent for pid, parent, rest in rows if rest.split()[-1] in names}
    # root's upsmon is the parent of nut's, which forks to notify
    lasting = {pid for pid, parent in parents.items() if parents.get(parent) not in parents}
    return {pid: rest for pid, _parent, rest in rows if pid in lasting}


def read_status(host: Host, ups: str = "ups", port: int = 3493) -> list[str]:
    """Return the flags of a UPS from a host's upsd; empty if upsd does not serve it."""
    return host.run("upsc %s@localhost:%s ups.status 2>/dev/null", ups, str(port)).stdout.split()


def show_unit(host: Host, name: str, property_name: str = "MainPID") -> str:
    """Return a property of a systemd unit; by default its main process id."""
    return host.check_output("systemctl show --property=%s --value %s", property_name, name)


def count_changes(output: str) -> int:
    """Return the number of changes that a play reports at its end, over all hosts. Fail if the output has no such report."""
    counts = re.findall(r"\bchanged=(\d+)", output)
    assert counts, output
    return sum(map(int, counts))


def wait_until(condition: Callable[[], bool], seconds: float, awaited: str) -> None:
    """Wait until a condition is true, or fail after `seconds`. The message ends in "waiting for AWAITED", such as "upsd to serve"."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {seconds} s waiting for {awaited}"
        time.sleep(0.3)


def wait_for_mains(host: Host, ups: str = "ups") -> None:
    """Wait until a host's UPS is on mains again and every upsmon has heard of it.

    An upsmon polls every 5 s. One with NUT 2.8.1 that last heard of an outage shuts its machine down at the first failed poll.
    """
    wait_until(lambda: read_status(host, ups)[:1] == ["OL"], 60, f"{ups} to be on mains again")
    time.sleep(11)


def keep_first(cases: Iterable[str], *, count: int = 1) -> list[object]:
    """Return cases of the same kind, a play each, as parameters: only the first COUNT run unless TESTS=all."""
    return [pytest.param(case, marks=[pytest.mark.long] if place >= count else []) for place, case in enumerate(cases)]


def format_journals(row: Mapping[str, Mapping[str, Iterable[str]]]) -> str:
    """Return the machines' journals of a case's row (`lab/lab cases`) as text."""
    return "\n".join(f"{host}: {line}" for host, lines in row["journals"].items() for line in lines)


def read_passwords(inventory: Path = CHECKOUT / "inventories" / "lab") -> list[str]:
    """Return the passwords that were generated for an inventory."""
    # the lookup's lock begins with a dot
    return [path.read_text().strip() for path in Path(inventory, ".homelab-nut", "passwords").glob("[!.]*")]


def extra_vars(**variables: object) -> tuple[str, str]:
    """Return ansible-playbook's arguments that set these variables."""
    return "--extra-vars", json.dumps(variables)


def wait_for_end(process: subprocess.Popen[str], seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """Wait until a process has ended, and return its result. Kill it after `seconds`."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill_upsd_when_replaced(lab: Lab, name: str, file: str) -> subprocess.Popen[str]:
    """Start a process that kills a host's upsd at the moment a file there is replaced, and return it. It waits two minutes at most."""
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
    assert process.stdout.readline().strip() not in ("", "0")  # upsd's process id: the script is watching the file
    return process
