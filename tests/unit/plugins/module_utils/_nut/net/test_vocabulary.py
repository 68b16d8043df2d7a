# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import vocabulary
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.sections import DUMMY_STATUS


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("OL", "on mains"),
        ("OL CHRG", "on mains, charging"),
        ("CHRG OL OL", "on mains, charging"),
        ("OB LB FSD", "forced shutdown: all hosts on it go down, on battery, battery low"),
        ("OL XYZ", "on mains, XYZ"),
        ("OL a\x7fb", "on mains, a\\x7fb"),
        ("", ""),
    ],
)
def test_flags_are_described(flags: str, words: str) -> None:
    assert vocabulary.describe_status(vocabulary.split_status(flags)) == words


def test_every_relevant_flag_has_words() -> None:
    assert set(vocabulary.FLAGS) >= {"OL", "RB", "CHRG", "DISCHRG", "OVER", "TRIM", "BOOST", "ALARM"}


# of the drivers usbhid-ups, snmp-ups, belkin, bestfcom, oneac, tripplite, apcsmart and others
RESULTS = {
    "Done and passed": vocabulary.PASSED,
    "done and passed": vocabulary.PASSED,
    "Passed": vocabulary.PASSED,
    "OK": vocabulary.PASSED,
    "Normal": vocabulary.PASSED,
    "Done and warning": vocabulary.FAILED,
    "Done and error": vocabulary.FAILED,
    "Battery capacity insufficient": vocabulary.FAILED,
    "Change Battery": vocabulary.FAILED,
    "UPS Internal Failure": vocabulary.FAILED,
    "General test failed": vocabulary.FAILED,
    "Deep battery test failed": vocabulary.FAILED,
    "Not OK": vocabulary.FAILED,
    "Overload": vocabulary.FAILED,
    "In progress": vocabulary.RUNNING,
    "Test scheduled": vocabulary.RUNNING,
    "Aborted": vocabulary.UNKNOWN,
    "No test initiated": vocabulary.UNKNOWN,
    "Done: No test initiated": vocabulary.UNKNOWN,
    "No test performed": vocabulary.UNKNOWN,
    "No recent test": vocabulary.UNKNOWN,
    "Idle": vocabulary.UNKNOWN,
    "not supported": vocabulary.UNKNOWN,
    "": vocabulary.UNKNOWN,
    "7": vocabulary.UNKNOWN,
    "token": vocabulary.UNKNOWN,
}


@pytest.mark.parametrize(("text", "verdict"), RESULTS.items())
def test_test_result_is_judged(text: str, verdict: str) -> None:
    assert vocabulary.judge_test_result(text) == verdict


def test_status_is_split_into_flags() -> None:
    assert vocabulary.split_status("OB LB") == ("OB", "LB")
    assert vocabulary.split_status("") == ()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("battery.charge", "100", 100),
        ("battery.voltage", "13.70", 13.7),
        ("ups.temperature", "-2.5", -2.5),
        ("input.transfer.low", "007", "007"),
        ("ups.status", "OL", "OL"),
        ("driver.version", "2.10", "2.10"),
        ("ups.serial", "123456", "123456"),
        ("device.serial", "123456", "123456"),
        ("ups.productid", "5131", "5131"),
        ("battery.mfr.date", "2024", "2024"),
        ("battery.runtime", "1e3", "1e3"),
        ("battery.runtime", "9" * 400, "9" * 400),
        ("battery.runtime", "", ""),
        ("device.uptime", "86400", 86400),
        ("device.count", "2", 2),
        ("device.uptime.x", "1", "1"),
        ("ups.id", "12", "12"),
        ("outlet.1.desc", "2", "2"),
        ("outlet.1.id", "1", "1"),
        ("outlet.1.delay.shutdown", "120", 120),
        ("ups.delay.shutdown", "20", 20),
        ("ups.timer.reboot", "-1", -1),
        ("battery.packs", "1", 1),
        ("input.sensitivity", "1", "1"),
        ("ups.contacts", "10", "10"),
        ("ups.test.result", "7", "7"),
        ("ups.test.interval", "1209600", 1209600),
        ("battery.voltage", "+13", "+13"),
        ("battery.voltage", "13.", "13."),
    ],
)
def test_value_gets_a_type(name: str, text: str, value: object) -> None:
    typed = vocabulary.convert_value(name, text)
    assert typed == value
    assert type(typed) is type(value)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("020", "20", True),
        ("20", "20.0", True),
        ("+20", "20", True),
        ("-0", "0", True),
        ("0.1", "0.10", True),
        ("20", "21", False),
        ("999999999999999999", "999999999999999998", False),
        ("yes", "yes", True),
        ("yes", "Yes", False),
        ("1e1", "10", False),
        ("", "0", False),
        ("nan", "nan", True),
    ],
)
def test_equal_values_are_recognized(one: str, other: str, same: bool) -> None:
    assert vocabulary.is_same_value(one, other) is same
    assert vocabulary.is_same_value(other, one) is same


def test_stand_in_has_a_status_of_its_own_that_upsmon_takes_for_that_of_a_waiting_driver() -> None:
    """upsmon of 2.8.3 and later compares without regard to case, and must not see a second flag that it does not know."""
    assert vocabulary.ABSENT not in vocabulary.FLAGS
    assert vocabulary.ABSENT.upper() == "WAIT"
    flags = vocabulary.split_status(DUMMY_STATUS)
    assert set(flags) == {vocabulary.ABSENT}
    assert vocabulary.describe_status(flags) == "not plugged in"
    assert DUMMY_STATUS.upper() != "WAIT", "upsd would keep its own"
