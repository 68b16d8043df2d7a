# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each module speaks through Module, which makes its texts fit for a terminal."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[4] / "plugins"
DOOR = PLUGINS / "module_utils/_module.py"
MODULES = sorted((PLUGINS / "modules").glob("*.py"))
HELPERS = sorted(path for path in (PLUGINS / "module_utils").rglob("*.py") if path != DOOR)


def passed_by(tree: ast.Module) -> Iterator[str]:
    """Yield what gets round the door: Ansible's own class, its functions for warnings, and print."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ansible.module_utils"):
            names = {alias.name for alias in node.names}
            yield from names & {"AnsibleModule", "basic", "warn", "warnings", "deprecate"}
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ansible"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield "print"
        elif isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr") and ast.unparse(node.value) == "sys":
            yield ast.unparse(node)


@pytest.mark.parametrize("path", [*MODULES, *HELPERS], ids=lambda path: path.stem)
def test_nothing_gets_round_the_door(path: Path) -> None:
    assert list(passed_by(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "from ansible.module_utils.basic import AnsibleModule",
        "from ansible.module_utils import basic",
        "import ansible.module_utils.basic",
        "from ansible.module_utils.common.warnings import warn",
        "print(1)",
        "sys.stderr.write(text)",
    ],
)
def test_output_beside_the_door_is_found(code: str) -> None:
    assert list(passed_by(ast.parse(code)))


def test_each_module_uses_the_door() -> None:
    """But those that are actions only, and have no code."""
    through = {path.stem for path in MODULES if "_module import Module" in path.read_text()}
    assert {path.stem for path in MODULES} - through == {"check_login", "check_values", "zipapp"}
