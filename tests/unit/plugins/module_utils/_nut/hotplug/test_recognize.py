# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import APC, CPS, WANTED, HotplugMachine

MY_UPS = "[my-ups]\n    driver = auto\n    port = auto\n"
CH340 = "1a86:7523"
# of NUT 2.8.5
NEW_RULES = """\
#  SNR-UPS-LID-XXXX UPSes  - blazer_usb nutdrv_atcl_usb nutdrv_qx
ATTR{idVendor}=="0001", ATTR{idProduct}=="0000", MODE="664", GROUP="nut"
#  various models  - usbhid-ups
ATTR{idVendor}=="0463", ATTR{idProduct}=="ffff", MODE="664", GROUP="nut"
#  various models  - usbhid-ups
ATTR{idVendor}=="051d", ATTR{idProduct}=="0002", MODE="664", GROUP="nut"
#  various models  - usbhid-ups apc_modbus
ATTR{idVendor}=="051d", ATTR{idProduct}=="0003", MODE="664", GROUP="nut"
#  Voltronic Power UPSes  - blazer_usb nutdrv_qx
ATTR{idVendor}=="0665", ATTR{idProduct}=="5161", MODE="664", GROUP="nut"
#  Liebert PowerSure PSA UPS  - usbhid-ups
ATTR{idVendor}=="10af", ATTR{idProduct}=="0001", MODE="664", GROUP="nut"
#  NOTE: VID:PID may be used by non-UPS devices with CH340/341 chips! But also Ippon Innova TAE series  - nutdrv_qx
ATTR{idVendor}=="1a86", ATTR{idProduct}=="7523", MODE="664", GROUP="nut"
#  Arduino Leonardo, Leonardo ETH and Pro Micro - usbhid-ups
ATTR{idVendor}=="2341", ATTR{idProduct}=="8036", MODE="664", GROUP="nut"
#  GTS ...  - powervar_cx_usb
ATTR{idVendor}=="4234", ATTR{idProduct}=="0001", MODE="664", GROUP="nut"
"""


@pytest.fixture
def newest(machine: HotplugMachine) -> HotplugMachine:
    """Return a host with NUT 2.8.5, and [my-ups] with driver auto."""
    (machine.root / "rules/62-nut-usbups.rules").write_text(NEW_RULES)
    (machine.folder / "ups.conf.wanted").write_text(MY_UPS)
    (machine.root / "bin/powervar_cx_usb").touch()
    return machine


def keys(machine: HotplugMachine, name: str = "my-ups") -> dict[str, str | None]:
    return dict(machine.conf.sections[name].keys)


def plug_adapter(machine: HotplugMachine, port: str = "1-4") -> None:
    machine.bus.plug_in(port, CH340, "QinHeng", "USB Serial", None, hid=False)


# Drivers of NUT's table


@pytest.mark.parametrize(
    ("ids", "driver"),
    [
        ("0665:5161", "nutdrv_qx"),
        ("051d:0003", "usbhid-ups"),
        ("4234:0001", "powervar_cx_usb"),
    ],
)
def test_ups_gets_the_driver_that_nut_scanner_prefers(newest: HotplugMachine, ids: str, driver: str) -> None:
    newest.bus.plug_in("1-1", ids, hid=False)
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["driver"] == driver
    assert newest.conf.sections.keys() == {"my-ups"}


def test_table_counts_more_than_the_descriptor(newest: HotplugMachine) -> None:
    newest.bus.plug_in("1-1", "0001:0000", "MEC", "MEC0003")
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["driver"] == "nutdrv_qx"


def test_declared_keys_do_not_hide_the_driver(newest: HotplugMachine) -> None:
    (newest.folder / "ups.conf.wanted").write_text(f'{MY_UPS}    vendorid = "0665"\n    productid = "5161"\n')
    newest.run_hotplug(release=(2, 8, 5))
    newest.bus.plug_in("1-1", "0665:5161", hid=False)
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["driver"] == "nutdrv_qx"


def test_scanner_is_asked_about_declared_ups_with_unknown_driver(machine: HotplugMachine) -> None:
    (machine.folder / "ups.conf.wanted").write_text(f'{MY_UPS}    vendorid = "1234"\n')
    machine.run_hotplug()
    machine.scanner = (0, 'USB:driver="nutdrv_qx",port="auto",vendorid="1234",productid="5678",bus="001"\n')
    machine.bus.plug_in("1-1", "1234:5678", hid=False)
    machine.run_hotplug()
    assert keys(machine)["driver"] == "nutdrv_qx"
    assert machine.asked.count(["nut-scanner", "-U", "-q", "-P"]) == 1
    machine.run_hotplug()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked


# Serial adapters and boards


def test_adapter_is_no_ups(newest: HotplugMachine) -> None:
    newest.status["my-ups"] = "ERR DRIVER-NOT-CONNECTED"
    plug_adapter(newest)
    newest.run_hotplug(release=(2, 8, 5))
    assert newest.conf.sections.keys() == {"my-ups"}
    assert "1a86" not in newest.path.read_text()
    assert [line for line in newest.said if CH340 in line and "nut_hotplug_patterns" in line]
    newest.bus.plug_in("1-1", APC)
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["vendorid"] == "051d"
    assert newest.conf.sections.keys() == {"my-ups"}


def test_board_is_no_ups_unless_its_descriptor_says_so(newest: HotplugMachine) -> None:
    newest.status["my-ups"] = "ERR DRIVER-NOT-CONNECTED"
    newest.bus.plug_in(
        "1-4", "2341:8036", "Arduino LLC", "Arduino Leonardo", None, descriptor=b"\x05\x01\x09\x06\xa1\x01\xc0"
    )
    newest.run_hotplug(release=(2, 8, 5))
    assert "2341" not in newest.path.read_text()
    newest.bus.unplug_device("1-4")
    newest.bus.plug_in("1-4", "2341:8036", "Arduino LLC", "Arduino Leonardo", None)
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["vendorid"] == "2341"
    newest.status.clear()
    newest.bus.bind_nut("1-4")
    newest.run_hotplug(release=(2, 8, 5))
    assert newest.did == []
    assert newest.make_host(release=(2, 8, 5)).observe_host().resolution.absent == ()


def test_adapter_of_a_pattern_takes_no_name_before_it_has_data(newest: HotplugMachine) -> None:
    newest.policy["patterns"] = ["1a86:*"]
    newest.status |= {"my-ups": "ERR DRIVER-NOT-CONNECTED", "ups": "ERR DRIVER-NOT-CONNECTED"}
    plug_adapter(newest)
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest, "ups") == {"driver": "nutdrv_qx", "port": "auto", "vendorid": "1a86", "productid": "7523"}
    assert "vendorid" not in keys(newest)
    newest.bus.plug_in("1-1", APC)
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["vendorid"] == "051d"
    assert keys(newest, "ups")["vendorid"] == "1a86"


def test_adapter_with_data_gets_the_declared_name(newest: HotplugMachine) -> None:
    newest.policy["patterns"] = ["1a86:*"]
    newest.status |= {"my-ups": "ERR DRIVER-NOT-CONNECTED", "ups": "ERR DRIVER-NOT-CONNECTED"}
    plug_adapter(newest)
    newest.run_hotplug(release=(2, 8, 5))
    newest.now += 600
    newest.run_hotplug(release=(2, 8, 5))
    newest.now += 3600
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest, "ups")["vendorid"] == "1a86"
    newest.status.clear()
    for _run in range(3):
        newest.now += 60
        newest.update_upsd()
        if not newest.is_quiet:
            newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["vendorid"] == "1a86"
    assert newest.conf.sections.keys() == {"my-ups"}
    newest.now += 60
    newest.update_upsd()
    assert newest.is_quiet


def test_adapter_that_the_inventory_names_gets_the_name(newest: HotplugMachine) -> None:
    (newest.folder / "ups.conf.wanted").write_text(f'{MY_UPS}    vendorid = "1a86"\n    productid = "7523"\n')
    plug_adapter(newest)
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["driver"] == "nutdrv_qx"
    assert newest.conf.sections.keys() == {"my-ups"}


def test_adapter_that_became_a_ups_once_is_none_any_more(newest: HotplugMachine) -> None:
    text = "    driver = nutdrv_qx\n    port = auto\n    vendorid = 1a86\n    productid = 7523\n"
    newest.path.write_text(f"[my-ups]\n{text}\n# Found on the bus by nut-hotplug.\n[ups]\n{text}")
    newest.status |= {"my-ups": "ERR DRIVER-NOT-CONNECTED", "ups": "ERR DRIVER-NOT-CONNECTED"}
    plug_adapter(newest)
    plug_adapter(newest, "1-5")
    newest.now += 600
    newest.run_hotplug(release=(2, 8, 5))
    newest.now += 600
    newest.run_hotplug(release=(2, 8, 5))
    assert newest.conf.sections.keys() == {"my-ups"}
    assert keys(newest) == {"driver": "usbhid-ups", "port": "auto"}
    newest.bus.plug_in("1-1", APC)
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["vendorid"] == "051d"


def test_adapter_that_is_a_ups_keeps_its_section_while_it_is_unplugged(newest: HotplugMachine) -> None:
    newest.policy["patterns"] = ["1a86:*"]
    plug_adapter(newest)
    for _run in range(3):
        newest.run_hotplug(release=(2, 8, 5))
        newest.now += 60
    assert keys(newest)["vendorid"] == "1a86"
    newest.status["my-ups"] = "ERR DRIVER-NOT-CONNECTED"
    newest.bus.unplug_device("1-4")
    newest.run_hotplug(release=(2, 8, 5))
    newest.now += 600
    newest.run_hotplug(release=(2, 8, 5))
    assert keys(newest)["vendorid"] == "1a86"


# Texts that NUT can't read

EATON = "0463:ffff"
LISTED = 'USB:driver="usbhid-ups",port="auto",vendorid="0463",productid="FFFF",bus="001",device="002",busport="001"'
READ = f'{LISTED},product="Eaton 9E",serial="G123E45678",vendor="EATON"'


def plug_eaton(machine: HotplugMachine, port: str = "1-1", serial: str = "G123E45678") -> None:
    machine.bus.plug_in(port, EATON, "EATON", "Eaton 9E", serial)


def test_serial_that_nut_scanner_shows_is_pinned(newest: HotplugMachine) -> None:
    newest.scanner = (0, f"{READ}\n")
    plug_eaton(newest)
    newest.run_hotplug()
    assert keys(newest)["serial"] == "G123E45678"
    newest.run_hotplug()
    assert ["nut-scanner", "-U", "-q", "-P"] not in newest.asked


def test_serial_that_nut_scanner_does_not_show_is_not_pinned(newest: HotplugMachine) -> None:
    newest.scanner = (0, f"{LISTED}\n")
    newest.unreadable = {"serial", "product", "vendor"}
    plug_eaton(newest)
    newest.run_hotplug()
    assert keys(newest) == {"driver": "usbhid-ups", "port": "auto", "vendorid": "0463", "productid": "ffff"}
    assert newest.status.get("my-ups", "OL") == "OL"
    assert [line for line in newest.said if "NUT 2.8.1 can't read the serial number of 0463:ffff" in line]
    newest.run_hotplug()
    assert newest.did == []
    assert newest.said == []
    assert ["nut-scanner", "-U", "-q", "-P"] not in newest.asked
    newest.boot = "another"
    newest.run_hotplug()
    assert "serial" not in keys(newest)


def test_unreadable_twins_are_told_apart_by_their_ports(newest: HotplugMachine) -> None:
    newest.scanner = (0, f"{LISTED}\n{LISTED}\n")
    newest.unreadable = {"serial", "product", "vendor"}
    plug_eaton(newest)
    plug_eaton(newest, "1-2", "G123E99999")
    newest.run_hotplug()
    assert sorted(str(keys(newest, name)["busport"]) for name in ("my-ups", "ups")) == ["001", "002"]
    assert "serial" not in newest.path.read_text()


@pytest.mark.parametrize("scanner", [(0, ""), (127, "not found")])
def test_pinned_driver_that_finds_nothing_falls_back_to_ids(newest: HotplugMachine, scanner: tuple[int, str]) -> None:
    newest.scanner = scanner
    newest.unreadable = {"serial"}
    plug_eaton(newest)
    newest.run_hotplug()
    assert keys(newest)["serial"] == "G123E45678"
    for _run in range(6):
        newest.now += 60
        newest.run_hotplug()
        if "serial" not in keys(newest):
            break
    assert keys(newest) == {"driver": "usbhid-ups", "port": "auto", "vendorid": "0463", "productid": "ffff"}
    assert newest.units["nut-driver@my-ups.service"][0] == "active"
    assert newest.now < 1000 + 6 * 60
    newest.now += 600
    newest.run_hotplug()
    assert newest.did == []
    newest.bus.unplug_device("1-1")
    newest.run_hotplug()
    plug_eaton(newest, "1-3")
    newest.run_hotplug()
    assert "serial" not in keys(newest)


def test_serial_of_a_driver_that_works_stays(newest: HotplugMachine) -> None:
    newest.scanner = (0, f"{READ}\n")
    plug_eaton(newest)
    newest.run_hotplug()
    newest.boot = "another"
    newest.scanner = (0, f"{LISTED}\n")
    newest.run_hotplug()
    assert keys(newest)["serial"] == "G123E45678"
    assert newest.did == []


def test_declared_serial_that_its_driver_does_not_find_is_explained(newest: HotplugMachine) -> None:
    (newest.folder / "ups.conf.wanted").write_text(f'{MY_UPS}    serial = "G123E45678"\n')
    newest.scanner = (127, "not found")
    newest.unreadable = {"serial"}
    plug_eaton(newest)
    lines = []
    for _run in range(4):
        newest.run_hotplug()
        lines += newest.said
        newest.now += 60
    (line,) = [line for line in lines if "NUT may not be able to read that" in line]
    assert line.startswith("[my-ups]: its driver does not find 0463:ffff")
    assert "without serial" in line
    assert keys(newest)["serial"] == "G123E45678"


def test_another_release_is_asked_again(newest: HotplugMachine) -> None:
    newest.scanner = (0, f"{LISTED}\n")
    plug_eaton(newest)
    newest.run_hotplug()
    newest.boot = "another"
    newest.scanner = (0, f"{READ}\n")
    newest.status["my-ups"] = "ERR DRIVER-NOT-CONNECTED"
    newest.units["nut-driver@my-ups.service"] = ("failed", "enabled")
    newest.run_hotplug(release=(2, 8, 4))
    assert keys(newest)["serial"] == "G123E45678"


def test_serial_that_is_no_longer_trusted_stays_until_the_driver_stops(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", CPS, "CPS", "CP1500", "QB0000123456")
    machine.run_hotplug()
    path = machine.root / "state/state.json"
    for file in (path, machine.path):
        file.write_text(file.read_text().replace("QB0000123456", "0764-0501-0001"))
    (machine.bus.sysfs / "bus/usb/devices/1-1/serial").write_text("0764-0501-0001\n")
    machine.run_hotplug()
    assert machine.did == []
    assert dict(machine.conf.sections["ups"].keys)["serial"] == "0764-0501-0001"
    machine.units["nut-driver@ups.service"] = ("failed", "enabled")
    machine.now += 600
    machine.run_hotplug()
    assert "serial" not in dict(machine.conf.sections["ups"].keys)


# Models that NUT does not know


def test_unknown_maker_takes_no_name_and_the_remedy_is_named(newest: HotplugMachine) -> None:
    newest.status |= {"my-ups": "ERR DRIVER-NOT-CONNECTED", "ups": "ERR DRIVER-NOT-CONNECTED"}
    newest.bus.plug_in("1-1", "2b89:ffff", "UGREEN", "US3000", "U30A12B4567")
    newest.run_hotplug()
    assert keys(newest)["vendorid"] == "none"
    assert keys(newest, "ups")["vendorid"] == "2b89"
    assert [
        line for line in newest.said if "[ups]: " in line and "2b89:ffff" in line and "Set subdriver: Arduino" in line
    ]
    (newest.folder / "ups.conf.wanted").write_text(f"{MY_UPS}    subdriver = Arduino\n")
    newest.now += 60
    newest.run_hotplug()
    assert (keys(newest)["vendorid"], keys(newest)["subdriver"]) == ("2b89", "Arduino")
    assert "ups" not in newest.conf.sections
    assert [line for line in newest.said if "does not know the model 2b89:ffff" in line]


def test_unknown_maker_with_a_rule_takes_the_name(newest: HotplugMachine) -> None:
    newest.policy["rules"] = [{"vendor": "2b89", "options": {"subdriver": "Arduino"}}]
    newest.bus.plug_in("1-1", "2b89:ffff", "UGREEN", "US3000", "U30A12B4567")
    newest.run_hotplug()
    assert (keys(newest)["vendorid"], keys(newest)["subdriver"]) == ("2b89", "Arduino")


def test_unknown_maker_needs_a_newer_release_on_debian_12(newest: HotplugMachine) -> None:
    newest.bus.plug_in("1-1", "2b89:ffff", "UGREEN", "US3000", "U30A12B4567")
    newest.run_hotplug(release=(2, 8, 0))
    assert [line for line in newest.said if "2b89:ffff" in line and "since 2.8.1. Upgrade NUT" in line]


def test_model_served_by_its_productid_is_remarked_on(newest: HotplugMachine) -> None:
    newest.bus.plug_in("1-1", "10af:0002", "Vertiv Co.", "Liebert PSI5", "2322410918A4A3C")
    newest.run_hotplug()
    assert keys(newest)["productid"] == "0002"
    assert [line for line in newest.said if "[my-ups]: NUT 2.8.1 does not know the model 10af:0002" in line]


@pytest.mark.parametrize(
    ("ids", "more", "remedy"),
    [
        ("10af:0002", "", 'productid: "0002"'),
        ("10af:0002", "    productid = 0002\n", "only because ups.conf names its productid"),
        ("2b89:ffff", "    vendorid = 2b89\n", "Set subdriver: Arduino"),
        ("2b89:ffff", "    subdriver = Arduino\n", "only because ups.conf names a subdriver"),
    ],
)
def test_unknown_model_of_a_fixed_section_is_remarked_on(
    newest: HotplugMachine, ids: str, more: str, remedy: str
) -> None:
    (newest.folder / "ups.conf.wanted").unlink()
    newest.path.write_text(f"[my-ups]\n    driver = usbhid-ups\n    port = auto\n{more}")
    newest.bus.plug_in("1-1", ids)
    newest.run_hotplug()
    assert [line for line in newest.said if line.startswith("[my-ups]: ") and remedy in line]


@pytest.mark.parametrize("ids", [APC, EATON])
def test_model_of_the_table_is_not_remarked_on(newest: HotplugMachine, ids: str) -> None:
    newest.bus.plug_in("1-1", ids)
    newest.run_hotplug()
    assert not [line for line in newest.said if "does not know" in line]


# Keys that nearly match


def test_value_with_signs_of_a_regular_expression_is_explained(newest: HotplugMachine) -> None:
    (newest.folder / "ups.conf.wanted").write_text(f'{MY_UPS}    product = "Back-UPS (ES)"\n')
    newest.bus.plug_in("1-1", APC, product="Back-UPS (ES)")
    newest.run_hotplug()
    (line,) = [line for line in newest.said if line.startswith("[my-ups]: no UPS on the bus has its product")]
    assert 'so write product: "Back-UPS [(]ES[)]"' in line


def test_serial_from_the_sticker_is_explained(newest: HotplugMachine) -> None:
    (newest.folder / "ups.conf.wanted").write_text(f'{MY_UPS}    serial = "STICKER123"\n')
    newest.bus.plug_in("1-1", APC)
    newest.run_hotplug()
    assert [
        line for line in newest.said if "[my-ups]: no UPS on the bus has its serial" in line and "5B1234T56789" in line
    ]


@pytest.mark.parametrize("vendor", ["0x051d", "051c"])
def test_wrong_id_in_a_fixed_section_is_explained(newest: HotplugMachine, vendor: str) -> None:
    (newest.folder / "ups.conf.wanted").unlink()
    newest.path.write_text(
        f"[my-ups]\n    driver = usbhid-ups\n    port = auto\n    vendorid = {vendor}\n    productid = 0002\n"
    )
    newest.bus.plug_in("1-1", APC)
    newest.bus.plug_in("1-2", CPS)
    newest.run_hotplug()
    assert [line for line in newest.said if f"its vendorid is 051d, not {vendor}" in line]


def test_ups_that_is_merely_unplugged_is_not_explained(newest: HotplugMachine) -> None:
    (newest.folder / "ups.conf.wanted").write_text(f'{WANTED}    serial = "5B1234T56789"\n')
    newest.bus.plug_in("1-1", APC)
    newest.run_hotplug()
    newest.bus.plug_in("1-2", APC, serial="5B9999T11111")
    newest.run_hotplug()
    newest.bus.unplug_device("1-1")
    newest.run_hotplug()
    assert not [line for line in newest.said if "no UPS on the bus" in line]
