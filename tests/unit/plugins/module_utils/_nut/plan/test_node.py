# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import node
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.node import NodeTimes, compute_node_times
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import GuestsError, is_node

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def run(_command: Sequence[str]) -> tuple[int, str]:
    """Proxmox's programs do not answer, so each guest may be running."""
    return 127, ""


def make_node(root: Path, *vms: str, datacenter: str = "") -> Path:
    local = root / "etc/pve/nodes/node2"
    for folder in ("qemu-server", "lxc"):
        (local / folder).mkdir(parents=True)
    (root / "etc/pve/local").symlink_to(local)
    for number, text in enumerate(vms, 101):
        (local / f"qemu-server/{number}.conf").write_text(text)
    (root / "etc/pve/datacenter.cfg").write_text(datacenter)
    return root


def test_node_is_recognized(tmp_path: Path) -> None:
    assert not is_node(tmp_path)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/pveversion").touch()
    assert is_node(tmp_path)
    assert is_node(make_node(tmp_path / "other"))


def test_node_needs_the_time_that_proxmox_gives_its_guests(tmp_path: Path) -> None:
    times = compute_node_times(run, make_node(tmp_path, "name: web\nonboot: 1\n", "name: db\nonboot: 1\n"), cpus=4)
    assert times == NodeTimes(("101 web", "102 db"), usual=5 + 30 + 2 + 30, limit=5 + 192 + 2 + 30, ha=())


def test_guests_that_stop_one_after_the_other_add_up(tmp_path: Path) -> None:
    guests = ("name: web\nonboot: 1\nstartup: order=2,down=60\n", "name: db\nonboot: 1\nstartup: order=1,down=100\n")
    assert (
        compute_node_times(run, make_node(tmp_path, *guests), cpus=4).limit == 5 + (60 + 12 + 2) + (100 + 12 + 2) + 30
    )


def test_node_without_guests_is_an_ordinary_machine(tmp_path: Path) -> None:
    times = compute_node_times(run, make_node(tmp_path), cpus=4)
    assert times == NodeTimes((), 30, 30, ())
    assert node.explain_short_times("node2", "node1", times, 30, 60) == ("", "")


def test_unmounted_cluster_file_system_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "etc/pve").mkdir(parents=True)
    with pytest.raises(GuestsError, match="pve-cluster"):
        compute_node_times(run, tmp_path)


TIMES = NodeTimes(("101 web", "102 db"), 60, 222, ())


@pytest.mark.parametrize(
    ("shutdown_time", "shutdown_limit", "remedy"),
    [
        (30, 60, "nut_client_shutdown_time: 60, nut_client_shutdown_limit: 222"),
        (200, 300, ""),
        (200, 210, "nut_client_shutdown_time: 200, nut_client_shutdown_limit: 222"),
        (30, 300, "nut_client_shutdown_time: 60, nut_client_shutdown_limit: 300"),
        (60, 222, ""),
    ],
)
def test_times_that_are_too_short_are_named_with_those_that_do(
    shutdown_time: float, shutdown_limit: float, remedy: str
) -> None:
    message, todo = node.explain_short_times("node2", "node1", TIMES, shutdown_time, shutdown_limit)
    assert todo.endswith(remedy)
    assert bool(message) == bool(todo) == bool(remedy)
    assert not message or message.startswith("node2 is a Proxmox VE node: with its 2 guests it usually needs 60 s")
