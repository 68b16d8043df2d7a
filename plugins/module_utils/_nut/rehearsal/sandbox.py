# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transient units in which rehearsals run, and the sandbox of a drill's.

A drill runs as a dynamic user with an empty network and no capabilities, and reaches neither systemd nor NUT's files nor a UPS. So it
can't power anything off, whatever goes wrong: the kernel prevents it.
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
    """Return the path of systemd-run. Raises RehearsalRefused without it, without systemd or without root's rights."""
    if host.user() != 0:
        raise RehearsalRefused("must run as root, to start a systemd unit")
    path = shutil.which("systemd-run", path=f"{host.root / 'usr/bin'}:{host.root / 'bin'}")
    if path is None or not (host.root / "run/systemd/system").is_dir():
        raise RehearsalRefused("needs systemd and systemd-run, which are not available on this host")
    return path


def build_unit_command(
    starter: str, unit: str, given: Sequence[str], program: Sequence[str], *options: str
) -> list[str]:
    """Return the command that runs a program in a transient unit. given: the unit's properties. options: systemd-run's."""
    arguments = ["--quiet", *options, "--collect", f"--unit={unit}", *(f"--property={value}" for value in given)]
    return [starter, *arguments, "--", *program]


def build_drill_command(starter: str, program: Sequence[str], seconds: float, *, as_json: bool) -> list[str]:
    """Return the command that starts the inner half of a drill. program: command line of nut-shutdown."""
    inner = [*program, "drill", "--inside", *(["--json"] if as_json else [])]
    return build_unit_command(starter, UNIT, list_sandbox_properties(seconds), inner, "--pipe", "--wait")


def list_sandbox_properties(seconds: float) -> list[str]:
    """Return the properties of the unit that runs the inner half for at most SECONDS.

    Each closes a way to power off, to reach a real UPS or upsd, or to leave something behind. find_holes() verifies them.
    """
    hidden = (
        # systemd, and what reaches it
        "/run/systemd/private",
        "/run/dbus",
        "/run/initctl",
        "/dev/initctl",
        # upsmon would log a power failure that did not happen
        "/run/systemd/journal",
        # NUT's passwords, with which upsd accepts FSD
        "/etc/nut",
        "/dev/bus/usb",
    )
    return [
        # not root, whose signals systemd obeys, and not nut, whose signals upsmon obeys
        "DynamicUser=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "NoNewPrivileges=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "SystemCallFilter=~@reboot",
        "SystemCallErrorNumber=EPERM",
        "SystemCallArchitectures=native",
        # only a loopback device, separate from the host's
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
        # hides the real sockets and pid files; upsmon always writes its pid file here
        "TemporaryFileSystem=/run/nut:mode=0777",
        # the only writable place; systemd removes it even if the program was killed
        f"RuntimeDirectory={UNIT}",
        "RuntimeDirectoryMode=0700",
        "UMask=0077",
        f"RuntimeMaxSec={math.ceil(seconds)}",
        "KillMode=control-group",
        "SendSIGKILL=yes",
        f"TimeoutStopSec={math.ceil(2 * ENDING)}",
        "TasksMax=500",
        # the first to be killed if memory runs out
        "OOMScoreAdjust=900",
    ]


# Unreadable in the sandbox, even for root.
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
    """Return the ways in which this process could still do harm; none if the sandbox holds. ids, groups: its own."""
    ids = (os.getuid(), os.geteuid()) if ids is None else ids
    groups = (os.getgid(), *os.getgroups()) if groups is None else groups
    holes = []
    try:
        status = read_status(root / "proc/self")
        network = (root / "proc/self/net/dev").read_text(encoding="ascii", errors="replace").splitlines()[2:]
    except OSError as error:
        return [f"cannot read the rights of this process: {error}"]
    if 0 in ids:
        holes.append("it runs as root")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if status.get(name, "?").strip("0"):
            holes.append(f"it has capabilities ({name})")
    if status.get("NoNewPrivs") != "1":
        holes.append("it can gain new privileges")
    with contextlib.suppress(KeyError):
        nut = pwd.getpwnam("nut")
        if nut.pw_uid in ids or nut.pw_gid in groups:
            holes.append("it runs as the user or group nut")
    cards = [line.partition(":")[0].strip() for line in network]
    if any(card != "lo" for card in cards):
        holes.append("it has network access")
    # read or write access is enough to talk to a socket
    reachable = [path for path in _OFF_LIMITS if any(os.access(root / path, how) for how in (os.R_OK, os.W_OK))]
    return [*holes, *(f"it can access /{path}" for path in reachable)]
