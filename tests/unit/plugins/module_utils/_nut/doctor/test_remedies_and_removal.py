# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remedies that deploy a secondary name its primary, too. NUT that was taken away, and secrets that are elsewhere, are single findings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.filter import doctor_report
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.files import NutFiles
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import actions
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.secrets import TO_BE_MADE
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import status
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks_others import judge_truenas
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.exam import Expected, ExpectedTimes
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import FAILURE, OK, TAKEN_AWAY, WARNING
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import HostObservation
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import (
    CLIENT,
    CLIENT_EXPECTED,
    EXPECTED,
    SEEN,
    find_problems,
    make_ups,
    upsd_answer,
    with_text,
)

OFF = {"actions": ["set monuser, monpwd", "started the UPS service", "enabled the UPS service on boot"], "service": {}}
WITH_PRIMARY = replace(CLIENT_EXPECTED, times=ExpectedTimes("pve", 30, 60))


def emptied(seen: HostObservation) -> HostObservation:
    return with_text("nut.conf", lambda _text: actions.STUBS["nut.conf"], seen)


@pytest.mark.parametrize(
    ("seen", "expected", "todo"),
    [
        (SEEN, EXPECTED, f"make ups tags=ups limit={EXPECTED.name}"),
        (CLIENT, WITH_PRIMARY, "make ups tags=ups limit=pve,media"),
    ],
)
def test_host_that_nut_was_taken_away_from_has_a_single_finding(
    seen: HostObservation, expected: Expected, todo: str
) -> None:
    (finding,) = examine_host(emptied(seen), expected)
    assert (finding.check, finding.verdict, finding.seen, finding.todo) == ("installed", WARNING, TAKEN_AWAY, todo)


def test_secondary_is_deployed_with_its_primary() -> None:
    """Alone, it would get a login that the primary may not know."""
    stripped = with_text("upsmon.conf", lambda text: text.replace("MONITOR", "# MONITOR"), CLIENT)
    todos = {finding.todo for finding in examine_host(stripped, WITH_PRIMARY) if "make ups" in finding.todo}
    assert todos
    assert all("limit=pve,media" in todo for todo in todos)


def test_login_that_a_primary_misses_is_deployed_with_the_primary() -> None:
    alone = replace(SEEN, served=upsd_answer(make_ups(clients=("127.0.0.1",))))
    todos = [
        finding.todo
        for finding in examine_host(alone, EXPECTED)
        if finding.check == "login" and finding.verdict == FAILURE
    ]
    assert todos
    assert all(f"limit={EXPECTED.name}," in todo for todo in todos)


def test_truenas_is_deployed_with_its_primary() -> None:
    found = judge_truenas("nas", OFF, "pve")
    assert [finding.verdict for finding in found] == [FAILURE, FAILURE]
    assert {finding.todo for finding in found} == {"make ups tags=ups limit=pve,nas"}


def test_truenas_that_went_with_its_primary_has_a_single_finding() -> None:
    (finding,) = judge_truenas("nas", OFF, "pve", primary_away=True)
    assert (finding.verdict, finding.seen) == (WARNING, TAKEN_AWAY)
    # it was not taken away
    runs = {"actions": [], "service": {}}
    assert [finding.verdict for finding in judge_truenas("nas", runs, "pve", primary_away=True)] == [OK, OK]


@pytest.mark.parametrize(
    ("seen", "verdicts"), [(TAKEN_AWAY, ["warning", "warning"]), ("broken", ["warning", "failure", "failure"])]
)
def test_report_takes_the_removal_from_the_primary(seen: str, verdicts: list[str]) -> None:
    finding = {"check": "installed", "host": "pve", "verdict": "warning", "seen": seen, "todo": ""}
    hostvars: dict[str, Any] = {
        "pve": {"__nut_server_doctor": {"findings": [finding]}},
        "nas": {"__nut_client_doctor_truenas": OFF},
    }
    made = doctor_report.doctor_report(["pve", "nas"], hostvars, [{"name": "nas", "primary": "pve", "managed": True}])
    assert [finding["verdict"] for finding in made["findings"]] == verdicts


def test_status_says_that_nut_was_taken_away() -> None:
    gone = replace(emptied(SEEN), served="upsd at localhost:3493 cannot be reached: does upsd run?")
    assert status.collect_facts(gone)["upsd"] == f"{TAKEN_AWAY}; make ups tags=ups brings it back"
    assert status.collect_facts(replace(SEEN, served="cannot be reached"))["upsd"] == "cannot be reached"
    assert status.collect_facts(SEEN)["upsd"] is None


@pytest.mark.parametrize(("seen", "expected"), [(SEEN, EXPECTED), (CLIENT, WITH_PRIMARY)], ids=["primary", "secondary"])
def test_passwords_that_are_not_kept_are_a_single_finding(seen: HostObservation, expected: Expected) -> None:
    """Ansible would refuse to deploy others."""
    passwords = {user.password for user in NutFiles(expected.files).users.values()}
    passwords |= {monitor.password for monitor in NutFiles(expected.files).monitors}
    files = dict(expected.files)
    for password in passwords:
        files = {name: text.replace(password, TO_BE_MADE) for name, text in files.items()}
    (finding,) = find_problems(seen, replace(expected, files=files))
    assert (finding.check, finding.verdict) == ("secrets", WARNING)
    assert "is kept on the Ansible controller, so it cannot deploy this host" in finding.seen
    assert finding.todo.endswith("make rotate")
