# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN = (os.getuid(), os.getgid())
OLD = {"a": "old a\n", "b": "old b\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in OLD.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def read(folder: Path) -> dict[str, str]:
    """Everything that is there, hidden files too: nothing may be left behind."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def new(folder: Path, *names: str) -> dict[Path, str]:
    return {folder / name: f"new {name}\n" for name in names}


def test_a_set(folder: Path) -> None:
    umask = os.umask(0o777)
    try:
        files.replace_files(new(folder, "a", "b", "c"), 0o640, OWN)
    finally:
        os.umask(umask)
    assert read(folder) == {name: f"new {name}\n" for name in "abc"}
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in "abc"} == {0o640}


def test_who_reads_the_old_one_reads_it_to_its_end(folder: Path) -> None:
    with (folder / "a").open() as reader:
        files.replace_files(new(folder, "a"), 0o640)
        assert reader.read() == OLD["a"]


def test_bytes_that_are_no_utf8(folder: Path) -> None:
    files.replace_files({folder / "a": "# B\udcfcro\n"}, 0o640)
    assert (folder / "a").read_bytes() == b"# B\xfcro\n"


@pytest.mark.parametrize("full_at", [1, 2, 3])
def test_a_full_disk_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
    """It shows while the new files are written, beside the old ones."""
    written = []

    def fsync(handle: int) -> None:
        written.append(handle)
        if len(written) == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(
        files.WriteError, match=r"could not be written: No space left on device\. The files are as they"
    ):
        files.replace_files(new(folder, "a", "b", "c"), 0o640)
    assert read(folder) == OLD


def test_a_folder_in_the_way(folder: Path) -> None:
    """Those before it are new, and that is told."""
    (folder / "c").mkdir()
    with pytest.raises(
        files.WriteError, match=rf"{folder}/c could not be written: Is a directory\. {folder}/a had been"
    ):
        files.replace_files(new(folder, "a", "c", "b"), 0o640)
    assert [(folder / name).read_text() for name in "ab"] == ["new a\n", OLD["b"]]
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("texts", "owner", "said"),
    [({"a": "x"}, ("root", "no-such-group"), "no such group"), ({"nowhere/a": "x"}, None, "No such file or directory")],
)
def test_what_can_not_be_written_is_said(folder: Path, texts: dict[str, str], owner: Any, said: str) -> None:
    with pytest.raises(files.WriteError, match=said):
        files.replace_files({folder / name: text for name, text in texts.items()}, 0o640, owner)
    assert read(folder) == OLD


def test_ids() -> None:
    assert files.resolve_owner(("root", "root")) == (0, 0)
    assert files.resolve_owner((7, 8)) == (7, 8)
    with pytest.raises(KeyError):
        files.resolve_owner(("root", "no-such-group"))


# What killed writers left


def test_a_sweep_takes_what_is_ours_and_nothing_else(folder: Path) -> None:
    (folder / f"{files.PREFIX}x1y2").write_text("password")
    (folder / f"{files.PREFIX}x1y2.old").symlink_to(folder / "a")
    others = (".a.swp", ".upsd.users.abc", "homelab-nut-x")
    for name in others:
        (folder / name).write_text("")
    files.sweep_temporary_files([folder, folder / "nowhere"])
    assert set(read(folder)) == {*OLD, *others}


def test_a_sweep_leaves_who_still_writes(folder: Path) -> None:
    scratch, handle = files.stage_file(folder / "a", "new a\n", 0o640)
    files.sweep_temporary_files([folder])
    assert scratch.read_text() == "new a\n"
    os.close(handle)
    files.sweep_temporary_files([folder])
    assert read(folder) == OLD


def test_a_sweep_between_a_file_and_its_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = files.tempfile.mkstemp, []

    def mkstemp(**options: Any) -> tuple[int, str]:
        made.append(real(**options))
        if len(made) == 1:
            files.sweep_temporary_files([folder])
        return made[-1]

    monkeypatch.setattr(files.tempfile, "mkstemp", mkstemp)
    files.replace_files(new(folder, "a"), 0o640)
    assert len(made) == 2
    assert read(folder) == {**OLD, "a": "new a\n"}


def test_scratch(tmp_path: Path) -> None:
    with files.make_scratch_folder(tmp_path) as scratch:
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
        (scratch / "upsd.users").write_text("password")
        files.sweep_scratch_folders(tmp_path)
        assert (scratch / "upsd.users").read_text() == "password"  # its maker is alive
    assert not list(tmp_path.iterdir())


def test_the_scratch_of_a_killed_run(tmp_path: Path) -> None:
    """As NUT's user may have left it: with links out of it."""
    precious, left = tmp_path / "precious", tmp_path / f"{files.CHECK}x1y2"
    for folder in (precious, left, left / "inner"):
        folder.mkdir()
        (folder / "file").write_text("text")
    (left / "link").symlink_to(precious)
    (tmp_path / f"{files.CHECK}link").symlink_to(precious)
    files.sweep_scratch_folders(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{files.CHECK}link", "precious"]
    assert (precious / "file").read_text() == "text"


# One at a time


HOLD = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"


@contextlib.contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has the lock, as another play's module is one."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield other
        other.kill()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


def test_another_run_is_waited_for(tmp_path: Path) -> None:
    path, clock = tmp_path / "lock", Clock()
    with (
        held(path),
        pytest.raises(files.Busy, match=r"another run is configuring NUT.*waited for 3 s"),
        files.hold_lock(path, 3, clock, clock.pause),
    ):
        pass
    assert clock.now >= 3


def test_a_run_goes_on_when_the_other_is_through(tmp_path: Path) -> None:
    path, clock = tmp_path / "lock", Clock()
    with held(path) as other:

        def pause(seconds: float) -> None:
            clock.pause(seconds)
            if clock.now > 2:
                other.kill()  # however it ends: the kernel drops the lock
                other.wait(20)

        with files.hold_lock(path, 60, clock, pause):
            assert clock.now < 3
            with path.open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
