# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster of the stand-in: who is there, quorum, and storages that may be offline."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from . import files
from .settings import HostSettings, replace_text

PROBE_SECONDS = 1.0
SSH = 22
NAS_PORTS = (2049, 443)  # NFS, and the API of the lab's TrueNAS, which has no NFS


def answers(address: str, port: int) -> bool:
    """Return whether a machine is there: it accepts a connection, or refuses it."""
    try:
        socket.create_connection((address, port), PROBE_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def listens(address: str, port: int) -> bool:
    """Return whether a machine accepts connections at a port."""
    try:
        socket.create_connection((address, port), PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def is_online(settings: HostSettings, storage: str) -> bool:
    """Return whether a storage is online (pve-storage, check_connection)."""
    switch = settings.storages.get(storage, "on")
    if switch == "auto":
        return any(listens(settings.nas, port) for port in NAS_PORTS)
    return switch == "on"


def count_votes(settings: HostSettings, runtime: Path) -> tuple[int, int]:
    """Return how many nodes are there, and how many the cluster has. Each has one vote."""
    total = 1 + len(settings.nodes)
    if settings.quorum == "on":
        return total, total
    if settings.quorum == "off":
        return 1, max(total, 2)
    return 1 + sum(is_there(settings, runtime, name) for name in settings.nodes), total


def is_there(settings: HostSettings, runtime: Path, name: str) -> bool:
    """Return whether another node answers, or has lately."""
    seen, now = runtime / f"seen-{name}", time.clock_gettime(time.CLOCK_BOOTTIME)
    if answers(settings.nodes[name], SSH):
        if settings.lasts:
            replace_text(seen, str(now))
        return True
    try:
        return now - float(seen.read_text()) < settings.lasts
    except FileNotFoundError:
        return False


def has_quorum(settings: HostSettings, runtime: Path) -> bool:
    """Return whether the cluster has quorum: as set, or as pmxcfs has seen it last."""
    if settings.quorum != "auto":
        return settings.quorum == "on"
    try:
        return (runtime / "quorate").read_text() == "1"
    except FileNotFoundError:
        there, total = count_votes(settings, runtime)
        return 2 * there > total


def update_quorum(settings: HostSettings, runtime: Path) -> bool:
    """Look who is there, note it, and make /etc/pve read-only without quorum. Return whether there is quorum."""
    there, total = count_votes(settings, runtime)
    quorate = 2 * there > total
    runtime.mkdir(parents=True, exist_ok=True)
    noted = runtime / "quorate"
    if not noted.exists() or noted.read_text() != str(int(quorate)):
        replace_text(noted, str(int(quorate)))
        if settings.pve:
            set_writable(Path(settings.pve), True)
            files.write_members(settings, quorate)
            set_writable(Path(settings.pve), quorate)
    return quorate


def set_writable(pve: Path, writable: bool) -> None:
    """Make /etc/pve read-only, or writable again. Writes fail with EROFS; the real one says EACCES, which root never gets here."""
    mounted = is_bound(pve)
    if writable and mounted:
        subprocess.run(["umount", "--lazy", str(pve)], check=True)
    elif not writable and not mounted:
        subprocess.run(["mount", "--bind", str(pve), str(pve)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(pve)], check=True)


def is_bound(path: Path) -> bool:
    """Return whether something is mounted at a path. Path.is_mount() does not see a directory that is mounted on itself."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())
