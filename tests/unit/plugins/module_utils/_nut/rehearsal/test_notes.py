# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    job,
    notes,
)
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import make_notes


def look(
    at: float, inside: Sequence[str] | None = ("nas", "media"), *, fsd: bool = False, **seen: bool | None
) -> notes.RecorderLook:
    return notes.RecorderLook(
        at, fsd, None if inside is None else frozenset(inside), {"nas": True, "media": True, **seen}
    )


def test_notes_follow_a_shutdown_from_fsd_to_silence() -> None:
    noted = make_notes()
    for seen in (
        look(1001),
        look(1002, fsd=True),
        look(1003, fsd=True),
        look(1007, ["nas"], fsd=True),
        look(1008, None, fsd=True),
        look(1009, ["nas"], fsd=True, media=False),
        look(1010, [], fsd=True, media=None),
        look(1011, [], fsd=True, media=False, nas=False),
        look(1012, None, nas=True, media=False),
        look(1020, None, nas=False, media=False),
    ):
        noted = notes.add_look(noted, seen)
    assert noted.fsd == 1002
    assert noted.last == 1020
    assert noted.machines["media"] == notes.MachineNotes(True, 1007, 1009)
    # the latest silence counts
    assert noted.machines["nas"] == notes.MachineNotes(True, 1010, 1020)
    assert noted.steps == (
        (1002, "pve: upsmon set FSD"),
        (1007, "media logged out: it is going down"),
        (1009, "media stopped answering"),
        (1010, "nas logged out: it is going down"),
        (1011, "nas stopped answering"),
        (1012, "nas answers again"),
        (1020, "nas stopped answering"),
    )


def test_machine_never_logged_in_has_not_logged_out() -> None:
    noted = notes.add_look(
        make_notes(machines={"nas": notes.MachineNotes()}), notes.RecorderLook(1, False, frozenset(), {"nas": True})
    )
    assert noted.machines["nas"] == notes.MachineNotes()
    noted = notes.add_look(noted, notes.RecorderLook(2, False, frozenset({"nas"}), {}))
    noted = notes.add_look(noted, notes.RecorderLook(3, False, frozenset(), {}))
    assert noted.machines["nas"].logged_out == 3
    # a lost connection is not a logout
    assert (
        notes.add_look(noted, notes.RecorderLook(4, False, frozenset({"nas"}), {})).machines["nas"].logged_out is None
    )


def test_unknown_state_does_not_count_as_silence() -> None:
    noted = notes.add_look(make_notes(), look(1001, nas=None))
    noted = notes.add_look(noted, notes.RecorderLook(1002, False, None, {}))
    assert noted.machines["nas"] == notes.MachineNotes(True)
    noted = notes.add_look(notes.add_look(noted, look(1003, nas=False)), look(1004, nas=None))
    assert noted.machines["nas"].silent_since == 1003


def test_notes_survive_json_and_nonsense_is_refused(tmp_path: Path) -> None:
    noted = notes.add_look(make_notes(fsd=1001.5, ended=1030.25), look(1007, ["nas"]))
    path = tmp_path / "live.json"
    path.write_text(noted.to_json())
    assert notes.read_notes(path) == noted
    with pytest.raises(job.RehearsalError, match="no real shutdown was recorded"):
        notes.read_notes(tmp_path / "none")
    whole = json.loads(noted.to_json())
    for nonsense in (
        "",
        "[]",
        "{}",
        json.dumps({**whole, "version": 2}),
        json.dumps({**whole, "more": 1}),
        json.dumps({**whole, "machines": []}),
    ):
        path.write_text(nonsense)
        with pytest.raises(job.RehearsalError, match="can't be read"):
            notes.read_notes(path)
