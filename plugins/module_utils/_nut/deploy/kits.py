# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our programs on a host as data: nut-hotplug, nut-shutdown, nut-access and nut-notify, each with its files and units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..base import paths, systemd
from ..base.systemd import DRIVER_TEMPLATE, HARDENING, HOTPLUG_TIMER, STAGES, WATCH
from ..base.systemd import HOTPLUG as HOTPLUG_SERVICE


class Place(NamedTuple):
    """The path of a file below the root directory, and its mode and group."""

    path: str
    mode: int = 0o644
    group: str = "root"


@dataclass(frozen=True)
class Kit:
    """One of our programs, with its files and units."""

    name: str
    program: str
    places: Mapping[str, Place]  # all files except the program; the policy comes first, because the others depend on it
    service: str
    always_on: tuple[str, ...] = ()  # units that are enabled and run all the time
    helpers: tuple[str, ...] = ()  # units that are started and stopped together with these
    # unit -> further files whose change requires a restart
    unit_inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()  # files that may be missing
    rules: str = ""  # the file that contains udev rules
    tmpfiles: str = ""  # the file for systemd-tmpfiles
    leftovers: tuple[str, ...] = ()  # further files to remove; the log stays, because you may still want to read it
    sandboxes: Mapping[str, str] = field(default_factory=dict)  # drop-ins that restrict a unit: name -> unit
    hardening_variable: str = ""  # the role's variable that disables them
    secrets: tuple[str, ...] = ()  # files whose text no diff may show

    @property
    def units(self) -> tuple[str, ...]:
        """Return all units of the program."""
        return tuple(dict.fromkeys((*self.always_on, self.service, *self.helpers)))

    @property
    def all_paths(self) -> tuple[str, ...]:
        """Return the paths of the program, if it has one, and of its files."""
        return tuple(filter(None, (self.program, *(place.path for place in self.places.values()))))

    @property
    def remedy(self) -> str:
        """Return what to do about a sandbox that a host can't apply."""
        return f"In a container, enable nesting. To run without sandboxes on this host: {self.hardening_variable}=false"


HOTPLUG_SANDBOX = "nut-hotplug-hardening.conf"

HOTPLUG = Kit(
    name="nut-hotplug",
    program=paths.HOTPLUG_PROGRAM,
    places={
        "hotplug.json": Place(paths.HOTPLUG_POLICY, 0o640, "nut"),
        HOTPLUG_SERVICE: Place(f"{paths.UNITS}/{HOTPLUG_SERVICE}"),
        HOTPLUG_TIMER: Place(f"{paths.UNITS}/{HOTPLUG_TIMER}"),
        HOTPLUG_SANDBOX: Place(f"{paths.UNITS}/{HOTPLUG_SERVICE}.d/{HARDENING}"),
        "63-nut-hotplug.rules": Place("etc/udev/rules.d/63-nut-hotplug.rules"),
        "logrotate": Place("etc/logrotate.d/nut-hotplug"),
    },
    service=HOTPLUG_SERVICE,
    always_on=(HOTPLUG_TIMER,),
    optional=(HOTPLUG_SANDBOX,),
    sandboxes={HOTPLUG_SANDBOX: HOTPLUG_SERVICE},
    hardening_variable="nut_hotplug_hardening",
    rules="63-nut-hotplug.rules",
    leftovers=(paths.HOTPLUG_PROGRAM, "run/nut-hotplug.quiet", paths.HOTPLUG_FOLDER),
)

GATE = systemd.GATE
MONITOR = "nut-monitor.conf"
SERVER = "nut-server.conf"
# holds the guests at boot until the battery is charged; see shutdown/recharge.py
PVE_GUESTS = "pve-guests.conf"
# creates the spare copy of POWERDOWNFLAG; see shutdown/flag.py
TMPFILES = "tmpfiles"
SANDBOXES = {
    "nut-driver-hardening.conf": DRIVER_TEMPLATE,
    "nut-server-hardening.conf": systemd.SERVER,
    "nut-monitor-hardening.conf": systemd.MONITOR,
    "nut-watch-hardening.conf": WATCH,
}
# upsmon starts the service, and the service powers the host off
SHUTDOWN = Kit(
    name="nut-shutdown",
    program=paths.SHUTDOWN_PROGRAM,
    places={
        "shutdown.json": Place(paths.SHUTDOWN_POLICY, 0o640, "nut"),
        GATE: Place(f"{paths.UNITS}/{GATE}"),
        STAGES: Place(f"{paths.UNITS}/{STAGES}"),
        WATCH: Place(f"{paths.UNITS}/{WATCH}"),
        MONITOR: Place(f"{paths.UNITS}/nut-monitor.service.d/homelab-nut.conf"),
        SERVER: Place(f"{paths.UNITS}/nut-server.service.d/homelab-nut.conf"),
        PVE_GUESTS: Place(f"{paths.UNITS}/pve-guests.service.d/homelab-nut.conf"),
        **{name: Place(f"{paths.UNITS}/{unit}.d/{HARDENING}") for name, unit in SANDBOXES.items()},
        "logrotate": Place("etc/logrotate.d/nut-shutdown"),
        TMPFILES: Place("etc/tmpfiles.d/nut-shutdown.conf"),
    },
    service=GATE,
    always_on=(STAGES, WATCH),
    unit_inputs={STAGES: ("shutdown.json",), WATCH: ("nut-watch-hardening.conf",)},
    optional=(STAGES, TMPFILES, PVE_GUESTS, *SANDBOXES),
    tmpfiles=TMPFILES,
    sandboxes=SANDBOXES,
    hardening_variable="nut_server_hardening",
    leftovers=(paths.SHUTDOWN_PROGRAM, paths.SHUTDOWN_RUN, paths.SHUTDOWN_FOLDER),
)

# A secondary has only the drop-in of upsmon's unit. It runs no program of ours.
SECONDARY = Kit(
    name="nut-monitor",
    program="",
    places={MONITOR: SHUTDOWN.places[MONITOR]},
    service=systemd.MONITOR,
)

ACCESS_UNIT = "nut-access.service"
ACCESS_TABLE = "access.nft"
ACCESS_REFRESH = "nut-access-refresh.service"
ACCESS_TIMER = "nut-access-refresh.timer"
# nft loads the table; the program only checks whether names have new addresses and whether the table is still loaded
ACCESS = Kit(
    name="nut-access",
    program=paths.ACCESS_PROGRAM,
    places={
        ACCESS_TABLE: Place(paths.ACCESS_TABLE),
        ACCESS_UNIT: Place(f"{paths.UNITS}/{ACCESS_UNIT}"),
        ACCESS_REFRESH: Place(f"{paths.UNITS}/{ACCESS_REFRESH}"),
        ACCESS_TIMER: Place(f"{paths.UNITS}/{ACCESS_TIMER}"),
        # nftables.service empties the ruleset
        "nftables.conf": Place(f"{paths.UNITS}/nftables.service.d/homelab-nut.conf"),
    },
    service=ACCESS_UNIT,
    always_on=(ACCESS_UNIT,),
    helpers=(ACCESS_TIMER,),
    unit_inputs={ACCESS_UNIT: (ACCESS_TABLE, ACCESS_TIMER)},
    leftovers=(paths.ACCESS_PROGRAM,),
)

NOTIFY = Kit(
    name="nut-notify",
    program=paths.NOTIFY_PROGRAM,
    places={
        "notify.json": Place(paths.NOTIFY_POLICY, 0o600),
        systemd.NOTIFY: Place(f"{paths.UNITS}/{systemd.NOTIFY}"),
        "logrotate": Place("etc/logrotate.d/nut-notify"),
    },
    service=systemd.NOTIFY,
    always_on=(systemd.NOTIFY,),
    unit_inputs={systemd.NOTIFY: ("notify.json",)},
    leftovers=(paths.NOTIFY_PROGRAM, paths.NOTIFY_FOLDER, paths.NOTIFY_SOCKET),
    secrets=("notify.json",),
)


def find_installed(root: Path) -> list[str]:
    """Return the names of a primary's programs of which a host has at least one file. root: the host's root directory."""
    return [
        kit.name
        for kit in (HOTPLUG, SHUTDOWN, ACCESS, NOTIFY)
        if any((root / path).exists() for path in kit.all_paths if path not in SECONDARY.all_paths)
    ]
