# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot, vocabulary
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    fitness,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import policy as shutdown_policy
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serving
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import (
    ANSWERS,
    CONF,
    MEDIA,
    NAS,
    NEAR,
    make_host,
    make_house,
    resolve,
)

STATIC = systemd.Unit("inactive", "static", 0, "dead")


ACTIVE = systemd.Unit("active", "enabled", 7, "running")


VARIABLES = {
    "ups.status": "OL CHRG",
    "battery.runtime": "900",
    "battery.charge": "90",
    "battery.charge.low": "20",
    "ups.delay.start": "30",
}


def state(
    clients: Sequence[str] = ("127.0.0.1", "::ffff:192.0.2.20", "2001:db8::30"), **variables: str
) -> snapshot.UpsState:
    known = {**VARIABLES, **{name.replace("_", "."): value for name, value in variables.items()}}
    known = {name: value for name, value in known.items() if value}
    status = vocabulary.split_status(known.get("ups.status", ""))
    return snapshot.UpsState("ups", "", status, bool(status), None, known, tuple(clients), 3)


def found(one: snapshot.UpsState | str | None = None, **changes: Any) -> fitness.FitnessFacts:
    upses = {"ups@localhost": state() if one is None else one}
    where = fitness.find_addresses(make_house(), resolve)
    whole = fitness.FitnessFacts(
        {str(shutdown_policy.UpsAddress("ups")): upses["ups@localhost"]},
        where,
        {"nas": True, "media": True},
        CONF,
        STATIC,
        ACTIVE,
    )
    return dataclasses.replace(whole, **changes)


def test_all_is_fit() -> None:
    assert fitness.judge_fitness(make_house(), found(), 900.0) == fitness.Fitness((), ())
    assert fitness.judge_fitness(make_house(), found()) == fitness.Fitness((), ())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (found("upsd is away"), "nobody can tell whether it is on mains: upsd is away"),
        (found(upses={}), "upsd was not asked"),
        (found(state(ups_status="")), "nobody can tell whether it is on mains: it has no status yet"),
        (found(state(ups_status="OB")), "ups says OB, and must be plainly on mains"),
        (found(state(ups_status="OL FSD")), "ups says OL FSD"),
        (found(state(ups_status="OL CAL")), "ups says OL CAL"),
        (found(state(ups_status="CHRG")), "ups says CHRG"),
        (found(state(battery_runtime="899")), "ups lasts 899 s, and the plan wants 900 s"),
        (found(state(battery_charge="20")), "ups is charged to 20 %, and counts as low at 20 %"),
        (found(state(["127.0.0.1", "192.0.2.30"])), "nas is not logged in to upsd"),
        (found(state([])), "Logged in are none"),
        (found(addresses={"nas": frozenset(), "media": frozenset({"192.0.2.30"})}), "nas has no address here"),
        (found(seen={"nas": False, "media": True}), "nas is logged in, but does not answer"),
        (found(seen={"media": True}), "nas is logged in, but nobody can tell whether it is up"),
        (found(gate=systemd.ABSENT), "nut-shutdown.service is not installed"),
        (found(gate=systemd.Unit("inactive", "masked", 0)), "nut-shutdown.service is masked"),
        (found(gate=systemd.Unit("activating", "static", 3)), "nut-shutdown.service runs already"),
        (found(upsmon=STATIC), "nut-monitor.service does not run"),
        (found(conf=None), "/etc/nut/upsmon.conf can't be read"),
        (found(conf='SHUTDOWNCMD "/sbin/shutdown -h +0"\nPOWERDOWNFLAG /x\n'), "does not start nut-shutdown.service"),
        (found(conf="POWERDOWNFLAG /x\n"), "does not start nut-shutdown.service"),
    ],
)
def test_what_stands_against_it(given: fitness.FitnessFacts, words: str) -> None:
    problems = fitness.judge_fitness(make_house(), given, 900.0).problems
    assert any(words in one for one in problems), problems
    # and it is but that
    others = [one for one in problems if words not in one and "is not logged in" not in one]
    assert others == []


def test_without_a_ups_there_is_nothing_to_begin() -> None:
    assert "names no UPS" in fitness.judge_fitness(make_house(upses=[]), found()).problems[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (found(state(ups_delay_start="")), "does not say when it gives power again"),
        (found(state(ups_delay_start="-1")), "does not say when it gives power again"),
        (found(state(battery_runtime="")), "does not say how long it lasts"),
        (found(conf=CONF.replace("POWERDOWNFLAG", "# ")), "upsmon.conf has no POWERDOWNFLAG"),
    ],
)
def test_what_one_has_to_know(given: fitness.FitnessFacts, words: str) -> None:
    fit = fitness.judge_fitness(make_house(), given, 900.0)
    assert fit.problems == ()
    assert [words in one for one in fit.remarks] == [True]


def test_a_charge_without_a_limit_is_fit() -> None:
    one = state(**{"battery_charge": "0.5"})
    variables = {name: value for name, value in one.variables.items() if name != "battery.charge.low"}
    assert fitness.judge_fitness(make_house(), found(dataclasses.replace(one, variables=variables))).problems == ()


def test_all_is_found(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    with serving(ANSWERS) as server:
        house = make_house(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        there = fitness.observe_host(house, host)
        assert fitness.judge_fitness(house, there, 900.0) == fitness.Fitness((), ())
        assert (there.gate, there.upsmon, there.conf) == (STATIC, ACTIVE, CONF)
        host.conf_path.unlink()
        away = fitness.observe_host(house, dataclasses.replace(host, run=lambda _command: (1, "no")))
    assert (away.gate, away.upsmon, away.conf) == (systemd.ABSENT, systemd.ABSENT, None)
    gone = fitness.observe_host(house, host)
    assert isinstance(gone.upses[str(house.upses[0])], str)


def test_addresses() -> None:
    one = make_house({**NAS, "addresses": ["::ffff:192.0.2.20", "nowhere"]}, {**MEDIA, "addresses": ["nowhere"]})
    assert fitness.find_addresses(one, resolve) == {"nas": frozenset({"192.0.2.20"}), "media": frozenset()}
