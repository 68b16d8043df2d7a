# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files in /etc/pve, as Proxmox VE writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .settings import GuestProperties, HostSettings, replace_text

LAB_MARK = "The lab <lab@localhost>"  # who maintains the packages that are none
FOLDERS = {"qm": "qemu-server", "pct": "lxc"}


def format_config(number: int, guest: GuestProperties) -> str:
    """Return the configuration file of a guest."""
    disk = f"{guest.storage}:{number}/vm-{number}-disk-0.{'qcow2' if guest.kind == 'qm' else 'raw'},size=8G"
    startup = (("order", guest.order), ("up", guest.up), ("down", guest.down))
    parts = [f"{key}={value}" for key, value in startup if value is not None]
    name = guest.name or f"guest{number}"
    values = {
        "name" if guest.kind == "qm" else "hostname": name,
        "lock": guest.lock,
        "onboot": "1" if guest.onboot else "",
        "scsi0" if guest.kind == "qm" else "rootfs": disk,
        "startup": ",".join(parts),
        "tags": guest.tags,
    }
    return "".join(f"{key}: {value}\n" for key, value in values.items() if value)


def format_storages(nas: str) -> str:
    """Return storage.cfg with a local storage and an NFS storage on a NAS."""
    return (
        "dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,iso,vztmpl,backup\n\n"
        f"nfs: nas\n\tserver {nas}\n\texport /mnt/tank/vms\n\tpath /mnt/pve/nas\n\tcontent images,rootdir\n"
    )


def format_resources(guests: Mapping[int, GuestProperties]) -> str:
    """Return ha/resources.cfg."""
    return "\n".join(
        f"{'vm' if guest.kind == 'qm' else 'ct'}: {number}\n\tstate {guest.ha_state}\n"
        for number, guest in guests.items()
        if guest.ha
    )


def format_datacenter(settings: HostSettings) -> str:
    """Return datacenter.cfg."""
    lines = ["keyboard: en-us"]
    lines += [f"ha: shutdown_policy={settings.policy}"] if settings.policy else []
    lines += [f"max_workers: {settings.max_workers}"] if settings.max_workers else []
    return "\n".join(lines) + "\n"


def format_corosync(settings: HostSettings, own: str) -> str:
    """Return corosync.conf, "" for a node without a cluster. own: the node's own address."""
    if not settings.nodes:
        return ""
    nodes = {settings.name: own, **settings.nodes}
    entries = "".join(
        f"  node {{\n    name: {name}\n    nodeid: {number}\n    quorum_votes: 1\n    ring0_addr: {address}\n  }}\n\n"
        for number, (name, address) in enumerate(nodes.items(), 1)
    )
    return (
        "logging {\n  debug: off\n  to_syslog: yes\n}\n\n"
        f"nodelist {{\n{entries}}}\n\nquorum {{\n  provider: corosync_votequorum\n}}\n\n"
        "totem {\n  cluster_name: lab\n  config_version: 1\n  interface {\n    linknumber: 0\n  }\n"
        "  ip_version: ipv4-6\n  link_mode: passive\n  secauth: on\n  version: 2\n}\n"
    )


def write_guest(settings: HostSettings, number: int, guest: GuestProperties) -> None:
    """Write the configuration file of a guest, unless it is as it should be."""
    path = Path(settings.pve) / "nodes" / settings.name / FOLDERS[guest.kind] / f"{number}.conf"
    _write_texts({path: format_config(number, guest)})


def write_host(settings: HostSettings, own: str) -> None:
    """Write the files of the node and of its cluster. own: the node's own address."""
    pve = Path(settings.pve)
    _write_texts(
        {
            pve / "storage.cfg": format_storages(settings.nas),
            pve / "datacenter.cfg": format_datacenter(settings),
            pve / "corosync.conf": format_corosync(settings, own),
        }
    )
    write_node_config(settings)


def write_node_config(settings: HostSettings) -> None:
    """Write the node's configuration."""
    delay = settings.onboot_delay
    path = Path(settings.pve) / "nodes" / settings.name / "config"
    _write_texts({path: f"startall-onboot-delay: {delay}\n" if delay else ""})


def write_ha(settings: HostSettings, guests: Mapping[int, GuestProperties]) -> None:
    """Write the files of HA."""
    folder = Path(settings.pve) / "ha"
    status = {"disarm": {"mode": settings.disarm, "state": "disarmed"}} if settings.disarm else {}
    used = any(guest.ha for guest in guests.values())
    _write_texts(
        {
            folder / "resources.cfg": format_resources(guests),
            folder / "manager_status": json.dumps(status) if used else "",
        }
    )


def write_lrm_status(settings: HostSettings, state: str) -> None:
    """Write what the LRM says of itself."""
    path = Path(settings.pve) / "nodes" / settings.name / "lrm_status"
    _write_texts({path: json.dumps({"mode": "active", "results": {}, "state": state})})


def set_packages(status: Path, releases: Mapping[str, str]) -> None:
    """Make dpkg know these of Proxmox VE's packages, and no others. status: dpkg's file of packages."""
    blocks = [block for block in status.read_text().split("\n\n") if block.strip() and LAB_MARK not in block]
    blocks += [
        f"Package: {name}\nStatus: install ok installed\nPriority: optional\nSection: admin\nMaintainer: {LAB_MARK}\n"
        f"Architecture: all\nVersion: {release}\nDescription: of the lab's Proxmox VE"
        for name, release in releases.items()
    ]
    replace_text(status, "\n\n".join(block.strip("\n") for block in blocks) + "\n\n")


def _write_texts(texts: Mapping[Path, str]) -> None:
    """Write files that are to have another text; remove those without."""
    for path, text in texts.items():
        if not text:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)


def write_members(settings: HostSettings, quorate: bool) -> None:
    """Write .members, in which pmxcfs says whether there is quorum. The other nodes are online as long as there is.

    Without quorum there is a cluster, so another node is made up if the lab has none.
    """
    pve = Path(settings.pve)
    others = settings.nodes or ({} if quorate else {"other": ""})
    cluster = {"name": "lab", "version": 1, "nodes": 1 + len(others), "quorate": int(quorate)}
    nodes: dict[str, dict[str, object]] = {settings.name: {"id": 1, "online": 1}}
    nodes |= {
        name: {"id": number, "online": int(quorate), "ip": ip} for number, (name, ip) in enumerate(others.items(), 2)
    }
    text = {"nodename": settings.name, "version": 1, **({"cluster": cluster, "nodelist": nodes} if others else {})}
    if pve.is_dir():
        replace_text(pve / ".members", json.dumps(text) + "\n")
