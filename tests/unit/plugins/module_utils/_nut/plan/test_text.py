# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from dataclasses import replace

from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    PlanMachine,
    ProxmoxGuests,
    Supply,
    Timing,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.picture import draw_page
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.planner import make_plan
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.text import (
    draw_table,
    spell_begin,
    spell_problems,
    spell_recharge,
    spell_verdict,
)
from ansible_collections.homelab.nut.tests.unit.support.plans import (
    PVE,
    SITE,
    UNSTAGED,
)


def test_verdict_names_tightest_constraint_that_depends_on_times() -> None:
    # MAXAGE and DEADTIME are tighter, but do not depend on the time that a shutdown takes
    assert spell_verdict(SITE.make_plan()) == "The plan holds. The tightest condition is HOSTSYNC, with 20 s to spare"
    assert "shutdown limit (truenas), with 7 s" in spell_verdict(
        SITE.change_machine("truenas", shutdown_limit=70).make_plan()
    )
    failing = spell_verdict(
        SITE.change_timing(hostsync=1, settle=3.5, deadtime=2).change_machine("truenas", shutdown_limit=60).make_plan()
    )
    # failures that make the plan infeasible come first
    assert (
        failing
        == "The plan does not hold: the shutdown_limit of truenas is 3.5 s too short, DEADTIME is 13 s too short, HOSTSYNC is 9 s "
        "too short"
    )


def test_table_has_timeline_conditions_and_settings() -> None:
    lines = draw_table(SITE.make_plan()).splitlines()
    assert lines[0] == spell_verdict(SITE.make_plan())
    assert " +10.0       +15.0  truenas  begins to go down" in lines
    assert " +70.0      +105.0  truenas  is down" in lines
    assert " +74.0      +132.0  pve      begins to power off" in lines
    assert "+169.0      +322.0  ups      UPS cuts the power" in lines
    assert any(re.fullmatch(r"ok +\+20 +HOSTSYNC +truenas begins .* HOSTSYNC gives 30 s", line) for line in lines)
    assert any(
        re.fullmatch(r"nut_client_shutdown_limit, at least +truenas 90 +the gate gives up .*", line) for line in lines
    )
    assert not any(line != line.rstrip() for line in lines)
    assert max(map(len, lines)) <= 130


def test_table_shows_remedies() -> None:
    text = draw_table(SITE.change_timing(hostsync=1).change_ups(runtime=None).make_plan())
    assert re.search(r"^NO +-9 +HOSTSYNC ", text, re.MULTILINE)
    assert re.search(
        r"^ +-> write into host_vars/pve.yml, under nut_server_upsmon_conf: HOSTSYNC: 30$", text, re.MULTILINE
    )
    assert re.search(r"^\? +battery \(ups\) ", text, re.MULTILINE)


def test_verdict_names_few_failures() -> None:
    machines = [PlanMachine(f"guest{number}", "guest", "qm", needs=("truenas",)) for number in range(9)]
    said = spell_verdict(replace(SITE, stages=()).add_machines(*machines).change_machine("media", needs=()).make_plan())
    assert said.count(" loses its storage ") == 6
    assert "and 3 more. The" in said
    few = spell_verdict(
        replace(SITE, stages=()).add_machines(*machines[:7]).change_machine("media", needs=()).make_plan()
    )
    assert few.count(" loses its storage ") == 7
    assert "more" not in few


def test_table_of_minimal_plan() -> None:
    lines = draw_table(make_plan([PVE], [Supply()], Timing())).splitlines()
    assert not any(line.startswith(("nut_client_shutdown_limit", "timeout of each guest")) for line in lines)
    assert "can't be judged" in lines[0]


def test_problems_are_a_number_and_where_to_write_it() -> None:
    late = UNSTAGED.change_ups(runtime_low=301, charge_low=None)
    assert spell_problems(late.make_plan()) == [
        "The plan does not hold: low battery of ups comes 81 s too late. The battery does last if every machine takes its usual time.",
        "To do: write into host_vars/pve.yml (382 s, and 11 s for the age of its readings): nut_server_runtime_low: 393",
        "All conditions and their sums: make plan limit=pve",
    ]
    assert spell_problems(UNSTAGED.make_plan()) == []


def test_faults_with_the_same_remedy_are_a_single_problem() -> None:
    """A battery of 100 s fails three conditions: it is too small."""
    weak = UNSTAGED.change_timing(runtime_low="auto").change_ups(runtime=100, runtime_low=10, ignorelb=False)
    plan = weak.make_plan()
    assert sum(constraint.holds is False for constraint in plan.constraints) == 3
    first, remedy, _sum = spell_problems(plan)
    assert first.count(",") == 1, "the only comma is before `even if`"
    assert first.startswith("The plan does not hold: ups is empty ")
    assert remedy.startswith("To do: provide 453 s of battery")


def test_plan_says_which_charge_another_shutdown_takes() -> None:
    auto = UNSTAGED.change_timing(runtime_low="auto").change_ups(charge=50)
    enough, weak = auto.change_ups(runtime=1500).make_plan(), auto.change_ups(runtime=50, runtime_low=None).make_plan()
    assert enough.runtime_low == 420
    # a full battery lasts 3000 s
    assert spell_recharge(enough) == (
        "Another shutdown right after an outage takes a charge of ups 14 % (nut_server_return.charge)."
    )
    assert spell_recharge(enough) in " ".join(draw_table(enough).split())
    assert weak.runtime_low is not None
    assert f"ups {weak.runtime_low:.0f} %" in spell_recharge(weak)
    assert spell_recharge(UNSTAGED.change_ups(runtime=None).make_plan()) == ""
    unable = UNSTAGED.change_timing(runtime_low=5000).change_ups(charge=100, runtime=1000).make_plan()
    assert "takes more than the battery has when it is full" in spell_recharge(unable)


def test_begin_says_what_begins_the_shutdown_first() -> None:
    weak = UNSTAGED.change_timing(runtime_low="auto").change_ups(runtime=100, runtime_low=10, ignorelb=False)
    said = spell_begin(weak.change_ups(charge_low=None).make_plan())
    assert said.startswith(
        "The shutdown begins when ups reports a low battery, with 10 s left. nut-stages wants 30 s (as "
    )
    assert said.endswith(", but sees that later.")
    strong = weak.change_ups(runtime=3000, charge_low=None)
    assert spell_begin(strong.make_plan()).startswith("The shutdown begins with 420 s of battery left (")


def test_plan_of_a_host_without_guests_does_not_mention_proxmox() -> None:
    """A Raspberry Pi with the UPS, for example."""
    machines = (PVE, *(machine for machine in SITE.machines if machine.role == "secondary"))
    plan = make_plan(machines, SITE.supplies, replace(SITE.timing, guests_time=None), (), ProxmoxGuests(0, 0))
    assert "guests_time" in plan.needed
    for shown in (draw_table(plan), draw_page(plan)):
        assert "Proxmox" not in shown
        assert "guests_time" not in shown
    assert "for Proxmox VE to stop the guests" in draw_table(UNSTAGED.make_plan())
