# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that the roles keep beside the inventory, made by real plays."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.nut.tests.unit.support.plays import list_tasks, make_role, run_play

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[3]
INVENTORY = """\
pve:
  hosts:
    proxmox:
      nut_server_devices: [{name: ups, driver: dummy-ups, port: ups.dev}]
      nut_server_tls: {enabled: TLS}
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
  vars: VARS
"""


def list_kept_files(root: Path, tls: str, task_vars: str = "{__nut_may_make_secrets: true}") -> set[str]:
    """Let both roles render their files with an open umask, and return the names of the files beside the inventory."""
    for role in ("nut_server", "nut_client"):
        make_role(root, role, TASK.replace("ROLE", role).replace("VARS", task_vars))
    (root / "hosts.yml").write_text(INVENTORY.replace("TLS", tls))
    (root / "site.yml").write_text(PLAYBOOK)
    run_play(root, "-i", "hosts.yml", "site.yml", umask=0)
    home = root / ".homelab-nut"
    if not home.exists():
        return set()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("tls", "files"),
    [
        ("false", set()),
        ("true", {"tls/ca.key", "tls/ca.pem", "tls/proxmox.key", "tls/proxmox.pem"}),
    ],
)
def test_authority_is_made_only_with_tls(tmp_path: Path, tls: str, files: set[str]) -> None:
    """Ansible evaluates every variable in a template, even in a branch of an `if` that is not taken."""
    assert list_kept_files(tmp_path, tls) == {"passwords/proxmox", "passwords/media", *files}


def test_roles_make_no_secrets_before_they_have_seen_the_host(tmp_path: Path) -> None:
    """Otherwise a second machine without the secrets would keep new ones, and the next run would take them for the deployed ones."""
    assert list_kept_files(tmp_path, "true", "{}") == set()


@pytest.mark.parametrize(
    "path", ["nut_server/tasks/present.yml", "nut_client/tasks/ups_clients.yml"], ids=lambda path: path.split("/")[0]
)
def test_only_the_task_after_the_check_makes_secrets(path: str) -> None:
    tasks = list(list_tasks(yaml.safe_load((CHECKOUT / "roles" / path).read_text())))
    configuring = [task for task in tasks if "files" in task.get("homelab.nut.config", {})]
    assert [
        (task.get("check_mode", False), "__nut_may_make_secrets" in task.get("vars", {})) for task in configuring
    ] == [
        (True, False),
        (False, True),
    ]
    assert sum("__nut_may_make_secrets" in task.get("vars", {}) for task in tasks) == 1
    for task in configuring:
        assert {"secrets", "login_remedy"} <= task["homelab.nut.config"].keys()


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
def test_plan_folder_is_closed_to_others(tmp_path: Path, folder: str, before: int | None, after: int) -> None:
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
    run_play(tmp_path, "-i", "localhost,", "play.yml", umask=0)
    assert stat.S_IMODE(path.stat().st_mode) == after
