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


def test_what_is_noted_of_a_shutdown() -> None:
    one = make_notes()
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
        one = notes.add_look(one, seen)
    assert one.fsd == 1002
    assert one.last == 1020
    assert one.machines["media"] == notes.MachineNotes(True, 1007, 1009)
    # the last silence counts
    assert one.machines["nas"] == notes.MachineNotes(True, 1010, 1020)
    assert one.steps == (
        (1002, "pve: upsmon has set FSD"),
        (1007, "media has logged out: it begins to go down"),
        (1009, "media is silent"),
        (1010, "nas has logged out: it begins to go down"),
        (1011, "nas is silent"),
        (1012, "nas answers again"),
        (1020, "nas is silent"),
    )


def test_one_that_was_never_logged_in_has_not_left() -> None:
    one = notes.add_look(
        make_notes(machines={"nas": notes.MachineNotes()}), notes.RecorderLook(1, False, frozenset(), {"nas": True})
    )
    assert one.machines["nas"] == notes.MachineNotes()
    one = notes.add_look(one, notes.RecorderLook(2, False, frozenset({"nas"}), {}))
    one = notes.add_look(one, notes.RecorderLook(3, False, frozenset(), {}))
    assert one.machines["nas"].left == 3
    # a lost connection is none
    assert notes.add_look(one, notes.RecorderLook(4, False, frozenset({"nas"}), {})).machines["nas"].left is None


def test_where_nobody_can_tell_there_is_no_silence() -> None:
    one = notes.add_look(make_notes(), look(1001, nas=None))
    one = notes.add_look(one, notes.RecorderLook(1002, False, None, {}))
    assert one.machines["nas"] == notes.MachineNotes(True)
    one = notes.add_look(notes.add_look(one, look(1003, nas=False)), look(1004, nas=None))
    assert one.machines["nas"].silent == 1003


def test_notes_travel(tmp_path: Path) -> None:
    one = notes.add_look(make_notes(fsd=1001.5, ended=1030.25), look(1007, ["nas"]))
    path = tmp_path / "live.json"
    path.write_text(one.to_json())
    assert notes.read_notes(path) == one
    with pytest.raises(job.RehearsalError, match="no real shutdown was recorded"):
        notes.read_notes(tmp_path / "none")
    whole = json.loads(one.to_json())
    for nonsense in (
        "",
        "[]",
        "{}",
        json.dumps({**whole, "version": 2}),
        json.dumps({**whole, "more": 1}),
        json.dumps({**whole, "machines": []}),
    ):
        path.write_text(nonsense)
        with pytest.raises(job.RehearsalError, match="can't be understood"):
            notes.read_notes(path)
