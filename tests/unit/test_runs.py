# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of the playbooks whose modules are stand-ins: what a run does after each answer, and what it says in the end."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.tests.unit.support.plays import CHECKOUT, try_play

pytestmark = pytest.mark.slow

INVENTORY = {
    "pve": {"hosts": {"proxmox": {"nut_server_address": "192.0.2.1"}}},
    "truenas": {"hosts": {"nas": {"nut_client_address": "192.0.2.7", "nut_client_truenas_api_key": "1-abc"}}},
    "ups_clients": {"hosts": {"desk": {"nut_client_address": "192.0.2.8"}}},
}
# each call is logged; of several answers, each call gets the next, and the last one is repeated
STAND_IN = """\
#!/usr/bin/python
import json
from pathlib import Path
from ansible.module_utils import basic

ROOT, NAME = Path({root!r}), {name!r}


def main():
    given = basic._load_params()
    options = {{key: value for key, value in given.items() if not key.startswith("_")}}
    calls = ROOT / f"{{NAME}}.calls"
    number = len(calls.read_text().splitlines()) if calls.exists() else 0
    with calls.open("a") as log:
        log.write(json.dumps({{**options, "check": given["_ansible_check_mode"]}}) + "\\n")
    answers = json.loads((ROOT / "answers.json").read_text()).get(NAME, [{{}}])
    module = basic.AnsibleModule({{key: {{"type": "raw", "no_log": False}} for key in options}}, supports_check_mode=True)
    answer = answers[min(number, len(answers) - 1)]
    (module.fail_json if answer.get("failed") else module.exit_json)(**answer)


main()
"""
ON_MAINS = {"upses": [{"name": "ups", "status": ["OL"], "fresh": True}], "missing_clients": [], "not_on_mains": []}
ACCEPTED = {**ON_MAINS, "login": {"verdict": "accepted", "reason": ""}}
REFUSED = {**ON_MAINS, "login": {"verdict": "refused", "reason": "upsd does not accept the login nas to ups"}}
MISSING = {**ON_MAINS, "missing_clients": ["192.0.2.7"], "msg": "nas has not logged in"}
TRUENAS = {"changed": False, "service": {"state": "RUNNING"}, "actions": [], "host": "192.0.2.7"}
BOTH = "make ups tags=ups limit=proxmox,{host}"


@dataclass
class Site:
    """A site whose modules are stand-ins."""

    root: Path

    def __post_init__(self) -> None:
        self.collections = self.root / "collections"
        home = self.collections / "ansible_collections" / "homelab" / "nut"
        (home / "plugins").mkdir(parents=True)
        for name in ("roles", "playbooks", "meta", "galaxy.yml"):
            (home / name).symlink_to(CHECKOUT / name)
        for path in (CHECKOUT / "plugins").iterdir():
            if path.name not in ("modules", "action"):  # the action plugins wrap modules
                (home / "plugins" / path.name).symlink_to(path)
        (home / "plugins" / "modules").mkdir()
        for path in (CHECKOUT / "plugins" / "modules").glob("*.py"):
            text = STAND_IN.format(root=str(self.root), name=path.stem)
            (home / "plugins" / "modules" / path.name).write_text(text)
        (self.root / "hosts.yml").write_text(yaml.safe_dump(INVENTORY))

    def run(
        self, *arguments: str, playbook: str = "pve", **answers: list[dict[str, Any]]
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook. answers: of each module, in the order of its calls."""
        (self.root / "answers.json").write_text(json.dumps(answers))
        return try_play(
            self.root, "-i", "hosts.yml", f"homelab.nut.{playbook}", *arguments, collections=self.collections
        )

    def list_calls(self, module: str) -> list[dict[str, Any]]:
        path = self.root / f"{module}.calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def list_kept(self) -> list[str]:
        return [path.name for path in self.root.glob(".homelab-nut/passwords/[a-z]*")]


def write_inventory(site: Site, groups: dict[str, Any]) -> None:
    """Give a site another inventory."""
    (site.root / "hosts.yml").write_text(yaml.safe_dump(groups))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_secondary_without_its_primary_is_checked_before_it_is_changed(site: Site) -> None:
    done = site.run("--limit", "desk", config=[{"failed": True, "msg": "upsd does not accept the login"}])
    assert done.returncode == 2, done.stdout
    (call,) = site.list_calls("config")
    assert call["check"]
    assert call["login_remedy"] == (
        f"No password of desk is kept in {site.root}/.homelab-nut: if it was deployed from another machine, copy that folder from there. "
        f"Its primary proxmox has no part in this run. To deploy both: {BOTH.format(host='desk')}"
    )
    assert call["secrets"]["rotate"] == "make rotate limit=proxmox,desk"
    assert "to-be-made" in call["files"]["upsmon.conf"]
    assert site.list_kept() == []
    assert "Install NUT" not in done.stdout


def test_truenas_whose_login_is_refused_is_not_changed(site: Site) -> None:
    done = site.run(
        "--limit", "nas", ups_info=[REFUSED], truenas_ups=[{**TRUENAS, "changed": True, "actions": ["set monpwd"]}]
    )
    assert done.returncode == 2, done.stdout
    assert "upsd does not accept the login nas to ups. Nothing was changed on nas. No password of nas" in done.stdout
    assert BOTH.format(host="nas") in done.stdout
    assert [call["check"] for call in site.list_calls("truenas_ups")] == [True]
    assert "changed=0" in done.stdout
    assert site.list_kept() == []


def test_refused_login_of_truenas_is_repeated_once_upsd_accepts_it(site: Site) -> None:
    done = site.run(
        "--limit",
        "nas",
        ups_info=[ACCEPTED, MISSING, ACCEPTED, ON_MAINS],
        truenas_ups=[TRUENAS, {**TRUENAS, "changed": True}],
    )
    assert done.returncode == 0, done.stdout
    assert [call.get("restart") for call in site.list_calls("truenas_ups")] == [None, True]
    assert "ups on proxmox: logged in: nas" in done.stdout


@pytest.mark.parametrize(
    "answer",
    [REFUSED, {**ACCEPTED, "not_on_mains": ["ups (OB)"]}, {**ACCEPTED, "upses": [{"name": "ups", "fresh": False}]}],
    ids=["refused", "on battery", "without data"],
)
def test_truenas_is_not_restarted_in_vain_nor_on_battery(site: Site, answer: dict[str, Any]) -> None:
    done = site.run("--limit", "nas", ups_info=[ACCEPTED, MISSING, answer, MISSING], truenas_ups=[TRUENAS])
    assert done.returncode == 2, done.stdout
    assert len(site.list_calls("truenas_ups")) == 1
    assert "nas has not logged in" in done.stdout


def test_all_that_a_former_primary_had_is_taken_away(site: Site) -> None:
    former = {"former": ["its UPSes in ups.conf", "nut-shutdown"]}
    done = site.run("--limit", "desk", "--extra-vars", "nut_client_state=absent", config=[former])
    assert done.returncode == 0, done.stdout
    assert "desk was a primary. Taking away what is left of that: its UPSes in ups.conf, nut-shutdown." in done.stdout
    for module in ("hotplug_service", "upsd_access"):
        assert [call["state"] for call in site.list_calls(module)] == ["absent"]
    # the programs of the primary, then the drop-in that a secondary has
    assert [(call.get("role"), call["state"]) for call in site.list_calls("shutdown_service")] == [
        (None, "absent"),
        ("secondary", "absent"),
    ]
    assert [call["mode"] for call in site.list_calls("pve_firewall")] == ["absent"]
    assert [(call["check"], call["state"]) for call in site.list_calls("config")] == [
        (True, "absent"),
        (False, "absent"),
        (False, "absent"),
    ]


def test_passwords_are_rotated_only_for_a_primary_with_all_its_secondaries(site: Site) -> None:
    passwords = site.root / ".homelab-nut" / "passwords"
    passwords.mkdir(parents=True)
    for name in ("proxmox", "nas", "desk"):
        (passwords / name).write_text("kept\n")
    done = site.run("--limit", "proxmox,desk", playbook="rotate", ups_info=[ON_MAINS])
    assert done.returncode == 2, done.stdout
    assert (
        "New passwords would lock out nas, without a part in this run. Nothing was changed. Run: make rotate limit=proxmox,nas,desk"
        in (done.stdout)
    )
    done = site.run(playbook="rotate", ups_info=[{**ON_MAINS, "not_on_mains": ["ups (OB)"]}])
    assert done.returncode == 2, done.stdout
    assert sorted(site.list_kept()) == ["desk", "nas", "proxmox"]
    stopped = {"failed": True, "msg": "the run stops here"}
    done = site.run(playbook="rotate", ups_info=[ON_MAINS] * 3, shutdown_plan=[stopped])
    assert "the run stops here" in done.stdout
    assert site.list_kept() == []


def list_hosts_of_recap(output: str) -> set[str]:
    """Return the hosts that a run has done something on."""
    return {line.split()[0] for line in output.partition("PLAY RECAP")[2].splitlines() if " ok=" in line}


def test_groups_of_ones_own_are_found_by_nut_groups(site: Site) -> None:
    groups = {
        "hypervisors": {"hosts": {"cellar": {}}},
        "storage": {"hosts": {"vault": {}}},
        "others": {"hosts": {"phone": {}}},
    }
    choice = {"pve": "hypervisors", "truenas": "storage"}
    write_inventory(
        site, {"all": {"vars": {"nut_groups": choice, "nut_server_address": "192.0.2.1"}, "children": groups}}
    )
    done = site.run("--check", playbook="doctor")
    assert list_hosts_of_recap(done.stdout) == {"cellar", "vault"}, done.stdout
    (call,) = site.list_calls("doctor")
    assert [client["name"] for client in call["clients"]] == ["vault"]
    assert site.list_calls("truenas_ups") + site.list_calls("ups_info"), "vault was not examined"
