# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read files of sysfs, which may vanish at any moment."""

from __future__ import annotations

import os

# bytes to read of an attribute; texts of devices have at most 378
_TEXT_BYTES = 1024


def read_start(path: str, limit: int) -> bytes:
    """Return the beginning of a file; b"" if it can't be read."""
    try:
        # a symlink could lead out of sysfs, and a FIFO would block
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(file, limit)
    except OSError:
        return b""
    finally:
        os.close(file)


def read_attribute(path: str, attribute: str) -> str:
    """Return an attribute without the newline that the kernel appends."""
    return read_start(f"{path}/{attribute}", _TEXT_BYTES).decode("utf-8", "surrogateescape").removesuffix("\n")


def list_names(path: str) -> list[str]:
    """Return the names in a directory; [] if it can't be read."""
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []
