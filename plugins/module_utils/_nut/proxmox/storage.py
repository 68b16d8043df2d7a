# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is the storage of a guest online? Sources: pve-storage (CLI/pvesm.pm, status), pve-container (LXC.pm: bind mounts)."""

from __future__ import annotations

import re
from pathlib import Path

from ..base.systemd import Run
from .guests import Guest, find_mount_server, parse_mounts, read_text
from .running import run_bounded

# a storage that is offline takes some seconds, and several are asked about
STATUS_SECONDS = 60


def is_online(run: Run, storage: str) -> bool:
    """Return whether a storage of storage.cfg is online and enabled. pvesm tries to activate it for that."""
    code, said = run_bounded(run, STATUS_SECONDS, "pvesm", "status", "--storage", storage)
    # Name Type Status Total Used Available %
    return not code and bool(re.search(rf"^\s*{re.escape(storage)}\s+\S+\s+active\s", said, re.MULTILINE))


def find_offline(run: Run, guest: Guest, root: Path = Path("/")) -> str:
    """Return the first storage or mount of a guest that is not online, "" if all are.

    A container whose bind mount is missing would start with the empty directory below it.
    """
    for storage in sorted(guest.storages):
        if not is_online(run, storage):
            return f"storage {storage}"
    fstab, mounted = read_text(root / "etc/fstab"), read_text(root / "proc/self/mounts")
    for path in sorted(guest.paths):
        if find_mount_server(path, parse_mounts(fstab)) and not find_mount_server(path, parse_mounts(mounted)):
            return f"the mount of {path}"
    return ""
