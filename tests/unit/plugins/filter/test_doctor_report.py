# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter import doctor_report, doctor_table
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, changed_data, find_unfit, values
from hypothesis import given
from hypothesis import strategies as st

CLIENTS = [
    {"name": "nas", "primary": "pve", "managed": True},
    {"name": "media", "primary": "pve", "managed": True},
    {"name": "syno", "primary": "pve", "managed": False},
]


def make_finding(check: str, host: str, verdict: str) -> dict[str, str]:
    return {"check": check, "host": host, "verdict": verdict, "seen": "some text", "todo": ""}


def make_report(hosts: list[str], **hostvars: dict[str, Any]) -> dict[str, Any]:
    filters = doctor_report.FilterModule().filters()
    made: dict[str, Any] = filters["doctor_report"](hosts, {name: hostvars.get(name, {}) for name in hosts}, CLIENTS)
    return made


def list_verdicts(made: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(finding["check"], finding["host"], finding["verdict"]) for finding in made["findings"]]


def test_report_combines_results_of_all_kinds_of_hosts() -> None:
    made = make_report(
        ["pve", "nas", "media"],
        pve={
            "__nut_server_doctor": {
                "findings": [make_finding("usb", "pve", "ok"), make_finding("login", "nas", "failure")]
            }
        },
        nas={
            "__nut_client_doctor_truenas": {"actions": [], "service": {}},
            "__nut_client_doctor_login": {"skipped": True},
        },
        media={"__nut_client_doctor": {"findings": [make_finding("port", "media", "warning")]}},
    )
    assert list_verdicts(made) == [
        ("usb", "pve", "ok"),
        ("login", "nas", "failure"),
        ("settings", "nas", "ok"),
        ("service", "nas", "ok"),
        ("port", "media", "warning"),
    ]
    assert (made["verdict"], made["code"]) == ("failure", 2)


def test_secondary_without_primary_in_the_run_reports_the_login() -> None:
    made = make_report(
        ["nas"],
        nas={
            "__nut_client_doctor_truenas": {"actions": [], "service": {}},
            "__nut_client_doctor_login": {"missing_clients": ["nas"]},
        },
    )
    assert ("login", "nas", "failure") in list_verdicts(made)
    assert "not logged in on pve" in str(made["findings"])


def test_primary_reports_on_an_unmanaged_machine_which_is_no_host_of_the_play() -> None:
    seen = {"__nut_server_doctor": {"findings": [make_finding("login", "syno", "failure")]}}
    assert list_verdicts(make_report(["pve"], pve=seen)) == [("login", "syno", "failure")]
    assert list_verdicts(make_report(["media"], media={"__nut_client_doctor": {"findings": []}})) == [
        ("reachable", "media", "failure")
    ]


def test_secondary_outside_the_run_is_not_reported() -> None:
    made = make_report(
        ["pve"],
        pve={
            "__nut_server_doctor": {
                "findings": [make_finding("login", "nas", "failure"), make_finding("usb", "pve", "ok")]
            }
        },
    )
    assert list_verdicts(made) == [("usb", "pve", "ok")]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({}, "can't be reached: no answer"),
        ({"__nut_server_doctor": {"unreachable": True, "msg": "no route"}}, "can't be reached: no route"),
        ({"__nut_server_doctor": {"failed": True, "msg": "MODULE FAILURE"}}, "could not be checked: MODULE FAILURE"),
        ({"__nut_doctor_trouble": {"msg": "nut_server_devices must be a list"}}, "nut_server_devices must be a list"),
        (
            {"__nut_doctor_trouble": {"msg": "gone", "unreachable": True}, "__nut_server_doctor": {"skipped": True}},
            "can't be reached: gone",
        ),
    ],
)
def test_host_without_findings_is_a_failure(own: dict[str, Any], words: str) -> None:
    made = make_report(["pve"], pve=own)
    assert list_verdicts(made) == [("reachable", "pve", "failure")]
    assert words in made["findings"][0]["seen"]


def test_table_shows_failures_and_summary() -> None:
    table = doctor_table.FilterModule().filters()["doctor_table"]
    made = make_report(
        ["pve"],
        pve={
            "__nut_server_doctor": {
                "findings": [make_finding("usb", "pve", "ok"), make_finding("driver", "pve", "failure")]
            }
        },
    )
    assert "FAILURE" in table(made)
    assert table(made).splitlines()[-1] == made["summary"]
    assert len(table(made, True).splitlines()) > len(
        table({**made, "findings": made["findings"][:1]}, True).splitlines()
    )
    with pytest.raises(AnsibleFilterError, match="not a report of doctor_report"):
        table({"findings": [{}]})


# Hostile answers


def render_all(made: dict[str, Any]) -> str:
    """Return everything that is shown of a report, to people and to programs."""
    table = doctor_table.FilterModule().filters()["doctor_table"]
    return f"{table(made)}\n{table(made, everything=True)}\n{json.dumps(made, ensure_ascii=False)}"


@pytest.mark.parametrize("verdict", ["ok", "note", "failure"])
@pytest.mark.parametrize("nasty", NASTY)
def test_hostile_texts_cannot_control_the_terminal(nasty: str, verdict: str) -> None:
    """Not even the names of checks that passed."""
    own = {"check": nasty, "host": "pve", "verdict": verdict, "seen": nasty, "todo": nasty}
    made = make_report(["pve"], pve={"__nut_server_doctor": {"findings": [own]}})
    assert len(made["findings"]) == 1
    assert not find_unfit(render_all(made))


def test_host_may_report_only_on_itself_and_secondaries() -> None:
    lies = [
        make_finding("usb", "pve", "ok"),
        make_finding("login", "nas", "ok"),
        make_finding("usb", "pve2", "ok"),
        make_finding("x", "", "ok"),
    ]
    made = make_report(
        ["pve", "pve2", "nas"], pve={"__nut_server_doctor": {"findings": lies}}, pve2={"__nut_server_doctor": {}}
    )
    assert [finding for finding in list_verdicts(made) if finding[0] != "reachable"] == [
        ("usb", "pve", "ok"),
        ("login", "nas", "ok"),
    ]


@pytest.mark.parametrize(
    "findings",
    [7, None, {}, [7], [{}], [make_finding("usb", "pve", "great")], [make_finding("usb", "pve", "ok")] * 5001],
)
def test_malformed_answer_hides_no_other_host(findings: Any) -> None:
    made = make_report(
        ["pve", "media"],
        pve={"__nut_server_doctor": {"findings": findings}},
        media={"__nut_client_doctor": {"findings": [make_finding("port", "media", "ok")]}},
    )
    assert list_verdicts(made) == [("reachable", "pve", "failure"), ("port", "media", "ok")]
    assert "its answer can't be read" in made["findings"][0]["seen"]


REGISTERED = {
    "__nut_server_doctor": {"findings": [make_finding("usb", "pve", "ok"), make_finding("login", "nas", "failure")]},
    "__nut_client_doctor_truenas": {
        "actions": ["set mode", "started the UPS service"],
        "service": {},
        "version": "25.10",
    },
    "__nut_client_doctor_login": {"missing_clients": ["nas"]},
    "__nut_doctor_trouble": {"msg": "gone"},
}


@given(st.one_of(changed_data(REGISTERED), st.dictionaries(st.sampled_from(sorted(REGISTERED)), values)))
def test_any_answer_gives_a_report(own: dict[str, Any]) -> None:
    media = {"__nut_client_doctor": {"findings": [make_finding("port", "media", "ok")]}}
    made = make_report(["pve", "media"], pve=own, media=media)
    assert ("port", "media", "ok") in list_verdicts(made)
    assert any(finding["host"] == "pve" for finding in made["findings"])
    assert not find_unfit(render_all(made))
