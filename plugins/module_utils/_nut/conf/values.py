# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds what NUT would silently misread: values of the wrong kind, unknown words, and directives that are refused.

The tables are in directives.py.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Callable

from ..base.spelling import suggest
from .directives import AT_COMMANDS, DETAILED_TYPES, DIRECTIVES, FORMS, NEWEST, NOTIFY_TYPES, VALUES, Directive, Release
from .files import NutFiles
from .statements import ASSIGNMENT, Statement
from .usb_keys import NO_DEVICE, explain_unmatchable

# kinds of lines that may occur several times, and are identified by their first value
_TELLING = ("listen", "monitor", "certhost", "notifymsg", "notifyflag", "at")
# where the drivers of Debian's NUT create their sockets
_STATE_PATHS = ("/run/nut", "/var/run/nut")


def find_wrong_values(texts: Mapping[str, str], release: Release | None) -> list[str]:
    """Return values of the wrong kind, unknown words that NUT does not report, and refused directives, as sentences.

    release: of the NUT that will read the files; None if unknown. A release newer than the tables may know more words than
    they do. The sentences contain no secrets. Never raises.
    """
    files = NutFiles.of(texts)
    return find_wrong_lines(files, release) + _wrong_state_path(files, release)


def find_wrong_lines(texts: Mapping[str, str], release: Release | None) -> list[str]:
    """Return the part of find_wrong_values() that looks at each line on its own."""
    files = NutFiles.of(texts)
    newer = release is not None and release > NEWEST
    wrong: list[str] = []
    for name, text in files.items():
        if name == "nut.conf":
            wrong += _wrong_nut_conf(text, release)
        elif name == "ups.conf":
            wrong += _wrong_ups_conf(files.statements(name), newer)
        elif name == "upsd.users":
            wrong += _wrong_users(files.statements(name), newer)
        elif name in DIRECTIVES:
            wrong += _wrong_directives(files.statements(name), release)
    return wrong


def _describe_problem(what: str, directive: Directive, values: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the values of a directive, as words that follow its place."""
    if directive.never:
        return [f"{what} is refused: {directive.never}"]
    if _fits_kind(directive.kind, values):
        return []
    kind = directive.kind
    must = VALUES[kind][1] if kind in VALUES else FORMS.get(kind, " or ".join(kind.split("|")))
    if "=" in values[:1]:
        has = "is followed by =, which NUT does not allow here: it"
    elif not values:
        has = "has no value,"
    elif kind in FORMS:
        what = f"{what} {values[0]}" if kind in _TELLING else what
        has = "is malformed,"
    elif len(values) == 1:
        has = f"is {values[0]!r},"
    else:
        has = f"has {len(values)} values,"
    return [f"{what} {has} must be {must}"]


def _fits_kind(kind: str, values: tuple[str, ...]) -> bool:
    if kind in VALUES:
        return len(values) == 1 and re.fullmatch(VALUES[kind][0], values[0]) is not None
    if kind in _FORMS:
        return _FORMS[kind](values)
    return len(values) == 1 and values[0] in kind.split("|")


def is_listen(values: tuple[str, ...]) -> bool:
    """Return whether these are the values of a LISTEN line: an address or a name, and perhaps a port."""
    if len(values) not in (1, 2) or (len(values) == 2 and not _is_port(values[1])):
        return False
    address = values[0]
    if re.fullmatch(r"[0-9.]+|.*:.*", address):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            return False
    return re.fullmatch(r"\*|[A-Za-z0-9_.:%-]+", address) is not None


def _is_port(word: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", word) is not None and 0 < int(word) < 65536


def _is_flags(word: str) -> bool:
    flags = word.split("+")
    return flags == ["IGNORE"] or set(flags) <= {"SYSLOG", "WALL", "EXEC"}


_FORMS: Mapping[str, Callable[[tuple[str, ...]], bool]] = {
    "flag": lambda values: not values,
    "number?": lambda values: not values or _fits_kind("number", values),
    "words": lambda values: bool(values) and "=" not in values,
    "listen": is_listen,
    "monitor": lambda values: len(values) == 5 and _fits_kind("number", values[1:2]),
    "identity": lambda values: len(values) == 2 and values[0] != "=",
    "certhost": lambda values: len(values) == 4 and set(values[2:]) <= {"0", "1"},
    "notifymsg": lambda values: len(values) == 2,
    "notifyflag": lambda values: len(values) == 2 and _is_flags(values[1]),
    "at": lambda values: len(values) in (4, 5),
}


def _wrong_nut_conf(text: str, release: Release | None) -> list[str]:
    """Judge nut.conf, which a shell and systemd read. It may contain variables of other programs, too."""
    wrong = []
    known = DIRECTIVES["nut.conf"]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = ASSIGNMENT.fullmatch(line)
        if not found:
            wrong.append(
                f"nut.conf, line {number}: the shell and systemd can't read this as NAME=value. "
                "Write no blanks around the =, and nothing after the value"
            )
            continue
        name, written = found[1], found[2]
        value = re.sub("[\"']", "", written)
        if name not in known:
            meant = difflib.get_close_matches(name, known, 1, 0.85)
            if meant:
                wrong.append(f"nut.conf: NUT has no variable {name}. Did you mean {meant[0]}?")
        # NUT 2.8.0 extracts this one with sed, including quotes, so sleep(1) fails: the host reboots before its power is cut
        elif name == "POWEROFF_WAIT" and written != value and (release is None or release < (2, 8, 1)):
            wrong.append(f"nut.conf: {name} must have no quotes: NUT 2.8.0 would reboot this host at once. Remove them")
        elif value:
            wrong += [f"nut.conf: {words}" for words in _describe_problem(name, known[name], (value,))]
    return wrong


def _wrong_ups_conf(lines: Sequence[Statement], newer: bool) -> list[str]:
    wrong = []
    drivers = {line.section: " ".join(line.values[1:]) for line in lines if line.name == "driver"}
    for line in lines:
        where, what, values, directive = line.where, line.words[0], line.values, line.directive
        unmatchable = _explain_unmatchable(line, drivers.get(line.section, ""))
        if what.lower() == "override.ups.status":
            wrong.append(
                f"{where}: {what} replaces the status of the UPS for ever, so no power cut would be noticed. Remove it"
            )
        elif unmatchable:
            wrong.append(f"{where}: {what} {unmatchable}")
        elif values and values[0] != "=":
            wrong.append(f"{where}: {what} has no = before its value, so NUT ignores it. Write {what} = VALUE")
        elif directive is not None:
            if values and directive.kind == "flag" and not directive.never:
                wrong.append(
                    f"{where}: {what} is a flag, and set by its presence, whatever its value. Write it without a value, or not at all"
                )
            else:
                wrong += [f"{where}: {words}" for words in _describe_problem(what, directive, values[1:])]
        elif not line.section and not newer:
            wrong.append(f"ups.conf, line {line.number}: NUT has no directive {what}, and would silently ignore it")
    return wrong


def _explain_unmatchable(line: Statement, driver: str) -> str:
    """Return why a line of a section can't match any UPS; "" if it can, or if it is not of the form KEY = VALUE."""
    if not line.section or len(line.values) != 2 or line.values == ("=", NO_DEVICE) or line.values[0] != "=":
        return ""
    return explain_unmatchable(line.words[0], line.values[1], driver)


def _wrong_users(lines: Sequence[Statement], newer: bool) -> list[str]:
    """Judge upsd.users. A line that is not clearly a setting is reported by its number only: it may be a password."""
    wrong = []
    known = DIRECTIVES["upsd.users"]
    allowed = ", ".join(name for name in known if not known[name].never)
    for line in lines:
        where, what, values = line.where, line.name, line.values
        if what.startswith("["):
            wrong.append(
                f"upsd.users, line {line.number}: upsd does not read this as a [user]. It must end with ], and the name must have no"
                " blank, '#' or '='"
            )
        elif not line.section:
            wrong.append(f"upsd.users, line {line.number}: it is before the first [user], so upsd ignores it")
        elif what not in known:
            if not newer:
                wrong.append(f"{where}: line {line.number} is not a setting of a user. The settings are {allowed}")
        elif what == "upsmon":
            wrong += [
                f"{where}: {words}" for words in _describe_problem(what, known[what], tuple(map(str.lower, values)))
            ]
        elif known[what].never:
            wrong += [f"{where}: {words}" for words in _describe_problem(what, known[what], values)]
        elif len(values) < 2 or values[0] != "=":
            wrong.append(f"{where}: {what} has no = and value, so upsd ignores it. Write {what} = VALUE")
        elif what == "password" and len(values) > 2:
            wrong.append(f"{where}: the password is more than one word. Put quotes around it")
        elif what == "actions":
            unknown = [action for action in values[1:] if action.upper() not in ("SET", "FSD")]
            wrong += [f"{where}: the action {action!r} is neither SET nor FSD" for action in unknown]
    return wrong


def _wrong_directives(lines: Sequence[Statement], release: Release | None) -> list[str]:
    """Judge upsd.conf, upsmon.conf and upssched.conf."""
    wrong = []
    newer = release is not None and release > NEWEST
    needed = ["CMDSCRIPT", "PIPEFN", "LOCKFN"]
    for line in lines:
        file, what, values, directive = line.file, line.name, line.values, line.directive
        if directive is None:
            # the daemons report unknown directives of the other two files
            if file == "upssched.conf" and not newer:
                wrong.append(f"{file}, line {line.number}: upssched has no directive {what!r}, and would ignore it")
            continue
        complaints = _describe_problem(what, directive, values)
        if not complaints and directive.kind in ("notifymsg", "notifyflag", "at"):
            complaints = _wrong_event(what, values, release)
        wrong += [f"{file}: {words}" for words in complaints]
        if what in needed:
            needed.remove(what)
        elif what == "AT" and needed:
            missing = " and ".join(needed)
            wrong.append(f"{file}: {missing} must come before the first AT, or upssched does nothing")
            needed.clear()
    return wrong


def _wrong_event(what: str, values: tuple[str, ...], release: Release | None) -> list[str]:
    """Judge a line that begins with a type of notification."""
    kind = values[0].upper()
    newer = release is not None and release > NEWEST
    if kind not in NOTIFY_TYPES and not newer:
        hint = suggest(kind, NOTIFY_TYPES) or f"It has {', '.join(NOTIFY_TYPES)}"
        return [f"{what} {values[0]}: NUT has no such type of notification. {hint}"]
    if what == "NOTIFYMSG":
        # %% is a percent sign. upsmon passes the text to printf, which fills any other % from random memory
        text = values[1].replace("%%", "")
        detailed = kind in DETAILED_TYPES and (release is None or release >= NOTIFY_TYPES[kind])
        most = 2 if detailed else 1
        if text.count("%s") > most or "%" in text.replace("%s", ""):
            often = "one %s, or two," if detailed else "one %s"
            return [
                f"NOTIFYMSG {kind}: the text may have {often} for the UPS, and no other %. Write %% for a percent sign"
            ]
    return _wrong_command(kind, values[2], values[3], values[4:], newer) if what == "AT" else []


def _wrong_command(kind: str, command: str, name: str, rest: tuple[str, ...], newer: bool) -> list[str]:
    """Judge the command of an AT line of upssched.conf."""
    known = AT_COMMANDS.get(command)
    complaint = ""
    if known is None:
        hint = suggest(command, AT_COMMANDS) or f"It has {', '.join(AT_COMMANDS)}"
        complaint = "" if newer else f"upssched has no command {command!r}. {hint}"
    elif known.never:
        complaint = f"{command} is refused: {known.never}"
    elif known.kind == "seconds" and not _fits_kind("seconds", rest):
        complaint = f"{command} {name} needs a whole number of seconds: NUT takes anything else for 0"
    elif command == "EXECUTE" and rest:
        complaint = "EXECUTE takes one word. Put quotes around it"
    return [f"AT {kind}: {complaint}"] if complaint else []


def _wrong_state_path(files: NutFiles, release: Release | None) -> list[str]:
    """Compare where upsd looks for the drivers' sockets with where the drivers create them."""
    looks = files.directive("upsd.conf", "STATEPATH")
    if looks is None or re.search(r"^\s*NUT_STATEPATH=", files.get("nut.conf", ""), re.MULTILINE):
        return []
    told = {key.lower(): value for key, value in files.ups_conf.settings}.get("statepath")
    if release is not None and release < DIRECTIVES["ups.conf"]["statepath"].since:
        told = None
    if looks.rstrip("/") in ([told.rstrip("/")] if told else _STATE_PATHS):
        return []
    return [
        f"upsd.conf: STATEPATH is {looks}, but the drivers create their sockets in {told or _STATE_PATHS[0]}, "
        "so upsd would find no UPS. Remove it"
    ]
