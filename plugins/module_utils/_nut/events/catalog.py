# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The events of power protection, as data: what each means, how grave it is, and what to do about it.

Whoever knows of an event on a host reports it with report.py. notify/ records and delivers them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

DETAIL, INFO, WARNING, CRITICAL = "detail", "info", "warning", "critical"
SEVERITIES = (DETAIL, INFO, WARNING, CRITICAL)
"""From the least to the gravest."""


class Kind(NamedTuple):
    """What all events of a name have in common."""

    severity: str
    topic: str  # events of one topic, about one subject, undo or repeat each other
    title: str  # with {} for the subject
    advice: str = ""  # what to do, or what happens next


_PLUG = "Check its USB cable. `nut-hotplug status` shows what this host sees."

KINDS: Mapping[str, Kind] = {
    # power and the UPS, from upsmon
    "mains-failed": Kind(WARNING, "mains", "Mains failed: {} is on battery"),
    "mains-returned": Kind(INFO, "mains", "Mains are back: {}"),
    "battery-low": Kind(CRITICAL, "battery", "Battery low: {}", "The shutdown begins now."),
    "fsd": Kind(CRITICAL, "shutdown", "Shutdown of everything on {}", "All machines on this UPS shut down now."),
    "host-shutdown": Kind(CRITICAL, "shutdown-host", "{} is shutting down"),
    "data-lost": Kind(WARNING, "data", "No data from {}", _PLUG),
    "data-returned": Kind(INFO, "data", "Data from {} again"),
    "ups-unavailable": Kind(WARNING, "unavailable", "{} is unavailable", _PLUG),
    "battery-replace": Kind(WARNING, "replace", "{} needs a new battery", "Replace the battery, then test it."),
    "calibration-begun": Kind(
        INFO, "calibration", "{} is calibrating", "Until it ends, a power cut is more dangerous."
    ),
    "calibration-ended": Kind(INFO, "calibration", "{} has ended its calibration"),
    "ups-off": Kind(CRITICAL, "off", "{} is off", "Its outlets have no power, or lose it soon."),
    "ups-on": Kind(INFO, "off", "{} is on again"),
    "bypass-begun": Kind(WARNING, "bypass", "{} is on bypass", "Its battery protects nothing while this lasts."),
    "bypass-ended": Kind(INFO, "bypass", "{} has left bypass"),
    "overload-begun": Kind(CRITICAL, "overload", "{} is overloaded", "Disconnect something, or it switches off."),
    "overload-ended": Kind(INFO, "overload", "{} is no longer overloaded"),
    "alarm-begun": Kind(WARNING, "alarm", "{} has an alarm", "`upsc UPS ups.alarm` shows it."),
    "alarm-ended": Kind(INFO, "alarm", "{} has no alarm any more"),
    "upsmon-broken": Kind(CRITICAL, "upsmon", "{} can't shut down", "Restart upsmon: systemctl restart nut-monitor"),
    # the gate of the primary
    "gate-begun": Kind(CRITICAL, "gate", "{} waits for the other machines, then powers off"),
    "machine-down": Kind(INFO, "machine", "{} is down"),
    "machine-given-up": Kind(CRITICAL, "machine", "{} did not go down", "It loses power while it is running."),
    "gate-ended": Kind(CRITICAL, "gate", "{} powers off now"),
    "host-returned": Kind(INFO, "returned", "{} is up again", "`make status` shows which machines are back."),
    # the stages
    "stage-begun": Kind(WARNING, "stage", "Stage {} begins"),
    "guest-down": Kind(DETAIL, "guest", "{} is down"),
    "guest-stuck": Kind(WARNING, "guest", "{} did not shut down in time"),
    "guest-running": Kind(DETAIL, "guest", "{} is running again"),
    "guest-not-started": Kind(WARNING, "guest", "{} is not running again"),
    # the return after an outage, from the stages
    "return-complete": Kind(INFO, "return", "{}: the return from the outage is complete"),
    "return-incomplete": Kind(
        WARNING, "return", "{}: the return from the outage is incomplete", "Switch on by hand what is missing."
    ),
    # nut-hotplug
    "ups-found": Kind(INFO, "plug", "{} is plugged in"),
    "ups-lost": Kind(WARNING, "plug", "{} is not plugged in any more", _PLUG),
    "ups-swapped": Kind(WARNING, "plug", "{} is another UPS now", "`make plan` shows whether its battery suffices."),
    "driver-restarted": Kind(DETAIL, "driver", "The driver of {} was restarted"),
    "change-deferred": Kind(WARNING, "deferred", "nut-hotplug waits on {}", "`nut-hotplug status` shows for what."),
    "deferral-over": Kind(INFO, "deferred", "nut-hotplug waits no longer on {}"),
    "change-failed": Kind(WARNING, "failed", "nut-hotplug failed on {}", "`nut-hotplug status` shows more."),
    "fault-found": Kind(WARNING, "fault", "Doubtful data on {}"),
    "fault-over": Kind(INFO, "fault", "No doubtful data on {} any more"),
    # notifications
    "test": Kind(INFO, "test", "Test message of {}", "Nothing has happened."),
    "events-dropped": Kind(WARNING, "dropped", "Events of upsmon were dropped on {}", "See journalctl -u nut-notify."),
}
"""Name of an event -> what it means. The names are an interface: users choose events by them."""

OF_UPSMON: Mapping[str, str] = {
    "ONBATT": "mains-failed",
    "ONLINE": "mains-returned",
    "LOWBATT": "battery-low",
    "FSD": "fsd",
    "SHUTDOWN": "host-shutdown",
    "COMMBAD": "data-lost",
    "COMMOK": "data-returned",
    "NOCOMM": "ups-unavailable",
    "REPLBATT": "battery-replace",
    "NOPARENT": "upsmon-broken",
    "CAL": "calibration-begun",
    "NOTCAL": "calibration-ended",
    "OFF": "ups-off",
    "NOTOFF": "ups-on",
    "BYPASS": "bypass-begun",
    "NOTBYPASS": "bypass-ended",
    "OVER": "overload-begun",
    "NOTOVER": "overload-ended",
    "ALARM": "alarm-begun",
    "NOTALARM": "alarm-ended",
}
"""upsmon's NOTIFYTYPE -> name of the event."""


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    name: str  # one of KINDS
    subject: str  # the UPS, machine, stage or guest, in the words of its owner
    text: str  # what happened, in a sentence; may be empty
    at: float  # seconds since 1970
    source: str  # who reported it: gate, stages, hotplug, upsmon, notify

    def __post_init__(self) -> None:
        """Refuse an event that this release does not know. Raise ValueError."""
        if self.name not in KINDS:
            raise ValueError("it is no event of this release")

    @property
    def kind(self) -> Kind:
        """Return what its name means."""
        return KINDS[self.name]

    @property
    def title(self) -> str:
        """Return its headline."""
        return self.kind.title.format(self.subject)


def is_at_least(severity: str, least: str) -> bool:
    """Return whether a severity is as grave as another, or graver."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)
