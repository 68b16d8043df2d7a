# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import turns
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import FORCE_SECONDS, Guest


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


def test_number_of_workers() -> None:
    assert turns.read_workers("keyboard: de\nmax_workers: 3\n", 8) == 3
    assert turns.read_workers("#max_workers: 3\n", 8) == 8
