# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts the lab has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """One machine.

    kind is the image's name below lab/images; release is Debian's code name; group is where the inventory has it;
    ups is the profile of the UPS that is plugged in at first (see lab/ups models), None for a host without USB.
    """

    name: str
    kind: str
    release: str
    group: str
    ups: str | None = None


# One site a NUT release that people run: Proxmox VE 8 is Debian 12 with NUT 2.8.0, Proxmox VE 9 Debian 13 with 2.8.1.
SITES = {
    "pve8": (
        Host("pve8", "pve", "bookworm", "pve", ups="apc"),
        Host("truenas", "truenas", "bookworm", "truenas"),
        Host("media", "linux", "bookworm", "ups_clients"),
    ),
    "pve9": (
        Host("pve9", "pve", "trixie", "pve", ups="cps"),
        Host("truenas9", "truenas", "bookworm", "truenas"),
    ),
}
