# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a primary that is no Proxmox VE host, such as a Raspberry Pi, do not mention Proxmox VE. Rendered by a real play."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.homelab.nut.tests.unit.support.plays import make_role, run_roles

pytestmark = pytest.mark.slow

PROXMOX = re.compile("proxmox|pve", re.IGNORECASE)
TASKS = """\
- ansible.builtin.set_fact:
    seen: "{{ __nut_server_files | combine(__nut_server_shutdown_files, __nut_server_access_files, __nut_server_notify_files) }}"
"""
SETTINGS: dict[str, Any] = {
    "nut_server_address": "192.0.2.1",
    "nut_server_hardening": True,
    "nut_server_return": {"charge": 30},
    "nut_server_notify": [{"url": "https://ntfy.example/ups"}],
}
HOSTS: dict[str, Any] = {
    "pi": {**SETTINGS, "__nut_server_plan": {"proxmox": False}},
    "node": {**SETTINGS, "__nut_server_plan": {"proxmox": True}},
    "unknown": SETTINGS,
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Return the files of each host."""
    root = tmp_path_factory.mktemp("site")
    make_role(root, "nut_server", TASKS)
    return run_roles(root, {"ups_servers": "nut_server"}, {"ups_servers": {"hosts": HOSTS}})


def test_no_file_of_a_plain_host_mentions_proxmox(rendered: dict[str, dict[str, str]]) -> None:
    texts = rendered["pi"]
    assert "[Service]" in texts["nut-monitor.conf"]
    assert "[Service]" in texts["nut-stages.service"]
    assert [
        f"{name}: {line}" for name, text in texts.items() for line in text.splitlines() if PROXMOX.search(line)
    ] == []
    assert texts["pve-guests.conf"] == ""


@pytest.mark.parametrize("host", ["node", "unknown"])
def test_units_of_a_node_are_ordered_with_its_guests(rendered: dict[str, dict[str, str]], host: str) -> None:
    """Also if nobody knows what the host is: an order with a unit that does not exist is harmless."""
    texts = rendered[host]
    assert "[Unit]\nBefore=pve-guests.service\n" in texts["nut-monitor.conf"]
    assert "ExecStartPre=-/usr/local/sbin/nut-shutdown hold" in texts["pve-guests.conf"]


def test_settings_of_units_do_not_depend_on_the_kind_of_host(rendered: dict[str, dict[str, str]]) -> None:
    def list_settings(text: str) -> list[str]:
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    for name, text in rendered["pi"].items():
        if name.endswith((".service", ".conf")) and name not in ("nut-monitor.conf", "pve-guests.conf"):
            assert list_settings(text) == list_settings(rendered["node"][name]), name
