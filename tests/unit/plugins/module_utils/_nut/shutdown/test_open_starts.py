# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import clock, records
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import boot_starts, stages
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.open_starts import OpenStarts, read_open_starts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ansible_collections.homelab.nut.tests.unit.support.shutdown_host import ShutdownProgram

GIVEN_UP = {"qm/101": "VM 101 (mail): no disk\x1b", "pct/102": "container 102: no storage"}


def write_state(folder: Path, **state: object) -> None:
    text = records.dump_record(stages.StagesState(**state), stages.VERSION)  # type: ignore[arg-type]
    (folder / "stages.json").write_text(text)


def read(folder: Path, statuses: dict[str, str] | None = None, boot: str = "b") -> OpenStarts:
    def run(command: Sequence[str]) -> tuple[int, str]:
        said = (statuses or {}).get(" ".join(command[3:]), "")
        return (0 if said else 1), said

    return read_open_starts(folder, boot, run, folder)


def test_nothing_is_open_without_files(tmp_path: Path) -> None:
    assert read(tmp_path) == OpenStarts()
    (tmp_path / "stages.json").write_text("{")
    (tmp_path / "boot-starts.json").write_text("[]")
    assert read(tmp_path) == OpenStarts()


def test_given_up_guests_are_open_in_each_boot_until_they_run_or_are_gone(tmp_path: Path) -> None:
    write_state(tmp_path, boot="a", given_up=GIVEN_UP)
    found = read(tmp_path)
    assert list(found.given_up) == ["qm start 101", "pct start 102"]
    assert "\x1b" not in found.given_up["qm start 101"]
    stopped = {"qm status 101": "status: stopped", "pct status 102": "status: stopped"}
    assert list(read(tmp_path, stopped).given_up) == ["qm start 101", "pct start 102"]
    assert list(read(tmp_path, {**stopped, "qm status 101": "status: running"}).given_up) == ["pct start 102"]
    gone = "Configuration file 'nodes/pve1/lxc/102.conf' does not exist"
    assert list(read(tmp_path, {**stopped, "pct status 102": gone}).given_up) == ["qm start 101"]


def test_guests_are_waiting_only_in_the_boot_that_tries_them(tmp_path: Path) -> None:
    write_state(
        tmp_path, boot="b", guests_to_start={"qm/101": False, "qm/102": False}, failed_starts={"qm/101": (1.0, 2.0)}
    )
    report = boot_starts.BootReport("b", ("VM 103: storage nas is not online",))
    (tmp_path / "boot-starts.json").write_text(records.dump_record(report, boot_starts.VERSION))
    waiting = ("VM 103: storage nas is not online", "VM 101: its start has failed so far")
    assert read(tmp_path) == OpenStarts(waiting)
    assert read(tmp_path, boot="c") == OpenStarts()


@pytest.mark.parametrize("is_node", [True, False])
def test_shutdown_status_shows_guests_that_should_run(program: ShutdownProgram, is_node: bool) -> None:
    program.write_policy(machines=[])
    write_state(program.folder, boot=clock.name_system_start(program.folder), given_up={"qm/101": "VM 101: no disk"})
    line = "not running: VM 101: no disk. Start it by hand: qm start 101"
    start = "pve-guests.service is still starting its guests, one after the other"
    program.says = "LoadState=loaded\nActiveState=activating\nMainPID=9\n"
    if is_node:
        (program.folder / "etc/pve").mkdir(parents=True)
    assert program("status") == 0
    assert "\n".join(["guests:", *([f"  {start}"] if is_node else []), f"  {line}", ""]) in program.out.pop()
    assert program("status", "--json") == 0
    assert json.loads(program.out.pop())["guests"] == [*([start] if is_node else []), line]
