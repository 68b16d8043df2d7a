# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `make site` relies on: the site has every page of the documentation, and its check finds dead links."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
INDEX = (CHECKOUT / "tools/site/index.md").read_text()


def list_toctree() -> list[str]:
    body = re.sub(r"^:.*\n", "", INDEX, flags=re.MULTILINE)
    entries = [line for block in re.findall(r"```\{toctree\}\n(.*?)```", body, re.DOTALL) for line in block.split("\n")]
    return [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries if entry]


def test_each_page_is_in_the_navigation_of_the_site() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=CHECKOUT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    left_out = (".github/", "lab/", "molecule/", "tests/", "tools/")
    pages = {name.removesuffix(".md") for name in listed if not name.startswith(left_out)}
    assert set(list_toctree()) == pages - {"README"} | {"collection/index"}


def test_guides_on_ansibles_own_site_are_those_of_docs() -> None:
    guides = (CHECKOUT / "docs/docsite/rst/guides.rst").read_text()
    linked = set(re.findall(r"/blob/main/(\S+?\.md)>", guides))
    assert linked == {str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("docs/*.md")} | {
        "README.md",
        *(str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("roles/*/README.md")),
    }
    sections = yaml.safe_load((CHECKOUT / "docs/docsite/extra-docs.yml").read_text())["sections"]
    assert [name for section in sections for name in section["toctree"]] == ["guides"]


@pytest.mark.parametrize(
    ("link", "dead"),
    [
        ("other.html", False),
        ("other.html#there", False),
        ("#here", False),
        ("folder/third.html", False),
        ("https://example.com/nowhere", False),
        ("nowhere.html", True),
        ("other.html#nowhere", True),
        ("#nowhere", True),
        ("folder/third.html#there", True),
    ],
)
def test_dead_link_of_a_built_site_is_found(tmp_path: Path, link: str, dead: bool) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "index.html").write_text(f'<h1 id="here">x</h1><a href="{link}">x</a>')
    (tmp_path / "other.html").write_text('<h2 id="there">x</h2>')
    (tmp_path / "folder/third.html").write_text('<a href="../index.html#here">x</a>')
    tool = runpy.run_path(str(CHECKOUT / "tools/site/links.py"))
    assert tool["find_dead_links"](tmp_path) == ([f"index.html: {link} leads nowhere"] if dead else [])
