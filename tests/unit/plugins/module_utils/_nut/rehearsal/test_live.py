# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    job,
    live,
)
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import (
    ANSWERS,
    NEAR,
    SEEN,
    Journal,
    RehearsalSystemd,
    make_host,
    make_house,
)


def ask(tmp_path: Path, run: Any = None, answers: dict[str, str] | None = None, **wanted: Any) -> tuple[bool, str]:
    """Return the result and the output of `nut-shutdown record` on a host below TMP_PATH."""
    said: list[str] = []
    with serve_answers(answers or ANSWERS) as server:
        house = make_house(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        wish = live.RecordOptions(report=tmp_path / "last.json", **wanted)
        done = live.main(house, wish, make_host(tmp_path, run), said.append)
    return done, "\n".join(said)


def test_record_check_says_whether_the_site_is_ready(tmp_path: Path) -> None:
    assert ask(tmp_path, check=True, need=900) == (True, "ready for a real shutdown")
    done, text = ask(tmp_path, check=True, as_json=True, need=901)
    assert done is False
    assert re.search("the plan needs 901 s", json.loads(text)["problems"][0])
    with pytest.raises(job.RehearsalRefused, match="the plan needs 901 s"):
        ask(tmp_path, check=True, need=901)
    unsure = {**ANSWERS, "LIST VAR ups": ANSWERS["LIST VAR ups"].replace("ups.delay.start", "ups.delay.other")}
    assert "does not report when it restores power" in ask(tmp_path, answers=unsure, check=True)[1]


def test_record_starts_recorder_and_prints_remarks(tmp_path: Path) -> None:
    unsure = {**ANSWERS, "LIST VAR ups": ANSWERS["LIST VAR ups"].replace("ups.delay.start", "ups.delay.other")}
    run = RehearsalSystemd()
    done, text = ask(tmp_path, run, unsure, need=5)
    assert done
    remark, last = text.splitlines()
    assert "does not report when it restores power" in remark
    assert last == "nut-shutdown-record.service is recording until this host goes down"
    assert "--unit=nut-shutdown-record" in run.ran[-1]


def test_record_show_prints_steps_table_and_offers(tmp_path: Path) -> None:
    with pytest.raises(job.RehearsalError, match="no real shutdown was recorded"):
        ask(tmp_path, Journal(), show=True)
    (tmp_path / "live.json").write_text(SEEN.to_json())
    done, text = ask(tmp_path, Journal((1120.0, "")), show=True, own=100)
    assert done
    assert text.splitlines()[0] == "    +0.0 s  pve: upsmon set FSD"
    assert "The order held" in text
    assert "For the inventory:" in text
    assert (
        "host_vars/pve.yml, or its group's file in group_vars: nut_server_shutdown_time: 48  # measured 40.0 s" in text
    )
    data = json.loads(ask(tmp_path, Journal((1120.0, "")), show=True, as_json=True)[1])
    assert data["took"] == {"nas": 60.5, "media": 2.5, "pve": 40.0}
    token = make_host(tmp_path).token_path
    token.parent.mkdir(parents=True)
    token.write_text("t0")
    assert json.loads(ask(tmp_path, Journal(), show=True, as_json=True)[1])["restarted"] is False
