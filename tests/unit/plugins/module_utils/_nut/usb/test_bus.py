# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import grp
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice
from ansible_collections.homelab.nut.tests.unit.support import usb_devices
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import KEYBOARD_DESCRIPTOR, UPS_DESCRIPTOR, SysfsTree
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

APC = replace(usb_devices.APC, device=3, accessible=True)
# all examples share one tree, since a fixture runs once
ONE_TREE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    return SysfsTree(tmp_path)


def scan(tree: SysfsTree) -> tuple[UsbDevice, ...]:
    return bus.scan_bus(tree.sysfs, tree.dev, os.getgid())


def plugged(tree: SysfsTree) -> list[UsbDevice]:
    return [device for device in scan(tree) if not device.hub]


# The bus from sysfs


def test_ups_behind_a_hub_is_read(tree: SysfsTree) -> None:
    tree.plug_in("1-1", "05e3:0610", "GenesysLogic", "USB2.1 Hub", None, device_class="09", hid=False)
    tree.plug_in("1-1.4")

    root, hub, ups = sorted(scan(tree), key=lambda device: device.device)
    assert ups == APC
    assert (hub.name, hub.hub, hub.hid_power, hub.serial) == ("1-1", True, False, "")
    assert (root.name, root.hub, root.ids, root.place, root.port) == ("usb1", True, "1d6b:0002", "", 0)


def test_properties_of_a_device() -> None:
    assert APC.ids == "051d:0002"
    assert APC.incarnation == (1, 3)
    assert APC.node == "/dev/bus/usb/001/003"
    assert replace(APC, bus=12, device=127).node == "/dev/bus/usb/012/127"
    assert APC.port == 4


@pytest.mark.parametrize(
    ("name", "port"), [("1-7", 7), ("1-1.4", 4), ("2-1.4.12", 12), ("10-2.1", 1), ("usb3", 0), ("1-dev4", 0)]
)
def test_busport_is_the_last_number(name: str, port: int) -> None:
    assert replace(APC, name=name).port == port


def test_highest_device_number_is_read(tree: SysfsTree) -> None:
    tree.plug_in("1-1", device=127)
    assert plugged(tree)[0].incarnation == (1, 127)


@pytest.mark.parametrize(
    ("controller", "place"),
    [
        ("pci0000:00/0000:00:14.0", "pci-0000:00:14.0-usb-0:1"),
        # behind a bridge: the nearest PCI device
        ("pci0000:00/0000:00:1c.4/0000:03:00.0", "pci-0000:03:00.0-usb-0:1"),
        # Raspberry Pi 3 and 4, and the kernel's own emulation
        ("platform/soc/3f980000.usb", "platform-3f980000.usb-usb-0:1"),
        (
            "platform/scb/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0",
            "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1",
        ),
        ("platform/vhci_hcd.0", "platform-vhci_hcd.0-usb-0:1"),
        # Intel's VMD: a bridge between two PCI buses
        ("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", "pci-0000:00:0e.0-pci-10000:e0:06.0-usb-0:1"),
    ],
)
def test_place_is_named_as_by_udev(tree: SysfsTree, controller: str, place: str) -> None:
    tree.plug_in("1-1", controller=controller)
    assert plugged(tree)[0].place == place


def test_place_does_not_contain_the_bus_number(tree: SysfsTree) -> None:
    tree.plug_in("1-3")
    tree.plug_in("2-3")
    one, two = plugged(tree)
    assert one.place == two.place


def test_missing_bus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(bus.NoUsbBus, match=r"no USB bus .*/bus/usb/devices does not exist"):
        bus.scan_bus(tmp_path)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("idVendor", "51d"),
        ("idVendor", "051d0"),
        ("idVendor", "0x51"),
        ("idProduct", "zzzz"),
        ("idProduct", "\uff10\uff1002"),
        ("busnum", "0"),
        ("busnum", "-1"),
        ("busnum", "one"),
        ("busnum", ""),
        ("devnum", "0"),
        ("devnum", "1e3"),
        ("devnum", "1\n2"),
        ("devnum", "\u0663"),
        ("devnum", "9" * 400),
    ],
)
def test_device_with_invalid_numbers_is_left_out(tree: SysfsTree, attribute: str, value: str) -> None:
    (tree.plug_in("1-1") / attribute).write_text(f"{value}\n")
    tree.plug_in("1-2")
    assert [device.name for device in plugged(tree)] == ["1-2"]


def test_ids_are_lower_case(tree: SysfsTree) -> None:
    tree.plug_in("1-1", "2A03:FFFF")
    assert plugged(tree)[0].ids == "2a03:ffff"


@given(st.lists(st.one_of(st.none(), st.binary(max_size=255)), min_size=3, max_size=3))
@example([b"\n", b"a\nb\n", b'"]#\\$(reboot)'])
@example([b"\xff\xfe", b"\0", "ж".encode() * 126])
@ONE_TREE
def test_texts_are_read_unchanged(tree: SysfsTree, texts: list[bytes | None]) -> None:
    tree.plug_in("1-1", manufacturer=texts[0], product=texts[1], serial=texts[2])
    (device,) = plugged(tree)
    tree.unplug_device("1-1")

    found = [text.encode("utf-8", "surrogateescape") for text in (device.manufacturer, device.product, device.serial)]
    assert found == [text or b"" for text in texts]


def test_long_text_is_cut_off(tree: SysfsTree) -> None:
    tree.plug_in("1-1", serial="x" * 100_000)
    assert 255 <= len(plugged(tree)[0].serial) <= 4096


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
@pytest.mark.parametrize("attribute", ["serial", "manufacturer", "product"])
def test_text_attribute_without_a_regular_file_is_empty(
    tree: SysfsTree, make: Callable[[Path], None], attribute: str
) -> None:
    path = tree.plug_in("1-1") / attribute
    path.unlink()
    make(path)
    assert getattr(plugged(tree)[0], attribute) == ""


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("../idVendor")])
@pytest.mark.parametrize("attribute", ["idVendor", "idProduct", "busnum", "devnum"])
def test_device_without_regular_number_files_is_left_out(
    tree: SysfsTree, make: Callable[[Path], None], attribute: str
) -> None:
    path = tree.plug_in("1-1") / attribute
    path.unlink()
    make(path)
    assert plugged(tree) == []


def test_links_out_of_the_device_tree_are_ignored(tree: SysfsTree, tmp_path: Path) -> None:
    folder = tree.plug_in("1-1")
    links = tree.sysfs / "bus/usb/devices"
    outside = tmp_path / "elsewhere/1-2"
    shutil.copytree(folder, outside)
    beside = tmp_path / "sys/devices-too/1-5"
    shutil.copytree(folder, beside)
    (links / "1-2").symlink_to(outside)
    (links / "1-3").symlink_to("1-3")
    (links / "1-4").symlink_to(folder)
    (links / "1-5").symlink_to(beside)
    (links / "1-6").symlink_to("nowhere")
    shutil.copytree(folder, links / "1-7")
    (links / "1-8").write_text("")
    (links / "what\nis this").symlink_to(folder)

    assert [device.name for device in plugged(tree)] == ["1-1"]


def test_root_hub_is_a_hub_regardless_of_class(tree: SysfsTree) -> None:
    folder = tree.sysfs / "devices/pci0000:00/0000:00:14.0" / tree.root_hub()
    (folder / "bDeviceClass").write_text("00\n")
    assert [device.hub for device in scan(tree)] == [True]


def test_entries_other_than_devices_are_ignored(tree: SysfsTree) -> None:
    folder = tree.plug_in("1-1")
    for name in ("1-1.", "ep_00", "1-1.4x", "dev", "1-\n1"):
        other = folder.parent / name
        shutil.copytree(folder, other)
        (tree.sysfs / "bus/usb/devices" / name).symlink_to(other)
    assert [device.name for device in plugged(tree)] == ["1-1"]


def test_sysfs_may_be_a_link(tree: SysfsTree, tmp_path: Path) -> None:
    tree.plug_in("1-1")
    (tmp_path / "link").symlink_to(tree.sysfs)
    assert [device.name for device in bus.scan_bus(tmp_path / "link", tree.dev)] == ["1-1", "usb1"]


def at_each_read(monkeypatch: pytest.MonkeyPatch, number: int, happens: Callable[[], object]) -> Callable[[], bool]:
    """Call HAPPENS just before file number NUMBER is opened; the returned function tells whether it was called."""
    opened = os.open
    count = 0

    def opening(path: str, flags: int, mode: int = 0o777) -> int:
        nonlocal count
        count += 1
        if count == number:
            monkeypatch.setattr(os, "open", opened)
            happens()
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", opening)
    return lambda: count >= number


def test_device_unplugged_at_any_read_is_left_out(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 0
    while True:
        number += 1
        tree.plug_in("1-1", device=5)
        happened = at_each_read(monkeypatch, number, lambda: tree.unplug_device("1-1"))
        found = plugged(tree)
        if not happened():
            break
        # still complete if it vanished after its own last read
        assert [device.serial for device in found] in ([], ["5B1234T56789"])

    assert number > 8


def test_device_replaced_at_any_read_is_never_mixed(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"1111:1111": ("one", "one", "one"), "2222:2222": ("two", "two", "two")}
    number = 0
    while True:
        number += 1

        def swap() -> None:
            tree.unplug_device("1-1")
            tree.plug_in("1-1", "2222:2222", *texts["2222:2222"])

        tree.plug_in("1-1", "1111:1111", *texts["1111:1111"])
        happened = at_each_read(monkeypatch, number, swap)
        found = plugged(tree)
        if not happened():
            break
        tree.unplug_device("1-1")
        for device in found:
            assert (device.manufacturer, device.product, device.serial) == texts[device.ids]

    assert number > 8


def test_cost_is_linear(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open
    count = 0

    def counting(path: str, flags: int, mode: int = 0o777) -> int:
        nonlocal count
        count += 1
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", counting)
    costs = []
    for port in range(1, 101):
        tree.plug_in(f"1-{port}")
        count = 0
        assert len(plugged(tree)) == port
        costs.append(count)

    steps = {after - before for before, after in zip(costs, costs[1:])}
    assert len(steps) == 1
    assert steps.pop() <= 12


def files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_no_file_stays_open(tree: SysfsTree) -> None:
    tree.plug_in("1-1")
    before = files()
    scan(tree)
    assert files() == before


# HID


def test_hid_power_follows_the_descriptor(tree: SysfsTree) -> None:
    tree.plug_in("1-1")
    assert plugged(tree)[0].hid_power is True
    tree.bind_nut("1-1")
    assert plugged(tree)[0].hid_power is None
    tree.bind_kernel("1-1", KEYBOARD_DESCRIPTOR)
    assert plugged(tree)[0].hid_power is False


def test_device_without_hid_interface_is_not_a_power_device(tree: SysfsTree) -> None:
    tree.plug_in("1-1", hid=False)
    assert plugged(tree)[0].hid_power is False


def test_single_power_interface_is_enough(tree: SysfsTree) -> None:
    folder = tree.plug_in("1-1", descriptor=KEYBOARD_DESCRIPTOR)
    second = folder / "1-1:1.1"
    second.mkdir()
    (second / "bInterfaceClass").write_text("03\n")
    assert plugged(tree)[0].hid_power is None

    child = second / "0003:051D:0002.0002"
    child.mkdir()
    (child / "report_descriptor").write_bytes(UPS_DESCRIPTOR)
    assert plugged(tree)[0].hid_power is True

    (second / "bInterfaceClass").write_text("ff\n")
    assert plugged(tree)[0].hid_power is False

    # in either order
    tree.bind_nut("1-1")
    (second / "bInterfaceClass").write_text("03\n")
    (child / "report_descriptor").write_bytes(KEYBOARD_DESCRIPTOR)
    assert plugged(tree)[0].hid_power is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_descriptor_without_a_regular_file_is_unknown(tree: SysfsTree, make: Callable[[Path], None]) -> None:
    path = next(tree.plug_in("1-1").glob("*/0003:*/report_descriptor"))
    path.unlink()
    make(path)
    assert plugged(tree)[0].hid_power is None


# Device nodes


@pytest.mark.parametrize(
    ("mode", "own", "accessible"),
    [
        (0o664, True, True),
        (0o660, True, True),
        (0o664, False, False),
        (0o666, False, True),
        (0o606, True, False),
        (0o640, True, False),
        (0o620, True, False),
        (0o662, False, False),
    ],
)
def test_access_follows_mode_and_group(tree: SysfsTree, mode: int, own: bool, accessible: bool) -> None:
    tree.plug_in("1-1", mode=mode)
    group = os.getgid() if own else os.getgid() + 1
    (device,) = (found for found in bus.scan_bus(tree.sysfs, tree.dev, group) if not found.hub)
    assert device.accessible is accessible


def test_access_is_unknown_without_a_node(tree: SysfsTree) -> None:
    tree.plug_in("1-1")
    (tree.dev / "bus/usb/001/002").unlink()
    assert (plugged(tree)[0].accessible, plugged(tree)[0].has_node) == (None, False)


def test_container_without_the_folder_has_no_node(tree: SysfsTree) -> None:
    tree.plug_in("1-1")
    shutil.rmtree(tree.dev / "bus")
    assert not plugged(tree)[0].has_node


def test_access_is_checked_for_the_group_nut(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def somebody(name: str) -> grp.struct_group:
        asked.append(name)
        return grp.struct_group((name, "x", os.getgid(), []))

    monkeypatch.setattr(grp, "getgrnam", somebody)
    tree.plug_in("1-1", mode=0o660)
    assert [device.accessible for device in bus.scan_bus(tree.sysfs, tree.dev)] == [True, True]
    assert asked == ["nut"]


def test_access_is_unknown_without_the_group_nut(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", nobody)
    tree.plug_in("1-1", mode=0o666)
    found = bus.scan_bus(tree.sysfs, tree.dev)
    assert [(device.accessible, device.has_node) for device in found] == [(None, True), (None, True)]
