# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The generated pages in docs/ and roles/ are up to date, and docs/architecture.md names what exists."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]


def test_directives_page_matches_the_tables() -> None:
    tool = runpy.run_path(str(CHECKOUT / "tools" / "directives.py"))
    assert tool["PAGE"].read_text() == tool["render_page"](), "docs/directives.md is stale: run `make docs`"


def test_timeline_picture_matches_the_plan_of_the_example() -> None:
    tool = runpy.run_path(str(CHECKOUT / "tools" / "timeline.py"))
    assert tool["PAGE"].read_text() == tool["render_page"](), "docs/timeline.svg is stale: run `make docs`"


def test_role_readmes_list_the_variables_of_argument_specs() -> None:
    tool = runpy.run_path(str(CHECKOUT / "tools" / "variables.py"))
    assert [page.parent.name for page in tool["PAGES"]] == ["nut_client", "nut_hotplug", "nut_server"]
    for page in tool["PAGES"]:
        assert page.read_text() == tool["render_page"](page), f"{page} is stale: run `make docs`"


def test_each_variable_of_a_role_has_one_subject() -> None:
    tool = runpy.run_path(str(CHECKOUT / "tools" / "variables.py"))
    for path in sorted((CHECKOUT / "roles").glob("*/meta/argument_specs.yml")):
        subjects = tool["group_by_subject"](path.read_text())
        listed = [name for names in subjects.values() for name in names]
        assert listed == list(yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"])
        assert len(subjects) > 3
        assert max(map(len, subjects.values())) <= 15


ARCHITECTURE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
QUOTED = sorted(set(re.findall(r"`([^`\n]+)`", ARCHITECTURE)))
SOURCES = [
    path
    for folder in ("plugins", "roles", "playbooks", "lab", "tests", "molecule", "benchmarks")
    for path in (CHECKOUT / folder).rglob("*.*")
]


@pytest.mark.parametrize("name", [name for name in QUOTED if re.fullmatch(r"[a-z_*/.-]+\.(py|j2)", name)])
def test_file_named_in_architecture_exists(name: str) -> None:
    assert any(path.match(name) for path in SOURCES)


@pytest.mark.parametrize("name", [name for name in QUOTED if re.fullmatch(r"[a-z_]+\.(?!conf$)[A-Za-z_]{4,}", name)])
def test_function_named_in_architecture_exists(name: str) -> None:
    module, _dot, member = name.partition(".")
    texts = [path.read_text(encoding="utf-8") for path in SOURCES if path.name == f"{module}.py"]
    assert not texts or any(re.search(rf"^((def|class) )?{member}\b", text, re.MULTILINE) for text in texts)
