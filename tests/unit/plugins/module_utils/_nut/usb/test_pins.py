# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.fingerprint import matches_device
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.pins import Pins, escape_pattern, find_pins
from ansible_collections.homelab.nut.tests.unit.support.usb_devices import (
    APC,
    CPS,
    IDS,
    NEW,
    OLD,
    PRINTABLE,
    SERIALS,
    device_at,
    libc_takes,
)
from hypothesis import assume, example, given
from hypothesis import strategies as st

# Patterns


@given(PRINTABLE, PRINTABLE)
@example("*", "")
@example("a.c", "abc")
@example("^$", "")
@example("[a]", "a")
@example("{1}", "1")
@example("a{2}", "aa")
@example("a|b", "a")
@example("\\w", "w")
@example("(a)\\1", "aa")
@example("a+?", "a")
@example("]}-", "]}-")
def test_pattern_matches_exactly_the_escaped_text(text: str, other: str) -> None:
    text, other = text.strip(), other.strip()
    assume(text)
    assert libc_takes(escape_pattern(text), text)
    assert libc_takes(escape_pattern(text), text.swapcase())
    assert libc_takes(escape_pattern(text), other) == (text.lower() == other.lower())


@given(PRINTABLE)
def test_pattern_does_not_match_similar_texts(text: str) -> None:
    text = text.strip()
    assume(text)
    pattern = escape_pattern(text)
    for position in range(len(text)):
        assert not libc_takes(pattern, f"{text[:position]}{text[position + 1 :]}~".strip("~")[:-1] + "~")
        changed = "x" if text[position] not in "xX" else "y"
        assert not libc_takes(pattern, text[:position] + changed + text[position + 1 :])


def test_grep_agrees_with_the_pattern() -> None:
    text = "*a.c[d]{2}(e|f)^g$+h?\\]}-"
    done = subprocess.run(
        ["grep", "-Exi", "--", escape_pattern(text)], input=f"{text}\n", text=True, check=True, capture_output=True
    )
    assert done.stdout == f"{text}\n"


def test_plain_text_needs_no_escapes() -> None:
    assert escape_pattern("5B1234T56789-a_b/c:d=e f") == "5B1234T56789-a_b/c:d=e f"
    assert escape_pattern("FW:871.O4") == "FW:871[.]O4"


# Keys that bind a section to a device


def test_device_without_twins_is_pinned_by_ids() -> None:
    assert find_pins(CPS, (), NEW) == Pins(IDS)
    assert find_pins(CPS, [CPS, APC], OLD) == Pins(IDS)
    # a device is not its own twin after a driver has taken its interface
    assert find_pins(CPS, [replace(CPS, hid_power=None)], OLD) == Pins(IDS)


def test_trusted_serial_is_always_pinned() -> None:
    keys = (("vendorid", "051d"), ("productid", "0002"), ("serial", "5B1234T56789"))
    assert find_pins(APC, (), OLD) == Pins(keys)
    assert find_pins(replace(APC, serial="AB.7351(9)  "), (), OLD).keys[2] == ("serial", "AB[.]7351[(]9[)]")


def test_twin_with_a_different_serial_needs_no_more_pins() -> None:
    twin = replace(APC, name="1-2", device=5, serial="3B1519X19994")
    pins = find_pins(APC, [APC, twin], OLD)
    assert [key for key, _value in pins.keys] == ["vendorid", "productid", "serial"]
    assert pins.remark == ""


def test_twin_with_the_same_serial_is_distinguished_by_port() -> None:
    twin = replace(APC, name="1-2", device=5, serial="5b1234t56789 ")
    pins = find_pins(APC, [APC, twin], NEW)
    assert pins.keys[3:] == (("busport", "004"),)
    assert pins.remark == ""
    assert find_pins(APC, [APC, twin], OLD).remark


def test_model_with_the_same_ids_is_distinguished_by_product() -> None:
    # Eaton has 0463:ffff for all
    assert find_pins(CPS, [device_at("1-1.5", product="CP900")], OLD) == Pins((*IDS, ("product", "CP1500EPFCLCD")))


def test_twin_on_another_port_is_distinguished_by_busport() -> None:
    assert find_pins(CPS, [device_at("1-1.5"), device_at("1-2")], NEW) == Pins((*IDS, ("busport", "004")))


def test_twin_on_another_bus_is_distinguished_by_bus() -> None:
    assert find_pins(CPS, [device_at("2-1.5"), device_at("3-1")], OLD) == Pins((*IDS, ("bus", "001")))
    # busport is preferred, because a reboot may renumber the buses
    assert find_pins(CPS, [device_at("2-1.5"), device_at("3-1")], NEW) == Pins((*IDS, ("busport", "004")))
    assert find_pins(CPS, [device_at("2-1.4")], NEW) == Pins((*IDS, ("bus", "001")))


def test_twins_may_need_bus_and_busport() -> None:
    assert find_pins(CPS, [device_at("2-1.4"), device_at("1-1.5")], NEW) == Pins(
        (*IDS, ("busport", "004"), ("bus", "001"))
    )


def test_twins_may_need_every_pin() -> None:
    others = [device_at("2-1.4"), device_at("1-1.5"), device_at("1-2.4", product="CP900")]
    further = (("product", "CP1500EPFCLCD"), ("busport", "004"), ("bus", "001"))
    assert find_pins(CPS, others, NEW) == Pins((*IDS, *further))


def test_twins_on_the_same_bus_are_remarked_on_for_280() -> None:
    pins = find_pins(CPS, [CPS, device_at("1-1.5"), device_at("2-3"), device_at("1-2")], OLD)
    assert pins.keys == (*IDS, ("bus", "001"))
    assert pins.remark == (
        "0764:0501 at 1-1.4 can't be distinguished from the one at 1-1.5, 1-2: they have no unique serial numbers, and NUT 2.8.0 "
        "can only select a bus. Plug one into another USB controller, or upgrade to NUT 2.8.1"
    )


def test_twins_with_the_same_last_port_number_are_remarked_on() -> None:
    pins = find_pins(CPS, [device_at("1-2.4"), device_at("1-3")], NEW)
    assert pins.keys == (*IDS, ("busport", "004"))
    assert pins.remark == (
        "0764:0501 at 1-1.4 can't be distinguished from the one at 1-2.4: they have no unique serial numbers, and NUT can only "
        "select the bus and the last number of the port. Plug one into a port with a different last number"
    )


def test_device_from_lsusb_has_no_pins_by_place() -> None:
    pins = find_pins(replace(CPS, name="1-dev4", place=""), [device_at("1-dev5", 5)], NEW)
    assert pins.keys == IDS
    assert pins.remark


@pytest.mark.parametrize(
    ("driver", "release"),
    [
        ("bcmxcp_usb", NEW),
        ("richcomm_usb", NEW),
        ("nutdrv_atcl_usb", NEW),
        ("riello_usb", OLD),
        ("bcmxcp_usb", (2, 8, 5)),
    ],
)
def test_driver_without_support_gets_no_pins(driver: str, release: tuple[int, int, int]) -> None:
    assert find_pins(CPS, [CPS, APC], release, driver) == Pins(())
    pins = find_pins(CPS, [device_at("2-1")], release, driver)
    assert pins.keys == ()
    assert pins.remark == (
        f"0764:0501 at 1-1.4 can't be distinguished from the one at 2-1: {driver} takes the first one that it finds"
    )


@pytest.mark.parametrize("driver", ["usbhid-ups", "nutdrv_qx", "blazer_usb", "tripplite_usb"])
def test_driver_with_support_gets_pins(driver: str) -> None:
    assert find_pins(CPS, (), OLD, driver).keys == IDS
    assert find_pins(CPS, (), NEW, "riello_usb").keys == IDS


TEXTS = st.one_of(st.sampled_from(["", "5B1234T56789", "000000000", "A.B*12345"]), st.text(max_size=12), SERIALS)


@st.composite
def buses(draw: st.DrawFn) -> list[UsbDevice]:
    """Draw devices of two models, each at a different port."""
    names = draw(st.lists(st.from_regex(r"[12]-[1-3](\.[1-3])?", fullmatch=True), min_size=1, max_size=5, unique=True))
    return [
        replace(
            device_at(name, number),
            vendor_id=draw(st.sampled_from(["0764", "051d"])),
            serial=draw(TEXTS),
            product=draw(TEXTS),
        )
        for number, name in enumerate(names, 1)
    ]


@given(buses(), st.sampled_from([OLD, NEW, (2, 8, 5)]))
def test_pins_match_a_single_device_or_the_remark_names_the_others(
    bus: list[UsbDevice], release: tuple[int, int, int]
) -> None:
    for device in bus:
        pins = find_pins(device, bus, release)
        section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), *pins.keys))
        assert matches_device(section, device)
        taken = [other.name for other in bus if other != device and matches_device(section, other)]
        assert bool(taken) == bool(pins.remark)
        assert all(name in pins.remark for name in taken)
        if release < (2, 8, 1):
            assert "busport" not in dict(pins.keys)
        text = ups_conf.render_sections([section])
        assert ups_conf.parse_ups_conf(text).sections["ups"] == section
        # the enumerator's shell changes backslashes
        assert "\\" not in text


@pytest.mark.parametrize("driver", ["powervar_cx_usb", "richcomm_usb", "newest_usb"])
def test_driver_that_may_not_know_pins_gets_none(driver: str) -> None:
    assert find_pins(APC, [], (2, 8, 5), driver).keys == ()


def test_text_that_nut_can_not_read_is_not_pinned() -> None:
    eaton = replace(APC, vendor_id="0463", product_id="ffff", unread=frozenset({"vendor", "product", "serial"}))
    twin = replace(eaton, name="1-1.3", device=9, serial="5B9999T11111", place="pci-0000:00:14.0-usb-0:1.3")
    ids = (("vendorid", "0463"), ("productid", "ffff"))
    assert find_pins(eaton, [eaton], NEW).keys == ids
    assert find_pins(eaton, [eaton, twin], NEW).keys == (*ids, ("busport", "004"))
    assert "NUT can't read its serial number" in find_pins(eaton, [eaton, twin], OLD).remark
