# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts the lab has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ups:
    """A UPS that is plugged in at first: its model (see lab/ups models), and its serial number if not the model's own."""

    model: str
    serial: str | None = None


@dataclass(frozen=True)
class Host:
    """One machine.

    kind is the image's name below lab/images; release is Debian's code name; group is where the inventory has it;
    ups are its UPSes, at the ports 1, 2 and so on; none for a host without USB.
    """

    name: str
    kind: str
    release: str
    group: str
    ups: tuple[Ups, ...] = ()


# One site a NUT release that people run: Proxmox VE 8 is Debian 12 with NUT 2.8.0, Proxmox VE 9 Debian 13 with 2.8.1.
# And a large one: two UPSes that only their serial numbers tell apart, and clients of both releases.
SITES = {
    "pve8": (
        Host("pve8", "pve", "bookworm", "pve", ups=(Ups("apc"),)),
        Host("truenas", "truenas", "bookworm", "truenas"),
        Host("media", "linux", "bookworm", "ups_clients"),
    ),
    "pve9": (
        Host("pve9", "pve", "trixie", "pve", ups=(Ups("cps"),)),
        Host("truenas9", "truenas", "bookworm", "truenas"),
    ),
    "rack": (
        Host(
            *("rack", "pve", "trixie", "pve"),
            ups=(Ups("apc", "5B1234T56789"), Ups("apc", "5B1234T56790"), Ups("eaton", "G356T51023")),
        ),
        Host("rack-nas", "truenas", "bookworm", "truenas"),
        Host("rack-media", "linux", "trixie", "ups_clients"),
        Host("rack-db", "linux", "trixie", "ups_clients"),
        Host("rack-web", "linux", "bookworm", "ups_clients"),
        Host("rack-old", "linux", "bookworm", "ups_clients"),
    ),
}

# what is started if nobody says which; the large site costs as much as both together
USUAL = ("pve8", "pve9")
