# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import calendar
import json
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import Entry
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import status
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import Seen, Served
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot

MONITOR, SERVER, DRIVER = "nut-monitor.service", "nut-server.service", "nut-driver@ups.service"


@pytest.mark.parametrize(
    ("said", "words", "bad"),
    [
        ("UPS ups@localhost:3493 on battery", "mains failed: ups is on battery", False),
        ("UPS ups@localhost on line power", "mains are back: ups", False),
        ("UPS ups@pve battery is low", "battery of ups is low", False),
        ("UPS ups@pve: forced shutdown in progress", "shutdown of all on ups has begun (FSD)", False),
        ("Auto logout and shutdown proceeding", "this host's shutdown begins", False),
        ("Executing automatic power-fail shutdown", "upsmon begins the shutdown", False),
        ("Communications with UPS ups@pve lost", "contact with ups lost", True),
        ("Communications with UPS ups@pve established", "contact with ups is there again", False),
        ("UPS ups@pve is unavailable", "ups has been without contact for long", True),
        ("UPS ups@pve battery needs to be replaced", "battery of ups wants to be replaced", True),
        ("upsmon parent process died - shutdown impossible", "upsmon's parent died: it could not shut down", True),
        (
            "Login on UPS [ups@pve:3493] failed - got [ERR ACCESS-DENIED]",
            "upsd refused upsmon's login to ups (ERR ACCESS-DENIED)",
            True,
        ),
        ("Poll UPS [ups@pve] failed - Data stale", "upsmon could not ask for ups: Data stale", True),
        (
            "UPS [ups@pve]: connect failed: Connection failure: Connection refused",
            "upsmon could not reach upsd of ups: Connection failure: Connection refused",
            True,
        ),
        ("Data for UPS [ups] is stale - check driver", "driver of ups hears nothing from it", True),
        ("UPS [ups] data is no longer stale", "driver of ups hears from it again", False),
        (
            "Can't connect to UPS [ups] (usbhid-ups-ups): No such file or directory",
            "upsd can't reach the driver of ups: No such file or directory",
            True,
        ),
        ("Connected to UPS [ups]: usbhid-ups-ups", "upsd has found the driver of ups", False),
        ("User nas@192.0.2.20 logged into UPS [ups]", "nas (192.0.2.20) logged in to ups", False),
        ("User nas@192.0.2.20 logged out from UPS [ups]", "nas (192.0.2.20) logged out from ups", False),
        ("Client monitor@127.0.0.1 set FSD on UPS [ups]", "monitor (127.0.0.1) began the shutdown of ups", False),
        ("not listening on 192.0.2.1 port 3493", "upsd could not listen on 192.0.2.1 port 3493", True),
        ("upsmon.conf line 3: invalid directive SHUTDOWNCND", "upsmon ignores line 3 of upsmon.conf", True),
    ],
)
def test_what_daemons_say_in_plain_words(said: str, words: str, bad: bool) -> None:
    assert status.in_words(MONITOR, said) == (words, bad)


@pytest.mark.parametrize(
    "said",
    [
        "libusb1: Could not open any HID devices: insufficient permissions on everything",
        "No matching HID UPS found",
        "Can't claim USB device [051d:0002]@0/0: Entity not found",
        "Fatal error: 'x' is not a valid variable name for this driver.",
    ],
)
def test_what_a_driver_says_names_its_unit(said: str) -> None:
    words, bad = status.in_words(DRIVER, said) or ("", False)
    assert bad
    assert words.endswith(" (nut-driver@ups)")


def test_systemd_is_told_from_the_daemons() -> None:
    assert status.is_systemds(
        "Started nut-monitor.service - Network UPS Tools - power device monitor and shutdown controller."
    )
    assert status.is_systemds("nut-server.service: Failed with result 'exit-code'.")
    assert not status.is_systemds("UPS ups@localhost on battery")
    assert status.in_words(MONITOR, "Started Network UPS Tools - power device monitor and shutdown controller.") == (
        "upsmon was started",
        False,
    )
    assert status.in_words(SERVER, "Stopped Network UPS Tools - power devices information server.") == (
        "upsd was stopped",
        False,
    )
    assert status.in_words(SERVER, "nut-server.service: Failed with result 'exit-code'.") == (
        "the unit failed (exit-code) (nut-server)",
        True,
    )


def test_our_own_programs_are_plain_already() -> None:
    assert status.in_words("nut-shutdown.service", "waiting for nas") == ("nut-shutdown: waiting for nas", False)
    assert status.in_words("nut-hotplug.service", "nut-hotplug.service: Deactivated successfully.") is None
    assert status.in_words(MONITOR, "some chatter") is None


def entries(*said: str) -> list[Entry]:
    return [Entry(float(at), MONITOR, words) for at, words in enumerate(said)]


def test_the_last_events_come_last_and_equal_ones_are_one() -> None:
    lost, back = "Communications with UPS ups@pve lost", "Communications with UPS ups@pve established"
    told = status.events(entries(back, lost, lost, lost, "chatter", back), 2)
    assert told == [(3.0, "contact with ups lost (3 times)"), (5.0, "contact with ups is there again")]
    assert status.events(reversed(entries(lost, back))) == [
        (0.0, "contact with ups lost"),
        (1.0, "contact with ups is there again"),
    ]
    assert status.events(entries(lost, back, lost))[-1] == (2.0, "contact with ups lost")


def test_troubles_are_counted_and_the_last_comes_first() -> None:
    lost = "Communications with UPS ups@pve lost"
    stale = "Data for UPS [ups] is stale - check driver"
    assert status.troubles(entries(lost, "UPS ups@pve on battery", stale, stale)) == [
        ("driver of ups hears nothing from it", 2, 3.0),
        ("contact with ups lost", 1, 0.0),
    ]


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
def test_dates_of_batteries(text: str, expected: tuple[int, int, int] | None) -> None:
    assert status.date(text) == (None if expected is None else calendar.timegm((*expected, 0, 0, 0)))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119.4, "119 s"), (120, "2 min"), (2400, "40 min"), (7500, "2 h 5 min")]
)
def test_how_long_it_lasts(seconds: float, words: str) -> None:
    assert status.duration(seconds) == words


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
    said = Served(snapshot.Report("2.8.1", "1.3", states, (), (), ""), "127.0.0.1")
    given: dict[str, Any] = {
        "now": 100.0,
        "release": (2, 8, 1),
        "served": said,
        "addresses": {"nas": ("192.0.2.20",), "media": "none"},
        "journal": tuple(entries("UPS ups@pve on battery", "UPS ups@pve on line power")),
    }
    made: dict[str, Any] = json.loads(json.dumps(status.facts(Seen(**{**given, **changes}))))
    return made


def test_one_screen() -> None:
    shown = status.status({"pve": facts(state())}, CLIENTS)
    lines = shown.splitlines()
    assert lines[:4] == [
        "pve, NUT 2.8.1",
        "  ups (APC Back-UPS): on mains, charging, charge 98 %, lasts 40 min, load 12 %, battery of 2023/05/31",
        "    on it: nas (logged in; waited for 60 s, at most 90 s), media (NOT logged in; waited for 5 s, at most 35 s), this",
        "      host (logged in), 192.0.2.99 (not in the inventory)",
    ]
    assert lines[4] == "  last events:"
    assert [line.split("  ")[-1] for line in lines[5:]] == ["mains failed: ups is on battery", "mains are back: ups"]


def test_a_ups_without_data() -> None:
    shown = status.status({"pve": facts(state(fresh=False, error="DATA-STALE", variables={}, clients=()))}, [])
    assert "  ups: no data (DATA-STALE)\n    on it: this host (NOT logged in)" in shown


def test_an_upsd_and_a_host_that_say_nothing() -> None:
    shown = status.status(
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


def test_it_fits_the_screen() -> None:
    many = [
        {"name": f"machine-{number}", "primary": "pve", "ups": "ups", "shutdown_time": 60, "shutdown_limit": 90}
        for number in range(20)
    ]
    shown = status.status({"pve": facts(state())}, many, width=100)
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert "machine-19" in shown


def test_facts_are_plain_data() -> None:
    made = facts(state())
    assert made["upses"][0]["charge"] == 98
    assert made["upses"][0]["battery_date"] == "2023/05/31"
    assert made["events"][0][0] == 0.0
    assert made["release"] == "2.8.1"
    assert made["upsd"] is None
    assert facts(state(variables={"battery.charge": "none"}))["upses"][0]["charge"] is None
