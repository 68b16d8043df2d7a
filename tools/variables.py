# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the table of variables in each role's README from its argument_specs: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[1] / "roles"
PAGES = tuple(sorted(ROLES.glob("*/README.md")))
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


def render_page(page: Path) -> str:
    """Return the text of a README with an up-to-date table."""
    specs = yaml.safe_load((page.parent / "meta" / "argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, option in options.items():
        description = option["description"]
        first = description if isinstance(description, str) else description[0]
        rows.append(f"| `{name}` | {show_default(option)} | {plain_text(first)} |")
    head, marker, _old = page.read_text().partition(BEGIN)
    if not marker:
        raise SystemExit(f"{page} has no line {BEGIN.strip()!r} to put the table under")
    return head + BEGIN + "\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    for readme in PAGES:
        readme.write_text(render_page(readme))
