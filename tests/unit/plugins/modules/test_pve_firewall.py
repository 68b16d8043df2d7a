# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.modules import pve_firewall

ON = "[OPTIONS]\n\nenable: 1\n\n"
MINE = "[OPTIONS]\n\nnftables: 1\n\n[RULES]\n\n# \xe4\nIN SSH(ACCEPT)\n\n"
RULE = "IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493 # homelab.nut: a client of upsd"
KEPT = MINE.replace("# \xe4", f"{RULE}\n# \xe4")


class Site:
    """A directory in the place of /etc/pve."""

    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capfd = capfd
        self.cluster = root / "firewall/cluster.fw"
        self.host = root / "local/host.fw"
        self.cluster.parent.mkdir()
        self.host.parent.mkdir()
        self.cluster.write_text(ON)

    def run(self, **options: Any) -> dict[str, Any]:
        with patch_module_args({"path": str(self.root), **options}), pytest.raises(SystemExit):
            pve_firewall.main()
        result: dict[str, Any] = json.loads(self.capfd.readouterr().out)
        return result


@pytest.fixture
def site(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    known = {"nas": ["192.0.2.5"], "192.0.2.5": ["192.0.2.5"]}

    def resolve(name: str, seconds: float) -> list[str]:
        if name not in known:
            raise OSError("no such name")
        return known[name]

    monkeypatch.setattr(pve_firewall, "resolve_name", resolve)
    return Site(tmp_path, capfd)


def test_hint_mode_changes_nothing(site: Site) -> None:
    site.host.write_text(MINE)
    result = site.run(sources=["nas"])
    assert result["changed"] is False
    assert "diff" not in result
    assert result["msg"] == result["hint"][0]
    assert "no known rule lets these clients in to port 3493: nas (192.0.2.5)." in result["msg"]
    assert str(site.host) in result["hint"][1]
    assert result["hint"][2:] == ["IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493"]
    assert site.host.read_text() == MINE


def test_unresolved_name_is_part_of_the_hint(site: Site) -> None:
    site.host.write_text(KEPT)
    result = site.run(sources=["nas", "away"])
    assert "failed" not in result
    (line,) = result["hint"]
    assert line.startswith("away does not resolve on this host (no such name)")
    assert result["msg"] == line


def test_no_hint_while_firewall_is_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pve_firewall, "resolve_name")  # nobody is asked
    site.cluster.unlink()
    result = site.run(sources=["nas", "away"])
    assert (result["changed"], result["hint"]) == (False, [])
    assert "off (cluster.fw" in result["msg"]


def test_no_hint_if_clients_are_let_in(site: Site) -> None:
    site.host.write_text(KEPT)
    result = site.run(sources=["nas"])
    assert (result["changed"], result["hint"]) == (False, [])
    assert "lets all clients in to port 3493" in result["msg"]
    assert site.run(sources=["nas"], port=1234)["hint"]


def test_rules_are_added_and_removed(site: Site) -> None:
    site.host.write_text(MINE)
    would = site.run(mode="rules", sources=["nas"], _ansible_check_mode=True)
    assert site.host.read_text() == MINE
    did = site.run(mode="rules", sources=["nas"])
    assert site.host.read_text() == KEPT
    for result in (would, did):
        assert result["changed"] is True
        assert result["hint"] == []
        assert result["msg"] == f"rules of this module in {site.host}: 1; all clients are let in"
        assert result["diff"] == {
            "before": MINE, "after": KEPT, "before_header": str(site.host), "after_header": str(site.host),
        }  # fmt: skip
    again = site.run(mode="rules", sources=["192.0.2.5"])
    assert again["changed"] is False
    assert "diff" not in again

    would = site.run(mode="absent", _ansible_check_mode=True)
    assert (would["changed"], site.host.read_text()) == (True, KEPT)
    did = site.run(mode="absent")
    assert (did["changed"], site.host.read_text()) == (True, MINE)
    assert did["msg"].endswith("host.fw: 0")
    assert site.run(mode="absent")["changed"] is False


def test_rules_are_added_while_firewall_is_off(site: Site) -> None:
    site.cluster.write_text("")
    result = site.run(mode="rules", sources=["nas"])
    assert site.host.read_text() == f"[RULES]\n\n{RULE}\n"
    assert result["msg"].endswith("1; the firewall is off (cluster.fw does not have enable: 1)")


def test_bytes_outside_utf_8_are_kept(site: Site) -> None:
    site.host.write_bytes(b"[RULES]\n# \xff\r\n")
    assert site.run(mode="rules", sources=["nas"])["changed"] is True
    assert site.host.read_bytes() == f"[RULES]\n{RULE}\n# ".encode() + b"\xff\r\n"


def test_clients_that_rules_do_not_let_in_are_reported(site: Site) -> None:
    site.cluster.write_text(ON + "[IPSET blacklist]\n\n192.0.2.0/24\n")
    for check_mode in (True, False, False):
        result = site.run(mode="rules", sources=["nas"], _ansible_check_mode=check_mode)
        (line,) = result["hint"]
        assert "IP set blacklist" in line
        assert "nas (192.0.2.5)" in line
        assert result["msg"] == f"rules of this module in {site.host}: 1; {line}"
    assert site.run(mode="absent")["hint"] == []


def test_rules_that_proxmox_can_not_load_are_reported(site: Site) -> None:
    site.host.write_text(f"[RULES]\nIN ACCEPT -p tcp -dport {','.join(map(str, range(1, 16)))},ssh\n")
    (line,) = site.run(mode="rules", sources=["nas"])["hint"]
    assert "can't load its rules" in line
    assert "15 ports at most" in line


def test_rules_for_unresolved_name_fail(site: Site) -> None:
    result = site.run(mode="rules", sources=["nas", "away"])
    assert result["failed"] is True
    assert "away does not resolve on this host (no such name)" in result["msg"]
    assert not site.host.exists()


def test_rules_for_invalid_port_fail(site: Site) -> None:
    result = site.run(mode="rules", sources=["nas"], port=0)
    assert (result["failed"], result["msg"]) == (True, "port must be a number from 1 to 65535, not 0")
    assert not site.host.exists()


def test_refused_write_fails(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", replace)
    result = site.run(mode="rules", sources=["nas"])
    assert result["failed"] is True
    assert "Permission denied" in result["msg"]
    assert "quorum" in result["msg"]


@pytest.mark.parametrize("mode", ["hint", "absent"])
def test_host_without_proxmox_ve_has_no_hint(site: Site, mode: str) -> None:
    site.host.parent.rmdir()
    result = site.run(mode=mode, sources=["nas"])
    assert (result["changed"], result["hint"]) == (False, [])
    assert "this host does not run Proxmox VE" in result["msg"]


def test_rules_fail_on_a_host_without_proxmox_ve(site: Site) -> None:
    site.host.parent.rmdir()
    result = site.run(mode="rules", sources=["nas"])
    assert result["failed"] is True
    assert "this host does not run Proxmox VE" in result["msg"]
