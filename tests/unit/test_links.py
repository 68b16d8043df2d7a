# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The links of all pages lead somewhere: files and headings of this repository. Nothing is downloaded."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
REPOSITORY = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["repository"]
HERE = re.compile(
    rf"(?:{re.escape(REPOSITORY)}/(?:blob|tree)|https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+)/main/(.*)"
)
PAGES = [
    CHECKOUT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md", "*/docsite/*"], cwd=CHECKOUT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
]
# what Galaxy shows: a relative link leads nowhere there
ON_GALAXY = [CHECKOUT / "README.md", *sorted(CHECKOUT.glob("roles/*/README.md"))]


def read_prose(page: Path) -> str:
    """Return the text of a page without blocks of code."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\n\n)(?: {4}.*\n+)+", "", text)


@cache
def list_anchors(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub and the site give the headings of a page, and those that it sets itself."""
    anchors: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.*)$", read_prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\](?:\([^)]*\)|\[[^]]*\])?", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        number = anchors.get(name, 0)
        anchors[name] = number + 1
        anchors.setdefault(f"{name}-{number}", 0)
    return frozenset(anchors) | frozenset(re.findall(r'(?:id|name)="([^"]+)"', page.read_text(encoding="utf-8")))


def list_targets(page: Path) -> list[str]:
    text = read_prose(page)
    if page.suffix == ".md":
        text = re.sub(r"`[^`\n]*`", "", text)
    inline = re.findall(r"\]\(\s*([^)\s]+)\s*\)", text)
    defined = re.findall(r"^\[[^]]+\]: +(\S+)$", text, re.MULTILINE)
    bare = re.findall(rf"(?<![(\w])(?:{re.escape(REPOSITORY)})/[^\s)>`\"']*", text)
    return list(dict.fromkeys([*inline, *defined, *bare]))


def find_fault(page: Path, target: str) -> str:
    """Return why a link leads nowhere; "" if it leads somewhere, or out of this repository."""
    here = HERE.fullmatch(target)
    if not here and re.match(r"[a-z]+:", target):
        return ""
    name, _hash, anchor = (here[1] if here else target).partition("#")
    path = (CHECKOUT if here else page.parent) / name if name else page
    if not path.resolve().is_relative_to(CHECKOUT.resolve()) or not path.exists():
        return f"there is no {name}"
    if anchor and path.suffix == ".md" and anchor not in list_anchors(path.resolve()):
        return f"{path.name} has no heading {anchor}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert {target: fault for target in list_targets(page) if (fault := find_fault(page, target))} == {}


@pytest.mark.parametrize("page", ON_GALAXY, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_of_a_page_on_galaxy_are_absolute(page: Path) -> None:
    targets = list_targets(page)
    assert targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


@pytest.mark.parametrize("page", ON_GALAXY, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_reference_links_of_a_page_are_defined_and_used(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "x", read_prose(page))
    defined = set(re.findall(r"^\[([^]]+)\]: ", text, re.MULTILINE))
    body = re.sub(r"^\[[^]]+\]: .*$", "", text, flags=re.MULTILINE)
    full = {label for _text, label in re.findall(r"\[([^]]+)\]\[([^]]+)\]", body)}
    short = set(re.findall(r"(?<!\])\[([^]]+)\](?![\[(:])", body))
    assert full | short == defined


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("docs/truenas.md", ""),
        ("docs/truenas.md#pin-the-certificate", ""),
        (f"{REPOSITORY}/blob/main/docs/truenas.md#pin-the-certificate", ""),
        ("https://networkupstools.org/nowhere", ""),
        ("docs/nowhere.md", "there is no docs/nowhere.md"),
        ("docs/truenas.md#nowhere", "truenas.md has no heading nowhere"),
        (f"{REPOSITORY}/blob/main/docs/truenas.md#nowhere", "truenas.md has no heading nowhere"),
        (f"{REPOSITORY}/blob/main/nowhere.md", "there is no nowhere.md"),
        ("../elsewhere.md", "there is no ../elsewhere.md"),
        ("#where-to-read-on", ""),
        ("#nowhere", "README.md has no heading nowhere"),
    ],
)
def test_link_that_leads_nowhere_is_found(target: str, fault: str) -> None:
    assert find_fault(CHECKOUT / "README.md", target) == fault
