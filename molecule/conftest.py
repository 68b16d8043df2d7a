# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the scenarios' tests share: the lab's hosts by ssh, and the playbook as a user runs it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import testinfra
from homelab import CHECKOUT, Lab
from testinfra.host import Host

PLAYBOOK = CHECKOUT / "playbooks" / "pve.yml"


@pytest.fixture(scope="session")
def lab() -> Lab:
    """Return the lab that molecule started."""
    return Lab.here()


@pytest.fixture(scope="session")
def on(lab: Lab) -> Callable[[str], Host]:
    """Return a function from a host's name to the host, by ssh."""
    config = lab.state / "ssh_config"

    def host(name: str) -> Host:
        return testinfra.get_host(f"ssh://{name}", ssh_config=str(config), controlpersist=60)

    return host


@pytest.fixture(scope="session")
def play() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the main playbook on the lab with further arguments of ansible-playbook."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ansible-playbook", str(PLAYBOOK), "--inventory", str(CHECKOUT / "inventories" / "lab"), *arguments],
            check=False,
            text=True,
            capture_output=True,
            cwd=CHECKOUT,
            env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            timeout=300,
        )

    return run


def nut_processes(host: Host) -> dict[str, str]:
    """Return every process of NUT on a host: its id -> when it was started and what it is."""
    listed = host.check_output("ps -e -o pid=,lstart=,comm=")
    names = ("upsd", "upsmon", "usbhid-ups", "dummy-ups", "nutdrv_qx")
    rows = [line.split(maxsplit=1) for line in listed.splitlines()]
    return {pid: rest for pid, rest in rows if rest.split()[-1] in names}


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition. Fails with WHAT if it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.3)


def passwords() -> list[str]:
    """Return the passwords that were made for the lab."""
    return [path.read_text().strip() for path in Path(CHECKOUT, "inventories", "lab", "passwords").iterdir()]
