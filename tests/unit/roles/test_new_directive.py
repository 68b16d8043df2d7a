# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A new directive of NUT takes one line in directives.py: a copy of the collection with such lines can set, write and show it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import settings
from ansible_collections.homelab.nut.tests.unit.support.plays import make_role, run_roles

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[3]
TABLES = "plugins/module_utils/_nut/conf/directives.py"
# the table of a file, or of the keys of usbhid-ups -> the new line in it
NEW_LINES = {
    "_nut_conf": '"NEW_SWITCH": Directive(_5, "boolean"),',
    "_ups_conf": '"newdelay": Directive(_5, "seconds"),',
    "_upsd_conf": '"NEWLIMIT": Directive(_5, "positive"),',
    "_upsmon_conf": '"NEWDURATION": Directive(_5, "integer"),',
    "_upssched_conf": '"NEWSCRIPT": Directive(_5, "path"),',
    "_USBHID": '"newflag": Directive(_5, "flag"),',
}
SETTINGS: dict[str, dict[str, Any]] = {
    "nut.conf": {"NEW_SWITCH": True},
    "ups.conf": {"newdelay": 11},
    "upsd.conf": {"NEWLIMIT": 12},
    "upsmon.conf": {"NEWDURATION": -1},
    "upssched.conf": {"NEWSCRIPT": "/run/a b"},
}
WRITTEN = {
    "nut.conf": "NEW_SWITCH=true",
    "ups.conf": "newdelay = 11",
    "upsd.conf": "NEWLIMIT 12",
    "upsmon.conf": "NEWDURATION -1",
    "upssched.conf": 'NEWSCRIPT "/run/a b"',
}
TASKS = """\
- block:
    - ansible.builtin.set_fact:
        seen: "{{ FILES }}"
  rescue:
    - ansible.builtin.set_fact:
        seen: {refused: "{{ ansible_failed_result.msg }}"}
"""
REDACT = """\
import sys
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.redact import redact_text
print(redact_text(sys.argv[1], sys.stdin.read()), end="")
"""


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the collection that knows the new directives."""
    root = tmp_path_factory.mktemp("collections")
    copy = root / "ansible_collections" / "homelab" / "nut"
    copy.mkdir(parents=True)
    shutil.copytree(CHECKOUT / "plugins", copy / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("galaxy.yml", "meta", "roles"):
        (copy / name).symlink_to(CHECKOUT / name)
    text = (copy / TABLES).read_text()
    for table, line in NEW_LINES.items():
        text, made = re.subn(rf"(?m)^((?:def )?{table}\b.*\n(?:    return \{{\n)?)", rf"\g<1>        {line}\n", text)
        assert made == 1
    (copy / TABLES).write_text(text)
    return root


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, collections: Path) -> dict[str, Any]:
    """Return the files of a primary and a secondary, and the error for a primary with a misspelled directive."""
    root = tmp_path_factory.mktemp("site")
    for role in settings.FILES:
        make_role(root, role, TASKS.replace("FILES", f"__{role}_files"))
    variables = {
        role: {settings.variable_of(role, file): SETTINGS[file] for file in files}
        for role, files in settings.FILES.items()
    }
    device = {"name": "ups", "newflag": True}
    hosts = {
        "primary": {**variables["nut_server"], "nut_server_devices": [device]},
        "misspelled": {"nut_server_upsmon_conf": {"NEWDURATIN": 1}},
    }
    secondary = {**variables["nut_client"], "nut_client_primary": "primary"}
    groups = {"pve": {"hosts": hosts}, "ups_clients": {"hosts": {"secondary": secondary}}, "truenas": {"hosts": {}}}
    roles = {"pve": "nut_server", "ups_clients": "nut_client"}
    return run_roles(root, roles, groups, collections=collections)


@pytest.mark.parametrize("file", settings.FILES["nut_server"])
def test_new_directive_is_written(rendered: dict[str, Any], file: str) -> None:
    assert WRITTEN[file] in rendered["primary"][file].splitlines()
    if file in ("upsmon.conf", "upssched.conf"):
        assert WRITTEN[file] in rendered["secondary"][file].splitlines()


def test_new_key_of_a_device_is_written(rendered: dict[str, Any]) -> None:
    assert "    newflag" in rendered["primary"]["ups.conf"].splitlines()


def test_new_directive_is_suggested(rendered: dict[str, Any]) -> None:
    assert "Did you mean NEWDURATION?" in rendered["misspelled"]["refused"]


@pytest.mark.parametrize("file", settings.FILES["nut_server"])
def test_diff_shows_new_directive(collections: Path, file: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REDACT, file],
        input=f"{WRITTEN[file]}\nOTHER x\n",
        env={"PYTHONPATH": str(collections)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == WRITTEN[file]
