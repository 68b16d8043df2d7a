# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a stand-in for a Proxmox VE host is like: its release, its cluster, its storages, its guests. Kept as JSON."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

FILE = "settings"
RELEASES = {"bookworm": "8.4.21", "trixie": "9.2.11"}  # Debian's code name -> release of pve-manager
HA_RELEASES = {8: "4.0.7", 9: "5.2.0"}  # major release -> release of pve-ha-manager
MOST_WORKERS = 8  # from MORE_WORKERS on, without max_workers in datacenter.cfg
FEWER_WORKERS = (
    9,
    1,
    2,
)  # the release of pve-manager from which on fewer guests are started and stopped at the same time
DISARM = (5, 1, 3)  # the release of pve-ha-manager from which on HA can be disarmed


@dataclass
class GuestProperties:
    """What the stand-in knows of a guest."""

    kind: str = "qm"  # or "pct"
    shutdown: float | None = 5.0  # seconds until it is down after the power button; None: it hangs
    lock: str = ""  # as in its configuration
    backup: bool = False  # a backup of it runs, which holds its lock; `vzdump --stop` ends it
    ha: bool = False  # HA manages it
    starts: int = 0  # how many starts fail before one succeeds
    name: str = ""  # as `list` shows it
    state: str = "running"  # of a VM that runs: QEMU's run state, as `qm status` shows it
    monitor: bool = True  # whether QEMU answers its monitor (QMP)
    stubborn: bool = False  # not even SIGTERM ends it
    storage: str = "local"
    onboot: bool = True
    order: int | None = None  # of the option startup; None: last started, first stopped
    up: int | None = None  # likewise, in seconds
    down: int | None = None
    tags: str = ""
    ha_state: str = "started"  # what HA is to keep it in: "started", "stopped" or "ignored"


@dataclass
class HostSettings:
    """What the stand-in knows of its host. Times are Proxmox's seconds: `speed` of them pass in a real one."""

    name: str = "pve"
    release: str = RELEASES["trixie"]  # of pve-manager
    speed: float = 1.0
    moments: str = ""  # a file for the events of guests; "" for none
    scopes: bool = False  # guests run in systemd's scopes, as real ones do
    runtime: str = ""  # a directory for what is gone after a boot; "": where the settings are
    pids: str = ""  # the directory of the pid files of VMs; "": as runtime
    pve: str = ""  # /etc/pve; "" for none
    sockets: bool = False  # containers have the command socket that real ones have, and VMs the one of QEMU's monitor
    root_only: bool = False  # refuse other users, like the real programs
    perl: float = 0.0  # seconds that each program takes to load
    noise: bool = False  # programs write a warning of Perl to stderr first
    pmxcfs: bool = True  # Proxmox's cluster file system runs
    quorum: str = "on"  # "on", "off", or "auto": as many nodes answer
    nodes: dict[str, str] = field(default_factory=dict)  # the cluster's other nodes: name -> address
    lasts: float = 0.0  # seconds that another node goes on after it no longer answers: it stops its guests
    storages: dict[str, str] = field(
        default_factory=lambda: {"local": "on"}
    )  # name -> "on", "off", or "auto": its server answers
    nas: str = ""  # the server of storages that are "auto"
    cpus: int = 0  # 0: those of the machine
    max_workers: int = 0  # of datacenter.cfg; 0: not set
    policy: str = ""  # shutdown_policy of HA in datacenter.cfg; "": not set
    disarm: str = ""  # "freeze" or "ignore": HA is disarmed, and what it does with its guests
    onboot_delay: int = 0  # seconds; startall-onboot-delay of the node's configuration
    ha_request: float = 12.0  # seconds after which a request to HA fails without quorum
    ha_round: float = 10.0  # seconds between two rounds of HA
    watchdog: float = 60.0  # seconds without quorum after which HA's watchdog resets the host

    @property
    def version(self) -> tuple[int, ...]:
        """Return the release as numbers."""
        return parse_release(self.release)

    @property
    def ha_release(self) -> str:
        """Return the release of pve-ha-manager."""
        return HA_RELEASES[self.version[0]]

    def count_workers(self) -> int:
        """Return how many guests are started and stopped at the same time (pve-manager, get_max_workers)."""
        cpus = self.cpus or os.cpu_count() or 1
        if self.max_workers:
            return self.max_workers
        return min(max(1, cpus - 1), MOST_WORKERS) if self.version >= FEWER_WORKERS else cpus


def parse_release(text: str) -> tuple[int, ...]:
    """Return a release as numbers."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", text))


def read_settings(folder: Path) -> HostSettings:
    """Return the settings in a directory, or the default ones if there are none."""
    try:
        given = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return HostSettings()
    known = {item.name for item in fields(HostSettings)}
    return HostSettings(**{name: value for name, value in given.items() if name in known})


def write_settings(folder: Path, settings: HostSettings) -> None:
    """Save the settings."""
    replace_text(folder / FILE, json.dumps(asdict(settings), indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file so that nobody reads half of it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)
