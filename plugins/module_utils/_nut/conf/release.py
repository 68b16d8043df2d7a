# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The release of NUT on a host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable

from ..base.systemd import Run
from .directives import Release

_VERSION = re.compile(r"Network UPS Tools\b.*?\b([0-9]+)\.([0-9]+)\.([0-9]+)")


def format_release(release: Release) -> str:
    """Return a release as text, such as 2.8.0."""
    return ".".join(map(str, release))


def is_hasty_release(release: Release | None) -> bool:
    """Return whether upsmon of a release shuts down at once if it loses contact with a UPS on battery; True if it is unknown.

    2.8.0, and 2.8.3 and later, wait for DEADTIME first.
    """
    return release is None or (2, 8, 1) <= release < (2, 8, 3)


def read_release(said: str) -> Release | None:
    """Return the release in the output of a NUT program's -V; None if there is none."""
    found = _VERSION.search(said)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def find_release(runner: Run, finder: Callable[[str], Path | None]) -> Release | None:
    """Ask the host's real upsmon, or upsd, for its release. None if NUT is not installed, or does not say it."""
    for name in ("upsmon", "upsd"):
        path = finder(name)
        if path is not None:
            _unused, said = runner([str(path), "-V"])
            found = read_release(said)
            if found:
                return found
    return None
