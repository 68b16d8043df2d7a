# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import supplies
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    Supply,
)
from ansible_collections.homelab.nut.tests.unit.support.plans import (
    UPS,
)


def test_low_marks_of_ups() -> None:
    def marks(**changes: Any) -> tuple[float | None, float | None]:
        return supplies.low_marks(replace(UPS, **changes))

    assert marks() == (600, 600)
    assert marks(charge_low=40) == (1200, 1200)
    assert marks(charge_low=40, charge=50) == (2400, 2400)
    assert marks(charge_low=60, charge=50) == (3000, 3000)
    assert marks(charge_low=40, charge=None) == (1200, 1200)
    assert marks(ignorelb=False) == (300, 600)
    assert marks(ignorelb=False, charge_low=40) == (600, 1200)
    assert marks(runtime=None) == (600, 600)
    assert marks(runtime_low=None) == (300, 300)
    assert marks(runtime_low=None, runtime=None) == (None, None)


@pytest.mark.parametrize(
    ("changes", "release", "expected"),
    [
        ({}, "2.8.1", (20, 30)),
        ({"driver": "auto"}, "2.8.1", (20, 30)),
        ({"driver": None}, "2.8.1", (20, 30)),
        ({"offdelay": 45, "ondelay": 90}, "2.8.1", (45, 90)),
        ({"offdelay": 0}, "2.8.1", (0, 30)),
        ({"mfr": "CPS"}, "2.8.1", (0, 0)),
        ({"mfr": "CPS"}, "2.8.2", (0, 0)),
        ({"mfr": "CPS"}, "2.8.3", (60, 120)),
        ({"mfr": "Cyber Power Systems"}, "2.8.5.10-x", (60, 120)),
        ({"vendorid": "0764"}, "2.9", (60, 120)),
        ({"vendorid": "0x0764", "offdelay": 119, "ondelay": 190}, "2.8.0", (60, 180)),
        ({"mfr": "CPS", "driver": "snmp-ups", "offdelay": 90, "ondelay": 100}, "2.8.1", (90, 100)),
        ({"driver": "nutdrv_qx"}, "2.8.1", (30, 180)),
        ({"driver": "nutdrv_qx", "offdelay": 59, "ondelay": 179}, "2.8.1", (54, 120)),
        ({"driver": "nutdrv_qx", "offdelay": 100}, "2.8.1", (60, 180)),
        ({"driver": "dummy-ups"}, "2.8.1", (None, None)),
    ],
)
def test_real_delays_of_drivers_and_makers(
    changes: dict[str, Any], release: str, expected: tuple[float | None, float | None]
) -> None:
    assert supplies.real_delays(replace(Supply(driver="usbhid-ups"), **changes), release) == expected


def test_reading_age_of_drivers() -> None:
    assert supplies.reading_age(Supply(), "2.8.1") == 30
    assert supplies.reading_age(Supply(mfr="CPS"), "2.8.1") == 30
    assert supplies.reading_age(Supply(mfr="CPS"), "2.8.3") == 12
    assert supplies.reading_age(Supply(pollfreq=7), "2.8.1") == 7
    assert supplies.reading_age(Supply(pollfreq=1, pollinterval=5), "2.8.1") == 5
    assert supplies.notice_time(Supply(), "2.8.1") == 2
    assert supplies.notice_time(Supply(ignorelb=True), "2.8.1") == 30


@pytest.mark.parametrize(
    ("driver", "ondelay", "at_once"),
    [
        ("nutdrv_qx", 59, True),
        ("nutdrv_qx", 60, False),
        ("nutdrv_qx", -1, False),
        ("blazer_ser", 1, False),
        ("usbhid-ups", -1, True),
        ("usbhid-ups", 0, False),
        ("usbhid-ups", None, False),
        ("snmp-ups", -1, False),
    ],
)
def test_ondelay_that_restores_the_power_at_once(driver: str, ondelay: float | None, at_once: bool) -> None:
    assert supplies.restores_at_once(Supply(driver=driver, ondelay=ondelay)) is at_once
