# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the guests of a Proxmox VE host: their configuration, the servers of their storage, and how HA treats them.

Reads only configuration files. It opens nothing that may be on a storage server: if the server is gone, that would hang.
Sources: qemu-server and pve-container (the parsers of the configuration), pve-storage (its plugins), pve-ha-manager;
releases 8 and 9.

One file, because guests, storages and HA are read together and refer to each other.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ..base import hostnames, jsontext
from ..base.text import printable
from . import formats, grammar, guest_options
from .datacenter import parse_datacenter
from .running import FOLDERS

KINDS = ("qm", "pct")
IDS = range(100, 1_000_000_000)  # valid numbers of guests
# Proxmox's shutdown timeout for a guest without `down`, of both kinds since pve-manager 7.3; before, 60 s for a container
DOWN_SECONDS = 180
# After its timeout, a VM gets a SIGTERM, 10 s later a SIGKILL, and one more second. A container's lxc-stop takes 5 s more.
FORCE_SECONDS = 11
# how long HA may take to act on a request: its two daemons look every 10 s and every 5 s
HA_SECONDS = 20
# the largest file in pmxcfs, in bytes
_LIMIT = 1 << 20

Resolve = Callable[[str], Sequence[str]]


class GuestsError(Exception):
    """Proxmox's files can't be read. The message names the file and the remedy."""


@dataclass(frozen=True)
class Guest:
    """A guest on this host."""

    id: int  # its number
    kind: str  # the command that manages it: "qm" (a VM) or "pct" (a container)
    name: str = ""
    tags: tuple[str, ...] = ()
    onboot: bool = False
    order: int | None = None  # Proxmox starts low orders first and stops them last; None counts as the highest
    up: int | None = None  # seconds, from the option startup; None if not set there
    down: int | None = None  # likewise
    storages: frozenset[str] = frozenset()  # ids of the storages of its disks and CDs
    paths: frozenset[str] = frozenset()  # absolute, on the host: bind mounts, devices, shared directories
    template: bool = False
    # files that are run, read or written when the guest starts or stops: hookscript, cicustom, lxc.hook; volumes or paths
    scripts: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """The guest's key in files, such as qm/100."""
        return f"{self.kind}/{self.id}"

    def __str__(self) -> str:
        """Return the guest's name for messages, such as VM 100 (mail)."""
        label = f"{'VM' if self.kind == 'qm' else 'container'} {self.id}"
        return f"{label} ({self.name})" if self.name else label


def parse_key(key: str) -> Guest:
    """Return the guest of Guest.key, without its other fields. Raises ValueError if there can be no such guest."""
    kind, _slash, number = key.partition("/")
    if kind not in KINDS or not (number.isascii() and number.isdigit()) or len(number) > 9:
        raise ValueError(f"{key!r} is not a guest")
    return Guest(int(number), kind)


@dataclass(frozen=True)
class Storage:
    """A section of storage.cfg."""

    id: str
    type: str
    servers: tuple[str, ...] = ()  # names or addresses without ports; () if the storage is on this host
    path: str = ""  # of a directory storage
    base: str = ""  # for a volume group on a volume of another storage: the id of that storage


@dataclass(frozen=True)
class Mount:
    """A mount."""

    point: str
    server: str  # "" if from this host


@dataclass(frozen=True)
class HaSetup:
    """What Proxmox's HA does at a poweroff."""

    policy: str = "conditional"  # shutdown_policy
    managed: frozenset[int] = (
        frozenset()
    )  # ids of the guests that HA manages; none while it is disarmed with the mode ignore
    remarks: tuple[str, ...] = ()  # what the user should know


def is_node(root: Path = Path("/")) -> bool:
    """Return whether a host is a node of Proxmox VE."""
    return (root / "etc/pve").is_dir() or (root / "usr/bin/pveversion").exists()


# Configuration files


def load_guests(root: Path = Path("/")) -> list[Guest]:
    """Return the guests of this host, including templates; [] on a host without Proxmox VE. Raises GuestsError."""
    local = root / "etc/pve/local"
    if not (root / "etc/pve").is_dir():
        return []
    if not local.is_dir():
        # pmxcfs is not mounted; the directory below it is empty
        raise GuestsError(f"there is no {local}: start Proxmox's cluster file system (systemctl start pve-cluster)")
    shared = _parse_directories(read_text(root / "etc/pve/mapping/directory.cfg"))
    found = []
    for kind, folder in FOLDERS.items():
        for path in sorted((local / folder).glob("*.conf")):
            if re.fullmatch(r"[1-9][0-9]{2,8}", path.stem):
                found.append(parse_guest(int(path.stem), kind, read_text(path), shared))
    return sorted(found, key=lambda guest: guest.id)


def parse_guest(number: int, kind: str, text: str, shared: Mapping[str, Collection[str]] | None = None) -> Guest:
    """Return a guest from its configuration file: its current options, not the pending ones or its snapshots.

    shared: name -> paths of the directories that VMs can mount with virtiofs. Invalid lines are ignored, as by Proxmox; of
    an option that is given twice, the last valid one counts. Sources: parse_vm_config in src/PVE/QemuServer.pm of qemu-server,
    and parse_pct_config in src/PVE/LXC/Config.pm of pve-container, which keeps a value even if it is invalid.
    """
    values, entries = guest_options.read_options(kind, text)
    volumes = []
    scripts = [values.get("hookscript", "")]
    for key, value in values.items():
        if kind == "qm" and key in formats.DRIVES:
            volumes.append((guest_options.read_drive(key, value) or {}).get("file", ""))
        elif kind == "pct" and (form := formats.MOUNTS.get(key)):
            volumes.append((grammar.parse_properties(value, form) or {}).get("volume", ""))
    shares: set[str] = set()
    if kind == "qm":
        scripts += (grammar.parse_properties(values.get("cicustom", ""), formats.CICUSTOM) or {}).values()
        for key, value in values.items():
            if re.fullmatch(r"virtiofs[0-9]", key):
                share = grammar.parse_properties(value, formats.VIRTIOFS) or {}
                shares.update((shared or {}).get(share.get("dirid", ""), ()))
    scripts += [value.split()[0] for key, value in entries if key in formats.LXC_FILES and value.startswith("/")]
    mounted = [value.split()[0] for key, value in entries if key == "lxc.mount.entry" and value.startswith("/")]
    order, up, down = guest_options.parse_startup(values.get("startup", "")) or (None, None, None)
    return Guest(
        id=number,
        kind=kind,
        name=printable(values.get("name" if kind == "qm" else "hostname", "")),
        tags=tuple(printable(tag) for tag in guest_options.split_list(values.get("tags", ""))),
        onboot=guest_options.is_on(kind, values.get("onboot", "0")),
        order=order,
        up=up,
        down=down,
        storages=frozenset(storage for volume in volumes if (storage := grammar.find_storage(volume))),
        paths=frozenset((*(volume for volume in volumes if volume.startswith("/")), *shares, *mounted)),
        template=guest_options.is_on(kind, values.get("template", "0")),
        scripts=frozenset(script for script in scripts if script.startswith("/") or grammar.find_storage(script)),
    )


def _parse_directories(text: str) -> dict[str, list[str]]:
    """Return the paths by name in mapping/directory.cfg, of all nodes."""
    return {
        section.id: [
            part[len("path=") :]
            for key, value in section.lines
            if key == "map" and value
            for part in value.split(",")
            if part.startswith("path=/")
        ]
        for section in grammar.split_sections(text, r"(\S+)\s*")
    }


# Plugins for TrueNAS call the server otherwise. Any option of an unknown type may be one of a plugin that is installed.
_SERVERS = ("server", "server2", "portal", "discovery_portal", "portals", "api_host")


def parse_storages(text: str) -> dict[str, Storage]:
    """Return the storages by id in storage.cfg.

    Of an option that is given twice, the first valid one counts. Sources: pve-storage, src/PVE/Storage/Plugin.pm
    (parse_section_header, parse_config), and grammar.split_sections().
    """
    found = {}
    for section in grammar.split_sections(text):
        kind = section.type.lower()
        if not grammar.find_storage(f"{section.id}:x"):
            continue

        def is_valid(key: str, value: str, kind: str = kind) -> bool:
            return key in formats.STORAGE_OPTIONS.get(kind, (key,)) and _is_valid_storage_option(key, value)

        values = section.first_values(is_valid)
        servers = [
            host
            for key in _SERVERS
            for word in re.split(r"[,;\s]+", values.get(key, ""), flags=re.ASCII)
            if (host := _strip_port(word))
        ]
        found[section.id] = Storage(
            id=section.id,
            type=kind,
            # only backups, no disks
            servers=() if kind == "pbs" else tuple(dict.fromkeys(servers)),
            path=values.get("path", f"/mnt/pve/{section.id}" if kind in formats.MOUNTED_STORAGES else ""),
            base=grammar.find_storage(values.get("base", "")),
        )
    return {
        **found,
        "local": Storage("local", "dir", (), "/var/lib/vz"),
    }  # Proxmox always has it, and allows no other one


def _is_valid_storage_option(key: str, value: str) -> bool:
    if key in ("server", "server2"):
        return grammar.is_address(value)
    if key == "path":
        return grammar.is_match(r"/[^;()].*", value)
    return key != "base" or bool(grammar.find_storage(value))


def _strip_port(text: str) -> str:
    """Return a server without its port. Forms: `nas:3260`, `192.0.2.20`, `[2001:db8::1]:3260`, `2001:db8::1`."""
    if match := re.fullmatch(r"\[([^\]]+)\](?::[0-9]+)?", text):
        return match.group(1)
    return text if text.count(":") > 1 else text.partition(":")[0]


def parse_mounts(*texts: str) -> tuple[Mount, ...]:
    """Return the mounts of /etc/fstab and /proc/self/mounts, in this order: of two at the same point, the last one counts.

    fstab also has mounts that are not active now, or that wait for their first use.
    """
    found = []
    for text in texts:
        for line in text.split("\n"):
            words = [_unescape_octal(word) for word in line.split()]
            # autofs is only a placeholder for a mount on first use
            if len(words) >= 3 and not words[0].startswith("#") and words[1].startswith("/") and words[2] != "autofs":
                found.append(Mount(posixpath.normpath(words[1]), _mounted_from(words[0], words[2])))
    return tuple(found)


def _unescape_octal(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), word)


def _mounted_from(source: str, kind: str) -> str:
    if kind in ("cifs", "smb3", "smbfs"):
        return _strip_port(source.replace("\\", "/").lstrip("/").partition("/")[0])
    if kind in ("nfs", "nfs4", "glusterfs", "fuse.glusterfs", "sshfs", "fuse.sshfs"):
        match = re.match(r"(?:[^@/]*@)?(\[[^\]]+\]|[^:/\[]+):", source)
        return match.group(1).strip("[]") if match else ""
    return _find_iscsi_portal(source)


def _find_iscsi_portal(path: str) -> str:
    """Return the portal in udev's name of an iSCSI disk."""
    match = re.match(r"/dev/disk/by-path/ip-(\[[^\]]+\]|[^:]+|[0-9A-Fa-f:]+):[0-9]+-iscsi-", path)
    return match.group(1).strip("[]") if match else ""


# Tags and storage


def with_tag(guests: Iterable[Guest], tag: str, *, case_sensitive: bool = False) -> list[Guest]:
    """Return the guests that have a tag. Case matters only with case-sensitive=1 in tag-style of datacenter.cfg."""

    def spell(word: str) -> str:
        return word if case_sensitive else word.casefold()

    return [guest for guest in guests if spell(tag) in map(spell, guest.tags)]


def find_storage_users(
    guests: Iterable[Guest],
    known: Mapping[str, Storage],
    addresses: Iterable[str],
    mounted: Sequence[Mount],
    resolve: Resolve,
) -> dict[Guest, str]:
    """Return the guests that use storage of a host, each with the reason, for messages.

    addresses: the host's addresses or names. known: parse_storages(). mounted: parse_mounts(). resolve: raises OSError for a
    name without addresses. A CD counts as a disk: the VM has it open, and may hang with it. So does a script that Proxmox runs
    when it stops the guest: without its server, the stop hangs. Disks whose place is not in the configuration are not found: a
    volume group on iSCSI without `base`, and `args`.
    """
    seen: dict[str, frozenset[str]] = {}

    def all_of(name: str) -> frozenset[str]:
        if name not in seen:
            try:
                answers = resolve(name)
            except OSError:
                answers = ()
            seen[name] = frozenset(hostnames.normal_address(address) for address in (name.casefold(), *answers))
        return seen[name]

    wanted = frozenset(address for name in addresses for address in all_of(name))

    def is_there(server: str) -> bool:
        return bool(server) and not wanted.isdisjoint(all_of(server))

    found = {}
    for guest in guests:
        reasons = [
            f"its disk is on storage {name}, on {server}"
            for name in sorted(guest.storages)
            for server in _find_servers(name, known, mounted)
            if is_there(server)
        ]
        reasons += [
            f"it uses {printable(path)}, on {server}"
            for path in sorted(guest.paths)
            if is_there(server := find_mount_server(path, mounted))
        ]
        reasons += [
            f"its script {printable(script)} is on {server}"
            for script in sorted(guest.scripts)
            for server in (
                [find_mount_server(script, mounted)]
                if script.startswith("/")
                else _find_servers(grammar.find_storage(script), known, mounted)
            )
            if is_there(server)
        ]
        if reasons:
            found[guest] = "; ".join(dict.fromkeys(reasons))
    return found


def _find_servers(name: str, known: Mapping[str, Storage], mounted: Sequence[Mount]) -> list[str]:
    """Return the servers of a storage and of the storages below it."""
    found: list[str] = []
    visited: set[str] = set()
    while name in known and name not in visited:
        visited.add(name)
        storage = known[name]
        found += storage.servers
        if storage.path:
            found.append(find_mount_server(storage.path, mounted))
        name = storage.base
    return found


def find_mount_server(path: str, mounted: Sequence[Mount]) -> str:
    """Return the server of the file system at `path`; "" if it is on this host. Does not follow symbolic links."""
    if server := _find_iscsi_portal(path):
        return server
    path = posixpath.normpath(path)
    best = Mount("", "")
    for mount in mounted:
        is_below = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if is_below and len(mount.point) >= len(best.point):
            best = mount
    return best.server


# High availability

_STOP_AND_START = (
    "at a poweroff HA stops the guests it manages here, and starts them on another node that is still running"
)
_POLICIES = {
    "conditional": _STOP_AND_START,
    "failover": _STOP_AND_START,
    "freeze": "at a poweroff HA stops the guests it manages here, and keeps them stopped until this host is back, as an outage needs",
    "migrate": (
        "at a poweroff HA first migrates its guests to another node, and the poweroff waits for that without a time limit. In an "
        "outage of all nodes, the battery may run out first. Set it to freeze: Datacenter, Options, HA Settings"
    ),
}


def read_ha(root: Path = Path("/")) -> HaSetup:
    """Return which guests HA manages, and what its policy means when this host powers off. Raises GuestsError.

    Sources: pve-ha-manager, src/PVE/HA/Resources.pm (parse_section_header) and src/PVE/HA/Config.pm (service_check_ha_state).
    """
    cluster = root / "etc/pve"
    policy = parse_datacenter(read_text(cluster / "datacenter.cfg")).shutdown_policy
    managed: set[tuple[str, int]] = set()
    for section in grammar.split_sections(read_text(cluster / "ha/resources.cfg")):
        kind, state = section.type.lower(), section.first_values(_is_valid_resource_option).get("state")
        if kind in ("vm", "ct") and re.fullmatch(r"[1-9][0-9]+", section.id):
            # HA does not manage guests in the state ignored
            (managed.discard if state == "ignored" else managed.add)((kind, int(section.id)))
    numbers = frozenset(number for _kind, number in managed)
    if not numbers:
        return HaSetup(policy, frozenset(), ())
    listed = f"{len(numbers)} guest{'s' if len(numbers) > 1 else ''} ({', '.join(map(str, sorted(numbers)))})"
    disarmed = _read_disarm_mode(read_text(cluster / "ha/manager_status"))
    if disarmed == "ignore":
        # since pve-ha-manager 5.1.3
        return HaSetup(policy, frozenset(), (f"HA is disarmed: until it is armed, Proxmox VE itself stops {listed}",))
    remarks = [
        f"HA manages {listed}",
        f"shutdown_policy is {policy}: {_POLICIES[policy]}",
        "a node that loses contact with the others loses quorum, and HA resets it a minute later: in an outage, shut down all "
        "nodes together, or disarm HA first",
    ]
    if disarmed:
        remarks.append(
            f"HA is disarmed with the mode {printable(disarmed)}: nothing stops its guests at a poweroff, and they are killed. "
            "Arm it (ha-manager crm-command arm-ha), or disarm it with the mode ignore"
        )
    return HaSetup(policy, numbers, tuple(remarks))


def _is_valid_resource_option(key: str, value: str) -> bool:
    return key != "state" or value in ("started", "stopped", "enabled", "disabled", "ignored")


def _read_disarm_mode(text: str) -> str:
    """Return the mode with which HA is disarmed, in a text of ha/manager_status; "" if it is armed."""
    try:
        status = jsontext.parse_json(text or "{}")
        return str(status["disarm"]["mode"])
    except (ValueError, KeyError, TypeError):
        return ""


def read_ha_state(kind: str, number: int, root: Path = Path("/")) -> str:
    """Return the state in which HA has a guest, such as started or error; "" if it is unknown or HA has none.

    Source: pve-ha-manager, src/PVE/HA/Manager.pm (service_status in ha/manager_status).
    """
    try:
        status = jsontext.parse_json(read_text(root / "etc/pve/ha/manager_status") or "{}")
        return str(status["service_status"][f"{'vm' if kind == 'qm' else 'ct'}:{number}"]["state"])
    except (GuestsError, ValueError, KeyError, TypeError):
        return ""


# Helpers


def read_text(path: Path) -> str:
    """Return the text of a file; "" if it does not exist. Raises GuestsError."""
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise GuestsError(f"can't read {path}: {error.strerror}. Check systemctl status pve-cluster") from error
