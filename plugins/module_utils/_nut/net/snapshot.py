# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What upsd serves and which clients are logged in: queried once, or until everything is as expected. Nothing here logs in."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..base import hostnames
from ..base.hostnames import normal_address
from .client import UpsdClient, VariableType
from .errors import MEANINGS, UnknownUps, UpsdError, UpsdFailure, VarNotSupported, explain_error
from .readings import Reading, read_variables
from .vocabulary import ABSENT, split_status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

VARIABLES, CLIENTS, COMMANDS, WRITABLE = "variables", "clients", "commands", "writable"

GATHER = (VARIABLES, CLIENTS, COMMANDS, WRITABLE)
"""What a snapshot can hold of a UPS, besides its name, description and status."""

GATHER_DEFAULT = (VARIABLES, CLIENTS)
"""What a snapshot holds by default."""

_RETRY_INTERVAL = 1.0


@dataclass(frozen=True)
class WritableVariable:
    """A variable that can be set."""

    name: str
    value: str
    description: str
    type: VariableType
    values: tuple[str, ...] = ()  # allowed values; () if upsd lists none
    ranges: tuple[tuple[int, int], ...] = ()  # allowed ranges (minimum, maximum); () if upsd lists none


@dataclass(frozen=True)
class UpsState:
    """What upsd reports about one UPS at one moment."""

    name: str
    description: str
    status: tuple[str, ...]  # flags of ups.status
    fresh: bool  # whether upsd serves its data, with a status
    error: str | None  # upsd's code if not fresh, such as DATA-STALE; None while the driver is still starting
    variables: Mapping[str, str]
    clients: tuple[str, ...]  # addresses of the clients that are logged in, as upsd writes them
    num_logins: int | None  # None if upsd does not answer
    commands: Mapping[str, str] = field(default_factory=dict)  # name -> description
    writable: Mapping[str, WritableVariable] = field(default_factory=dict)

    @property
    def is_stand_in(self) -> bool:
        """Return whether this is what upsd serves in the place of a UPS that is not plugged in."""
        return ABSENT in self.status

    @property
    def reading(self) -> Reading:
        """Return the reading of its power."""
        return read_variables(self.variables, self.status)


def take_snapshot(
    client: UpsdClient, names: Iterable[str] | None = None, gather: Collection[str] = GATHER_DEFAULT
) -> tuple[UpsState, ...]:
    """Return the state of the UPSes with these names (case does not matter), by default of all, in upsd's order.

    gather: what to query (members of GATHER); the rest stays empty. The status is queried even without VARIABLES.
    Raises UnknownUps if upsd does not serve one of the names, and Unreachable.
    """
    served = client.list_ups()
    wanted = list(served)
    if names is not None:
        known = {name.lower(): name for name in served}
        for name in names:
            if name.lower() not in known:
                others = ", ".join(served) or "none"
                raise UnknownUps("UNKNOWN-UPS", client.address, f"the question for {name!r}", f"it serves {others}")
        asked = {name.lower() for name in names}
        wanted = [name for name in served if name.lower() in asked]
    descriptions: dict[str, str] = {}
    return tuple(_read_state(client, name, served[name], gather, descriptions) for name in wanted)


def _read_state(
    client: UpsdClient, name: str, description: str, gather: Collection[str], descriptions: dict[str, str]
) -> UpsState:
    """Return the state of a UPS. descriptions: those known so far of commands and variables, the same for all UPSes."""
    error: str | None = None
    variables: dict[str, str] = {}
    status: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    num_logins: int | None = None
    commands: dict[str, str] = {}
    writable: dict[str, WritableVariable] = {}
    try:
        if VARIABLES in gather:
            variables = client.list_vars(name)
            status = split_status(variables.get("ups.status", ""))
        else:
            status = _read_status(client, name)
        if CLIENTS in gather:
            num_logins = client.num_logins(name)
        if COMMANDS in gather:
            commands = describe_commands(client, name, descriptions)
        if WRITABLE in gather:
            for variable, value in client.list_rw(name).items():
                writable[variable] = _read_writable(client, name, variable, value, descriptions)
    except UpsdError as trouble:
        error = trouble.code
    if CLIENTS in gather:
        try:
            clients = client.list_clients(name)
        except UpsdError as trouble:
            error = error or trouble.code
    return UpsState(
        name=name,
        description=description,
        status=status,
        # A driver that has not heard from its UPS yet has no status, or the status WAIT.
        fresh=error is None and bool(status) and "WAIT" not in status,
        error=error,
        variables=variables,
        clients=clients,
        num_logins=num_logins,
        commands=commands,
        writable=writable,
    )


def _read_status(client: UpsdClient, ups: str) -> tuple[str, ...]:
    try:
        return split_status(client.get_var(ups, "ups.status"))
    except VarNotSupported:
        return ()


def describe_commands(client: UpsdClient, ups: str, descriptions: dict[str, str]) -> dict[str, str]:
    """Return the commands of a UPS with upsd's descriptions. Descriptions that are known already are not queried again."""
    described = {}
    for command in client.list_cmds(ups):
        key = f"command {command.lower()}"
        if key not in descriptions:
            descriptions[key] = _clean_description(client.get_cmddesc(ups, command))
        described[command] = descriptions[key]
    return described


def find_writable(client: UpsdClient, ups: str, name: str) -> WritableVariable | None:
    """Return a variable with its allowed values; None if it can't be set. Raises what get_var raises."""
    for known, value in client.list_rw(ups).items():
        if known.lower() == name.lower():
            return _read_writable(client, ups, known, value, {})
    client.get_var(ups, name)
    return None


def _read_writable(
    client: UpsdClient, ups: str, name: str, value: str, descriptions: dict[str, str]
) -> WritableVariable:
    key = f"variable {name.lower()}"
    if key not in descriptions:
        descriptions[key] = _clean_description(client.get_desc(ups, name))
    kind = client.get_type(ups, name)
    return WritableVariable(
        name=name,
        value=value,
        description=descriptions[key],
        type=kind,
        values=client.list_enum(ups, name) if kind.enum else (),
        ranges=client.list_range(ups, name) if kind.range else (),
    )


def _clean_description(text: str) -> str:
    """Return a description, "" for upsd's placeholder (server/netget.c)."""
    return "" if text == "Description unavailable" else text


def list_not_on_mains(states: Iterable[UpsState]) -> list[str]:
    """Return the UPSes that are not plainly on mains, with their status: ``ups (OB LB)``. UPSes without data are left out."""
    return [f"{state.name} ({' '.join(state.status)})" for state in states if state.fresh and state.reading.risks]


@dataclass(frozen=True)
class MissingClient:
    """An expected client that is not logged in."""

    name: str
    addresses: tuple[str, ...]  # () if the name could not be resolved
    why: str


@dataclass(frozen=True)
class UpsdReport:
    """What upsd serves, and how that compares to what is expected."""

    version: str  # of upsd
    protocol: str  # its version
    upses: tuple[UpsState, ...]
    missing: tuple[MissingClient, ...]
    stale: tuple[tuple[str, str], ...]  # the name of each UPS that is not fresh, with the reason
    message: str  # all of it in one line
    unexpected: tuple[str, ...] = ()  # addresses logged in that are no expected client's; () if none was expected
    tls_version: str | None = None  # None if the connection was not encrypted
    tls_expires: datetime | None = None  # of upsd's certificate; None if the connection was not encrypted

    @property
    def is_ok(self) -> bool:
        """Return whether there is a UPS, every UPS is fresh, and every expected client is logged in."""
        return bool(self.upses) and not self.stale and not self.missing


def observe_upsd(
    client: UpsdClient,
    ups: Sequence[str] | None = None,
    expected_clients: Sequence[str] = (),
    addresses_of: hostnames.Resolve = hostnames.resolve_name,
    gather: Collection[str] = GATHER_DEFAULT,
) -> UpsdReport:
    """Query upsd once, through an open client, for the named UPSes (default: all) and the clients logged in to them.

    An expected client is an address or a name; it is present if one of its addresses is logged in to any of these UPSes.
    gather: as for take_snapshot(); CLIENTS is implied by expected clients. Raises what take_snapshot() raises.
    """
    version, protocol = client.get_version(), client.get_net_version()
    upses = take_snapshot(client, ups, {*gather, CLIENTS} if expected_clients else gather)
    tls_version, tls_expires = client.tls_version, client.peer_not_after
    logged_in = tuple(dict.fromkeys(normal_address(address) for state in upses for address in state.clients))
    missing: list[MissingClient] = []
    known: set[str] = set()
    resolved, problems = hostnames.resolve_names(expected_clients, client.timeout, addresses_of)
    for name in expected_clients:
        if name in problems:
            missing.append(MissingClient(name, (), f"cannot be resolved ({explain_error(problems[name])})"))
            continue
        addresses = tuple(dict.fromkeys(map(normal_address, resolved[name])))
        known.update(addresses)
        if not set(addresses) & set(logged_in):
            missing.append(MissingClient(name, addresses, "has not logged in"))
    stale = tuple((state.name, _explain_stale(state)) for state in upses if not state.fresh)
    message = _compose_message(client.address, upses, logged_in, missing, expected_clients)
    unexpected = tuple(address for address in logged_in if address not in known) if expected_clients else ()
    return UpsdReport(version, protocol, upses, tuple(missing), stale, message, unexpected, tls_version, tls_expires)


def wait_until_ok(
    open_client: Callable[[], UpsdClient],
    ups: Sequence[str] | None = None,
    expected_clients: Sequence[str] = (),
    *,
    wait: float = 0.0,
    gather: Collection[str] = GATHER_DEFAULT,
    addresses_of: hostnames.Resolve = hostnames.resolve_name,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> UpsdReport:
    """Query upsd once a second until everything is as expected, or for ``wait`` seconds; return the last report.

    Each query uses its own connection. If the last query failed, its exception is raised: Unreachable, or UnknownUps (a UPS
    may be missing for a moment while upsd reads its files). Earlier failures are ignored.
    """
    end = clock() + wait
    while True:
        failure: UpsdFailure | None = None
        try:
            with open_client() as client:
                report = observe_upsd(client, ups, expected_clients, addresses_of, gather)
            if report.is_ok:
                return report
        except UpsdFailure as error:
            failure = error
        left = end - clock()
        if left <= 0:
            if failure is not None:
                raise failure
            return report
        sleep(min(_RETRY_INTERVAL, left))


def _explain_stale(state: UpsState) -> str:
    if state.error is not None:
        return f"{state.error}: {MEANINGS[state.error]}" if state.error in MEANINGS else state.error
    return "its driver has no status yet"


def _compose_message(
    where: str,
    upses: Sequence[UpsState],
    logged_in: Sequence[str],
    missing: Sequence[MissingClient],
    expected: Sequence[str],
) -> str:
    served = [
        f"{state.name} ({' '.join(state.status)}) with fresh data"
        if state.fresh
        else f"{state.name} without fresh data ({_explain_stale(state)})"
        for state in upses
    ]
    parts = [f"upsd at {where} serves {', '.join(served) or 'no UPS'}"]
    absent = {client.name for client in missing}
    present = [name for name in expected if name not in absent]
    if present:
        parts.append(f"logged in as expected: {', '.join(present)}")
    for client in missing:
        # don't repeat an address in brackets
        others = [address for address in client.addresses if address != normal_address(client.name)]
        parts.append(f"{client.name}{' (' + ', '.join(others) + ')' if others else ''} {client.why}")
    text = "; ".join(parts)
    return f"{text} (logged in: {', '.join(logged_in) or 'none'})" if missing else text
