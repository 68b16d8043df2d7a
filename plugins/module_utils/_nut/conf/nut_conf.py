# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut.conf, which sets the role of a host."""

from __future__ import annotations

import re
from pathlib import Path

# a MODE that starts upsd, as a shell reads it
_SERVES = re.compile(r"""^[ \t]*MODE=["']?(netserver|standalone)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)


def find_lack(folder: Path = Path("/etc/nut")) -> str:
    """Return what this host lacks to be a primary, and what to do about it; "" if it lacks nothing.

    With any other MODE, upsd does not start, and with a section in ups.conf, the next reboot cuts the UPS's power.
    """
    remedy = "Deploy it first: `make ups tags=ups`, or the role nut_server"
    try:
        conf = (folder / "nut.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"NUT is not installed on this host: {folder}/nut.conf does not exist. {remedy}"
    # as the shell reads it: the last one counts
    modes = re.findall(r"^[ \t]*MODE=.*$", conf, re.MULTILINE)
    if not modes or not _SERVES.match(modes[-1]):
        why = f"MODE in {folder}/nut.conf is neither netserver nor standalone"
        return f"NUT on this host is not configured as a primary: {why}. {remedy}"
    if not (folder / "ups.conf").is_file():
        return f"NUT is not configured on this host: {folder}/ups.conf does not exist. {remedy}"
    return ""
