# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.filter import clients, shutdown_site

secondaries = clients.FilterModule().filters()["clients"]
site = shutdown_site.FilterModule().filters()["shutdown_site"]

SECONDARIES = secondaries(
    {"pve": ["pve"], "truenas": ["nas"], "ups_clients": ["media"]},
    {"pve": {}, "nas": {"nut_client_guest": {"kind": "qm", "id": 100}}, "media": {"nut_client_shutdown_time": 10}},
)


def test_machines_are_primary_and_secondaries() -> None:
    begin = {"ups": "ups", "role": "secondary", "begin_time": 10}
    assert site(SECONDARIES, "pve", [])["machines"] == [
        {"name": "pve", "role": "primary", "kind": "pve"},
        {
            "name": "nas",
            "kind": "truenas",
            "shutdown_time": 60,
            "shutdown_limit": 90,
            "guest_id": 100,
            "address": ["nas"],
            **begin,
        },
        {"name": "media", "kind": "linux", "shutdown_time": 10, "shutdown_limit": 40, "address": ["media"], **begin},
    ]


def test_machine_is_known_by_address_and_name() -> None:
    """A storage may know the machine by either."""
    hosts = {"pve": {}, "nas": {"ansible_host": "192.0.2.20"}, "media": {"nut_client_address": "[2001:db8::1]"}}
    machines = site(secondaries({"pve": ["pve"], "truenas": ["nas"], "ups_clients": ["media"]}, hosts), "pve", [])[
        "machines"
    ]
    assert [machine.get("address") for machine in machines] == [None, ["192.0.2.20", "nas"], ["2001:db8::1", "media"]]


def test_supplies_have_the_settings_of_their_drivers() -> None:
    devices = [
        {"name": "ups", "driver": "auto"},
        {
            "name": "rack",
            "vendorid": "0764",
            "offdelay": 60,
            "ignorelb": True,
            "default": {"battery.charge.low": 20, "battery.runtime.low": 100},
            "override": {"battery.runtime.low": 480},
            "options": {"ondelay": 120},
        },
        # without ignorelb NUT shows this, and does nothing with it
        {"name": "old", "powervalue": 0, "options": {"override.battery.charge.low": 30, "pollfreq": ""}},
    ]
    assert site(SECONDARIES, "pve", devices)["supplies"] == [
        {"name": "ups", "driver": "auto"},
        {
            "name": "rack",
            "vendorid": "0764",
            "offdelay": 60,
            "ondelay": 120,
            "ignorelb": True,
            "runtime_low": 480,
            "charge_low": 20,
        },
        {"name": "old", "powervalue": 0},
    ]


def test_stages_have_only_keys_of_the_plan() -> None:
    stage = {
        "name": "a",
        "charge": "",
        "runtime": 900,
        "tags": ["nas"],
        "guests": [],
        "notify": ["/bin/x"],
        "message": "m",
        "fsd": False,
    }
    assert site(SECONDARIES, "pve", [{"name": "ups"}], [stage])["stages"] == [
        {"name": "a", "runtime": 900, "tags": ["nas"], "fsd": False}
    ]
    assert site(SECONDARIES, "pve", [{"name": "ups"}])["stages"] == []


def test_cyberpower_keeps_its_ondelay_of_minus_1() -> None:
    devices = [{"name": "ups", "ondelay": -1}, {"name": "other", "offdelay": -1}]
    assert site([], "pve", devices)["supplies"] == [{"name": "ups", "ondelay": -1}, {"name": "other"}]
