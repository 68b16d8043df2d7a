# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the guests of a Proxmox VE host: their configuration, the servers of their storage, and how HA treats them.

Reads only configuration files. It opens nothing that may be on a storage server: if the server is gone, that would hang.
Sources: qemu-server and pve-container (the parsers of the configuration), pve-storage (its plugins), pve-ha-manager;
releases 8 and 9.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ..base import hostnames
from ..base.text import printable

KINDS = ("qm", "pct")
IDS = range(100, 1_000_000_000)  # valid numbers of guests
# the directories of the configuration files below etc/pve/local
_FOLDERS = {"qm": "qemu-server", "pct": "lxc"}
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

    def __str__(self) -> str:
        """Return the guest's name for messages, such as VM 100 (mail)."""
        label = f"{'VM' if self.kind == 'qm' else 'container'} {self.id}"
        return f"{label} ({self.name})" if self.name else label


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
    managed: frozenset[int] = frozenset()  # ids of the guests that HA manages
    remarks: tuple[str, ...] = ()  # what the user should know


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
    for kind, folder in _FOLDERS.items():
        for path in sorted((local / folder).glob("*.conf")):
            if re.fullmatch(r"[1-9][0-9]{2,8}", path.stem):
                found.append(parse_guest(int(path.stem), kind, read_text(path), shared))
    return sorted(found, key=lambda guest: guest.id)


def parse_guest(number: int, kind: str, text: str, shared: Mapping[str, Collection[str]] | None = None) -> Guest:
    """Return a guest from its configuration file: its current options, not the pending ones or its snapshots.

    shared: name -> paths of the directories that VMs can mount with virtiofs. Invalid lines are ignored, as by Proxmox.
    """
    values, entries = _read_current_values(text)
    storages: set[str] = set()
    paths: set[str] = set()
    for key, value in values.items():
        if re.fullmatch(
            r"(?:ide|sata|scsi|virtio|efidisk|tpmstate)[0-9]+" if kind == "qm" else r"rootfs|mp[0-9]+", key
        ):
            volume = _read_property(value, "file" if kind == "qm" else "volume")
            if volume.startswith("/"):
                paths.add(volume)
            elif match := re.fullmatch(r"([A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]):.+", volume):
                storages.add(match.group(1))
        elif kind == "qm" and re.fullmatch(r"virtiofs[0-9]+", key):
            paths.update((shared or {}).get(_read_property(value, "dirid"), ()))
    if kind == "pct":
        paths.update(word for entry in entries for word in entry.split()[:1] if word.startswith("/"))
    order, up, down = _parse_startup(values.get("startup", ""))
    return Guest(
        id=number,
        kind=kind,
        name=printable(values.get("name" if kind == "qm" else "hostname", "")),
        tags=tuple(printable(tag) for tag in re.split(r"[;,\s]+", values.get("tags", "")) if tag),
        onboot=_is_true(values.get("onboot", "")),
        order=order,
        up=up,
        down=down,
        storages=frozenset(storages),
        paths=frozenset(paths),
        template=_is_true(values.get("template", "")),
    )


def _read_current_values(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the options before the first section (of duplicates, the last), and the values of lxc.mount.entry."""
    values: dict[str, str] = {}
    entries = []
    for line in text.split("\n"):
        if re.fullmatch(r"\[[^\]]+\]\s*", line):
            break
        if match := re.fullmatch(r"lxc\.mount\.entry(?::|\s*=)\s*(.*?)\s*", line):
            entries.append(match.group(1))
        elif match := re.fullmatch(r"([a-z][a-z_-]*[0-9]*):\s*(\S.*?)\s*", line):
            values[match.group(1)] = match.group(2)
    return values, entries


def _read_property(value: str, default: str) -> str:
    """Return the value of the default key in a property string; it may be written without the key."""
    for part in value.split(","):
        key, equals, rest = part.partition("=")
        if not equals or key == default:
            return rest if equals else part
    return ""


def _parse_startup(value: str) -> tuple[int | None, int | None, int | None]:
    """Return order, up and down. An unknown word makes Proxmox ignore all of them."""
    numbers: dict[str, int] = {}
    for part in value.split(","):
        match = re.fullmatch(r"(?:(order|up|down)=)?([0-9]{1,9})", part)
        if match:
            numbers[match.group(1) or "order"] = int(match.group(2))
        elif part.strip():
            return None, None, None
    return numbers.get("order"), numbers.get("up"), numbers.get("down")


def _parse_directories(text: str) -> dict[str, list[str]]:
    """Return the paths by name in mapping/directory.cfg, of all nodes."""
    return {
        name: [
            part[len("path=") :]
            for key, value in lines
            if key == "map"
            for part in value.split(",")
            if part.startswith("path=/")
        ]
        for (name,), lines in _split_sections(text, r"(\S+)\s*")
    }


def parse_storages(text: str) -> dict[str, Storage]:
    """Return the storages by id in storage.cfg."""
    found = {}
    for (kind, name), lines in _split_sections(text, r"(\S+):\s*(\S+)\s*"):
        values = dict(lines)
        # server2: gluster; portal: iscsi, iscsidirect and zfs; the last three: plugins for TrueNAS
        keys = ("server", "server2", "portal", "discovery_portal", "portals", "api_host")
        servers = [
            host for key in keys for word in re.split(r"[,;\s]+", values.get(key, "")) if (host := _strip_port(word))
        ]
        found[name] = Storage(
            id=name,
            type=kind.lower(),
            # only backups, no disks
            servers=() if kind.lower() == "pbs" else tuple(dict.fromkeys(servers)),
            path=values.get("path", ""),
            base=values.get("base", "").partition(":")[0],
        )
    return found


def _split_sections(text: str, header: str) -> Iterator[tuple[tuple[str, ...], list[tuple[str, str]]]]:
    """Yield the sections of a PVE::SectionConfig file: a header, then indented lines `key value`, up to an empty line or a header."""
    name: tuple[str, ...] | None = None
    lines: list[tuple[str, str]] = []
    for line in [*text.split("\n"), ""]:
        if line.startswith("#"):
            continue
        if name and (match := re.fullmatch(r"\s+(\S+)(?:\s+(.*\S))?\s*", line)):
            lines.append((match.group(1), match.group(2) or ""))
            continue
        if name:
            yield name, lines
        match = re.fullmatch(header, line)
        name, lines = (match.groups() if match else None), []


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


def with_tag(guests: Iterable[Guest], tag: str) -> list[Guest]:
    """Return the guests that have a tag. As in Proxmox, case does not matter."""
    return [guest for guest in guests if tag.casefold() in (word.casefold() for word in guest.tags)]


def find_storage_users(
    guests: Iterable[Guest],
    known: Mapping[str, Storage],
    addresses: Iterable[str],
    mounted: Sequence[Mount],
    resolve: Resolve,
) -> dict[Guest, str]:
    """Return the guests that use storage of a host, each with the reason, for messages.

    addresses: the host's addresses or names. known: parse_storages(). mounted: parse_mounts(). resolve: raises OSError for a
    name without addresses. A CD counts as a disk: the VM has it open, and may hang with it. Disks whose place is not in the
    configuration are not found: a volume group on iSCSI without `base`, and `args`.
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
            if is_there(server := _find_server(path, mounted))
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
            found.append(_find_server(storage.path, mounted))
        name = storage.base
    return found


def _find_server(path: str, mounted: Sequence[Mount]) -> str:
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
    """Return which guests HA manages, and what its policy means when this host powers off. Raises GuestsError."""
    cluster = root / "etc/pve"
    match = re.search(r"^ha:\s*(\S.*?)\s*$", read_text(cluster / "datacenter.cfg"), re.MULTILINE)
    values = dict(part.partition("=")[::2] for part in match.group(1).split(",")) if match else {}
    policy = values.get("shutdown_policy", "conditional")
    managed = set()
    for (kind, name), lines in _split_sections(read_text(cluster / "ha/resources.cfg"), r"(\S+):\s*(\S+)\s*"):
        # HA does not manage guests in the state ignored
        if kind in ("vm", "ct") and re.fullmatch(r"[0-9]{1,9}", name) and dict(lines).get("state") != "ignored":
            managed.add(int(name))
    if not managed:
        return HaSetup(policy, frozenset(), ())
    remarks = [
        f"HA manages {len(managed)} guest{'s' if len(managed) > 1 else ''} ({', '.join(map(str, sorted(managed)))})",
        f"shutdown_policy is {printable(policy)}: {_POLICIES.get(policy, 'unknown to this library')}",
        "a node that loses contact with the others loses quorum, and HA resets it a minute later: in an outage, shut down all "
        "nodes together, or disarm HA first",
    ]
    return HaSetup(policy, frozenset(managed), tuple(remarks))


# Helpers


def _is_true(value: str) -> bool:
    return value.lower() in ("1", "on", "yes", "true")


def read_text(path: Path) -> str:
    """Return the text of a file; "" if it does not exist. Raises GuestsError."""
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise GuestsError(f"can't read {path}: {error.strerror}. Check systemctl status pve-cluster") from error
