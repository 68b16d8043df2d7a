# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import turns
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import FORCE_SECONDS, Guest

if TYPE_CHECKING:
    from pathlib import Path


def test_groups_are_stopped_one_after_the_other() -> None:
    found = [
        Guest(100, "qm"),
        Guest(101, "pct"),
        Guest(102, "qm", order=2),
        Guest(103, "qm", order=1),
        Guest(104, "qm", order=1),
    ]
    takes = {100: 100, 101: 20, 102: 49.5, 103: 30, 104: 180}
    assert turns.take_turns(found, takes, 9) == {
        100: (0, 100), 101: (0, 20), 102: (100, 150), 103: (150, 180), 104: (150, 330),
    }  # fmt: skip
    assert turns.take_turns(found[1:4], takes, 1) == {101: (0, 20), 102: (20, 70), 103: (70, 100)}
    assert turns.take_turns([], {}, 2) == {}


def test_guest_goes_to_the_first_free_worker() -> None:
    found = [Guest(100 + place, "pct") for place in range(4)]
    takes = {100: 8, 101: 7, 102: 6, 103: 5}
    assert turns.take_turns(found, takes, 2) == {103: (0, 5), 102: (0, 6), 101: (5, 12), 100: (6, 14)}
    assert turns.take_turns(found, takes, 1) == {103: (0, 5), 102: (5, 11), 101: (11, 18), 100: (18, 26)}


def test_longest_stop_includes_the_force() -> None:
    assert turns.longest_stop(180) == 180 + FORCE_SECONDS + 1


def test_each_turn_waits_for_the_one_before() -> None:
    found = [Guest(100 + place, "pct") for place in range(3)]
    takes = {100: 8, 101: 7, 102: 6}
    assert turns.take_turns(found, takes, 2, begin=5, pause=2) == {102: (5, 11), 101: (5, 12), 100: (13, 21)}
    ordered = [Guest(100, "qm", order=1), Guest(101, "qm")]
    assert turns.take_turns(ordered, takes, 9, begin=5, pause=2) == {101: (5, 12), 100: (14, 22)}


@pytest.mark.parametrize(
    ("release", "cpus", "workers"),
    [
        # pve-manager, PVE/API2/Nodes.pm: stopall in the branch stable-8 and in 9.1.1, get_max_workers since 9.1.2
        ((8, 4, 21), 16, 16),
        ((9, 0, 11), 4, 4),
        ((9, 1, 1), 2, 2),
        ((9, 1, 2), 16, 8),
        ((9, 1, 2), 9, 8),
        ((9, 2, 11), 4, 3),
        ((9, 1, 2), 2, 1),
        ((9, 1, 2), 1, 1),
        # unknown: the smaller of both
        (None, 16, 8),
        (None, 4, 3),
        (None, 1, 1),
    ],
)
def test_number_of_workers(release: tuple[int, ...] | None, cpus: int, workers: int) -> None:
    assert turns.read_workers("keyboard: de\n#max_workers: 3\n", cpus, release) == workers
    assert turns.read_workers("keyboard: de\nmax_workers: 3\n", cpus, release) == 3


def test_plan_of_large_host_has_two_rounds() -> None:
    found = [Guest(100 + place, "qm") for place in range(16)]
    takes = {guest.id: turns.longest_stop(180) for guest in found}
    workers = turns.read_workers("", 16, (9, 2, 11))
    assert max(end for _begin, end in turns.take_turns(found, takes, workers).values()) == 2 * 192


@pytest.mark.parametrize(
    ("path", "text", "release"),
    [
        ("usr/share/perl5/PVE/pvecfg.pm", "sub version {\n    return '9.1.2';\n}\nsub release {\n    return '9.1';\n}\n", (9, 1, 2)),
        ("usr/share/perl5/PVE/pvecfg.pm", "nonsense", None),
        ("var/lib/dpkg/status", "Package: a\nVersion: 1\n\nPackage: pve-manager\nStatus: x\nVersion: 8.4.21\n\n", (8, 4, 21)),
        ("var/lib/dpkg/status", "Package: pve-manager\nStatus: x\n\nPackage: a\nVersion: 1\n", None),
        ("etc/x", "", None),
    ],
)  # fmt: skip
def test_release_of_pve_manager_is_read(tmp_path: Path, path: str, text: str, release: tuple[int, ...] | None) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    assert turns.read_manager_release(tmp_path) == release
