# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When dummy-ups stands in for a UPS that is not plugged in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decide import (
    DUMMY_AFTER,
    DriverState,
    HotplugPlan,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import sections as usb_sections
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    APC,
    CPS,
    DEFAULT,
    ENUMERATE,
    GONE,
    NOW,
    POWERCOM,
    RELOAD,
    RUNS,
    WAITING,
    Host,
    keys,
    told,
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
    # if the state is lost, the pins show that a UPS was plugged in before
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
