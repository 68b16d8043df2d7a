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


def read_all(folder: Path) -> dict[str, str]:
    """Return the texts of all files, including hidden ones, which must not be left behind."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def new_texts(folder: Path, *names: str) -> dict[Path, str]:
    return {folder / name: f"new {name}\n" for name in names}


def test_files_are_replaced_with_the_given_mode(folder: Path) -> None:
    umask = os.umask(0o777)
    try:
        files.replace_files(new_texts(folder, "a", "b", "c"), 0o640, OWN)
    finally:
        os.umask(umask)
    assert read_all(folder) == {name: f"new {name}\n" for name in "abc"}
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in "abc"} == {0o640}


def test_open_old_file_can_be_read_to_the_end(folder: Path) -> None:
    with (folder / "a").open() as reader:
        files.replace_files(new_texts(folder, "a"), 0o640)
        assert reader.read() == OLD["a"]


def test_bytes_that_are_not_utf8_are_kept(folder: Path) -> None:
    files.replace_files({folder / "a": "# B\udcfcro\n"}, 0o640)
    assert (folder / "a").read_bytes() == b"# B\xfcro\n"


@pytest.mark.parametrize("full_at", [1, 2, 3])
def test_full_disk_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
    """The error occurs while the new files are written beside the old ones."""
    written = []

    def fsync(handle: int) -> None:
        written.append(handle)
        if len(written) == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(
        files.WriteError, match=r"could not be written: No space left on device\. The files are as they"
    ):
        files.replace_files(new_texts(folder, "a", "b", "c"), 0o640)
    assert read_all(folder) == OLD


def test_folder_in_place_of_a_file_stops_the_replacement(folder: Path) -> None:
    """The message names the files that have been replaced before the error."""
    (folder / "c").mkdir()
    with pytest.raises(
        files.WriteError, match=rf"{folder}/c could not be written: Is a directory\. {folder}/a had been"
    ):
        files.replace_files(new_texts(folder, "a", "c", "b"), 0o640)
    assert [(folder / name).read_text() for name in "ab"] == ["new a\n", OLD["b"]]
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("texts", "owner", "message"),
    [({"a": "x"}, ("root", "no-such-group"), "no such group"), ({"nowhere/a": "x"}, None, "No such file or directory")],
)
def test_error_message_names_the_cause(folder: Path, texts: dict[str, str], owner: Any, message: str) -> None:
    with pytest.raises(files.WriteError, match=message):
        files.replace_files({folder / name: text for name, text in texts.items()}, 0o640, owner)
    assert read_all(folder) == OLD


def test_owner_is_resolved_to_ids() -> None:
    assert files.resolve_owner(("root", "root")) == (0, 0)
    assert files.resolve_owner((7, 8)) == (7, 8)
    with pytest.raises(KeyError):
        files.resolve_owner(("root", "no-such-group"))


# Temporary files of killed writers


def test_sweep_removes_only_own_temporary_files(folder: Path) -> None:
    (folder / f"{files.PREFIX}x1y2").write_text("password")
    (folder / f"{files.PREFIX}x1y2.old").symlink_to(folder / "a")
    others = (".a.swp", ".upsd.users.abc", "homelab-nut-x")
    for name in others:
        (folder / name).write_text("")
    files.sweep_temporary_files([folder, folder / "nowhere"])
    assert set(read_all(folder)) == {*OLD, *others}


def test_sweep_keeps_files_of_live_writers(folder: Path) -> None:
    scratch, handle = files.stage_file(folder / "a", "new a\n", 0o640)
    files.sweep_temporary_files([folder])
    assert scratch.read_text() == "new a\n"
    os.close(handle)
    files.sweep_temporary_files([folder])
    assert read_all(folder) == OLD


def test_sweep_before_the_lock_is_taken_is_harmless(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = files.tempfile.mkstemp, []

    def mkstemp(**options: Any) -> tuple[int, str]:
        made.append(real(**options))
        if len(made) == 1:
            files.sweep_temporary_files([folder])
        return made[-1]

    monkeypatch.setattr(files.tempfile, "mkstemp", mkstemp)
    files.replace_files(new_texts(folder, "a"), 0o640)
    assert len(made) == 2
    assert read_all(folder) == {**OLD, "a": "new a\n"}


def test_scratch_folder_is_private_and_removed(tmp_path: Path) -> None:
    with files.make_scratch_folder(tmp_path) as scratch:
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
        (scratch / "upsd.users").write_text("password")
        files.sweep_scratch_folders(tmp_path)
        assert (scratch / "upsd.users").read_text() == "password"  # the run that made the folder is alive
    assert not list(tmp_path.iterdir())


def test_scratch_folder_of_a_killed_run_is_removed(tmp_path: Path) -> None:
    """The user nut may have put links into the folder."""
    precious, left = tmp_path / "precious", tmp_path / f"{files.CHECK}x1y2"
    for folder in (precious, left, left / "inner"):
        folder.mkdir()
        (folder / "file").write_text("text")
    (left / "link").symlink_to(precious)
    (tmp_path / f"{files.CHECK}link").symlink_to(precious)
    files.sweep_scratch_folders(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{files.CHECK}link", "precious"]
    assert (precious / "file").read_text() == "text"


# The lock


HOLD = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"


@contextlib.contextmanager
def hold_in_other_process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Let another process hold the lock, like the module of another play."""
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


def test_busy_lock_is_waited_for_until_the_timeout(tmp_path: Path) -> None:
    path, clock = tmp_path / "lock", Clock()
    with (
        hold_in_other_process(path),
        pytest.raises(files.Busy, match=r"another run is configuring NUT.*Waited 3 s"),
        files.hold_lock(path, 3, clock, clock.pause),
    ):
        pass
    assert clock.now >= 3


def test_run_continues_once_the_lock_is_released(tmp_path: Path) -> None:
    path, clock = tmp_path / "lock", Clock()
    with hold_in_other_process(path) as other:

        def pause(seconds: float) -> None:
            clock.pause(seconds)
            if clock.now > 2:
                other.kill()  # the kernel releases the lock of a process that ends in any way
                other.wait(20)

        with files.hold_lock(path, 60, clock, pause):
            assert clock.now < 3
            with path.open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
