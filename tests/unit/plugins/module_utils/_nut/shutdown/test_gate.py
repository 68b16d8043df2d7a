# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.gate import (
    GateDecision,
    GateReading,
    GateState,
    MachineState,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import ShutdownPolicy, UpsAddress
from ansible_collections.homelab.nut.tests.unit.support.gate_policy import NAS, POLICY, UPS, VM
from hypothesis import given
from hypothesis import strategies as st


class Course:
    """A gate that is advanced step by step. Times are seconds since it began."""

    def __init__(self, policy: ShutdownPolicy = POLICY, state: GateState | None = None) -> None:
        self.policy = policy
        self.state = state or gate.new_state("boot", "unit", 1000.0)
        self.words: list[str] = []
        self.decision = GateDecision(False, "", "", ())

    def at(
        self,
        now: float,
        seen: Mapping[str, bool | None] | bool | None = True,
        power: GateReading | Mapping[str, GateReading] | None = None,
        asked: float | None = None,
    ) -> GateDecision:
        seen = seen if isinstance(seen, Mapping) else {host.name: seen for host in self.policy.machines}
        readings = {str(UPS): power} if isinstance(power, GateReading) else power or {}
        then = None if asked is None else 1000.0 + asked
        self.state, self.decision, words = gate.advance_gate(
            self.policy, self.state, 1000.0 + now, seen, readings, asked=then
        )
        self.words += [f"+{now:g} {line}" for line in words]
        return self.decision


def _on(runtime: float | None, at: float, battery: bool | None = True) -> GateReading:
    return GateReading(battery, runtime, 1000.0 + at)


def test_gate_ends_after_silence_of_settle_time() -> None:
    course = Course()
    assert course.at(1) == GateDecision(False, "", "still waiting for nas", ("nas",))
    assert not course.at(20, False, asked=19).go
    assert not course.at(21.9, False, asked=21).go
    assert course.at(22, False, asked=21) == GateDecision(True, "down", "all are down", ())
    assert course.words == ["+20 nas is silent", "+22 nas is down (silent for 3.0 s; expected 60 s)"]


def test_answer_restarts_silence() -> None:
    course = Course()
    course.at(1, False)
    course.at(3, True)
    assert course.words == ["+1 nas is silent", "+3 nas answers again"]
    assert not course.at(4, False).go
    assert not course.at(6.9, False).go
    assert course.at(7, False).rule == "down"


def test_gate_without_machines_ends_at_once() -> None:
    assert Course(replace(POLICY, machines=())).at(0) == GateDecision(True, "down", "no machines to wait for", ())


def test_gate_waits_for_all_machines() -> None:
    course = Course(replace(POLICY, machines=(NAS, replace(NAS, name="media"))))
    course.at(0, {"nas": False, "media": True})
    assert course.at(10, {"nas": False, "media": True}).waiting == ("media",)
    course.at(11, {"nas": False, "media": False})
    assert course.at(14, {"nas": False, "media": False}).rule == "down"


def test_stopped_guest_is_down_at_once() -> None:
    course = Course(replace(POLICY, machines=(VM,)))
    assert not course.at(1, True).go
    assert course.at(2, False).rule == "down"
    assert course.words == ["+2 vm is down (qm status 100 says stopped; expected 30 s)"]


def test_machine_is_given_up_at_limit_while_others_are_awaited() -> None:
    course = Course(replace(POLICY, machines=(NAS, replace(NAS, name="media", shutdown_limit=200.0))))
    assert course.at(119.9).waiting == ("nas", "media")
    assert course.at(120).waiting == ("media",)
    assert course.words == ["+120 giving up on nas after 120.0 s: its shutdown_limit is 120 s"]
    course.at(130, {"nas": True, "media": False})
    assert course.at(133, {"nas": True, "media": False}) == GateDecision(
        True, "limit", "nas did not go down within the limit; nothing else to wait for", ()
    )


def test_machine_down_after_limit_is_logged() -> None:
    course = Course(replace(POLICY, machines=(NAS, replace(NAS, name="media", shutdown_limit=200.0))))
    course.at(120)
    course.at(121, {"nas": False, "media": True})
    course.at(124, {"nas": False, "media": True})
    assert course.words[-1] == "+124 nas is down, after the gate gave up on it (silent for 3.0 s; expected 60 s)"
    assert course.state.machines["nas"] == MachineState(silent=1121.0, down=1124.0, given_up=True)
    assert course.at(200).rule == "limit"


def test_returning_machine_is_awaited_until_limit() -> None:
    course = Course(replace(POLICY, machines=(NAS, replace(NAS, name="media", shutdown_limit=200.0))))
    course.at(1, {"nas": False, "media": True})
    assert course.at(4, {"nas": False, "media": True}).waiting == ("media",)
    assert course.at(50).waiting == ("nas", "media")
    assert course.words[-1] == "+50 nas answers again"
    assert course.at(119).waiting == ("nas", "media")
    assert course.at(120).waiting == ("media",)


def test_machine_returning_after_limit_is_not_awaited() -> None:
    course = Course(replace(POLICY, machines=(NAS, replace(NAS, name="media", shutdown_limit=200.0))))
    course.at(1, {"nas": False, "media": True})
    course.at(4, {"nas": False, "media": True})
    assert course.at(150).waiting == ("media",)


def test_gate_ends_when_runtime_reaches_reserve() -> None:
    course = Course()
    assert not course.at(10, power=_on(61, at=10)).go
    assert course.words == ["+10 ups is on battery, 61 s left"]
    assert course.at(12, power=_on(60, at=12)) == GateDecision(
        True, "battery", "ups has 60 s left, and this host needs 60 s for itself; still waiting for nas", ("nas",)
    )


def test_least_is_kept_while_no_machine_is_late() -> None:
    # shutdown_time is 60 s, settle 3 s
    course = Course(replace(POLICY, reserve_minimum=20.0))
    assert not course.at(10, power=_on(21, at=10)).go
    assert course.at(12, power=_on(20, at=12)).reason.startswith(
        "ups has 20 s left, and this host needs 20 s for itself"
    )
    course = Course(replace(POLICY, reserve_minimum=20.0))
    assert not course.at(62.9, power=_on(60, at=62.9)).go
    assert course.at(63, power=_on(60, at=63)).reason.startswith(
        "ups has 60 s left, and this host needs 60 s for itself"
    )


def test_least_never_exceeds_reserve() -> None:
    course = Course(replace(POLICY, reserve_minimum=90.0))
    assert not course.at(10, power=_on(61, at=10)).go
    assert course.at(12, power=_on(60, at=12)).go


def test_last_runtime_decreases_while_upsd_is_silent() -> None:
    course = Course()
    course.at(10, power=_on(100, at=9))
    assert not course.at(48.9).go
    assert course.at(49).rule == "battery"


def test_incomplete_reading_keeps_known_values() -> None:
    course = Course()
    course.at(10, power=_on(100, at=10))
    course.at(30, power=_on(None, at=30, battery=None))
    assert not course.at(49.9, power=_on(None, at=49, battery=True)).go
    assert course.at(50).rule == "battery"


def test_emptiest_ups_ends_the_gate_if_the_host_needs_both() -> None:
    rack = UpsAddress("rack", "192.0.2.9")
    course = Course(replace(POLICY, upses=(UPS, rack), minsupplies=2))
    assert not course.at(1, power={str(UPS): _on(500, at=1), str(rack): _on(61, at=1)}).go
    assert course.at(3, power={str(UPS): _on(500, at=3)}).reason.startswith("rack has 59 s left")
    other = Course(replace(POLICY, upses=(UPS, rack), minsupplies=2))
    # the UPS on mains does not count, however empty
    assert not other.at(1, power={str(UPS): _on(500, at=1), str(rack): _on(1, at=1, battery=False)}).go


def test_redundant_upses_end_the_gate_when_the_last_of_them_is_nearly_empty() -> None:
    rack = UpsAddress("rack", "192.0.2.9")
    course = Course(replace(POLICY, upses=(UPS, rack)))
    assert not course.at(1, power={str(UPS): _on(500, at=1), str(rack): _on(1, at=1)}).go
    assert not course.at(3, power={str(UPS): _on(61, at=3), str(rack): _on(5, at=3, battery=False)}).go
    assert course.at(5, power={str(UPS): _on(59, at=5), str(rack): _on(1, at=5)}).reason.startswith("ups has 59 s left")


def test_ups_that_powers_another_machine_does_not_end_the_gate() -> None:
    router = UpsAddress("router", power=0)
    course = Course(replace(POLICY, upses=(UPS, router)))
    assert not course.at(1, power={str(UPS): _on(500, at=1), str(router): _on(5, at=1)}).go
    assert not course.at(3, power={str(UPS): _on(500, at=3, battery=False), str(router): _on(1, at=3)}).go
    assert course.at(5, power={str(UPS): _on(59, at=5), str(router): _on(1, at=5)}).reason.startswith(
        "ups has 59 s left"
    )


def test_battery_does_not_end_gate_on_mains() -> None:
    course = Course()
    course.at(10, power=_on(100, at=10))
    assert not course.at(20, power=_on(20, at=20, battery=False)).go
    assert course.words[-1] == "+20 ups is on mains; the shutdown goes on: FSD can't be taken back"
    assert not course.at(100).go
    # a silent upsd does not put the UPS on battery again
    assert not course.at(101, power=_on(20, at=101, battery=None)).go
    course.at(102, False)
    assert course.at(105, False).rule == "down"


def test_battery_ends_gate_on_battery_again() -> None:
    course = Course()
    course.at(10, power=_on(20, at=10, battery=False))
    assert course.at(12, power=_on(20, at=12)).rule == "battery"


def test_older_reading_is_ignored() -> None:
    course = Course()
    course.at(10, power=_on(500, at=10))
    assert not course.at(11, power=_on(10, at=5)).go
    assert not course.at(13).go


def test_reading_from_future_is_taken_as_now() -> None:
    course = Course()
    assert not course.at(12, power=_on(61, at=100)).go
    assert course.at(13).rule == "battery"


def test_unknown_runtime_leaves_longest_as_limit() -> None:
    course = Course(replace(POLICY, machines=(replace(NAS, shutdown_limit=900.0),)))
    assert not course.at(599.9, power=_on(None, at=599)).go
    assert course.at(600) == GateDecision(
        True,
        "timeout",
        "the gate's limit of 600 s has passed; still waiting for nas",
        ("nas",),
    )


def test_down_is_reported_before_battery() -> None:
    course = Course()
    course.at(10, False)
    assert course.at(600, False, power=_on(1, at=600)).rule == "down"


def test_battery_is_reported_before_longest() -> None:
    course = Course(replace(POLICY, machines=(replace(NAS, shutdown_limit=900.0),)))
    assert course.at(600, power=_on(1, at=600)).rule == "battery"


def test_unknown_machine_is_assumed_down_after_shutdown_time() -> None:
    course = Course()
    course.at(1, None)
    assert not course.at(59.9, None).go
    assert course.at(60, None) == GateDecision(
        True, "assumed", "cannot tell whether nas is down, but the usual time has passed; nothing else to wait for", ()
    )
    assert course.words == [
        "+1 cannot tell whether nas is up; waiting at least 60 s",
        "+60 nas is assumed down (cannot tell, but its shutdown_time of 60 s has passed)",
    ]


def test_late_network_loss_must_last_settle_time() -> None:
    course = Course()
    course.at(70, True)
    assert not course.at(71, None).go
    assert not course.at(73.9, None).go
    assert course.at(74, None).rule == "assumed"


def test_machine_stays_down_when_unknown() -> None:
    course = Course(replace(POLICY, machines=(NAS, replace(NAS, name="media"))))
    course.at(1, {"nas": False, "media": True})
    course.at(4, {"nas": False, "media": True})
    assert course.at(5, {"media": True}).waiting == ("media",)
    course.at(6, {"media": False})
    assert course.at(9, {"media": False}).rule == "down"


@pytest.mark.parametrize(("since", "rule"), [(69, "assumed"), (67, "down")])
def test_assumed_machine_is_down_after_silence_of_settle_time(since: float, rule: str) -> None:
    course = Course(replace(POLICY, machines=(NAS, replace(NAS, name="media"))))
    course.at(1, {"media": True})
    assert course.at(60, {"media": True}).waiting == ("media",)
    course.at(66, {"media": False})
    course.at(since, {"nas": False, "media": False})
    assert course.at(70, {"nas": False, "media": False}).rule == rule


def test_silence_of_assumed_machine_restarts_when_unknown() -> None:
    course = Course(replace(POLICY, machines=(NAS, replace(NAS, name="media"))))
    course.at(1, {"media": True})
    assert course.at(60, {"media": True}).waiting == ("media",)
    course.at(66, {"nas": False, "media": True})
    course.at(67, {"media": False})
    assert course.at(70, {"nas": False, "media": False}).rule == "assumed"


def test_silence_before_network_loss_does_not_count() -> None:
    course = Course()
    course.at(1, False)
    course.at(2, None)
    assert not course.at(5, False).go
    assert course.at(8, False).rule == "down"


def test_clock_going_back_is_ignored() -> None:
    course = Course()
    course.at(100)
    assert course.at(5).go is False
    assert course.state.now == 1100.0
    assert course.at(5, False, asked=-50).go is False
    assert course.state.machines["nas"].silent == 1100.0


def test_make_reading_parses_status_and_runtime() -> None:
    assert gate.make_reading("FSD OB LB", "120", 5) == GateReading(True, 120.0, 5, fsd=True)
    assert gate.make_reading("FSD OL CHRG", "120.5", 5) == GateReading(False, 120.5, 5, fsd=True)
    assert gate.make_reading("OL OB", None, 5) == GateReading(True, None, 5)
    assert gate.make_reading("FSD", "", 5) == GateReading(None, None, 5, fsd=True)
    assert gate.make_reading("OB", "0", 5) == GateReading(True, None, 5)


# What is kept


def _state(**changes: Any) -> GateState:
    whole = GateState(
        "boot",
        "unit",
        100.0,
        150.0,
        {"nas": MachineState(120.0, None, 123.0, False), "vm": MachineState(None, 130.0, None, True)},
        {"ups@localhost:3493": GateReading(True, 300.0, 149.0), "x": GateReading(None, None, 1.0)},
    )
    return replace(whole, **changes)


def test_state_survives_dump_and_resume() -> None:
    for state in (_state(), _state(ended=("down", "all are down")), _state(flag=True)):
        assert gate.resume_state(gate.dump_state(state), "boot", "unit", 160.0) == state


@pytest.mark.parametrize(
    ("state", "boot", "by", "now"),
    [
        (_state(), "other boot", "unit", 160.0),
        (_state(boot=""), "", "unit", 160.0),
        (_state(), "boot", "other", 160.0),
        (_state(ended=("down", "x")), "boot", "other", 160.0),
        (_state(), "boot", "unit", 270.1),
        (_state(), "boot", "unit", 149.0),  # written in the future
        (_state(began=151.0), "boot", "unit", 160.0),
    ],
)
def test_state_of_other_shutdown_is_not_resumed(state: GateState, boot: str, by: str, now: float) -> None:
    assert gate.resume_state(gate.dump_state(state), boot, by, now) == gate.new_state(boot, by, now)


def test_gate_resumes_within_two_minutes() -> None:
    assert gate.resume_state(gate.dump_state(_state()), "boot", "unit", 270.0) == _state()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"boot": 1},
        {"began": None},
        {"began": "100"},
        {"began": True},
        {"now": float("nan")},
        {"machines": []},
        {"machines": {"nas": [1]}},
        {"machines": {"nas": {"given_up": 1}}},
        {"machines": {"nas": {"silent": "1"}}},
        {"power": {"ups": {"on_battery": 1, "runtime": 2.0, "at": 3.0}}},
        {"power": {"ups": {"on_battery": True, "runtime": 2.0, "at": None}}},
        {"ended": ["down"]},
        {"ended": [1, 2]},
        {"flag": "x"},
        {"flag": None},
    ],
)
def test_damaged_gate_state_starts_over(change: dict[str, object]) -> None:
    whole = json.loads(gate.dump_state(_state()))
    assert gate.resume_state(json.dumps({**whole, **change}), "boot", "unit", 160.0) == gate.new_state(
        "boot", "unit", 160.0
    )


@given(st.text(max_size=20) | st.integers(0, 400).map(lambda end: gate.dump_state(_state())[:-end]))
def test_resume_never_raises(text: str) -> None:
    begun = gate.new_state("boot", "unit", 160.0)
    assert gate.resume_state(text, "boot", "unit", 160.0) in (begun, _state())
