# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the tables of variables in each role's README from its argument_specs: `make docs`.

A comment above a variable in argument_specs.yml is the subject of that variable and the next ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[1] / "roles"
PAGES = tuple(sorted(ROLES.glob("*/README.md")))
FIRST_SUBJECT = "In general"
BEGIN = "<!-- Written by `make docs` from meta/argument_specs.yml. -->\n"


def plain_text(markup: str) -> str:
    """Return the first sentence of a description, with Ansible's markup turned into Markdown."""
    text = re.sub(r"[ACEIVO]\(([^()]*)\)", r"`\1`", " ".join(markup.split()))
    text = re.sub(r"[MP]\(([^()#]*)(#\w+)?\)", r"`\1`", text)
    text = re.sub(r"L\(([^(),]*), ?([^()]*)\)", r"[\1](\2)", text)
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", text)[0].replace("|", "\\|")


def show_default(option: dict[str, Any]) -> str:
    """Return the text of the column `default`."""
    if option.get("required"):
        return "(required)"
    default = option.get("default")
    if default in (None, ""):
        return ""
    return f"`{yaml.safe_dump(default, default_flow_style=True, width=1000).split(chr(10))[0]}`"


def group_by_subject(text: str) -> dict[str, list[str]]:
    """Return the names of the variables in the text of an argument_specs.yml by their subjects, in order."""
    subjects: dict[str, list[str]] = {}
    subject = FIRST_SUBJECT
    for comment, name in re.findall(r"^ {6}(?:# (.+)|(\w+):)$", text, re.MULTILINE):
        if comment:
            subject = comment[0].upper() + comment[1:]
        else:
            subjects.setdefault(subject, []).append(name)
    return subjects


def render_row(name: str, option: dict[str, Any]) -> str:
    """Return the row of a variable."""
    description = option["description"]
    first = description if isinstance(description, str) else description[0]
    return f"| `{name}` | {show_default(option)} | {plain_text(first)} |"


def render_page(page: Path) -> str:
    """Return the text of a README with up-to-date tables."""
    text = (page.parent / "meta" / "argument_specs.yml").read_text()
    options = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    rows = []
    for subject, names in group_by_subject(text).items():
        rows += ["", f"### {subject}", "", "| variable | default | meaning |", "|---|---|---|"]
        rows += [render_row(name, options[name]) for name in names]
    head, marker, _old = page.read_text().partition(BEGIN)
    if not marker:
        raise SystemExit(f"{page} has no line {BEGIN.strip()!r} to put the table under")
    return head + BEGIN + "\n".join(rows) + "\n"


if __name__ == "__main__":
    for readme in PAGES:
        readme.write_text(render_page(readme))
