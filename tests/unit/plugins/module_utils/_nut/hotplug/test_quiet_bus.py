# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import quiet
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import SysfsTree


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    return SysfsTree(tmp_path)


def test_bus_has_one_line_per_device(tree: SysfsTree) -> None:
    tree.plug_in("1-2")
    tree.plug_in("1-1", "0764:0501", device=7)

    assert quiet.describe_bus(str(tree.sysfs)) == (
        "1-1 MAJOR=189 MINOR=6 DEVNAME=bus/usb/001/007 DEVTYPE=usb_device DRIVER=usb PRODUCT=764/501/90 TYPE=0/0/0 "
        "BUSNUM=001 DEVNUM=007\n"
        "1-2 MAJOR=189 MINOR=1 DEVNAME=bus/usb/001/002 DEVTYPE=usb_device DRIVER=usb PRODUCT=51d/2/90 TYPE=0/0/0 "
        "BUSNUM=001 DEVNUM=002\n"
        "usb1 MAJOR=189 MINOR=0 DEVNAME=bus/usb/001/001 DEVTYPE=usb_device DRIVER=usb PRODUCT=1d6b/2/90 TYPE=9/0/0 "
        "BUSNUM=001 DEVNUM=001"
    )


def test_bus_text_changes_with_replug(tree: SysfsTree) -> None:
    seen = set()
    for _unused in range(3):
        tree.plug_in("1-1")
        seen.add(quiet.describe_bus(str(tree.sysfs)))
        tree.unplug_device("1-1")
        seen.add(quiet.describe_bus(str(tree.sysfs)))

    assert len(seen) == 4


def test_missing_bus_is_empty(tmp_path: Path) -> None:
    assert quiet.describe_bus(str(tmp_path)) == ""


def test_unreadable_bus_is_raised(tmp_path: Path) -> None:
    (tmp_path / "bus/usb").mkdir(parents=True)
    (tmp_path / "bus/usb/devices").write_text("")

    with pytest.raises(NotADirectoryError):
        quiet.describe_bus(str(tmp_path))


def test_entries_without_uevent_file_are_left_out(tree: SysfsTree) -> None:
    fifo, folder, link = (tree.plug_in(f"1-{port}") / "uevent" for port in (1, 2, 3))
    for path in (fifo, folder, link):
        path.unlink()
    os.mkfifo(fifo)
    folder.mkdir()
    link.symlink_to("nothing")
    tree.plug_in("1-4")

    # a FIFO without a writer is empty
    assert [line.split()[0] for line in quiet.describe_bus(str(tree.sysfs)).splitlines()] == ["1-1", "1-4", "usb1"]


def test_vanishing_device_is_left_out(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.plug_in("1-1")
    tree.plug_in("1-2")
    opened = os.open

    def vanishing(path: str, flags: int, mode: int = 0o777) -> int:
        if path.endswith("/1-1/uevent"):
            monkeypatch.setattr(os, "open", opened)
            tree.unplug_device("1-1")
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", vanishing)

    assert [line.split()[0] for line in quiet.describe_bus(str(tree.sysfs)).splitlines()] == ["1-2", "usb1"]


def test_one_file_is_read_per_device(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    for port in range(1, 101):
        tree.plug_in(f"1-{port}")
    read = os.read
    sizes = []

    def counting(file: int, limit: int) -> bytes:
        text = read(file, limit)
        sizes.append(limit)
        return text

    monkeypatch.setattr(os, "read", counting)

    assert len(quiet.describe_bus(str(tree.sysfs)).splitlines()) == 101
    assert len(sizes) == 101
    assert max(sizes) <= 4096


def files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_all_files_are_closed(tree: SysfsTree) -> None:
    tree.plug_in("1-1")
    before = files()
    quiet.describe_bus(str(tree.sysfs))

    assert files() == before
