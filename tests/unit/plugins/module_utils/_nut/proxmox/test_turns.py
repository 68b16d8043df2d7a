# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import turns
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import FORCE_SECONDS, Guest


def test_groups_go_one_after_the_other() -> None:
    found = [
        Guest(100, "qm", down=100),
        Guest(101, "pct", down=20),
        Guest(102, "qm", order=2, down=50),
        Guest(103, "qm", order=1, down=30),
        Guest(104, "qm", order=1),
    ]
    force = FORCE_SECONDS + 1
    everybody = {one.id for one in found}
    assert turns.proxmox_seconds(found, everybody) == (100 + force) + (50 + force) + (180 + force)
    assert turns.proxmox_seconds(found, everybody - {104, 100}) == (20 + force) + (50 + force) + (30 + force)
    assert turns.proxmox_seconds(found, everybody, managed={104}) == (100 + force) + (50 + force) + (30 + force)
    assert turns.proxmox_seconds(found, ()) == 0


def test_workers_are_few() -> None:
    found = [Guest(100 + place, "pct", down=8 - place) for place in range(4)]
    force = FORCE_SECONDS + 1
    everybody = {one.id for one in found}
    # the highest id first, each to the lane that is free first: 103 (5), 102 (6), then 101 (7) after 103, 100 (8) after 102
    assert turns.proxmox_seconds(found, everybody, workers=2) == 6 + 8 + 2 * force
    assert turns.proxmox_seconds(found, everybody, workers=1) == 5 + 6 + 7 + 8 + 4 * force
    assert turns.proxmox_seconds(found, everybody, workers=9) == 8 + force


def test_a_container_has_as_long_as_a_vm_and_a_template_never_runs() -> None:
    assert turns.proxmox_seconds([Guest(100, "pct")], {100}) == 180 + FORCE_SECONDS + 1
    assert turns.proxmox_seconds([Guest(100, "qm", down=0)], {100}) == FORCE_SECONDS + 1
    assert turns.proxmox_seconds([Guest(100, "qm", template=True)], {100}) == 0


def test_workers() -> None:
    assert turns.read_workers("keyboard: de\nmax_workers: 3\n", 8) == 3
    assert turns.read_workers("#max_workers: 3\n", 8) == 8
