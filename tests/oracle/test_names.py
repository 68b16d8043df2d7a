# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client of a real NUT never gives up on a dead name server, so the doctor wants addresses, or names in /etc/hosts."""

from __future__ import annotations

from typing import Any


def test_client_asks_a_dead_name_server_for_ever(nut: Any) -> None:
    assert nut.call_inside("look_up_primary", known=False, seconds=5) == 124


def test_client_finds_name_in_etc_hosts_at_once(nut: Any) -> None:
    assert nut.call_inside("look_up_primary", known=True, seconds=5) == 1
