# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.filter import nut_status, status_report
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, changed_data, find_unfit, values
from hypothesis import given
from hypothesis import strategies as st

SEEN = {
    "now": 1.0,
    "release": "2.8.1",
    "upsd": None,
    "upses": [],
    "addresses": {},
    "events": [[0.0, "power failure: ups is on battery"]],
}

status = nut_status.FilterModule().filters()["nut_status"]
report = status_report.FilterModule().filters()["status_report"]


def test_primaries_without_answer_are_listed() -> None:
    hostvars = {
        "pve": {"__nut_status": {"seen": SEEN}},
        "pve2": {"__nut_status": {"unreachable": True, "msg": "no route"}},
        "pve3": {},
    }
    shown = status(["pve", "pve2", "pve3"], hostvars, [])
    assert "pve, NUT 2.8.1" in shown
    assert "power failure: ups is on battery" in shown
    assert "pve2: can't be asked: no route" in shown
    assert "pve3: can't be asked: no answer" in shown


def test_report_and_text_have_the_same_hosts() -> None:
    hostvars = {
        "pve": {"__nut_status": {"seen": SEEN}},
        "pve2": {"__nut_status": {"unreachable": True, "msg": "no route"}},
    }
    pve, pve2 = report(["pve", "pve2"], hostvars, [])["hosts"]
    assert (pve["host"], pve["error"], pve["release"]) == ("pve", None, "2.8.1")
    assert pve2 == {"host": "pve2", "error": "can't be asked: no route"}


UPS = {
    "name": "ups", "description": "", "status": ["OL"], "words": "on mains", "fresh": True, "charge": 100, "runtime": 1800.0,
    "load": 12.5, "battery_date": "2024-01-01", "model": "APC Back-UPS", "clients": ["127.0.0.1", "192.0.2.20"],
}  # fmt: skip
FULL = {**SEEN, "upses": [UPS], "addresses": {"nas": ["192.0.2.20"]}}
CLIENTS = [{"name": "nas", "primary": "pve", "ups": "ups", "shutdown_time": 60, "shutdown_limit": 90}]


def shown(seen: Any) -> str:
    """Return the status of a host with this answer and of a healthy host."""
    hostvars = {"bad": {"__nut_status": {"seen": seen}}, "pve": {"__nut_status": {"seen": FULL}}}
    text: str = status(["bad", "pve"], hostvars, CLIENTS)
    return text


@pytest.mark.parametrize(
    "seen",
    [{"upses": 1}, None, 7, [], {**FULL, "upses": [{**UPS, "charge": 10**400}]}, {**FULL, "events": [[10**400, ""]]}],
)
def test_malformed_answer_hides_no_other_host(seen: Any) -> None:
    text = shown(seen)
    assert "bad: bad answer: seen" in text
    assert "nas (logged in; takes 60 s, at most 90 s)" in text


@pytest.mark.parametrize("nasty", NASTY)
def test_hostile_texts_cannot_control_the_terminal(nasty: str) -> None:
    ups = {**UPS, **dict.fromkeys(("name", "description", "words", "battery_date", "model"), nasty)}
    seen = {
        **FULL, "release": nasty, "upsd": nasty, "upses": [{**ups, "status": [nasty], "clients": [nasty]}],
        "addresses": {"nas": [nasty], nasty: []}, "events": [[0.0, nasty]],
    }  # fmt: skip
    text = shown(seen if len(nasty) < 20_000 else {**FULL, "upsd": nasty[:20_000]})
    assert not find_unfit(text)
    assert "pve, NUT 2.8.1" in text
    hostvars = {"bad": {"__nut_status": {"failed": True, "msg": nasty}}}
    assert not find_unfit(status(["bad"], hostvars, []))
    (host,) = report(["bad"], hostvars, [])["hosts"]
    assert not find_unfit(host["error"])


@given(st.one_of(values, changed_data(FULL)))
def test_any_answer_is_shown_safely(seen: Any) -> None:
    text = shown(seen)
    assert not find_unfit(text)
    assert "pve, NUT 2.8.1" in text


@given(values)
def test_any_result_is_shown_safely(result: Any) -> None:
    assert not find_unfit(status(["bad"], {"bad": {"__nut_status": result}}, CLIENTS))
    assert not find_unfit(status(["bad"], {"bad": {"__nut_status": {"msg": result}}}, CLIENTS))
