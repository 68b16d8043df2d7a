# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's images, built from Debian's packages without a registry."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .podman import LabError, limit_options, log_step, run_command, run_podman

HERE = Path(__file__).resolve().parent.parent
CHECKOUT = HERE.parent

# What a machine has before anybody deploys to it: an installed Debian with ssh and Python, and the parts of the
# emulation that must be packages. NUT is not among them: the roles install it.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "netbase",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "python3-aiohttp",
    "python3-apt",
    "systemd",
    "systemd-sysv",
    "udev",
    "umockdev",
    "usbutils",
)


# release and packages of the base of the container's image, where no registry offers one
CONTAINER_BASE = ("trixie", ("ca-certificates",))
# apt in the image keeps these. The index of a Debian that is not released is valid for a week only, and a mirror or a snapshot may
# serve an older one. Its signature is checked nevertheless.
APT_OPTIONS = {"forky": ('Acquire::Check-Valid-Until "false"',)}


def hash_parts(*parts: str) -> str:
    """Return twelve hexadecimal digits that identify what an image was built from."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def build_base_image(release: str, packages: Sequence[str] = PACKAGES) -> str:
    """Return the tag of a Debian image. Build it unless this machine has one with the same content."""
    options = APT_OPTIONS.get(release, ())
    tag = f"localhost/homelab-nut/{release}:{hash_parts(release, *packages, *options)}"
    if run_podman("image", "exists", tag, check=False).returncode == 0:
        return tag
    log_step(f"building a Debian image from packages ({release}): about a minute, the first time only")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "root.tar")
        words = ["--quiet", "--variant=minbase", f"--include={','.join(packages)}"]
        words += [f"--aptopt={option}" for option in options]
        run_command(["mmdebstrap", *words, release, str(archive)])
        run_podman("import", "--quiet", str(archive), tag)
    return tag


def build_image(kind: str, release: str) -> str:
    """Return the id of the image for a kind of machine. podman caches the build steps."""
    recipe = HERE / "images" / f"Containerfile.{kind}"
    if not recipe.is_file():
        raise LabError(f"no image {kind}: {recipe} is missing")
    name = f"localhost/homelab-nut/{kind}-{release}"
    made_from = ["--file", str(recipe), "--build-arg", f"BASE={build_base_image(release)}", str(HERE)]
    return run_podman("build", "--quiet", "--layers", *limit_options(), "--tag", name, *made_from).stdout.split()[-1]


def build_container_image(base: str, tag: str, platforms: str = "") -> None:
    """Build the image of container/Containerfile. base: an image, "" for the default one. platforms: such as linux/arm64."""
    given = [*(["--build-arg", f"BASE={base}"] if base else []), *(["--platform", platforms] if platforms else [])]
    # with podman's own format, the healthcheck would be lost
    options = ["--quiet", "--layers", "--format", "docker", *limit_options(), "--tag", tag, *given]
    run_podman("build", *options, "--file", str(CHECKOUT / "container" / "Containerfile"), str(CHECKOUT))


def build_lab_container() -> str:
    """Return the id of the container's image, on a base made from packages, whose programs see the emulated bus."""
    tag = f"localhost/homelab-nut/container-{CONTAINER_BASE[0]}"
    build_container_image(build_base_image(*CONTAINER_BASE), tag)
    recipe = ["--file", str(HERE / "images" / "Containerfile.container"), "--build-arg", f"BASE={tag}", str(HERE)]
    return run_podman("build", "--quiet", "--layers", *limit_options(), "--tag", f"{tag}-lab", *recipe).stdout.split()[
        -1
    ]
