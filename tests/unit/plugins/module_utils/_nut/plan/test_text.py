# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from dataclasses import replace

from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    PlanMachine,
    Supply,
    Timing,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.planner import make_plan
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.text import (
    draw_table,
    spell_verdict,
)
from ansible_collections.homelab.nut.tests.unit.support.plans import (
    PVE,
    SITE,
)


def test_verdict_names_tightest_constraint_that_depends_on_times() -> None:
    # MAXAGE and DEADTIME are tighter, but do not depend on the time that a shutdown takes
    assert spell_verdict(SITE.plan()) == "The plan holds. Tightest is HOSTSYNC, with 20 s to spare"
    assert "shutdown limit (truenas), with 7 s" in spell_verdict(SITE.machine("truenas", shutdown_limit=70).plan())
    failing = spell_verdict(SITE.time(hostsync=1, settle=3.5, deadtime=2).machine("truenas", shutdown_limit=60).plan())
    # failures that make the plan infeasible come first
    assert (
        failing
        == "The plan does not hold: shutdown limit (truenas) fails by 3.5 s, DEADTIME fails by 13 s, HOSTSYNC fails by 9 s"
    )


def test_table_has_timeline_conditions_and_settings() -> None:
    lines = draw_table(SITE.plan()).splitlines()
    assert lines[0] == spell_verdict(SITE.plan())
    assert " +10.0       +15.0  truenas  begins to go down" in lines
    assert " +70.0      +105.0  truenas  is down" in lines
    assert " +74.0      +132.0           power off" in lines
    assert "+169.0      +322.0  ups      UPS cuts the power" in lines
    assert any(re.fullmatch(r"ok +\+20 +HOSTSYNC +truenas begins .* HOSTSYNC gives 30 s", line) for line in lines)
    assert any(
        re.fullmatch(r"nut_client_shutdown_limit, at least +truenas 90 +the gate gives up .*", line) for line in lines
    )
    assert not any(line != line.rstrip() for line in lines)
    assert max(map(len, lines)) <= 130


def test_table_shows_remedies() -> None:
    text = draw_table(SITE.time(hostsync=1).ups(runtime=None).plan())
    assert re.search(r"^NO +-9 +HOSTSYNC ", text, re.MULTILINE)
    assert re.search(r"^ +-> set HOSTSYNC in nut_server_upsmon_conf to 30$", text, re.MULTILINE)
    assert re.search(r"^\? +battery \(ups\) ", text, re.MULTILINE)


def test_verdict_names_few_failures() -> None:
    machines = [PlanMachine(f"guest{number}", "guest", "qm", needs=("truenas",)) for number in range(9)]
    said = spell_verdict(replace(SITE, stages=()).add(*machines).machine("media", needs=()).plan())
    assert said.count(" fails by ") == 6
    assert "and 3 more. The" in said
    few = spell_verdict(replace(SITE, stages=()).add(*machines[:7]).machine("media", needs=()).plan())
    assert few.count(" fails by ") == 7
    assert "more" not in few


def test_table_of_minimal_plan() -> None:
    lines = draw_table(make_plan([PVE], [Supply()], Timing())).splitlines()
    assert not any(line.startswith(("nut_client_shutdown_limit", "timeout of each guest")) for line in lines)
    assert "can't be judged" in lines[0]
