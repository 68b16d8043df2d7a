# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts in which upsd is attacked, beside one in which it is not. They come last: all machines go down, and come back."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from homelab import CHECKOUT, cases, verdict

FREE = "nas-5"  # the same without an attack
PHASES = ("upsd-blocked-mains", "upsd-blocked-battery", "upsd-blocked-low", "upsd-blocked-fsd")
SHORT = ("upsd-blocked-short", "upsd-stranger-short")
LATER = 15.0
"""Seconds that an attack may delay the shutdown at most."""


@pytest.fixture(scope="module")
def rows(lab: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Play them, the sites beside each other, and return what was seen: (case, site) -> row."""
    command = [str(CHECKOUT / "lab" / "lab"), "cases", FREE, *PHASES, *SHORT, "--no-deploy", "--tries", "2"]
    played = subprocess.run(command, check=False, text=True, capture_output=True)
    assert played.returncode in (0, 1), played.stderr[-4000:]
    return {(row["case"], row["site"]): row for row in json.loads((lab.state / "cases.json").read_text())}


def told(row: dict[str, Any]) -> str:
    """Return what happened, and what the machines noted themselves."""
    return row["happened"] + "".join(f"\n{host}: {line}" for host, lines in row["journals"].items() for line in lines)


@pytest.mark.parametrize("site", cases.RELEASES)
@pytest.mark.parametrize("case", [FREE, *PHASES, *SHORT])
def test_it_ended_as_it_must(rows: Any, case: str, site: str) -> None:
    """A short outage ends with nobody down, whoever attacks; in the others all go down in their order, and come back."""
    assert rows[case, site]["problems"] == [], told(rows[case, site])


@pytest.mark.parametrize("site", cases.RELEASES)
@pytest.mark.parametrize("case", PHASES)
def test_the_shutdown_is_hardly_later_than_without_the_attack(rows: Any, case: str, site: str) -> None:
    """Compared with the power cut of the same run in which nobody attacks."""
    attacked, free = rows[case, site], rows[FREE, site]
    later = attacked["delay"] - free["delay"]
    assert later <= LATER + verdict.extra_time(attacked["busy"]), told(attacked)


def test_all_is_as_before(lab: Any) -> None:
    """After all that, every host runs."""
    assert lab.is_running()
