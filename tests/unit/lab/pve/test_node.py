# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import guests
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.cluster import Quorum, read_quorum
from pve import node, stand_in
from pve.node import PveNode
from pve.settings import GuestProperties


@pytest.mark.parametrize(
    ("text", "guest"),
    [
        ("101=qm", (101, GuestProperties(name="guest101"))),
        ("201=pct,storage=nas,seconds=2.5", (201, GuestProperties("pct", 2.5, name="guest201", storage="nas"))),
        (
            "102=qm,seconds=never,order=3,up=9,down=20,tags=a;b,onboot=0,ha=1",
            (
                102,
                GuestProperties(
                    *("qm", None),
                    **{"ha": True, "name": "guest102", "onboot": False, "order": 3, "up": 9, "down": 20, "tags": "a;b"},
                ),
            ),
        ),
    ],
)
def test_guest_is_parsed_from_text(text: str, guest: tuple[int, GuestProperties]) -> None:
    assert node.parse_guest(text) == guest


@pytest.mark.parametrize("text", ["", "101", "101=lxc", "x=qm", "101=qm,sekonds=3", "101=qm,seconds=soon"])
def test_parse_guest_refuses_nonsense(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected ID=qm|could not convert"):
        node.parse_guest(text)


MADE = dict(
    node.parse_guest(text)
    for text in (
        "101=qm,storage=nas,seconds=6,order=2,down=90,tags=nas;web",
        "102=qm,ha=1",
        "201=pct,storage=nas,seconds=never",
    )
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def pve(root: Path) -> PveNode:
    made = PveNode(root, "pve8")
    made.set_up("truenas", MADE, "8.4.21")
    return made


def run(pve: PveNode, line: str) -> None:
    """Run a command of lab-pve."""
    args = node.make_parser().parse_args(line.split())
    args.run(pve, args)


def test_library_reads_guests_and_storages_of_the_stand_in(root: Path, pve: PveNode) -> None:
    found = guests.load_guests(root)
    assert [(guest.id, guest.kind, guest.name, guest.onboot) for guest in found] == [
        (101, "qm", "guest101", True),
        (102, "qm", "guest102", True),
        (201, "pct", "guest201", True),
    ]
    assert [(guest.order, guest.down, guest.tags) for guest in found] == [
        (2, 90, ("nas", "web")),
        (None, None, ()),
        (None, None, ()),
    ]
    known = guests.parse_storages((root / "etc/pve/storage.cfg").read_text())
    assert known["nas"].servers == ("truenas",)
    assert known["local"].servers == ()
    there = guests.find_storage_users(found, known, ["truenas"], (), lambda name: (name,))
    assert sorted(guest.id for guest in there) == [101, 201]
    assert guests.read_ha(root).managed == {102}
    assert pve.open_guests().list_guests() == MADE


def test_programs_and_units_are_where_proxmox_has_them(root: Path, pve: PveNode) -> None:
    for path in (
        "usr/sbin/qm",
        "usr/sbin/pct",
        "usr/bin/vzdump",
        "usr/bin/pvesh",
        "usr/bin/pvenode",
        "usr/bin/pveversion",
    ):
        assert (root / path).stat().st_mode & 0o111
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(root / "etc/systemd/system/pve-guests.service")
    # the programs that the unit starts exist
    for path in (
        "usr/share/pve-manager/helpers/pve-startall-delay",
        *(unit["Service"]["ExecStart"].split()[0].lstrip("/"),),
        *(unit["Service"]["ExecStop"].split()[0].lstrip("/"),),
    ):
        assert (root / path).stat().st_mode & 0o111
    assert unit["Unit"]["RefuseManualStop"] == unit["Unit"]["RefuseManualStart"] == "true"


def test_remove_files_leaves_no_file(root: Path) -> None:
    before = sorted(root.rglob("*"))
    pve = PveNode(root, "pve8")
    pve.set_up("truenas", MADE, "8.4.21")
    pve.remove_files()
    assert [path for path in sorted(root.rglob("*")) if path not in before and not path.is_dir()] == []
    assert guests.load_guests(root) == []
    pve.remove_files()


def test_set_up_replaces_earlier_guests(root: Path, pve: PveNode) -> None:
    pve.set_up("truenas", {101: MADE[101]}, "8.4.21")
    assert [guest.id for guest in guests.load_guests(root)] == [101]


def test_commands_need_a_setup(root: Path) -> None:
    with pytest.raises(SystemExit, match="lab-pve setup"):
        run(PveNode(root, "pve8"), "quorum off")


def test_each_switch_of_a_guest_changes_it(root: Path, pve: PveNode) -> None:
    for line, name, value in [
        ("lock 101 migrate", "lock", "migrate"),
        ("backup 101 on", "backup", True),
        ("status 101 io-error", "state", "io-error"),
        ("monitor 101 off", "monitor", False),
        ("stubborn 101 on", "stubborn", True),
        ("seconds 101 never", "shutdown", None),
        ("up 101 40", "up", 40),
        ("ha 101 on", "ha", True),
        ("failing-starts 101 2", "starts", 2),
    ]:
        run(pve, line)
        assert getattr(pve.open_guests().read_guest(101), name) == value, line
    config = (root / "etc/pve/local/qemu-server/101.conf").read_text()
    assert "\nlock: backup\n" in config
    assert "startup: order=2,up=40,down=90\n" in config
    assert guests.read_ha(root).managed == {101, 102}
    with pytest.raises(SystemExit, match="no guest 999"):
        run(pve, "lock 999 backup")
    with pytest.raises(SystemExit):
        run(pve, "status 101 sleepy")


def test_each_switch_of_the_host_changes_it(root: Path, pve: PveNode) -> None:
    for line, name, value in [
        ("quorum off", "quorum", "off"),
        ("pmxcfs off", "pmxcfs", False),
        ("perl 0.1", "perl", 0.1),
        ("noise on", "noise", True),
        ("cpus 16", "cpus", 16),
        ("workers 3", "max_workers", 3),
        ("onboot-delay 40", "onboot_delay", 40),
        ("watchdog 20", "watchdog", 20.0),
        ("ha-round 2", "ha_round", 2.0),
        ("ha-request 3", "ha_request", 3.0),
        ("storage nas off", "storages", {"local": "on", "nas": "off"}),
        ("cluster localhost --policy freeze", "nodes", {"localhost": "127.0.0.1"}),
    ]:
        run(pve, line)
        assert getattr(pve.open_guests().settings, name) == value, line
    assert "max_workers: 3\n" in (root / "etc/pve/datacenter.cfg").read_text()
    assert (root / "etc/pve/local/config").read_text() == "startall-onboot-delay: 40\n"
    assert "ring0_addr: 127.0.0.1\n" in (root / "etc/pve/corosync.conf").read_text()
    assert guests.read_ha(root).policy == "freeze"
    run(pve, "cluster")
    assert not (root / "etc/pve/corosync.conf").exists()
    run(pve, "workers 0")
    assert "max_workers" not in (root / "etc/pve/datacenter.cfg").read_text()
    with pytest.raises(SystemExit, match="no storage tape"):
        run(pve, "storage tape off")


def test_dpkg_knows_the_packages_until_they_are_removed(root: Path) -> None:
    status = root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    before = "Package: nut\nStatus: install ok installed\nVersion: 2.8.0-7\n\nPackage: sed\nVersion: 4\n\n"
    status.write_text(before)
    pve = PveNode(root, "pve8")
    pve.set_up("truenas", MADE, "8.4.21")
    pve.set_up("truenas", MADE, "9.2.11")
    blocks = status.read_text().split("\n\n")
    found = {block.split("\n")[0]: block for block in blocks if block}
    assert len(found) == len(blocks) - 1 == 4
    assert "\nVersion: 9.2.11\n" in found["Package: pve-manager"]
    assert "\nVersion: 5.2.0\n" in found["Package: pve-ha-manager"]
    pve.remove_files()
    assert status.read_text() == before


def test_members_tell_of_quorum(root: Path, pve: PveNode) -> None:
    run(pve, "quorum off")
    assert read_quorum(root) == Quorum(False, 1, ("other",))
    run(pve, "quorum on")
    assert read_quorum(root) is None
    run(pve, "cluster localhost")
    run(pve, "quorum off")
    assert read_quorum(root) == Quorum(False, 1, ("localhost",))
    run(pve, "quorum on")
    assert read_quorum(root) == Quorum(True, 2, ())


def test_every_command_has_help() -> None:
    text = node.make_parser().format_help()
    for name, *_rest in (*node.HOST_COMMANDS, *node.GUEST_COMMANDS):
        assert f"    {name} " in text


def test_release_of_debian_is_known() -> None:
    assert node.read_release() in node.RELEASES.values()
    assert stand_in.STATES[0] == "running"
