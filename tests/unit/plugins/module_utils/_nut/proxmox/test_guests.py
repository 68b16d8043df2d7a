# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import guests
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest, GuestsError, Mount, Storage
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VM = """\
#a description%3A scsi5: nas:100/never.qcow2
boot: order=scsi0;net0
efidisk0: local-lvm:vm-100-disk-1,efitype=4m,size=4M
ide2: nas-iso:iso/debian.iso,media=cdrom,size=600M
ide3: none,media=cdrom
name: webmail
net0: virtio=BC:24:11:00:00:01,bridge=vmbr0
onboot: 1
scsi0: nas:100/vm-100-disk-0.qcow2,iothread=1,size=32G
scsi1: file=tank-iscsi:vm-100-disk-2,size=1T
scsi2: /dev/disk/by-id/ata-DISK,size=1T
scsihw: virtio-scsi-single
startup: order=2,up=30,down=90
tags: nas;Web server
tpmstate0: local-lvm:vm-100-disk-3,size=4M,version=v2.0
unused0: old-nas:100/vm-100-disk-9.qcow2
virtiofs0: dirid=media,cache=auto

[PENDING]
scsi3: pending:100/x.qcow2

[before-upgrade]
scsi4: snapshot:100/y.qcow2
name: other
startup: order=9
"""
CONTAINER = """\
arch: amd64
hostname: jellyfin
lxc.mount.entry: /mnt/films films none bind,create=dir 0 0
lxc.mount.entry = /mnt/music music none bind 0 0
mp0: /mnt/media,mp=/media
mp1: volume=nas:subvol-101-disk-1,mp=/data,size=8G
onboot: 0
rootfs: local-zfs:subvol-101-disk-0,size=8G
startup: 3
template: 1
"""
STORAGE = """\
dir: local
\tpath /var/lib/vz
\tcontent iso,vztmpl,backup

nfs: nas
\tserver truenas.example
\texport /mnt/tank/vms
\tpath /mnt/pve/nas
\tcontent images

cifs: smb
\tserver 192.0.2.20
\tshare vms
\tpath /mnt/pve/smb

glusterfs: brick
\tserver 192.0.2.31
\tserver2 192.0.2.20
\tvolume v

iscsi: san
\tportal [2001:db8::20]:3260
\ttarget iqn.2005-10.org.freenas.ctl:vms
\tcontent none

lvm: on-san
\tbase san:0.0.0.scsi-36589cfc000
\tvgname vms

zfs: tank-iscsi
\tportal 192.0.2.20:3260
\tiscsiprovider LIO

dir: mounted
\tpath /srv/nas/vms/

btrfs: fast
\tpath /srv/fast

pbs: backup
\tserver 192.0.2.20
\tdatastore d

rbd: ceph
\tmonhost 192.0.2.20
"""
FSTAB = """\
# <file system> <mount point> <type>
UUID=1234 / ext4 defaults 0 1
truenas.example:/mnt/tank/srv /srv/nas nfs4 _netdev,noauto,x-systemd.automount 0 0
//192.0.2.20/films /mnt/fil\\040ms cifs credentials=/root/c 0 0
[2001:db8::20]:/mnt/tank/v6 /mnt/six nfs defaults 0 0
/dev/disk/by-path/ip-192.0.2.20:3260-iscsi-iqn.x-lun-0-part1 /mnt/block ext4 _netdev 0 0
root@192.0.2.20:/data /mnt/ssh fuse.sshfs defaults 0 0
"""
PROC = """\
/dev/mapper/pve-root / ext4 rw 0 0
systemd-1 /srv/nas autofs rw,fd=1 0 0
/dev/sdb1 /srv/nas/local ext4 rw 0 0
192.0.2.99:/x /mnt/six nfs4 rw 0 0
"""
ADDRESSES = {
    "truenas.example": ("192.0.2.20",),
    "nas": ("192.0.2.20", "2001:db8::20"),
    "192.0.2.20": ("192.0.2.20",),
    "2001:db8::20": ("2001:db8:0::20",),
}


def resolve(name: str) -> Sequence[str]:
    if name in ADDRESSES:
        return ADDRESSES[name]
    raise OSError(f"{name}: no such name")


# The configuration of a guest


def test_vm_configuration_is_parsed() -> None:
    found = guests.parse_guest(100, "qm", VM, {"media": ["/srv/media"], "other": ["/no"]})
    assert found == Guest(
        id=100,
        kind="qm",
        name="webmail",
        tags=("nas", "Web", "server"),
        onboot=True,
        order=2,
        up=30,
        down=90,
        storages=frozenset({"nas", "nas-iso", "tank-iscsi", "local-lvm"}),
        paths=frozenset({"/dev/disk/by-id/ata-DISK", "/srv/media"}),
        template=False,
    )
    assert str(found) == "VM 100 (webmail)"


def test_container_configuration_is_parsed() -> None:
    found = guests.parse_guest(101, "pct", CONTAINER)
    assert found == Guest(
        id=101,
        kind="pct",
        name="jellyfin",
        order=3,
        storages=frozenset({"local-zfs", "nas"}),
        paths=frozenset({"/mnt/media", "/mnt/films", "/mnt/music"}),
        template=True,
    )
    assert str(Guest(101, "pct")) == "container 101"


def test_last_duplicate_counts_and_invalid_lines_are_ignored() -> None:
    found = guests.parse_guest(
        100, "qm", "name: a\nrubbish\n name: c\nname: b\nscsi0\nscsi1: \nscsi2: :x\nscsi3: none\n"
    )
    assert (found.name, found.storages, found.paths) == ("b", frozenset(), frozenset())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("order=1", (1, None, None)),
        ("1,down=60", (1, None, 60)),
        ("up=5,order=7", (7, 5, None)),
        ("down=0", (None, None, 0)),
        ("order=1,sideways=3", (None, None, None)),
        ("order=-1", (None, None, None)),
        ("order=1,,down=2", (1, None, 2)),
    ],
)
def test_startup_option_is_parsed(text: str, wanted: tuple[int | None, int | None, int | None]) -> None:
    found = guests.parse_guest(100, "qm", f"startup: {text}\n")
    assert (found.order, found.up, found.down) == wanted


@given(st.text(), st.sampled_from(guests.KINDS))
def test_any_text_is_parsed_without_error(text: str, kind: str) -> None:
    found = guests.parse_guest(100, kind, text)
    assert found.id == 100
    assert found.name.isprintable()
    guests.parse_storages(text)
    guests.parse_mounts(text)


def test_control_characters_in_guest_name_are_escaped() -> None:
    assert guests.parse_guest(100, "pct", "hostname: a\x1b[2Jb\n").name == "a\\x1b[2Jb"


# The files of a host


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_guests_are_loaded(tmp_path: Path) -> None:
    write(tmp_path, "etc/pve/nodes/pve/lxc/101.conf", CONTAINER)
    write(tmp_path, "etc/pve/nodes/pve/qemu-server/100.conf", VM)
    write(tmp_path, "etc/pve/nodes/pve/qemu-server/100.conf.tmp", VM)
    write(tmp_path, "etc/pve/nodes/pve/qemu-server/x.conf", VM)
    write(tmp_path, "etc/pve/nodes/other/qemu-server/200.conf", VM)
    write(tmp_path, "etc/pve/mapping/directory.cfg", "media\n\tmap node=pve,path=/srv/media\n\tmap node=b,path=/b\n")
    (tmp_path / "etc/pve/local").symlink_to("nodes/pve")
    found = guests.load_guests(tmp_path)
    assert [(guest.id, guest.kind) for guest in found] == [(100, "qm"), (101, "pct")]
    assert found[0].paths >= {"/srv/media", "/b"}


def test_host_without_proxmox_has_no_guests(tmp_path: Path) -> None:
    assert guests.load_guests(tmp_path) == []


def test_unmounted_pmxcfs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "etc/pve").mkdir(parents=True)
    with pytest.raises(GuestsError, match=r"etc/pve/local.*pve-cluster"):
        guests.load_guests(tmp_path)


def test_unreadable_guest_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "etc/pve/local/lxc/101.conf").mkdir(parents=True)
    with pytest.raises(GuestsError, match=r"can't read .*101\.conf"):
        guests.load_guests(tmp_path)


def test_storage_cfg_is_parsed() -> None:
    found = guests.parse_storages(STORAGE)
    assert list(found) == [
        "local", "nas", "smb", "brick", "san", "on-san", "tank-iscsi", "mounted", "fast", "backup", "ceph",
    ]  # fmt: skip
    assert found["nas"] == Storage("nas", "nfs", ("truenas.example",), "/mnt/pve/nas")
    assert found["smb"].servers == ("192.0.2.20",)
    assert found["brick"].servers == ("192.0.2.31", "192.0.2.20")
    assert found["san"].servers == ("2001:db8::20",)
    assert found["on-san"] == Storage("on-san", "lvm", (), "", "san")
    assert found["tank-iscsi"].servers == ("192.0.2.20",)
    assert found["backup"].servers == found["ceph"].servers == found["local"].servers == ()


def test_mounts_are_parsed() -> None:
    assert guests.parse_mounts(FSTAB, PROC) == (
        Mount("/", ""),
        Mount("/srv/nas", "truenas.example"),
        Mount("/mnt/fil ms", "192.0.2.20"),
        Mount("/mnt/six", "2001:db8::20"),
        Mount("/mnt/block", "192.0.2.20"),
        Mount("/mnt/ssh", "192.0.2.20"),
        Mount("/", ""),
        Mount("/srv/nas/local", ""),
        Mount("/mnt/six", "192.0.2.99"),
    )


# Who lives on the NAS


@pytest.mark.parametrize(
    ("guest", "why"),
    [
        (Guest(1, "qm", storages=frozenset({"nas"})), "its disk is on storage nas, on truenas.example"),
        (Guest(1, "qm", storages=frozenset({"smb"})), "its disk is on storage smb, on 192.0.2.20"),
        (Guest(1, "qm", storages=frozenset({"brick"})), "its disk is on storage brick, on 192.0.2.20"),
        (Guest(1, "qm", storages=frozenset({"on-san"})), "its disk is on storage on-san, on 2001:db8::20"),
        (Guest(1, "qm", storages=frozenset({"tank-iscsi"})), "its disk is on storage tank-iscsi, on 192.0.2.20"),
        (Guest(1, "qm", storages=frozenset({"mounted"})), "its disk is on storage mounted, on truenas.example"),
        (Guest(1, "qm", storages=frozenset({"local", "fast", "unknown", "ceph", "backup"})), None),
        (Guest(1, "pct", paths=frozenset({"/srv/nas"})), "it uses /srv/nas, on truenas.example"),
        (Guest(1, "pct", paths=frozenset({"/srv/nas/../nas/a"})), "it uses /srv/nas/../nas/a, on truenas.example"),
        (Guest(1, "pct", paths=frozenset({"/srv/nas/local/a"})), None),
        (Guest(1, "pct", paths=frozenset({"/srv/nasty"})), None),
        (Guest(1, "pct", paths=frozenset({"/mnt/fil ms/x"})), "it uses /mnt/fil ms/x, on 192.0.2.20"),
        # what is mounted now counts, not what fstab says
        (Guest(1, "pct", paths=frozenset({"/mnt/six"})), None),
        (Guest(1, "pct", paths=frozenset({"/mnt/block/a"})), "it uses /mnt/block/a, on 192.0.2.20"),
        (
            Guest(1, "qm", scripts=frozenset({"nas:snippets/x.pl"})),
            "its script nas:snippets/x.pl is on truenas.example",
        ),
        (
            Guest(1, "pct", scripts=frozenset({"mounted:snippets/x.pl"})),
            "its script mounted:snippets/x.pl is on truenas.example",
        ),
        (Guest(1, "pct", scripts=frozenset({"/srv/nas/hook.sh"})), "its script /srv/nas/hook.sh is on truenas.example"),
        (Guest(1, "qm", scripts=frozenset({"local:snippets/x.pl", "/srv/nas/local/hook.sh"})), None),
        (
            Guest(1, "qm", paths=frozenset({"/dev/disk/by-path/ip-192.0.2.20:3260-iscsi-iqn.y-lun-1"})),
            "it uses /dev/disk/by-path/ip-192.0.2.20:3260-iscsi-iqn.y-lun-1, on 192.0.2.20",
        ),
    ],
)
@pytest.mark.parametrize("addresses", [("192.0.2.20", "2001:db8::20"), ("nas",)])
def test_guests_on_storage_of_a_host_are_found(guest: Guest, why: str | None, addresses: tuple[str, ...]) -> None:
    mounted = guests.parse_mounts(FSTAB, PROC)
    found = guests.find_storage_users([guest], guests.parse_storages(STORAGE), addresses, mounted, resolve)
    assert found == ({guest: why} if why else {})


def test_storage_users_are_found_by_name_without_dns() -> None:
    def none(name: str) -> Sequence[str]:
        raise OSError(name)

    vm = Guest(1, "qm", storages=frozenset({"nas"}))
    known = guests.parse_storages(STORAGE)
    assert guests.find_storage_users([vm], known, ["192.0.2.20"], (), none) == {}
    # the same name is the same host, however it is spelled
    assert list(guests.find_storage_users([vm], known, ["TrueNAS.example"], (), none)) == [vm]


def test_storage_users_of_another_host_are_not_found() -> None:
    guest = Guest(1, "qm", storages=frozenset({"nas", "smb", "mounted", "san"}))
    assert (
        guests.find_storage_users(
            [guest], guests.parse_storages(STORAGE), ["192.0.2.21"], guests.parse_mounts(FSTAB), resolve
        )
        == {}
    )


def test_circular_base_storages_end() -> None:
    known = {"a": Storage("a", "lvm", (), "", "b"), "b": Storage("b", "lvm", (), "", "a")}
    assert guests.find_storage_users([Guest(1, "qm", storages=frozenset({"a"}))], known, ["nas"], (), resolve) == {}


def test_guests_are_found_by_tag() -> None:
    found = [guests.parse_guest(100, "qm", VM), guests.parse_guest(101, "pct", CONTAINER)]
    assert [guest.id for guest in guests.with_tag(found, "NAS")] == [100]
    assert [guest.id for guest in guests.with_tag(found, "web")] == [100]
    assert guests.with_tag(found, "na") == []
    assert guests.with_tag(found, "Nas", case_sensitive=True) == []
    assert [guest.id for guest in guests.with_tag(found, "nas", case_sensitive=True)] == [100]


# HA

RESOURCES = "vm: 100\n\tstate started\n\nct: 101\n\tgroup x\n\nvm: 102\n\tstate ignored\n\nservice: 1\n"


@pytest.mark.parametrize(
    ("config", "policy", "words"),
    [
        ("", "conditional", "on another node"),
        ("ha: shutdown_policy=migrate\n", "migrate", "the battery may run out first"),
        ("ha: shutdown_policy=freeze\n", "freeze", "as an outage needs"),
        ("ha: shutdown_policy=failover\n", "failover", "on another node"),
        ("ha: shutdown_policy=new\n", "conditional", "on another node"),
        ("ha: other=1\n", "conditional", "on another node"),
    ],
)
def test_ha_policy_is_explained(tmp_path: Path, config: str, policy: str, words: str) -> None:
    write(tmp_path, "etc/pve/datacenter.cfg", config)
    write(tmp_path, "etc/pve/ha/resources.cfg", RESOURCES)
    found = guests.read_ha(tmp_path)
    assert (found.policy, found.managed) == (policy, {100, 101})
    assert found.remarks[0] == "HA manages 2 guests (100, 101)"
    assert words in found.remarks[1]


def test_no_remarks_without_managed_guests(tmp_path: Path) -> None:
    write(tmp_path, "etc/pve/datacenter.cfg", "ha: shutdown_policy=migrate\n")
    assert guests.read_ha(tmp_path) == guests.HaSetup("migrate", frozenset(), ())
