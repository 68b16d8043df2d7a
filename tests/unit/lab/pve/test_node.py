# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import guests
from pve import node
from pve.node import GuestSpec, PveNode


@pytest.mark.parametrize(
    ("text", "guest"),
    [
        ("101=qm", GuestSpec(101, "qm")),
        ("201=pct,storage=nas,seconds=2.5", GuestSpec(201, "pct", "nas", 2.5)),
        ("102=qm,seconds=never,order=3,down=20,tags=a;b", GuestSpec(102, "qm", "local", None, 3, 20, "a;b")),
    ],
)
def test_parse_guest(text: str, guest: GuestSpec) -> None:
    assert node.parse_guest(text) == guest


@pytest.mark.parametrize("text", ["", "101", "101=lxc", "x=qm", "101=qm,sekonds=3", "101=qm,seconds=soon"])
def test_parse_guest_refuses_nonsense(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected ID=qm|could not convert"):
        node.parse_guest(text)


def test_group_by_order() -> None:
    """As Proxmox: those without a number first, then from the highest to the lowest, all of one number at once."""
    first, second, low, high = (
        GuestSpec(101, "qm"),
        GuestSpec(100, "pct"),
        GuestSpec(102, "qm", order=1),
        GuestSpec(103, "qm", order=9),
    )
    assert node.group_by_order([low, first, high, second]) == [[second, first], [high], [low]]
    assert node.group_by_order([]) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    return tmp_path


MADE = [GuestSpec(101, "qm", "nas", 6.0, 2, 90, "nas;web"), GuestSpec(102, "qm"), GuestSpec(201, "pct", "nas", None)]


def test_library_reads_guests_and_storages_of_the_stand_in(root: Path) -> None:
    PveNode(root, "pve8").set_up("truenas", MADE)
    found = guests.load_guests(root)
    assert [(one.id, one.kind, one.name, one.onboot) for one in found] == [
        (101, "qm", "guest101", True),
        (102, "qm", "guest102", True),
        (201, "pct", "guest201", True),
    ]
    assert [(one.order, one.down, one.tags) for one in found] == [
        (2, 90, ("nas", "web")),
        (None, None, ()),
        (None, None, ()),
    ]
    known = guests.parse_storages((root / "etc/pve/storage.cfg").read_text())
    assert known["nas"].servers == ("truenas",)
    assert known["local"].servers == ()
    there = guests.find_storage_users(found, known, ["truenas"], (), lambda name: (name,))
    assert sorted(one.id for one in there) == [101, 201]
    assert PveNode(root, "pve8").read_guests() == MADE
    for name in ("qm", "pct", "vzdump"):
        assert (root / "usr/sbin" / name).stat().st_mode & 0o111
    assert "lab-pve stop" in (root / "etc/systemd/system/pve-guests.service").read_text()


def test_remove_all_leaves_no_file(root: Path) -> None:
    before = sorted(root.rglob("*"))
    one = PveNode(root, "pve8")
    one.set_up("truenas", MADE)
    one.remove_all()
    assert [path for path in sorted(root.rglob("*")) if path not in before and not path.is_dir()] == []
    assert guests.load_guests(root) == []
    one.remove_all()


def test_set_up_replaces_earlier_guests(root: Path) -> None:
    one = PveNode(root, "pve8")
    one.set_up("truenas", MADE)
    one.set_up("truenas", MADE[:1])
    assert [found.id for found in guests.load_guests(root)] == [101]
