# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import flag

TEXT = "upsmon-shutdown-file"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (TEXT, flag.SET),
        (f"{TEXT}\n", flag.SET),
        ("", flag.SPOILED),
        ("upsmon-", flag.SPOILED),
        ("\n", flag.FOREIGN),
        ("by hand", flag.FOREIGN),
        (None, flag.MISSING),
    ],
)
def test_flag_status_depends_on_text(tmp_path: Path, text: str | None, state: str) -> None:
    path = tmp_path / "killpower"
    if text is not None:
        path.write_text(text)
    assert flag.read_flag(str(path)) == state


def test_irregular_file_is_foreign_flag(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(TEXT)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    # a FIFO without a writer must not block
    os.mkfifo(tmp_path / "fifo")
    assert {flag.read_flag(str(tmp_path / name)) for name in ("link", "folder", "fifo")} == {flag.FOREIGN}


def test_file_of_other_user_is_foreign_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "killpower").write_text(TEXT)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert flag.read_flag(str(tmp_path / "killpower")) == flag.FOREIGN


@pytest.mark.parametrize("before", ["nothing", "", "by hand", "a link", "a link to nowhere"])
def test_write_flag_replaces_any_file_or_link(tmp_path: Path, before: str) -> None:
    path, victim = tmp_path / "killpower", tmp_path / "victim"
    victim.write_text("precious")
    if before.startswith("a link"):
        path.symlink_to(victim if before == "a link" else tmp_path / "nowhere")
    elif before != "nothing":
        path.write_text(before)
    (tmp_path / "killpower.new").write_text("of a run that was killed")
    flag.write_flag(str(path))
    assert flag.read_flag(str(path)) == flag.SET
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killpower", "victim"]


# A disk without space, for this process alone: files can be made, and nothing can be written into them.
FULL = """
import resource, sys
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import flag
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    flag.write_flag(sys.argv[1])
except OSError as error:
    print(f"failed: {error.strerror}")
print(flag.read_flag(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("spare", "said"),
    [(TEXT, ["set"]), ("", ["failed: File too large", "spoiled"]), (None, ["failed: File too large", "spoiled"])],
)
def test_spare_becomes_flag_without_space(tmp_path: Path, spare: str | None, said: list[str]) -> None:
    path = tmp_path / "killpower"
    path.write_text("")
    if spare is not None:
        (tmp_path / "killpower.spare").write_text(spare)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == said
    assert not (tmp_path / "killpower.new").exists()
