# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The border between root and the user nut: which paths root may trust, and how root runs NUT's programs unprivileged.

Drivers read from USB devices, and upsd from the network. So the user nut, and every file and directory that it can
write, is hostile input. docs/architecture.md has the rule and the table of directories.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import files, paths
from .files import Owner, resolve_owner

PREFIX = files.CHECK
"""Prefix of the scratch directories' names."""

# The rule in docs/architecture.md, "Directories that root trusts".
ROOTS_OWN = (
    f"/{paths.NUT}",
    f"/{paths.UNITS}",
    "/etc/tmpfiles.d",
    "/etc/udev/rules.d",
    "/run",
    f"/{paths.SHUTDOWN_RUN}",
    "/usr/local/sbin",
    "/var/lib/homelab-nut",
    f"/{paths.HOTPLUG_FOLDER}",
    f"/{paths.SHUTDOWN_FOLDER}",
    f"/{paths.NOTIFY_FOLDER}",
    "/var/log/nut",
)
"""Directories that only root can write: root trusts and runs what they contain."""

NUTS_OWN = ("/run/nut", "/var/lib/nut")
"""Directories that the user or group nut can write: root does not read, write, follow or trust anything there."""

STATE = "state"
_LINKS = 40  # the kernel's limit of symbolic links in a path


# Which paths root may trust


def is_trusted(path: Path) -> bool:
    """Return whether only root can change what is at a path, or create something there."""
    return not find_untrusted(path)


def find_untrusted(path: Path) -> str:
    """Return which part of a path users other than root can change, in words; "" if there is none.

    Root's symbolic links are followed. A missing path is trusted if only root could create it. The user who runs this is
    trusted, too. In a sticky directory, such as /tmp, only an existing entry that root owns is safe.
    """
    trusted = {0, os.geteuid()}
    here, rest, links = Path("/"), [*path.parts[1:]], 0
    while True:
        about = here.lstat()
        if about.st_uid not in trusted:
            return f"{here} belongs to {_describe_user(about.st_uid)}"
        if _others_write(about) and not (rest and about.st_mode & stat.S_ISVTX and os.path.lexists(here / rest[0])):
            return f"users other than root can write {here} (mode {stat.S_IMODE(about.st_mode):04o}, group {_describe_group(about.st_gid)})"
        if not rest:
            return ""
        name = rest.pop(0)
        there = here.parent if name == ".." else here / name
        if there.is_symlink():
            links += 1
            if links > _LINKS:
                return f"{there} is a symlink loop"
            if there.lstat().st_uid not in trusted:
                return f"{there} is a link of {_describe_user(there.lstat().st_uid)}"
            target = there.readlink()
            rest = [*(target.parts[1:] if target.is_absolute() else target.parts), *rest]
            here = Path("/") if target.is_absolute() else here
        elif not os.path.lexists(there):
            return ""
        else:
            here = there


def _others_write(about: os.stat_result) -> bool:
    if about.st_mode & stat.S_IWOTH:
        return True
    return bool(about.st_mode & stat.S_IWGRP) and about.st_gid != 0 and _has_members(about.st_gid)


def _has_members(gid: int) -> bool:
    """Return whether a group has members: Debian's staff, which may write to /usr/local, has none unless an admin adds one."""
    try:
        named = grp.getgrgid(gid).gr_mem
    except KeyError:
        return True
    return bool(named) or any(user.pw_gid == gid for user in pwd.getpwall())


def _describe_user(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return f"the user {pwd.getpwuid(uid).pw_name}"
    return f"the user {uid}"


def _is_named(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid))
    return False


def _describe_group(gid: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


# Running NUT's programs on files that are being checked


@dataclass(frozen=True)
class Scratch:
    """A directory of root's in which NUT's programs read files. command: the prefix that runs a program there."""

    folder: Path
    command: tuple[str, ...]


@contextlib.contextmanager
def open_scratch(room: Path, owner: Owner) -> Iterator[Scratch]:
    """Make a scratch directory for root alone, and remove it at the end. Raise OSError, and LookupError without such a user.

    Fill it, then call `share`, and run programs with `Scratch.command`: they are not root, whatever they are made to do. At no
    time can anybody else put, rename or replace something in the directory itself. owner: root, and the group that may read,
    whose name is also that of the programs' user. room: a unix socket's path is at most 107 bytes long, so it should be near
    the root.
    """
    group = owner[1]
    uid, gid = resolve_owner((group, group) if isinstance(group, str) else owner)
    # like upsd itself, which may read what its user's other groups may, such as ssl-cert's key
    groups = "--init-groups" if _is_named(uid) else "--clear-groups"
    become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", groups, "--no-new-privs", "--"]
    with files.make_scratch_folder(room) as folder:
        state = folder / STATE
        paths = [f"NUT_CONFPATH={folder}", f"NUT_STATEPATH={state}", f"NUT_ALTPIDPATH={state}", f"NUT_PIDPATH={state}"]
        try:
            yield Scratch(folder, (*become, "env", *paths))
        finally:
            # a program that still runs there can no longer add files
            for path in (folder, state):
                with contextlib.suppress(OSError):
                    path.chmod(0o700)


def share_scratch(scratch: Scratch, texts: Mapping[str, str], owner: Owner) -> None:
    """Write the files into a scratch directory and let the group read them. Root writes nothing there afterwards."""
    uid_gid = resolve_owner(owner)
    for name, text in texts.items():
        handle = os.open(
            scratch.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            os.fchown(handle, *uid_gid)
            os.fchmod(handle, 0o640)
    # for sockets and process ids: the one place where the programs may write
    state = scratch.folder / STATE
    state.mkdir(mode=0o700)
    for path, mode in ((state, 0o770), (scratch.folder, 0o750)):
        os.chown(path, *uid_gid, follow_symlinks=False)
        path.chmod(mode)
