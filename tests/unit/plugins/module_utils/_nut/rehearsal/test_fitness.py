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
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import (
    ANSWERS,
    CONF,
    MEDIA,
    NAS,
    NEAR,
    make_host,
    make_house,
    resolve_name,
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


def found(answer: snapshot.UpsState | str | None = None, **changes: Any) -> fitness.FitnessFacts:
    upses = {"ups@localhost": state() if answer is None else answer}
    where = fitness.find_addresses(make_house(), resolve_name)
    whole = fitness.FitnessFacts(
        {str(shutdown_policy.UpsAddress("ups")): upses["ups@localhost"]},
        where,
        {"nas": True, "media": True},
        CONF,
        STATIC,
        ACTIVE,
    )
    return dataclasses.replace(whole, **changes)


def test_sound_site_is_ready() -> None:
    assert fitness.judge_fitness(make_house(), found(), 900.0) == fitness.Fitness((), ())
    assert fitness.judge_fitness(make_house(), found()) == fitness.Fitness((), ())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (found("upsd is away"), "cannot tell whether it is on mains: upsd is away"),
        (found(upses={}), "upsd was not asked"),
        (found(state(ups_status="")), "cannot tell whether it is on mains: it has no status yet"),
        (found(state(ups_status="OB")), "ups reports OB, which does not count as on mains. Wait until it does"),
        (found(state(ups_status="OL FSD")), "ups reports OL FSD"),
        (found(state(ups_status="OL CAL")), "ups reports OL CAL"),
        (found(state(ups_status="CHRG")), "ups reports CHRG"),
        (found(state(battery_runtime="899")), "ups would last 899 s if the mains failed now; the plan needs 900 s"),
        (found(state(battery_charge="20")), "ups has a charge of 20 %; 20 % counts as low"),
        (found(state(["127.0.0.1", "192.0.2.30"])), "nas is not logged in to upsd"),
        (found(state([])), "Logged in: none"),
        (
            found(addresses={"nas": frozenset(), "media": frozenset({"192.0.2.30"})}),
            "nas: its name does not resolve on this host",
        ),
        (found(seen={"nas": False, "media": True}), "nas is logged in but does not answer"),
        (found(seen={"media": True}), "nas is logged in but it is unknown whether it is up"),
        (found(gate=systemd.ABSENT), "nut-shutdown.service is not installed"),
        (found(gate=systemd.Unit("inactive", "masked", 0)), "nut-shutdown.service is masked"),
        (found(gate=systemd.Unit("activating", "static", 3)), "nut-shutdown.service is running"),
        (found(upsmon=STATIC), "nut-monitor.service is not running"),
        (found(conf=None), "/etc/nut/upsmon.conf can't be read"),
        (found(conf='SHUTDOWNCMD "/sbin/shutdown -h +0"\nPOWERDOWNFLAG /x\n'), "does not start nut-shutdown.service"),
        (found(conf="POWERDOWNFLAG /x\n"), "does not start nut-shutdown.service"),
    ],
)
def test_each_problem_prevents_the_shutdown(given: fitness.FitnessFacts, words: str) -> None:
    problems = fitness.judge_fitness(make_house(), given, 900.0).problems
    assert any(words in problem for problem in problems), problems
    others = [problem for problem in problems if words not in problem and "is not logged in" not in problem]
    assert others == []


def test_policy_without_ups_is_a_problem() -> None:
    assert "names no UPS" in fitness.judge_fitness(make_house(upses=[]), found()).problems[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (found(state(ups_delay_start="")), "does not report when it restores power"),
        (found(state(ups_delay_start="-1")), "does not report when it restores power"),
        (found(state(battery_runtime="")), "reports no runtime"),
        (found(conf=CONF.replace("POWERDOWNFLAG", "# ")), "upsmon.conf has no POWERDOWNFLAG"),
    ],
)
def test_each_remark_leaves_the_site_ready(given: fitness.FitnessFacts, words: str) -> None:
    fit = fitness.judge_fitness(make_house(), given, 900.0)
    assert fit.problems == ()
    assert [words in remark for remark in fit.remarks] == [True]


def test_charge_without_a_low_limit_is_no_problem() -> None:
    whole = state(**{"battery_charge": "0.5"})
    variables = {name: value for name, value in whole.variables.items() if name != "battery.charge.low"}
    assert fitness.judge_fitness(make_house(), found(dataclasses.replace(whole, variables=variables))).problems == ()


def test_observe_host_reads_upsd_units_and_configuration(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    with serve_answers(ANSWERS) as server:
        house = make_house(NEAR, upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}])
        there = fitness.observe_host(house, host)
        assert fitness.judge_fitness(house, there, 900.0) == fitness.Fitness((), ())
        assert (there.gate, there.upsmon, there.conf) == (STATIC, ACTIVE, CONF)
        host.conf_path.unlink()
        away = fitness.observe_host(house, dataclasses.replace(host, run=lambda _command: (1, "no")))
    assert (away.gate, away.upsmon, away.conf) == (systemd.ABSENT, systemd.ABSENT, None)
    gone = fitness.observe_host(house, host)
    assert isinstance(gone.upses[str(house.upses[0])], str)


def test_machine_addresses_are_normalized() -> None:
    house = make_house({**NAS, "addresses": ["::ffff:192.0.2.20", "nowhere"]}, {**MEDIA, "addresses": ["nowhere"]})
    assert fitness.find_addresses(house, resolve_name) == {"nas": frozenset({"192.0.2.20"}), "media": frozenset()}
