# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter.hosts_of import FilterModule
from ansible_collections.homelab.nut.plugins.filter.inventory_remarks import FilterModule as Remarks

hosts_of = FilterModule().filters()["hosts_of"]
inventory_remarks = Remarks().filters()["inventory_remarks"]

GROUPS = {"all": ["cellar", "vault", "syno"], "hypervisors": ["cellar"], "truenas": ["vault"], "unmanaged": ["syno"]}


def hosts(choice: Any) -> dict[str, dict[str, Any]]:
    return {name: {"nut_groups": choice} for name in GROUPS["all"]}


def test_hosts_are_found_by_the_groups_that_the_inventory_has() -> None:
    variables = hosts({"pve": "hypervisors"})
    assert hosts_of(GROUPS, variables, "pve") == ["cellar"]
    assert hosts_of(GROUPS, variables, "unmanaged") == ["syno"]
    assert hosts_of(GROUPS, variables) == ["cellar", "vault"]
    assert inventory_remarks(GROUPS, variables) == []


@pytest.mark.parametrize("apply", [hosts_of, inventory_remarks])
def test_wrong_nut_groups_is_an_error_of_the_filter(apply: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="nut_groups has no key nas"):
        apply(GROUPS, hosts({"nas": "truenas"}))
