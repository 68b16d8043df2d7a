# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The constraints of a plan. One file, because each case is checked against all of them: only its own constraint may fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.constraints import RULES, spell_fault
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    AUTO,
    CUT,
    DOWN,
    KILLPOWER,
    POWEROFF,
    Constraint,
    PlanMachine,
    ProxmoxGuests,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.text import (
    draw_table,
    spell_verdict,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.timeline import GATE_ROUND
from ansible_collections.homelab.nut.tests.unit.support.plans import (
    CLIENT,
    DOCKER,
    LATER,
    NAS,
    OPEN,
    PVE,
    ROUTER,
    SITE,
    STAGE,
    STORE,
    UNSTAGED,
    UPS,
    PlanSite,
    find_constraint,
    find_span,
)


def find_numbers(remedy: str) -> list[int]:
    return [int(number) for number in re.findall(r"\b([0-9]+)", remedy)]


def apply_timing(name: str) -> Callable[[PlanSite, str], PlanSite]:
    return lambda site, remedy: site.change_timing(**{name: find_numbers(remedy)[0]})


def apply_runtime_low(site: PlanSite, remedy: str) -> PlanSite:
    """Set nut_server_runtime_low, which makes nut-stages watch the battery."""
    found = re.fullmatch(r"write into host_vars/pve.yml(?: \([^)]*\))?: nut_server_runtime_low: ([0-9]+)", remedy)
    assert found
    return site.change_timing(runtime_low=int(found[1]))


def apply_reserve(site: PlanSite, remedy: str) -> PlanSite:
    found = re.match(
        r"write into host_vars/pve.yml, under nut_server_gate: (reserve|reserve_minimum): ([0-9]+)", remedy
    )
    assert found
    return site.change_timing(**{found[1]: int(found[2])})


def apply_delays(site: PlanSite, remedy: str) -> PlanSite:
    found = dict(re.findall(r"(o[nf]f?delay): ([0-9]+)", remedy))
    assert found
    return site.change_ups(**{name: int(value) for name, value in found.items()})


CASES: dict[str, tuple[PlanSite, str, str, float, Callable[[PlanSite, str], PlanSite]]] = {
    "hostsync": (SITE.change_timing(hostsync=9), "HOSTSYNC", "", -1, apply_timing("hostsync")),
    "slow to begin": (SITE.change_machine("truenas", begin_time=40), "HOSTSYNC", "", -10, apply_timing("hostsync")),
    "pollfreq": (SITE.change_timing(pollfreq=60, deadtime=200), "POLLFREQ", "", -1, apply_timing("pollfreq")),
    "pollfreqalert": (SITE.change_timing(pollfreqalert=70, deadtime=300), "POLLFREQALERT", "", -11, apply_timing("pollfreqalert")),
    "deadtime": (SITE.change_timing(deadtime=14), "DEADTIME", "", -1, apply_timing("deadtime")),
    "deadtime by POLLFREQ": (SITE.change_timing(pollfreq=10), "DEADTIME", "", -15, apply_timing("deadtime")),
    "maxage": (SITE.change_timing(maxage=5), "MAXAGE", "", -1, apply_timing("maxage")),
    "poweroff_wait": (SITE.change_timing(poweroff_wait=99), "POWEROFF_WAIT", "", -1, apply_timing("poweroff_wait")),
    "limit": (
        SITE.change_machine("truenas", shutdown_limit=62),
        "shutdown limit", "truenas", -1,
        lambda site, remedy: site.change_machine("truenas", shutdown_limit=find_numbers(remedy)[0]),
    ),
    "guests_time": (SITE.change_machine("router", shutdown_limit=121), "guests_time", "", -1, apply_timing("guests_time")),
    "a secondary on the NAS": (
        SITE.add_machines(DOCKER),
        "storage", "docker", -50,
        lambda site, _remedy: site.change_machine("docker", needs=()),
    ),
    "a guest on the NAS": (
        SITE.add_machines(PlanMachine("db", "guest", "pct", shutdown_time=10, shutdown_limit=40, needs=("truenas",))),
        "storage", "db", -40,
        lambda site, _remedy: site.change_stage(guests=("media", "db")),
    ),
    "a guest on a guest in one stage": (
        SITE.add_machines(STORE, CLIENT).change_stage(guests=("media", "store", "client")),
        "storage", "client", -50,
        lambda site, _remedy: replace(
            site.change_stage(guests=("media", "client")), stages=(site.stages[0], replace(LATER, guests=("store",)))
        ).change_stage(guests=("media", "client")),
    ),
    "an unstaged guest on a staged one": (
        SITE.add_machines(STORE, CLIENT).change_stage(guests=("media", "store")),
        "storage", "client", -50,
        lambda site, _remedy: replace(site, stages=(STAGE, replace(LATER, guests=("store",)))).change_stage(
            guests=("media", "client")
        ),
    ),
    "low battery": (SITE.change_ups(runtime_low=381), "low battery", "ups", -1, apply_runtime_low),
    "low battery by the UPS": (SITE.change_ups(ignorelb=False), "low battery", "ups", -54, apply_runtime_low),
    "battery": (
        UNSTAGED.change_ups(runtime=381, charge=50), "battery", "ups", -1,
        lambda site, text: site.change_ups(runtime=find_numbers(text)[0]),
    ),
    "short outage": (
        UNSTAGED.change_ups(runtime_low=2941), "short outage", "ups", -1, lambda site, _remedy: site.change_ups(runtime_low=2940),
    ),
    "short outage by charge": (
        UNSTAGED.change_ups(charge_low=100), "short outage", "ups", -60, lambda site, _remedy: site.change_ups(charge_low=90),
    ),
    "short outage by the UPS": (
        UNSTAGED.change_ups(ignorelb=False, charge_low=100), "short outage", "ups", -60,
        lambda site, remedy: site.change_ups(ignorelb=True, charge_low=find_numbers(remedy)[0]),
    ),
    "short outage by nut-stages": (
        UNSTAGED.change_timing(runtime_low=2950), "short outage", "ups", -10, lambda site, _remedy: site.change_timing(runtime_low=AUTO),
    ),
    "reserve": (UNSTAGED.change_timing(reserve=439), "reserve", "ups", -1, apply_reserve),
    "offdelay": (SITE.change_ups(offdelay=9), "offdelay", "ups", -1, apply_delays),
    "offdelay beyond ondelay": (SITE.change_ups(offdelay=9, ondelay=15), "offdelay", "ups", -1, apply_delays),
    "offdelay of a CyberPower": (SITE.change_ups(offdelay=59, ondelay=60, mfr="CPS"), "offdelay", "ups", -10, apply_delays),
    "ondelay": (SITE.change_ups(ondelay=30), "ondelay", "ups", -1, apply_delays),
    "ondelay of a CyberPower": (SITE.change_ups(offdelay=60, ondelay=119, mfr="CPS"), "ondelay", "ups", -1, apply_delays),
    "stage": (
        SITE.change_stage(runtime=724),
        "stage", "nas-guests", -1,
        lambda site, remedy: site.change_stage(runtime=find_numbers(remedy)[0]),
    ),
    "early stage": (
        SITE.change_stage(runtime=2941), "early stage", "nas-guests", -1, lambda site, _remedy: site.change_stage(runtime=2940),
    ),
    "early stage by charge": (
        SITE.change_stage(charge=100), "early stage", "nas-guests", -60, lambda site, _remedy: site.change_stage(charge=90),
    ),
    "early stage beside on_battery": (
        SITE.change_stage(charge=99, runtime=None, on_battery=600), "early stage", "nas-guests", -30,
        lambda site, _remedy: site.change_stage(charge=None),
    ),
    "stage by time": (
        SITE.change_stage(runtime=None, on_battery=2400),
        "stage", "nas-guests", -102,
        lambda site, remedy: site.change_stage(runtime=find_numbers(remedy)[0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_constraint_fails_alone_and_remedy_helps(case: str) -> None:
    site, name, about, slack, apply = CASES[case]
    plan = site.make_plan()
    assert plan.holds is False
    assert [(constraint.name, constraint.about) for constraint in plan.constraints if constraint.holds is not True] == [
        (name, about)
    ]
    wrong = plan.constraints[0]
    assert wrong.slack == pytest.approx(slack)
    assert wrong.have is not None
    assert wrong.need is not None
    assert wrong.slack == pytest.approx(wrong.have - wrong.need)
    assert wrong.remedy
    assert f" {-slack:g} s " in spell_verdict(plan) or name == "storage"
    assert spell_fault(wrong) in spell_verdict(plan)
    mended = apply(site, wrong.remedy).make_plan()
    assert [constraint for constraint in mended.constraints if constraint.holds is not True] == []
    assert mended.holds is True


@pytest.mark.parametrize("case", [name for name in CASES if CASES[name][3] == -1 and "CyberPower" not in name])
def test_constraint_holds_without_slack(case: str) -> None:
    """The cases above that lack one second hold with that second."""
    exact: dict[str, PlanSite] = {
        "hostsync": SITE.change_timing(hostsync=10),
        "pollfreq": SITE.change_timing(pollfreq=59, deadtime=200),
        "deadtime": SITE.change_timing(deadtime=15),
        "maxage": SITE.change_timing(maxage=6),
        "poweroff_wait": SITE.change_timing(poweroff_wait=100),
        "limit": SITE.change_machine("truenas", shutdown_limit=63),
        "guests_time": SITE.change_machine("router", shutdown_limit=120),
        "low battery": SITE.change_ups(runtime_low=382),
        "short outage": UNSTAGED.change_ups(runtime_low=2940),
        "battery": UNSTAGED.change_ups(runtime=382, charge=50),
        "reserve": UNSTAGED.change_timing(reserve=438),
        "offdelay": SITE.change_ups(offdelay=10),
        "offdelay beyond ondelay": SITE.change_ups(offdelay=10, ondelay=15),
        "ondelay": SITE.change_ups(ondelay=31),
        "stage": SITE.change_stage(runtime=725),
        "early stage": SITE.change_stage(runtime=2940),
    }
    name, about = CASES[case][1:3]
    plan = exact[case].make_plan()
    assert plan.holds is True
    assert find_constraint(plan, name, about).slack == 0


UNKNOWN: dict[str, tuple[PlanSite, str, str]] = {
    "runtime": (
        SITE.change_ups(runtime=None),
        "battery",
        "see why upsd does not serve battery.runtime of ups (upsc ups; make doctor)",
    ),
    "low battery": (
        UNSTAGED.change_ups(runtime_low=None, charge_low=None),
        "low battery",
        ": nut_server_runtime_low: 393",
    ),
    "delays": (SITE.change_ups(driver="snmp-ups", offdelay=None, ondelay=None), "offdelay", "see `man snmp-ups`"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_value_leaves_constraint_undecided(case: str) -> None:
    site, name, remedy = UNKNOWN[case]
    plan = site.make_plan()
    assert plan.holds is None
    expected, constraint = find_constraint(plan, "usual times", "ups"), find_constraint(plan, name, "ups")
    unknown = [each for each in plan.constraints if each.holds is not True]
    assert unknown == ([expected, constraint] if case != "delays" else [constraint])
    assert (constraint.holds, constraint.slack) == (None, None)
    assert plan.feasible is (True if case == "delays" else None)
    for each in unknown:
        assert remedy in each.remedy
    assert "can't be judged" in spell_verdict(plan)
    assert f"{name} (ups)" in spell_verdict(plan)


def test_failing_constraint_outweighs_undecided_one() -> None:
    plan = SITE.change_ups(runtime=None).change_timing(hostsync=1).make_plan()
    assert plan.holds is False
    assert [constraint.holds for constraint in plan.constraints][:4] == [False, None, None, True]


def test_order_of_two_guests_that_proxmox_stops_is_undecided() -> None:
    plan = SITE.add_machines(STORE, CLIENT).make_plan()
    (constraint,) = (constraint for constraint in plan.constraints if constraint.holds is None)
    assert (constraint.name, constraint.about) == ("storage", "client")
    assert plan.holds is None
    assert SITE.add_machines(STORE, replace(CLIENT, needs=("pve",))).make_plan().holds is True


@pytest.mark.parametrize(
    ("supply", "stage"),
    [
        ({"runtime_low": None, "charge_low": None}, {}),
        ({"runtime": None}, {"runtime": None, "charge": 80}),
        ({"runtime": None}, {"runtime": None, "on_battery": 80}),
    ],
)
def test_stage_with_unknown_times_is_undecided(supply: dict[str, Any], stage: dict[str, Any]) -> None:
    plan = SITE.change_ups(**supply).change_stage(**stage).make_plan()
    constraint = find_constraint(plan, "stage", "nas-guests")
    assert constraint.holds is None
    assert "set runtime of stage nas-guests to" in constraint.remedy


def test_low_battery_adds_up_all_terms_of_worst_case() -> None:
    constraint = find_constraint(SITE.make_plan(), "low battery", "ups")
    terms = [int(value) for value in re.findall(r"([0-9]+) \(", constraint.reason)]
    # reading, poll, HOSTSYNC, FINALDELAY, limit, gate's poll; then the reserve: guests, Proxmox, killpower, reading, margin
    assert terms == [30, 5, 30, 5, 90, GATE_ROUND, 120, 30, 10, 30, 30]
    assert constraint.need == sum(terms)
    assert f"= {sum(terms)} s" in constraint.reason
    assert "600 s left" in constraint.reason


def test_plan_without_secondaries_has_no_wait() -> None:
    plan = replace(UNSTAGED, machines=(PVE, ROUTER)).make_plan()
    assert find_constraint(plan, "low battery", "ups").need == 30 + 5 + 5 + GATE_ROUND + 120 + 30 + 10 + 30 + 30
    assert not [constraint for constraint in plan.constraints if constraint.name in {"HOSTSYNC", "shutdown limit"}]
    assert plan.needed["gate_timeout"] == GATE_ROUND
    assert plan.time_of(POWEROFF, worst=True) == 5 + 5 + GATE_ROUND
    assert plan.holds is True


def test_cyberpower_that_cuts_at_once_is_reported() -> None:
    constraint = find_constraint(SITE.change_ups(offdelay=None, ondelay=None, mfr="CPS").make_plan(), "offdelay", "ups")
    assert constraint.have == 0
    assert "cuts at once" in constraint.reason
    assert "under ups in nut_server_devices: offdelay: 60, ondelay: 120" in constraint.remedy


def test_each_ups_must_last() -> None:
    weak = replace(UPS, name="weak", runtime=340, charge=50, pollfreq=60, offdelay=50, ondelay=90)
    plan = replace(UNSTAGED, supplies=(UPS, weak)).change_timing(poweroff_wait=100).make_plan()
    failing = {(constraint.name, constraint.about) for constraint in plan.constraints if not constraint.holds}
    assert failing == {("battery", "weak"), ("POWEROFF_WAIT", "")}
    # there is only one reserve, so the oldest reading counts
    assert plan.needed["reserve"] == 120 + 30 + 10 + 60 + 30
    assert plan.needed["poweroff_wait"] == 10 + 50 + 60
    assert plan.time_of(CUT, "weak") == (plan.time_of(CUT, "ups") or 0) + 20
    assert find_span(plan, "truenas", DOWN)[1] == plan.time_of(CUT, "weak")
    both = replace(SITE, supplies=(UPS, replace(weak, runtime=800, runtime_low=690))).make_plan()
    assert "low battery of weak" in find_constraint(both, "stage", "nas-guests").reason


def test_first_trigger_of_stage_counts() -> None:
    def have(**changes: Any) -> float | None:
        return find_constraint(SITE.change_stage(runtime=None, **changes).make_plan(), "stage", "nas-guests").have

    assert have(on_battery=100) == 2900
    assert have(charge=50) == 1500
    assert have(on_battery=100, charge=50) == 2900
    assert have(on_battery=2700, charge=50) == 1500
    assert find_constraint(SITE.change_stage(runtime=9999).make_plan(), "stage", "nas-guests").have == 3000
    assert find_constraint(SITE.change_stage(seconds=200).make_plan(), "stage", "nas-guests").need == 600 + 35 + 200
    assert find_constraint(SITE.change_stage(seconds=20).make_plan(), "stage", "nas-guests").need == 600 + 35 + 90
    assert (
        find_constraint(
            SITE.change_stage(charge=99, runtime=None).change_ups(charge=50).make_plan(), "stage", "nas-guests"
        ).have
        == 3000
    )
    # here upsmon's poll takes longer than the reading
    assert (
        find_constraint(SITE.change_timing(pollfreq=50, deadtime=200).make_plan(), "stage", "nas-guests").need
        == 600 + 57 + 90
    )
    assert (
        find_constraint(SITE.change_stage(runtime=None, on_battery=9).make_plan(), "stage", "nas-guests").need
        == 600 + 12 + 90
    )
    by_charge = SITE.change_stage(runtime=None, charge=50).change_ups(charge=80)
    assert find_constraint(by_charge.make_plan(), "stage", "nas-guests").have == 3000 * 50 / 80


def test_usual_times_adds_up_all_terms_of_usual_run() -> None:
    plan = UNSTAGED.make_plan()
    constraint = find_constraint(plan, "usual times", "ups")
    terms = [float(value) for value in re.findall(r"([0-9.]+) \(", constraint.reason)]
    # reading, poll, begin, FINALDELAY, the gate; then the slowest guest, Proxmox, killpower
    assert terms == [15, 2.5, 7.5, 5, 59, 40, 30, 10]
    assert constraint.need == sum(terms) == 15 + (plan.time_of(KILLPOWER, "pve") or 0)
    assert (constraint.have, constraint.holds, plan.feasible) == (600, True, True)
    assert "ups reports low battery with 600 s left" in constraint.reason
    assert "ups lasts 3000 s when charged" in constraint.reason


EXPECTED: dict[str, tuple[PlanSite, float | None, bool | None]] = {
    "in time": (UNSTAGED.change_ups(runtime_low=169), 169, True),
    "a second too late": (UNSTAGED.change_ups(runtime_low=168), 168, False),
    "the UPS decides, which reads more often": (UNSTAGED.change_ups(runtime_low=155, charge_low=None, ignorelb=False), 155, True),
    "the UPS decides, too late": (UNSTAGED.change_ups(runtime_low=154, charge_low=None, ignorelb=False), 154, False),
    "the battery is shorter than its mark": (UNSTAGED.change_ups(runtime=169), 169, True),
    "the battery is too short": (UNSTAGED.change_ups(runtime=168), 168, False),
    # the time left at 40 % is extrapolated to 100 %
    "the battery will be charged": (UNSTAGED.change_ups(runtime=68, charge=40), 170, True),
    "the battery will be charged, and is too short": (UNSTAGED.change_ups(runtime=66, charge=40), 165, False),
    "by charge, of a battery that will be charged": (
        UNSTAGED.change_ups(runtime=400, charge=40, runtime_low=None, charge_low=17), 170, True,
    ),
    "no charge": (UNSTAGED.change_ups(runtime=169, charge=None), 169, True),
    "no runtime": (UNSTAGED.change_ups(runtime=None), None, None),
    "no runtime, but too late in any case": (UNSTAGED.change_ups(runtime=None, runtime_low=168), 168, False),
    "no mark": (UNSTAGED.change_ups(runtime_low=None, charge_low=None), None, None),
    "no mark, but too short in any case": (UNSTAGED.change_ups(runtime_low=None, charge_low=None, runtime=168), 168, False),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPECTED)
def test_plan_is_feasible_if_usual_run_ends_in_time(case: str) -> None:
    site, have, feasible = EXPECTED[case]
    site = site.change_ups(charge_low=site.supplies[0].charge_low if "charge," in case else None)
    plan = site.make_plan()
    constraint = find_constraint(plan, "usual times", "ups")
    assert (constraint.holds, plan.feasible) == (feasible, feasible)
    assert constraint.have == (pytest.approx(have) if have is not None else None)
    assert bool(constraint.remedy) is (feasible is not True)


def test_stage_with_fsd_begins_shutdown_earlier() -> None:
    # 150 s is too late for low battery, but the stage begins at 1000 s, usually half of 35 s late, and media takes 40 s
    plan = SITE.change_ups(runtime_low=150, charge_low=None).make_plan()
    constraint = find_constraint(plan, "usual times", "ups")
    assert (constraint.have, constraint.need, constraint.holds) == (1000 - 17.5 - 40, 124 + 15, True)
    assert "stage nas-guests starts FSD with 942.5 s left" in constraint.reason
    assert plan.feasible is True
    assert plan.holds is False
    assert SITE.change_ups(runtime_low=150, charge_low=None).change_stage(fsd=False).make_plan().feasible is False
    # NUT usually notices low battery half of 30 s late
    assert find_constraint(SITE.change_ups(runtime_low=950).make_plan(), "usual times", "ups").have == 942.5
    # a stage that would begin after low battery changes nothing
    late = find_constraint(SITE.change_ups(runtime_low=990).make_plan(), "usual times", "ups")
    assert (late.have, late.need) == (990, 139 + 15)
    # without a known mark the stage's time counts
    assert (
        find_constraint(SITE.change_ups(runtime_low=None, charge_low=None).make_plan(), "usual times", "ups").holds
        is True
    )


def test_only_vital_constraints_make_plan_infeasible() -> None:
    assert SITE.change_machine("truenas", shutdown_limit=62).make_plan().feasible is False
    assert SITE.change_timing(hostsync=1).make_plan().feasible is True
    # a guest that hangs because its NAS goes down first makes the plan fail, but must not stop a deployment
    hangs = replace(SITE, stages=()).make_plan()
    assert find_constraint(hangs, "storage", "media").holds is False
    assert (hangs.holds, hangs.feasible) == (False, True)
    assert spell_verdict(hangs).endswith(
        "media loses its storage while it shuts down. The battery does last if every machine takes its usual time"
    )
    assert find_constraint(hangs, "storage", "media").remedy == "add media to the guests of a stage"
    # each UPS counts
    weak = replace(UPS, name="weak", runtime=100)
    assert replace(UNSTAGED, supplies=(UPS, weak)).make_plan().feasible is False


def test_minimum_reserve_can_end_gate_too_early_in_usual_run() -> None:
    # truenas is down 74 s after the trigger, which is noticed 15 s late
    plan = (
        UNSTAGED.change_timing(reserve=100, reserve_minimum=100)
        .change_ups(runtime_low=188, charge_low=None)
        .make_plan()
    )
    constraint = find_constraint(plan, "minimum reserve", "ups")
    assert (constraint.have, constraint.need, constraint.holds, plan.feasible) == (188, 189, False, False)
    assert "100 (reserve_minimum) = 189 s" in constraint.reason
    assert constraint.remedy.startswith(
        "write into host_vars/pve.yml, under nut_server_gate: reserve_minimum: 40, or write into host_vars/pve.yml"
    )
    assert (
        find_constraint(
            UNSTAGED.change_timing(reserve=100, reserve_minimum=100)
            .change_ups(runtime_low=189, charge_low=None)
            .make_plan(),
            "minimum reserve",
            "ups",
        ).holds
        is True
    )
    # the gate never keeps more than the reserve
    assert (
        find_constraint(
            UNSTAGED.change_timing(reserve=50, reserve_minimum=100).make_plan(), "minimum reserve", "ups"
        ).need
        == 89 + 50
    )
    alone = find_constraint(UNSTAGED.change_timing(reserve=512).make_plan(), "minimum reserve", "ups")
    assert (alone.need, alone.holds) == (601, False)
    assert "512 (reserve)" in alone.reason
    # the usual wait is shorter than what is left at low battery
    short = find_constraint(
        UNSTAGED.change_timing(reserve_minimum=30).change_ups(runtime=150).make_plan(), "minimum reserve", "ups"
    )
    assert short.have == 150


def test_reserve_can_end_gate_too_early_in_worst_case() -> None:
    def found(**changes: Any) -> Constraint:
        return find_constraint(UNSTAGED.change_timing(**changes).make_plan(), "reserve", "ups")

    # 30 + 5 + 30 + 5 + 90 + 2 s pass at most until the last limit
    assert (found(reserve=220).need, found(reserve=220, reserve_minimum=30).need) == (382, 382)
    # without nut_server_gate.reserve the gate keeps what the plan needs, which "low battery" already checks
    assert not [
        constraint
        for constraint in UNSTAGED.change_timing(reserve_minimum=30).make_plan().constraints
        if constraint.name == "reserve"
    ]
    # the gate never keeps more than the reserve
    assert found(reserve=50, reserve_minimum=100).need == 212
    assert "and 30 s" not in found(reserve=220).reason
    assert found(reserve=439).remedy == "write into host_vars/pve.yml, under nut_server_gate: reserve: 220"
    late = find_constraint(
        UNSTAGED.change_timing(reserve=439).change_ups(runtime_low=300).make_plan(), "reserve", "ups"
    )
    assert late.remedy == (
        "write into host_vars/pve.yml, under nut_server_gate: reserve: 220, and write into host_vars/pve.yml "
        "(382 s, and 11 s for the age of its readings): nut_server_runtime_low: 393"
    )
    assert find_constraint(
        UNSTAGED.change_timing(reserve=200).change_ups(runtime_low=300).make_plan(), "reserve", "ups"
    ).remedy.endswith(": nut_server_runtime_low: 393")
    assert (
        find_constraint(UNSTAGED.change_timing(reserve=200).change_ups(runtime=300).make_plan(), "reserve", "ups").have
        == 300
    )


def test_reserves_are_checked_only_if_set() -> None:
    names = {constraint.name for constraint in UNSTAGED.make_plan().constraints}
    assert not {"reserve", "minimum reserve"} & names
    alone = replace(UNSTAGED, machines=(PVE, ROUTER)).change_timing(reserve=9999, reserve_minimum=999).make_plan()
    assert not {"reserve", "minimum reserve"} & {constraint.name for constraint in alone.constraints}
    unknown = (
        UNSTAGED.change_timing(reserve=220, reserve_minimum=30)
        .change_ups(runtime_low=None, charge_low=None)
        .make_plan()
    )
    assert not {"reserve", "minimum reserve"} & {constraint.name for constraint in unknown.constraints}


def test_guests_time_is_checked_only_if_set() -> None:
    assert not [
        constraint
        for constraint in OPEN.make_plan(ProxmoxGuests(stop_limit=400)).constraints
        if constraint.name == "guests_time"
    ]
    constraint = find_constraint(UNSTAGED.make_plan(ProxmoxGuests(stop_limit=400)), "guests_time")
    assert (constraint.have, constraint.need) == (120, 400)
    assert (
        constraint.remedy
        == "write into host_vars/pve.yml: nut_server_guests_time: 400, or give them less time in Proxmox (startup: down=...)"
    )
    assert "the guests may take 400 s; guests_time allows 120 s" in constraint.reason
    assert find_constraint(UNSTAGED.make_plan(ProxmoxGuests(stop_limit=90)), "guests_time").reason.startswith(
        "media may take 90 s"
    )
    empty = replace(UNSTAGED, machines=(PVE, NAS))
    assert find_constraint(empty.make_plan(ProxmoxGuests(stop_limit=400)), "guests_time").need == 400
    assert not [
        constraint
        for constraint in empty.make_plan(ProxmoxGuests(stop_limit=0)).constraints
        if constraint.name == "guests_time"
    ]
    assert find_constraint(OPEN.change_machine("router", shutdown_limit=200).make_plan(), "guests_time").holds is False


def test_unreadable_proxmox_guests_leave_guests_time_undecided() -> None:
    plan = OPEN.make_plan(ProxmoxGuests(problem="/etc/pve is broken"))
    constraint = find_constraint(plan, "guests_time")
    assert constraint.holds is None
    assert (
        constraint.reason
        == "/etc/pve is broken; the plan allows 180 s for all guests, and can't tell whose storage they use"
    )
    assert constraint.remedy == "fix that, or set nut_server_guests_time"
    assert (plan.holds, plan.feasible) == (None, True)
    given = find_constraint(UNSTAGED.make_plan(ProxmoxGuests(problem="/etc/pve is broken")), "guests_time")
    assert "allows 120 s" in given.reason
    assert given.remedy == "fix that"


def test_migrating_ha_makes_plan_infeasible() -> None:
    words = ("HA manages 1 guest (104)", "shutdown_policy is freeze")
    plan = SITE.make_plan(ProxmoxGuests(ha=words))
    constraint = find_constraint(plan, "HA")
    assert (constraint.holds, constraint.slack, constraint.reason, constraint.remedy) == (
        True,
        None,
        "; ".join(words),
        "",
    )
    assert (plan.holds, plan.feasible, plan.ha) == (True, True, words)
    assert spell_verdict(plan) == spell_verdict(SITE.make_plan())
    moves = SITE.make_plan(ProxmoxGuests(ha=words, migrates=True))
    constraint = find_constraint(moves, "HA")
    assert (constraint.holds, moves.holds, moves.feasible) == (False, False, False)
    assert constraint.remedy == "set shutdown_policy to freeze (Datacenter, Options, HA Settings)"
    assert spell_verdict(moves) == "The plan does not hold: HA fails"
    assert not [constraint for constraint in SITE.make_plan().constraints if constraint.name == "HA"]
    assert "HA manages 1 guest (104); shutdown_policy is freeze" in draw_table(plan)


def test_remarks_become_constraints() -> None:
    remark = Constraint("stage nas", "105", None, None, None, None, "names guest 105", "take it out")
    plan = SITE.make_plan(ProxmoxGuests(remarks=(remark,)))
    assert remark in plan.constraints
    assert (plan.holds, plan.feasible) == (None, True)


def test_guests_that_wait_for_their_storage_are_named() -> None:
    assert not [constraint for constraint in SITE.make_plan().constraints if constraint.name == "start"]
    row = find_constraint(SITE.make_plan(ProxmoxGuests(late=("101 web", "103 old"))), "start")
    assert (row.holds, row.slack, row.remedy) == (True, None, "")
    assert row.reason == (
        "101 web, 103 old: on the storage of another machine. If that boots later than this host, nut-stages starts them when the "
        "storage is online"
    )


def test_each_constraint_is_explained_in_docs() -> None:
    page = Path(__file__).parents[6] / "docs" / "shutdown.md"
    table = page.read_text(encoding="utf-8").partition("| condition |")[2].partition("\n\n")[0]
    names = [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert sorted(names) == sorted(RULES)


@pytest.mark.parametrize(
    ("ups", "ondelay"),
    [
        ({"mfr": "CPS"}, 0),
        ({"mfr": "CPS"}, -1),
        ({"mfr": "APC"}, -1),
        ({"driver": None}, -1),
        ({"driver": "mge-shut"}, -1),
        ({"driver": "nutdrv_qx"}, 0),
        ({"driver": "blazer_usb"}, 0),
    ],
)
def test_ups_may_restore_the_power_at_once(ups: dict[str, Any], ondelay: float) -> None:
    plan = UNSTAGED.change_ups(offdelay=60, ondelay=ondelay, **ups).make_plan()
    constraint = find_constraint(plan, "ondelay", "ups")
    assert constraint.holds is True
    assert "ups to restore the power as soon as the mains are there. Test it: make drill-live" in constraint.reason
    assert plan.needed["ondelay"] == {"ups": ondelay}
    assert plan.holds is True


@pytest.mark.parametrize("ups", [{"ondelay": 0}, {"driver": "nutdrv_qx", "offdelay": 120, "ondelay": 60}])
def test_other_ups_must_restore_the_power_later_than_it_cuts_it(ups: dict[str, Any]) -> None:
    assert find_constraint(UNSTAGED.change_ups(**ups).make_plan(), "ondelay", "ups").holds is False


@pytest.mark.parametrize("driver", ["apcsmart", "tripplite_usb", "blazer_usb", "riello_usb", "netxml-ups"])
@pytest.mark.parametrize("delays", [{"offdelay": 3, "ondelay": 60}, {"offdelay": 90, "ondelay": 60}])
def test_driver_without_the_keys_is_not_told_to_set_them(driver: str, delays: dict[str, float]) -> None:
    """It reports its delays, but refuses offdelay or ondelay, or counts them in minutes."""
    plan = UNSTAGED.change_ups(driver=driver, **delays).make_plan()
    broken = [each for each in plan.constraints if each.name in ("offdelay", "ondelay") and not each.holds]
    assert [each.remedy for each in broken] == [f"see `man {driver}`, and test it with make drill-live"]


def test_unknown_driver_is_not_told_to_set_keys_that_it_may_not_have() -> None:
    constraint = find_constraint(
        UNSTAGED.change_ups(driver="snmp-ups", offdelay=None, ondelay=None).make_plan(), "offdelay", "ups"
    )
    assert constraint.holds is None
    assert constraint.remedy == "see `man snmp-ups`, and test it with make drill-live"


@pytest.mark.parametrize("stage", [{"runtime": None, "on_battery": 5}, {"charge": 100, "fsd": False}])
def test_stage_may_begin_at_once_if_it_says_so_or_only_stops_guests(stage: dict[str, Any]) -> None:
    failing = [each.name for each in SITE.change_stage(**stage).make_plan().constraints if each.holds is False]
    assert "early stage" not in failing
