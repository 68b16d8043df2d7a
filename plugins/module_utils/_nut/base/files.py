# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put files in place, each at once or not at all; remove what killed writers left; and keep two runs from writing at one time.

Files that must change together: see sets.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Callable, Union

Owner = tuple[Union[str, int], Union[str, int]]

# what the names of our temporary files begin with: a sweep takes no others
PREFIX = ".homelab-nut-"
# and of the directories in /run in which a configuration is tried out
CHECK = "homelab-nut-check-"


class WriteError(Exception):
    """Nothing was written; the message names the file and the reason."""


class Busy(Exception):
    """Another run is at work; the message says since when."""


def resolve_owner(owner: Owner) -> tuple[int, int]:
    """Turn the names of a user and a group into numbers. Raises KeyError."""
    user, group = owner
    uid = pwd.getpwnam(user).pw_uid if isinstance(user, str) else user
    return uid, grp.getgrnam(group).gr_gid if isinstance(group, str) else group


def has_mode_and_owner(path: Path, mode: int, owner: tuple[int, int]) -> bool:
    """Say whether what stands at PATH has this mode and these ids, so that nobody else may read or write it. Raises OSError."""
    seen = path.stat()
    return (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) == (mode, *owner)


def replace_files(texts: Mapping[Path, str], mode: int, owner: Owner | None = None) -> None:
    """Replace files, each at once: whoever reads one, and a power cut, meets the old one or the new one. Raises WriteError.

    All of them are on the disk before the first takes its place: a disk that is full stops the run while nothing has changed.
    Then each takes its place by itself, in the order given. Files that must change together go through sets.replace_set.
    """
    staged: dict[Path, Path] = {}
    done: list[str] = []
    path = Path()
    try:
        with contextlib.ExitStack() as stack:
            for path, text in texts.items():
                staged[path] = stack.enter_context(_staged_file(path, text, mode, owner))
            for path, scratch in staged.items():
                scratch.replace(path)
                done.append(str(path))
    except (OSError, LookupError) as error:  # LookupError: there is no such user or group
        rest = f"{', '.join(done)} had been replaced before it" if done else "The files are as they were"
        raise WriteError(f"{path} could not be written: {getattr(error, 'strerror', error)}. {rest}.") from None
    sync_paths({path.parent for path in texts})


def replace_private_file(path: Path, text: str) -> None:
    """Replace a file that is for root alone, and make its folder if it is not there. Raises WriteError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{path} could not be written: {error.strerror}.") from None
    replace_files({path: text}, 0o600)


@contextlib.contextmanager
def _staged_file(path: Path, text: str, mode: int, owner: Owner | None) -> Iterator[Path]:
    scratch, handle = stage_file(path, text, mode, owner)
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)
        os.close(handle)


def stage_file(path: Path, text: str, mode: int, owner: Owner | None = None) -> tuple[Path, int]:
    """Write a new file beside PATH, and make it last. Returns its name, and itself, open: until that is closed no sweep takes it.

    Raises OSError, and LookupError for a user or a group that there is not.
    """
    scratch, handle = _create_temporary_file(path.parent)
    try:
        with os.fdopen(os.dup(handle), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.fchmod(handle, mode)
        if owner:
            shutil.chown(handle, *owner)
        os.fsync(handle)
    except BaseException:
        scratch.unlink(missing_ok=True)
        os.close(handle)
        raise
    return scratch, handle


def _create_temporary_file(folder: Path) -> tuple[Path, int]:
    while True:
        handle, name = tempfile.mkstemp(prefix=PREFIX, dir=folder)
        if _lock_new(handle):
            return Path(name), handle
        # a sweep came between the file and its lock
        os.close(handle)


def _lock_new(handle: int) -> bool:
    """Lock what was just made, until its maker ends. Returns False if a sweep was faster, and has removed it."""
    fcntl.flock(handle, fcntl.LOCK_EX)
    return os.fstat(handle).st_nlink > 0


def sync_paths(paths: Iterable[Path]) -> None:
    """Make files, and the names in directories, last over a power cut. Raises OSError."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# What a run that was killed has left


def sweep_temporary_files(folders: Iterable[Path]) -> None:
    """Remove the temporary files of writers that were killed. Whoever still writes has a lock on his, and is left alone.

    The names are ours, and only root (or, on the controller, the user) can write in these directories.
    """
    for folder in folders:
        for path in _list_entries(folder, PREFIX):
            with contextlib.suppress(OSError):
                if path.is_symlink():  # the second name of an old file that was one
                    path.unlink()
                else:
                    _remove_abandoned(path, os.O_NONBLOCK, os.unlink)


@contextlib.contextmanager
def make_scratch_folder(room: Path) -> Iterator[Path]:
    """Make a directory for what is tried out, for its maker alone, and remove it in the end. Raises OSError."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=CHECK, dir=room))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if _lock_new(handle):
            break
        os.close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sweep_scratch_folders(room: Path) -> None:
    """Remove the scratch directories of runs that were killed: there are passwords in them."""
    for folder in _list_entries(room, CHECK):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.geteuid():
                _remove_abandoned(folder, os.O_DIRECTORY, lambda path: shutil.rmtree(path, ignore_errors=True))


def _list_entries(folder: Path, prefix: str) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if entry.name.startswith(prefix)]
    except OSError:
        return []


def _remove_abandoned(path: Path, flags: int, remover: Callable[[Path], object]) -> None:
    """Remove what nobody holds. Raises OSError if somebody does, or it is a link."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remover(path)
    finally:
        os.close(handle)


@contextlib.contextmanager
def hold_lock(
    path: Path,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Keep other runs out while this one works. Waits SECONDS for one that is at work, then raises Busy.

    The kernel drops the lock with the process, however it ends.
    """
    deadline = clock() + seconds
    # for root alone: who may open it may hold it
    with open(path, "a", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() >= deadline:
                    raise Busy(
                        f"another run is configuring NUT on this host, and holds {path}. It was waited for {seconds:g} s. "
                        "Run again when it is done"
                    ) from None
                pause(0.2)
        yield
