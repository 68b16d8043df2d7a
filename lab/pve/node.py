#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a Proxmox VE out of one of the lab's hosts, as far as a shutdown goes: /etc/pve, guests, qm, pct, pve-guests.service.

A host of the lab has no guests, and no /etc/pve, until `lab-pve setup` is called there.
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
DOWN_SECONDS = 180  # what Proxmox gives a guest without `down` (pve-manager, PVE/API2/Nodes.pm)
UNIT = "pve-guests.service"
EXAMPLE = ("101=qm,storage=nas,seconds=6", "102=qm,storage=local,seconds=4", "201=pct,storage=nas,seconds=3")


@dataclass(frozen=True)
class GuestSpec:
    """A guest. storage: local or nas. seconds: how long it takes to go down, None: it hangs. order, down: of startup."""

    id: int
    kind: str
    storage: str = "local"
    seconds: float | None = 5.0
    order: int | None = None
    down: int | None = None
    tags: str = ""

    def format_config(self) -> str:
        """Return its configuration, as Proxmox writes it."""
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
    """Read ID=KIND[,storage=S][,seconds=N|never][,order=N][,down=N][,tags=A;B]. Raises ValueError, which says what is wrong."""
    first, *rest = text.split(",")
    number, _equals, kind = first.partition("=")
    given = dict(part.partition("=")[::2] for part in rest)
    wrong = sorted(set(given) - {"storage", "seconds", "order", "down", "tags"})
    if kind not in KINDS or not number.isdigit() or wrong:
        raise ValueError(f"{text}: want ID=qm or ID=pct, and then of storage, seconds, order, down, tags; not {wrong}")
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
    """Return storage.cfg: this host's own, and one of a NAS by NFS."""
    return (
        "dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,iso,vztmpl,backup\n\n"
        f"nfs: nas\n\tserver {nas}\n\texport /mnt/tank/vms\n\tpath /mnt/pve/nas\n\tcontent images,rootdir\n"
    )


def group_by_order(guests: Sequence[GuestSpec]) -> list[list[GuestSpec]]:
    """Return who is stopped together, in Proxmox's order: high numbers first, those without one before them."""

    def rank(guest: GuestSpec) -> float:
        return float("inf") if guest.order is None else guest.order

    ordered = sorted(guests, key=lambda guest: (-rank(guest), guest.id))
    return [list(together) for _rank, together in groupby(ordered, key=rank)]


class PveNode:
    """The host below a root."""

    def __init__(self, root: Path = Path("/"), name: str | None = None) -> None:
        """Name it; nothing is done."""
        self.root = root
        self.name = name or socket.gethostname()
        self.pve = root / "etc/pve"
        self.kept = root / "etc/lab/guests.json"
        self.running = root / "run/lab-pve"
        self.programs = root / "usr/sbin"
        self.unit = root / "etc/systemd/system" / UNIT
        self.moments = root / "lab/guests"

    def read_guests(self) -> list[GuestSpec]:
        """Return the guests that were set up."""
        return [GuestSpec(**one) for one in json.loads(self.kept.read_text())]

    def set_up(self, nas: str, guests: Sequence[GuestSpec]) -> None:
        """Write all that a Proxmox VE has, and its programs. No guest is started yet."""
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
        """Take all of that away again."""
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
        """Stop all guests, as pve-guests.service does when the host goes down: those of one order at once, then the next."""
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
            for one in asked:
                one.wait()


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="lab-pve", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("setup", help="make a Proxmox VE of this host, and start its guests")
    setup.add_argument("--nas", required=True, metavar="HOST", help="whose NFS the storage nas is")
    setup.add_argument("guests", nargs="*", default=EXAMPLE, metavar="GUEST", help=f"default: {' '.join(EXAMPLE)}")
    commands.add_parser("remove", help="take all of that away")
    commands.add_parser("start", help="what pve-guests.service does at boot")
    commands.add_parser("stop", help="what it does when the host goes down")
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
