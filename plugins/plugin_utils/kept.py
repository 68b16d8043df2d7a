# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Folders of secrets on the controller, beside the inventory or where the user wants them, and the files in them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..module_utils._nut import inventory

FOLDER_MODE, FILE_MODE = 0o700, 0o600
LOCK = ".lock"


def make_folder(path: Path) -> None:
    """Make a folder, with those above it that are missing. Raises OSError.

    What is made is for its owner alone, whatever the umask. So is `.homelab-nut`, and each folder in it, also one that was
    open to others before. A folder of the user's own that is there already stays as it is.
    """
    for folder in (*reversed(path.parents), path):
        # another fork may be faster
        with contextlib.suppress(FileExistsError):
            if not folder.exists():
                folder.mkdir(mode=FOLDER_MODE)
        if inventory.SECRETS_FOLDER in folder.parts:
            _close_to_others(folder)


def _close_to_others(folder: Path) -> None:
    mode = folder.stat().st_mode & 0o7777
    if mode & ~FOLDER_MODE:
        # somebody else's: who may enter it is theirs to say
        with contextlib.suppress(PermissionError):
            folder.chmod(mode & FOLDER_MODE)


def file_in(folder: Path, name: str) -> Path:
    """Return the path of a file that is called like a host or a user. Raises ValueError for a name that leads elsewhere."""
    if "/" in name or "\0" in name or name.startswith("."):
        raise ValueError(f"{name!r} can't be the name of a file: it has a slash, or a dot in front")
    return folder / name


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and keep others of ours out of it: Ansible's forks, and several runs, ask at the same time."""
    make_folder(folder)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_once(path: Path, make: Callable[[], str]) -> str:
    """Return the line that a file holds, which is made and kept there if there is none. Raises OSError.

    The caller has its folder alone. A file without a line is one whose writer was killed. A link is followed to what it leads
    to, but nothing is made through one.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text("utf-8", "replace").rstrip()
        if found:
            return found
    made = make()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, FILE_MODE)
        file.write(f"{made}\n")
        file.flush()
        os.fsync(handle)
    return made
