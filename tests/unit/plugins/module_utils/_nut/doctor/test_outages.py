# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.clock import format_time
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import JournalEntry
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import outages
from hypothesis import given
from hypothesis import strategies as st

START = 1_790_000_000.0
MONITOR = "nut-monitor.service"


def write_log(*lines: tuple[float, str]) -> str:
    """Return a log. lines: seconds after START, and what nut-shutdown writes behind the time."""
    return "".join(f"{format_time(START + after)} {line}\n" for after, line in lines)


def find(log: str = "", *journal: tuple[float, str]) -> list[tuple[float, str]]:
    entries = [JournalEntry(START + after, MONITOR, words) for after, words in journal]
    return [(at - START, words) for at, words in outages.find_last_outage(log, entries)]


ON, OVER = "stages: +0.0 s  on battery: ups (98 %, 2400 s left)", "stages: +29.0 s  the outage is over"
FSD = "stages: +180.0 s  told upsmon to set FSD: 197 s left"
GATE = "+0.0 s  the gate begins: waiting for nas (at most 90 s)"
DOWN = "+12.0 s  nas is down (silent for 3.1 s; expected 60 s)"
END = "+12.1 s  the gate ends (down): all machines are down"
UP = "stages: +0.0 s  on mains"
TOOK_OVER = "UPS ups@localhost:3493 on battery"
RETURNED = "UPS ups@localhost:3493 on line power"


def test_no_outage_is_found_without_traces() -> None:
    assert find() == []
    assert find(write_log((0, UP), (9, "watch: 192.0.2.9 blocked upsd"), (10, OVER))) == []


def test_outage_that_ended_is_found_in_log() -> None:
    assert find(write_log((0, UP), (100, ON), (129, OVER), (200, "watch: x"))) == [
        (100, "on battery: ups (98 %, 2400 s left)"),
        (129, "the outage is over"),
    ]


def test_what_follows_an_outage_belongs_to_it() -> None:
    woken, back = "stages: +70.0 s  waking nas: Wake-on-LAN", "stages: +300.0 s  all back after 4 min 31 s"
    assert [words for _at, words in find(write_log((100, ON), (129, OVER), (170, woken), (400, back)))] == [
        "on battery: ups (98 %, 2400 s left)",
        "the outage is over",
        "waking nas: Wake-on-LAN",
        "all back after 4 min 31 s",
    ]
    assert find(write_log((170, woken), (400, back))) == []


def test_shutdown_of_the_boot_before_is_found_in_log() -> None:
    """The journal only knows the boot since then."""
    log = write_log((100, ON), (280, FSD), (281, GATE), (293, DOWN), (294, END), (900, UP))
    started = "Started nut-monitor.service - Network UPS Tools - power device monitor and shutdown controller."
    assert find(log, (890, started)) == [
        (100, "on battery: ups (98 %, 2400 s left)"),
        (280, "told upsmon to set FSD: 197 s left"),
        (281, "the gate begins: waiting for nas (at most 90 s)"),
        (293, "nas is down (silent for 3.1 s; expected 60 s)"),
        (294, "the gate ends (down): all machines are down"),
        (890, "this host is up again"),
    ]


def test_last_of_several_outages_is_found() -> None:
    assert find(write_log((100, ON), (129, OVER), (500, ON), (540, OVER)))[0][0] == 500
    assert find(write_log((100, ON), (129, OVER)), (500, TOOK_OVER), (540, RETURNED)) == [
        (500, "power failure: ups is on battery"),
        (540, "power is back: ups is on mains"),
    ]


def test_outage_known_to_log_and_journal_is_shown_once() -> None:
    assert find(write_log((101, ON), (160, OVER)), (100, TOOK_OVER), (130, RETURNED)) == [
        (100, "power failure: ups is on battery"),
        (130, "power is back: ups is on mains"),
    ]


def test_outage_that_lasts_has_no_end() -> None:
    assert find(write_log((100, ON), (129, OVER), (500, ON))) == [(500, "on battery: ups (98 %, 2400 s left)")]


def test_shutdown_without_nut_stages_is_found() -> None:
    log = write_log((281, GATE), (293, DOWN), (294, END))
    assert [words for _at, words in find(log)] == [
        "the gate begins: waiting for nas (at most 90 s)",
        "nas is down (silent for 3.1 s; expected 60 s)",
        "the gate ends (down): all machines are down",
    ]


def test_host_that_starts_on_battery_again_has_a_single_outage() -> None:
    log = write_log((100, ON), (281, GATE), (294, END), (900, ON), (950, OVER))
    assert [words for _at, words in find(log)] == [
        "on battery: ups (98 %, 2400 s left)",
        "the gate begins: waiting for nas (at most 90 s)",
        "the gate ends (down): all machines are down",
        "this host is up again; on battery: ups (98 %, 2400 s left)",
        "the outage is over",
    ]


def test_gate_begins_after_upsmon_has_begun_the_shutdown() -> None:
    """Its lines are no sign that the host is up again."""
    log = write_log((100, ON), (281, GATE), (293, DOWN), (294, END), (900, UP))
    assert find(log, (280, "Auto logout and shutdown proceeding")) == [
        (100, "on battery: ups (98 %, 2400 s left)"),
        (280, "this host is shutting down"),
        (281, "the gate begins: waiting for nas (at most 90 s)"),
        (293, "nas is down (silent for 3.1 s; expected 60 s)"),
        (294, "the gate ends (down): all machines are down"),
        (900, "this host is up again"),
    ]


def test_drill_is_no_outage() -> None:
    assert find(write_log((100, "drill: +0.0 s  the gate begins: waiting for nas"), (101, f"drill: {END}"))) == []


def test_long_outage_is_shortened() -> None:
    steps = [(float(after), DOWN) for after in range(200, 400)]
    found = find(write_log((100, ON), (150, GATE), *steps, (500, END)))
    assert len(found) == outages.STEPS
    assert (found[0][0], found[-1][0]) == (100, 500)


@pytest.mark.parametrize(
    "line", ["", "x", "2026-99-99 10:00:00 +0000 stages: +0.0 s  on battery: x", f"{format_time(START)} {ON}\x1b[31m"]
)
def test_damaged_log_is_harmless(line: str) -> None:
    """The group nut can write to its folder."""
    assert all("\x1b" not in words for _at, words in find(f"{line}\n"))


@given(st.text())
def test_any_log_is_read(text: str) -> None:
    assert outages.find_last_outage(text, ()) == ()
