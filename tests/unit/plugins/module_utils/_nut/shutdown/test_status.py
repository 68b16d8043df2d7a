# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re

from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serving
from ansible_collections.homelab.nut.tests.unit.support.shutdown_host import GUEST, Program


def test_status_shows_machines_and_upses(program: Program) -> None:
    answers = {
        "GET VAR ups ups.status": 'VAR ups ups.status "OB DISCHRG"\n',
        "GET VAR ups battery.runtime": 'VAR ups battery.runtime "240"\n',
        "GET VAR old ups.status": "ERR DATA-STALE\n",
    }
    with serving(answers) as server:
        upses = [{"name": name, "host": "127.0.0.1", "port": server.port} for name in ("ups", "old")]
        nas = {"name": "nas", "addresses": ["nas.invalid"], "shutdown_time": 60, "shutdown_limit": 120}
        program.policy(upses=upses, machines=[GUEST, nas])
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
    program.policy(machines=[GUEST], least=20)
    assert program("status") == 0
    assert (
        "until a UPS has only 20 s left, or 30 s if a machine takes longer than its shutdown_time:" in program.out.pop()
    )
    assert "on battery, 240 s left" in text
    assert "DATA-STALE" in text
    assert text.endswith("last shutdown: none")
    assert [(machine["name"], machine["up"]) for machine in data["hosts"]] == [("vm", True), ("nas", None)]
    assert (data["upses"][0]["runtime"], data["upses"][0]["error"]) == (240.0, None)
    assert "DATA-STALE" in data["upses"][1]["error"]
    assert data["gate"] is None
    assert data["last"] is None


def test_status_shows_last_shutdown(program: Program) -> None:
    program("gate")
    program.out.clear()
    program("status")
    assert "last shutdown: gate began " in program.out[0]
    assert ", ended (down): all are down" in program.out[0]
    assert re.search(r"^  \+0\.\d s  vm is down", program.out[0], re.MULTILINE)
    program("status", "--json")
    assert {"version": 1, **json.loads(program.out[1])["last"]} == program.json("last.json")
    for nonsense in (
        '{"began": "x"}',
        '{"began": 1e300, "rule": null, "steps": []}',
        '{"began": 1, "rule": null, "steps": 7}',
        "[]",
    ):
        (program.folder / "last.json").write_text(nonsense)
        program("status")
        assert program.out[-1].endswith("last shutdown: the report can't be read")


def test_status_without_machines(program: Program) -> None:
    program.policy(machines=[])
    program("status")
    assert "  no machines\n" in program.out[0]
    assert "  no UPSes\n" in program.out[0]
