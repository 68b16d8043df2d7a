# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import cluster
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    Constraint,
    HaCluster,
    PlanMachine,
    ProxmoxGuests,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.cluster import Cluster, Node
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest, HaSetup
from ansible_collections.homelab.nut.tests.unit.support.plans import SITE

NODE = PlanMachine("pve2", "secondary", "linux", shutdown_time=90, shutdown_limit=180)
HA = HaCluster(("pve2",), ("vm:101",), True, "5.2.0", True)


def judge(
    ha: HaCluster = HA, way: str = "", node: PlanMachine = NODE, nas_time: float = 60, **ups: Any
) -> tuple[Constraint | None, bool | None]:
    site = (
        SITE.change_machine("truenas", shutdown_time=nas_time)
        .add_machines(node)
        .change_ups(**{"offdelay": 120, "ondelay": 200, **ups})
    )
    site = replace(site, timing=replace(site.timing, cluster=way))
    plan = site.make_plan(ProxmoxGuests(stop_limit=100, stop_time=20, cluster=ha))
    found = [constraint for constraint in plan.constraints if constraint.name == "cluster"]
    return (found[0] if found else None), plan.feasible


@pytest.mark.parametrize(
    "ha",
    [HA, replace(HA, is_active=False), replace(HA, guests=())],
    ids=["guest and active", "guest", "active lately"],
)
def test_waiting_for_nodes_of_a_cluster_with_ha_makes_plan_infeasible(ha: HaCluster) -> None:
    constraint, feasible = judge(ha)
    assert constraint is not None
    assert (constraint.holds, feasible) == (False, False)
    assert "HA's watchdog resets it with its guests running" in constraint.reason
    for way in (
        "write into host_vars/pve.yml, under nut_server_gate: cluster: together",
        "write into host_vars/pve.yml, under nut_server_gate: cluster: disarm",
    ):
        assert way in constraint.remedy
    assert ("ha-manager remove vm:101" in constraint.remedy) == bool(ha.guests)


@pytest.mark.parametrize(
    "ha",
    [HaCluster(), replace(HA, nodes=()), replace(HA, guests=(), is_active=False)],
    ids=["no cluster", "no node among the secondaries", "no HA guest here"],
)
@pytest.mark.parametrize("way", ["", "together", "disarm"])
def test_nothing_to_lose_is_no_constraint(ha: HaCluster, way: str) -> None:
    assert judge(ha, way)[0] is None


def test_release_that_cannot_disarm_is_not_told_to() -> None:
    old = replace(HA, release="4.0.6", can_disarm=False)
    constraint, _feasible = judge(old)
    assert constraint is not None
    assert "disarm" not in constraint.remedy
    constraint, feasible = judge(old, "disarm")
    assert constraint is not None
    assert (constraint.holds, feasible) == (False, False)
    assert "pve-ha-manager here is 4.0.6: only 5.1.3 and newer can be disarmed" in constraint.reason
    assert "together" in constraint.remedy


@pytest.mark.parametrize("way", ["together", "disarm"])
def test_chosen_way_satisfies_plan(way: str) -> None:
    constraint, _feasible = judge(way=way)
    assert constraint is not None
    assert (constraint.holds, constraint.remedy) == (True, "")


def test_together_fails_if_another_machine_takes_longer_than_the_nodes() -> None:
    constraint, feasible = judge(way="together", nas_time=120)
    assert constraint is not None
    assert (constraint.holds, feasible) == (False, False)
    assert "this host still waits for truenas, for 120 s; by then pve2 is down (90 s)" in constraint.reason
    assert "together" not in constraint.remedy
    assert "disarm" in constraint.remedy


def test_together_fails_if_the_ups_cuts_the_power_of_a_node() -> None:
    # 60 s for the NAS, 20 s for the guests, and offdelay
    assert judge(way="together", offdelay=10)[0].holds is True  # type: ignore[union-attr]
    constraint, _feasible = judge(way="together", offdelay=9)
    assert constraint is not None
    assert constraint.holds is False
    assert "the UPS may cut the power 89 s after FSD" in constraint.reason
    assert "raise offdelay of the UPS to 10 s or more" in constraint.remedy
    # a node on a UPS of its own is not cut
    own = replace(NODE, ups="other")
    assert judge(way="together", node=own, offdelay=9)[0].holds is True  # type: ignore[union-attr]


def resolve(name: str) -> tuple[str, ...]:
    known = {"pve3.lan": ("192.0.2.3",), "192.0.2.2": ("192.0.2.2",), "node-three": ("192.0.2.3",)}
    if name not in known:
        raise OSError(name)
    return known[name]


@pytest.mark.parametrize(
    ("machine", "is_node"),
    [
        (PlanMachine("b", "secondary", "linux", address=("192.0.2.2",)), True),
        (PlanMachine("c", "secondary", "linux", address=("node-three",)), True),
        (PlanMachine("d", "secondary", "linux", address=("2001:db8:0::2",)), True),
        (PlanMachine("pve2", "secondary", "linux", address=("198.51.100.7",)), True),
        (PlanMachine("PVE2.example.org", "secondary", "linux"), True),
        (PlanMachine("nas", "secondary", "truenas", address=("192.0.2.20",)), False),
        (PlanMachine("pve2", "guest", "qm", guest_id=100), False),
    ],
)
def test_secondaries_that_are_nodes_are_found(machine: PlanMachine, is_node: bool) -> None:
    nodes = Cluster((Node("pve2", ("192.0.2.2", "2001:db8::2")), Node("pve3", ("pve3.lan",))), ha_release="5.2.0")
    here = [Guest(101, "qm"), Guest(200, "pct"), Guest(102, "qm")]
    found = cluster.find_cluster(nodes, HaSetup(managed=frozenset({101, 200, 999})), here, [machine], resolve)
    assert found.nodes == ((machine.name,) if is_node else ())
    assert (found.guests, found.release, found.can_disarm) == (("vm:101", "ct:200"), "5.2.0", True)
