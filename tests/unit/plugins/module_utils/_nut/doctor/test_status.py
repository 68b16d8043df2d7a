# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import calendar
import json
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import JournalEntry
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import status
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import Observation, UpsdAnswer
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot

MONITOR, SERVER, DRIVER = "nut-monitor.service", "nut-server.service", "nut-driver@ups.service"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023/05/31", (2023, 5, 31)),
        ("2023-05-31", (2023, 5, 31)),
        (" 2023.5.1 ", (2023, 5, 1)),
        ("05/31/23", (2023, 5, 31)),
        ("05/31/2023", (2023, 5, 31)),
        ("2023-05", (2023, 5, 1)),
        ("31/05/23", None),
        ("2023/02/30", None),
        ("2023/13/01", None),
        ("1980/01/01", None),
        ("not set", None),
        ("", None),
        ("CPS", None),
    ],
)
def test_battery_dates_are_parsed(text: str, expected: tuple[int, int, int] | None) -> None:
    assert status.parse_date(text) == (None if expected is None else calendar.timegm((*expected, 0, 0, 0)))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119.4, "119 s"), (120, "2 min"), (2400, "40 min"), (7500, "2 h 5 min")]
)
def test_duration_is_formatted(seconds: float, words: str) -> None:
    assert status.format_duration(seconds) == words


# The screen

VARIABLES = {
    "ups.status": "OL CHRG",
    "battery.charge": "98",
    "battery.runtime": "2400",
    "ups.load": "12",
    "battery.date": "2023/05/31",
    "device.mfr": "APC",
    "device.model": "Back-UPS",
}
CLIENTS = [
    {"name": "nas", "primary": "pve", "ups": "ups", "shutdown_time": 60, "shutdown_limit": 90},
    {"name": "media", "primary": "pve", "ups": "UPS", "shutdown_time": 5, "shutdown_limit": 35},
    {"name": "other", "primary": "pve2", "ups": "ups", "shutdown_time": 5, "shutdown_limit": 35},
]


def state(**changes: Any) -> snapshot.UpsState:
    given: dict[str, Any] = {
        "name": "ups", "description": "", "status": ("OL", "CHRG"), "fresh": True, "error": None, "variables": VARIABLES,
        "clients": ("127.0.0.1", "::ffff:192.0.2.20", "192.0.2.99"), "num_logins": 3,
    }  # fmt: skip
    return snapshot.UpsState(**{**given, **changes})


def facts(*states: snapshot.UpsState, **changes: Any) -> dict[str, Any]:
    said = UpsdAnswer(snapshot.UpsdReport("2.8.1", "1.3", states, (), (), ""), "127.0.0.1")
    given: dict[str, Any] = {
        "now": 100.0,
        "release": (2, 8, 1),
        "served": said,
        "addresses": {"nas": ("192.0.2.20",), "media": "none"},
        "journal": (
            JournalEntry(0.0, "nut-monitor.service", "UPS ups@pve on battery"),
            JournalEntry(1.0, "nut-monitor.service", "UPS ups@pve on line power"),
        ),
    }
    made: dict[str, Any] = json.loads(json.dumps(status.collect_facts(Observation(**{**given, **changes}))))
    return made


def test_status_shows_upses_machines_and_events() -> None:
    shown = status.format_status({"pve": facts(state())}, CLIENTS)
    lines = shown.splitlines()
    assert lines[:4] == [
        "pve, NUT 2.8.1",
        "  ups (APC Back-UPS): on mains, charging, charge 98 %, lasts 40 min, load 12 %, battery from 2023/05/31",
        "    machines: nas (logged in; takes 60 s, at most 90 s), media (NOT logged in; takes 5 s, at most 35 s), this host",
        "      (logged in), 192.0.2.99 (not in the inventory)",
    ]
    assert lines[4] == "  last events:"
    assert [line.split("  ")[-1] for line in lines[5:]] == [
        "power failure: ups is on battery",
        "power is back: ups is on mains",
    ]


def test_status_shows_ups_without_data() -> None:
    shown = status.format_status({"pve": facts(state(fresh=False, error="DATA-STALE", variables={}, clients=()))}, [])
    assert "  ups: no data (DATA-STALE)\n    machines: this host (NOT logged in)" in shown


def test_status_shows_silent_upsd_and_unreachable_host() -> None:
    shown = status.format_status(
        {"pve": facts(served="upsd at localhost:3493 cannot be reached", journal=()), "pve2": "can't be asked: off"},
        CLIENTS,
    )
    assert shown.splitlines() == [
        "pve, NUT 2.8.1",
        "  upsd at localhost:3493 cannot be reached",
        "  no events in the journal",
        "",
        "pve2: can't be asked: off",
    ]


def test_status_fits_width() -> None:
    many = [
        {"name": f"machine-{number}", "primary": "pve", "ups": "ups", "shutdown_time": 60, "shutdown_limit": 90}
        for number in range(20)
    ]
    shown = status.format_status({"pve": facts(state())}, many, width=100)
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert "machine-19" in shown


def test_facts_survive_json() -> None:
    made = facts(state())
    assert made["upses"][0]["charge"] == 98
    assert made["upses"][0]["battery_date"] == "2023/05/31"
    assert made["events"][0][0] == 0.0
    assert made["release"] == "2.8.1"
    assert made["upsd"] is None
    assert facts(state(variables={"battery.charge": "none"}))["upses"][0]["charge"] is None
