# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks NUT's files against this host: addresses, programs, users, directories, and flags left by earlier shutdowns."""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import shlex
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ..base import trust
from ..base.systemd import Run
from . import grammar, upsd
from .files import NutFiles
from .programs import find_program

# the places of the flag in NUT's samples, its newer documentation, and most posts
COMMON_FLAGS = ("/etc/killpower", "/run/nut/killpower")
# file systems that a reboot empties
_FORGETFUL = ("tmpfs", "ramfs")


def find_unbindable(new: str, old: str, serves: bool) -> list[str]:
    """Return the LISTEN lines of a new upsd.conf that upsd could not bind, as sentences.

    NUT 2.8.0 and 2.8.1 only log most of these, and secondaries then can't connect. old: the current file. serves: whether upsd is
    running, so that it uses the ports in old itself. All addresses of a name are tried, as upsd does.
    """
    own = {port for _unused, port in (upsd.read_listen_lines(old) or [("", upsd.PORT)])} if serves else set()
    wrong = []
    for host, port in upsd.read_listen_lines(new):
        address = None if host == "*" else host
        try:
            places = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            wrong.append(
                f"upsd.conf: LISTEN {host}: the address can't be resolved: {error.strerror or error}. upsd would not start"
            )
            continue
        # port 0 is any free one; the trial then only shows whether this host has the address
        why = [
            _try_bind(family, kind, number, (place[0], 0 if port in own else port, *place[2:]))
            for family, kind, number, _unused, place in places
        ]
        # upsd binds the first address of a name that it can, and no others
        if 0 in why:
            continue
        if errno.EADDRINUSE in why:
            wrong.append(
                f"upsd.conf: LISTEN {host} {port}: another program uses this port. Find it with `ss -tlnp sport = :{port}`"
            )
        elif errno.EADDRNOTAVAIL in why:
            wrong.append(
                f"upsd.conf: LISTEN {host}: this host does not have that address. Use one that it has, or 0.0.0.0 for all "
                "(nut_server_listen)"
            )
        else:
            wrong.append(
                f"upsd.conf: LISTEN {host}: upsd can't bind this address: {os.strerror(why[0])}. Use another one"
            )
    return wrong


def _try_bind(family: int, kind: int, number: int, place: tuple[object, ...]) -> int:
    try:
        with socket.socket(family, kind, number) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind(place)
    except OSError as error:
        return error.errno or 0
    return 0


def find_untrusted(texts: Mapping[str, str], folder: Path) -> list[str]:
    """Return the paths that root trusts although others can change them, as sentences. folder: where the files will be."""
    files = NutFiles.of(texts)
    wrong = []
    if why := trust.find_untrusted(folder):
        wrong.append(
            f"{why}, so users other than root decide what upsmon runs as root. Run: chown root {folder}; chmod go-w {folder}"
        )
    if flag := files.directive("upsmon.conf", "POWERDOWNFLAG"):
        path = Path(flag)
        why = f"{flag} is a link" if path.is_symlink() else trust.find_untrusted(path.parent)
        if why:
            wrong.append(
                f"upsmon.conf: POWERDOWNFLAG {flag}: {why}. Anyone who can write there can make the next reboot cut the UPS's "
                "power, and make root overwrite its own files. Use a path in a directory that only root can write to, "
                "such as /run/nut-killpower"
            )
    runs = [("upsmon.conf: SHUTDOWNCMD", find_program(files.directive("upsmon.conf", "SHUTDOWNCMD") or ""))]
    runs += [("ups.conf: driverpath", value) for key, value in files.ups_conf.settings if key == "driverpath" and value]
    wrong += [
        f"{where} {program}: {why}, but root runs this program, so nobody else may be able to write there"
        for where, program in runs
        if program.startswith("/") and (why := trust.find_untrusted(Path(program)))
    ]
    return wrong


def find_missing(texts: Mapping[str, str], made: Path | None = None) -> list[str]:
    """Return the users and directories in the files that don't exist, as sentences. NUT needs them at its start, or in an outage.

    made: a directory that the deployment will create.
    """
    files = NutFiles.of(texts)
    conf = files.ups_conf
    pairs = [*conf.settings, *(pair for section in conf.sections.values() for pair in section.keys)]
    users = [("ups.conf", value) for key, value in pairs if key == "user"]
    users.append(("upsmon.conf", files.directive("upsmon.conf", "RUN_AS_USER")))
    wrong = [f"{name}: this host has no user {user}" for name, user in users if user and not _is_user(user)]
    folders = [(name, "CERTPATH", files.directive(name, "CERTPATH")) for name in ("upsd.conf", "upsmon.conf")]
    folders += [("ups.conf", key, value) for key, value in conf.settings if key in ("driverpath", "statepath")]
    for name, directive in (("upsmon.conf", "POWERDOWNFLAG"), ("upssched.conf", "PIPEFN"), ("upssched.conf", "LOCKFN")):
        path = files.directive(name, directive)
        folders.append((name, directive, str(Path(path).parent) if path else None))
    wrong += [
        f"{name}: {directive}: the directory {path} does not exist. Create it, or use another one"
        for name, directive, path in folders
        if path and Path(path) != made and not Path(path).is_dir()
    ]
    return wrong


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def find_old_flags(texts: Iterable[str]) -> list[str]:
    """Return the flags that make the next reboot cut the UPS's power, as sentences.

    texts: the current and the new upsmon.conf. No shutdown is in progress while this runs, so an earlier one left the flag
    behind.
    """
    paths = dict.fromkeys([*(grammar.find_directive(text, "POWERDOWNFLAG") or "" for text in texts), *COMMON_FLAGS])
    flags = []
    for path in paths:
        if path and Path(path).is_file():
            when = datetime.fromtimestamp(Path(path).lstat().st_mtime).strftime("%Y-%m-%d %H:%M")
            flags.append(
                f"an earlier shutdown left {path} behind at {when}. As long as POWERDOWNFLAG names it, the next reboot cuts "
                f"the UPS's power. Remove it: rm {shlex.quote(path)}"
            )
    return flags


def find_lasting_flag(upsmon_conf: str, mounts: str) -> list[str]:
    """Return a sentence if POWERDOWNFLAG would survive a reboot. mounts: text of /proc/self/mounts."""
    path = grammar.find_directive(upsmon_conf, "POWERDOWNFLAG")
    if not path:
        return []
    kinds = {}
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) > 2:
            kinds[fields[1].replace("\\040", " ")] = fields[2]
    real = Path(path).resolve()
    parents = [str(real), *(str(parent) for parent in real.parents)]
    kind = next((kinds[parent] for parent in parents if parent in kinds), "")
    if kind in _FORGETFUL:
        return []
    return [
        f"POWERDOWNFLAG {path} is on a disk. If it is still there after a power cut, the next reboot can cut the UPS's power. "
        "Put it below /run, which a reboot empties"
    ]


def find_shipped(files: Sequence[Path], runner: Run) -> set[Path]:
    """Return the files that are unchanged since a Debian package installed them."""
    code, output = runner(["dpkg-query", "--show", "--showformat=${Conffiles}\\n", "nut-client", "nut-server"])
    sums = dict(line.split()[:2] for line in output.splitlines() if len(line.split()) >= 2) if code in (0, 1) else {}
    return {
        path
        for path in files
        # dpkg records MD5; security does not depend on it
        if path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == sums.get(str(path))
    }
