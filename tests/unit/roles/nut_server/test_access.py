# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units that load the table which limits who may connect to upsd: none of them may wait for ever."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.homelab.nut.plugins.module_utils._nut import access, access_cli

TEMPLATES = Path(__file__).parents[4] / "roles/nut_server/templates"


def read_limit(name: str) -> int:
    """Return how long a unit may take to start, in seconds."""
    (limit,) = re.findall(r"^TimeoutStartSec=([0-9]+)$", (TEMPLATES / name).read_text(), re.MULTILINE)
    return int(limit)


def test_an_nft_that_hangs_does_not_keep_upsd_from_starting() -> None:
    assert 0 < read_limit("nut-access.service.j2") <= 10


def test_an_nft_that_hangs_does_not_keep_nftables_from_starting() -> None:
    text = (TEMPLATES / "nut-access-nftables.conf.j2").read_text()
    commands = re.findall(r"^Exec\w+=(.*)$", text, re.MULTILINE)
    assert commands == ["-/usr/bin/timeout 10 /usr/sbin/nft -f /etc/nut/access.nft"] * 3


def test_a_refresh_has_the_time_that_it_may_take() -> None:
    # looks at the table, and again with the lock; loads it; then the names; loads it with them
    longest = 4 * access_cli.SECONDS + access.RESOLVE_SECONDS
    assert read_limit("nut-access-refresh.service.j2") > longest
