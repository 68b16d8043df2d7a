# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of the lab."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LabUps:
    """A UPS that is plugged in when the lab starts."""

    model: str  # see `lab/ups HOST models`
    serial: str | None = None  # None: the model's own


@dataclass(frozen=True)
class LabHost:
    """One machine.

    kind is the image's name below lab/images; release is Debian's code name; group is where the inventory has it;
    ups are its UPSes, at the ports 1, 2 and so on; none for a host without USB; user may log in by ssh.
    """

    name: str
    kind: str
    release: str
    group: str
    ups: tuple[LabUps, ...] = ()
    user: str = "root"


# releases of Debian whose systemd runs with cgroup v1; systemd 258 and newer do not
KNOWS_CGROUP_V1 = ("bookworm", "trixie")

# One site a NUT release that people run: Proxmox VE 8 and TrueNAS 25.10 are Debian 12 with NUT 2.8.0, Proxmox VE 9 and TrueNAS 26
# Debian 13 with 2.8.1. One with what comes next: Debian 14 with 2.8.5. And a large one: two UPSes that only their serial numbers tell
# apart, and clients of both releases.
SITES = {
    "pve8": (
        LabHost("pve8", "pve", "bookworm", "pve", ups=(LabUps("apc"),)),
        LabHost("truenas", "truenas", "bookworm", "truenas"),
        LabHost("media", "linux", "bookworm", "ups_clients"),
    ),
    "pve9": (
        LabHost("pve9", "pve", "trixie", "pve", ups=(LabUps("cps"),)),
        LabHost("truenas9", "truenas", "trixie", "truenas"),
    ),
    "pve14": (
        # not an EcoFlow, though NUT 2.8.5 has a driver for it: that can't tell it to cut its outlets (drivers/ecoflow-hid.c)
        LabHost("pve14", "pve", "forky", "pve", ups=(LabUps("apc"),)),
        LabHost("truenas14", "truenas", "trixie", "truenas"),
        LabHost("media14", "linux", "forky", "ups_clients"),
    ),
    "rack": (
        LabHost(
            *("rack", "pve", "trixie", "pve"),
            ups=(LabUps("apc", "5B1234T56789"), LabUps("apc", "5B1234T56790"), LabUps("eaton", "G356T51023")),
        ),
        LabHost("rack-nas", "truenas", "bookworm", "truenas"),
        LabHost("rack-media", "linux", "trixie", "ups_clients"),
        LabHost("rack-db", "linux", "trixie", "ups_clients"),
        LabHost("rack-web", "linux", "bookworm", "ups_clients"),
        LabHost("rack-old", "linux", "bookworm", "ups_clients"),
    ),
    # Machines that nobody has prepared: no USB, nobody but `ops` may log in, who must use sudo. For the scenario newcomer, whose
    # inventory knows them by their addresses.
    "newcomer": (
        LabHost("cellar", "bare", "trixie", "pve", user="ops"),
        LabHost("vault", "truenas", "trixie", "truenas"),
        LabHost("desk", "bare", "bookworm", "ups_clients", user="ops"),
        LabHost("shed", "bare", "trixie", "ups_clients", user="ops"),
    ),
}

# what is started if nobody says which; the large site costs as much as both together
USUAL = ("pve8", "pve9")
