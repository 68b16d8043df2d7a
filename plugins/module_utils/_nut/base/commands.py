# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Spells the commands that messages recommend.

Messages name the targets of the Makefile, such as `make ups tags=ups limit=nas`. A collection from Galaxy has no Makefile: there
the same playbook is `ansible-playbook homelab.nut.ups --tags ups --limit nas`. So messages are respelled where they leave the
program, like foreign text is made printable.
"""

from __future__ import annotations

import re

HAS_MAKEFILE = True
try:
    from . import checkout as _checkout  # noqa: F401
except ImportError:
    HAS_MAKEFILE = False

_READ_ONLY = ("doctor", "status")
_TARGETS = ("ups", "pve", "plan", "rotate", "drill-live", "drill", "notify-test", *_READ_ONLY)
_OPTIONS = {
    "tags": "--tags {}",
    "limit": "--limit {}",
    "inventory": "--inventory {}",
    "check": "--check --diff",
    "args": "{}",
}
# quoted, or up to the punctuation at the end of a sentence
_VALUE = r"'[^']*'|[^\s'\"`;()]*[^\s'\"`;(),.:]"
_COMMAND = re.compile(rf"\bmake ({'|'.join(_TARGETS)})\b(?!-)((?: (?:{'|'.join(_OPTIONS)})=(?:{_VALUE}))*)")
_OPTION = re.compile(rf" (\w+)=({_VALUE})")


def spell_commands(text: str, *, has_makefile: bool = HAS_MAKEFILE) -> str:
    """Return a message whose commands can be run as they are written: with make in a checkout, else with ansible-playbook."""
    return text if has_makefile else _COMMAND.sub(_spell_command, text)


def _spell_command(match: re.Match[str]) -> str:
    target, options = match.groups()
    words = [f"ansible-playbook homelab.nut.{target.replace('-', '_')}"]
    # in check mode, so that no missing password is made
    words += ["--check"] if target in _READ_ONLY else []
    for name, value in _OPTION.findall(options):
        words.append(_OPTIONS[name].format(value.strip("'") if name == "args" else value))
    return " ".join(words)
