# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import readings, vocabulary
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.readings import Reading, read_variables
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.snapshot import UpsState
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.vocabulary import ABSENT


@pytest.mark.parametrize(
    ("status", "on_battery", "plainly", "cautions", "outage"),
    [
        ("OL", False, True, (), False),
        ("OL CHRG", False, True, (), False),
        ("ALARM OL RB", False, True, (), False),
        ("OL TRIM OVER ECO", False, True, (), False),
        ("OL TEST", False, True, (), False),
        ("OB DISCHRG", True, False, ("OB",), True),
        ("OL OB", True, False, ("OB",), True),
        ("OL LB", False, False, ("LB",), True),
        ("FSD OL CHRG", False, False, ("FSD",), True),
        ("FSD OB LB", True, False, ("FSD", "OB", "LB"), True),
        ("OL CAL", False, False, ("CAL",), False),
        ("OB CAL", True, False, ("OB", "CAL"), True),
        ("OL BYPASS", False, False, ("BYPASS",), False),
        ("BYPASS", None, False, ("BYPASS",), False),
        ("OL OFF", False, False, ("OFF",), False),
        ("OFF", None, False, ("OFF",), False),
        ("FSD", None, False, ("FSD",), True),
        ("WAIT", None, False, (), False),
        (ABSENT, None, False, (), False),
        ("ol", None, False, (), False),
        ("", None, False, (), False),
    ],
)
def test_flags_are_interpreted(
    status: str, on_battery: bool | None, plainly: bool, cautions: tuple[str, ...], outage: bool
) -> None:
    reading = read_variables({"ups.status": status})
    assert reading.flags == tuple(status.split())
    assert reading.on_battery is on_battery
    assert reading.is_plainly_on_mains is plainly
    assert reading.cautions == cautions
    assert readings.may_be_outage(reading.flags) is outage


UNKNOWN = [
    "",
    "0",
    "0.0",
    "-0",
    "000",
    "-1",
    "-0.5",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "soon",
    "12 %",
    "1,5",
    "0x10",
]


@pytest.mark.parametrize("text", [*UNKNOWN, "604801", "3932100"])
@pytest.mark.parametrize("name", ["runtime", "runtime_low"])
def test_implausible_runtime_is_unknown(name: str, text: str) -> None:
    reading = read_variables({f"battery.{name.replace('_', '.')}": text})
    assert reading == Reading(())


@pytest.mark.parametrize("text", [*UNKNOWN, "100.1", "255", "65535"])
@pytest.mark.parametrize("name", ["charge", "charge_low"])
def test_implausible_charge_is_unknown(name: str, text: str) -> None:
    reading = read_variables({f"battery.{name.replace('_', '.')}": text})
    assert reading == Reading(())


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("0.5", 0.5), ("100", 100), ("99.90", 99.9), ("020", 20), ("+3", 3), ("1.2e+01", 12)]
)
def test_plausible_number_is_read(text: str, number: float) -> None:
    variables = {f"battery.{name}": text for name in ("charge", "runtime", "charge.low", "runtime.low")}
    assert read_variables(variables) == Reading((), number, number, number, number)


def test_runtime_up_to_seven_days_is_plausible() -> None:
    # 65535 is the largest value of a 16-bit field: a longer runtime is still plausible
    assert read_variables({"battery.runtime": "65535"}).runtime == 65535
    assert read_variables({"battery.runtime": "604800"}).runtime == 604800


def test_missing_values_are_unknown() -> None:
    assert read_variables({}) == Reading((), None, None, None, None)


def test_given_flags_override_the_status() -> None:
    assert read_variables({"battery.charge": "7"}, ("OL", "CHRG")) == Reading(("OL", "CHRG"), charge=7)
    assert read_variables({"ups.status": "OL"}, ()).flags == ()


def test_reading_is_made_from_a_state() -> None:
    state = UpsState("ups", "", ("OB",), True, None, {"battery.runtime": "0", "battery.charge": "95"}, (), 0)
    assert state.reading == Reading(("OB",), charge=95)
    assert replace(state, variables={}).reading == Reading(("OB",))


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("12.5", 12.5), ("-1", None), ("nan", None), ("inf", None), ("", None), (None, None), ("a", None)],
)
def test_quantity_is_a_finite_number(text: str | None, number: float | None) -> None:
    assert readings.parse_quantity(text) == number


def test_every_relevant_flag_has_words() -> None:
    assert set(vocabulary.FLAGS) >= readings.CAUTION
