# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replace a set of files as a whole: all of it or none, also if the writer is killed or the power goes at any moment.

The new files are written beside the old ones first, and each old one gets a second name. Then a manifest is written, which
says what goes where. From then on the set counts: whoever finds a manifest finishes what it says, or, if that can't be done,
undoes it. Each step lasts over a power cut before the next one begins.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable

from . import files, jsontext
from .files import Owner, WriteError

# On a disk, as it must survive a power cut, and in a directory of root's own: what it says is done as root.
MANIFEST = Path("/var/lib/homelab-nut/set.json")
LOCK = "homelab-nut.lock"
_VERSION = 1
_LIMIT = 1 << 20  # bytes


class UnfinishedSet(WriteError):
    """A set can be neither finished nor undone; the message names the files, and tells what to do."""


@dataclass(frozen=True)
class Note:
    """What is to be done once the set is in place, for whoever finishes it: a text, and the file that it belongs into."""

    path: Path
    text: str


@dataclass(frozen=True)
class StagedFile:
    """One file of a set."""

    path: Path
    staged: Path  # the new file, beside it
    kept: Path | None  # the second name of the old one; None if there was none
    digest: str  # of the new one

    @property
    def is_ready(self) -> bool:
        """Return whether the new file can take its place, or has."""
        return self.digest == _file_digest(self.staged if os.path.lexists(self.staged) else self.path)


def replace_set(
    texts: Mapping[Path, str],
    mode: int,
    owner: Owner | None = None,
    *,
    manifest: Path = MANIFEST,
    note: Note | None = None,
) -> None:
    """Replace files, all or none. They take their places in the order given. The caller holds the lock. Raises WriteError.

    note: is put in place with them, before the first of them.
    """
    entries: list[StagedFile] = []
    before = _read_text(note.path) if note else None
    path = Path()
    try:
        for path, text in texts.items():
            entries.append(_stage_file(path, text, mode, owner))
        path = manifest
        files.sync_paths({entry.path.parent for entry in entries})
        _make_folder(manifest.parent)
        files.replace_files({manifest: _dump_manifest(entries, note)}, 0o600)
    except (OSError, LookupError, WriteError) as error:  # LookupError: there is no such user or group
        _clean_up(manifest, entries)
        raise WriteError(
            f"{path} could not be written: {_describe_error(error)}. The files are as they were."
        ) from None
    try:
        if note:
            files.replace_files({note.path: note.text}, 0o600)
        _put_in_place(entries)
    except (OSError, WriteError) as error:
        words = _describe_error(error)
        _put_back(entries, manifest)
        if note and before is None:
            note.path.unlink(missing_ok=True)
        elif note:
            files.replace_files({note.path: before or ""}, 0o600)
        raise WriteError(f"{words}. The files are as they were.") from None
    _clean_up(manifest, entries)


def _stage_file(path: Path, text: str, mode: int, owner: Owner | None) -> StagedFile:
    staged, handle = files.stage_file(path, text, mode, owner)
    os.close(handle)
    kept = None
    try:
        # a directory gets none, and can't be replaced
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            kept = _backup_path(staged)
            os.link(path, kept, follow_symlinks=False)
    except OSError:
        staged.unlink()
        raise
    return StagedFile(path, staged, kept, hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest())


def _backup_path(staged: Path) -> Path:
    return staged.with_name(f"{staged.name}.old")


def _put_in_place(entries: Sequence[StagedFile]) -> None:
    """Let the new files take their places. Raises OSError."""
    for entry in entries:
        if os.path.lexists(entry.staged):
            try:
                entry.staged.replace(entry.path)
            except OSError as error:
                raise WriteError(f"{entry.path} could not be written: {error.strerror}") from None
    files.sync_paths({entry.path.parent for entry in entries})


def _put_back(entries: Sequence[StagedFile], manifest: Path) -> None:
    """Let the old files take their places again. Raises UnfinishedSet."""
    try:
        for entry in reversed(entries):
            if entry.kept is None:
                if _file_digest(entry.path) == entry.digest:
                    entry.path.unlink()
            elif os.path.lexists(entry.kept):
                entry.kept.replace(entry.path)
        files.sync_paths({entry.path.parent for entry in entries})
        _clean_up(manifest, entries)
    except OSError as error:
        names = ", ".join(str(entry.path) for entry in entries)
        raise UnfinishedSet(
            f"some of {names} are new and some old, and this can't be repaired: {error.strerror}. Make sure the disk can "
            f"be written, and run again: {manifest} lists what is left to do"
        ) from None


def _clean_up(manifest: Path, entries: Iterable[StagedFile]) -> None:
    """End a set that is in place, or is not to be. The manifest first: it names the others."""
    if os.path.lexists(manifest):
        manifest.unlink()
        files.sync_paths([manifest.parent])
    for entry in entries:
        entry.staged.unlink(missing_ok=True)
        if entry.kept:
            entry.kept.unlink(missing_ok=True)


def recover_set(manifest: Path = MANIFEST) -> str:
    """Finish the set that a killed run has left half in place, or undo it. Returns what was done, "" if there was nothing to do.

    The caller holds the lock. Raises UnfinishedSet.
    """
    text = _read_text(manifest)
    if text is None:
        return ""
    try:
        entries, note = _load_manifest(text)
    except (ValueError, TypeError, LookupError):
        manifest.unlink()
        return f"{manifest}, which says what a killed run left unfinished, can't be read: deploy NUT's files again"
    names = ", ".join(str(entry.path) for entry in entries)
    late = [entry for entry in entries if os.path.lexists(entry.staged)]
    if all(entry.is_ready for entry in entries):
        try:
            # after a reboot it is gone, and daemons were started with some of the old files; else it may not have come so far
            if late and note:
                files.replace_files({note.path: note.text}, 0o600)
            _put_in_place(entries)
            _clean_up(manifest, entries)
        except (OSError, WriteError):
            pass
        else:
            return f"{names}: an earlier run was killed while it replaced them; now all are new"
    _put_back(entries, manifest)
    return f"{names}: an earlier run was killed while it replaced them; all are as they were before it"


@contextlib.contextmanager
def hold_lock_and_recover(
    room: Path,
    seconds: float,
    folders: Iterable[Path],
    *,
    manifest: Path = MANIFEST,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Keep other runs out while this one works on NUT's files, and put right what killed ones have left. Yields what that was.

    room: where the lock is. folders: where the caller writes. Raises files.Busy after SECONDS, UnfinishedSet, and OSError.
    """
    with files.hold_lock(room / LOCK, seconds, pause=pause):
        found = recover_set(manifest)
        # not before: the manifest names temporary files
        files.sweep_temporary_files({*folders, room, manifest.parent})
        files.sweep_scratch_folders(room)
        yield found


# Details


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        files.sync_paths([folder.parent])


def _describe_error(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).removesuffix(". The files are as they were.")


def _file_digest(path: Path) -> str:
    """Return the digest of a file; "" if there is none."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def _read_text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def _dump_manifest(entries: Sequence[StagedFile], note: Note | None) -> str:
    data = {"version": _VERSION, "files": [asdict(entry) for entry in entries], "note": note and asdict(note)}
    return json.dumps(data, indent=1, default=str) + "\n"


def _load_manifest(text: str) -> tuple[list[StagedFile], Note | None]:
    """Read a manifest. Raises ValueError, TypeError and LookupError for one that is none of ours."""
    data = jsontext.parse_json(text)
    if data["version"] != _VERSION:
        raise ValueError(data["version"])
    return [_read_entry(one) for one in data["files"]], _read_note(data["note"])


def _read_entry(data: Mapping[str, Any]) -> StagedFile:
    path, staged = Path(data["path"]), Path(data["staged"])
    kept = None if data["kept"] is None else _backup_path(staged)
    if staged.parent != path.parent or not staged.name.startswith(files.PREFIX) or (kept and str(kept) != data["kept"]):
        raise ValueError(data)
    return StagedFile(path, staged, kept, str(data["digest"]))


def _read_note(data: Mapping[str, Any] | None) -> Note | None:
    return Note(Path(data["path"]), str(data["text"])) if data else None
