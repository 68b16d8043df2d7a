# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files with secrets on the controller, beside the inventory or in a directory of the user's."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..module_utils._nut import inventory

FOLDER_MODE, FILE_MODE = 0o700, 0o600
LOCK = ".lock"
# The roles set this variable to false until they know that a host was not deployed with other secrets.
MAY_MAKE = "__nut_may_make_secrets"


def is_read_only(variables: Mapping[str, Any]) -> bool:
    """Return whether a lookup with these variables must not make secrets: in check mode, or before the host was looked at."""
    return bool(variables.get("ansible_check_mode")) or not variables.get(MAY_MAKE, True)


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, accessible for their owner only. Raises OSError.

    Closes `.homelab-nut` and every folder in it to others, even if they exist. Any other existing folder keeps its mode.
    """
    for folder in (*reversed(path.parents), path):
        # another fork may make the folder at the same time
        with contextlib.suppress(FileExistsError):
            if not folder.exists():
                folder.mkdir(mode=FOLDER_MODE)
        if inventory.SECRETS_FOLDER in folder.parts:
            _close_to_others(folder)


def _close_to_others(folder: Path) -> None:
    mode = folder.stat().st_mode & 0o7777
    if mode & ~FOLDER_MODE:
        # the folder belongs to another user, who decides on its mode
        with contextlib.suppress(PermissionError):
            folder.chmod(mode & FOLDER_MODE)


def file_in(folder: Path, name: str) -> Path:
    """Return the path of the file for a host or a user. Raises ValueError for a name that leads out of the folder."""
    if "/" in name or "\0" in name or name.startswith("."):
        raise ValueError(f"{name!r} can't be the name of a file: it has a slash, or begins with a dot")
    return folder / name


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and lock it: Ansible's forks and several runs may use it at the same time."""
    make_folder(folder)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_once(path: Path, make: Callable[[], str]) -> str:
    """Return the line in a file. If there is none, write the line that MAKE returns. Raises OSError.

    The caller holds the folder's lock. A file is empty if its writer was killed. Follows a link to read, but not to write.
    """
    with contextlib.suppress(FileNotFoundError):
        line = path.read_text("utf-8", "replace").rstrip()
        if line:
            return line
    line = make()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, FILE_MODE)
        file.write(f"{line}\n")
        file.flush()
        os.fsync(handle)
    return line
