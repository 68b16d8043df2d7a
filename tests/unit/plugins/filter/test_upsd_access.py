# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter import upsd_access, upsd_listening

list_access = upsd_access.FilterModule().filters()["upsd_access"]
list_listening = upsd_listening.FilterModule().filters()["upsd_listening"]

GROUPS = {"pve": ["pve"], "truenas": ["nas"]}
HOSTS = {"pve": {"ansible_host": "192.0.2.10"}, "nas": {"ansible_host": "192.0.2.20"}}


def test_secondaries_and_allowed_hosts_may_connect() -> None:
    access = list_access(GROUPS, HOSTS, "pve", ["ha.lan"])
    assert [source["address"] for source in access["sources"]] == ["192.0.2.20", "ha.lan"]


def test_network_with_host_bits_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match=r"nut_server_allow, or .*write 192\.0\.2\.0/24 for the network"):
        list_access(GROUPS, HOSTS, "pve", ["192.0.2.7/24"])


def test_listen_lines_are_read() -> None:
    """Even on an address from nut_server_extra_lines."""
    text = 'LISTEN 127.0.0.1 3493\nLISTEN "192.0.2.10" 3493\nMAXAGE 15\n# LISTEN :: 7\nLISTEN 0.0.0.0 4000\n'
    assert list_listening(text) == {
        "ports": [3493, 4000],
        "local": [3493, 4000],
        "own": ["192.0.2.10"],
        "reachable": True,
    }
    assert list_listening("LISTEN 127.0.0.1 1\nLISTEN ::1 1\n") == {
        "ports": [1],
        "local": [1],
        "own": [],
        "reachable": False,
    }
    assert list_listening("MAXAGE 15\n") == {"ports": [3493], "local": [], "own": [], "reachable": False}
