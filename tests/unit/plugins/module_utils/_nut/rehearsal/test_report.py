# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    aftermath,
    job,
    notes,
    report,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import (
    AFTER,
    CONF,
    SEEN,
    make_drill_job,
    make_house,
    make_notes,
)


def seen(rule: str = gate.DOWN, **machines: Any) -> report.DrillResult:
    return report.DrillResult(machines or {"nas": (10.0, 70.0), "vm": (8.0, 18.0)}, 1e9, 73.5, rule, "words")


def test_verdict_of_a_drill() -> None:
    assert seen().list_problems() == []
    assert seen().format_verdict() == "The order held: the last machine down was nas, 3.5 s before this host"
    assert seen(gate.ASSUMED).list_problems() == []
    assert dataclasses.replace(seen(), machines={}).format_verdict() == "The order held: no machines to wait for"
    late = "nas was not down when this host would have powered off"
    assert seen(nas=(10.0, None)).list_problems() == [late]
    assert seen(nas=(10.0, 73.6)).list_problems() == [late]
    assert seen(nas=(10.0, 73.5)).list_problems() == []
    never = seen(nas=(None, None), vm=(8.0, 18.0))
    assert never.list_problems() == ["nas had not begun to go down when this host would have powered off"]
    assert never.format_verdict() == f"The order did not hold: {never.list_problems()[0]}"
    for rule in (gate.LIMIT, gate.BATTERY, gate.TIMEOUT, ""):
        assert seen(rule).list_problems() == ["the wait ended because words"]


def test_planned_times_add_up_polls_and_shutdown_time() -> None:
    # half a poll, half a poll and FINALDELAY, and each shutdown_time
    given = make_drill_job()
    plan = report.plan_shutdown(given.policy, given.timing, given.primary)
    assert report.list_planned_times(plan, given.policy, given.primary) == {
        "nas": (10.0, 70.0),
        "vm": (10.0, 20.0),
        "pve": (74.0, None),
    }


def test_drill_data_and_table() -> None:
    data = seen(nas=(10.123, 70.456), vm=(None, None)).to_data(make_drill_job())
    assert json.loads(json.dumps(data)) == data
    assert data["machines"] == {"nas": [10.12, 70.46], "vm": [None, None]}
    assert (data["trigger"], data["poweroff"], data["held"]) == (1e9, 73.5, False)
    assert data["decision"] == {"rule": "down", "reason": "words"}
    assert data["planned"]["pve"] == [74.0, None]
    lines = report.format_drill_table(data).splitlines()
    assert [line.split() for line in lines[1:6]] == [
        ["nas", "begins", "to", "go", "down", "+10.0", "+10.1"],
        ["is", "down", "+70.0", "+70.5"],
        ["vm", "begins", "to", "go", "down", "+10.0", "-"],
        ["is", "down", "+20.0", "-"],
        ["pve", "would", "power", "off", "+74.0", "+73.5"],
    ]
    assert lines[0].split()[-2:] == ["planned", "measured"]
    assert len({len(line) for line in lines[:6]}) == 1
    assert lines[-1] == data["verdict"]


def test_record_counts_from_fsd() -> None:
    data = report.build_record_report(SEEN, make_house(), CONF, AFTER, 40)
    assert data["machines"] == {"nas": [6.0, 66.5], "media": [5.5, 8.0], "pve": [78.0, 118.0]}
    assert data["took"] == {"nas": 60.5, "media": 2.5, "pve": 10.0}
    assert data["guests"] == 30.0
    # the plan counts from the low battery, the record from FSD
    made = report.plan_shutdown(make_house(), job.read_timing(CONF), "pve")
    poll = made.time_of("FSD") or 0.0
    assert poll > 0
    whole = report.list_planned_times(made, make_house(), "pve")
    assert data["planned"]["nas"] == [round((moment or 0) - poll, 2) for moment in whole["nas"]]
    assert data["planned"]["pve"] == [round((whole["pve"][0] or 0) - poll, 2), None]
    assert data["seen"]["nas"] == [6.0 + poll, 66.5 + poll]
    assert data["held"] is True
    assert data["verdict"] == "The order held: all machines were down before this host powered off"
    assert data["steps"] == [[0.0, "pve: upsmon set FSD"]]
    assert (data["restarted"], data["primary"], data["reason"], data["fsd"]) == (True, "pve", "all are down", 1002.0)
    assert json.loads(json.dumps(data)) == data


def test_plan_uses_timing_of_upsmon_conf() -> None:
    slow = report.build_record_report(SEEN, make_house(), CONF + "POLLFREQ 20\nPOLLFREQALERT 20\n", AFTER)
    quick = report.build_record_report(SEEN, make_house(), CONF, AFTER)
    assert slow["seen"]["nas"][0] > quick["seen"]["nas"][0]


@pytest.mark.parametrize(
    ("machines", "changes", "words"),
    [
        ({"nas": notes.MachineNotes(True, 1008.0, 1081.0)}, {}, "nas was not down when pve powered off"),
        ({"nas": notes.MachineNotes(True, 1008.0, None)}, {}, "nas was not down when pve powered off"),
        ({"nas": notes.MachineNotes(True, None, 1050.0)}, {}, "nas stopped answering without logging out"),
        ({}, {"fsd": None}, "no FSD was seen"),
    ],
)
def test_record_names_each_violation_of_the_order(
    machines: dict[str, notes.MachineNotes], changes: Any, words: str
) -> None:
    record = dataclasses.replace(SEEN, machines={**SEEN.machines, **machines}, **changes)
    data = report.build_record_report(record, make_house(), CONF, AFTER)
    assert data["held"] is False
    assert data["verdict"] == f"The order did not hold: {words}"
    assert data["table"].endswith(words)


def test_unfinished_record_names_unknown_times() -> None:
    record = dataclasses.replace(SEEN, ended=None)
    assert report.build_record_report(record, make_house(), CONF, aftermath.Aftermath(False))["verdict"].endswith(
        "pve is still waiting"
    )
    assert report.build_record_report(record, make_house(), CONF, aftermath.Aftermath(True))["verdict"].endswith(
        "it is unknown when pve powered off"
    )
    # the gate's report has the time as well
    assert report.build_record_report(record, make_house(), CONF, AFTER)["machines"]["pve"] == [77.5, 118.0]
    assert (
        report.build_record_report(make_notes(machines={}, fsd=1, ended=2), make_house(), CONF, AFTER)["verdict"]
        == "The order held: no machines to wait for"
    )


def test_record_table_has_guests_apart() -> None:
    lines = report.format_record_table(report.build_record_report(SEEN, make_house(), CONF, AFTER)).splitlines()
    assert re.split(r"  +", lines[0]) == ["s since FSD", "planned", "measured", "duration"]
    assert re.split(r"  +", lines[1])[:2] == ["nas", "begins to go down"]
    assert lines[1].endswith("+6.0")
    assert lines[2].split()[-2:] == ["+66.5", "60.5"]
    assert re.split(r"  +", lines[5])[:2] == ["pve", "powers off"]
    assert lines[6].split() == ["is", "off", "-", "+118.0", "10.0"]
    assert "The guests of pve took another 30.0 s" in lines[8]
    without = report.format_record_table(
        report.build_record_report(SEEN, make_house(), CONF, aftermath.Aftermath(False))
    )
    assert "guests" not in without
    assert without.splitlines()[6].split() == ["is", "off", "-", "-", "-"]
