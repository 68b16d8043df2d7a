# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logins that fail, by real plays: each playbook and each role says in its first task on a host what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.tests.unit.support.plays import CHECKOUT, try_play

pytestmark = pytest.mark.slow

UNKNOWN = {"ansible_connection": "ssh", "ansible_host": "10.99.7.11", "ansible_user": "ops"}
NO_SUDO = {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_exe": "/no/sudo"}
DEPLOYING = [CHECKOUT / f"playbooks/{name}.yml" for name in ("pve", "plan", "drill")]
REPORTING = ["status", "doctor"]
REMEDY = "the ssh host key of NAME is not known here: run `ssh ops@10.99.7.11` once"


def write_program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def write_inventory(root: Path, primary: dict[str, Any], secondary: dict[str, Any] | None = None) -> None:
    groups = {"pve": {"hosts": {"cellar": primary}}}
    if secondary is not None:
        groups["ups_clients"] = {"hosts": {"desk": secondary}}
    (root / "hosts.yml").write_text(yaml.safe_dump(groups))


def refuse_unknown_key(root: Path) -> dict[str, Any]:
    """Return variables of a host whose ssh host key is not known."""
    return {
        **UNKNOWN,
        "ansible_ssh_executable": write_program(root / "ssh", "echo 'Host key verification failed.' >&2; exit 255"),
    }


def join_lines(output: str) -> str:
    return " ".join(output.split())


@pytest.mark.parametrize("path", DEPLOYING, ids=lambda path: path.stem)
def test_unknown_host_key_is_one_sentence_with_the_command(tmp_path: Path, path: Path) -> None:
    write_inventory(tmp_path, refuse_unknown_key(tmp_path))
    done = try_play(tmp_path, "-i", "hosts.yml", str(path))
    assert done.returncode == 4
    assert REMEDY.replace("NAME", "cellar") in join_lines(done.stdout)
    assert done.stdout.count("UNREACHABLE!") == 1


@pytest.mark.parametrize("name", REPORTING)
def test_report_names_the_command_for_an_unknown_host_key(tmp_path: Path, name: str) -> None:
    ssh = refuse_unknown_key(tmp_path)
    write_inventory(tmp_path, ssh, ssh if name == "doctor" else None)
    report = tmp_path / "report"
    play = str(CHECKOUT / f"playbooks/{name}.yml")
    try_play(
        tmp_path,
        "-i",
        "hosts.yml",
        play,
        "--check",
        "--extra-vars",
        f"__nut_{name}_file={report} __nut_{name}_json=false",
    )
    text = report.read_text()
    assert "the ssh host key of cellar is not known here" in text
    assert "run `ssh ops@10.99.7.11` once" in text
    if name == "doctor":
        assert "the ssh host key of desk is not known here" in text


@pytest.mark.parametrize("path", DEPLOYING, ids=lambda path: path.stem)
def test_failing_sudo_is_the_first_message(tmp_path: Path, path: Path) -> None:
    write_inventory(tmp_path, NO_SUDO)
    done = try_play(tmp_path, "-i", "hosts.yml", str(path))
    assert done.returncode == 2
    assert "can't become nobody on cellar with sudo: there is no sudo" in join_lines(done.stdout + done.stderr)
    assert "changed=0" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else without a password")
@pytest.mark.parametrize("role", ["nut_server", "nut_client", "nut_hotplug"])
def test_first_task_of_each_role_says_that_root_is_needed(tmp_path: Path, role: str) -> None:
    # sudo that runs the command as another user
    exe = write_program(tmp_path / "sudo", 'while [ "$1" != /bin/sh ]; do shift; done; exec setpriv --reuid=65534 "$@"')
    tmp_path.chmod(0o755)
    variables = {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_exe": exe}
    write_inventory(tmp_path, variables, variables)
    hosts = "ups_clients" if role == "nut_client" else "pve"
    (tmp_path / "site.yml").write_text(f"- hosts: {hosts}\n  gather_facts: false\n  roles: [homelab.nut.{role}]\n")
    done = try_play(tmp_path, "-i", "hosts.yml", "site.yml", "--check")
    assert done.returncode == 2
    host = "desk" if role == "nut_client" else "cellar"
    assert f"Ansible becomes nobody on {host}, which is not root" in join_lines(done.stdout + done.stderr)
    assert "changed=0" in done.stdout


@pytest.mark.parametrize("options", [[], ["--check"]], ids=["run", "check"])
def test_user_without_become_is_told_to_set_it(tmp_path: Path, options: list[str]) -> None:
    # a shell in which nobody is root
    ssh = write_program(tmp_path / "ssh", "echo uid=1000 user=ops")
    write_inventory(tmp_path, {**UNKNOWN, "ansible_ssh_executable": ssh})
    done = try_play(tmp_path, "-i", "hosts.yml", str(CHECKOUT / "playbooks/pve.yml"), *options)
    assert done.returncode == 2
    assert "ops on cellar is not root: set ansible_become: true for cellar" in join_lines(done.stdout + done.stderr)
    assert "changed=0" in done.stdout


def test_secondary_on_truenas_names_the_command_for_its_primary(tmp_path: Path) -> None:
    inventory = {
        "pve": {"hosts": {"cellar": refuse_unknown_key(tmp_path)}},
        "truenas": {
            "hosts": {"nas": {"nut_client_truenas_api_key": "k", "nut_client_truenas_url": "wss://127.0.0.1:9"}}
        },
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    done = try_play(tmp_path, "-i", "hosts.yml", str(CHECKOUT / "playbooks/pve.yml"), "--limit", "nas")
    assert done.returncode in (2, 4)
    assert REMEDY.replace("NAME", "cellar") in join_lines(done.stdout)
