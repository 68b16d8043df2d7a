# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of the power cuts, from the machines' own times."""

from __future__ import annotations

import json
import warnings

import pytest
from homelab import cases, verdict

PLAYED = [
    (case.name, site)
    for site, played in cases.choose_cases([], list(cases.RELEASES), ci=True).items()
    for case in played
]
FINALDELAY = 2  # the role's default, with the gate
TIMES = [("nas-5", 5), ("nas-20", 20), ("nas-60", 60)]


@pytest.fixture(scope="module")
def rows(lab):
    """Return what was seen: (case, site) -> row."""
    return {(row["case"], row["site"]): row for row in json.loads((lab.state / "cases.json").read_text())}


def told(row):
    """Return what the machines noted themselves."""
    return "\n".join(f"{host}: {line}" for host, lines in row["journals"].items() for line in lines)


@pytest.mark.parametrize(("case", "site"), PLAYED)
def test_it_ended_as_it_must(rows, case, site):
    """Each case says itself what must be true; none may have been left out.

    These are races between four machines, on a machine that runs other tests at the same time: one that fails is played a second
    time, and fails here if it does so again. What was seen of the first one is shown as a warning.
    """
    row = rows[case, site]
    for one in row["earlier"]:
        warnings.warn(f"{case} at {site}: {'; '.join(one['problems'])}: {one['happened']}\n{told(one)}", stacklevel=1)
    assert row["problems"] == [], f"{row['happened']}\n{told(row)}"


def falls(row):
    """Return who went down: role -> falls."""
    return {role: [fall for fall in row["falls"] if fall["role"] == role] for role in ("primary", "secondary")}


@pytest.mark.parametrize(("case", "seconds"), TIMES)
def test_truenas_first_then_proxmox_and_soon(rows, case, seconds):
    """However long TrueNAS takes: it is down first, completely. Proxmox sees that: silent for 3 s, and at most 3 s more."""
    played = [row for (name, _site), row in rows.items() if name == case]
    assert played
    for row in played:
        fell = falls(row)
        (primary,) = fell["primary"]
        nas = next(fall for fall in fell["secondary"] if fall["host"].startswith("truenas"))
        assert seconds <= nas["down"] - nas["began"] < seconds + 10 + verdict.extra_time(row["busy"])
        for fall in fell["secondary"]:
            assert fall["down"] < primary["began"]
        # another secondary may have logged out later, at which FINALDELAY begins
        heard = [fall["down"] + FINALDELAY for fall in fell["secondary"] if fall is not nas]
        assert primary["began"] - max([nas["down"], *heard]) <= verdict.SETTLE + 3 + verdict.extra_time(row["busy"])


@pytest.mark.parametrize(("case", "seconds"), TIMES)
def test_the_primary_went_down_by_itself_and_soon(rows, case, seconds):
    """NUT's poll, the secondaries' start, their shutdown, its own: 50 s are ample besides TrueNAS's own time and the outage's 6 s."""
    played = [row for (name, _site), row in rows.items() if name == case]
    assert played
    for row in played:
        assert falls(row)["primary"][0]["down"] < seconds + 56 + 2 * verdict.extra_time(row["busy"])


def test_all_is_as_before(lab):
    """After all that, every host runs."""
    assert lab.is_running()
