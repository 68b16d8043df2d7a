# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    WARNING,
)
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import (
    DEVICE,
    EXPECTED,
    FILES,
    VARIABLES,
    find_problems,
    make_ups,
    upsd_answer,
    with_text,
    with_ups,
    with_variables,
)


def test_placeholder_counts_as_missing_ups() -> None:
    seen = with_text(
        "ups.conf", lambda _text: "maxretry = 3\n[ups]\n  driver = dummy-ups\n  port = nut-hotplug-absent.dev\n"
    )
    absent = make_ups(status=("ABSENT",))
    seen = replace(seen, served=upsd_answer(absent), watched={"ups@localhost:3493": upsd_answer(absent)}, devices=())
    assert [(finding.check, finding.verdict) for finding in find_problems(seen)] == [("usb", FAILURE)]


def test_section_without_keys_is_present_if_served() -> None:
    plain = {**FILES, "ups.conf": "maxretry = 3\n[ups]\n  driver = usbhid-ups\n  port = auto\n"}
    seen = with_text("ups.conf", lambda _text: plain["ups.conf"])
    unclear = replace(DEVICE, hid_power=None)
    assert find_problems(replace(seen, devices=(unclear,)), replace(EXPECTED, files=plain)) == []
    mouse = replace(DEVICE, hid_power=False)
    stale = make_ups(fresh=False, error="DATA-STALE", variables={})
    gone = replace(
        seen, devices=(mouse,), served=upsd_answer(stale), watched={"ups@localhost:3493": upsd_answer(stale)}
    )
    assert [finding.check for finding in find_problems(gone, replace(EXPECTED, files=plain))] == ["usb", "driver"]


def test_driver_without_usb_needs_no_device() -> None:
    snmp = {**FILES, "ups.conf": "maxretry = 3\n[ups]\n  driver = snmp-ups\n  port = 192.0.2.9\n"}
    seen = replace(with_text("ups.conf", lambda _text: snmp["ups.conf"]), devices=())
    assert find_problems(seen, replace(EXPECTED, files=snmp)) == []


@pytest.mark.parametrize(
    ("date", "verdict"), [("2024/01/01", OK), ("2023/01/01", NOTE), ("06/01/20", WARNING), ("not set", OK)]
)
def test_battery_verdict_depends_on_age(date: str, verdict: str) -> None:
    assert [
        finding.verdict
        for finding in examine_host(with_variables(battery_date=date), EXPECTED)
        if finding.check == "battery"
    ] == [verdict]


def test_battery_of_unknown_age_is_ok() -> None:
    seen = with_ups(variables={key: value for key, value in VARIABLES.items() if key != "battery.date"})
    assert "does not report its battery's age" in next(
        finding.seen for finding in examine_host(seen, EXPECTED) if finding.check == "battery"
    )
