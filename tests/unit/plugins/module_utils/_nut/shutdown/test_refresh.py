# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_shutdown
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import refresh
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.names import AddressCache
from ansible_collections.homelab.nut.tests.unit.support.shutdown_host import (
    IDLE,
    STAGES,
    ShutdownProgram,
    install_proxmox,
)


def test_check_reports_valid_policy(program: ShutdownProgram) -> None:
    assert program("check") == 0
    assert program.out == [f"{program.folder}/shutdown.json is valid; machines to wait for: 1, at most 100 s"]
    program.write_policy(stages=[{"name": "first", "surprise": 1}])
    assert program("check") == 2
    assert program.err[0].startswith(f"{program.folder}/shutdown.json: $.stages[0]")
    # the gate still waits
    assert program("gate") == 0


def test_check_refuses_notify_program_writable_by_others(program: ShutdownProgram) -> None:
    script = program.folder / "tell"
    script.write_text("#!/bin/sh\n")
    program.write_policy(stages=[{"name": "first", "on_battery": 60, "notify": [str(script), "x"]}])
    script.chmod(0o755)
    assert program("check") == 0
    script.chmod(0o757)
    assert program("check") == 1
    assert f"stage first: notify {script}: users other than root can write {script} (mode 0757" in program.err[-1]
    assert "chmod go-w" in program.err[-1]


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        ("#!/bin/sh\n", 0o755, ""),
        ("#!/bin/sh\r\n", 0o755, "its first line ends in CRLF"),
        ("#!/no/such\n", 0o755, "there is no /no/such for its first line"),
        ("#!/bin/sh\n", 0o644, "it is not executable"),
        (None, 0, "there is no such program on this host"),
    ],
)
def test_check_names_notify_program_that_root_cannot_run(
    program: ShutdownProgram, text: str | None, mode: int, problem: str
) -> None:
    script = program.folder / "tell"
    if text is not None:
        script.write_text(text)
        script.chmod(mode)
    program.write_policy(stages=[{"name": "first", "on_battery": 60, "notify": [str(script), "x"]}])
    # the stage does the rest of its work, so the policy is valid
    assert program("check") == 0
    assert len(program.err) == bool(problem)
    assert all(f"stage first: notify {script}: {problem}" in line for line in program.err)


@pytest.mark.parametrize("command", ["check", "guests", "status"])
def test_read_only_commands_write_nothing(
    program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    install_proxmox(program.folder)
    (program.folder / "etc/pve/storage.cfg").write_text("nfs: nas\n\tserver truenas.lan\n\tpath /mnt/pve/nas\n")
    program.write_policy(
        stages=[{"name": "nas", "on_battery": 60, "storage_of": ["nas.lan"]}],
        machines=[{"name": "nas", "addresses": ["nas.lan"], "shutdown_time": 10, "shutdown_limit": 60}],
    )

    def names(name: str, seconds: float) -> tuple[str, ...]:
        return ("127.0.0.1",)

    monkeypatch.setattr(nut_shutdown, "AddressCache", lambda path, keep: AddressCache(path, names, keep=keep))
    before = contents(program.folder)
    assert program(command) == 0
    assert program.err == []
    assert contents(program.folder) == before
    assert program("refresh") == 0
    assert sorted(contents(program.folder).keys() - before.keys()) == ["addresses.json", "guests.json"]


def contents(folder: Path) -> Mapping[str, bytes]:
    """Return all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_refresh_saves_guests(program: ShutdownProgram) -> None:
    install_proxmox(program.folder)
    program.write_policy(stages=STAGES)
    assert program("refresh") == 0
    assert program.out[1:] == ["stage nas stops VM 101 (mail)", "stage late stops VM 101 (mail), VM 103 (onnas)"]
    assert program.err == IDLE
    kept = program.read_json("guests.json")["stages"]
    assert [(guest["id"], guest["seconds"]) for guest in kept["late"]["guests"]] == [(101, 180.0), (103, 40.0)]
    # qm and pct are not asked whether the guests run
    assert program.ran == []


def test_refresh_saves_addresses(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    install_proxmox(program.folder)
    (program.folder / "etc/pve/storage.cfg").write_text("nfs: nas\n\tserver truenas.lan\n\tpath /mnt/pve/nas\n")
    program.write_policy(stages=[{"name": "nas", "on_battery": 60, "storage_of": ["nas.lan"]}])
    known = {"nas.lan": ("192.0.2.20",), "truenas.lan": ("192.0.2.20",)}

    def names(name: str, seconds: float) -> tuple[str, ...]:
        if name not in known:
            raise OSError("not known")
        return known[name]

    monkeypatch.setattr(nut_shutdown, "AddressCache", lambda path, keep: AddressCache(path, names, keep=keep))
    assert program("refresh") == 0
    assert program.out[1:] == ["stage nas stops VM 103 (onnas)"]
    assert program.read_json("addresses.json")["addresses"] == {
        "nas.lan": ["192.0.2.20"],
        "truenas.lan": ["192.0.2.20"],
    }
    # and when the name server is gone
    known.clear()
    program.out.clear()
    assert program("refresh") == 0
    assert program.out[1:] == ["stage nas stops VM 103 (onnas)"]
    assert program.err == []


def test_refresh_without_readable_guests(program: ShutdownProgram) -> None:
    (program.folder / "etc/pve").mkdir(parents=True)
    program.write_policy(stages=STAGES)
    # the policy is still valid
    assert program("refresh") == 0
    assert "etc/pve/local: start Proxmox's cluster file system" in program.err[0]
    assert len(program.err) == 1
    assert not (program.folder / "guests.json").exists()


def test_refresh_with_unwritable_guests_file(program: ShutdownProgram) -> None:
    install_proxmox(program.folder)
    program.write_policy(stages=STAGES)
    (program.folder / "guests.json").mkdir()
    assert program("refresh") == 0
    assert "guests.json could not be written" in program.err[-1]


def test_refresh_without_selectors_reads_no_guests(program: ShutdownProgram) -> None:
    (program.folder / "etc/pve").mkdir(parents=True)
    program.write_policy(stages=[{"name": "end", "charge": 30, "fsd": True}])
    assert program("refresh") == 0
    assert program.err == []
    assert len(program.out) == 1


def test_refresh_times_out_when_proxmox_hangs(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    install_proxmox(program.folder)
    path = program.folder / "etc/pve/storage.cfg"
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(refresh, "FIND_SECONDS", 0.05)
    program.write_policy(stages=STAGES)
    assert program("refresh") == 0
    assert program.err == ["timed out after 0.05 s reading Proxmox's files (/etc/pve). Is pve-cluster.service running?"]
    assert program("guests") == 1
    # release the two threads
    path.write_text("")
