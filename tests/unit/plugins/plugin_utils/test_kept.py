# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.plugin_utils import kept


def read_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("before", [0o777, 0o755, 0o750, 0o711, 0o2775])
def test_open_folder_is_closed(tmp_path: Path, before: int) -> None:
    home = tmp_path / ".homelab-nut"
    home.mkdir()
    home.chmod(before)
    with kept.hold_folder(home / "tls"):
        assert (read_mode(home), read_mode(home / "tls"), read_mode(home / "tls/.lock")) == (0o700, 0o700, 0o600)
    assert read_mode(tmp_path) == 0o700


@pytest.mark.parametrize("before", [0o700, 0o500])
def test_closed_folder_keeps_its_mode(tmp_path: Path, before: int) -> None:
    home = tmp_path / ".homelab-nut"
    home.mkdir()
    home.chmod(before)
    kept.make_folder(home)
    assert read_mode(home) == before


def test_parent_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    kept.make_folder(tmp_path / ".homelab-nut")
    assert read_mode(tmp_path) == 0o755


def test_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".homelab-nut").touch()
    with pytest.raises(OSError, match="homelab-nut"):
        kept.make_folder(tmp_path / ".homelab-nut" / "passwords")


def test_line_is_made_once(tmp_path: Path) -> None:
    path = kept.file_in(tmp_path, "nas")
    assert kept.make_once(path, lambda: "first") == "first"
    assert kept.make_once(path, lambda: "second") == "first"
    assert (path.read_text(), read_mode(path)) == ("first\n", 0o600)
