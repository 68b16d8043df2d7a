# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the machines' disks from Debian's packages, and cache them by what they were built from.

An image is a directory: disk (ext4, like an installed Debian), vmlinuz, initrd, host_key.pub, packages (with versions). Snapshots
of the booted machine are beside it; see client.py. A directory is built under another name and renamed, so it is always complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from homelab.podman import LabError, log_step

HERE = Path(__file__).resolve().parent
RELEASES = ("bookworm", "trixie")

# A machine on which apt has installed NUT, and nobody has configured it: a run of the roles asks no mirror.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "ifupdown",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "less",
    "linux-image-amd64",
    "logrotate",
    "netbase",
    "nut-client",
    "nut-server",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "systemd",
    "systemd-sysv",
    "udev",
    "usbutils",
)

# Modules for hardware that no such machine has: three quarters of the kernel package.
NO_MODULES = (
    *("drivers/ata", "drivers/bluetooth", "drivers/edac", "drivers/firewire", "drivers/gpu", "drivers/hwmon"),
    *("drivers/iio", "drivers/infiniband", "drivers/isdn", "drivers/md", "drivers/media", "drivers/mtd"),
    *("drivers/net/ethernet", "drivers/net/wireless", "drivers/power", "drivers/scsi", "drivers/staging"),
    *("drivers/target", "drivers/video", "fs/btrfs", "fs/ceph", "fs/gfs2", "fs/jfs", "fs/nfs", "fs/ntfs3", "fs/ocfs2"),
    *("fs/smb", "fs/xfs", "net/bluetooth", "net/mac80211", "net/wireless", "sound"),
)
NO_FILES = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")

# The initial ram disk finds the disk, and nothing else: what is left out need not be unpacked at each boot.
INITRAMFS = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d" && echo MODULES=list >"$1/etc/initramfs-tools/conf.d/lab"'
    ' && printf "%s\\n" virtio_pci virtio_blk ext4 >"$1/etc/initramfs-tools/modules"'
)

DISK_SIZE = "2G"  # sparse; a third is used
VERSIONS_LAST = 86400.0  # seconds for which an answer of the mirror is valid
KEPT = 2  # images per release: this checkout's, and another one's

Run = Callable[[Sequence[str]], str]


def run_program(words: Sequence[str]) -> str:
    """Run a program without input and return its output and errors. Raise LabError if it fails."""
    try:
        done = subprocess.run(
            words, check=False, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except FileNotFoundError:
        raise LabError(f"{words[0]} is not installed; lab/vm/vm --help names the packages that it needs") from None
    if done.returncode:
        raise LabError(f"{words[0]} failed ({done.returncode}):\n{done.stdout[-2000:].strip()}")
    return done.stdout


def cache_folder(fallback: Path) -> Path:
    """Return the directory of images: in the user's cache, or `fallback` if that is not writable."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    root = Path(base) if base.startswith("/") else Path(os.environ.get("HOME") or "/nowhere", ".cache")
    folder = root / "homelab-nut" / "vm"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:
        pass
    fallback.mkdir(parents=True, exist_ok=True)
    return fallback


def parse_packages(text: str) -> list[str]:
    """Return "package version" for each package that apt would install, from the output of a simulation."""
    return sorted(f"{name} {version}" for name, version in re.findall(r"(?m)^Inst (\S+) \((\S+) ", text))


def find_versions(release: str, cache: Path, run: Run = run_program, now: Callable[[], float] = time.time) -> list[str]:
    """Return the current packages of an image, from the mirror. An answer is valid for a day, or as long as no mirror answers."""
    path = cache / f"versions-{release}.json"
    known: dict[str, object] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text())
    fits = isinstance(known, dict) and known.get("of") == list(PACKAGES) and isinstance(known.get("packages"), list)
    if fits and abs(now() - float(str(known.get("asked", 0)))) < VERSIONS_LAST:
        return [str(line) for line in known["packages"]]  # type: ignore[attr-defined]
    try:
        output = run(["mmdebstrap", "--simulate", "--verbose", *_variant_options(), release, "/dev/null"])
        found = parse_packages(output)
        if not any(line.startswith("linux-image-") for line in found):
            raise LabError(f"mmdebstrap named no kernel of Debian {release}:\n{output[-1000:]}")
    except LabError:
        if not fits:
            raise
        log_step(f"no mirror of Debian {release} answers; using its last answer")
        return [str(line) for line in known["packages"]]  # type: ignore[attr-defined]
    _write_file(path, json.dumps({"of": PACKAGES, "asked": now(), "packages": found}))
    return found


def hash_recipe(release: str, packages: Sequence[str]) -> str:
    """Return twelve hexadecimal digits that identify what an image is built from."""
    recipe = [
        release,
        *_variant_options(),
        *NO_MODULES,
        *NO_FILES,
        INITRAMFS,
        DISK_SIZE,
        (HERE / "setup.sh").read_text(),
        *packages,
    ]
    return hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]


def build_image(release: str, cache: Path, run: Run = run_program) -> Path:
    """Return the directory of an image. Build it unless there is one with the same content."""
    if release not in RELEASES:
        raise LabError(f"no release {release}. Releases: {', '.join(RELEASES)}")
    folder = cache / f"{release}-{hash_recipe(release, find_versions(release, cache, run))}"
    if not folder.is_dir():
        log_step(f"building a machine's disk from packages ({release}): about a minute and a half, the first time only")
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
        try:
            write_image(release, temporary, run)
            with contextlib.suppress(OSError):  # another process was faster: its folder is as good
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _forget_old(release, cache)
    os.utime(folder)
    return folder


def write_image(release: str, folder: Path, run: Run = run_program) -> None:
    """Build an image in a directory."""
    archive = folder / "root.tar"
    exclude = [f"/*lib/modules/*/kernel/{part}/*" for part in NO_MODULES] + list(NO_FILES)
    run(
        [
            *("mmdebstrap", "--quiet", *_variant_options(), f"--essential-hook={INITRAMFS}"),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in exclude),
            *(f'--customize-hook=sh {HERE / "setup.sh"} "$1"', release, str(archive)),
        ]
    )
    # Without root, fakeroot makes the owners in the archive the owners in the file system.
    script = """
        set -e
        cd "$1"
        mkdir root
        tar --extract --file root.tar --directory root --numeric-owner
        rm root.tar
        mv root/vmlinuz.lab vmlinuz
        mv root/initrd.lab initrd
        mv root/packages.lab packages
        cp root/etc/ssh/ssh_host_ed25519_key.pub host_key.pub
        chmod 644 vmlinuz initrd packages host_key.pub
        truncate --size "$2" disk
        mke2fs -q -t ext4 -F -d root disk
        rm -rf root
    """
    as_root = [] if os.geteuid() == 0 else ["fakeroot"]
    run([*as_root, "sh", "-c", script, "sh", str(folder), DISK_SIZE])
    # the disk contains the machines' ssh host key
    (folder / "disk").chmod(0o600)
    folder.chmod(0o700)


def _variant_options() -> list[str]:
    return ["--variant=minbase", f"--include={','.join(PACKAGES)}"]


def _forget_old(release: str, cache: Path) -> None:
    """Remove all but the latest images. Existing machines have their own links to their files."""
    images = sorted(cache.glob(f"{release}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in images[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _write_file(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=".making-", dir=path.parent)
    os.close(handle)
    Path(name).write_text(text)
    Path(name).rename(path)
