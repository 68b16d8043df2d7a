# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of the cases of the way back."""

from __future__ import annotations

import json

import pytest
from homelab import return_cases
from homelab.hosts import USUAL
from support import format_journals

# the third site's are played by power_failure with TESTS=all
PLAYED = [(case.name, site) for case in return_cases.CASES for site in case.sites if site in USUAL]


@pytest.fixture(scope="module")
def rows(lab):
    """Return the results: (case, site) -> row."""
    return {(row["case"], row["site"]): row for row in json.loads((lab.state / "cases.json").read_text())}


@pytest.mark.parametrize(("case", "site"), PLAYED)
def test_case_holds(rows, case, site):
    row = rows[case, site]
    assert row["problems"] == [], f"{row['happened']}\n{format_journals(row)}"


@pytest.mark.parametrize("name", USUAL)
def test_status_says_that_all_are_back(on, name):
    assert "after the last outage: all back after " in on(name).check_output("nut-shutdown status")
