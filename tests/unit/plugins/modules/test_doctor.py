# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import observe
from ansible_collections.homelab.nut.plugins.modules import doctor


def run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[dict[str, Any], list[observe.HostObserver]]:
    """Run the module on a host that shows nothing."""
    hosts: list[observe.HostObserver] = []

    def look(self: observe.HostObserver) -> observe.HostObservation:
        hosts.append(self)
        return observe.HostObservation(now=1.0, release=(2, 8, 1), installed=("upsmon", "upsd"))

    monkeypatch.setattr(observe.HostObserver, "observe_host", look)
    with patch_module_args(options), pytest.raises(SystemExit):
        doctor.main()
    result: dict[str, Any] = json.loads(capfd.readouterr().out)
    return result, hosts


def test_primary_returns_findings_and_facts(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    client = {"name": "nas", "address": "192.0.2.20", "ups": "ups"}
    result, hosts = run(
        capfd,
        monkeypatch,
        name="pve",
        role="primary",
        files={"upsd.conf": "x"},
        clients=[client],
        kits={"nut-shutdown": {}},
        hours=2,
        firewall=False,
        ca="CA",
    )
    assert result["changed"] is False
    assert ("files", "pve", "failure") in {
        (finding["check"], finding["host"], finding["verdict"]) for finding in result["findings"]
    }
    assert set(result["findings"][0]) == {"check", "host", "verdict", "seen", "todo", "about", "because"}
    assert result["seen"]["now"] == 1.0
    assert "failure" in result["msg"]
    (host,) = hosts
    assert (host.primary, host.clients, host.since, host.check_firewall, host.ca) == (
        True,
        {"nas": "192.0.2.20"},
        7200.0,
        False,
        "CA",
    )
    assert [kit.name for kit in host.kits] == ["nut-shutdown"]


def test_secondary_is_checked_without_upsd(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _result, hosts = run(capfd, monkeypatch, role="secondary", _ansible_check_mode=True)
    assert not hosts[0].primary


def test_unknown_program_fails(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    result, hosts = run(capfd, monkeypatch, role="primary", kits={"nut-other": {}})
    assert result["failed"]
    assert "unknown program nut-other. Known: nut-shutdown, nut-hotplug" in result["msg"]
    assert hosts == []


def test_result_contains_no_passwords(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    result, _hosts = run(capfd, monkeypatch, role="primary", files={"upsd.users": "[monitor]\npassword = hunter2\n"})
    assert "hunter2" not in json.dumps(result)
