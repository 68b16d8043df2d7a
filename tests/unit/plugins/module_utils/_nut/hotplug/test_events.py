# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nut-hotplug tells people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.events.report import name_host
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import APC, CPS, HotplugMachine

if TYPE_CHECKING:
    from collections.abc import Callable


class Events:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.texts: list[str] = []

    def __call__(self, name: str, subject: str, text: str = "") -> None:
        self.seen.append((name, subject))
        self.texts.append(text)

    def forget_events(self) -> None:
        self.seen.clear()
        self.texts.clear()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def run(served: HotplugMachine, events: Events) -> Callable[[], list[tuple[str, str]]]:
    """Return a function that runs nut-hotplug and returns the names and subjects of what it told."""

    def run_hotplug() -> list[tuple[str, str]]:
        events.forget_events()
        served.run_hotplug(report_event=events)
        return list(events.seen)

    return run_hotplug


def test_quiet_host_tells_nothing(run: Callable[[], list[tuple[str, str]]]) -> None:
    assert (run(), run()) == ([], [])


def test_ups_that_is_pulled_out_is_lost_once_and_found_again(
    served: HotplugMachine, run: Callable[[], list[tuple[str, str]]], events: Events
) -> None:
    served.bus.unplug_device("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    assert run() == [("ups-lost", "ups")]
    assert run() == []
    served.bus.plug_in("1-2", APC)
    served.status.clear()
    assert run() == [("ups-found", "ups")]
    assert "051d:" in events.texts[0]


def test_other_ups_is_swapped(served: HotplugMachine, run: Callable[[], list[tuple[str, str]]], events: Events) -> None:
    served.bus.unplug_device("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    run()
    served.bus.plug_in("1-1", CPS, serial="CPS123456789")
    served.status.clear()
    assert run()[0] == ("ups-swapped", "ups")
    assert "051d:" in events.texts[0].partition(" and is ")[0]
    assert "0764:" in events.texts[0].partition(" and is ")[2]


def test_reboot_is_no_news(served: HotplugMachine, run: Callable[[], list[tuple[str, str]]]) -> None:
    served.boot = "another boot"
    assert run() == []


def test_restarted_driver_is_told(served: HotplugMachine, run: Callable[[], list[tuple[str, str]]]) -> None:
    served.bus.unplug_device("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    run()
    served.bus.plug_in("1-2", APC)
    served.now += 1
    served.events = [lambda: None] * 46 + [served.status.clear]
    assert run() == [("ups-found", "ups"), ("driver-restarted", "ups")]


def test_deferred_change_is_told_when_it_begins_and_when_it_ends(
    served: HotplugMachine, run: Callable[[], list[tuple[str, str]]]
) -> None:
    served.status["ups"] = "OB DISCHRG"
    served.bus.plug_in("1-2", CPS, serial="CPS123456789")
    assert ("change-deferred", name_host()) in run()
    served.status["ups"] = "OB LB DISCHRG"
    served.now += 60
    assert run() == []
    served.status.clear()
    served.now += 60
    assert ("deferral-over", name_host()) in run()


def test_failed_action_is_told_once(machine: HotplugMachine, events: Events) -> None:
    machine.bus.plug_in("1-1", APC)
    machine.refuses["usbhid-ups"] = "Fatal error: 'x' is not a valid variable name for this driver."
    machine.run_hotplug(report_event=events)
    machine.run_hotplug(report_event=events)
    assert [name for name, _subject in events.seen if name == "change-failed"] == ["change-failed"]
    assert any("'x' is not a valid variable" in text for text in events.texts)
