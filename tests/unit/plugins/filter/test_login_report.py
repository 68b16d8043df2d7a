# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.filter.clients import FilterModule as Clients
from ansible_collections.homelab.nut.plugins.filter.login_report import FilterModule

login_report = FilterModule().filters()["login_report"]
clients = Clients().filters()["clients"]

GROUPS = {"pve": ["cellar"], "truenas": ["nas"], "ups_clients": ["desk", "shed"]}
ALL = ["cellar", "nas", "desk", "shed"]
HOSTS: dict[str, dict[str, Any]] = {
    "cellar": {"ansible_host": "192.0.2.10"},
    "nas": {"ansible_host": "192.0.2.20"},
    "desk": {"ansible_host": "192.0.2.21"},
    "shed": {"ansible_host": "fd00::22"},
}


def query(*missing: str, **result: Any) -> dict[str, Any]:
    """Return what the primary has registered about its UPS."""
    answer = {"upses": [{"name": "ups", "status": ["OL"], "error": None}], "missing_clients": list(missing), **result}
    return {"__nut_server_logins": {"results": [{"item": "ups", **answer}]}}


def report(hosts: list[str] | None = None, **results: dict[str, Any]) -> dict[str, Any]:
    hostvars = {name: {**own, **results.get(name, {})} for name, own in HOSTS.items()}
    reported: dict[str, Any] = login_report(hosts or ALL, hostvars, clients(GROUPS, hostvars), GROUPS["pve"])
    return reported


def test_machines_that_are_logged_in_are_named() -> None:
    assert report(cellar=query()) == {"lines": ["ups on cellar (OL): logged in: nas, desk, shed"], "missing": []}


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (
            {"__nut_client_checked": {"unreachable": True, "msg": "Connection timed out"}},
            "not reached: Connection timed out",
        ),
        ({"__nut_client_checked": {"failed": True, "msg": "Task failed: no login.\nmore"}}, "no login. more"),
        (
            {"__nut_client_checked": {"changed": False}, "__nut_client_deployed": {"failed": True, "msg": "refused"}},
            "refused",
        ),
        ({"__nut_client_by_api": {"msg": "nas: the login was refused."}}, "nas: the login was refused"),
        (
            {
                "__nut_client_by_api": {"service": {}},
                "__nut_client_mains": {"login": {"verdict": "refused", "reason": "upsd does not accept it"}},
            },
            "upsd does not accept it",
        ),
        ({"__nut_client_deployed": {"skipped": True}}, "the playbook doctor shows why"),
        ({"__nut_client_checked": {"failed": True, "msg": "\x1b[2J"}}, "\\x1b[2J"),
    ],
)
def test_missing_machine_is_named_with_the_reason(own: dict[str, Any], why: str) -> None:
    reported = report(cellar=query("192.0.2.21"), desk=own)
    assert reported["lines"] == [
        "ups on cellar (OL): logged in: nas, shed",
        f"  NOT logged in: desk ({why})",
    ]
    assert reported["missing"] == ["desk"]


def test_machine_without_a_part_in_the_run_is_missing_too() -> None:
    """The run may have changed what it logs in with."""
    reported = report(["cellar"], cellar=query("fd00::22"))
    assert reported["lines"][1] == "  NOT logged in: shed (it has no part in this run)"
    assert reported["missing"] == ["shed"]


@pytest.mark.parametrize(
    ("own", "line"),
    [
        ({}, "cellar: it was not deployed: see the failed task above"),
        ({"__nut_server_plan": {"unreachable": True, "msg": "no route"}}, "cellar: not reached: no route"),
        (
            query() | {"__nut_server_logins": {"results": [{"item": "ups", "msg": "no upsd"}]}},
            "ups on cellar: upsd can't be asked: no upsd",
        ),
    ],
)
def test_primary_that_was_not_deployed_is_missing(own: dict[str, Any], line: str) -> None:
    assert report(cellar=own) == {"lines": [line], "missing": ["cellar"]}


@pytest.mark.parametrize(
    ("own", "is_logged_in"),
    [
        ({"__nut_client_deployed": {"changed": True}}, True),
        ({"__nut_client_seen": {"missing_clients": []}}, True),
        ({"__nut_client_seen": {"missing_clients": []}, "__nut_client_seen_again": {"skipped": True}}, True),
        ({"__nut_client_seen": {"missing_clients": ["192.0.2.21"]}}, False),
        (
            {
                "__nut_client_seen": {"missing_clients": ["192.0.2.21"]},
                "__nut_client_seen_again": {"missing_clients": []},
            },
            True,
        ),
        ({"__nut_client_checked": {"changed": False}}, False),
    ],
)
def test_run_without_the_primary_reports_its_secondaries(own: dict[str, Any], is_logged_in: bool) -> None:
    reported = report(["desk"], desk=own)
    assert reported["lines"][0] == f"ups on cellar: logged in: {'desk' if is_logged_in else 'none'}"
    assert reported["missing"] == ([] if is_logged_in else ["desk"])


def test_machines_that_nut_is_taken_away_from_are_not_missing() -> None:
    reported = report(cellar=query(), desk={"nut_client_state": "absent"})
    assert reported["lines"] == ["ups on cellar (OL): logged in: nas, shed"]
    assert report(cellar={"nut_server_state": "absent"}) == {"lines": [], "missing": []}


def test_primary_without_secondaries_says_so() -> None:
    found = login_report(["cellar"], {"cellar": {**HOSTS["cellar"], **query()}}, [], ["cellar"])
    assert found == {"lines": ["ups on cellar (OL): logged in: no secondary is in the inventory"], "missing": []}


def test_ups_without_data_is_shown() -> None:
    lines = report(cellar=query(upses=[{"name": "ups", "status": [], "error": "DATA-STALE"}]))["lines"]
    assert lines == ["ups on cellar (DATA-STALE): logged in: nas, desk, shed"]


def test_missing_unmanaged_machine_is_told_what_to_enter_there() -> None:
    groups = {"pve": ["cellar"], "unmanaged": ["syno", "fridge"]}
    hostvars: dict[str, dict[str, Any]] = {
        "cellar": {"ansible_host": "192.0.2.10", "nut_server_port": 3500, **query("192.0.2.30", "fridge")},
        "syno": {"ansible_host": "192.0.2.30", "nut_client_user": "monuser", "nut_client_password": "secret"},
        "fridge": {},
    }
    reported = login_report(["cellar"], hostvars, clients(groups, hostvars), ["cellar"])
    again = ". If it is there already, restart its UPS service, because a refused login is not tried again; see docs/clients.md)"
    assert reported["lines"][1:] == [
        "  NOT logged in: syno (enter there: server 192.0.2.10, port 3500, UPS ups, user monuser, and the password in nut_client_password"
        + again,
        "  NOT logged in: fridge (enter there: server 192.0.2.10, port 3500, UPS ups, user fridge, and the password in "
        ".homelab-nut/passwords/fridge beside the inventory" + again,
    ]
    assert reported["missing"] == ["syno", "fridge"]
