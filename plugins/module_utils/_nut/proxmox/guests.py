# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guests of a Proxmox VE host: which there are, whose storage they use, and what HA does with them.

All of it from plain files below a root. No file is looked at that may lie on a server which is gone: that would hang.
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
IDS = range(100, 1_000_000_000)  # the numbers that a guest may have
# the files of the two kinds, below etc/pve/local
_FOLDERS = {"qm": "qemu-server", "pct": "lxc"}
# what Proxmox gives a guest without `down`: both kinds alike since pve-manager 7.3; before, a container had 60 s
DOWN_SECONDS = 180
# After its time a VM gets a SIGTERM, 10 s later a SIGKILL, and one second for that. A container's lxc-stop has 5 s more.
FORCE_SECONDS = 11
# how long HA may take to do what it was told: its two daemons look every 10 s, and every 5 s
HA_SECONDS = 20
# a file of pmxcfs holds 1 MiB at most
_LIMIT = 1 << 20

Resolve = Callable[[str], Sequence[str]]


class GuestsError(Exception):
    """Proxmox's files can't be read; the message names the file and what to do."""


@dataclass(frozen=True)
class Guest:
    """A guest on this host."""

    id: int  # its number
    kind: str  # the program that works it: "qm" (a VM) or "pct" (a container)
    name: str = ""
    tags: tuple[str, ...] = ()
    onboot: bool = False
    order: int | None = None  # Proxmox starts low ones first and stops them last; None comes after all numbers
    up: int | None = None  # s, of the option startup; None if it does not say
    down: int | None = None  # the same
    storages: frozenset[str] = frozenset()  # ids of what its disks lie on, and also its CDs
    paths: frozenset[str] = frozenset()  # absolute, on the host: bind mounts, devices, shared directories
    template: bool = False

    def __str__(self) -> str:
        """Name it as a person would."""
        what = f"{'VM' if self.kind == 'qm' else 'container'} {self.id}"
        return f"{what} ({self.name})" if self.name else what


@dataclass(frozen=True)
class Storage:
    """A section of storage.cfg."""

    id: str
    type: str
    servers: tuple[str, ...] = ()  # where it lies, names or addresses without ports; () if on this host
    path: str = ""  # of a directory, "" if there is none
    base: str = ""  # the id of the storage on whose volume a volume group lies, "" if there is none


@dataclass(frozen=True)
class Mount:
    """What is mounted at point, from which server; "" if from this host."""

    point: str
    server: str


@dataclass(frozen=True)
class HaSetup:
    """What Proxmox's HA would do at a poweroff. managed: ids of the guests it works; words: what a person should know."""

    policy: str = "conditional"
    managed: frozenset[int] = frozenset()
    remarks: tuple[str, ...] = ()


# Files


def load_guests(root: Path = Path("/")) -> list[Guest]:
    """Return the guests of this host, templates too; [] if it is no Proxmox VE. Raises GuestsError."""
    local = root / "etc/pve/local"
    if not (root / "etc/pve").is_dir():
        return []
    if not local.is_dir():
        # pmxcfs is not mounted; the directory below it is empty
        raise GuestsError(f"{local} is not there: start Proxmox's cluster file system (systemctl start pve-cluster)")
    shared = _parse_directories(read_text(root / "etc/pve/mapping/directory.cfg"))
    found = []
    for kind, folder in _FOLDERS.items():
        for path in sorted((local / folder).glob("*.conf")):
            if re.fullmatch(r"[1-9][0-9]{2,8}", path.stem):
                found.append(parse_guest(int(path.stem), kind, read_text(path), shared))
    return sorted(found, key=lambda guest: guest.id)


def parse_guest(number: int, kind: str, text: str, shared: Mapping[str, Collection[str]] | None = None) -> Guest:
    """Read the configuration of one guest: what holds now, not what is pending, nor its snapshots.

    shared: name -> paths of the directories that VMs may have by virtiofs. A line that is none is passed over, as Proxmox does.
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
    """Return the options before the first section, the last of a name counts; and the lines lxc.mount.entry."""
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
    """Return the part of a property string that may stand without its key, which is DEFAULT."""
    for part in value.split(","):
        key, equals, rest = part.partition("=")
        if not equals or key == default:
            return rest if equals else part
    return ""


def _parse_startup(value: str) -> tuple[int | None, int | None, int | None]:
    """Return order, up and down. One word that Proxmox does not know, and it takes none of them."""
    found: dict[str, int] = {}
    for part in value.split(","):
        match = re.fullmatch(r"(?:(order|up|down)=)?([0-9]{1,9})", part)
        if match:
            found[match.group(1) or "order"] = int(match.group(2))
        elif part.strip():
            return None, None, None
    return found.get("order"), found.get("up"), found.get("down")


def _parse_directories(text: str) -> dict[str, list[str]]:
    """Read mapping/directory.cfg: name -> paths, of all nodes."""
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
    """Read storage.cfg."""
    found = {}
    for (kind, name), lines in _split_sections(text, r"(\S+):\s*(\S+)\s*"):
        values = dict(lines)
        # the two gluster servers; the portal of iscsi, iscsidirect and zfs; what plugins for TrueNAS call theirs
        keys = ("server", "server2", "portal", "discovery_portal", "portals", "api_host")
        servers = [
            host for key in keys for word in re.split(r"[,;\s]+", values.get(key, "")) if (host := _strip_port(word))
        ]
        found[name] = Storage(
            id=name,
            type=kind.lower(),
            # backups alone, no guest's disk
            servers=() if kind.lower() == "pbs" else tuple(dict.fromkeys(servers)),
            path=values.get("path", ""),
            base=values.get("base", "").partition(":")[0],
        )
    return found


def _split_sections(text: str, header: str) -> Iterator[tuple[tuple[str, ...], list[tuple[str, str]]]]:
    """Split a file of PVE::SectionConfig: a header, indented lines `key value`, up to an empty line or the next header."""
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
    """Return a server without its port: `nas:3260`, `192.0.2.20`, `[2001:db8::1]:3260`, `2001:db8::1`."""
    if match := re.fullmatch(r"\[([^\]]+)\](?::[0-9]+)?", text):
        return match.group(1)
    return text if text.count(":") > 1 else text.partition(":")[0]


def parse_mounts(*texts: str) -> tuple[Mount, ...]:
    """Read /etc/fstab and /proc/self/mounts, in this order: of two at one point the last counts.

    fstab has what is not mounted now, or waits for its first use.
    """
    found = []
    for text in texts:
        for line in text.split("\n"):
            words = [_unescape_octal(word) for word in line.split()]
            # `autofs` only marks the place where something is mounted when it is used
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
    """Return the portal in the name that udev gives to an iSCSI disk."""
    match = re.match(r"/dev/disk/by-path/ip-(\[[^\]]+\]|[^:]+|[0-9A-Fa-f:]+):[0-9]+-iscsi-", path)
    return match.group(1).strip("[]") if match else ""


# Who lives on whose storage


def with_tag(guests: Iterable[Guest], tag: str) -> list[Guest]:
    """Return the guests that have a tag; as in Proxmox, upper and lower case are the same."""
    return [guest for guest in guests if tag.casefold() in (word.casefold() for word in guest.tags)]


def find_storage_users(
    guests: Iterable[Guest],
    known: Mapping[str, Storage],
    addresses: Iterable[str],
    mounted: Sequence[Mount],
    resolve: Resolve,
) -> dict[Guest, str]:
    """Return the guests that use storage of a host, each with the reason in words.

    known: storages(). addresses: the host's, or its names. mounted: mounts(). resolve: gives the addresses of a name; an
    OSError of it says that there are none. A CD counts as a disk: the VM has it open, and may hang with it.
    Not found are disks whose place the configuration does not tell: a volume group on iSCSI without `base`, `args`.
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
    """Return the servers of a storage, and of those that it stands on."""
    found: list[str] = []
    passed: set[str] = set()
    while name in known and name not in passed:
        passed.add(name)
        storage = known[name]
        found += storage.servers
        if storage.path:
            found.append(_find_server(storage.path, mounted))
        name = storage.base
    return found


def _find_server(path: str, mounted: Sequence[Mount]) -> str:
    """Return the server from which the file system at PATH comes; symbolic links are not followed."""
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

_POLICIES = {
    "conditional": "at a poweroff HA stops its guests here, and starts them on another node of the cluster if one still runs",
    "failover": "at a poweroff HA stops its guests here, and starts them on another node of the cluster if one still runs",
    "freeze": "at a poweroff HA stops its guests here, and leaves them so until this host is back: what an outage needs",
    "migrate": (
        "at a poweroff HA moves its guests to another node first, and the poweroff waits for that without a limit. In an outage "
        "that hits all nodes it may not end before the battery does. Set it to freeze: Datacenter, Options, HA Settings"
    ),
}


def read_ha(root: Path = Path("/")) -> HaSetup:
    """Return what HA works on this cluster, and what its policy means when this host powers off. Raises GuestsError."""
    cluster = root / "etc/pve"
    match = re.search(r"^ha:\s*(\S.*?)\s*$", read_text(cluster / "datacenter.cfg"), re.MULTILINE)
    values = dict(part.partition("=")[::2] for part in match.group(1).split(",")) if match else {}
    policy = values.get("shutdown_policy", "conditional")
    managed = set()
    for (kind, name), lines in _split_sections(read_text(cluster / "ha/resources.cfg"), r"(\S+):\s*(\S+)\s*"):
        # HA treats what it ignores as not its own
        if kind in ("vm", "ct") and re.fullmatch(r"[0-9]{1,9}", name) and dict(lines).get("state") != "ignored":
            managed.add(int(name))
    if not managed:
        return HaSetup(policy, frozenset(), ())
    words = [
        f"HA works {len(managed)} guest{'s' if len(managed) > 1 else ''} ({', '.join(map(str, sorted(managed)))})",
        f"shutdown_policy is {printable(policy)}: {_POLICIES.get(policy, 'this library does not know it')}",
        "a node that loses the others loses its quorum, and HA resets it a minute later: in an outage let all nodes go down "
        "together, or disarm HA before",
    ]
    return HaSetup(policy, frozenset(managed), tuple(words))


# Small things


def _is_true(value: str) -> bool:
    return value.lower() in ("1", "on", "yes", "true")


def read_text(path: Path) -> str:
    """Return a file's text; "" if there is none. Raises GuestsError."""
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise GuestsError(f"{path} can't be read: {error.strerror}") from error
