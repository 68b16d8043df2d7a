# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nut-hotplug does about a UPS and its driver, and when: scenes, backoff, settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section, UpsConf
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decide import (
    GRACE,
    HUNG,
    OUTAGE,
    SETTLED,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decision import HotplugPlan
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.memory import Tries
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    ANEW,
    APC,
    AUTO,
    CPS,
    CPS_ELSEWHERE,
    CPS_HUB,
    CPS_TWIN,
    ENDED,
    ENUMERATE,
    FAILED,
    GONE,
    LONG,
    MUTE,
    NOW,
    POWERCOM,
    RELOAD,
    RUNS,
    STOPPED,
    STOPS,
    WAITING,
    NamedHost,
    list_steps,
    parse_conf,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# Actions

NODELESS = replace(APC, device=replace(APC.device, accessible=None, has_node=False))
LOCKED = replace(APC, device=replace(APC.device, accessible=False))
NODE = APC.device.node
PERMIT = f"permit {NODE}"


def scene(
    before: Sequence[UsbUps],
    now: Sequence[UsbUps],
    *steps: str,
    of: dict[str, dict[str, Any]] | None = None,
    **more: Any,
) -> tuple[Sequence[UsbUps], Sequence[UsbUps], dict[str, Any], list[str]]:
    return before, now, {**(of or {}), **more}, list(steps)


SCENES = {
    "nothing happens": scene([APC], [APC]),
    "plug, for the first time": scene(
        [], [APC], "stop ups", "write", ENUMERATE, "start ups", of={"ups": {**ANEW, "unit": WAITING}}
    ),
    "plug, unknown": scene([APC], [APC, CPS_TWIN], "write", ENUMERATE, RELOAD),
    "plug again, driver between two tries": scene([APC], [APC], "restart ups", of={"ups": {**ANEW, "unit": WAITING}}),
    "plug again, driver dead": scene([APC], [APC], "start ups", of={"ups": {**ANEW, "unit": FAILED}}),
    "plug again, driver stopped": scene([APC], [APC], "start ups", of={"ups": {**ANEW, "unit": STOPPED}}),
    "plug again, driver masked": scene([APC], [APC], of={"ups": {**ANEW, "unit": Unit("inactive", "masked", 0)}}),
    "plug again, no unit": scene([APC], [APC], ENUMERATE, of={"ups": {**ANEW, "unit": ABSENT}}),
    "unplug": scene([APC], [], of={"ups": GONE}),
    "unplug, and long ago": scene([APC], [], of={"ups": {**GONE, "silent_since": LONG}}),
    "replug elsewhere, driver recovered": scene(
        [CPS], [CPS_HUB], of={"ups": {"is_new_device": True, "plugged_since": NOW}}
    ),
    "replug elsewhere, driver did not recover yet": scene([CPS], [CPS_HUB], of={"ups": ANEW}),
    "new device number, driver did not recover": scene(
        [CPS],
        [CPS],
        "restart ups",
        of={"ups": {**ANEW, "is_new_device": False, "plugged_since": NOW - GRACE, "silent_since": NOW - GRACE - 3}},
    ),
    "new device number, data gone only later": scene(
        [CPS], [CPS], "restart ups", of={"ups": {**MUTE, "plugged_since": NOW - GRACE - 2, "silent_since": NOW - GRACE}}
    ),
    "new device number, counted from the latest": scene(
        [CPS],
        [CPS],
        of={"ups": {**ANEW, "is_new_device": False, "plugged_since": NOW - GRACE + 1, "silent_since": NOW - 500}},
    ),
    "swap, same driver": scene([APC], [CPS], "stop ups", "write", ENUMERATE, "start ups", of={"ups": ANEW}),
    "swap, other driver": scene(
        [APC], [POWERCOM], "stop ups", "write", ENUMERATE, "start ups", RELOAD, of={"ups": ANEW}
    ),
    "swap, driver dead": scene([APC], [CPS], "write", ENUMERATE, "start ups", of={"ups": {**ANEW, "unit": FAILED}}),
    "swap, driver masked": scene(
        [APC], [CPS], "write", ENUMERATE, of={"ups": {**ANEW, "unit": Unit("inactive", "masked", 0)}}
    ),
    "swap, driver stopped, long ago": scene(
        [APC], [CPS], "write", ENUMERATE, of={"ups": {**MUTE, "unit": STOPPED, "silent_since": LONG}}
    ),
    "second UPS": scene([APC], [APC, CPS_ELSEWHERE], "write", ENUMERATE, RELOAD),
    "UPS absent at boot": scene(
        [APC], [], of={"ups": {**GONE, "unit": WAITING, "silent_since": NOW, "last_status": ()}}
    ),
    "driver dead": scene([APC], [APC], "start ups", of={"ups": {**MUTE, "unit": FAILED}}),
    "driver stopped by hand": scene([APC], [APC], of={"ups": {**MUTE, "unit": STOPPED}}),
    "driver starts": scene([APC], [APC], of={"ups": {**MUTE, "unit": WAITING, "silent_since": NOW - HUNG + 1}}),
    "driver does not come up": scene(
        [APC], [APC], "restart ups", of={"ups": {**MUTE, "unit": WAITING, "silent_since": NOW - HUNG}}
    ),
    "driver hung, not for long": scene([APC], [APC], of={"ups": {**MUTE, "silent_since": NOW - HUNG + 1}}),
    "driver hung": scene([APC], [APC], "restart ups", of={"ups": {**MUTE, "silent_since": NOW - HUNG}}),
    "driver killed, systemd waits": scene(
        [APC], [APC], "restart ups", of={"ups": {**MUTE, "unit": ENDED, "silent_since": NOW - 1}}
    ),
    "driver is being stopped": scene([APC], [APC], of={"ups": {**MUTE, "unit": STOPS, "silent_since": LONG}}),
    "driver hung, last on battery": scene(
        [APC], [APC], of={"ups": {**MUTE, "silent_since": NOW - 600, "last_status": ("OB", "DISCHRG")}}
    ),
    "driver hung, last OL LB": scene(
        [APC], [APC], of={"ups": {**MUTE, "silent_since": NOW - 600, "last_status": ("OL", "LB")}}
    ),
    "driver hung, last on battery long ago": scene(
        [APC], [APC], "restart ups", of={"ups": {**MUTE, "silent_since": NOW - OUTAGE, "last_status": ("OB", "LB")}}
    ),
    "on battery when pulled out, and back without data": scene(
        [APC],
        [APC],
        "restart ups",
        of={"ups": {**MUTE, "silent_since": NOW - 100, "plugged_since": NOW - GRACE, "last_status": ("OB", "LB")}},
    ),
    "driver hung, last in FSD": scene(
        [APC], [APC], of={"ups": {**MUTE, "silent_since": NOW - 600, "last_status": ("FSD", "OL")}}
    ),
    "driver dead, last on battery": scene(
        [APC], [APC], "start ups", of={"ups": {**MUTE, "unit": FAILED, "last_status": ("OB",)}}
    ),
    "no rights": scene([APC], [LOCKED], PERMIT, of={"ups": {**ANEW, "silent_since": NOW}}),
    "no rights, driver dead": scene([APC], [LOCKED], PERMIT, "start ups", of={"ups": {**ANEW, "unit": FAILED}}),
    "no node": scene([APC], [NODELESS], of={"ups": {**MUTE, "silent_since": LONG}}),
    "no node, driver dead": scene([APC], [NODELESS], of={"ups": {**ANEW, "unit": FAILED}}),
    "no rights, at the first time": scene(
        [], [LOCKED], PERMIT, "stop ups", "write", ENUMERATE, "start ups", of={"ups": {**ANEW, "unit": WAITING}}
    ),
    "no rights, and none needed": scene([APC], [LOCKED]),
    "a twin appears, and all work": scene([CPS], [CPS, CPS_TWIN], "write", ENUMERATE, RELOAD),
    "upsd failed": scene([APC], [APC], "restart nut-server", server=Unit("failed", "enabled", 0), power=None),
    "upsd failed, and nobody wants it": scene([APC], [APC], server=Unit("failed", "disabled", 0), power=None),
    "upsd stopped by hand": scene([APC], [APC], server=Unit("inactive", "enabled", 0), power=None),
    "upsd stopped by hand, a new UPS": scene(
        [APC], [APC, CPS_TWIN], "write", ENUMERATE, server=Unit("inactive", "enabled", 0), power=None
    ),
    "upsd failed, a new UPS": scene(
        [APC],
        [APC, CPS_TWIN],
        "write",
        ENUMERATE,
        "restart nut-server",
        server=Unit("failed", "enabled", 0),
        power=None,
    ),
    "upsd is silent, driver hung": scene([APC], [APC], power=None, of={"ups": {**MUTE, "silent_since": LONG}}),
    "upsd does not run, driver hung": scene(
        [APC], [APC], server=Unit("inactive", "enabled", 0), of={"ups": {**MUTE, "silent_since": LONG}}
    ),
    "upsd is silent, driver dead": scene([APC], [APC], "start ups", power=None, of={"ups": {**MUTE, "unit": FAILED}}),
    "upsd is silent, swap": scene([APC], [CPS], power=None, of={"ups": ANEW}),
    "upsd is silent, swap, driver dead": scene(
        [APC], [CPS], "write", ENUMERATE, "start ups", power=None, of={"ups": {**ANEW, "unit": FAILED}}
    ),
    "on battery, nothing else": scene([APC], [APC], power=["ups (OB)"]),
    "on battery, second UPS": scene([APC], [APC, CPS_ELSEWHERE], power=["ups (OB)"]),
    "on battery, swap": scene([APC], [CPS], power=["other (OB)"], of={"ups": ANEW}),
    "on battery, swap, driver dead": scene([APC], [CPS], power=["other (OB)"], of={"ups": {**ANEW, "unit": FAILED}}),
    "on battery, driver hung": scene([APC], [APC], power=["other (OB)"], of={"ups": {**MUTE, "silent_since": LONG}}),
    "on battery, driver between two tries": scene(
        [APC], [APC], power=["other (OB)"], of={"ups": {**ANEW, "unit": WAITING}}
    ),
    "on battery, driver dead": scene(
        [APC], [APC], "start ups", power=["other (OB)"], of={"ups": {**MUTE, "unit": FAILED}}
    ),
    "on battery, driver dead, no rights": scene(
        [APC], [LOCKED], PERMIT, "start ups", power=["other (OB)"], of={"ups": {**MUTE, "unit": FAILED}}
    ),
    "on battery, driver stopped, UPS plugged in": scene(
        [APC], [APC], "start ups", power=["other (OB)"], of={"ups": {**ANEW, "unit": STOPPED}}
    ),
    "on battery, driver stopped by hand": scene(
        [APC], [APC], power=["other (OB)"], of={"ups": {**MUTE, "unit": STOPPED}}
    ),
    "on battery, no unit": scene([APC], [APC], power=["other (OB)"], of={"ups": {**ANEW, "unit": ABSENT}}),
}
QUIET = (
    "nothing happens",
    "unplug",
    "unplug, and long ago",
    "UPS absent at boot",
    "replug elsewhere, driver recovered",
    "no rights, and none needed",
    "on battery, nothing else",
    "upsd failed, and nobody wants it",
    "upsd stopped by hand",
)
DEFERRED = tuple(name for name, parts in SCENES.items() if not parts[3] and name not in QUIET)
WAITS = (
    "replug elsewhere, driver did not recover yet",
    "new device number, counted from the latest",
    "driver starts",
    "driver hung, not for long",
    "driver is being stopped",
)


def play(name: str, host: NamedHost | None = None) -> tuple[NamedHost, HotplugPlan]:
    before, now, more, _steps = SCENES[name]
    host = host or NamedHost()
    host.settle_names(*before)
    return host, host.make_plan(*now, **more)


@pytest.mark.parametrize("name", SCENES)
def test_plan_has_fewest_actions(name: str) -> None:
    _host, made = play(name)
    assert list_steps(made) == SCENES[name][3]
    assert bool(made) is bool(SCENES[name][3])
    assert all(action.reason for action in (*made.before, *made.after))


@pytest.mark.parametrize("name", DEFERRED)
def test_postponed_work_is_reported(name: str) -> None:
    _host, made = play(name)
    if name in WAITS:
        assert made.waits["ups"] > NOW
    else:
        assert made.deferred
        assert "mains" in made.deferred[0] or not name.startswith("on battery") or "by hand" in made.deferred[0]


@pytest.mark.parametrize("name", QUIET)
def test_healthy_ups_causes_no_message(name: str) -> None:
    _host, made = play(name)
    assert (made.deferred, dict(made.tries)) == ((), {})


def test_reasons_name_ups_and_port() -> None:
    _host, made = play("swap, other driver")
    place = POWERCOM.device.place
    assert made.before[0].reason == f"[ups] is 0d9f:00a2 at {place}, which takes over from 051d:0002 5B1234T56789"
    _host, made = play("driver hung")
    assert (
        made.after[0].reason
        == f"051d:0002 at {APC.device.place} is plugged in as [ups], but its driver has had no data for 60 s"
    )


# Time


def test_driver_is_rechecked_after_replug() -> None:
    host = NamedHost()
    host.settle_names(APC)
    made = host.make_plan(APC, ups={"is_new_device": True, "plugged_since": NOW - 3})
    assert (list_steps(made), dict(made.waits)) == ([], {"ups": NOW - 3 + GRACE})
    assert not host.make_plan(APC, ups={"plugged_since": NOW - GRACE}).waits
    # but not if it was started for this UPS
    host.tries = {"ups": Tries(1, NOW - 3)}
    assert not host.make_plan(APC, ups={"plugged_since": NOW - 3}).waits


def test_backoff_doubles_and_resets_after_success() -> None:
    host = NamedHost()
    host.settle_names(APC)
    host.make_plan(APC, ups={**MUTE, "silent_since": NOW - HUNG})
    gaps = []
    for _unused in range(11):
        started = host.now
        until = host.make_plan(APC).waits["ups"]
        gaps.append(until - started)
        host.now = until - 1
        assert list_steps(host.make_plan(APC)) == []
        host.now = until
        assert list_steps(host.make_plan(APC)) == ["restart ups"]
    assert gaps == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    # data for a short time change nothing
    for fresh, count in ((True, 12), (False, 12), (True, 12)):
        host.now += SETTLED / 2 + 1
        host.make_plan(
            APC,
            ups={"status": ("OL",), "error": "", "silent_since": host.now}
            if fresh
            else {**MUTE, "silent_since": host.now},
        )
        assert host.tries["ups"].count == count
    host.now += SETTLED
    host.make_plan(APC)
    assert not host.tries


def test_flapping_ups_causes_few_restarts() -> None:
    host = NamedHost()
    host.settle_names(APC)
    done: list[tuple[float, str]] = []
    for step in range(400):
        host.now = NOW + 3 * step
        # failed in every second run, with a new device number in every run
        unit = (RUNS, FAILED, WAITING, STOPPED)[step % 4]
        device = replace(APC.device, device=5 + step)
        made = host.make_plan(
            replace(APC, device=device), ups={**ANEW, "unit": unit, "plugged_since": host.now, "silent_since": host.now}
        )
        done += [(host.now, line) for line in list_steps(made)]
        host.apply_plan(made, APC)
    assert 3 < len(done) <= 9
    gaps = [later - earlier for (earlier, _a), (later, _b) in zip(done, done[1:])]
    assert all(gap >= 15 * 2**number for number, gap in enumerate(gaps))


def test_postponed_start_is_done_later() -> None:
    host = NamedHost()
    host.settle_names(APC)
    host.tries = {"ups": Tries(2, NOW - 5)}
    made = host.make_plan(APC, ups={**ANEW, "unit": STOPPED, "plugged_since": NOW})
    assert (list_steps(made), dict(made.waits)) == ([], {"ups": NOW + 25})
    host.now = NOW + 25
    assert list_steps(host.make_plan(APC, ups={"is_new_device": False})) == ["start ups"]


def test_attempts_before_reboot_delay_nothing() -> None:
    host = NamedHost()
    host.settle_names(APC)
    host.tries = {"ups": Tries(9, NOW + 50_000, NOW + 60_000)}
    assert list_steps(host.make_plan(APC, ups={**MUTE, "silent_since": NOW - HUNG})) == ["restart ups"]
    assert host.tries["ups"] == Tries(1, NOW)


def test_attempts_are_reset_for_another_ups() -> None:
    host = NamedHost()
    host.settle_names(APC)
    host.tries = {"ups": Tries(7, NOW - 5)}
    assert list_steps(host.make_plan(CPS, ups=ANEW)) == ["stop ups", "write", ENUMERATE, "start ups"]
    assert host.tries["ups"] == Tries(1, NOW)


def test_section_is_not_rewritten_repeatedly() -> None:
    host = NamedHost()
    host.settle_names(CPS)
    host.tries = {"ups": Tries(3, NOW - 5)}
    host.known = replace(host.known, wanted=parse_conf(AUTO.replace("Rack", "Cellar")))
    made = host.make_plan(CPS)
    assert (list_steps(made), dict(made.waits)) == ([], {"ups": NOW - 5 + 60})
    host.now = NOW + 55
    assert list_steps(host.make_plan(CPS)) == ["stop ups", "write", ENUMERATE, "start ups", RELOAD]


def test_failed_upsd_is_restarted_with_backoff() -> None:
    host = NamedHost()
    host.settle_names(APC)
    failed = Unit("failed", "enabled", 0)
    assert list_steps(host.make_plan(APC, power=None, server=failed)) == ["restart nut-server"]
    host.now += 14
    made = host.make_plan(APC, power=None, server=failed)
    assert (list_steps(made), dict(made.waits)) == ([], {"": NOW + 15})
    host.now += 1
    assert list_steps(host.make_plan(APC, power=None, server=failed)) == ["restart nut-server"]
    assert host.tries[""].count == 2
    host.make_plan(APC)
    host.now += SETTLED
    host.make_plan(APC)
    assert not host.tries


def test_attempts_of_removed_sections_are_dropped() -> None:
    host = NamedHost()
    host.settle_names(APC)
    host.tries = {"gone": Tries(3, NOW)}
    assert not host.make_plan(APC).tries


def test_missing_node_is_named_and_looked_for_again() -> None:
    host = NamedHost()
    host.settle_names(APC)
    plan = host.make_plan(NODELESS, ups={**MUTE, "silent_since": LONG})
    assert [line for line in plan.deferred if f"{NODE} does not exist" in line and "container" in line]
    assert plan.waits == {"ups": NOW + HUNG}


# Settings, marks, order


def test_accessible_node_gets_no_permit() -> None:
    host = NamedHost()
    host.settle_names(LOCKED)
    host.known = replace(host.known, wanted=parse_conf(AUTO.replace("Rack", "Cellar")))
    assert list_steps(host.make_plan(LOCKED)) == ["stop ups", "write", ENUMERATE, "start ups", RELOAD]


def test_changed_mark_alone_restarts_nothing() -> None:
    host = NamedHost(None)
    host.settle_names(APC)
    found = host.known.conf.sections["ups"]
    host.known = replace(host.known, wanted=UpsConf((), {"ups": Section("ups", (("driver", "auto"),))}))
    made = host.make_plan(APC)
    assert (list_steps(made), made.found) == (["write"], frozenset())
    assert made.conf is not None
    assert made.conf.sections["ups"] == found
    made = host.make_plan(APC, power=["x (OB)"])
    assert (made.conf, made.found) == (None, {"ups"})


def test_removed_section_runs_enumerator() -> None:
    host = NamedHost(None)
    host.settle_names(APC)
    host.known = replace(host.known, wanted=parse_conf(AUTO.replace("ups", "UPS")))
    made = host.make_plan(APC)
    assert list_steps(made) == ["stop ups", "write", ENUMERATE, RELOAD]
    assert "[ups] was removed" in made.after[0].reason
    made = host.make_plan(APC, power=["x (OB)"])
    assert (list_steps(made), bool(made.deferred)) == ([], True)
