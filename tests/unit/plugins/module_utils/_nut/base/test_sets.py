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
    """A directory of NUT's with the old files, the manifest in one of ours, and the note in one that a reboot empties."""

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

    def next_run(self) -> str:
        """Do what each run of ours begins with."""
        with sets.hold_lock_and_recover(self.room, 0, [self.folder], manifest=self.manifest) as found:
            return found

    def read(self) -> dict[str, str]:
        """Return all that is there: nothing may be left behind."""
        return {path.name: path.read_text() for path in self.folder.iterdir()}

    def is_new(self) -> bool:
        """Return whether all is new; raise if it is neither new nor old, or something is left, or has another mode."""
        found = self.read()
        assert found in (OLD, NEW)
        modes = {stat.S_IMODE((self.folder / name).stat().st_mode) for name in found}
        assert modes == {0o640 if found == NEW else 0o600}
        assert {(one.st_uid, one.st_gid) for one in (path.stat() for path in self.folder.iterdir())} == {OWN}
        assert not self.manifest.parent.exists() or not list(self.manifest.parent.iterdir())
        assert {path.name for path in self.room.iterdir()} <= {sets.LOCK, "pending"}
        return found == NEW


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_set(site: Site) -> None:
    umask = os.umask(0o777)
    try:
        site.replace()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(site.manifest.parent.stat().st_mode) & 0o077 == 0
    site.manifest.parent.chmod(0o700)
    assert site.is_new()
    assert site.note.path.read_text() == "restart upsd"
    assert site.next_run() == ""


def test_a_run_that_finds_nothing_writes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "fsync", lambda _handle: pytest.fail("it costs time"))
    assert site.next_run() == ""
    assert not site.manifest.parent.exists()


@pytest.mark.parametrize("full_at", range(1, 9))
def test_a_full_disk_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
    """Whether it shows at a file, at their directory, or at the manifest."""
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
def test_a_set_that_can_not_take_its_place_goes_back(
    site: Site, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
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


def test_a_folder_in_the_way(site: Site) -> None:
    (site.folder / "extra").mkdir()
    with pytest.raises(files.WriteError, match=rf"^{site.folder}/extra could not be written: Is a directory\. The"):
        site.replace()
    (site.folder / "extra").rmdir()
    assert not site.is_new()


def test_a_disk_that_is_read_only_in_the_middle(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither forth nor back: the manifest stays, and the next run that can write finishes it."""
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
            site.next_run()
    assert "now all are new" in site.next_run()
    assert site.is_new()


def test_an_old_file_that_is_a_link(site: Site) -> None:
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
    """A directory on a disk that is fast to sync, if there is one: hundreds of writers are killed."""
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def draw() -> random.Random:
    """Return where chance comes from, and print what brings it again."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)  # noqa: S311 - nothing secret


def half_done(site: Site) -> list[sets.StagedFile]:
    """Leave a set as a run does that is killed when its first file is in place."""
    entries = [sets._stage_file(site.folder / name, text, 0o640, OWN) for name, text in NEW.items()]
    site.manifest.parent.mkdir(mode=0o700)
    site.manifest.write_text(sets._dump_manifest(entries, site.note))
    entries[0].staged.replace(entries[0].path)
    return entries


def test_what_is_half_in_place_is_finished(site: Site) -> None:
    half_done(site)
    site.note.path.write_text("of an earlier run")
    found = site.next_run()
    assert found.startswith(f"{site.folder}/nut.conf, {site.folder}/upsd.users, ")
    assert found.endswith("an earlier run was killed while it replaced them; now all are new")
    assert site.is_new()
    # the kill may have come before it, and after a reboot it is gone
    assert site.note.path.read_text() == "restart upsd"


@pytest.mark.parametrize("text", [None, "torn"])
def test_what_can_not_be_finished_is_undone(site: Site, text: str | None) -> None:
    entries = half_done(site)
    if text is None:
        entries[2].staged.unlink()
    else:
        entries[2].staged.write_text(text)
    assert site.next_run().endswith("all are as they were before it")
    assert not site.is_new()


def test_an_undoing_that_is_killed_loses_no_file(site: Site) -> None:
    """Of a file whose text was right, and whose mode was not, old and new look alike."""
    names = {"nut.conf": OLD["nut.conf"], "upsd.users": "new users\n"}
    entries = [sets._stage_file(site.folder / name, text, 0o600, OWN) for name, text in names.items()]
    site.manifest.parent.mkdir(mode=0o700)
    site.manifest.write_text(sets._dump_manifest(entries, None))
    entries[0].staged.replace(entries[0].path)
    entries[1].staged.unlink()
    kept = entries[0].kept
    assert kept is not None
    kept.replace(entries[0].path)
    site.next_run()
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
def test_a_manifest_that_is_none(site: Site, text: str) -> None:
    site.manifest.parent.mkdir(mode=0o700)
    site.manifest.write_text(text)
    (site.folder / f"{files.PREFIX}x").write_text("password")
    assert "can't be read: deploy NUT's files again" in site.next_run()
    assert not site.is_new()


KILLS = 300


def test_killed_at_random(memory: Path) -> None:
    """The next run finds all old or makes all new, and removes what is left."""
    chance = draw()
    latest, counts = 0.01, {True: 0, False: 0}
    for number in range(KILLS):
        root = memory / str(number)
        root.mkdir()
        site = Site(root)
        killed.after(chance.uniform(0, latest), site.replace)
        site.next_run()
        is_new = site.is_new()
        counts[is_new] += 1
        assert not is_new or site.note.path.read_text() == "restart upsd"
        # about half of them, however fast this machine is now
        latest *= 0.9 if is_new else 1.1
        shutil.rmtree(root)
    assert min(counts.values()) > 0, counts


@pytest.mark.parametrize("again", [False, True])
def test_killed_at_each_line(memory: Path, again: bool) -> None:
    """again: the next run is killed at each of its lines, too."""
    results = []
    for number in itertools.count(1):
        root = memory / str(number)
        root.mkdir()
        site = Site(root)
        if again:
            half_done(site)
            was_killed = killed.at_line(number, site.next_run, (sets, files))
        else:
            was_killed = killed.at_line(number, site.replace, (sets, files))
        site.next_run()
        results.append(site.is_new())
        assert not results[-1] or site.note.path.read_text() == "restart upsd"
        shutil.rmtree(root)
        if not was_killed:
            break
    # from one line on the set counts
    assert results == sorted(results)
    assert results[-1]
    assert again or not results[0]
    assert len(results) > (60 if again else 150)


# The power goes


class Recorder:
    """What a writer asks of the disk, step by step."""

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

    def lasts(self, number: int, end: int) -> bool:
        """Return whether the step is on the disk when the power goes before step END: its directory was synced after it."""
        folder = self.steps[number][1].parent
        return any(what == "sync" and path == folder for what, path, _more in self.steps[number + 1 : end])

    def text(self, number: int, end: int) -> tuple[bytes, int]:
        """Return what stands in a file that was created by a step."""
        created = self.steps[number][1]
        synced = [more for what, path, more in self.steps[number:end] if what == "sync" and path == created]
        return synced[0] if synced else (b"to", 0o600)

    def play(self, end: int, chance: random.Random) -> None:
        """Do the steps before END, but for some of those that the disk has not been told to keep."""
        for number, (what, path, more) in enumerate(self.steps[:end]):
            if what == "sync" or not path.parent.is_dir() or not (self.lasts(number, end) or chance.random() < 0.5):
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


def test_the_power_goes_at_any_step(memory: Path) -> None:
    """What was not synced lasts or not, in any mixture. /run is empty afterwards."""
    chance = draw()
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
        site.next_run()
        is_new = site.is_new()
        counts[is_new] += 1
        if is_new and daemons != {name: NEW[name] for name in OLD}:
            assert site.note.path.read_text() == "restart upsd"
    assert min(counts.values()) > 100, counts
