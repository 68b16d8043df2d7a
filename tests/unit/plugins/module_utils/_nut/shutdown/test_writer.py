# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from pathlib import Path

from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.writer import BackgroundWriter


def test_stuck_disk_does_not_block_caller() -> None:
    said: list[str] = []
    writer = BackgroundWriter(said.append)
    writer.start()
    stuck = threading.Event()
    writer.jobs.put((Path("x"), lambda: [None, stuck.wait()][0]))
    writer.queue_line(Path("/nowhere/at/all"), "line")
    writer.finish_writing(0.01)
    assert writer.is_alive()
    stuck.set()
    writer.join(10)
    assert not writer.is_alive()


def test_newest_text_per_file_waits_for_stuck_disk(tmp_path: Path) -> None:
    said: list[str] = []
    writer = BackgroundWriter(said.append)
    stuck = threading.Event()
    writer.jobs.put((Path("x"), lambda: [None, stuck.wait()][0]))
    for number in range(1000):
        writer.queue_text(tmp_path / "a", str(number))
        writer.queue_text(tmp_path / "b", str(number))
    assert writer.jobs.qsize() == 3
    writer.start()
    stuck.set()
    writer.finish_writing(60)
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text(), said) == ("999", "999", [])
