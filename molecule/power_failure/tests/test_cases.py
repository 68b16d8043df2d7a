# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of the power cuts, from the times that the machines recorded."""

from __future__ import annotations

import json
import warnings

import pytest
from homelab import cases, verdict
from homelab.hosts import USUAL
from support import IS_FULL, format_journals, wait_until

SITES = list(cases.RELEASES if IS_FULL else USUAL)

PLAYED = [
    (case.name, site) for site, played in cases.choose_cases([], SITES, ci=not IS_FULL).items() for case in played
]
FINALDELAY = 2  # the role's default, with the gate
TIMES = [("nas-5", 5), ("nas-20", 20), ("nas-60", 60)]


@pytest.fixture(scope="module")
def rows(lab):
    """Return the results: (case, site) -> row."""
    return {(row["case"], row["site"]): row for row in json.loads((lab.state / "cases.json").read_text())}


@pytest.mark.parametrize(("case", "site"), PLAYED)
def test_case_holds(rows, case, site):
    """Each case was played and met its own expectations.

    The cases are races between four machines, and other tests run at the same time. A case that fails is played again and fails
    here only if it fails twice; the first failure is shown as a warning.
    """
    row = rows[case, site]
    for attempt in row["earlier"]:
        problems = "; ".join(attempt["problems"])
        warnings.warn(f"{case} at {site}: {problems}: {attempt['happened']}\n{format_journals(attempt)}", stacklevel=1)
    assert row["problems"] == [], f"{row['happened']}\n{format_journals(row)}"


def group_stops(row):
    """Return the stops by role."""
    return {role: [stop for stop in row["stops"] if stop["role"] == role] for role in ("primary", "secondary")}


@pytest.mark.parametrize(("case", "seconds"), TIMES)
def test_proxmox_powers_off_soon_after_truenas_is_down(rows, case, seconds):
    """However long TrueNAS takes, it is down first. Proxmox waits for 3 s of silence, and at most 3 s more."""
    played = [row for (name, _site), row in rows.items() if name == case]
    assert played
    for row in played:
        stops = group_stops(row)
        (primary,) = stops["primary"]
        nas = next(stop for stop in stops["secondary"] if stop["host"].startswith("truenas"))
        assert seconds <= nas["down"] - nas["began"] < seconds + 10 + verdict.extra_time(row["busy"])
        for stop in stops["secondary"]:
            assert stop["down"] < primary["began"]
        # another secondary may have logged out later; FINALDELAY begins at that moment
        log_outs = [stop["down"] + FINALDELAY for stop in stops["secondary"] if stop is not nas]
        assert primary["began"] - max([nas["down"], *log_outs]) <= verdict.SETTLE + 3 + verdict.extra_time(row["busy"])


@pytest.mark.parametrize(("case", "seconds"), TIMES)
def test_primary_is_down_in_time(rows, case, seconds):
    """Polls, the secondaries' shutdown and the primary's own take 50 s at most, besides TrueNAS's time and 6 s until low battery."""
    played = [row for (name, _site), row in rows.items() if name == case]
    assert played
    for row in played:
        assert group_stops(row)["primary"][0]["down"] < seconds + 56 + 2 * verdict.extra_time(row["busy"])


def test_all_hosts_run_again(lab):
    """After all power cuts, every host is up."""
    assert lab.is_running()


@pytest.mark.parametrize("name", ["pve8", "pve9"])
def test_primary_knows_that_all_are_back(on, name):
    wait_until(
        lambda: "after the last outage: all back after " in on(name).check_output("nut-shutdown status"),
        120,
        f"all machines of {name} to be back",
    )
