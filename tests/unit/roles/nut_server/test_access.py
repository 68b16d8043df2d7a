# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units that load the table which limits who may connect to upsd: none of them may wait for ever."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access, access_keeper

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
    longest = 4 * access_keeper.SECONDS + access.RESOLVE_SECONDS
    assert read_limit("nut-access-refresh.service.j2") > longest


def test_the_limit_is_lifted_only_when_upsd_is_configured() -> None:
    """Else a run that the module config stops would leave upsd open, and as it was."""
    tasks = yaml.safe_load((TEMPLATES.parent / "tasks/present.yml").read_text())
    modules = [next((key for key in task if "." in key), "") for task in tasks]
    lifting = [at for at, task in enumerate(tasks) if task.get("homelab.nut.upsd_access", {}).get("state") == "absent"]
    configuring = max(at for at, module in enumerate(modules) if module == "homelab.nut.config")
    assert len(lifting) == 1
    assert lifting[0] > configuring
    assert tasks[lifting[0]]["when"] == "not __nut_server_limited"
    limiting = yaml.safe_load((TEMPLATES.parent / "tasks/access.yml").read_text())
    assert all(task["when"] == "__nut_server_limited" for task in limiting)
