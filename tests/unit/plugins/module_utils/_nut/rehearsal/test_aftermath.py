# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import records
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.clock import Clock
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal.aftermath import Aftermath, find_aftermath
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal.notes import Notes
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import report as gate_report
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import SEEN, Journal, make_host

STOPPING, STOPPED = "de5b426a63be47a7b6ac3eaac82e2f6f", "9d1aaa27d60140bd96365438aad20286"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in ("proc/1", "run/nut-shutdown", "var"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "proc/1/stat").write_text(f"1 (a (b) c) S {' '.join(['0'] * 18)} {100 * os.sysconf('SC_CLK_TCK')} 0\n")
    return tmp_path


def report(began: float, elapsed: float, reason: str | None) -> str:
    """Return the text of a gate report."""
    return records.dump_record(
        gate_report.GateReport("gate", began, elapsed, "down", reason, (), (), ()), gate_report.VERSION
    )


def ask(root: Path, journal: Journal, seen: Notes = SEEN) -> Aftermath:
    clock = Clock(lambda: 800.0, lambda: 3000.0, boot=lambda: "b1")
    return find_aftermath(seen, make_host(root, journal, clock=clock), root / "var/last.json")


def test_aftermath_is_empty_until_the_host_restarts(root: Path) -> None:
    (root / "run/nut-shutdown/live").write_text("t0\n")
    journal = Journal()
    assert ask(root, journal) == Aftermath(False)
    assert journal.asked == []


def test_aftermath_has_last_journal_entry_and_time_of_guests(root: Path) -> None:
    (root / "var/last.json").write_text(report(began=1040.0, elapsed=39.5, reason="all are down"))
    # the token of another recorder, so of another boot
    (root / "run/nut-shutdown/live").write_text("t1\n")
    journal = Journal((1090.0, ""), (1120.25, ""), (1081.0, STOPPING), (1111.5, STOPPED))
    seen = dataclasses.replace(SEEN, boot="b0-0f/12")
    assert ask(root, journal, seen) == Aftermath(True, 1120.25, 30.5, "all are down", 1079.5)
    assert all("--boot=b00f" in command for command in journal.asked)
    assert all("--merge" not in command for command in journal.asked)
    assert "--since=@1080" in journal.asked[1]


def test_boot_of_a_container_starts_with_the_first_process(root: Path) -> None:
    journal = Journal((1120.25, ""))
    assert ask(root, journal, dataclasses.replace(SEEN, boot="b1/7")).end == 1120.25
    # the kernel started at 3000 - 800, the first process 100 s later
    assert [word for word in journal.asked[0] if word.startswith(("--until", "--merge"))] == [
        "--merge",
        "--until=@2300.000",
    ]
    (root / "proc/1/stat").unlink()
    ask(root, journal, dataclasses.replace(SEEN, boot="b1"))
    assert "--until=@2200.000" in journal.asked[-1]


def test_useless_journal_leaves_aftermath_empty(root: Path) -> None:
    assert ask(root, Journal()) == Aftermath(True)
    assert ask(root, Journal((1120.0, ""), code=1)) == Aftermath(True)
    # only entries from before the shutdown: its own were lost
    assert ask(root, Journal((1079.0, ""))) == Aftermath(True)
    assert ask(root, Journal((1120.0, ""), (1081.0, STOPPING))).guests is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        report(began=1.0, elapsed=2.0, reason="another shutdown"),
        report(began=1040.0, elapsed=3.0, reason=None),
    ],
)
def test_useless_gate_report_leaves_aftermath_empty(root: Path, text: str) -> None:
    (root / "var/last.json").write_text(text)
    assert ask(root, Journal(), dataclasses.replace(SEEN, ended=None)) == Aftermath(True)
