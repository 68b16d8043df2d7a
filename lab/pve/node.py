#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turn a host of the lab into a Proxmox VE, as far as shutdowns are concerned: /etc/pve, guests, qm, pct, pvesh, HA, its units.

Hosts of the lab have no guests and no /etc/pve until `lab-pve setup` is called.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable

if not __package__:  # started by its path: the package is the directory beside us
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "pve"

from . import cluster, files, ha, stand_in
from .settings import FILE, RELEASES, GuestProperties, HostSettings, write_settings

GUESTS_UNIT, TARGET = "pve-guests.service", "lab-pve.target"
UNITS = (GUESTS_UNIT, "pve-ha-lrm.service", "pve-cluster.service", TARGET)
GUESTS_SLICE = "qemu.slice"
EXAMPLE = ("101=qm,storage=nas,seconds=6", "102=qm,storage=local,seconds=4", "201=pct,storage=nas,seconds=3")
KINDS = ("qm", "pct")
PLACES = {"qm": "usr/sbin", "pct": "usr/sbin", "ha-manager": "usr/sbin", "pvesm": "usr/sbin"}  # else usr/bin
DELAY = "usr/share/pve-manager/helpers/pve-startall-delay"
PERL_SECONDS = 0.3  # as on an idle machine
HA_ROUND, HA_REQUEST = 5.0, 12.0
POLL = 1.0


def parse_guest(text: str) -> tuple[int, GuestProperties]:
    """Parse ID=KIND[,OPTION=VALUE]... Raise ValueError for anything else."""
    first, *rest = text.split(",")
    number, _equals, kind = first.partition("=")
    given = dict(part.partition("=")[::2] for part in rest)
    wrong = sorted(set(given) - {"storage", "seconds", "order", "up", "down", "tags", "onboot", "ha"})
    if kind not in KINDS or not number.isdigit() or wrong:
        raise ValueError(
            f"{text}: expected ID=qm or ID=pct, followed by storage, seconds, order, up, down, onboot, ha or tags, not {wrong}"
        )
    seconds = given.get("seconds", "5")
    return int(number), GuestProperties(
        kind=kind,
        shutdown=None if seconds == "never" else float(seconds),
        ha=given.get("ha", "0") == "1",
        name=f"guest{number}",
        storage=given.get("storage", "local"),
        onboot=given.get("onboot", "1") == "1",
        order=_parse_number(given.get("order")),
        up=_parse_number(given.get("up")),
        down=_parse_number(given.get("down")),
        tags=given.get("tags", ""),
    )


def _parse_number(text: str | None) -> int | None:
    return None if text is None else int(text)


def read_release() -> str:
    """Return the release of Proxmox VE that runs on this Debian."""
    return RELEASES.get(platform.freedesktop_os_release().get("VERSION_CODENAME", ""), RELEASES["trixie"])


class PveNode:
    """A Proxmox VE host; `root` is its root directory."""

    def __init__(self, root: Path = Path("/"), name: str | None = None) -> None:
        """Name the host without changing it."""
        self.root = root
        self.name = name or socket.gethostname()
        self.pve = root / "etc/pve"
        self.folder = root / "etc/lab/pve"
        self.units = root / "etc/systemd/system"

    def open_guests(self) -> stand_in.GuestFolder:
        """Return the host's guests. Raise SystemExit before setup."""
        if not (self.folder / FILE).exists():
            raise SystemExit("lab-pve: this host is no Proxmox VE yet. Call: lab-pve setup --nas HOST")
        return stand_in.GuestFolder(self.folder)

    def set_up(self, nas: str, guests: Mapping[int, GuestProperties], release: str, **more: Any) -> None:
        """Write Proxmox VE's files, programs and units. No guest is started yet."""
        self.remove_files()
        self.folder.mkdir(parents=True)
        (self.root / "var/lib/lxc").mkdir(parents=True, exist_ok=True)
        moments = self.root / "lab/guests"
        moments.parent.mkdir(parents=True, exist_ok=True)
        settings = HostSettings(
            name=self.name,
            release=release,
            moments=str(moments),
            scopes=self.root == Path("/"),
            runtime=str(self.root / "run/lab-pve"),
            pids=str(self.root / "run/qemu-server"),
            pve=str(self.pve),
            sockets=self.root == Path("/"),
            root_only=True,
            perl=PERL_SECONDS,
            storages={"local": "on", "nas": "auto"},
            nas=nas,
            ha_round=HA_ROUND,
            ha_request=HA_REQUEST,
            **more,
        )
        write_settings(self.folder, settings)
        for folder in files.FOLDERS.values():
            (self.pve / "nodes" / self.name / folder).mkdir(parents=True)
        (self.pve / "local").symlink_to(f"nodes/{self.name}")
        host = self.open_guests()
        for number, guest in guests.items():
            host.save_guest(number, guest)
        self.write_files(host)
        for program in (*stand_in.PROGRAMS, "pve-startall-delay"):
            path = self.program_path(program)
            path.parent.mkdir(parents=True, exist_ok=True)
            stand_in.write_program(path, program, self.folder)
        for unit in UNITS:
            shutil.copyfile(Path(__file__).resolve().with_name(unit), self.units / unit)
        self.set_packages({"pve-manager": release, "pve-ha-manager": settings.ha_release})

    def set_packages(self, releases: Mapping[str, str]) -> None:
        """Make dpkg know these packages."""
        status = self.root / "var/lib/dpkg/status"
        if status.exists():
            files.set_packages(status, releases)

    def program_path(self, name: str) -> Path:
        """Return where Proxmox VE has a program."""
        return self.root / (DELAY if name == "pve-startall-delay" else f"{PLACES.get(name, 'usr/bin')}/{name}")

    def write_files(self, host: stand_in.GuestFolder) -> None:
        """Write what /etc/pve has of the host, its cluster and HA; that needs no quorum here."""
        settings = host.settings
        if self.root == Path("/"):
            cluster.set_writable(self.pve, True)
        files.write_host(settings, find_address())
        files.write_members(settings, host.has_quorum())
        host.save_ha()
        if self.root == Path("/"):
            (host.runtime / "quorate").unlink(missing_ok=True)
            cluster.update_quorum(settings, host.runtime)

    def remove_files(self) -> None:
        """Remove everything that set_up has written."""
        cluster.set_writable(self.pve, True)
        for folder in (self.pve, self.folder, self.root / "run/lab-pve", self.root / "run/qemu-server"):
            shutil.rmtree(folder, ignore_errors=True)
        self.set_packages({})
        paths = [self.program_path(program) for program in (*stand_in.PROGRAMS, "pve-startall-delay")]
        for path in (*paths, self.root / "lab/guests", *(self.units / unit for unit in UNITS)):
            path.unlink(missing_ok=True)


def find_address() -> str:
    """Return this host's own address."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


def start_units(wait: bool) -> int:
    """Start Proxmox's units, and wait until the guests are started. Return the exit code."""
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "--quiet", *UNITS[:-1]], check=True)
    subprocess.run(["systemctl", "start", TARGET], check=True)
    while wait:
        shown = ["systemctl", "show", "--property=ActiveState,Result", GUESTS_UNIT]
        said = subprocess.run(shown, stdout=subprocess.PIPE, text=True, check=True).stdout
        if "=activating" not in said and "=inactive" not in said:
            return 0 if "ActiveState=active" in said else 1
        time.sleep(0.2)
    return 0


def stop_units(host: stand_in.GuestFolder) -> None:
    """End all guests and Proxmox's units. systemd refuses to stop pve-guests.service, so allow that first.

    nut-stages may be starting guests at this moment. A guest that it starts meanwhile would stay, with a scope that no later start
    could use. So new calls of Proxmox's programs fail, running ones are ended, and then every process in the guests' slice.
    """
    host.change_settings(disarm="ignore", pmxcfs=False)
    programs = f"{Path(stand_in.__file__).with_name('programs.py')} {host.folder} "
    subprocess.run(["pkill", "--signal", "KILL", "--full", programs], check=False)
    drop_in = Path("/run/systemd/system") / f"{GUESTS_UNIT}.d/lab.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Unit]\nRefuseManualStop=no\n[Service]\nExecStop=\n")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    host.kill_all()
    subprocess.run(["systemctl", "disable", "--now", "--quiet", *UNITS], check=False)
    host.kill_all()
    for action in (["kill", "--signal=KILL"], ["stop"]):
        subprocess.run(["systemctl", *action, GUESTS_SLICE], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(drop_in.parent)


def run_pmxcfs(node: PveNode) -> None:
    """Note quorum for ever, and keep /etc/pve writable or not."""
    (node.root / "run/qemu-server").mkdir(parents=True, exist_ok=True)
    while True:
        host = node.open_guests()
        cluster.update_quorum(host.settings, host.runtime)
        time.sleep(POLL)


# The command line


def _on_off(words: str) -> bool:
    if words not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{words}: expected on or off")
    return words == "on"


def _guest(number: str) -> int:
    return int(number)


def _seconds(text: str) -> float | None:
    return None if text == "never" else float(text)


def set_storage(node: PveNode, args: argparse.Namespace) -> None:
    """Make a storage online or offline."""
    host = node.open_guests()
    if args.name not in host.settings.storages:
        raise SystemExit(f"lab-pve: no storage {args.name}. Storages: {', '.join(host.settings.storages)}")
    host.change_settings(storages={**host.settings.storages, args.name: args.switch})


def set_cluster(node: PveNode, args: argparse.Namespace) -> None:
    """Make this host a node of a cluster with other machines of the lab."""
    host = node.open_guests()
    nodes = {name: socket.gethostbyname(name) for name in args.nodes}
    host.change_settings(nodes=nodes, quorum="auto" if nodes else "on", policy=args.policy, lasts=args.lasts)
    node.write_files(host)


def change_host(name: str) -> Callable[[PveNode, argparse.Namespace], None]:
    """Return a command that changes a setting of the host."""

    def run_command(node: PveNode, args: argparse.Namespace) -> None:
        host = node.open_guests()
        host.change_settings(**{name: args.value})
        node.write_files(host)

    return run_command


def change_guest(name: str) -> Callable[[PveNode, argparse.Namespace], None]:
    """Return a command that changes a property of a guest."""

    def run_command(node: PveNode, args: argparse.Namespace) -> None:
        host = node.open_guests()
        if args.guest not in host.list_guests():
            raise SystemExit(f"lab-pve: no guest {args.guest}. Guests: {', '.join(map(str, host.list_guests()))}")
        if node.root == Path("/"):
            cluster.set_writable(node.pve, True)
        host.change_guest(args.guest, **{name: args.value})
        if name == "backup":
            host.change_guest(args.guest, lock="backup" if args.value else "")
        node.write_files(host)

    return run_command


def show_host(node: PveNode, _args: argparse.Namespace) -> None:
    """Print the host and its guests as JSON."""
    host = node.open_guests()
    guests = {number: {**asdict(guest), "pid": host.find_pid(number)} for number, guest in host.list_guests().items()}
    shown = {**asdict(host.settings), "quorate": host.has_quorum(), "workers": host.settings.count_workers()}
    print(json.dumps({"host": shown, "guests": guests}, indent=1))


GUEST_COMMANDS: tuple[tuple[str, str, str, dict[str, Any], str], ...] = (
    (
        "lock",
        "lock",
        "NAME",
        {},
        "lock a guest's configuration as `backup`, `migrate`, `snapshot` ...; none: '' (a stale lock)",
    ),
    (
        "backup",
        "backup",
        "on|off",
        {"type": _on_off},
        "begin or end a backup, which locks a guest; `vzdump -stop` ends it",
    ),
    ("status", "state", "STATE", {"choices": stand_in.STATES}, f"the run state of a VM: {', '.join(stand_in.STATES)}"),
    ("monitor", "monitor", "on|off", {"type": _on_off}, "whether QEMU answers its monitor (QMP)"),
    ("stubborn", "stubborn", "on|off", {"type": _on_off}, "whether a guest, from its next start on, survives SIGTERM"),
    ("seconds", "shutdown", "SECONDS", {"type": _seconds}, "how long a guest takes to shut down, or never"),
    (
        "up",
        "up",
        "SECONDS",
        {"type": int},
        "how long Proxmox waits after its start at boot, before it starts the next one",
    ),
    ("ha", "ha", "on|off", {"type": _on_off}, "whether HA manages a guest"),
    ("failing-starts", "starts", "N", {"type": int}, "how many starts fail before one succeeds"),
)
HOST_COMMANDS: tuple[tuple[str, str, str, dict[str, Any], str], ...] = (
    ("quorum", "quorum", "on|off|auto", {"choices": ("on", "off", "auto")}, "auto: if most nodes of the cluster answer"),
    ("pmxcfs", "pmxcfs", "on|off", {"type": _on_off}, "whether the cluster file system runs; without it qm and pct fail"),
    ("perl", "perl", "SECONDS", {"type": float}, f"how long each program takes to load; default {PERL_SECONDS}"),
    ("noise", "noise", "on|off", {"type": _on_off}, "whether programs write a warning of Perl to stderr first"),
    ("cpus", "cpus", "N", {"type": int}, "how many CPUs this host has; 0: as the machine"),
    ("workers", "max_workers", "N", {"type": int}, "max_workers of datacenter.cfg; 0: not set, then by the CPUs and the release"),
    ("onboot-delay", "onboot_delay", "SECONDS", {"type": int}, "startall-onboot-delay of the node"),
    ("watchdog", "watchdog", "SECONDS", {"type": float}, "seconds without quorum until HA's watchdog resets the host; default 60"),
    ("ha-round", "ha_round", "SECONDS", {"type": float}, f"seconds between two rounds of HA; default {HA_ROUND:g}"),
    ("ha-request", "ha_request", "SECONDS", {"type": float}, f"seconds until a request to HA fails without quorum; default {HA_REQUEST:g}"),
)  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="lab-pve", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    setup = commands.add_parser("setup", help="turn this host into a Proxmox VE, and start its guests")
    setup.add_argument(
        "--nas", required=True, metavar="HOST", help="NFS server of the storage nas, which is online if it answers"
    )
    setup.add_argument("--release", default=None, help="of pve-manager; default: as on this Debian")
    setup.add_argument("--no-wait", action="store_true", help="don't wait until the guests are started")
    setup.add_argument(
        "guests",
        nargs="*",
        default=EXAMPLE,
        metavar="GUEST",
        help="ID=qm or ID=pct, with ,storage=nas ,seconds=N|never ,order=N ,up=N ,down=N ,onboot=0 ,ha=1 ,tags=A;B; "
        f"default: {' '.join(EXAMPLE)}",
    )
    commands.add_parser("remove", help="undo setup")
    commands.add_parser("show", help="print everything as JSON").set_defaults(run=show_host)
    storage = commands.add_parser(
        "storage", help="make a storage online (on), offline (off), or as its server is (auto)"
    )
    storage.add_argument("name")
    storage.add_argument("switch", choices=("on", "off", "auto"))
    storage.set_defaults(run=set_storage)
    joined = commands.add_parser("cluster", help="make this host a node of a cluster; without a NODE: of none")
    joined.add_argument(
        "nodes", nargs="*", metavar="NODE", help="another machine of the lab; it is there if it answers"
    )
    policies = ("", "conditional", "failover", "freeze", "migrate")
    joined.add_argument("--policy", default="", choices=policies, help="shutdown_policy of HA")
    joined.add_argument(
        "--lasts",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="a node is there so long after its last answer; default 0",
    )
    joined.set_defaults(run=set_cluster)
    for name, setting, shown, options, words in HOST_COMMANDS:
        command = commands.add_parser(name, help=words)
        command.add_argument("value", metavar=shown, **options)
        command.set_defaults(run=change_host(setting))
    for name, setting, shown, options, words in GUEST_COMMANDS:
        command = commands.add_parser(name, help=words)
        command.add_argument("guest", type=_guest, metavar="ID")
        command.add_argument("value", metavar=shown, **options)
        command.set_defaults(run=change_guest(setting))
    commands.add_parser("run-pmxcfs", help="used by pve-cluster.service")
    commands.add_parser("run-lrm", help="used by pve-ha-lrm.service")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one command."""
    parser = make_parser()
    args = parser.parse_args(words)
    node = PveNode()
    if args.command == "setup":
        try:
            guests = dict(parse_guest(text) for text in args.guests)
        except ValueError as error:
            parser.error(str(error))
        if (node.folder / FILE).exists():
            stop_units(node.open_guests())
        node.set_up(args.nas, guests, args.release or read_release())
        return start_units(not args.no_wait)
    if args.command == "remove":
        if (node.folder / FILE).exists():
            stop_units(node.open_guests())
        node.remove_files()
        subprocess.run(["systemctl", "daemon-reload"], check=False)
    elif args.command == "run-pmxcfs":
        run_pmxcfs(node)
    elif args.command == "run-lrm":
        ha.ResourceManager(node.open_guests()).run_forever()
    else:
        args.run(node, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
