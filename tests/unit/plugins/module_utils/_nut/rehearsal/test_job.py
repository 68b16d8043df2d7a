# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    job,
)
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import NAS, make_drill_job, make_policy


def test_job_survives_json_and_nonsense_is_refused() -> None:
    original = make_drill_job()
    line = original.to_json()
    assert "\n" not in line
    assert job.read_job(line) == original
    for nonsense in ("", "{}", "[]", line.replace('"outage"', '"odd"'), line.replace('"settle": 3.0', '"settle": -1')):
        with pytest.raises(job.RehearsalError, match="the job of the drill is malformed"):
            job.read_job(nonsense)


def test_time_limit_covers_every_wait() -> None:
    # start, outage, two polls, HOSTSYNC, FINALDELAY, DEADTIME, the gate, and a minute to spare
    assert make_drill_job().time_limit == 60 + 10 + 10 + 30 + 5 + 15 + 150 + 60
    assert make_drill_job(timing={**job.TIMING, "POLLFREQ": 20}).time_limit == 60 + 10 + 40 + 15 + 5 + 15 + 150 + 60


def test_timing_is_parsed_as_upsmon_does() -> None:
    assert job.read_timing("") == {"POLLFREQ": 5, "POLLFREQALERT": 5, "HOSTSYNC": 15, "DEADTIME": 15, "FINALDELAY": 5}
    text = "HOSTSYNC 20\nPOLLFREQ 3\n# DEADTIME 99\nHOSTSYNC 45\nFINALDELAY soon\nPOLLFREQALERT 4s\n"
    assert job.read_timing(text) == {"POLLFREQ": 3, "POLLFREQALERT": 4, "HOSTSYNC": 45, "DEADTIME": 15, "FINALDELAY": 0}


def test_primary_name_differs_from_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.platform, "node", lambda: "pve.example.org")
    assert job.name_primary(make_policy(NAS)) == "pve"
    assert job.name_primary(make_policy({**NAS, "name": "pve"})) == "pve (this host)"
