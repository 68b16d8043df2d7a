# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real plays on this machine: a role with its own variables and templates, and with tasks that only show what becomes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
COMMAND = (
    *(str(Path(sys.executable).with_name("ansible-playbook")), "--connection", "local"),
    *("--extra-vars", f"ansible_python_interpreter={sys.executable}"),
)


def make_role(root: Path, name: str, tasks: str) -> Path:
    """Make a role under ROOT that has everything of the collection's but its tasks. Returns the folder of the tasks."""
    folder = root / "roles" / name / "tasks"
    folder.mkdir(parents=True)
    (folder / "main.yml").write_text(tasks)
    for part in ("defaults", "vars", "templates", "meta"):
        (folder.parent / part).symlink_to(CHECKOUT / "roles" / name / part)
    return folder


def run_play(root: Path, *arguments: str, umask: int = -1) -> None:
    """Run ansible-playbook in ROOT, with nothing of this machine's configuration. Fails with what it said if it fails.

    arguments: the playbook, and the inventory: `-i hosts.yml`.
    """
    (root / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {CHECKOUT / '.collections'}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(ANSIBLE_CONFIG=str(root / "ansible.cfg"), ANSIBLE_HOME=str(root / "home"))
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        umask=umask,
    )
    assert done.returncode == 0, done.stdout + done.stderr
