# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client that asks and never reads blocks a real upsd for everybody, and what nut-watch does frees it."""

from __future__ import annotations

from typing import Any


def test_one_client_blocks_upsd_for_all(nut: Any) -> None:
    found = nut.ask("block", cure="")
    assert found == {"dropped": False, "before": False, "stuck": 1, "after": False}


def test_closing_its_connection_frees_upsd(nut: Any) -> None:
    found = nut.ask("block", cure="close")
    assert found == {"dropped": False, "before": False, "stuck": 1, "after": True}


def test_with_a_time_limit_upsd_drops_it_by_itself(nut: Any) -> None:
    found = nut.ask("block", cure="limit")
    assert found == {"dropped": True, "before": True, "stuck": 0, "after": True}
