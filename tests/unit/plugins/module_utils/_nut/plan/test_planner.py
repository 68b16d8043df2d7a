# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    Plan,
    PlanError,
    PlannedGuest,
    ProxmoxGuests,
    Supply,
    Timing,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.text import (
    draw_table,
    spell_reason,
    spell_stopper,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.timeline import GATE_ROUND
from ansible_collections.homelab.nut.tests.unit.support.plans import (
    NAS,
    PVE,
    ROUTER,
    SITE,
    STAGE,
    UNSTAGED,
    UPS,
    PlanSite,
    draw_site,
)
from hypothesis import event, given, settings
from hypothesis import strategies as st


def test_plan_holds_if_all_constraints_hold() -> None:
    plan = SITE.make_plan()
    assert plan.holds is True
    assert all(constraint.holds and not constraint.remedy for constraint in plan.constraints)
    slacks = [constraint.slack for constraint in plan.constraints]
    assert slacks == sorted(slacks, key=lambda slack: slack or 0)
    assert UNSTAGED.make_plan().holds is True


def test_plan_lists_guests_by_stage() -> None:
    row = PlannedGuest("media", 101, "qm", "media", "", 78, "it has the tag nas", (), True)
    plan = SITE.add_machines(replace(ROUTER, name="a", guest_id=102)).make_plan(ProxmoxGuests(guests=(row,)))
    assert plan.guests == (
        replace(row, stage="nas-guests", needs=("truenas",)),
        PlannedGuest("a", 102, "qm", "", "", 90),
        PlannedGuest("router", 103, "qm", "", "", 90),
    )
    assert [spell_stopper(plan, guest) for guest in plan.guests] == ["stage nas-guests", "pve", "pve"]
    assert spell_stopper(plan, replace(row, stage="")) == "HA"
    assert [spell_reason(guest) for guest in plan.guests] == ["it has the tag nas", "", ""]
    assert spell_reason(replace(row, why="", needs=("truenas", "b"))) == "it uses the storage of truenas, b"
    lines = [line.split() for line in draw_table(plan).splitlines()]
    assert ["guest", "stopped", "by", "s", "why"] in lines
    assert ["media", "stage", "nas-guests", "78", "it", "has", "the", "tag", "nas"] in lines
    assert ["router", "pve", "90"] in lines
    assert "stopped by" not in draw_table(replace(SITE, machines=(PVE, NAS), stages=()).make_plan())


@given(draw_site())
def test_plan_that_holds_is_feasible(site: PlanSite) -> None:
    plan = site.make_plan()
    assert plan.holds is not True or plan.feasible is True


class Dice:
    """Draws times up to a limit, often 0 or the limit itself. Without a source: always the limit."""

    def __init__(self, source: random.Random | None) -> None:
        self.source = source

    def draw_up_to(self, most: float) -> float:
        if self.source is None:
            return most
        return self.source.choice((0.0, most, most, self.source.uniform(0, most)))

    def flip_coin(self) -> bool:
        return self.source is None or self.source.random() < 0.5


def compute_cut_delay(supply: Supply, release: str) -> float:
    """Return how the hardware rounds offdelay. Written independently, from NUT's manuals."""
    if supply.driver == "nutdrv_qx":
        asked = 30 if supply.offdelay is None else supply.offdelay
        return asked - asked % 6 if asked < 60 else asked - asked % 60
    if supply.mfr == "CPS":
        asked = supply.offdelay if supply.offdelay is not None else (60 if release == "2.8.3" else 20)
        return asked - asked % 60
    return 20 if supply.offdelay is None else supply.offdelay


class Run:
    """An outage with one UPS. Times are seconds since the mains failed."""

    def __init__(self, site: PlanSite, policy: dict[str, Any], dice: Dice) -> None:
        self.site, self.timing, self.policy, self.dice = site, site.timing, policy, dice
        (self.supply,) = site.supplies
        self.full = self.supply.runtime or 0.0
        age = self.supply.pollfreq
        if age is None:
            age = 12 if _new_cps(self.supply, self.timing) else 30
        self.age = max(age, self.supply.pollinterval)
        self.poll_interval = max(self.timing.pollfreq, self.timing.pollfreqalert)
        self.hosts = [machine for machine in site.machines if machine.role == "secondary"]
        self.down: dict[str, float] = {}
        self.harm: list[str] = []

    def when_left(self, seconds: float) -> float:
        return max(0.0, self.full - seconds)

    def at_charge(self, percent: float) -> float:
        return self.when_left(self.full * percent / (self.supply.charge or 100))

    def find_low(self) -> float:
        """Return when upsd reports LB. NUT uses both marks, a UPS either or both."""
        marks = [self.when_left(self.supply.runtime_low or 0)]
        if self.supply.charge_low is not None:
            marks.append(self.at_charge(self.supply.charge_low))
        if not self.supply.ignorelb and self.dice.flip_coin():
            marks = [max(marks)] if self.dice.flip_coin() else [min(marks)]
        return min(marks) + self.dice.draw_up_to(self.age if self.supply.ignorelb else self.supply.pollinterval)

    def find_trigger(self) -> float:
        """Return when FSD is due: at low battery, or when the guests of a stage are down."""
        found = self.find_low()
        starts = self.dice.draw_up_to(self.supply.pollinterval) + self.dice.draw_up_to(self.poll_interval)
        for stage in self.site.stages:
            due = []
            if stage.on_battery is not None:
                due.append(starts + stage.on_battery)
            if stage.runtime is not None:
                due.append(max(starts, self.when_left(stage.runtime) + self.dice.draw_up_to(self.age)))
            if stage.charge is not None:
                due.append(max(starts, self.at_charge(stage.charge) + self.dice.draw_up_to(self.age)))
            begins = min(due) + self.dice.draw_up_to(5)
            for machine in self.site.machines:
                if machine.name in stage.guests:
                    self.down[machine.name] = begins + self.dice.draw_up_to(machine.shutdown_limit)
            if stage.fsd:
                found = min(found, max([begins, *(self.down[name] for name in stage.guests)]))
        return found

    def gate(self, fsd: float) -> float:
        """Draw when the secondaries are down, and return when the gate ends."""
        begun = [fsd]
        for machine in self.hosts:
            begun.append(fsd + self.dice.draw_up_to(machine.begin_time))
            self.down[machine.name] = begun[-1] + self.dice.draw_up_to(
                max(machine.shutdown_limit, machine.shutdown_time)
            )
        hangs = bool(self.hosts) and self.dice.flip_coin()
        last = fsd + self.timing.hostsync
        now = began = (last if hangs else min(max(begun), last)) + self.timing.finaldelay
        while True:
            waiting = [
                machine
                for machine in self.hosts
                if self.down[machine.name] > now - self.timing.settle
                and now - began < self.policy["limits"][machine.name]
            ]
            shown = self.full - now + self.dice.draw_up_to(self.age)
            late = any(now - began >= machine.shutdown_time + self.timing.settle for machine in waiting)
            keeps = self.policy["reserve"] if late else min(self.policy["reserve_minimum"], self.policy["reserve"])
            if not waiting or shown <= keeps or now - began >= self.policy["gate_timeout"]:
                return now
            now += max(0.25, self.dice.draw_up_to(GATE_ROUND))

    def primary(self, poweroff: float) -> None:
        """Let the primary go down. It orders the UPS to cut the power some time before it is off."""
        stopped = poweroff + self.dice.draw_up_to(self.timing.guests_time)
        for machine in self.site.machines:
            if machine.role == "guest" and machine.name not in self.down:
                self.down[machine.name] = poweroff + self.dice.draw_up_to(machine.shutdown_limit)
                if self.down[machine.name] > poweroff + self.timing.guests_time:
                    self.harm.append(f"{machine.name} is killed")
                stopped = max(stopped, self.down[machine.name])
        itself = stopped + self.dice.draw_up_to(self.timing.own_shutdown)
        ordered = self.dice.draw_up_to(self.timing.killpower) if self.dice.flip_coin() else 0.0
        self.down[PVE.name] = itself + max(ordered, self.dice.draw_up_to(self.timing.killpower))
        dark = min(itself + ordered + compute_cut_delay(self.supply, self.timing.release), self.full)
        self.harm += [f"{name} is up in the dark" for name, end in self.down.items() if end > dark]


def simulate(site: PlanSite, policy: dict[str, Any], dice: Dice) -> list[str]:
    """Return the harm that an outage does. No machine takes longer than its limit or its usual time."""
    run = Run(site, policy, dice)
    fsd = run.find_trigger() + dice.draw_up_to(run.poll_interval)
    poweroff = run.gate(fsd)
    run.harm += [
        f"{machine.name} is up when the primary goes" for machine in run.hosts if run.down[machine.name] > poweroff
    ]
    run.harm += [
        f"{machine.name} is up when {name} may begin"
        for machine in site.machines
        for name in machine.needs
        if run.down.get(machine.name, math.inf) > fsd
    ]
    run.primary(poweroff)
    return run.harm


def _new_cps(supply: Supply, timing: Timing) -> bool:
    return supply.driver == "usbhid-ups" and supply.mfr == "CPS" and timing.release == "2.8.3"


def policy_of(site: PlanSite, plan: Plan) -> dict[str, Any]:
    """Return the gate's policy: the reserves that are set or else needed, and the limits of the machines."""
    limits = {machine.name: machine.shutdown_limit for machine in site.machines if machine.role == "secondary"}
    reserve = plan.needed["reserve"] if site.timing.reserve is None else site.timing.reserve
    least = site.timing.reserve_minimum
    if least is None:
        # without it the reserve counts from the beginning
        least = reserve
    return {"reserve": reserve, "reserve_minimum": least, "gate_timeout": plan.needed["gate_timeout"], "limits": limits}


@settings(max_examples=400)
@given(draw_site(), st.randoms(use_true_random=False))
def test_simulated_outage_with_plan_that_holds_does_no_harm(site: PlanSite, source: random.Random) -> None:
    plan = site.make_plan()
    event(f"holds: {plan.holds}")
    if plan.holds is not True:
        return
    policy = policy_of(site, plan)
    assert simulate(site, policy, Dice(None)) == []
    for _run in range(10):
        assert simulate(site, policy, Dice(source)) == []


def test_drawn_sites_hold_and_fail_often_enough() -> None:
    """Otherwise the test above would prove little."""
    verdicts: list[bool | None] = []

    @settings(max_examples=400, derandomize=True)
    @given(draw_site())
    def collect(site: PlanSite) -> None:
        verdicts.append(site.make_plan().holds)

    collect()
    assert verdicts.count(True) > len(verdicts) / 10
    assert verdicts.count(False) > len(verdicts) / 10


HARM: dict[str, tuple[PlanSite, str]] = {
    "low battery": (UNSTAGED.change_ups(runtime_low=150), "truenas is up when the primary goes"),
    "battery": (UNSTAGED.change_ups(runtime=100), "pve is up in the dark"),
    "shutdown limit": (
        SITE.change_machine("truenas", shutdown_time=200, shutdown_limit=90),
        "truenas is up when the primary goes",
    ),
    "offdelay": (SITE.change_ups(offdelay=1), "pve is up in the dark"),
    "stage": (SITE.change_stage(runtime=620, fsd=False), "media is up when truenas may begin"),
    "guests_time": (SITE.change_machine("router", shutdown_limit=150), "router is killed"),
    "storage": (replace(SITE, stages=()), "media is up when truenas may begin"),
    "reserve": (UNSTAGED.change_timing(reserve=580), "truenas is up when the primary goes"),
    "minimum reserve": (
        UNSTAGED.change_timing(reserve=580, reserve_minimum=570),
        "truenas is up when the primary goes",
    ),
    "usual times": (UNSTAGED.change_ups(runtime_low=100, charge_low=None), "pve is up in the dark"),
}


@given(st.randoms(use_true_random=False))
def test_simulated_outage_of_example_sites_does_no_harm(source: random.Random) -> None:
    for site in (SITE, UNSTAGED):
        assert simulate(site, policy_of(site, site.make_plan()), Dice(source)) == []


@pytest.mark.parametrize("case", HARM)
def test_simulated_outage_with_failing_plan_does_harm(case: str) -> None:
    """So the simulation can detect each failure, and each constraint matters."""
    site, harm = HARM[case]
    plan = site.make_plan()
    assert case in {constraint.name for constraint in plan.constraints if constraint.holds is False}
    found: set[str] = set()

    @settings(max_examples=200)
    @given(st.randoms(use_true_random=False))
    def collect(source: random.Random) -> None:
        found.update(simulate(site, policy_of(site, plan), Dice(source)))

    collect()
    assert harm in found


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (replace(SITE, machines=(NAS,), stages=()), "there are 0 (none)"),
        (SITE.add_machines(replace(PVE, name="pve2")), "there are 2 (pve, pve2)"),
        (SITE.add_machines(NAS), "machine 'truenas'"),
        (SITE.add_machines(replace(NAS, name="")), "machine ''"),
        (replace(SITE, supplies=()), "no UPS powers pve"),
        (replace(SITE, supplies=(UPS, UPS)), "UPS 'ups'"),
        (replace(SITE, stages=(STAGE, STAGE)), "stage 'nas-guests'"),
        (SITE.change_machine("truenas", role="slave"), "truenas: role 'slave'"),
        (SITE.change_machine("truenas", kind="qm"), "truenas: kind 'qm'"),
        (SITE.change_machine("media", needs=("nas",)), "media: needs lists nas"),
        (SITE.change_machine("media", needs=("media",)), "media: needs lists media"),
        (SITE.change_machine("truenas", begin_time=-1), "truenas: begin_time is -1"),
        (SITE.change_machine("truenas", shutdown_limit=math.inf), "truenas: shutdown_limit is inf"),
        (SITE.change_machine("truenas", shutdown_limit=math.nan), "truenas: shutdown_limit is nan"),
        (SITE.change_stage(guests=("truenas",)), "stage nas-guests: truenas is not a guest"),
        (SITE.change_stage(guests=("nobody",)), "stage nas-guests: nobody is not a guest"),
        (SITE.change_stage(runtime=None), "stage nas-guests has no trigger"),
        (SITE.change_stage(seconds=-2), "stage nas-guests: seconds is -2"),
        (SITE.change_ups(offdelay=-1), "UPS ups: offdelay is -1"),
        (SITE.change_timing(margin=-1), "timing: margin is -1"),
        (SITE.change_timing(release="two"), "release 'two'"),
    ],
)
def test_invalid_input_is_refused(site: PlanSite, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        site.make_plan()
    assert words in str(caught.value)
