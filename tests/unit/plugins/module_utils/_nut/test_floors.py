# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library is built in floors: a package imports only from itself and from packages on floors below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[5] / "plugins/module_utils/_nut"
FLOORS = {
    "base": 1,
    "conf": 2,
    "kinds": 2,
    "events": 2,
    "net": 3,
    "usb": 3,
    "proxmox": 3,
    "inventory": 3,
    "plan": 4,
    "shutdown": 4,
    "deploy": 4,
    "hotplug": 5,
    "rehearsal": 5,
    "doctor": 5,
    "notify": 5,
    "container": 6,
    "programs": 7,
}
FILES = sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")


def package_of(path: Path) -> str:
    return path.relative_to(LIBRARY).with_suffix("").parts[0]


def imported_packages(text: str, depth: int) -> Iterator[str]:
    """Yield the packages of the library that a file DEPTH folders below it imports from, wherever in the file it does."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or node.level != depth + 1:
            continue
        yield from [node.module.split(".")[0]] if node.module else [name.name for name in node.names]


def wrong_imports(package: str, text: str, depth: int) -> list[str]:
    return [name for name in imported_packages(text, depth) if FLOORS[name] >= FLOORS[package]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_file_imports_only_from_the_floors_below_it(path: Path) -> None:
    depth = len(path.relative_to(LIBRARY).parts) - 1
    assert wrong_imports(package_of(path), path.read_text(encoding="utf-8"), depth) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_file_imports_nothing_of_ansible(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
        assert not [name for name in names if name.split(".")[0] in ("ansible", "ansible_collections")]


@pytest.mark.parametrize(
    ("package", "line", "wrong"),
    [
        ("net", "from ..deploy import kits", ["deploy"]),
        ("net", "from ..usb.names import known", ["usb"]),
        ("conf", "from .. import inventory", ["inventory"]),
        ("conf", "def look():\n    from ..net import client", ["net"]),
        ("net", "from ..base import text\nfrom . import client\nfrom ..conf.grammar import scan", []),
    ],
)
def test_an_import_of_the_same_floor_or_a_higher_one_is_found(package: str, line: str, wrong: list[str]) -> None:
    assert wrong_imports(package, line, 1) == wrong


def test_no_init_imports_anything() -> None:
    """Ansible ships to a host only what a module imports; a package that re-exports would ship its whole floor."""
    for path in LIBRARY.rglob("__init__.py"):
        assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.Import, ast.ImportFrom))], (
            path
        )


def test_every_package_has_its_floor() -> None:
    assert {package_of(path) for path in FILES} == set(FLOORS)
