# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.module_utils._nut.net.danger import (
    Effect,
    find_danger,
    find_danger_of_variable,
)
from ansible_collections.homelab.nut.tests.unit.support.commanded_upsd import CUTS, DRAINS

HARMLESS = [
    *("beeper.enable", "beeper.disable", "beeper.mute", "beeper.toggle", "BEEPER.MUTE", "load.on", "load.on.delay"),
    *("outlet.1.load.on", "outlet.group.2.load.on", "shutdown.stop", "test.battery.stop", "test.panel.start"),
    *("test.failure.stop", "calibrate.stop", "reset.input.minmax"),
]


def test_danger_of_commands() -> None:
    def effect(command: str) -> Effect | None:
        found = find_danger(command)
        assert found is None or found.why
        return found.effect if found else None

    assert {one: effect(one) for one in HARMLESS} == dict.fromkeys(HARMLESS)
    assert {one: effect(one) for one in CUTS} == dict.fromkeys(CUTS, Effect.POWER)
    assert {one: effect(one) for one in DRAINS} == dict.fromkeys(DRAINS, Effect.DRAIN)
    assert effect("test.battery.start.quick") is Effect.BATTERY


SAFE_VARIABLES = [
    *("ups.delay.shutdown", "ups.delay.start", "outlet.1.delay.shutdown", "outlet.delay.start", "battery.charge.low"),
    *(
        "battery.runtime.low",
        "battery.date",
        "ups.id",
        "UPS.ID",
        "ups.test.interval",
        "input.sensitivity",
        "driver.debug",
    ),
]
OTHER_VARIABLES = [
    *("ups.status", "ups.timer.shutdown", "outlet.1.switch", "outlet.1.status", "outlet.2.autoswitch.charge.low"),
    *("driver.flag.allow_killpower", "input.transfer.low", "battery.energysave", "ups.shutdown", "x", "battery.charge"),
    *("ups.delay.shutdown.x", "xups.id"),
]


def test_danger_of_variables() -> None:
    assert [one for one in SAFE_VARIABLES if find_danger_of_variable(one)] == []
    assert [one for one in OTHER_VARIABLES if not find_danger_of_variable(one)] == []
