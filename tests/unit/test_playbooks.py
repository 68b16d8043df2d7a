# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mistakes on the command line and in the inventory stop ansible-playbook and make before they connect to a host."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.nut.tests.unit.support.plays import CHECKOUT, try_play

pytestmark = pytest.mark.slow

PLAYBOOKS = sorted(CHECKOUT.glob("playbooks/*.yml"))
# nothing answers there
GROUPS = {"pve": {"hosts": {"proxmox": {"ansible_port": 9}}}, "truenas": {"hosts": {"nas": {}}}}
TYPO = {**GROUPS, "truenas": {"hosts": {"nas": {"nut_client_shutdwon_time": 45}}}}
WANTED = "nas: nut_client_shutdwon_time is not a variable of this collection. Did you mean nut_client_shutdown_time?"


def write_inventory(root: Path, groups: object) -> None:
    (root / "hosts.yml").write_text(yaml.safe_dump(groups))


def stop_in_first_play(root: Path, *arguments: str) -> str:
    """Run a playbook, check that it stops in its first play without connecting to a host, and return its output."""
    done = try_play(root, "-i", "hosts.yml", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout.count("PLAY [") == 1
    assert "unreachable=0" in done.stdout
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_misspelled_variable_of_a_secondary_stops_each_playbook(tmp_path: Path, path: Path) -> None:
    write_inventory(tmp_path, TYPO)
    assert WANTED in stop_in_first_play(tmp_path, str(path), "--limit", "proxmox")


@pytest.mark.parametrize("role", ["nut_server", "nut_client", "nut_hotplug"])
def test_misspelled_variable_stops_a_role_used_alone(tmp_path: Path, role: str) -> None:
    write_inventory(tmp_path, TYPO)
    hosts = "truenas" if role == "nut_client" else "pve"
    (tmp_path / "site.yml").write_text(f"- hosts: {hosts}\n  gather_facts: false\n  roles: [homelab.nut.{role}]\n")
    assert WANTED in stop_in_first_play(tmp_path, "site.yml")


def test_one_run_names_all_misspelled_variables(tmp_path: Path) -> None:
    write_inventory(tmp_path, TYPO)
    site = "- hosts: pve\n  gather_facts: false\n  vars: {nut_server_lisen: []}\n  roles: [homelab.nut.nut_server]\n"
    (tmp_path / "site.yml").write_text(site)
    output = stop_in_first_play(tmp_path, "site.yml", "--extra-vars", "nut_hotplug_takover=false")
    for text in (WANTED, "Did you mean nut_server_listen?", "Did you mean nut_hotplug_takeover?"):
        assert text in output


def test_inventory_without_a_primary_stops_the_run(tmp_path: Path) -> None:
    write_inventory(tmp_path, {"truenas": {"hosts": {"nas": {}}}})
    assert "has no host in the group pve" in stop_in_first_play(tmp_path, str(CHECKOUT / "playbooks/pve.yml"))


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("option", ["--tags", "--skip-tags"])
def test_unknown_tag_stops_each_playbook(tmp_path: Path, path: Path, option: str) -> None:
    write_inventory(tmp_path, GROUPS)
    wanted = "It has no tags at all." if path.stem != "pve" else "Its tags are ups and hotplug."
    assert f"This playbook has no tag upss. {wanted}" in stop_in_first_play(tmp_path, str(path), option, "upss,all")


@pytest.mark.parametrize(
    "beside", [[], [str(CHECKOUT / "playbooks/pve.yml")]], ids=["site.yml alone", "site.yml and pve.yml"]
)
def test_importing_playbook_may_have_more_tags(tmp_path: Path, beside: list[str]) -> None:
    write_inventory(tmp_path, GROUPS)
    (tmp_path / "site.yml").write_text("- import_playbook: homelab.nut.pve\n")
    done = try_play(tmp_path, "-i", "hosts.yml", "site.yml", *beside, "--tags", "always,other")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Check the names of all variables" in done.stdout


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_playbook_accepts_exactly_the_tags_of_the_tasks(tmp_path: Path, path: Path) -> None:
    write_inventory(tmp_path, GROUPS)
    listed = try_play(tmp_path, "-i", "hosts.yml", "--list-tags", str(path)).stdout
    tags = {tag for line in re.findall(r"TASK TAGS: \[(.*)\]", listed) for tag in line.split(", ") if tag}
    assert tags - {"always"} == set(yaml.safe_load(path.read_text())[0]["vars"]["__nut_tags"])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pve tag=ups", "make pve has no variable tag. Did you mean tags=?"),
        ("drill-live limits=pve", "make drill-live has no variable limits. Did you mean limit=?"),
        ("doctor tags=ups", "make doctor has no variable tags. It has inventory, limit, json, all, args"),
        ("drill live=1", "make drill has no variable live. A real shutdown is `make drill-live`"),
        ("units foo=1", "make units has no variable foo. It has none"),
    ],
)
def test_unknown_variable_of_make_is_refused(command: str, message: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", *command.split()], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
