# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut import upsd_words


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
def test_status_words(flags: str, words: str) -> None:
    assert upsd_words.status_words(upsd_words.split_status(flags)) == words


def test_each_flag_that_counts_has_words() -> None:
    assert set(upsd_words.FLAGS) >= upsd_words.CAREFUL | {
        "OL",
        "RB",
        "CHRG",
        "DISCHRG",
        "OVER",
        "TRIM",
        "BOOST",
        "ALARM",
    }


# of the drivers usbhid-ups, snmp-ups, belkin, bestfcom, oneac, tripplite, apcsmart and others
RESULTS = {
    "Done and passed": upsd_words.PASSED,
    "done and passed": upsd_words.PASSED,
    "Passed": upsd_words.PASSED,
    "OK": upsd_words.PASSED,
    "Normal": upsd_words.PASSED,
    "Done and warning": upsd_words.FAILED,
    "Done and error": upsd_words.FAILED,
    "Battery capacity insufficient": upsd_words.FAILED,
    "Change Battery": upsd_words.FAILED,
    "UPS Internal Failure": upsd_words.FAILED,
    "General test failed": upsd_words.FAILED,
    "Deep battery test failed": upsd_words.FAILED,
    "Not OK": upsd_words.FAILED,
    "Overload": upsd_words.FAILED,
    "In progress": upsd_words.RUNNING,
    "Test scheduled": upsd_words.RUNNING,
    "Aborted": upsd_words.UNKNOWN,
    "No test initiated": upsd_words.UNKNOWN,
    "Done: No test initiated": upsd_words.UNKNOWN,
    "No test performed": upsd_words.UNKNOWN,
    "No recent test": upsd_words.UNKNOWN,
    "Idle": upsd_words.UNKNOWN,
    "not supported": upsd_words.UNKNOWN,
    "": upsd_words.UNKNOWN,
    "7": upsd_words.UNKNOWN,
    "token": upsd_words.UNKNOWN,
}


@pytest.mark.parametrize(("text", "verdict"), RESULTS.items())
def test_judge(text: str, verdict: str) -> None:
    assert upsd_words.judge(text) == verdict
