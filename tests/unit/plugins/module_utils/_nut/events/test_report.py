# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths, records
from ansible_collections.homelab.nut.plugins.module_utils._nut.events import report
from ansible_collections.homelab.nut.plugins.module_utils._nut.events.catalog import Event


def report_once(root: Path, name: str = "machine-down", subject: str = "nas", text: str = "It took 9 s.") -> None:
    report.Reporter("gate", report.write_at_once, lambda: 1000.5, root)(name, subject, text)


def list_inbox(root: Path) -> list[Event]:
    folder = root / paths.NOTIFY_INBOX
    return [records.read_record(Event, path, report.VERSION) for path in sorted(folder.glob("*"))]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / paths.NUT).mkdir(parents=True)
    (tmp_path / paths.NOTIFY_POLICY).touch()
    return tmp_path


def test_an_event_waits_in_the_inbox_for_root_alone(root: Path) -> None:
    report_once(root)
    assert list_inbox(root) == [Event("machine-down", "nas", "It took 9 s.", 1000.5, "gate")]
    folder = root / paths.NOTIFY_INBOX
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_nothing_is_kept_on_a_host_without_notifications(root: Path) -> None:
    (root / paths.NOTIFY_POLICY).unlink()
    report_once(root)
    assert not (root / paths.NOTIFY_INBOX).exists()


def test_unwritable_inbox_loses_the_event_and_nothing_else(root: Path) -> None:
    (root / paths.NOTIFY_FOLDER).parent.mkdir(parents=True)
    (root / paths.NOTIFY_FOLDER).write_text("a file where the folder should be")
    report_once(root)
    assert (root / paths.NOTIFY_FOLDER).read_text() == "a file where the folder should be"


def test_name_of_host_is_short() -> None:
    assert report.name_host() == socket.gethostname().partition(".")[0]


def test_an_inbox_that_nobody_empties_does_not_fill_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "INBOX_LIMIT", 3)
    for _event in range(5):
        report_once(root)
    assert len(list(Path(root, paths.NOTIFY_INBOX).iterdir())) == 3


def test_the_journal_gets_structured_fields_and_one_line_for_each(root: Path) -> None:
    address = root / report.JOURNAL
    address.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(address))
        report_once(root, subject="nas\nPRIORITY=0", text="a\x1b[2Jb")
        fields = journal.recv(4096).decode().splitlines()
    assert fields == [
        r"MESSAGE=nas\nPRIORITY=0 is down: a\x1b[2Jb",
        "PRIORITY=5",
        "SYSLOG_IDENTIFIER=homelab-nut",
        "NUT_EVENT=machine-down",
        "NUT_SEVERITY=info",
        r"NUT_SUBJECT=nas\nPRIORITY=0",
        "NUT_SOURCE=gate",
    ]


def test_a_journal_that_reads_nothing_does_not_block(root: Path) -> None:
    address = root / report.JOURNAL
    address.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(address))
        for _event in range(2000):
            report.send_to_journal({"MESSAGE": "x" * 1000}, root)


def test_a_disk_that_hangs_does_not_block_the_program_that_reports(root: Path) -> None:
    kept: list[Callable[[], None]] = []
    report.Reporter("gate", lambda _path, work: kept.append(work), lambda: 1.0, root)("machine-down", "nas")
    assert list_inbox(root) == []  # nothing touches the disk before the writer's thread does
    kept[0]()
    assert len(list_inbox(root)) == 1
