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


def test_policy_has_default_timeout_unless_one_is_set() -> None:
    made = policy(NAS, ["ups"], "3493", settle="3", reserve=60)
    assert (made["settle"], made["reserve"], made["longest"]) == (3, 60, 120)
    assert [machine["name"] for machine in made["machines"]] == ["nas"]
    # an unset variable of the role is an empty string
    assert policy(NAS, ["ups"], 3493, settle=3, reserve=60, timeout="") == made
    assert policy(NAS, ["ups"], 3493, settle=3, reserve=60, timeout="200")["longest"] == 200


@pytest.mark.parametrize(
    "wrong",
    [{"settle": 0}, {"settle": "soon"}, {"reserve": -1}, {"timeout": 0}, {"reserve": None}, {"reserve": 10**400}],
)
def test_invalid_gate_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AnsibleFilterError, match="nut_server_gate"):
        policy(NAS, ["ups"], 3493, **{"settle": 3, "reserve": 60, **wrong})
