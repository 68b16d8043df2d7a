# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the scenarios' tests share: the lab's hosts by ssh, and the playbook as a user runs it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

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
