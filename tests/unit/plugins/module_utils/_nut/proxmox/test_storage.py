# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import storage
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# as pvesm prints it (pve-storage, CLI/pvesm.pm)
HEADER = "Name         Type     Status     Total (KiB)      Used (KiB) Available (KiB)        %\n"


def row(name: str, status: str) -> str:
    return f"{name}          nfs     {status:>8}               0               0               0    0.00%\n"


class Pvesm:
    """pvesm, with storages and their states."""

    def __init__(self, **states: str) -> None:
        self.states = states
        self.asked: list[str] = []

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        assert list(command[3:6]) == ["pvesm", "status", "--storage"]
        name = command[6]
        self.asked.append(name)
        if name not in self.states:
            return 255, f"storage '{name}' does not exist\n"
        warning = f"storage '{name}' is not online\n" if self.states[name] == "inactive" else ""
        return 0, warning + HEADER + row(name, self.states[name])


@pytest.mark.parametrize(("status", "online"), [("active", True), ("inactive", False), ("disabled", False)])
def test_only_active_storage_is_online(status: str, online: bool) -> None:
    assert storage.is_online(Pvesm(nas=status).run, "nas") is online


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (255, "storage 'nas' does not exist\n"),
        (124, HEADER + row("nas", "active")),
        (0, HEADER),
        (0, ""),
        (0, HEADER + row("nas2", "active")),
        (0, HEADER + row("active", "inactive")),
    ],
)
def test_other_answers_mean_offline(code: int, said: str) -> None:
    assert storage.is_online(lambda _command: (code, said), "nas") is False


def test_first_storage_that_is_offline_is_named(tmp_path: Path) -> None:
    pvesm = Pvesm(local="active", nas="inactive", zfs="active")
    guest = Guest(101, "qm", storages=frozenset({"local", "nas", "zfs"}))
    assert storage.find_offline(pvesm.run, guest, tmp_path) == "storage nas"
    pvesm.states["nas"] = "active"
    assert storage.find_offline(pvesm.run, guest, tmp_path) == ""


def test_bind_mount_counts_only_while_it_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "etc/fstab").write_text("192.0.2.5:/mnt/tank /mnt/tank nfs _netdev 0 0\n")
    (tmp_path / "proc/self/mounts").write_text("/dev/sda1 / ext4 rw 0 0\n")
    guest = Guest(200, "pct", paths=frozenset({"/mnt/tank/films", "/srv/local"}))
    assert storage.find_offline(Pvesm().run, guest, tmp_path) == "the mount of /mnt/tank/films"
    (tmp_path / "proc/self/mounts").write_text("/dev/sda1 / ext4 rw 0 0\n192.0.2.5:/mnt/tank /mnt/tank nfs4 rw 0 0\n")
    assert storage.find_offline(Pvesm().run, guest, tmp_path) == ""
