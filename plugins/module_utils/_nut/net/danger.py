# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each order may do to the power of the machines on a UPS. An order counts as dangerous unless known to be harmless."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Effect(enum.Enum):
    """What an order may do to the battery, or to the power of the machines on the UPS."""

    BATTERY = "battery"  # uses the battery for some seconds
    DRAIN = "drain"  # may empty the battery
    POWER = "power"  # may cut the power


@dataclass(frozen=True)
class Danger:
    """What an order may do, and the reason."""

    effect: Effect
    why: str


_OUTLET = r"(outlet(\.group)?\.[0-9]+\.)?"

# From docs/nut-names.txt and data/cmdvartab of 2.8.1. Deliberately not listed: bypass.stop (a faulty inverter drops the load),
# reset.watchdog (a running watchdog reboots the load), test.system.start and test.failure.start (undocumented; to all hosts the
# second one is a power cut), driver.* (a driver that does not come back counts as lost).
_HARMLESS = re.compile(
    r"beeper\.(enable|disable|mute|toggle|on|off)"
    rf"|{_OUTLET}load\.on(\.delay)?"
    rf"|{_OUTLET}shutdown\.stop"
    r"|test\.panel\.(start|stop)"
    r"|test\.(battery|failure)\.stop"
    r"|calibrate\.stop"
    r"|reset\.input\.minmax"
)

_WHY = (
    (r".*load\.(off|cycle).*", "it switches the load off"),
    (r".*shutdown\..*", "it lets the UPS cut the power"),
    (r"bypass\..*", "with the bypass on, and while it switches, the battery protects nothing"),
    (r"driver\.killpower", "it lets the UPS cut the power"),
    (r"driver\..*", "a driver that does not come back counts as lost, and on battery that shuts down the hosts"),
    (r"test\.failure\.start", "all hosts take it for a power cut, and shut down"),
    (r"reset\.watchdog", "a running watchdog reboots the load unless it is reset again"),
)

_DRAIN = {
    "test.battery.start": "NUT does not define which test this is: it may be a deep one",
    "test.battery.start.deep": "a deep test empties the battery until it is low",
    "calibrate.start": "a calibration empties the battery until it is low",
}

_AFTER = (
    "; if the mains fail then or soon after, no charge is left,"
    " and if the UPS reports OB without CAL, all hosts shut down as in a power cut"
)

# Variables for everyday use that cut no power: delays of a shutdown that something else starts, the thresholds for LB, names
# and dates, the test interval, the beeper. Deliberately not listed: ups.timer.* (starts a shutdown), outlet.*.switch and
# *.status (switch outlets), *.autoswitch.* and battery.energysave* (switch off automatically), input.transfer.* (a wrong value
# keeps the UPS on battery), driver.flag.allow_killpower, ups.status (dummy-ups).
_HARMLESS_VARIABLE = re.compile(
    r"(ups|outlet(\.group)?(\.[0-9]+)?)\.delay\.(shutdown|start|reboot)"
    r"|battery\.(charge|runtime)\.(low|warning|restart)"
    r"|battery\.((mfr\.)?date|packs|packs\.external)"
    r"|(ups|device|outlet\.[0-9]+|outlet\.group\.[0-9]+)\.(id|name|desc|description|contact|location)"
    r"|ups\.(date|time|display\.language|contacts)"
    r"|ups\.test\.interval"
    r"|ups\.beeper\.status"
    r"|input\.(sensitivity|quality)"
    r"|driver\.debug"
)


def find_danger(command: str) -> Danger | None:
    """Return what an instant command may do to battery and power; None if it is known to be harmless.

    The case of the command does not matter, as with upsd.
    """
    name = command.lower()
    if _HARMLESS.fullmatch(name):
        return None
    if name == "test.battery.start.quick":
        return Danger(Effect.BATTERY, "it puts the load on the battery for some seconds")
    if name in _DRAIN:
        return Danger(Effect.DRAIN, _DRAIN[name] + _AFTER)
    for pattern, why in _WHY:
        if re.fullmatch(pattern, name):
            return Danger(Effect.POWER, why)
    return Danger(Effect.POWER, "it is not one of the commands known to be harmless")


def find_danger_of_variable(name: str) -> Danger | None:
    """Return what setting a variable may do to the power; None if it is known to be harmless."""
    if _HARMLESS_VARIABLE.fullmatch(name.lower()):
        return None
    return Danger(Effect.POWER, "it is not one of the variables known to be harmless")
