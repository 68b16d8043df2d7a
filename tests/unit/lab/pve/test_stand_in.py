# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a guest notes of itself. How qm and pct behave is held to in the tests of the library that calls them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pve import stand_in
from pve.stand_in import GuestFolder


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuestFolder]:
    """A host whose guests note what they do; there is no systemd that could give each a scope."""
    monkeypatch.setattr(stand_in, "SCOPE", ())
    (tmp_path / "guests").mkdir()
    one = GuestFolder(tmp_path / "guests", 20.0, tmp_path / "moments")
    monkeypatch.setenv("PVE_STAND_IN", str(one.folder))
    monkeypatch.setenv("PVE_STAND_IN_SPEED", "20")
    monkeypatch.setenv("PVE_STAND_IN_MOMENTS", str(one.moments))
    yield one
    one.kill_all()


def moments(host: GuestFolder) -> list[str]:
    assert host.moments
    return [line.split(" ", 1)[1] for line in host.moments.read_text().splitlines()] if host.moments.exists() else []


def until_said(host: GuestFolder, line: str) -> None:
    deadline = time.monotonic() + 20
    while line not in moments(host):
        assert time.monotonic() < deadline, f"never said: {line}"
        time.sleep(0.01)


def test_guest_shuts_down_after_its_time(host: GuestFolder) -> None:
    host.add_guest(101, shutdown=4.0)
    until_said(host, "101 started")
    host.run_program("qm", ["shutdown", "101", "--timeout", "60"])
    assert host.find_pid(101) == 0
    assert moments(host) == ["101 started", "101 told", "101 down"]
    times = [float(line.split()[0]) for line in host.moments.read_text().splitlines()]  # type: ignore[union-attr]
    assert times[2] - times[1] >= 0.19
    assert abs(times[0] - time.time()) < 60


def test_second_shutdown_request_changes_nothing(host: GuestFolder) -> None:
    host.add_guest(101, shutdown=20.0)
    until_said(host, "101 started")
    guest = host.read_guest(101)
    host.ask_to_stop(101, guest)
    host.ask_to_stop(101, guest)
    host.wait_for_end(101)
    assert moments(host) == ["101 started", "101 told", "101 down"]


def test_hanging_guest_is_killed(host: GuestFolder) -> None:
    host.add_guest(201, kind="pct", shutdown=None)
    until_said(host, "201 started")
    host.run_program("pct", ["shutdown", "201", "--timeout", "2", "--forceStop", "1"])
    assert moments(host) == ["201 started", "201 killed"]


def test_kill_all_logs_no_clean_shutdown(host: GuestFolder) -> None:
    host.add_guest(101)
    until_said(host, "101 started")
    os.kill(host.find_pid(101), signal.SIGKILL)
    host.wait_for_end(101)
    assert moments(host) == ["101 started"]


def test_programs_log_events_of_guests(host: GuestFolder, tmp_path: Path) -> None:
    stand_in.install_programs(tmp_path, host.folder, 20.0, host.moments)
    host.add_guest(101, shutdown=1.0)
    until_said(host, "101 started")
    done = subprocess.run([tmp_path / "qm", "shutdown", "101"], check=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0
    assert moments(host)[-1] == "101 down"
    assert sys.executable in (tmp_path / "qm").read_text()
