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
    """A script, and a package beside others."""
    package = tmp_path / "utils/pack"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text("WORDS = 'hello'\n")
    (package / "inner/__init__.py").write_text("")
    (package / "inner/more.py").write_text("MORE = 'world'\n")
    (package / "notes.txt").write_text("none of Python's")
    (package / "__pycache__").mkdir()
    (package / "__pycache__/words.pyc").write_text("")
    (tmp_path / "utils/other.py").write_text("")
    (tmp_path / "main.py").write_text(
        "import sys\nfrom pack.words import WORDS\nfrom pack.inner.more import MORE\nprint(WORDS, MORE, *sys.argv[1:])\nsys.exit(7)\n"
    )
    return tmp_path


def built(sources: Path) -> bytes:
    return zipapp.build(sources / "main.py", "pack", f"#!{PYTHON}\n".encode(), folder=sources / "utils")


def test_it_runs(sources: Path) -> None:
    program = sources / "program"
    program.write_bytes(built(sources))
    program.chmod(0o755)
    done = subprocess.run([program, "a b", "--c"], check=False, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello world a b --c\n", "")


def test_what_is_in_it(sources: Path) -> None:
    data = built(sources)
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


def test_the_same_sources_give_the_same_bytes(sources: Path, tmp_path: Path) -> None:
    first = built(sources)
    for path in sources.rglob("*"):
        os.utime(path, (1, 1))
        if path.is_file():
            path.chmod(0o600)
    assert built(sources) == first
    (sources / "utils/pack/words.py").write_text("WORDS = 'other'\n")
    assert built(sources) != first


# As a task


def run(task_args: Mapping[str, object], files: Path) -> dict[str, Any]:
    """Run the action on this machine, as a play would."""
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


def test_tasks_of_a_play(task: dict[str, object], tmp_path: Path) -> None:
    """Made; nothing to do; another mode in check mode, as a diff; that mode."""
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
    assert [one["changed"] for one in (made, again, checked, mode)] == [True, False, True, True]
    assert "diff" not in again or not any(again["diff"])
    assert checked["diff"] == [{"prepared": f"{tmp_path}/program: the program, its owner or its mode changes\n"}]
    assert seen["stat"]["mode"] == "0755"
    program = tmp_path / "program"
    assert stat.S_IMODE(program.stat().st_mode) == 0o700
    assert subprocess.run([program], check=True, capture_output=True, text=True).stdout == "hello\n"
    said = subprocess.run([tmp_path / "headed"], check=True, capture_output=True, text=True).stdout
    assert said == "begun\nhello\n"
    with zipfile.ZipFile(program) as pack:
        assert {"__main__.py", "_nut/__init__.py", "_nut/hotplug/quiet.py", "_nut/hotplug/quiet_note.py"} < set(
            pack.namelist()
        )


@pytest.mark.parametrize("package", ["_none", "../_nut", "_nut/..", "", "os"])
def test_no_such_package(task: dict[str, object], tmp_path: Path, package: str) -> None:
    with pytest.raises(AnsibleActionFail, match=re.escape(f"no package {package!r}")):
        run({**task, "package": package}, tmp_path)


def test_no_such_script(task: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(AnsibleError, match=r"none\.py"):
        run({**task, "main": "none.py"}, tmp_path)


def test_an_option_that_it_does_not_know(task: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="nonsense"):
        run({**task, "nonsense": 1}, tmp_path)
