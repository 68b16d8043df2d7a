# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import guests
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest, GuestsError, Mount, Storage
from hypothesis import given
from hypothesis import strategies as st
from pve import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SPEED = 200.0

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


def test_a_vm() -> None:
    found = guests.parse(100, "qm", VM, {"media": ["/srv/media"], "other": ["/no"]})
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


def test_a_container() -> None:
    found = guests.parse(101, "pct", CONTAINER)
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


def test_the_last_of_a_name_counts_and_what_is_none_is_passed_over() -> None:
    found = guests.parse(100, "qm", "name: a\nrubbish\n name: c\nname: b\nscsi0\nscsi1: \nscsi2: :x\nscsi3: none\n")
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
def test_startup(text: str, wanted: tuple[int | None, int | None, int | None]) -> None:
    found = guests.parse(100, "qm", f"startup: {text}\n")
    assert (found.order, found.up, found.down) == wanted


@given(st.text(), st.sampled_from(guests.KINDS))
def test_any_text_is_a_guest(text: str, kind: str) -> None:
    found = guests.parse(100, kind, text)
    assert found.id == 100
    assert found.name.isprintable()
    guests.storages(text)
    guests.mounts(text)


def test_a_name_that_would_spoil_the_log() -> None:
    assert guests.parse(100, "qm", "name: a\x1b[2Jb\n").name == "a\\x1b[2Jb"


# The files of a host


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_load(tmp_path: Path) -> None:
    write(tmp_path, "etc/pve/nodes/pve/lxc/101.conf", CONTAINER)
    write(tmp_path, "etc/pve/nodes/pve/qemu-server/100.conf", VM)
    write(tmp_path, "etc/pve/nodes/pve/qemu-server/100.conf.tmp", VM)
    write(tmp_path, "etc/pve/nodes/pve/qemu-server/x.conf", VM)
    write(tmp_path, "etc/pve/nodes/other/qemu-server/200.conf", VM)
    write(tmp_path, "etc/pve/mapping/directory.cfg", "media\n\tmap node=pve,path=/srv/media\n\tmap node=b,path=/b\n")
    (tmp_path / "etc/pve/local").symlink_to("nodes/pve")
    found = guests.load(tmp_path)
    assert [(one.id, one.kind) for one in found] == [(100, "qm"), (101, "pct")]
    assert found[0].paths >= {"/srv/media", "/b"}


def test_no_proxmox_has_no_guests(tmp_path: Path) -> None:
    assert guests.load(tmp_path) == []


def test_pmxcfs_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "etc/pve").mkdir(parents=True)
    with pytest.raises(GuestsError, match=r"etc/pve/local.*pve-cluster"):
        guests.load(tmp_path)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "etc/pve/local/lxc/101.conf").mkdir(parents=True)
    with pytest.raises(GuestsError, match=r"101\.conf can't be read"):
        guests.load(tmp_path)


def test_storages() -> None:
    found = guests.storages(STORAGE)
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


def test_mounts() -> None:
    assert guests.mounts(FSTAB, PROC) == (
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
            Guest(1, "qm", paths=frozenset({"/dev/disk/by-path/ip-192.0.2.20:3260-iscsi-iqn.y-lun-1"})),
            "it uses /dev/disk/by-path/ip-192.0.2.20:3260-iscsi-iqn.y-lun-1, on 192.0.2.20",
        ),
    ],
)
@pytest.mark.parametrize("addresses", [("192.0.2.20", "2001:db8::20"), ("nas",)])
def test_on(guest: Guest, why: str | None, addresses: tuple[str, ...]) -> None:
    mounted = guests.mounts(FSTAB, PROC)
    found = guests.on([guest], guests.storages(STORAGE), addresses, mounted, resolve)
    assert found == ({guest: why} if why else {})


def test_on_with_no_dns() -> None:
    def none(name: str) -> Sequence[str]:
        raise OSError(name)

    vm = Guest(1, "qm", storages=frozenset({"nas"}))
    known = guests.storages(STORAGE)
    assert guests.on([vm], known, ["192.0.2.20"], (), none) == {}
    # the same name is the same host, however it is spelled
    assert list(guests.on([vm], known, ["TrueNAS.example"], (), none)) == [vm]


def test_on_another_host() -> None:
    one = Guest(1, "qm", storages=frozenset({"nas", "smb", "mounted", "san"}))
    assert guests.on([one], guests.storages(STORAGE), ["192.0.2.21"], guests.mounts(FSTAB), resolve) == {}


def test_storages_that_stand_on_each_other() -> None:
    known = {"a": Storage("a", "lvm", (), "", "b"), "b": Storage("b", "lvm", (), "", "a")}
    assert guests.on([Guest(1, "qm", storages=frozenset({"a"}))], known, ["nas"], (), resolve) == {}


def test_with_tag() -> None:
    found = [guests.parse(100, "qm", VM), guests.parse(101, "pct", CONTAINER)]
    assert [one.id for one in guests.with_tag(found, "NAS")] == [100]
    assert [one.id for one in guests.with_tag(found, "web")] == [100]
    assert guests.with_tag(found, "na") == []


# How long Proxmox takes


def test_groups_go_one_after_the_other() -> None:
    found = [
        Guest(100, "qm", down=100),
        Guest(101, "pct", down=20),
        Guest(102, "qm", order=2, down=50),
        Guest(103, "qm", order=1, down=30),
        Guest(104, "qm", order=1),
    ]
    force = guests.FORCE_SECONDS + 1
    everybody = {one.id for one in found}
    assert guests.proxmox_seconds(found, everybody) == (100 + force) + (50 + force) + (180 + force)
    assert guests.proxmox_seconds(found, everybody - {104, 100}) == (20 + force) + (50 + force) + (30 + force)
    assert guests.proxmox_seconds(found, everybody, managed={104}) == (100 + force) + (50 + force) + (30 + force)
    assert guests.proxmox_seconds(found, ()) == 0


def test_workers_are_few() -> None:
    found = [Guest(100 + place, "pct", down=8 - place) for place in range(4)]
    force = guests.FORCE_SECONDS + 1
    everybody = {one.id for one in found}
    # the highest id first, each to the lane that is free first: 103 (5), 102 (6), then 101 (7) after 103, 100 (8) after 102
    assert guests.proxmox_seconds(found, everybody, workers=2) == 6 + 8 + 2 * force
    assert guests.proxmox_seconds(found, everybody, workers=1) == 5 + 6 + 7 + 8 + 4 * force
    assert guests.proxmox_seconds(found, everybody, workers=9) == 8 + force


def test_a_container_has_as_long_as_a_vm_and_a_template_never_runs() -> None:
    assert guests.proxmox_seconds([Guest(100, "pct")], {100}) == 180 + guests.FORCE_SECONDS + 1
    assert guests.proxmox_seconds([Guest(100, "qm", down=0)], {100}) == guests.FORCE_SECONDS + 1
    assert guests.proxmox_seconds([Guest(100, "qm", template=True)], {100}) == 0


def test_workers() -> None:
    assert guests.workers("keyboard: de\nmax_workers: 3\n", 8) == 3
    assert guests.workers("#max_workers: 3\n", 8) == 8


# HA

RESOURCES = "vm: 100\n\tstate started\n\nct: 101\n\tgroup x\n\nvm: 102\n\tstate ignored\n\nservice: 1\n"


@pytest.mark.parametrize(
    ("config", "policy", "words"),
    [
        ("", "conditional", "on another node"),
        ("ha: shutdown_policy=migrate\n", "migrate", "may not end before the battery does"),
        ("ha: shutdown_policy=freeze\n", "freeze", "what an outage needs"),
        ("ha: shutdown_policy=failover\n", "failover", "on another node"),
        ("ha: shutdown_policy=new\n", "new", "does not know it"),
        ("ha: other=1\n", "conditional", "on another node"),
    ],
)
def test_ha(tmp_path: Path, config: str, policy: str, words: str) -> None:
    write(tmp_path, "etc/pve/datacenter.cfg", config)
    write(tmp_path, "etc/pve/ha/resources.cfg", RESOURCES)
    found = guests.ha(tmp_path)
    assert (found.policy, found.managed) == (policy, {100, 101})
    assert found.words[0] == "HA works 2 guests (100, 101)"
    assert words in found.words[1]


def test_no_ha(tmp_path: Path) -> None:
    write(tmp_path, "etc/pve/datacenter.cfg", "ha: shutdown_policy=migrate\n")
    assert guests.ha(tmp_path) == guests.Ha("migrate", frozenset(), ())


# Stopping real processes


class Stand:
    """The stand-in's programs, and a clock that is as fast as they are."""

    def __init__(self, folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "guests").mkdir()
        self.host = stand_in.Host(folder / "guests", SPEED)
        stand_in.programs(folder / "bin", folder / "guests", SPEED)
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self.now = 0.0
        self.hooks: dict[str, str] = {}  # a word of a command -> what is said instead

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        for word, said in self.hooks.items():
            if word in command:
                return 1, said
        took = self.host.folder / "took"
        took.unlink(missing_ok=True)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        self.now += float(took.read_text()) if took.exists() else 0.0
        return done.returncode, done.stdout + done.stderr

    def stop(self, number: int, seconds: float, kind: str = "qm") -> guests.Stopped:
        return guests.stop(self.run, Guest(number, kind), seconds, clock=self.clock, pause=self.pause)

    @property
    def verbs(self) -> list[str]:
        return [" ".join(call[:1] + [word for word in call[1:] if not word.isdigit()]) for call in self.host.calls()]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    one = Stand(tmp_path)
    yield one
    one.host.kill_all()


@pytest.mark.parametrize("kind", guests.KINDS)
def test_status_and_start(stand: Stand, kind: str) -> None:
    stand.host.put(100, kind=kind)
    assert guests.status(stand.run, Guest(100, kind)) == "running"
    stand.host.kill(100)
    assert guests.status(stand.run, Guest(100, kind)) == "stopped"
    assert guests.status(stand.run, Guest(999, kind)) is None
    assert guests.start(stand.run, Guest(100, kind))[0] == 0
    assert stand.host.runs(100)
    assert guests.start(stand.run, Guest(100, kind))[0] == 255


def test_which_run(stand: Stand) -> None:
    assert guests.running(stand.run) == frozenset()
    stand.host.put(100, name="mail")
    stand.host.put(101)
    stand.host.put(102, running=False)
    stand.host.put(103, kind="pct", name="films")
    stand.host.put(104, kind="pct", lock="backup")
    stand.host.put(105, kind="pct", running=False, lock="backup")
    assert guests.running(stand.run) == {100, 101, 103, 104}
    assert "       101 VM 101 " in stand.run(["qm", "list"])[1]


def test_a_guest_whose_name_looks_like_something_else() -> None:
    table = {
        "qm": "      VMID NAME   STATUS     MEM(MB)    BOOTDISK(GB) PID       \n"
        "       100 running  stopped    512                 0.00 0         \n"
        "       101 stopped  paused     512               900.00 7         \n"
        "      1020 stopped  running    512               900.00 4217      \n",
        "pct": "VMID       Status     Lock         Name                \n"
        "200        stopped                 running             \n"
        "201        running                 stopped             \n",
    }
    assert guests.running(lambda command: (0, table[command[3]])) == {101, 1020, 201}


@pytest.mark.parametrize("broken", ["qm", "pct"])
def test_nobody_can_say_which_run(stand: Stand, broken: str) -> None:
    stand.host.put(100)
    stand.host.put(103, kind="pct")
    stand.hooks[broken] = "       100 mail running 512 0.00 7\n103 running  films\n"
    assert guests.running(stand.run) is None


@pytest.mark.parametrize("kind", guests.KINDS)
def test_it_goes_down(stand: Stand, kind: str) -> None:
    stand.host.put(100, kind=kind, shutdown=7)
    found = stand.stop(100, 120, kind)
    assert (found.outcome, found.ha) == ("stopped", False)
    assert "is down, after 7.0 s" in found.words
    assert not stand.host.runs(100)
    assert [kind, "shutdown", "100", "--timeout", "120", "--forceStop", "1"] in stand.host.calls()


@pytest.mark.parametrize("kind", guests.KINDS)
def test_it_hangs_and_proxmox_forces_it(stand: Stand, kind: str) -> None:
    stand.host.put(100, kind=kind, shutdown=None)
    found = stand.stop(100, 20, kind)
    assert (found.outcome, stand.now) == ("forced", 20)
    assert "within 20 s" in found.words
    assert not stand.host.runs(100)


def test_it_is_down_already(stand: Stand) -> None:
    stand.host.put(100, running=False)
    assert stand.stop(100, 20).outcome == "already"


def test_there_is_no_such_guest(stand: Stand) -> None:
    stand.host.put(100, kind="pct")
    assert stand.stop(100, 600).outcome == "gone"
    assert stand.now == 0
    assert stand.host.runs(100)


def test_no_proxmox_at_all() -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        asked.append(command)
        return 127, "timeout: failed to run command 'qm': No such file or directory\n"

    found = guests.stop(run, Guest(100, "qm"), 600, clock=lambda: 0.0, pause=lambda _seconds: None)
    assert found.outcome == "runs"
    assert "No such file" in found.words
    assert len(asked) == 2


@pytest.mark.parametrize("kind", guests.KINDS)
def test_a_backup_is_ended_once(stand: Stand, kind: str) -> None:
    stand.host.put(100, kind=kind, lock="backup", shutdown=3)
    assert stand.stop(100, 60, kind).outcome == "stopped"
    assert stand.verbs.count("vzdump --stop") == 1


def test_a_backup_that_does_not_end(stand: Stand) -> None:
    stand.host.put(100, lock="backup")
    asked: list[str] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        asked.append(command[3])
        return (0, "") if command[3] == "vzdump" else stand.run(command)

    found = guests.stop(run, Guest(100, "qm"), 10, clock=stand.clock, pause=stand.pause)
    assert found.outcome == "forced"
    assert asked.count("vzdump") == 1


def test_a_vm_that_proxmox_can_not_reach_is_forced_at_once() -> None:
    def run(command: Sequence[str]) -> tuple[int, str]:
        if command[4] == "status":
            return 0, "status: stopped\n"
        return 0, "VM quit/powerdown failed - terminating now with SIGTERM\n"

    assert guests.stop(run, Guest(100, "qm"), 60, clock=lambda: 0.0).outcome == "forced"


def test_a_lock_that_stays_is_broken_in_the_end(stand: Stand) -> None:
    stand.host.put(100, lock="migrate")
    found = stand.stop(100, 10)
    assert found.outcome == "forced"
    assert 8 <= stand.now <= 10
    assert "vzdump --stop" not in stand.verbs
    assert ["qm", "stop", "100", "--skiplock", "1"] in stand.host.calls()
    # each try has what is left of the time
    tries = [call[4] for call in stand.host.calls() if call[1] == "shutdown"]
    assert tries[:3] == ["10", "8", "6"]


def test_nothing_helps(stand: Stand) -> None:
    stand.host.put(100, lock="migrate")
    stand.hooks["stop"] = "can't lock file\n"
    found = stand.stop(100, 10)
    assert found.outcome == "runs"
    assert "within" in found.words
    assert found.words.endswith("can't lock file")


def test_its_status_can_not_be_told_for_a_while(stand: Stand) -> None:
    stand.host.put(100, shutdown=3)
    stand.hooks["status"] = "ipcc_send_rec failed\n"
    found = stand.stop(100, 10)
    assert found.outcome == "runs"
    del stand.hooks["status"]
    assert stand.stop(100, 10).outcome == "already"


def test_ha_is_told_once_and_waited_for(stand: Stand) -> None:
    stand.host.put(100, ha=True, shutdown=5)
    found = stand.stop(100, 600)
    assert (found.outcome, found.ha) == ("stopped", True)
    assert stand.verbs.count("qm shutdown --timeout --forceStop") == 1


def test_ha_does_nothing(stand: Stand) -> None:
    stand.host.put(100, ha=True, shutdown=None)
    found = stand.stop(100, 30)
    assert (found.outcome, found.ha) == ("runs", True)
    assert stand.verbs.count("qm shutdown --timeout --forceStop") == 1
    assert stand.now <= guests.longest(30)
    assert stand.now >= 30 + guests.HA_SECONDS - 2


def test_each_program_is_bounded(stand: Stand) -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        asked.append(command)
        return 0, "status: stopped\n"

    guests.stop(run, Guest(100, "qm"), 44.2, clock=lambda: 0.0, pause=lambda _seconds: None)
    guests.start(run, Guest(100, "qm"))
    assert [list(one[:3]) for one in asked] == [
        ["timeout", "--kill-after=5", "66"],
        ["timeout", "--kill-after=5", "15"],
        ["timeout", "--kill-after=5", "150"],
    ]
