# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.filter import clients, shutdown_site

secondaries = clients.FilterModule().filters()["clients"]
site = shutdown_site.FilterModule().filters()["shutdown_site"]

FOUND = secondaries(
    {"pve": ["pve"], "truenas": ["nas"], "ups_clients": ["media"]},
    {"pve": {}, "nas": {"nut_client_guest": {"kind": "qm", "id": 100}}, "media": {"nut_client_shutdown_time": 10}},
)


def test_machines_of_site() -> None:
    begin = {"role": "secondary", "begin_time": 10}
    assert site(FOUND, "pve", [])["machines"] == [
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


def test_machine_addresses_include_name() -> None:
    """By its address, and by its name: a storage may have either."""
    hosts = {"pve": {}, "nas": {"ansible_host": "192.0.2.20"}, "media": {"nut_client_address": "[2001:db8::1]"}}
    found = site(secondaries({"pve": ["pve"], "truenas": ["nas"], "ups_clients": ["media"]}, hosts), "pve", [])[
        "machines"
    ]
    assert [machine.get("address") for machine in found] == [None, ["192.0.2.20", "nas"], ["2001:db8::1", "media"]]


def test_driver_overrides_win_over_ups_values() -> None:
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
        {"name": "old", "options": {"override.battery.charge.low": 30, "pollfreq": ""}},
    ]
    assert site(FOUND, "pve", devices)["supplies"] == [
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
        {"name": "old", "charge_low": 30},
    ]


def test_stages_drop_notify_and_message() -> None:
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
    assert site(FOUND, "pve", [{"name": "ups"}], [stage])["stages"] == [
        {"name": "a", "runtime": 900, "tags": ["nas"], "fsd": False}
    ]
    assert site(FOUND, "pve", [{"name": "ups"}])["stages"] == []
