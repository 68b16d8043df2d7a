# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut import inventory
from ansible_collections.homelab.nut.plugins.module_utils._nut.inventory import InventoryError
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import model

ROOT = Path(__file__).resolve().parents[5]
GROUPS = {"pve": ["pve"], "truenas": ["nas"], "ups_clients": ["media"], "all": ["pve", "nas", "media", "other"]}
HOSTS: dict[str, dict[str, Any]] = {
    "pve": {"ansible_host": "192.0.2.10"},
    "nas": {"ansible_host": "192.0.2.20"},
    "media": {},
    "other": {},
}
TWO_PRIMARIES = {**GROUPS, "pve": ["pve", "pve2"]}


def hosts(**variables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return HOSTS with additional variables."""
    return {name: {**HOSTS.get(name, {}), **variables.get(name, {})} for name in {**HOSTS, **variables}}


@pytest.mark.parametrize("kind", inventory.KINDS.values(), ids=lambda kind: kind.group)
def test_role_and_playbooks_know_each_kind_of_secondary(kind: inventory.Kind) -> None:
    for name in (kind.group, f"doctor_{kind.group}"):
        assert (ROOT / f"roles/nut_client/tasks/{name}.yml").exists() == kind.is_managed
    for path in (ROOT / "playbooks").rglob("*.yml"):
        text = path.read_text()
        # what a play takes without nut_groups: all kinds that Ansible logs in to
        fallbacks = re.findall(r"groups.__nut_hosts [|] default[(](\[[^]]*\])", text)
        assert len(fallbacks) == text.count("groups.__nut_hosts"), path
        assert all(f"'{kind.group}'" in groups for groups in fallbacks) == (kind.is_managed or not fallbacks), path
    assert kind.name in model.KINDS[model.SECONDARY]
    assert f"{kind.shutdown_time} for " in (ROOT / "roles/nut_client/meta/argument_specs.yml").read_text()


def test_defaults_of_a_secondary() -> None:
    primary = {"primary": "pve", "primary_address": "192.0.2.10", "primary_port": 3493, "ups": "ups"}
    assert inventory.list_secondaries(GROUPS, HOSTS) == [
        {
            **{"name": "nas", "kind": "truenas", **primary, "user": "nas", "begin_time": 10, "shutdown_time": 60},
            **{"shutdown_limit": 90, "address": HOSTS["nas"].get("ansible_host", "nas"), "guest": None, "wake": None},
            "present": True,
            "managed": True,
        },
        {
            **{
                "name": "media",
                "kind": "ups_clients",
                **primary,
                "user": "media",
                "begin_time": 10,
                "shutdown_time": 30,
            },
            **{
                "shutdown_limit": 60,
                "address": HOSTS["media"].get("ansible_host", "media"),
                "guest": None,
                "wake": None,
            },
            "present": True,
            "managed": True,
        },
    ]


def test_all_variables_of_a_secondary() -> None:
    found = inventory.list_secondaries(
        TWO_PRIMARIES,
        hosts(
            pve2={
                "nut_server_address": "ups.example.org",
                "nut_server_port": 1234,
                "nut_server_devices": [{"name": "left", "powervalue": 1}, {"name": "right", "powervalue": 0}],
            },
            nas={
                "nut_client_primary": "pve2",
                "nut_client_ups": "right",
                "nut_client_user": "truenas-1",
                "nut_client_shutdown_time": 120,
                "nut_client_shutdown_limit": 125,
                "nut_client_address": "10.0.0.7",
                "nut_client_guest": {"kind": "qm", "id": "100"},
            },
            media={"nut_client_primary": "pve", "nut_client_shutdown_time": "0"},
        ),
    )
    assert found[0] == {
        "name": "nas",
        "kind": "truenas",
        "primary": "pve2",
        "primary_address": "ups.example.org",
        "primary_port": 1234,
        "ups": "right",
        "user": "truenas-1",
        "begin_time": 10,
        "shutdown_time": 120,
        "shutdown_limit": 125,
        "address": "10.0.0.7",
        "guest": {"kind": "qm", "id": 100},
        "wake": None,
        "present": True,
        "managed": True,
    }
    assert (found[1]["primary"], found[1]["shutdown_time"]) == ("pve", 0)


def test_secondary_is_on_the_ups_of_its_primary_if_nothing_says_otherwise() -> None:
    devices = [{"name": "router", "powervalue": 0}, {"name": "rack", "powervalue": 2}]
    found = inventory.list_secondaries(GROUPS, hosts(pve={"nut_server_devices": devices}))
    assert {secondary["ups"] for secondary in found} == {"rack"}


@pytest.mark.parametrize(
    ("own", "shutdown_limit"), [(20, 50), (60, 90), (61, 91), (100, 150), (0, 30)], ids=lambda value: f"{value} s"
)
def test_shutdown_limit_defaults_from_shutdown_time(own: int, shutdown_limit: int) -> None:
    (entry,) = inventory.list_secondaries(
        {"pve": ["pve"], "truenas": ["nas"]}, hosts(nas={"nut_client_shutdown_time": own})
    )
    assert entry["shutdown_limit"] == shutdown_limit


def test_limit_below_shutdown_time_is_refused() -> None:
    with pytest.raises(
        InventoryError, match=r"nas: nut_client_shutdown_limit \(59\) is less than nut_client_shutdown_time \(60\)"
    ):
        inventory.list_secondaries(GROUPS, hosts(nas={"nut_client_shutdown_limit": 59}))


@pytest.mark.parametrize("guest", ["qm 100", {"kind": "lxc", "id": 1}, {"kind": "qm"}, {"kind": "qm", "id": -1}, [1]])
def test_invalid_guest_is_refused(guest: Any) -> None:
    with pytest.raises(InventoryError, match="nas: nut_client_guest must look like"):
        inventory.list_secondaries(GROUPS, hosts(nas={"nut_client_guest": guest}))


@pytest.mark.parametrize(
    ("given", "wake"),
    [
        ({"mac": "52:54:00:AB:cd:ef"}, {"mac": "52:54:00:AB:cd:ef", "command": []}),
        ({"command": ["/bin/wake", "nas"]}, {"mac": "", "command": ["/bin/wake", "nas"]}),
        ({}, None),
        (None, None),
    ],
)
def test_how_a_secondary_is_woken(given: Any, wake: Any) -> None:
    assert inventory.list_secondaries(GROUPS, hosts(nas={"nut_client_wake": given}))[0]["wake"] == wake


@pytest.mark.parametrize(
    "wake",
    ["52:54:00:12:34:56", {"mac": "525400123456"}, {"mac": 5}, {"command": "/bin/wake"}, {"command": [7]}, {"ip": "x"}],
)
def test_invalid_wake_is_refused(wake: Any) -> None:
    with pytest.raises(InventoryError, match="nas: nut_client_wake must look like"):
        inventory.list_secondaries(GROUPS, hosts(nas={"nut_client_wake": wake}))


@pytest.mark.parametrize(
    ("own", "address"),
    [
        ({"ansible_host": "192.0.2.20"}, "192.0.2.20"),
        ({"ansible_host": "192.0.2.20", "nut_client_address": "10.0.0.7"}, "10.0.0.7"),
        ({"ansible_host": "127.0.0.1"}, "nas"),
        ({}, "nas"),
    ],
)
def test_address_at_which_the_primary_pings(own: dict[str, Any], address: str) -> None:
    (entry,) = inventory.list_secondaries({"pve": ["pve"], "truenas": ["nas"]}, {"pve": {}, "nas": own})
    assert entry["address"] == address


def test_inventory_without_secondaries() -> None:
    assert inventory.list_secondaries({"pve": ["pve"]}, HOSTS) == []
    assert inventory.list_secondaries({}, {}) == []


@pytest.mark.parametrize(
    ("its", "address"),
    [
        ({}, "pve"),
        ({"ansible_host": "192.0.2.10"}, "192.0.2.10"),
        ({"ansible_host": "127.0.0.1", "nut_server_address": "192.0.2.11"}, "192.0.2.11"),
        ({"ansible_host": "2001:db8::1"}, "[2001:db8::1]"),
        ({"nut_server_address": "[2001:db8::1]"}, "[2001:db8::1]"),
        ({"nut_server_address": ""}, "pve"),
    ],
)
def test_address_of_a_primary(its: dict[str, Any], address: str) -> None:
    assert inventory.find_primary_address("pve", its) == address


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.1.1", "::1"])
def test_loopback_address_of_a_primary_is_refused(host: str) -> None:
    with pytest.raises(
        InventoryError, match=f"pve: secondaries can't reach this host at {host}: set nut_server_address"
    ):
        inventory.list_secondaries(GROUPS, hosts(pve={"ansible_host": host}))


@pytest.mark.parametrize(
    ("name", "user"), [("nas", "nas"), ("nas.example.org", "nas.example.org"), ("the nas", "the_nas"), ("nä#s", "n__s")]
)
def test_default_user_is_the_host_name_without_special_characters(name: str, user: str) -> None:
    (entry,) = inventory.list_secondaries({"pve": ["pve"], "truenas": [name]}, hosts(**{name: {}}))
    assert entry["user"] == user


def test_two_primaries_may_have_equal_users() -> None:
    named = {"nut_client_user": "upsmon"}
    found = inventory.list_secondaries(
        TWO_PRIMARIES,
        hosts(
            pve2={},
            nas={**named, "nut_client_primary": "pve"},
            media={**named, "nut_client_primary": "pve2"},
        ),
    )
    assert [entry["user"] for entry in found] == ["upsmon", "upsmon"]


MISTAKES: dict[str, tuple[dict[str, list[str]], dict[str, dict[str, Any]], str]] = {
    "no primary": (
        {**GROUPS, "pve": []},
        HOSTS,
        "nas is a secondary without a primary: group pve has no host; add the host with the UPS to it",
    ),
    "no group pve": (
        {"truenas": ["nas"]},
        HOSTS,
        "nas is a secondary without a primary: groups pve and ups_servers have no host; add the host with the UPS to one of them",
    ),
    "which of two": (
        TWO_PRIMARIES,
        hosts(pve2={}),
        "nas is a secondary without a primary: group pve has pve, pve2; set nut_client_primary to one of them",
    ),
    "unknown primary": (
        GROUPS,
        hosts(media={"nut_client_primary": "nobody"}),
        "media is a secondary without a primary: nut_client_primary is nobody, but group pve has pve",
    ),
    "a primary that is none": (
        GROUPS,
        hosts(nas={"nut_client_primary": "other"}),
        "nut_client_primary is other, but group pve has pve",
    ),
    "both": (
        {**GROUPS, "truenas": ["nas", "pve"]},
        HOSTS,
        "pve is in the groups pve and truenas: remove it from one of them",
    ),
    "both kinds": (
        {**GROUPS, "ups_clients": ["media", "nas"]},
        HOSTS,
        "nas is in the groups truenas and ups_clients: remove it from one of them",
    ),
    "unknown UPS": (
        GROUPS,
        hosts(
            nas={"nut_client_ups": "usp"},
            pve={"nut_server_devices": [{"name": "left", "powervalue": 1}, {"name": "right", "powervalue": 0}]},
        ),
        "nas: nut_client_ups is usp, but pve has left, right",
    ),
    "no word on which UPS powers the primary": (
        GROUPS,
        hosts(pve={"nut_server_devices": [{"name": "left"}, {"name": "right"}]}),
        "pve has 2 UPSes (left, right), and nut_server_devices does not say whether left or right powers pve",
    ),
    "no word on which UPS powers a secondary": (
        GROUPS,
        hosts(
            pve={
                "nut_server_devices": [{"name": "left", "powervalue": 1}, {"name": "right", "powervalue": 1}],
                "nut_server_upsmon_conf": {"MINSUPPLIES": 1},
            }
        ),
        "nas: nut_client_ups is not set, and pve itself is powered by left and right: set it to the UPS that powers nas",
    ),
    "unknown UPS of a default": (GROUPS, hosts(nas={"nut_client_ups": "usp"}), "nas: nut_client_ups is usp, but pve has ups"),
    "one user": (
        GROUPS,
        hosts(media={"nut_client_user": "nas"}),
        "nas and media have the same user nas: set another nut_client_user for one of them",
    ),
    "the primary's user": (
        GROUPS,
        hosts(media={"nut_client_user": "monitor"}),
        "media: pve itself logs in as monitor: set another nut_client_user or nut_server_upsmon_user",
    ),
    "the primary's own user": (GROUPS, hosts(pve={"nut_server_upsmon_user": "nas"}), "nas: pve itself logs in as nas"),
    "a user that NUT can't carry": (
        GROUPS,
        hosts(nas={"nut_client_user": "the nas"}),
        "nas: nut_client_user 'the nas' is not a valid user name: it contains a space",
    ),
    "a user of the primary that NUT can't carry": (
        {"pve": ["pve"]},
        hosts(pve={"nut_server_upsmon_user": "a#b"}),
        "pve: nut_server_upsmon_user 'a#b' is not a valid user name: it contains a '#'",
    ),
    "seconds by word": (
        GROUPS,
        hosts(nas={"nut_client_shutdown_time": "2m"}),
        "nas: nut_client_shutdown_time must be a number of seconds, not '2m'",
    ),
    "seconds below 0": (GROUPS, hosts(nas={"nut_client_shutdown_time": -1}), "must be a number of seconds, not -1"),
    "seconds as a boolean": (GROUPS, hosts(nas={"nut_client_shutdown_time": True}), "a number of seconds, not True"),
    "no seconds": (GROUPS, hosts(nas={"nut_client_shutdown_time": ""}), "must be a number of seconds, not ''"),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "hostvars", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_inconsistent_inventory_is_refused(
    groups: dict[str, list[str]], hostvars: dict[str, dict[str, Any]], said: str
) -> None:
    with pytest.raises(InventoryError) as caught:
        inventory.list_secondaries(groups, hostvars)
    assert said in str(caught.value)


def test_primary_user_can_be_changed() -> None:
    found = inventory.list_secondaries(
        GROUPS, hosts(pve={"nut_server_upsmon_user": "root"}, media={"nut_client_user": "monitor"})
    )
    assert found[1]["user"] == "monitor"


def test_begin_time_is_longest_poll_plus_finaldelay() -> None:
    slow = {"nut_client_upsmon_conf": {"POLLFREQ": 7, "POLLFREQALERT": "20", "FINALDELAY": 90}}
    # TrueNAS can't be told any of it
    found = inventory.list_secondaries(GROUPS, hosts(media=slow, nas=slow))
    assert {entry["name"]: entry["begin_time"] for entry in found} == {"nas": 10, "media": 110}


@pytest.mark.parametrize(
    ("its", "words"),
    [
        ({"nut_server_port": "abc"}, "pve: nut_server_port must be a number from 1 to 65535, not 'abc'"),
        ({"nut_server_port": 70000}, "nut_server_port must be a number"),
        ({"nut_server_devices": ["ups"]}, "pve: nut_server_devices must be a list of UPSes"),
        ({"nut_server_devices": {"name": "ups"}}, "pve: nut_server_devices must be a list of UPSes"),
    ],
)
def test_invalid_variable_of_a_primary_is_refused(its: dict[str, object], words: str) -> None:
    with pytest.raises(InventoryError, match=words):
        inventory.list_secondaries(GROUPS, hosts(pve=its))


def test_plan_ignores_values_that_are_not_numbers() -> None:
    device = {"name": "ups", "driver": "usbhid-ups", "options": {"offdelay": "soon", "ondelay": "60"}}
    (supply,) = inventory.plan_site("pve", [], [device])["supplies"]
    assert supply == {"name": "ups", "driver": "usbhid-ups", "ondelay": "60"}


# Who may connect, and where upsd listens


def test_secondaries_and_allowed_sources_may_connect() -> None:
    found = inventory.upsd_access(GROUPS, HOSTS, "pve", ["192.0.2.0/24", "ha.lan"])
    assert found == {
        "limited": True,
        "sources": [
            {"name": "nas", "address": "192.0.2.20"},
            {"name": "media", "address": "media"},
            {"name": "192.0.2.0/24", "address": "192.0.2.0/24"},
            {"name": "ha.lan", "address": "ha.lan"},
        ],
        "listen": [{"address": "127.0.0.1"}, {"address": "192.0.2.10"}],
    }


@pytest.mark.parametrize(
    ("variables", "present"),
    [
        ({}, {"nas": True, "media": True}),
        ({"nas": {"nut_client_state": "absent"}}, {"nas": False, "media": True}),
        ({"pve": {"nut_server_state": "absent"}}, {"nas": False, "media": False}),
        (
            {"pve": {"nut_server_state": "absent"}, "nas": {"nut_client_state": "present"}},
            {"nas": True, "media": False},
        ),
    ],
)
def test_host_that_nut_is_taken_away_from_is_no_secondary(variables: dict[str, Any], present: dict[str, bool]) -> None:
    given = hosts(**variables)
    found = inventory.list_secondaries(GROUPS, given)
    assert {client["name"]: client["present"] for client in found} == present
    allowed = {source["name"] for source in inventory.upsd_access(GROUPS, given, "pve")["sources"]}
    assert allowed == {name for name, is_present in present.items() if is_present}


def test_any_limits_no_source_and_adds_none() -> None:
    found = inventory.upsd_access(GROUPS, HOSTS, "pve", "any")
    assert found["limited"] is False
    assert [entry["name"] for entry in found["sources"]] == ["nas", "media"]


def test_host_that_only_monitors_may_connect() -> None:
    """A host that is not a secondary of this primary, but must reach upsd."""
    watching = {
        "pve2": {"ansible_host": "192.0.2.11", "nut_server_extra_monitors": [{"system": "ups@pve:3493"}]},
        "media": {"nut_client_primary": "pve", "nut_client_extra_monitors": [{"system": "ups@192.0.2.11"}]},
        "nas": {"nut_client_primary": "pve"},
    }
    for primary, names in (("pve", ["nas", "media", "pve2"]), ("pve2", ["media"])):
        found = inventory.upsd_access(TWO_PRIMARIES, hosts(**watching), primary)
        assert [entry["name"] for entry in found["sources"]] == names


@pytest.mark.parametrize(
    ("its", "listen"),
    [
        ({"ansible_host": "192.0.2.10"}, ["127.0.0.1", "192.0.2.10"]),
        ({"ansible_host": "10.0.0.1", "nut_server_address": "192.0.2.10"}, ["127.0.0.1", "192.0.2.10"]),
        ({"ansible_host": "192.0.2.10", "nut_server_address": "pve.lan"}, ["0.0.0.0"]),
        ({"nut_server_address": "[2001:db8::1]"}, ["127.0.0.1", "2001:db8::1"]),
        ({"nut_server_address": "2001:db8::1"}, ["127.0.0.1", "2001:db8::1"]),
        ({"ansible_host": "pve.lan"}, ["0.0.0.0"]),
        ({"ansible_host": "127.0.0.1", "nut_server_address": "pve"}, ["0.0.0.0"]),
        ({"ansible_host": "fe80::1%eth0"}, ["::", "0.0.0.0"]),
        ({}, ["0.0.0.0"]),
    ],
)
def test_default_listen_addresses(its: dict[str, str], listen: list[str]) -> None:
    known = {"pve": its, "nas": {"ansible_host": "192.0.2.20"}}
    found = inventory.upsd_access({"pve": ["pve"], "truenas": ["nas"]}, known, "pve")
    assert [entry["address"] for entry in found["listen"]] == listen


def test_upsd_listens_on_loopback_only_without_sources() -> None:
    alone = {"pve": ["pve"]}
    assert inventory.upsd_access(alone, HOSTS, "pve")["listen"] == [{"address": "127.0.0.1"}]
    for allow in ("any", ["192.0.2.7"]):
        assert inventory.upsd_access(alone, HOSTS, "pve", allow)["listen"] == [
            {"address": "127.0.0.1"},
            {"address": "192.0.2.10"},
        ]


@pytest.mark.parametrize("allow", [["192.0.2.5/24"], ["nas; reboot"], ["192.0.2.300"], [""], 5])
def test_invalid_allow_entry_is_refused(allow: Any) -> None:
    with pytest.raises(InventoryError, match="pve: in nut_server_allow, or in the address of a secondary"):
        inventory.upsd_access(GROUPS, HOSTS, "pve", allow)


def test_invalid_secondary_address_is_refused() -> None:
    with pytest.raises(InventoryError, match=r"192\.0\.2\.300"):
        inventory.upsd_access(GROUPS, hosts(nas={"nut_client_address": "192.0.2.300"}), "pve")


OTHER = {"system": "rack@192.0.2.99", "powervalue": 1, "username": "u", "password": "p"}


@pytest.mark.parametrize(
    ("host", "variables", "question"),
    [
        (
            "pve",
            {"nut_server_extra_monitors": [OTHER]},
            "pve has 2 UPSes (ups, rack@192.0.2.99), and nut_server_devices does not say whether ups powers pve",
        ),
        (
            "pve",
            {"nut_server_devices": [{"name": "ups", "powervalue": 1}], "nut_server_extra_monitors": [OTHER]},
            "pve is powered by ups and rack@192.0.2.99, and nothing says whether it stays up on one of them: set MINSUPPLIES in "
            "nut_server_upsmon_conf to 1 if it does, or to 2 if it needs them all",
        ),
        (
            "media",
            {"nut_client_extra_monitors": [OTHER]},
            "media is powered by ups and rack@192.0.2.99, and nothing says whether it stays up on one of them: set MINSUPPLIES in "
            "nut_client_upsmon_conf to 1 if it does, or to 2 if it needs them all",
        ),
        (
            "media",
            {"nut_client_powervalue": 0, "nut_client_extra_monitors": [OTHER]},
            "media: nut_client_powervalue is 0, so it would not go down with ups, and pve would wait for it in vain",
        ),
        (
            "pve",
            {"nut_server_devices": [{"name": "ups", "powervalue": 0}]},
            "pve: the powervalue of ups is 0, so no UPS powers it, and it would never shut down",
        ),
        (
            "pve",
            {"nut_server_devices": [{"name": "a", "powervalue": 0}, {"name": "b", "powervalue": "0"}]},
            "pve: the powervalue of a and b is 0, so no UPS powers it",
        ),
        (
            "pve",
            {"nut_server_devices": [{"name": "ups", "powervalue": 1.5}]},
            "pve: powervalue and MINSUPPLIES must be whole numbers",
        ),
        (
            "pve",
            {"nut_server_devices": [{"name": "ups", "powervalue": True}]},
            "pve: powervalue and MINSUPPLIES must be whole numbers",
        ),
        ("media", {"nut_client_powervalue": "two"}, "media: powervalue and MINSUPPLIES must be whole numbers"),
        ("media", {"nut_client_powervalue": -1}, "media: powervalue and MINSUPPLIES must not be negative"),
        (
            "pve",
            {"nut_server_devices": [{"name": "ups", "powervalue": -1}]},
            "pve: powervalue and MINSUPPLIES must not be negative",
        ),
    ],
)
def test_host_with_a_ups_of_another_host_must_say_when_it_goes_down(
    host: str, variables: dict[str, Any], question: str
) -> None:
    with pytest.raises(InventoryError) as caught:
        inventory.list_secondaries(GROUPS, hosts(**{host: variables}))
    assert question in str(caught.value)


@pytest.mark.parametrize(
    ("host", "variables"),
    [
        ("pve", {"nut_server_extra_monitors": [{**OTHER, "powervalue": 0}]}),
        ("pve", {"nut_server_extra_monitors": [{key: OTHER[key] for key in OTHER if key != "powervalue"}]}),
        (
            "pve",
            {
                "nut_server_devices": [{"name": "ups", "powervalue": 1}],
                "nut_server_extra_monitors": [OTHER],
                "nut_server_upsmon_conf": {"MINSUPPLIES": 2},
            },
        ),
        ("media", {"nut_client_extra_monitors": [OTHER], "nut_client_upsmon_conf": {"MINSUPPLIES": 1}}),
        ("media", {"nut_client_powervalue": 2}),
        # TrueNAS has no such settings
        ("nas", {"nut_client_powervalue": 0}),
    ],
)
def test_host_that_says_when_it_goes_down_is_not_asked(host: str, variables: dict[str, Any]) -> None:
    assert len(inventory.list_secondaries(GROUPS, hosts(**{host: variables}))) == 2


def test_question_of_one_primary_stops_no_other() -> None:
    groups = {**TWO_PRIMARIES, "truenas": ["nas"], "ups_clients": []}
    variables = hosts(
        nas={"nut_client_primary": "pve"}, pve2={"nut_server_devices": [{"name": "left"}, {"name": "right"}]}
    )
    assert [secondary["name"] for secondary in inventory.list_secondaries(groups, variables)] == ["nas"]


def test_consistent_inventory_has_no_problems() -> None:
    assert inventory.find_problems(GROUPS, hosts()) == []
    for host, role in (("pve", "nut_server"), ("nas", "nut_client"), ("media", "nut_client"), ("other", "nut_hotplug")):
        assert inventory.find_problems(GROUPS, hosts(), host, role) == []


@pytest.mark.parametrize(
    ("role", "problem"),
    [
        (
            "nut_client",
            "other gets the role nut_client, but is not in one of the groups truenas or ups_clients, by which the roles find secondaries: "
            "put it there, or name its group for all hosts, such as nut_groups: {ups_clients: [ups_clients, YOUR_GROUP]} in "
            "group_vars/all.yml",
        ),
        (
            "nut_server",
            "other gets the role nut_server, but is not in the group pve, by which the roles find primaries: put it there, or name its "
            "group for all hosts, such as nut_groups: {pve: [pve, YOUR_GROUP]} in group_vars/all.yml",
        ),
    ],
)
def test_host_outside_the_groups_is_told_which_it_needs(role: str, problem: str) -> None:
    assert inventory.find_problems(GROUPS, hosts(), "other", role) == [problem]


def test_contradiction_is_a_problem() -> None:
    problem = "nas is a secondary without a primary: group pve has pve, pve2; set nut_client_primary to one of them"
    assert inventory.find_problems(TWO_PRIMARIES, hosts(pve2={})) == [problem]


BOTH = {"nut_client_address": ["192.0.2.20", "[2001:db8::20]"]}


def test_machine_is_known_by_each_of_its_addresses() -> None:
    (nas,) = [client for client in inventory.list_secondaries(GROUPS, hosts(nas=BOTH)) if client["name"] == "nas"]
    assert nas["address"] == "192.0.2.20,2001:db8::20"
    sources = inventory.upsd_access(GROUPS, hosts(nas=BOTH), "pve")["sources"]
    assert [source["address"] for source in sources if source["name"] == "nas"] == ["192.0.2.20", "2001:db8::20"]
    site = inventory.plan_site("pve", [nas], [{"name": "ups"}])
    assert site["machines"][1]["address"] == ["192.0.2.20", "2001:db8::20", "nas"]


def test_secondary_may_reach_its_primary_at_another_address() -> None:
    variables = hosts(media={"nut_client_primary_address": "2001:db8::10"})
    reached = {client["name"]: client["primary_address"] for client in inventory.list_secondaries(GROUPS, variables)}
    assert reached == {"nas": "192.0.2.10", "media": "[2001:db8::10]"}
    listen = inventory.upsd_access(GROUPS, variables, "pve")["listen"]
    assert [entry["address"] for entry in listen] == ["127.0.0.1", "192.0.2.10", "2001:db8::10"]
    variables["pve"]["ansible_host"] = "pve.lan"
    listen = inventory.upsd_access(GROUPS, variables, "pve")["listen"]
    assert [entry["address"] for entry in listen] == ["::", "0.0.0.0"]


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1"])
def test_secondary_cannot_reach_its_primary_at_loopback(address: str) -> None:
    with pytest.raises(
        InventoryError, match=r"media: nut_client_primary_address .* is the host itself: set it to an address of pve"
    ):
        inventory.list_secondaries(GROUPS, hosts(media={"nut_client_primary_address": address}))


@pytest.mark.parametrize(
    ("power", "minsupplies", "elsewhere"),
    [(1, 1, ["left@attic"]), (1, 2, []), (0, None, []), (2, 2, ["left@attic"])],
)
def test_upses_elsewhere_count_if_they_alone_keep_a_primary_up(
    power: int, minsupplies: int | None, elsewhere: list[str]
) -> None:
    monitors = [{"system": "left@attic", "powervalue": power, "username": "u", "password": "p"}]
    devices = [{"name": "ups", "powervalue": 1}]
    assert inventory.list_upses_elsewhere("pve", devices, monitors, minsupplies) == elsewhere
    assert inventory.list_upses_elsewhere("pve", devices, []) == []
