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
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import File, HostObservation, UpsdAnswer
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.startup import GuestStart
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.open_starts import OpenStarts
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import make_file

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
    made: dict[str, Any] = json.loads(json.dumps(status.collect_facts(HostObservation(**{**given, **changes}))))
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
    assert [line.split("  ")[-1] for line in lines[4:]] == [
        "last power cut:",
        "power failure: ups is on battery",
        "power is back: ups is on mains",
        "no other events in the journal",
    ]


def test_status_begins_with_last_power_cut_and_folds_logins() -> None:
    """Also if it was in the boot before, whose journal is gone."""
    shown = status.format_status(
        {
            "pve": facts(
                shutdown_log="2026-03-01 14:02:11 +0000 stages: +0.0 s  on battery: ups (98 %, 300 s left)\n"
                "2026-03-01 14:05:11 +0000 +0.0 s  the gate begins: waiting for nas (at most 90 s)\n"
                "2026-03-01 14:05:31 +0000 +20.0 s  nas is down (silent for 3.0 s; expected 60 s)\n"
                "2026-03-01 14:05:31 +0000 +20.1 s  the gate ends (down): all machines are down\n"
                "2026-03-01 14:20:00 +0000 stages: +0.0 s  on mains\n",
                journal=(
                    JournalEntry(1772374801.0, SERVER, "Started nut-server.service - Network UPS Tools - upsd."),
                    JournalEntry(1772374802.0, SERVER, "User media@192.0.2.30 logged into UPS [ups]"),
                    JournalEntry(1772374803.0, SERVER, "User nas@192.0.2.20 logged into UPS [ups]"),
                    JournalEntry(1772374804.0, SERVER, "User nas@192.0.2.20 logged out from UPS [ups]"),
                ),
            )
        },
        CLIENTS,
    )
    assert [line.strip().split("  ")[-1] for line in shown.splitlines()[1:]] == [
        "last power cut:",
        "on battery: ups (98 %, 300 s left)",
        "the gate begins: waiting for nas (at most 90 s)",
        "nas is down (silent for 3.0 s; expected 60 s)",
        "the gate ends (down): all machines are down",
        "this host is up again",
        "other events:",
        "upsd was started",
        "logged in: media (192.0.2.30); logged out: nas (192.0.2.20)",
    ]


def test_status_shows_guests_that_should_run() -> None:
    starts = OpenStarts(("VM 102: storage nas is not online",), {"qm start 101": "VM 101 (mail): no disk"})
    start = GuestStart("activating", "pve-guests.service is still starting: waiting for quorum", "start pve2")
    shown = status.format_status({"pve": facts(state(), open_starts=starts, guest_start=start)}, CLIENTS)
    assert shown.splitlines()[4:7] == [
        "  pve-guests.service is still starting: waiting for quorum",
        "  not running yet: VM 102: storage nas is not online",
        "  not running: VM 101 (mail): no disk. Start it by hand: qm start 101",
    ]


def test_status_shows_who_came_back_after_the_outage() -> None:
    shown = status.format_status(
        {"pve": facts(state(), returned=("not back after 30 min: nas (2026-11-30)",))}, CLIENTS
    )
    assert "  after the last outage: not back after 30 min: nas (2026-11-30)" in shown.splitlines()


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


def conf_with(*monitored: tuple[str, int], minsupplies: int = 1) -> dict[str, File]:
    lines = [f"MONITOR {name}@localhost {power} monitor secret primary\n" for name, power in monitored]
    return {"upsmon.conf": make_file("".join([*lines, f"MINSUPPLIES {minsupplies}\n"]))}


def test_status_shows_which_ups_powers_what() -> None:
    upses = [state(name="ups", clients=("127.0.0.1", "192.0.2.20")), state(name="router", clients=("127.0.0.1",))]
    shown = status.format_status({"pve": facts(*upses, files=conf_with(("ups", 1), ("router", 0)))}, CLIENTS[:1])
    assert "machines: nas (logged in; takes 60 s, at most 90 s), this host (logged in)\n" in shown
    assert "    machines: none that is known here\n  pve goes down when ups is low\n" in shown


@pytest.mark.parametrize(
    ("minsupplies", "words"),
    [
        (1, "pve is redundant: it stays up on left or right alone, and goes down when both left and right are low"),
        (2, "pve needs all of its power supplies: it goes down when left or right is low"),
    ],
)
def test_status_says_whether_host_is_redundant(minsupplies: int, words: str) -> None:
    made = facts(
        state(name="left"), state(name="right"), files=conf_with(("left", 1), ("right", 1), minsupplies=minsupplies)
    )
    assert f"  {words}\n" in status.format_status({"pve": made}, [])


def test_status_fits_width() -> None:
    many = [
        {"name": f"machine-{number}", "primary": "pve", "ups": "ups", "shutdown_time": 60, "shutdown_limit": 90}
        for number in range(20)
    ]
    shown = status.format_status({"pve": facts(state())}, many, width=100)
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert "machine-19" in shown


def test_report_lists_upses_logins_and_events() -> None:
    report = json.loads(json.dumps(status.build_report({"pve": facts(state())}, CLIENTS)))
    assert report["format"] == 1
    (host,) = report["hosts"]
    assert (host["host"], host["error"], host["upsd"], host["release"]) == ("pve", None, None, "2.8.1")
    assert host["outage"][0] == [0.0, "power failure: ups is on battery"]
    assert host["events"] == []
    (ups,) = host["upses"]
    assert (ups["name"], ups["charge"], ups["runtime"]) == ("ups", 98, 2400)
    assert [(login["name"], login["address"], login["logged_in"]) for login in ups["logins"]] == [
        ("nas", None, True),
        ("media", None, False),
        ("pve", None, True),
        (None, "192.0.2.99", True),
    ]
    assert (ups["logins"][0]["shutdown_time"], ups["logins"][0]["shutdown_limit"]) == (60, 90)


def test_report_says_why_a_host_has_no_status() -> None:
    answers = {"bad": {"upses": 1}, "off": "can't be asked: off", "pve": facts(state())}
    bad, off, pve = status.build_report(answers, CLIENTS)["hosts"]
    assert bad["error"].startswith("bad answer: seen")
    assert off == {"host": "off", "error": "can't be asked: off"}
    assert pve["error"] is None


def test_facts_survive_json() -> None:
    made = facts(state())
    assert made["upses"][0]["charge"] == 98
    assert made["upses"][0]["battery_date"] == "2023/05/31"
    assert made["outage"][0][0] == 0.0
    assert made["release"] == "2.8.1"
    assert made["upsd"] is None
    assert facts(state(variables={"battery.charge": "none"}))["upses"][0]["charge"] is None
