# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files, systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.apply import LocalNut, Pending
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.change import UnitAction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DRIVER = "nut-driver@ups.service"
RESTART = UnitAction("restart", systemd.MONITOR, "upsmon.conf changed")
RELOAD = UnitAction("reload", systemd.SERVER, "upsd.conf changed")


class Units:
    """A systemd that refuses the given commands."""

    def __init__(self, *refused: str, active: str = "active") -> None:
        self.refused, self.active = refused, active
        self.told: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        words = " ".join(word for word in command[1:] if word != "--")
        if words.startswith("show "):
            return 0, f"LoadState=loaded\nActiveState={self.active}\n"
        self.told.append(words)
        return (1, "no") if words in self.refused else (0, "")


def host(root: Path, units: Units) -> LocalNut:
    (root / "run").mkdir()
    return LocalNut.below_root(root, units)


# The note


@pytest.fixture
def pending(tmp_path: Path) -> Pending:
    return Pending(tmp_path)


def test_missing_note_has_no_actions(pending: Pending) -> None:
    assert pending.read_actions([DRIVER]) == []


def test_note_is_read_as_written(pending: Pending) -> None:
    pending.write_actions([RESTART, RELOAD])
    assert pending.read_actions([]) == [RESTART, RELOAD]
    assert stat.S_IMODE(pending.path.stat().st_mode) == 0o600
    pending.write_actions([])
    assert not pending.path.exists()


@pytest.mark.parametrize("text", ["", "[", "7", '["restart"]', '[{"verb": "restart"}]', "\udcff", "null"])
def test_unreadable_note_restarts_all_units(pending: Pending, text: str) -> None:
    pending.path.write_bytes(text.encode("utf-8", "surrogateescape"))
    read = pending.read_actions([DRIVER, systemd.SERVER])
    assert [(action.verb, action.unit) for action in read] == [("restart", DRIVER), ("restart", systemd.SERVER)]
    # adding actions must not make the note readable
    pending.add_actions([RESTART])
    assert pending.path.read_bytes() == text.encode("utf-8", "surrogateescape")


def test_added_action_is_noted_once(pending: Pending) -> None:
    pending.add_actions([])
    assert not pending.path.exists()
    pending.add_actions([RESTART])
    pending.add_actions([RESTART, RELOAD])
    assert pending.read_actions([]) == [RESTART, RELOAD]


# Steps


def test_driver_start_need_not_be_awaited(tmp_path: Path) -> None:
    units = Units()
    local = host(tmp_path, units)
    for action in (UnitAction("restart", DRIVER, ""), UnitAction("stop", DRIVER, ""), RESTART):
        assert local.run_action(action, wait=False) == action
    assert [words for words in units.told if "reset-failed" not in words] == [
        f"restart --no-block {DRIVER}",
        f"stop {DRIVER}",
        f"restart {systemd.MONITOR}",
    ]


def test_exited_unit_is_restarted_instead_of_reloaded(tmp_path: Path) -> None:
    units = Units(f"reload {systemd.SERVER}", active="failed")
    done = host(tmp_path, units).run_action(RELOAD)
    assert (done.verb, done.reason) == ("restart", RELOAD.reason)
    assert units.told == [
        f"reload {systemd.SERVER}",
        f"reset-failed {systemd.SERVER}",
        f"restart {systemd.SERVER}",
    ]


def test_failed_reload_does_not_restart_running_unit(tmp_path: Path) -> None:
    units = Units(f"reload {systemd.SERVER}")
    with pytest.raises(systemd.UnitError, match="no"):
        host(tmp_path, units).run_action(RELOAD)
    assert units.told == [f"reload {systemd.SERVER}"]


def test_note_lists_remaining_actions_after_each_action(tmp_path: Path) -> None:
    local = host(tmp_path, Units())
    later = UnitAction("restart", DRIVER, "it waits for the mains")
    local.pending.write_actions([RELOAD, RESTART, later])
    owed = []

    def do(_action: UnitAction) -> None:
        owed.append(local.pending.read_actions([]))

    local.run_actions([RELOAD, RESTART], do, [RELOAD, RESTART, later])
    assert owed == [[RELOAD, RESTART, later], [RESTART, later]]
    assert local.pending.read_actions([]) == [later]
    local.run_actions([], do)
    assert not local.pending.path.exists()


def test_failed_action_stays_in_note(tmp_path: Path) -> None:
    local = host(tmp_path, Units(f"restart {systemd.MONITOR}"))
    local.pending.write_actions([RELOAD, RESTART])
    with pytest.raises(systemd.UnitError):
        local.run_actions([RELOAD, RESTART], local.run_action)
    assert local.pending.read_actions([]) == [RESTART]


def test_unwritable_note_does_not_stop_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise files.WriteError("the disk is full")

    units = Units()
    local = host(tmp_path, units)
    monkeypatch.setattr(files, "replace_files", refuse)
    local.run_actions([RELOAD, RESTART], local.run_action)
    assert units.told[-1] == f"restart {systemd.MONITOR}"


# The lock


def test_second_run_waits_for_lock(tmp_path: Path) -> None:
    (tmp_path / "var/lib").mkdir(parents=True)
    local = host(tmp_path, Units())
    with local.hold_lock(0) as found:
        assert found == ""
        with pytest.raises(files.Busy), local.hold_lock(0):
            pass
