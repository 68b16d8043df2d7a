# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts in which upsd is attacked, compared with one without an attack. They run last because all machines go down."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from homelab import CHECKOUT, verdict
from homelab.hosts import USUAL

FREE = "nas-5"  # the same power cut without an attack
# `make test` plays one attack before and one after FSD, and one that ends in time; `make test-all` plays every one
PHASES: tuple[str, ...] = ("upsd-blocked-battery", "upsd-blocked-fsd")
SHORT: tuple[str, ...] = ("upsd-blocked-short",)
if os.environ.get("TESTS") == "all":
    PHASES += ("upsd-blocked-mains", "upsd-blocked-low")
    SHORT += ("upsd-stranger-short",)
MAX_DELAY = 15.0
"""Seconds by which an attack may delay the shutdown."""


@pytest.fixture(scope="module")
def rows(lab: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Play the cases, both sites in parallel, and return the results: (case, site) -> row."""
    command = [str(CHECKOUT / "lab" / "lab"), "cases", FREE, *PHASES, *SHORT, "--no-deploy", "--tries", "2"]
    played = subprocess.run(command, check=False, text=True, capture_output=True)
    assert played.returncode in (0, 1), played.stderr[-4000:]
    return {(row["case"], row["site"]): row for row in json.loads((lab.state / "cases.json").read_text())}


def format_row(row: dict[str, Any]) -> str:
    """Return what happened, and the machines' journals."""
    return row["happened"] + "".join(f"\n{host}: {line}" for host, lines in row["journals"].items() for line in lines)


@pytest.mark.parametrize("site", USUAL)
@pytest.mark.parametrize("case", [FREE, *PHASES, *SHORT])
def test_power_cut_under_attack_ends_correctly(rows: Any, case: str, site: str) -> None:
    """A short outage ends with no machine down. In the others all machines go down in order and come back."""
    assert rows[case, site]["problems"] == [], format_row(rows[case, site])


@pytest.mark.parametrize("site", USUAL)
@pytest.mark.parametrize("case", PHASES)
def test_attack_delays_shutdown_by_15s_at_most(rows: Any, case: str, site: str) -> None:
    """Compared with the power cut without an attack in the same run."""
    attacked, free = rows[case, site], rows[FREE, site]
    delay = attacked["delay"] - free["delay"]
    assert delay <= MAX_DELAY + verdict.extra_time(attacked["busy"]), format_row(attacked)


def test_all_hosts_run_again(lab: Any) -> None:
    """After all power cuts, every host is up."""
    assert lab.is_running()
