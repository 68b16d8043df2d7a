# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An interrupted test run must not break the next one, and a missing lab must not look like a healthy one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(CHECKOUT.glob("molecule/*/molecule.yml"))
PLAYBOOKS = ("pve", "plan", "drill")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.parent.name)
def test_each_scenario_begins_and_ends_with_destroy(path: Path) -> None:
    """Otherwise molecule skips create after a run that was killed."""
    sequence = yaml.safe_load(path.read_text())["scenario"]["test_sequence"]
    assert sequence[0] == sequence[-1] == "destroy"
    # the tests of newcomer deploy step by step
    deployed = "create" if "converge" not in sequence else "converge"
    assert sequence.index("create") <= sequence.index(deployed) < sequence.index("verify")


def test_scenarios_are_found() -> None:
    assert len(SCENARIOS) >= 9


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_playbook_fails_on_an_inventory_without_a_primary(playbook: str, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[truenas]\n")
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, CHECKOUT / f"playbooks/{playbook}.yml", "--inventory", inventory],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000"},
    )
    assert done.returncode == 2, done.stdout
    assert f"The inventory {inventory} has no host in the group pve" in done.stdout + done.stderr


def test_cases_on_a_lab_that_is_down_exit_with_3() -> None:
    done = subprocess.run(
        [sys.executable, CHECKOUT / "lab/lab", "cases", "--ci", "--no-deploy"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "LAB": "test-that-is-not-up"},
    )
    assert done.returncode == 3, done.stderr
    assert "the lab test-that-is-not-up is not up" in done.stderr
