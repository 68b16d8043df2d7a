# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this scenario's tests share: both primaries, and the playbook of the drill as a user runs it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from drill.primary import INVENTORY, SITES, Primary
from homelab import CHECKOUT, Lab
from support import read_status, wait_until
from testinfra.host import Host


@pytest.fixture(scope="session")
def primaries(lab: Lab, on: Callable[[str], Host]) -> dict[str, Primary]:
    """Return the primaries by name, as they stand after the deployment."""
    found = {name: Primary(lab, on(name), name, secondaries) for name, secondaries in SITES.items()}
    for one in found.values():
        wait_until(lambda one=one: read_status(one.host)[:1] == ["OL"], 60, f"{one.name} serves its UPS")
        one.before = one.stand()
    return found


def _starter(playbook: str) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts a playbook as a user does, with further arguments of ansible-playbook."""

    def begin(*arguments: str) -> subprocess.Popen[str]:
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

    return begin


@pytest.fixture(scope="session")
def drill() -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the rehearsal."""
    return _starter("drill.yml")


@pytest.fixture(scope="session")
def drill_live() -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the real shutdown."""
    return _starter("drill_live.yml")
