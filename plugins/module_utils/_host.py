# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the host that a module runs on."""

from __future__ import annotations

from pathlib import Path

from ._nut.deploy import kits

# tests have another one
ROOT = Path("/")


def lacking_nut() -> str:
    """Return what the host must have first, NUT, and the remedy; "" if it is there."""
    if (ROOT / "etc/nut").is_dir():
        return ""
    return "NUT is not installed on this host: there is no /etc/nut. Deploy it first: `make pve tags=ups`, or the role nut_server"


def missing() -> str:
    """Say what keeps this host from having USB UPSes served, and the remedy; "" if NUT is configured here."""
    return kits.missing(ROOT / "etc/nut")
