# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write docs/directives.md from the tables of the library: `make docs`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "directives.md"
MANUAL = "https://networkupstools.org/docs/man"
sys.path.insert(0, str(CHECKOUT / ".collections"))

from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import settings
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import (
    AT_COMMANDS,
    DEVICE,
    DIRECTIVES,
    FORMS,
    NEWEST,
    NOTIFY_TYPES,
    SHARED,
    TRUTHS,
    VALUES,
    Directive,
    Release,
)

# the oldest release of the distributions that the collection supports
OLDEST: Release = (2, 8, 0)

INTRODUCTION = f"""\
# NUT's directives

<!-- Written by `make docs` from plugins/module_utils/_nut/conf/directives.py. -->

All directives that you can set, by NUT's own names. [settings.md](settings.md) shows how to set them; NUT's
manual explains them. "Since" is the first release of NUT that has the directive; if empty, all releases from
{".".join(map(str, OLDEST))} on have it. If the host's NUT is older, the directive is left out with a warning. A "!" means that it is
refused instead, because leaving it out would be unsafe. The tables were compared with NUT up to {".".join(map(str, NEWEST))}.
"""

# kind -> how a user writes it, where that differs from NUT's file
IN_YAML: Mapping[str, str] = {
    **dict.fromkeys((*TRUTHS, "present"), "true or false"),
    "flag": "true, or false to leave it out",
    "number?": "true, or a whole number",
    "exit": "true, false, or a whole number of seconds",
    "text": "text",
    "path": "a path that begins with /",
    "delay": "a time such as 30s or 15m",
    "identity": "[nickname, password], or a dict of these",
    "certhost": "a list of dicts: host, certname, certverify, forcessl",
    "notifymsg": "a dict: type of event -> text, with %s for the UPS",
    "notifyflag": "a dict: type of event -> list of SYSLOG, WALL, EXEC, or IGNORE",
}


def spell_release(release: Release) -> str:
    """Return a release as text, or "" if every supported NUT has it."""
    return ".".join(map(str, release)) if release > OLDEST else ""


def spell_kind(name: str, directive: Directive) -> str:
    """Return the description of a directive's value."""
    if name in settings.LISTS:
        return f"made of `nut_server_{settings.LISTS[name]}`"
    kind = directive.kind
    words = VALUES[kind][1] if kind in VALUES else FORMS.get(kind, ", ".join(kind.split("|")))
    return IN_YAML.get(kind, words) + (" (primary only)" if name in settings.PRIMARY_ONLY else "")


def list_rows(table: Mapping[str, Directive], title: str = "directive") -> Iterator[str]:
    """Yield the lines of a table of directives, without those that every NUT refuses."""
    yield f"| {title} | since | value |"
    yield "|---|---|---|"
    for name, directive in table.items():
        if not directive.never:
            since = spell_release(directive.since) + ("!" if directive.needed and directive.since > OLDEST else "")
            yield f"| `{name}` | {since} | {spell_kind(name, directive)} |"


def list_refused(table: Mapping[str, Directive]) -> Iterator[str]:
    """Yield the lines of the list of directives that are always refused, with the reasons."""
    refused = {name: directive.never for name, directive in table.items() if directive.never}
    if refused:
        yield ""
        yield "Refused with every NUT:"
        yield ""
        for name, reason in refused.items():
            yield from textwrap.wrap(f"- `{name}`: {reason}.", 110, subsequent_indent="  ")


def render_page() -> str:
    """Return the whole page."""
    lines = [INTRODUCTION]
    for file in settings.FILES["nut_server"]:
        roles = [role for role in settings.FILES if file in settings.FILES[role]]
        variables = " and ".join(f"`{settings.variable_of(role, file)}`" for role in roles)
        lines += [
            f"## {file}",
            "",
            f"Set by {variables}. Meaning:",
            f"[{file} in NUT's manual]({MANUAL}/{file}.html).",
            "",
        ]
        lines += [*list_rows(DIRECTIVES[file]), *list_refused(DIRECTIVES[file]), ""]
    own = {name: directive for name, directive in DEVICE.items() if name not in SHARED}
    lines += [
        "## Keys of a UPS",
        "",
        "Set for a UPS in `nut_server_devices`. Meaning:",
        f"[ups.conf in NUT's manual]({MANUAL}/ups.conf.html).",
        "",
    ]
    shared = {name: directive for name, directive in SHARED.items() if not name.endswith(".*")}
    lines += [*list_rows(shared, "key"), ""]
    lines += ["`default` and `override` are dicts that map NUT's variables to values.", ""]
    lines += [f"Options of the driver [usbhid-ups]({MANUAL}/usbhid-ups.html). Other drivers share some:", ""]
    lines += [*list_rows(own, "key"), "", "Keys of other drivers go under `options`.", ""]
    lines += ["## Types of event", "", "For NOTIFYMSG, NOTIFYFLAG and `nut_server_upssched_rules`.", ""]
    lines += ["| type | since |", "|---|---|"]
    lines += [f"| `{name}` | {spell_release(since)} |" for name, since in NOTIFY_TYPES.items()]
    lines += ["", "## Commands of upssched", "", *list_rows(AT_COMMANDS, "command"), *list_refused(AT_COMMANDS)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
