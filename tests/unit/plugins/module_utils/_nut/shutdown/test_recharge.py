# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.feeds import Feeds
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import ReturnPolicy, UpsAddress
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.recharge import wait_for_charge
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.stages import (
    StagesState,
    combine_power,
    decide_stages,
    read_power,
)
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, serve_answers
from ansible_collections.homelab.nut.tests.unit.support.shutdown_host import ShutdownProgram

Says = "Mapping[str, str] | None"
LOW = "the guests are not started yet: the battery has less than 30 %"


def report(status: str = "OL CHRG", charge: float | None = None) -> Mapping[str, str]:
    return {"ups.status": status, **({} if charge is None else {"battery.charge": f"{charge:g}"})}


class Boot:
    """A host with UPSes that boots at 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self.says: dict[str, list[tuple[float, Says]]] = {}
        self.lines: list[str] = []
        self.power = {"ups": 1}

    def ask(self, ups: UpsAddress) -> Says:
        return [said for since, said in self.says[ups.name] if since <= self.now][-1]

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 20000, "it waits for ever"

    def wait(self, charge: float | None = 30, charge_limit: float = 3600) -> float:
        wait_for_charge(
            ReturnPolicy(charge=charge, charge_limit=charge_limit),
            [UpsAddress(name) for name in self.power],
            Feeds(self.power),
            ask=self.ask,
            log=self.lines.append,
            clock=lambda: self.now,
            pause=self.sleep,
        )
        return self.now


@pytest.fixture
def boot() -> Boot:
    return Boot()


def test_nobody_waits_by_default(boot: Boot) -> None:
    boot.says["ups"] = [(0, report(charge=1))]
    assert boot.wait(None) == 0
    assert boot.lines == []


def test_full_battery_is_not_waited_for(boot: Boot) -> None:
    boot.says["ups"] = [(0, report("OL", 100))]
    assert boot.wait() == 0
    assert boot.lines == []


def test_charge_is_waited_for(boot: Boot) -> None:
    boot.says["ups"] = [(0, None), (20, report(charge=12)), (600, report(charge=29.9)), (900, report(charge=30))]
    assert boot.wait() == 900
    assert boot.lines == [
        "the guests are not started yet: the charge of the battery is not known yet",
        LOW,
        "the guests may start, after 900 s",
    ]


def test_limit_ends_it(boot: Boot) -> None:
    boot.says["ups"] = [(0, report(charge=12))]
    assert boot.wait(charge_limit=1200) == 1200


@pytest.mark.parametrize("said", [None, report()], ids=["upsd gives no data", "no charge"])
def test_unknown_charge_is_not_waited_for_long(boot: Boot, said: Says) -> None:
    boot.says["ups"] = [(0, said)]
    assert boot.wait() == 90


def test_second_outage_begins_it_again(boot: Boot) -> None:
    boot.says["ups"] = [
        (0, report(charge=20)),
        (1000, report("OB DISCHRG", 80)),  # never during an outage
        (1100, report(charge=15)),
        (2700, report(charge=31)),
    ]
    # the limit counts from the second return of the mains
    assert boot.wait(charge_limit=1550) == 2650
    assert boot.lines[:3] == [LOW, "the guests are not started yet: the power is out", LOW]


def test_of_two_upses_of_which_either_is_enough_the_better_counts(boot: Boot) -> None:
    boot.power = {"ups": 1, "second": 1}
    boot.says = {"ups": [(0, report(charge=5))], "second": [(0, report(charge=60))]}
    assert boot.wait() == 0


def test_ups_of_a_router_does_not_count(boot: Boot) -> None:
    boot.power = {"ups": 1, "router": 0}
    boot.says = {"ups": [(0, report(charge=5)), (50, report(charge=50))], "router": [(0, report(charge=100))]}
    assert boot.wait() == 50


def test_stages_start_no_guest_while_the_battery_is_low() -> None:
    power = combine_power({"ups": read_power("ups", report(charge=12))}, frozenset(), Feeds({"ups": 1}))
    state = StagesState(boot="a", mains_since=0.0, guests_to_start={"qm/101": False})
    held = decide_stages((), state, 100.0, power, hold="the battery has less than 30 %")
    assert held.actions == ()
    assert held.state.guests_to_start
    (action,) = decide_stages((), state, 100.0, power).actions
    assert action.kind == "start_guests"


class Charger:
    """Takes the place of the program's sleep: the battery is charged meanwhile."""

    def __init__(self, server: FakeUpsd) -> None:
        self.answers, self.charge = server.answers, 0
        self.append(5)

    def append(self, seconds: float) -> None:
        self.charge += 2 * round(seconds)
        says = f'VAR ups ups.status "OL CHRG"\nVAR ups battery.charge "{self.charge}"'
        self.answers["LIST VAR ups"] = f"BEGIN LIST VAR ups\n{says}\nEND LIST VAR ups\n"


def test_command_returns_when_the_battery_is_charged(program: ShutdownProgram) -> None:
    with serve_answers() as server:
        charger = Charger(server)
        program.slept = charger  # type: ignore[assignment]
        upses = [{"name": "ups", "host": "127.0.0.1", "port": server.port}]
        program.write_policy(upses=upses, machines=[], after={"charge": 30})
        assert program("hold") == 0
    assert charger.charge == 30
    low, over = program.out
    assert (low, over.partition(",")[0]) == (LOW, "the guests may start")


def test_command_does_not_wait_without_a_charge(program: ShutdownProgram) -> None:
    program.write_policy(machines=[])
    assert program("hold") == 0
    assert (program.slept, program.out) == ([], [])
