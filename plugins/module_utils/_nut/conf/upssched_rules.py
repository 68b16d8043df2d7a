# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules for upssched, as a playbook has them: turned into AT lines, and into the flags that upsmon needs for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .directives import NEWEST, NOTIFY_TYPES
from .settings import SettingsError, write_settings
from .values import find_wrong_lines

# NUT's default flags, and the one that makes upsmon run NOTIFYCMD
FLAGS = ("SYSLOG", "WALL", "EXEC")
TIMED = ("START-TIMER", "START-TIMER-SHARED")
# upssched appends the name to CMDSCRIPT and has a shell run that: of "early #1", the script saw "early" (2.8.0, 2.8.1)
NAME = re.compile(r"[A-Za-z0-9._-]+")
# upssched accepts AT only after these
_BEFORE = "CMDSCRIPT /x\nPIPEFN /x\nLOCKFN /x\n"


def write_rules(rules: Sequence[Mapping[str, Any]], systems: Mapping[str, str]) -> list[list[Any]]:
    """Return the words of an AT line for each rule.

    systems: UPS -> its system in the MONITOR line, which upssched compares letter by letter. Raises SettingsError for a rule
    that could never do anything.
    """
    rows = [_write_rule(rule, systems) for rule in rules]
    text = _BEFORE + write_settings({"AT": rows}, "upssched.conf") + "\n"
    wrong = find_wrong_lines({"upssched.conf": text}, NEWEST)
    if wrong:
        raise SettingsError(wrong[0].partition("AT ")[2])
    return rows


def join_flags(
    rules: Sequence[Mapping[str, Any]], notifyflag: Mapping[str, Any] | None, *, all_events: bool = False
) -> dict[str, str]:
    """Return NOTIFYFLAG with what the rules need. notifyflag: type of event -> flags that are given. Raises SettingsError.

    all_events: whether NOTIFYCMD is run for each type that every supported release knows, unless flags are given for it.
    """
    flags: dict[str, Sequence[str]] = {
        kind: words.split("+") if isinstance(words, str) else words for kind, words in (notifyflag or {}).items()
    }
    for rule in rules:
        kind = rule["notifytype"]
        if "EXEC" not in flags.setdefault(kind, FLAGS):
            raise SettingsError(
                f"{_name_rule(rule)}: NOTIFYFLAG of {kind} is {'+'.join(flags[kind])}, and without EXEC upsmon does not call upssched."
                " Add EXEC, or remove the NOTIFYFLAG"
            )
    if all_events:
        first = min(NOTIFY_TYPES.values())
        flags = {**{kind: FLAGS for kind, since in NOTIFY_TYPES.items() if since == first}, **flags}
    return {kind: "+".join(words) for kind, words in flags.items()}


def _name_rule(rule: Mapping[str, Any]) -> str:
    return f"{rule['notifytype']} {rule['command']} {rule['name']}"


def _write_rule(rule: Mapping[str, Any], systems: Mapping[str, str]) -> list[Any]:
    command, name, where = rule["command"], rule["name"], _name_rule(rule)
    ups = rule.get("ups") or "*"
    if ups != "*" and "@" not in ups:
        if ups not in systems:
            raise SettingsError(
                f"{where}: this host monitors no UPS called {ups}. Use one of {', '.join(systems)}, or * for all"
            )
        ups = systems[ups]
    for word in (name, rule.get("then") or "-"):
        if not NAME.fullmatch(word):
            raise SettingsError(
                f"{where}: a shell reads {word!r}. Use only letters, digits, dots, hyphens and underscores"
            )
    row = [rule["notifytype"], ups, command, name]
    if (command in TIMED) != (rule.get("seconds") is not None):
        raise SettingsError(f"{where}: {command} takes {'' if command in TIMED else 'no '}seconds")
    if command in TIMED:
        row.append(rule["seconds"])
    if rule.get("then"):
        if not command.startswith("CANCEL-TIMER"):
            raise SettingsError(
                f"{where}: only CANCEL-TIMER can have then, the command for a timer that has already expired"
            )
        row.append(rule["then"])
    return row
