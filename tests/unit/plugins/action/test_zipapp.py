# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader as plugins
from ansible.plugins.loader import connection_loader
from ansible.template import Templar
from ansible_collections.homelab.nut.plugins.action import zipapp
from ansible_collections.homelab.nut.tests.unit.support.plays import run_play

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[4]
PYTHON = f"{sys.executable} -IS"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Make a script and a package among other files."""
    package = tmp_path / "utils/pack"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text("WORDS = 'hello'\n")
    (package / "inner/__init__.py").write_text("")
    (package / "inner/more.py").write_text("MORE = 'world'\n")
    (package / "notes.txt").write_text("not Python")
    (package / "__pycache__").mkdir()
    (package / "__pycache__/words.pyc").write_text("")
    (tmp_path / "utils/other.py").write_text("")
    (tmp_path / "main.py").write_text(
        "import sys\nfrom pack.words import WORDS\nfrom pack.inner.more import MORE\nprint(WORDS, MORE, *sys.argv[1:])\nsys.exit(7)\n"
    )
    return tmp_path


def build_archive(sources: Path) -> bytes:
    return zipapp.build_program(sources / "main.py", "pack", f"#!{PYTHON}\n".encode(), folder=sources / "utils")


def test_archive_runs_as_a_program(sources: Path) -> None:
    program = sources / "program"
    program.write_bytes(build_archive(sources))
    program.chmod(0o755)
    done = subprocess.run([program, "a b", "--c"], check=False, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello world a b --c\n", "")


def test_archive_contains_only_python_files_of_the_package(sources: Path) -> None:
    data = build_archive(sources)
    assert data.startswith(f"#!{PYTHON}\n".encode())
    with zipfile.ZipFile(io.BytesIO(data)) as pack:
        assert pack.testzip() is None
        assert pack.namelist() == [
            "__main__.py",
            "pack/__init__.py",
            "pack/inner/__init__.py",
            "pack/inner/more.py",
            "pack/words.py",
        ]
        for entry in pack.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.create_system == 3
            assert entry.external_attr >> 16 == 0o644


def test_same_sources_give_the_same_bytes(sources: Path, tmp_path: Path) -> None:
    first = build_archive(sources)
    for path in sources.rglob("*"):
        os.utime(path, (1, 1))
        if path.is_file():
            path.chmod(0o600)
    assert build_archive(sources) == first
    (sources / "utils/pack/words.py").write_text("WORDS = 'other'\n")
    assert build_archive(sources) != first


# As a task


def run_action(task_args: Mapping[str, object], files: Path) -> dict[str, Any]:
    """Run the action on this machine, as in a play."""
    loader = DataLoader()
    loader.set_basedir(str(files))
    task = Task()
    task.action, task.args = "homelab.nut.zipapp", dict(task_args)
    context = PlayContext()
    connection = connection_loader.get("local", context)
    variables = {"ansible_python_interpreter": sys.executable}
    action = zipapp.ActionModule(
        task=task,
        connection=connection,
        play_context=context,
        loader=loader,
        templar=Templar(loader=loader, variables=variables),
        shared_loader_obj=plugins,
    )
    return action.run(task_vars=variables)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setenv("ANSIBLE_LOCAL_TEMP", str(tmp_path))
    (tmp_path / "files").mkdir()
    (tmp_path / "files/main.py").write_text("print('hello')\n")
    return {"main": "main.py", "dest": str(tmp_path / "program"), "shebang": PYTHON}


def test_tasks_install_and_update_the_program(task: dict[str, object], tmp_path: Path) -> None:
    """In order: install, no change, a changed mode in check mode with a diff, the changed mode, a program with a head."""
    other = {**task, "mode": "0700"}
    steps: list[dict[str, Any]] = [
        {"homelab.nut.zipapp": task, "register": "made", "check_mode": True},
        {"homelab.nut.zipapp": task},
        {"homelab.nut.zipapp": task, "register": "again", "diff": True},
        {"homelab.nut.zipapp": other, "register": "checked", "check_mode": True, "diff": True},
        {"ansible.builtin.stat": {"path": task["dest"]}, "register": "seen"},
        {"homelab.nut.zipapp": other, "register": "other"},
        {"homelab.nut.zipapp": {**task, "head": "head.sh", "dest": str(tmp_path / "headed")}},
        {"ansible.builtin.copy": {"content": "{{ [made, again, checked, other, seen] | to_json }}", "dest": "results"}},
    ]
    (tmp_path / "files/head.sh").write_text(f'#!/bin/sh\necho begun\nexec {sys.executable} -IS "$0"\n')
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": steps}]))
    run_play(tmp_path, "-i", "localhost,", "play.yml")
    made, again, checked, mode, seen = json.loads((tmp_path / "results").read_text())
    assert [result["changed"] for result in (made, again, checked, mode)] == [True, False, True, True]
    assert "diff" not in again or not any(again["diff"])
    assert checked["diff"] == [{"prepared": f"{tmp_path}/program: the program, its owner or its mode changes\n"}]
    assert seen["stat"]["mode"] == "0755"
    program = tmp_path / "program"
    assert stat.S_IMODE(program.stat().st_mode) == 0o700
    assert subprocess.run([program], check=True, capture_output=True, text=True).stdout == "hello\n"
    output = subprocess.run([tmp_path / "headed"], check=True, capture_output=True, text=True).stdout
    assert output == "begun\nhello\n"
    with zipfile.ZipFile(program) as pack:
        assert {"__main__.py", "_nut/__init__.py", "_nut/hotplug/quiet.py", "_nut/hotplug/quiet_note.py"} < set(
            pack.namelist()
        )


@pytest.mark.parametrize("package", ["_none", "../_nut", "_nut/..", "", "os"])
def test_unknown_package_is_refused(task: dict[str, object], tmp_path: Path, package: str) -> None:
    with pytest.raises(AnsibleActionFail, match=re.escape(f"no package {package!r}")):
        run_action({**task, "package": package}, tmp_path)


def test_missing_script_is_an_error(task: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(AnsibleError, match=r"none\.py"):
        run_action({**task, "main": "none.py"}, tmp_path)


def test_unknown_option_is_refused(task: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="nonsense"):
        run_action({**task, "nonsense": 1}, tmp_path)
