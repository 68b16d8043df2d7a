# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings that NUT accepts and that do nothing, or not what they look like: each is right by itself, and wrong beside another one.

Those of upssched.conf are in rules_without_effect.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..base.spelling import list_words
from .directives import DIRECTIVES
from .files import NutFiles
from .rules_without_effect import RULE_CHECKS, Check, Problem
from .statements import ASSIGNMENT, Statement
from .upsd import PRIMARY, SECONDARY, is_loopback, is_reachable

# what a driver that decides by itself when the battery is low (ignorelb) compares with: drivers/main.c
LOW_MARKS = ("battery.charge.low", "battery.runtime.low")
# drivers without a battery of their own: what they show is what they were told
_NO_BATTERY = ("dummy-ups", "clone", "clone-outlet")
# readings that must fall during an outage
_FALLING = ("battery.charge", "battery.runtime")
_DELAYS = ("offdelay", "ondelay")
# kinds of directives that may occur several times
_SEVERAL = ("listen", "monitor", "certhost", "notifymsg", "notifyflag", "at", "words")
_TRUE = ("true", "yes", "on", "1")
# systemd starts the daemons with fixed arguments; only NUT's init scripts used these
_OF_INIT_SCRIPTS = {"UPSD_OPTIONS": "upsd", "UPSMON_OPTIONS": "upsmon"}


def find_ineffective(texts: Mapping[str, str]) -> list[Problem]:
    """Return the settings that have no effect as they stand, or lack their counterpart. Never raises.

    texts: name -> text, all of a primary's or of a secondary's.
    """
    files = NutFiles.of(texts)
    return [problem for check in _CHECKS for problem in check(files)]


def find_ineffective_marks(keys: Iterable[str]) -> list[str]:
    """Return the keys of a section of ups.conf that set a low mark which nothing compares with: there is no ignorelb."""
    names = [key.lower() for key in keys]
    if "ignorelb" in names:
        return []
    return [
        name for name in names if name.startswith(("override.", "default.")) and name.partition(".")[2] in LOW_MARKS
    ]


# ups.conf


def _sections(files: NutFiles) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield the sections of UPSes with a battery: the header, and the keys in lower case."""
    for name, section in files.ups_conf.sections.items():
        keys = {key.lower(): value for key, value in section.keys}
        if (keys.get("driver") or "") not in _NO_BATTERY:
            yield f"[{name}]", keys


def _check_low_marks(files: NutFiles) -> Iterator[Problem]:
    for where, keys in _sections(files):
        for key in find_ineffective_marks(keys):
            yield (
                f"ups.conf, {where}: {key} has no effect without ignorelb: NUT shows the value, and the UPS still decides itself when its "
                "battery is low",
                "Add ignorelb, or set nut_server_runtime_low instead",
            )


def _check_overrides(files: NutFiles) -> Iterator[Problem]:
    """Find readings that an override replaces for ever, and defaults that an override hides."""
    for where, keys in _sections(files):
        for reading in _FALLING:
            if f"override.{reading}" in keys:
                yield (
                    f"ups.conf, {where}: override.{reading} shows this value for ever, so nothing notices that the battery empties",
                    f"Remove it, or use default.{reading}, which counts only until the UPS reports its own",
                )
        for key in keys:
            family, _dot, variable = key.partition(".")
            if family == "default" and f"override.{variable}" in keys:
                yield f"ups.conf, {where}: {key} has no effect beside override.{variable}", "Remove one of them"


def _check_usbhid_flags(files: NutFiles) -> Iterator[Problem]:
    for where, keys in _sections(files):
        if "pollonly" in keys and "interruptonly" in keys:
            words = f"ups.conf, {where}: interruptonly has no effect beside pollonly, which ignores what the UPS sends by itself"
            yield words, "Remove one of them"


def _check_cut(files: NutFiles) -> Iterator[Problem]:
    """Find out whether the UPSes are told to cut their power at the end of a shutdown."""
    if "ups.conf" not in files or "upsmon.conf" not in files or not files.monitors:
        return
    if not files.directive("upsmon.conf", "POWERDOWNFLAG"):
        delays = [f"{key} of {where}" for where, keys in _sections(files) for key in _DELAYS if key in keys]
        yield (
            "upsmon.conf: there is no POWERDOWNFLAG, so no UPS is told to cut its power after a shutdown: the machines stay off if the "
            f"mains return before the battery is empty{f', and {list_words(delays)} has no effect' if delays else ''}",
            "Set POWERDOWNFLAG, such as to /run/nut-killpower",
        )
        return
    for where, keys in _sections(files):
        if (keys.get("sdorder") or "").startswith("-") and (delays := [key for key in _DELAYS if key in keys]):
            words = f"ups.conf, {where}: {list_words(delays)} has no effect with sdorder -1, which excludes this UPS from cutting its power"
            yield words, "Remove sdorder, or the delays"


# upsmon.conf, upsd.conf, upsd.users, nut.conf


def _check_notify_command(files: NutFiles) -> Iterator[Problem]:
    executed = [event for event, flags in files.notify_flags.items() if "EXEC" in flags]
    command = files.directive("upsmon.conf", "NOTIFYCMD")
    if executed and not command:
        words = f"upsmon.conf: NOTIFYFLAG {list_words(executed)} has EXEC, and there is no NOTIFYCMD to run"
        yield words, "Set NOTIFYCMD, or remove EXEC"
    if command and not executed:
        yield (
            "upsmon.conf: NOTIFYCMD is never run, because no NOTIFYFLAG has EXEC: without one, upsmon only logs an event and tells the "
            "terminals",
            "Add a NOTIFYFLAG with EXEC for each type of event that it is meant for, such as {ONBATT: [SYSLOG, WALL, EXEC]}",
        )


def _check_messages(files: NutFiles) -> Iterator[Problem]:
    ignored = [event for event, flags in files.notify_flags.items() if "IGNORE" in flags]
    for line in _lines(files, "NOTIFYMSG"):
        event = line.values[0].upper() if line.values else ""
        if event in ignored:
            yield (
                f"upsmon.conf: NOTIFYMSG {event} has no effect, because its NOTIFYFLAG is IGNORE",
                "Remove one of them",
            )


def _check_foreign_primary(files: NutFiles) -> Iterator[Problem]:
    own = {address for address, _port in files.listening}
    for monitor in files.monitors:
        is_own = monitor.host in own or is_loopback(monitor.host)
        if monitor.type in PRIMARY and not is_own:
            yield (
                f"upsmon.conf: MONITOR {monitor.system} is of type primary, and that upsd runs on another host: `upsmon -c fsd` here would "
                "shut down every machine on that UPS",
                "Make it secondary, unless this host is to decide for them",
            )


def _check_tls(files: NutFiles) -> Iterator[Problem]:
    if (files.directive("upsd.conf", "DISABLE_WEAK_SSL") or "").lower() in _TRUE and not files.directive(
        "upsd.conf", "CERTPATH"
    ):
        words = "upsd.conf: DISABLE_WEAK_SSL has no effect without CERTPATH: upsd offers no TLS at all"
        yield words, "Set nut_server_tls, or remove it"
    if not files.directive("upsmon.conf", "CERTPATH") and _lines(files, "CERTIDENT"):
        yield "upsmon.conf: CERTIDENT has no effect without CERTPATH", "Set both"
    hosts = {monitor.host for monitor in files.monitors}
    for line in _lines(files, "CERTHOST"):
        if hosts and line.values and line.values[0].strip("[]") not in hosts:
            yield (
                f"upsmon.conf: CERTHOST {line.values[0]} has no effect, because no MONITOR line has that host, but "
                f"{list_words(sorted(hosts))}",
                "Write the host as in the MONITOR line",
            )


def _check_listeners(files: NutFiles) -> Iterator[Problem]:
    """Find secondaries that can't connect, because upsd listens on loopback only."""
    others = [name for name, user in files.users.items() if user.type in SECONDARY]
    if others and "upsd.conf" in files and not is_reachable(files["upsd.conf"]):
        words = f"upsd.conf: upsd listens on loopback only, so {list_words(others)} of upsd.users can't log in from another host"
        yield words, "Let nut_server_listen have an address of this host"


def _check_repeated(files: NutFiles) -> Iterator[Problem]:
    """Find directives that are set several times, such as by extra lines: one value hides the other."""
    for name in DIRECTIVES:
        lines: dict[str, list[tuple[str, ...]]] = {}
        if name == "nut.conf":
            for text in files.get(name, "").split("\n"):
                if found := ASSIGNMENT.fullmatch(text):
                    lines.setdefault(found[1], []).append((found[2],))
        elif name != "upsd.users":
            for line in files.statements(name):
                if not line.section and (directive := _repeatable_name(name, line)):
                    lines.setdefault(directive, []).append(line.values)
        for directive, values in lines.items():
            if len(set(values)) > 1:
                count = "twice" if len(values) == 2 else f"{len(values)} times"
                # values may be secrets
                yield f"{name}: {directive} is set {count}, and only the last line counts", "Remove the others"


def _repeatable_name(file: str, line: Statement) -> str:
    """Return the name under which a line hides an earlier one: with its type of event, if it has one. "" if it hides none."""
    kind = line.directive.kind if line.directive else ""
    if kind in ("notifymsg", "notifyflag") and line.values:
        return f"{line.name} {line.values[0].upper()}"
    return "" if kind in _SEVERAL or line.name not in DIRECTIVES[file] else line.name


def _check_options(files: NutFiles) -> Iterator[Problem]:
    for text in files.get("nut.conf", "").split("\n"):
        found = ASSIGNMENT.fullmatch(text)
        if found and found[1] in _OF_INIT_SCRIPTS and found[2].strip("\"'"):
            daemon = _OF_INIT_SCRIPTS[found[1]]
            words = f"nut.conf: {found[1]} has no effect: systemd starts {daemon} without it"
            yield words, f"For a debug level, set DEBUG_MIN in {daemon}.conf"


_CHECKS: tuple[Check, ...] = (
    _check_low_marks,
    _check_overrides,
    _check_usbhid_flags,
    _check_cut,
    _check_notify_command,
    _check_messages,
    _check_foreign_primary,
    _check_tls,
    _check_listeners,
    _check_repeated,
    _check_options,
    *RULE_CHECKS,
)


def _lines(files: NutFiles, directive: str) -> list[Statement]:
    return [line for line in files.statements("upsmon.conf") if line.words[0] == directive]
