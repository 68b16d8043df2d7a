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


def test_effect_of_each_command_is_known() -> None:
    def effect(command: str) -> Effect | None:
        danger = find_danger(command)
        assert danger is None or danger.why
        return danger.effect if danger else None

    assert {command: effect(command) for command in HARMLESS} == dict.fromkeys(HARMLESS)
    assert {command: effect(command) for command in CUTS} == dict.fromkeys(CUTS, Effect.POWER)
    assert {command: effect(command) for command in DRAINS} == dict.fromkeys(DRAINS, Effect.DRAIN)
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


def test_only_safe_variables_are_harmless() -> None:
    assert [name for name in SAFE_VARIABLES if find_danger_of_variable(name)] == []
    assert [name for name in OTHER_VARIABLES if not find_danger_of_variable(name)] == []
