# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import bundle, glance, quiet

BOOT = "import marshal, sys; exec(marshal.loads(open(sys.argv[1], 'rb').read())); print(*sorted(sys.modules))"


def run(code: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "code").write_bytes(code)
    command = [sys.executable, "-ISc", BOOT, str(folder / "code")]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def left(folder: Path) -> Path:
    """Leave a note that is true."""
    (folder / "sys/bus/usb/devices/1-1").mkdir(parents=True)
    (folder / "sys/bus/usb/devices/1-1/uevent").write_text("DEVNUM=004\n")
    (folder / "conf").write_text("x")
    sysfs, conf = str(folder / "sys"), str(folder / "conf")
    files = {conf: quiet.identity(conf)}
    (folder / "note").write_text(quiet.describe(sysfs, glance.bus(sysfs), files, ("-", 0), {}, until=1e9))
    return folder / "note"


def test_quiet_ends_the_program(tmp_path: Path) -> None:
    assert run(bundle.make(left(tmp_path)), tmp_path).stdout == ""


def test_not_quiet_goes_on_and_has_loaded_next_to_nothing(tmp_path: Path) -> None:
    code = bundle.make(left(tmp_path))
    (tmp_path / "conf").write_text("other")
    loaded = run(code, tmp_path).stdout.split()
    assert "_socket" in loaded
    assert not {"os", "__future__", "socket", "re", "json", "collections"} & set(loaded)


def test_no_note(tmp_path: Path) -> None:
    assert run(bundle.make(tmp_path / "none"), tmp_path).stdout != ""


def test_a_note_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "so"'
    folder.mkdir()
    assert run(bundle.make(left(folder)), folder).stdout == ""


def test_each_python_has_its_own() -> None:
    assert bundle.place(Path("/run")) == Path(f"/run/nut-hotplug.{sys.hexversion:x}.code")


def test_what_is_spared_is_there() -> None:
    text = Path(glance.__file__).read_text() + Path(quiet.__file__).read_text()
    assert all(line in text for line in bundle._SPARED)


def test_no_source() -> None:
    with pytest.raises(ValueError, match="has no source"):
        bundle._source(ModuleType("without"))
