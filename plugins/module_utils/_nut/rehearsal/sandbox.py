# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transient units in which a rehearsal runs, and the walls around a drill's.

In there is nobody in particular, with a network of its own with nothing in it, no capability, and no way to systemd, to NUT's files or
to a UPS. It can't power anything off, whatever goes wrong, because the kernel does not let it.
"""

from __future__ import annotations

import contextlib
import math
import os
import pwd
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..base.process import read_status
from .job import ENDING, RehearsalHost, RehearsalRefused

UNIT = "nut-shutdown-drill"


def find_systemd_run(host: RehearsalHost) -> str:
    """Return the program that starts a transient unit. Raises Refused where there is none, no systemd, or no right to ask it."""
    if host.user() != 0:
        raise RehearsalRefused("run it as root: it asks systemd for a unit of its own")
    found = shutil.which("systemd-run", path=f"{host.root / 'usr/bin'}:{host.root / 'bin'}")
    if found is None or not (host.root / "run/systemd/system").is_dir():
        raise RehearsalRefused(
            "without systemd and its systemd-run there is nothing that keeps a drill from doing harm"
        )
    return found


def unit_command(starter: str, unit: str, given: Sequence[str], program: Sequence[str], *options: str) -> list[str]:
    """Return what has systemd run a program in a unit of its own. given: properties of the unit. options: of systemd-run."""
    wanted = ["--quiet", *options, "--collect", f"--unit={unit}", *(f"--property={value}" for value in given)]
    return [starter, *wanted, "--", *program]


def drill_command(starter: str, program: Sequence[str], seconds: float, *, as_json: bool) -> list[str]:
    """Return what starts the inner half of a drill. program: this program, as its file is run."""
    inner = [*program, "drill", "--inside", *(["--json"] if as_json else [])]
    return unit_command(starter, UNIT, sandbox_properties(seconds), inner, "--pipe", "--wait")


def sandbox_properties(seconds: float) -> list[str]:
    """Return the properties of the unit in which the inner half runs, for at most so many seconds.

    Each takes a way to power off, to reach a real UPS or a real upsd, or to leave something behind. walls() looks whether they stand.
    """
    hidden = (
        # systemd's, and the ways to it
        "/run/systemd/private",
        "/run/dbus",
        "/run/initctl",
        "/dev/initctl",
        # where upsmon would write of a power failure that is none
        "/run/systemd/journal",
        # NUT's passwords: with these anybody may ask for FSD
        "/etc/nut",
        "/dev/bus/usb",
    )
    return [
        # neither root, whose signals systemd obeys, nor nut, whose signals upsmon obeys
        "DynamicUser=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "NoNewPrivileges=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "SystemCallFilter=~@reboot",
        "SystemCallErrorNumber=EPERM",
        "SystemCallArchitectures=native",
        # loopback alone, and that not the host's
        "PrivateNetwork=yes",
        "PrivateDevices=yes",
        "DevicePolicy=closed",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "ProtectProc=invisible",
        "ProtectControlGroups=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectClock=yes",
        "PrivateTmp=yes",
        f"InaccessiblePaths={' '.join(f'-{path}' for path in hidden)}",
        # the real ones' sockets and pid files; upsmon writes its own in there, wherever it is told to
        "TemporaryFileSystem=/run/nut:mode=0777",
        # the one place to write; systemd takes it away, even if the program was killed
        f"RuntimeDirectory={UNIT}",
        "RuntimeDirectoryMode=0700",
        "UMask=0077",
        f"RuntimeMaxSec={math.ceil(seconds)}",
        "KillMode=control-group",
        "SendSIGKILL=yes",
        f"TimeoutStopSec={math.ceil(2 * ENDING)}",
        "TasksMax=500",
        # if memory is short, this is the first to go
        "OOMScoreAdjust=900",
    ]


# what a root that may not is refused, too
_OFF_LIMITS = (
    "run/systemd/private",
    "run/dbus/system_bus_socket",
    "run/initctl",
    "dev/initctl",
    "etc/nut/upsd.users",
    "etc/nut/upsmon.conf",
    "run/nut/upsmon.pid",
    "dev/bus/usb",
    "proc/sysrq-trigger",
)


def find_holes(
    root: Path = Path("/"), *, ids: Sequence[int] | None = None, groups: Sequence[int] | None = None
) -> list[str]:
    """Return with what this process could still do harm: nothing, if the walls stand. ids, groups: its own."""
    ids = (os.getuid(), os.geteuid()) if ids is None else ids
    groups = (os.getgid(), *os.getgroups()) if groups is None else groups
    wrong = []
    try:
        status = read_status(root / "proc/self")
        network = (root / "proc/self/net/dev").read_text(encoding="ascii", errors="replace").splitlines()[2:]
    except OSError as error:
        return [f"nobody can tell what it may do: {error}"]
    if 0 in ids:
        wrong.append("it is root")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if status.get(name, "?").strip("0"):
            wrong.append(f"it has capabilities ({name})")
    if status.get("NoNewPrivs") != "1":
        wrong.append("it may get new privileges")
    with contextlib.suppress(KeyError):
        nut = pwd.getpwnam("nut")
        if nut.pw_uid in ids or nut.pw_gid in groups:
            wrong.append("it is NUT's own user")
    cards = [line.partition(":")[0].strip() for line in network]
    if any(card != "lo" for card in cards):
        wrong.append("it has a network")
    # one that may be read or written may be talked to
    reached = [path for path in _OFF_LIMITS if any(os.access(root / path, how) for how in (os.R_OK, os.W_OK))]
    return [*wrong, *(f"it reaches /{path}" for path in reached)]
