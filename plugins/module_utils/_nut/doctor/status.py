# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How it stands, on one screen: each UPS, who is logged in and would be waited for, and what happened last, in plain words.

The texts of NUT's daemons are those of 2.8.0 to 2.8.5 (clients/upsmon.c, server/*.c, drivers/).
"""

from __future__ import annotations

import calendar
import re
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..base import hostnames, records, systemd
from ..base.text import printable
from ..conf.release import dotted
from ..net import readings, snapshot
from ..net.vocabulary import status_words

YEAR = 365.25 * 86400
EVENTS = 12
WIDTH = 120
DATES = ("battery.date", "battery.mfr.date")
"""Where a UPS says how old its battery is."""


@dataclass(frozen=True)
class _Pattern:
    """How a daemon says something, and what it means. {0} is what the first group of the pattern found. bad: it is a trouble."""

    said: re.Pattern[str]
    words: str
    bad: bool = False


def _p(said: str, words: str, bad: bool = False) -> _Pattern:
    return _Pattern(re.compile(said), words, bad)


_UPS = r"(?:UPS )?\[?([A-Za-z0-9_.-]+)(?:@[^\s\]]*)?\]?"
_PATTERNS = (
    _p(rf"{_UPS} on battery$", "mains failed: {0} is on battery"),
    _p(rf"{_UPS} on line power$", "mains are back: {0}"),
    _p(rf"{_UPS} battery is low$", "battery of {0} is low"),
    _p(rf"{_UPS}: forced shutdown in progress$", "shutdown of all on {0} has begun (FSD)"),
    _p(r"Auto logout and shutdown proceeding", "this host's shutdown begins"),
    _p(r"Executing automatic power-fail shutdown", "upsmon begins the shutdown"),
    _p(rf"Communications with {_UPS} lost$", "contact with {0} lost", bad=True),
    _p(rf"Communications with {_UPS} established$", "contact with {0} is there again"),
    _p(rf"{_UPS} is unavailable$", "{0} has been without contact for long", bad=True),
    _p(rf"{_UPS} battery needs to be replaced$", "battery of {0} wants to be replaced", bad=True),
    _p(rf"{_UPS}: calibration in progress$", "{0} calibrates"),
    _p(rf"{_UPS}: calibration finished$", "{0} has calibrated"),
    _p(r"upsmon parent process died - shutdown impossible", "upsmon's parent died: it could not shut down", bad=True),
    _p(rf"Login on {_UPS} failed - got \[(.*)\]", "upsd refused upsmon's login to {0} ({1})", bad=True),
    _p(rf"Poll {_UPS} failed - (.*)", "upsmon could not ask for {0}: {1}", bad=True),
    _p(rf"{_UPS}: connect failed: (.*)", "upsmon could not reach upsd of {0}: {1}", bad=True),
    _p(rf"Data for {_UPS} is stale - check driver", "driver of {0} hears nothing from it", bad=True),
    _p(rf"{_UPS} data is no longer stale", "driver of {0} hears from it again"),
    _p(rf"Can't connect to {_UPS} \(.*\): (.*)", "upsd can't reach the driver of {0}: {1}", bad=True),
    _p(rf"Connected to {_UPS}: ", "upsd has found the driver of {0}"),
    _p(r"User (\S+?)@(\S+) logged into UPS \[(\S+)\]", "{0} ({1}) logged in to {2}"),
    _p(r"User (\S+?)@(\S+) logged out from UPS \[(\S+)\]", "{0} ({1}) logged out from {2}"),
    _p(r"Client (\S+?)@(\S+) set FSD on UPS \[(\S+)\]", "{0} ({1}) began the shutdown of {2}"),
    _p(r"not listening on (.*)", "upsd could not listen on {0}", bad=True),
    _p(r"Can't bind TCP socket: (.*)", "upsd could not listen: {0}", bad=True),
    _p(r"insufficient permissions on everything", "driver may not use its USB device", bad=True),
    _p(r"No matching (?:USB/)?HID UPS found|No matching USB device found|No supported devices found", "driver found no UPS", bad=True),
    _p(r"[Cc]an't claim USB device (.*)", "driver can't have the USB device {0}", bad=True),
    _p(r"Fatal error: (.*)", "driver refuses its section of ups.conf: {0}", bad=True),
    _p(r"upsmon.conf line (\d+): invalid directive (.*)", "upsmon ignores line {0} of upsmon.conf", bad=True),
    _p(r"Parse error: (\S+): line (\d+): (.*)", "{0}, line {1} can't be read: {2}", bad=True),
    _p(r"Failed with result '(.*)'", "the unit failed ({0})", bad=True),
    _p(r"^Started nut-monitor|^Started .*(?:power device monitor|upsmon)", "upsmon was started"),
    _p(r"^Stopped .*(?:power device monitor|upsmon)", "upsmon was stopped"),
    _p(r"^Started .*(?:power devices information server|upsd)", "upsd was started"),
    _p(r"^Stopped .*(?:power devices information server|upsd)", "upsd was stopped"),
)  # fmt: skip
# what our own programs say is in plain words already
_OURS = (systemd.GATE, systemd.STAGES, systemd.WATCH, systemd.HOTPLUG)
_SYSTEMDS = re.compile(
    r"(?:Starting|Started|Stopping|Stopped|Reloading|Reloaded|Finished|Deactivated) "
    r"|.*: (?:Deactivated|Succeeded|Consumed|Main process|Failed with|Scheduled|Control process|Killing|Unit process|Found left-over)"
)


def is_systemds(words: str) -> bool:
    """Say whether a line of a unit's journal is systemd's, about it."""
    return _SYSTEMDS.match(words) is not None


def in_words(unit: str, words: str) -> tuple[str, bool] | None:
    """Say in plain words what a line of the journal means, and whether it is a trouble. None if it says nothing to people."""
    for pattern in _PATTERNS:
        found = pattern.said.search(words)
        if found:
            who = f" ({unit.removesuffix('.service')})" if pattern.words.startswith(("the unit", "driver ")) else ""
            told = pattern.words.format(*(printable(one or "", 80) for one in found.groups()))
            return told + ("" if "driver of {0}" in pattern.words else who), pattern.bad
    if unit in _OURS and not is_systemds(words):
        return f"{unit.removesuffix('.service')}: {printable(words, 150)}", False
    return None


def events(journal: Iterable[Any], most: int = EVENTS) -> list[tuple[float, str]]:
    """Return the last events of a journal (examine.Entry): when, and what in words; the newest last. Equal ones in a row are one."""
    found: list[tuple[float, str]] = []
    times = 1
    for entry in sorted(journal, key=lambda one: one.at):
        told = in_words(entry.unit, entry.words)
        if told is None:
            continue
        plain = re.sub(r" \([0-9]+ times\)$", "", found[-1][1]) if found else ""
        if told[0] == plain:
            times += 1
            found[-1] = entry.at, f"{plain} ({times} times)"
        else:
            times = 1
            found.append((entry.at, told[0]))
    return found[-most:]


def troubles(journal: Iterable[Any]) -> list[tuple[str, int, float]]:
    """Return what went wrong: in words, how often, and when last; what was last comes first."""
    found: dict[str, tuple[int, float]] = {}
    for entry in journal:
        told = in_words(entry.unit, entry.words)
        if told and told[1]:
            times, last = found.get(told[0], (0, 0.0))
            found[told[0]] = times + 1, max(last, entry.at)
    return sorted(((words, times, last) for words, (times, last) in found.items()), key=lambda one: -one[2])


_DATE = (
    (re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"), (0, 1, 2)),
    (re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})"), (2, 0, 1)),
    (re.compile(r"(\d{4})[-/.](\d{1,2})"), (0, 1, None)),
)


def date(text: str) -> float | None:
    """Read a date of a battery as makers write it (2023/05/31, 05/31/23, 2023-05). Seconds since 1970, or None if it is none.

    APC's 05/31/23 has the month first.
    """
    for pattern, (year, month, day) in _DATE:
        found = pattern.fullmatch(text.strip())
        if found:
            numbers = [int(one) for one in found.groups()]
            given = numbers[year] + (2000 if numbers[year] < 100 else 0)
            when = (given, numbers[month], 1 if day is None else numbers[day])
            if 1990 <= when[0] <= 2099 and 1 <= when[1] <= 12 and 1 <= when[2] <= calendar.monthrange(*when[:2])[1]:
                return float(calendar.timegm((*when, 0, 0, 0)))
    return None


def state_words(state: snapshot.UpsState) -> str:
    """Say how a UPS stands: on mains, charging."""
    return status_words(state.status) if state.fresh else f"no data ({state.error or 'its driver is starting'})"


# One screen


@dataclass(frozen=True)
class UpsFacts:
    """What status() shows of a UPS. None: not known, or it does not say so."""

    name: str
    description: str
    status: tuple[str, ...]
    words: str
    fresh: bool
    charge: float | None  # percent
    runtime: float | None  # s
    load: float | None  # percent
    battery_date: str | None
    model: str
    clients: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What status() shows of a primary."""

    now: float
    release: str | None
    upsd: str | None  # why upsd could not be asked
    upses: tuple[UpsFacts, ...]
    addresses: Mapping[str, tuple[str, ...]]  # of the secondaries
    events: tuple[tuple[float, str], ...]


def read_facts(data: object) -> Facts:
    """Return what a host has sent as facts(), with the right types and nothing in it that a terminal obeys. Raises RecordError."""
    return records.build(Facts, data, "seen", lambda text: printable(text, 300))


def facts(seen: Any, most: int = EVENTS) -> dict[str, Any]:
    """Return what status() shows of a primary, from examine.Seen, as data for JSON."""
    served = seen.served
    upses = [] if served is None or isinstance(served, str) else served.report.upses
    return {
        "now": seen.now,
        "release": dotted(seen.release) if seen.release else None,
        "upsd": served if isinstance(served, str) else None,
        "upses": [
            {
                "name": one.name,
                "description": one.description,
                "status": list(one.status),
                "words": state_words(one),
                "fresh": one.fresh,
                "charge": one.reading.charge,
                "runtime": one.reading.runtime,
                "load": readings.quantity(one.variables.get("ups.load")),
                "battery_date": next((one.variables[name] for name in DATES if one.variables.get(name)), None),
                "model": " ".join(one.variables[name] for name in ("device.mfr", "device.model") if one.variables.get(name)),
                "clients": list(one.clients),
            }
            for one in upses
        ],
        "addresses": {name: list(those) for name, those in seen.addresses.items() if not isinstance(those, str)},
        "events": [[at, words] for at, words in events(seen.journal, most)],
    }  # fmt: skip


def status(primaries: Mapping[str, object], clients: Sequence[Mapping[str, Any]], *, width: int = WIDTH) -> str:
    """Show it on one screen. primaries: name -> facts(), or why there are none. clients: the secondaries, as site.clients lists them.

    A host whose facts are none hides no other.
    """
    lines: list[str] = []
    for name, given in primaries.items():
        lines += [""] if lines else []
        seen = given
        if not isinstance(seen, str):
            try:
                seen = read_facts(given)
            except records.RecordError as error:
                seen = f"its answer can't be read: {error}"
        if isinstance(seen, str):
            lines += textwrap.wrap(f"{name}: {printable(seen, 300)}", width, subsequent_indent="  ")
        else:
            lines += _primary(name, seen, [one for one in clients if one["primary"] == name], width)
    return "\n".join(lines)


def _primary(name: str, seen: Facts, clients: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    lines = [name + (f", NUT {seen.release}" if seen.release else "")]
    if seen.upsd:
        lines += textwrap.wrap(f"  {seen.upsd}", width, subsequent_indent="  ")
    for ups in seen.upses:
        lines += _ups(ups, clients, seen.addresses, width)
    if not seen.events:
        return [*lines, "  no events in the journal"]
    lines.append("  last events:")
    for at, words in seen.events:
        lines += textwrap.wrap(f"    {_moment(at)}  {words}", width, subsequent_indent=" " * 24)
    return lines


def _ups(
    ups: UpsFacts, clients: Sequence[Mapping[str, Any]], addresses: Mapping[str, Sequence[str]], width: int
) -> list[str]:
    numbers = [
        f"{label} {value:g} %" for label, value in (("charge", ups.charge), ("load", ups.load)) if value is not None
    ]
    if ups.runtime is not None:
        numbers.insert(1 if ups.charge is not None else 0, f"lasts {duration(ups.runtime)}")
    if ups.battery_date:
        numbers.append(f"battery of {printable(ups.battery_date, 20)}")
    model = f" ({printable(ups.model, 60)})" if ups.model else ""
    lines = textwrap.wrap(
        f"  {ups.name}{model}: {', '.join([ups.words or 'no status', *numbers])}", width, subsequent_indent="    "
    )
    there = {hostnames.normal_address(one) for one in ups.clients}
    told: list[str] = []
    for one in [each for each in clients if each["ups"].lower() == ups.name.lower()]:
        those = set(addresses.get(one["name"], ()))
        how = "logged in" if those & there else "NOT logged in"
        told.append(
            f"{one['name']} ({how}; waited for {one['shutdown_time']:g} s, at most {one['shutdown_limit']:g} s)"
        )
        there -= those
    own = hostnames.LOOPBACK in there
    others = sorted(there - {hostnames.LOOPBACK})
    told += [
        f"this host ({'logged in' if own else 'NOT logged in'})",
        *(f"{one} (not in the inventory)" for one in others),
    ]
    return lines + textwrap.wrap(f"    on it: {', '.join(told)}", width, subsequent_indent="      ")


def duration(seconds: float) -> str:
    """Write a time that a battery lasts: 95 s, 12 min, 2 h 5 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
