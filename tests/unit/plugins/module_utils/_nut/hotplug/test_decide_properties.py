# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Properties that hold for every plan of nut-hotplug."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf_text import (
    compose_text,
    found_sections,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decide import (
    make_plan,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decision import DriverState
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.memory import Tries
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import resolve_names
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.resolution import KnownUpses
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    BUSES,
    FAILED,
    LONG,
    NOW,
    POLICIES,
    RELEASES,
    RUNS,
    SERVER,
    STOPPED,
    WAITING,
    draw_known,
    list_steps,
    note_sections,
)
from hypothesis import given
from hypothesis import strategies as st

# Properties

UNITS = st.sampled_from(
    [RUNS, STOPPED, FAILED, WAITING, ABSENT, Unit("inactive", "masked", 0), Unit("reloading", "enabled", 3)]
)
TIMES = st.sampled_from([0.0, 1.0, 9.0, 10.0, 29.0, 31.0, 59.0, 61.0, 9000.0]).map(lambda ago: NOW - ago)
STATES = st.sampled_from([(), ("OL",), ("OL", "CHRG"), ("OB", "DISCHRG"), ("OB", "LB"), ("FSD", "OL")])
SEENS = st.builds(
    lambda unit, status, since, plugged, new, last: DriverState(
        unit, status, "" if status else "DATA-STALE", NOW if status else since, plugged, new, status or last
    ),
    UNITS,
    STATES,
    TIMES,
    st.one_of(st.none(), TIMES),
    st.booleans(),
    STATES,
)
TRIES = st.builds(Tries, st.integers(0, 9), TIMES, st.one_of(st.none(), TIMES))


@given(
    draw_known(),
    BUSES,
    POLICIES,
    RELEASES,
    st.lists(st.tuples(SEENS, TRIES), min_size=9, max_size=9),
    st.tuples(st.sampled_from([(), ("ups (OB)",), None]), st.sampled_from([SERVER, Unit("failed", "enabled", 0)])),
)
def test_plan_properties(  # noqa: PLR0917 - one for each strategy
    was: KnownUpses,
    upses: tuple[UsbUps, ...],
    policy: UsbPolicy,
    release: Any,
    drivers: list[tuple[DriverState, Tries]],
    upsd: tuple[Any, Unit],
) -> None:
    res = resolve_names(was, upses, policy, release)
    power, server = upsd
    names = list(dict.fromkeys([*res.conf.sections, *was.conf.sections]))
    seen = {
        name: replace(
            state,
            plugged_since=(state.plugged_since or NOW) if name in res.plugged else None,
            is_new_device=state.is_new_device and name in res.plugged,
        )
        for name, (state, _tries) in zip(names, drivers)
    }
    tries = {name: count for name, (_seen, count) in zip(names, drivers)}
    made = make_plan(res, was, seen, server, power, tries, NOW, policy)
    running = {f"nut-driver@{name}.service" for name, state in seen.items() if state.unit.runs}
    acts = (*made.before, *made.after)
    if power or power is None:
        assert not [action for action in acts if action.unit in running]
    if power:
        assert made.conf is None
        assert not [
            action for action in acts if action.unit.startswith("nut-driver-enumerator") or action.verb == "reload"
        ]
    for name in res.fixed:
        # a section that is not in the file yet may have to wait
        if made.conf is not None and name in made.conf.sections:
            assert made.conf.sections[name] in (was.conf.sections.get(name), res.conf.sections[name])
    if made.conf is not None:
        text = compose_text("# Header", made.conf, made.found)
        assert (ups_conf.parse_ups_conf(text), found_sections(text)) == (made.conf, made.found)
    assert len({(action.verb, action.unit) for action in acts}) == len(acts)
    assert all(until > NOW for until in made.waits.values())
    assert all(line.isprintable() for line in (*made.deferred, *(action.reason for action in acts)))
    assert all(count.count for count in made.tries.values())


@given(draw_known(), BUSES, POLICIES, RELEASES)
def test_applied_plan_leaves_nothing_to_do(
    was: KnownUpses, upses: tuple[UsbUps, ...], policy: UsbPolicy, release: Any
) -> None:
    for _unused in range(3):
        res = resolve_names(was, upses, policy, release)
        seen = {
            name: DriverState(RUNS, ("OL",), "", NOW, LONG, last_status=("OL",))
            if name in res.plugged
            else DriverState(WAITING, (), "DRIVER-NOT-CONNECTED", LONG, last_status=("OL",))
            for name in (*res.conf.sections, *was.conf.sections)
        }
        made = make_plan(res, was, seen, SERVER, (), {}, NOW, policy)
        now = made.conf or was.conf
        written = note_sections(was, now, res)
        was = KnownUpses(was.wanted, now, made.found if made.conf else was.found, res.memory, written)
    assert list_steps(made) == []
