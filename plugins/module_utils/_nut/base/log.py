# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Log files of our own programs. The group nut can write to their directory, so its contents are not trusted."""

from __future__ import annotations

import os
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def append_line(path: Path, line: str) -> None:
    """Append a line to a file and sync it to disk. Make its directory if necessary. Raise OSError."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(path, _FLAGS, 0o640)
    try:
        os.write(handle, f"{line}\n".encode("utf-8", "backslashreplace"))
        os.fsync(handle)
    finally:
        os.close(handle)
