# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import findings, merge
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    UNKNOWN,
    WARNING,
    DoctorReport,
    Finding,
)


def make_finding(
    check: str = "driver", host: str = "pve", verdict: str = FAILURE, seen: str = "it is stale", todo: str = ""
) -> Finding:
    return Finding(check, host, verdict, seen, todo)


@pytest.mark.parametrize(
    ("verdicts", "worst", "code"),
    [
        ([], OK, 0),
        ([OK], OK, 0),
        ([OK, NOTE], NOTE, 0),
        ([NOTE, UNKNOWN], UNKNOWN, 1),
        ([UNKNOWN, WARNING, OK], WARNING, 1),
        ([WARNING, FAILURE, OK], FAILURE, 2),
    ],
)
def test_exit_code_follows_worst_verdict(verdicts: list[str], worst: str, code: int) -> None:
    report = merge.merge_findings(
        ["pve"], [make_finding(str(number), verdict=verdict) for number, verdict in enumerate(verdicts)]
    )
    assert (report.worst_verdict, report.exit_code) == (worst, code)


def test_findings_are_sorted_by_host_and_severity() -> None:
    report = merge.merge_findings(
        ["b", "a"],
        [
            make_finding("1", "a", NOTE),
            make_finding("2", "a", FAILURE),
            make_finding("3", "b", OK),
            make_finding("4", "b", WARNING),
            make_finding("5", "stranger"),
        ],
    )
    assert [finding.check for finding in report.findings] == ["4", "3", "2", "1", "5"]


def test_equal_findings_are_listed_once() -> None:
    found = [
        make_finding("units", verdict=OK),
        make_finding("units", seen="a"),
        make_finding("units", seen="b"),
        make_finding("units", seen="a"),
    ]
    assert [finding.seen for finding in merge.merge_findings(["pve"], found).findings] == ["a", "b", "it is stale"]


def test_login_checked_by_two_hosts_keeps_worse_verdict() -> None:
    found = [
        make_finding("login", verdict=OK),
        make_finding("login", seen="out"),
        make_finding("login", verdict=UNKNOWN),
    ]
    assert [(finding.verdict, finding.seen) for finding in merge.merge_findings(["pve"], found).findings] == [
        (FAILURE, "out")
    ]


def test_summary_counts_findings_by_verdict() -> None:
    report = merge.merge_findings(
        ["a", "b"],
        [
            make_finding("1", "a"),
            make_finding("2", "a"),
            make_finding("3", "b", OK),
            make_finding("4", "b", UNKNOWN),
            make_finding("5", "b", WARNING),
        ],
    )
    assert report.summary == "2 hosts, 5 checks: 2 failures, 1 warning, 1 unknown, 1 ok"
    assert DoctorReport(()).summary == "0 hosts, 0 checks: 0 ok"
    assert merge.merge_findings(["a"], [make_finding("1", "a", NOTE)]).summary == "1 host, 1 check: 1 note, 0 ok"


def test_report_survives_json() -> None:
    report = merge.merge_findings(["pve"], [make_finding(todo="do it"), make_finding("x", verdict=OK)])
    data = json.loads(json.dumps(report.to_json()))
    assert (data["format"], data["verdict"], data["code"]) == (1, "failure", 2)
    assert data["summary"] == report.summary
    assert data["findings"][0] == {
        "check": "driver",
        "host": "pve",
        "verdict": "failure",
        "seen": "it is stale",
        "todo": "do it",
        "about": [],
        "because": "",
    }
    assert findings.from_json(data) == report


@pytest.mark.parametrize(
    "data", [{}, {"findings": [{}]}, {"findings": 1}, {"findings": [{**make_finding().__dict__, "verdict": "bad"}]}]
)
def test_malformed_report_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        findings.from_json(data)


LONG = "its driver runs, and hears nothing from it (DATA-STALE); " * 4


def test_table_fits_width_and_keeps_all_text() -> None:
    report = merge.merge_findings(
        ["a-host-with-a-very-long-name.example"],
        [make_finding(host="a-host-with-a-very-long-name.example", seen=LONG, todo=LONG)],
    )
    for width in (80, 100, 120):
        shown = findings.format_table(report, width=width)
        assert all(len(line) <= width for line in shown.splitlines())
        assert shown.count("DATA-STALE") == 8
        assert shown.splitlines()[-1] == report.summary


def test_table_shows_failures_in_capitals() -> None:
    lines = findings.format_table(
        merge.merge_findings(
            ["pve"], [make_finding(todo="look"), make_finding("status", verdict=WARNING, seen="on battery")]
        )
    ).splitlines()
    assert lines[0].split() == ["HOST", "CHECK", "VERDICT", "SEEN", "TO", "DO"]
    assert lines[2].split() == ["pve", "driver", "FAILURE", "it", "is", "stale", "look"]
    assert lines[3].split() == ["status", "warning", "on", "battery"]


def test_same_note_of_several_hosts_is_listed_once() -> None:
    report = merge.merge_findings(
        ["a", "b"],
        [
            make_finding("clock", "a", NOTE, "not kept right", "x"),
            make_finding("clock", "b", NOTE, "not kept right", "x"),
            make_finding("users", "b", OK),
        ],
    )
    assert findings.format_table(report).splitlines() == [
        "note, a, b, clock: not kept right -> x",
        "",
        report.summary,
    ]


def test_table_of_everything_has_a_row_for_each_finding() -> None:
    report = merge.merge_findings(["a"], [make_finding("clock", "a", NOTE), make_finding("users", "a", OK, "2 users")])
    shown = findings.format_table(report, everything=True)
    assert [line.split()[-1] for line in shown.splitlines()[2:4]] == ["stale", "users"]
    assert "note, a" not in shown
    assert "ok, a" not in shown


def test_foreign_text_in_finding_is_escaped() -> None:
    shown = findings.format_table(
        merge.merge_findings(
            ["a"], [make_finding(host="a", seen="\x1b[31mred\n"), make_finding("n", "a", NOTE, "\x1b]0;x\x07")]
        )
    )
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_failures_of_all_hosts_come_before_warnings() -> None:
    report = merge.merge_findings(
        ["a", "b"],
        [make_finding("1", "a", WARNING), make_finding("2", "b"), make_finding("3", "a", UNKNOWN)],
    )
    rows = [line for line in findings.format_table(report).splitlines() if "stale" in line]
    assert [row.split()[:2] for row in rows] == [["b", "2"], ["a", "1"], ["3", "unknown"]]


def test_table_of_healthy_hosts_is_a_line() -> None:
    report = merge.merge_findings(["a"], [make_finding("1", "a", OK), make_finding("2", "a", OK)])
    assert findings.format_table(report) == "1 host, 2 checks: 2 ok"


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (OK, ""),
        (NOTE, ""),
        (UNKNOWN, "Exit code 1: nothing is broken"),
        (WARNING, "Exit code 1: nothing is broken"),
        (FAILURE, "Exit code 2: something is broken"),
    ],
)
def test_last_words_explain_exit_code(verdict: str, words: str) -> None:
    said = merge.merge_findings(["a"], [make_finding("1", "a", verdict)]).last_words
    assert said.startswith(words)
    assert bool(said) == bool(words)
