# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re

from ansible_collections.homelab.nut.plugins.module_utils._nut.base import records
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import returns
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.returns import ReturnResult, ReturnState
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.shutdown_host import GUEST, ShutdownProgram


def test_status_shows_machines_and_upses(program: ShutdownProgram) -> None:
    answers = {
        "GET VAR ups ups.status": 'VAR ups ups.status "OB DISCHRG"\n',
        "GET VAR ups battery.runtime": 'VAR ups battery.runtime "240"\n',
        "GET VAR old ups.status": "ERR DATA-STALE\n",
    }
    with serve_answers(answers) as server:
        upses = [{"name": name, "host": "127.0.0.1", "port": server.port} for name in ("ups", "old")]
        nas = {"name": "nas", "addresses": ["nas.invalid"], "shutdown_time": 60, "shutdown_limit": 120}
        program.write_policy(upses=upses, machines=[GUEST, nas])
        program.says = "status: running"
        assert program("status") == 0
        text = program.out.pop()
        assert program("status", "--json") == 0
        data = json.loads(program.out.pop())
    assert re.search(
        r"^  vm +up +shutdown_time 10 s, shutdown_limit 60 s, checked by qm status 100$", text, re.MULTILINE
    )
    assert re.search(
        r"^  nas +unknown +shutdown_time 60 s, shutdown_limit 120 s, checked by probing nas.invalid$",
        text,
        re.MULTILINE,
    )
    assert "the gate would wait at most 100 s for:" in text
    assert "or until a UPS has only 30 s left:" in text
    program.write_policy(machines=[GUEST], reserve_minimum=20)
    assert program("status") == 0
    assert (
        "until a UPS has only 20 s left, or 30 s if a machine takes longer than its shutdown_time:" in program.out.pop()
    )
    assert "on battery, 240 s left" in text
    assert "DATA-STALE" in text
    assert text.endswith("last shutdown: none")
    assert [(machine["name"], machine["up"]) for machine in data["machines"]] == [("vm", True), ("nas", None)]
    assert (data["upses"][0]["runtime"], data["upses"][0]["error"]) == (240.0, None)
    assert "DATA-STALE" in data["upses"][1]["error"]
    assert data["gate"] is None
    assert data["last"] is None


def test_status_shows_which_ups_powers_what(program: ShutdownProgram) -> None:
    answers = {
        "GET VAR rack ups.status": 'VAR rack ups.status "OL"\n',
        "GET VAR rack battery.runtime": 'VAR rack battery.runtime "900"\n',
        "GET VAR desk ups.status": "ERR DATA-STALE\n",
        "GET VAR router ups.status": 'VAR router ups.status "OL"\n',
        "GET VAR router battery.runtime": 'VAR router battery.runtime "60"\n',
        "GET VAR spare ups.status": 'VAR spare ups.status "OL"\n',
        "GET VAR spare battery.runtime": 'VAR spare battery.runtime "60"\n',
    }
    powers = {"rack": 1, "desk": 1, "router": 0, "spare": 0}
    with serve_answers(answers) as server:
        upses = [
            {"name": name, "host": "127.0.0.1", "port": server.port, "power": power} for name, power in powers.items()
        ]
        nas = {"name": "nas", "addresses": ["nas.invalid"], "shutdown_time": 60, "shutdown_limit": 120, "ups": "router"}
        program.write_policy(upses=upses, machines=[nas], minsupplies=1)
        assert program("status") == 0
        text = program.out.pop()
        assert program("status", "--json") == 0
        data = json.loads(program.out.pop())
    assert "or until a UPS of this host has only" in text
    assert re.search(r"^  rack@\S+ +on mains, 900 s left; powers this host$", text, re.MULTILINE)
    assert re.search(r"^  desk@\S+ .*DATA-STALE.*; powers this host$", text, re.MULTILINE)
    assert re.search(r"^  router@\S+ +on mains, 60 s left; powers nas$", text, re.MULTILINE)
    assert re.search(r"^  spare@\S+ +on mains, 60 s left; powers nothing that is known here$", text, re.MULTILINE)
    assert "this host is redundant: it stays up on rack or desk alone" in text
    assert "desk gives no data, and upsmon counts it as a UPS that gives power: nut-stages begins the shutdown" in text
    assert [ups["power"] for ups in data["upses"]] == [1, 1, 0, 0]
    assert data["machines"][0]["ups"] == "router"


def test_status_shows_last_shutdown(program: ShutdownProgram) -> None:
    program("gate")
    program.out.clear()
    program("status")
    assert "last shutdown: gate began " in program.out[0]
    assert ", ended (down): all are down" in program.out[0]
    assert re.search(r"^  \+0\.\d s  vm is down", program.out[0], re.MULTILINE)
    program("status", "--json")
    assert {"version": 1, **json.loads(program.out[1])["last"]} == program.read_json("last.json")
    for nonsense in (
        '{"began": "x"}',
        '{"began": 1e300, "rule": null, "steps": []}',
        '{"began": 1, "rule": null, "steps": 7}',
        "[]",
    ):
        (program.folder / "last.json").write_text(nonsense)
        program("status")
        assert program.out[-1].endswith("last shutdown: the report can't be read")


def test_status_without_machines(program: ShutdownProgram) -> None:
    program.write_policy(machines=[])
    program("status")
    assert "  no machines\n" in program.out[0]
    assert "  no UPSes\n" in program.out[0]


def test_status_shows_who_came_back_after_the_outage(program: ShutdownProgram) -> None:
    program.write_policy(upses=[], machines=[GUEST])
    program.says = "status: running"
    state = ReturnState("x", result=ReturnResult(1_800_000_000.0, 370.0))
    (program.folder / "return.json").write_text(records.dump_record(state, returns.VERSION))
    assert program("status") == 0
    assert "after the last outage: all back after 6 min 10 s (2027-01-1" in program.out.pop()
    assert program("status", "--json") == 0
    assert len(json.loads(program.out.pop())["return"]) == 1
