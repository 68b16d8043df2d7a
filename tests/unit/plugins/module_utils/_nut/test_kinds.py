# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut import inventory, kinds
from ansible_collections.homelab.nut.plugins.module_utils._nut.inventory import InventoryError

GROUPS = {
    "all": ["cellar", "vault", "desk", "shed"],
    "ungrouped": [],
    "hypervisors": ["cellar"],
    "storage": ["vault"],
    "desks": ["desk"],
    "sheds": ["shed"],
}
CHOICE = {"pve": "hypervisors", "truenas": ["storage"], "ups_clients": ["desks", "sheds"]}


def hosts(choice: Any = None, **variables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the variables of the hosts. choice: nut_groups of all of them."""
    common = {} if choice is None else {"nut_groups": choice}
    return {name: {"ansible_host": "192.0.2.9", **common, **variables.get(name, {})} for name in GROUPS["all"]}


def test_groups_may_have_any_name() -> None:
    found = inventory.list_secondaries(GROUPS, hosts(CHOICE))
    assert [(client["name"], client["kind"], client["primary"]) for client in found] == [
        ("vault", "truenas", "cellar"),
        ("desk", "ups_clients", "cellar"),
        ("shed", "ups_clients", "cellar"),
    ]
    assert inventory.find_problems(GROUPS, hosts(CHOICE)) == []
    assert inventory.find_remarks(GROUPS, hosts(CHOICE)) == []
    sources = inventory.upsd_access(GROUPS, hosts(CHOICE), "cellar")["sources"]
    assert [source["name"] for source in sources] == ["vault", "desk", "shed"]


@pytest.mark.parametrize("with_pve", [False, True])
def test_primaries_are_in_pve_and_in_ups_servers(with_pve: bool) -> None:
    groups = {"all": ["pi", "node", "desk"], "ups_servers": ["pi"], "ups_clients": ["desk"]}
    if with_pve:
        groups["pve"] = ["node"]
    variables: dict[str, dict[str, Any]] = {name: {"ansible_host": "192.0.2.9"} for name in groups["all"]}
    assert inventory.find_groups(groups, variables).list_managed() == [*(["node"] if with_pve else []), "pi", "desk"]
    if with_pve:
        with pytest.raises(InventoryError, match="groups pve and ups_servers have node, pi; set nut_client_primary"):
            inventory.list_secondaries(groups, variables)
        variables["desk"]["nut_client_primary"] = "pi"
    assert [client["primary"] for client in inventory.list_secondaries(groups, variables)] == ["pi"]


def test_group_of_all_primaries_may_contain_the_group_pve() -> None:
    groups = {"all": ["node", "desk"], "ups_servers": ["node"], "pve": ["node"], "ups_clients": ["desk"]}
    variables: dict[str, dict[str, Any]] = {name: {"ansible_host": "192.0.2.9"} for name in groups["all"]}
    assert inventory.find_problems(groups, variables) == []
    assert inventory.find_groups(groups, variables).list_managed() == ["node", "desk"]


def test_nut_groups_names_a_group_of_servers() -> None:
    variables = hosts({**{key: CHOICE[key] for key in ("truenas", "ups_clients")}, "ups_servers": "hypervisors"})
    assert [client["primary"] for client in inventory.list_secondaries(GROUPS, variables)] == ["cellar"] * 3


def test_messages_name_the_groups_of_the_inventory() -> None:
    groups = {**GROUPS, "hypervisors": ["cellar", "shed"], "sheds": []}
    with pytest.raises(
        InventoryError, match=r"^vault is a secondary without a primary: group hypervisors has cellar, shed; set"
    ):
        inventory.list_secondaries(groups, hosts(CHOICE))
    twice = {**GROUPS, "storage": ["vault", "desk"]}
    with pytest.raises(InventoryError, match=r"^desk is in the groups storage and desks: remove it from one of them$"):
        inventory.list_secondaries(twice, hosts(CHOICE))
    two = {**CHOICE, "pve": ["hypervisors", "desks"], "ups_clients": "sheds"}
    with pytest.raises(
        InventoryError, match="groups hypervisors and desks have cellar, desk; set nut_client_primary to one"
    ):
        inventory.list_secondaries(GROUPS, hosts(two))


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        ({"trunas": "storage"}, "nut_groups has no key trunas. Did you mean truenas?"),
        ({"nas": "storage"}, "nut_groups has no key nas. Its keys are pve, ups_servers, truenas, ups_clients"),
        (
            {"pve": "hypervisors", "truenas": "stoarge"},
            "nut_groups.truenas is stoarge, but the inventory has no such group: use one of its groups "
            "(hypervisors, storage, desks, sheds), or leave truenas out",
        ),
        ({"pve": []}, "nut_groups.pve names no group"),
        ("storage", "nut_groups must be a dictionary, such as {truenas: storage}, not 'storage'"),
        (
            {"pve": "hypervisors", "truenas": "storage", "ups_clients": "storage"},
            "nut_groups: storage is the group of both truenas and ups_clients: a group has hosts of one kind",
        ),
    ],
)
def test_wrong_nut_groups_is_a_problem(choice: Any, problem: str) -> None:
    (found,) = inventory.find_problems(GROUPS, hosts(choice))
    assert found.startswith(problem)


def test_hosts_must_agree_on_nut_groups() -> None:
    variables = hosts(CHOICE, shed={"nut_groups": {}})
    assert inventory.find_problems(GROUPS, variables) == [
        "nut_groups of shed differs from that of cellar: set it once for all hosts, in group_vars/all.yml"
    ]


def test_host_with_our_variables_in_a_group_that_the_roles_do_not_look_at_is_a_problem() -> None:
    variables = hosts({"pve": "hypervisors"}, vault={"nut_client_shutdown_time": 90}, shed={"nut_server_port": 3494})
    assert inventory.find_problems(GROUPS, variables) == [
        "vault has nut_client_shutdown_time, but is in the group storage, by which the roles do not find it: put it into one of the groups "
        f"{inventory.list_words(kinds.KINDS, 'or')}, or name its group for all hosts, such as nut_groups: {{ups_clients: storage}} in "
        "group_vars/all.yml",
        "shed has nut_server_port, but is in the group sheds, by which the roles do not find it: put it into the group hypervisors, or "
        "name its group for all hosts, such as nut_groups: {pve: [hypervisors, sheds]} in group_vars/all.yml",
    ]


def test_variables_that_all_hosts_have_make_no_host_a_machine() -> None:
    variables = {name: {**own, "nut_client_wait": 90} for name, own in hosts({"pve": "hypervisors"}).items()}
    assert inventory.find_problems(GROUPS, variables) == []


def test_inventory_without_secondaries_is_remarked() -> None:
    (remark,) = inventory.find_remarks(GROUPS, hosts({"pve": "hypervisors"}))
    assert remark.startswith("No host is a secondary: vault, desk and shed are in none of the groups truenas")
    assert "nut_groups: {ups_clients: storage}" in remark
    alone = {"all": ["cellar"], "pve": ["cellar"]}
    assert inventory.find_remarks(alone, {"cellar": {}}) == []


def test_group_that_is_called_almost_like_ours_is_remarked() -> None:
    groups = {**GROUPS, "pve": ["cellar"], "truenas": ["vault"], "ups_client": ["desk", "shed"]}
    assert inventory.find_remarks(groups, hosts()) == [
        "No role uses the group ups_client (desk and shed). Did you mean ups_clients?"
    ]
    assert inventory.find_remarks({**groups, "ups_clients": ["desk", "shed"]}, hosts()) == []


def test_inventory_without_a_primary_names_its_files() -> None:
    (problem,) = inventory.find_problems(GROUPS, hosts(), sources=["/home/me/hosts.yml"])
    assert problem.startswith(
        "The inventory /home/me/hosts.yml has no host in the group pve or ups_servers, so there is nothing to do"
    )
    assert "nut_groups" in problem


APPLIANCES = {
    "all": ["cellar", "syno", "syno2", "desk"],
    "pve": ["cellar"],
    "ups_clients": ["desk"],
    "unmanaged": ["syno", "syno2"],
}
FIXED = {"nut_client_user": "monuser", "nut_client_password": "secret"}


def appliances(**variables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the variables of the hosts in APPLIANCES."""
    return {name: {"ansible_host": "192.0.2.9", **variables.get(name, {})} for name in APPLIANCES["all"]}


def test_unmanaged_machine_is_a_secondary_that_ansible_does_not_log_in_to() -> None:
    found = inventory.list_secondaries(APPLIANCES, appliances(syno=FIXED))
    by_name = {client["name"]: client for client in found}
    assert {name: client["managed"] for name, client in by_name.items()} == {
        "desk": True,
        "syno": False,
        "syno2": False,
    }
    assert (by_name["syno"]["user"], by_name["syno2"]["user"]) == ("monuser", "syno2")
    assert by_name["syno"]["shutdown_time"] == kinds.UNMANAGED.shutdown_time
    assert inventory.find_groups(APPLIANCES, appliances()).list_managed() == ["cellar", "desk"]
    sources = inventory.upsd_access(APPLIANCES, appliances(), "cellar")["sources"]
    assert {source["name"] for source in sources} == {"desk", "syno", "syno2"}
    site = inventory.plan_site("cellar", found, [{"name": "ups"}])
    assert [machine["kind"] for machine in site["machines"]] == ["pve", "linux", "unmanaged", "unmanaged"]


def test_machines_with_a_fixed_login_may_share_it() -> None:
    assert len(inventory.list_secondaries(APPLIANCES, appliances(syno=FIXED, syno2=FIXED))) == 3


@pytest.mark.parametrize(
    "variables",
    [
        {"syno": FIXED, "syno2": {**FIXED, "nut_client_password": "other"}},
        {"syno": {"nut_client_user": "monuser"}, "syno2": {"nut_client_user": "monuser"}},
        {"syno": FIXED, "desk": FIXED},
    ],
    ids=["two passwords", "no passwords", "a managed machine"],
)
def test_other_machines_do_not_share_a_login(variables: dict[str, Any]) -> None:
    (problem,) = inventory.find_problems(APPLIANCES, appliances(**variables))
    assert "have the same user monuser: set another nut_client_user for one of them" in problem


def test_role_on_an_unmanaged_machine_is_refused() -> None:
    assert inventory.find_problems(APPLIANCES, appliances(), "syno", "nut_client") == [
        "syno gets the role nut_client, but is in the group unmanaged: set it up by its own means (docs/clients.md)"
    ]
