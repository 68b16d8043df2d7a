# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import scan_bus
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.opened import (
    OpenedNode,
    find_lost_node,
    read_claims,
    read_opened_nodes,
)
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import SysfsTree
from ansible_collections.homelab.nut.tests.unit.support.usb_devices import APC

NODE = OpenedNode(APC.bus, APC.device)


def open_files(proc: Path, pid: int, *targets: str) -> None:
    folder = proc / f"{pid}/fd"
    folder.mkdir(parents=True)
    for number, target in enumerate(targets):
        (folder / str(number)).symlink_to(target)


def test_open_device_of_real_process_is_found(tmp_path: Path) -> None:
    node = tmp_path / "bus/usb/001/004"
    node.parent.mkdir(parents=True)
    node.touch()
    with node.open("rb"):
        assert read_opened_nodes(os.getpid(), tmp_path) == (OpenedNode(1, 4),)
        node.unlink()
        node.touch()
        assert read_opened_nodes(os.getpid(), tmp_path) == (OpenedNode(1, 4, is_deleted=True),)
    assert read_opened_nodes(os.getpid(), tmp_path) == ()


def test_open_device_of_child_is_found(tmp_path: Path) -> None:
    node = tmp_path / "bus/usb/002/011"
    node.parent.mkdir(parents=True)
    node.touch()
    with node.open("rb") as file:
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[file.fileno()],
        )
    try:
        assert read_opened_nodes(os.getpid(), tmp_path) == (OpenedNode(2, 11),)
    finally:
        child.communicate(b"\n")


def test_only_devices_of_the_given_bus_count(tmp_path: Path) -> None:
    open_files(
        tmp_path / "proc",
        7,
        "/dev/null",
        "socket:[1]",
        "/elsewhere/dev/bus/usb/001/004",
        f"{tmp_path}/dev/bus/usb/001/005",
        f"{tmp_path}/dev/bus/usb/001/006 (deleted)",
        f"{tmp_path}/dev/bus/usb/001/7",
    )
    assert read_opened_nodes(7, tmp_path / "dev", tmp_path / "proc") == (
        OpenedNode(1, 5),
        OpenedNode(1, 6, is_deleted=True),
    )


def test_symbolic_link_to_the_nodes_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "dev").symlink_to("real")
    open_files(tmp_path / "proc", 7, f"{tmp_path}/real/bus/usb/001/004")
    assert read_opened_nodes(7, tmp_path / "dev", tmp_path / "proc") == (OpenedNode(1, 4),)


@pytest.mark.parametrize("pid", [0, -1, 9])
def test_missing_process_is_unknown(tmp_path: Path, pid: int) -> None:
    assert read_opened_nodes(pid, tmp_path, tmp_path) is None


def test_file_in_place_of_link_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/fd/3").touch()
    assert read_opened_nodes(7, tmp_path, tmp_path) is None


@pytest.mark.parametrize(
    ("nodes", "lost"),
    [
        (None, None),
        ((), None),
        ((NODE,), None),
        ((replace(NODE, device=3),), replace(NODE, device=3)),
        ((replace(NODE, is_deleted=True),), replace(NODE, is_deleted=True)),
        ((replace(NODE, device=3), NODE), None),
    ],
    ids=["unknown", "nothing open", "alive", "old number", "number used again", "open for a search"],
)
def test_node_is_lost_if_no_open_device_is_on_the_bus(
    nodes: tuple[OpenedNode, ...] | None, lost: OpenedNode | None
) -> None:
    assert find_lost_node(nodes, [APC]) == lost


@pytest.mark.parametrize(
    ("driver", "claim"),
    [("usbfs", {"1-1": True}), ("usbhid", {"1-1": False}), ("usb-storage", {"1-1": False}), ("", {})],
)
def test_claim_follows_the_driver_of_the_interface(tmp_path: Path, driver: str, claim: dict[str, bool]) -> None:
    tree = SysfsTree(tmp_path)
    tree.plug_in("1-1")
    tree.show_driver("1-1", driver)
    assert read_claims(scan_bus(tree.sysfs, tree.dev), tree.sysfs) == claim


def test_claim_of_composite_device_needs_all_interfaces(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    folder = tree.plug_in("1-1")
    second = folder / "1-1:1.1"
    second.mkdir()
    tree.show_driver("1-1", "usbhid")
    assert read_claims(scan_bus(tree.sysfs, tree.dev), tree.sysfs) == {}
    (second / "driver").symlink_to("../../drivers/usbhid")
    assert read_claims(scan_bus(tree.sysfs, tree.dev), tree.sysfs) == {"1-1": False}
    (second / "driver").unlink()
    (second / "driver").symlink_to("../../drivers/usbfs")
    assert read_claims(scan_bus(tree.sysfs, tree.dev), tree.sysfs) == {"1-1": True}


def test_claim_of_unplugged_device_is_unknown(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    tree.plug_in("1-1")
    devices = scan_bus(tree.sysfs, tree.dev)
    tree.unplug_device("1-1")
    assert read_claims(devices, tree.sysfs) == {}
