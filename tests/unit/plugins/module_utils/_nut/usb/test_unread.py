# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus, unread
from ansible_collections.homelab.nut.tests.unit.support.usb_devices import APC, NEW, OLD
from hypothesis import given
from hypothesis import strategies as st

EATON = replace(
    APC, vendor_id="0463", product_id="ffff", manufacturer="EATON", product=" Eaton 9E  ", serial="G123E45678"
)
IDS = 'USB:driver="usbhid-ups",port="auto",vendorid="0463",productid="FFFF"'
ALL = f'{IDS},product=" Eaton 9E",serial="G123E45678",vendor="EATON",bus="001",device="004"'


def find(*lines: str, device: bus.UsbDevice = EATON) -> frozenset[str]:
    found = bus.read_scanner(lambda _command: (0, "\n".join(lines)))
    assert found is not None
    return unread.find_unread(device, found)


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        ((ALL,), set()),
        ((f'{IDS},bus="001"',), {"vendor", "product", "serial"}),
        ((ALL.replace("G123E45678", "G123E4567"),), {"serial"}),
        ((ALL.replace("G123E45678", "G123E456789"),), {"serial"}),
        ((ALL.replace(',vendor="EATON"', ""),), {"vendor"}),
        # a twin
        ((f'{IDS},bus="001"', ALL), set()),
        ((ALL.replace("G123E45678", "G123E99999"),), {"serial"}),
        # another model, or none
        ((ALL.replace("FFFF", "0001"),), set()),
        ((), set()),
    ],
)
def test_text_that_nut_scanner_does_not_show_is_unread(lines: tuple[str, ...], keys: set[str]) -> None:
    assert find(*lines) == keys


def test_missing_text_and_one_that_ups_conf_can_not_hold_are_not_unread() -> None:
    assert find(IDS, device=replace(EATON, manufacturer="", product=" ", serial='G"123')) == frozenset()


@given(st.text(max_size=30))
def test_any_serial_is_compared(serial: str) -> None:
    device = replace(EATON, serial=serial)
    assert unread.find_unread(device, {"0463:ffff": [IDS]}) <= {"vendor", "product", "serial"}
    if "serial" in unread.find_unread(device, {"0463:ffff": [IDS]}):
        assert "serial" not in unread.find_unread(device, {"0463:ffff": [f'{IDS},serial="{serial}"']})


def test_notes_are_of_a_device_and_a_release() -> None:
    notes = unread.write_notes(EATON, ["serial"], NEW)
    assert unread.read_notes(EATON, notes, NEW).unread == {"serial"}
    assert unread.read_notes(replace(EATON, name="2-1", bus=2, place="elsewhere"), notes, NEW).unread == {"serial"}
    assert unread.read_notes(EATON, notes, OLD).unread == frozenset()
    assert unread.read_notes(replace(EATON, serial="G123E99999"), notes, NEW).unread == frozenset()
    many = unread.keep_notes(str(number) for number in range(1000))
    assert (len(many), many[-1]) == (unread.NOTES_MOST, "999")
