# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut import inventory
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.feeds import Feeds
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import StagePlan
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.compose import compose_policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import (
    MEMBERS,
    GuestId,
    Stage,
    WakeUp,
    check_policy,
    to_data,
)
from ansible_collections.homelab.nut.plugins.modules import shutdown_plan

ROLE = Path(__file__).resolve().parents[6] / "roles/nut_server"


def test_policy_is_composed_from_secondaries() -> None:
    found = inventory.list_secondaries(
        {"pve": ["pve"], "truenas": ["the nas"], "ups_clients": ["media"]},
        {
            "pve": {},
            "the nas": {"nut_client_address": "[fd00::7]", "nut_client_shutdown_time": 100},
            "media": {
                "nut_client_guest": {"kind": "pct", "id": 101},
                "nut_client_wake": {"mac": "52:54:00:12:34:56", "command": ["/bin/wake"]},
            },
        },
    )
    policy = compose_policy(found, Feeds({"ups": 1, "ups2": 0}, 1), 3493, settle=3, reserve=60)
    checked = check_policy(to_data(policy))
    assert checked == policy
    assert [
        (machine.name, machine.addresses, machine.shutdown_time, machine.shutdown_limit) for machine in checked.machines
    ] == [
        ("the_nas", ("fd00::7",), 100, 150),
        ("media", ("media",), 30, 60),
    ]
    assert checked.machines[1].guest == GuestId("pct", 101)
    assert [machine.wake for machine in checked.machines] == [None, WakeUp("52:54:00:12:34:56", ("/bin/wake",))]
    assert [str(ups) for ups in checked.upses] == ["ups@localhost:3493", "ups2@localhost:3493"]
    assert [ups.power for ups in checked.upses] == [1, 0]
    assert checked.feeds == Feeds({"ups": 1, "ups2": 0}, 1)
    assert (checked.settle, checked.reserve, checked.timeout, checked.stages) == (3, 60, 180, ())
    assert compose_policy([], Feeds({"ups": 1}), 3493, settle=3, reserve=60).timeout == 30
    assert compose_policy(found, Feeds({"ups": 1}), 3493, settle=3, reserve=60, timeout=99).timeout == 99


def test_machine_that_is_not_awaited_counts_neither_as_a_machine_nor_in_the_timeout() -> None:
    found = inventory.list_secondaries(
        {"pve": ["pve"], "truenas": ["nas"], "ups_clients": ["node2"]},
        {"pve": {}, "nas": {}, "node2": {"ansible_host": "192.0.2.12", "nut_client_shutdown_limit": 500}},
    )
    stage = {"name": "early", "on_battery": 60, "storage_of": ["node2"]}
    policy = compose_policy(
        found, Feeds({"ups": 1}), 3493, settle=3, reserve=60, stages=[stage], unawaited=["node2"], cluster="together"
    )
    assert [machine.name for machine in policy.machines] == ["nas"]
    # it must come back all the same
    assert [machine.name for machine in check_policy(to_data(policy)).unawaited] == ["node2"]
    assert policy.timeout == 120
    # its storage is still that of a known machine
    assert policy.stages[0]["storage_of"] == ["192.0.2.12", "node2"]
    assert check_policy(to_data(policy)).cluster == "together"


def test_gate_watches_each_address_of_a_machine() -> None:
    groups = {"pve": ["pve"], "truenas": ["nas"]}
    hostvars = {"pve": {}, "nas": {"nut_client_address": ["192.0.2.20", "[2001:db8::20]"]}}
    found = inventory.list_secondaries(groups, hostvars)
    stage = {"name": "a", "on_battery": 60, "storage_of": ["nas"]}
    policy = compose_policy(found, Feeds({"ups": 1}), 3493, settle=3, reserve=60, stages=[stage])
    assert [machine.addresses for machine in policy.machines] == [("192.0.2.20", "2001:db8::20")]
    assert policy.stages[0]["storage_of"] == ["192.0.2.20", "2001:db8::20", "nas"]


def test_stage_gets_addresses_of_secondaries() -> None:
    groups = {"pve": ["pve"], "truenas": ["nas"]}
    hostvars = {"pve": {}, "nas": {"ansible_host": "[2001:db8::20]"}}
    found = inventory.list_secondaries(groups, hostvars)
    stage = {
        "name": "a",
        "on_battery": 60,
        "charge": None,
        "tags": [],
        "storage_of": ["nas", "192.0.2.9"],
        "message": "",
    }
    policy = compose_policy(found, Feeds({"ups": 1}), 3493, settle=3, reserve=60, stages=[stage])
    assert policy.stages == ({"name": "a", "on_battery": 60, "storage_of": ["2001:db8::20", "nas", "192.0.2.9"]},)
    with pytest.raises(
        inventory.InventoryError,
        match="stage a: storage_of names other, which is neither an address nor a secondary of this",
    ):
        compose_policy(
            found, Feeds({"ups": 1}), 3493, settle=3, reserve=60, stages=[{**stage, "storage_of": ["other"]}]
        )


class Lazy(list[Any]):
    """A list as Ansible's templates return it: its type can't be instantiated."""

    def __init__(self, *made_of: Any) -> None:
        assert not made_of, "Direct construction of lazy containers is not supported"
        super().__init__()


def test_policy_is_plain_data_for_any_mapping_type_of_stages() -> None:
    tags = Lazy()
    tags.append("nas")
    made = compose_policy(
        [], Feeds({"ups": 1}), 3493, settle=3, reserve=60, stages=[{"name": "a", "charge": 50, "tags": tags}]
    )
    data = to_data(made)
    assert type(data["stages"][0]["tags"]) is type(data["upses"]) is list
    assert json.loads(json.dumps(data)) == data


def test_stage_has_same_members_everywhere() -> None:
    """A stage is declared in the role, the policy, the module and the plan. All must have the same members."""
    specs = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    chooses, tells = {"guests", "tags", "storage_of", "seconds"}, {"notify", "message"}
    assert set(specs["nut_server_stages"]["options"]) == set(MEMBERS)
    assert {field.name for field in fields(Stage)} == {*MEMBERS, "select", "low"} - chooses | {"guests"}
    assert set(shutdown_plan.build_spec()["stages"]["options"]) == {*MEMBERS} - tells
    assert {field.name for field in fields(StagePlan)} == {*MEMBERS} - tells - {"tags", "storage_of"}
