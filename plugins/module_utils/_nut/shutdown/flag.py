# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""POWERDOWNFLAG, the file with which upsmon makes the host tell the UPS to cut the power at the end of a shutdown, and its spare.

The flag counts as set only if it holds the right text. On a full file system upsmon leaves an empty file, and `upsmon -K`, which
Debian's nutshutdown runs, reports that no flag is set (2.8.0 and 2.8.1): the UPS would not cut the power, and machines that are
down would stay off when the mains return. So a spare file with the right text is made at boot and at each deployment, while there
is space; it is renamed to the flag when a new one can't be written.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

TEXT = b"upsmon-shutdown-file"
"""The text that upsmon writes, and that `upsmon -K` expects at the beginning of the file."""

SPARE = ".spare"
"""Suffix of the spare's path."""

SET = "set"
SPOILED = "spoiled"  # root's file, but empty or cut short: there was no space
FOREIGN = "foreign"  # not root's regular file, or with another text
MISSING = "missing"


def spare_path(path: str) -> str:
    """Return the path of the spare of a flag."""
    return f"{path}{SPARE}"


def read_flag(path: str) -> str:
    """Return SET, SPOILED, FOREIGN or MISSING. Links are not followed."""
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
    """Replace the flag by a new file, or by the spare if there is no space for one. Raise OSError.

    The rename replaces a link instead of following it.
    """
    try:
        new = _make_flag_file(f"{path}.new")
    except OSError as error:
        new = spare_path(path)
        if read_flag(new) != SET:
            raise OSError(error.errno, error.strerror) from None
    Path(new).replace(path)
    if read_flag(path) != SET:
        raise OSError(errno.EIO, "the file does not hold the text that was written")


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
