# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter import shutdown_times
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, find_unfit, values
from hypothesis import given

times = shutdown_times.FilterModule().filters()["shutdown_times"]
OFFER = {"name": "nas", "own": False, "now": 60, "measured": 43.2}


def test_offers_become_lines_for_the_inventory() -> None:
    assert times([OFFER, {"name": "node1", "own": True, "now": 30, "measured": 12}], "pve", ["nas"]) == [
        "host_vars/nas.yml: nut_client_shutdown_time: 52  # measured 43.2 s plus 20 %, rounded up",
        "host_vars/pve.yml, or its group's file in group_vars: nut_server_shutdown_time: 15  # measured 12.0 s plus 20 %, rounded up",
    ]
    assert times([], "pve", []) == []


@pytest.mark.parametrize(
    "offers",
    [
        None,
        7,
        "host_vars/nas.yml: x",
        [7],
        [{**OFFER, "line": "ansible_connection: local"}],
        [{**OFFER, "name": "../../group_vars/all"}],
        [{**OFFER, "name": "nas.yml: x\nansible_connection: local"}],
        [{**OFFER, "measured": "5\nnut_client_shutdowncmd: evil"}],
        [{**OFFER, "measured": 10**400}],
        [{**OFFER, "measured": 86401}],
        [{**OFFER, "measured": -1}],
        *([{**OFFER, "name": nasty}] for nasty in NASTY),
    ],
)
def test_only_times_are_taken_from_the_host(offers: Any) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        times(offers, "pve", ["nas"])
    assert not find_unfit(str(caught.value))


@given(values, values)
def test_every_line_is_yaml_with_a_time(name: Any, measured: Any) -> None:
    try:
        lines = times([{**OFFER, "name": name, "measured": measured}, OFFER], "pve", ["nas"])
    except AnsibleFilterError:
        return
    for line in lines:
        ((variable, value),) = yaml.safe_load(line.partition(": ")[2]).items()
        assert variable == "nut_client_shutdown_time"
        assert isinstance(value, int)
        assert not isinstance(value, bool)
