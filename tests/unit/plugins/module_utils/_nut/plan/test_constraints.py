# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
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
    Site,
    get,
    span,
)


def numbers(remedy: str) -> list[int]:
    return [int(one) for one in re.findall(r"\b([0-9]+)", remedy)]


def timed(name: str) -> Callable[[Site, str], Site]:
    return lambda site, remedy: site.time(**{name: numbers(remedy)[0]})


def low_battery(site: Site, remedy: str) -> Site:
    """Do as the role does with nut_server_runtime_low."""
    found = re.fullmatch(r"set nut_server_runtime_low to ([0-9]+)", remedy)
    assert found
    return site.ups(ignorelb=True, runtime_low=int(found[1]))


def reserved(site: Site, remedy: str) -> Site:
    found = re.match(r"set nut_server_gate.(reserve|reserve_minimum) to ([0-9]+)", remedy)
    assert found
    return site.time(**{found[1]: int(found[2])})


def delayed(site: Site, remedy: str) -> Site:
    found = dict(re.findall(r"(o[nf]f?delay)(?: of ups in nut_server_devices)? to ([0-9]+)", remedy))
    assert found
    return site.ups(**{name: int(value) for name, value in found.items()})


CASES: dict[str, tuple[Site, str, str, float, Callable[[Site, str], Site]]] = {
    "hostsync": (SITE.time(hostsync=9), "HOSTSYNC", "", -1, timed("hostsync")),
    "slow to begin": (SITE.machine("truenas", begin_time=40), "HOSTSYNC", "", -10, timed("hostsync")),
    "pollfreq": (SITE.time(pollfreq=60, deadtime=200), "POLLFREQ", "", -1, timed("pollfreq")),
    "pollfreqalert": (SITE.time(pollfreqalert=70, deadtime=300), "POLLFREQALERT", "", -11, timed("pollfreqalert")),
    "deadtime": (SITE.time(deadtime=14), "DEADTIME", "", -1, timed("deadtime")),
    "deadtime, online": (SITE.time(pollfreq=10), "DEADTIME", "", -15, timed("deadtime")),
    "maxage": (SITE.time(maxage=5), "MAXAGE", "", -1, timed("maxage")),
    "poweroff_wait": (SITE.time(poweroff_wait=99), "POWEROFF_WAIT", "", -1, timed("poweroff_wait")),
    "limit": (
        SITE.machine("truenas", shutdown_limit=62),
        "shutdown limit", "truenas", -1,
        lambda site, remedy: site.machine("truenas", shutdown_limit=numbers(remedy)[0]),
    ),
    "guests_time": (SITE.machine("router", shutdown_limit=121), "guests_time", "", -1, timed("guests_time")),
    "a secondary on the NAS": (
        SITE.add(DOCKER),
        "storage", "docker", -50,
        lambda site, _remedy: site.machine("docker", needs=()),
    ),
    "a guest on the NAS": (
        SITE.add(PlanMachine("db", "guest", "pct", shutdown_time=10, shutdown_limit=40, needs=("truenas",))),
        "storage", "db", -40,
        lambda site, _remedy: site.stage(guests=("media", "db")),
    ),
    "a guest on a guest in one stage": (
        SITE.add(STORE, CLIENT).stage(guests=("media", "store", "client")),
        "storage", "client", -50,
        lambda site, _remedy: replace(
            site.stage(guests=("media", "client")), stages=(site.stages[0], replace(LATER, guests=("store",)))
        ).stage(guests=("media", "client")),
    ),
    "an unstaged guest on a staged one": (
        SITE.add(STORE, CLIENT).stage(guests=("media", "store")),
        "storage", "client", -50,
        lambda site, _remedy: replace(site, stages=(STAGE, replace(LATER, guests=("store",)))).stage(
            guests=("media", "client")
        ),
    ),
    "low battery": (SITE.ups(runtime_low=381), "low battery", "ups", -1, low_battery),
    "low battery by the UPS": (SITE.ups(ignorelb=False), "low battery", "ups", -54, low_battery),
    "battery": (UNSTAGED.ups(runtime=381), "battery", "ups", -1, lambda site, text: site.ups(runtime=numbers(text)[0])),
    "reserve": (UNSTAGED.time(reserve=439), "reserve", "ups", -1, reserved),
    "offdelay": (SITE.ups(offdelay=9), "offdelay", "ups", -1, delayed),
    "offdelay beyond ondelay": (SITE.ups(offdelay=9, ondelay=15), "offdelay", "ups", -1, delayed),
    "offdelay of a CyberPower": (SITE.ups(offdelay=59, ondelay=60, mfr="CPS"), "offdelay", "ups", -10, delayed),
    "ondelay": (SITE.ups(ondelay=30), "ondelay", "ups", -1, delayed),
    "ondelay of a CyberPower": (SITE.ups(offdelay=60, ondelay=119, mfr="CPS"), "ondelay", "ups", -1, delayed),
    "stage": (
        SITE.stage(runtime=724),
        "stage", "nas-guests", -1,
        lambda site, remedy: site.stage(runtime=numbers(remedy)[0]),
    ),
    "stage by time": (
        SITE.stage(runtime=None, on_battery=2400),
        "stage", "nas-guests", -102,
        lambda site, remedy: site.stage(runtime=numbers(remedy)[0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_constraint_fails_alone_and_its_remedy_helps(case: str) -> None:
    site, name, about, slack, apply = CASES[case]
    made = site.plan()
    assert made.holds is False
    assert [(one.name, one.about) for one in made.constraints if one.holds is not True] == [(name, about)]
    wrong = made.constraints[0]
    assert wrong.slack == pytest.approx(slack)
    assert wrong.have is not None
    assert wrong.need is not None
    assert wrong.slack == pytest.approx(wrong.have - wrong.need)
    assert wrong.remedy
    assert f"fails by {-slack:g} s" in spell_verdict(made)
    mended = apply(site, wrong.remedy).plan()
    assert [one for one in mended.constraints if one.holds is not True] == []
    assert mended.holds is True


@pytest.mark.parametrize("case", [name for name in CASES if CASES[name][3] == -1 and "CyberPower" not in name])
def test_a_constraint_holds_with_the_last_second(case: str) -> None:
    """What lacks a second fails, what has that second holds."""
    exact: dict[str, Site] = {
        "hostsync": SITE.time(hostsync=10),
        "pollfreq": SITE.time(pollfreq=59, deadtime=200),
        "deadtime": SITE.time(deadtime=15),
        "maxage": SITE.time(maxage=6),
        "poweroff_wait": SITE.time(poweroff_wait=100),
        "limit": SITE.machine("truenas", shutdown_limit=63),
        "guests_time": SITE.machine("router", shutdown_limit=120),
        "low battery": SITE.ups(runtime_low=382),
        "battery": UNSTAGED.ups(runtime=382),
        "reserve": UNSTAGED.time(reserve=438),
        "offdelay": SITE.ups(offdelay=10),
        "offdelay beyond ondelay": SITE.ups(offdelay=10, ondelay=15),
        "ondelay": SITE.ups(ondelay=31),
        "stage": SITE.stage(runtime=725),
    }
    name, about = CASES[case][1:3]
    made = exact[case].plan()
    assert made.holds is True
    assert get(made, name, about).slack == 0


UNKNOWN: dict[str, tuple[Site, str, str]] = {
    "runtime": (SITE.ups(runtime=None), "battery", "read battery.runtime (upsc ups)"),
    "low battery": (
        UNSTAGED.ups(runtime_low=None, charge_low=None),
        "low battery",
        "set nut_server_runtime_low to 382",
    ),
    "delays": (SITE.ups(driver="apcsmart", offdelay=None, ondelay=None), "offdelay", "offdelay"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_value_makes_a_constraint_unknown(case: str) -> None:
    site, name, remedy = UNKNOWN[case]
    made = site.plan()
    assert made.holds is None
    expected, one = get(made, "usual times", "ups"), get(made, name, "ups")
    unknown = [each for each in made.constraints if each.holds is not True]
    assert unknown == ([expected, one] if case != "delays" else [one])
    assert (one.holds, one.slack) == (None, None)
    assert made.feasible is (True if case == "delays" else None)
    for each in unknown:
        assert remedy in each.remedy
    assert "can't be judged" in spell_verdict(made)
    assert f"{name} (ups)" in spell_verdict(made)


def test_a_failing_constraint_outweighs_an_unknown_one() -> None:
    made = SITE.ups(runtime=None).time(hostsync=1).plan()
    assert made.holds is False
    assert [one.holds for one in made.constraints][:4] == [False, None, None, True]


def test_the_order_of_two_guests_that_proxmox_stops_is_not_known() -> None:
    made = SITE.add(STORE, CLIENT).plan()
    (one,) = (one for one in made.constraints if one.holds is None)
    assert (one.name, one.about) == ("storage", "client")
    assert made.holds is None
    assert SITE.add(STORE, replace(CLIENT, needs=("pve",))).plan().holds is True


@pytest.mark.parametrize(
    ("supply", "stage"),
    [
        ({"runtime_low": None, "charge_low": None}, {}),
        ({"runtime": None}, {"runtime": None, "charge": 80}),
        ({"runtime": None}, {"runtime": None, "on_battery": 80}),
    ],
)
def test_a_stage_of_which_too_little_is_known(supply: dict[str, Any], stage: dict[str, Any]) -> None:
    made = SITE.ups(**supply).stage(**stage).plan()
    one = get(made, "stage", "nas-guests")
    assert one.holds is None
    assert "set runtime of stage nas-guests to" in one.remedy


def test_low_battery_adds_up_what_it_must() -> None:
    one = get(SITE.plan(), "low battery", "ups")
    terms = [int(value) for value in re.findall(r"([0-9]+) \(", one.reason)]
    # reading, poll, HOSTSYNC, FINALDELAY, limit, look; then the reserve: guests, Proxmox, killpower, reading, margin
    assert terms == [30, 5, 30, 5, 90, GATE_ROUND, 120, 30, 10, 30, 30]
    assert one.need == sum(terms)
    assert f"= {sum(terms)} s" in one.reason
    assert "600 s left" in one.reason


def test_without_secondaries_nobody_is_waited_for() -> None:
    made = replace(UNSTAGED, machines=(PVE, ROUTER)).plan()
    assert get(made, "low battery", "ups").need == 30 + 5 + 5 + GATE_ROUND + 120 + 30 + 10 + 30 + 30
    assert not [one for one in made.constraints if one.name in {"HOSTSYNC", "shutdown limit"}]
    assert made.needed["gate_timeout"] == GATE_ROUND
    assert made.time_of(POWEROFF, worst=True) == 5 + 5 + GATE_ROUND
    assert made.holds is True


def test_a_cyberpower_that_cuts_at_once_is_said_to() -> None:
    one = get(SITE.ups(offdelay=None, ondelay=None, mfr="CPS").plan(), "offdelay", "ups")
    assert one.have == 0
    assert "cuts at once" in one.reason
    assert "offdelay of ups in nut_server_devices to 60 and ondelay to 120" in one.remedy


def test_each_of_several_upses_must_last() -> None:
    weak = replace(UPS, name="weak", runtime=340, pollfreq=60, offdelay=50, ondelay=90)
    made = replace(UNSTAGED, supplies=(UPS, weak)).time(poweroff_wait=100).plan()
    failing = {(one.name, one.about) for one in made.constraints if not one.holds}
    assert failing == {("battery", "weak"), ("POWEROFF_WAIT", "")}
    # the reserve is one for all: the oldest reading
    assert made.needed["reserve"] == 120 + 30 + 10 + 60 + 30
    assert made.needed["poweroff_wait"] == 10 + 50 + 60
    assert made.time_of(CUT, "weak") == (made.time_of(CUT, "ups") or 0) + 20
    assert span(made, "truenas", DOWN)[1] == made.time_of(CUT, "weak")
    both = replace(SITE, supplies=(UPS, replace(weak, runtime=800, runtime_low=690))).plan()
    assert "low battery of weak" in get(both, "stage", "nas-guests").reason


def test_whichever_trigger_of_a_stage_comes_first() -> None:
    def room(**changes: Any) -> float | None:
        return get(SITE.stage(runtime=None, **changes).plan(), "stage", "nas-guests").have

    assert room(on_battery=100) == 2900
    assert room(charge=50) == 1500
    assert room(on_battery=100, charge=50) == 2900
    assert room(on_battery=2700, charge=50) == 1500
    assert get(SITE.stage(runtime=9999).plan(), "stage", "nas-guests").have == 3000
    assert get(SITE.stage(seconds=200).plan(), "stage", "nas-guests").need == 600 + 35 + 200
    assert get(SITE.stage(seconds=20).plan(), "stage", "nas-guests").need == 600 + 35 + 90
    assert get(SITE.stage(charge=99, runtime=None).ups(charge=50).plan(), "stage", "nas-guests").have == 3000
    # a slow upsmon is slower than the reading
    assert get(SITE.time(pollfreq=50, deadtime=200).plan(), "stage", "nas-guests").need == 600 + 57 + 90
    assert get(SITE.stage(runtime=None, on_battery=9).plan(), "stage", "nas-guests").need == 600 + 12 + 90
    by_charge = SITE.stage(runtime=None, charge=50).ups(charge=80)
    assert get(by_charge.plan(), "stage", "nas-guests").have == 3000 * 50 / 80


def test_as_expected_adds_up_what_usually_passes() -> None:
    made = UNSTAGED.plan()
    one = get(made, "usual times", "ups")
    terms = [float(value) for value in re.findall(r"([0-9.]+) \(", one.reason)]
    # reading, poll, begin, FINALDELAY, the gate; then the slowest guest, Proxmox, killpower
    assert terms == [15, 2.5, 7.5, 5, 59, 40, 30, 10]
    assert one.need == sum(terms) == 15 + (made.time_of(KILLPOWER, "pve") or 0)
    assert (one.have, one.holds, made.feasible) == (600, True, True)
    assert "ups reports low battery with 600 s left" in one.reason
    assert "ups lasts 3000 s when charged" in one.reason


EXPECTED: dict[str, tuple[Site, float | None, bool | None]] = {
    "in time": (UNSTAGED.ups(runtime_low=169), 169, True),
    "a second too late": (UNSTAGED.ups(runtime_low=168), 168, False),
    "by the UPS, which looks more often": (UNSTAGED.ups(runtime_low=155, charge_low=None, ignorelb=False), 155, True),
    "by the UPS, too late": (UNSTAGED.ups(runtime_low=154, charge_low=None, ignorelb=False), 154, False),
    "the battery is shorter than its mark": (UNSTAGED.ups(runtime=169), 169, True),
    "the battery is too short": (UNSTAGED.ups(runtime=168), 168, False),
    # what is left at 40 % says what there is at 100 %
    "it will be charged": (UNSTAGED.ups(runtime=68, charge=40), 170, True),
    "it will be charged, and too short": (UNSTAGED.ups(runtime=66, charge=40), 165, False),
    "by charge, of a battery that will be charged": (
        UNSTAGED.ups(runtime=400, charge=40, runtime_low=None, charge_low=17), 170, True,
    ),
    "no charge": (UNSTAGED.ups(runtime=169, charge=None), 169, True),
    "no runtime": (UNSTAGED.ups(runtime=None), None, None),
    "no runtime, and too late in any case": (UNSTAGED.ups(runtime=None, runtime_low=168), 168, False),
    "no mark": (UNSTAGED.ups(runtime_low=None, charge_low=None), None, None),
    "no mark, and too short in any case": (UNSTAGED.ups(runtime_low=None, charge_low=None, runtime=168), 168, False),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPECTED)
def test_whether_it_is_feasible(case: str) -> None:
    site, have, feasible = EXPECTED[case]
    site = site.ups(charge_low=site.supplies[0].charge_low if "charge," in case else None)
    made = site.plan()
    one = get(made, "usual times", "ups")
    assert (one.holds, made.feasible) == (feasible, feasible)
    assert one.have == (pytest.approx(have) if have is not None else None)
    assert bool(one.remedy) is (feasible is not True)


def test_a_stage_that_asks_for_fsd_begins_it_earlier() -> None:
    # low at 150 s is too late, but the stage begins at 1000 s, half of 35 s late, and media takes 40 s
    made = SITE.ups(runtime_low=150, charge_low=None).plan()
    one = get(made, "usual times", "ups")
    assert (one.have, one.need, one.holds) == (1000 - 17.5 - 40, 124 + 15, True)
    assert "stage nas-guests starts FSD with 942.5 s left" in one.reason
    assert made.feasible is True
    assert made.holds is False
    assert SITE.ups(runtime_low=150, charge_low=None).stage(fsd=False).plan().feasible is False
    # NUT notices low battery half of 30 s late
    assert get(SITE.ups(runtime_low=950).plan(), "usual times", "ups").have == 942.5
    # one that would come later than low battery changes nothing
    late = get(SITE.ups(runtime_low=990).plan(), "usual times", "ups")
    assert (late.have, late.need) == (990, 139 + 15)
    # its time counts, if no mark is known
    assert get(SITE.ups(runtime_low=None, charge_low=None).plan(), "usual times", "ups").holds is True


def test_what_makes_it_infeasible() -> None:
    assert SITE.machine("truenas", shutdown_limit=62).plan().feasible is False
    assert SITE.time(hostsync=1).plan().feasible is True
    # a guest hangs when its NAS goes first: it does not hold, but that must not stop a deployment
    hangs = replace(SITE, stages=()).plan()
    assert get(hangs, "storage", "media").holds is False
    assert (hangs.holds, hangs.feasible) == (False, True)
    assert spell_verdict(hangs).endswith("fails by 90 s. The battery does last if every machine takes its usual time")
    assert get(hangs, "storage", "media").remedy == "add media to the guests of a stage"
    # each UPS by itself
    weak = replace(UPS, name="weak", runtime=100)
    assert replace(UNSTAGED, supplies=(UPS, weak)).plan().feasible is False


def test_the_least_cuts_a_wait_short_as_expected() -> None:
    # truenas is down 74 s after the trigger, which is noticed 15 s late
    made = UNSTAGED.time(reserve=100, reserve_minimum=100).ups(runtime_low=188, charge_low=None).plan()
    one = get(made, "minimum reserve", "ups")
    assert (one.have, one.need, one.holds, made.feasible) == (188, 189, False, False)
    assert "100 (reserve_minimum) = 189 s" in one.reason
    assert one.remedy.startswith("set nut_server_gate.reserve_minimum to 40, or set nut_server_runtime_low to 382")
    assert (
        get(
            UNSTAGED.time(reserve=100, reserve_minimum=100).ups(runtime_low=189, charge_low=None).plan(),
            "minimum reserve",
            "ups",
        ).holds
        is True
    )
    # the gate never keeps more than the reserve
    assert get(UNSTAGED.time(reserve=50, reserve_minimum=100).plan(), "minimum reserve", "ups").need == 89 + 50
    alone = get(UNSTAGED.time(reserve=512).plan(), "minimum reserve", "ups")
    assert (alone.need, alone.holds) == (601, False)
    assert "512 (reserve)" in alone.reason
    # what is expected is less than the battery has when it is low
    short = get(UNSTAGED.time(reserve_minimum=30).ups(runtime=150).plan(), "minimum reserve", "ups")
    assert short.have == 150


def test_the_reserve_cuts_a_wait_short_at_the_limits() -> None:
    def found(**changes: Any) -> Constraint:
        return get(UNSTAGED.time(**changes).plan(), "reserve", "ups")

    # 30 + 5 + 30 + 5 + 90 + 2 s pass at most until the last limit
    assert (found(reserve=220).need, found(reserve=220, reserve_minimum=30).need) == (382, 382)
    # without one of somebody's own the gate keeps what the plan needs, which is said there already
    assert not [one for one in UNSTAGED.time(reserve_minimum=30).plan().constraints if one.name == "reserve"]
    # the gate never keeps more than the reserve
    assert found(reserve=50, reserve_minimum=100).need == 212
    assert "and 30 s" not in found(reserve=220).reason
    assert found(reserve=439).remedy == "set nut_server_gate.reserve to 220"
    late = get(UNSTAGED.time(reserve=439).ups(runtime_low=300).plan(), "reserve", "ups")
    assert late.remedy == "set nut_server_gate.reserve to 220, and set nut_server_runtime_low to 382"
    assert get(UNSTAGED.time(reserve=200).ups(runtime_low=300).plan(), "reserve", "ups").remedy.startswith(
        "set nut_server_runtime_low"
    )
    assert get(UNSTAGED.time(reserve=200).ups(runtime=300).plan(), "reserve", "ups").have == 300


def test_reserve_and_least_are_judged_only_if_set() -> None:
    names = {one.name for one in UNSTAGED.plan().constraints}
    assert not {"reserve", "minimum reserve"} & names
    alone = replace(UNSTAGED, machines=(PVE, ROUTER)).time(reserve=9999, reserve_minimum=999).plan()
    assert not {"reserve", "minimum reserve"} & {one.name for one in alone.constraints}
    unknown = UNSTAGED.time(reserve=220, reserve_minimum=30).ups(runtime_low=None, charge_low=None).plan()
    assert not {"reserve", "minimum reserve"} & {one.name for one in unknown.constraints}


def test_guests_time_is_judged_only_if_it_was_given() -> None:
    assert not [one for one in OPEN.plan(ProxmoxGuests(stop_limit=400)).constraints if one.name == "guests_time"]
    one = get(UNSTAGED.plan(ProxmoxGuests(stop_limit=400)), "guests_time")
    assert (one.have, one.need) == (120, 400)
    assert one.remedy == "set nut_server_guests_time to 400, or give them less time in Proxmox (startup: down=...)"
    assert "the guests may take 400 s; guests_time allows 120 s" in one.reason
    assert get(UNSTAGED.plan(ProxmoxGuests(stop_limit=90)), "guests_time").reason.startswith("media may take 90 s")
    empty = replace(UNSTAGED, machines=(PVE, NAS))
    assert get(empty.plan(ProxmoxGuests(stop_limit=400)), "guests_time").need == 400
    assert not [one for one in empty.plan(ProxmoxGuests(stop_limit=0)).constraints if one.name == "guests_time"]
    assert get(OPEN.machine("router", shutdown_limit=200).plan(), "guests_time").holds is False


def test_guests_of_proxmox_that_can_not_be_read() -> None:
    made = OPEN.plan(ProxmoxGuests(problem="/etc/pve is broken"))
    one = get(made, "guests_time")
    assert one.holds is None
    assert (
        one.reason == "/etc/pve is broken; the plan allows 180 s for all guests, and can't tell whose storage they use"
    )
    assert one.remedy == "fix that, or set nut_server_guests_time"
    assert (made.holds, made.feasible) == (None, True)
    given = get(UNSTAGED.plan(ProxmoxGuests(problem="/etc/pve is broken")), "guests_time")
    assert "allows 120 s" in given.reason
    assert given.remedy == "fix that"


def test_high_availability() -> None:
    words = ("HA works 1 guest (104)", "shutdown_policy is freeze")
    made = SITE.plan(ProxmoxGuests(ha=words))
    one = get(made, "HA")
    assert (one.holds, one.slack, one.reason, one.remedy) == (True, None, "; ".join(words), "")
    assert (made.holds, made.feasible, made.ha) == (True, True, words)
    assert spell_verdict(made) == spell_verdict(SITE.plan())
    moves = SITE.plan(ProxmoxGuests(ha=words, migrates=True))
    one = get(moves, "HA")
    assert (one.holds, moves.holds, moves.feasible) == (False, False, False)
    assert one.remedy == "set shutdown_policy to freeze (Datacenter, Options, HA Settings)"
    assert spell_verdict(moves) == "The plan does not hold: HA fails"
    assert not [one for one in SITE.plan().constraints if one.name == "HA"]
    assert "HA works 1 guest (104); shutdown_policy is freeze" in draw_table(made)


def test_remarks_are_constraints() -> None:
    remark = Constraint("stage nas", "105", None, None, None, None, "names guest 105", "take it out")
    made = SITE.plan(ProxmoxGuests(remarks=(remark,)))
    assert remark in made.constraints
    assert (made.holds, made.feasible) == (None, True)
