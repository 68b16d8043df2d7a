# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""POWERDOWNFLAG: the file by which upsmon tells the very end of a shutdown to have the UPS cut the power, and a spare of it.

What counts is its text, not that it is there: where its file system is full, upsmon leaves an empty one, and then `upsmon -K`,
which Debian's nutshutdown asks, says that no flag is set (2.8.0 and 2.8.1). Machines that are down would stay off when the mains
return. So a spare with the right text is made while there is space, at boot and at each deployment, and takes the flag's place when
there is none.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

TEXT = b"upsmon-shutdown-file"
"""What upsmon writes, and what `upsmon -K` looks for at the beginning of the file."""

SPARE = ".spare"
"""What the spare's path has behind the flag's."""

# How a flag stands. Spoiled: root has begun to write it, and there was no space. Foreign: it is somebody else's, or no such flag.
SET, SPOILED, FOREIGN, MISSING = "set", "spoiled", "foreign", "missing"


def spare_path(path: str) -> str:
    """Return the path of the spare of a flag."""
    return f"{path}{SPARE}"


def read_flag(path: str) -> str:
    """Return how a flag stands: SET, SPOILED, FOREIGN or MISSING. No link is followed, and only root's own file counts."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return MISSING
    except OSError:
        return FOREIGN
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            return FOREIGN
        text = os.read(handle, len(TEXT))
    except OSError:
        return FOREIGN
    finally:
        os.close(handle)
    return SET if text == TEXT else SPOILED if TEXT.startswith(text) else FOREIGN


def write_flag(path: str) -> None:
    """Put a flag in place, whatever stands there; the spare, where there is no space for a new one. Raises OSError.

    A file takes the place of what was there at once, so nothing is written through a link.
    """
    try:
        new = _make_flag_file(f"{path}.new")
    except OSError as error:
        new = spare_path(path)
        if read_flag(new) != SET:
            raise OSError(error.errno, error.strerror) from None
    Path(new).replace(path)
    if read_flag(path) != SET:
        raise OSError(errno.EIO, "it does not hold what was written")


def _make_flag_file(path: str) -> str:
    Path(path).unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        written = os.write(handle, TEXT)
        os.fsync(handle)
        if written < len(TEXT):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        Path(path).unlink()
        raise
    finally:
        os.close(handle)
    return path
