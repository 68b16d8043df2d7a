# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut.conf, which says what a host is to NUT."""

from __future__ import annotations

import re
from pathlib import Path

# a MODE with which upsd is started, as a shell reads it
_SERVES = re.compile(r"""^[ \t]*MODE=["']?(netserver|standalone)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)


def find_lack(folder: Path = Path("/etc/nut")) -> str:
    """Return what this host lacks, and what to do about it; "" if NUT is configured here as the one with the UPS.

    With another MODE nobody serves, and a section in ups.conf lets the next reboot cut the UPS's power.
    """
    remedy = "Deploy it first: `make pve tags=ups`, or the role nut_server"
    try:
        conf = (folder / "nut.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"NUT is not installed on this host: there is no {folder}/nut.conf. {remedy}"
    # as the shell reads it: the last one counts
    modes = re.findall(r"^[ \t]*MODE=.*$", conf, re.MULTILINE)
    if not modes or not _SERVES.match(modes[-1]):
        why = f"MODE of {folder}/nut.conf is neither netserver nor standalone"
        return f"NUT is not configured on this host as the one with the UPS: {why}. {remedy}"
    if not (folder / "ups.conf").is_file():
        return f"NUT is not configured on this host: there is no {folder}/ups.conf. {remedy}"
    return ""
