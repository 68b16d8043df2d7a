# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import stages
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import (
    StageGuest,
    read_stages,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.stages import Power, StageAction, StagesState
from ansible_collections.homelab.nut.tests.unit.support.stages_world import (
    EARLY,
    FSD,
    NAS,
)
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    pass

levels = st.none() | st.floats(0, 100)
powers = st.builds(
    Power,
    st.sampled_from([True, True, True, False, None]),
    levels,
    st.none() | st.floats(0, 3000),
    st.frozensets(st.sampled_from(["OB", "LB", "CAL", "TEST"]), max_size=2),
    st.just(frozenset({"ups"})),
)
POLICY = read_stages([EARLY, {**NAS, "charge": 40}, {**FSD, "runtime": 300}])


@given(st.lists(st.tuples(st.floats(0.5, 40), powers, st.integers(0, 3)), max_size=60))
def test_rules_hold_for_any_readings(  # noqa: PLR0912, PLR0915
    steps: list[tuple[float, Power, int]],
) -> None:
    state, now, jobs = StagesState(boot="b"), 100.0, dict[str, tuple[str, int]]()
    begun: list[str] = []
    steady = -1.0  # since when upsd has reported mains without a break
    for seconds, seen, patience in steps:
        now += seconds
        if seen.on_battery is not False:
            steady = -1.0 if seen.on_battery else steady
        elif steady < 0:
            steady = now
        before = state
        decision = stages.decide_stages(POLICY, state, now, seen, frozenset(jobs))
        state = decision.state
        if before.outage_since is not None and state.outage_since is None:
            begun = []
        for action in decision.actions:
            if action.kind == "notify":
                assert action.stage not in begun
                assert steady < 0
                begun.append(action.stage)
            elif action.kind == "stop_guests":
                assert steady < 0
                assert action.stage in begun
                for target in action.targets:
                    assert target.key not in jobs
                    assert target.seconds >= 1
                    jobs[target.key] = ("stop", patience)
                    state = stages.note_stopping(state, target.key)
            elif action.kind == "fsd":
                assert steady < 0
                assert all(what == "start" for what, _left in jobs.values())
                assert {"nas-guests", "the-end"} & set(begun)
                for stage in POLICY:
                    assert stage.name not in begun or all(guest.key in state.stop_outcomes for guest in stage.guests)
                state = replace(state, fsd_set_at=now)
            elif action.kind == "start_guests":
                assert steady >= 0
                assert now - steady >= stages.STABLE_SECONDS
                assert not jobs
                for target in action.targets:
                    assert target.key in state.guests_to_start
                    jobs[target.key] = ("start", patience)
            else:
                assert action.kind == "rest"
                assert steady >= 0
                assert not state.guests_to_start
                assert state.outage_since is None
        for key, (what, left) in list(jobs.items()):
            if left:
                jobs[key] = (what, left - 1)
                continue
            del jobs[key]
            state = (
                stages.note_stopped(state, key, "stopped")
                if what == "stop"
                else stages.note_started(state, key, "started", now)
            )
    # when the mains are back for good, all stopped guests are started
    for _look in range(60):
        now += 2
        for key, (what, _left) in jobs.items():
            state = (
                stages.note_stopped(state, key, "stopped")
                if what == "stop"
                else stages.note_started(state, key, "started", now)
            )
        jobs = {}
        decision = stages.decide_stages(POLICY, state, now, Power(False))
        state = decision.state
        for action in decision.actions:
            jobs |= {target.key: ("start", 0) for target in action.targets}
    assert [action.kind for action in decision.actions] == ["rest"]
    assert not state.guests_to_start


def test_stop_outcome_after_outage_is_ignored() -> None:
    assert stages.note_stopped(StagesState(), "qm/101", "stopped") == StagesState()


def test_decide_stages_is_pure() -> None:
    state = StagesState(boot="b", outage_since=0.0)
    found = stages.decide_stages(POLICY, state, 61.0, Power(True))
    assert [action.kind for action in found.actions] == ["notify", "stop_guests"]
    assert found.actions[1] == StageAction("stop_guests", "stage early", "early", (StageGuest("qm", 101, 100.0),))
    assert stages.decide_stages(POLICY, state, 59.9, Power(True)).actions == ()


def test_outage_lasts_while_guest_goes_down() -> None:
    state = StagesState(
        boot="b",
        outage_since=0.0,
        mains_since=10.0,
        begun_at={"early": 1.0},
        stop_decided_at={"qm/101": 1.0},
        guests_to_start={"qm/101": False},
    )
    found = stages.decide_stages(POLICY, state, 60.0, Power(False), {"qm/101"})
    assert found == stages.StagesDecision(state)
    assert stages.decide_stages(POLICY, state, 60.0, Power(False)).state.outage_since is None


def test_fsd_does_not_wait_for_starting_guest() -> None:
    state = StagesState(boot="b", outage_since=0.0, guests_to_start={"qm/900": False})
    found = stages.decide_stages(POLICY[2:], state, 10.0, Power(True, runtime=100), {"qm/900"}).state
    found_later = stages.decide_stages(POLICY[2:], found, 20.0, Power(True, runtime=100), {"qm/900"})
    assert [action.kind for action in found_later.actions] == ["notify", "fsd"]


def test_start_that_fails_is_tried_for_at_least_half_an_hour() -> None:
    assert stages.START_PATIENCE_SECONDS >= 1800
    state = StagesState(boot="b", guests_to_start={"qm/101": False}, mains_since=0.0)
    state = stages.note_started(state, "qm/101", "failed", 100.0)
    state = stages.note_started(state, "qm/101", "failed", 100.0 + stages.START_PATIENCE_SECONDS - 1)
    assert state.guests_to_start == {"qm/101": False}
    state = stages.note_started(state, "qm/101", "failed", 100.0 + stages.START_PATIENCE_SECONDS)
    assert (state.guests_to_start, state.failed_starts) == ({}, {})


def test_start_that_is_impossible_is_tried_once() -> None:
    state = StagesState(boot="b", guests_to_start={"qm/101": False}, mains_since=0.0)
    assert stages.note_started(state, "qm/101", "impossible", 100.0).guests_to_start == {}


def test_next_outage_gives_a_start_its_time_again() -> None:
    state = StagesState(
        boot="b",
        outage_since=50.0,
        mains_since=60.0,
        guests_to_start={"qm/101": False},
        failed_starts={"qm/101": (1.0, 2.0)},
    )
    found = stages.decide_stages((), state, 100.0, Power(False))
    assert found.state.failed_starts == {}
    assert [action.kind for action in found.actions] == ["start_guests"]


def test_guest_that_was_not_known_to_run_is_started_only_if_it_was_shut_down() -> None:
    state = StagesState(boot="b", outage_since=0.0, stop_decided_at={"qm/101": 1.0})
    for outcome, remaining in (("stopped", {"qm/101": False}), ("forced", {"qm/101": False})):
        assert stages.note_stopped(state, "qm/101", outcome).guests_to_start == remaining
    for outcome in ("already", "gone", "runs", "lost"):
        assert stages.note_stopped(state, "qm/101", outcome).guests_to_start == {}
