# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does HA's watchdog reset the primary while it waits for the other nodes of its cluster? See proxmox/cluster.py."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..base import hostnames
from ..proxmox.cluster import DISARM, TOGETHER, Cluster
from ..proxmox.guests import Guest, HaSetup, Resolve
from .model import SECONDARY, HaCluster, PlanMachine
from .remedies import set_variable
from .timeline import PlanInputs

_VARIABLE = "nut_server_gate.cluster"


def find_cluster(
    cluster: Cluster, ha: HaSetup, here: Iterable[Guest], machines: Iterable[PlanMachine], resolve: Resolve
) -> HaCluster:
    """Return which secondaries are nodes of the primary's cluster, and what HA does on the primary."""
    names = {node.name.casefold() for node in cluster.nodes}
    addresses = _resolve_all([address for node in cluster.nodes for address in node.addresses], resolve)
    nodes = [
        machine.name
        for machine in machines
        if machine.role == SECONDARY
        and (
            machine.name.casefold().partition(".")[0] in names
            or not addresses.isdisjoint(_resolve_all(machine.address, resolve))
        )
    ]
    managed = [f"{'vm' if guest.kind == 'qm' else 'ct'}:{guest.id}" for guest in here if guest.id in ha.managed]
    return HaCluster(tuple(nodes), tuple(managed), cluster.is_ha_active, cluster.ha_release, cluster.can_disarm)


def list_names(cluster: Cluster, machines: Iterable[PlanMachine]) -> tuple[str, ...]:
    """Return the names that find_cluster() resolves."""
    if not cluster.nodes:
        return ()
    own = [address for machine in machines for address in machine.address]
    return tuple(sorted({*own, *(address for node in cluster.nodes for address in node.addresses)}))


def _resolve_all(names: Collection[str], resolve: Resolve) -> frozenset[str]:
    found = set()
    for name in names:
        try:
            answers: Sequence[str] = resolve(name)
        except OSError:
            answers = ()
        found |= {hostnames.normal_address(address) for address in (name.casefold(), *answers)}
    return frozenset(found)


def judge_cluster(inputs: PlanInputs) -> tuple[bool, str, str] | None:
    """Return whether the primary survives the loss of the other nodes, why, and the remedy; None if there is nothing to lose."""
    ha, way = inputs.proxmox.cluster, inputs.timing.cluster
    if not ha.nodes or not (ha.guests or ha.is_active):
        return None
    nodes = ", ".join(ha.nodes)
    works = (
        f"HA manages {', '.join(ha.guests)} on this host"
        if ha.guests
        else "HA managed a guest on this host until lately"
    )
    if way == DISARM:
        if ha.can_disarm:
            return True, f"{works}; it is disarmed while the power is out ({_VARIABLE}: {DISARM})", ""
        release = ha.release or "of an unknown release"
        reason = f"{works}, and {_VARIABLE} is {DISARM}, but pve-ha-manager here is {release}: only 5.1.3 and newer can be disarmed"
        return False, reason, _list_ways(inputs, without_disarm=True)
    if way == TOGETHER:
        trouble = _find_late_machine(inputs) or _find_cut_node(inputs)
        if trouble:
            return False, *trouble
        return True, f"{works}; the gate does not wait for {nodes}: all nodes go down at the same time", ""
    reason = (
        f"{works}, and {nodes} {'is a node' if len(ha.nodes) == 1 else 'are nodes'} of its cluster: while this host waits for them, "
        "it loses the quorum, and a minute later HA's watchdog resets it with its guests running"
    )
    return False, reason, _list_ways(inputs)


def _list_ways(inputs: PlanInputs, *, without_disarm: bool = False, without_together: bool = False) -> str:
    """Return what helps, as one text."""
    ha = inputs.proxmox.cluster
    ways = []
    if not without_together:
        ways.append(
            f"{set_variable(inputs, 'gate.cluster', TOGETHER)}, so that this host does not wait for {', '.join(ha.nodes)}"
        )
    if ha.can_disarm and not without_disarm:
        ways.append(
            f"{set_variable(inputs, 'gate.cluster', DISARM)}, so that nut-shutdown runs "
            "ha-manager crm-command disarm-ha ignore when the power fails, and "
            "arm-ha when it is back"
        )
    removals = "; ".join(f"ha-manager remove {guest}" for guest in ha.guests)
    ways.append(f"let HA work no guest on this host ({removals or 'none in the last 10 minutes'})")
    return ", or ".join(ways)


def _awaited(inputs: PlanInputs) -> list[PlanMachine]:
    """Return the secondaries for which the gate waits if it does not wait for nodes."""
    return [machine for machine in inputs.secondaries if machine.name not in inputs.proxmox.cluster.nodes]


def _find_late_machine(inputs: PlanInputs) -> tuple[str, str] | None:
    """Return why the gate waits longer for another machine than the cluster keeps its quorum, and the remedy."""
    nodes = [machine for machine in inputs.secondaries if machine.name in inputs.proxmox.cluster.nodes]
    first = min(nodes, key=lambda machine: machine.shutdown_time)
    late = max(_awaited(inputs), key=lambda machine: machine.shutdown_time, default=None)
    if late is None or late.shutdown_time <= first.shutdown_time:
        return None
    reason = (
        f"with {_VARIABLE}: {TOGETHER} this host still waits for {late.name}, for {late.shutdown_time:g} s; by then {first.name} is down "
        f"({first.shutdown_time:g} s) and the quorum is lost, and HA's watchdog resets this host with its guests running"
    )
    return reason, _list_ways(inputs, without_together=True)


def _find_cut_node(inputs: PlanInputs) -> tuple[str, str] | None:
    """Return why the UPS cuts the power of a node that this host does not wait for, and the remedy."""
    own = {supply.name for supply in inputs.supplies}
    nodes = [
        machine
        for machine in inputs.secondaries
        if machine.name in inputs.proxmox.cluster.nodes and (not machine.ups or machine.ups in own)
    ]
    slowest = max(nodes, key=lambda machine: machine.shutdown_time, default=None)
    if slowest is None:
        return None
    wait = max([0.0, *(machine.shutdown_time for machine in _awaited(inputs))])
    delay = min([supply.offdelay or 0.0 for supply in inputs.supplies], default=0.0)
    off = wait + (inputs.proxmox.stop_time or 0.0) + delay
    if off >= slowest.shutdown_time:
        return None
    reason = (
        f"with {_VARIABLE}: {TOGETHER} this host does not wait for {slowest.name}, which needs {slowest.shutdown_time:g} s; the UPS may "
        f"cut the power {off:g} s after FSD"
    )
    missing = slowest.shutdown_time - off + delay
    return reason, f"raise offdelay of the UPS to {missing:g} s or more, or {_list_ways(inputs, without_together=True)}"
