# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files, sets
from ansible_collections.homelab.nut.tests.unit.support.access_host import TEXT, AccessMachine


@pytest.fixture
def machine(tmp_path: Path) -> AccessMachine:
    return AccessMachine(tmp_path)


@pytest.mark.parametrize("now", [["192.0.2.5"], []])
def test_unchanged_addresses_change_nothing(machine: AccessMachine, now: list[str]) -> None:
    """Even if no name server answers, for example in a power cut."""
    machine.now = now
    before = machine.file.stat()
    assert machine.run_main("refresh") == 0
    assert (machine.out, machine.err, machine.commands) == ([], [], [])
    assert machine.file.stat() == before


def test_new_address_is_added_to_file_and_table(machine: AccessMachine) -> None:
    machine.file.chmod(0o644)
    machine.now = ["192.0.2.6"]
    assert machine.run_main("refresh") == 0
    assert machine.out == ["now also allowed to connect to upsd: nas from 192.0.2.6"]
    assert machine.loaded == ["192.0.2.5", "192.0.2.6"]
    assert machine.commands == [("nft", "-f", str(machine.file))]
    assert machine.file.stat().st_mode & 0o777 == 0o644
    assert machine.run_main("refresh") == 0
    assert machine.out == []


def test_flushed_table_is_loaded_again(machine: AccessMachine) -> None:
    machine.loaded = None
    assert machine.run_main("refresh") == 0
    assert machine.out == ["the table inet homelab_nut is not loaded; loading it again"]
    assert machine.loaded == ["192.0.2.5"]


def test_table_is_loaded_before_names_are_resolved(machine: AccessMachine) -> None:
    machine.loaded = None
    loaded: list[object] = []
    resolve = machine.resolve_name

    def note(name: str, seconds: float) -> Sequence[str]:
        loaded.append(machine.loaded)
        return resolve(name, seconds)

    machine.resolve_name = note  # type: ignore[method-assign]
    machine.now = ["192.0.2.6"]
    assert machine.run_main("refresh") == 0
    assert loaded == [["192.0.2.5"]]
    assert machine.loaded == ["192.0.2.5", "192.0.2.6"]


def leave_pending(machine: AccessMachine) -> Path:
    """Leave the files of a run that was killed right after the manifest was written."""
    path = machine.root / "etc/nut/upsd.conf"
    path.write_text("old\n")
    manifest = machine.root / sets.MANIFEST.relative_to("/")
    manifest.parent.mkdir(parents=True)

    def die(_entries: object) -> None:
        """Stop like a killed process, without finishing or undoing anything."""
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "_put_in_place", die)
        with pytest.raises(KeyboardInterrupt):
            sets.replace_set({path: "new\n"}, 0o640, manifest=manifest)
    assert manifest.exists()
    return path


def test_set_of_a_killed_run_is_finished(machine: AccessMachine) -> None:
    path = leave_pending(machine)
    assert path.read_text() == "old\n"
    assert machine.run_main("refresh") == 0
    assert path.read_text() == "new\n"
    assert not (machine.root / sets.MANIFEST.relative_to("/")).exists()
    (line,) = machine.out
    assert line.endswith("now all are new")
    # the table was correct
    assert machine.commands == []


def test_live_run_is_not_taken_for_a_killed_run(machine: AccessMachine) -> None:
    path = leave_pending(machine)
    with files.hold_lock(machine.root / "run" / sets.LOCK, 0):
        assert machine.run_main("refresh") == 0
    assert path.read_text() == "old\n"


def test_table_that_cannot_be_loaded_is_an_error(machine: AccessMachine) -> None:
    machine.loaded, machine.refuses = None, True
    assert machine.run_main("refresh") == 1
    (line,) = machine.err
    assert line.startswith("access to upsd is NOT limited: nft can't load")
    assert line.isprintable()


def test_running_deployment_postpones_the_refresh(machine: AccessMachine) -> None:
    machine.now = ["192.0.2.6"]
    with files.hold_lock(machine.root / "run" / sets.LOCK, 0):
        assert machine.run_main("refresh") == 0
    assert machine.file.read_text() == TEXT
    assert machine.commands == []


def test_status_lists_sources_and_refusals(machine: AccessMachine) -> None:
    assert machine.run_main("status") == 0
    assert machine.out == [
        "nas: 192.0.2.5",
        "loaded; refused 5 packets since then",
        "no address was refused in the last day",
    ]
    machine.loaded = []
    assert machine.run_main("status") == 1
    assert machine.out[1] == "the loaded table allows no address"
