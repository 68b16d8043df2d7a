# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nut-hotplug does about UPSes of one model, and about a driver that found its UPS first."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decide import (
    DUMMY_AFTER,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decision import DriverState
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.memory import BACKOFF
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    APC,
    AUTO,
    CPS,
    CPS_TWIN,
    ENDED,
    ENUMERATE,
    FAILED,
    GONE,
    MUTE,
    NOW,
    R80,
    RUNS,
    TWO,
    WAITING,
    NamedHost,
    list_steps,
    parse_conf,
    section_keys,
)

# Twins


def with_twin() -> NamedHost:
    """Return a host with a working UPS whose twin has just been plugged in."""
    host = NamedHost()
    host.settle_names(CPS)
    host.apply_plan(host.make_plan(CPS, CPS_TWIN), CPS, CPS_TWIN)
    host.seen["ups2"] = DriverState(WAITING, (), "DRIVER-NOT-CONNECTED", NOW, NOW)
    return host


def test_new_twin_does_not_disturb_working_driver() -> None:
    host = with_twin()
    assert "busport" in section_keys(host.known.conf.sections["ups2"])
    assert "busport" not in section_keys(host.known.conf.sections["ups"])
    assert "busport" in section_keys(host.resolve_names(CPS, CPS_TWIN).conf.sections["ups"])
    made = host.make_plan(CPS, CPS_TWIN)
    assert list_steps(made) == []
    assert any("[ups]" in line and "when the driver next stops" in line for line in made.deferred)
    # permanently, if both work
    host.now += 10_000
    assert list_steps(host.make_plan(CPS, CPS_TWIN, ups2={"unit": RUNS, "status": ("OL",), "error": ""})) == []


def test_failing_driver_of_twin_pins_both() -> None:
    host = with_twin()
    host.now += BACKOFF
    made = host.make_plan(CPS, CPS_TWIN, ups2={"unit": RUNS})
    assert list_steps(made) == ["stop ups", "write", ENUMERATE, "start ups", "restart ups2"]
    assert made.conf is not None
    assert "busport" in section_keys(made.conf.sections["ups"])


def test_pins_are_set_when_driver_stops() -> None:
    host = with_twin()
    host.now += BACKOFF
    made = host.make_plan(
        CPS, CPS_TWIN, ups={**MUTE, "unit": FAILED}, ups2={"unit": RUNS, "status": ("OL",), "error": ""}
    )
    assert list_steps(made) == ["write", ENUMERATE, "start ups"]


def test_other_changes_than_pins_do_not_wait() -> None:
    host = with_twin()
    host.now += BACKOFF
    host.known = replace(host.known, wanted=parse_conf(AUTO.replace('"5"', '"9"')))
    assert list_steps(host.make_plan(CPS, CPS_TWIN))[:1] == ["stop ups"]


# A driver that found its UPS before nut-hotplug did


def by_itself(*upses: UsbUps) -> NamedHost:
    """Return a host that was deployed without its UPS, which the driver then found by itself."""
    host = NamedHost()
    host.settle_names()
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
    made = host.make_plan(*upses)
    assert not [step for step in list_steps(made) if step.endswith(" ups")]
    host.apply_plan(made, *upses)
    return host


def test_driver_that_found_ups_first_is_not_restarted() -> None:
    host = by_itself(APC)
    assert "vendorid" not in section_keys(host.known.conf.sections["ups"])
    host.now += 10_000
    assert list_steps(host.make_plan(APC, ups={"is_new_device": False})) == []


def test_stopped_driver_gets_pinned_section() -> None:
    host = by_itself(APC)
    made = host.make_plan(APC, ups={**MUTE, "unit": FAILED})
    assert list_steps(made)[0] == "write"
    assert made.conf is not None
    assert section_keys(made.conf.sections["ups"])["vendorid"] == "051d"


def test_driver_may_have_found_the_twin() -> None:
    """Two UPSes were plugged in at once. The failing second driver shows that the first has the wrong one."""
    host = by_itself(APC, CPS)
    assert "ups2" in host.known.conf.sections
    host.seen["ups2"] = DriverState(RUNS, (), "DRIVER-NOT-CONNECTED", host.now, host.now)
    assert list_steps(host.make_plan(APC, CPS)) == []
    host.now += BACKOFF
    assert list_steps(host.make_plan(APC, CPS))[:2] == ["stop ups", "write"]


def test_swapped_ups_is_not_the_one_driver_has() -> None:
    host = by_itself(APC)
    host.now += 100
    swapped = {"plugged_since": host.now, "is_new_device": True}
    # upsd may still have the data of the other UPS
    assert list_steps(host.make_plan(CPS, ups=swapped))[:2] == ["stop ups", "write"]


def test_crashing_driver_is_restarted_less_and_less_often() -> None:
    host = NamedHost()
    host.settle_names(APC)
    ended = {**MUTE, "unit": ENDED, "silent_since": host.now}
    tried = []
    for _second in range(400):
        if list_steps(host.make_plan(APC, ups=ended)):
            tried.append(host.now - NOW)
        host.now += 1
    assert tried == [0, BACKOFF, 3 * BACKOFF, 7 * BACKOFF, 15 * BACKOFF]


# Found first, declared later


def test_short_absence_does_not_change_section() -> None:
    host = NamedHost(TWO, release=R80)
    host.settle_names(CPS, CPS_TWIN)
    made = host.make_plan(CPS, spare={**GONE, "silent_since": NOW - 5})
    assert (list_steps(made), dict(made.waits)) == ([], {"spare": NOW - 5 + DUMMY_AFTER})
    made = host.make_plan(CPS, spare={**GONE, "silent_since": NOW - DUMMY_AFTER})
    assert list_steps(made) == ["stop spare", "write", ENUMERATE]
