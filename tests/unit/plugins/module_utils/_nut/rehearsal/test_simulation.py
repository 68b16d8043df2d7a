# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
from pathlib import Path

from ansible_collections.homelab.nut.plugins.module_utils._nut.base import clock as base_clock
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar, upsd, upsmon
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    job,
    simulation,
)
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import make_drill_job


def test_note_tells_when_the_shutdown_began(tmp_path: Path) -> None:
    note = tmp_path / "nas"
    subprocess.run(["/bin/sh", "-c", simulation.compose_note_command(note)], check=True)
    now = base_clock.read_boottime()
    uptime = Path("/proc/uptime").read_text()
    when = simulation.parse_note(note.read_text(), uptime, now)
    assert when is not None
    assert now - 60 < when <= now
    assert [path.name for path in tmp_path.iterdir()] == ["nas"]
    assert simulation.parse_note("100.50 7.00\n", "110.75 8.00\n", 5000.0) == 4989.75
    # never later than now
    assert simulation.parse_note("100.50", "99.00", 5000.0) == 5000.0
    for nonsense in ("", "soon", "nan 1", "inf 1"):
        assert simulation.parse_note(nonsense, "110.75 8.00", 5000.0) is None


def test_simulated_ups_reports_status_and_runtime() -> None:
    assert simulation.compose_ups_data("OB LB", 120.4).splitlines()[-2:] == [
        "ups.status: OB LB",
        "battery.runtime: 120",
    ]
    assert "battery.runtime: 0\n" in simulation.compose_ups_data("OB LB", -3)
    assert "runtime" not in simulation.compose_ups_data("OL", None)


def test_nut_files_only_write_notes(tmp_path: Path) -> None:
    made = simulation.compose_nut_files(tmp_path, make_drill_job(), 40000, "secret")
    assert sorted(made) == ["0.conf", "1.conf", "primary.conf", "ups.conf", "upsd.conf", "upsd.users"]
    assert upsd.read_listen_lines(made["upsd.conf"]) == [("127.0.0.1", 40000)]
    assert upsd.read_users(made["upsd.users"]) == {
        "primary": upsd.User("primary", "secret", "primary"),
        "secondary": upsd.User("secondary", "secret", "secondary"),
    }
    assert "[drill]\ndriver = dummy-ups\nport = drill.dev\nmode = dummy-once\n" in made["ups.conf"]
    for name, user in (("primary", "primary"), ("0", "secondary"), ("1", "secondary")):
        text = made[f"{name}.conf"]
        assert upsmon.read_monitors(text) == (upsmon.Monitor("drill@127.0.0.1:40000", 1, user, "secret", user),)
        # no other command is run, and no other file written
        assert grammar.find_directive(text, "SHUTDOWNCMD") == simulation.compose_note_command(tmp_path / "notes" / name)
        assert grammar.find_directive(text, "NOTIFYCMD") is None
        flag = grammar.find_directive(text, "POWERDOWNFLAG")
        assert flag == (str(tmp_path / "killpower") if name == "primary" else None)
        quiet = [line.words[1:] for line in grammar.parse_lines(text) if line.words[0] == "NOTIFYFLAG"]
        assert len(quiet) == 31
        assert {word for _kind, *words in quiet for word in words} == {"IGNORE"}
        assert {"ONBATT", "LOWBATT", "FSD", "SHUTDOWN"} <= {words[0] for words in quiet}
    assert job.read_timing(made["primary.conf"]) == make_drill_job().timing
    assert job.read_timing(made["0.conf"]) == job.TIMING
