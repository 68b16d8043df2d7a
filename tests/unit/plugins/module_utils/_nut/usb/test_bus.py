# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import grp
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import ScannerError, UsbDevice, UsbError, UsbUps
from ansible_collections.homelab.nut.tests.unit.support import usb_devices
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import KEYBOARD_DESCRIPTOR, UPS_DESCRIPTOR, SysfsTree
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

APC = replace(usb_devices.APC, device=3, accessible=True)
# another tree for each example would be another run of a fixture
ONE_TREE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    return SysfsTree(tmp_path)


def scan(tree: SysfsTree) -> tuple[UsbDevice, ...]:
    return bus.scan_bus(tree.sysfs, tree.dev, os.getgid())


def plugged(tree: SysfsTree) -> list[UsbDevice]:
    return [device for device in scan(tree) if not device.hub]


def says(code: int, said: str, asked: list[list[str]] | None = None) -> Callable[[Sequence[str]], tuple[int, str]]:
    def runner(command: Sequence[str]) -> tuple[int, str]:
        if asked is not None:
            asked.append(list(command))
        return code, said

    return runner


# The bus by sysfs


def test_a_ups_behind_a_hub(tree: SysfsTree) -> None:
    tree.plug("1-1", "05e3:0610", "GenesysLogic", "USB2.1 Hub", None, device_class="09", hid=False)
    tree.plug("1-1.4")

    root, hub, ups = sorted(scan(tree), key=lambda device: device.device)
    assert ups == APC
    assert (hub.name, hub.hub, hub.hid_power, hub.serial) == ("1-1", True, False, "")
    assert (root.name, root.hub, root.ids, root.place, root.port) == ("usb1", True, "1d6b:0002", "", 0)


def test_what_follows_from_it() -> None:
    assert APC.ids == "051d:0002"
    assert APC.incarnation == (1, 3)
    assert APC.node == "/dev/bus/usb/001/003"
    assert replace(APC, bus=12, device=127).node == "/dev/bus/usb/012/127"
    assert APC.port == 4


@pytest.mark.parametrize(
    ("name", "port"), [("1-7", 7), ("1-1.4", 4), ("2-1.4.12", 12), ("10-2.1", 1), ("usb3", 0), ("1-dev4", 0)]
)
def test_port(name: str, port: int) -> None:
    assert replace(APC, name=name).port == port


def test_the_newest_number_of_the_kernel(tree: SysfsTree) -> None:
    tree.plug("1-1", device=127)
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
def test_place_as_udev_names_it(tree: SysfsTree, controller: str, place: str) -> None:
    tree.plug("1-1", controller=controller)
    assert plugged(tree)[0].place == place


def test_the_number_of_the_bus_is_no_part_of_the_place(tree: SysfsTree) -> None:
    tree.plug("1-3")
    tree.plug("2-3")
    one, two = plugged(tree)
    assert one.place == two.place


def test_no_bus(tmp_path: Path) -> None:
    with pytest.raises(UsbError, match=r"/bus/usb/devices: No such file"):
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
def test_numbers_are_checked(tree: SysfsTree, attribute: str, value: str) -> None:
    (tree.plug("1-1") / attribute).write_text(f"{value}\n")
    tree.plug("1-2")
    assert [device.name for device in plugged(tree)] == ["1-2"]


def test_ids_are_lower_case(tree: SysfsTree) -> None:
    tree.plug("1-1", "2A03:FFFF")
    assert plugged(tree)[0].ids == "2a03:ffff"


@given(st.lists(st.one_of(st.none(), st.binary(max_size=255)), min_size=3, max_size=3))
@example([b"\n", b"a\nb\n", b'"]#\\$(reboot)'])
@example([b"\xff\xfe", b"\0", "ж".encode() * 126])
@ONE_TREE
def test_texts_are_carried_as_they_are(tree: SysfsTree, texts: list[bytes | None]) -> None:
    tree.plug("1-1", manufacturer=texts[0], product=texts[1], serial=texts[2])
    (device,) = plugged(tree)
    tree.unplug("1-1")

    found = [text.encode("utf-8", "surrogateescape") for text in (device.manufacturer, device.product, device.serial)]
    assert found == [text or b"" for text in texts]


def test_of_a_long_file_the_beginning_is_read(tree: SysfsTree) -> None:
    tree.plug("1-1", serial="x" * 100_000)
    assert 255 <= len(plugged(tree)[0].serial) <= 4096


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
@pytest.mark.parametrize("attribute", ["serial", "manufacturer", "product"])
def test_what_is_no_file_is_no_text(tree: SysfsTree, make: Callable[[Path], None], attribute: str) -> None:
    path = tree.plug("1-1") / attribute
    path.unlink()
    make(path)
    assert getattr(plugged(tree)[0], attribute) == ""


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("../idVendor")])
@pytest.mark.parametrize("attribute", ["idVendor", "idProduct", "busnum", "devnum"])
def test_what_is_no_file_is_no_number(tree: SysfsTree, make: Callable[[Path], None], attribute: str) -> None:
    path = tree.plug("1-1") / attribute
    path.unlink()
    make(path)
    assert plugged(tree) == []


def test_links_that_lead_elsewhere(tree: SysfsTree, tmp_path: Path) -> None:
    folder = tree.plug("1-1")
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


def test_a_root_hub_is_a_hub_whatever_it_says(tree: SysfsTree) -> None:
    folder = tree.sysfs / "devices/pci0000:00/0000:00:14.0" / tree.root_hub()
    (folder / "bDeviceClass").write_text("00\n")
    assert [device.hub for device in scan(tree)] == [True]


def test_a_name_that_is_none_of_a_device(tree: SysfsTree) -> None:
    folder = tree.plug("1-1")
    for name in ("1-1.", "ep_00", "1-1.4x", "dev", "1-\n1"):
        other = folder.parent / name
        shutil.copytree(folder, other)
        (tree.sysfs / "bus/usb/devices" / name).symlink_to(other)
    assert [device.name for device in plugged(tree)] == ["1-1"]


def test_a_bus_behind_a_link(tree: SysfsTree, tmp_path: Path) -> None:
    tree.plug("1-1")
    (tmp_path / "link").symlink_to(tree.sysfs)
    assert [device.name for device in bus.scan_bus(tmp_path / "link", tree.dev)] == ["1-1", "usb1"]


def at_each_read(monkeypatch: pytest.MonkeyPatch, number: int, happens: Callable[[], object]) -> Callable[[], bool]:
    """Let something happen just before the file number NUMBER is opened. Returns whether it did."""
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


def test_a_device_that_vanishes_at_any_read(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 0
    while True:
        number += 1
        tree.plug("1-1", device=5)
        happened = at_each_read(monkeypatch, number, lambda: tree.unplug("1-1"))
        found = plugged(tree)
        if not happened():
            break
        # the one that was read last, that of the root hub, comes after it
        assert [device.serial for device in found] in ([], ["5B1234T56789"])

    assert number > 8


def test_a_device_in_the_place_of_another_at_any_read(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"1111:1111": ("one", "one", "one"), "2222:2222": ("two", "two", "two")}
    number = 0
    while True:
        number += 1

        def swap() -> None:
            tree.unplug("1-1")
            tree.plug("1-1", "2222:2222", *texts["2222:2222"])

        tree.plug("1-1", "1111:1111", *texts["1111:1111"])
        happened = at_each_read(monkeypatch, number, swap)
        found = plugged(tree)
        if not happened():
            break
        tree.unplug("1-1")
        for device in found:
            assert (device.manufacturer, device.product, device.serial) == texts[device.ids]

    assert number > 8


def test_the_cost_is_linear(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open
    count = 0

    def counting(path: str, flags: int, mode: int = 0o777) -> int:
        nonlocal count
        count += 1
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", counting)
    costs = []
    for port in range(1, 101):
        tree.plug(f"1-{port}")
        count = 0
        assert len(plugged(tree)) == port
        costs.append(count)

    steps = {after - before for before, after in zip(costs, costs[1:])}
    assert len(steps) == 1
    assert steps.pop() <= 12


def files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_no_file_stays_open(tree: SysfsTree) -> None:
    tree.plug("1-1")
    before = files()
    scan(tree)
    assert files() == before


# HID


def test_a_hid_interface(tree: SysfsTree) -> None:
    tree.plug("1-1")
    assert plugged(tree)[0].hid_power is True
    tree.unbind("1-1")
    assert plugged(tree)[0].hid_power is None
    tree.bind("1-1", KEYBOARD_DESCRIPTOR)
    assert plugged(tree)[0].hid_power is False


def test_no_hid_interface(tree: SysfsTree) -> None:
    tree.plug("1-1", hid=False)
    assert plugged(tree)[0].hid_power is False


def test_one_of_two_interfaces_is_enough(tree: SysfsTree) -> None:
    folder = tree.plug("1-1", descriptor=KEYBOARD_DESCRIPTOR)
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

    # in whatever order they come
    tree.unbind("1-1")
    (second / "bInterfaceClass").write_text("03\n")
    (child / "report_descriptor").write_bytes(KEYBOARD_DESCRIPTOR)
    assert plugged(tree)[0].hid_power is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_a_descriptor_that_is_no_file(tree: SysfsTree, make: Callable[[Path], None]) -> None:
    path = next(tree.plug("1-1").glob("*/0003:*/report_descriptor"))
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
def test_accessible(tree: SysfsTree, mode: int, own: bool, accessible: bool) -> None:
    tree.plug("1-1", mode=mode)
    group = os.getgid() if own else os.getgid() + 1
    (device,) = (one for one in bus.scan_bus(tree.sysfs, tree.dev, group) if not one.hub)
    assert device.accessible is accessible


def test_no_node(tree: SysfsTree) -> None:
    tree.plug("1-1")
    (tree.dev / "bus/usb/001/002").unlink()
    assert plugged(tree)[0].accessible is None


def test_the_group_nut(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def somebody(name: str) -> grp.struct_group:
        asked.append(name)
        return grp.struct_group((name, "x", os.getgid(), []))

    monkeypatch.setattr(grp, "getgrnam", somebody)
    tree.plug("1-1", mode=0o660)
    assert [device.accessible for device in bus.scan_bus(tree.sysfs, tree.dev)] == [True, True]
    assert asked == ["nut"]


def test_no_group(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", nobody)
    tree.plug("1-1", mode=0o666)
    assert [device.accessible for device in bus.scan_bus(tree.sysfs, tree.dev)] == [None, None]


# The bus by lsusb

LSUSB = """Bus 002 Device 001: ID 1d6b:0003 Linux Foundation 3.0 root hub
Bus 001 Device 004: ID 051d:0002 American Power Conversion Uninterruptible Power Supply
Bus 001 Device 003: ID 0764:0501
Bus 001 Device 001: ID 1d6b:0002 Linux Foundation 2.0 root hub
"""


def test_lsusb() -> None:
    asked: list[list[str]] = []
    devices = bus.scan_with_lsusb(says(0, LSUSB, asked))

    assert asked == [["lsusb"]]
    assert [(device.name, device.ids, device.incarnation, device.product, device.hub) for device in devices] == [
        ("usb1", "1d6b:0002", (1, 1), "Linux Foundation 2.0 root hub", True),
        ("1-dev3", "0764:0501", (1, 3), "", False),
        ("1-dev4", "051d:0002", (1, 4), "American Power Conversion Uninterruptible Power Supply", False),
        ("usb2", "1d6b:0003", (2, 1), "Linux Foundation 3.0 root hub", True),
    ]
    ups = devices[2]
    assert (ups.place, ups.serial, ups.hid_power, ups.accessible) == ("", "", None, None)


@pytest.mark.parametrize(("code", "said", "message"), [(127, "", "exit code 127"), (1, " no USB\n", "no USB")])
def test_lsusb_fails(code: int, said: str, message: str) -> None:
    with pytest.raises(UsbError, match=f"^lsusb: {message}$"):
        bus.scan_with_lsusb(says(code, said))


def test_lsusb_with_a_forged_line() -> None:
    forged = LSUSB.replace("Power Supply", "Power Supply\nBus 001 Device 003: ID dead:beef x")
    assert [device.name for device in bus.scan_with_lsusb(says(0, forged))] == ["usb1", "1-dev4", "usb2"]


@given(st.text(max_size=255))
@example(" \r\x0b\x85Bus 001 Device 009: ID dead:beef x")
def test_lsusb_with_any_text(text: str) -> None:
    said = LSUSB.replace("Uninterruptible", text)
    devices = {device.incarnation: device for device in bus.scan_with_lsusb(says(0, said))}
    assert devices[1, 3].ids == "0764:0501"
    if "\n" not in text:
        assert devices[1, 4].product == f"American Power Conversion {text} Power Supply"
        assert len(devices) == 4


# NUT's table

RULES = """# This file is generated and installed by the Network UPS Tools package.

ACTION=="remove", GOTO="nut-usbups_rules_end"
SUBSYSTEM=="usb", GOTO="nut-usbups_rules_real"

LABEL="nut-usbups_rules_real"
#  SNR-UPS-LID-XXXX UPSes  - nutdrv_qx
ATTR{idVendor}=="0001", ATTR{idProduct}=="0000", MODE="664", GROUP="nut"

# Hewlett Packard
#  e.g. ?  - usbhid-ups
ATTR{idVendor}=="03F0", ATTR{idProduct}=="0001", MODE="664", GROUP="nut"
#  T500 - old - bcmxcp_usb
ATTR{idVendor}=="03f0", ATTR{idProduct}=="1f01", MODE="664", GROUP="nut"
ATTR{idVendor}=="03f0", ATTR{idProduct}=="1f02", MODE="664", GROUP="nut"
#  not any more  - richcomm_usb
#ATTR{idVendor}=="0925", ATTR{idProduct}=="1234", MODE="664", GROUP="nut"

LABEL="nut-usbups_rules_end"
"""


def test_table(tmp_path: Path) -> None:
    (tmp_path / "62-nut-usbups.rules").write_text(RULES)
    assert bus.read_id_table([tmp_path / "none", tmp_path]) == {
        "0001:0000": "nutdrv_qx",
        "03f0:0001": "usbhid-ups",
        "03f0:1f01": "bcmxcp_usb",
        "03f0:1f02": "",
    }


def test_a_file_hides_its_name_in_later_folders(tmp_path: Path) -> None:
    for folder, ids in (("etc", "1111"), ("lib", "2222")):
        (tmp_path / folder).mkdir()
        text = f'#  x  - {folder}\nATTR{{idVendor}}=="{ids}", ATTR{{idProduct}}=="0001", MODE="664"\n'
        (tmp_path / folder / "62-nut-usbups.rules").write_text(text)
    (tmp_path / "lib/52-nut-usbups.rules").write_text(text.replace("2222", "3333"))
    (tmp_path / "lib/63-own.rules").write_text(text.replace("2222", "4444"))

    assert bus.read_id_table([tmp_path / "etc", tmp_path / "lib"]) == {"1111:0001": "etc", "3333:0001": "lib"}


def test_no_table(tmp_path: Path) -> None:
    (tmp_path / "62-nut-usbups.rules").mkdir()
    assert bus.read_id_table([tmp_path]) == {}


# nut-scanner

SCANNED = {
    (
        2,
        8,
        0,
    ): 'USB:driver="usbhid-ups",port="auto",vendorid="051D",productid="0002",product="Back-UPS ES 700G",serial="5B1234T56789",'
    'vendor="American Power Conversion",bus="001"\n',
    (2, 8, 1): "Cannot load SNMP library (libnetsnmp.so.40) : file not found. SNMP search disabled.\n"
    'USB:driver="usbhid-ups",port="auto",vendorid="051D",productid="0002",product="Back-UPS ES 700G",serial="5B1234T56789",'
    'vendor="American Power Conversion",bus="001",device="002",busport="001",###NOTMATCHED-YET###bcdDevice="0090"\n',
    (2, 8, 4): 'USB:driver="usbhid-ups",port="auto",vendorid="051D",productid="0002",product="Back-UPS ES 700G",'
    'serial="5B1234T56789",vendor="American Power Conversion"\n',
}


@pytest.mark.parametrize("said", SCANNED.values(), ids=str)
def test_scanner(said: str) -> None:
    asked: list[list[str]] = []
    assert bus.ask_scanner(says(0, said, asked)) == {"051d:0002": "usbhid-ups"}
    assert asked == [["nut-scanner", "-U", "-q", "-P"]]


@pytest.mark.parametrize(("code", "said"), [(0, ""), (1, "No USB device found: Resource temporarily unavailable\n")])
def test_scanner_without_a_ups(code: int, said: str) -> None:
    assert bus.ask_scanner(says(code, said)) == {}


@pytest.mark.parametrize(
    ("code", "said", "message"), [(127, "", "exit code 127"), (255, "unknown option\n", "unknown option")]
)
def test_scanner_fails(code: int, said: str, message: str) -> None:
    with pytest.raises(ScannerError, match=f"^nut-scanner -U: {message}$"):
        bus.ask_scanner(says(code, said))


@pytest.mark.parametrize(
    "line",
    [
        'USB:driver="x y",port="auto",vendorid="051d",productid="0002"',
        'USB:driver="../x",port="auto",vendorid="051d",productid="0002"',
        'USB:driver="-x",port="auto",vendorid="051d",productid="0002"',
        'USB:driver="x",port="1",vendorid="051d",productid="0002"',
        'USB:driver="x",port="auto",vendorid="51d",productid="0002"',
        'USB:driver="x",port="auto",vendorid="051d",productid="000g"',
        'USB:driver="x",port="auto",vendorid="051d",productid="0002"x',
        ' USB:driver="x",port="auto",vendorid="051d",productid="0002"',
        'SNMP:driver="x",port="auto",vendorid="051d",productid="0002"',
    ],
)
def test_lines_that_are_none(line: str) -> None:
    assert bus.ask_scanner(says(0, f"{line}\n")) == {}


def scanned(product: str, serial: str = "") -> str:
    return (
        f'USB:driver="nutdrv_qx",port="auto",vendorid="0665",productid="5161",product="{product}",serial="{serial}",bus="001"\n'
        'USB:driver="usbhid-ups",port="auto",vendorid="051D",productid="0002",product="UPS",bus="001"\n'
    )


HONEST = {"0665:5161": "nutdrv_qx", "051d:0002": "usbhid-ups"}
FORGED = 'x"\nUSB:driver="riello_usb",port="auto",vendorid="051d",productid="0002",product="'


@given(st.text(st.characters(exclude_characters="\n"), max_size=255))
@example('x",driver="evil",vendorid="051d",productid="0002"')
@example("x\\")
@example('\\"')
@example('\x0b\x0c\r\x1c\x85USB:driver="riello_usb",port="auto",vendorid="051d",productid="0002",product="')
def test_no_text_of_one_line_changes_anything(product: str) -> None:
    assert bus.ask_scanner(says(0, scanned(product))) == HONEST


def test_a_forged_line_changes_no_entry() -> None:
    assert bus.ask_scanner(says(0, scanned(FORGED))) == {"0665:5161": "nutdrv_qx"}


FORGED_IDS = FORGED.replace("051d", "046d")


@pytest.mark.parametrize(
    "liar",
    [replace(APC, manufacturer=FORGED_IDS), replace(APC, product=FORGED_IDS), replace(APC, serial=FORGED_IDS)],
)
def test_a_newline_on_the_bus_makes_all_of_it_void(liar: UsbDevice) -> None:
    said = scanned(FORGED_IDS)
    assert bus.ask_scanner(says(0, said), [APC, liar]) == {}
    assert bus.ask_scanner(says(0, scanned("UPS")), [APC]) == HONEST


@given(st.text(max_size=400))
def test_any_output(said: str) -> None:
    for ids, driver in bus.ask_scanner(says(0, said)).items():
        assert f'driver="{driver}"' in said
        assert len(ids) == 9


# What is a UPS


@dataclass(frozen=True)
class Patterns:
    """A policy: the ids that it takes for UPSes, and those that it ignores."""

    ups: str = ""
    nothing: str = ""

    def explain_match(self, device: UsbDevice) -> str:
        return f"pattern {self.ups}" if device.ids == self.ups else ""

    def is_ignored(self, device: UsbDevice) -> bool:
        return device.ids == self.nothing


def candidates(
    devices: Sequence[UsbDevice],
    table: dict[str, str] | None = None,
    policy: Patterns = Patterns(),
    named: bool = False,
    scanned: dict[str, str] | None = None,
) -> tuple[UsbUps, ...]:
    return bus.find_upses(devices, table or {}, policy, lambda _device: named, scanned)


MUTE = replace(APC, hid_power=False)


def test_a_device_of_the_table() -> None:
    assert candidates([APC], {"051d:0002": "nutdrv_qx"}) == (UsbUps(APC, "nutdrv_qx", "NUT's table"),)
    assert candidates([MUTE], {"051d:0003": "nutdrv_qx"}) == ()


def test_a_hid_power_device() -> None:
    assert candidates([APC]) == (UsbUps(APC, "usbhid-ups", "its HID report descriptor"),)
    assert candidates([replace(APC, hid_power=None)]) == ()


def test_a_pattern() -> None:
    assert candidates([MUTE], policy=Patterns("051d:0002")) == (UsbUps(MUTE, "", "pattern 051d:0002"),)
    assert candidates([APC], policy=Patterns("051d:0002"))[0].driver == "usbhid-ups"


def test_a_device_that_ups_conf_names() -> None:
    assert candidates([MUTE], named=True) == (UsbUps(MUTE, "", "ups.conf names it"),)


def test_a_device_that_the_scanner_knows() -> None:
    assert candidates([MUTE], scanned={"051d:0002": "riello_usb"}) == (UsbUps(MUTE, "riello_usb", "nut-scanner"),)


@pytest.mark.parametrize("driver", ["", "snmp-ups", "new_usb"])
def test_a_driver_that_is_not_known_for_usb(driver: str) -> None:
    table = {"051d:0002": driver}
    assert candidates([MUTE], table) == (UsbUps(MUTE, "", "NUT's table"),)
    assert candidates([MUTE], table, scanned={"051d:0002": "nutdrv_qx"})[0].driver == "nutdrv_qx"
    assert candidates([APC], table)[0].driver == "usbhid-ups"


def test_apc_modbus_has_a_stand_in() -> None:
    assert candidates([replace(MUTE, hid_power=None)], {"051d:0002": "apc_modbus"})[0].driver == "usbhid-ups"


def test_what_is_ignored() -> None:
    ignoring = Patterns("051d:0002", nothing="051d:0002")
    assert candidates([APC], {"051d:0002": "usbhid-ups"}, ignoring, named=True) == ()


def test_a_hub_is_none() -> None:
    hub = replace(APC, hub=True)
    assert candidates([hub], {"051d:0002": "usbhid-ups"}, Patterns("051d:0002"), named=True) == ()


def test_the_order() -> None:
    devices = [
        replace(APC, place="b", device=1),
        replace(APC, place="a", bus=2, device=5),
        replace(APC, place="a", bus=1, device=7),
        replace(APC, place="a", bus=2, device=4),
    ]
    found = candidates(devices)
    assert [(ups.device.place, ups.device.incarnation) for ups in found] == [
        ("a", (1, 7)),
        ("a", (2, 4)),
        ("a", (2, 5)),
        ("b", (1, 1)),
    ]
    assert found == candidates(devices[::-1])
