# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""make in checkouts whose paths have blanks, quotes and dollars: it works, and starts the lab only for the lab's inventory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.nut.tests.unit.support.plays import CHECKOUT

pytestmark = pytest.mark.slow

NAMES = ["my homelab", 'it\'s "my" $lab', "pl,us #1 (new) & `co` *"]
HOST = {"ansible_host": "127.0.0.1", "ansible_port": 9, "nut_server_address": "192.0.2.1"}
LAB = '#!/bin/sh\necho "the lab was asked: $*" >&2\n'


@pytest.fixture(params=NAMES)
def checkout(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a checkout in a folder of that name, with a primary that can't be reached, and a lab that only says that it was started."""
    folder = tmp_path / request.param
    folder.mkdir()
    for name in (
        "Makefile",
        "ansible.cfg",
        "requirements.txt",
        "playbooks",
        "plugins",
        "roles",
        "tools",
        ".collections",
        ".venv",
    ):
        (folder / name).symlink_to(CHECKOUT / name)
    for name in ("homelab/hosts.yml", "lab/hosts.py"):
        inventory = folder / "inventories" / name
        inventory.parent.mkdir(parents=True)
        inventory.write_text(yaml.safe_dump({"pve": {"hosts": {f"of-{inventory.parent.name}": HOST}}}))
    (folder / "lab").mkdir()
    (folder / "lab/lab").write_text(LAB)
    (folder / "lab/lab").chmod(0o755)
    return folder


def run_make(folder: Path, *arguments: str) -> str:
    # what make itself, and the one that runs these tests, would hand over
    given = ("MAKE", "MFLAGS", "ANSIBLE_", "inventory", "limit", "tags")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(given)}
    command = ["make", "--assume-old=requirements.txt", "--assume-old=tools/venv", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    return done.stdout + done.stderr


def test_homelab_in_any_folder_is_used_without_the_lab(checkout: Path) -> None:
    output = run_make(checkout, "status")
    assert "of-homelab can't be reached by ssh" in " ".join(output.split())
    assert "the lab was asked" not in output


def test_inventory_in_any_folder_is_used_without_the_lab(checkout: Path) -> None:
    folder = checkout / "inventories/homelab/hosts.yml"
    if "," in str(folder):
        folder = Path("inventories/homelab/hosts.yml")  # Ansible takes a text with a comma as a list of hosts
    output = run_make(checkout, "plan", f"inventory={folder}", "limit=of-*")
    assert f"inventory: {folder}\n" in output
    assert "of-homelab can't be reached by ssh" in " ".join(output.split())
    assert "the lab was asked" not in output


@pytest.mark.parametrize("path", ["inventories/lab", "{}/inventories/lab/", "inventories/lab/../lab/hosts.py"])
def test_inventory_of_the_lab_starts_it(checkout: Path, path: str) -> None:
    output = run_make(checkout, "plan", f"inventory={path.format(checkout)}", "args=--list-hosts")
    assert "the lab was asked: runs" in output
    assert "the built-in lab" in output


def test_programs_of_a_virtual_environment_run_in_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / NAMES[1]
    folder.mkdir()
    (folder / "none.txt").write_text("")
    subprocess.run(
        [str(CHECKOUT / "tools/venv"), "made", "none.txt"], cwd=folder, check=True, capture_output=True, timeout=180
    )
    folder.rename(tmp_path / "moved")
    done = subprocess.run([tmp_path / "moved/made/bin/pip", "--version"], capture_output=True, text=True, check=True)
    assert str(tmp_path / "moved/made") in done.stdout
