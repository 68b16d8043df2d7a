# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A drill, a live drill and a deployment refuse the same states of a UPS."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.client import UpsdClient
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import fitness, outside
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal.job import RehearsalRefused
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import ANSWERS, NEAR, make_host, make_house


@pytest.mark.parametrize(
    ("status", "goes"),
    [
        ("OL", True),
        ("OL CHRG", True),
        ("OL TRIM ALARM", True),
        ("OB", False),
        ("OB DISCHRG", False),
        ("OL OB", False),
        ("OL LB", False),
        ("OB LB", False),
        ("FSD OL", False),
        ("FSD OB LB", False),
        ("OL CAL", False),
        ("OL BYPASS", False),
        ("BYPASS", False),
        ("OL OFF", False),
        ("OFF", False),
    ],
)
def test_drill_live_drill_and_deployment_agree_on_each_status(tmp_path: Path, status: str, *, goes: bool) -> None:
    answers = {
        **ANSWERS,
        "LIST VAR ups": ANSWERS["LIST VAR ups"].replace('"OL"', f'"{status}"'),
        "GET VAR ups ups.status": f'VAR ups ups.status "{status}"\n',
    }
    with serve_answers(answers) as server:
        house = make_house(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        if goes:
            assert outside.ask_real_upsd(house) == 900
        else:
            with pytest.raises(
                RehearsalRefused,
                match=f"ups reports {status}, which does not count as on mains: a real shutdown may be imminent",
            ):
                outside.ask_real_upsd(house)
        problems = fitness.judge_fitness(house, fitness.observe_host(house, make_host(tmp_path))).problems
        with UpsdClient("127.0.0.1", server.port, 5.0) as client:
            # what a deployment checks
            busy = snapshot.list_not_on_mains(snapshot.take_snapshot(client, ["ups"]))
    assert [f"ups reports {status}, which does not count as on mains. Wait until it does"] == list(problems) or goes
    assert (not problems) is goes
    assert busy == ([] if goes else [f"ups ({status})"])
