# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When dummy-ups stands in for a UPS that is not plugged in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decide import (
    DUMMY_AFTER,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decision import DriverState, HotplugPlan
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.memory import Tries
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import sections as usb_sections
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    APC,
    CPS,
    DEFAULT,
    ENUMERATE,
    FAILED,
    GONE,
    MUTE,
    NOW,
    POWERCOM,
    RELOAD,
    RUNS,
    WAITING,
    NamedHost,
    list_steps,
    section_keys,
)

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
    host = NamedHost(policy=DUMMIES)
    host.settle_names(APC)
    made = host.make_plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "last_status": last})
    assert is_dummy(made) is expected
    assert list_steps(made) == (["stop ups", "write", ENUMERATE, "start ups", RELOAD] if expected else [])
    assert bool(made.deferred) is not expected


def test_stand_in_appears_after_delay() -> None:
    host = NamedHost(policy=DUMMIES)
    host.settle_names(APC)
    made = host.make_plan(ups=GONE)
    assert (list_steps(made), dict(made.waits)) == ([], {"ups": NOW - 5 + DUMMY_AFTER})
    # the driver has not noticed
    assert (
        list_steps(
            host.make_plan(ups={"plugged_since": None, "status": ("OL",), "error": "", "silent_since": NOW - 99})
        )
        == []
    )


def test_stand_in_for_ups_never_plugged_in() -> None:
    host = NamedHost(policy=DUMMIES)
    host.settle_names()
    made = host.make_plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "unit": WAITING, "last_status": ()})
    assert is_dummy(made)
    assert made.conf is not None
    assert section_keys(made.conf.sections["ups"])["desc"] == "Rack"
    # if the state is lost, the pins show that a UPS was plugged in before
    host = NamedHost(policy=DUMMIES)
    host.settle_names(APC)
    host.known = replace(host.known, memory={}, written={})
    assert not host.make_plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "last_status": ()})


def test_no_stand_in_for_unpinned_ups_without_status() -> None:
    host = NamedHost(policy=DUMMIES)
    host.settle_names(replace(POWERCOM, driver="richcomm_usb"))
    assert "vendorid" not in section_keys(host.known.conf.sections["ups"])
    made = host.make_plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "last_status": ()})
    assert (list_steps(made), bool(made.deferred)) == ([], True)


def test_no_stand_in_for_fixed_section_or_unknown_power() -> None:
    host = NamedHost(policy=DUMMIES)
    host.settle_names(APC)
    gone = {**GONE, "silent_since": NOW - DUMMY_AFTER}
    assert not host.make_plan(power=["x (OB)"], ups=gone)
    assert not host.make_plan(power=None, ups=gone)
    host = NamedHost('[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n', policy=DUMMIES)
    host.settle_names(APC)
    assert not host.make_plan(ups=gone)


def stood_in(*upses: UsbUps, policy: UsbPolicy = DUMMIES) -> NamedHost:
    host = NamedHost(policy=DUMMIES)
    host.settle_names(*upses)
    host.apply_plan(host.make_plan(ups={**GONE, "silent_since": NOW - DUMMY_AFTER, "last_status": ("OL",)}))
    assert usb_sections.is_dummy(host.known.conf.sections["ups"])
    host.seen["ups"] = DriverState(RUNS, ("OL",), "", NOW, None, last_status=("OL",))
    host.policy = policy
    return host


def test_stand_in_stays_until_ups_is_plugged_in() -> None:
    host = stood_in(APC)
    assert (host.resolve_names().absent, list_steps(host.make_plan())) == (("ups",), [])
    made = host.make_plan(APC, ups={"plugged_since": NOW, "is_new_device": True})
    assert list_steps(made) == ["stop ups", "write", ENUMERATE, "start ups", RELOAD]
    assert made.conf is not None
    assert section_keys(made.conf.sections["ups"])["serial"] == "5B1234T56789"
    assert list_steps(host.make_plan(APC, power=["x (OB)"])) == []


ENDS = ["stop ups", "write", ENUMERATE, "start ups", RELOAD]


def test_stand_in_ends_at_once_however_often_its_ups_is_unplugged() -> None:
    host = stood_in(APC)
    for number in range(6):
        host.now += 5
        device = replace(APC, device=replace(APC.device, device=20 + number))
        made = host.make_plan(device, ups={"plugged_since": host.now, "is_new_device": True})
        assert (list_steps(made), dict(made.waits)) == (ENDS, {}), number
        assert host.tries["ups"] == Tries(1, host.now)
        host.apply_plan(made, device)
        fresh = {
            "status": ("OL",),
            "error": "",
            "silent_since": host.now,
            "last_status": ("OL",),
            "is_new_device": False,
        }
        assert list_steps(host.make_plan(device, ups=fresh)) == []
        host.now += DUMMY_AFTER
        gone = {"status": (), "error": "DATA-STALE", "plugged_since": None, "silent_since": host.now - DUMMY_AFTER}
        made = host.make_plan(ups=gone)
        assert is_dummy(made), number
        host.apply_plan(made)
        host.make_plan(ups={"status": ("WAIT",), "error": "", "silent_since": host.now})


def test_driver_that_fails_after_its_stand_in_is_restarted_with_backoff() -> None:
    host = stood_in(APC)
    host.tries = {"ups": Tries(5, NOW - 5)}
    host.apply_plan(host.make_plan(APC, ups={"plugged_since": NOW, "is_new_device": True}), APC)
    gaps = []
    host.make_plan(APC, ups={**MUTE, "unit": FAILED, "is_new_device": False, "silent_since": NOW})
    for _unused in range(3):
        started = host.now
        host.now = host.make_plan(APC).waits["ups"]
        gaps.append(host.now - started)
        assert list_steps(host.make_plan(APC)) == ["start ups"]
    assert gaps == [15, 30, 60]


def test_new_section_of_stand_in_waits_for_attempts_with_the_same_ups() -> None:
    """The stand-in did not end: that was postponed, or a person has written it again."""
    host = stood_in(APC)
    host.tries = {"ups": Tries(3, NOW - 5)}
    made = host.make_plan(APC, ups={"plugged_since": NOW - 20, "is_new_device": False})
    assert (list_steps(made), dict(made.waits)) == ([], {"ups": NOW - 5 + 60})
    # it was plugged in after the last attempt, but not ended because of another UPS
    assert list_steps(host.make_plan(APC, power=["x (OB)"], ups={"plugged_since": NOW - 2})) == []
    assert list_steps(host.make_plan(APC)) == ENDS


def test_stand_in_can_be_taken_over() -> None:
    assert list(stood_in(APC).resolve_names(CPS).plugged) == ["ups"]


def test_stand_in_goes_if_policy_changes() -> None:
    host = stood_in(APC, policy=DEFAULT)
    section = host.resolve_names().conf.sections["ups"]
    assert section.keys[:2] == (("driver", "usbhid-ups"), ("port", "auto"))
    assert section_keys(section)["vendorid"] == "051d"
    assert list_steps(host.make_plan()) == ["stop ups", "write", ENUMERATE, RELOAD]
