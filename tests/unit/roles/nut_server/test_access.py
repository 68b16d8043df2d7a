# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units that load the nftables table that limits access to upsd. None of them may wait forever."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access, access_keeper

TEMPLATES = Path(__file__).parents[4] / "roles/nut_server/templates"


def read_limit(name: str) -> int:
    """Return the start timeout of a unit in seconds."""
    (limit,) = re.findall(r"^TimeoutStartSec=([0-9]+)$", (TEMPLATES / name).read_text(), re.MULTILINE)
    return int(limit)


def test_hanging_nft_delays_upsd_by_at_most_10s() -> None:
    assert 0 < read_limit("nut-access.service.j2") <= 10


def test_hanging_nft_delays_nftables_by_at_most_10s() -> None:
    text = (TEMPLATES / "nut-access-nftables.conf.j2").read_text()
    commands = re.findall(r"^Exec\w+=(.*)$", text, re.MULTILINE)
    assert commands == ["-/usr/bin/timeout 10 /usr/sbin/nft -f /etc/nut/access.nft"] * 3


def test_refresh_timeout_covers_the_longest_refresh() -> None:
    # list the table, list again under the lock, load, resolve names, load with addresses
    longest = 4 * access_keeper.SECONDS + access.RESOLVE_SECONDS
    assert read_limit("nut-access-refresh.service.j2") > longest


def test_limit_is_lifted_after_upsd_is_configured() -> None:
    """Otherwise a run that stops in the module config would open an upsd that is still configured for limited access."""
    tasks = yaml.safe_load((TEMPLATES.parent / "tasks/present.yml").read_text())
    modules = [next((key for key in task if "." in key), "") for task in tasks]
    lifting = [at for at, task in enumerate(tasks) if task.get("homelab.nut.upsd_access", {}).get("state") == "absent"]
    configuring = max(at for at, module in enumerate(modules) if module == "homelab.nut.config")
    assert len(lifting) == 1
    assert lifting[0] > configuring
    assert tasks[lifting[0]]["when"] == "not __nut_server_limited"
    limiting = yaml.safe_load((TEMPLATES.parent / "tasks/access.yml").read_text())
    assert all(task["when"] == "__nut_server_limited" for task in limiting)
