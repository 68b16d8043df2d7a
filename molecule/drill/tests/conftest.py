# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures that this scenario's tests share: both primaries, and the playbooks of the drills as a user runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from drill.primary import INVENTORY, SITES, DrillPrimary
from homelab import CHECKOUT, Lab
from support import read_status, wait_until
from testinfra.host import Host


@pytest.fixture(scope="session")
def primaries(lab: Lab, on: Callable[[str], Host]) -> dict[str, DrillPrimary]:
    """Return the primaries by name, with their state after the deployment."""
    found = {name: DrillPrimary(lab, on(name), name, secondaries) for name, secondaries in SITES.items()}
    for primary in found.values():
        wait_until(
            lambda primary=primary: read_status(primary.host)[:1] == ["OL"], 60, f"{primary.name} to serve its UPS"
        )
        primary.before = primary.read_state()
    return found


def _make_starter(playbook: str) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts a playbook as a user does. It takes arguments of ansible-playbook."""

    def start_playbook(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ansible-playbook", str(CHECKOUT / "playbooks" / playbook), "--inventory", str(INVENTORY), *arguments],
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=CHECKOUT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_FORCE_COLOR": "0",
            },
        )

    return start_playbook


@pytest.fixture(scope="session")
def drill() -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the simulated drill."""
    return _make_starter("drill.yml")


@pytest.fixture(scope="session")
def drill_live() -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the live drill."""
    return _make_starter("drill_live.yml")
