# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The status on one screen: each UPS, the machines that are logged in to it, and the last events."""

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
"""Variables with the date of the battery, best first."""

_DATE = (
    (re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"), (0, 1, 2)),
    (re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})"), (2, 0, 1)),
    (re.compile(r"(\d{4})[-/.](\d{1,2})"), (0, 1, None)),
)


def parse_date(text: str) -> float | None:
    """Return a battery date as seconds since 1970, None if the text is not a date.

    Vendors write 2023/05/31, 2023-05, or 05/31/23 (APC: month first).
    """
    for pattern, (year, month, day) in _DATE:
        match = pattern.fullmatch(text.strip())
        if match:
            numbers = [int(number) for number in match.groups()]
            century = 2000 if numbers[year] < 100 else 0
            when = (century + numbers[year], numbers[month], 1 if day is None else numbers[day])
            if 1990 <= when[0] <= 2099 and 1 <= when[1] <= 12 and 1 <= when[2] <= calendar.monthrange(*when[:2])[1]:
                return float(calendar.timegm((*when, 0, 0, 0)))
    return None


def describe_state(state: snapshot.UpsState) -> str:
    """Return the state of a UPS in words, such as "on mains, charging"."""
    return describe_status(state.status) if state.fresh else f"no data ({state.error or 'its driver is starting'})"


# One screen


@dataclass(frozen=True)
class UpsFacts:
    """What the status shows of a UPS. None: not known."""

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
    """What the status shows of a primary."""

    now: float
    release: str | None
    upsd: str | None  # why upsd could not be queried
    upses: tuple[UpsFacts, ...]
    addresses: Mapping[str, tuple[str, ...]]  # of the secondaries, by name
    events: tuple[tuple[float, str], ...]


def read_facts(data: object) -> Facts:
    """Return the facts that a host has sent: with checked types, and without terminal control characters. Raises RecordError."""
    return records.build_record(Facts, data, "seen", lambda text: printable(text, 300))


def collect_facts(seen: Observation, most: int = EVENTS) -> dict[str, Any]:
    """Return the Facts of a primary, as data for JSON."""
    served = seen.served
    return asdict(
        Facts(
            now=seen.now,
            release=format_release(seen.release) if seen.release else None,
            upsd=served if isinstance(served, str) else None,
            upses=tuple(map(_ups_facts, served.report.upses)) if isinstance(served, UpsdAnswer) else (),
            addresses={name: given for name, given in seen.addresses.items() if not isinstance(given, str)},
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
    """Return the status as text. A host with bad facts does not hide the others.

    primaries: name -> the data of collect_facts(), or why there is none. clients: the secondaries, as the filter clients lists them.
    """
    lines: list[str] = []
    for name, given in primaries.items():
        lines += [""] if lines else []
        seen = given
        if not isinstance(seen, str):
            try:
                seen = read_facts(given)
            except records.RecordError as error:
                seen = f"bad answer: {error}"
        if isinstance(seen, str):
            lines += textwrap.wrap(f"{name}: {printable(seen, 300)}", width, subsequent_indent="  ")
        else:
            lines += _primary_lines(name, seen, [client for client in clients if client["primary"] == name], width)
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
        numbers.append(f"battery from {printable(ups.battery_date, 20)}")
    model = f" ({printable(ups.model, 60)})" if ups.model else ""
    lines = textwrap.wrap(
        f"  {ups.name}{model}: {', '.join([ups.words or 'no status', *numbers])}", width, subsequent_indent="    "
    )
    logged_in = {hostnames.normal_address(address) for address in ups.clients}
    machines: list[str] = []
    for client in [client for client in clients if client["ups"].lower() == ups.name.lower()]:
        own_addresses = set(addresses.get(client["name"], ()))
        login = "logged in" if own_addresses & logged_in else "NOT logged in"
        machines.append(
            f"{client['name']} ({login}; takes {client['shutdown_time']:g} s, at most {client['shutdown_limit']:g} s)"
        )
        logged_in -= own_addresses
    machines.append(f"this host ({'logged in' if hostnames.LOOPBACK in logged_in else 'NOT logged in'})")
    machines += [f"{address} (not in the inventory)" for address in sorted(logged_in - {hostnames.LOOPBACK})]
    return lines + textwrap.wrap(f"    machines: {', '.join(machines)}", width, subsequent_indent="      ")


def format_duration(seconds: float) -> str:
    """Return a runtime as text: 95 s, 12 min, 2 h 5 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _format_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
