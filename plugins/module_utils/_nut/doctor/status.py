# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How it stands, on one screen: each UPS, who is logged in and would be waited for, and what happened last, in plain words."""

from __future__ import annotations

import calendar
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..base import hostnames, records
from ..base.text import printable
from ..conf.release import format_release
from ..net import readings, snapshot
from ..net.vocabulary import describe_status
from .journal import list_events
from .observe import Observation, UpsdAnswer

YEAR = 365.25 * 86400
EVENTS = 12
WIDTH = 120
DATES = ("battery.date", "battery.mfr.date")
"""Where a UPS says how old its battery is."""

_DATE = (
    (re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"), (0, 1, 2)),
    (re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})"), (2, 0, 1)),
    (re.compile(r"(\d{4})[-/.](\d{1,2})"), (0, 1, None)),
)


def parse_date(text: str) -> float | None:
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


def describe_state(state: snapshot.UpsState) -> str:
    """Return how a UPS stands: on mains, charging."""
    return describe_status(state.status) if state.fresh else f"no data ({state.error or 'its driver is starting'})"


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
    return records.build_record(Facts, data, "seen", lambda text: printable(text, 300))


def collect_facts(seen: Observation, most: int = EVENTS) -> dict[str, Any]:
    """Return Facts of a primary, as data for JSON."""
    served = seen.served
    return asdict(
        Facts(
            now=seen.now,
            release=format_release(seen.release) if seen.release else None,
            upsd=served if isinstance(served, str) else None,
            upses=tuple(map(_ups_facts, served.report.upses)) if isinstance(served, UpsdAnswer) else (),
            addresses={name: those for name, those in seen.addresses.items() if not isinstance(those, str)},
            events=tuple(list_events(seen.journal, most)),
        )
    )


def _ups_facts(ups: snapshot.UpsState) -> UpsFacts:
    return UpsFacts(
        name=ups.name,
        description=ups.description,
        status=tuple(ups.status),
        words=describe_state(ups),
        fresh=ups.fresh,
        charge=ups.reading.charge,
        runtime=ups.reading.runtime,
        load=readings.parse_quantity(ups.variables.get("ups.load")),
        battery_date=next((ups.variables[name] for name in DATES if ups.variables.get(name)), None),
        model=" ".join(ups.variables[name] for name in ("device.mfr", "device.model") if ups.variables.get(name)),
        clients=tuple(ups.clients),
    )


def format_status(primaries: Mapping[str, object], clients: Sequence[Mapping[str, Any]], *, width: int = WIDTH) -> str:
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
            lines += _primary_lines(name, seen, [one for one in clients if one["primary"] == name], width)
    return "\n".join(lines)


def _primary_lines(name: str, seen: Facts, clients: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    lines = [name + (f", NUT {seen.release}" if seen.release else "")]
    if seen.upsd:
        lines += textwrap.wrap(f"  {seen.upsd}", width, subsequent_indent="  ")
    for ups in seen.upses:
        lines += _ups_lines(ups, clients, seen.addresses, width)
    if not seen.events:
        return [*lines, "  no events in the journal"]
    lines.append("  last events:")
    for at, words in seen.events:
        lines += textwrap.wrap(f"    {_format_time(at)}  {words}", width, subsequent_indent=" " * 24)
    return lines


def _ups_lines(
    ups: UpsFacts, clients: Sequence[Mapping[str, Any]], addresses: Mapping[str, Sequence[str]], width: int
) -> list[str]:
    numbers = [
        f"{label} {value:g} %" for label, value in (("charge", ups.charge), ("load", ups.load)) if value is not None
    ]
    if ups.runtime is not None:
        numbers.insert(1 if ups.charge is not None else 0, f"lasts {format_duration(ups.runtime)}")
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


def format_duration(seconds: float) -> str:
    """Write a time that a battery lasts: 95 s, 12 min, 2 h 5 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _format_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
