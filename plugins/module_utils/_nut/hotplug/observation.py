# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One observation of a host and the plan made from it, as data and as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..base import systemd
from ..base.text import printable
from ..conf.directives import Release
from ..conf.redact import redact_text
from ..conf.ups_conf import Section
from ..deploy.change import FileChange, UnitAction, render_lines
from ..usb.bus import UsbDevice, UsbUps
from ..usb.resolution import KnownUpses, NameResolution
from .decision import DriverState, HotplugPlan
from .memory import HotplugState

FAULT_LENGTH = 1200
"""Characters of a line about a fault. It has a remedy in several steps."""


def describe_device(device: UsbDevice) -> str:
    """Return one line that describes a device: ids, manufacturer, product, serial number, port."""
    names = " ".join(part for part in (device.manufacturer, device.product) if part)
    parts = [device.ids, printable(names, 80), f"serial {printable(device.serial, 60)}" if device.serial else ""]
    return " ".join(part for part in [*parts, f"at {printable(device.place or device.name, 80)}"] if part)


def diff_ups_conf(before: str, after: str, path: str = "/etc/nut/ups.conf") -> str:
    """Return a unified diff of ups.conf without secrets."""
    return render_lines(
        FileChange("ups.conf", Path(path), before, after, partial(redact_text, "ups.conf")).diff_lines()
    )


@dataclass(frozen=True)
class HotplugObservation:
    """One observation of a host, and the plan made from it."""

    bus_text: str  # quiet.describe_bus() before anything else was read
    files: Mapping[str, str]  # path -> quiet.identify_file() before the files were read
    time: float  # CLOCK_BOOTTIME
    release: Release | None
    devices: tuple[UsbDevice, ...]
    upses: tuple[UsbUps, ...]
    known: KnownUpses
    resolution: NameResolution
    drivers: Mapping[str, DriverState]
    server: systemd.Unit
    plan: HotplugPlan
    owed: tuple[UnitAction, ...]  # left undone by an interrupted run, and can't be done now either
    not_on_mains: tuple[str, ...]  # the UPSes that are not plainly on mains
    state: HotplugState  # to be saved for the next run
    path: Path  # of ups.conf
    old_text: str  # the ups.conf that is there
    new_text: str | None  # the new one; None if it stays
    missing_files: tuple[str, ...]  # other files that NUT needs and that do not exist
    remarks: tuple[str, ...]  # notes for the user
    is_incomplete: bool  # something could not be observed and should be tried again

    @property
    def has_changes(self) -> bool:
        """Return whether the plan would change anything on the host."""
        return self.new_text is not None or bool(self.plan or self.missing_files)

    @property
    def faults(self) -> tuple[str, ...]:
        """Return the drivers whose data are not those of their UPS, one line each, with the remedy."""
        return tuple(printable(line, FAULT_LENGTH) for line in self.plan.faults)

    @property
    def steps(self) -> tuple[str, ...]:
        """Return the steps of the plan, one line each."""
        permits = [f"give NUT access to {printable(node)}: {reason}" for node, reason in self.plan.permits]
        written = (
            [f"write {self.path}: {why}" for why in self.changed_sections().values()]
            if self.new_text is not None
            else []
        )
        lines = [*permits, *map(str, self.plan.before), *written, *map(str, self.plan.after)]
        return tuple(printable(line, 500) for line in lines)

    def render_diff(self) -> str:
        """Return a unified diff of ups.conf without secrets; "" if it stays."""
        if self.new_text is None:
            return ""
        return diff_ups_conf(self.old_text, self.new_text, str(self.path))

    @property
    def deferred(self) -> dict[str, float]:
        """Return what is postponed -> since when, in seconds since 1970; 0.0 if since this observation."""
        since = {strip_numbers(line): moment for line, moment in self.state.deferred.items()}
        return {line: since.get(strip_numbers(line), 0.0) for line in self.plan.deferred}

    def changed_sections(self) -> dict[str, str]:
        """Return name -> description, for each section that the plan adds, changes or removes. "" stands for the global settings."""
        conf, current = self.plan.conf, self.known.conf
        if conf is None:
            return {}
        descriptions = {
            name: self._describe_section(name, section)
            for name, section in conf.sections.items()
            if current.sections.get(name) != section
        }
        descriptions |= {name: f"[{name}] is removed" for name in current.sections if name not in conf.sections}
        return descriptions or {"": "sections unchanged; global settings taken from ups.conf.wanted"}

    def _describe_section(self, name: str, section: Section) -> str:
        driver = dict(section.keys).get("driver")
        plugged = self.resolution.plugged.get(name)
        if plugged is None:
            return f"[{name}] has driver {driver}; its UPS is not plugged in"
        return f"[{name}] is {describe_device(plugged.device)}, driver {driver} ({plugged.why})"


def strip_all_numbers(line: str) -> str:
    """Return a line about a fault without what changes between runs while the fault stays."""
    return re.sub("[0-9]+", "#", line)


def strip_numbers(line: str) -> str:
    """Return the part of a "deferred" line that does not change between runs: without the reason and without numbers."""
    return re.sub("[0-9]+", "#", line.partition(": ")[0])
