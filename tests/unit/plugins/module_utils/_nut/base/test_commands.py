# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages recommend commands that exist where they are shown: make in a checkout, ansible-playbook elsewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import commands

CHECKOUT = Path(__file__).resolve().parents[6]
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)) | {
    path.stem.replace("_", "-") for path in CHECKOUT.glob("playbooks/*.yml")
}
COMMAND = re.compile(rf"\bmake (?:{'|'.join(sorted(MAKE_TARGETS, key=len, reverse=True))})\b(?![-\w])(?! of )")
# text that a template or an f-string puts in
PLACEHOLDER = "media,nas.example"


def spell_installed(text: str) -> str:
    return commands.spell_commands(text, has_makefile=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("make pve", "ansible-playbook homelab.nut.pve"),
        ("make ups tags=ups", "ansible-playbook homelab.nut.ups --tags ups"),
        ("make drill-live", "ansible-playbook homelab.nut.drill_live"),
        ("make drill.", "ansible-playbook homelab.nut.drill."),
        ("make status", "ansible-playbook homelab.nut.status --check"),
        (
            "make pve tags=ups limit=pve,nas.example, then look",
            "ansible-playbook homelab.nut.pve --tags ups --limit pve,nas.example, then look",
        ),
        (
            "make doctor limit='a b' args=-vvv; then",
            "ansible-playbook homelab.nut.doctor --check --limit 'a b' -vvv; then",
        ),
        ("make pve args='-e x=1 -K'", "ansible-playbook homelab.nut.pve -e x=1 -K"),
        ("`make pve check=1`", "`ansible-playbook homelab.nut.pve --check --diff`"),
        ("(make plan inventory=hosts.yml)", "(ansible-playbook homelab.nut.plan --inventory hosts.yml)"),
        ("make plan; make doctor", "ansible-playbook homelab.nut.plan; ansible-playbook homelab.nut.doctor --check"),
        ("make planning harder", "make planning harder"),
        ("to make it", "to make it"),
    ],
)
def test_command_is_spelled_for_a_collection_without_makefile(text: str, expected: str) -> None:
    assert spell_installed(text) == expected
    assert spell_installed(expected) == expected


def test_command_stays_as_it_is_in_a_checkout() -> None:
    assert commands.HAS_MAKEFILE
    assert commands.spell_commands("make pve tags=ups") == "make pve tags=ups"


def list_python_texts(path: Path) -> Iterator[str]:
    """Yield the literals of a file but its docstrings and documentation, with PLACEHOLDER for what is put into them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    skipped |= {
        id(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", "") in ("DOCUMENTATION", "EXAMPLES", "RETURN")
    }
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else PLACEHOLDER for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (skipped | parts):
            yield re.sub(r"\{\w*\}", PLACEHOLDER, node.value)


def list_yaml_texts(data: object) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    for part in data.items() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from list_yaml_texts(list(part) if isinstance(part, tuple) else part)


PLUGINS = CHECKOUT / "plugins"
MESSAGES = [
    (path.relative_to(CHECKOUT).as_posix(), text)
    for path in sorted(PLUGINS.rglob("*.py"))
    for text in list_python_texts(path)
    if COMMAND.search(text)
]
TASKS = [
    (path.relative_to(CHECKOUT).as_posix(), text)
    for folder in ("playbooks", "roles")
    for path in sorted((CHECKOUT / folder).rglob("*.yml"))
    for text in list_yaml_texts(yaml.safe_load(path.read_text(encoding="utf-8")))
    if COMMAND.search(text)
]


@pytest.mark.parametrize(("path", "text"), [*MESSAGES, *TASKS])
def test_command_in_a_message_is_one_that_an_installed_collection_has(path: str, text: str) -> None:
    assert not COMMAND.search(spell_installed(text)), f"{path}: base/commands.py does not know this command"
    for playbook in re.findall(r"ansible-playbook homelab\.nut\.(\w+)", spell_installed(text)):
        assert (CHECKOUT / "playbooks" / f"{playbook}.yml").exists()


def test_messages_with_commands_are_found() -> None:
    assert len(MESSAGES) > 15
    assert {path for path, _text in MESSAGES} >= {"plugins/module_utils/_nut/doctor/exam.py"}


# documentation names both commands
@pytest.mark.parametrize(("path", "text"), [row for row in TASKS if not row[0].endswith("argument_specs.yml")])
def test_task_shows_commands_through_the_filter_printable(path: str, text: str) -> None:
    assert re.search(r"\{\{[^}]*\bmake [^}]*\| homelab\.nut\.printable", text), path


def test_plugins_of_the_controller_name_no_commands() -> None:
    """Their errors reach the terminal as they are, unless the library raised them (plugin_utils/errors.py)."""
    assert [row for row in MESSAGES if not row[0].startswith("plugins/module_utils/")] == []
