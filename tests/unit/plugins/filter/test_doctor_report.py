# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter import doctor_report, doctor_table
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, changed, unfit, values
from hypothesis import given
from hypothesis import strategies as st

CLIENTS = [{"name": "nas", "primary": "pve"}, {"name": "media", "primary": "pve"}]


def finding(check: str, host: str, verdict: str) -> dict[str, str]:
    return {"check": check, "host": host, "verdict": verdict, "seen": "as it is", "todo": ""}


def report(hosts: list[str], **hostvars: dict[str, Any]) -> dict[str, Any]:
    filters = doctor_report.FilterModule().filters()
    made: dict[str, Any] = filters["doctor_report"](hosts, {name: hostvars.get(name, {}) for name in hosts}, CLIENTS)
    return made


def told(made: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["check"], one["host"], one["verdict"]) for one in made["findings"]]


def test_what_each_kind_of_host_registered() -> None:
    made = report(
        ["pve", "nas", "media"],
        pve={"__nut_server_doctor": {"findings": [finding("usb", "pve", "ok"), finding("login", "nas", "failure")]}},
        nas={"__nut_client_doctor_truenas": {"actions": []}, "__nut_client_doctor_login": {"skipped": True}},
        media={"__nut_client_doctor": {"findings": [finding("port", "media", "warning")]}},
    )
    assert told(made) == [
        ("usb", "pve", "ok"),
        ("login", "nas", "failure"),
        ("settings", "nas", "ok"),
        ("service", "nas", "ok"),
        ("port", "media", "warning"),
    ]
    assert (made["verdict"], made["code"]) == ("failure", 2)


def test_a_login_is_asked_for_where_the_primary_is_left_out() -> None:
    made = report(
        ["nas"],
        nas={"__nut_client_doctor_truenas": {"actions": []}, "__nut_client_doctor_login": {"missing_clients": ["nas"]}},
    )
    assert ("login", "nas", "failure") in told(made)
    assert "not logged in on pve" in str(made["findings"])


def test_a_secondary_that_was_left_out_is_not_judged() -> None:
    made = report(
        ["pve"],
        pve={"__nut_server_doctor": {"findings": [finding("login", "nas", "failure"), finding("usb", "pve", "ok")]}},
    )
    assert told(made) == [("usb", "pve", "ok")]


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
def test_a_host_of_which_nothing_is_known_has_failed(own: dict[str, Any], words: str) -> None:
    made = report(["pve"], pve=own)
    assert told(made) == [("reachable", "pve", "failure")]
    assert words in made["findings"][0]["seen"]


def test_the_table() -> None:
    table = doctor_table.FilterModule().filters()["doctor_table"]
    made = report(
        ["pve"],
        pve={"__nut_server_doctor": {"findings": [finding("usb", "pve", "ok"), finding("driver", "pve", "failure")]}},
    )
    assert "FAILURE" in table(made)
    assert table(made).splitlines()[-1] == made["summary"]
    assert len(table(made, True).splitlines()) > len(
        table({**made, "findings": made["findings"][:1]}, True).splitlines()
    )
    with pytest.raises(AnsibleFilterError, match="not a report of doctor_report"):
        table({"findings": [{}]})


# What a host says that means harm


def shown(made: dict[str, Any]) -> str:
    """Return all that people and machines see of a report."""
    table = doctor_table.FilterModule().filters()["doctor_table"]
    return f"{table(made)}\n{table(made, everything=True)}\n{json.dumps(made, ensure_ascii=False)}"


@pytest.mark.parametrize("verdict", ["ok", "note", "failure"])
@pytest.mark.parametrize("nasty", NASTY)
def test_what_a_host_says_does_nothing_to_the_terminal(nasty: str, verdict: str) -> None:
    """Also the names of checks that are ok, which are only listed."""
    own = {"check": nasty, "host": "pve", "verdict": verdict, "seen": nasty, "todo": nasty}
    made = report(["pve"], pve={"__nut_server_doctor": {"findings": [own]}})
    assert len(made["findings"]) == 1
    assert not unfit(shown(made))


def test_a_host_tells_only_of_itself_and_of_its_secondaries() -> None:
    lies = [
        finding("usb", "pve", "ok"),
        finding("login", "nas", "ok"),
        finding("usb", "pve2", "ok"),
        finding("x", "", "ok"),
    ]
    made = report(
        ["pve", "pve2", "nas"], pve={"__nut_server_doctor": {"findings": lies}}, pve2={"__nut_server_doctor": {}}
    )
    assert [finding for finding in told(made) if finding[0] != "reachable"] == [
        ("usb", "pve", "ok"),
        ("login", "nas", "ok"),
    ]


@pytest.mark.parametrize(
    "findings", [7, None, {}, [7], [{}], [finding("usb", "pve", "great")], [finding("usb", "pve", "ok")] * 5001]
)
def test_an_answer_that_is_none_hides_no_other(findings: Any) -> None:
    made = report(
        ["pve", "media"],
        pve={"__nut_server_doctor": {"findings": findings}},
        media={"__nut_client_doctor": {"findings": [finding("port", "media", "ok")]}},
    )
    assert told(made) == [("reachable", "pve", "failure"), ("port", "media", "ok")]
    assert "its answer can't be read" in made["findings"][0]["seen"]


REGISTERED = {
    "__nut_server_doctor": {"findings": [finding("usb", "pve", "ok"), finding("login", "nas", "failure")]},
    "__nut_client_doctor_truenas": {"actions": ["set mode", "started the UPS service"], "version": "25.10"},
    "__nut_client_doctor_login": {"missing_clients": ["nas"]},
    "__nut_doctor_trouble": {"msg": "gone"},
}


@given(st.one_of(changed(REGISTERED), st.dictionaries(st.sampled_from(sorted(REGISTERED)), values)))
def test_whatever_a_host_says(own: dict[str, Any]) -> None:
    media = {"__nut_client_doctor": {"findings": [finding("port", "media", "ok")]}}
    made = report(["pve", "media"], pve=own, media=media)
    assert ("port", "media", "ok") in told(made)
    assert any(finding["host"] == "pve" for finding in made["findings"])
    assert not unfit(shown(made))
