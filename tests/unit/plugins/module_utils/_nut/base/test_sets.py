# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files, sets
from ansible_collections.homelab.nut.tests.unit.support import killed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

OWN = (os.getuid(), os.getgid())
OLD = {"nut.conf": "MODE=none\n", "upsd.users": "old users\n", "upsmon.conf": "old monitor\n"}
NEW = {
    "nut.conf": "MODE=netserver\n",
    "upsd.users": "new users\n",
    "extra": "new extra\n",
    "upsmon.conf": "new monitor\n",
}


class Site:
    """A folder of NUT's with the old files, a folder of ours for the manifest, and one for the note that a reboot empties."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder, self.room, self.manifest = root / "nut", root / "run", root / "ours" / "set.json"
        self.note = sets.Note(self.room / "pending", "restart upsd")
        for folder in (self.folder, self.room):
            folder.mkdir()
        for name, text in OLD.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o600)

    def replace(self, names: Mapping[str, str] | None = None) -> None:
        texts = {self.folder / name: text for name, text in (NEW if names is None else names).items()}
        sets.replace_set(texts, 0o640, OWN, manifest=self.manifest, note=self.note)

    def recover(self) -> str:
        """Lock and recover, as every run does first. Return the message."""
        with sets.hold_lock_and_recover(self.room, 0, [self.folder], manifest=self.manifest) as found:
            return found

    def read(self) -> dict[str, str]:
        """Return the texts of all files, including temporary ones, which must not be left behind."""
        return {path.name: path.read_text() for path in self.folder.iterdir()}

    def is_new(self) -> bool:
        """Return whether all files are new. Fails for a mixture of old and new, leftovers and wrong modes."""
        found = self.read()
        assert found in (OLD, NEW)
        modes = {stat.S_IMODE((self.folder / name).stat().st_mode) for name in found}
        assert modes == {0o640 if found == NEW else 0o600}
        assert {(path.stat().st_uid, path.stat().st_gid) for path in self.folder.iterdir()} == {OWN}
        assert not self.manifest.parent.exists() or not list(self.manifest.parent.iterdir())
        assert {path.name for path in self.room.iterdir()} <= {sets.LOCK, "pending"}
        return found == NEW


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_set_is_replaced_and_noted(site: Site) -> None:
    umask = os.umask(0o777)
    try:
        site.replace()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(site.manifest.parent.stat().st_mode) & 0o077 == 0
    site.manifest.parent.chmod(0o700)
    assert site.is_new()
    assert site.note.path.read_text() == "restart upsd"
    assert site.recover() == ""


def test_recovery_without_leftovers_writes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "fsync", lambda _handle: pytest.fail("fsync takes long"))
    assert site.recover() == ""
    assert not site.manifest.parent.exists()


@pytest.mark.parametrize("full_at", range(1, 9))
def test_full_disk_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
    """Whether the error occurs at a file, the folder or the manifest."""
    real, count = os.fsync, itertools.count(1)

    def fsync(handle: int) -> None:
        if next(count) == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(
        files.WriteError, match=r"could not be written: No space left on device\. The files are as they were\.$"
    ):
        site.replace()
    assert not site.is_new()
    assert not site.note.path.exists()


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_failed_replacement_is_undone(site: Site, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    real, count = Path.replace, itertools.count(1)

    def replace(path: Path, target: Path) -> Path:
        if next(count) == fails_at:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, target)

    site.note.path.write_text("of an earlier run")
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(files.WriteError, match=r"Read-only file system\. The files are as they were\.$"):
        site.replace()
    assert not site.is_new()
    assert site.note.path.read_text() == "of an earlier run"


def test_folder_in_place_of_a_file_undoes_the_set(site: Site) -> None:
    (site.folder / "extra").mkdir()
    with pytest.raises(files.WriteError, match=rf"^{site.folder}/extra could not be written: Is a directory\. The"):
        site.replace()
    (site.folder / "extra").rmdir()
    assert not site.is_new()


def test_disk_that_turns_read_only_leaves_an_unfinished_set(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest stays, and the next run that can write finishes the set."""
    real, count = Path.replace, itertools.count(1)

    def replace(path: Path, target: Path) -> Path:
        if next(count) > 4:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(sets.UnfinishedSet, match=r"some of .*upsd\.users.* are new and some old.*Read-only"):
            site.replace()
        with pytest.raises(sets.UnfinishedSet):
            site.recover()
    assert "now all are new" in site.recover()
    assert site.is_new()


def test_link_is_kept_or_replaced_as_a_whole(site: Site) -> None:
    (site.folder / "upsd.users").rename(site.root / "elsewhere")
    (site.folder / "upsd.users").symlink_to(site.root / "elsewhere")
    (site.folder / "extra").mkdir()
    with pytest.raises(files.WriteError):
        site.replace()
    assert (site.folder / "upsd.users").is_symlink()
    (site.folder / "extra").rmdir()
    site.replace()
    assert (site.root / "elsewhere").read_text() == OLD["upsd.users"]
    assert site.read() == NEW


# Killed


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that syncs fast, if there is one, because hundreds of writers are killed."""
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def make_random() -> random.Random:
    """Return a random generator, and print the seed to repeat the test."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)  # noqa: S311 - nothing secret


def leave_half_done(site: Site) -> list[sets.StagedFile]:
    """Leave a set like a run that was killed after replacing the first file."""
    entries = [sets._stage_file(site.folder / name, text, 0o640, OWN) for name, text in NEW.items()]
    site.manifest.parent.mkdir(mode=0o700)
    site.manifest.write_text(sets._dump_manifest(entries, site.note))
    entries[0].staged.replace(entries[0].path)
    return entries


def test_half_replaced_set_is_finished(site: Site) -> None:
    leave_half_done(site)
    site.note.path.write_text("of an earlier run")
    found = site.recover()
    assert found.startswith(f"{site.folder}/nut.conf, {site.folder}/upsd.users, ")
    assert found.endswith("an earlier run was killed while it replaced them; now all are new")
    assert site.is_new()
    # the run may have been killed before writing the note, or a reboot may have removed it
    assert site.note.path.read_text() == "restart upsd"


@pytest.mark.parametrize("text", [None, "torn"])
def test_set_without_all_new_files_is_undone(site: Site, text: str | None) -> None:
    entries = leave_half_done(site)
    if text is None:
        entries[2].staged.unlink()
    else:
        entries[2].staged.write_text(text)
    assert site.recover().endswith("all are as they were before it")
    assert not site.is_new()


def test_killed_undo_loses_no_file(site: Site) -> None:
    """Old and new look alike if only the mode of a file differs."""
    names = {"nut.conf": OLD["nut.conf"], "upsd.users": "new users\n"}
    entries = [sets._stage_file(site.folder / name, text, 0o600, OWN) for name, text in names.items()]
    site.manifest.parent.mkdir(mode=0o700)
    site.manifest.write_text(sets._dump_manifest(entries, None))
    entries[0].staged.replace(entries[0].path)
    entries[1].staged.unlink()
    kept = entries[0].kept
    assert kept is not None
    kept.replace(entries[0].path)
    site.recover()
    assert not site.is_new()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "7",
        '{"version": 2}',
        '{"version": 1, "files": [{"path": "/etc/nut/x"}], "note": null}',
        '{"version": 1, "files": [{"path": "/etc/shadow", "staged": "/tmp/x", "kept": null, "digest": ""}], "note": null}',
        '{"version": 1, "files": [], "note": {"path": 7}}',
    ],
)
def test_broken_manifest_is_reported_and_removed(site: Site, text: str) -> None:
    site.manifest.parent.mkdir(mode=0o700)
    site.manifest.write_text(text)
    (site.folder / f"{files.PREFIX}x").write_text("password")
    assert "can't be read: deploy NUT's files again" in site.recover()
    assert not site.is_new()


KILLS = 300


def test_set_is_complete_after_kills_at_random_times(memory: Path) -> None:
    """After the next run all files are old or all are new, without leftovers."""
    chance = make_random()
    latest, counts = 0.01, {True: 0, False: 0}
    for number in range(KILLS):
        root = memory / str(number)
        root.mkdir()
        site = Site(root)
        killed.kill_after(chance.uniform(0, latest), site.replace)
        site.recover()
        is_new = site.is_new()
        counts[is_new] += 1
        assert not is_new or site.note.path.read_text() == "restart upsd"
        # about half of the kills come too late, however fast this machine is
        latest *= 0.9 if is_new else 1.1
        shutil.rmtree(root)
    assert min(counts.values()) > 0, counts


@pytest.mark.parametrize("again", [False, True])
def test_set_is_complete_after_a_kill_at_any_line(memory: Path, again: bool) -> None:
    """again: kill the next run at each line, too."""
    results = []
    for number in itertools.count(1):
        root = memory / str(number)
        root.mkdir()
        site = Site(root)
        if again:
            leave_half_done(site)
            was_killed = killed.kill_at_line(number, site.recover, (sets, files))
        else:
            was_killed = killed.kill_at_line(number, site.replace, (sets, files))
        site.recover()
        results.append(site.is_new())
        assert not results[-1] or site.note.path.read_text() == "restart upsd"
        shutil.rmtree(root)
        if not was_killed:
            break
    # from some line on the set is complete
    assert results == sorted(results)
    assert results[-1]
    assert again or not results[0]
    assert len(results) > (60 if again else 150)


# Power loss


class Recorder:
    """Records the file operations of a writer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[str, Path, Any]] = []
        mkstemp, fsync, link, rename = files.tempfile.mkstemp, os.fsync, os.link, Path.replace
        unlink, mkdir = Path.unlink, Path.mkdir

        def create(**options: Any) -> tuple[int, str]:
            handle, name = mkstemp(**options)
            self.steps.append(("create", Path(name), None))
            return handle, name

        def sync(handle: int) -> None:
            path = Path(f"/proc/self/fd/{handle}").readlink()
            text = None if path.is_dir() else (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
            self.steps.append(("sync", path, text))
            fsync(handle)

        def noted(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(path: Path, *arguments: Any, **options: Any) -> Any:
                if what != "unlink" or os.path.lexists(path):
                    self.steps.append((what, path, arguments[0] if arguments else None))
                return real(path, *arguments, **options)

            return call

        monkeypatch.setattr(files.tempfile, "mkstemp", create)
        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(os, "link", noted("link", link))
        monkeypatch.setattr(Path, "replace", noted("rename", rename))
        monkeypatch.setattr(Path, "unlink", noted("unlink", unlink))
        monkeypatch.setattr(Path, "mkdir", noted("mkdir", mkdir))

    def is_durable(self, number: int, end: int) -> bool:
        """Return whether a step survives a power loss before step END, because its folder was synced in between."""
        folder = self.steps[number][1].parent
        return any(what == "sync" and path == folder for what, path, _more in self.steps[number + 1 : end])

    def text(self, number: int, end: int) -> tuple[bytes, int]:
        """Return text and mode of a file that a step created."""
        created = self.steps[number][1]
        synced = [more for what, path, more in self.steps[number:end] if what == "sync" and path == created]
        return synced[0] if synced else (b"to", 0o600)

    def play(self, end: int, chance: random.Random) -> None:
        """Repeat the steps before END, except for a random part of those that were not synced."""
        for number, (what, path, more) in enumerate(self.steps[:end]):
            if (
                what == "sync"
                or not path.parent.is_dir()
                or not (self.is_durable(number, end) or chance.random() < 0.5)
            ):
                continue
            if what == "create":
                data, mode = self.text(number, end)
                path.write_bytes(data)
                path.chmod(mode)
            elif what == "mkdir":
                path.mkdir(mode=0o700)
            elif what == "unlink":
                path.unlink(missing_ok=True)
            elif os.path.lexists(path):
                {"link": os.link, "rename": os.replace}[what](path, more)


def test_set_is_complete_after_power_loss_at_any_step(memory: Path) -> None:
    """Any subset of the unsynced steps may be lost, and /run is empty afterwards."""
    chance = make_random()
    (memory / "root").mkdir()
    site, before = Site(memory / "root"), memory / "before"
    shutil.copytree(site.root, before)
    with pytest.MonkeyPatch.context() as monkeypatch:
        recorder = Recorder(monkeypatch)
        site.replace()
    counts = {True: 0, False: 0}
    for end, _try in itertools.product(range(len(recorder.steps) + 1), range(12)):
        shutil.rmtree(site.root)
        shutil.copytree(before, site.root)
        recorder.play(end, chance)
        shutil.rmtree(site.room)
        site.room.mkdir()
        daemons = {name: (site.folder / name).read_text() for name in OLD}  # that start at boot
        site.recover()
        is_new = site.is_new()
        counts[is_new] += 1
        if is_new and daemons != {name: NEW[name] for name in OLD}:
            assert site.note.path.read_text() == "restart upsd"
    assert min(counts.values()) > 100, counts
