# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import usb_keys
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.settings import SettingsError, write_devices
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.values import find_wrong_values
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicyError, check_policy
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("vendorid", "0x051d", 'vendorid: "051d"'),
        ("vendorid", "0X051D", 'vendorid: "051d"'),
        ("vendorid", "51d", 'vendorid: "051d"'),
        ("VendorID", "51D", 'vendorid: "051d"'),
        ("vendorid", "00051d", 'vendorid: "051d"'),
        ("vendorid", "051dh", 'vendorid: "051d"'),
        ("vendorid", " 051d", 'vendorid: "051d"'),
        ("vendorid", "0x0764.*", 'vendorid: "0764"'),
        ("vendorid", "^0x051d$", 'vendorid: "051d"'),
        ("vendorid", "[051d", 'vendorid: "051d"'),
        ("productid", "2", 'productid: "0002"'),
        ("productid", "0x0002", 'productid: "0002"'),
        ("vendorid", "0001:0000", 'vendorid: "0001" and productid: "0000"'),
        ("productid", "0x051d/0x2", 'vendorid: "051d" and productid: "0002"'),
        ("vendorid", "usb:v051Dp0002", 'vendorid: "051d" and productid: "0002"'),
        ("vendorid", "APC", "such as 051d"),
        ("vendorid", "", "such as 051d"),
        ("vendorid", ".", "such as 051d"),
        ("vendorid", "[0-9]{3}", "such as 051d"),
        ("vendorid", "0x(051d|0764)", "such as 051d"),
        ("vendorid", "none", "such as 051d"),
        ("vendorid", "ID 0764:0501", 'vendorid: "0764" and productid: "0501"'),
        ("productid", "USB\\VID_051D&PID_0002", 'vendorid: "051d" and productid: "0002"'),
        ("bus", "1", 'bus: "001"'),
        ("bus", "001/004", 'bus: "001"'),
        ("busport", "1.4", 'busport: "004"'),
        ("busport", "1-3", 'busport: "003"'),
        ("busport", "000", "from 001 to 031"),
        ("busport", "044", "from 001 to 031"),
        ("device", "200", "from 001 to 127"),
        ("busport", "0004", 'busport: "004"'),
        ("device", "usb7", 'device: "007"'),
        ("bus", "[1-9]", 'bus: "001"'),
        ("serial", "????", "valid regular expression"),
        ("product", "UPS (1500", "valid regular expression"),
        ("serial", "G123E45678 ", 'serial: "G123E45678"'),
        ("serial", "\tG123", 'serial: "G123"'),
        ("vendor", "  ", "Remove vendor"),
        ("product", "Geh\u00e4use", 'product: "Geh[?]use"'),
    ],
)
def test_value_that_matches_nothing_is_explained(key: str, value: str, remedy: str) -> None:
    assert remedy in usb_keys.explain_unmatchable(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vendorid", "051d"),
        ("vendorid", "051D"),
        ("vendorid", "05.*"),
        ("vendorid", ".*"),
        ("vendorid", "051d|0764"),
        ("vendorid", "0x051d|0764"),
        ("vendorid", "^051d$"),
        ("vendorid", "[[:xdigit:]]{4}"),
        ("vendorid", None),
        ("bus", "001"),
        ("busport", "00[12]"),
        ("device", ".*"),
        ("serial", "5B12.*"),
        ("serial", "0x051d"),
        ("serial", ""),
        ("serial", " ?AB12"),
        ("serial", "AB12|AB13 "),
        ("product", "Smart-UPS (RT)"),
        ("desc", "????"),
    ],
)
def test_value_that_can_match_is_accepted(key: str, value: str | None) -> None:
    assert usb_keys.explain_unmatchable(key, value) == ""


@given(st.from_regex("[0-9a-fA-F]{4}", fullmatch=True))
def test_each_id_matches_itself(value: str) -> None:
    assert usb_keys.explain_unmatchable("vendorid", value) == ""
    assert usb_keys.correct_id("vendorid", f"0x{value}") == value.lower()


@settings(max_examples=20)
@given(st.text(st.sampled_from("0123456789abcdefxX:.*[]()|?+^${} -"), max_size=8))
def test_any_value_is_judged(value: str) -> None:
    usb_keys.explain_unmatchable("vendorid", value)
    usb_keys.explain_unmatchable("bus", value)
    assert usb_keys.correct_id("productid", value) == usb_keys.correct_id("productid", value).lower()


def test_keys_of_other_drivers_are_not_judged() -> None:
    assert usb_keys.explain_unmatchable("bus", "1", "hwmon_ina219") == ""
    assert usb_keys.explain_unmatchable("bus", "1", "powervar_cx_usb")


def test_ups_conf_with_such_a_value_is_refused() -> None:
    text = "[my-ups]\n    driver = usbhid-ups\n    port = auto\n    {} = {}\n"
    (wrong,) = find_wrong_values({"ups.conf": text.format("vendorid", '"0x051d"')}, (2, 8, 1))
    assert wrong.startswith("ups.conf, [my-ups]: vendorid is '0x051d', which matches no UPS: ")
    assert wrong.endswith('Write vendorid: "051d"')
    (wrong,) = find_wrong_values({"ups.conf": text.format("bus", "1")}, (2, 8, 1))
    assert wrong.startswith("ups.conf, [my-ups]: bus is '1', which matches no UPS: ")
    # what nut-hotplug writes for a driver that must take no UPS
    assert find_wrong_values({"ups.conf": text.format("vendorid", "none")}, (2, 8, 1)) == []
    assert find_wrong_values({"ups.conf": text.format("vendorid", "051d")}, (2, 8, 1)) == []


@pytest.mark.parametrize("driver", ["auto", "usbhid-ups", "nutdrv_qx"])
def test_device_of_a_playbook_with_such_a_value_is_refused(driver: str) -> None:
    with pytest.raises(SettingsError, match='Write vendorid: "051d"'):
        write_devices([{"name": "my-ups", "driver": driver, "vendorid": "51d"}])


@pytest.mark.parametrize(
    "rule",
    [
        {"vendor": "51d"},
        {"vendor": "0x051d"},
        {"vendor": "051d:0002"},
        {"vendor": "051d", "options": {"vendorid": "0x051d"}},
        {"vendor": "051d", "options": {"bus": 1}},
    ],
)
def test_rule_with_such_a_value_is_refused(rule: dict[str, object]) -> None:
    with pytest.raises(UsbPolicyError):
        check_policy({"rules": [rule]})


def test_rule_with_the_name_of_a_maker_is_accepted() -> None:
    assert check_policy({"rules": [{"vendor": "ABB"}, {"vendor": "051d"}]}).rules
