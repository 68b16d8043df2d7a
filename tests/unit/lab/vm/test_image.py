# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from homelab.podman import LabError
from vm import image
from vm.image import cache_folder, find_versions, hash_recipe, parse_packages, run_program

SIMULATION = """\
I: running apt-get update...
NOTE: This is only a simulation!
Inst libc6 (2.41-12 Debian:13.7/stable [amd64]) []
Inst linux-image-9.9.0-amd64 (9.9.1-2 Debian-Security:13/stable-security [amd64])
Conf libc6 (2.41-12 Debian:13.7/stable [amd64])
"""
FOUND = ["libc6 2.41-12", "linux-image-9.9.0-amd64 9.9.1-2"]


class Mirror:
    """A stand-in for mmdebstrap, and what makes a file system out of what that made."""

    def __init__(self) -> None:
        self.said: str | LabError = SIMULATION
        self.asked: list[list[str]] = []
        self.fails = False

    def __call__(self, words: Sequence[str]) -> str:
        self.asked.append(list(words))
        if "--simulate" in words:
            if isinstance(self.said, LabError):
                raise self.said
            return self.said
        if "mmdebstrap" not in words:
            if self.fails:
                raise LabError("no room")
            folder = Path(words[-2])
            for name in ("disk", "vmlinuz", "initrd", "host_key.pub", "packages"):
                (folder / name).write_text(name)
        return ""

    @property
    def made(self) -> int:
        return len([words for words in self.asked if "--quiet" in words])


def test_packages_are_parsed() -> None:
    assert parse_packages(SIMULATION) == FOUND


def test_mirror_is_asked_once_a_day(tmp_path: Path) -> None:
    mirror, clock = Mirror(), [1000.0]

    def ask() -> list[str]:
        return find_versions("trixie", tmp_path, mirror, lambda: clock[0])

    assert ask() == FOUND
    clock[0] += 86399
    assert ask() == FOUND
    assert len(mirror.asked) == 1
    clock[0] += 2
    mirror.said = SIMULATION.replace("9.9.1-2", "9.9.1-3")
    assert ask() == ["libc6 2.41-12", "linux-image-9.9.0-amd64 9.9.1-3"]
    clock[0] -= 10 * 86400  # a clock that was wrong
    ask()
    assert len(mirror.asked) == 3


def test_last_answer_is_used_without_a_mirror(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror, clock = Mirror(), [1000.0]
    mirror.said = LabError("mmdebstrap failed")
    with pytest.raises(LabError, match="mmdebstrap failed"):
        find_versions("trixie", tmp_path, mirror, lambda: clock[0])
    mirror.said = SIMULATION
    find_versions("trixie", tmp_path, mirror, lambda: clock[0])
    clock[0] += 90000
    mirror.said = LabError("mmdebstrap failed")
    assert find_versions("trixie", tmp_path, mirror, lambda: clock[0]) == FOUND
    assert "no mirror" in capsys.readouterr().err
    assert not list(tmp_path.glob(".making-*"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"of": [], "asked": 1000, "packages": ["x"]}', '{"packages": 1}']
)
def test_broken_cache_of_versions_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "versions-trixie.json").write_text(text)
    assert find_versions("trixie", tmp_path, Mirror(), lambda: 1000.0) == FOUND


def test_simulation_without_a_kernel_is_an_error(tmp_path: Path) -> None:
    mirror = Mirror()
    mirror.said = "Inst libc6 (1 Debian [amd64])\nsomething odd"
    with pytest.raises(LabError, match="something odd"):
        find_versions("trixie", tmp_path, mirror, lambda: 1000.0)


def test_hash_recipe_depends_on_every_ingredient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = hash_recipe("trixie", FOUND)
    assert len(first) == 12
    others = {hash_recipe("bookworm", FOUND), hash_recipe("trixie", FOUND[:1])}
    for name, value in (("NO_MODULES", ()), ("PACKAGES", ("python3",)), ("INITRAMFS", ""), ("DISK_SIZE", "3G")):
        with monkeypatch.context() as patch:
            patch.setattr(image, name, value)
            others.add(hash_recipe("trixie", FOUND))
    (tmp_path / "setup.sh").write_text("another")
    monkeypatch.setattr(image, "HERE", tmp_path)
    others.add(hash_recipe("trixie", FOUND))
    assert len({first, *others}) == 8


def test_image_is_built_once_and_atomically(tmp_path: Path) -> None:
    mirror = Mirror()
    folder = image.build_image("trixie", tmp_path, mirror)
    assert folder.name.startswith("trixie-")
    assert sorted(path.name for path in folder.iterdir()) == ["disk", "host_key.pub", "initrd", "packages", "vmlinuz"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "disk").stat().st_mode & 0o777 == 0o600
    assert image.build_image("trixie", tmp_path, mirror) == folder
    assert mirror.made == 1
    build = next(words for words in mirror.asked if "--quiet" in words)
    assert "--dpkgopt=path-exclude=/*lib/modules/*/kernel/drivers/gpu/*" in build
    assert not [word for word in build if "--simulate" in word]
    assert image.build_image("bookworm", tmp_path, mirror) != folder
    with pytest.raises(LabError, match="no release sid"):
        image.build_image("sid", tmp_path, mirror)


def test_failed_build_leaves_no_file(tmp_path: Path) -> None:
    mirror = Mirror()
    mirror.fails = True
    with pytest.raises(LabError, match="no room"):
        image.build_image("trixie", tmp_path, mirror)
    assert [path.name for path in tmp_path.iterdir()] == ["versions-trixie.json"]


def test_old_images_are_removed(tmp_path: Path) -> None:
    for age, name in enumerate(("trixie-a", "trixie-b", "trixie-c", "bookworm-a")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    folder = image.build_image("trixie", tmp_path, Mirror())
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(
        [folder.name, "trixie-a", "bookworm-a"]
    )


def test_recently_used_image_is_kept(tmp_path: Path) -> None:
    mirror = Mirror()
    folder = image.build_image("trixie", tmp_path, mirror)
    os.utime(folder, (1000, 1000))
    image.build_image("trixie", tmp_path, mirror)
    assert folder.stat().st_mtime > 1000


def test_cache_folder_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = tmp_path / "fallback"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder(fallback) == tmp_path / "cache" / "homelab-nut" / "vm"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder(fallback) == tmp_path / "home" / ".cache" / "homelab-nut" / "vm"
    assert not fallback.exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_folder(fallback) == fallback
    assert fallback.is_dir()


def test_failed_program_is_reported(tmp_path: Path) -> None:
    assert run_program(["sh", "-c", "echo out; echo err >&2"]) == "out\nerr\n"
    with pytest.raises(LabError, match=r"sh failed \(3\):\nwhy"):
        run_program(["sh", "-c", "echo why; exit 3"])
    with pytest.raises(LabError, match="no-such-program is not installed"):
        run_program(["no-such-program"])


def test_cache_of_versions_depends_on_the_packages(tmp_path: Path) -> None:
    find_versions("trixie", tmp_path, Mirror(), lambda: 1000.0)
    assert json.loads((tmp_path / "versions-trixie.json").read_text()) == {
        "of": list(image.PACKAGES),
        "asked": 1000.0,
        "packages": FOUND,
    }
