# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.upssched."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: upssched
short_description: What upssched needs to hear of a UPS, and what it does then
version_added: 0.2.0
description:
  - Turns AT lines as a playbook has them into the words of C(upssched.conf), and into the flags by which C(upsmon) calls C(upssched).
  - Stops at a line that would never do anything, such as one that names a UPS which this host does not watch.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: systems, notifyflag
options:
  _input:
    description: The AT lines, as in the variable C(nut_server_upssched_rules).
    type: list
    elements: dict
    required: true
  systems:
    description: For the name of each UPS, what its MONITOR line calls it. C(upssched) compares with that, letter by letter.
    type: dict
    required: true
  notifyflag:
    description: The flags that are set anyway, as C(NOTIFYFLAG) in the variable C(nut_server_upsmon_conf).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Let a timer run when the mains fail
  ansible.builtin.debug:
    msg: "{{ lines | homelab.nut.upssched({'ups': 'ups@localhost:3493'}) }}"
  vars:
    lines:
      - {notifytype: ONBATT, ups: ups, command: START-TIMER, name: early, seconds: 300}
"""

RETURN = r"""
_value:
  description: C(at), the words of each line behind AT, and C(notifyflag), for each type of event the word of its NOTIFYFLAG.
  type: dict
  sample:
    at: [[ONBATT, "ups@localhost:3493", START-TIMER, early, 300]]
    notifyflag: {ONBATT: SYSLOG+WALL+EXEC}
"""

# NUT's default flags, and the one by which upsmon runs NOTIFYCMD
FLAGS = ("SYSLOG", "WALL", "EXEC")
TIMED = ("START-TIMER", "START-TIMER-SHARED")
# upssched puts a name behind CMDSCRIPT and has a shell run that: of "early #1" the script saw "early" (2.8.0, 2.8.1)
NAME = re.compile(r"[A-Za-z0-9._-]+")


def _words(line: Mapping[str, Any], systems: Mapping[str, str]) -> list[Any]:
    kind, command = line["notifytype"], line["command"]
    where = f"the AT line {kind} {command} {line['name']}"
    ups = line.get("ups") or "*"
    if ups != "*" and "@" not in ups:
        if ups not in systems:
            raise AnsibleFilterError(
                f"{where}: this host watches no UPS called {ups}. Write one of {', '.join(systems)}, or * for all"
            )
        ups = systems[ups]
    for name in (line["name"], line.get("then") or "-"):
        if not NAME.fullmatch(name):
            raise AnsibleFilterError(
                f"{where}: {name!r} goes through a shell. Write letters, digits, dot, hyphen and underscore"
            )
    words = [kind, ups, command, line["name"]]
    if (command in TIMED) != (line.get("seconds") is not None):
        raise AnsibleFilterError(f"{where}: {command} takes {'' if command in TIMED else 'no '}seconds")
    if command in TIMED:
        words.append(line["seconds"])
    if line.get("then"):
        if not command.startswith("CANCEL-TIMER"):
            raise AnsibleFilterError(f"{where}: only CANCEL-TIMER has a command for a timer that is over already, then")
        words.append(line["then"])
    return words


def upssched(
    at: Sequence[Mapping[str, Any]], systems: Mapping[str, str], notifyflag: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """Make AT lines and the flags that they need. Raises AnsibleFilterError for a line that could do nothing."""
    from ..module_utils._nut.conf.settings import find_wrong_rules

    flags: dict[str, Sequence[str]] = {
        kind: words.split("+") if isinstance(words, str) else words for kind, words in (notifyflag or {}).items()
    }
    for line in at:
        kind = line["notifytype"]
        if "EXEC" not in flags.setdefault(kind, FLAGS):
            raise AnsibleFilterError(
                f"the AT line {kind} {line['command']} {line['name']}: the notifyflag of {kind} is {'+'.join(flags[kind])},"
                " and without EXEC upssched is not called. Add EXEC to it, or leave it out"
            )
    rows = [_words(line, systems) for line in at]
    wrong = find_wrong_rules(rows)
    if wrong:
        raise AnsibleFilterError(f"the {wrong[0]}")
    return {
        "at": rows,
        "notifyflag": {kind: "+".join(words) for kind, words in flags.items()},
    }


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"upssched": upssched}
