# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section, UpsConf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf_text import (
    compose_text,
    found_sections,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decide import (
    DUMMY_AFTER,
    GRACE,
    HUNG,
    OUTAGE,
    SETTLED,
    DriverState,
    HotplugPlan,
    make_plan,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.memory import BACKOFF, Tries
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import sections as usb_sections
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import resolve_names
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.resolution import KnownUpses
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    ANEW,
    APC,
    AUTO,
    BUSES,
    CPS,
    CPS_ELSEWHERE,
    CPS_HUB,
    CPS_TWIN,
    DEFAULT,
    ENDED,
    FAILED,
    GONE,
    LONG,
    MUTE,
    NOW,
    POLICIES,
    POWERCOM,
    R80,
    RELEASES,
    RUNS,
    SERVER,
    STOPPED,
    STOPS,
    TWO,
    WAITING,
    Host,
    conf,
    keys,
    knowns,
    noted,
    told,
)
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

# What is done

ENUMERATE = "enumerate"
RELOAD = "reload nut-server"
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
DEFERRED = tuple(name for name, one in SCENES.items() if not one[3] and name not in QUIET)
WAITS = (
    "replug elsewhere, driver did not recover yet",
    "new device number, counted from the latest",
    "driver starts",
    "driver hung, not for long",
    "driver is being stopped",
)


def play(name: str, host: Host | None = None) -> tuple[Host, HotplugPlan]:
    before, now, more, _steps = SCENES[name]
    host = host or Host()
    host.settle(*before)
    return host, host.plan(*now, **more)


@pytest.mark.parametrize("name", SCENES)
def test_plan_has_fewest_actions(name: str) -> None:
    _host, made = play(name)
    assert told(made) == SCENES[name][3]
    assert bool(made) is bool(SCENES[name][3])
    assert all(one.reason for one in (*made.before, *made.after))


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
    host = Host()
    host.settle(APC)
    made = host.plan(APC, ups={"is_new_device": True, "plugged_since": NOW - 3})
    assert (told(made), dict(made.waits)) == ([], {"ups": NOW - 3 + GRACE})
    assert not host.plan(APC, ups={"plugged_since": NOW - GRACE}).waits
    # not one that was started for it
    host.tries = {"ups": Tries(1, NOW - 3)}
    assert not host.plan(APC, ups={"plugged_since": NOW - 3}).waits


def test_backoff_doubles_and_resets_after_success() -> None:
    host = Host()
    host.settle(APC)
    host.plan(APC, ups={**MUTE, "silent_since": NOW - HUNG})
    gaps = []
    for _unused in range(11):
        started = host.now
        until = host.plan(APC).waits["ups"]
        gaps.append(until - started)
        host.now = until - 1
        assert told(host.plan(APC)) == []
        host.now = until
        assert told(host.plan(APC)) == ["restart ups"]
    assert gaps == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    # data for a moment change nothing
    for fresh, count in ((True, 12), (False, 12), (True, 12)):
        host.now += SETTLED / 2 + 1
        host.plan(
            APC,
            ups={"status": ("OL",), "error": "", "silent_since": host.now}
            if fresh
            else {**MUTE, "silent_since": host.now},
        )
        assert host.tries["ups"].count == count
    host.now += SETTLED
    host.plan(APC)
    assert not host.tries


def test_flapping_ups_causes_few_restarts() -> None:
    host = Host()
    host.settle(APC)
    done: list[tuple[float, str]] = []
    for step in range(400):
        host.now = NOW + 3 * step
        # dead in each second run, with a new device number in each
        unit = (RUNS, FAILED, WAITING, STOPPED)[step % 4]
        device = replace(APC.device, device=5 + step)
        made = host.plan(
            replace(APC, device=device), ups={**ANEW, "unit": unit, "plugged_since": host.now, "silent_since": host.now}
        )
        done += [(host.now, line) for line in told(made)]
        host.apply(made, APC)
    assert 3 < len(done) <= 9
    gaps = [later - earlier for (earlier, _a), (later, _b) in zip(done, done[1:])]
    assert all(gap >= 15 * 2**number for number, gap in enumerate(gaps))


def test_postponed_start_is_done_later() -> None:
    host = Host()
    host.settle(APC)
    host.tries = {"ups": Tries(2, NOW - 5)}
    made = host.plan(APC, ups={**ANEW, "unit": STOPPED, "plugged_since": NOW})
    assert (told(made), dict(made.waits)) == ([], {"ups": NOW + 25})
    host.now = NOW + 25
    assert told(host.plan(APC, ups={"is_new_device": False})) == ["start ups"]


def test_attempts_before_reboot_delay_nothing() -> None:
    host = Host()
    host.settle(APC)
    host.tries = {"ups": Tries(9, NOW + 50_000, NOW + 60_000)}
    assert told(host.plan(APC, ups={**MUTE, "silent_since": NOW - HUNG})) == ["restart ups"]
    assert host.tries["ups"] == Tries(1, NOW)


def test_attempts_are_reset_for_another_ups() -> None:
    host = Host()
    host.settle(APC)
    host.tries = {"ups": Tries(7, NOW - 5)}
    assert told(host.plan(CPS, ups=ANEW)) == ["stop ups", "write", ENUMERATE, "start ups"]
    assert host.tries["ups"] == Tries(1, NOW)


def test_section_is_not_rewritten_repeatedly() -> None:
    host = Host()
    host.settle(CPS)
    host.tries = {"ups": Tries(3, NOW - 5)}
    host.known = replace(host.known, wanted=conf(AUTO.replace("Rack", "Cellar")))
    made = host.plan(CPS)
    assert (told(made), dict(made.waits)) == ([], {"ups": NOW - 5 + 60})
    host.now = NOW + 55
    assert told(host.plan(CPS)) == ["stop ups", "write", ENUMERATE, "start ups", RELOAD]


def test_failed_upsd_is_restarted_with_backoff() -> None:
    host = Host()
    host.settle(APC)
    failed = Unit("failed", "enabled", 0)
    assert told(host.plan(APC, power=None, server=failed)) == ["restart nut-server"]
    host.now += 14
    made = host.plan(APC, power=None, server=failed)
    assert (told(made), dict(made.waits)) == ([], {"": NOW + 15})
    host.now += 1
    assert told(host.plan(APC, power=None, server=failed)) == ["restart nut-server"]
    assert host.tries[""].count == 2
    host.plan(APC)
    host.now += SETTLED
    host.plan(APC)
    assert not host.tries


def test_attempts_of_removed_sections_are_dropped() -> None:
    host = Host()
    host.settle(APC)
    host.tries = {"gone": Tries(3, NOW)}
    assert not host.plan(APC).tries


# Twins


def with_twin() -> Host:
    """A host with a working UPS, beside which its twin was plugged in a moment ago."""
    host = Host()
    host.settle(CPS)
    host.apply(host.plan(CPS, CPS_TWIN), CPS, CPS_TWIN)
    host.seen["ups2"] = DriverState(WAITING, (), "DRIVER-NOT-CONNECTED", NOW, NOW)
    return host


def test_new_twin_does_not_disturb_working_driver() -> None:
    host = with_twin()
    assert "busport" in keys(host.known.conf.sections["ups2"])
    assert "busport" not in keys(host.known.conf.sections["ups"])
    assert "busport" in keys(host.resolve(CPS, CPS_TWIN).conf.sections["ups"])
    made = host.plan(CPS, CPS_TWIN)
    assert told(made) == []
    assert any("[ups]" in line and "when the driver next stops" in line for line in made.deferred)
    # for ever, if both work
    host.now += 10_000
    assert told(host.plan(CPS, CPS_TWIN, ups2={"unit": RUNS, "status": ("OL",), "error": ""})) == []


def test_failing_driver_of_twin_pins_both() -> None:
    host = with_twin()
    host.now += BACKOFF
    made = host.plan(CPS, CPS_TWIN, ups2={"unit": RUNS})
    assert told(made) == ["stop ups", "write", ENUMERATE, "start ups", "restart ups2"]
    assert made.conf is not None
    assert "busport" in keys(made.conf.sections["ups"])


def test_pins_are_set_when_driver_stops() -> None:
    host = with_twin()
    host.now += BACKOFF
    made = host.plan(CPS, CPS_TWIN, ups={**MUTE, "unit": FAILED}, ups2={"unit": RUNS, "status": ("OL",), "error": ""})
    assert told(made) == ["write", ENUMERATE, "start ups"]


def test_other_changes_than_pins_do_not_wait() -> None:
    host = with_twin()
    host.now += BACKOFF
    host.known = replace(host.known, wanted=conf(AUTO.replace('"5"', '"9"')))
    assert told(host.plan(CPS, CPS_TWIN))[:1] == ["stop ups"]


# A driver that found its UPS before we did


def by_itself(*upses: UsbUps) -> Host:
    """A host whose UPS was absent when it was deployed, and was then found by the driver's own next try."""
    host = Host()
    host.settle()
    host.now += 100
    fresh = {
        "unit": RUNS,
        "status": ("OL",),
        "error": "",
        "plugged_since": host.now,
        "silent_since": host.now,
        "is_new_device": True,
    }
    host.seen["ups"] = replace(host.seen["ups"], **fresh)
    made = host.plan(*upses)
    assert not [one for one in told(made) if one.endswith(" ups")]
    host.apply(made, *upses)
    return host


def test_driver_that_found_ups_first_is_not_restarted() -> None:
    host = by_itself(APC)
    assert "vendorid" not in keys(host.known.conf.sections["ups"])
    host.now += 10_000
    assert told(host.plan(APC, ups={"is_new_device": False})) == []


def test_stopped_driver_gets_pinned_section() -> None:
    host = by_itself(APC)
    made = host.plan(APC, ups={**MUTE, "unit": FAILED})
    assert told(made)[0] == "write"
    assert made.conf is not None
    assert keys(made.conf.sections["ups"])["vendorid"] == "051d"


def test_driver_may_have_found_the_twin() -> None:
    """Two were plugged in at once: who has which shows when the other driver gets nothing."""
    host = by_itself(APC, CPS)
    assert "ups2" in host.known.conf.sections
    host.seen["ups2"] = DriverState(RUNS, (), "DRIVER-NOT-CONNECTED", host.now, host.now)
    assert told(host.plan(APC, CPS)) == []
    host.now += BACKOFF
    assert told(host.plan(APC, CPS))[:2] == ["stop ups", "write"]


def test_swapped_ups_is_not_the_one_driver_has() -> None:
    host = by_itself(APC)
    host.now += 100
    swapped = {"plugged_since": host.now, "is_new_device": True}
    # upsd may still say what the other one said last
    assert told(host.plan(CPS, ups=swapped))[:2] == ["stop ups", "write"]


def test_crashing_driver_is_restarted_less_and_less_often() -> None:
    host = Host()
    host.settle(APC)
    ended = {**MUTE, "unit": ENDED, "silent_since": host.now}
    tried = []
    for _second in range(400):
        if told(host.plan(APC, ups=ended)):
            tried.append(host.now - NOW)
        host.now += 1
    assert tried == [0, BACKOFF, 3 * BACKOFF, 7 * BACKOFF, 15 * BACKOFF]


# Found first, declared later


def test_short_absence_does_not_change_section() -> None:
    host = Host(TWO, release=R80)
    host.settle(CPS, CPS_TWIN)
    made = host.plan(CPS, spare={**GONE, "silent_since": NOW - 5})
    assert (told(made), dict(made.waits)) == ([], {"spare": NOW - 5 + DUMMY_AFTER})
    made = host.plan(CPS, spare={**GONE, "silent_since": NOW - DUMMY_AFTER})
    assert told(made) == ["stop spare", "write", ENUMERATE]


# Stand-ins

DUMMIES = UsbPolicy(absent="dummy")


def is_dummy(made: HotplugPlan, name: str = "ups") -> bool:
    return made.conf is not None and made.conf.sections[name].keys[:2] == (
        ("driver", "dummy-ups"),
        ("port", "nut-hotplug-absent.dev"),
    )


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (("OL",), True),
        (("OL", "CHRG"), True),
        (("OB", "DISCHRG"), False),
        (("OL", "LB"), False),
        (("FSD", "OL"), False),
        (("OFF",), False),
        ((), False),
    ],
)
def test_stand_in_requires_last_status_on_mains(last: tuple[str, ...], expected: bool) -> None:
    host = Host(policy=DUMMIES)
    host.settle(APC)
    made = host.plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "last_status": last})
    assert is_dummy(made) is expected
    assert told(made) == (["stop ups", "write", ENUMERATE, "start ups", RELOAD] if expected else [])
    assert bool(made.deferred) is not expected


def test_stand_in_appears_after_delay() -> None:
    host = Host(policy=DUMMIES)
    host.settle(APC)
    made = host.plan(ups=GONE)
    assert (told(made), dict(made.waits)) == ([], {"ups": NOW - 5 + DUMMY_AFTER})
    # the driver has not noticed
    assert told(host.plan(ups={"plugged_since": None, "status": ("OL",), "error": "", "silent_since": NOW - 99})) == []


def test_stand_in_for_ups_never_plugged_in() -> None:
    host = Host(policy=DUMMIES)
    host.settle()
    made = host.plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "unit": WAITING, "last_status": ()})
    assert is_dummy(made)
    assert made.conf is not None
    assert keys(made.conf.sections["ups"])["desc"] == "Rack"
    # its pins say that there was one, when the state is lost
    host = Host(policy=DUMMIES)
    host.settle(APC)
    host.known = replace(host.known, memory={}, written={})
    assert not host.plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "last_status": ()})


def test_no_stand_in_for_unpinned_ups_without_status() -> None:
    host = Host(policy=DUMMIES)
    host.settle(replace(POWERCOM, driver="richcomm_usb"))
    assert "vendorid" not in keys(host.known.conf.sections["ups"])
    made = host.plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "last_status": ()})
    assert (told(made), bool(made.deferred)) == ([], True)


def test_no_stand_in_for_fixed_section_or_unknown_power() -> None:
    host = Host(policy=DUMMIES)
    host.settle(APC)
    gone = {**GONE, "silent_since": NOW - DUMMY_AFTER}
    assert not host.plan(power=["x (OB)"], ups=gone)
    assert not host.plan(power=None, ups=gone)
    host = Host('[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n', policy=DUMMIES)
    host.settle(APC)
    assert not host.plan(ups=gone)


def stood_in(*upses: UsbUps, policy: UsbPolicy = DUMMIES) -> Host:
    host = Host(policy=DUMMIES)
    host.settle(*upses)
    host.apply(host.plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "last_status": ("OL",)}))
    assert usb_sections.is_dummy(host.known.conf.sections["ups"])
    host.seen["ups"] = DriverState(RUNS, ("OL",), "", NOW, None, last_status=("OL",))
    host.policy = policy
    return host


def test_stand_in_stays_until_ups_is_plugged_in() -> None:
    host = stood_in(APC)
    assert (host.resolve().absent, told(host.plan())) == (("ups",), [])
    made = host.plan(APC, ups={"plugged_since": NOW, "is_new_device": True})
    assert told(made) == ["stop ups", "write", ENUMERATE, "start ups", RELOAD]
    assert made.conf is not None
    assert keys(made.conf.sections["ups"])["serial"] == "5B1234T56789"
    assert told(host.plan(APC, power=["x (OB)"])) == []


def test_stand_in_can_be_taken_over() -> None:
    assert list(stood_in(APC).resolve(CPS).plugged) == ["ups"]


def test_stand_in_goes_if_policy_changes() -> None:
    host = stood_in(APC, policy=DEFAULT)
    section = host.resolve().conf.sections["ups"]
    assert section.keys[:2] == (("driver", "usbhid-ups"), ("port", "auto"))
    assert keys(section)["vendorid"] == "051d"
    assert told(host.plan()) == ["stop ups", "write", ENUMERATE, RELOAD]


# Settings, marks, order


def test_accessible_node_gets_no_permit() -> None:
    host = Host()
    host.settle(LOCKED)
    host.known = replace(host.known, wanted=conf(AUTO.replace("Rack", "Cellar")))
    assert told(host.plan(LOCKED)) == ["stop ups", "write", ENUMERATE, "start ups", RELOAD]


def test_changed_mark_alone_restarts_nothing() -> None:
    host = Host(None)
    host.settle(APC)
    found = host.known.conf.sections["ups"]
    host.known = replace(host.known, wanted=UpsConf((), {"ups": Section("ups", (("driver", "auto"),))}))
    made = host.plan(APC)
    assert (told(made), made.found) == (["write"], frozenset())
    assert made.conf is not None
    assert made.conf.sections["ups"] == found
    made = host.plan(APC, power=["x (OB)"])
    assert (made.conf, made.found) == (None, {"ups"})


def test_removed_section_runs_enumerator() -> None:
    host = Host(None)
    host.settle(APC)
    host.known = replace(host.known, wanted=conf(AUTO.replace("ups", "UPS")))
    made = host.plan(APC)
    assert told(made) == ["stop ups", "write", ENUMERATE, RELOAD]
    assert "[ups] was removed" in made.after[0].reason
    made = host.plan(APC, power=["x (OB)"])
    assert (told(made), bool(made.deferred)) == ([], True)


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
    knowns(),
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
        assert not [one for one in acts if one.unit in running]
    if power:
        assert made.conf is None
        assert not [one for one in acts if one.unit.startswith("nut-driver-enumerator") or one.verb == "reload"]
    for name in res.fixed:
        # one that is not in the file yet may have to wait
        if made.conf is not None and name in made.conf.sections:
            assert made.conf.sections[name] in (was.conf.sections.get(name), res.conf.sections[name])
    if made.conf is not None:
        text = compose_text("# Header", made.conf, made.found)
        assert (ups_conf.parse_ups_conf(text), found_sections(text)) == (made.conf, made.found)
    assert len({(one.verb, one.unit) for one in acts}) == len(acts)
    assert all(until > NOW for until in made.waits.values())
    assert all(line.isprintable() for line in (*made.deferred, *(one.reason for one in acts)))
    assert all(count.count for count in made.tries.values())


@given(knowns(), BUSES, POLICIES, RELEASES)
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
        written = noted(was, now, res)
        was = KnownUpses(was.wanted, now, made.found if made.conf else was.found, res.memory, written)
    assert told(made) == []
