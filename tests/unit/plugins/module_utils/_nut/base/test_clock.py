# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import clock


def test_boot_id_is_read_or_empty(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("abc\n")
    assert clock.read_boot_id(tmp_path / "id") == "abc"
    assert clock.read_boot_id(tmp_path / "none") == ""


def test_boottime_never_goes_back() -> None:
    before = clock.read_boottime()
    assert before <= clock.read_boottime()
    assert before == pytest.approx(float(Path("/proc/uptime").read_text().split()[0]), abs=60)


def test_stamp_is_in_the_zone_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    try:
        assert clock.format_time(0) == "1970-01-01 02:00:00 +0200"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_system_start_is_that_of_its_first_process(tmp_path: Path) -> None:
    assert clock.read_system_start(tmp_path) == 0.0
    (tmp_path / "proc/1").mkdir(parents=True)
    fields = ["S", *(["0"] * 18), str(250 * os.sysconf("SC_CLK_TCK")), "0"]
    (tmp_path / "proc/1/stat").write_text(f"1 (a ) b) {' '.join(fields)}\n")
    assert clock.read_system_start(tmp_path) == 250.0
    assert clock.name_system_start(tmp_path) == f"{clock.read_boot_id()}/250"
    assert clock.kernel_boot(clock.name_system_start(tmp_path)) == clock.read_boot_id()
    assert 0 <= clock.read_system_start() <= clock.read_boottime()
