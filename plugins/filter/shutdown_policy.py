# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.shutdown_policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: shutdown_policy
short_description: Compose the shutdown policy of a primary
version_added: 0.2.0
description:
  - Composes the policy by which C(nut-shutdown) on a primary waits for its secondaries before the primary powers off, and checks it
    with the same code as the host.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: primary, devices, port
options:
  _input:
    description: The secondaries of the primary, as returned by P(homelab.nut.clients#filter).
    type: list
    elements: dict
    required: true
  primary:
    description: The name of the primary.
    type: str
    required: true
  devices:
    description: Its UPSes, as in the variable C(nut_server_devices).
    type: list
    elements: dict
    required: true
  port:
    description: The port of the primary's C(upsd).
    type: int
    required: true
  minsupplies:
    description: How many of its power supplies must be fed, if C(nut_server_upsmon_conf) sets C(MINSUPPLIES).
    type: int
  runtime_low:
    description: With how many seconds of battery runtime left C(nut-stages) begins the shutdown. By default it does not.
    type: float
  settle:
    description: For how many seconds a machine must not respond until it counts as down.
    type: float
    required: true
  reserve:
    description: How many seconds of battery runtime the primary needs for its own shutdown.
    type: float
    required: true
  reserve_minimum:
    description:
      - How many seconds of battery runtime the primary keeps while no machine exceeds its C(shutdown_time).
      - Defaults to O(reserve).
    type: float
  flag:
    description: The path of C(upsmon)'s POWERDOWNFLAG, which C(nut-shutdown) restores if it is lost while waiting.
    type: str
  stages:
    description: What to do before the battery is low, as in the variable C(nut_server_stages).
    type: list
    elements: dict
  timeout:
    description: After how many seconds the primary stops waiting. The default is 30 seconds more than the longest C(shutdown_limit).
    type: float
  cluster:
    description:
      - What is done about HA's watchdog in a Proxmox VE cluster, as in C(nut_server_gate.cluster).
      - With V(together) the primary does not wait for O(cluster_nodes) before it goes down. With V(disarm) C(nut-shutdown) disarms HA.
    type: str
  cluster_nodes:
    description: The names of the secondaries that are other nodes of the primary's cluster.
    type: list
    elements: str
  after:
    description: What is done after an outage, as in the variable C(nut_server_return).
    type: dict
"""

EXAMPLES = r"""
- name: Show which machines this primary waits for
  ansible.builtin.debug:
    msg: >-
      {{ groups | homelab.nut.clients(hostvars)
         | homelab.nut.shutdown_policy('pve', [{'name': 'ups'}], 3493, settle=3, reserve=60) | to_nice_json }}
"""

RETURN = r"""
_value:
  description: The policy, for C(/etc/nut/shutdown.json).
  type: dict
"""


def shutdown_policy(
    clients: Sequence[Mapping[str, Any]],
    primary: str,
    devices: Sequence[Mapping[str, Any]],
    port: Any,
    *,
    minsupplies: Any = None,
    runtime_low: Any = None,
    settle: Any,
    reserve: Any,
    reserve_minimum: Any = None,
    timeout: Any = None,
    flag: str = "",
    stages: Sequence[Mapping[str, Any]] = (),
    cluster: str = "",
    cluster_nodes: Sequence[str] = (),
    after: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the policy. Raises AnsibleFilterError if the host would reject it."""
    from ..module_utils._nut import inventory
    from ..module_utils._nut.proxmox.cluster import TOGETHER
    from ..module_utils._nut.shutdown import policy as shutdown_policy
    from ..module_utils._nut.shutdown.compose import compose_policy

    gate = "nut_server_gate (settle, reserve, reserve_minimum, timeout, cluster), POWERDOWNFLAG or a secondary can't be used: "
    invalid = (shutdown_policy.ShutdownPolicyError, TypeError, ValueError, OverflowError)
    with raise_as_filter_error(inventory.InventoryError):
        feeds = inventory.find_feeds(primary, devices, minsupplies)
    with raise_as_filter_error(*invalid, prefix=gate):
        policy = compose_policy(
            clients,
            feeds,
            int(port),
            settle=float(settle),
            reserve=float(reserve),
            reserve_minimum=None if reserve_minimum in (None, "") else float(reserve_minimum),
            timeout=None if timeout in (None, "") else float(timeout),
            flag=flag or "",
            runtime_low=None if runtime_low in (None, "") else float(runtime_low),
            stages=stages,
            cluster=cluster or "",
            unawaited=cluster_nodes if cluster == TOGETHER else (),
            after=shutdown_policy.check_return(after or {}),
        )
        data = shutdown_policy.to_data(policy)
        shutdown_policy.check_policy(data)
    with raise_as_filter_error(shutdown_policy.ShutdownPolicyError, prefix="nut_server_stages can't be used: "):
        shutdown_policy.read_stages(policy.stages)
    return data


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"shutdown_policy": shutdown_policy}
