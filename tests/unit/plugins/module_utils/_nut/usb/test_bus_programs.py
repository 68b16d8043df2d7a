# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import ScannerError, UsbDevice, UsbError, UsbUps
from ansible_collections.homelab.nut.tests.unit.support import usb_devices
from hypothesis import example, given
from hypothesis import strategies as st

APC = replace(usb_devices.APC, device=3, accessible=True)


def says(code: int, said: str, asked: list[list[str]] | None = None) -> Callable[[Sequence[str]], tuple[int, str]]:
    def runner(command: Sequence[str]) -> tuple[int, str]:
        if asked is not None:
            asked.append(list(command))
        return code, said

    return runner


# lsusb

LSUSB = """Bus 002 Device 001: ID 1d6b:0003 Linux Foundation 3.0 root hub
Bus 001 Device 004: ID 051d:0002 American Power Conversion Uninterruptible Power Supply
Bus 001 Device 003: ID 0764:0501
Bus 001 Device 001: ID 1d6b:0002 Linux Foundation 2.0 root hub
"""


def test_lsusb_lists_devices() -> None:
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
def test_failed_lsusb_is_an_error(code: int, said: str, message: str) -> None:
    with pytest.raises(UsbError, match=f"^lsusb: {message}$"):
        bus.scan_with_lsusb(says(code, said))


@pytest.mark.parametrize(("code", "said"), [(127, "not found"), (1, "unable to initialize libusb: -99"), (1, "")])
def test_host_without_usb_has_no_bus(tmp_path: Path, code: int, said: str) -> None:
    (tmp_path / "bus").mkdir()
    with pytest.raises(bus.NoUsbBus, match=r"this host has no USB bus .*/bus/usb/devices does not exist"):
        bus.scan_devices(tmp_path, tmp_path, says(code, said))


def test_lsusb_is_believed_where_sysfs_shows_no_bus(tmp_path: Path) -> None:
    devices, why = bus.scan_devices(tmp_path, tmp_path, says(0, LSUSB))
    assert len(devices) == 4
    assert why.startswith("this host has no USB bus")


def test_bus_that_cannot_be_read_is_no_missing_bus(tmp_path: Path) -> None:
    (tmp_path / "bus/usb").mkdir(parents=True)
    (tmp_path / "bus/usb/devices").write_text("")
    for sysfs in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsbError) as raised:
            bus.scan_devices(sysfs, tmp_path, says(127, ""))
        assert not isinstance(raised.value, bus.NoUsbBus)


def test_forged_lsusb_line_drops_the_device() -> None:
    forged = LSUSB.replace("Power Supply", "Power Supply\nBus 001 Device 003: ID dead:beef x")
    assert [device.name for device in bus.scan_with_lsusb(says(0, forged))] == ["usb1", "1-dev4", "usb2"]


@given(st.text(max_size=255))
@example(" \r\x0b\x85Bus 001 Device 009: ID dead:beef x")
def test_text_from_lsusb_forges_no_device(text: str) -> None:
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


def test_id_table_maps_ids_to_drivers(tmp_path: Path) -> None:
    (tmp_path / "62-nut-usbups.rules").write_text(RULES)
    assert bus.read_id_table([tmp_path / "none", tmp_path]) == {
        "0001:0000": "nutdrv_qx",
        "03f0:0001": "usbhid-ups",
        "03f0:1f01": "bcmxcp_usb",
        "03f0:1f02": "",
    }


@pytest.mark.parametrize(
    ("drivers", "preferred"),
    [
        # as in the rules and the table of nut-scanner of 2.8.2 to 2.8.5
        ("blazer_usb nutdrv_qx", "nutdrv_qx"),
        ("bcmxcp_usb blazer_usb nutdrv_qx", "nutdrv_qx"),
        ("blazer_usb nutdrv_atcl_usb nutdrv_qx", "nutdrv_qx"),
        ("nutdrv_qx richcomm_usb", "nutdrv_qx"),
        ("usbhid-ups apc_modbus", "usbhid-ups"),
        ("usbhid-ups powervar_cx_usb", "usbhid-ups"),
        ("usbhid-ups usbhid-ups", "usbhid-ups"),
        ("powervar_cx_usb", "powervar_cx_usb"),
        # others
        ("blazer_usb riello_usb", "blazer_usb"),
        ("bcmxcp_usb riello_usb", "riello_usb"),
        ("blazer_usb,nutdrv_qx", "nutdrv_qx"),
        ("blazer_usb  nutdrv_qx\t", "nutdrv_qx"),
    ],
)
def test_rule_with_several_drivers_means_the_one_that_nut_scanner_prefers(
    tmp_path: Path, drivers: str, preferred: str
) -> None:
    text = f'#  Maker - OEM, 5 kVA  - {drivers}\nATTR{{idVendor}}=="0665", ATTR{{idProduct}}=="5161", MODE="664"\n'
    (tmp_path / "62-nut-usbups.rules").write_text(text)
    assert bus.read_id_table([tmp_path]) == {"0665:5161": preferred}


def test_rules_file_hides_files_of_the_same_name_in_later_folders(tmp_path: Path) -> None:
    for folder, ids in (("etc", "1111"), ("lib", "2222")):
        (tmp_path / folder).mkdir()
        text = f'#  x  - {folder}\nATTR{{idVendor}}=="{ids}", ATTR{{idProduct}}=="0001", MODE="664"\n'
        (tmp_path / folder / "62-nut-usbups.rules").write_text(text)
    (tmp_path / "lib/52-nut-usbups.rules").write_text(text.replace("2222", "3333"))
    (tmp_path / "lib/63-own.rules").write_text(text.replace("2222", "4444"))

    assert bus.read_id_table([tmp_path / "etc", tmp_path / "lib"]) == {"1111:0001": "etc", "3333:0001": "lib"}


def test_missing_id_table_is_empty(tmp_path: Path) -> None:
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
def test_nut_scanner_maps_ids_to_drivers(said: str) -> None:
    asked: list[list[str]] = []
    assert bus.ask_scanner(says(0, said, asked)) == {"051d:0002": "usbhid-ups"}
    assert asked == [["nut-scanner", "-U", "-q", "-P"]]


@pytest.mark.parametrize(("code", "said"), [(0, ""), (1, "No USB device found: Resource temporarily unavailable\n")])
def test_nut_scanner_without_ups_returns_nothing(code: int, said: str) -> None:
    assert bus.ask_scanner(says(code, said)) == {}


@pytest.mark.parametrize(
    ("code", "said", "message"), [(127, "", "exit code 127"), (255, "unknown option\n", "unknown option")]
)
def test_failed_nut_scanner_is_an_error(code: int, said: str, message: str) -> None:
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
def test_malformed_line_is_ignored(line: str) -> None:
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
def test_text_within_a_line_changes_nothing(product: str) -> None:
    assert bus.ask_scanner(says(0, scanned(product))) == HONEST


def test_forged_line_with_a_second_driver_drops_the_id() -> None:
    assert bus.ask_scanner(says(0, scanned(FORGED))) == {"0665:5161": "nutdrv_qx"}


FORGED_IDS = FORGED.replace("051d", "046d")


@pytest.mark.parametrize(
    "liar",
    [replace(APC, manufacturer=FORGED_IDS), replace(APC, product=FORGED_IDS), replace(APC, serial=FORGED_IDS)],
)
def test_newline_in_a_text_voids_the_result(liar: UsbDevice) -> None:
    said = scanned(FORGED_IDS)
    assert bus.ask_scanner(says(0, said), [APC, liar]) == {}
    assert bus.ask_scanner(says(0, scanned("UPS")), [APC]) == HONEST


@given(st.text(max_size=400))
def test_any_output_is_parsed(said: str) -> None:
    for ids, driver in bus.ask_scanner(says(0, said)).items():
        assert f'driver="{driver}"' in said
        assert len(ids) == 9


# Choosing the UPSes


@dataclass(frozen=True)
class Patterns:
    """A policy: ids of UPSes, and ids to ignore."""

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


def test_device_of_the_table_is_a_ups() -> None:
    assert candidates([APC], {"051d:0002": "nutdrv_qx"}) == (UsbUps(APC, "nutdrv_qx", "NUT's table"),)
    assert candidates([MUTE], {"051d:0003": "nutdrv_qx"}) == ()


def test_hid_power_device_is_a_ups() -> None:
    assert candidates([APC]) == (UsbUps(APC, "usbhid-ups", "its HID report descriptor"),)
    assert candidates([replace(APC, hid_power=None)]) == ()


def test_device_matching_the_policy_is_a_ups() -> None:
    assert candidates([MUTE], policy=Patterns("051d:0002")) == (UsbUps(MUTE, "", "pattern 051d:0002"),)
    assert candidates([APC], policy=Patterns("051d:0002"))[0].driver == "usbhid-ups"


def test_device_named_by_ups_conf_is_a_ups() -> None:
    assert candidates([MUTE], named=True) == (UsbUps(MUTE, "", "ups.conf names it"),)


def test_device_known_to_nut_scanner_is_a_ups() -> None:
    assert candidates([MUTE], scanned={"051d:0002": "riello_usb"}) == (UsbUps(MUTE, "riello_usb", "nut-scanner"),)


@pytest.mark.parametrize("driver", ["", "snmp-ups", "new_usb"])
def test_unknown_driver_is_not_used(driver: str) -> None:
    table = {"051d:0002": driver}
    assert candidates([MUTE], table) == (UsbUps(MUTE, "", "NUT's table"),)
    assert candidates([MUTE], table, scanned={"051d:0002": "nutdrv_qx"})[0].driver == "nutdrv_qx"
    assert candidates([APC], table)[0].driver == "usbhid-ups"


def test_driver_of_a_newer_release_is_used() -> None:
    assert candidates([MUTE], {"051d:0002": "powervar_cx_usb"})[0].driver == "powervar_cx_usb"
    for driver, used in (("new_usb", "new_usb"), ("snmp-ups", ""), ("gone_usb", "")):
        found = bus.find_upses(
            [MUTE], {"051d:0002": driver}, Patterns(), lambda _device: False, installed=lambda name: name != "gone_usb"
        )
        assert found[0].driver == used


def test_support_of_a_model_follows_from_the_table() -> None:
    table = {"051d:0001": "usbhid-ups", "0764:0501": "nutdrv_qx"}
    cps = replace(APC, vendor_id="0764", product_id="0601")
    assert [ups.support for ups in candidates([APC, cps, replace(APC, product_id="0001")], table)] == [
        bus.VENDOR,
        bus.NOTHING,
        bus.MODEL,
    ]
    assert candidates([APC])[0].support == bus.MODEL
    assert candidates([cps], table, scanned={"0764:0601": "usbhid-ups"})[0].support == bus.MODEL


ADAPTERS = ["1a86:7523", "1a86:5523", "067b:2303", "10c4:ea60", "0403:6001", "4348:5523", "2341:8036", "04d8:000a"]


@pytest.mark.parametrize("ids", ADAPTERS)
def test_adapter_is_a_ups_only_if_somebody_says_so(ids: str) -> None:
    vendor, product = ids.split(":")
    device = replace(MUTE, vendor_id=vendor, product_id=product)
    table, driver = {ids: "nutdrv_qx"}, {ids: "nutdrv_qx"}
    assert candidates([device], table) == candidates([device], scanned=driver) == ()
    assert candidates([device], table, Patterns(ids)) == (UsbUps(device, "nutdrv_qx", f"pattern {ids}"),)
    assert candidates([device], table, named=True) == (UsbUps(device, "nutdrv_qx", "ups.conf names it"),)
    assert bus.find_upses([device], table, Patterns(), lambda _device: True, chosen=lambda _device: False) == ()
    # the descriptor proves it
    assert candidates([replace(device, hid_power=True)], table)[0].why == "NUT's table"


def test_ids_of_makers_of_upses_are_not_generic() -> None:
    for ids in ("051d:0002", "0665:5161", "0001:0000", "04b4:5500", "0483:0035", "0925:1234", "04d8:d004", "ffff:0000"):
        assert candidates([replace(MUTE, vendor_id=ids[:4], product_id=ids[5:])], {ids: "nutdrv_qx"}), ids


def test_apc_modbus_is_replaced_by_usbhid_ups() -> None:
    assert candidates([replace(MUTE, hid_power=None)], {"051d:0002": "apc_modbus"})[0].driver == "usbhid-ups"


def test_ignored_device_is_left_out() -> None:
    ignoring = Patterns("051d:0002", nothing="051d:0002")
    assert candidates([APC], {"051d:0002": "usbhid-ups"}, ignoring, named=True) == ()


def test_hub_is_never_a_ups() -> None:
    hub = replace(APC, hub=True)
    assert candidates([hub], {"051d:0002": "usbhid-ups"}, Patterns("051d:0002"), named=True) == ()


def test_upses_are_ordered_by_place_and_incarnation() -> None:
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
