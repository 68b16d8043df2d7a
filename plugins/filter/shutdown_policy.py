# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.shutdown_policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: shutdown_policy
short_description: For whom a primary waits before it powers off
version_added: 0.2.0
description:
  - Composes what C(nut-shutdown) on a primary goes by, from its secondaries, and checks it as the host does.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: upses, port
options:
  _input:
    description: The secondaries of the primary, as the filter P(homelab.nut.clients#filter) lists them.
    type: list
    elements: dict
    required: true
  upses:
    description: The names of the UPSes that the primary watches.
    type: list
    elements: str
    required: true
  port:
    description: The port of its C(upsd).
    type: int
    required: true
  settle:
    description: How many seconds a machine must be silent to count as down.
    type: float
    required: true
  reserve:
    description: How many seconds of battery the primary itself needs to go down.
    type: float
    required: true
  least:
    description: How many seconds of battery it keeps in any case. So many count while no machine takes longer than its C(shutdown_time).
    type: float
  flag:
    description: The POWERDOWNFLAG of C(upsmon), which it gives back should it be lost meanwhile.
    type: str
  stages:
    description: What is done before the battery is low, as in the variable C(nut_server_stages).
    type: list
    elements: dict
  longest:
    description: After how many seconds it waits no longer, whatever it sees. By default half a minute after the longest C(shutdown_limit).
    type: float
"""

EXAMPLES = r"""
- name: Show for whom this primary waits
  ansible.builtin.debug:
    msg: "{{ groups | homelab.nut.clients(hostvars) | homelab.nut.shutdown_policy(['ups'], 3493, settle=3, reserve=60) | to_nice_json }}"
"""

RETURN = r"""
_value:
  description: The policy, for C(/etc/nut/shutdown.json).
  type: dict
"""


def shutdown_policy(
    clients: Sequence[Mapping[str, Any]],
    upses: Sequence[str],
    port: Any,
    *,
    settle: Any,
    reserve: Any,
    least: Any = None,
    longest: Any = None,
    flag: str = "",
    stages: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Compose and check the policy."""
    from ..module_utils._nut.inventory import InventoryError
    from ..module_utils._nut.shutdown import policy as shutdown_policy
    from ..module_utils._nut.shutdown.compose import compose_policy

    try:
        policy = compose_policy(
            clients,
            upses,
            int(port),
            settle=float(settle),
            reserve=float(reserve),
            least=None if least in (None, "") else float(least),
            longest=None if longest in (None, "") else float(longest),
            flag=flag or "",
            stages=stages,
        )
        data = shutdown_policy.to_data(policy)
        shutdown_policy.check_policy(data)
    except InventoryError as error:
        raise AnsibleFilterError(str(error)) from None
    except (shutdown_policy.ShutdownPolicyError, TypeError, ValueError, OverflowError) as error:
        raise AnsibleFilterError(
            "nut_server_gate (settle, reserve, reserve_minimum, timeout), POWERDOWNFLAG "
            f"or a secondary can't be used: {error}"
        ) from None
    try:
        shutdown_policy.read_stages(policy.stages)
    except shutdown_policy.ShutdownPolicyError as error:
        raise AnsibleFilterError(f"nut_server_stages can't be used: {error}") from None
    return data


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"shutdown_policy": shutdown_policy}
