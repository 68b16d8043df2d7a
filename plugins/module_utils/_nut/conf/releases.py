# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the release of NUT on a host makes of its files: what it knows of them, what it would take wrongly in silence,
and what it is known to be bad at. The tables are in directives.py.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ..base.systemd import Run
from . import grammar, ups_conf, upsmon
from .directives import (
    AT_COMMANDS,
    DETAILED_TYPES,
    DEVICE,
    DIRECTIVES,
    FORMS,
    NEWEST,
    NOTIFY_TYPES,
    SHARED,
    VALUES,
    Directive,
    Release,
)

__all__ = [
    "DEVICE",
    "DIRECTIVES",
    "NOTIFY_TYPES",
    "Directive",
    "Fitted",
    "Release",
    "advice",
    "fit",
    "installed",
    "version",
    "wrong_values",
]

_VERSION = re.compile(r"Network UPS Tools\b.*?\b([0-9]+)\.([0-9]+)\.([0-9]+)")
_PHYSICAL = re.compile(r"[^\n]*\n|[^\n]+")
# what a shell and systemd's EnvironmentFile= read alike
_ASSIGNMENT = re.compile(
    r"""[ \t]*([A-Za-z_][A-Za-z0-9_]*)=((?:[^\s'"\\#$`;&|<>()]|"[^"\\$`\n]*"|'[^'\n]*')*)[ \t]*""", re.ASCII
)
_WITH_SECTIONS = ("ups.conf", "upsd.users")
_FOLDED = {name.lower(): name for name in DEVICE}
# what NUT takes in any case, although it is no key of a section
_ANY_CASE = {
    ("ups.conf", "statepath"): "statepath",
    ("upsd.conf", "debug_min"): "DEBUG_MIN",
    ("upsmon.conf", "debug_min"): "DEBUG_MIN",
}
# kinds of lines that often stand there several times, and are told apart by their first value
_TELLING = ("listen", "monitor", "certhost", "notifymsg", "notifyflag", "at")
# Debian's, where its drivers put their sockets
_STATE_PATHS = ("/run/nut", "/var/run/nut")


def _dotted(release: Release) -> str:
    """Write a release as people do: 2.8.0."""
    return ".".join(map(str, release))


def version(said: str) -> Release | None:
    """Find the release in what one of NUT's programs said to -V; None if there is none."""
    found = _VERSION.search(said)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def installed(runner: Run, finder: Callable[[str], Path | None]) -> Release | None:
    """Ask the host's real upsmon, or upsd, for its release. None if NUT is not installed, or does not say it."""
    for name in ("upsmon", "upsd"):
        path = finder(name)
        if path is not None:
            _unused, said = runner([str(path), "-V"])
            found = version(said)
            if found:
                return found
    return None


@dataclass(frozen=True)
class _Line:
    """What NUT takes for one line: the line of the file on which it begins, counted from 1, and its section or ""."""

    number: int
    section: str
    words: tuple[str, ...]


def _lines(name: str, text: str) -> Iterator[_Line]:
    """Read a file, without the headers of its sections."""
    section = ""
    for line in grammar.parse(text):
        first = line.words[0]
        if name in _WITH_SECTIONS and first.startswith("[") and first.endswith("]"):
            section = first[1:-1]
        else:
            yield _Line(line.number, section, line.words)


def _where(name: str, section: str) -> str:
    return f"{name}, [{section}]" if section else name


def _spelled(name: str, section: str, word: str) -> str:
    """Return a directive as the tables have it. NUT takes the keys of sections, and a few others, in any case."""
    low = word.lower()
    if name == "ups.conf" and section:
        family = low.partition(".")[0] + ".*"
        return family if "." in low and family in SHARED else _FOLDED.get(low, word)
    if name == "upsd.users":
        return low
    return _ANY_CASE.get((name, low), word)


def _drivers(text: str) -> dict[str, str]:
    """Map the sections of a ups.conf to their drivers."""
    return {name: dict(one.keys).get("driver") or "" for name, one in ups_conf.parse(text).sections.items()}


def _table(name: str, section: str, drivers: Mapping[str, str]) -> Mapping[str, Directive]:
    if name == "ups.conf" and section:
        # what other drivers know besides is not known here
        return DEVICE if drivers.get(section) == "usbhid-ups" else SHARED
    return DIRECTIVES.get(name, {})


# What a release does not know


@dataclass(frozen=True)
class Fitted:
    """Files without what a release does not know.

    left_out: sentences, one for each directive that is gone, with what that means. refused: sentences for what could not
    be left out safely; it stays in the text, and these files must not be deployed.
    """

    files: dict[str, str]
    left_out: tuple[str, ...]
    refused: tuple[str, ...]


def fit(files: Mapping[str, str], release: Release) -> Fitted:
    """Leave out of NUT's files the lines that a release does not know. Every other line stays as it is.

    Only LISTEN lines may change their order, and ALLOW_NOT_ALL_LISTENERS be added, so that an address which is not there does not
    keep upsd from serving its own host.

    What no table knows stays: the real daemon judges it. So does a file that NUT would not read as it is written;
    validate.together() tells of that. Never raises.
    """
    fitted: dict[str, str] = {}
    left_out, refused = [], []
    for name, text in files.items():
        lines = _PHYSICAL.findall(text)
        gone: set[int] = set()
        for number, where, what, directive in _unknown(name, text, release):
            sentence = f"{where}: {what} is known from NUT {_dotted(directive.since)} on, and this host has {_dotted(release)}."
            if directive.needed:
                refused.append(f"{sentence} It can't be left out: {directive.needed}.")
            else:
                left_out.append(f"{sentence} It is left out{directive.without and ': '}{directive.without}.")
                gone.update(range(number, (number if name == "nut.conf" else _last(lines, number)) + 1))
        fitted[name] = "".join(line for number, line in enumerate(lines, 1) if number not in gone)
    if "upsd.conf" in fitted:
        fitted["upsd.conf"] = _with_lasting_listeners(fitted["upsd.conf"], release)
    return Fitted(fitted, tuple(dict.fromkeys(left_out)), tuple(dict.fromkeys(refused)))


def _with_lasting_listeners(text: str, release: Release) -> str:
    """Return an upsd.conf with which upsd starts though an address that its host must have for itself is not there.

    2.8.0 insists on the last address, 2.8.1 on the first, and 2.8.2 on every one, unless ALLOW_NOT_ALL_LISTENERS. Loopback is
    always there.
    """
    if grammar.problems(text) or not upsmon.own_addresses(text):
        return text
    if release >= (2, 8, 2):
        given = upsmon.directive(text, "ALLOW_NOT_ALL_LISTENERS")
        at_home = any(upsmon.is_loopback(address) for address, _unused in upsmon.listening(text))
        end = "" if text.endswith("\n") else "\n"
        return text if given is not None or not at_home else f"{text}{end}ALLOW_NOT_ALL_LISTENERS true\n"
    lines = _PHYSICAL.findall(text)
    listens = [line for line in grammar.parse(text) if line.words[0] == "LISTEN" and len(line.words) > 1]
    if any(_last(lines, line.number) != line.number for line in listens):
        return text  # written over several lines
    order = sorted(listens, key=lambda line: upsmon.is_loopback(line.words[1]) == (release < (2, 8, 1)))
    moved = {place.number: lines[line.number - 1].rstrip("\n") + "\n" for place, line in zip(listens, order)}
    return "".join(moved.get(number, line) for number, line in enumerate(lines, 1))


def _unknown(name: str, text: str, release: Release) -> Iterator[tuple[int, str, str, Directive]]:
    """Find what is newer than a release: the line of the file, where that is, what it is called, and the directive."""
    if name == "nut.conf":
        for number, line in enumerate(text.split("\n"), 1):
            found = _ASSIGNMENT.fullmatch(line)
            directive = DIRECTIVES[name].get(found[1]) if found else None
            if found and directive and directive.since > release:
                yield number, name, found[1], directive
        return
    if grammar.problems(text):
        return
    drivers = _drivers(text) if name == "ups.conf" else {}
    for one in _lines(name, text):
        word = _spelled(name, one.section, one.words[0])
        directive = _table(name, one.section, drivers).get(word)
        if directive is None:
            continue
        for what, needs in (*_parts(word, one.words), (one.words[0], directive)):
            # what is refused everywhere is not left out in silence
            if needs.since > release and not needs.never:
                yield one.number, _where(name, one.section), what, needs
                break


def _parts(word: str, words: tuple[str, ...]) -> list[tuple[str, Directive]]:
    """Return what else of a line has a release of its own: a type of notification, a command of AT."""
    parts = []
    if word in ("NOTIFYMSG", "NOTIFYFLAG", "AT") and len(words) > 1 and words[1].upper() in NOTIFY_TYPES:
        kind = words[1].upper()
        without = "upsmon never says it there"
        parts.append((f"{word} {kind}", Directive(NOTIFY_TYPES[kind], "word", without=without)))
    if word == "AT" and len(words) > 3 and words[3] in AT_COMMANDS:
        parts.append((f"AT with {words[3]}", AT_COMMANDS[words[3]]))
    return parts


def _last(lines: list[str], number: int) -> int:
    """Return the last line of the file that belongs to what NUT takes for one line, which begins on ``number``."""
    for last in range(number, len(lines)):
        # what follows it is a line of its own, unless a backslash or quotes go on
        follower = grammar.parse("".join(lines[number - 1 : last]) + "X\n")[-1]
        if follower == grammar.Line(last - number + 2, ("X",)):
            return last
    return len(lines)


# What NUT would take for something else in silence


def wrong_values(files: Mapping[str, str], release: Release | None) -> list[str]:
    """Find values that are not of their directive's kind, unknown words of which NUT says nothing, and what is refused.

    release: of the NUT that will read the files; None if it is not known. A release that is newer than the tables may
    know more words than they do. Secrets are never in the answer. Never raises.
    """
    newer = release is not None and release > NEWEST
    wrong: list[str] = []
    for name, text in files.items():
        if name == "nut.conf":
            wrong += _wrong_nut_conf(text, release)
        elif name == "ups.conf":
            wrong += _wrong_ups_conf(text, newer)
        elif name == "upsd.users":
            wrong += _wrong_users(text, newer)
        elif name in DIRECTIVES:
            wrong += _wrong_directives(name, text, release)
    return wrong + _wrong_state_path(files, release)


def _complaint(what: str, directive: Directive, values: tuple[str, ...]) -> list[str]:
    """Say what is wrong with the values of a directive, in words that follow the place where it stands."""
    if directive.never:
        return [f"{what} is refused: {directive.never}"]
    if _fits(directive.kind, values):
        return []
    kind = directive.kind
    must = VALUES[kind][1] if kind in VALUES else FORMS.get(kind, " or ".join(kind.split("|")))
    if "=" in values[:1]:
        has = "has a = behind it, and NUT takes none there: it"
    elif not values:
        has = "has no value, and"
    elif kind in FORMS:
        what = f"{what} {values[0]}" if kind in _TELLING else what
        has = "is not as NUT takes it, and"
    elif len(values) == 1:
        has = f"is {values[0]!r}, and"
    else:
        has = f"has {len(values)} values, and"
    return [f"{what} {has} must be {must}"]


def _fits(kind: str, values: tuple[str, ...]) -> bool:
    if kind in VALUES:
        return len(values) == 1 and re.fullmatch(VALUES[kind][0], values[0]) is not None
    if kind in _FORMS:
        return _FORMS[kind](values)
    return len(values) == 1 and values[0] in kind.split("|")


def _is_listen(values: tuple[str, ...]) -> bool:
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
    "number?": lambda values: not values or _fits("number", values),
    "words": lambda values: bool(values) and "=" not in values,
    "listen": _is_listen,
    "monitor": lambda values: len(values) == 5 and _fits("number", values[1:2]),
    "identity": lambda values: len(values) == 2 and values[0] != "=",
    "certhost": lambda values: len(values) == 4 and set(values[2:]) <= {"0", "1"},
    "notifymsg": lambda values: len(values) == 2,
    "notifyflag": lambda values: len(values) == 2 and _is_flags(values[1]),
    "at": lambda values: len(values) in (4, 5),
}


def _wrong_nut_conf(text: str, release: Release | None) -> list[str]:
    """Judge nut.conf, which a shell reads, and systemd. The variables of others may stand there, too."""
    wrong = []
    known = DIRECTIVES["nut.conf"]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _ASSIGNMENT.fullmatch(line)
        if not found:
            wrong.append(
                f"nut.conf, line {number}: this is not NAME=value as the shell and systemd read it. "
                "Write no blanks around the =, and nothing behind the value"
            )
            continue
        name, written = found[1], found[2]
        value = re.sub("[\"']", "", written)
        if name not in known:
            meant = difflib.get_close_matches(name, known, 1, 0.85)
            if meant:
                wrong.append(f"nut.conf: {name} is no variable of NUT. {meant[0]} is")
        # NUT 2.8.0 takes this one by sed, with its quotes, and sleep(1) fails: the host reboots before its power is cut
        elif name == "POWEROFF_WAIT" and written != value and (release is None or release < (2, 8, 1)):
            wrong.append(f"nut.conf: {name} must have no quotes: NUT 2.8.0 would reboot this host at once. Remove them")
        elif value:
            wrong += [f"nut.conf: {words}" for words in _complaint(name, known[name], (value,))]
    return wrong


def _wrong_ups_conf(text: str, newer: bool) -> list[str]:
    wrong = []
    drivers = _drivers(text)
    for one in _lines("ups.conf", text):
        where, what, values = _where("ups.conf", one.section), one.words[0], one.words[1:]
        directive = _table("ups.conf", one.section, drivers).get(_spelled("ups.conf", one.section, what))
        if values and values[0] != "=":
            wrong.append(f"{where}: {what} has no = before its value, and NUT ignores it. Write {what} = VALUE")
        elif directive is not None:
            if values and directive.kind == "flag" and not directive.never:
                wrong.append(
                    f"{where}: {what} is set by standing there, whatever is behind its =. Write it alone, or not"
                )
            else:
                wrong += [f"{where}: {words}" for words in _complaint(what, directive, values[1:])]
        elif not one.section and not newer:
            wrong.append(
                f"ups.conf, line {one.number}: {what} is no directive of NUT, which would ignore it in silence"
            )
    return wrong


def _wrong_users(text: str, newer: bool) -> list[str]:
    """Judge upsd.users. Of a line that is not plainly a setting only its number is told: it may be a password."""
    wrong = []
    known = DIRECTIVES["upsd.users"]
    allowed = ", ".join(name for name in known if not known[name].never)
    for one in _lines("upsd.users", text):
        where, what, values = _where("upsd.users", one.section), one.words[0].lower(), one.words[1:]
        if what.startswith("["):
            wrong.append(
                f"upsd.users, line {one.number}: upsd does not take this for a [user]. It must end with ], and a user name has no"
                " blank, '#' or '='"
            )
        elif not one.section:
            wrong.append(f"upsd.users, line {one.number}: it stands before the first [user], so upsd ignores it")
        elif what not in known:
            if not newer:
                wrong.append(f"{where}: line {one.number} is no setting of a user. There are {allowed}")
        elif what == "upsmon":
            wrong += [f"{where}: {words}" for words in _complaint(what, known[what], tuple(map(str.lower, values)))]
        elif known[what].never:
            wrong += [f"{where}: {words}" for words in _complaint(what, known[what], values)]
        elif len(values) < 2 or values[0] != "=":
            wrong.append(f"{where}: {what} has no = with a value behind it, and upsd ignores it. Write {what} = VALUE")
        elif what == "password" and len(values) > 2:
            wrong.append(f"{where}: the password is more than one word. Put quotes around it")
        elif what == "actions":
            strange = [action for action in values[1:] if action.upper() not in ("SET", "FSD")]
            wrong += [f"{where}: the action {action!r} is neither SET nor FSD" for action in strange]
    return wrong


def _wrong_directives(name: str, text: str, release: Release | None) -> list[str]:
    """Judge upsd.conf, upsmon.conf and upssched.conf."""
    wrong = []
    newer = release is not None and release > NEWEST
    needed = ["CMDSCRIPT", "PIPEFN", "LOCKFN"]
    for one in _lines(name, text):
        what = _spelled(name, "", one.words[0])
        values = one.words[1:]
        directive = DIRECTIVES[name].get(what)
        if directive is None:
            # of the other two files the daemons say it
            if name == "upssched.conf" and not newer:
                wrong.append(f"{name}, line {one.number}: {what!r} is no directive of upssched, which would ignore it")
            continue
        complaints = _complaint(what, directive, values)
        if not complaints and directive.kind in ("notifymsg", "notifyflag", "at"):
            complaints = _wrong_event(what, values, release)
        wrong += [f"{name}: {words}" for words in complaints]
        if what in needed:
            needed.remove(what)
        elif what == "AT" and needed:
            missing = " and ".join(needed)
            wrong.append(f"{name}: {missing} must stand before the first AT, or upssched does nothing at all")
            needed.clear()
    return wrong


def _wrong_event(what: str, values: tuple[str, ...], release: Release | None) -> list[str]:
    """Judge what hangs on a type of notification."""
    kind = values[0].upper()
    newer = release is not None and release > NEWEST
    if kind not in NOTIFY_TYPES and not newer:
        return [f"{what} {values[0]}: NUT has no notification of that type. It has {', '.join(NOTIFY_TYPES)}"]
    if what == "NOTIFYMSG":
        # %% is a percent sign. Everything else is a hole that upsmon fills, with what lies about if it has nothing
        text = values[1].replace("%%", "")
        detailed = kind in DETAILED_TYPES and (release is None or release >= NOTIFY_TYPES[kind])
        most = 2 if detailed else 1
        if text.count("%s") > most or "%" in text.replace("%s", ""):
            often = "one %s, or two," if detailed else "one %s"
            return [
                f"NOTIFYMSG {kind}: its text may have {often} for the UPS, and no other %. Write %% for a percent sign"
            ]
    return _wrong_command(kind, values[2], values[3], values[4:], newer) if what == "AT" else []


def _wrong_command(kind: str, command: str, name: str, rest: tuple[str, ...], newer: bool) -> list[str]:
    """Judge what an AT line of upssched.conf does."""
    known = AT_COMMANDS.get(command)
    complaint = ""
    if known is None:
        complaint = "" if newer else f"upssched has no command {command!r}. It has {', '.join(AT_COMMANDS)}"
    elif known.never:
        complaint = f"{command} is refused: {known.never}"
    elif known.kind == "seconds" and not _fits("seconds", rest):
        complaint = f"{command} {name} needs a whole number of seconds: NUT takes anything else for 0"
    elif command == "EXECUTE" and rest:
        complaint = "EXECUTE takes one word. Put quotes around it"
    return [f"AT {kind}: {complaint}"] if complaint else []


def _wrong_state_path(files: Mapping[str, str], release: Release | None) -> list[str]:
    """Compare where upsd looks for the drivers' sockets with where these put them."""
    looks = upsmon.directive(files.get("upsd.conf", ""), "STATEPATH")
    if looks is None or re.search(r"^\s*NUT_STATEPATH=", files.get("nut.conf", ""), re.MULTILINE):
        return []
    told = {key.lower(): value for key, value in ups_conf.parse(files.get("ups.conf", "")).settings}.get("statepath")
    if release is not None and release < DIRECTIVES["ups.conf"]["statepath"].since:
        told = None
    if looks.rstrip("/") in ([told.rstrip("/")] if told else _STATE_PATHS):
        return []
    return [
        f"upsd.conf: STATEPATH is {looks}, but the drivers put their sockets into {told or _STATE_PATHS[0]}, "
        "so upsd would see no UPS. Leave it out"
    ]


# What a release is known to be bad at


def advice(files: Mapping[str, str], release: Release) -> list[str]:
    """Tell what this release is known to be bad at, as far as these files are concerned, and what to do. Never raises."""
    said = []
    if "upsmon.conf" in files:
        said += _upsmon_advice(files["upsmon.conf"], "ups.conf" in files, release)
    if "upssched.conf" in files:
        timers = [one.words for one in _lines("upssched.conf", files["upssched.conf"]) if "START-TIMER" in one.words]
        if timers and release == (2, 8, 0):
            said.append("upssched takes a whole processor while a timer runs. Keep the timers short, or use EXECUTE")
    if "upsd.conf" in files:
        said += _upsd_advice(files["upsd.conf"], release)
    if "ups.conf" in files:
        said += _driver_advice(files["ups.conf"], release)
    return [f"NUT {_dotted(release)}: {words}." for words in said]


def _upsmon_advice(text: str, primary: bool, release: Release) -> list[str]:
    said = []
    lines = [one.words for one in _lines("upsmon.conf", text)]
    names = {words[0] for words in lines}
    # seen with dummy-ups: OL CAL, OL, OB LB, and upsmon of 2.8.0 and 2.8.1 says "it is also calibrating" for ever
    if (2, 8, 0) <= release < (2, 8, 2):
        said.append(
            "once a UPS has calibrated (status CAL, also in some self-tests), upsmon takes it for calibrating for ever "
            "and never shuts down. Restart nut-monitor after each calibration, while on mains"
        )
    if (2, 8, 1) <= release < (2, 8, 3):
        said.append(
            "upsmon ignores DEADTIME when contact is lost while on battery, and shuts this host down at once. "
            "Never restart NUT or the network in an outage; this role does not"
        )
    if release >= (2, 8, 1) and "OFFDURATION" not in names:
        said.append(
            "a UPS that says OFF for 30 s counts as lost, although OFFDURATION is not set. "
            "Set OFFDURATION to -1 if yours says OFF while it feeds this host"
        )
    held = (upsmon.directive(text, "SHUTDOWNEXIT") or "yes").lower()
    if not primary and release < (2, 8, 1):
        said.append(
            "this secondary logs out as soon as its shutdown begins, and has no SHUTDOWNEXIT to change that. "
            "Only a primary that waits until this host is down (nut_server_gate), or long enough (FINALDELAY), keeps the order"
        )
    elif held not in ("yes", "true", "on") and not _short(held) and (2, 8, 1) <= release < (2, 8, 5):
        said.append(
            "SHUTDOWNEXIT holds the login for 60 s at most, because upsd drops a silent client then. "
            "Only a primary that waits until this host is down (nut_server_gate), or long enough (FINALDELAY), keeps the order"
        )
    # the text of these has a second part, which upsd says (CVE-2026-54161)
    told = [words[1].upper() for words in lines if words[0] == "NOTIFYFLAG" and len(words) > 2 and "EXEC" in words[2]]
    hands = [kind for kind in told if kind in DETAILED_TYPES]
    if "NOTIFYCMD" in names and hands and (2, 8, 3) <= release < (2, 8, 6):
        said.append(
            f"upsmon gives what a UPS says of its alarms to a shell (CVE-2026-54161), and NOTIFYFLAG {hands[0]} has EXEC. "
            "Take EXEC from it, unless your distribution has mended that"
        )
    elif "NOTIFYCMD" in names and release < (2, 8, 6):
        said.append(
            "before 2.8.6 the message for NOTIFYCMD goes through a shell. Keep $, backticks and quotes out of NOTIFYMSG, "
            "and from 2.8.3 on EXEC off the type ALARM (CVE-2026-54161)"
        )
    return said


def _short(seconds: str) -> bool:
    """Say whether upsd waits for a client that is silent for so long."""
    return re.fullmatch("[0-9]{1,9}", seconds) is not None and int(seconds) <= upsmon.IDLE_SECONDS


def _upsd_advice(text: str, release: Release) -> list[str]:
    said = []
    if upsmon.directive(text, "CERTPATH"):
        # seen on 2.8.0 and 2.8.1: upsd waits for the rest of a handshake without a limit, and upsmon reads without one
        said.append(
            "with TLS, a machine that begins a handshake and does not finish it blocks every shutdown until nut-watch restarts upsd: "
            "after 6 s, on battery up to 20 s. Keep nut_server_allow to machines that you trust"
        )
    listen = [address for address, _unused in upsmon.listening(text)]
    # fit() sees to it that loopback, where it is among them, is the one that counts
    if len(listen) > 1 and release < (2, 8, 2) and not any(map(upsmon.is_loopback, listen)):
        counts = "first" if release == (2, 8, 1) else "last"
        said.append(
            f"of several LISTEN only the {counts} one must work, and upsd merely logs that it can't have another. "
            "See which it has with ss -ltn, or LISTEN on 0.0.0.0 alone"
        )
    v4 = [address for address in listen if ":" not in address and address not in ("localhost", "127.0.0.1")]
    if "::" in listen and not v4 and release >= (2, 8, 1):
        said.append("LISTEN :: is for IPv6 alone. Clients that come by IPv4 need LISTEN 0.0.0.0 beside it")
    return said


def _driver_advice(text: str, release: Release) -> list[str]:
    said = []
    sections = ups_conf.parse(text).sections
    if sections and release == (2, 8, 2):
        said.append(
            "the enumerator does not restart a driver whose section was changed by hand. "
            "Change ups.conf by this role, or restart nut-driver@NAME while on mains"
        )
    for name, one in sections.items():
        keys = dict(one.keys)
        if "allow_killpower" in keys and (2, 8, 1) <= release < (2, 8, 3):
            said.append(f"allow_killpower of [{name}] does nothing in ups.conf. Set it with upsrw when it is needed")
        if "onlinedischarge_calibration" in keys and release == (2, 8, 1):
            said.append(
                f"onlinedischarge_calibration of [{name}] makes a calibration of each discharge, "
                "after which upsmon never shuts down. Leave it out before NUT 2.8.2"
            )
        if "device" in keys:
            said.append(
                f"[{name}] is told by device, a number that changes each time the UPS is plugged in or resets, "
                "and its driver would never find it again. Tell it by serial, or by vendorid and productid"
            )
    return said
