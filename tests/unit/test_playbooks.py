# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mistakes on the command line and in the inventory stop ansible-playbook and make before they connect to a host."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.nut.tests.unit.support.plays import CHECKOUT, list_tasks, try_play

pytestmark = pytest.mark.slow

PLAYBOOKS = sorted(CHECKOUT.glob("playbooks/*.yml"))
# nothing answers there
GROUPS = {"pve": {"hosts": {"proxmox": {"ansible_port": 9}}}, "truenas": {"hosts": {"nas": {}}}}
TYPO = {**GROUPS, "truenas": {"hosts": {"nas": {"nut_client_shutdwon_time": 45}}}}
WANTED = "nas: nut_client_shutdwon_time is not a variable of this collection. Did you mean nut_client_shutdown_time?"


def write_inventory(root: Path, groups: object) -> None:
    (root / "hosts.yml").write_text(yaml.safe_dump(groups))


def stop_in_first_play(root: Path, *arguments: str) -> str:
    """Run a playbook, check that it stops in the plays of common/check.yml without connecting to a host, and return its output."""
    done = try_play(root, "-i", "hosts.yml", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    plays = re.findall(r"PLAY \[(.*)\]", done.stdout)
    assert len(plays) == 1 or plays == ["Check the command line and the inventory", "Check the settings"]
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


def test_no_fact_is_set_for_all_hosts_at_once() -> None:
    """In ansible-core 2.21 all hosts would share one set of facts, and with it the Python interpreter of the first."""
    files = [path for folder in ("playbooks", "roles", "molecule") for path in (CHECKOUT / folder).rglob("*.yml")]
    tasks = [task for path in files for task in list_tasks(yaml.safe_load(path.read_text(encoding="utf-8")))]
    facts = [task for task in tasks if {"set_fact", "ansible.builtin.set_fact"} & set(task)]
    assert facts
    assert [task for task in facts if task.get("run_once")] == []


def test_no_result_is_registered_twice_in_a_file_unless_the_first_ends_there() -> None:
    """A skipped task registers too, and so hides what the first one found."""
    repeated = {}
    for path in (CHECKOUT / "roles").rglob("tasks/*.yml"):
        names = [task.get("register") for task in list_tasks(yaml.safe_load(path.read_text(encoding="utf-8")))]
        if twice := {name for name in names if name and names.count(name) > 1}:
            repeated[path.name] = twice
    # its first ones are in a block that ends the host
    assert repeated == {"ups_clients.yml": {"__nut_client_checked", "__nut_client_deployed"}}


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_secondary_without_a_primary_stops_each_playbook_with_one_message(tmp_path: Path, path: Path) -> None:
    write_inventory(tmp_path, {**GROUPS, "pve": {"hosts": {"proxmox": {}, "second": {}}}})
    output = " ".join(stop_in_first_play(tmp_path, str(path)).split())
    assert "nas is a secondary without a primary: group pve has proxmox, second; set nut_client_primary" in output
    assert "filter plugin" not in output


@pytest.mark.parametrize(("role", "group"), [("nut_client", "ups_clients"), ("nut_server", "pve")])
def test_role_on_a_group_of_ones_own_says_which_group_it_needs(tmp_path: Path, role: str, group: str) -> None:
    write_inventory(tmp_path, {**GROUPS, "desks": {"hosts": {"desk": {"ansible_port": 9}}}})
    (tmp_path / "site.yml").write_text(f"- hosts: desks\n  gather_facts: false\n  roles: [homelab.nut.{role}]\n")
    output = " ".join(stop_in_first_play(tmp_path, "site.yml").split())
    assert f"desk gets the role {role}, but is not in" in output
    assert f"such as nut_groups: {{{group}: " in output


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_host_in_a_group_that_the_roles_do_not_look_at_stops_each_playbook(tmp_path: Path, path: Path) -> None:
    """A primary without secondaries would be deployed otherwise."""
    storage = {"hosts": {"nas": {"nut_client_shutdown_time": 90}}}
    write_inventory(tmp_path, {"pve": GROUPS["pve"], "storage": storage})
    output = " ".join(stop_in_first_play(tmp_path, str(path)).split())
    assert "nas has nut_client_shutdown_time, but is in the group storage, by which the roles do not find it" in output


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


DEADTIME = "nut_server_upsmon_conf: DEADTIME is '15s', must be a whole number of seconds, without a unit"
TWO = [{"name": "left"}, {"name": "right"}]
# variables of the group pve, of the group ups_clients, and the whole message
MISTAKES = {
    "a secondary without a primary": (
        {},
        {"nut_client_primary": "nobody"},
        "desk is a secondary without a primary: nut_client_primary is nobody, but group pve has attic, cellar; set it to one of these",
    ),
    "a value with a unit": (
        {"nut_server_upsmon_conf": {"DEADTIME": "15s"}}, {"nut_client_primary": "attic"}, f"attic: {DEADTIME}",
    ),
    "two UPSes without powervalue": (
        {"nut_server_devices": TWO}, {"nut_client_primary": "attic", "nut_client_ups": "left"},
        "attic has 2 UPSes (left, right), and nut_server_devices does not say whether left or right powers attic: set powervalue of each "
        "to the number of its power supplies on that UPS, 0 if it feeds other machines only",
    ),
}  # fmt: skip


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_value_is_a_single_sentence(tmp_path: Path, path: Path, name: str) -> None:
    """Not once for each host, and without the name of a filter, as Ansible puts it."""
    server, client, message = MISTAKES[name]
    hosts = {"attic": {"ansible_port": 9}, "cellar": {"ansible_port": 9}}
    groups = {
        "pve": {"hosts": hosts, "vars": server},
        "ups_clients": {"hosts": {"desk": {"ansible_port": 9}}, "vars": client},
    }
    write_inventory(tmp_path, groups)
    output = stop_in_first_play(tmp_path, str(path))
    assert output.count(f'"msg": "{message}"') == 1, output
    assert output.count("fatal: [") == 1
    assert "plugin" not in output


def test_equal_mistakes_of_several_hosts_are_a_single_line(tmp_path: Path) -> None:
    hosts = {"attic": {"ansible_port": 9}, "cellar": {"ansible_port": 9}}
    wrong = {"nut_server_upsd_conf": {"MAXAGE": "15s"}}
    write_inventory(tmp_path, {"pve": {"hosts": hosts, "vars": wrong}})
    output = stop_in_first_play(tmp_path, str(CHECKOUT / "playbooks/pve.yml"))
    assert "attic, cellar: nut_server_upsd_conf: MAXAGE is '15s', must be a whole number" in output
    assert output.count("fatal: [") == 1


@pytest.mark.parametrize("playbook", ["doctor", "status"])
def test_wrong_value_of_a_host_does_not_hide_the_others(tmp_path: Path, playbook: str) -> None:
    hosts = {
        "attic": {"ansible_port": 9, "ansible_host": "127.0.0.1", "nut_server_upsd_conf": {"MAXAGE": "15s"}},
        "cellar": {"ansible_port": 9, "ansible_host": "127.0.0.1"},
    }
    write_inventory(tmp_path, {"pve": {"hosts": hosts}})
    command = [str(CHECKOUT / "tools" / "doctor"), playbook, "--json", "--inventory", str(tmp_path / "hosts.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    report = json.loads(done.stdout)
    assert {row["host"] for row in report.get("hosts", report.get("findings"))} == {"attic", "cellar"}
    assert "plugin" not in done.stdout


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("option", ["--tags", "--skip-tags"])
def test_unknown_tag_stops_each_playbook(tmp_path: Path, path: Path, option: str) -> None:
    write_inventory(tmp_path, GROUPS)
    wanted = "Its tags are ups and hotplug." if path.stem in ("pve", "rotate", "ups") else "It has no tags at all."
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
    first = yaml.safe_load(path.read_text())[0]
    if "vars" not in first:  # ups is pve under another name
        first = yaml.safe_load((path.parent / first["ansible.builtin.import_playbook"]).read_text())[0]
    assert tags - {"always"} == set(first["vars"]["__nut_tags"])


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


def run_report(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tools/doctor for a primary that can't be reached."""
    write_inventory(root, {"pve": {"hosts": {"proxmox": {"ansible_host": "127.0.0.1", "ansible_port": 9}}}})
    command = [str(CHECKOUT / "tools" / "doctor"), *arguments, "--inventory", str(root / "hosts.yml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.parametrize("playbook", ["doctor", "status"])
def test_json_report_of_an_unreachable_host_is_json(tmp_path: Path, playbook: str) -> None:
    done = run_report(tmp_path, playbook, "--json")
    report = json.loads(done.stdout)
    assert report["format"] == 1
    assert {row["host"] for row in report.get("hosts", report.get("findings"))} == {"proxmox"}
    assert "PLAY [" not in done.stderr


def test_remedy_of_an_unreachable_host_shows_how_ansible_connects(tmp_path: Path) -> None:
    (finding,) = json.loads(run_report(tmp_path, "doctor", "--json").stdout)["findings"]
    assert finding["todo"] == "check that it is on, and test it with `ssh -p 9 127.0.0.1`"
    # what docs/doctor.md names
    done = run_report(tmp_path, "doctor", "--limit", "proxmox", "-vvv")
    assert "can't be reached" in done.stdout
    assert "ESTABLISH SSH CONNECTION" in done.stderr
