# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures that the scenarios' tests share: the lab's hosts by ssh (`on`), and the playbook as a user runs it (`start`, `play`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import testinfra
from homelab import CHECKOUT, Lab
from support import IS_FULL, wait_for_end
from testinfra.host import Host

PLAYBOOK = CHECKOUT / "playbooks" / "pve.yml"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests marked `long` unless TESTS=all, as `make test-all` sets it."""
    if IS_FULL:
        return
    deselected = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item not in deselected]


@pytest.fixture(scope="session")
def lab() -> Lab:
    """Return the lab that molecule started."""
    return Lab.from_environment()


@pytest.fixture(scope="session")
def on(lab: Lab) -> Callable[[str], Host]:
    """Return a function that connects to a host by ssh: on("pve8")."""
    config = lab.state / "ssh_config"

    def connect(name: str) -> Host:
        return testinfra.get_host(f"ssh://{name}", ssh_config=str(config), controlpersist=60)

    return connect


@pytest.fixture(scope="session")
def inventory() -> Path:
    """Return the inventory that the scenario deploys. A scenario with its own inventory overrides this fixture in its conftest.py."""
    return CHECKOUT / "inventories" / "lab"


@pytest.fixture(scope="session")
def start(inventory: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the main playbook on the lab and returns the process. It takes arguments of ansible-playbook."""

    def start_play(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ansible-playbook", str(PLAYBOOK), "--inventory", str(inventory), *arguments],
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=CHECKOUT,
            env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        )

    return start_play


@pytest.fixture(scope="session")
def play(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the main playbook on the lab and returns its result. It takes arguments of ansible-playbook."""
    return lambda *arguments: wait_for_end(start(*arguments))
