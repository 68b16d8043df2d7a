# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

from ansible_collections.homelab.nut.tests.unit.support.plans import (
    NAS,
)


def test_the_limit_of_a_machine() -> None:
    assert replace(NAS, shutdown_time=20).most == 50
    assert replace(NAS, shutdown_time=60).most == 90
    assert replace(NAS, shutdown_time=100).most == 150
    assert replace(NAS, shutdown_limit=0).most == 0
