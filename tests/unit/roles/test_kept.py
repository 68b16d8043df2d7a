# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles leave beside the inventory when their files are made; made by Ansible itself."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[3]
INVENTORY = """\
pve:
  hosts:
    proxmox:
      nut_server_upses: [{name: ups, driver: dummy-ups, port: ups.dev}]
      nut_server_tls: TLS
ups_clients:
  hosts:
    media:
"""
PLAYBOOK = """\
- hosts: pve
  gather_facts: false
  roles: [nut_server]
- hosts: ups_clients
  gather_facts: false
  roles: [nut_client]
"""
TASK = """\
- ansible.builtin.set_fact:
    made: "{{ __ROLE_files }}"
"""


def kept(root: Path, tls: str) -> set[str]:
    """Let both roles make their files, with an open umask, and return what is kept then."""
    for role in ("nut_server", "nut_client"):
        tasks = root / "roles" / role / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text(TASK.replace("ROLE", role))
        for part in ("defaults", "vars", "templates", "meta"):
            (tasks.parent / part).symlink_to(CHECKOUT / "roles" / role / part)
    (root / "hosts.yml").write_text(INVENTORY.replace("TLS", tls))
    (root / "site.yml").write_text(PLAYBOOK)
    (root / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {CHECKOUT / '.collections'}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(
        ANSIBLE_CONFIG=str(root / "ansible.cfg"),
        ANSIBLE_HOME=str(root / "home"),
        ANSIBLE_PYTHON_INTERPRETER=sys.executable,
    )
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), "-i", "hosts.yml", "-c", "local", "site.yml"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, umask=0, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    home = root / ".homelab-nut"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("tls", "files"),
    [
        ("false", set()),
        ("true", {"tls/ca.key", "tls/ca.pem", "tls/proxmox.key", "tls/proxmox.pem"}),
    ],
)
def test_no_authority_is_made_without_tls(tmp_path: Path, tls: str, files: set[str]) -> None:
    """A template works out each variable that it names, also in the half of an `if` that is not taken."""
    assert kept(tmp_path, tls) == {"passwords/proxmox", "passwords/media", *files}


@pytest.mark.parametrize(
    ("folder", "before", "after"),
    [
        (".homelab-nut", None, 0o700),
        (".homelab-nut", 0o755, 0o700),
        (".homelab-nut", 0o777, 0o700),
        ("pictures", None, 0o700),
        ("pictures", 0o755, 0o755),
    ],
)
def test_the_folder_of_the_picture(tmp_path: Path, folder: str, before: int | None, after: int) -> None:
    drawing = yaml.safe_load((CHECKOUT / "roles/nut_server/tasks/draw.yml").read_text())
    place = next(task for block in drawing for task in block.get("block", ()) if "ansible.builtin.file" in task)
    path = tmp_path / folder
    if before is not None:
        path.mkdir()
        path.chmod(before)
    play = [
        {"hosts": "localhost", "gather_facts": False, "vars": {"nut_server_plan_folder": str(path)}, "tasks": [place]}
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
    }
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [
        str(program),
        "-c",
        "local",
        "-i",
        "localhost,",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        "play.yml",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, umask=0, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == after
