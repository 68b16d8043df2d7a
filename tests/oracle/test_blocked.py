# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client that never reads the answers blocks a real upsd, and the remedies of nut-watch unblock it."""

from __future__ import annotations

from typing import Any


def test_one_client_that_never_reads_blocks_upsd_for_all(nut: Any) -> None:
    found = nut.call_inside("block_upsd", cure="")
    assert found == {"dropped": False, "before": False, "stuck": 1, "after": False}


def test_closing_the_connection_unblocks_upsd(nut: Any) -> None:
    found = nut.call_inside("block_upsd", cure="close")
    assert found == {"dropped": False, "before": False, "stuck": 1, "after": True}


def test_upsd_drops_the_client_if_its_sockets_have_a_write_timeout(nut: Any) -> None:
    found = nut.call_inside("block_upsd", cure="limit")
    assert found == {"dropped": True, "before": True, "stuck": 0, "after": True}
