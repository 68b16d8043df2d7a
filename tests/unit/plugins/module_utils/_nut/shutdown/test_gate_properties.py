# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate in random courses of events: it ends in time, and earlier only if a rule allows it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.gate import GateReading, GateState
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import (
    AwaitedMachine,
    GuestId,
    ShutdownPolicy,
    UpsAddress,
)
from hypothesis import given
from hypothesis import strategies as st

ANSWER = st.sampled_from([True, False, None])
SECONDS = st.floats(0, 40, allow_nan=False)


@st.composite
def policies(draw: st.DrawFn) -> ShutdownPolicy:
    hosts = []
    for name in draw(st.sampled_from(["", "a", "ab", "abc"])):
        usual = draw(st.integers(0, 60))
        limit = usual + draw(st.integers(0, 100))
        guest = draw(st.sampled_from([None, GuestId("qm", 7)]))
        hosts.append(AwaitedMachine(name, ("192.0.2.1",), (), guest, float(usual), float(limit)))
    upses = tuple(
        UpsAddress(name, power=draw(st.sampled_from([0, 1, 1, 2]))) for name in draw(st.sampled_from(["", "u", "uv"]))
    )
    return ShutdownPolicy(
        upses,
        tuple(hosts),
        draw(st.sampled_from([0.5, 3.0, 10.0])),
        float(draw(st.integers(0, 100))),
        float(draw(st.integers(1, 200))),
        reserve_minimum=draw(st.sampled_from([None, 0.0, 10.0, 50.0])),
        minsupplies=draw(st.sampled_from([1, 1, 2])),
    )


@dataclass(frozen=True)
class Look:
    """dt: seconds since the last round. late: seconds that the probe took. back: seconds by which the clock goes back."""

    dt: float
    late: float
    seen: tuple[bool | None, ...]
    on: tuple[bool | None, ...]
    runtime: tuple[float | None, ...]
    answered: tuple[bool, ...]
    back: float
    restarted: bool


LOOKS = st.lists(
    st.builds(
        Look,
        SECONDS,
        st.floats(0, 1),
        st.tuples(ANSWER, ANSWER, ANSWER),
        st.tuples(ANSWER, ANSWER),
        st.tuples(*[st.none() | st.floats(0, 400)] * 2),
        st.tuples(st.booleans(), st.booleans()),
        st.sampled_from([0.0, 0.0, 0.0, 5.0]),
        st.booleans(),
    ),
    max_size=25,
)


def _was_silent(policy: ShutdownPolicy, host: AwaitedMachine, history: list[tuple[float, float, bool | None]]) -> bool:
    """Return whether a machine has been silent for the settle time since its last answer, and was never unknown meanwhile."""
    start: float | None = None
    silent = False
    for asked, now, answer in history:
        if answer is True:
            silent, start = False, None
        elif answer is False:
            start = asked if start is None else start
            silent = silent or host.guest is not None or now - start >= policy.settle
        elif not silent:
            start = None
    return silent


def _kept(policy: ShutdownPolicy, state: GateState, elapsed: float) -> float:
    """Return the runtime that must be kept: reserve_minimum, as long as no awaited machine is late."""
    late = [
        host
        for host in policy.machines
        if not state.machines[host.name].is_settled and elapsed >= host.shutdown_time + policy.settle
    ]
    return policy.reserve if late or policy.reserve_minimum is None else min(policy.reserve_minimum, policy.reserve)


def _find_end(policy: ShutdownPolicy, lefts: dict[str, float]) -> float:
    """Return in how many seconds too few UPSes are left for this host; infinity if that is unknown or does not happen."""
    powers = {str(ups): ups.power for ups in policy.upses if ups.power and str(ups) in lefts}
    ends = [
        lefts[name]
        for name in powers
        if sum(power for other, power in powers.items() if lefts[other] > lefts[name]) < policy.minsupplies
    ]
    return min(ends, default=math.inf)


@given(policies(), LOOKS)
def test_gate_ends_in_time_and_only_by_rule(  # noqa: PLR0912, PLR0915 - it tells the rules anew
    policy: ShutdownPolicy, looks: list[Look]
) -> None:
    state = gate.new_state("boot", "", 1000.0)
    now = 1000.0
    history: dict[str, list[tuple[float, float, bool | None]]] = {host.name: [] for host in policy.machines}
    status: dict[str, bool | None] = {}
    runtime: dict[str, tuple[float, float]] = {}
    for look in looks:
        asked = now + look.dt
        now = asked + look.late
        seen = dict(zip([host.name for host in policy.machines], look.seen))
        readings = {}
        for place, ups in enumerate(policy.upses):
            if look.answered[place]:
                name = str(ups)
                readings[name] = GateReading(look.on[place], look.runtime[place], asked)
                status[name] = look.on[place] if look.on[place] is not None else status.get(name)
                known = look.runtime[place]
                if known is not None:
                    # readings from before the clock went back are not newer than now
                    runtime[name] = (known, min(asked, max(now - look.back, state.now)))
                elif look.on[place] is False:
                    runtime.pop(name, None)
        if look.restarted:
            state = gate.resume_state(gate.dump_state(state), "boot", "", now)
        state, decision, _words = gate.advance_gate(policy, state, now - look.back, seen, readings, asked=asked)
        # the clock went back: for the gate it stands still
        now = state.now
        asked = min(asked, now)
        for name, answer in seen.items():
            history[name].append((asked, now, answer))
        elapsed = now - state.began
        down = {host.name: _was_silent(policy, host, history[host.name]) for host in policy.machines}
        left = _find_end(
            policy,
            {name: known - (now - at) for name, (known, at) in runtime.items()}
            | {name: math.inf for name, on_battery in status.items() if on_battery is False},
        )
        if not decision.go:
            assert elapsed < policy.timeout
            assert not all(down[host.name] or elapsed >= host.shutdown_limit for host in policy.machines)
            assert left > _kept(policy, state, elapsed)
            assert set(decision.waiting) == {
                host.name for host in policy.machines if not state.machines[host.name].is_settled
            }
            continue
        assert decision.reason
        if decision.rule == "down":
            assert all(down.values())
        elif decision.rule == "assumed":
            assert all(down[host.name] or elapsed >= host.shutdown_time for host in policy.machines)
            assert not all(down.values())
        elif decision.rule == "limit":
            assert all(
                down[host.name] or elapsed >= min(host.shutdown_limit, host.shutdown_time) for host in policy.machines
            )
            assert any(not down[host.name] and elapsed >= host.shutdown_limit for host in policy.machines)
        elif decision.rule == "battery":
            assert left <= _kept(policy, state, elapsed) + 1e-6
        else:
            assert decision.rule == "timeout"
            assert elapsed >= policy.timeout
        return
    # then no more news, and machines that never go down
    for _unused in range(1000):
        now += 1
        state, decision, _words = gate.advance_gate(
            policy, state, now, {host.name: True for host in policy.machines}, {}
        )
        elapsed = now - state.began
        by = min(policy.timeout, max([host.shutdown_limit for host in policy.machines], default=0.0))
        if decision.go:
            assert elapsed <= by + 1 or decision.rule == "battery"
            return
        assert elapsed < by
    raise AssertionError("it does not end")
