# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sphinx builds the documentation site from this. tools/site/build calls it, in .cache/site/source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes

SOURCE = Path(__file__).resolve().parent
GALAXY = yaml.safe_load((SOURCE / "galaxy.yml").read_text())
PAGES = f"{GALAXY['repository']}/blob/main/"
FILES = f"{GALAXY['repository'].replace('github.com', 'raw.githubusercontent.com')}/main/"

project = "homelab.nut"
author = "The homelab.nut contributors"
project_copyright = f"2026, {author}"
release = version = GALAXY["version"]
html_title = f"{project} {release}"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sphinx = False
html_copy_source = False
html_use_index = False
html_theme_options = {"source_repository": GALAXY["repository"], "source_branch": "main", "source_directory": ""}
extensions = ["myst_parser", "sphinx_antsibull_ext"]
# style.css has the colors, because readers of furo can switch between light and dark
antsibull_ext_color_scheme = "none"
myst_enable_extensions = ["smartquotes"]
myst_heading_anchors = 4
smartquotes_action = "q"
pygments_style = "ansible"
pygments_dark_style = "github-dark"
highlight_language = "text"

# pages of Ansible's that the generated pages refer to, by their labels
ANSIBLE = "https://docs.ansible.com/projects/ansible/latest/"
ANSIBLE_PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def localize_links(text: str, page: str) -> str:
    """Return the text of a page whose links lead to other pages of the site, if it has them, or to the repository."""
    folder = (SOURCE / page).parent

    def localize(match: re.Match[str]) -> str:
        start, target, end = match.groups()
        name, mark, anchor = target.removeprefix(PAGES).removeprefix(FILES).partition("#")
        path = (SOURCE / name if target.startswith((PAGES, FILES)) else folder / name).resolve()
        if not path.is_relative_to(SOURCE) or not name:
            return match[0]
        inside = path.relative_to(SOURCE).as_posix()
        if inside == "README.md":
            inside, path = "index.md", SOURCE / "index.md"
        return f"{start}{'/' if path.is_file() else PAGES}{inside}{mark}{anchor}{end}"

    inline = rf"(\]\()((?:{re.escape(PAGES)}|{re.escape(FILES)}|(?![a-z]+:|#))[^)\s]+)(\))"
    defined = rf"(^\[[^]]+\]: )({re.escape(PAGES)}\S+)()$"
    return re.sub(defined, localize, re.sub(inline, localize, text), flags=re.MULTILINE)


def link_variables(text: str, role: str) -> str:
    """Return the README of a role, with a link from each variable in its tables to the full description."""
    page = f"../../collection/{role}_role.html"
    return re.sub(
        rf"^\| `({role}_\w+)` \|",
        rf'| <a href="{page}#parameter-main--\1"><code>\1</code></a> |',
        text,
        flags=re.MULTILINE,
    )


def adapt_generated_page(text: str) -> str:
    """Return a page of antsibull-docs's without a table of contents, which furo has beside each page, and with links to the guides."""
    text = re.sub(r"^\.\. contents::.*\n(?: +:.*\n)*", "", text, flags=re.MULTILINE)
    text = text.replace(f"<{PAGES}README.md>", f"<{PAGES}index.md>")
    return re.sub(rf"`([^`<]+) <{re.escape(PAGES)}(\S+)\.md>`__", r":doc:`\1 </\2>`", text)


def read_page(_app: Any, name: str, content: list[str]) -> None:
    """Adapt a page before Sphinx reads it."""
    path = Path(f"{name}.md")
    if not (SOURCE / path).exists():
        content[0] = adapt_generated_page(content[0])
        return
    content[0] = localize_links(content[0], str(path))
    if path.parts[0] == "roles":
        content[0] = link_variables(content[0], path.parts[1])


def find_page_of_ansible(label: str) -> str:
    """Return the address of the page of Ansible's with a label; "" if it is none of Ansible's."""
    plugin = re.fullmatch(r"ansible_collections\.ansible\.builtin\.(\w+)", label)
    page = f"collections/ansible/builtin/{plugin[1]}.html" if plugin else ANSIBLE_PAGES.get(label, "")
    return ANSIBLE + page if page else ""


def resolve_reference(_app: Any, _environment: Any, node: Any, content: Any) -> Any:
    """Return a link to a page of Ansible's, for a label that no page of the site has; None leaves it to Sphinx."""
    address = find_page_of_ansible(node.get("reftarget", ""))
    return nodes.reference("", "", content, internal=False, refuri=address) if address else None


def setup(app: Any) -> None:
    """Register what adapts the pages."""
    app.connect("source-read", read_page)
    app.connect("missing-reference", resolve_reference)
