# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter import clients, shutdown_policy

secondaries = clients.FilterModule().filters()["clients"]
policy = shutdown_policy.FilterModule().filters()["shutdown_policy"]

NAS = secondaries({"pve": ["pve"], "truenas": ["nas"]}, {"pve": {"ansible_host": "192.0.2.10"}, "nas": {}})
UPS = [{"name": "ups"}]


def test_policy_has_default_timeout_unless_one_is_set() -> None:
    made = policy(NAS, "pve", UPS, "3493", settle="3", reserve=60)
    assert (made["settle"], made["reserve"], made["timeout"]) == (3, 60, 120)
    assert [machine["name"] for machine in made["machines"]] == ["nas"]
    # an unset variable of the role is an empty string
    assert policy(NAS, "pve", UPS, 3493, settle=3, reserve=60, timeout="") == made
    assert policy(NAS, "pve", UPS, 3493, settle=3, reserve=60, timeout="200")["timeout"] == 200


@pytest.mark.parametrize(
    "wrong",
    [{"settle": 0}, {"settle": "soon"}, {"reserve": -1}, {"timeout": 0}, {"reserve": None}, {"reserve": 10**400}],
)
def test_invalid_gate_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AnsibleFilterError, match="nut_server_gate"):
        policy(NAS, "pve", UPS, 3493, **{"settle": 3, "reserve": 60, **wrong})


def test_policy_asks_which_of_several_upses_power_the_primary() -> None:
    with pytest.raises(AnsibleFilterError, match="does not say whether ups or desk powers pve: set powervalue"):
        policy(NAS, "pve", [*UPS, {"name": "desk"}], 3493, settle=3, reserve=60)


def test_policy_has_the_power_of_each_ups() -> None:
    devices = [
        {"name": "left", "powervalue": 1},
        {"name": "right", "powervalue": 1},
        {"name": "router", "powervalue": 0},
    ]
    made = policy(NAS, "pve", devices, 3493, minsupplies="2", settle=3, reserve=60)
    assert [ups["power"] for ups in made["upses"]] == [1, 1, 0]
    assert made["minsupplies"] == 2


NODES = secondaries(
    {"pve": ["pve"], "truenas": ["nas"], "ups_clients": ["node 2"]},
    {"pve": {"ansible_host": "192.0.2.10"}, "nas": {}, "node 2": {"ansible_host": "192.0.2.12"}},
)


@pytest.mark.parametrize(
    ("cluster", "nodes", "awaited"),
    [
        ("together", ["node 2"], ["nas"]),
        ("together", [], ["nas", "node_2"]),
        ("disarm", ["node 2"], ["nas", "node_2"]),
        ("", ["node 2"], ["nas", "node_2"]),
        (None, ["node 2"], ["nas", "node_2"]),
    ],
)
def test_nodes_of_the_cluster_are_awaited_unless_all_go_down_together(
    cluster: str | None, nodes: list[str], awaited: list[str]
) -> None:
    made = policy(NODES, "pve", UPS, 3493, settle=3, reserve=60, cluster=cluster, cluster_nodes=nodes)
    assert [machine["name"] for machine in made["machines"]] == awaited
    assert made["cluster"] == (cluster or "")


@pytest.mark.parametrize("cluster", ["Together", "freeze", True])
def test_unknown_way_of_a_cluster_is_refused(cluster: object) -> None:
    with pytest.raises(AnsibleFilterError, match=r"nut_server_gate .*\$\.cluster"):
        policy(NODES, "pve", UPS, 3493, settle=3, reserve=60, cluster=cluster)
