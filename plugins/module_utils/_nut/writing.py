# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put files in place, a set of them at once or not at all; and keep two runs from doing so at one time."""

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Callable, Union

Owner = tuple[Union[str, int], Union[str, int]]


class WriteError(Exception):
    """Nothing was written; the message names the file and the reason."""


class Busy(Exception):
    """Another run is at work; the message says since when."""


def ids(owner: Owner) -> tuple[int, int]:
    """Turn the names of a user and a group into numbers. Raises KeyError."""
    user, group = owner
    uid = pwd.getpwnam(user).pw_uid if isinstance(user, str) else user
    return uid, grp.getgrnam(group).gr_gid if isinstance(group, str) else group


def is_kept(path: Path, mode: int, owner: tuple[int, int]) -> bool:
    """Say whether what stands at PATH has this mode and these ids, so that nobody else may read or write it. Raises OSError."""
    seen = path.stat()
    return (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) == (mode, *owner)


def replace(texts: Mapping[Path, str], mode: int, owner: Owner | None = None) -> None:
    """Replace files. Each reader, and a power cut, meets the old one or the new one. Raises WriteError.

    All of them are on the disk before the first takes its place, in the order given: a disk that is full stops the run
    while nothing has changed. Should one not be able to take its place, those before it go back.
    """
    staged: dict[Path, Path] = {}
    aside: dict[Path, Path | None] = {}
    path = Path()
    try:
        for path, text in texts.items():
            staged[path] = _stage(path, text, mode, owner)
        for path, scratch in staged.items():
            aside[path] = _set_aside(path)
            scratch.replace(path)
    except (OSError, LookupError) as error:  # LookupError: there is no such user or group
        for changed, kept in reversed(list(aside.items())):
            _put_back(changed, kept)
        raise WriteError(
            f"{path} could not be written: {getattr(error, 'strerror', error)}. The files are as they were."
        ) from None
    finally:
        for scratch in [*staged.values(), *(kept for kept in aside.values() if kept)]:
            scratch.unlink(missing_ok=True)
    for folder in {path.parent for path in texts}:
        _sync(folder)


def _stage(path: Path, text: str, mode: int, owner: Owner | None) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            if owner:
                shutil.chown(name, *owner)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _set_aside(path: Path) -> Path | None:
    """Give what stands at PATH a second name, under which it can come back. None if there is nothing."""
    if not path.is_file():
        return None
    kept = path.with_name(f".{path.name}.old.{os.getpid()}")
    kept.unlink(missing_ok=True)  # of a run that was killed, and whose number came again
    os.link(path, kept)
    return kept


def _put_back(path: Path, kept: Path | None) -> None:
    if kept:
        kept.replace(path)
    elif path.is_file():
        path.unlink()


def _sync(folder: Path) -> None:
    """Make names last over a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(
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
