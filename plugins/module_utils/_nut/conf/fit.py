# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removes directives from NUT's files that the host's release of NUT does not have. The tables are in directives.py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from . import grammar, statements, upsd
from .directives import AT_COMMANDS, DIRECTIVES, NOTIFY_TYPES, Directive, Release
from .release import format_release
from .statements import ASSIGNMENT

_PHYSICAL = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True)
class Fitted:
    """NUT's files, fit for a release."""

    files: dict[str, str]
    left_out: tuple[str, ...]  # sentences, one for each directive that was removed
    refused: tuple[str, ...]  # sentences, one for each that can't be removed safely: the files must not be deployed


def fit_files(files: Mapping[str, str], release: Release) -> Fitted:
    """Remove the lines that a release does not know from NUT's files. All other lines stay unchanged.

    Exceptions: LISTEN 0.0.0.0 is left out beside LISTEN :: where that serves IPv4, too; LISTEN lines may be reordered and
    ALLOW_NOT_ALL_LISTENERS added, so that a missing address does not keep upsd from serving its own host.

    Lines that are in no table stay, for the daemon itself to judge. A file that NUT would misread stays, too:
    consistency.find_inconsistencies() reports it. Never raises.
    """
    fitted: dict[str, str] = {}
    left_out, refused = [], []
    for name, text in files.items():
        lines = _PHYSICAL.findall(text)
        gone: set[int] = set()
        for number, where, what, directive in _find_unknown(name, text, release):
            sentence = _describe_lack(where, what, directive, release)
            if directive.needed:
                refused.append(sentence)
            else:
                left_out.append(sentence)
                gone.update(range(number, (number if name == "nut.conf" else _last_line(lines, number)) + 1))
        fitted[name] = "".join(line for number, line in enumerate(lines, 1) if number not in gone)
    if "upsd.conf" in fitted:
        fitted["upsd.conf"] = _with_lasting_listeners(_without_twin(fitted["upsd.conf"], release), release)
    return Fitted(fitted, tuple(dict.fromkeys(left_out)), tuple(dict.fromkeys(refused)))


def unfit_key(section: str, driver: str, key: str, release: Release) -> str:
    """Return why a section of ups.conf with this driver can't have a key on a host with this release; "" if it can."""
    directive = statements.find_device_key(driver, key)
    if directive is None or directive.since <= release or directive.never:
        return ""
    return _describe_lack(f"ups.conf, [{section}]", key, directive, release)


def _describe_lack(where: str, what: str, directive: Directive, release: Release) -> str:
    sentence = (
        f"{where}: {what} needs NUT {format_release(directive.since)}, but this host has {format_release(release)}."
    )
    if directive.needed:
        return f"{sentence} It can't be left out, because {directive.needed}."
    return f"{sentence} It is left out{directive.without and ': '}{directive.without}."


def _without_twin(text: str, release: Release) -> str:
    """Return an upsd.conf without LISTEN 0.0.0.0 where it has LISTEN :: with the same port: before 2.8.1 that serves IPv4, too.

    upsd could bind only one of them, and would not start if that is the wrong one. Since 2.8.1, LISTEN :: is for IPv6 only.
    """
    places = upsd.read_listen_lines(text)
    if release >= (2, 8, 1) or grammar.find_problems(text):
        return text
    lines = _PHYSICAL.findall(text)
    twins = [
        line.number
        for line, (address, port) in zip(
            [line for line in grammar.parse_lines(text) if line.words[0] == "LISTEN" and len(line.words) > 1], places
        )
        if address == "0.0.0.0" and ("::", port) in places and _last_line(lines, line.number) == line.number
    ]
    return "".join(line for number, line in enumerate(lines, 1) if number not in twins)


def _with_lasting_listeners(text: str, release: Release) -> str:
    """Return an upsd.conf with which upsd starts even if an address of its host does not exist yet.

    2.8.0 insists on the last address, 2.8.1 on the first, and 2.8.2 on all, unless ALLOW_NOT_ALL_LISTENERS is set. Loopback
    always exists.
    """
    if grammar.find_problems(text) or not upsd.own_addresses(text):
        return text
    if release >= (2, 8, 2):
        given = grammar.find_directive(text, "ALLOW_NOT_ALL_LISTENERS")
        has_loopback = any(upsd.is_loopback(address) for address, _unused in upsd.read_listen_lines(text))
        end = "" if text.endswith("\n") else "\n"
        return text if given is not None or not has_loopback else f"{text}{end}ALLOW_NOT_ALL_LISTENERS true\n"
    lines = _PHYSICAL.findall(text)
    listens = [line for line in grammar.parse_lines(text) if line.words[0] == "LISTEN" and len(line.words) > 1]
    if any(_last_line(lines, line.number) != line.number for line in listens):
        return text  # written over several lines
    order = sorted(listens, key=lambda line: upsd.is_loopback(line.words[1]) == (release < (2, 8, 1)))
    moved = {place.number: lines[line.number - 1].rstrip("\n") + "\n" for place, line in zip(listens, order)}
    return "".join(moved.get(number, line) for number, line in enumerate(lines, 1))


def _find_unknown(name: str, text: str, release: Release) -> Iterator[tuple[int, str, str, Directive]]:
    """Yield each directive that is newer than a release: (line number, place, name, directive)."""
    if name == "nut.conf":
        for number, line in enumerate(text.split("\n"), 1):
            found = ASSIGNMENT.fullmatch(line)
            directive = DIRECTIVES[name].get(found[1]) if found else None
            if found and directive and directive.since > release:
                yield number, name, found[1], directive
        return
    if grammar.find_problems(text):
        return
    for statement in statements.read_statements(name, text):
        if statement.directive is None:
            continue
        for what, needs in (
            *_versioned_parts(statement.name, statement.words),
            (statement.words[0], statement.directive),
        ):
            # a directive that is always refused must be reported, not left out
            if needs.since > release and not needs.never:
                yield statement.number, statement.where, what, needs
                break


def _versioned_parts(word: str, words: tuple[str, ...]) -> list[tuple[str, Directive]]:
    """Return the parts of a line that need a release of their own: a type of notification, a command of AT."""
    parts = []
    if word in ("NOTIFYMSG", "NOTIFYFLAG", "AT") and len(words) > 1 and words[1].upper() in NOTIFY_TYPES:
        kind = words[1].upper()
        without = "this host's upsmon never sends it"
        parts.append((f"{word} {kind}", Directive(NOTIFY_TYPES[kind], "word", without=without)))
    if word == "AT" and len(words) > 3 and words[3] in AT_COMMANDS:
        parts.append((f"AT with {words[3]}", AT_COMMANDS[words[3]]))
    return parts


def _last_line(lines: list[str], number: int) -> int:
    """Return the number of the last line of the file that NUT joins with the line ``number``."""
    for last in range(number, len(lines)):
        # the next line is separate unless a backslash or open quotes continue this one
        follower = grammar.parse_lines("".join(lines[number - 1 : last]) + "X\n")[-1]
        if follower == grammar.Line(last - number + 2, ("X",)):
            return last
    return len(lines)
