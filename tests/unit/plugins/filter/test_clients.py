# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter.clients import FilterModule

clients = FilterModule().filters()["clients"]

GROUPS = {"pve": ["pve"], "truenas": ["nas"]}


def test_secondaries_have_all_keys_of_the_templates() -> None:
    (secondary,) = clients(GROUPS, {"pve": {"ansible_host": "192.0.2.10"}, "nas": {}})
    # the roles' templates read these keys
    assert secondary == {
        "name": "nas",
        "kind": "truenas",
        "primary": "pve",
        "primary_address": "192.0.2.10",
        "primary_port": 3493,
        "ups": "ups",
        "user": "nas",
        "begin_time": 10,
        "shutdown_time": 60,
        "shutdown_limit": 90,
        "address": "nas",
        "guest": None,
        "wake": None,
        "present": True,
        "managed": True,
    }


def test_inconsistent_inventory_is_an_error() -> None:
    with pytest.raises(AnsibleFilterError, match="nas is a secondary without a primary"):
        clients({"truenas": ["nas"]}, {"nas": {}})
