#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turn a host of the lab into a Proxmox VE, as far as shutdowns are concerned: /etc/pve, guests, qm, pct, pve-guests.service.

Hosts of the lab have no guests and no /etc/pve until `lab-pve setup` is called.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

if not __package__:  # started by its path: the package is the directory beside us
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "pve"

from . import stand_in

KINDS = {"qm": "qemu-server", "pct": "lxc"}
DOWN_SECONDS = 180  # Proxmox's default for a guest without `down` (pve-manager, PVE/API2/Nodes.pm)
UNIT = "pve-guests.service"
EXAMPLE = ("101=qm,storage=nas,seconds=6", "102=qm,storage=local,seconds=4", "201=pct,storage=nas,seconds=3")


@dataclass(frozen=True)
class GuestSpec:
    """The configuration of a guest."""

    id: int
    kind: str  # "qm" or "pct"
    storage: str = "local"  # or "nas"
    seconds: float | None = 5.0  # that it takes to shut down; None: it hangs
    order: int | None = None  # of `startup`
    down: int | None = None  # of `startup`, in seconds
    tags: str = ""

    def format_config(self) -> str:
        """Return the configuration file as Proxmox writes it."""
        disk = f"{self.storage}:{self.id}/vm-{self.id}-disk-0.qcow2,size=8G"
        parts = [f"{key}={value}" for key, value in (("order", self.order), ("down", self.down)) if value is not None]
        lines = [
            f"name: guest{self.id}" if self.kind == "qm" else f"hostname: guest{self.id}",
            "onboot: 1",
            f"scsi0: {disk}" if self.kind == "qm" else f"rootfs: {disk}",
            *([f"startup: {','.join(parts)}"] if parts else []),
            *([f"tags: {self.tags}"] if self.tags else []),
        ]
        return "\n".join(lines) + "\n"


def parse_guest(text: str) -> GuestSpec:
    """Parse ID=KIND[,storage=S][,seconds=N|never][,order=N][,down=N][,tags=A;B]. Raise ValueError for anything else."""
    first, *rest = text.split(",")
    number, _equals, kind = first.partition("=")
    given = dict(part.partition("=")[::2] for part in rest)
    wrong = sorted(set(given) - {"storage", "seconds", "order", "down", "tags"})
    if kind not in KINDS or not number.isdigit() or wrong:
        raise ValueError(
            f"{text}: expected ID=qm or ID=pct, followed by storage, seconds, order, down or tags, not {wrong}"
        )
    seconds = given.get("seconds", "5")
    return GuestSpec(
        int(number),
        kind,
        given.get("storage", "local"),
        None if seconds == "never" else float(seconds),
        int(given["order"]) if "order" in given else None,
        int(given["down"]) if "down" in given else None,
        given.get("tags", ""),
    )


def format_storages(nas: str) -> str:
    """Return storage.cfg with a local storage and an NFS storage on a NAS."""
    return (
        "dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,iso,vztmpl,backup\n\n"
        f"nfs: nas\n\tserver {nas}\n\texport /mnt/tank/vms\n\tpath /mnt/pve/nas\n\tcontent images,rootdir\n"
    )


def group_by_order(guests: Sequence[GuestSpec]) -> list[list[GuestSpec]]:
    """Return the groups of guests that Proxmox stops together: without an order first, then from high to low."""

    def sort_rank(guest: GuestSpec) -> float:
        return float("inf") if guest.order is None else guest.order

    ordered = sorted(guests, key=lambda guest: (-sort_rank(guest), guest.id))
    return [list(together) for _rank, together in groupby(ordered, key=sort_rank)]


class PveNode:
    """A Proxmox VE host; `root` is its root directory."""

    def __init__(self, root: Path = Path("/"), name: str | None = None) -> None:
        """Name the host without changing it."""
        self.root = root
        self.name = name or socket.gethostname()
        self.pve = root / "etc/pve"
        self.kept = root / "etc/lab/guests.json"
        self.running = root / "run/lab-pve"
        self.programs = root / "usr/sbin"
        self.unit = root / "etc/systemd/system" / UNIT
        self.moments = root / "lab/guests"

    def read_guests(self) -> list[GuestSpec]:
        """Return the configured guests."""
        return [GuestSpec(**guest) for guest in json.loads(self.kept.read_text())]

    def set_up(self, nas: str, guests: Sequence[GuestSpec]) -> None:
        """Write Proxmox VE's files and programs. No guest is started yet."""
        self.remove_all()
        local = self.pve / "nodes" / self.name
        for kind, folder in KINDS.items():
            (local / folder).mkdir(parents=True)
            for guest in guests:
                if guest.kind == kind:
                    (local / folder / f"{guest.id}.conf").write_text(guest.format_config())
        (self.pve / "local").symlink_to(f"nodes/{self.name}")
        (self.pve / "storage.cfg").write_text(format_storages(nas))
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        self.kept.write_text(json.dumps([asdict(guest) for guest in guests], indent=1) + "\n")
        self.moments.parent.mkdir(parents=True, exist_ok=True)
        stand_in.install_programs(self.programs, self.running, 1.0, self.moments)
        shutil.copyfile(Path(__file__).resolve().with_name(UNIT), self.unit)

    def remove_all(self) -> None:
        """Remove everything that set_up has written."""
        shutil.rmtree(self.pve, ignore_errors=True)
        for path in (self.kept, self.moments, self.unit, *(self.programs / name for name in ("qm", "pct", "vzdump"))):
            path.unlink(missing_ok=True)

    def start_guests(self) -> None:
        """Start all guests, as pve-guests.service does at boot."""
        shutil.rmtree(self.running, ignore_errors=True)
        self.running.mkdir(parents=True)
        host = stand_in.GuestFolder(self.running, 1.0, self.moments)
        os.environ.update(PVE_STAND_IN=str(self.running), PVE_STAND_IN_MOMENTS=str(self.moments))
        for guest in self.read_guests():
            host.add_guest(guest.id, kind=guest.kind, shutdown=guest.seconds)

    def stop_guests(self) -> None:
        """Stop all guests, as pve-guests.service does at shutdown: one group after the other."""
        for together in group_by_order(self.read_guests()):
            asked = [
                subprocess.Popen(
                    [
                        str(self.programs / guest.kind),
                        "shutdown",
                        str(guest.id),
                        "--forceStop",
                        "1",
                        "--timeout",
                        str(DOWN_SECONDS if guest.down is None else guest.down),
                    ]
                )
                for guest in together
            ]
            for process in asked:
                process.wait()


def main(words: Sequence[str] | None = None) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="lab-pve", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("setup", help="turn this host into a Proxmox VE, and start its guests")
    setup.add_argument("--nas", required=True, metavar="HOST", help="NFS server of the storage nas")
    setup.add_argument("guests", nargs="*", default=EXAMPLE, metavar="GUEST", help=f"default: {' '.join(EXAMPLE)}")
    commands.add_parser("remove", help="undo setup")
    commands.add_parser("start", help="start all guests, as at boot")
    commands.add_parser("stop", help="stop all guests, as at shutdown")
    args = parser.parse_args(words)
    node = PveNode()
    if args.command == "setup":
        try:
            guests = [parse_guest(text) for text in args.guests]
        except ValueError as error:
            parser.error(str(error))
        node.set_up(args.nas, guests)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        return subprocess.run(["systemctl", "enable", "--now", "--quiet", UNIT], check=False).returncode
    if args.command == "remove":
        subprocess.run(["systemctl", "disable", "--now", "--quiet", UNIT], check=False)
        node.remove_all()
    elif args.command == "start":
        node.start_guests()
    else:
        node.stop_guests()
    return 0


if __name__ == "__main__":
    sys.exit(main())
