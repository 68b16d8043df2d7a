# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks that run on the controller: as the user who runs Ansible, whatever the inventory says of the hosts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.data import plan_to_dict
from ansible_collections.homelab.nut.tests.unit.support.drawn import make_example
from ansible_collections.homelab.nut.tests.unit.support.plays import CHECKOUT, run_play, try_play

LOCAL = ("localhost", "127.0.0.1", "::1")
# what each task on the controller must have, wherever the inventory's variables say otherwise
WANTED = {
    "ansible_become": False,
    "ansible_connection": "local",
    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
}
FILES = sorted(
    [
        *CHECKOUT.glob("playbooks/**/*.yml"),
        *CHECKOUT.glob("roles/*/tasks/*.yml"),
        *CHECKOUT.glob("roles/*/handlers/*.yml"),
    ]
)
NESTED = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")
# an inventory in which root is reached by a sudo that this machine does not have
NO_SUDO = {"ansible_become": True, "ansible_become_exe": "/no/sudo"}


def is_on_controller(task: Mapping[str, Any]) -> bool:
    hosts = [str(task.get(key, "")) for key in ("delegate_to", "hosts")]
    is_local = str(task.get("connection", "")).endswith("local") or "local_action" in task
    return (
        is_local
        or (task.get("vars") or {}).get("ansible_connection") == "local"
        or any(host in LOCAL for host in hosts)
    )


def list_tasks(nodes: Any, inherited: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Yield each play, block and task, with the keywords and variables that it inherits."""
    for node in nodes or []:
        above = inherited or {}
        own = {**above, **node, "vars": {**above.get("vars", {}), **(node.get("vars") or {})}}
        yield own
        for key in NESTED:
            yield from list_tasks(
                node.get(key), {name: value for name, value in own.items() if name not in (*NESTED, "name")}
            )


def find_controller_tasks() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.relative_to(CHECKOUT)}: {task.get('name')}", task)
        for path in FILES
        for task in list_tasks(yaml.safe_load(path.read_text()))
        if is_on_controller(task)
    ]


def test_each_task_on_the_controller_ignores_how_hosts_are_reached() -> None:
    tasks = find_controller_tasks()
    assert len(tasks) >= 8
    for name, task in tasks:
        assert {key: task["vars"].get(key) for key in WANTED} == WANTED, name
        assert task.get("become") is False, name


@pytest.mark.parametrize(
    "task",
    [
        {"local_action": "command true"},
        {"command": "true", "connection": "local"},
        {"command": "true", "connection": "ansible.builtin.local"},
        {"block": [{"command": "true"}], "delegate_to": "localhost"},
        {"command": "true", "vars": {"ansible_connection": "local"}},
    ],
)
def test_search_finds_each_way_to_run_a_task_on_the_controller(task: dict[str, Any]) -> None:
    assert all(is_on_controller(found) for found in list_tasks([task]))


def write_inventory(root: Path, groups: dict[str, Any]) -> Path:
    path = root / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": NO_SUDO}, **groups}))
    return path


UNREACHABLE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
NAS = {
    "nut_client_truenas_url": "wss://127.0.0.1:9/api/current",
    "nut_client_truenas_username": "u",
    "nut_client_truenas_api_key": "1-key",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["doctor", "status"])
def test_report_is_written_without_sudo_on_the_controller(tmp_path: Path, name: str) -> None:
    groups = {
        "pve": {"hosts": {"proxmox": {**UNREACHABLE, "nut_server_address": "192.0.2.9"}}},
        "truenas": {"hosts": {"nas": {**UNREACHABLE, **NAS}}},
    }
    command = [str(CHECKOUT / "tools/doctor"), name, "--json", "--inventory", str(write_inventory(tmp_path, groups))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    report = json.loads(done.stdout)
    if name == "doctor":
        seen = {finding["host"]: finding["seen"] for finding in report["findings"] if finding["check"] == "settings"}
        assert "connection refused" in seen["nas"]


@pytest.mark.slow
def test_plan_is_drawn_without_sudo_on_the_controller(tmp_path: Path) -> None:
    drawing = yaml.safe_load((CHECKOUT / "roles/nut_server/tasks/draw.yml").read_text())
    plan = {"plan": plan_to_dict(make_example())}
    variables = {"nut_server_plan_folder": str(tmp_path / "kept"), "__nut_server_plan": plan}
    play = {
        "hosts": "pve",
        "gather_facts": False,
        "vars": variables,
        "tasks": [task for task in drawing if "block" in task],
    }
    (tmp_path / "site.yml").write_text(yaml.safe_dump([play]))
    write_inventory(tmp_path, {"pve": {"hosts": {"proxmox": {}}}})
    run_play(tmp_path, "-i", "hosts.yml", "site.yml")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"shutdown-proxmox.html", "shutdown-proxmox.json"}


@pytest.mark.slow
def test_truenas_is_configured_without_sudo_on_the_controller(tmp_path: Path) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/used\nwhile [ "$1" != /bin/sh ]; do shift; done; exec "$@"\n')
    sudo.chmod(0o755)
    primary = {"ansible_become_user": "daemon", "ansible_become_exe": str(sudo)}
    write_inventory(tmp_path, {"pve": {"hosts": {"proxmox": primary}}, "truenas": {"hosts": {"nas": NAS}}})
    done = try_play(tmp_path, "-i", "hosts.yml", str(CHECKOUT / "playbooks/pve.yml"), "--limit", "nas", "--check")
    output = " ".join((done.stdout + done.stderr).split())
    assert "connection refused" in output
    assert "/no/sudo" not in output
    used = (tmp_path / "used").read_text()
    assert "AnsiballZ_ups_info" in used
    assert "truenas_ups" not in used
