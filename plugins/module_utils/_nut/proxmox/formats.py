# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The formats of the options of guests and storages that name a volume, a path, a script or a server. Data.

Proxmox refuses a value with an unknown key or an invalid value, and the disk does not exist. Sources: qemu-server,
src/PVE/QemuServer/Drive.pm, Virtiofs.pm and QemuServer.pm (cicustom); pve-container, src/PVE/LXC/Config.pm; releases 8 and 9.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .grammar import BOOLEAN, INTEGER, NUMBER, POSITIVE, SIZE, VOLUME, PropertyFormat

# pve-volume-id-or-qm-path
_FILE = rf"none|cdrom|/.*|{VOLUME}"
_IMAGE = "raw|qcow|qed|qcow2|vmdk|cloop"
_ENCODED = "[-%a-zA-Z0-9_.!~*'()]"
_LIMITS = [direction + limit for direction in ("", "_rd", "_wr") for limit in ("", "_max")]
_BASE = {
    "file": _FILE,
    "media": "cdrom|disk",
    "snapshot": BOOLEAN,
    "cache": "none|writethrough|writeback|unsafe|directsync",
    "format": _IMAGE,
    "size": SIZE,
    "backup": BOOLEAN,
    "replicate": BOOLEAN,
    "rerror": "ignore|report|stop",
    "werror": "enospc|ignore|report|stop",
    "aio": "native|threads|io_uring",
    "discard": "ignore|on",
    "detect_zeroes": BOOLEAN,
    "serial": f"{_ENCODED}{{,60}}",
    "shared": BOOLEAN,
    **{f"bps{direction}": INTEGER for direction in ("", "_rd", "_wr")},
    **{f"mbps{limit}": NUMBER for limit in _LIMITS},
    **{f"iops{limit}": INTEGER for limit in _LIMITS},
    **{f"{unit}{direction}_max_length": POSITIVE for unit in ("bps", "iops") for direction in ("", "_rd", "_wr")},
}
_SSD = {"ssd": BOOLEAN, "wwn": "0x[0-9a-fA-F]{16}"}
_SCSI = {
    "iothread": BOOLEAN,
    "product": r"[A-Za-z0-9\-_\s]{,16}",
    "queues": r"\+?0*(?:[2-9]|[1-9][0-9]+)",
    "ro": BOOLEAN,
    "scsiblock": BOOLEAN,
    "vendor": r"[A-Za-z0-9\-_\s]{,8}",
}
_ALIASES = {
    "volume": "file",
    **{f"{unit}{direction}_length": f"{unit}{direction}_max_length" for unit in ("bps", "iops") for direction in ("_rd", "_wr")},
}  # fmt: skip
_STATE = {"file": _FILE, "format": _IMAGE, "size": SIZE}


def _drive(**more: str) -> PropertyFormat:
    return PropertyFormat({**_BASE, **more}, "file", ("file",), _ALIASES)


_IDE = _drive(**_SSD, model=f"{_ENCODED}{{,120}}")
# name of the option -> its format
DRIVES = {
    "cdrom": _IDE,  # another name of ide2
    **{f"ide{number}": _IDE for number in range(4)},
    **{f"sata{number}": _drive(**_SSD) for number in range(6)},
    **{f"scsi{number}": _drive(**_SSD, **_SCSI) for number in range(31)},
    **{f"virtio{number}": _drive(iothread=BOOLEAN, ro=BOOLEAN) for number in range(16)},
    "efidisk0": PropertyFormat(
        {**_STATE, "efitype": "2m|4m", "pre-enrolled-keys": BOOLEAN, "ms-cert": "2011|2023[wk]?"},
        "file", ("file",), {"volume": "file"},
    ),
    "tpmstate0": PropertyFormat({**_STATE, "version": r"v1\.2|v2\.0"}, "file", ("file",), {"volume": "file"}),
}  # fmt: skip

# the options of a drive that need another one, and those that exclude each other (parse_drive); bps is another unit of mbps
DRIVE_NEEDS = (
    *((f"mbps{direction}_max", f"mbps{direction}") for direction in ("", "_rd", "_wr")),
    *((f"bps{direction}_max_length", f"mbps{direction}_max") for direction in ("", "_rd", "_wr")),
    *((f"iops{direction}_max_length", f"iops{direction}_max") for direction in ("", "_rd", "_wr")),
)
DRIVE_EXCLUDES = tuple((unit, unit + direction) for unit in ("mbps", "iops") for direction in ("_rd", "_wr"))

VIRTIOFS = PropertyFormat(
    {
        "dirid": r"[A-Za-z][A-Za-z0-9_-]+",
        "cache": "auto|always|metadata|never",
        **dict.fromkeys(("direct-io", "expose-xattr", "expose-acl"), BOOLEAN),
    },
    "dirid",
    ("dirid",),
)
CICUSTOM = PropertyFormat(dict.fromkeys(("meta", "network", "user", "vendor"), VOLUME))

# pve-lxc-mp-string: no /./ and /../, none of them at the end, and no ../ at the beginning
_PLACE = r"(?!\.\./)(?!.*/\.\.?(?:/|$)).+"
_MOUNT_OPTION = "(?:discard|lazytime|noatime|nodev|noexec|nosuid)"
_ROOT = {
    "volume": _PLACE,
    "size": SIZE,
    "mountoptions": f"{_MOUNT_OPTION}(?:;{_MOUNT_OPTION})*",
    "idmap": r"passthrough|[ug]:[0-9]+:[0-9]+:[1-9][0-9]*(?:;[ug]:[0-9]+:[0-9]+:[1-9][0-9]*)*",
    **dict.fromkeys(("acl", "ro", "quota", "replicate", "shared"), BOOLEAN),
}
# name of the option -> its format
MOUNTS = {
    "rootfs": PropertyFormat(_ROOT, "volume", ("volume",)),
    **{
        f"mp{number}": PropertyFormat(
            {**_ROOT, "mp": _PLACE, "backup": BOOLEAN, "keepattrs": BOOLEAN}, "volume", ("volume", "mp")
        )
        for number in range(256)
    },
}

# The options of each type of storage that this library needs; any other option of a type is invalid. Sources: pve-storage,
# the plugins below src/PVE/Storage (options); glusterfs is in release 8 only.
STORAGE_OPTIONS: Mapping[str, Collection[str]] = {
    **dict.fromkeys(("dir", "btrfs", "cephfs"), ("path",)),
    **dict.fromkeys(("nfs", "cifs"), ("server", "path")),
    "glusterfs": ("server", "server2", "path"),
    **dict.fromkeys(("iscsi", "iscsidirect", "zfs"), ("portal",)),
    "lvm": ("base",),
    **dict.fromkeys(("pbs", "esxi"), ("server",)),
    **dict.fromkeys(("lvmthin", "zfspool", "rbd"), ()),
}
# the types that Proxmox itself mounts, if the option path does not say where, below /mnt/pve
MOUNTED_STORAGES = ("nfs", "cifs", "cephfs", "glusterfs")

# LXC's options that name a file on the host ($valid_lxc_conf_keys; lxc.mount is an old name of lxc.mount.fstab)
LXC_FILES = (
    *(
        f"lxc.hook.{hook}"
        for hook in ("pre-start", "pre-mount", "mount", "autodev", "start", "stop", "post-stop", "clone", "destroy")
    ),
    *("lxc.include", "lxc.mount.fstab", "lxc.mount", "lxc.log.file", "lxc.console.logfile"),
)
