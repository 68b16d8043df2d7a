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
from ..base.text import as_text, one_line, printable
from ..conf.feeds import Feeds, read_monitored_feeds
from ..conf.files import NutFiles
from ..conf.release import format_release
from ..deploy import actions
from ..net import readings, snapshot
from ..net.vocabulary import describe_status
from ..shutdown.open_starts import describe_guests
from .findings import TAKEN_AWAY
from .journal import list_events
from .observe import HostObservation, UpsdAnswer
from .outages import find_last_outage

FORMAT = 1
"""Version of the report as JSON. docs/doctor.md describes it."""
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
    power: int | None = None  # how many of the host's power supplies it feeds; None if upsmon does not monitor it


@dataclass(frozen=True)
class Facts:
    """What the status shows of a primary."""

    now: float
    release: str | None
    upsd: str | None  # why upsd could not be queried
    upses: tuple[UpsFacts, ...]
    addresses: Mapping[str, tuple[str, ...]]  # of the secondaries, by name
    events: tuple[tuple[float, str], ...]
    outage: tuple[tuple[float, str], ...] = ()  # the moments of the last power cut
    minsupplies: int = 1  # how many of its power supplies the host needs
    guests: tuple[str, ...] = ()  # lines about guests that should run, and do not
    returned: tuple[str, ...] = ()  # lines about the machines after the last outage

    @property
    def feeds(self) -> Feeds:
        """Return which of the UPSes power the host."""
        return Feeds({ups.name: ups.power for ups in self.upses if ups.power is not None}, self.minsupplies)


def read_facts(data: object) -> Facts:
    """Return the facts that a host has sent: with checked types, and without terminal control characters. Raises RecordError."""
    return records.build_record(Facts, data, "seen", lambda text: printable(text, 300))


def collect_facts(seen: HostObservation, most: int = EVENTS) -> dict[str, Any]:
    """Return the Facts of a primary, as data for JSON."""
    served = seen.served
    files = NutFiles({name: file.text for name, file in seen.files.items()})
    upses = served.report.upses if isinstance(served, UpsdAnswer) else ()
    own = [ups.name for ups in upses]
    outage = find_last_outage(seen.shutdown_log, seen.journal)
    hidden = (outage[0][0], outage[-1][0] + 1) if outage else (0.0, 0.0)
    feeds = read_monitored_feeds(files.monitors, files.directive("upsmon.conf", "MINSUPPLIES"), own)
    return asdict(
        Facts(
            now=seen.now,
            release=format_release(seen.release) if seen.release else None,
            upsd=_explain_upsd(served, files),
            upses=tuple(_ups_facts(ups, feeds.power.get(ups.name)) for ups in upses),
            addresses={name: given for name, given in seen.addresses.items() if not isinstance(given, str)},
            events=tuple(list_events(seen.journal, most, deployment=seen.deployed, hidden=hidden)),
            outage=outage,
            minsupplies=feeds.minsupplies,
            guests=tuple(describe_guests(seen.open_starts, seen.guest_start)),
            returned=seen.returned,
        )
    )


def _explain_upsd(served: UpsdAnswer | str | None, files: NutFiles) -> str | None:
    """Return why upsd could not be queried; None if it was."""
    if not isinstance(served, str):
        return None
    return (
        f"{TAKEN_AWAY}; make ups tags=ups brings it back" if actions.is_emptied(files.get("nut.conf", "")) else served
    )


def _ups_facts(ups: snapshot.UpsState, power: int | None) -> UpsFacts:
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
        power=power,
    )


@dataclass(frozen=True)
class Login:
    """A machine that is logged in to a UPS, or should be."""

    name: str | None  # None: not in the inventory
    address: str | None  # of a client that is not in the inventory
    logged_in: bool
    shutdown_time: float | None = None  # s
    shutdown_limit: float | None = None  # s


def list_logins(
    primary: str, ups: UpsFacts, clients: Sequence[Mapping[str, Any]], addresses: Mapping[str, Sequence[str]]
) -> list[Login]:
    """Return who should be logged in to a UPS, and who else is. clients: the secondaries of this primary."""
    logged_in = {hostnames.normal_address(address) for address in ups.clients}
    logins: list[Login] = []
    for client in [client for client in clients if client["ups"].lower() == ups.name.lower()]:
        own_addresses = set(addresses.get(client["name"], ()))
        times = (client["shutdown_time"], client["shutdown_limit"])
        logins.append(Login(client["name"], None, bool(own_addresses & logged_in), *times))
        logged_in -= own_addresses
    if ups.power is None or ups.power > 0:
        logins.append(Login(primary, None, hostnames.LOOPBACK in logged_in))
    return logins + [Login(None, address, True) for address in sorted(logged_in - {hostnames.LOOPBACK})]


def collect_answers(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """Return what each primary has answered to the module doctor: the data of collect_facts(), or why there is none."""
    answers: dict[str, object] = {}
    for name in hosts:
        check = hostvars[name].get("__nut_login")
        if isinstance(check, Mapping) and check.get("problem"):
            answers[name] = one_line(as_text(check.get("msg")))
            continue
        result = hostvars[name].get("__nut_status")
        result = result if isinstance(result, Mapping) else {}
        message = one_line(as_text(result.get("msg") or "no answer"))
        seen = result.get("seen", message)
        answers[name] = f"can't be asked: {message}" if isinstance(seen, str) else seen
    return answers


def _read_answer(answer: object) -> Facts | str:
    if isinstance(answer, str):
        return printable(answer, 300)
    try:
        return read_facts(answer)
    except records.RecordError as error:
        return printable(f"bad answer: {error}", 300)


def format_status(primaries: Mapping[str, object], clients: Sequence[Mapping[str, Any]], *, width: int = WIDTH) -> str:
    """Return the status as text. A host with bad facts does not hide the others.

    primaries: as collect_answers() returns them. clients: the secondaries, as the filter clients lists them.
    """
    lines: list[str] = []
    for name, answer in primaries.items():
        lines += [""] if lines else []
        seen = _read_answer(answer)
        if isinstance(seen, str):
            lines += textwrap.wrap(f"{name}: {seen}", width, subsequent_indent="  ")
        else:
            lines += _primary_lines(name, seen, _own_clients(name, clients), width)
    return "\n".join(lines)


def build_report(primaries: Mapping[str, object], clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the status as data for JSON. The arguments are those of format_status()."""
    hosts: list[dict[str, Any]] = []
    for name, answer in primaries.items():
        seen = _read_answer(answer)
        if isinstance(seen, str):
            hosts.append({"host": name, "error": seen})
            continue
        own = _own_clients(name, clients)
        facts = asdict(seen)
        for ups, data in zip(seen.upses, facts["upses"]):
            data["logins"] = [asdict(login) for login in list_logins(name, ups, own, seen.addresses)]
        hosts.append({"host": name, "error": None, **facts})
    return {"format": FORMAT, "hosts": hosts}


def _own_clients(primary: str, clients: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [client for client in clients if client["primary"] == primary]


def _primary_lines(name: str, seen: Facts, clients: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    lines = [name + (f", NUT {seen.release}" if seen.release else "")]
    if seen.upsd:
        lines += textwrap.wrap(f"  {seen.upsd}", width, subsequent_indent="  ")
    for ups in seen.upses:
        lines += _ups_lines(ups, list_logins(name, ups, clients, seen.addresses), width)
    if len(seen.feeds.power) > 1 and seen.feeds.upses:
        lines += textwrap.wrap(f"  {name} {seen.feeds.describe_need()}", width, subsequent_indent="    ")
    for line in seen.guests:
        lines += textwrap.wrap(f"  {line}", width, subsequent_indent="    ")
    lines += _moment_lines("last power cut", seen.outage, width)
    for line in seen.returned:
        lines += textwrap.wrap(f"  after the last outage: {line}", width, subsequent_indent="    ")
    if not seen.events:
        return [*lines, "  no other events in the journal" if seen.outage else "  no events in the journal"]
    return lines + _moment_lines("other events" if seen.outage else "last events", seen.events, width)


def _moment_lines(title: str, moments: Sequence[tuple[float, str]], width: int) -> list[str]:
    lines = [f"  {title}:"] if moments else []
    for at, words in moments:
        lines += textwrap.wrap(f"    {_format_time(at)}  {words}", width, subsequent_indent=" " * 25)
    return lines


def _ups_lines(ups: UpsFacts, logins: Sequence[Login], width: int) -> list[str]:
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
    machines = [_describe_login(login) for login in logins]
    if all(login.name is None for login in logins):
        machines.insert(0, "none that is known here")
    return lines + textwrap.wrap(f"    machines: {', '.join(machines)}", width, subsequent_indent="      ")


def _describe_login(login: Login) -> str:
    if login.name is None:
        return f"{login.address} (not in the inventory)"
    words = "logged in" if login.logged_in else "NOT logged in"
    if login.shutdown_time is None:
        return f"this host ({words})"
    return f"{login.name} ({words}; takes {login.shutdown_time:g} s, at most {login.shutdown_limit:g} s)"


def format_duration(seconds: float) -> str:
    """Return a runtime as text: 95 s, 12 min, 2 h 5 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _format_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
