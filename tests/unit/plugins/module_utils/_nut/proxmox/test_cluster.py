# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import cluster
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import GuestsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# as pve-cluster writes it (PVE/Corosync.pm)
COROSYNC = """logging {
  debug: off
  to_syslog: yes
}

nodelist {
  node {
    name: pve1
    nodeid: 1
    quorum_votes: 1
    ring0_addr: 192.0.2.1
  }
  # node { name: gone }
  node {
    name: pve2
    nodeid: 2
    quorum_votes: 1
    ring0_addr: 192.0.2.2
    ring1_addr: 2001:db8::2
  }
  node {
    nodeid: 3
    ring0_addr: pve3.lan
  }
}

quorum {
  provider: corosync_votequorum
  device {
    net {
      host: 192.0.2.9
    }
  }
}

totem {
  cluster_name: home
  interface {
    linknumber: 0
  }
}
"""


def dpkg(release: str, status: str = "install ok installed") -> str:
    return (
        f"Package: pve-ha-manager-dbg\nStatus: install ok installed\nVersion: 9.9.9\n\n"
        f"Package: pve-ha-manager\nStatus: {status}\nPriority: optional\nVersion: {release}\n"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/pve/nodes/pve1").mkdir(parents=True)
    (tmp_path / "etc/pve/local").symlink_to("nodes/pve1")
    (tmp_path / "etc/pve/ha").mkdir()
    (tmp_path / "etc/pve/corosync.conf").write_text(COROSYNC)
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(dpkg("5.2.0"))
    return tmp_path


def test_nodes_of_corosync_conf_are_read() -> None:
    assert cluster.parse_nodes(COROSYNC) == (
        cluster.Node("pve1", ("192.0.2.1",)),
        cluster.Node("pve2", ("192.0.2.2", "2001:db8::2")),
        cluster.Node("pve3.lan", ("pve3.lan",)),
    )


@pytest.mark.parametrize(
    "text", ["", "nodelist {\n}\n", "node {\n name: pve2\n}\n", "}\n}\nnodelist", "totem {\n name: a\n}"]
)
def test_text_without_nodes_has_none(text: str) -> None:
    assert cluster.parse_nodes(text) == ()


def test_cluster_has_the_other_nodes(root: Path) -> None:
    found = cluster.read_cluster(root)
    assert [node.name for node in found.nodes] == ["pve2", "pve3.lan"]
    assert (found.is_ha_active, found.ha_release, found.can_disarm) == (False, "5.2.0", True)


def test_single_host_has_no_cluster(root: Path) -> None:
    (root / "etc/pve/corosync.conf").unlink()
    assert cluster.read_cluster(root) == cluster.Cluster()


def test_unreadable_own_name_is_an_error(root: Path) -> None:
    (root / "etc/pve/local").unlink()
    with pytest.raises(GuestsError, match="etc/pve/local"):
        cluster.read_cluster(root)


@pytest.mark.parametrize(
    ("text", "active"),
    [
        ('{"mode":"active","state":"active","timestamp":1}', True),
        ('{"mode":"active","state":"lost_agent_lock"}', True),
        ('{"mode":"active","state":"wait_for_agent_lock"}', False),
        ("[]", False),
        ("{", False),
        ("", False),
    ],
)
def test_active_ha_is_seen(root: Path, text: str, active: bool) -> None:
    (root / "etc/pve/nodes/pve1/lrm_status").write_text(text)
    assert cluster.read_cluster(root).is_ha_active is active


@pytest.mark.parametrize(
    ("release", "can"),
    [("5.1.3", True), ("5.2.0", True), ("6.0~1", True), ("5.1.2", False), ("4.0.6", False), ("", False), ("x", False)],
)
def test_only_late_releases_of_ha_can_be_disarmed(release: str, can: bool) -> None:
    assert cluster.Cluster(ha_release=release).can_disarm is can


@pytest.mark.parametrize("text", [dpkg("5.2.0", "deinstall ok config-files"), "", "Package: other\n"])
def test_release_of_missing_ha_is_unknown(root: Path, text: str) -> None:
    (root / "var/lib/dpkg/status").write_text(text)
    assert cluster.read_cluster(root).ha_release == ""


class Ha:
    """ha-manager."""

    def __init__(self, root: Path) -> None:
        self.code, self.told = 0, list[list[str]]()
        self.lines: list[str] = []
        self.switch = cluster.HaSwitch(self.run, root / "lib/ha-disarmed", self.lines.append, root)

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        assert command[3] == "ha-manager"
        self.told.append(list(command[4:]))
        return self.code, "" if not self.code else "cfs-lock 'domain-ha' error: no quorum!\n"


def test_ha_is_disarmed_and_armed_again(root: Path) -> None:
    ha = Ha(root)
    assert ha.switch.arm()
    assert ha.told == []
    assert ha.switch.disarm()
    assert ha.switch.is_ours
    assert ha.switch.arm()
    assert not ha.switch.is_ours
    assert ha.told == [["crm-command", "disarm-ha", "ignore"], ["crm-command", "arm-ha"]]
    assert ha.lines == ["HA is being disarmed", "HA is being armed again"]


def test_ha_without_quorum_is_armed_later(root: Path) -> None:
    ha = Ha(root)
    ha.switch.disarm()
    ha.code = 2
    assert not ha.switch.arm()
    assert ha.switch.is_ours
    assert ha.lines[-1] == "HA can't be armed again: cfs-lock 'domain-ha' error: no quorum!"
    # as after a boot
    ha.code = 0
    assert cluster.HaSwitch(ha.run, ha.switch.marker, ha.lines.append, root).arm()


def test_ha_that_someone_else_has_disarmed_is_left_alone(root: Path) -> None:
    (root / "etc/pve/ha/manager_status").write_text('{"disarm": {"mode": "freeze", "state": "disarmed"}}')
    ha = Ha(root)
    assert ha.switch.disarm()
    assert ha.switch.arm()
    assert ha.told == []


def test_refused_disarming_is_told(root: Path) -> None:
    ha = Ha(root)
    ha.code = 255
    assert not ha.switch.disarm()
    assert ha.lines == ["HA can't be disarmed: cfs-lock 'domain-ha' error: no quorum!"]


# as pmxcfs writes it (pve-cluster, status.c)
MEMBERS = """{
"nodename": "pve1",
"version": 4,
"cluster": { "name": "lab", "version": 2, "nodes": 3, "quorate": 0 },
"nodelist": {
  "pve1": { "id": 1, "online": 1, "ip": "192.0.2.1"},
  "pve2": { "id": 2, "online": 0},
  "pve3": { "id": 3, "online": 0, "ip": "192.0.2.3"}
  }
}
"""


def test_quorum_is_read_from_members(tmp_path: Path) -> None:
    (tmp_path / "etc/pve").mkdir(parents=True)
    members = tmp_path / "etc/pve/.members"
    assert cluster.read_quorum(tmp_path) is None
    members.write_text(MEMBERS)
    assert cluster.read_quorum(tmp_path) == cluster.Quorum(is_there=False, online=1, offline=("pve2", "pve3"))
    members.write_text(MEMBERS.replace('"quorate": 0', '"quorate": 1').replace('"id": 2, "online": 0', '"online": 1'))
    assert cluster.read_quorum(tmp_path) == cluster.Quorum(is_there=True, online=2, offline=("pve3",))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nodename": "pve1", "version": 0}', '{"cluster": 1, "nodelist": 2}'])
def test_host_without_cluster_has_no_quorum(tmp_path: Path, text: str) -> None:
    (tmp_path / "etc/pve").mkdir(parents=True)
    (tmp_path / "etc/pve/.members").write_text(text)
    assert cluster.read_quorum(tmp_path) is None
