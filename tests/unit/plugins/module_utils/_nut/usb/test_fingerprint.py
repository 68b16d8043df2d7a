# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.fingerprint import Fingerprint
from ansible_collections.homelab.nut.tests.unit.support.usb_devices import (
    APC,
    CPS,
    NEW,
    OLD,
    PRINTABLE,
    libc_takes,
)
from hypothesis import example, given
from hypothesis import strategies as st

# Serial numbers


@pytest.mark.parametrize(
    "serial",
    # from real UPSes
    [
        "5B1234T56789",
        "AS1035120444",
        "AN2E49008",
        "4B1130P52215",
        "3B1519X19994",
        "AV2G3300L",
        "R631ZABAWH4E0123",
        "CRMLZ2000123",
        "3950VVOSM123400567",
        "9930904E31",
    ],
)
def test_serial_is_trusted(serial: str) -> None:
    assert fingerprint.trusted_serial(replace(APC, serial=serial)) == serial
    # APC pads with blanks
    assert fingerprint.trusted_serial(replace(APC, serial=f"\t {serial}  \n")) == serial


@pytest.mark.parametrize(
    "serial",
    [
        "",
        " ",
        # from real UPSes
        "CPS",
        "000000000",
        "000000000000  ",
        "XXXXXXXXXXXX",
        "Blank",
        "FW-2263 E",
        "FW-2473 A",
        "LI-ION",
        "PBSO4-LiFePO",
        "00000001",
        "CPS1234567890",
        # similar ones
        "123",
        "A1",
        "A-1-B",
        "----------",
        "1111111111",
        "A0A0A0A0A0",
        "0-0-0-0-0",
        "000000999",
        "SN00000001",
        "12345678",
        "1234567890",
        "0123456789",
        "123456789ABC",
        "AB-CD-EF-01",
        "987654321",
        "abcdefgh",
        "SERIALNO",
        "FW2473A",
        "REV12345",
        "ver2.40.17",
        "x-rev3456",
        "1.05.33",
        "V02.08.0010",
        "PbAc12V7",
        "Lead-Acid-12",
        "VRLA1272",
        "LIION4872",
        "LiFePO4-512",
        "serial3456",
        "Unknown-4711",
        "n/a-34567",
        "None34571",
        "TBD-34571",
        "Not-Available-3",
        "default8472",
        "testunit8472",
        "2010/05/20",
        "20-05-2010",
        "051D:0002",
        "0002051d",
        "051D0002",
        # part of the device's other texts
        "ES700G",
        "es-700g",
        "871.O4",
        "Conversion",
        # unsafe in a file or a pattern
        'AS1035"120444',
        "AS1035#120444",
        "AS1035\\120444",
        "AS1035'120444",
        "AS1035`120444",
        "AS1035^120444",
        "AS1035 120444",
        "AS1035\t120444",
        "AS1035\n120444",
        "AS1035\x00120444",
        "AS1035\x7f120444",
        "AS1035é120444",
        "AS1035\udcff120444",
    ],
)
def test_worthless_serial_is_not_trusted(serial: str) -> None:
    assert fingerprint.trusted_serial(replace(APC, serial=serial)) == ""


@given(st.binary(max_size=255).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_trusted_serial_is_always_harmless(serial: str) -> None:
    trusted = fingerprint.trusted_serial(replace(APC, serial=serial))
    assert trusted in serial
    assert grammar.parse_lines(f"serial = {grammar.quote_word(trusted)}\n")
    assert trusted.isascii()
    assert not set(trusted) & set(" \"'#\\`^\n\t")


@pytest.mark.parametrize(
    ("ids", "product", "serial"),
    [
        # from real UPSes
        ("0d9f:0004", "HID UPS Battery", "004-0D9F-000"),
        ("0d9f:00a4", "HID UPS Battery FW3.A4", "3A4-0000-0001"),
        ("0d9f:00a2", "HID UPS Battery FW2.A2", "2A2-0000-0001"),
        ("0d9f:00a2", "HID UPS Battery FW3.A2", "3A2-0000-0001"),
        ("0d9f:00a4", "HID UPS Battery FW2.A4", "2A4-0000-0001"),
        ("0483:a113", "UPS", "00000000001A"),
        # similar ones
        ("0d9f:00a2", "UPS", "004-0D9F-000"),
        ("0d9f:00a4", "UPS", "3A4-0000-0001"),
        ("0764:0501", "UPS", "0764-0501-0001"),
        ("0764:0501", "UPS", "07640501-1A"),
        ("0764:0501", "UPS", "1A000000000"),
        ("0764:0501", "PR750ERT", "PR750ERT-0001"),
        ("0764:0501", "UPS", "A1B2A1B2A1B2"),
        ("0764:0501", "UPS", "DEADBEEF"),
        ("0764:0501", "UPS", "0xDEADBEEF"),
        ("0665:5161", "USB to Serial", "20080314"),
        ("0665:5161", "USB to Serial", "SN14032008"),
        ("0001:0000", "MEC0003", "A02014090305"),
        ("0001:0000", "MEC0003", "112233445566"),
        ("0001:0000", "MEC0003", "00:11:22:33:44:55"),
        ("0001:0000", "MEC0003", "1A2B3C4D"),
        ("0001:0000", "MEC0003", "1234ABCD"),
        ("0001:0000", "MEC0003", "123456A"),
        ("0001:0000", "MEC0003", "2147483647"),
        ("0001:0000", "MEC0003", "65535"),
    ],
)
def test_constant_serial_is_not_trusted(ids: str, product: str, serial: str) -> None:
    vendor_id, product_id = ids.split(":")
    device = replace(CPS, vendor_id=vendor_id, product_id=product_id, product=product, serial=serial)
    assert fingerprint.trusted_serial(device) == ""


@pytest.mark.parametrize(
    "serial",
    [
        "QB0000123456",
        "CRMLZ2000123",
        "G123E45678",
        "2322410918A4A3C",
        "U30A12B4567",
        "B2023111500123",
        "2250HW872100251",
    ],
)
def test_serial_with_zeros_or_letters_is_trusted(serial: str) -> None:
    assert fingerprint.trusted_serial(replace(CPS, serial=serial)) == serial


# Identity


def test_fingerprint_has_ids_serial_and_place() -> None:
    assert fingerprint.make_fingerprint(APC) == Fingerprint("051d", "0002", "5B1234T56789", APC.place)
    assert fingerprint.make_fingerprint(replace(APC, serial="000000000")).serial == ""


def test_fingerprint_as_text() -> None:
    assert str(fingerprint.make_fingerprint(APC)) == "051d:0002 5B1234T56789"
    assert str(fingerprint.make_fingerprint(CPS)) == "0764:0501 at pci-0000:00:14.0-usb-0:1.4"
    assert str(fingerprint.make_fingerprint(replace(CPS, place=""))) == "0764:0501"


def test_fingerprints_are_compared_by_serial_or_place() -> None:
    apc, cps = fingerprint.make_fingerprint(APC), fingerprint.make_fingerprint(CPS)
    assert fingerprint.compare_fingerprints(apc, apc) == 3
    assert fingerprint.compare_fingerprints(cps, cps) == 3
    # the place counts only without a serial
    assert fingerprint.compare_fingerprints(apc, replace(apc, place="elsewhere")) == 3
    assert fingerprint.compare_fingerprints(cps, replace(cps, place="elsewhere")) == 2
    assert fingerprint.compare_fingerprints(replace(cps, place=""), replace(cps, place="")) == 2
    for other in (
        replace(apc, serial="3B1519X19994"),
        replace(apc, serial=""),
        replace(apc, vendor_id="051e"),
        replace(apc, product_id="0003"),
        cps,
    ):
        assert fingerprint.compare_fingerprints(apc, other) == 0
        assert fingerprint.compare_fingerprints(other, apc) == 0


# Matching


def takes(device: UsbDevice, /, **keys: str | None) -> bool:
    return fingerprint.matches_device(Section("ups", tuple(keys.items())), device)


def test_section_without_keys_matches_any_device() -> None:
    assert takes(APC)
    assert takes(CPS, driver="usbhid-ups", port="auto", desc="Rack")
    assert takes(CPS, driver="auto", port="auto")
    assert takes(CPS, driver="new_usb")


def test_driver_of_a_newer_release_matches_with_port_auto() -> None:
    assert takes(APC, driver="powervar_cx_usb", port="auto")
    assert takes(APC, driver="nutdrv_new", port="auto", vendorid="051d")
    assert takes(APC, driver="apc_modbus", port="auto", vendorid="051d")
    assert not takes(APC, driver="apc_modbus", port="/dev/ttyS0", vendorid="051d")
    assert not takes(APC, driver="apcsmart", port="auto", vendorid="051d")


def test_text_that_nut_can_not_read_matches_nothing() -> None:
    device = replace(APC, unread=frozenset({"serial", "product"}))
    assert not fingerprint.matches_device(Section("ups", (("serial", APC.serial),)), device)
    assert not fingerprint.matches_device(Section("ups", (("product", "Back-UPS.*"),)), device)
    assert fingerprint.matches_device(Section("ups", (("vendor", "American.*"), ("serial", ".*"))), device)
    assert fingerprint.make_fingerprint(device) == fingerprint.make_fingerprint(APC)


@pytest.mark.parametrize("driver", ["dummy-ups", "snmp-ups", "apcsmart"])
def test_section_of_a_non_usb_driver_matches_nothing(driver: str) -> None:
    assert not takes(APC, driver=driver, vendorid="051d")


@pytest.mark.parametrize(
    ("key", "value", "taken"),
    [
        ("vendorid", "051d", True),
        ("vendorid", "051D", True),
        ("VendorID", "051d", True),
        ("vendorid", "051", False),
        ("vendorid", "0x051d", False),
        ("vendorid", "051e", False),
        ("vendorid", "051.", True),
        ("vendorid", "05", False),
        ("productid", "0002", True),
        ("productid", "2", False),
        ("productid", "000[1-3]", True),
        ("vendor", "american power conversion", True),
        ("vendor", "American", False),
        ("vendor", "American.*", True),
        ("vendor", ".*Power.*", True),
        ("vendor", "(APC|American Power Conversion)", True),
        ("product", "Back-UPS.*", True),
        ("product", "Back-UPS ES 700G FW:871.O4 .I USB FW:O4", True),
        ("serial", "5B1234T56789", True),
        ("serial", "5b[[:digit:]]{4}T[0-9]+", True),
        ("serial", " 5B1234T56789", False),
        ("serial", "", False),
        ("serial", ".*", True),
        ("serial", "5B1234T5678", False),
        ("serial", "5B1234T5678|5B1234T56789", True),
        ("bus", "001", True),
        ("bus", "1", False),
        ("bus", "00[12]", True),
        ("bus", "002", False),
        ("busport", "004", True),
        ("busport", "001", False),
        ("device", "004", True),
        ("device", "4", False),
        ("device", "005", False),
        # the driver refuses to start
        ("serial", "(", False),
        ("serial", "5B1234T56789\\", False),
        ("serial", "[", False),
        ("serial", "5B1234T5678[9]\0x", False),
        # no value, or an unrelated key
        ("serial", None, True),
        ("pollfreq", "31", True),
    ],
)
def test_key_matches_as_in_nut(key: str, value: str | None, taken: bool) -> None:
    assert takes(APC, **{key: value}) is taken


def test_root_hub_has_no_busport() -> None:
    assert takes(replace(APC, name="usb1"), busport="")
    assert not takes(replace(APC, name="usb1"), busport="000")


def test_nut_280_reads_no_device_number() -> None:
    for key in ("device", "busport"):
        section = Section("ups", ((key, "004"),))
        assert fingerprint.matches_device(section, APC, NEW)
        assert not fingerprint.matches_device(section, APC, OLD)
    assert fingerprint.matches_device(Section("ups", (("device", ".*"), ("bus", "001"))), APC, OLD)


def test_all_keys_must_match() -> None:
    assert takes(APC, vendorid="051d", productid="0002", bus="001")
    assert not takes(APC, vendorid="051d", productid="0002", bus="002")
    assert not takes(APC, vendorid="0764", productid="0002")


def test_last_of_duplicate_keys_counts() -> None:
    assert fingerprint.matches_device(Section("ups", (("serial", "x"), ("SERIAL", APC.serial))), APC)
    assert not fingerprint.matches_device(Section("ups", (("serial", APC.serial), ("serial", "x"))), APC)


def test_missing_text_counts_as_empty() -> None:
    assert takes(CPS, serial="")
    assert takes(CPS, serial="(x)?")
    assert not takes(CPS, serial=".")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("\t UPS \n", "UPS"),
        # a ? for each unit of UTF-16 above 255
        ("ж😀", "[?]{3}"),
        ("\udcff", "[?]"),
        ("a\x0bb\x7f", "a.b."),
        ("\x0bUPS\r", ".UPS."),
    ],
)
def test_texts_are_matched_as_read_by_libusb(text: str, read: str) -> None:
    for key, device in (
        ("vendor", replace(APC, manufacturer=text)),
        ("product", replace(APC, product=text)),
        ("serial", replace(APC, serial=text)),
    ):
        assert takes(device, **{key: read})


@pytest.mark.parametrize(
    ("release", "pattern", "matches"),
    [
        ((2, 8, 2), "K[?]se", True),
        ((2, 8, 3), "K[?]se", False),
        ((2, 8, 2), "K[^?[:print:]]se", False),
        ((2, 8, 3), "K[^?[:print:]]se", True),
        ((2, 8, 2), "K.se", True),
        ((2, 8, 3), "K.se", True),
    ],
)
def test_umlaut_is_a_byte_since_2_8_3(release: tuple[int, int, int], pattern: str, matches: bool) -> None:
    """Before, libusb_get_string_descriptor_ascii() gave a ? for each unit of UTF-16 that is not ASCII."""
    section = Section("ups", (("serial", pattern),))
    assert fingerprint.matches_device(section, replace(APC, serial="Käse"), release) == matches


@given(st.text(max_size=60), st.text(max_size=60))
@example("x" * 3000, "(((((((")
@example("\0", "\0")
@example("ж", "ж")
def test_matching_never_raises(text: str, pattern: str) -> None:
    assert takes(replace(APC, serial=text), serial=pattern) in (True, False)


# patterns that Python's re would read differently: NUT uses the C library's POSIX dialect
OTHER_DIALECT = [
    (r"AS\d+", "AS123", False),
    (r"[\d]+", "d\\", True),
    ("AS[[:digit:]]+", "AS123", True),
    ("(?i)as1", "AS1", False),
    ("(?:AS)1", "AS1", False),
    ("(?!AS)..", "CP", False),
    (r"\AAS1\Z", "AS1", False),
    ("a{2", "a{2", False),
    ("AS)", "AS)", True),
    ("AS(", "AS(", False),
    ("AS++", "ASS", True),
    (r"AS\w+", "AS12", True),
]


@pytest.mark.parametrize(("pattern", "serial", "taken"), OTHER_DIALECT)
def test_patterns_are_posix(pattern: str, serial: str, taken: bool) -> None:
    assert takes(replace(APC, serial=serial), serial=pattern) is taken


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        ((), True),
        ((("vendorid", "051D"), ("serial", "other"), ("driver", "apcsmart")), True),
        ((("VendorID", "05(1d|1e)"), ("productid", "0002")), True),
        ((("vendorid", "051d"), ("productid", "0003")), False),
        ((("vendorid", "none"),), False),
        ((("vendorid", "("),), False),
        ((("vendorid", None),), True),
    ],
)
def test_model_is_matched_by_ids_alone(keys: tuple[tuple[str, str | None], ...], taken: bool) -> None:
    assert fingerprint.matches_model(Section("ups", keys), "051d", "0002") is taken


@given(PRINTABLE, st.text("aAbB.*+?|()[]^$15-", max_size=8))
@example("a", "a|b")
@example("B", "[A-C]")
def test_patterns_match_as_libc_does(text: str, pattern: str) -> None:
    try:
        expected = libc_takes(pattern, text)
    except AssertionError:
        expected = False
    assert takes(replace(APC, serial=text), serial=pattern) == expected


def test_ctypes_is_imported_only_for_patterns() -> None:
    program = """
import sys
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint
assert "ctypes" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ".collections"})
