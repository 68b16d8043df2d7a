# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real plays on this machine: a role with its own variables and templates, and with tasks that only show what becomes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
COLLECTIONS = CHECKOUT / ".collections"
COMMAND = (
    *(str(Path(sys.executable).with_name("ansible-playbook")), "--connection", "local"),
    *("--extra-vars", f"ansible_python_interpreter={sys.executable}"),
)

# what each host has in the fact `seen`, as one file
COLLECT = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        content: "{{ dict(groups.all | zip(groups.all | map('extract', hostvars, 'seen'))) | to_json }}"
        dest: "{{ playbook_dir }}/seen.json"
        mode: "0600"
      run_once: true
      delegate_to: localhost
"""


class _Unsafe(str):
    """Text that Ansible takes as it is."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes _Unsafe with the tag that Ansible knows."""


_Dumper.add_representer(_Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return _Unsafe(value) if isinstance(value, str) and "{{" in value else value


def list_tasks(nodes: Any) -> Iterator[dict[str, Any]]:
    """Yield the plays, blocks and tasks of a file that was read, with all that they contain."""
    for node in nodes if isinstance(nodes, list) else ():
        yield node
        for part in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from list_tasks(node.get(part))


def make_role(root: Path, name: str, tasks: str) -> Path:
    """Make a role under ROOT that has everything of the collection's but its tasks. Returns the folder of the tasks."""
    folder = root / "roles" / name / "tasks"
    folder.mkdir(parents=True)
    (folder / "main.yml").write_text(tasks)
    for part in ("defaults", "vars", "templates", "meta"):
        (folder.parent / part).symlink_to(CHECKOUT / "roles" / name / part)
    return folder


def try_play(
    root: Path, *arguments: str, umask: int = -1, collections: Path = COLLECTIONS
) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook in ROOT, with nothing of this machine's configuration. Return how it ended.

    arguments: the playbook, and the inventory: `-i hosts.yml`.
    """
    (root / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {collections}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(ANSIBLE_CONFIG=str(root / "ansible.cfg"), ANSIBLE_HOME=str(root / "home"))
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        umask=umask,
    )


def run_play(root: Path, *arguments: str, umask: int = -1, collections: Path = COLLECTIONS) -> None:
    """Run ansible-playbook as try_play() does. Fails with what it said if it fails."""
    done = try_play(root, *arguments, umask=umask, collections=collections)
    assert done.returncode == 0, done.stdout + done.stderr


def run_roles(
    root: Path,
    roles: Mapping[str, str],
    groups: Mapping[str, Any],
    *arguments: str,
    collections: Path = COLLECTIONS,
) -> dict[str, Any]:
    """Run roles of make_role(), and return what each host then has in its fact `seen`.

    roles: hosts, as a play names them -> the role. groups: of the inventory; braces in a text are meant as such.
    """
    plays = [f"- hosts: {hosts}\n  gather_facts: false\n  roles: [{role}]\n" for hosts, role in roles.items()]
    (root / "hosts.yml").write_text(yaml.dump(_plain(dict(groups)), Dumper=_Dumper, sort_keys=False))
    (root / "site.yml").write_text("".join([*plays, COLLECT]))
    run_play(root, "-i", "hosts.yml", *arguments, "site.yml", collections=collections)
    seen: dict[str, Any] = json.loads((root / "seen.json").read_text())
    return seen
